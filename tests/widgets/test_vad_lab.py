"""The VAD lab without a page: its knobs, its recorder, a session to apply to and verify."""

from typing import Any

import numpy as np
import pandas as pd
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
from tests.widgets.page import eventually

PHRASES = [babble(text, seed=k).audio for k, text in enumerate(("one two three", "four and five", "six seven"))]
TURNS = thinking_aloud(PHRASES, rate_hz=24_000, n_turns=4, seed=1)


@pytest.fixture
def lab() -> VadLab:
    return VadLab(TURNS)


def test_a_setting_is_one_number_everywhere(lab: VadLab) -> None:
    lab.threshold, lab.silence_duration_ms = 0.7, 640
    assert lab.view.threshold == 0.7
    lab.view.threshold = 0.6
    lab.prefix_padding_ms = 100
    assert lab.turn_detection == rtnb.ServerVad(threshold=0.6, silence_duration_ms=640, prefix_padding_ms=100)
    with pytest.raises(TraitError, match="threshold"):
        lab.threshold = 1.5


def test_the_metrics_are_those_of_a_sweep(lab: VadLab) -> None:
    lab.silence_duration_ms = 500
    sweep = rtnb.sweep(TURNS, progress=False)
    metrics = lab.bench.metrics(lab.turn_detection)
    for name in ("cut_off_rate", "delay_p90_ms", "no_fire_rate"):
        assert metrics[name] == sweep.grid(name).loc[0.5, 512]
    assert metrics["silence_duration_ms"] == 512, "as the service rounds it"
    assert lab.bench.recommendation is not None
    assert lab.bench.recommendation.verdict == rtnb.recommend(sweep).verdict


def test_the_table_compares_the_setting_with_the_default(lab: VadLab) -> None:
    metrics = {"this setting": lab.bench.metrics(lab.turn_detection)}
    table = lab.bench.table(pd.DataFrame(metrics))
    assert table.columns.name == "turns: 4, recordings: 4"
    assert table.loc["delay, P90", "this setting"] == "332 ms"
    assert "self-interruptions" not in table.index, "there is no echo to count them in"
    before = lab._table.value
    lab.threshold = 0.9
    assert lab._table.value != before


def test_the_maps_are_pictures_with_a_mark_at_the_setting(lab: VadLab) -> None:
    heat, trade_off = lab.view.maps
    assert heat["alt"] == "Map of turns cut off, over threshold and silence duration"
    assert all(one["src"].startswith("data:image/png;base64,") for one in (heat, trade_off))
    before = lab.view.figures["marks"]
    lab.threshold, lab.silence_duration_ms = 0.7, 640
    after = lab.view.figures["marks"]
    assert [float(one["left"][:-1]) for one in after] > [float(one["left"][:-1]) for one in before]
    assert float(after[0]["bottom"][:-1]) > float(before[0]["bottom"][:-1])
    assert lab.view.maps == [heat, trade_off], "only the marks move"
    lab._metric.label = "delay, P90"
    assert lab.view.maps[0]["alt"] == "Map of delay, P90, over threshold and silence duration"
    assert lab.view.maps[1] == trade_off
    lab.silence_duration_ms = 5_000
    assert lab.view.figures["marks"] == [None, None], "it lies outside of the maps"


def test_a_recording_is_split_into_turns_anew_on_the_page(lab: VadLab) -> None:
    index = next(k for k, one in enumerate(TURNS) if one.turns[0].pauses)
    longest = max(end - start for start, end in TURNS[index].turns[0].pauses)
    lab._picker.value = index
    lab._gap.value = longest
    assert len(lab.bench.recordings[index].turns) > 1
    assert len(lab.view.recording["turns"]) > 1
    assert lab.bench.sweep is not None
    assert lab.bench.sweep.n_turns > 4
    lab._gap.value = longest + 1
    assert lab.bench.sweep.n_turns == 4
    assert lab._picker.value == index


def test_the_page_plays_a_clip_of_the_shown_recording(lab: VadLab) -> None:
    lab._picker.value = 1
    clip = np.frombuffer(lab._clip(500.0), "<i2")
    assert len(clip) == 72_000
    assert np.abs(clip / 32768 - TURNS[1].audio[12_000:84_000]).max() < 1e-3


