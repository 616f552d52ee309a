"""Session of a probe: raw events both ways, without a client that hides anything."""

from __future__ import annotations

import asyncio
import json
import time
from contextvars import ContextVar
from typing import Any, Final

import numpy as np

from rtnb.audio import babble, encode_pcm16
from rtnb.errors import ConnectionClosed
from rtnb.protocol import Dialect, events, wire
from rtnb.protocol.events import SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.values import ResponseConfig, SessionConfig
from rtnb.transport import Transport

SPENT: ContextVar[list[Any]] = ContextVar("SPENT")
"""Usage of the responses of the running probe, None for one that the service did not tell."""
PATIENCE_S: Final = 20.0
"""Longest wait for an event. Chosen: a live service begins to answer within 2 s."""


class Different(Exception):  # an outcome, not a mistake
    """The service did something else than documented."""

    def __init__(self, came: Any, expected: Any) -> None:
        super().__init__(f"{came} instead of {expected}")
        self.came, self.expected = str(came), str(expected)


class NotTested(Exception):  # an outcome, not a mistake
    """The target has no such thing, or it cannot be reached here."""


def check(came: Any, expected: Any, what: str = "") -> None:
    """Raise `Different` where two values differ."""
    require(came == expected, f"{what} {came!r}".strip(), f"{what} {expected!r}".strip())


def require(holds: bool, came: Any, expected: Any) -> None:
    """Raise `Different` where something does not hold."""
    if not holds:
        raise Different(came, expected)


SPOKEN: Final = "hello there how are you"
TOO_SOON: Final = "the response was over too soon"


