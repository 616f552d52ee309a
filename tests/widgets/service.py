"""A service for the widgets' tests: the server-role `Connection` and its own replies over a line in memory."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from rtnb.errors import ConnectionClosed
from rtnb.protocol import Connection, events
from rtnb.protocol.events import Event
from rtnb.protocol.service import replies
from rtnb.protocol.values import (
    UNSET,
    Audio,
    AudioOutput,
    Dialect,
    Item,
    Response,
    StatusDetails,
    Usage,
)
from rtnb.transport.base import TargetFacts, Transport
from tests.memory import memory_pair


class Clock:
    """Clock that moves only where a test advances it or code sleeps."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, ms: float) -> None:
        self.now_s += ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)  # others may run, as in every real wait


class Service:
    """Service of a session, played by a test.

    The protocol answers client events at once, except `response.create`. What the client sent is in `heard`.
    """

    def __init__(self, transport: Transport, *, dialect: Dialect) -> None:
        self.transport = transport
        self.dialect = dialect
        self.connection = Connection("server", dialect=dialect)
        self.heard: list[Event] = []
        self._numbers = count(1)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        try:
            while True:
                await self._serve(self.connection.receive(await self.transport.receive()))
        except ConnectionClosed:
            return

    async def _serve(self, event: Event) -> None:
        for answer in replies.answer(self.connection.state, event, make_id=self.new_id, dialect=self.dialect):
            await self.say(answer)
        if isinstance(event, events.ResponseCancel):
            running = event.response_id or self.connection.state.active_response_id or ""
            await self.finish(running, status="cancelled", reason="client_cancelled")
        self.heard.append(event)
        self._changed.set()

    async def hears(self, kind: type[Event], *, times: int = 1) -> Any:
        """Wait until the client sent so many events of a kind, and return the last of them."""
        while len(found := self.said(kind)) < times:
            self._changed.clear()
            await self._changed.wait()
        return found[times - 1]

    def said(self, kind: type[Event]) -> list[Any]:
        """Return the events of a kind that the client sent so far."""
        return [event for event in self.heard if isinstance(event, kind)]

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"

    async def say(self, event: Event) -> None:
        if event.event_id is UNSET:
            event = replace(event, event_id=self.new_id("event"))
        await self.transport.send(self.connection.send(event))

    async def open(self) -> None:
        names: Any = {"session_id": "sess_1", "model": "test-model", "expires_at": 1_800_003_600}
        await self.say(events.SessionCreated(session=replies.initial_session(**names, dialect=self.dialect)))

    # --- responses, step by step --------------------------------------------------------------------------------------

    async def begin(self) -> str:
        response_id = self.new_id("resp")
        form = self.connection.state.session.output_format
        response = Response(
            id=response_id,
            object="realtime.response",
            status="in_progress",
            status_details=None,
            output=(),
            usage=None,
            metadata=None,
            conversation_id="conv_1",
            audio=Audio(output=AudioOutput(format=form, voice="alloy")),
        )
        await self.say(events.ResponseCreated(response=response))
        return response_id

    async def item(self, response_id: str) -> str:
        item_id = self.new_id("item")
        fresh = Item(type="message", role="assistant", content=())
        item = replace(fresh, id=item_id, object="realtime.item", status="in_progress")
        state = self.connection.state
        index = len(state.responses[response_id].item_ids)
        await self.say(events.ResponseOutputItemAdded(response_id=response_id, output_index=index, item=item))
        previous = state.order[-1] if state.order else None
        for event in replies.item_events(item, previous_item_id=previous, dialect=self.dialect, done=False):
            await self.say(event)
        return item_id

    async def words(self, response_id: str, item_id: str, text: str) -> None:
        await self.piece(events.ResponseOutputAudioTranscriptDelta, response_id, item_id, delta=text)

    async def audio_done(self, response_id: str, item_id: str) -> None:
        await self.piece(events.ResponseOutputAudioDone, response_id, item_id)

    async def piece(self, kind: Callable[..., Event], response_id: str, item_id: str, **fields: Any) -> None:
        """Send an event about the first content part of an item."""
        place = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        await self.say(kind(**place, **fields))

    async def finish(
        self, response_id: str, *, status: str = "completed", reason: str = "", output: Sequence[Item] = ()
    ) -> None:
        details = StatusDetails(type=status, reason=reason) if reason else None
        running = self.connection.state.responses[response_id].response
        usage = Usage(total_tokens=12, input_tokens=5, output_tokens=7)
        done = replace(running, status=status, status_details=details, output=tuple(output), usage=usage)
        await self.say(events.ResponseDone(response=done))

    async def speech_started(self) -> str:
        item_id = self.new_id("item")
        await self.say(events.InputAudioBufferSpeechStarted(audio_start_ms=0, item_id=item_id))
        return item_id


class ScriptedTarget:
    """A target whose service is played by the test."""

    def __init__(self, *, dialect: Dialect = "ga") -> None:
        self.dialect = dialect
        self.model = "test-model"
        self.facts = TargetFacts(url="ws://test/realtime", dialect=dialect, model="test-model")
        self.here, there = memory_pair()
        self.service = Service(there, dialect=dialect)

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> Transport:
        return self.here

    def __str__(self) -> str:
        return "a scripted service"
