"""Immediate replies of a service: the events that follow from a client event by the protocol alone.

Generation, turn detection and transcription are the simulator's; everything here is a pure function of the state.
The simulator uses it, and so do tests that play a service.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.state import State
from rtnb.protocol.values import (
    PCM16,
    SEMANTIC_VAD_DEFAULTS,
    SERVER_VAD_DEFAULTS,
    UNSET,
    Audio,
    AudioInput,
    AudioOutput,
    ContentPart,
    Dialect,
    Item,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Tools,
    merge,
)

MakeId = Callable[[str], str]
"""prefix -> a new id such as ``item_…``; the caller owns the randomness."""

DEFAULT_INSTRUCTIONS: Final = (
    "You are a helpful assistant of the rtnb simulator: rule-based, offline, and no language model."
)


def initial_session(
    *, session_id: str, model: str, expires_at: int, dialect: Dialect = "ga", transcription: bool = False
) -> SessionConfig:
    """Return the session a service starts with: the defaults seen in `session.created` of real sessions.

    Parameters
    ----------
    session_id, model : str
        Echoed in the session object.
    expires_at : int
        Unix seconds.
    dialect : {"ga", "preview"}, default "ga"
        The preview has `temperature`, GA has `truncation` and `idle_timeout_ms`.
    transcription : bool, default False
        A transcription-only session.

    Returns
    -------
    SessionConfig
        Every setting of the dialect with its effective value.
    """
    ga = dialect == "ga"
    vad = _vad_defaults("transcription" if transcription else "realtime", dialect)
    audio_input = AudioInput(format=PCM16, transcription=None, noise_reduction=None, turn_detection=vad)
    common: Any = {"id": session_id, "include": None if ga else UNSET, "expires_at": expires_at}
    if transcription:
        kind = "realtime.transcription_session"
        return SessionConfig(type="transcription", object=kind, audio=Audio(input=audio_input), **common)
    return SessionConfig(
        object="realtime.session",
        model=model,
        instructions=DEFAULT_INSTRUCTIONS,
        output_modalities=("audio",),
        audio=Audio(input=audio_input, output=AudioOutput(format=PCM16, voice="alloy", speed=1.0)),
        max_output_tokens="inf",
        tools=Tools(),
        tool_choice="auto",
        tracing=None,
        truncation="auto" if ga else UNSET,
        prompt=None if ga else UNSET,
        temperature=UNSET if ga else 0.8,
        **common,
    )


def updated_session(current: SessionConfig, change: SessionConfig, *, dialect: Dialect) -> SessionConfig:
    """Return the effective session after an accepted update; a new turn detection gets its defaults."""
    merged: SessionConfig = merge(current, replace(change, id=UNSET, object=UNSET, expires_at=UNSET, model=UNSET))
    if not merged.audio or not merged.audio.input:
        return merged
    detection = merged.turn_detection
    if isinstance(detection, ServerVad):
        detection = merge(_vad_defaults(current.type, dialect), detection)
    elif isinstance(detection, SemanticVad):
        detection = merge(SEMANTIC_VAD_DEFAULTS, detection)
    elif detection == {"type": "none"}:
        detection = None
    return replace(merged, audio=replace(merged.audio, input=replace(merged.audio.input, turn_detection=detection)))


def _vad_defaults(session_type: str, dialect: Dialect) -> ServerVad:
    if session_type == "transcription":
        return replace(SERVER_VAD_DEFAULTS, create_response=UNSET, interrupt_response=UNSET, idle_timeout_ms=UNSET)
    return SERVER_VAD_DEFAULTS if dialect == "ga" else replace(SERVER_VAD_DEFAULTS, idle_timeout_ms=UNSET)


def item_events(item: Item, *, previous_item_id: str | None, dialect: Dialect, done: bool = True) -> list[Event]:
    """Return the events that announce an item: `added` and `done` in GA, one `created` in the preview.

    `done=False` is for the items of a response, which are announced while they are still empty.
    """
    if dialect == "preview":
        return [events.ConversationItemCreated(item=item, previous_item_id=previous_item_id)]
    added = events.ConversationItemAdded(item=item, previous_item_id=previous_item_id)
    if not done:
        return [added]
    return [added, events.ConversationItemDone(item=item, previous_item_id=previous_item_id)]


def committed(state: State, item_id: str, *, dialect: Dialect, transcript: str | None = None) -> list[Event]:
    """Return the events that announce that the buffered audio became the user item `item_id`."""
    previous = state.order[-1] if state.order else None
    part = ContentPart(type="input_audio", transcript=transcript)
    item = Item(id=item_id, type="message", object="realtime.item", status="completed", role="user", content=(part,))
    return [
        events.InputAudioBufferCommitted(item_id=item_id, previous_item_id=previous),
        *item_events(item, previous_item_id=previous, dialect=dialect),
    ]


def answer(state: State, event: Event, *, make_id: MakeId, dialect: Dialect) -> list[Event]:
    """Return the events a service sends at once for an accepted client event.

    `response.create`, `response.cancel`, `input_audio_buffer.append` and `conversation.item.retrieve` need more than
    the protocol and give an empty list.
    """
    match event:
        case events.SessionUpdate() if state.session is not None:
            return [events.SessionUpdated(session=updated_session(state.session, event.session, dialect=dialect))]
        case events.InputAudioBufferCommit():
            return committed(state, state.input_audio_buffer.speech_item_id or make_id("item"), dialect=dialect)
        case events.InputAudioBufferClear():
            return [events.InputAudioBufferCleared()]
        case events.ConversationItemCreate():
            return _created(state, event, make_id, dialect)
        case events.ConversationItemTruncate(item_id=item_id, content_index=index, audio_end_ms=end_ms):
            return [events.ConversationItemTruncated(item_id=item_id, content_index=index, audio_end_ms=end_ms)]
        case events.ConversationItemDelete(item_id=item_id):
            return [events.ConversationItemDeleted(item_id=item_id)]
    return []


def _created(state: State, event: events.ConversationItemCreate, make_id: MakeId, dialect: Dialect) -> list[Event]:
    """Announce a created item. Input audio is not echoed: only `conversation.item.retrieved` carries it."""
    previous = event.previous_item_id or (state.order[-1] if state.order else None)
    content = event.item.content and tuple(
        replace(part, audio=UNSET, transcript=part.transcript or None) if part.type == "input_audio" else part
        for part in event.item.content
    )
    item = replace(
        event.item,
        id=event.item.id or make_id("item"),
        object="realtime.item",
        status=event.item.status or "completed",
        content=content,
    )
    if item.type == "function_call" and not item.call_id:
        item = replace(item, call_id=make_id("call"))
    return item_events(item, previous_item_id=None if previous == "root" else previous, dialect=dialect)
