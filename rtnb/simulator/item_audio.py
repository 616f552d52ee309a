"""Audio of a session's items, kept for `conversation.item.retrieve` and for transcription.

The audio has a bound per session (`MOST_BYTES`). An item whose audio was dropped is retrieved without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from rtnb.audio import Audio, codec
from rtnb.errors import ServiceError
from rtnb.protocol import UNSET, ContentPart, ErrorDetail, Item, Usage, events
from rtnb.protocol.state import State
from rtnb.protocol.values import TokenDetails
from rtnb.simulator.speech import tokens
from rtnb.simulator.transcriber import Transcript
from rtnb.simulator.usage import AUDIO_MS_PER_INPUT_TOKEN

MOST_BYTES: Final = 16 * 2**20
"""Encoded audio kept per session: almost six minutes of PCM. Chosen. The oldest item's is dropped first; the newest
item keeps its own, whatever its size."""


Found = Transcript | ServiceError | None
"""What a transcriber found: the words, its failure, or nothing."""


class ItemAudio:
    """Encoded audio by item, and the words of the user's items where they are known."""

    def __init__(self) -> None:
        self._audio: dict[str, bytearray] = {}
        self._n_bytes = 0
        self._lengths: dict[str, tuple[str, int]] = {}
        """Media type and bytes of every item, also of those whose audio was dropped."""
        self._searches: dict[str, asyncio.Future[Found]] = {}

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

    def expect_words(self, item_id: str, search: asyncio.Future[Found]) -> None:
        """Note the search for the words of an item."""
        self._searches[item_id] = search

    def search(self, item: Item | str) -> asyncio.Future[Found] | None:
        """Return the search for the words of an item while it runs."""
        found = self._searches.get(item if isinstance(item, str) else str(item.id))
        return None if found is None or found.done() else found

    def _found(self, item_id: str) -> Found:
        search = self._searches.get(item_id)
        return search.result() if search is not None and search.done() and not search.cancelled() else None

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
            self._searches.pop(event.item_id, None)

    def duration_ms(self, item_id: str) -> float:
        """Length of an item's audio, also of audio that was dropped at the bound; 0 for an item without audio."""
        media_type, n_bytes = self._lengths.get(item_id, ("audio/pcm", 0))
        return n_bytes / codec(media_type).bytes_per_ms

    def audio(self, item_id: str) -> tuple[Audio, int]:
        """Return an item's audio (float32, shape (n_samples,)) and its sample rate."""
        wire = codec(self._lengths.get(item_id, ("audio/pcm", 0))[0])
        return wire.decode(bytes(self._audio.get(item_id, b""))), wire.rate_hz

    def words(self, item_id: str) -> str | None:
        """Return the words of an item; None where they are not known (yet)."""
        found = self._found(item_id)
        return found.text if isinstance(found, Transcript) else None

    def transcription_events(self, item_id: str, *, model: str, logprobs: bool = False) -> list[events.Event]:
        """Return the transcription events of an item: deltas and the whole text, or a failure."""
        found = self._found(item_id)
        place: dict[str, Any] = {"item_id": item_id, "content_index": 0}
        if not isinstance(found, Transcript):
            return [events.ConversationItemInputAudioTranscriptionFailed(**place, error=_failure(found))]
        words = [(token, 0.0) for token in tokens(found.text)]  # known exactly where the transcriber gives none
        given = _logprobs(found.logprobs or words) if logprobs and model.startswith("gpt-4o") else UNSET
        whole = events.ConversationItemInputAudioTranscriptionCompleted(
            **place, transcript=found.text, usage=self._transcription_usage(item_id, found.text, model), logprobs=given
        )
        # whisper-1 sends its text in one piece, the others as it grows (API reference).
        pieces = [found.text] if model == "whisper-1" else tokens(found.text)
        deltas = [events.ConversationItemInputAudioTranscriptionDelta(**place, delta=piece) for piece in pieces]
        return [*deltas, whole]

    def _transcription_usage(self, item_id: str, text: str, model: str) -> Usage:
        """Return what a transcription costs: tokens for the gpt-4o family, seconds for all others."""
        audio_ms = self.duration_ms(item_id)
        if not model.startswith("gpt-4o"):
            return Usage(type="duration", seconds=round(audio_ms / 1000, 3))
        n_audio, n_text = int(audio_ms // AUDIO_MS_PER_INPUT_TOKEN), len(tokens(text))
        return Usage(
            type="tokens",
            total_tokens=n_audio + n_text,
            input_tokens=n_audio,
            output_tokens=n_text,
            input_token_details=TokenDetails(text_tokens=0, audio_tokens=n_audio),
        )

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


def _logprobs(found: Iterable[tuple[str, float]]) -> tuple[dict[str, Any], ...]:
    return tuple({"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in found)


def _failure(found: ServiceError | None) -> ErrorDetail:
    if found is not None:
        return ErrorDetail(type=found.type, code=found.code, message=str(found), param=None)
    message = "The transcriber found no words, and nothing is invented."
    return ErrorDetail(type="transcription_error", code="audio_unintelligible", message=message, param=None)


def is_spoken(item: Item) -> bool:
    """Return whether an item is speech of the user."""
    return item.role == "user" and bool(item.content and item.content[0].type == "input_audio")