async def test_without_a_session_there_is_nothing_to_apply_to(lab: VadLab) -> None:
    with pytest.raises(RtnbError, match="no session"):
        await lab.apply()
    assert "Apply to session" not in [button.description for button in lab._buttons]


async def test_the_error_of_a_button_is_shown_and_the_buttons_work_again() -> None:
    lab = VadLab()
    lab._start(lab._use_recommended)
    await eventually(lambda: "there are no turns yet" in lab._status.value)
    await eventually(lambda: not any(button.disabled for button in lab._buttons))
    assert "rtnb-error" in lab._status.value


def test_close_leaves_nothing_in_the_kernel_but_the_microphone_of_the_caller() -> None:
    shared_channel()
    microphone = Microphone(source=TURNS[0].audio)
    before = set(_instances)
    for lab in (VadLab(TURNS), VadLab(microphone=microphone)):
        lab.close()
        lab.close()
    assert set(_instances) == before


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
    tone = await lab.record("room tone", seconds=0.5)
    assert tone.turns == ()
    assert "turns: 0, recordings: 1" in lab._table.value
    assert "Record the silent room first" in lab._advice.value
    recording = await lab.record(seconds=1.0)
    assert recording.name == "turn 1"
    assert len(recording.turns) == 1
    assert lab.bench.recommendation is not None
    assert "turn" in lab.bench.recommendation.verdict
    with pytest.raises(ValueError, match="allowed: 'turn', 'room tone'"):
        await lab.record("song")


async def test_what_is_applied_is_read_back_and_compared(session: rtnb.Session) -> None:
    lab = VadLab(TURNS, session=session)
    lab.silence_duration_ms = 512
    assert (await lab.apply())["silence_duration_ms"] == (512, 512)
    found = await lab.compare(paced=100)
    assert found["n_service"] == found["n_model"] == found["n_matched"] > 0
    assert found["problems"] == ()
    assert session.config.turn_detection.silence_duration_ms == 512  # type: ignore[union-attr]
    assert not session.state.order, "the probe leaves nothing in the conversation"


# --- overlaps ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def overlaps() -> list[Overlap]:
    interruptions = [Overlap(PHRASES[k % 3], rate_hz=24_000, kind="interruption", group=str(k)) for k in range(9)]
    echo = [Overlap(0.001 * PHRASES[k % 3], rate_hz=24_000, kind="echo -60 dB", group=str(k // 3)) for k in range(9)]
    return [*interruptions, *echo]


def test_overlaps_add_a_table_with_a_row_for_each_kind(overlaps: list[Overlap]) -> None:
    lab = VadLab(TURNS, overlaps=overlaps)
    assert lab.overlaps is not None
    assert lab._shares in lab.children
    interruptions, echo = (lab.overlaps[lab.overlaps["kind"] == kind] for kind in ("interruption", "echo -60 dB"))
    assert (interruptions["n"] == 9).all()
    assert interruptions["rate"].is_monotonic_decreasing
    assert (interruptions["low"] <= interruptions["rate"]).all()
    assert echo["low"].isna().all()  # three groups: not shown
    assert "interruption 100 % (" in lab._shares.value
    assert "interval not shown; n = 9, 3 groups" in lab._shares.value
    lab.threshold, lab.speaking_threshold = 0.3, 0.91
    assert "<th>0.3<br>○</th>" in lab._shares.value
    assert "<th>0.9<br>●</th>" in lab._shares.value, "the nearest of those that were tried"


def test_a_lab_without_overlaps_has_no_table_of_them(lab: VadLab) -> None:
    assert lab.overlaps is None
    assert lab._shares not in lab.children


async def test_apply_sends_the_pair_and_close_ends_the_switch(session: rtnb.Session, overlaps: list[Overlap]) -> None:
    session.playback.assume_real_time = False
    lab = VadLab(TURNS, session=session, overlaps=overlaps)
    lab.threshold, lab.speaking_threshold = 0.4, 0.9
    await lab.apply()
    await session.ask("What is a delta?")
    await eventually(lambda: len(session.log.filter("session.update")) == 3)
    sent: list[Any] = [row.event for row in session.log.filter("session.update")]
    assert [event.session.turn_detection.threshold for event in sent] == [0.4, 0.9, 0.4]
    lab.close()
    await session.ask("And a gamma?")
    assert len(session.log.filter("session.update")) == 3
