"""Time axis of a session: the place of each piece of audio, and the bounds of what is kept."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from rtnb.audio import codec
from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import AudioFormat, SessionConfig
from rtnb.trace import timeline as timeline_module
from rtnb.trace.timeline import Timeline
from tests.trace.rows import START, delta, log_of, pcm


def laid(*rows: tuple[float, Event]) -> Timeline:
    timeline = Timeline()
    for row in log_of(*rows):
        timeline.add(row)
    return timeline


def test_what_was_sent_ends_when_it_was_sent_and_jitter_makes_no_holes() -> None:
    times = (10.5, 10.62, 10.68, 12.0)
    timeline = laid(START, *((at_s, events.InputAudioBufferAppend(audio=pcm(100))) for at_s in times))
    assert [piece.start_ms for piece in timeline.pieces["you"]] == pytest.approx([400, 500, 600, 1900])


@pytest.mark.parametrize("late_ms", [0.5, -0.05, 0.01])
def test_a_slow_microphone_clock_moves_the_audio_by_less_than_60_ms(late_ms: float) -> None:
    ends_s = [10.1 + n * (0.1 + late_ms / 1000) for n in range(3000)]
    jitter_s = np.random.default_rng(0).exponential(0.01, len(ends_s))
    chunks = [
        (at_s + more_s, events.InputAudioBufferAppend(audio=pcm(100)))
        for at_s, more_s in zip(ends_s, jitter_s, strict=True)
    ]
    started = events.InputAudioBufferSpeechStarted(audio_start_ms=250_000, item_id="u")
    timeline = laid(START, *chunks, (ends_s[-1], started))
    pieces = timeline.pieces["you"]
    early_ms = [1000 * (at_s - 10) - piece.stop_ms for at_s, piece in zip(ends_s, pieces, strict=True)]
    assert max(early_ms) < 60
    assert all(before.stop_ms <= after.start_ms + 1e-6 for before, after in pairwise(pieces))
    assert timeline.stretches["s0"].start_ms == pytest.approx(pieces[2500].start_ms)


def test_a_burst_after_a_network_stall_leaves_no_hole() -> None:
    times = [10.1 + n / 10 for n in range(30)] + [13.2] * 2 + [13.3 + n / 10 for n in range(30)]
    timeline = laid(START, *((at_s, events.InputAudioBufferAppend(audio=pcm(100))) for at_s in times))
    starts = [piece.start_ms for piece in timeline.pieces["you"]]
    assert np.diff(starts) == pytest.approx(100)


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
        response_id="r", item_id="a", delta=codec("audio/pcmu").encode(np.full(800, 0.5, np.float32))
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
    assert np.array_equal(bins[:, 0], samples.reshape(-1, 96).min(axis=1))
    assert np.array_equal(bins[:, 1], samples.reshape(-1, 96).max(axis=1))


def test_audio_that_is_held_has_a_bound_and_its_waveform_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "AUDIO_BYTES", len(pcm(1000)))
    timeline = laid(START, *((10.0 + n / 10, delta(100)) for n in range(50)))
    assert sum(piece.samples.nbytes for piece in timeline.pieces["model"]) == len(pcm(1000))
    assert timeline.dropped_ms == pytest.approx(4000)
    assert len(timeline.clip(0, 4000)) == 0
    assert len(timeline.clip(4000, 2000)) == 24 * 1000
    assert len(timeline.bins["model"]) == 1250


def test_turns_and_items_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "MAX_STRETCHES", 20)
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
    assert len(timeline.bins["model"]) == 25
    assert peak_bytes < 2**20
