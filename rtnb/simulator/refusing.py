"""What a session refuses beyond the protocol's own rules, because it holds the audio and the responses to come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rtnb.protocol import ErrorDetail, SessionConfig, events
from rtnb.protocol.service.refusals import COMMIT_MINIMUM_MS
from rtnb.protocol.state import State
from rtnb.protocol.values import ResponseConfig
from rtnb.simulator.turn_detection import TurnDetection


def problem(
    event: events.Event, *, session: SessionConfig, state: State, turns: TurnDetection, pending: str | None
) -> events.Error | None:
    """The `error` to answer a client event with; None where it may be carried out.

    Parameters
    ----------
    event : Event
        What the protocol accepted.
    session, state, turns
        Of the session.
    pending : str or None
        The response of the conversation that is made but not announced yet.
    """
    if isinstance(event, events.InputAudioBufferAppend):
        return _half_sample("audio", [event.audio], turns, event)
    if isinstance(event, events.ConversationItemCreate):
        return _half_sample("item.content", [part.audio for part in event.item.content or ()], turns, event)
    if isinstance(event, events.InputAudioBufferCommit):
        start_ms, end_ms = turns.uncommitted_ms
        if end_ms - start_ms >= COMMIT_MINIMUM_MS:
            return None
        text = f"Expected at least {COMMIT_MINIMUM_MS}ms of audio, but buffer only has {end_ms - start_ms:.2f}ms."
        message = f"Error committing input audio buffer: buffer too small. {text}"
        return error("input_audio_buffer_commit_empty", message, of=event)
    if isinstance(event, events.ResponseCreate):
        return _no_response(event.response or ResponseConfig(), session, state, pending, event)
    return None


def _half_sample(param: str, data: Iterable[Any], turns: TurnDetection, event: events.Event) -> events.Error | None:
    if not any(len(block) % turns.bytes_per_sample for block in data if block):
        return None
    return error("invalid_value", f"Invalid '{param}': half a sample is left over.", param=param, of=event)


def _no_response(
    config: ResponseConfig, session: SessionConfig, state: State, pending: str | None, event: events.Event
) -> events.Error | None:
    if session.type == "transcription":
        return error("invalid_value", "A transcription session creates no responses.", param="type", of=event)
    for item in config.input or ():
        if item.type == "item_reference" and item.id not in state.entries:
            message = f"Item with id '{item.id}' not found in the conversation."
            return error("item_not_found", message, param="response.input", of=event)
    return busy(pending, of=event) if pending and config.conversation != "none" else None


def busy(response_id: str, *, of: events.Event | None = None) -> events.Error:
    """The conversation has a response already."""
    message = f"Conversation already has an active response in progress: {response_id}. "
    message += "Wait until the response is finished before creating a new one."
    return error("conversation_already_has_active_response", message, of=of)


def error(code: str, message: str, *, param: str | None = None, of: events.Event | None = None) -> events.Error:
    """An `error` event that names the client event it is about."""
    event_id = of.event_id if of is not None and of.event_id else None
    detail = ErrorDetail(type="invalid_request_error", code=code, message=message, param=param, event_id=event_id)
    return events.Error(error=detail)
