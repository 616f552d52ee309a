"""Conversation of a session as the service keeps it: state, ids, and the audio, words and tokens of the items.

Tokens are counted as the service bills them. Every response reads the instructions, the tools and the conversation
again. User audio costs a token per 100 ms, the assistant's own audio a token per 50 ms, an image a number by its size,
text one per word and punctuation mark (as the deltas are cut). An item with audio costs its audio and no text. What the
response before read in the same order is cached, in steps of 64 per modality.

All that is sent goes through `Conversation.emit`. The audio has a bound per session (`MOST_BYTES`). An item whose audio
was dropped is retrieved without it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any, Final, NamedTuple

from PIL import Image, UnidentifiedImageError

from rtnb.audio import Audio, codec
from rtnb.errors import ServiceError
from rtnb.protocol import UNSET, AudioFormat, Connection, ContentPart, Dialect, ErrorDetail, Item, SessionConfig, events
from rtnb.protocol.service.replies import item_events
from rtnb.protocol.values import PCM16, RateLimit, TokenDetails, Usage
from rtnb.simulator.delivery import Playout
from rtnb.simulator.responder import is_spoken
from rtnb.simulator.speech import tokens
from rtnb.simulator.transcriber import Transcript

AUDIO_MS_PER_INPUT_TOKEN: Final = 100
"""User audio costs one token per 100 ms (service documentation; a real log showed 16 tokens for 1.63 s)."""
AUDIO_MS_PER_OUTPUT_TOKEN: Final = 50
"""Assistant audio costs one token per 50 ms, also as input of later turns (service documentation)."""
CACHE_STEP: Final = 64
"""Cached tokens come in multiples of 64 (seen in real usage objects)."""
CONTEXT_TOKENS: Final = 28_224
"""Input tokens of a model with a context of 32k before truncation (service documentation)."""
IMAGE_LOW_TOKENS: Final = 85
IMAGE_TILE_TOKENS: Final = 170
"""Tokens of an image: 85 with ``detail`` "low", else 85 and 170 for each tile of 512 px once its sides are at most 2048
and its shorter one at most 768 px (documentation of gpt-4o; that of the realtime models gives no rule)."""


Tokens = Counter[str]
"""Tokens by modality: ``text``, ``audio``, ``image``."""


def text_tokens(text: str) -> int:
    """Return the tokens of a text.

    >>> text_tokens("Hello! How are you?")
    6
    """
    return len(tokens(text))


def item_tokens(item: Item, *, audio_ms: float = 0.0) -> Tokens:
    """Return the tokens of an item as input.

    >>> item_tokens(Item(type="function_call_output", output="Four words are here."))
    Counter({'text': 5})
    """
    images = sum(image_tokens(str(p.image_url), str(p.detail or "")) for p in item.content or () if p.image_url)
    if audio_ms:
        per_token = AUDIO_MS_PER_OUTPUT_TOKEN if item.role == "assistant" else AUDIO_MS_PER_INPUT_TOKEN
        return +Tokens(audio=int(audio_ms // per_token), image=images)
    texts = [part.text or part.transcript or "" for part in item.content or ()]
    texts += [item.arguments or "", item.output or ""]
    return +Tokens(text=sum(map(text_tokens, texts)), image=images)


def image_tokens(url: str, detail: str) -> int:
    """Return the tokens of an image given as a data URI; those of one tile where its size cannot be read."""
    if detail == "low":
        return IMAGE_LOW_TOKENS
    width, height = image_size(url) or (512, 512)
    shrink = min(1.0, 2048 / max(width, height))
    shrink = min(shrink, 768 / min(width, height) if min(width, height) * shrink > 768 else shrink)
    tiles = math.ceil(width * shrink / 512) * math.ceil(height * shrink / 512)
    return IMAGE_LOW_TOKENS + IMAGE_TILE_TOKENS * tiles


def image_size(url: str) -> tuple[int, int] | None:
    """Return width and height of an image in a data URI, None where it is no readable PNG or JPEG."""
    head, _, data = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        return None
    try:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=("PNG", "JPEG")) as image:
            return image.size
    except (binascii.Error, UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None


class ContextTooLongError(Exception):
    """The context does not fit, and the session's truncation is disabled."""


class Reading(NamedTuple):
    """Input of one response."""

    ids: tuple[Item | str, ...]
    """Items that it reads, oldest first."""
    details: TokenDetails


