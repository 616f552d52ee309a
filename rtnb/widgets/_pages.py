"""Pages connected to this kernel: connections, streams, and the queue of each page.

Everything here runs on the background loop and knows neither widgets nor sockets. A page numbers its connections; a new
connection replaces the last one, and both sides ignore messages of older ones. The transport delivers the frames of a
connection once and in order: a WebSocket does, and so do widget messages unless the server drops some (it does above
1,000 a second). The kernel's widget messages are therefore numbered; after a gap the page opens a new connection. They
also say how many bytes came from the page, which refuses to send more while too many are under way. A page that has
connected joins its streams, and the listeners of each stream publish a snapshot.

Messages of the channel itself (frames of stream ""):

- page → kernel: ``hello`` {origin, page_ms} (begins a connection, by widget message), ``join`` {names, all}, ``leave``
  {name}, ``clock`` {page_ms}, ``claim``, ``bye``;
- kernel → page: ``welcome`` {active, page_ms, kernel_ms, port, token, direct}, ``open`` {active} (first on a socket),
  ``active`` {active}, ``ping`` {active}, ``clock`` {page_ms, kernel_ms}, ``reply`` {…}, ``rejoin`` {} (the queue was
  full).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final

from rtnb._loop import shared_loop
from rtnb.errors import RtnbError
from rtnb.widgets._base import format_error
from rtnb.widgets._frames import Frame, now_ms, pack, unpack

PING_S: Final = 2.0
"""Interval of the kernel's pings (chosen; a page without any for 7 s has no connection)."""

TICK_S: Final = 0.02
"""Shortest interval of widget messages: 50 a second, far below the 1,000 at which the server drops some."""

MESSAGE_BYTES: Final = 256 * 2**10
"""Size at which a widget message takes no further frame (chosen: 13 MB/s)."""

QUEUE_BYTES: Final = 32 * 2**20
"""Most bytes that wait for one page (chosen); beyond it they are dropped, and the page joins its streams again."""

_SILENT_S: Final = 25.0  # a page on widget messages is gone when others are heard this much later; it speaks every 10 s
_GONE_S: Final = 120.0  # and in any case after this; chosen: a blocked kernel hears no page for long
_BATCH: Final = 1000
_BATCH_BYTES: Final = 2**20

_CLOSED: Final = {"error": "The widget was closed."}

Answer = dict[str, Any] | None
OnMessage = Callable[[str, dict[str, Any], list[bytes]], Answer | Awaitable[Answer]]
OnPage = Callable[[str, str], object]
Send = Callable[[list[bytes]], Awaitable[None]]
Close = Callable[[], Awaitable[None]]


class Page:
    """Browser tab, or one reload of it."""

    def __init__(self, id: str, origin: str) -> None:
        self.id = id
        self.origin = origin
        self.connection = 0
        """Number of its connection; 0 without one."""
        self.via = "messages"
        """``"direct"``, ``"proxy"`` or ``"messages"``."""
        self.heard_s = 0.0
        self.token = ""
        """Opens its socket, once and until `token_until_s`."""
        self.token_until_s = 0.0
        self.received_bytes = 0
        """Bytes received by widget messages of this connection."""
        self.sent_messages = 0
        """Number of its last widget message."""
        self.former: set[str] = set()
        """Streams that it showed before its connection ended."""
        self.queue: deque[bytes] = deque()
        self.queued_bytes = 0
        self.filled = asyncio.Event()
        self.writer: asyncio.Task[None] | None = None
        """Sends its queue; each transport of each connection has one."""

    def take(self) -> list[bytes]:
        """Take the oldest frames from the queue, enough for one widget message."""
        frames: list[bytes] = []
        n_bytes = 0
        while self.queue and n_bytes < MESSAGE_BYTES:
            frames.append(self.queue.popleft())
            n_bytes += len(frames[-1])
        self.queued_bytes -= n_bytes
        return frames


