"""Between a client and a session: texts and sound both ways until one side ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from rtnb.protocol import ErrorDetail, events, wire
from rtnb.simulator.admission import RefusedError
from rtnb.simulator.faults import Close, FaultPlan, Send

_log = logging.getLogger("rtnb.simulator")

MOST_WAITING = 1024
"""Messages that wait for a slow client before its messages are no longer read. Chosen."""
MOST_WAITING_BYTES = 16 * 2**20
"""The same as characters, for a client that asks for long answers and reads none: 1024 audio deltas. Chosen."""

Listener = asyncio.Queue[tuple[float, Send | Close]]
"""Messages that wait for one listener, each with the time at which it was put."""


class Outgoing:
    """The texts of one session.

    Parameters
    ----------
    plan : FaultPlan
        The faults that strike them.
    """

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._client: Listener = asyncio.Queue()
        self._listeners = [self._client]
        self._n_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    def send(self, event_type: str, text: str) -> None:
        """Send an event: its type in GA spelling, and its text."""
        for action in self._plan.outgoing(event_type, text):
            self.put(action)

    def put(self, action: Send | Close) -> None:
        """Queue a text or the end of the connection for all listeners."""
        for listener in self._listeners:
            self._queue(listener, action)

    def _queue(self, listener: Listener, action: Send | Close) -> None:
        listener.put_nowait((self._loop.time(), action))
        self._n_bytes += _size(action)
        if listener.qsize() > MOST_WAITING or self._n_bytes > MOST_WAITING_BYTES:
            self._room.clear()

    def listen(self, first: str) -> Listener:
        """Add a listener, until `leave`; it receives `first` before all that follows."""
        listener: Listener = asyncio.Queue()
        self._queue(listener, Send(first))
        self._listeners.append(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Remove a listener."""
        self._listeners.remove(listener)
        while not listener.empty():
            self._n_bytes -= _size(listener.get_nowait()[1])
        self._room.set()

    async def texts(self, listener: Listener | None = None) -> AsyncIterator[str | Close]:
        """Yield what to send to the client or to another listener, in order; end after a `Close`."""
        listener = listener or self._client
        while True:
            queued_at, action = await listener.get()
            self._n_bytes -= _size(action)
            if all(one.empty() for one in self._listeners):
                self._room.set()
            if isinstance(action, Close):
                yield action
                return
            if action.delay_ms:
                await asyncio.sleep(max(0.0, queued_at + action.delay_ms / 1000 - self._loop.time()))
            yield action.text

    @property
    def n_waiting(self) -> int:
        """Messages that still wait for the client."""
        return self._client.qsize()

    async def has_room(self) -> None:
        """Wait while a listener reads too slowly (backpressure): a client that does not read is not read either."""
        await self._room.wait()


def _size(action: Send | Close) -> int:
    return len(action.text) if isinstance(action, Send) else 0


MOST_UNDER_WAY = 1024
"""Messages of a client that are on their way through the simulated network at most; then its socket waits. Chosen:
280 ms of 100 ms chunks are three."""
MOST_UNDER_WAY_BYTES = 16 * 2**20
"""The same in characters. Chosen: less than one of the longest messages."""
LOST_S = 30.0
"""A client that takes no message for so long is lost: its session ends and its seat is free. Chosen."""
SLICE_S = 0.001
"""Longest stretch of input processing before output gets its turn. Chosen: processing 100 ms of audio takes 0.2 ms."""


class InputScheduler:
    """Scheduler that shares the event loop between input and output: input may wait, a delta that is due may
    not. Without it a hundred clients whose audio arrives together delay every delta until all of it is processed."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._next: asyncio.Event | None = None

    async def turn(self) -> None:
        """Wait until this round of the event loop has time for input."""
        loop = asyncio.get_running_loop()
        while self._next is not None and loop.time() > self._ends:
            await self._next.wait()
        if self._next is None:
            self._next = asyncio.Event()
            self._ends = loop.time() + SLICE_S
            loop.call_soon(self._next_round)

    def _next_round(self) -> None:
        if self._next is not None:
            self._next.set()
            self._next = None


@dataclass(frozen=True)
class Sound:
    """A piece of the user's track."""

    pcm: bytes
    """PCM16 at 24 kHz."""


class Served(Protocol):
    """Session that `serve_session` runs."""

    latency: Any
    outgoing: Outgoing

    async def receive(self, text: str | bytes) -> None:
        """Take one message."""

    async def take_audio(self, data: bytes) -> None:
        """Take audio of the user's track."""


class Carrier(Protocol):
    """Transport to a client: a socket, or a peer connection."""

    def incoming(self) -> AsyncIterator[str | bytes | Sound]:
        """Yield the client's messages until it disconnects."""

    async def send(self, text: str) -> None:
        """Send a text."""

    async def hang_up(self, close: Close) -> None:
        """End the connection, where the client has not."""


