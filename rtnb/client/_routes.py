"""What happens when an event of the service arrives: a table from event class to what it wakes, feeds or starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rtnb.client._calls import service_error
from rtnb.client._link import Route
from rtnb.client._service_playback import ServicePlayback
from rtnb.client.response import Response, feeders
from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import UNSET

if TYPE_CHECKING:
    from rtnb.client.session import Session


def routes(session: Session) -> dict[type[Event], Route]:
    """The table of one session."""
    answers: dict[type[Event], Callable[[Any], tuple[str, ...]]] = {
        events.SessionUpdated: lambda e: ("session.updated",),
        events.InputAudioBufferCleared: lambda e: ("input_audio_buffer.cleared",),
        events.OutputAudioBufferCleared: lambda e: ("output_audio_buffer.cleared",),
        events.ConversationItemAdded: lambda e: ("conversation.item.added", e.item.id or ""),
        events.ConversationItemCreated: lambda e: ("conversation.item.added", e.item.id or ""),
        events.ConversationItemRetrieved: lambda e: ("conversation.item.retrieved", e.item.id or ""),
        events.ConversationItemTruncated: lambda e: ("conversation.item.truncated", e.item_id),
        events.ConversationItemDeleted: lambda e: ("conversation.item.deleted", e.item_id),
    }
    table: dict[type[Event], Route] = {kind: _fed(session, feed) for kind, feed in feeders().items()}
    table |= {kind: _answering(session, key_of) for kind, key_of in answers.items()}
    table |= {
        events.ResponseOutputAudioDelta: _audio_delta(session),
        events.ResponseOutputAudioDone: lambda e, t: session.playback.complete(e.item_id),
        events.ResponseCreated: lambda e, t: session._queue.begin(e.response, t),
        events.ResponseDone: lambda e, t: _response_done(session, e, t),
        events.InputAudioBufferCommitted: lambda e, t: _committed(session, e, t),
        events.InputAudioBufferSpeechStopped: lambda e, t: setattr(session, "_stopped_ms", e.audio_end_ms),
        events.InputAudioBufferSpeechStarted: lambda e, t: _speech_started(session),
        events.SessionCreated: lambda e, t: session._was_created(),
        events.Error: lambda e, t: _refused(session, e),
    }
    if isinstance(session.playback, ServicePlayback):
        _watch_playing(table, session.playback)
    return table


def _watch_playing(table: dict[type[Event], Route], playback: ServicePlayback) -> None:
    """Over WebRTC the service plays: its events say what was heard. They still do what else they do."""
    watched: dict[type[Event], Route] = {
        events.ResponseContentPartAdded: playback.part_added,
        events.OutputAudioBufferStarted: lambda e, t: playback.started(e.response_id, t),
        events.OutputAudioBufferStopped: lambda e, t: playback.stopped(e.response_id, t),
        events.OutputAudioBufferCleared: lambda e, t: playback.stopped(e.response_id, t, cleared=True),
        events.ConversationItemTruncated: lambda e, t: playback.truncated(e.item_id, e.audio_end_ms),
    }
    for kind, watch in watched.items():
        table[kind] = _both(watch, table[kind]) if kind in table else watch


def _both(first: Route, second: Route) -> Route:
    def route(event: Any, arrived_s: float) -> None:
        first(event, arrived_s)
        second(event, arrived_s)

    return route


def _answering(session: Session, key_of: Callable[[Any], tuple[str, ...]]) -> Route:
    return lambda event, arrived_s: session._link.calls.answered(key_of(event), event)


def _fed(session: Session, feed: Callable[[Response, Any, float], None]) -> Route:
    live = session._queue.live

    def route(event: Any, arrived_s: float) -> None:
        response = live.get(event.response_id)
        if response is not None:
            feed(response, event, arrived_s)

    return route


def _audio_delta(session: Session) -> Route:
    """The one route that is taken ten times a second and more."""
    live, received = session._queue.live, session.playback.received

    def route(event: events.ResponseOutputAudioDelta, arrived_s: float) -> None:
        response = live.get(event.response_id)
        if response is not None:
            delta = response._add("audio", event, arrived_s)
            received(delta, event.audio_bytes / response._bytes_per_ms, arrived_s, response.id)

    return route


def _response_done(session: Session, event: events.ResponseDone, arrived_s: float) -> None:
    response = session._queue.finish(event.response, arrived_s)
    calls = session._link.calls
    for key in (("response.cancelled", response.id), ("response.cancelled", "")):
        while calls.waiting(key):
            # Where the response ended by itself, the refusal of our cancel is on its way: it tells nobody anything.
            calls.hush(calls.answered(key, response) or "")
    if session.tools.wants(response):
        response._follow_up = session._link.spawn(session.tools.answer(response), name="rtnb-session-tools")


def _committed(session: Session, event: events.InputAudioBufferCommitted, arrived_s: float) -> None:
    session._turns_committed += 1
    session._committed_ms = session._stopped_ms
    session._last_turn_s = arrived_s
    if session._link.calls.answered(("input_audio_buffer.committed",), event):
        return
    detection = session.config.turn_detection
    if detection and getattr(detection, "create_response", UNSET) in (UNSET, True):
        session._queue.turn_committed(arrived_s)


def _speech_started(session: Session) -> None:
    """Barge-in. Over WebRTC the service plays, flushes and truncates by itself."""
    detection = session.config.turn_detection
    if session._link.connection.webrtc or getattr(detection, "interrupt_response", UNSET) not in (UNSET, True):
        return
    cut = session.playback.flush(growing=tuple(session._queue.live))
    if cut:
        session._link.spawn(session._truncate(cut), name="rtnb-session-truncate")


def _refused(session: Session, event: events.Error) -> None:
    """An `error`: it belongs to the call that caused it, or else is remembered."""
    detail = event.error
    error = service_error(detail, dialect=session.dialect)
    event_id = detail.event_id if isinstance(detail.event_id, str) else None
    if event_id is None and detail.code == "response_cancel_not_active":  # some services do not name the event
        event_id = session._link.calls.oldest("response.cancelled")
    if event_id is not None and session._link.calls.refused(event_id, error):
        return
    if not session._queue.refused(event_id, error):
        session.errors.append(error)
