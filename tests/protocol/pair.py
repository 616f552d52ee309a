"""Client and service joined by strings alone; the service sends what follows from the protocol alone."""

import itertools
from collections.abc import Iterable
from typing import Any

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Connection, Dialect, events
from rtnb.protocol.events import Event
from rtnb.protocol.service.replies import answer, initial_session


class Ids:
    """Ids in sequence: item_1, item_2, call_3, …"""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def __call__(self, prefix: str) -> str:
        return f"{prefix}_{next(self._count)}"


def service(dialect: Dialect = "ga", *, transcription: bool = False, webrtc: bool = False) -> Connection:
    """Return a service whose session has been created."""
    side = Connection("server", dialect=dialect, webrtc=webrtc)
    side.send(_created(dialect, transcription))
    return side


def _created(dialect: Dialect, transcription: bool) -> events.SessionCreated:
    facts: Any = {"session_id": "sess_1", "model": "m", "expires_at": 3600}
    session = initial_session(**facts, dialect=dialect, transcription=transcription)
    return events.SessionCreated(event_id="event_0", session=session)


class ConnectionPair:
    """Both sides of one session. After every exchange both states must be the same (Law 2)."""

    def __init__(self, dialect: Dialect = "ga", *, transcription: bool = False, webrtc: bool = False) -> None:
        self.dialect = dialect
        self.client = Connection("client", dialect=dialect, webrtc=webrtc)
        self.server = Connection("server", dialect=dialect, webrtc=webrtc)
        self.ids = Ids()
        self.received: list[Event] = []
        """All events that the client received, oldest first."""
        self.serve(_created(dialect, transcription))
        assert self.client.peer_dialect == dialect

    @property
    def state(self) -> Any:
        """The state of the client, which is that of the service."""
        return self.client.state

    def serve(self, *sent: Event) -> None:
        """Send events from the service to the client."""
        for event in sent:
            received = self.client.receive(self.server.send(event))
            assert received == event  # the dialect hides nothing
            self.received.append(received)
            self._check()

    def send(self, event: Event) -> list[Event]:
        """Send an event from the client; return the immediate replies of the service, also an error."""
        before = len(self.received)
        try:
            understood = self.server.receive(self.client.send(event))
        except RemoteProtocolError as error:
            self.serve(error.answer)
        else:
            assert understood == event
            self._check()
            self.serve(*answer(self.server.state, understood, make_id=self.ids, dialect=self.dialect))
        return self.received[before:]

    def send_accepted(self, event: Event) -> list[Event]:
        """Send an event that the service must accept; return the replies."""
        received = self.send(event)
        assert not any(isinstance(reply, events.Error) for reply in received), received
        return received

    def refused(self, event: Event) -> Any:
        """Send an event that the service must refuse without a change; return the error's detail."""
        before = self.server.state.snapshot()
        received = self.send(event)
        assert isinstance(received[-1], events.Error), received
        assert self.server.state.snapshot() == before
        return received[-1].error

    def _check(self) -> None:
        assert self.client.state.snapshot() == self.server.state.snapshot()


def types(received: Iterable[Event]) -> list[str]:
    """Return the wire types (GA names)."""
    return [event.type for event in received]
