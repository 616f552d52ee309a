"""Real sockets on loopback: messages, and the explanation of each end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from rtnb.errors import AuthenticationError, ConnectionClosed, LocalProtocolError, RemoteProtocolError
from rtnb.transport import Headers, TargetFacts, Transport
from rtnb.transport.websocket import MAX_MESSAGE_BYTES, WebSocketTransport, open_websocket
from tests.transport.conftest import CANARY, shown, web_server, with_locals

Handler = Callable[[ServerConnection], Awaitable[None]]

AZURE = TargetFacts(service="azure", url="wss://res/openai/v1/realtime?model=m", model="m", auth="api-key")


@asynccontextmanager
async def opened(handler: Handler, **options: Any) -> AsyncIterator[WebSocketTransport]:
    async with serve(handler, "127.0.0.1", 0, max_size=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime"
        transport = await open_websocket(url, **options)
        try:
            yield transport
        finally:
            await transport.close()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def test_texts_go_both_ways() -> None:
    async with opened(echo) as transport:
        assert isinstance(transport, Transport)
        for text in ("{}", "ünï✓ 🎤", "x" * 3_000_000):
            await transport.send(text)
            assert await transport.receive() == text
        assert repr(transport) == f"WebSocketTransport({transport.facts.url!r}, OPEN)"


async def test_compression_is_not_asked_for() -> None:
    async def show(connection: ServerConnection) -> None:
        fields = connection.request.headers
        await connection.send(f"{fields.get('Sec-WebSocket-Extensions')} {fields['User-Agent']}")

    async with opened(show) as transport:
        assert await transport.receive() == "None rtnb"


async def test_a_binary_message_is_named_and_survived() -> None:
    async def binary(connection: ServerConnection) -> None:
        await connection.send(b"\0\1\2")
        await connection.send("text")
        await connection.wait_closed()

    async with opened(binary) as transport:
        with pytest.raises(RemoteProtocolError, match="sent 3 bytes; the protocol is JSON text only"):
            await transport.receive()
        assert await transport.receive() == "text"


async def test_cancelling_a_receive_loses_nothing_and_two_readers_are_refused() -> None:
    async with opened(echo) as transport:
        waiting = asyncio.ensure_future(transport.receive())
        await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError, match="receiving already"):
            await transport.receive()
        waiting.cancel()
        await asyncio.wait([waiting])
        await transport.send("kept")
        assert await transport.receive() == "kept"


async def test_a_message_beyond_the_limit_ends_with_1009() -> None:
    async def big(connection: ServerConnection) -> None:
        await connection.send("x" * (MAX_MESSAGE_BYTES + 1))
        await connection.wait_closed()

    async with opened(big) as transport:
        with pytest.raises(ConnectionClosed, match="too big") as info:
            await transport.receive()
        assert info.value.code == 1009


@pytest.mark.parametrize(
    "code, reason, what, hint",
    [
        (1000, "", "the session ended as asked", None),
        (1001, "", "the service ended the session", "new session"),
        (1001, "Your session hit the maximum duration of 60 minutes.", "longest duration (60 minutes)", "new session"),
        (1008, "policy", "policy", "permissions"),
        (1011, "boom", "internal error", "new session"),
        (1013, "", "overloaded", "wait"),
        (3000, "invalid_request_error.invalid_api_key", "key or token was refused", "the key is wrong"),
        (3000, "invalid_request_error", "key or token was refused", "the key is wrong"),
        (4000, "invalid_request_error.invalid_model", "deployment is missing, unknown", "speaks realtime"),
        (4000, "invalid_request_error.missing_model", "deployment is missing, unknown", "speaks realtime"),
        (4000, "invalid_request_error.beta_api_shape_disabled", "preview dialect off", "dialect='ga'"),
        (4321, "own", "the connection was closed", "read the reason"),
    ],
)
async def test_every_close_is_explained(code: int, reason: str, what: str, hint: str | None) -> None:
    async def closing(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    async with opened(closing, facts=AZURE) as transport:
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as info:
                await transport.receive()
            assert (info.value.code, info.value.reason) == (code, reason)
            assert what in str(info.value)
            assert str(code) in str(info.value)
            assert getattr(info.value, "__notes__", []) == [] if hint is None else hint in info.value.__notes__[0]
        with pytest.raises(ConnectionClosed):
            await transport.send("too late")


async def test_a_connection_that_vanishes_is_1006() -> None:
    async def vanish(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with opened(vanish) as transport:
        with pytest.raises(ConnectionClosed, match="broke without a closing message") as info:
            await transport.receive()
        assert (info.value.code, info.value.reason) == (1006, "")


async def test_closing_here_ends_a_waiting_receive_and_tells_the_peer() -> None:
    seen: asyncio.Future[tuple[int | None, str | None]] = asyncio.get_running_loop().create_future()

    async def watch(connection: ServerConnection) -> None:
        await connection.wait_closed()
        seen.set_result((connection.close_code, connection.close_reason))

    async with opened(watch) as transport:
        waiting = asyncio.ensure_future(transport.receive())
        await asyncio.sleep(0)
        await transport.close(reason="done" + 200 * "é")
        await transport.close()
        with pytest.raises(ConnectionClosed) as info:
            await waiting
        assert info.value.code == 1000
        assert await seen == (1000, "done" + 59 * "é")


async def test_no_error_log_repr_or_local_variable_holds_the_key(caplog: pytest.LogCaptureFixture) -> None:
    async def closing(connection: ServerConnection) -> None:
        await connection.send(f'{{"error": "Incorrect API key provided: {CANARY[:12]}***{CANARY[-12:]}"}}')
        await connection.close(3000, f"wrong key {CANARY}")

    silenced = logging.getLogger("websockets.server")  # the peer of this test; it logs what it received
    silenced.setLevel(logging.WARNING)
    headers = Headers({"api-key": CANARY, "Authorization": f"Bearer {CANARY}"})
    raised, texts = [], []
    try:
        with caplog.at_level(logging.DEBUG):
            async with opened(closing, headers=headers) as transport:
                await transport.receive()
                for attempt in (transport.receive, transport.receive, partial(transport.send, "x")):
                    with pytest.raises(ConnectionClosed) as info:
                        await attempt()
                    raised.append(info.value)
                    texts += [with_locals(info), info.value.reason]
            async with web_server(status=401, text=f"bad key {CANARY}") as (url, _):
                with pytest.raises(AuthenticationError) as refused:
                    await open_websocket(f"{url.replace('http', 'ws', 1)}?api-key={CANARY}", headers=headers)
    finally:
        silenced.setLevel(logging.NOTSET)
    assert "api-key: ****" in caplog.text  # the handshake was logged, and cleaned
    assert len({id(error) for error in raised}) == 3, "each raise has an error of its own"
    texts += [caplog.text, repr(transport), repr(vars(transport)), refused.value.url]
    for error in (*raised, refused.value):
        assert error.__context__ is None
        texts += [shown(error), repr(error.__cause__)]
    assert [one for one in texts if CANARY[:12] in one or CANARY[-12:] in one] == []
