"""Barge-in lab: which clips start a turn, under which threshold, in which state of the assistant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtnb.analysis import Overlap, overlap_lab, plot_overlaps
from rtnb.analysis.intervals import clustered_median, clustered_share
from rtnb.analysis.recordings import Recording
from rtnb.audio import babble, read_wav
from rtnb.errors import AudioError
from rtnb.protocol.values import SemanticVad, ServerVad
from rtnb.vad import ServerVadMachine, SpeechStarted, VadConstants, speech_probabilities

RATE_HZ = 24_000
VOICE = babble("wait, I meant the other one", rate_hz=RATE_HZ).audio


def clip(kind: str = "interruption", *, gain: float = 1.0, group: str = "") -> Overlap:
    return Overlap(gain * VOICE, rate_hz=RATE_HZ, kind=kind, group=group)


def rates(table: Any) -> dict[tuple[str, str], float]:
    return {(row.threshold, row.kind): row.rate for row in table.itertuples()}


def test_speech_starts_a_turn_and_silence_does_not() -> None:
    silence = Overlap(np.zeros(RATE_HZ, np.float32), rate_hz=RATE_HZ, kind="noise")
    found = rates(overlap_lab([clip(), silence], [ServerVad(threshold=0.5)]))
    assert found == {("0.5", "interruption"): 1.0, ("0.5", "noise"): 0.0}


def test_a_pair_applies_its_second_setting_to_all_clips_but_turns() -> None:
    clips = [clip(), clip("turn")]
    low, never = ServerVad(threshold=0.3), ServerVad(threshold=1.0)
    found = rates(overlap_lab(clips, [(low, never), (never, low)]))
    assert found == {
        ("0.3 / 1", "interruption"): 0.0,
        ("0.3 / 1", "turn"): 1.0,
        ("1 / 0.3", "interruption"): 1.0,
        ("1 / 0.3", "turn"): 0.0,
    }


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
    echoes = Overlap.of_echo(VOICE, rate_hz=RATE_HZ, levels_db=(0, -20, -40, -70), group="a")
    found = rates(overlap_lab(echoes, [ServerVad(threshold=0.5)]))
    assert list(found) == [("0.5", f"echo {db} dB") for db in (0, -20, -40, -70)]
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert np.allclose(echoes[1].audio, 0.1 * VOICE)


def test_turns_of_a_recording_become_clips_of_its_group() -> None:
    recording = Recording(np.arange(48_000) / 48_000, rate_hz=RATE_HZ, name="Ann", turns=[(500, 1000), (1200, 1500)])
    clips = Overlap.of_turns(recording, kind="backchannel")
    assert [(len(one.audio), one.kind, one.group) for one in clips] == [(12_000, "backchannel", "Ann")] * 1 + [
        (7_200, "backchannel", "Ann")
    ]
    assert clips[0].audio[0] == pytest.approx(0.25)


def test_eight_groups_are_needed_for_an_interval() -> None:
    few, enough = (
        overlap_lab([clip(group=str(k)) for k in range(n)], [ServerVad(threshold=0.5)]).iloc[0] for n in (7, 8)
    )
    assert np.isnan(few["low"])
    assert np.isnan(few["latency_low_ms"])
    assert (few["n"], few["n_groups"]) == (7, 7)
    assert 0.5 < enough["low"] < enough["high"] == 1.0
    assert enough["latency_low_ms"] == enough["latency_ms"] == enough["latency_high_ms"]


@pytest.mark.parametrize("clips, settings", [([], [ServerVad()]), ([clip()], [])])
def test_nothing_to_try_is_refused(clips: list[Overlap], settings: list[ServerVad]) -> None:
    with pytest.raises(AudioError, match="give at least one of each"):
        overlap_lab(clips, settings)


@pytest.mark.parametrize("setting", [SemanticVad(), (ServerVad(), SemanticVad()), (ServerVad(),) * 3, 0.5])
def test_a_setting_that_is_no_server_vad_is_refused(setting: Any) -> None:
    with pytest.raises(AudioError, match=r"is no ServerVad and no pair \(listening, speaking\) of them"):
        overlap_lab([clip()], [setting])


@pytest.mark.parametrize(
    "n_groups, size, rate, correlation", [(8, 5, 0.1, 0.3), (10, 15, 0.05, 0.4), (20, 10, 0.02, 0.0), (15, 8, 0.9, 0.5)]
)
def test_intervals_cover_the_truth_where_clips_of_a_group_are_alike(
    n_groups: int, size: int, rate: float, correlation: float
) -> None:
    random, covered = np.random.default_rng(7), 0
    groups = np.repeat(np.arange(n_groups), size).tolist()
    for _ in range(250):
        spread = (1 - correlation) / correlation if correlation else np.inf
        own = random.beta(rate * spread, (1 - rate) * spread, n_groups) if correlation else np.full(n_groups, rate)
        _, low, high, *_ = clustered_share(random.random(len(groups)) < np.repeat(own, size), groups)
        covered += low <= rate <= high
    assert covered >= 0.88 * 250


def test_the_interval_of_a_median_covers_it() -> None:
    random, covered = np.random.default_rng(3), 0
    groups = np.repeat(np.arange(9), 6).tolist()
    for _ in range(400):
        centres = np.repeat(random.normal(300, 80, 9), 6)
        _, low, high = clustered_median(centres + random.normal(0, 40, 54), groups)
        covered += low <= 300 <= high
    assert covered >= 0.88 * 400


def test_the_plot_has_a_line_for_each_kind() -> None:
    table = overlap_lab(
        [clip(), *Overlap.of_echo(VOICE, rate_hz=RATE_HZ)], [ServerVad(threshold=t) for t in (0.5, 0.9)]
    )
    ax = plot_overlaps(table)
    assert len(ax.containers) == 4
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.5", "0.9"]
    assert ax.get_legend().get_texts()[0].get_text() == "interruption (n = 1, 1 groups), interval not shown"


def test_real_words_start_a_turn_and_a_real_hm_does_not(shared_speech: Callable[[str], Path]) -> None:
    audio, rate_hz = read_wav(shared_speech("mfa_uhum.flac"))
    places = {"interruption": [(0.95, 1.75), (6.7, 7.35)], "backchannel": [(3.92, 4.7), (5.05, 5.95)]}
    clips = [
        Overlap(audio[int(start * rate_hz) : int(stop * rate_hz)], rate_hz=rate_hz, kind=kind)
        for kind, spans in places.items()
        for start, stop in spans
    ]
    assert rates(overlap_lab(clips, [ServerVad(threshold=0.5)])) == {
        ("0.5", "interruption"): 1.0,
        ("0.5", "backchannel"): 0.0,
    }
