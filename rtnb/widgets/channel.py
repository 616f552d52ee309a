"""Channel between the page and the background loop: one per kernel, shared by all widgets.

Widget messages need the kernel's main thread, which a computing cell blocks. A page therefore first tries a WebSocket
to the background loop: directly where kernel and browser share a machine, else through jupyter-server-proxy where that
is installed. Without either it uses widget messages. Everything then goes that one way until the connection ends. Set
RTNB_CHANNEL to ``messages`` to forbid sockets, or to ``proxy`` to forbid direct ones.

A page numbers its connections; a new connection replaces the last one, and both sides ignore messages of older ones.
A page proves itself twice in the handshake of a socket. The Origin must be the one that it named by widget message;
another site that is open in the same browser cannot forge it. The address must hold the token that only this page was
given, also by widget message. A token works once, for a short time.

The transport delivers the frames of a connection once and in order: a WebSocket does, and so do widget messages unless
the server drops some (it does above 1,000 a second). The kernel's widget messages are therefore numbered; after a gap
the page opens a new connection. They also say how many bytes came from the page, which refuses to send more while too
many are under way. A page that has connected joins its streams, and each stream's widget publishes a snapshot.

Messages of the channel itself (frames of stream ""):

- page → kernel: ``hello`` {origin, page_ms} (begins a connection, by widget message), ``join`` {names, all}, ``leave``
  {name}, ``clock`` {page_ms}, ``claim``, ``bye``;
- kernel → page: ``welcome`` {active, page_ms, kernel_ms, port, token, direct}, ``open`` {active} (first on a socket),
  ``active`` {active}, ``ping`` {active}, ``clock`` {page_ms, kernel_ms}, ``reply`` {…} […], ``rejoin`` {} (the queue
  was full).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import secrets
import socket as sockets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import anywidget
from IPython.display import display
from traitlets import Unicode
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from rtnb._loop import shared_loop
from rtnb.errors import RtnbError, WidgetError
from rtnb.widgets._base import Widget, format_error
from rtnb.widgets._frames import MAX_FRAME_BYTES, Frame, now_ms, pack, unpack

PING_S: Final = 2.0
"""Interval of the kernel's pings (chosen; a page without any for 7 s has no connection)."""

TICK_S: Final = 0.02
"""Shortest interval of widget messages: 50 a second, far below the 1,000 at which the server drops some."""

QUEUE_BYTES: Final = 32 * 2**20
"""Most bytes that wait for one page (chosen); beyond it they are dropped, and the page joins its streams again."""

SWITCH: Final = "RTNB_CHANNEL"
"""Environment variable: ``messages`` offers no socket, ``proxy`` no direct one; without it both are offered."""
_SWITCHES = ("direct", "proxy", "messages")

TOKEN_S: Final = 15.0
"""Lifetime of a token (chosen: a page makes two attempts of 5 s)."""

MESSAGE_BYTES: Final = 256 * 2**10
"""Size at which a widget message takes no further frame (chosen: 13 MB/s)."""

_SILENT_S: Final = 25.0  # a page on widget messages is gone when others are heard this much later; it speaks every 10 s
_GONE_S: Final = 120.0  # and in any case after this; chosen: a blocked kernel hears no page for long

_CLOSED: Final = {"error": "The widget was closed."}

_logger = logging.getLogger("rtnb.widgets.channel")
_logger.addHandler(logging.NullHandler())  # a refused handshake is no text for a cell
_logger.propagate = False


Answer = dict[str, Any] | tuple[dict[str, Any], Sequence[bytes]] | None
"""Header of a reply, alone or with its buffers."""
OnMessage = Callable[[str, dict[str, Any], list[bytes]], Answer | Awaitable[Answer]]
Send = Callable[[list[bytes]], Awaitable[None]]
Close = Callable[[], Awaitable[None]]


@dataclass(eq=False)
class Page:
    """Browser tab, or one reload of it."""

    id: str
    origin: str
    connection: int = 0
    """Number of its connection; 0 without one."""
    via: str = "messages"
    """``"direct"``, ``"proxy"`` or ``"messages"``."""
    heard_s: float = 0.0
    token: str = field(default="", repr=False)
    """Opens its socket, once and until `token_until_s`."""
    token_until_s: float = 0.0
    received_bytes: int = 0
    """Bytes received by widget messages of this connection."""
    sent_messages: int = 0
    """Number of its last widget message."""
    former: set[str] = field(default_factory=set)
    """Streams that it showed before its connection ended."""
    queue: deque[bytes] = field(default_factory=deque, repr=False)
    queued_bytes: int = 0
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.Task[None] | None = None
    """Sends its queue; each transport of each connection has one."""

    def take(self) -> list[bytes]:
        """Take the oldest frames from the queue, enough for one widget message."""
        frames: list[bytes] = []
        n_bytes = 0
        while self.queue and n_bytes < MESSAGE_BYTES:
            frames.append(self.queue.popleft())
            n_bytes += len(frames[-1])
        self.queued_bytes -= n_bytes
        if not self.queue:
            self.filled.clear()
        return frames


