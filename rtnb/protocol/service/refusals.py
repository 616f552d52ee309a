"""What a service refuses because of the state of the session: voice, buffer, responses, items.

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


def check_state(state: State, event: Event, *, dialect: Dialect) -> Refusal | None:
    """Judge a well-formed client event against the state of the session; None where it may be carried out."""
    check = _CHECKS.get(type(event))
    return check(state, event, dialect) if check else None


def _session_update(state: State, event: events.SessionUpdate, dialect: Dialect) -> Refusal | None:
    current, wanted = state.session, event.session
    if current is None:
        return None
    if wanted.type != current.type:
        return Refusal(
            code="invalid_value",
            message=f"Cannot change the session type from '{current.type}' to '{wanted.type}'.",
            param="session.type",
        )
    if wanted.model is not UNSET and current.model is not UNSET and wanted.model != current.model:
        return Refusal(
            code="invalid_value",  # (u)
            message=f"Cannot change the model of a session from '{current.model}' to '{wanted.model}'.",
            param="session.model",
        )
    if current.tracing and wanted.tracing is not UNSET and wanted.tracing != current.tracing:
        return Refusal(
            code="invalid_value",  # (u)
            message="Cannot update tracing once it is enabled.",
            param="session.tracing",
        )
    return _frozen_voice(state, wanted.voice, f"session.{_VOICE[dialect]}")


def _frozen_voice(state: State, wanted: Any, param: str) -> Refusal | None:
    """Another voice than the one that was heard already."""
    if not state.audio_produced or state.session is None or wanted is UNSET or wanted == state.session.voice:
        return None
    return Refusal(
        code="cannot_update_voice",
        message="Cannot update a conversation's voice if assistant audio is present.",
        param=param,
    )


_VOICE: Final[dict[Dialect, str]] = {"ga": "audio.output.voice", "preview": "voice"}


def _append(state: State, event: events.InputAudioBufferAppend, dialect: Dialect) -> Refusal | None:
    if len(event.audio) > APPEND_LIMIT_BYTES:
        return Refusal(
            code="string_above_max_length",  # (u)
            message=f"Invalid 'audio': {len(event.audio)} bytes exceed the maximum of {APPEND_LIMIT_BYTES} bytes.",
            param="audio",
        )
    return None


def _commit(state: State, event: events.InputAudioBufferCommit, dialect: Dialect) -> Refusal | None:
    audio_format = state.session.input_format if state.session else PCM16
    held_ms = state.input_audio_buffer.bytes / audio_format.bytes_per_ms
    if held_ms >= COMMIT_MINIMUM_MS:
        return None
    return Refusal(
        code="input_audio_buffer_commit_empty",
        message="Error committing input audio buffer: buffer too small. Expected at least "
        f"{COMMIT_MINIMUM_MS}ms of audio, but buffer only has {held_ms:.2f}ms of audio.",
    )


def _response_create(state: State, event: events.ResponseCreate, dialect: Dialect) -> Refusal | None:
    if event.response and event.response.conversation == "none":
        return None
    if state.active_response_id is None:  # documented for `response.create` too; its error was not seen (u)
        output = event.response and event.response.audio and event.response.audio.output
        return _frozen_voice(state, output.voice, f"response.{_VOICE[dialect]}") if output else None
    return Refusal(
        code="conversation_already_has_active_response",
        message=f"Conversation already has an active response in progress: {state.active_response_id}. "
        "Wait until the response is finished before creating a new one.",
    )


def _response_cancel(state: State, event: events.ResponseCancel, dialect: Dialect) -> Refusal | None:
    wanted = event.response_id or state.active_response_id
    running = state.responses.get(wanted) if wanted else None
    if running is not None and running.response.status == "in_progress":
        return None
    return Refusal(code="response_cancel_not_active", message="Cancellation failed: no active response found")


def _item_create(state: State, event: events.ConversationItemCreate, dialect: Dialect) -> Refusal | None:
    previous = event.previous_item_id
    if isinstance(previous, str) and previous != "root" and previous not in state.order:
        return _not_found(previous, "previous_item_id")
    if event.item.id and event.item.id in state.entries:
        return Refusal(
            code="invalid_value",  # (u)
            message=f"Item with id '{event.item.id}' already exists.",
            param="item.id",
        )
    if event.item.type == "function_call_output":
        calls = {entry.item.call_id for entry in state.entries.values() if entry.item.type == "function_call"}
        if event.item.call_id not in calls:
            return Refusal(
                code="invalid_tool_call_id",  # (u)
                message=f"Tool call ID '{event.item.call_id}' not found in conversation.",
                param="item.call_id",
            )
    return None


def _item_known(state: State, event: Any, dialect: Dialect) -> Refusal | None:
    return None if event.item_id in state.order else _not_found(event.item_id, "item_id")


def _truncate(state: State, event: events.ConversationItemTruncate, dialect: Dialect) -> Refusal | None:
    unknown = _item_known(state, event, dialect)
    if unknown:
        return unknown
    entry = state.entries[event.item_id]
    if entry.item.role != "assistant" or not entry.audio_ms:
        return Refusal(
            code="invalid_value",  # (u)
            message="Only model output audio messages can be truncated",
            param="item_id",
        )
    length_ms = entry.audio_ms if entry.truncated_ms is None else entry.truncated_ms
    if event.audio_end_ms > length_ms:
        return Refusal(
            code=None,
            message=f"Audio content of {int(length_ms)}ms is already shorter than {event.audio_end_ms}ms",
        )
    return None


def _not_found(item_id: str, param: str) -> Refusal:
    return Refusal(
        code="item_not_found",  # (u)
        message=f"Item with id '{item_id}' not found in the conversation.",
        param=param,
    )


_CHECKS: Final[dict[type[Event], Callable[[State, Any, Dialect], Refusal | None]]] = {
    events.SessionUpdate: _session_update,
    events.InputAudioBufferAppend: _append,
    events.InputAudioBufferCommit: _commit,
    events.ResponseCreate: _response_create,
    events.ResponseCancel: _response_cancel,
    events.ConversationItemCreate: _item_create,
    events.ConversationItemTruncate: _truncate,
    events.ConversationItemDelete: _item_known,
    events.ConversationItemRetrieve: _item_known,
}
