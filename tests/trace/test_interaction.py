"""Interaction of a kept session: what was sent and what was played, on one time axis."""

from __future__ import annotations

import numpy as np
import pytest

import rtnb
from rtnb.audio import babble, encode_pcm16
from rtnb.client.log import EventLog
from rtnb.errors import AudioError
from rtnb.protocol import events
from tests.trace.rows import START, log_of

SPEECH = babble("my train is running late this morning", rate_hz=24_000).audio
CHUNK = 2_400


def sent(at_s: float, audio: np.ndarray) -> list[tuple[float, events.Event]]:
    """Appends of 100 ms in real time: the first one is complete 0.1 s later."""
    pieces = [audio[k : k + CHUNK] for k in range(0, len(audio), CHUNK)]
    return [
        (at_s + 0.1 * (k + 1), events.InputAudioBufferAppend(audio=encode_pcm16(piece)))
        for k, piece in enumerate(pieces)
    ]


def answer(at_s: float, audio: np.ndarray) -> tuple[float, events.Event]:
    delta = events.ResponseOutputAudioDelta(response_id="r", item_id="a", delta=encode_pcm16(audio))
    return at_s, delta


def test_a_log_gives_both_tracks_and_the_latency() -> None:
    length_s = len(SPEECH) / 24_000
    log = log_of(START, *sent(10.0, SPEECH), answer(10.0 + length_s + 0.8, SPEECH))
    found = rtnb.interaction(log)
    (event,) = found.events
    assert (event.kind, event.outcome) == ("response", "response")
    assert event.latency_s == pytest.approx(0.8, abs=0.2 + 1e-9)
    assert found.ticks.agent.sum() * 0.2 == pytest.approx(length_s, abs=0.2)
    assert found.rate_hz * length_s < len(found.user) == len(found.agent)


def test_an_answer_that_was_cut_ends_where_it_was_cut() -> None:
    cut = events.ConversationItemTruncate(item_id="a", content_index=0, audio_end_ms=1000)
    quiet = np.zeros(24_000 * 4, np.float32)
    rows = [START, *sent(10.0, quiet), answer(11.0, np.tile(SPEECH, 2)), (12.5, cut)]
    log = log_of(*sorted(rows, key=lambda row: row[0]))
    found = rtnb.interaction(log)
    assert np.flatnonzero(found.ticks.agent).tolist() == [5, 6, 7, 8, 9]
    assert not np.any(found.agent[round(2.05 * found.rate_hz) :])


def test_a_side_without_audio_is_silent() -> None:
    found = rtnb.interaction(log_of(START, *sent(10.0, SPEECH)))
    assert found.ticks.user.any()
    assert not found.ticks.agent.any()


def test_a_log_without_audio_is_refused() -> None:
    with pytest.raises(AudioError, match="the session has no audio in its log"):
        rtnb.interaction(EventLog())


def test_more_than_an_hour_is_refused() -> None:
    log = log_of(START, answer(11.0, SPEECH), answer(10.0 + 3_700, SPEECH))
    with pytest.raises(AudioError, match="the conversation lasts 62 minutes; at most 60 are analysed"):
        rtnb.interaction(log)


async def test_a_session_against_the_simulator_is_measured() -> None:
    async with rtnb.connect("sim", latency="fast") as session:
        await session.say(SPEECH, rate_hz=24_000, paced=8)
        found = rtnb.interaction(session)
    assert found.agent.any()
    assert found.user.any()
