"""One side of a session without its socket: events become text, text becomes events, and the state follows both.

The same class plays both sides. The client role is lenient: what it does not know is kept and delivered. The server
role is strict: what a service refuses raises `RemoteProtocolError` whose `answer` is the service's own `error` event,
and the session goes on.
"""

from __future__ import annotations

from typing import Literal

from rtnb.errors import LocalProtocolError, RemoteProtocolError
from rtnb.protocol import events, preview, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.service.refusals import check_state
from rtnb.protocol.service.rules import Refusal, invalid_audio
from rtnb.protocol.service.schema import check_event
from rtnb.protocol.state import State
from rtnb.protocol.values import Dialect, ErrorDetail

Role = Literal["client", "server"]

_GA_MARKS = frozenset({"type", "audio", "output_modalities"})
_PREVIEW_MARKS = frozenset({"modalities", "input_audio_format", "voice", "turn_detection"})


class Connection:
    """One side of a realtime session.

    Parameters
    ----------
    role : {"client", "server"}
        Which side this is.
    dialect : {"ga", "preview"}, default "ga"
        What is written and expected on the wire.
    webrtc : bool, default False
        Whether the service plays the audio itself (`output_audio_buffer.*` exist).

    Examples
    --------
    >>> client, server = Connection("client"), Connection("server")
    >>> text = client.send(events.InputAudioBufferClear(event_id="e1"))
    >>> server.receive(text)
    InputAudioBufferClear(event_id='e1')
    """

    def __init__(self, role: Role, *, dialect: Dialect = "ga", webrtc: bool = False) -> None:
        self.role = role
        self.dialect = dialect
        self.webrtc = webrtc
        self.state = State()
        self.peer_dialect: Dialect | None = None
        """What the peer turned out to speak; None until `session.created` (client role)."""

    def send(self, event: Event) -> str:
        """Write an event for the peer and follow it.

        Raises
        ------
        LocalProtocolError
            The event belongs to the other side, does not exist in this dialect or cannot be written as JSON.
        """
        mine = CLIENT_EVENTS if self.role == "client" else SERVER_EVENTS
        if not isinstance(event, UnknownEvent) and event.type not in mine:
            raise LocalProtocolError(f"a {self.role} does not say {event.type!r}")
        text = wire.encode(event, dialect=self.dialect)
        self.state.apply(event)
        return text

    def receive(self, text: str | bytes) -> Event:
        """Read what the peer said and follow it.

        Raises
        ------
        RemoteProtocolError
            Client role: not a text, not JSON or not an object. Server role: also everything a service refuses;
            `answer` is the `error` event to send back.
        """
        return self._serve(text) if self.role == "server" else self._follow(text)

    def _follow(self, text: str | bytes) -> Event:
        if isinstance(text, bytes):
            raise RemoteProtocolError(f"expected a text message, got {len(text)} bytes of binary")
        message = wire.parse(text)
        event = wire.decode(message, dialect=self.dialect, registry=SERVER_EVENTS)
        if isinstance(event, events.SessionCreated):
            self._recognise(message)
        self.state.apply(event)
        return event

    def _recognise(self, message: dict[str, object]) -> None:
        """Tell the dialect of the peer by the shape of its first session object."""
        session = message["session"]
        names = set(session) if isinstance(session, dict) else set()
        if names & _GA_MARKS:
            self.peer_dialect = "ga"
        elif names & _PREVIEW_MARKS or message["type"] != "session.created":
            self.peer_dialect = "preview"

    def _serve(self, text: str | bytes) -> Event:
        if isinstance(text, bytes):
            raise _refused(
                Refusal(
                    code="invalid_event",
                    message="Expected a text WebSocket message, but received a binary one.",
                )
            )
        try:
            message = wire.parse(text)
        except RemoteProtocolError as error:
            problem = Refusal(code="invalid_json", message=f"Invalid event: failed to parse JSON value ({error}).")
            raise _refused(problem) from error
        event_id = message.get("event_id")
        event_id = event_id if isinstance(event_id, str) else None
        refusal = check_event(message, dialect=self.dialect, webrtc=self.webrtc)
        if refusal:
            raise _refused(refusal, event_id)
        event = wire.decode(message, dialect=self.dialect, registry=CLIENT_EVENTS)
        if isinstance(event, UnknownEvent):
            raise _refused(invalid_audio((event.problem or "").partition(":")[0]), event_id)  # all else was checked
        untold = self.webrtc and isinstance(event, events.InputAudioBufferCommit)  # the sound took another way
        refusal = None if untold else check_state(self.state, event, dialect=self.dialect)
        if refusal:
            raise _refused(refusal, event_id)
        self.state.apply(event)
        return event


def _refused(refusal: Refusal, event_id: str | None = None) -> RemoteProtocolError:
    detail = ErrorDetail(
        type=refusal.type, code=refusal.code, message=refusal.message, param=refusal.param, event_id=event_id
    )
    return RemoteProtocolError(refusal.message, answer=events.Error(error=detail))


def dialect_hint(error: ErrorDetail, *, dialect: Dialect) -> str | None:
    """Say in words when an error means that the peer speaks the other dialect; None when it does not.

    Source: codes seen when GA clients met preview services and the other way round.
    """
    code, param = error.code, error.param or ""
    if code == "beta_api_shape_disabled":
        return "This service no longer speaks the preview dialect: connect with dialect='ga'."
    where = ".".join(param.split(".")[:2])
    if dialect == "ga" and code == "unknown_parameter" and where in _GA_PARAMETERS:
        return "This service speaks the preview dialect: connect with dialect='preview' (and an api_version)."
    foreign = code == "unknown_parameter" and where in _PREVIEW_PARAMETERS
    no_type = code == "missing_required_parameter" and param == "session.type"
    if dialect == "preview" and (foreign or no_type):
        return "This service speaks the GA dialect: connect with dialect='ga'."
    return None


_GA_PARAMETERS = frozenset({"session.type"}) | {
    f"{noun}.{name}" for noun in ("session", "response") for name in ("audio", "output_modalities")
}
_PREVIEW_PARAMETERS = frozenset(
    f"{noun}.{name}" for noun in ("session", "response") for name in (*preview.SESSION_PATHS, "temperature")
)


__all__ = ["Connection", "Role", "dialect_hint"]
