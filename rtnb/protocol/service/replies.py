"""What a service answers at once: the events that follow from a client event by the protocol alone.

Generation, turn detection and transcription are the simulator's; everything here is a pure function of the state.
Used by the simulator and by tests that play a service.
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
    TurnDetection,
    Unset,
    merge,
)

MakeId = Callable[[str], str]
"""prefix -> a new id such as ``item_…``; given by who owns the randomness."""

DEFAULT_INSTRUCTIONS: Final = (
    "You are a helpful assistant of the rtnb simulator: rule-based, offline, and no language model."
)


def initial_session(
    *, session_id: str, model: str, expires_at: int, dialect: Dialect = "ga", transcription: bool = False
) -> SessionConfig:
    """The session a service starts with: the defaults seen in `session.created` of real sessions.

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
    heard = AudioInput(format=PCM16, transcription=None, noise_reduction=None, turn_detection=vad)
    kind = "realtime.transcription_session" if transcription else "realtime.session"
    if transcription:
        return SessionConfig(
            type="transcription",
            id=session_id,
            object=kind,
            audio=Audio(input=heard),
            include=None if ga else UNSET,
            expires_at=expires_at,
        )
    return SessionConfig(
        id=session_id,
        object=kind,
        model=model,
        instructions=DEFAULT_INSTRUCTIONS,
        output_modalities=("audio",),
        audio=Audio(input=heard, output=AudioOutput(format=PCM16, voice="alloy", speed=1.0)),
        include=None if ga else UNSET,
        max_output_tokens="inf",
        tools=(),
        tool_choice="auto",
        tracing=None,
        truncation="auto" if ga else UNSET,
        prompt=None if ga else UNSET,
        temperature=UNSET if ga else 0.8,
        expires_at=expires_at,
    )


def updated_session(current: SessionConfig, change: SessionConfig, *, dialect: Dialect) -> SessionConfig:
    """The effective session after an accepted update; a newly chosen turn detection gets its defaults."""
    merged: SessionConfig = merge(current, replace(change, id=UNSET, object=UNSET, expires_at=UNSET))
    detection = merged.turn_detection
    if not merged.audio or not merged.audio.input:
        return merged
    completed = _complete(detection, current.type, dialect)
    return replace(merged, audio=replace(merged.audio, input=replace(merged.audio.input, turn_detection=completed)))


def _vad_defaults(session_type: str, dialect: Dialect) -> ServerVad:
    if session_type == "transcription":
        return replace(SERVER_VAD_DEFAULTS, create_response=UNSET, interrupt_response=UNSET, idle_timeout_ms=UNSET)
    return SERVER_VAD_DEFAULTS if dialect == "ga" else replace(SERVER_VAD_DEFAULTS, idle_timeout_ms=UNSET)


def _complete(
    detection: TurnDetection | Unset | None, session_type: str, dialect: Dialect
) -> TurnDetection | Unset | None:
    if isinstance(detection, ServerVad):
        return merge(_vad_defaults(session_type, dialect), detection)  # type: ignore[no-any-return]
    if isinstance(detection, SemanticVad):
        return merge(SEMANTIC_VAD_DEFAULTS, detection)  # type: ignore[no-any-return]
    return None if detection == {"type": "none"} else detection


def item_events(item: Item, *, previous_item_id: str | None, dialect: Dialect, done: bool = True) -> list[Event]:
    """How a service announces an item: `added` and `done` in GA, one `created` in the preview.

    `done=False` is for the items of a response, which are announced while they are still empty.
    """
    if dialect == "preview":
        return [events.ConversationItemCreated(item=item, previous_item_id=previous_item_id)]
    added = events.ConversationItemAdded(item=item, previous_item_id=previous_item_id)
    if not done:
        return [added]
    return [added, events.ConversationItemDone(item=item, previous_item_id=previous_item_id)]


def committed(state: State, item_id: str, *, dialect: Dialect, transcript: str | None = None) -> list[Event]:
    """How a service announces that the buffered audio became the user item `item_id`."""
    previous = state.order[-1] if state.order else None
    part = ContentPart(type="input_audio", transcript=transcript)
    item = Item(id=item_id, type="message", object="realtime.item", status="completed", role="user", content=(part,))
    return [
        events.InputAudioBufferCommitted(item_id=item_id, previous_item_id=previous),
        *item_events(item, previous_item_id=previous, dialect=dialect),
    ]


def answer(state: State, event: Event, *, make_id: MakeId, dialect: Dialect) -> list[Event]:
    """The events a service sends at once for an accepted client event.

    `response.create`, `response.cancel`, `input_audio_buffer.append` and `conversation.item.retrieve` need more than
    the protocol and give an empty list.
    """
    reply = _REPLIES.get(type(event))
    return reply(state, event, make_id, dialect) if reply else []


def _session_update(state: State, event: events.SessionUpdate, make_id: MakeId, dialect: Dialect) -> list[Event]:
    if state.session is None:
        return []
    return [events.SessionUpdated(session=updated_session(state.session, event.session, dialect=dialect))]


def _commit(state: State, event: events.InputAudioBufferCommit, make_id: MakeId, dialect: Dialect) -> list[Event]:
    return committed(state, state.input_audio_buffer.speech_item_id or make_id("item"), dialect=dialect)


def _clear(state: State, event: events.InputAudioBufferClear, make_id: MakeId, dialect: Dialect) -> list[Event]:
    return [events.InputAudioBufferCleared()]


def _item_create(state: State, event: events.ConversationItemCreate, make_id: MakeId, dialect: Dialect) -> list[Event]:
    after = event.previous_item_id
    previous: str | None
    if after == "root":
        previous = None
    elif isinstance(after, str):
        previous = after
    else:
        previous = state.order[-1] if state.order else None
    item = replace(
        event.item,
        id=event.item.id or make_id("item"),
        object="realtime.item",
        status=event.item.status or "completed",
        content=_without_audio(event.item.content),
    )
    if item.type == "function_call" and not item.call_id:
        item = replace(item, call_id=make_id("call"))
    return item_events(item, previous_item_id=previous, dialect=dialect)


def _without_audio(content: Any) -> Any:
    """Input audio is not echoed; only `conversation.item.retrieved` carries it."""
    if not content:
        return content
    return tuple(
        replace(part, audio=UNSET, transcript=part.transcript or None) if part.type == "input_audio" else part
        for part in content
    )


def _truncate(state: State, event: events.ConversationItemTruncate, make_id: MakeId, dialect: Dialect) -> list[Event]:
    return [
        events.ConversationItemTruncated(
            item_id=event.item_id, content_index=event.content_index, audio_end_ms=event.audio_end_ms
        )
    ]


def _delete(state: State, event: events.ConversationItemDelete, make_id: MakeId, dialect: Dialect) -> list[Event]:
    return [events.ConversationItemDeleted(item_id=event.item_id)]


_REPLIES: Final[dict[type[Event], Callable[[State, Any, MakeId, Dialect], list[Event]]]] = {
    events.SessionUpdate: _session_update,
    events.InputAudioBufferCommit: _commit,
    events.InputAudioBufferClear: _clear,
    events.ConversationItemCreate: _item_create,
    events.ConversationItemTruncate: _truncate,
    events.ConversationItemDelete: _delete,
}