class ContextTokens:
    """Tokens of a conversation, and what of it the response before has read.

    Parameters
    ----------
    limit : int
        Most input tokens.
    """

    def __init__(self, limit: int = CONTEXT_TOKENS) -> None:
        self._limit = limit
        self._dropped: set[str] = set()
        """Items that no longer fit: a service never reads them again."""
        self._sent: list[tuple[str, Tokens]] = []
        self._fixed: str | None = None
        """Instructions and tools of the response before."""

    def read(self, costs: Mapping[str, Tokens], fixed: str, *, truncation: Any = "auto") -> Reading:
        """Return what the next response reads.

        Parameters
        ----------
        costs : mapping of str to Tokens
            Tokens of the conversation's items by their id, oldest first.
        fixed : str
            Instructions and tools.
        truncation : "auto", "disabled" or object
            The session's setting; an object has `retention_ratio` and perhaps ``token_limits.post_instructions``.

        Raises
        ------
        ContextTooLongError
            It does not fit, and truncation is disabled.
        """
        self._dropped.intersection_update(costs)
        read = [(item_id, cost) for item_id, cost in costs.items() if item_id not in self._dropped]
        head, total = Tokens(text=text_tokens(fixed)), _sum(read)
        limit, keep = self._limits(truncation, head.total())
        if total.total() > limit:
            if truncation == "disabled":
                raise ContextTooLongError(f"{(head + total).total()} tokens; the limit is {self._limit}")
            while read[:-1] and total.total() > keep:  # the newest item stays
                item_id, cost = read.pop(0)
                self._dropped.add(item_id)
                total.subtract(cost)
            self._fixed = None
        cached = Tokens()
        if fixed == self._fixed:  # an item that was changed, moved or deleted ends the cache before it
            pairs = zip(read, self._sent, strict=False)
            known = _sum(now for now, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) + head
            cached = Tokens({kind: count // CACHE_STEP * CACHE_STEP for kind, count in known.items()})
        self._sent, self._fixed = read, fixed
        return Reading(tuple(item_id for item_id, _ in read), _details(total + head, cached))

    def _limits(self, truncation: Any, head: int) -> tuple[int, int]:
        """Return the tokens after the instructions above which items are dropped, and how many stay then."""
        room = max(0, self._limit - head)
        if not isinstance(truncation, dict):
            return room, room
        limits = truncation.get("token_limits") or {}
        room = min(room, int(limits.get("post_instructions") or room))
        return room, int(room * float(truncation.get("retention_ratio", 1.0)))


def token_usage(given: TokenDetails, made: TokenDetails) -> Usage:
    """Return the usage of what was read and what was made."""
    n_in, n_out = (sum(getattr(one, f"{kind}_tokens") or 0 for kind in _KINDS) for one in (given, made))
    sums: Any = {"total_tokens": n_in + n_out, "input_tokens": n_in, "output_tokens": n_out}
    return Usage(**sums, input_token_details=given, output_token_details=made)


def _sum(read: Iterable[tuple[str, Tokens]]) -> Tokens:
    total = Tokens()
    for _, cost in read:
        total.update(cost)
    return total


def _details(total: Tokens, cached: Tokens) -> TokenDetails:
    whole: dict[str, Any] = {f"{kind}_tokens": total[kind] for kind in _KINDS}
    parts: dict[str, Any] = {f"{kind}_tokens": cached[kind] for kind in _KINDS}
    return TokenDetails(**whole, cached_tokens=cached.total(), cached_tokens_details=TokenDetails(**parts))


_KINDS: Final = ("text", "audio", "image")


QUOTA_TOKENS: Final = 15_000_000
"""Tokens per minute that `rate_limits.updated` shows (seen in real sessions)."""


class Quota:
    """Tokens per minute that all sessions of a simulator share."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._used = 0

    def use(self, count: int, *, now_s: float) -> RateLimit:
        """Count tokens; return what is left of this minute, as live services report it: one quota."""
        if now_s - self._since_s >= 60:
            self._since_s, self._used = now_s, 0
        self._used += count
        left, reset_s = max(0, QUOTA_TOKENS - self._used), round(60 - (now_s - self._since_s), 3)
        return RateLimit(name="tokens", limit=QUOTA_TOKENS, remaining=left, reset_seconds=reset_s)


# --- items ------------------------------------------------------------------------------------------------------------

MOST_BYTES: Final = 16 * 2**20
"""Encoded audio kept per session: almost six minutes of PCM. Chosen. The oldest item's is dropped first; the newest
item keeps its own, whatever its size."""


Found = Transcript | ServiceError | None
"""What a transcriber found: the words, its failure, or nothing."""


class Conversation:
    """Server side of one session's protocol, and what the service knows about each item.

    Parameters
    ----------
    dialect : {"ga", "preview"}
        Of the session.
    seed : str
        Of its ids and delays.
    send : callable
        Takes each event of the service and its text.
    webrtc : bool, default False
        Audio deltas go to `playout` instead.
    """

    def __init__(
        self, dialect: Dialect, *, seed: str, send: Callable[[events.Event, str], None], webrtc: bool = False
    ) -> None:
        self.connection = Connection("server", dialect=dialect, webrtc=webrtc)
        self.dialect, self.state = dialect, self.connection.state
        self.rng = random.Random(seed)
        self.playout = Playout() if webrtc else None
        self.tokens = ContextTokens()
        self._counted: dict[str, Tokens] = {}
        self._changed = set[str]()
        """Items that events were about since their tokens were counted."""
        self._send = send
        self._ids = itertools.count(1)
        self.id = self.make_id("conv")
        self._audio: dict[str, bytearray] = {}
        self._n_bytes = 0
        self._lengths: dict[str, tuple[str, int]] = {}
        """Media type and bytes of every item, also of those whose audio was dropped."""
        self._searches: dict[str, asyncio.Future[Found]] = {}

    @property
    def session(self) -> SessionConfig:
        """Settings in force."""
        assert self.state.session is not None  # session.created is the first event
        return self.state.session

    @property
    def input_format(self) -> AudioFormat:
        """Encoding of the user's audio."""
        return PCM16 if self.playout is not None else self.session.input_format

    def make_id(self, prefix: str) -> str:
        """Return a new id: seeded, at most 32 characters."""
        return f"{prefix}_{self.rng.getrandbits(64):016x}{next(self._ids):04x}"

    # --- sending ------------------------------------------------------------------------------------------------------

    def emit(self, *several: events.Event) -> None:
        """Send events: the state follows at once."""
        for event in several:
            if self.playout is not None and isinstance(event, events.ResponseOutputAudioDelta):
                self.state.apply(event)
                self.emit(*self.playout.push(event.response_id, event.item_id, event.delta))
                continue
            text = self.connection.send(replace(event, event_id=self.make_id("event")))
            self._changed.add(str(getattr(event, "item_id", None) or getattr(getattr(event, "item", None), "id", "")))
            self._send(event, text)

    def append(self, item: Item, *, done: bool = True) -> None:
        """Send the events of a new item at the end of the conversation."""
        previous = self.state.order[-1] if self.state.order else None
        self.emit(*item_events(item, previous_item_id=previous, dialect=self.dialect, done=done))

    def end(self, item: Item) -> None:
        """Send the event of an item that is complete now, unless the client deleted it meanwhile."""
        behind = iter(reversed(self.state.order))  # the item is the newest, or nearly, however long the conversation is
        if str(item.id) in behind:
            self.emit(events.ConversationItemDone(item=item, previous_item_id=next(behind, None)))

    def _costs(self) -> dict[str, Tokens]:
        """Return the tokens of the conversation's items; what has not changed is not read again."""
        for item_id in self._changed:
            self._counted.pop(item_id, None)
            if entry := self.state.entries.get(item_id):
                self._counted[item_id] = item_tokens(entry.item, audio_ms=self.duration_ms(item_id))
        self._changed.clear()
        return {item_id: self._counted[item_id] for item_id in self.state.order if item_id in self._counted}

    # --- audio and words ----------------------------------------------------------------------------------------------

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
        heard = TokenDetails(text_tokens=0, audio_tokens=int(audio_ms // AUDIO_MS_PER_INPUT_TOKEN))
        made = TokenDetails(text_tokens=len(tokens(text)))
        return replace(token_usage(heard, made), type="tokens", output_token_details=UNSET)

    def reading(self, chosen: Any, fixed: str, *, truncation: Any = "auto") -> Reading:
        """Return what a response reads: items that were chosen for it, else the conversation; as of `ContextTokens`."""
        if not isinstance(chosen, tuple):
            return self.tokens.read(self._costs(), fixed, truncation=truncation)
        total = Tokens(text=text_tokens(fixed))
        for item in self.read(chosen):
            total.update(item_tokens(item, audio_ms=self.duration_ms(str(item.id))))
        return Reading(chosen, _details(total, Tokens()))

    def read(self, context: Iterable[Item | str]) -> Iterator[Item]:
        """Yield the items of a context, given as items or ids, as they are understood; deleted ones are left out.

        A user's item has its words where they are known, also where no transcription was asked for.
        """
        for one in context:
            item: Item | None = one if isinstance(one, Item) else None
            if item is None or item.type == "item_reference":
                entry = self.state.entries.get(one if isinstance(one, str) else str(one.id))
                item = entry.item if entry is not None else None
            if item is None:
                continue
            if is_spoken(item) and item.content and not item.content[0].transcript:
                words = self.words(str(item.id))
                item = replace(item, content=(ContentPart(type="input_audio", transcript=words),)) if words else item
            yield item

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