class Stream:
    """Part of the channel that belongs to one widget; made by `Channel.open_stream`."""

    def __init__(self, name: str, on_message: OnMessage, pages: Pages) -> None:
        self.name = name
        self.on_message = on_message
        self.joined: dict[str, Page] = {}
        """Pages that show the widget, by id; the newest last."""
        self.listeners: list[OnPage] = []
        self._pages = pages

    @property
    def pages(self) -> int:
        """Number of pages that show the widget."""
        return len(self.joined)

    def on_page(self, callback: OnPage) -> None:
        """Call ``callback(page_id, "joined" | "left")`` on the background loop.

        A page joins when a view appears and after each reconnection: publish the widget's state to it then. A page with
        two views joins twice.
        """
        self.listeners.append(callback)

    def publish(
        self, kind: str, header: dict[str, Any], buffers: Sequence[bytes] = (), *, to: str | None = None
    ) -> None:
        """Send one message to the pages that show the widget; from any thread, returns at once.

        Nothing is kept for later pages. For many small messages use `publish_batch`.

        Parameters
        ----------
        kind, header, buffers
            Arguments of the page's ``onMessage(kind, header, buffers)``. The header is JSON.
        to : str, optional
            Id of the only page to send it to.

        Raises
        ------
        TypeError, ValueError
            The header is not JSON, or the message is larger than 8 MiB.
        """
        if self.joined:
            shared_loop().call_soon(self._pages.send, self, pack(self.name, kind, header, buffers), to)

    def publish_batch(
        self, kind: str, messages: Sequence[tuple[dict[str, Any], Sequence[bytes]]], *, to: str | None = None
    ) -> None:
        """Send many messages of one kind in as few frames as possible; the page gets them one by one."""
        start = n_bytes = 0
        for stop, (_, own) in enumerate(messages if self.joined else (), start=1):
            n_bytes += sum(len(buffer) for buffer in own)
            if stop - start >= _BATCH or n_bytes >= _BATCH_BYTES or stop == len(messages):
                batch = messages[start:stop]
                buffers = [buffer for _, own in batch for buffer in own]
                frame = pack(
                    self.name, kind, [header for header, _ in batch], buffers, m=[len(own) for _, own in batch]
                )
                shared_loop().call_soon(self._pages.send, self, frame, to)
                start, n_bytes = stop, 0

    def close(self) -> None:
        """Close the stream; with the last one the channel's socket closes. Closing twice is allowed."""
        self._pages.remove(self)

    def __repr__(self) -> str:
        return f"Stream({self.name!r}, pages={self.pages})"


