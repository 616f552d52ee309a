"""Interaction of a kept session: what was sent and what was played, on one time axis."""

from __future__ import annotations

import numpy as np
import pytest

import rtnb
from rtnb.audio import Audio, babble, encode_pcm16
from rtnb.client.log import EventLog
from rtnb.errors import AudioError
from rtnb.protocol import events
from tests.trace.rows import START, log_of

SPEECH = babble("my train is running late this morning", rate_hz=24_000).audio
LENGTH_S = len(SPEECH) / 24_000
Rows = list[tuple[float, events.Event]]


def sent(audio: Audio) -> Rows:
    """Appends of 100 ms in real time from 10.0 s on: the first one is complete 0.1 s later."""
    parts = [encode_pcm16(audio[k : k + 2_400]) for k in range(0, len(audio), 2_400)]
    return [(10.1 + 0.1 * k, events.InputAudioBufferAppend(audio=part)) for k, part in enumerate(parts)]


def answer(at_s: float, audio: Audio) -> tuple[float, events.Event]:
    return at_s, events.ResponseOutputAudioDelta(response_id="r", item_id="a", delta=encode_pcm16(audio))


def test_a_log_gives_both_tracks_and_the_latency() -> None:
    found = rtnb.interaction(log_of(START, *sent(SPEECH), answer(10.0 + LENGTH_S + 0.8, SPEECH)))
    (event,) = found.events
    assert (event.kind, event.outcome) == ("response", "response")
    assert event.latency_s == pytest.approx(0.8, abs=0.2 + 1e-9)
    assert found.ticks.agent.sum() * 0.2 == pytest.approx(LENGTH_S, abs=0.2)
    assert found.rate_hz * LENGTH_S < len(found.user) == len(found.agent)


def test_an_answer_that_was_cut_ends_where_it_was_cut() -> None:
    cut = (12.5, events.ConversationItemTruncate(item_id="a", content_index=0, audio_end_ms=1000))
    rows = [START, *sent(np.zeros(24_000 * 4, np.float32)), answer(11.0, np.tile(SPEECH, 2)), cut]
    found = rtnb.interaction(log_of(*sorted(rows, key=lambda row: row[0])))
    assert np.flatnonzero(found.ticks.agent).tolist() == [5, 6, 7, 8, 9]
    assert not np.any(found.agent[round(2.05 * found.rate_hz) :])


def test_a_side_without_audio_is_silent() -> None:
    found = rtnb.interaction(log_of(START, *sent(SPEECH)))
    assert found.ticks.user.any()
    assert not found.ticks.agent.any()


@pytest.mark.parametrize(
    "log, words",
    [
        (EventLog(), "the session has no audio in its log"),
        (
            log_of(START, answer(11.0, SPEECH), answer(10.0 + 3_700, SPEECH)),
            "the conversation lasts 62 minutes; at most 60 are analysed",
        ),
    ],
    ids=["no audio", "more than an hour"],
)
def test_what_cannot_be_analysed_is_refused(log: EventLog, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        rtnb.interaction(log)
