"""Rules of a reconnect: when to try again, and which items of a conversation a new session can be given.

A service cannot resume a session. A new session gets the same settings, then the conversation item by item, as text:
clients cannot create audio of the assistant. Source: the service's documentation on session limits (2026).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from rtnb.client.playback import Playback
from rtnb.protocol.state import Entry, State
from rtnb.protocol.values import UNSET, ContentPart, Item

DELAYS_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses before the attempts to open a new session (chosen; the reference client uses 0.5 to 8 s)."""

FATAL_CODES: Final = frozenset({1000, 1008, 3000, 4000})
"""Close codes after which a new attempt would be refused too: policy, key, request; 1000 is this side's own."""


def restorable(state: State, playback: Playback) -> tuple[list[Item], int]:
    """Return the items that a new session can be given, in order, and the number of items left out.

    User audio becomes its transcript. Assistant speech becomes the text that was played: of an item that was cut at
    40 % of its audio, the first 40 % of its words. Items without text, MCP items and unanswered calls are left out.
    """
    answered = {entry.item.call_id for entry in state.entries.values() if entry.item.type == "function_call_output"}
    restored = [_restored(state.entries[item_id], playback, answered) for item_id in state.order]
    items = [replace(item, object=UNSET, status=UNSET) for item in restored if item is not None]
    return items, len(restored) - len(items)


def _restored(entry: Entry, playback: Playback, answered: set[Any]) -> Item | None:
    item = entry.item
    if item.type in ("function_call", "function_call_output"):
        return item if item.call_id in answered else None
    if item.type != "message":
        return None
    parts = [_as_input(entry, index, part, playback) for index, part in enumerate(item.content or ())]
    kept = tuple(part for part in parts if part is not None)
    return replace(item, content=kept) if kept else None


def _as_input(entry: Entry, index: int, part: ContentPart, playback: Playback) -> ContentPart | None:
    """Return a part as a client may create it; None where it has no text."""
    if part.type in ("input_text", "input_image"):
        return part
    if part.type == "input_audio":
        return ContentPart(type="input_text", text=part.transcript) if part.transcript else None
    streamed = entry.parts.get(index)
    text = part.text or part.transcript or (streamed and (streamed.text or streamed.transcript)) or ""
    if streamed is not None and streamed.audio_bytes:
        text = _played(text, entry, playback)
    return ContentPart(type="output_text", text=text) if text else None


def _played(text: str, entry: Entry, playback: Playback) -> str:
    """Return the words of an item that were played, by its share of played audio."""
    item_id = entry.item.id or ""
    played_ms = entry.truncated_ms
    if played_ms is None:
        if not playback.is_cut(item_id) and not playback.unplayed_ms(item_id):
            return text
        played_ms = playback.heard_ms(item_id)
    words = text.split()
    share = min(1.0, played_ms / entry.audio_ms) if entry.audio_ms else 0.0
    return " ".join(words[: round(share * len(words))])
