"""Between a client and a session: texts and sound both ways until one side ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from aiohttp import WSCloseCode, WSMsgType, web

from rtnb.audio import codec
from rtnb.protocol import ErrorDetail, events, wire
from rtnb.simulator.admission import RefusedError
from rtnb.simulator.faults import Close, FaultPlan, LatencyProfile, Send

_log = logging.getLogger("rtnb.simulator")

MOST_WAITING = 1024
"""Entries of a queue above which its writer waits. Chosen: a client that reads slowly is not read either; in 280 ms of
simulated network there are three chunks of audio."""
MOST_WAITING_BYTES = 16 * 2**20
"""The same in characters: 1024 audio deltas, or one of the longest messages. Chosen."""

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """Queue with a bound in entries and characters (backpressure): its writer waits for `room`, which is there again
    when the queue is empty."""

    def __init__(self) -> None:
        self._entries: asyncio.Queue[tuple[T, int]] = asyncio.Queue()
        self._n_bytes = 0
        self.room = asyncio.Event()
        self.room.set()

    @property
    def n_entries(self) -> int:
        """Entries that wait."""
        return self._entries.qsize()

    def put(self, entry: T, size: int) -> None:
        """Add an entry of so many characters."""
        self._entries.put_nowait((entry, size))
        self._n_bytes += size
        if self.n_entries > MOST_WAITING or self._n_bytes > MOST_WAITING_BYTES:
            self.room.clear()

    async def get(self) -> T:
        """Return the oldest entry, once there is one."""
        entry, size = await self._entries.get()
        self._n_bytes -= size
        if self._entries.empty():
            self.room.set()
        return entry


Listener = BoundedQueue[tuple[float, Send | Close]]
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
        self._client: Listener = BoundedQueue()
        self._listeners = [self._client]

    def send(self, event_type: str, text: str) -> None:
        """Send an event: its type in GA spelling, and its text."""
        for action in self._plan.outgoing(event_type, text):
            self.put(action)

    def put(self, action: Send | Close) -> None:
        """Queue a text or the end of the connection for all listeners."""
        for listener in self._listeners:
            listener.put((self._loop.time(), action), len(getattr(action, "text", "")))

    def listen(self, first: str) -> Listener:
        """Add a listener, until `leave`; it receives `first` before all that follows."""
        listener: Listener = BoundedQueue()
        listener.put((self._loop.time(), Send(first)), len(first))
        self._listeners.append(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Remove a listener."""
        self._listeners.remove(listener)
        listener.room.set()

    async def texts(self, listener: Listener | None = None) -> AsyncIterator[str | Close]:
        """Yield what to send to the client or to another listener, in order; end after a `Close`."""
        listener = self._client if listener is None else listener
        while True:
            queued_at, action = await listener.get()
            if isinstance(action, Close):
                yield action
                return
            if action.delay_ms:
                await asyncio.sleep(max(0.0, queued_at + action.delay_ms / 1000 - self._loop.time()))
            yield action.text

    @property
    def n_waiting(self) -> int:
        """Messages that still wait for the client."""
        return self._client.n_entries

    async def has_room(self) -> None:
        """Wait while a listener reads too slowly: a client that does not read is not read either."""
        for listener in tuple(self._listeners):
            await listener.room.wait()


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


class Sound(bytes):
    """A piece of the user's track: PCM16 at 24 kHz."""


class Served(Protocol):
    """Session that `serve_session` runs."""

    outgoing: Outgoing

    @property
    def latency(self) -> LatencyProfile:
        """Latencies as they are now."""

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
    loop = asyncio.get_running_loop()
    under_way: BoundedQueue[tuple[float, str | bytes | Sound]] = BoundedQueue()
    """Messages on their way through the simulated network, each with the time of its arrival."""

    async def read() -> None:
        async for message in carrier.incoming():
            await session.outgoing.has_room()
            if delay_s:
                under_way.put((loop.time() + delay_s, message), len(message))
                await under_way.room.wait()
            else:
                await _take_in(message, session, scheduler)

    async def take() -> None:
        while True:
            due, message = await under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await _take_in(message, session, scheduler)

    sending_since = math.inf

    async def write() -> Close | None:
        nonlocal sending_since
        async for out in session.outgoing.texts(listener):
            if isinstance(out, Close):
                return out
            sending_since = loop.time()
            await carrier.send(out)
            sending_since = math.inf
        return None

    async def watch() -> Close:
        while loop.time() - sending_since < LOST_S:  # noqa: ASYNC110  # there is no event: time goes by
            await asyncio.sleep(LOST_S / 10)
        return Close(WSCloseCode.ABNORMAL_CLOSURE)

    close = await _first_of(read(), take(), write(), watch(), stop)
    # No task reads any more: closing waits for the client's close frame, and resets no connection.
    await carrier.hang_up(close or Close(WSCloseCode.OK))


