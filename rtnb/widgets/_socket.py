"""The WebSocket a page may use instead of widget messages: on loopback, with Origin and token checked.

A page proves itself twice. The handshake's Origin must be one that a page has just told over the authenticated channel
(widget messages); another site open in the same browser cannot forge it. The first message must be a token that only
that page was given, the same way; it works once, for a short time.
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
from http import HTTPStatus
from typing import Any, NamedTuple

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from rtnb.widgets._frames import MAX_FRAME_BYTES, unpack
from rtnb.widgets._hub import Hub
from rtnb.widgets._stream import Page

SWITCH = "RTNB_CHANNEL"
"""Environment variable: ``messages`` offers no socket, ``proxy`` no direct one."""

TOKEN_S = 15.0
"""How long a token lives (chosen: a page needs it for two attempts of 3 s)."""

_INVITED = "/page/"
_PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; connect-src ws://{host}; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

_FIRST_WORD_S = 5.0  # how long a connection may take to show its token; chosen
_STRANGERS = 8  # connections that have not shown one yet; chosen
_REFUSED = 4401  # close code: no valid token

_logger = logging.getLogger("rtnb.widgets.line")
_logger.addHandler(logging.NullHandler())  # what a stranger does at the door is no text for a cell
_logger.propagate = False


INVITATION_S = 600.0
"""How long an invitation lives (chosen: a person has to find and click a link)."""


class Invitation(NamedTuple):
    """A page of our own, outside of the notebook, that somebody may open once."""

    write: Callable[[str, str, int], str]
    """``write(page_id, token, port)`` returns its HTML."""
    until_s: float


class _Ticket(NamedTuple):
    page_id: str
    origin: str
    until_s: float


class SocketServer:
    """Listens while a hub has channels; offers pages a port and a token."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._tickets: dict[str, _Ticket] = {}
        self._running: asyncio.Task[None] | None = None
        self._port: asyncio.Future[int] | None = None
        self._strangers = 0
        self._invitations: dict[str, Invitation] = {}
        hub.invite = self.invite
        hub.offer = self.offer
        hub.stopped = self.stop

    async def offer(self, page: Page) -> dict[str, Any]:
        """Port and token for one page; nothing where the user or the page's origin does not allow it."""
        switch = os.environ.get(SWITCH, "")
        if switch == "messages" or not page.origin.startswith(("http://", "https://")):
            return {}
        try:
            port = await self._listening()
        except OSError as error:  # no loopback here: widget messages stay
            _logger.warning("no socket: %s", error)
            return {}
        self._forget_tickets(page.id)
        token = secrets.token_urlsafe(32)
        self._tickets[token] = _Ticket(page.id, page.origin, time.monotonic() + TOKEN_S)
        return {"port": port, "token": token, "direct": switch != "proxy"}

    async def invite(self, write: Callable[[str, str, int], str]) -> str:
        """The address of a page on this machine's loopback that can be opened once; see `Invitation`."""
        port, key = await self._listening(), secrets.token_urlsafe(32)
        self._invitations[key] = Invitation(write, time.monotonic() + INVITATION_S)
        return f"http://127.0.0.1:{port}{_INVITED}{key}"

    def stop(self) -> None:
        """Close all connections and stop listening."""
        self._tickets.clear()
        self._invitations.clear()
        if self._running is not None:
            self._running.cancel()
        self._running = self._port = None

    async def _listening(self) -> int:
        """The port; starts to listen on first use."""
        loop = asyncio.get_running_loop()
        if self._port is None or self._port.get_loop() is not loop:
            self._port = loop.create_future()
            self._running = loop.create_task(self._run(self._port))
        return await asyncio.shield(self._port)

    async def _run(self, port: asyncio.Future[int]) -> None:
        loop = asyncio.get_running_loop()
        try:
            listener = sockets.create_server(("127.0.0.1", 0))
        except OSError as error:
            port.set_exception(error)
            self._port = None
            return
        try:
            async with serve(
                self._connected,
                sock=listener,
                process_request=self._at_the_door,
                max_size=MAX_FRAME_BYTES,
                compression=None,  # on loopback it only costs
                open_timeout=_FIRST_WORD_S,
                ping_interval=5,
                ping_timeout=15,
                close_timeout=1,
                logger=_logger,
            ):
                port.set_result(listener.getsockname()[1])
                await loop.create_future()  # until cancelled
        finally:
            if listener.fileno() != -1:  # cancelled while it was opened: nobody else closes it
                loop.remove_reader(listener)
                listener.close()

    def _at_the_door(self, socket: ServerConnection, request: Request) -> Response | None:
        """Refuse a handshake that comes from no page we expect; show an invited page."""
        if request.path.startswith(_INVITED):
            return self._show(socket, request)
        self._forget_tickets()
        origins = {ticket.origin for ticket in self._tickets.values()}
        if request.headers.get_all("Origin") not in [[origin] for origin in origins]:
            return socket.respond(HTTPStatus.FORBIDDEN, "wrong origin\n")
        if self._strangers >= _STRANGERS:
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many\n")
        return None

    def _show(self, socket: ServerConnection, request: Request) -> Response:
        """The page of an invitation; it is used up, and the page gets a ticket of its own."""
        port = socket.local_address[1]
        host = f"127.0.0.1:{port}"  # by any other name it would be another site's (DNS rebinding)
        invitation = self._invitations.pop(request.path.removeprefix(_INVITED), None)
        if request.headers.get("Host") != host or invitation is None or invitation.until_s < time.monotonic():
            return socket.respond(
                HTTPStatus.GONE, "This link works once. Go back to the notebook and take a new one.\n"
            )
        page = Page(secrets.token_hex(8), f"http://{host}")
        token = secrets.token_urlsafe(32)
        self._hub.pages[page.id] = page
        self._tickets[token] = _Ticket(page.id, page.origin, time.monotonic() + TOKEN_S)
        response = socket.respond(HTTPStatus.OK, invitation.write(page.id, token, port))
        del response.headers["Content-Type"]
        response.headers.update(_PAGE_HEADERS | {"Content-Security-Policy": _PAGE_POLICY.format(host=host)})
        return response

    def _forget_tickets(self, page_id: str = "") -> None:
        now = time.monotonic()
        self._tickets = {
            token: ticket
            for token, ticket in self._tickets.items()
            if ticket.until_s > now and ticket.page_id != page_id
        }

    async def _connected(self, socket: ServerConnection) -> None:
        self._strangers += 1
        try:
            async with asyncio.timeout(_FIRST_WORD_S):
                first = await socket.recv()
            page, word = self._admit(socket, first)
        except (TimeoutError, ConnectionClosed, PermissionError):
            await socket.close(_REFUSED, "no valid token")
            return
        finally:
            self._strangers -= 1
        await self._serve(socket, page, word)

    def _admit(self, socket: ServerConnection, first: str | bytes) -> tuple[Page, dict[str, Any]]:
        """The page that showed its token; the token is used up, right or wrong page."""
        try:
            word = json.loads(first)
            token, page_id = word["token"], word["page"]
            word = {"via": str(word["via"]), "channels": dict(word["channels"])}
            ticket = self._tickets.pop(token, None)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PermissionError("no token") from error
        origin = socket.request.headers.get("Origin") if socket.request else None
        if ticket is None or ticket.until_s < time.monotonic() or (ticket.page_id, ticket.origin) != (page_id, origin):
            raise PermissionError("no valid token")
        page = self._hub.pages.get(page_id)
        if page is None or word["via"] not in ("direct", "proxy"):
            raise PermissionError("no such page")
        return page, word

    async def _serve(self, socket: ServerConnection, page: Page, word: dict[str, Any]) -> None:
        def close() -> None:
            self._hub.start(socket.close())

        self._hub.attach(page, word["via"], close, word["channels"])
        writer = asyncio.create_task(self._write(socket, page))
        gone = False
        try:
            async for data in socket:
                if isinstance(data, str):
                    raise ValueError("text is no frame")
                self._hub.receive(page, unpack(data))
            gone = True  # closed with 1000 or 1001: the tab went, or shows nothing more
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _logger.warning("page %s: %s", page.id, error)
            await socket.close(1007, "no frame of the line")
        except ConnectionClosed:
            pass  # the page comes back, or is forgotten after a while
        finally:
            writer.cancel()
            if page.close_socket is close:
                self._hub.detach(page)
                if gone:
                    self._hub.drop(page)
            await socket.close(1001)  # when the loop stops: the server forgets a connection whose handler was cancelled

    async def _write(self, socket: ServerConnection, page: Page) -> None:
        """Send what is due; a slow page makes `send` wait, and the hub forgets the oldest meanwhile."""
        try:
            while True:
                page.wake.clear()
                while (frame := self._hub.next_frame(page)) is not None:
                    await socket.send(frame)
                await page.wake.wait()
        except ConnectionClosed:
            pass  # the reader sees it, too
