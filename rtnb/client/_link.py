"""The line of a session: one reader, one log, calls that get their answers, and an end that everybody hears of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from rtnb.audio import Audio
from rtnb.client._calls import Calls, Key
from rtnb.client.log import EventLog
from rtnb.client.redaction import CARRIERS, redact_event
from rtnb.errors import ConnectionClosed, RemoteProtocolError, RtnbError
from rtnb.protocol import Connection
from rtnb.protocol.events import Event, UnknownEvent
from rtnb.protocol.values import UNSET
from rtnb.transport.base import Transport
from rtnb.transport.credentials import redact

Clock = Callable[[], float]
Speak = Callable[[Audio, int], Awaitable[None]]
MakeId = Callable[[str], str]
"""prefix -> a new id of at most 32 characters."""
Route = Callable[[Any, float], object]
"""What happens when an event arrives: route(event, arrived_s). Must not wait."""

_UNREADABLE_LENGTH = 2_000  # characters of an unreadable message kept in the log (chosen)


def counting_ids() -> MakeId:
    """Ids that count: ``client_1``, ``item_client_2`` …; the same session makes the same ids."""
    numbers = count(1)
    return lambda prefix: f"client_{next(numbers)}" if prefix == "client" else f"{prefix}_client_{next(numbers)}"


class Link:
    """Transport, protocol and log as one; the events of the service go to `routes`.

    Parameters
    ----------
    routes : mapping of event class to Route
        Filled in before the first event.
    on_end : callable
        Called once with the reason and the time.
    """

    def __init__(
        self,
        transport: Transport,
        connection: Connection,
        *,
        log: EventLog,
        clock: Clock,
        wall: Clock,
        make_id: MakeId,
        secrets: Sequence[str],
        routes: Mapping[type[Event], Route],
        on_end: Callable[[ConnectionClosed, float], object],
    ) -> None:
        self.connection = connection
        self.log = log
        self.calls = Calls()
        self.clock = clock
        self.wall = wall
        self.errors: list[Exception] = []
        self.problems: list[RemoteProtocolError] = []
        self.ended: ConnectionClosed | None = None
        self._make_id = make_id
        self._transport = transport
        self.speak: Speak | None = getattr(transport, "speak", None)
        """Where sound has a track of its own (WebRTC): puts audio on it, and returns once it was said."""
        self.secrets = tuple(secrets)
        self._routes = routes
        self._on_end = on_end
        self._watchers: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.closing = False
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="rtnb-session-reader")

    # --- out ----------------------------------------------------------------------------------------------------------

    def new_id(self, prefix: str = "client") -> str:
        """A new id for an event or an item."""
        return self._make_id(prefix)

    async def send(self, event: Event) -> None:
        """Send an event and log it; what is handed in is on its way even where the caller gives up waiting."""
        if self.ended is not None:
            raise self.ended
        if event.event_id is UNSET:
            event = replace(event, event_id=self.new_id())
        text = self.connection.send(event)  # from here to the transport nothing waits: the order is kept
        shown = redact_event(event, self.secrets) if type(event) in CARRIERS else event
        self.log.record("sent", shown, monotonic_s=self.clock(), wall_time=self.wall(), text=text)
        await self._transport.send(text)

    async def call(self, event: Event, key: Key) -> Any:
        """Send an event and wait for its answer."""
        return await (await self.begin(event, key))

    async def begin(self, event: Event, key: Key) -> asyncio.Future[Any]:
        """Send an event and return its answer to come."""
        if self.ended is not None:
            raise self.ended
        event_id = event.event_id or ""
        answer = self.calls.expect(event_id, key)
        try:
            await self.send(event)
        except Exception:
            self.calls.forget(event_id)
            raise
        return answer

    # --- in -----------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        receive, take = self._transport.receive, self._take
        try:
            while True:
                try:
                    take(await receive())
                except RemoteProtocolError as error:  # a binary message; the connection goes on
                    self._unreadable("", error)
        except ConnectionClosed as error:
            self.end(error)
        except Exception as error:  # a mistake of ours: nobody may wait for ever because of it
            broken = ConnectionClosed(f"the session broke: {type(error).__name__} in its reader")
            broken.__cause__ = error
            self.end(broken)
            await self._transport.close(code=1011)

    def _take(self, text: str) -> None:
        arrived_s = self.clock()
        try:
            event = self.connection.receive(text)
        except RemoteProtocolError as error:
            self._unreadable(text, error)
            return
        kind = type(event)
        if kind in CARRIERS:
            event = redact_event(event, self.secrets)
        self.log.record("received", event, monotonic_s=arrived_s, wall_time=self.wall(), text=text)
        route = self._routes.get(kind)
        if route is not None:
            route(event, arrived_s)
        if self._watchers:
            self._wake()

    def _unreadable(self, text: str, error: RemoteProtocolError) -> None:
        self.problems.append(error)
        payload = {"text": redact(text[:_UNREADABLE_LENGTH], self.secrets)}
        event = UnknownEvent(type="unreadable", payload=payload, problem=redact(str(error), self.secrets))
        self.log.record("received", event, monotonic_s=self.clock(), wall_time=self.wall(), text=text)
        self._wake()

    def events(self) -> EventStream:
        """Every event of the service from now on, once."""
        return EventStream(self)

    async def change(self) -> None:
        """Wait for the next event of the service; raises where the session is over."""
        if self.ended is not None:
            raise self.ended
        await self.next_wake()

    async def next_wake(self) -> None:
        """Wait for the next event of the service, or the end."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        await watcher

    def _wake(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    # --- beside -------------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run something beside the reader; its error is kept in `errors`, and `close` ends it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, ConnectionClosed):
            return
        if isinstance(error, RtnbError):
            self.errors.append(error)
        else:
            task.get_loop().call_exception_handler({"message": f"{task.get_name()} failed", "exception": error})

    # --- the end ------------------------------------------------------------------------------------------------------

    def end(self, error: ConnectionClosed) -> None:
        """The connection is over: everybody who waits is told."""
        if self.ended is None:
            self.ended = error
            self._on_end(error, self.clock())
            self.calls.end(error)
            self._wake()

    async def close(self) -> None:
        """End everything that belongs to the session; closing twice is fine."""
        self.closing = True
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._transport.close()
        finally:
            self._reader.cancel()  # where the transport does not wake it
            await asyncio.gather(self._reader, return_exceptions=True)
            self.end(ConnectionClosed("this side closed the session", code=1000))
            self.log.close()


class EventStream:
    """The events of the service, one by one. The log is the queue: nothing is lost, and nothing is kept twice."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._position = len(link.log)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        link = self._link
        while True:
            while self._position < len(link.log):
                row = link.log[self._position]
                self._position += 1
                if row.direction == "received":
                    return row.event
            if link.ended is not None:
                if link.closing or link.ended.code == 1000:
                    raise StopAsyncIteration
                raise link.ended
            await link.next_wake()