class SocketCarrier:
    """A prepared WebSocket."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self._request, self._socket = request, socket
        self.send = socket.send_str

    async def incoming(self) -> AsyncIterator[str | bytes]:
        """Yield the client's messages."""
        async for message in self._socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                yield message.data

    async def hang_up(self, close: Close) -> None:
        """Close with a code; 1006 means without a close frame."""
        lost = self._socket.close_code == WSCloseCode.ABNORMAL_CLOSURE
        if self._socket.closed and not lost:
            return
        if close.code == WSCloseCode.ABNORMAL_CLOSURE or lost:  # a close would wait until a lost client reads
            if self._request.transport is not None:
                self._request.transport.abort()
            return
        with contextlib.suppress(ConnectionError):
            await self._socket.close(code=close.code, message=_reason(close.reason))


class _UnderWay:
    """Messages on their way to a session, which they reach after a delay; number and bytes are bounded."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[float, str | bytes | Sound]] = asyncio.Queue(MOST_UNDER_WAY)
        self._n_bytes, self._room = 0, asyncio.Event()

    async def put(self, message: str | bytes | Sound) -> None:
        self._n_bytes += 0 if isinstance(message, Sound) else len(message)
        while self._n_bytes > MOST_UNDER_WAY_BYTES and not self._arrived.empty():
            self._room.clear()
            await self._room.wait()
        await self._arrived.put((self._loop.time() + self._delay_s, message))

    async def get(self) -> str | bytes | Sound:
        due, message = await self._arrived.get()
        self._n_bytes -= 0 if isinstance(message, Sound) else len(message)
        self._room.set()
        await asyncio.sleep(max(0.0, due - self._loop.time()))
        return message


async def serve_session(
    carrier: Carrier,
    session: Served,
    *,
    scheduler: InputScheduler,
    stop: asyncio.Future[Close],
    listener: Listener | None = None,
) -> None:
    """Serve a session until one side ends or `stop` is set, and hang up; `listener` watches beside the client."""
    delay_s = session.latency.answer_ms / 1000
    under_way = _UnderWay(delay_s)

    async def take_in(message: str | bytes | Sound) -> None:
        await scheduler.turn()
        if isinstance(message, Sound):
            await session.take_audio(message.pcm)
        else:
            await session.receive(message)

    async def read() -> None:
        async for message in carrier.incoming():
            await session.outgoing.has_room()
            if delay_s:
                await under_way.put(message)
            else:
                await take_in(message)

    async def take() -> None:
        while True:
            await take_in(await under_way.get())

    async def write() -> Close | None:
        async for out in session.outgoing.texts(listener):
            if isinstance(out, Close):
                return out
            try:
                async with asyncio.timeout(LOST_S):
                    await carrier.send(out)
            except TimeoutError:
                return Close(WSCloseCode.ABNORMAL_CLOSURE)
        return None

    async def wait_for_stop() -> Close | None:
        return await stop

    close = await _first_of(read(), take(), write(), wait_for_stop())
    # No task reads any more: closing waits for the client's close frame, and resets no connection.
    await carrier.hang_up(close or Close(WSCloseCode.OK))


async def _first_of(*steps: Coroutine[Any, Any, Close | None]) -> Close | None:
    """Run all until one ends, cancel the others, and return how to close the connection. Failures are logged."""
    tasks = [asyncio.create_task(step, name="rtnb session") for step in steps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    close = next((one for one in outcomes if isinstance(one, Close)), None)
    for failure in outcomes:
        if isinstance(failure, Exception) and not isinstance(failure, ConnectionError):
            _log.error("a session ended by an error", exc_info=failure)
            close = Close(WSCloseCode.INTERNAL_ERROR)
    return close


async def say_and_close(
    request: web.Request, socket: web.WebSocketResponse, refused: RefusedError
) -> web.WebSocketResponse:
    """Refuse as OpenAI does: accept, send `error`, close with 3000 (wrong key) or 4000 (wrong request)."""
    await socket.prepare(request)
    kind = "invalid_request_error"
    detail = ErrorDetail(type=kind, code=refused.code, message=refused.message, param=None, event_id=None)
    await socket.send_str(wire.encode(events.Error(event_id="event_refused", error=detail)))
    reason = f"{kind}.{refused.code}" if refused.code else kind
    await socket.close(code=3000 if refused.status == 401 else 4000, message=_reason(reason))
    return socket


def _reason(text: str) -> bytes:
    """Return as many whole characters as a close frame has room for (RFC 6455, 5.5)."""
    return text.encode()[:123].decode("utf-8", "ignore").encode()
