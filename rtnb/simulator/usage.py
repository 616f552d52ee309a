"""How many tokens a turn costs, about: text by length, audio by time."""

from __future__ import annotations

from typing import Final

from rtnb.protocol.values import TokenDetails
from rtnb.simulator.behaviour import Turn

CHARACTERS_PER_TOKEN: Final = 4
"""Rule of thumb for English text (chosen)."""
AUDIO_MS_PER_INPUT_TOKEN: Final = 100
"""User audio costs one token per 100 ms (service documentation; a real log showed 16 tokens for 1.63 s)."""
CACHE_STEP: Final = 64
"""Cached tokens come in multiples of 64 (seen in real usage objects)."""


def count_tokens(turn: Turn, *, audio_ms: float) -> TokenDetails:
    """The input side of a response's usage: all but the newest item was sent before, and is cached in steps of 64."""
    words = [turn.instructions, *map(_words_of, turn.items)]
    text = sum(-(-len(part) // CHARACTERS_PER_TOKEN) for part in words)
    audio = int(audio_ms / AUDIO_MS_PER_INPUT_TOKEN)
    before = sum(-(-len(part) // CHARACTERS_PER_TOKEN) for part in words[:-1])
    cached = before // CACHE_STEP * CACHE_STEP if len(turn.items) > 1 else 0
    return TokenDetails(
        text_tokens=text,
        audio_tokens=audio,
        image_tokens=0,
        cached_tokens=cached,
        cached_tokens_details=TokenDetails(text_tokens=cached, audio_tokens=0, image_tokens=0),
    )


def _words_of(item: object) -> str:
    content = getattr(item, "content", None) or ()
    spoken = " ".join(part.text or part.transcript or "" for part in content)
    return spoken + str(getattr(item, "arguments", "") or "") + str(getattr(item, "output", "") or "")
