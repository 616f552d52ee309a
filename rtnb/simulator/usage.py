"""Tokens as the service bills them: what a response reads, what of it is cached, and what no longer fits.

Every response reads the instructions, the tools and the conversation again. User audio costs a token per 100 ms, the
assistant's own audio a token per 50 ms, an image a number by its size, text one per word and punctuation mark (as the
deltas are cut). An item with audio costs its audio and no text. What the response before read in the same order is
cached, in steps of 64 per modality.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from PIL import Image, UnidentifiedImageError

from rtnb.protocol import Item
from rtnb.protocol.values import RateLimit, TokenDetails, Usage
from rtnb.simulator.speech import tokens

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

    ids: tuple[str, ...]
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
        self._items: dict[str, Tokens] = {}
        self._dropped: set[str] = set()
        """Items that no longer fit: a service never reads them again."""
        self._sent: list[str] = []
        self._fixed: str | None = None
        """Instructions and tools of the response before."""

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def set(self, item_id: str, cost: Tokens) -> None:
        """Set the tokens of an item; a changed one ends the cache before it."""
        if self._items.get(item_id, cost) != cost:
            self._end_cache(item_id)
        self._items[item_id] = cost

    def remove(self, item_id: str) -> None:
        """Forget an item."""
        if self._items.pop(item_id, None) is not None:
            self._end_cache(item_id)
        self._dropped.discard(item_id)

    def _end_cache(self, item_id: str) -> None:
        if item_id in self._sent:
            del self._sent[self._sent.index(item_id) :]

    def _sum(self, ids: Sequence[str]) -> Tokens:
        total = Tokens()
        for item_id in ids:
            total.update(self._items.get(item_id, {}))
        return total

    def read(self, order: Sequence[str], fixed: str, *, truncation: Any = "auto") -> Reading:
        """Return what the next response reads.

        Parameters
        ----------
        order : sequence of str
            Ids of the conversation's items, oldest first.
        fixed : str
            Instructions and tools.
        truncation : "auto", "disabled" or object
            The session's setting; an object has `retention_ratio` and perhaps ``token_limits.post_instructions``.

        Raises
        ------
        ContextTooLongError
            It does not fit, and truncation is disabled.
        """
        ids = [item_id for item_id in order if item_id not in self._dropped]
        head, total, cached = Tokens(text=text_tokens(fixed)), self._sum(ids), Tokens()
        before = ids[: len(self._sent)] == self._sent
        limit, keep = self._limits(truncation, head.total())
        if total.total() > limit:
            if truncation == "disabled":
                raise ContextTooLongError(f"{(head + total).total()} tokens; the limit is {self._limit}")
            while ids[:-1] and total.total() > keep:  # the newest item stays
                gone = ids.pop(0)
                self._dropped.add(gone)
                total.subtract(self._items.get(gone, {}))
            before = False
        if before and fixed == self._fixed:
            known = self._sum(self._sent) + head
            cached = Tokens({kind: count // CACHE_STEP * CACHE_STEP for kind, count in known.items()})
        self._sent, self._fixed = list(ids), fixed
        return Reading(tuple(ids), _details(total + head, cached))

    def _limits(self, truncation: Any, head: int) -> tuple[int, int]:
        """Return the tokens after the instructions above which items are dropped, and how many stay then."""
        room = max(0, self._limit - head)
        if not isinstance(truncation, dict):
            return room, room
        limits = truncation.get("token_limits") or {}
        room = min(room, int(limits.get("post_instructions") or room))
        return room, int(room * float(truncation.get("retention_ratio", 1.0)))


def measure(items: Sequence[tuple[Item, float]], fixed: str) -> TokenDetails:
    """Return the input tokens of a context that is not the conversation: items with the ms of their audio."""
    total = Tokens(text=text_tokens(fixed))
    for item, audio_ms in items:
        total.update(item_tokens(item, audio_ms=audio_ms))
    return _details(total, Tokens())


def token_usage(given: TokenDetails, made: TokenDetails) -> Usage:
    """Return the usage of what was read and what was made."""
    n_in, n_out = (sum(getattr(one, f"{kind}_tokens") or 0 for kind in _KINDS) for one in (given, made))
    sums: Any = {"total_tokens": n_in + n_out, "input_tokens": n_in, "output_tokens": n_out}
    return Usage(**sums, input_token_details=given, output_token_details=made)


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
