"""No connection, no key, no call: each failure is explained, over a WebSocket and over HTTP, without the key."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from rtnb.errors import AuthenticationError, ConnectError, RateLimited, RtnbError
from rtnb.transport import TargetFacts
from rtnb.transport.http import mint
from rtnb.transport.websocket import open_websocket
from tests.transport.conftest import CANARY, shown, tcp_server, web_server

AZURE = TargetFacts(service="azure", url="wss://res/openai/v1/realtime?model=m", model="m", auth="api-key")
Way = Callable[..., Awaitable[object]]


async def socket(place: str, *, facts: TargetFacts | None = AZURE, tls: bool = False) -> None:
    """Open a WebSocket, and close it."""
    transport = await open_websocket(f"ws{'s' * tls}://{place}/x", headers={"api-key": CANARY}, facts=facts)  # type: ignore[arg-type]
    await transport.close()


async def request(place: str, *, facts: TargetFacts | None = AZURE, tls: bool = False) -> None:
    """Ask for an ephemeral key."""
    url = f"http{'s' * tls}://{place}/x"
    await mint(url, headers={"api-key": CANARY}, body={}, facts=facts or TargetFacts(url=url))


WAYS = pytest.mark.parametrize("way", [socket, request])


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


# --- statuses ---------------------------------------------------------------------------------------------------------

ELSEWHERE = {"Location": "wss://elsewhere.example/x"}
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
    (500, {"apim-request-id": "abc-1"}, "", ConnectError, ["Internal Server Error", "Request id", "abc-1", "status"]),
    (500, {}, f'{{"error": "no: {CANARY}"}}', ConnectError, ["no: ****"]),
    (503, {}, "down", ConnectError, ['"down"', "Azure OpenAI has a problem"]),
    (407, {}, "", ConnectError, ["HTTPS_PROXY"]),
    (418, {}, "", ConnectError, ["read the service's message"]),
    (302, ELSEWHERE, "", ConnectError, ["redirects to wss://elsewhere", "not sent along"]),
    (308, {"Location": "/other"}, "", ConnectError, ["redirects to /other"]),
]
WAIT_MS = {"9": 250, "3": 3_000}


@pytest.mark.parametrize(
    "way, status, fields, body, kind, texts",
    [
        *((way, *row) for way in (socket, request) for row in STATUSES),
        (socket, 200, {}, "hello", ConnectError, ["not from a realtime service"]),
    ],
)
async def test_every_status_is_explained(
    way: Way, status: int, fields: dict[str, str], body: str, kind: type[RtnbError], texts: list[str]
) -> None:
    async with web_server(status=status, reason="Whatever", headers=fields, text=body) as (url, _):
        with pytest.raises(kind) as info:
            await way(url.split("/")[2])
    assert type(info.value) is kind
    assert [text for text in texts if text not in shown(info.value) + "\n"] == []
    assert CANARY not in shown(info.value)
    if isinstance(info.value, ConnectError):
        assert info.value.status == status
        assert way is request or info.value.url == AZURE.url
    if isinstance(info.value, RateLimited):
        assert info.value.retry_after_ms == WAIT_MS.get(fields["Retry-After"])


@WAYS
async def test_a_redirect_elsewhere_never_sees_the_key(way: Way) -> None:
    visitors: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append(await reader.readuntil(b"\r\n\r\n"))

    async with tcp_server(elsewhere) as other:
        scheme = "ws" if way is socket else "http"
        async with web_server(status=302, headers={"Location": f"{scheme}://127.0.0.1:{other}/x"}) as (url, _):
            with pytest.raises(ConnectError, match="HTTP 302"):
                await way(url.split("/")[2])
    assert visitors == []


# --- no answer --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_such_host")
@WAYS
@pytest.mark.parametrize("facts, hint", [(AZURE, "Keys and Endpoint"), (None, "spelling")])
async def test_a_host_that_does_not_exist(way: Way, facts: TargetFacts | None, hint: str) -> None:
    with pytest.raises(ConnectError, match="cannot be resolved") as info:
        await way("does-not-exist.invalid", facts=facts)
    assert hint in info.value.__notes__[0]
    assert info.value.status is None


@WAYS
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("facts, hint", [(AZURE, "firewall"), (None, "rtnb simulate")])
async def test_a_port_without_a_server(
    unused_tcp_port: int, way: Way, host: str, facts: TargetFacts | None, hint: str
) -> None:
    with pytest.raises(ConnectError, match="nothing listens there") as info:
        await way(f"{host}:{unused_tcp_port}", facts=facts)
    assert hint in info.value.__notes__[0]


@WAYS
async def test_a_server_that_never_answers(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.transport.websocket.OPEN_TIMEOUT_S", 0.05)
    monkeypatch.setattr("rtnb.transport.http.TIMEOUT_S", 0.05)
    async with tcp_server(silent) as port:
        with pytest.raises(ConnectError, match=r"no answer within 0\.05 s") as info:
            await way(f"127.0.0.1:{port}")
    assert "proxy" in info.value.__notes__[0]


@pytest.mark.parametrize(
    "way, answer, words",
    [
        (socket, b"", "hung up before it answered"),
        (socket, b"220 smtp ready\r\n", "hung up before it answered"),
        (socket, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "not as a WebSocket server"),
        (request, b"", "hung up"),
    ],
)
async def test_a_server_of_another_kind(way: Way, answer: bytes, words: str) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hang_up(reader, writer)
        writer.write(answer)

    async with tcp_server(other) as port:
        with pytest.raises(ConnectError, match=words):
            await way(f"127.0.0.1:{port}")


@WAYS
async def test_an_untrusted_certificate(way: Way, server_tls: ssl.SSLContext) -> None:
    async with serve(echo, "127.0.0.1", 0, ssl=server_tls) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectError, match="not trusted") as info:
            await way(f"localhost:{port}", tls=True)
    assert "SSL_CERT_FILE" in info.value.__notes__[0]


async def test_tls_to_a_server_without() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectError, match=r"no TLS connection|hung up") as info:
            await socket(f"127.0.0.1:{port}", tls=True)
    assert "ws://" in info.value.__notes__[0]


async def test_an_address_of_another_scheme() -> None:
    with pytest.raises(ConnectError, match="InvalidURI"):
        await open_websocket("http://127.0.0.1:1/x")


# --- proxies ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_such_host")
async def test_a_proxy_is_used_for_others_and_never_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    key = '{"value": "ek_0123456789"}'
    async with tcp_server(proxy) as port, serve(echo, "127.0.0.1", 0) as server, web_server(text=key) as (url, _):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://me:{CANARY}@127.0.0.1:{port}")
        await socket(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await mint(url, headers={}, body={}, facts=AZURE)
        assert asked == []
        attempts: list[tuple[Any, type[RtnbError], str]] = [
            (socket("res.openai.azure.com", tls=True), ConnectError, "proxy refused the connection"),
            (request("res.example"), AuthenticationError, "HTTP 403"),
        ]
        for attempt, kind, words in attempts:
            with pytest.raises(kind, match=words) as info:
                await attempt
            assert CANARY not in shown(info.value)
        assert asked == [b"CONNECT res.openai.azure.com:443 HTTP/1.1\r\n", b"POST http://res.example/x HTTP/1.1\r\n"]
        monkeypatch.setenv("https_proxy", f"gopher://me:{CANARY}@127.0.0.1:{port}")
        with pytest.raises(ConnectError, match="proxy refused the connection") as refused:
            await socket("res.openai.azure.com", tls=True)
        assert CANARY not in shown(refused.value) + repr(refused.value.__cause__)
        monkeypatch.setenv("no_proxy", "res.invalid")
        with pytest.raises(ConnectError, match="cannot be resolved"):
            await request("res.invalid")
