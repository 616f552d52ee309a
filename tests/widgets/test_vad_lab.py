"""The VAD lab without a page: its knobs, its recorder, a session to apply to and verify."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances
from traitlets import TraitError

import rtnb
from rtnb.analysis import Overlap
from rtnb.analysis.recordings import thinking_aloud
from rtnb.audio import babble
from rtnb.errors import AudioError, RtnbError
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.microphone import Microphone
from rtnb.widgets.vad_lab import VadLab

PHRASES = [babble(text, seed=k).audio for k, text in enumerate(("one two three", "four and five", "six seven"))]
TURNS = thinking_aloud(PHRASES, rate_hz=24_000, n_turns=4, seed=1)


@pytest.fixture
def lab() -> Iterator[VadLab]:
    lab = VadLab(TURNS)
    yield lab
    lab.close()


def test_a_setting_is_one_number_everywhere(lab: VadLab) -> None:
    lab.threshold, lab.silence_duration_ms = 0.7, 640
    assert (lab.view.threshold, lab.view.silence_duration_ms) == (0.7, 640)
    lab.view.prefix_padding_ms = 100
    assert lab.prefix_padding_ms == 100
    assert lab.turn_detection == rtnb.ServerVad(threshold=0.7, silence_duration_ms=640, prefix_padding_ms=100)
    with pytest.raises(TraitError, match="threshold"):
        lab.threshold = 1.5


def test_the_figures_are_those_of_a_sweep(lab: VadLab) -> None:
    (head, *rows) = lab.bench.figures(0.5, 512, 300)
    assert head == ["4 turns, 4 recordings", "this setting", "default"]
    sweep = rtnb.sweep(TURNS, progress=False)
    rate = sweep.grid("cut_off_rate").loc[0.5, 512]
    assert rows[0] == ["turns cut off", f"{round(4 * rate)} of 4", rows[0][2]]
    assert lab.bench.recommendation is not None
    assert lab.bench.recommendation.verdict == rtnb.recommend(sweep).verdict


def test_a_recording_is_split_into_turns_anew_on_the_page(lab: VadLab) -> None:
    index = next(k for k, one in enumerate(TURNS) if one.turns[0].pauses)
    longest = max(end - start for start, end in TURNS[index].turns[0].pauses)
    lab.view._on_message("split", {"index": index, "turn_gap_ms": longest}, [])
    assert len(lab.bench.recordings[index].turns) > 1
    assert lab.bench.sweep is not None
    assert lab.bench.sweep.n_turns > 4
    lab.view._on_message("split", {"index": index, "turn_gap_ms": longest + 1}, [])
    assert lab.bench.sweep.n_turns == 4


def test_no_setting_beats_one_of_the_front(lab: VadLab) -> None:
    sweep = rtnb.sweep(TURNS, progress=False)
    points = np.column_stack([sweep.grid(name).to_numpy().ravel() for name in ("delay_p90_ms", "cut_off_rate")])
    points[~np.isfinite(points).all(axis=1)] = np.inf
    front = lab.bench.maps()[1].stops
    assert front
    for index in front:
        better = (points <= points[index]).all(axis=1) & (points < points[index]).any(axis=1)
        assert not better.any()
    for index in set(range(len(points))) - set(front):
        assert any((points[one] <= points[index]).all() for one in front)


async def test_without_a_session_there_is_nothing_to_apply_to(lab: VadLab) -> None:
    with pytest.raises(RtnbError, match="no session"):
        await lab.apply()


def test_close_leaves_the_microphone_of_the_caller_open() -> None:
    microphone = Microphone(source=TURNS[0].audio)
    VadLab(microphone=microphone).close()
    assert microphone.comm is not None
    microphone.close()


def test_close_leaves_no_widget_in_the_kernel() -> None:
    shared_channel()
    before = set(_instances)
    lab = VadLab(TURNS)
    lab.close()
    lab.close()
    assert set(_instances) - before == set()


def test_the_lab_holds_a_limited_amount_of_audio(lab: VadLab) -> None:
    silence = rtnb.Recording(np.zeros(16_000, np.float32), rate_hz=16_000)
    with pytest.raises(AudioError, match="at most 500 recordings"):
        lab.add(*[silence] * 500)
    hours = rtnb.Recording(np.zeros(8_000 * 7_300, np.float32), rate_hz=8_000)
    with pytest.raises(AudioError, match="at most 2 h"):
        lab.add(hours)
    assert len(lab.bench.recordings) == 4


async def test_turns_are_recorded_and_judged() -> None:
    microphone = Microphone(source=TURNS[0].audio)
    lab = VadLab(microphone=microphone)
    assert lab.recommended is None
    recording = await lab.record(seconds=1.0)
    assert recording.name == "turn 1"
    assert len(recording.turns) == 1
    tone = await lab.record("room tone", seconds=0.5)
    assert tone.turns == ()
    assert lab.bench.recommendation is not None
    assert "turn" in lab.bench.recommendation.verdict
    with pytest.raises(ValueError, match="allowed: 'turn', 'room tone'"):
        await lab.record("song")
    lab.close()


async def test_what_is_applied_is_read_back_and_compared() -> None:
    async with rtnb.connect(rtnb.Simulator(latency="fast", voice="babble")) as session:
        lab = VadLab(TURNS, session=session)
        lab.silence_duration_ms = 512
        assert (await lab.apply())["silence_duration_ms"] == (512, 512)
        found = await lab.compare(paced=100)
        assert found["n_service"] == found["n_model"] == found["n_matched"] > 0
        assert found["problems"] == ()
        assert session.config.turn_detection.silence_duration_ms == 512  # type: ignore[union-attr]
        assert not session.state.order, "the probe leaves nothing in the conversation"
        lab.close()


# --- overlaps ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def overlaps() -> list[Overlap]:
    return [
        one
        for k, phrase in enumerate(PHRASES * 3)
        for one in (
            Overlap(phrase, rate_hz=24_000, kind="interruption", group=str(k)),
            Overlap(0.001 * phrase, rate_hz=24_000, kind="echo -60 dB", group=str(k // 3)),
        )
    ]


def test_overlaps_add_a_view_with_a_curve_for_each_kind(overlaps: list[Overlap]) -> None:
    lab = VadLab(TURNS, overlaps=overlaps)
    assert lab.overlap_view is not None
    assert lab.overlap_view in lab.children
    interruptions, echo = lab.overlap_view.curves
    assert (interruptions["kind"], interruptions["n"], interruptions["n_groups"]) == ("interruption", 9, 9)
    assert interruptions["rates"] == sorted(interruptions["rates"], reverse=True)
    assert all(low <= rate for low, rate in zip(interruptions["low"], interruptions["rates"], strict=True))
    assert echo["low"] is None  # three groups: not shown
    lab.threshold = 0.3
    assert lab.overlap_view.listening_threshold == 0.3
    lab.close()


def test_a_lab_without_overlaps_has_no_view_of_them(lab: VadLab) -> None:
    assert lab.overlap_view is None


async def test_apply_sends_the_pair_and_close_ends_the_switch(overlaps: list[Overlap]) -> None:
    async with rtnb.connect("sim", latency="fast") as session:
        session.playback.assume_real_time = False
        lab = VadLab(TURNS, session=session, overlaps=overlaps)
        lab.threshold, lab.overlap_view.speaking_threshold = 0.4, 0.9  # type: ignore[union-attr]
        await lab.apply()
        await session.ask("What is a delta?")
        stream = aiter(session)
        while len(session.log.filter("session.update")) < 3:
            await anext(stream)
        sent = [row.event.session.turn_detection.threshold for row in session.log.filter("session.update")]  # type: ignore[attr-defined]
        assert sent[:3] == [0.4, 0.9, 0.4]
        lab.close()
        await session.ask("And a gamma?")
        assert len(session.log.filter("session.update")) == 3