class Wire:
    """Session of a probe; use it in ``async with``.

    Parameters
    ----------
    target : Target or Call
        Service to connect to.
    """

    def __init__(self, target: Any, *, intent: str | None = None) -> None:
        self._target, self._intent = target, intent
        self.dialect: Dialect = target.dialect
        self.events: list[Any] = []
        """Every event received, decoded, in order."""
        self.raw: list[dict[str, Any]] = []
        """The same as JSON objects."""
        self._transport: Transport

    async def __aenter__(self) -> Wire:
        self._transport = await self._target.open(intent=self._intent)
        await self.until(events.SessionCreated)
        if self.dialect == "preview" and self._intent is None:
            await self.until(events.ConversationCreated)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    @property
    def session(self) -> SessionConfig:
        """The session object that the service sent last."""
        found = [one for one in self.events if isinstance(one, events.SessionCreated | events.SessionUpdated)]
        return found[-1].session

    async def send(self, event: Event) -> None:
        """Send an event in the service's dialect."""
        await self._transport.send(wire.encode(event, dialect=self.dialect))

    async def send_raw(self, message: dict[str, Any] | str) -> None:
        """Send a JSON object, or a text as it is."""
        await self._transport.send(message if isinstance(message, str) else json.dumps(message))

    async def next(self, timeout_s: float = PATIENCE_S) -> Any:
        """Return the next event."""
        try:
            async with asyncio.timeout(timeout_s):
                text = await self._transport.receive()
        except TimeoutError:
            raise Different("nothing", f"an event within {timeout_s:g} s") from None
        except ConnectionClosed as closed:
            raise Different(f"the connection closed with {closed.code} {closed.reason}", "an event") from closed
        self.raw.append(json.loads(text))
        self.events.append(wire.decode(text, dialect=self.dialect, registry=SERVER_EVENTS))
        if isinstance(self.events[-1], events.ResponseDone) and (spent := SPENT.get(None)) is not None:
            spent.append(self.events[-1].response.usage)
        return self.events[-1]

    async def until(self, *kinds: type[Event], timeout_s: float = PATIENCE_S) -> Any:
        """Read on to the first event of these kinds; an `error` that was not asked for is a difference."""
        deadline = time.monotonic() + timeout_s
        while True:
            event = await self.next(max(0.01, deadline - time.monotonic()))
            if isinstance(event, kinds):
                return event
            if isinstance(event, UnknownEvent) and event.type in {kind.type for kind in kinds}:
                raise Different(f"{event.type} that cannot be read: {event.problem}", "its documented shape")
            if isinstance(event, events.Error):
                raise Different(f"error {event.error.code}: {event.error.message}", " or ".join(k.type for k in kinds))

    async def refused(self, *accepted: str) -> events.Error:
        """Read on to an `error`; an event whose type begins with one of `accepted` is a difference."""
        while not isinstance(event := await self.next(), events.Error):
            if event.type.startswith(accepted):
                raise Different(event.type, "error")
        return event

    async def quiet(self, seconds: float) -> list[Any]:
        """Return what comes in so many seconds."""
        first = len(self.events)
        deadline = time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                await self.next(left)
        except Different:
            pass  # nothing came any more
        return self.events[first:]

    async def update(self, **settings: Any) -> Any:
        """Change the session; return `session.updated`."""
        await self.send(events.SessionUpdate(session=SessionConfig.of(**settings)))
        return await self.until(events.SessionUpdated)

    async def create(self, item: dict[str, Any], **more: Any) -> Any:
        """Create an item; return the event that announces it."""
        await self.send_raw({"type": "conversation.item.create", "item": item, **more})
        return await self.until(events.ConversationItemAdded, events.ConversationItemCreated)

    async def write(self, text: str) -> Any:
        """Create a user message; return the event that announces it."""
        content = [{"type": "input_text", "text": text}]
        announced = await self.create({"type": "message", "role": "user", "content": content})
        if self.dialect == "ga":
            await self.until(events.ConversationItemDone)
        return announced

    async def begin(self, text: str, first: type[Event] = events.ResponseOutputAudioDelta) -> None:
        """Ask for a spoken response and wait for its first event of a class."""
        await self.write(text)
        await self.send(events.ResponseCreate())
        await self.until(first)

    async def cut_short(self) -> Any:
        """Return the response that the client or speech has ended."""
        response = (await self.until(events.ResponseDone)).response
        if response.status == "completed":
            raise NotTested(TOO_SOON)
        return response

    async def respond(self, **config: Any) -> Any:
        """Ask for a response and wait for its end; return `response.done`."""
        await self.send(events.ResponseCreate(response=ResponseConfig(**config)))
        return await self.until(events.ResponseDone, timeout_s=60)

    async def ask(self, text: str, **config: Any) -> Any:
        """Create a user message and ask for a response; return `response.done`."""
        await self.write(text)
        return await self.respond(**config)

    async def commit(self) -> None:
        """End a turn by hand."""
        await self.send(events.InputAudioBufferCommit())

    async def speak(self, *, quiet_ms: int = 1500, paced: bool = True) -> float:
        """Send babbled speech with silence around it; return when its last loud sample was sent, ms of the stream."""
        speech = babble(SPOKEN, rate_hz=24_000, seed=3).audio
        pcm = encode_pcm16(np.pad(speech, (24 * 300, 24 * quiet_ms)))
        started = time.monotonic()
        for start in range(0, len(pcm), 4800):
            await self.send(events.InputAudioBufferAppend(audio=pcm[start : start + 4800]))
            if paced:
                await asyncio.sleep(max(0.0, started + (start + 4800) / 48_000 - time.monotonic()))
        return 300 + len(speech) / 24

    def found(self, kind: type[Event]) -> list[Any]:
        """Return the events of a class, in order."""
        return [one for one in self.events if isinstance(one, kind)]

    def kinds(self, first: int = 0) -> list[str]:
        """Return the canonical types of the events from a position on, repeats of deltas left out."""
        found: list[str] = []
        for event in self.events[first:]:
            if not (event.type.endswith(".delta") and found and found[-1] == event.type):
                found.append(event.type)
        return found
