"""Input tokens of a response, about: text by length, the user's speech by time."""

from __future__ import annotations

from typing import Final

from rtnb.protocol import Item
from rtnb.protocol.values import TokenDetails

CHARACTERS_PER_TOKEN: Final = 4
"""Rule of thumb for English text (chosen)."""
AUDIO_MS_PER_INPUT_TOKEN: Final = 100
"""User audio costs one token per 100 ms (service documentation; a real log showed 16 tokens for 1.63 s)."""
CACHE_STEP: Final = 64
"""Cached tokens come in multiples of 64 (seen in real usage objects)."""


class TokenSums:
    """Running sums over the items of a context.

    Setting an item changes the sums by the difference, so a count costs the same in a long conversation as in a
    short one.

    >>> sums = TokenSums()
    >>> sums.set("item_1", Item(type="function_call_output", output="Four words are here."))
    >>> sums.details("", newest="item_1").text_tokens
    5
    """

    def __init__(self) -> None:
        self._items: dict[str, tuple[int, int]] = {}
        self._text = self._audio_ms = 0

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def set(self, item_id: str, item: Item, *, spoken_ms: float = 0.0) -> None:
        """Count an item, or count it again; one with recorded speech costs audio tokens and no text tokens."""
        self.remove(item_id)
        counted = (0, round(spoken_ms)) if spoken_ms else (_text_tokens(_words_of(item)), 0)
        self._items[item_id] = counted
        self._add(*counted)

    def remove(self, item_id: str) -> None:
        """Forget an item."""
        text, audio_ms = self._items.pop(item_id, (0, 0))
        self._add(-text, -audio_ms)

    def _add(self, text: int, audio_ms: int) -> None:
        self._text += text
        self._audio_ms += audio_ms

    def details(self, instructions: str, *, newest: str | None) -> TokenDetails:
        """Return the input side of a response's usage.

        Every item but the newest was sent before; their text is cached, in steps of 64.
        """
        text = self._text + _text_tokens(instructions)
        before = text - self._items.get(newest or "", (0, 0))[0]
        cached = before // CACHE_STEP * CACHE_STEP if len(self._items) > 1 else 0
        return TokenDetails(
            text_tokens=text,
            audio_tokens=self._audio_ms // AUDIO_MS_PER_INPUT_TOKEN,
            image_tokens=0,
            cached_tokens=cached,
            cached_tokens_details=TokenDetails(text_tokens=cached, audio_tokens=0, image_tokens=0),
        )


def _text_tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _words_of(item: Item) -> str:
    spoken = " ".join(part.text or part.transcript or "" for part in item.content or ())
    return f"{spoken}{item.arguments or ''}{item.output or ''}"
