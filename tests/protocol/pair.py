"""Client and service joined by nothing but a string, and a service that says what the protocol alone makes it say."""

from __future__ import annotations

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
    """A service whose session has been created."""
    side = Connection("server", dialect=dialect, webrtc=webrtc)
    session = initial_session(
        session_id="sess_1", model="m", expires_at=3600, dialect=dialect, transcription=transcription
    )
    side.send(events.SessionCreated(event_id="event_0", session=session))
    return side


class ConnectionPair:
    """Both sides of one session. After every exchange both states must be the same (Law 2)."""

    def __init__(self, dialect: Dialect = "ga", *, transcription: bool = False, webrtc: bool = False) -> None:
        self.dialect = dialect
        self.client = Connection("client", dialect=dialect, webrtc=webrtc)
        self.server = Connection("server", dialect=dialect, webrtc=webrtc)
        self.ids = Ids()
        self.heard: list[Event] = []
        """All that the client heard, oldest first."""
        session = initial_session(
            session_id="sess_1", model="m", expires_at=3600, dialect=dialect, transcription=transcription
        )
        self.serve(events.SessionCreated(session=session))
        assert self.client.peer_dialect == dialect

    @property
    def state(self) -> Any:
        """The state of the client, which is that of the service."""
        return self.client.state

    def serve(self, *said: Event) -> None:
        """The service says something."""
        for event in said:
            heard = self.client.receive(self.server.send(event))
            assert heard == event  # the dialect hides nothing
            self.heard.append(heard)
            self._check()

    def say(self, event: Event) -> list[Event]:
        """The client says something; what the service answers at once is heard, also an error."""
        before = len(self.heard)
        try:
            understood = self.server.receive(self.client.send(event))
        except RemoteProtocolError as error:
            self.serve(error.answer)
        else:
            assert understood == event
            self._check()
            self.serve(*answer(self.server.state, understood, make_id=self.ids, dialect=self.dialect))
        return self.heard[before:]

    def say_well(self, event: Event) -> list[Event]:
        """Say what must not be refused."""
        heard = self.say(event)
        assert not any(isinstance(reply, events.Error) for reply in heard), heard
        return heard

    def refused(self, event: Event) -> Any:
        """Say what must be refused; nothing changes; gives the error's detail."""
        before = self.server.state.snapshot()
        heard = self.say(event)
        assert isinstance(heard[-1], events.Error), heard
        assert self.server.state.snapshot() == before
        return heard[-1].error

    def _check(self) -> None:
        assert self.client.state.snapshot() == self.server.state.snapshot()


def types(heard: Iterable[Event]) -> list[str]:
    """The wire types (GA names)."""
    return [event.type for event in heard]
