"""Refusals of a service that depend on the state of the session: voice, buffer, responses, items.

Codes and wording as observed or reported; ``(u)`` marks those with one weak source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.service.rules import Refusal
from rtnb.protocol.service.schema import APPEND_LIMIT_BYTES
from rtnb.protocol.state import State
from rtnb.protocol.values import PCM16, UNSET, Dialect

COMMIT_MINIMUM_MS: Final = 100
"""Shortest audio that can be committed (the service's own error text)."""
_BASE_MODELS: Final = ("gpt-realtime", "gpt-4o-realtime", "gpt-4o-mini-realtime")
_VOICE: Final[dict[Dialect, str]] = {"ga": "audio.output.voice", "preview": "voice"}


def check_state(state: State, event: Event, *, dialect: Dialect) -> Refusal | None:
    """Check a well-formed client event against the state of the session; None where a service carries it out."""
    if isinstance(event, events.SessionUpdate | events.ResponseCreate):
        return (_session_update if isinstance(event, events.SessionUpdate) else _response_create)(state, event, dialect)
    check = _CHECKS.get(type(event))
    return check(state, event) if check else None


def _session_update(state: State, event: Any, dialect: Dialect) -> Refusal | None:
    current, wanted = state.session, event.session
    if current is None:
        return None
    if wanted.type != current.type:
        message = f"Cannot change the session type from '{current.type}' to '{wanted.type}'."
        return Refusal("invalid_value", message, "session.type")
    # Clients repeat the base model of a deployment here (LiveKit's Azure plugin does): the service ignores it.
    named = wanted.model if isinstance(wanted.model, str) and not wanted.model.startswith(_BASE_MODELS) else UNSET
    if named is not UNSET and current.model is not UNSET and named != current.model:
        message = f"Cannot change the model of a session from '{current.model}' to '{wanted.model}'."
        return Refusal("invalid_value", message, "session.model")  # (u)
    if current.tracing and wanted.tracing is not UNSET and wanted.tracing != current.tracing:
        return Refusal("invalid_value", "Cannot update tracing once it is enabled.", "session.tracing")  # (u)
    return _frozen_voice(state, wanted.voice, f"session.{_VOICE[dialect]}")


def _response_create(state: State, event: Any, dialect: Dialect) -> Refusal | None:
    if event.response and event.response.conversation == "none":
        return None
    if state.active_response_id is None:  # documented for `response.create` too; its error was not seen (u)
        output = event.response and event.response.audio and event.response.audio.output
        return _frozen_voice(state, output.voice, f"response.{_VOICE[dialect]}") if output else None
    return Refusal(
        "conversation_already_has_active_response",
        f"Conversation already has an active response in progress: {state.active_response_id}. "
        "Wait until the response is finished before creating a new one.",
    )


def _frozen_voice(state: State, wanted: Any, param: str) -> Refusal | None:
    """Refuse another voice once the assistant has sent audio."""
    if not state.audio_produced or state.session is None or wanted is UNSET or wanted == state.session.voice:
        return None
    message = "Cannot update a conversation's voice if assistant audio is present."
    return Refusal("cannot_update_voice", message, param)


def _append(state: State, event: events.InputAudioBufferAppend) -> Refusal | None:
    if len(event.audio) <= APPEND_LIMIT_BYTES:
        return None
    message = f"Invalid 'audio': {len(event.audio)} bytes exceed the maximum of {APPEND_LIMIT_BYTES} bytes."
    return Refusal("string_above_max_length", message, "audio")  # (u)


def _commit(state: State, event: Event) -> Refusal | None:
    audio_format = state.session.input_format if state.session else PCM16
    held_ms = state.input_audio_buffer.bytes / audio_format.bytes_per_ms
    if held_ms >= COMMIT_MINIMUM_MS:
        return None
    return Refusal(
        "input_audio_buffer_commit_empty",
        "Error committing input audio buffer: buffer too small. Expected at least "
        f"{COMMIT_MINIMUM_MS}ms of audio, but buffer only has {held_ms:.2f}ms of audio.",
    )


def _response_cancel(state: State, event: events.ResponseCancel) -> Refusal | None:
    running = state.responses.get(event.response_id or state.active_response_id or "")
    if running is not None and running.response.status == "in_progress":
        return None
    return Refusal("response_cancel_not_active", "Cancellation failed: no active response found")


def _item_create(state: State, event: events.ConversationItemCreate) -> Refusal | None:
    item, previous = event.item, event.previous_item_id
    if isinstance(previous, str) and previous != "root" and previous not in state.order:
        return _not_found(previous, "previous_item_id")
    if item.id and item.id in state.entries:
        return Refusal("invalid_value", f"Item with id '{item.id}' already exists.", "item.id")  # (u)
    if item.type == "function_call_output":
        made = (entry.item for entry in reversed(state.entries.values()))  # the call is nearly always a recent item
        if not any(call.call_id == item.call_id for call in made if call.type == "function_call"):
            message = f"Tool call ID '{item.call_id}' not found in conversation."
            return Refusal("invalid_tool_call_id", message, "item.call_id")  # (u)
    return None


def _item_known(state: State, event: Any) -> Refusal | None:
    return None if event.item_id in state.order else _not_found(event.item_id, "item_id")


def _not_found(item_id: str, param: str) -> Refusal:
    return Refusal("item_not_found", f"Item with id '{item_id}' not found in the conversation.", param)  # (u)


def _truncate(state: State, event: events.ConversationItemTruncate) -> Refusal | None:
    if unknown := _item_known(state, event):
        return unknown
    entry = state.entries[event.item_id]
    if entry.item.role != "assistant" or not entry.audio_ms:
        return Refusal("invalid_value", "Only model output audio messages can be truncated", "item_id")  # (u)
    length_ms = entry.audio_ms if entry.truncated_ms is None else entry.truncated_ms
    if event.audio_end_ms <= length_ms:
        return None
    return Refusal(None, f"Audio content of {int(length_ms)}ms is already shorter than {event.audio_end_ms}ms")


_CHECKS: Final[dict[type[Event], Callable[[State, Any], Refusal | None]]] = {
    events.InputAudioBufferAppend: _append,
    events.InputAudioBufferCommit: _commit,
    events.ResponseCancel: _response_cancel,
    events.ConversationItemCreate: _item_create,
    events.ConversationItemTruncate: _truncate,
    events.ConversationItemDelete: _item_known,
    events.ConversationItemRetrieve: _item_known,
}
