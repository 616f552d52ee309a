"""Real sockets on loopback: messages, ends, and the explanation of each failure."""

import asyncio
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve

from rtnb.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionClosed,
    LocalProtocolError,
    RateLimited,
    RemoteProtocolError,
    RtnbError,
)
from rtnb.transport import Headers, TargetFacts, Transport
from rtnb.transport.websocket import MAX_MESSAGE_BYTES, WebSocketTransport, open_websocket
from tests.transport.conftest import CANARY, http_answer, tcp_server

Handler = Callable[[ServerConnection], Awaitable[None]]

AZURE = TargetFacts(service="azure", url="wss://res/openai/v1/realtime?model=m", model="m", auth="api-key")


@asynccontextmanager
async def peer(handler: Handler) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, max_size=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime"


@asynccontextmanager
async def opened(handler: Handler, **options: object) -> AsyncIterator[WebSocketTransport]:
    async with peer(handler) as url:
        transport = await open_websocket(url, **options)  # type: ignore[arg-type]
        try:
            yield transport
        finally:
            await transport.close()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


def shown(error: RtnbError) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


async def test_texts_go_both_ways() -> None:
    async with opened(echo) as transport:
        assert isinstance(transport, Transport)
        for text in ("{}", "ünï✓ 🎤", "x" * 3_000_000):
            await transport.send(text)
            assert await transport.receive() == text
        assert repr(transport) == f"WebSocketTransport({transport.facts.url!r}, OPEN)"


async def test_headers_arrive_compression_is_not_asked_for() -> None:
    async def show(connection: ServerConnection) -> None:
        assert connection.request is not None
        fields = connection.request.headers
        shown = [fields.get(name, "-") for name in ("api-key", "Sec-WebSocket-Extensions")]
        await connection.send(" ".join([*shown, fields["User-Agent"]]))

    async with opened(show, headers=Headers({"api-key": "k1"})) as transport:
        assert await transport.receive() == "k1 - rtnb"


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


STATUSES: list[tuple[int, dict[str, str], str, type[RtnbError], list[str]]] = [
    (400, {}, '{"error": {"message": "api-version query parameter is not allowed"}}', ConnectError, ["leave api_ver"]),
    (400, {}, "", ConnectError, ["dialect ('ga')", "'m'"]),
    (401, {}, '{"error": {"code": "401", "message": "Access denied"}}', AuthenticationError, ['"Access denied"']),
    (401, {}, "<html>no</html>", AuthenticationError, ["HTTP 401 Unauthorized\n", "Keys and Endpoint"]),
    (403, {}, "", AuthenticationError, ["Networking"]),
    (404, {}, '{"error": {"code": "DeploymentNotFound", "message": "gone"}}', ConnectError, ["deployment named 'm'"]),
    (429, {"Retry-After-Ms": "250", "Retry-After": "9"}, "", RateLimited, ["wait 0.25 s", "quota"]),
    (429, {"Retry-After": "3"}, "", RateLimited, ["wait 3 s"]),
    (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "", RateLimited, ["Next: wait and try again"]),
    (500, {"apim-request-id": "abc-1"}, "", ConnectError, ["Internal Server Error", "Request id", "abc-1"]),
    (503, {}, "down", ConnectError, ['"down"', "Azure OpenAI has a problem"]),
    (407, {}, "", ConnectError, ["HTTPS_PROXY"]),
    (418, {}, "", ConnectError, ["read the service's message"]),
    (200, {}, "hello", ConnectError, ["not from a realtime service"]),
    (
        302,
        {"Location": "wss://elsewhere.example/x"},
        "",
        ConnectError,
        ["redirects to wss://elsewhere", "not sent along"],
    ),
    (308, {"Location": "/other"}, "", ConnectError, ["redirects to /other"]),
]


@pytest.mark.parametrize("status, fields, body, kind, texts", STATUSES)
async def test_every_status_is_explained(
    status: int, fields: dict[str, str], body: str, kind: type[RtnbError], texts: list[str]
) -> None:
    async with tcp_server(http_answer(status, headers=fields, body=body)) as port:
        with pytest.raises(kind) as info:
            await open_websocket(f"ws://127.0.0.1:{port}/x", headers={"api-key": CANARY}, facts=AZURE)
    assert type(info.value) is kind
    for text in texts:
        assert text in shown(info.value) + "\n"
    if isinstance(info.value, ConnectError):
        assert (info.value.status, info.value.url) == (status, AZURE.url)
    if isinstance(info.value, RateLimited) and fields["Retry-After"] in ("9", "3"):
        assert info.value.retry_after_ms == (250 if fields["Retry-After"] == "9" else 3000)


async def test_a_redirect_elsewhere_never_sees_the_key() -> None:
    visitors: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append(await reader.readuntil(b"\r\n\r\n"))

    async with tcp_server(elsewhere) as other:
        moved = http_answer(302, headers={"Location": f"ws://127.0.0.1:{other}/x"})
        async with tcp_server(moved) as port:
            with pytest.raises(ConnectError, match="HTTP 302"):
                await open_websocket(f"ws://127.0.0.1:{port}/x", headers={"api-key": CANARY})
    assert visitors == []


