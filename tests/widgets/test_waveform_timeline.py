"""Where each piece of audio lies on the time axis."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from rtnb._loop import shared_loop
from rtnb.audio import encode_ulaw
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import AudioFormat, SessionConfig
from rtnb.widgets import _timeline
from rtnb.widgets._timeline import Timeline
from rtnb.widgets.waveform import Waveform
from tests.widgets.page import eventually
from tests.widgets.scene import Scene, marked


def laid(*rows: tuple[float, Event]) -> Timeline:
    timeline = Timeline()
    for row in log_of(*rows):
        timeline.add(row)
    return timeline


def log_of(*rows: tuple[float, Event]) -> EventLog:
    log = EventLog()
    sent = (events.InputAudioBufferAppend, events.ConversationItemTruncate)
    for at_s, event in rows:
        log.record("sent" if isinstance(event, sent) else "received", event, monotonic_s=at_s, wall_time=0.0)
    return log


def pcm(ms: int, value: int = 1000) -> bytes:
    return np.full(24 * ms, value, np.int16).tobytes()


def delta(ms: int, item: str = "a", value: int = 1000) -> Event:
    return events.ResponseOutputAudioDelta(response_id="r", item_id=item, delta=pcm(ms, value))


START = (10.0, events.InputAudioBufferCleared())


def test_what_was_sent_ends_when_it_was_sent_and_jitter_makes_no_holes() -> None:
    times = (10.5, 10.62, 10.68, 12.0)
    timeline = laid(START, *((at_s, events.InputAudioBufferAppend(audio=pcm(100))) for at_s in times))
    assert [piece.start_ms for piece in timeline.pieces["you"]] == pytest.approx([400, 500, 600, 1900])


def test_what_came_at_once_lies_where_it_is_played() -> None:
    timeline = laid(START, (10.1, delta(300)), (10.1, delta(300)), (11.5, delta(100, "b")))
    assert [piece.start_ms for piece in timeline.pieces["model"]] == pytest.approx([100, 400, 1500])
    assert timeline.items["a"].audio_ms == 600


def test_speech_is_found_on_the_axis_by_the_audio_sent() -> None:
    chunks = [(10.1 + n / 10, events.InputAudioBufferAppend(audio=pcm(100))) for n in range(5)]
    late = [(20.1 + n / 10, events.InputAudioBufferAppend(audio=pcm(100))) for n in range(5)]
    started = (21.0, events.InputAudioBufferSpeechStarted(audio_start_ms=600, item_id="u"))
    stopped = (21.0, events.InputAudioBufferSpeechStopped(audio_end_ms=900, item_id="u"))
    timeline = laid(START, *chunks, *late, started, stopped)
    speech = timeline.stretches["s0"]
    assert (speech.start_ms, speech.stop_ms) == pytest.approx((10_100, 10_400))


def test_what_was_not_heard_leaves_the_axis() -> None:
    cut = events.ConversationItemTruncate(item_id="a", content_index=0, audio_end_ms=250)
    timeline = laid(
        START, (10.0, delta(1000)), (10.0, delta(1000)), (10.3, cut), (10.4, delta(500)), (10.5, delta(100, "b"))
    )
    assert timeline.items["a"].heard_ms == 250
    assert [piece.start_ms for piece in timeline.pieces["model"]] == pytest.approx([0, 500])
    assert len(timeline.clip(0, 10_000)) == 24 * 600


def test_a_clip_mixes_both_sides() -> None:
    timeline = laid(START, (10.2, events.InputAudioBufferAppend(audio=pcm(200, 100))), (10.1, delta(50, value=1000)))
    clip = timeline.clip(0, 1000)
    assert (clip[0], clip[24 * 210], len(clip)) == (100, 1000, 24 * 250)
    assert timeline.clip(150, 10).tolist() == [100] * 240


def test_g711_and_samples_cut_in_two() -> None:
    ulaw = SessionConfig.of(output_format=AudioFormat(type="audio/pcmu"))
    coded = events.ResponseOutputAudioDelta(
        response_id="r", item_id="a", delta=encode_ulaw(np.full(800, 0.5, np.float32))
    )
    timeline = laid((10.0, events.SessionUpdated(session=ulaw)), (10.0, coded))
    assert timeline.items["a"].audio_ms == 100
    whole = pcm(10)
    halves = [(10.0, events.InputAudioBufferAppend(audio=part)) for part in (whole[:101], whole[101:])]
    assert sum(len(piece.samples) for piece in laid(START, *halves).pieces["you"]) == 240


@pytest.mark.parametrize("chunk_ms", [7, 20, 100])
def test_chunk_size_does_not_change_the_picture(chunk_ms: int) -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, 24 * 700).astype(np.int16)
    size = 24 * chunk_ms
    deltas = [samples[at : at + size].tobytes() for at in range(0, len(samples), size)]
    rows = [(10.0, events.ResponseOutputAudioDelta(response_id="r", item_id="a", delta=part)) for part in deltas]
    bins = laid(START, *rows).bins["model"].read()
    assert np.array_equal(bins[:, 0], samples.reshape(-1, 48).min(axis=1))
    assert np.array_equal(bins[:, 1], samples.reshape(-1, 48).max(axis=1))


def test_audio_that_is_held_has_a_bound_and_its_waveform_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_timeline, "AUDIO_BYTES", len(pcm(1000)))
    timeline = laid(START, *((10.0 + n / 10, delta(100)) for n in range(50)))
    assert sum(piece.samples.nbytes for piece in timeline.pieces["model"]) == len(pcm(1000))
    assert timeline.dropped_ms == pytest.approx(4000)
    assert len(timeline.clip(0, 4000)) == 0
    assert len(timeline.clip(4000, 2000)) == 24 * 1000
    assert len(timeline.bins["model"]) == 2500


def test_turns_and_items_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_timeline, "MAX_STRETCHES", 20)
    timeline = Timeline()
    for number in range(100):
        speech = events.InputAudioBufferSpeechStarted(audio_start_ms=0, item_id=f"u{number}")
        for row in log_of((10.0 + number, speech), (10.1 + number, delta(10, f"a{number}"))):
            timeline.add(row)
    assert len(timeline.stretches) == len(timeline.items) == 20
    assert "ia99" in timeline.stretches


def test_a_jump_of_the_clock_draws_nothing_instead_of_filling_the_memory() -> None:
    rows = [START, (10.0, delta(100)), (10.0 + 30 * 86_400, delta(100))]  # two files of a log, a month apart
    tracemalloc.start()
    timeline = laid(*rows)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(timeline.bins["model"]) == 50
    assert peak_bytes < 2**20


async def test_a_moment_selects_its_event_and_back() -> None:
    widget = Waveform(log_of(*((10.0 + n / 10, events.InputAudioBufferCleared()) for n in range(10))))
    await eventually(lambda: widget._is_fed and widget.feed.timeline.now_ms == pytest.approx(900))
    widget.selected_ms = 250.0
    assert widget.selected_index == 2
    widget.selected_index = 7
    assert widget.selected_ms == pytest.approx(700)
    widget.selected_ms = None
    assert (widget.selected_ms, widget.selected_index) == (None, None)
    widget.selected_index = 99  # not there (yet)
    assert (widget.selected_ms, widget.selected_index) == (None, 99)
    widget.close()


def test_a_moment_can_be_selected_before_there_is_a_session() -> None:
    widget = Waveform(selected_ms=250.0)
    assert widget.selected_index is None
    widget.close()


async def test_the_playback_position_is_pushed() -> None:
    scene = Scene()
    widget = Waveform(scene.session)
    item = scene.answer_now(marked(20_000))
    await eventually(lambda: widget._is_fed and "i" + item in widget.feed.timeline.stretches)
    start_ms = widget.feed.timeline.items[item].start_ms

    def cursor() -> Any:
        return widget._cursor

    await eventually(lambda: cursor() is not None)
    at_ms, until_ms = cursor()
    assert start_ms <= at_ms < until_ms == pytest.approx(start_ms + 20_000)  # nobody reports: it goes on in real time

    def report() -> None:
        scene.session.playback.report_played(item, 15_000)
        widget.feed.report_played(False)

    shared_loop().call_soon(report)
    await eventually(lambda: cursor() == pytest.approx((start_ms + 15_000, start_ms + 15_000)))  # it stands there
    scene.barge_in()
    await eventually(lambda: cursor() is None)
    widget.close()
    scene.close()