def read_switch() -> str:
    """Return the connection that the user allows; a misspelt one is a `WidgetError`."""
    switch = os.environ.get(SWITCH) or "direct"
    if switch not in _SWITCHES:
        error = WidgetError(f"the environment variable {SWITCH} is {switch!r}; allowed: {', '.join(_SWITCHES)}")
        raise error.with_hint("Correct it, or delete it: direct is the default. Then run the cell again.")
    return switch


class Stream:
    """Part of the channel that belongs to one widget; made by `Channel.open_stream`."""

    def __init__(self, name: str, on_message: OnMessage, channel: Channel) -> None:
        self.name = name
        self.on_message = on_message
        self.joined: dict[str, Page] = {}
        """Pages that show the widget, by id; the newest last."""
        self.on_page: Callable[[str, str], object] = lambda page_id, change: None
        """Called with the page's id and ``"joined"`` or ``"left"``, on the background loop.

        A page joins when a view appears and after each reconnection: publish the widget's state to it then. A page with
        two views joins twice.
        """
        self._channel = channel

    def publish(
        self, kind: str, header: dict[str, Any], buffers: Sequence[bytes] = (), *, to: str | None = None
    ) -> None:
        """Send one message to the pages that show the widget; from any thread, returns at once.

        Nothing is kept for later pages.

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
            shared_loop().call_if_running(self._send, pack(self.name, kind, header, buffers), to)

    def _send(self, frame: bytes, to: str | None) -> None:
        for page in list(self.joined.values()):
            if to in (None, page.id):
                self._channel.queue(page, frame)

    def close(self) -> None:
        """Close the stream; with the last one the channel's socket closes. Closing twice is allowed."""
        self._channel.streams.pop(self.name, None)
        shared_loop().call_if_running(self._channel.remove, self)


