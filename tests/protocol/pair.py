"""Client and service joined by strings alone; the service sends what follows from the protocol alone."""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Connection, ContentPart, Dialect, Item, Response, SessionConfig, events
from rtnb.protocol.events import Event
from rtnb.protocol.service.replies import answer, initial_session, item_events

SPOKEN = "Eleven degrees."
SPOKEN_MS = 300


class Ids:
    """Ids in sequence: item_1, item_2, call_3, …"""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def __call__(self, prefix: str) -> str:
        return f"{prefix}_{next(self._count)}"


def service(dialect: Dialect = "ga", *, transcription: bool = False, webrtc: bool = False) -> Connection:
    """Return a service whose session has been created."""
    side = Connection("server", dialect=dialect, webrtc=webrtc)
    side.send(_session_created(dialect, transcription))
    return side


def _session_created(dialect: Dialect, transcription: bool) -> events.SessionCreated:
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
        self.serve(_session_created(dialect, transcription))
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

    def update(self, **settings: Any) -> list[Event]:
        """Change settings, which the service must accept; return the replies."""
        return self.send_accepted(update(**settings))

    def refused(self, event: Event) -> Any:
        """Send an event that the service must refuse without a change; return the error's detail."""
        before = self.server.state.snapshot()
        received = self.send(replace(event, event_id="refused"))
        assert isinstance(received[-1], events.Error), received
        assert self.server.state.snapshot() == before
        assert received[-1].error.event_id == "refused"
        return received[-1].error

    def spoken(self, **names: Any) -> "Spoken":
        """Return the events of a spoken answer after the last item; nothing is sent."""
        return Spoken(previous=self.state.order[-1] if self.state.order else None, dialect=self.dialect, **names)

    def begin(self) -> "Spoken":
        """Send a spoken answer up to its last delta; the response goes on."""
        answer = self.spoken()
        self.serve(created(), answer.output_item_added, answer.item_added, answer.part_added, *answer.deltas)
        return answer

    def _check(self) -> None:
        assert self.client.state.snapshot() == self.server.state.snapshot()


def types(received: Iterable[Event]) -> list[str]:
    """Return the wire types (GA names)."""
    return [event.type for event in received]


# --- events -----------------------------------------------------------------------------------------------------------


def user(text: str = "hi", **fields: Any) -> Item:
    return Item(type="message", role="user", content=(ContentPart(type="input_text", text=text),), **fields)


def update(**settings: Any) -> events.SessionUpdate:
    return events.SessionUpdate(session=SessionConfig.of(**settings))


def created(response_id: str = "resp_1", **fields: Any) -> events.ResponseCreated:
    fields = {"conversation_id": "conv_1", "output": (), "usage": None, **fields}
    return events.ResponseCreated(response=Response(id=response_id, status="in_progress", **fields))


def done(response_id: str = "resp_1", *, status: str = "completed", **fields: Any) -> events.ResponseDone:
    fields = {"conversation_id": "conv_1", **fields}
    return events.ResponseDone(response=Response(id=response_id, status=status, **fields))


class Spoken:
    """The events of one spoken answer (protocol §7.2, steps 5 … 13), by name, so that tests can reorder them."""

    def __init__(
        self,
        *,
        item_id: str = "item_a",
        response_id: str = "resp_1",
        previous: str | None = None,
        dialect: Dialect = "ga",
    ) -> None:
        output: Any = {"response_id": response_id, "output_index": 0}
        self.ids: Any = {**output, "item_id": item_id, "content_index": 0}
        self.begun = Item(type="message", id=item_id, status="in_progress", role="assistant", content=())
        part = ContentPart(type="output_audio", transcript=SPOKEN)
        self.whole = replace(self.begun, status="completed", content=(part,))
        self.output_item_added = events.ResponseOutputItemAdded(item=self.begun, **output)
        (self.item_added,) = item_events(self.begun, previous_item_id=previous, dialect=dialect, done=False)
        self.part_added = events.ResponseContentPartAdded(part=ContentPart(type="audio", transcript=""), **self.ids)
        self.deltas: list[Event] = [
            events.ResponseOutputAudioTranscriptDelta(delta="Eleven", **self.ids),
            events.ResponseOutputAudioDelta(delta=bytes(48 * 100), **self.ids),
            events.ResponseOutputAudioTranscriptDelta(delta=" degrees.", **self.ids),
            events.ResponseOutputAudioDelta(delta=bytes(48 * 200), **self.ids),
        ]
        self.audio_done = events.ResponseOutputAudioDone(**self.ids)
        self.transcript_done = events.ResponseOutputAudioTranscriptDone(transcript=SPOKEN, **self.ids)
        self.part_done = events.ResponseContentPartDone(part=ContentPart(type="audio", transcript=SPOKEN), **self.ids)
        item_done = events.ConversationItemDone(item=self.whole, previous_item_id=previous)
        self.item_done: list[Event] = [item_done] if dialect == "ga" else []
        self.output_item_done = events.ResponseOutputItemDone(item=self.whole, **output)

    def all(self) -> list[Event]:
        """Return the events in the order seen most often."""
        return [
            self.output_item_added, self.item_added, self.part_added, *self.deltas, self.audio_done,
            self.transcript_done, self.part_done, *self.item_done, self.output_item_done,
        ]  # fmt: skip
