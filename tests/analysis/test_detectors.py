"""Detectors side by side: the same turns through server VAD, functions and the semantic model."""

from typing import Any

import numpy as np
import pytest

from rtnb.analysis import Recording, compare_detectors, plot_detectors, sweep
from rtnb.analysis.detectors import LONGEST_WAIT_MS
from rtnb.audio import babble
from rtnb.errors import AudioError
from rtnb.vad.semantic import find_smart_turn

RATE_HZ = 16_000
FIRST, SECOND = (babble(text, rate_hz=RATE_HZ).audio for text in ("I would like to", "order a pizza"))
PAUSE_MS = 700


def turn(name: str = "one", *, tail_ms: int = 5_000) -> Recording:
    """A turn with one pause of 0.7 s, and quiet around it."""
    quiet = [np.zeros(RATE_HZ * ms // 1000, np.float32) for ms in (600, PAUSE_MS, tail_ms)]
    audio = np.concatenate([quiet[0], FIRST, quiet[1], SECOND, quiet[2]])
    end_ms = 600 + 1000 * (len(FIRST) + len(SECOND)) / RATE_HZ + PAUSE_MS
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    return Recording(audio + noise, rate_hz=RATE_HZ, name=name, turns=[(600, end_ms)])


def knows(audio: Any, rate_hz: int) -> float:
    """A perfect detector: the turn has ended when both parts were spoken."""
    return float(len(audio) / rate_hz > 0.5 + (len(FIRST) + len(SECOND)) / RATE_HZ)


def test_a_perfect_function_cuts_nothing_off_and_is_quick() -> None:
    (row,) = compare_detectors([turn()], {"knows": knows}, thresholds=[0.5], waits_ms=[192]).itertuples()
    assert (row.detector, row.cut_off, row.no_end, row.n_turns, row.n_groups) == ("knows", 0.0, 0.0, 1, 1)
    assert 150 < row.delay_ms < 400


def test_a_function_that_always_says_ended_cuts_off_in_every_longer_pause() -> None:
    table = compare_detectors([turn()], {"x": lambda a, r: 1.0}, thresholds=[0.5], waits_ms=[192, 800])
    assert table["cut_off"].tolist() == [1.0, 0.0]


def test_a_function_that_never_says_ended_waits_for_the_longest_time() -> None:
    slow, never = (
        compare_detectors([turn(tail_ms=ms)], {"x": lambda a, r: 0.0}, thresholds=[0.5], waits_ms=[192]).iloc[0]
        for ms in (5_000, 3_000)
    )
    assert slow["delay_ms"] == pytest.approx(LONGEST_WAIT_MS, abs=200)
    assert never["no_end"] == 1.0
    assert not never["front"]


def test_a_function_gets_the_turn_so_far_at_the_recordings_rate() -> None:
    asked: list[tuple[float, int]] = []

    def listen(audio: Any, rate_hz: int) -> float:
        asked.append((len(audio) / rate_hz, rate_hz))
        return 0.0

    compare_detectors([turn()], {"listen": listen}, thresholds=[0.3, 0.5], waits_ms=[192, 384])
    assert len(asked) == 2  # once in the pause and once at the end, however many settings there are
    assert {rate_hz for _, rate_hz in asked} == {RATE_HZ}
    first, second = (seconds for seconds, _ in asked)
    assert first == pytest.approx(0.3 + len(FIRST) / RATE_HZ + 0.2, abs=0.2)
    assert second - first == pytest.approx(PAUSE_MS / 1000 + len(SECOND) / RATE_HZ, abs=0.2)


def test_server_vad_rows_are_those_of_a_sweep() -> None:
    recordings = [turn("one"), turn("two", tail_ms=2_000)]
    table = compare_detectors(recordings, ["server_vad"], thresholds=[0.3, 0.5], silences_ms=[200, 800])
    found = sweep(recordings, thresholds=[0.3, 0.5], silences_ms=[200, 800], cache=False, progress=False)
    assert table["cut_off"].tolist() == found.grid("cut_off_rate").to_numpy().ravel().tolist()
    assert table["silence_ms"].tolist() == [224, 800] * 2


def test_no_setting_is_better_than_one_of_the_front() -> None:
    table = compare_detectors([turn()], ["server_vad"], thresholds=[0.3, 0.5, 0.7])
    front = table[table["front"]]
    assert len(front) >= 2
    for one in front.itertuples():
        better = (table["cut_off"] <= one.cut_off) & (table["delay_ms"] < one.delay_ms)
        assert not better.any()


def test_the_front_has_intervals_from_eight_recordings_on() -> None:
    few, enough = (
        compare_detectors([turn(str(k)) for k in range(n)], {"knows": knows}, thresholds=[0.5], waits_ms=[192]).iloc[0]
        for n in (7, 8)
    )
    assert np.isnan([few["high"], few["delay_high_ms"]]).all()
    assert 0.2 < enough["high"] < 0.6
    assert enough["delay_low_ms"] <= enough["delay_ms"] <= enough["delay_high_ms"]


@pytest.mark.parametrize(
    "recordings, detectors, message",
    [
        ([], ["server_vad"], "no labelled turn in the recordings"),
        ([Recording([0.0], rate_hz=RATE_HZ)], ["server_vad"], "no labelled turn in the recordings"),
        ([turn()], ["smart"], "the detector 'smart' is unknown; allowed: 'server_vad', 'semantic_vad', a function"),
    ],
)
def test_what_cannot_be_compared_is_refused(recordings: Any, detectors: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        compare_detectors(recordings, detectors)


def test_the_semantic_model_is_asked_where_its_weights_are() -> None:
    try:
        find_smart_turn()
    except AudioError as error:
        pytest.skip(str(error))
    table = compare_detectors([turn()], ["semantic_vad"], thresholds=[0.0, 0.5], waits_ms=[192])
    assert table["cut_off"].tolist()[0] == 1.0  # at threshold 0 every pause ends the turn


def test_the_plot_has_a_front_for_each_detector() -> None:
    table = compare_detectors([turn()], {"server_vad": "server_vad", "knows": knows}, thresholds=[0.3, 0.5])
    ax = plot_detectors(table)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "server_vad, interval not shown",
        "knows, interval not shown",
    ]
    assert ax.get_xlabel().endswith("(ms)")
    assert len(ax.collections) >= 2
