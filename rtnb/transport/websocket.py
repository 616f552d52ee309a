"""`Transport` over a WebSocket, on the `websockets` library; loaded when the first one is opened."""

from __future__ import annotations

import logging
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

import websockets.exceptions as ws_errors
from websockets.asyncio.client import ClientConnection, connect

from rtnb.errors import LocalProtocolError, RemoteProtocolError, RtnbError
from rtnb.redaction import redact
from rtnb.transport import explain
from rtnb.transport.base import TargetFacts
from rtnb.transport.credentials import Headers, caused_by, remember_headers
from rtnb.transport.endpoint import is_loopback

MAX_MESSAGE_BYTES = 64 * 2**20
"""Largest accepted message. `conversation.item.retrieved` carries the whole audio of an item: 64 MiB of base64 is about
16 minutes of 24 kHz PCM16. The library's own 1 MiB kills sessions; no limit would let a wrong server fill the memory
(chosen; reference clients use 8 MiB or none)."""

OPEN_TIMEOUT_S = 60.0
"""Limit for the whole opening; `timeout_s` of `rtnb.connect`, 15 s by default, usually ends it before (chosen)."""

PING_TIMEOUT_S = 120.0
"""Longest wait for a pong. Long, because a cell that computes blocks the kernel's event loop and must not end the
session (chosen; the library's default is 20 s)."""


_log = logging.getLogger("rtnb.transport.websocket")


def _redacted(record: logging.LogRecord) -> bool:
    """Mask the keys in a record of the library, which writes handshake headers and frames at DEBUG."""
    record.msg, record.args = redact(record.getMessage()), None
    return True


_log.addFilter(_redacted)


class _Refused(Exception):
    """Handshake answered with another status than 101.

    The library follows redirects, and to another host it removes only some headers (`api-key` stays). It follows
    only what it recognises as its own exception, so it gets this one instead.
    """


class _Connection(ClientConnection):
    """Connection that does not follow redirects."""

    async def handshake(self, *arguments: Any, **keywords: Any) -> None:
        try:
            await super().handshake(*arguments, **keywords)
        except ws_errors.InvalidStatus as error:
            raise _Refused(error.response) from None


class WebSocketTransport:
    """Open WebSocket, made by `open_websocket`; `facts` describe the target."""

    def __init__(self, connection: ClientConnection, *, facts: TargetFacts) -> None:
        self._connection = connection
        self.facts = facts

    async def send(self, text: str) -> None:
        """Send one text; waits while the network is slower. Raises `ConnectionClosed`."""
        try:
            await self._connection.send(text)
            return
        except ws_errors.ConnectionClosed as error:
            failure = self._failure(error)
        raise failure

    async def receive(self) -> str:
        """Wait for the next text; cancelling loses nothing.

        Raises
        ------
        ConnectionClosed
            The connection ended; ``.code`` and ``.reason`` name the cause.
        RemoteProtocolError
            A binary message arrived; the connection goes on.
        LocalProtocolError
            Another task is receiving already.
        """
        failure: RtnbError
        try:
            message = await self._connection.recv()
            if isinstance(message, str):
                return message
            failure = RemoteProtocolError(f"the service sent {len(message)} bytes; the protocol is JSON text only")
        except (ws_errors.ConnectionClosed, ws_errors.ConcurrencyError) as error:
            failure = self._failure(error)
        raise failure

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        """Send a close frame and wait for the answer, 5 s at most; closing twice is fine."""
        # A close frame holds 123 bytes of text (RFC 6455, 5.5).
        await self._connection.close(code, reason.encode()[:123].decode("utf-8", "ignore"))

    def _failure(self, error: ws_errors.ConnectionClosed | ws_errors.ConcurrencyError) -> RtnbError:
        if isinstance(error, ws_errors.ConcurrencyError):
            return LocalProtocolError("another task is receiving already; let one task receive for all")
        close = error.rcvd or error.sent
        code = error.rcvd.code if error.rcvd else 1006
        if error.rcvd is None and error.sent is not None and error.sent.code in (1002, 1007, 1009):
            code = error.sent.code  # this side ended it, because of a message of the peer
        return caused_by(explain.closed(code, close.reason if close else "", facts=self.facts), error)

    def __repr__(self) -> str:
        return f"WebSocketTransport({self.facts.url!r}, {self._connection.state.name})"


async def open_websocket(
    url: str, *, headers: Headers | None = None, ssl: SSLContext | None = None, facts: TargetFacts | None = None
) -> WebSocketTransport:
    """Open a WebSocket, or explain why not.

    Redirects are not followed: they would carry the key elsewhere. Proxies come from the environment
    (``HTTPS_PROXY``, ``NO_PROXY`` …), but this machine itself is never reached through one.

    Parameters
    ----------
    url : str
        ``ws://`` or ``wss://``.
    headers : Headers, optional
        Headers of the handshake, e.g. from a `Credential`; secret values are kept out of logs and errors.
    ssl : ssl.SSLContext, optional
        Trusted certificates for ``wss://``; None uses the system's.
    facts : TargetFacts, optional
        Facts about the target, for the explanation of failures.

    Returns
    -------
    WebSocketTransport

    Raises
    ------
    ConnectError
        DNS, TLS, refused, timeout, an HTTP status other than 101; `AuthenticationError` for 401 and 403.
    RateLimited
        HTTP 429.
    """
    remember_headers(headers or {})
    facts = facts or TargetFacts(url=redact(url))
    parts = urlsplit(url)
    try:
        connection = await connect(
            url,
            additional_headers=headers,
            compression=None,  # base64 audio hardly shrinks; the reference client does without, too
            user_agent_header="rtnb",
            open_timeout=OPEN_TIMEOUT_S,
            ping_timeout=PING_TIMEOUT_S,
            close_timeout=5,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=256,  # a burst of deltas must not delay the answers to pings (chosen)
            logger=_log,
            create_connection=_Connection,
            proxy=None if is_loopback(parts.hostname or "") else True,
            ssl=(ssl or True) if parts.scheme == "wss" else None,
        )
        return WebSocketTransport(connection, facts=facts)
    except _Refused as error:
        answer = error.args[0]
        # Some fields may come twice; the first is as good as any for a hint.
        fields = dict(reversed(list(answer.headers.raw_items())))
        failure = explain.http_failure(answer.status_code, headers=fields, body=answer.body or b"", facts=facts)
        del answer, fields  # they hold the service's text
    except (OSError, EOFError, ImportError, ws_errors.WebSocketException) as error:
        # ImportError: a SOCKS proxy needs another package
        failure = caused_by(explain.connect_failure(error, facts=facts, timeout_s=OPEN_TIMEOUT_S), error)
    raise failure
