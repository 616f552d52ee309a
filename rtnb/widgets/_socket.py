"""WebSocket that a page may use instead of widget messages: on loopback, with Origin and token checked.

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
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from rtnb.errors import WidgetError
from rtnb.widgets._frames import MAX_FRAME_BYTES, unpack
from rtnb.widgets._pages import Page, Pages

SWITCH: Final = "RTNB_CHANNEL"
"""Environment variable: ``messages`` offers no socket, ``proxy`` no direct one."""

TOKEN_S: Final = 15.0
"""Lifetime of a token (chosen: a page makes two attempts of 5 s)."""

INVITATION_S: Final = 600.0
"""Lifetime of an invitation (chosen: a person has to find and click a link)."""

_INVITED: Final = "/page/"
_PAGE_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; connect-src ws://{host}; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_FIRST_MESSAGE_S = 5.0  # time for a connection to show its token; chosen
_STRANGERS = 8  # most connections that have not shown a token yet; chosen
_REFUSED = 4401  # close code: no valid token

_logger = logging.getLogger("rtnb.widgets.channel")
_logger.addHandler(logging.NullHandler())  # a refused handshake is no text for a cell
_logger.propagate = False

WritePage = Callable[[str, str, int], str]
"""``write(page_id, token, port)`` returns the HTML of a page."""


class SocketServer:
    """Listener for the sockets of pages, while there are streams."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._invitations: dict[str, tuple[WritePage, float]] = {}
        self._running: asyncio.Task[None] | None = None
        self._port = 0
        self._strangers = 0
        pages.offer = self.offer
        pages.on_stop = self.stop

    def offer(self, page: Page) -> dict[str, Any]:
        """Return port and token for one page; nothing where the user or the page's origin does not allow a socket."""
        switch = os.environ.get(SWITCH, "")
        if switch == "messages" or not page.origin.startswith(("http://", "https://")):
            return {}
        try:
            port = self._listen()
        except OSError as error:  # this machine has no loopback: widget messages remain
            _logger.warning("no socket: %s", error)
            return {}
        return {"port": port, "token": _new_token(page), "direct": switch != "proxy"}

    def invite(self, write: WritePage) -> str:
        """Return the address of a page of our own on this machine's loopback, which opens once.

        Raises
        ------
        WidgetError
            `SWITCH` forbids it, or this machine has no loopback.
        """
        if switch := os.environ.get(SWITCH, ""):
            error = WidgetError(f"{SWITCH}={switch} forbids the socket that a page outside of the notebook needs.")
            raise error.with_hint(f"Restart the kernel without {SWITCH}.")
        try:
            port, key = self._listen(), secrets.token_urlsafe(32)
        except OSError as error:
            raise WidgetError(f"Cannot listen on this machine's loopback: {error}") from error
        self._invitations = {k: v for k, v in self._invitations.items() if v[1] > time.monotonic()}
        self._invitations[key] = (write, time.monotonic() + INVITATION_S)
        return f"http://127.0.0.1:{port}{_INVITED}{key}"

    def stop(self) -> None:
        """Close all connections and stop listening."""
        self._invitations.clear()
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
        """Refuse a handshake from an unexpected origin; show an invited page."""
        if request.path.startswith(_INVITED):
            return self._show(socket, request)
        expected = [[page.origin] for page in self._pages.pages.values() if page.token_until_s > time.monotonic()]
        if request.headers.get_all("Origin") not in expected:
            return socket.respond(HTTPStatus.FORBIDDEN, "wrong origin\n")
        if self._strangers >= _STRANGERS:
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many\n")
        return None

    def _show(self, socket: ServerConnection, request: Request) -> Response:
        """Return the page of an invitation, which then is used up; the page gets its own token."""
        port = socket.local_address[1]
        host = f"127.0.0.1:{port}"  # with any other name in its address it would be another site's (DNS rebinding)
        write, until_s = self._invitations.pop(request.path.removeprefix(_INVITED), (None, 0.0))
        if request.headers.get("Host") != host or write is None or until_s < time.monotonic():
            text = "This link works once. Return to the notebook for a new one.\n"
            return socket.respond(HTTPStatus.GONE, text)
        page = self._pages.connect(secrets.token_hex(8), 1, f"http://{host}")
        response = socket.respond(HTTPStatus.OK, write(page.id, _new_token(page), port))
        del response.headers["Content-Type"]
        response.headers.update(_PAGE_HEADERS | {"Content-Security-Policy": _PAGE_POLICY.format(host=host)})
        return response

    async def _connected(self, socket: ServerConnection) -> None:
        self._strangers += 1
        try:
            async with asyncio.timeout(_FIRST_MESSAGE_S):
                first = await socket.recv()
            page, via = self._admit(socket, first)
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
            page, token, connection, via = (shown[name] for name in ("page", "token", "connection", "via"))
            page = self._pages.pages[page]
            matches = secrets.compare_digest(page.token.encode(), token.encode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PermissionError("no token") from error
        origin = socket.request.headers.get("Origin") if socket.request else None
        if not matches or page.token_until_s < time.monotonic():
            raise PermissionError("no valid token")
        page.token_until_s = 0.0
        if (page.origin, page.connection) != (origin, connection) or via not in ("direct", "proxy"):
            raise PermissionError("no such connection")
        return page, via

    async def _carry(self, socket: ServerConnection, page: Page, via: str) -> None:
        async def send(frames: list[bytes]) -> None:
            with suppress(ConnectionClosed):  # the reader notices it, too
                for frame in frames:
                    await socket.send(frame)

        writer = self._pages.attach(page, via, send, socket.close)
        try:
            async for data in socket:
                if page.writer is writer:  # else a newer connection has replaced it
                    self._pages.receive(page, unpack(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _logger.warning("page %s: %s", page.id, error)
            await socket.close(1007, "not a frame of the channel")
        except ConnectionClosed:
            pass  # the page connects again, or is forgotten after a while
        finally:
            if page.writer is writer:
                tab_closed = socket.close_code in (1000, 1001)  # or it shows no widget
                (self._pages.drop if tab_closed else self._pages.disconnect)(page)
            await socket.close(1001)  # when the loop stops: the server forgets a connection whose handler was cancelled


def _new_token(page: Page) -> str:
    """Return a new token for a page; an older one is worthless."""
    page.token, page.token_until_s = secrets.token_urlsafe(32), time.monotonic() + TOKEN_S
    return page.token
