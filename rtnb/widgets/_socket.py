"""Pages of the channel, and the WebSocket that one may use: on loopback, with Origin and token checked.

A page proves itself twice. The handshake's Origin must be one that a page has just named by widget message; another
site that is open in the same browser cannot forge it. The first message must hold a token that only that page was
given, also by widget message. A token works once, for a short time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket as sockets
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from rtnb.errors import WidgetError
from rtnb.widgets._frames import MAX_FRAME_BYTES, unpack

SWITCH: Final = "RTNB_CHANNEL"
"""Environment variable: ``messages`` offers no socket, ``proxy`` no direct one; without it both are offered."""
_SWITCHES = ("direct", "proxy", "messages")

TOKEN_S: Final = 15.0
"""Lifetime of a token (chosen: a page makes two attempts of 5 s)."""

MESSAGE_BYTES: Final = 256 * 2**10
"""Size at which a widget message takes no further frame (chosen: 13 MB/s)."""

_FIRST_MESSAGE_S = 5.0  # time for a connection to show its token; chosen
_STRANGERS = 8  # most connections that have not shown a token yet; chosen
_REFUSED = 4401  # close code: no valid token

_logger = logging.getLogger("rtnb.widgets.channel")
_logger.addHandler(logging.NullHandler())  # a refused handshake is no text for a cell
_logger.propagate = False


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


class SocketServer:
    """Listener for the sockets of pages, while there are streams.

    Parameters
    ----------
    channel : Channel
        The channel that it belongs to.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._running: asyncio.Task[None] | None = None
        self._port = 0
        self._strangers = 0

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
            self._connected,
            sock=listener,
            process_request=self._process_request,
            max_size=MAX_FRAME_BYTES,
            compression=None,  # on loopback it only costs
            open_timeout=_FIRST_MESSAGE_S,
            ping_interval=5,
            ping_timeout=15,
            close_timeout=1,
            logger=_logger,
        ):
            await asyncio.get_running_loop().create_future()  # until cancelled

    def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Refuse a handshake from an unexpected origin."""
        expected = [[page.origin] for page in self._channel.pages.values() if page.token_until_s > time.monotonic()]
        if request.headers.get_all("Origin") not in expected:
            return socket.respond(HTTPStatus.FORBIDDEN, "wrong origin\n")
        if self._strangers >= _STRANGERS:
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many\n")
        return None

    async def _connected(self, socket: ServerConnection) -> None:
        self._strangers += 1
        try:
            async with asyncio.timeout(_FIRST_MESSAGE_S):
                page, via = self._admit(socket, await socket.recv())
        except (TimeoutError, ConnectionClosed, PermissionError):
            await socket.close(_REFUSED, "no valid token")
            return
        finally:
            self._strangers -= 1
        await self._carry(socket, page, via)

    def _admit(self, socket: ServerConnection, first: str | bytes) -> tuple[Page, str]:
        """Return the page whose token this is, and its way; the token is used up."""
        try:
            shown = json.loads(first)
            page: Page = self._channel.pages[shown["page"]]
            via, connection = shown["via"], (shown["connection"], socket.request and socket.request.headers["Origin"])
            matches = secrets.compare_digest(page.token.encode(), shown["token"].encode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PermissionError("no token") from error
        if not matches or page.token_until_s < time.monotonic():
            raise PermissionError("no valid token")
        page.token_until_s = 0.0
        if connection != (page.connection, page.origin) or via not in ("direct", "proxy"):
            raise PermissionError("no such connection")
        return page, via

    async def _carry(self, socket: ServerConnection, page: Page, via: str) -> None:
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