class Pages:
    """All pages of one kernel; every method but `remove` runs on the background loop.

    Parameters
    ----------
    send_message : callable
        ``send_message(content, frames)`` sends a widget message to all pages.
    """

    def __init__(self, send_message: Callable[[dict[str, Any], list[bytes]], object]) -> None:
        self.streams: dict[str, Stream] = {}
        self.pages: dict[str, Page] = {}
        self.active = ""
        """Id of the page that may use the microphone and the loudspeaker."""
        self.last_message_s = 0.0
        """When the last widget message came (`time.monotonic`)."""
        self.offer: Callable[[Page], dict[str, Any]] = lambda page: {}
        """Returns the socket that a page may try: port and token."""
        self.on_stop: Callable[[], object] = lambda: None
        """Called when the last stream was closed."""
        self._send_message = send_message
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pinging: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- from the page ------------------------------------------------------------------------------------------------

    def receive_message(self, page_id: str, connection: int, at: int, frames: Sequence[bytes]) -> None:
        """Take a widget message of a page; `at` is the number of bytes sent before it on this connection."""
        self.last_message_s = time.monotonic()
        received = [unpack(data) for data in frames]
        if [frame.kind for frame in received if not frame.stream] == ["hello"]:
            self._hello(page_id, connection, received[0].header)
            return
        page = self.pages.get(page_id)
        if page is not None and page.connection != connection:
            return
        if page is None or page.received_bytes != at:  # it was forgotten; or the kernel's subshells changed the order
            if page is not None:
                self.disconnect(page)
            if self.streams:  # a message with a wrong number: the page opens a new connection
                self._send_message({"page": page_id, "connection": connection, "number": 0}, [])
            return
        page.received_bytes += sum(len(data) for data in frames)
        for frame in received:
            self.receive(page, frame)

    def _hello(self, page_id: str, connection: int, header: dict[str, Any]) -> None:
        known = self.pages.get(page_id)
        if self.streams and (known is None or known.connection < connection):
            page = self.connect(page_id, connection, str(header["origin"]))
            clocks = {"page_ms": header["page_ms"], "kernel_ms": now_ms()}
            self.post(page, "welcome", {**self.offer(page), **clocks, "active": self.active})

    def connect(self, page_id: str, connection: int, origin: str) -> Page:
        """Begin a connection of a page, new or known, on widget messages."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the first page, or the loop was stopped and started again
            self._loop = loop
            self.pages.clear()
            for stream in self.streams.values():
                stream.joined.clear()
            self._pinging = loop.call_later(PING_S, self._ping)
        page = self.pages.setdefault(page_id, Page(page_id, origin))
        self.disconnect(page)
        page.connection, page.heard_s = connection, time.monotonic()
        page.received_bytes = page.sent_messages = 0
        page.writer = self.start(self._write(page, partial(self._message, page), None))
        self._elect(self.active)
        return page

    def receive(self, page: Page, frame: Frame) -> None:
        """Take one frame of a page."""
        page.heard_s = time.monotonic()
        kind, header = frame.kind, frame.header
        if frame.stream:
            self._deliver(page, frame)
        elif kind == "join":
            self._join(page, header["names"], set(header["all"]))
        elif kind == "leave":
            self._leave(page, [header["name"]])
        elif kind == "clock":
            self.post(page, "clock", {"page_ms": header["page_ms"], "kernel_ms": now_ms()})
        elif kind == "claim":
            self._elect(page.id)
        elif kind == "bye":
            self.drop(page)

    def _deliver(self, page: Page, frame: Frame) -> None:
        stream = self.streams.get(frame.stream)
        try:
            answer = stream.on_message(frame.kind, frame.header, frame.buffers) if stream else _CLOSED
        except Exception as error:
            answer = _report(frame.stream, frame.kind, error)
        if inspect.isawaitable(answer):
            self.start(self._reply(page, frame, answer))
        elif frame.request is not None:
            self.post(page, "reply", answer or {}, r=frame.request)

    async def _reply(self, page: Page, frame: Frame, answer: Awaitable[Answer]) -> None:
        try:
            reply = await answer or {}
        except Exception as error:
            reply = _report(frame.stream, frame.kind, error)
        if frame.request is not None:
            self.post(page, "reply", reply, r=frame.request)

    def _join(self, page: Page, names: Sequence[str], shown: set[str]) -> None:
        self._leave(page, page.former - shown)  # after a reconnection, widgets that are no longer shown
        page.former -= set(names)
        for stream in [self.streams[name] for name in names if name in self.streams]:
            stream.joined[page.id] = page
            self._notify(stream, page, "joined")

    def _leave(self, page: Page, names: Iterable[str]) -> None:
        for stream in [self.streams[name] for name in names if name in self.streams]:
            if stream.joined.pop(page.id, None) or stream.name in page.former:
                page.former.discard(stream.name)
                self._notify(stream, page, "left")

    def _notify(self, stream: Stream, page: Page, change: str) -> None:
        for listener in stream.listeners:
            try:
                listener(page.id, change)
            except Exception as error:
                _report(stream.name, change, error)

    def start(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `coro` in a task that is kept until it ends."""
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- to the page --------------------------------------------------------------------------------------------------

    def send(self, stream: Stream, frame: bytes, to: str | None) -> None:
        """Queue a frame of a stream for its pages, or for one of them."""
        for page in list(stream.joined.values()):
            if to is None or page.id == to:
                self._queue(page, frame)

    def post(self, page: Page, kind: str, header: dict[str, Any], **more: Any) -> None:
        """Queue a message of the channel itself."""
        try:
            frame = pack("", kind, header, **more)
        except (TypeError, ValueError) as error:  # only a widget's reply can be too large
            frame = pack("", kind, {"error": str(error)}, **more)
        self._queue(page, frame)

    def _queue(self, page: Page, frame: bytes) -> None:
        if not page.connection:
            return
        if page.queued_bytes + len(frame) > QUEUE_BYTES:
            self._part(page)
            frame = pack("", "rejoin", {})
        page.queue.append(frame)
        page.queued_bytes += len(frame)
        page.filled.set()

    async def _write(self, page: Page, send: Send, close: Close | None) -> None:
        """Send the queue of a page until cancelled; `send` waits for a slow page, and the queue fills meanwhile."""
        try:
            while True:
                while page.queue:
                    await send(page.take())
                page.filled.clear()
                await page.filled.wait()
        finally:
            if close is not None:
                await close()

    async def _message(self, page: Page, frames: list[bytes]) -> None:
        page.sent_messages += 1
        counts = {"number": page.sent_messages, "received_bytes": page.received_bytes}
        self._send_message({"page": page.id, "connection": page.connection, **counts}, frames)
        await asyncio.sleep(TICK_S)

    # --- connections --------------------------------------------------------------------------------------------------

    def attach(self, page: Page, via: str, send: Send, close: Close) -> asyncio.Task[None]:
        """Continue a connection over a socket; return its writer, which calls ``close()`` when it ends."""
        if page.writer is not None:
            page.writer.cancel()
        page.via, page.writer = via, self.start(self._write(page, send, close))
        self.post(page, "open", {"active": self.active})
        return page.writer

    def disconnect(self, page: Page) -> None:
        """End the connection of a page; its streams wait for the next one."""
        if page.writer is not None:
            page.writer.cancel()
        page.connection, page.via, page.writer = 0, "messages", None
        self._part(page)

    def _part(self, page: Page) -> None:
        """Drop the queue of a page and part it from its streams."""
        page.queue.clear()
        page.queued_bytes = 0
        page.former |= {stream.name for stream in self.streams.values() if stream.joined.pop(page.id, None)}

    def drop(self, page: Page) -> None:
        """Forget a page that is gone."""
        self.pages.pop(page.id, None)
        self.disconnect(page)
        self._leave(page, list(page.former))
        self._elect(self.active)

    def remove(self, stream: Stream) -> None:
        """Remove a stream, from any thread; removing it twice is allowed."""
        self.streams.pop(stream.name, None)
        if shared_loop().running:
            shared_loop().call_soon(self._removed, stream)

    def _removed(self, stream: Stream) -> None:
        stream.joined.clear()
        if self.streams or self._loop is None:
            return
        for page in list(self.pages.values()):
            self.drop(page)
        if self._pinging is not None:
            self._pinging.cancel()
        self._loop = self._pinging = None
        self.on_stop()

    def _elect(self, wanted: str) -> None:
        """Make `wanted` the active page; if it is gone, the newest page."""
        chosen = wanted if wanted in self.pages else next(reversed(self.pages), "")
        if chosen != self.active:
            self.active = chosen
            for page in self.pages.values():
                self.post(page, "active", {"active": chosen})

    def _ping(self) -> None:
        now_s = time.monotonic()
        for page in list(self.pages.values()):
            silent = page.via == "messages" and self.last_message_s - page.heard_s > _SILENT_S
            if silent or now_s - page.heard_s > _GONE_S:
                self.drop(page)
            else:
                self.post(page, "ping", {"active": self.active})
        self._pinging = asyncio.get_running_loop().call_later(PING_S, self._ping)


def _report(name: str, what: str, error: Exception) -> dict[str, Any]:
    """Report a failed handler, and return the error for the page: only our own messages are free of secrets."""
    message = f"the handler of stream {name!r} failed on {what!r}"
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
    return {"error": format_error(error) if isinstance(error, RtnbError) else type(error).__name__}
