"""Writing down known speech exactly, and nothing else: `rtnb.simulator.transcriber`, `rtnb.simulator.conversation`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from rtnb.protocol import Item, events
from rtnb.protocol.values import ContentPart
from rtnb.simulator.conversation import Conversation
from rtnb.simulator.transcriber import ExactTranscriber
from tests.simulator.rig import encoded, spoken

SENTENCES = ["Tell me a joke", "What is the weather in Lund?", "Count to five, please", "Good morning to you"]
SILENCE = np.zeros(48_000, np.float32)


@pytest.fixture(scope="module")
def known() -> ExactTranscriber:
    known = ExactTranscriber()
    for text in SENTENCES:
        known.learn(text, spoken(text, silence_ms=0, lead_ms=0))
    return known


async def words(known: ExactTranscriber, audio: Any, *, rate_hz: int) -> str | None:
    found = await known.transcribe(audio, rate_hz=rate_hz)
    return found.text if found is not None else None


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("media_type", ["audio/pcm", "audio/pcmu", "audio/pcma"])
@pytest.mark.parametrize("gain", [1.0, 0.2])
async def test_known_speech_is_known_in_any_format_at_any_level_amid_silence(
    known: ExactTranscriber, text: str, media_type: str, gain: float
) -> None:
    recordings = conversation()
    recordings.add("item", encoded(gain * spoken(text), media_type), media_type=media_type)
    audio, rate_hz = recordings.audio("item")
    assert await words(known, audio, rate_hz=rate_hz) == text


def conversation() -> Conversation:
    return Conversation("ga", seed="1", send=lambda event, text: None)


@pytest.mark.parametrize("text", ["Tell me a story", "What is the time in Lund?", "yes", "Good evening to all of you"])
async def test_other_speech_of_the_same_voice_is_not(known: ExactTranscriber, text: str) -> None:
    assert await words(known, spoken(text), rate_hz=24_000) is None


NOISE = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
HALF = spoken(SENTENCES[1], silence_ms=0)[: len(spoken(SENTENCES[1], silence_ms=0)) // 2]


@pytest.mark.parametrize(
    "audio", [SILENCE[:0], SILENCE, NOISE, HALF], ids=["nothing", "silence", "noise", "half a sentence"]
)
async def test_what_is_no_whole_sentence_is_not(known: ExactTranscriber, audio: Any) -> None:
    assert await words(known, audio, rate_hz=24_000) is None


async def test_who_knows_nothing_writes_nothing_and_silence_is_not_learned() -> None:
    known = ExactTranscriber()
    known.learn("silence", SILENCE)
    for audio in (spoken(), SILENCE):
        assert await words(known, audio, rate_hz=24_000) is None


@pytest.mark.parametrize("bound, most", [("KNOWN_LIMIT", 2), ("KNOWN_LIMIT_BYTES", 4 * 24_000)])
async def test_the_oldest_is_forgotten_first(bound: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"rtnb.simulator.transcriber.{bound}", most)
    known = ExactTranscriber()
    sounds = [spoken(text, silence_ms=0, lead_ms=0)[:24_000] for text in SENTENCES[:3]]
    for text, sound in zip(SENTENCES, sounds, strict=False):
        known.learn(text, sound)
    found = [await words(known, sound, rate_hz=24_000) for sound in sounds]
    assert found == [None, *SENTENCES[1:3]]


def item(item_id: str) -> Item:
    return Item(type="message", role="user", id=item_id, content=(ContentPart(type="input_audio"),))


def test_the_oldest_audio_is_dropped_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.simulator.conversation.MOST_BYTES", 4800)
    recordings = conversation()
    for name in ("a", "b", "c"):
        recordings.add(name, bytes(2400), media_type="audio/pcm")
    recordings.add("a", bytes(480), media_type="audio/pcm")  # its beginning is gone: the rest is not kept either
    assert recordings.with_audio(item("a")) == item("a")
    assert [len(part.audio) for name in "bc" for part in recordings.with_audio(item(name)).content or ()] == [2400] * 2
    assert recordings.duration_ms("a") == 60  # its tokens are still counted
    recordings.follow(events.ConversationItemTruncate(item_id="c", content_index=0, audio_end_ms=20))
    recordings.add("d", bytes(1440), media_type="audio/pcm")
    assert list(recordings._audio) == ["b", "c", "d"]
    recordings.add("e", bytes(9600), media_type="audio/pcm")  # the newest keeps its own, whatever its size
    assert list(recordings._audio) == ["e"]
    assert recordings._n_bytes == 9600


async def test_no_step_of_a_search_among_many_utterances_is_long() -> None:
    """A delta that is due must not wait until all that was spoken is analysed."""
    known = ExactTranscriber()
    for number in range(200):
        known.learn(f"{number}", NOISE[: 40_000 + 10 * number])
    searching = asyncio.create_task(words(known, NOISE, rate_hz=24_000))
    longest_s, began = 0.0, time.thread_time()
    while not searching.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest_s, began = max(longest_s, now - began), now
    assert await searching is not None
    assert longest_s < 0.05  # 0.2 s and more in one step
    assert await words(known, np.zeros(24_000 * 60, np.float32), rate_hz=24_000) is None  # longer than all it knows
