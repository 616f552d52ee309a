"""A service for tests: the real server-role `Connection` and the protocol's own replies over a line in memory."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from rtnb.audio import codec
from rtnb.errors import ConnectionClosed, RemoteProtocolError
from rtnb.protocol import Connection, events
from rtnb.protocol.events import Event
from rtnb.protocol.service import replies
from rtnb.protocol.values import (
    UNSET,
    Audio,
    AudioOutput,
    ContentPart,
    Dialect,
    ErrorDetail,
    Item,
    Response,
    ResponseConfig,
    StatusDetails,
    Usage,
)
from rtnb.transport.base import TargetFacts, Transport
from tests.memory import memory_pair

EXPIRES_AT = 1_800_003_600


class Clock:
    """Clock that moves only where a test advances it or code sleeps."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def advance(self, ms: float) -> None:
        self.now_s += ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)  # others may run, as in every real wait


class Service:
    """Service of a session, scripted by a test.

    Client events are answered by the protocol at once; `response.create` is answered by `on_create`, which tests set,
    or by nothing. Everything the client said is in `heard`.
    """

    def __init__(self, transport: Transport, *, dialect: Dialect) -> None:
        self.transport = transport
        self.dialect = dialect
        self.connection = Connection("server", dialect=dialect)
        self.heard: list[Event] = []
        self.on_create: Callable[[ResponseConfig | None], Any] | None = None
        self.echo_metadata = True
        self.refused = 0
        self.ignored: tuple[type[Event], ...] = ()
        """Events that are read and never answered."""
        self.meanwhile: Callable[[], Any] | None = None
        """What happened while a `response.create` was on its way here; done once."""
        self.refuse: Callable[[Event], ErrorDetail | None] = lambda event: None
        self._numbers = count(1)
        self._changed = asyncio.Event()

    # --- reading ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            while True:
                await self._serve(await self.transport.receive())
        except ConnectionClosed:
            return

    async def _serve(self, text: str) -> None:
        if self.meanwhile is not None and '"response.create"' in text:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        try:
            event = self.connection.receive(text)
        except RemoteProtocolError as refusal:
            await self.say(refusal.answer)
            self.refused += 1
            self._changed.set()
            return
        if isinstance(event, self.ignored):
            self.note(event)
            return
        if refused := self.refuse(event):
            await self.say(events.Error(error=replace(refused, event_id=event.event_id)))
            self.note(event)
            return
        for answer in replies.answer(self.connection.state, event, make_id=self.new_id, dialect=self.dialect):
            await self.say(answer)
        if isinstance(event, events.ConversationItemRetrieve):
            item = self.connection.state.entries[event.item_id].item
            await self.say(events.ConversationItemRetrieved(item=item))
        if isinstance(event, events.ResponseCancel):
            running = event.response_id or self.connection.state.active_response_id or ""
            await self.finish(running, status="cancelled", reason="client_cancelled")
        self.note(event)
        if isinstance(event, events.ResponseCreate) and self.on_create is not None:
            await self.on_create(event.response or None)

    def note(self, event: Event) -> None:
        self.heard.append(event)
        self._changed.set()

    async def hears(self, kind: type[Event], *, times: int = 1) -> Any:
        """Wait until the client said so many events of a kind, and return the last of them."""
        while True:
            found = [event for event in self.heard if isinstance(event, kind)]
            if len(found) >= times:
                return found[times - 1]
            self._changed.clear()
            await self._changed.wait()

    async def hears_refused(self) -> None:
        """Wait until an event of the client was refused."""
        while not self.refused:
            self._changed.clear()
            await self._changed.wait()

    def said(self, kind: type[Event]) -> list[Any]:
        """The events of a kind that the client said so far."""
        return [event for event in self.heard if isinstance(event, kind)]

    # --- speaking -----------------------------------------------------------------------------------------------------

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"

    async def say(self, event: Event) -> None:
        if event.event_id is UNSET:
            event = replace(event, event_id=self.new_id("event"))
        await self.transport.send(self.connection.send(event))

    async def say_raw(self, text: str) -> None:
        await self.transport.send(text)

    async def open(self, **changes: Any) -> None:
        session = replies.initial_session(
            session_id="sess_1", model="test-model", expires_at=EXPIRES_AT, dialect=self.dialect
        )
        await self.say(events.SessionCreated(session=replace(session, **changes)))

    # --- responses, step by step --------------------------------------------------------------------------------------

    async def begin(self, config: ResponseConfig | None = None, *, outside: bool = False) -> str:
        response_id = self.new_id("resp")
        outside = outside or bool(config and config.conversation == "none")
        metadata = config.metadata if config and self.echo_metadata else None
        session = self.connection.state.session
        wanted = config.audio.output if config and config.audio else UNSET
        output = AudioOutput(format=(wanted and wanted.format) or session.output_format, voice="alloy")
        begun: dict[str, Any] = {"object": "realtime.response", "status": "in_progress", "status_details": None}
        place = None if outside else "conv_1"
        audio = Audio(output=output)
        response = Response(
            id=response_id, **begun, output=(), usage=None, metadata=metadata, conversation_id=place, audio=audio
        )
        await self.say(events.ResponseCreated(response=response))
        return response_id

    async def item(self, response_id: str, item: Item | None = None) -> str:
        item_id = self.new_id("item")
        fresh = item or Item(type="message", role="assistant", content=())
        item = replace(fresh, id=item_id, object="realtime.item", status="in_progress")
        running = self.connection.state.responses[response_id]
        index = len(running.item_ids)
        await self.say(events.ResponseOutputItemAdded(response_id=response_id, output_index=index, item=item))
        if running.in_conversation:
            order = self.connection.state.order
            previous = order[-1] if order else None
            for event in replies.item_events(item, previous_item_id=previous, dialect=self.dialect, done=False):
                await self.say(event)
        return item_id

    async def audio(self, response_id: str, item_id: str, ms: float, *, value: float = 0.25) -> None:
        form = self.connection.state.responses[response_id].response.audio.output.format  # type: ignore[union-attr]
        coder = codec(form.type)
        delta = coder.encode(np.full(int(ms * coder.rate_hz / 1000), value, np.float32))
        await self.piece(events.ResponseOutputAudioDelta, response_id, item_id, delta=delta)

    async def words(self, response_id: str, item_id: str, text: str) -> None:
        await self.piece(events.ResponseOutputAudioTranscriptDelta, response_id, item_id, delta=text)

    async def audio_done(self, response_id: str, item_id: str) -> None:
        await self.piece(events.ResponseOutputAudioDone, response_id, item_id)

    async def piece(self, kind: Callable[..., Event], response_id: str, item_id: str, **fields: Any) -> None:
        """Send an event about the first content part of an item."""
        place = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        await self.say(kind(**place, **fields))

    async def finish(
        self,
        response_id: str,
        *,
        status: str = "completed",
        reason: str | None = None,
        error: ErrorDetail | None = None,
        output: Sequence[Item] = (),
    ) -> None:
        details = None
        if status != "completed":
            details = StatusDetails(type=status, reason=reason or UNSET, error=error or UNSET)
        running = self.connection.state.responses[response_id].response
        usage = Usage(total_tokens=12, input_tokens=5, output_tokens=7)
        done = replace(running, status=status, status_details=details, output=tuple(output), usage=usage)
        await self.say(events.ResponseDone(response=done))

    async def answer(self, config: ResponseConfig | None = None, *, text: str = "Hello there.", ms: int = 300) -> str:
        """A whole spoken response in three deltas."""
        response_id = await self.begin(config)
        item_id = await self.item(response_id)
        part = ContentPart(type="audio", transcript="")
        await self.say(events.ResponseContentPartAdded(response_id=response_id, item_id=item_id, part=part))
        for word in (text[:6], text[6:]):
            await self.words(response_id, item_id, word)
        for _ in range(3):
            await self.audio(response_id, item_id, ms / 3)
        await self.audio_done(response_id, item_id)
        content = (ContentPart(type="output_audio", transcript=text),)
        item = Item(type="message", id=item_id, role="assistant", status="completed", content=content)
        await self.say(events.ResponseOutputItemDone(response_id=response_id, output_index=0, item=item))
        await self.finish(response_id, output=[item])
        return response_id

    async def call(
        self, config: ResponseConfig | None, *calls: tuple[str, str], status: str = "completed", item_status: str = ""
    ) -> tuple[str, ...]:
        """A whole response that calls functions: (name, arguments) each; returns the call ids."""
        response_id = await self.begin(config)
        items = []
        for name, arguments in calls:
            call = Item(type="function_call", name=name, call_id=self.new_id("call"), arguments="")
            item_id = await self.item(response_id, call)
            item = replace(call, id=item_id, arguments=arguments, status=item_status or status)
            ids: dict[str, Any] = {"response_id": response_id, "item_id": item_id, "call_id": call.call_id}
            await self.say(events.ResponseFunctionCallArgumentsDelta(**ids, delta=arguments))
            await self.say(events.ResponseFunctionCallArgumentsDone(**ids, arguments=arguments))
            await self.say(events.ResponseOutputItemDone(response_id=response_id, output_index=len(items), item=item))
            items.append(item)
        await self.finish(response_id, status=status, output=items)
        return tuple(str(item.call_id) for item in items)

    # --- turn detection -----------------------------------------------------------------------------------------------

    async def speech_started(self) -> str:
        item_id = self.new_id("item")
        await self.say(events.InputAudioBufferSpeechStarted(audio_start_ms=0, item_id=item_id))
        return item_id

    async def commit_turn(self, item_id: str | None = None) -> None:
        item_id = item_id or self.new_id("item")
        heard_ms = self.connection.state.input_audio_buffer.total_bytes // 48
        await self.say(events.InputAudioBufferSpeechStopped(audio_end_ms=heard_ms, item_id=item_id))
        for event in replies.committed(self.connection.state, item_id, dialect=self.dialect):
            await self.say(event)


class ScriptedTarget:
    """A target whose service is played by the test."""

    def __init__(self, *, dialect: Dialect = "ga", service_dialect: Dialect | None = None) -> None:
        self.dialect = dialect
        self.model = "test-model"
        self.facts = TargetFacts(url="ws://test/realtime", dialect=dialect, model="test-model")
        here, there = memory_pair()
        self.here = here
        self.service = Service(there, dialect=service_dialect or dialect)

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> Transport:
        return self.here

    async def ephemeral_key(self, **_: Any) -> Any:
        raise AssertionError("no test asks for one")

    def __str__(self) -> str:
        return "a scripted service"
