"""Audio of a session's items, kept for `conversation.item.retrieve` and for transcription.

The audio has a bound per session (`MOST_BYTES`). An item whose audio was dropped is retrieved without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from rtnb.audio import codec
from rtnb.protocol import ContentPart, ErrorDetail, Item, Usage, events
from rtnb.protocol.state import State
from rtnb.simulator.recognise import KnownSpeech

MOST_BYTES: Final = 16 * 2**20
"""Encoded audio kept per session: almost six minutes of PCM. Chosen. The oldest item's is dropped first; the newest
item keeps its own, whatever its size."""


class Recordings:
    """Encoded audio by item, and the words of the user's items where they are known.

    Parameters
    ----------
    known : KnownSpeech
        What all sessions can write down.
    """

    def __init__(self, known: KnownSpeech) -> None:
        self._known = known
        self._audio: dict[str, bytearray] = {}
        self._n_bytes = 0
        self._lengths: dict[str, tuple[str, int]] = {}
        """Media type and bytes of every item, also of those whose audio was dropped."""
        self._words: dict[str, str | None] = {}

    def add(self, item_id: str, data: bytes, *, media_type: str) -> None:
        """Append to an item's audio; older items lose theirs at the bound."""
        n_before = self._lengths.get(item_id, ("", 0))[1]
        self._lengths[item_id] = media_type, n_before + len(data)
        if n_before and item_id not in self._audio:
            return  # the beginning was dropped while the item grew: half an audio would mislead
        self._audio.setdefault(item_id, bytearray()).extend(data)
        self._n_bytes += len(data)
        while self._n_bytes > MOST_BYTES and len(self._audio) > 1:
            self._drop(next(iter(self._audio)))

    def _drop(self, item_id: str) -> None:
        self._n_bytes -= len(self._audio.pop(item_id, b""))

    def set_words(self, item_id: str, words: str) -> None:
        """Set the words of an item, as a scenario gives them."""
        self._words[item_id] = words

    def follow(self, event: events.Event) -> None:
        """Truncate and delete as the client asked."""
        if isinstance(event, events.ConversationItemTruncate) and event.item_id in self._lengths:
            media_type, n_bytes = self._lengths[event.item_id]
            n_left = min(n_bytes, event.audio_end_ms * codec(media_type).bytes_per_ms)
            self._lengths[event.item_id] = media_type, n_left
            if event.item_id in self._audio:
                self._n_bytes -= len(self._audio[event.item_id]) - n_left
                del self._audio[event.item_id][n_left:]
        elif isinstance(event, events.ConversationItemDelete):
            self._drop(event.item_id)
            self._lengths.pop(event.item_id, None)
            self._words.pop(event.item_id, None)

    def duration_ms(self, item_id: str) -> float:
        """Length of an item's audio, also of audio that was dropped at the bound; 0 for an item without audio."""
        media_type, n_bytes = self._lengths.get(item_id, ("audio/pcm", 0))
        return n_bytes / codec(media_type).bytes_per_ms

    def words(self, item_id: str) -> str | None:
        """Return the words of an item, from the scenario or as known speech; None where they are not known."""
        if item_id not in self._words:
            wire = codec(self._lengths.get(item_id, ("audio/pcm", 0))[0])
            audio = wire.decode(bytes(self._audio.get(item_id, b"")))
            self._words[item_id] = self._known.transcribe(audio, rate_hz=wire.rate_hz)
        return self._words[item_id]

    def transcription(self, item_id: str) -> events.Event:
        """Return the transcription event of an item: the exact words, or a failure."""
        text = self.words(item_id)
        if text is not None:
            seconds = round(self.duration_ms(item_id) / 1000, 3)
            return events.ConversationItemInputAudioTranscriptionCompleted(
                item_id=item_id, content_index=0, transcript=text, usage=Usage(type="duration", seconds=seconds)
            )
        detail = ErrorDetail(
            type="transcription_error",
            code="audio_unintelligible",
            message="The simulator writes down only speech it knows (its own voice, a scenario): nothing is invented.",
            param=None,
        )
        return events.ConversationItemInputAudioTranscriptionFailed(item_id=item_id, content_index=0, error=detail)

    def understood(self, item: Item) -> Item:
        """Return a user's item with its words; known speech has them even where no transcription was asked for."""
        if not is_spoken(item) or not item.content or item.content[0].transcript:
            return item
        words = self.words(item.id or "")
        return replace(item, content=(ContentPart(type="input_audio", transcript=words),)) if words else item

    def read(self, context: Iterable[Item | str], state: State) -> Iterator[Item]:
        """Yield the items of a context, given as items or ids, as they are understood; deleted ones are left out."""
        for one in context:
            item_id = one if isinstance(one, str) else str(one.id) if one.type == "item_reference" else None
            entry = state.entries.get(item_id) if item_id is not None else None
            if isinstance(one, Item) and item_id is None:
                yield self.understood(one)
            elif entry is not None:
                yield self.understood(entry.item)

    def with_audio(self, item: Item) -> Item:
        """Return an item with its audio, as `conversation.item.retrieved` shows it."""
        held = bytes(self._audio.get(item.id or "", b""))
        if not held or not item.content:
            return item
        return replace(item, content=tuple(replace(part, audio=held) for part in item.content))


def is_spoken(item: Item) -> bool:
    """Return whether an item is speech of the user."""
    return item.role == "user" and bool(item.content and item.content[0].type == "input_audio")
