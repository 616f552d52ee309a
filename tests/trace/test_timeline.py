"""Time axis of a session: the place of each piece of audio, and the bounds of what is kept."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from rtnb.audio import codec
from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import AudioFormat, SessionConfig
from rtnb.trace import timeline as timeline_module
from rtnb.trace.timeline import Piece, Timeline
from tests.trace.rows import START, delta, log_of, pcm

Rows = list[tuple[float, Event]]
ULAW = (10.0, events.SessionUpdated(session=SessionConfig.of(output_format=AudioFormat(type="audio/pcmu"))))


def laid(*rows: tuple[float, Event]) -> tuple[Timeline, list[Piece]]:
    """Lay out rows; return the pieces of audio, too."""
    timeline = Timeline()
    return timeline, [piece for row in log_of(*rows) if (piece := timeline.add(row)) is not None]


def sent(*ends_s: float, value: int = 1000) -> Rows:
    return [(at_s, events.InputAudioBufferAppend(audio=pcm(100, value))) for at_s in ends_s]


def cut(ms: int) -> Event:
    return events.ConversationItemTruncate(item_id="a", content_index=0, audio_end_ms=ms)


EVERY_100_MS = [10.1 + n / 10 for n in range(30)]
PLACES: dict[str, tuple[Rows, list[float]]] = {
    "sent audio ends when it was sent, without holes of jitter": (
        sent(10.5, 10.62, 10.68, 12.0),
        [400, 500, 600, 1900],
    ),
    "a burst after a stall of the network leaves no hole": (
        sent(*EVERY_100_MS, 13.2, 13.2, *(at_s + 3.2 for at_s in EVERY_100_MS)),
        [100.0 * n for n in range(62)],
    ),
    "an answer that came at once is played piece after piece": (
        [(10.1, delta(300)), (10.1, delta(300)), (11.5, delta(100, "b"))],
        [100, 400, 1500],
    ),
    "an answer after one that was cut is played from now on": (
        [(10.0, delta(1000)), (10.0, delta(1000)), (10.3, cut(250)), (10.4, delta(500)), (10.5, delta(100, "b"))],
        [0, 1000, 500],
    ),
}


@pytest.mark.parametrize("rows, starts_ms", PLACES.values(), ids=PLACES.keys())
def test_each_piece_has_its_place(rows: Rows, starts_ms: list[float]) -> None:
    _, pieces = laid(START, *rows)
    assert [piece.start_ms for piece in pieces] == pytest.approx(starts_ms)


@pytest.mark.parametrize("late_ms", [0.5, -0.05, 0.01])
def test_a_slow_microphone_clock_moves_the_audio_by_less_than_60_ms(late_ms: float) -> None:
    ends_s = 10.1 + np.arange(3000) * (0.1 + late_ms / 1000)
    jitter_s = np.random.default_rng(0).exponential(0.01, len(ends_s))
    started = events.InputAudioBufferSpeechStarted(audio_start_ms=250_000, item_id="u")
    timeline, pieces = laid(START, *sent(*(ends_s + jitter_s)), (ends_s[-1], started))
    starts_ms, stops_ms = (np.array([getattr(one, name) for one in pieces]) for name in ("start_ms", "stop_ms"))
    assert (1000 * (ends_s - 10) - stops_ms).max() < 60
    assert np.all(stops_ms[:-1] <= starts_ms[1:] + 1e-6)
    assert timeline.stretches["s0"].start_ms == pytest.approx(starts_ms[2500])


def test_speech_is_found_on_the_axis_by_the_audio_sent() -> None:
    started = (21.0, events.InputAudioBufferSpeechStarted(audio_start_ms=600, item_id="u"))
    stopped = (21.0, events.InputAudioBufferSpeechStopped(audio_end_ms=900, item_id="u"))
    timeline, _ = laid(START, *sent(*EVERY_100_MS[:5], *(at_s + 10 for at_s in EVERY_100_MS[:5])), started, stopped)
    speech = timeline.stretches["s0"]
    assert (speech.start_ms, speech.stop_ms) == pytest.approx((10_100, 10_400))


def test_audio_that_was_not_heard_leaves_the_axis() -> None:
    rows, _ = PLACES["an answer after one that was cut is played from now on"]
    timeline, _ = laid(START, *rows)
    assert (timeline.items["a"].audio_ms, timeline.items["a"].heard_ms) == (2000, 250)
    assert len(timeline.clip(0, 10_000)) == 24 * 600
    timeline, _ = laid(START, (10.0, delta(1000)), (10.0, delta(1000, "b")), (10.3, cut(250)), (10.4, delta(500)))
    unheard = [(one.item_id, one.start_ms, one.stop_ms) for one in timeline.pieces["unheard"]]
    assert unheard == [("a", 250, 1000), ("b", 1000, 2000), ("a", pytest.approx(400), pytest.approx(900))]


def test_a_clip_mixes_both_sides() -> None:
    timeline, _ = laid(START, *sent(10.1, value=100), (10.1, delta(50)), *sent(10.2, value=100))
    clip = timeline.clip(0, 1000)
    assert (clip[0], clip[24 * 110], clip[24 * 160], len(clip)) == (100, 1100, 100, 24 * 200)
    assert timeline.clip(190, 10).tolist() == [100] * 240


def test_g711_and_samples_cut_in_two() -> None:
    coded = events.ResponseOutputAudioDelta(
        response_id="r", item_id="a", delta=codec("audio/pcmu").encode(np.full(800, 0.5, np.float32))
    )
    timeline, _ = laid(ULAW, (10.0, coded))
    assert timeline.items["a"].audio_ms == 100
    parts = (pcm(10)[:101], pcm(10)[101:])
    halves = [(10.0, events.ResponseOutputAudioDelta(response_id="r", item_id="a", delta=part)) for part in parts]
    timeline, pieces = laid(START, *halves)
    assert sum(len(piece.samples) for piece in pieces) == 240
    assert timeline.clip(0, 10).tolist() == [1000] * 240


@pytest.mark.parametrize("chunk_ms", [7, 20, 100])
def test_chunk_size_does_not_change_the_picture(chunk_ms: int) -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, 24 * 700).astype(np.int16)
    parts = [samples[at : at + 24 * chunk_ms].tobytes() for at in range(0, len(samples), 24 * chunk_ms)]
    rows = [(10.0, events.ResponseOutputAudioDelta(response_id="r", item_id="a", delta=part)) for part in parts]
    bins = laid(START, *rows)[0].bins["model"].read()
    assert np.array_equal(bins[:, 0], samples.reshape(-1, 96).min(axis=1))
    assert np.array_equal(bins[:, 1], samples.reshape(-1, 96).max(axis=1))


def test_audio_that_is_held_has_a_bound_and_its_waveform_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "AUDIO_BYTES", len(pcm(1000)))
    timeline, _ = laid(START, *((10.0 + n / 10, delta(100)) for n in range(50)))
    assert sum(len(piece.samples) for piece in timeline.pieces["model"]) == 24 * 1000
    assert timeline.dropped_ms == pytest.approx(4000)
    assert [len(timeline.clip(start_ms, 4000)) for start_ms in (0, 4000)] == [0, 24 * 1000]
    assert len(timeline.bins["model"]) == 1250


def test_turns_and_items_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "MAX_STRETCHES", 20)
    speech = [events.InputAudioBufferSpeechStarted(audio_start_ms=0, item_id=f"u{n}") for n in range(100)]
    pairs = [((10.0 + n, event), (10.1 + n, delta(10, f"a{n}"))) for n, event in enumerate(speech)]
    timeline, _ = laid(*(row for pair in pairs for row in pair))
    assert len(timeline.stretches) == len(timeline.items) == 20
    assert "ia99" in timeline.stretches


def test_a_jump_of_the_clock_draws_nothing_instead_of_filling_the_memory() -> None:
    rows = [START, (10.0, delta(100)), (10.0 + 30 * 86_400, delta(100))]  # two files of a log, a month apart
    tracemalloc.start()
    timeline, _ = laid(*rows)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(timeline.bins["model"]) == 25
    assert peak_bytes < 2**20
