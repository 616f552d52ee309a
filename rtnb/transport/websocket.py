"""A `Transport` over a WebSocket, on the `websockets` library; loaded when the first one is opened."""

from __future__ import annotations

import logging
import ssl as ssl_module
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any
from urllib.parse import urlsplit

import websockets.exceptions as ws_errors
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from rtnb.errors import ConnectionClosed, LocalProtocolError, RemoteProtocolError
from rtnb.transport import explain
from rtnb.transport.base import TargetFacts
from rtnb.transport.credentials import redact, safe_cause, secrets_in
from rtnb.transport.endpoint import is_loopback

MAX_MESSAGE_BYTES = 64 * 2**20
"""Largest message we take. `conversation.item.retrieved` carries the whole audio of an item: 64 MiB of base64 is about
16 minutes of 24 kHz PCM16. The library's own 1 MiB kills sessions; no limit would let a wrong server fill the memory
(chosen; reference clients use 8 MiB or none)."""

PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 120.0
"""How long a pong may take. Long, because a cell that computes blocks the kernel's event loop and must not end the
session (chosen; the library's default is 20 s)."""

CLOSE_TIMEOUT_S = 5.0
_REASON_BYTES = 123  # all a close frame has room for (RFC 6455, 5.5)
MAX_QUEUE = 256
"""Frames kept before reading pauses: a burst of deltas must not stop pings from being answered (chosen)."""

_log = logging.getLogger("rtnb.transport.websocket")


class _RedactingLog(logging.LoggerAdapter[logging.Logger]):
    """Where the library logs to: it writes handshake headers and frames at DEBUG, keys and all."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__(_log, {})
        self._secrets = secrets

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            text = str(msg) % args if args else str(msg)
            # %-signs in the text are data by now: hand it over as an argument.
            self.logger.log(level, "%s", redact(text, self._secrets), **kwargs)


class _Refused(Exception):
    """A handshake answered with another status than 101.

    The library follows redirects, and to another host it takes only some headers off (`api-key` stays). It follows
    only what it recognises as its own exception, so this one is handed to it instead.
    """

    def __init__(self, response: Any) -> None:
        super().__init__(f"HTTP {response.status_code}")
        self.response = response


class _Connection(ClientConnection):
    async def handshake(self, *arguments: Any, **keywords: Any) -> None:
        try:
            await super().handshake(*arguments, **keywords)
        except ws_errors.InvalidStatus as error:
            raise _Refused(error.response) from None


class WebSocketTransport:
    """One open WebSocket; made by `open_websocket`.

    `facts` says where it leads; `secrets` are the keys it was opened with, for `redact` (they hide in a `repr`).
    """

    def __init__(self, connection: ClientConnection, *, facts: TargetFacts, secrets: Sequence[str] = ()) -> None:
        self._connection = connection
        self.secrets = secrets
        self.facts = facts

    async def send(self, text: str) -> None:
        """Send one text; waits while the network is slower than we are. Raises `ConnectionClosed`."""
        try:
            await self._connection.send(text)
        except ws_errors.ConnectionClosed as error:
            failure = self._closed(error)
            cause = error
        else:
            return
        raise failure from safe_cause(cause, self.secrets)

    async def receive(self) -> str:
        """Wait for the next text; cancelling loses nothing.

        Raises
        ------
        ConnectionClosed
            No more will come; ``.code`` and ``.reason`` say why.
        RemoteProtocolError
            A binary message came; the connection goes on.
        LocalProtocolError
            Somebody else is receiving already.
        """
        failure: ConnectionClosed | LocalProtocolError
        try:
            message = await self._connection.recv()
        except ws_errors.ConnectionClosed as error:
            failure = self._closed(error)
            cause: Exception = error
        except ws_errors.ConcurrencyError as error:
            failure = LocalProtocolError("somebody is receiving already; one reader hands texts to all others")
            cause = error
        else:
            if isinstance(message, str):
                return message
            raise RemoteProtocolError(
                f"the service sent a binary message of {len(message)} bytes; the protocol is JSON text only"
            )
        raise failure from safe_cause(cause, self.secrets)

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and wait for the answer, 5 s at most; closing twice is fine."""
        await self._connection.close(code, reason.encode()[:_REASON_BYTES].decode("utf-8", "ignore"))

    def _closed(self, error: ws_errors.ConnectionClosed) -> ConnectionClosed:
        close = error.rcvd or error.sent
        code = error.rcvd.code if error.rcvd else 1006
        if error.rcvd is None and error.sent is not None and error.sent.code in (1002, 1007, 1009):
            code = error.sent.code  # we ended it, for what the peer sent
        return explain.closed(code, close.reason if close else "", facts=self.facts, secrets=self.secrets)

    def __repr__(self) -> str:
        return f"WebSocketTransport({self.facts.url!r}, {self._connection.state.name})"


async def open_websocket(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    timeout_s: float = 10.0,
    ssl: ssl_module.SSLContext | None = None,
    facts: TargetFacts | None = None,
) -> WebSocketTransport:
    """Open a WebSocket, or say in words why not.

    Redirects are not followed: they would carry the key elsewhere. Proxies come from the environment
    (``HTTPS_PROXY``, ``NO_PROXY`` …), but this machine itself is never reached through one.

    Parameters
    ----------
    url : str
        ``ws://`` or ``wss://``.
    headers : mapping of str to str, optional
        Sent with the handshake, e.g. from a `Credential`; values of secret headers are kept out of logs and errors.
    subprotocols : sequence of str, default ()
        WebSocket subprotocols to offer.
    timeout_s : float, default 10
        For the whole opening (chosen).
    ssl : ssl.SSLContext, optional
        Own trust settings for ``wss://``; None uses the system's.
    facts : TargetFacts, optional
        What is known about the target, for the words when it fails.

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
    headers = headers or {}
    secrets = secrets_in([*headers.items(), ("sec-websocket-protocol", ", ".join(subprotocols))])
    facts = facts or TargetFacts(url=redact(url, secrets))
    options: dict[str, Any] = {"ssl": ssl} if ssl is not None and url.startswith("wss:") else {}
    if "proxy" in signature(connect.__init__).parameters:  # since websockets 15
        options["proxy"] = None if is_loopback(urlsplit(url).hostname or "") else True
    try:
        connection = await connect(
            url,
            additional_headers=headers,
            subprotocols=[Subprotocol(one) for one in subprotocols] or None,
            compression=None,  # base64 audio hardly shrinks; the reference client does without, too
            user_agent_header="rtnb",
            open_timeout=timeout_s,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=MAX_QUEUE,
            logger=_RedactingLog(secrets),
            create_connection=_Connection,
            **options,
        )
    except (OSError, EOFError, ImportError, ws_errors.WebSocketException, _Refused) as error:
        cause = error  # ImportError: a SOCKS proxy needs a package of its own
    else:
        return WebSocketTransport(connection, facts=facts, secrets=secrets)
    raise _explained(cause, facts, timeout_s, secrets) from safe_cause(cause, secrets)


def _explained(error: Exception, facts: TargetFacts, timeout_s: float, secrets: Iterable[str]) -> Exception:
    if isinstance(error, _Refused):
        answer = error.response
        # Some fields may come twice; the first is as good as any for a hint.
        fields = dict(reversed(list(answer.headers.raw_items())))
        return explain.http_failure(
            answer.status_code, headers=fields, body=answer.body or b"", facts=facts, secrets=secrets
        )
    return explain.connect_failure(error, facts=facts, timeout_s=timeout_s, secrets=secrets)