class SocketServer:
    """Listener for the sockets of pages, while there are streams.

    Parameters
    ----------
    channel : Channel
        The channel that it belongs to.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._running: asyncio.Task[None] | None = None
        self._port = 0

    def offer(self, page: Page) -> dict[str, Any]:
        """Return port and token for one page; nothing where the user or the page's origin does not allow a socket."""
        switch = read_switch()
        if switch == "messages" or not page.origin.startswith(("http://", "https://")):
            return {}
        try:
            port = self._listen()
        except OSError as error:  # this machine has no loopback: widget messages remain
            _logger.warning("no socket: %s", error)
            return {}
        page.token, page.token_until_s = secrets.token_urlsafe(32), time.monotonic() + TOKEN_S
        return {"port": port, "token": page.token, "direct": switch != "proxy"}

    def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._running is not None:
            self._running.cancel()
        self._running = None

    def _listen(self) -> int:
        """Return the port; the first call starts to listen."""
        loop = asyncio.get_running_loop()
        if self._running is None or self._running.get_loop() is not loop:
            listener = sockets.create_server(("127.0.0.1", 0))
            self._port = listener.getsockname()[1]
            self._running = loop.create_task(self._serve(listener))

            def close(_: object) -> None:
                if listener.fileno() != -1:  # the task was cancelled before `serve` was done
                    loop.remove_reader(listener)
                    listener.close()

            self._running.add_done_callback(close)
        return self._port

    async def _serve(self, listener: sockets.socket) -> None:
        async with serve(
            self._carry,
            sock=listener,
            process_request=self._process_request,
            max_size=MAX_FRAME_BYTES,
            compression=None,  # on loopback it only costs
            ping_interval=5,
            ping_timeout=15,
            close_timeout=1,
            logger=_logger,
        ):
            await asyncio.get_running_loop().create_future()  # until cancelled

    def _page_of(self, request: Any) -> tuple[Page | None, str]:
        """Return the page whose token stands in the address of a handshake, and its way; None without one."""
        shown = dict(parse_qsl(urlsplit(request.path).query))
        page = self._channel.pages.get(shown.get("page", ""))
        if page is not None:
            facts = shown.get("connection"), request.headers.get_all("Origin")
            same_token = secrets.compare_digest(page.token.encode(), shown.get("token", "").encode())
            page = page if same_token and facts == (str(page.connection), [page.origin]) else None
        return page, "proxy" if shown.get("via") == "proxy" else "direct"

    def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Refuse a handshake without a valid token, which is then used up."""
        page, _ = self._page_of(request)
        if page is None or page.token_until_s < time.monotonic():
            return socket.respond(HTTPStatus.FORBIDDEN, "no valid token\n")
        page.token_until_s = 0.0
        return None

    async def _carry(self, socket: ServerConnection) -> None:
        page, via = self._page_of(socket.request)
        if page is None:  # it has begun a newer connection meanwhile
            return

        async def send(frames: list[bytes]) -> None:
            with suppress(ConnectionClosed):  # the reader notices it, too
                for frame in frames:
                    await socket.send(frame)

        writer = self._channel.attach(page, via, send, socket.close)
        try:
            async for data in socket:
                if page.writer is writer:  # else a newer connection has replaced it
                    self._channel.receive(page, unpack(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _logger.warning("page %s: %s", page.id, error)
            await socket.close(1007, "not a frame of the channel")
        except ConnectionClosed:
            pass  # the page connects again, or is forgotten after a while
        finally:
            if page.writer is writer:
                tab_closed = socket.close_code in (1000, 1001)  # or it shows no widget
                (self._channel.drop if tab_closed else self._channel.disconnect)(page)
            await socket.close(1001)  # when the loop stops: the server forgets a connection whose handler was cancelled


class ChannelStatus(NamedTuple):
    """Status of the channel."""

    kind: str
    """Connection of the active page: ``"direct"``, ``"proxy"``, ``"messages"``; ``"none"`` without a page."""
    pages: int
    """Number of known pages."""


class Channel(Widget):
    """Channel of this kernel; displayed, it is a badge with its status. Use `shared_channel`.

    `open_stream`, `status` and `close` may be called on any thread; all else runs on the background loop.
    """

    _pinging: asyncio.Task[None] | None = None

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.pages: dict[str, Page] = {}
        self.active_page = ""
        """Id of the page that may use the microphone and the loudspeaker; empty without a page."""
        self.heard_s = 0.0
        """Time of the last widget message of any page (`time.monotonic`)."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.server = SocketServer(self)
        super().__init__()
        self.on_msg(_on_widget_message)

    def open_stream(self, name: str, on_message: OnMessage) -> Stream:
        """Open a stream.

        Parameters
        ----------
        name : str
            Its name, the same on the page; not in use.
        on_message : callable
            ``on_message(kind: str, header: dict, buffers: list[bytes])``, called on the background loop. Its result, or
            the result of its awaitable, is the reply to a request; an error becomes the request's error.

        Raises
        ------
        ValueError
            The name is empty or in use.
        WidgetError
            RTNB_CHANNEL is misspelt.
        """
        read_switch()
        if not name or name in self.streams:
            raise ValueError(f"stream name {name!r} is {'in use' if name else 'empty'}")
        stream = self.streams[name] = Stream(name, on_message, self)
        return stream

    @property
    def status(self) -> ChannelStatus:
        """Connection of the active page, and number of pages."""
        active = self.pages.get(self.active_page)
        return ChannelStatus(active.via if active else "none", len(self.pages))

    def close(self) -> None:
        """Close all streams, the socket and the widget."""
        for stream in list(self.streams.values()):
            stream.close()
        super().close()

    # --- from the page ------------------------------------------------------------------------------------------------

    def receive_message(self, page_id: str, connection: int, at: int, frames: Sequence[bytes]) -> None:
        """Take a widget message of a page; `at` is the number of bytes sent before it on this connection."""
        self.heard_s = time.monotonic()
        received = [unpack(data) for data in frames]
        page = self.pages.get(page_id)
        if [frame.kind for frame in received if not frame.stream] == ["hello"]:
            if self.streams and (page is None or page.connection < connection):
                page = self.connect(page_id, connection, str(received[0].header["origin"]))
                clocks = {"page_ms": received[0].header["page_ms"], "kernel_ms": now_ms()}
                self.post(page, "welcome", {**self.server.offer(page), **clocks, "active": self.active_page})
        elif page is None or (page.connection == connection and page.received_bytes != at):
            # The page was forgotten; or the kernel's subshells changed the order.
            if page is not None:
                self.disconnect(page)
            if self.streams:  # a message with a wrong number: the page opens a new connection
                self._send_frames(page_id, connection, [], number=0, received_bytes=0)
        elif page.connection == connection:
            page.received_bytes += sum(len(data) for data in frames)
            for frame in received:
                self.receive(page, frame)

    def receive(self, page: Page, frame: Frame) -> None:
        """Take one frame of a page."""
        page.heard_s = time.monotonic()
        kind, header = frame.kind, frame.header
        if frame.stream:
            self._deliver(page, frame)
        elif kind == "join":
            self._leave(page, page.former - set(header["all"]))  # after a reconnection, widgets no longer shown
            self._join(page, header["names"])
        elif kind == "leave":
            self._leave(page, [header["name"]])
        elif kind == "clock":
            self.post(page, "clock", {"page_ms": header["page_ms"], "kernel_ms": now_ms()})
        elif kind == "claim":
            self._elect(page.id)
            self._reply(page, frame, None)
        elif kind == "bye":
            self.drop(page)

    def _deliver(self, page: Page, frame: Frame) -> None:
        """Call the handler of a stream, and post its reply, at once or when it is there."""
        stream = self.streams.get(frame.stream)
        arguments = frame.kind, frame.header, frame.buffers
        answer = _call(frame.stream, frame.kind, stream.on_message, *arguments) if stream else _CLOSED
        if inspect.isawaitable(answer):
            self.start(self._await_reply(page, frame, answer))
        else:
            self._reply(page, frame, answer)

    async def _await_reply(self, page: Page, frame: Frame, answer: Awaitable[Answer]) -> None:
        try:
            self._reply(page, frame, await answer)
        except Exception as error:
            self._reply(page, frame, _report(frame.stream, frame.kind, error))

    def _reply(self, page: Page, frame: Frame, answer: Answer) -> None:
        if frame.request is not None:
            header, buffers = answer if isinstance(answer, tuple) else (answer or {}, ())
            self.post(page, "reply", header, buffers, r=frame.request)

    def _join(self, page: Page, names: Sequence[str]) -> None:
        page.former -= set(names)
        for stream in [self.streams[name] for name in names if name in self.streams]:
            stream.joined[page.id] = page
            _notify(stream, page, "joined")

    def _leave(self, page: Page, names: Iterable[str]) -> None:
        for stream in [self.streams[name] for name in names if name in self.streams]:
            if stream.joined.pop(page.id, None) or stream.name in page.former:
                page.former.discard(stream.name)
                _notify(stream, page, "left")

    def start(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `coro` in a task that is kept until it ends."""
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- to the page --------------------------------------------------------------------------------------------------

    def post(self, page: Page, kind: str, header: dict[str, Any], buffers: Sequence[bytes] = (), **more: Any) -> None:
        """Queue a message of the channel itself."""
        try:
            frame = pack("", kind, header, buffers, **more)
        except (TypeError, ValueError) as error:  # only a widget's reply can be too large
            frame = pack("", kind, {"error": str(error)}, **more)
        self.queue(page, frame)

    def queue(self, page: Page, frame: bytes) -> None:
        """Queue a frame; a page that reads too slowly loses its queue, and joins its streams again."""
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
            while await page.filled.wait():
                if frames := page.take():
                    await send(frames)
        finally:
            if close is not None:
                await close()

    async def _message(self, page: Page, frames: list[bytes]) -> None:
        page.sent_messages += 1
        counts = {"number": page.sent_messages, "received_bytes": page.received_bytes}
        self._send_frames(page.id, page.connection, frames, **counts)
        await asyncio.sleep(TICK_S)

    def _send_frames(self, page_id: str, connection: int, frames: list[bytes], **counts: int) -> None:
        """Send a widget message, which all pages get."""
        self.send({"rtnb": "frames", "page": page_id, "connection": connection, **counts}, buffers=frames)

    # --- connections --------------------------------------------------------------------------------------------------

    def connect(self, page_id: str, connection: int, origin: str) -> Page:
        """Begin a connection of a page, new or known, on widget messages."""
        if self._pinging is None or self._pinging.done():  # the first page, or the loop was stopped and started again
            self.pages.clear()
            for stream in self.streams.values():
                stream.joined.clear()
            self._pinging = self.start(self._ping())
        page = self.pages.setdefault(page_id, Page(page_id, origin))
        self.disconnect(page)
        page.connection, page.heard_s = connection, time.monotonic()
        page.received_bytes = page.sent_messages = 0
        page.writer = self.start(self._write(page, partial(self._message, page), None))
        self._elect(self.active_page)
        return page

    def attach(self, page: Page, via: str, send: Send, close: Close) -> asyncio.Task[None]:
        """Continue a connection over a socket; return its writer, which calls ``close()`` when it ends."""
        if page.writer is not None:
            page.writer.cancel()
        page.via, page.writer = via, self.start(self._write(page, send, close))
        self.post(page, "open", {"active": self.active_page})
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
        self._elect(self.active_page)

    def remove(self, stream: Stream) -> None:
        """Part a closed stream from its pages; after the last one all connections end."""
        stream.joined.clear()
        if self.streams or self._pinging is None:
            return
        for page in list(self.pages.values()):
            self.drop(page)
        self._pinging.cancel()
        self._pinging = None
        self.server.stop()

    def _elect(self, wanted: str) -> None:
        """Make `wanted` the active page; if it is gone, the newest page."""
        chosen = wanted if wanted in self.pages else next(reversed(self.pages), "")
        if chosen != self.active_page:
            self.active_page = chosen
            for page in self.pages.values():
                self.post(page, "active", {"active": chosen})

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_S)
            for page in list(self.pages.values()):
                silent = page.via == "messages" and self.heard_s - page.heard_s > _SILENT_S
                if silent or time.monotonic() - page.heard_s > _GONE_S:
                    self.drop(page)
                else:
                    self.post(page, "ping", {"active": self.active_page})


def _on_widget_message(channel: Channel, content: Any, buffers: list[Any]) -> None:
    """Hand a page's message over to the background loop; the kernel may call this on any thread."""
    if isinstance(content, dict) and content.get("rtnb") == "frames" and buffers:
        page_id, connection, at = str(content["page"]), int(content["connection"]), int(content["at"])
        frames = [bytes(buffer) for buffer in buffers]
        shared_loop().call_soon(channel.receive_message, page_id, connection, at, frames)


def _notify(stream: Stream, page: Page, change: str) -> None:
    _call(stream.name, change, stream.on_page, page.id, change)


def _call(name: str, what: str, handler: Callable[..., Any], *arguments: Any) -> Any:
    """Call a handler of a widget, whose mistake must not stop the others; return its result or its error."""
    try:
        return handler(*arguments)
    except Exception as error:
        return _report(name, what, error)


def _report(name: str, what: str, error: Exception) -> dict[str, Any]:
    """Report a failed handler, and return the error for the page: only our own messages are free of secrets."""
    message = f"the handler of stream {name!r} failed on {what!r}"
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
    return {"error": format_error(error) if isinstance(error, RtnbError) else type(error).__name__}


_channel: Channel | None = None


def shared_channel() -> Channel:
    """Return the channel of this kernel; a new one where it was closed."""
    global _channel
    if _channel is None or _channel.comm is None:
        _channel = Channel()
    return _channel


class StreamWidget(Widget):
    """Widget with a stream; on the page, ``host.getWidget(model.get("channel"))`` gives the channel's exports.

    Call `open_stream` once, in the constructor.
    """

    _css: Any = ""  # the channel brings the shared style; saved notebooks hold it once

    channel = anywidget.WidgetTrait().tag(sync=True)
    """The channel. (Not `widget_serialization`: anywidget's `getWidget` reads only its own kind of reference.)"""
    stream_name = Unicode().tag(sync=True)
    """Name of its stream."""
    _stream: Stream
    _displayed = False

    def open_stream(self, on_message: OnMessage) -> Stream:
        """Open the stream of this widget on the shared channel; `close` closes it."""
        channel = shared_channel()
        self._stream = channel.open_stream(f"{type(self).__name__}-{secrets.token_hex(4)}", on_message)
        self.channel, self.stream_name = channel, self._stream.name
        return self._stream

    @property
    def _opened(self) -> bool:
        """True once the constructor has opened the stream."""
        return "_stream" in self.__dict__

    def be_shown(self) -> None:
        """Display it in the running cell, unless it is or was displayed: a page may still be about to show it."""
        if not (self._displayed or self._stream.joined):
            display(self)  # type: ignore[no-untyped-call]

    def _repr_mimebundle_(self, **options: Any) -> Any:
        self._displayed = True
        return super()._repr_mimebundle_(**options)

    def close(self) -> None:
        """Close the stream and the widget; closing twice is allowed."""
        if self._opened:
            self._stream.close()
        super().close()