async def _take_in(message: str | bytes | Sound, session: Served, scheduler: InputScheduler) -> None:
    await scheduler.turn()
    await (session.take_audio(message) if isinstance(message, Sound) else session.receive(message))


async def _first_of(*steps: Coroutine[Any, Any, Close | None] | asyncio.Future[Close]) -> Close | None:
    """Run all until one ends, cancel the others, and return how to close the connection. Failures are logged."""
    tasks = [asyncio.ensure_future(step) for step in steps]
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


# --- over WebRTC ------------------------------------------------------------------------------------------------------

PCM = codec("audio/pcm")
"""Format of the audio here: PCM16 at 24 kHz, whatever the session's formats; the track encodes it again."""


@dataclass
class _Reply:
    """A response that is played, or waits for its turn."""

    last_item: str
    waiting: deque[tuple[str, memoryview]] = field(default_factory=deque)
    """Its sound: item and PCM."""
    played: dict[str, int] = field(default_factory=dict)
    """Bytes of each of its items that were played."""
    started: bool = False
    ended: bool = False
    """Whether no more sound will come."""


class Playout:
    """The output audio buffer of a call: responses are played one after the other, in real time.

    >>> playout = Playout()
    >>> [event.type for event in playout.push("resp_1", "item_1", bytes(1200))]
    ['output_audio_buffer.started']
    >>> playout.end("resp_1")
    >>> sound, emitted = playout.pull(960)
    >>> len(sound), emitted
    (960, [])
    >>> playout.pull(960)[1], [event.type for event in playout.pull(960)[1]]
    ([], ['output_audio_buffer.stopped'])
    """

    def __init__(self) -> None:
        self._replies: dict[str, _Reply] = {}
        self.last_response_id = ""
        """The response that was played last, "" before the first."""

    def push(self, response_id: str, item_id: str, pcm: bytes) -> list[events.Event]:
        """Take more audio of a response; return ``started`` where it begins to play: never after `response.done`."""
        reply = self._replies.setdefault(response_id, _Reply(item_id))
        reply.waiting.append((item_id, memoryview(pcm)))
        reply.last_item = item_id
        reply.played.setdefault(item_id, 0)
        return self._start(response_id) if next(iter(self._replies)) == response_id else []

    def _start(self, response_id: str) -> list[events.Event]:
        reply = self._replies[response_id]
        if reply.started or not reply.waiting:
            return []
        reply.started, self.last_response_id = True, response_id
        return [events.OutputAudioBufferStarted(response_id=response_id)]

    def end(self, response_id: str) -> None:
        """Mark a response as complete: no more audio of it follows."""
        if response_id in self._replies:
            self._replies[response_id].ended = True

    def pull(self, n_bytes: int) -> tuple[bytes, list[events.Event]]:
        """Play on.

        Parameters
        ----------
        n_bytes : int
            How much sound the track needs now; even.

        Returns
        -------
        bytes
            PCM16 at 24 kHz, filled up with silence.
        list of Event
            `output_audio_buffer.started` and ``.stopped``, as they come.
        """
        sound, emitted = bytearray(), list[events.Event]()
        for response_id, reply in list(self._replies.items()):
            emitted += self._start(response_id)
            while reply.waiting and len(sound) < n_bytes:
                item_id, pcm = reply.waiting.popleft()
                taken, rest = pcm[: n_bytes - len(sound)], pcm[n_bytes - len(sound) :]
                sound += taken
                reply.played[item_id] += len(taken)
                if rest:
                    reply.waiting.appendleft((item_id, rest))
            if sound or not reply.ended:
                break  # it stops when this was played; the next one waits
            del self._replies[response_id]
            emitted.append(events.OutputAudioBufferStopped(response_id=response_id))
        return bytes(sound.ljust(n_bytes, b"\0")), emitted

    def clear(self) -> tuple[list[str], dict[str, int]]:
        """Drop what was not played. Return the responses and items that this cuts, items with the ms that were played.

        >>> playout = Playout()
        >>> _ = playout.push("resp_1", "item_1", bytes(1200))
        >>> _ = playout.pull(960)
        >>> playout.clear()
        (['resp_1'], {'item_1': 20})
        """
        replies = list(self._replies.values())
        cut, self._replies = list(self._replies), {}
        items = {
            item_id: reply.played[item_id] // PCM.bytes_per_ms
            for reply in replies
            for item_id in (*(item_id for item_id, _ in reply.waiting), reply.last_item)
        }
        return cut, items
