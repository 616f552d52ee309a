"""Turn detection, exact to the frame, whatever the pieces in which audio comes: `rtnb.simulator.turn_detection`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtnb.protocol.values import PCM16, SEMANTIC_VAD_DEFAULTS, SERVER_VAD_DEFAULTS, SemanticVad, ServerVad
from rtnb.simulator.turn_detection import KEEP_MS, Heard, IdleTimeout, SpeechBatch, Started, Stopped, TurnDetection
from rtnb.vad import SpeechProbabilities, speech_probabilities
from tests.simulator.rig import at_once, chunks, encoded, spoken


def appended(turns: TurnDetection, data: bytes) -> list[Heard]:
    """What happened in this audio; one session alone waits for no batch."""
    found: list[Heard] = []

    async def take() -> None:
        async for one in turns.append(data):
            found.append(one)

    at_once(take())
    return found


def detection(**changes: Any) -> ServerVad:
    return ServerVad(**{**vars(SERVER_VAD_DEFAULTS), **changes})


def listener(vad: Any = SERVER_VAD_DEFAULTS, media: Any = PCM16) -> TurnDetection:
    turns = TurnDetection(SpeechBatch())
    turns.configure(vad, media)
    return turns


def hear(turns: TurnDetection, data: bytes, size: int = 4800) -> list[Heard]:
    return [heard for piece in chunks(data, size) for heard in appended(turns, piece)]


SPOKEN = encoded(spoken(silence_ms=2500))
PROBABILITIES = speech_probabilities(spoken(silence_ms=2500), rate_hz=24_000)
FIRST = int(np.flatnonzero(PROBABILITIES >= 0.5)[0])


def test_a_turn_starts_with_its_first_frame_less_the_padding() -> None:
    assert hear(listener(detection(prefix_padding_ms=5000)), SPOKEN)[0] == Started(0)
    started, stopped = hear(listener(detection(prefix_padding_ms=200)), SPOKEN)
    assert started == Started(FIRST * 32 - 200)
    assert isinstance(stopped, Stopped)
    assert stopped.audio_start_ms == FIRST * 32 - 200
    assert stopped.audio_end_ms % 32 == 0


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9, 0.99, 1.0])
def test_the_threshold_decides_which_frame_is_speech(threshold: float) -> None:
    heard = hear(listener(detection(threshold=threshold, prefix_padding_ms=0)), SPOKEN)
    assert heard[:1] == [Started(int(frame) * 32) for frame in np.flatnonzero(threshold <= PROBABILITIES)[:1]]


@settings(max_examples=15)
@given(st.lists(st.integers(min_value=1, max_value=40_000), min_size=1, max_size=20))
def test_pieces_change_nothing(sizes: list[int]) -> None:
    for vad in (SERVER_VAD_DEFAULTS, SemanticVad(**{**vars(SEMANTIC_VAD_DEFAULTS), "eagerness": "high"})):
        whole = hear(listener(vad), SPOKEN, len(SPOKEN))
        turns, pieces, at = listener(vad), [], 0
        for size in sizes:
            pieces += appended(turns, SPOKEN[at : at + 2 * size])
            at = min(len(SPOKEN), at + 2 * size)
        pieces += appended(turns, SPOKEN[at:])
        assert pieces == whole != []


def test_the_semantic_stand_in_waits_short_after_a_fade_and_long_after_none() -> None:
    stop = len(spoken(silence_ms=0))
    waits = []
    for end in (0.02, 1.0):
        audio = spoken(silence_ms=2500).copy()
        audio[stop - 24 * 400 : stop] *= np.geomspace(1, end, 24 * 400, dtype=np.float32)
        heard = hear(listener(SemanticVad(eagerness="high")), encoded(audio))
        probabilities = speech_probabilities(audio, rate_hz=24_000)
        quiet = int(np.flatnonzero(probabilities >= 0.5)[-1]) + 1
        waits.append(next(h.audio_end_ms for h in heard if isinstance(h, Stopped)) - 32 * quiet)
    assert waits == [pytest.approx(400, abs=128), pytest.approx(2000, abs=128)]


def test_the_idle_timeout_fires_once_and_not_after_speech() -> None:
    turns = listener(detection(idle_timeout_ms=5000))
    turns.reply_ended(playing_ms=0.0)
    heard = hear(turns, SPOKEN + bytes(48 * 12_000))
    assert not any(isinstance(h, IdleTimeout) for h in heard)
    turns.reply_ended(playing_ms=0.0)
    turns.reply_started()
    assert hear(turns, bytes(48 * 12_000)) == []


def test_a_reply_that_is_cut_by_speech_starts_no_timer() -> None:
    turns = listener(detection(idle_timeout_ms=5000))
    for heard in (h for piece in chunks(SPOKEN + bytes(48 * 12_000)) for h in appended(turns, piece)):
        assert not isinstance(heard, IdleTimeout)
        if isinstance(heard, Started):
            turns.reply_ended(playing_ms=900.0)  # cancelled by this very speech


def test_a_long_silence_does_not_grow_in_memory() -> None:
    turns = listener()
    for _ in range(150):
        appended(turns, bytes(48_000))
    assert turns._n_kept <= 48 * (KEEP_MS + 2000)
    assert turns.heard_ms == 150_000


def test_hidden_constants_change_what_is_heard() -> None:
    turns = TurnDetection(SpeechBatch(), min_speech_frames=3)
    turns.configure(detection(prefix_padding_ms=0), PCM16)
    run = next(i for i in range(len(PROBABILITIES)) if (PROBABILITIES[i : i + 3] >= 0.5).all())
    assert hear(turns, SPOKEN)[0] == Started(run * 32)


@pytest.mark.parametrize("vad", [SERVER_VAD_DEFAULTS, None])
def test_a_turn_that_does_not_end_keeps_its_newest_part(vad: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.simulator.turn_detection.MOST_BYTES", 2000 * 48)
    turns = listener(vad)
    speech = encoded(spoken(silence_ms=0, lead_ms=0))
    while turns.heard_ms < 20_000:
        hear(turns, speech)
        assert turns._n_kept <= (2000 + 1000 + 100) * 48  # dropped a second at a time
    start_ms, end_ms = turns.uncommitted_ms
    assert 2000 <= end_ms - start_ms <= 3000
    assert end_ms == int(turns.heard_ms)
    assert len(turns.commit(start_ms, end_ms)) == (end_ms - start_ms) * 48


class Counting(SpeechBatch):
    """A batch that counts the audio it was given."""

    n_samples = 0

    async def push(self, stream: Any, audio: Any) -> list[float]:
        self.n_samples += len(audio)
        return await super().push(stream, audio)


def test_nothing_is_computed_while_turn_detection_is_off_and_frames_stay_in_place() -> None:
    batch, second = Counting(), bytes(48 * 1000)
    turns = TurnDetection(batch)
    turns.configure(None, PCM16)
    assert (hear(turns, second), batch.n_samples) == ([], 0)
    turns.configure(SERVER_VAD_DEFAULTS, PCM16)
    started, stopped = hear(turns, SPOKEN)
    always, _ = hear(listener(), second + SPOKEN)
    assert (type(started), type(stopped)) == (type(always), Stopped)
    assert abs(started.audio_start_ms - always.audio_start_ms) <= 64  # the net has not heard the second before
    assert stopped.audio_end_ms % 32 == 0  # type: ignore[union-attr]


async def test_a_stream_alone_does_not_wait_for_whole_intervals() -> None:
    batch, stream = SpeechBatch(interval_ms=2_000), SpeechProbabilities(rate_hz=24_000)
    began = time.monotonic()
    for _ in range(100):
        await batch.push(stream, np.zeros(2_400, np.float32))
    assert time.monotonic() - began < 20  # 200 s with a whole interval for each
