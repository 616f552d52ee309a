"""Peers on loopback: small servers of the libraries themselves, none of them our own code."""

import asyncio
import os
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

CANARY = "canary0123456789abcdef0123456789ABCDEF0123456789abcdefJQQJ99BKACcanary"
"""A key that may be found nowhere."""

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tcp_server(answer: Answer) -> AsyncIterator[int]:
    """Serve `answer` on a free port of loopback, for peers no library would play."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except ConnectionError:
            return  # the client left first
        finally:
            writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


class Seen(NamedTuple):
    """Request that a `web_server` got."""

    path: str
    headers: dict[str, str]
    body: str


@asynccontextmanager
async def web_server(**answer: Any) -> AsyncIterator[tuple[str, list[Seen]]]:
    """Serve one answer to every request; without one, open WebSockets and make keys. Gives the address and requests."""
    seen: list[Seen] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        seen.append(Seen(str(request.rel_url), dict(request.headers), await request.text()))
        if answer or request.method == "POST":
            return web.Response(**(answer or {"text": '{"value": "ek_0123456789", "expires_at": 4e9, "session": {}}'}))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("{}")
        await socket.receive()
        return socket

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(access_log=None)  # it would hold what was asked
    yield str(server.make_url("/x")), seen
    await server.close()


def shown(error: BaseException) -> str:
    """Return the message of an exception and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def with_locals(info: pytest.ExceptionInfo[BaseException]) -> str:
    """Return the traceback as IPython's ``%xmode Verbose`` and many log collectors show it: with local variables."""
    ours = info.tb.tb_next  # the first frame is the test
    return "".join(traceback.TracebackException(info.type, info.value, ours, capture_locals=True).format())


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Certificate authority that no system trusts."""
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """TLS settings of a server of this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove keys and proxies of this machine from the environment."""
    for name in list(os.environ):
        if name.upper().startswith(("AZURE_", "OPENAI_", "IDENTITY_", "MSI_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