@pytest.mark.usefixtures("no_such_host")
async def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(ConnectError, match="host name cannot be resolved") as info:
        await open_websocket("ws://does-not-exist.invalid/x", facts=AZURE)
    assert "Keys and Endpoint" in info.value.__notes__[0]
    assert info.value.status is None
    with pytest.raises(ConnectError) as info:
        await open_websocket("ws://does-not-exist.invalid/x")
    assert "spelling" in info.value.__notes__[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_port_without_a_server(unused_tcp_port: int, host: str) -> None:
    with pytest.raises(ConnectError, match="nothing listens there") as info:
        await open_websocket(f"ws://{host}:{unused_tcp_port}/x")
    assert "rtnb simulate" in info.value.__notes__[0]
    with pytest.raises(ConnectError) as info:
        await open_websocket(f"ws://{host}:{unused_tcp_port}/x", facts=AZURE)
    assert "firewall" in info.value.__notes__[0]


async def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr("rtnb.transport.websocket.OPEN_TIMEOUT_S", 0.05)
    async with tcp_server(silent) as port:
        with pytest.raises(ConnectError, match=r"no answer within 0\.05 s") as info:
            await open_websocket(f"ws://127.0.0.1:{port}/x")
    assert "proxy" in info.value.__notes__[0]


@pytest.mark.parametrize("answer", [b"", b"220 smtp ready\r\n"])
async def test_a_server_that_is_none(answer: bytes) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with tcp_server(other) as port:
        with pytest.raises(ConnectError, match="hung up before it answered"):
            await open_websocket(f"ws://127.0.0.1:{port}/x")


async def test_101_without_the_rest() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    async with tcp_server(half) as port:
        with pytest.raises(ConnectError, match="not as a WebSocket server"):
            await open_websocket(f"ws://127.0.0.1:{port}/x")


async def test_an_untrusted_certificate(server_tls: ssl.SSLContext) -> None:
    async with serve(echo, "127.0.0.1", 0, ssl=server_tls) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectError, match="certificate of the host is not trusted") as info:
            await open_websocket(f"wss://localhost:{port}/x")
        assert "SSL_CERT_FILE" in info.value.__notes__[0]


async def test_own_trust(server_tls: ssl.SSLContext, authority: trustme.CA) -> None:
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with serve(echo, "127.0.0.1", 0, ssl=server_tls) as server:
        port = server.sockets[0].getsockname()[1]
        transport = await open_websocket(f"wss://localhost:{port}/x", ssl=trust)
        await transport.send("secret")
        assert await transport.receive() == "secret"
        await transport.close()


async def test_tls_to_a_server_without() -> None:
    async with peer(echo) as url:
        with pytest.raises(ConnectError, match=r"no TLS connection|hung up") as info:
            await open_websocket(url.replace("ws:", "wss:"))
        assert "ws://" in info.value.__notes__[0]


async def test_an_address_of_another_scheme() -> None:
    with pytest.raises(ConnectError, match="InvalidURI"):
        await open_websocket("http://127.0.0.1:1/x")


async def test_a_proxy_is_used_for_others_and_never_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async with tcp_server(proxy) as port, peer(echo) as url:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://me:{CANARY}@127.0.0.1:{port}")
        transport = await open_websocket(url)
        await transport.close()
        assert asked == []
        with pytest.raises(ConnectError, match="proxy refused the connection") as info:
            await open_websocket("wss://res.openai.azure.com/x", facts=AZURE)
        assert asked == [b"CONNECT res.openai.azure.com:443 HTTP/1.1\r\n"]
        assert CANARY not in shown(info.value)
        monkeypatch.setenv("https_proxy", f"gopher://me:{CANARY}@127.0.0.1:{port}")
        with pytest.raises(ConnectError, match="proxy refused the connection") as info:
            await open_websocket("wss://res.openai.azure.com/x", facts=AZURE)
        assert CANARY not in shown(info.value) + repr(info.value.__cause__)


async def test_each_raise_has_a_new_error_and_no_local_variable_holds_the_key() -> None:
    async def closing(connection: ServerConnection) -> None:
        await connection.close(3000, f"wrong key {CANARY}")

    raised = []
    async with opened(closing, headers=Headers({"api-key": CANARY})) as transport:
        for attempt in (transport.receive, transport.receive, lambda: transport.send("x"), lambda: transport.send("x")):
            with pytest.raises(ConnectionClosed) as info:
                await attempt()
            raised.append(info.value)
            ours = info.tb.tb_next  # the first frame is this test
            shown = traceback.TracebackException(info.type, info.value, ours, capture_locals=True)
            assert CANARY[:12] not in "".join(shown.format())
    assert len({id(error) for error in raised}) == 4


async def test_no_log_no_error_and_no_repr_holds_the_key(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(connection: ServerConnection) -> None:
        await connection.send(f'{{"error": "Incorrect API key provided: {CANARY[:12]}***{CANARY[-12:]}"}}')
        await connection.close(3000, f"wrong key {CANARY}")

    silenced = logging.getLogger("websockets.server")  # the peer of this test; it logs what it received
    silenced.setLevel(logging.WARNING)
    try:
        with caplog.at_level(logging.DEBUG):
            headers = Headers({"api-key": CANARY, "Authorization": f"Bearer {CANARY}"})
            async with opened(answer, headers=headers) as transport:
                await transport.receive()
                with pytest.raises(ConnectionClosed) as info:
                    await transport.receive()
            async with tcp_server(http_answer(401, body=f"bad key {CANARY}")) as port:
                with pytest.raises(AuthenticationError) as refused:
                    await open_websocket(f"ws://127.0.0.1:{port}/x?api-key={CANARY}", headers=headers)
    finally:
        silenced.setLevel(logging.NOTSET)
    assert "api-key: ****" in caplog.text  # the handshake was logged, and cleaned
    texts = [
        caplog.text,
        repr(transport),
        repr(vars(transport)),
        shown(info.value),
        shown(refused.value),
        refused.value.url,
        info.value.reason,
    ]
    for error in (info.value, refused.value):
        assert error.__context__ is None
        texts.append(repr(error.__cause__))
    for one in texts:
        assert CANARY[:12] not in one
        assert CANARY[-12:] not in one
