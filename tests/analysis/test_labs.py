"""Labs: which clips start a turn, and which detector ends one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtnb.analysis import Overlap, Recording, compare_detectors, overlap_lab, plot_detectors, plot_overlaps, sweep
from rtnb.analysis.detectors import LONGEST_WAIT_MS
from rtnb.analysis.intervals import clustered_median, clustered_share
from rtnb.audio import babble, read_wav
from rtnb.errors import AudioError
from rtnb.protocol.values import SemanticVad, ServerVad
from rtnb.vad import ServerVadMachine, SpeechStarted, VadConstants, speech_probabilities
from rtnb.vad.semantic import find_smart_turn

# --- overlaps ---------------------------------------------------------------------------------------------------------


RATE_HZ = 16_000
VOICE = babble("wait, I meant the other one", rate_hz=RATE_HZ).audio


def clip(kind: str = "interruption", *, gain: float = 1.0, group: str = "") -> Overlap:
    return Overlap(gain * VOICE, rate_hz=RATE_HZ, kind=kind, group=group)


def rates(clips: list[Overlap], *settings: Any) -> dict[tuple[str, str], float]:
    table = overlap_lab(clips, list(settings) or [ServerVad(threshold=0.5)])
    return {(row.threshold, row.kind): row.rate for row in table.itertuples()}


def test_speech_starts_a_turn_and_silence_does_not() -> None:
    assert rates([clip(), clip("noise", gain=0.0)]) == {("0.5", "interruption"): 1.0, ("0.5", "noise"): 0.0}


def test_a_pair_applies_its_second_setting_to_all_clips_but_turns() -> None:
    low, never = ServerVad(threshold=0.3), ServerVad(threshold=1.0)
    found = rates([clip(), clip("turn")], (low, never), (never, low))
    speaking_never = {("0.3 / 1", "interruption"): 0.0, ("0.3 / 1", "turn"): 1.0}
    assert found == {**speaking_never, ("1 / 0.3", "interruption"): 1.0, ("1 / 0.3", "turn"): 0.0}


def test_latency_is_that_of_the_services_state_machine() -> None:
    (row,) = overlap_lab([clip()], [ServerVad(threshold=0.6)]).itertuples()
    lead = np.zeros(RATE_HZ * 1024 // 1000, np.float32)
    noise = 3e-4 * np.random.default_rng(0).standard_normal(len(lead) + len(VOICE)).astype(np.float32)
    events = ServerVadMachine(threshold=0.6).push(speech_probabilities(np.r_[lead, VOICE] + noise, rate_hz=RATE_HZ))
    first = next(one for one in events if isinstance(one, SpeechStarted))
    assert row.latency_ms == first.emitted_ms - 1024 > 0


def test_constants_of_a_calibration_count() -> None:
    (row,) = overlap_lab([clip()], [ServerVad()], constants=VadConstants(min_speech_frames=1000)).itertuples()
    assert (row.rate, row.threshold) == (0.0, "0.5")
    assert np.isnan(row.latency_ms)


def test_a_softer_echo_starts_fewer_turns() -> None:
    levels_db = (0, -20, -40, -70)
    echoes = Overlap.of_echo(VOICE, rate_hz=RATE_HZ, levels_db=levels_db, group="a")
    found = rates(echoes)
    assert list(found) == [("0.5", f"echo {db} dB") for db in levels_db]
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert np.allclose(echoes[1].audio, 0.1 * VOICE)


def test_turns_of_a_recording_become_clips_of_its_group() -> None:
    recording = Recording(np.arange(48_000) / 48_000, rate_hz=RATE_HZ, name="Ann", turns=[(500, 1000), (1200, 1500)])
    clips = Overlap.of_turns(recording, kind="backchannel")
    assert [(len(one.audio), one.kind, one.group) for one in clips] == [
        (n_samples, "backchannel", "Ann") for n_samples in (8_000, 4_800)
    ]
    assert clips[0].audio[0] == pytest.approx(1 / 6)


def test_eight_groups_are_needed_for_an_interval() -> None:
    few, enough = (
        overlap_lab([clip(group=str(k)) for k in range(n)], [ServerVad(threshold=0.5)]).iloc[0] for n in (7, 8)
    )
    assert np.isnan(few["low"])
    assert np.isnan(few["latency_low_ms"])
    assert (few["n"], few["n_groups"]) == (7, 7)
    assert 0.5 < enough["low"] < enough["high"] == 1.0
    assert enough["latency_low_ms"] == enough["latency_ms"] == enough["latency_high_ms"]


NO_SETTING = r"is no ServerVad and no pair \(listening, speaking\) of them"


NOT_TRIED = [
    ([], [ServerVad()], "give at least one of each"),
    ([clip()], [], "give at least one of each"),
    *(([clip()], [one], NO_SETTING) for one in (SemanticVad(), (ServerVad(), SemanticVad()), (ServerVad(),) * 3, 0.5)),
]


@pytest.mark.parametrize("clips, settings, says", NOT_TRIED)
def test_what_cannot_be_tried_is_refused(clips: list[Overlap], settings: list[Any], says: str) -> None:
    with pytest.raises(AudioError, match=says):
        overlap_lab(clips, settings)


@pytest.mark.parametrize(
    "n_groups, size, rate, correlation", [(8, 5, 0.1, 0.3), (10, 15, 0.05, 0.4), (20, 10, 0.02, 0.0), (15, 8, 0.9, 0.5)]
)
def test_intervals_cover_the_truth_where_clips_of_a_group_are_alike(
    n_groups: int, size: int, rate: float, correlation: float
) -> None:
    random, groups = np.random.default_rng(7), np.repeat(np.arange(n_groups), size)
    covered = []
    for _ in range(250):
        spread = (1 - correlation) / correlation if correlation else 1e9
        own = random.beta(rate * spread, (1 - rate) * spread, n_groups)
        _, low, high, *_ = clustered_share(random.random(len(groups)) < own[groups], groups.tolist())
        covered.append(low <= rate <= high)
    assert np.mean(covered) >= 0.88


def test_the_interval_of_a_median_covers_it() -> None:
    random, covered = np.random.default_rng(3), 0
    groups = np.repeat(np.arange(9), 6).tolist()
    for _ in range(400):
        centres = np.repeat(random.normal(300, 80, 9), 6)
        _, low, high = clustered_median(centres + random.normal(0, 40, 54), groups)
        covered += low <= 300 <= high
    assert covered >= 0.88 * 400


def test_the_plot_has_a_line_for_each_kind() -> None:
    clips = [clip(), *Overlap.of_echo(VOICE, rate_hz=RATE_HZ)]
    ax = plot_overlaps(overlap_lab(clips, [ServerVad(threshold=t) for t in (0.5, 0.9)]))
    assert len(ax.containers) == 4
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.5", "0.9"]
    assert ax.get_legend().get_texts()[0].get_text() == "interruption (n = 1, 1 groups), interval not shown"


@pytest.mark.parametrize(
    "kind, spans, rate",
    [("interruption", [(0.95, 1.75), (6.7, 7.35)], 1.0), ("backchannel", [(3.92, 4.7), (5.05, 5.95)], 0.0)],
)
def test_real_words_start_a_turn_and_a_real_hm_does_not(
    shared_speech: Callable[[str], Path], kind: str, spans: list[tuple[float, float]], rate: float
) -> None:
    audio, hz = read_wav(shared_speech("mfa_uhum.flac"))
    clips = [Overlap(audio[int(start * hz) : int(stop * hz)], rate_hz=hz, kind=kind) for start, stop in spans]
    assert rates(clips) == {("0.5", kind): rate}


# --- detectors --------------------------------------------------------------------------------------------------------


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


def compared(detector: Any, *recordings: Recording, waits_ms: list[int] | None = None) -> Any:
    """Compare one detector at one threshold; a function is called "it"."""
    named = {"it": detector}
    return compare_detectors(list(recordings) or [turn()], named, thresholds=[0.5], waits_ms=waits_ms or [192])


def test_a_perfect_function_cuts_nothing_off_and_is_quick() -> None:
    (row,) = compared(knows).itertuples()
    assert (row.detector, row.cut_off, row.no_end, row.n_turns, row.n_groups) == ("it", 0.0, 0.0, 1, 1)
    assert 150 < row.delay_ms < 400


def test_a_function_that_always_says_ended_cuts_off_in_every_longer_pause() -> None:
    assert compared(lambda audio, rate_hz: 1.0, waits_ms=[192, 800])["cut_off"].tolist() == [1.0, 0.0]


def test_a_function_that_never_says_ended_waits_for_the_longest_time() -> None:
    slow, never = (compared(lambda audio, rate_hz: 0.0, turn(tail_ms=ms)).iloc[0] for ms in (5_000, 3_000))
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
    few, enough = (compared(knows, *(turn(str(k)) for k in range(n))).iloc[0] for n in (7, 8))
    assert np.isnan([few["high"], few["delay_high_ms"]]).all()
    assert 0.2 < enough["high"] < 0.6
    assert enough["delay_low_ms"] <= enough["delay_ms"] <= enough["delay_high_ms"]


NOT_COMPARED = [
    ([], "server_vad", "no labelled turn in the recordings"),
    ([Recording([0.0], rate_hz=RATE_HZ)], "server_vad", "no labelled turn in the recordings"),
    ([turn()], "smart", "the detector 'smart' is unknown; allowed: 'server_vad', 'semantic_vad', a function"),
]


@pytest.mark.parametrize("recordings, detector, message", NOT_COMPARED)
def test_what_cannot_be_compared_is_refused(recordings: Any, detector: str, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        compare_detectors(recordings, [detector])


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
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["server_vad, interval not shown", "knows, interval not shown"]
    assert ax.get_xlabel().endswith("(ms)")
    assert len(ax.collections) >= 2
