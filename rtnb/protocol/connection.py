"""Session without its socket: events become text, text becomes events, and the state follows both.

The same class plays both sides. The client role is lenient: an event that it does not know is kept and delivered. The
server role is strict: an event that a service refuses raises `RemoteProtocolError` whose `answer` is the service's
`error` event, and the session goes on.
"""

from __future__ import annotations

from typing import Any, Literal

from rtnb.errors import LocalProtocolError, RemoteProtocolError
from rtnb.protocol import events, preview, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.service.refusals import check_state
from rtnb.protocol.service.rules import Refusal, invalid_audio
from rtnb.protocol.service.schema import check_event
from rtnb.protocol.state import TRANSITIONS, State
from rtnb.protocol.values import Dialect, ErrorDetail

Role = Literal["client", "server"]

_GA_MARKS = frozenset({"type", "audio", "output_modalities"})
_PREVIEW_MARKS = frozenset({"modalities", "input_audio_format", "voice", "turn_detection"})


class Connection:
    """Client or service side of one realtime session.

    Parameters
    ----------
    role : {"client", "server"}
        The side.
    dialect : {"ga", "preview"}, default "ga"
        The dialect that is written and expected on the wire.
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
        """Dialect of the peer's first session object; None until `session.created` (client role)."""

    def send(self, event: Event) -> str:
        """Write an event for the peer and follow it.

        Raises
        ------
        LocalProtocolError
            The event belongs to the other side, does not exist in this dialect or cannot be written as JSON.
        """
        mine = CLIENT_EVENTS if self.role == "client" else SERVER_EVENTS
        if event.type not in mine and not isinstance(event, UnknownEvent):
            raise LocalProtocolError(f"A {self.role} does not send {event.type!r}. It sends {', '.join(mine)}.")
        text = wire.encode(event, dialect=self.dialect)
        transition = TRANSITIONS.get(event.__class__)  # as `State.apply`, without the call
        if transition is not None:
            transition(self.state, event)
        return text

    def receive(self, text: str | bytes) -> Event:
        """Read a message of the peer and follow it.

        Raises
        ------
        RemoteProtocolError
            Client role: not a text, not JSON or not an object. Server role: also every event that a service refuses;
            `answer` is the `error` event to send back.
        """
        if self.role == "server":
            return self._serve(text)
        if isinstance(text, bytes):
            raise RemoteProtocolError(f"expected a text message, got {len(text)} bytes of binary")
        event = wire.decode(text, dialect=self.dialect, registry=SERVER_EVENTS)
        if event.__class__ is events.SessionCreated:
            self._recognise(wire.parse(text))
        transition = TRANSITIONS.get(event.__class__)  # as `State.apply`, without the call
        if transition is not None:
            transition(self.state, event)
        return event

    def _recognise(self, message: dict[str, Any]) -> None:
        """Learn the dialect of the peer from the shape of its first session object."""
        names = set(message["session"])
        if names & _GA_MARKS:
            self.peer_dialect = "ga"
        elif names & _PREVIEW_MARKS or message["type"] != "session.created":
            self.peer_dialect = "preview"

    def _serve(self, text: str | bytes) -> Event:
        """Read a client's message as strictly as a service does."""
        if isinstance(text, bytes):
            raise _refused(Refusal("invalid_event", "Expected a text WebSocket message, but received a binary one."))
        try:
            message = wire.parse(text)
        except RemoteProtocolError as error:
            raise _refused(Refusal("invalid_json", f"Invalid event: failed to parse JSON value ({error}).")) from error
        refusal = check_event(message, dialect=self.dialect, webrtc=self.webrtc)
        if refusal is None:
            event = wire.decode(message, dialect=self.dialect, registry=CLIENT_EVENTS)
            if isinstance(event, UnknownEvent):
                refusal = invalid_audio((event.problem or "").partition(":")[0])  # all else was checked
            elif not (self.webrtc and isinstance(event, events.InputAudioBufferCommit)):  # audio took another path
                refusal = check_state(self.state, event, dialect=self.dialect)
        if refusal is not None:
            raise _refused(refusal, message.get("event_id"))
        self.state.apply(event)
        return event


def _refused(refusal: Refusal, event_id: object = None) -> RemoteProtocolError:
    detail = ErrorDetail(
        type=refusal.type,
        code=refusal.code,
        message=refusal.message,
        param=refusal.param,
        event_id=event_id if isinstance(event_id, str) else None,
    )
    return RemoteProtocolError(refusal.message, answer=events.Error(error=detail))


_GA_PARAMETERS = frozenset({"session.type"}) | {
    f"{noun}.{name}" for noun in ("session", "response") for name in ("audio", "output_modalities")
}
_PREVIEW_PARAMETERS = frozenset(
    f"{noun}.{name}" for noun in ("session", "response") for name in (*preview.SESSION_PATHS, "temperature")
)


def dialect_hint(error: ErrorDetail, *, dialect: Dialect) -> str | None:
    """Return a hint where an error means that the peer uses the other dialect; None where it does not.

    Source: codes seen when GA clients met preview services and the other way round.
    """
    code, param = error.code, error.param or ""
    if code == "beta_api_shape_disabled":
        return "This service no longer supports the preview dialect: connect with dialect='ga'."
    where = ".".join(param.split(".")[:2])
    if dialect == "ga" and code == "unknown_parameter" and where in _GA_PARAMETERS:
        return "This service uses the preview dialect: connect with dialect='preview' (and an api_version)."
    foreign = code == "unknown_parameter" and where in _PREVIEW_PARAMETERS
    no_type = code == "missing_required_parameter" and param == "session.type"
    if dialect == "preview" and (foreign or no_type):
        return "This service uses the GA dialect: connect with dialect='ga'."
    return None
