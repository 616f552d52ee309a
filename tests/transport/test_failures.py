"""No connection, no key, no call: each failure is explained without the key, on the way and by kind of service."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from rtnb.errors import AuthenticationError, ConnectError, RateLimited, RtnbError
from rtnb.redaction import remember
from rtnb.transport import TargetFacts
from rtnb.transport.explain import closed, connect_failure, connect_failure_from_event, http_failure
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


# --- causes that depend on the service and the sign-in --------------------------------------------------------------

REALTIME = "wss://res.openai.azure.com/openai/v1/realtime?model=m"


KEYLESS = TargetFacts("azure", auth="entra", scope="https://cognitiveservices.azure.com/.default")
OTHER_SCOPE = TargetFacts("azure", auth="entra", scope="https://ai.azure.com/.default")
OLD = TargetFacts("azure", dialect="preview", model="m")


@pytest.mark.parametrize(
    "status, facts, body, texts, absent",
    [
        (401, TargetFacts("azure", auth="api-key"), "", ["of another resource", "allow no keys", "together"], "scope"),
        (401, KEYLESS, "", ["scope was https://cogn", "='https://ai.azure.com/.default'", "tenant", "together"], ""),
        (401, OTHER_SCOPE, "", ["scope='https://cognitiveservices.azure.com/.default'"], ""),
        (401, TargetFacts("azure", auth="ephemeral"), "", ["60 s (preview)", "get a new one"], ""),
        (401, TargetFacts("azure", url=f"{REALTIME}&api-version=1", auth="api-key"), "", ["no api-version", "401"], ""),
        (401, TargetFacts("openai", auth="bearer"), "", ["revoked", "project"], ""),
        (401, TargetFacts("custom", auth="none"), "", ["no key was sent"], ""),
        (401, TargetFacts("simulator", auth="bearer"), "", ["the key is wrong"], ""),
        (403, TargetFacts("azure", auth="entra"), "", ["Cognitive Services OpenAI User", "Networking"], ""),
        (403, TargetFacts("azure", auth="entra"), "blocked by Firewall rules", ["Networking"], "OpenAI User"),
        (403, TargetFacts("azure", auth="api-key"), "", ["Networking"], "OpenAI User"),
        (403, TargetFacts("openai", auth="bearer"), "", ["permissions, project"], "OpenAI User"),
        (404, TargetFacts("azure", model="m"), "", ["deployment named 'm'", "retired", "not deployment="], ""),
        (404, OLD, "", ["deployment named 'm'", "dialect='ga'"], ""),
        (404, TargetFacts("azure", url="https://eastus2/v1/realtimertc", model="m"), "", ["WebRTC region"], ""),
        (404, TargetFacts("openai", model="m"), "", ["'m'", "still offered"], ""),
        (404, TargetFacts("custom", model="m"), "", ["Next: most servers serve /v1/realtime"], "model= is missing"),
        (404, TargetFacts("custom"), "", ["Next: model= is missing", "/realtime?model=NAME", "/v1/realtime"], ""),
        (400, TargetFacts("custom"), "", ["Next: model= is missing"], ""),
        (400, TargetFacts("custom", model="m"), "", [], "model= is missing"),
    ],
)
def test_a_status_names_its_causes(status: int, facts: TargetFacts, body: str, texts: list[str], absent: str) -> None:
    error = http_failure(status, facts=facts, body=body)
    assert type(error) is (AuthenticationError if status in (401, 403) else ConnectError)
    assert [text for text in texts if text not in shown(error)] == []
    assert not absent or absent not in shown(error)


def test_the_message_of_the_service_is_quoted_clean_and_short() -> None:
    assert '"plain words"' in str(http_failure(500, body="plain\n  words"))
    assert '"in detail"' in str(http_failure(500, body=b'{"detail": "in detail"}'))
    assert '"just text"' in str(http_failure(500, body='{"error": "just text"}'))
    assert '"flat"' in str(http_failure(500, body='{"statusCode": 500, "message": "flat"}'))
    assert len(str(http_failure(500, body="word " * 1000))) < 600
    remember([CANARY])
    assert CANARY[:10] not in str(http_failure(401, body=f"key {CANARY[:30]}"))
    assert str(http_failure(599)) == "could not open a session at the given address: HTTP 599 unknown status"


@pytest.mark.parametrize(
    "error_type, code, message, close_code, kind, texts",
    [
        ("invalid_request_error", "invalid_api_key", f"Incorrect API key provided: sk-{CANARY[:20]}", 3000,
         AuthenticationError, ["key or token was refused", "****", "revoked"]),
        ("invalid_request_error", None, "Missing bearer authentication in header", 3000,
         AuthenticationError, ["Missing bearer authentication"]),
        ("invalid_request_error", "invalid_model", 'Model "x" is not supported in realtime mode.', 4000,
         ConnectError, ["model is missing, unknown", "asked for: 'gpt-x'"]),
        ("invalid_request_error", "missing_model", "you must provide a model parameter", 4000,
         ConnectError, ["model is missing"]),
        ("invalid_request_error", "beta_api_shape_disabled", "The Realtime Beta API is no longer supported.", 4000,
         ConnectError, ["2026-05-12", "dialect='ga'"]),
        ("invalid_request_error", "unknown_parameter", "Unknown parameter: 'session.type'.", None,
         ConnectError, ["dialect='preview'"]),
        ("invalid_request_error", "session_expired", "", 1001, ConnectError, ["expired"]),
        ("invalid_request_error", "insufficient_quota", "You exceeded your current quota", None,
         RateLimited, ["credit of the account"]),
        ("server_error", None, "The server had an error", 1011, ConnectError, ["internal error"]),
        ("something", "new", "unheard of", 4999, ConnectError, ["something.new", "unheard of"]),
    ],
)  # fmt: skip
def test_connected_then_error_then_closed(
    error_type: str, code: str | None, message: str, close_code: int | None, kind: type[RtnbError], texts: list[str]
) -> None:
    facts = TargetFacts("openai", url="wss://api.openai.com/v1/realtime?model=gpt-x", model="gpt-x", auth="bearer")
    error = connect_failure_from_event(error_type, code, message, facts=facts, close_code=close_code)
    assert type(error) is kind
    assert all(text in shown(error) for text in texts)
    assert CANARY[:10] not in shown(error)
    if isinstance(error, ConnectError):
        assert (error.status, error.url) == (close_code, facts.url)
    elif isinstance(error, RateLimited):
        assert (error.type, error.code) == (error_type, code)


def test_a_close_without_a_name() -> None:
    assert str(closed(1005)) == "the connection was closed without a reason (1005)"
    assert str(closed(4000, "")) == "the service refused with no reason (4000)"


def test_an_unknown_network_failure_is_named() -> None:
    error = connect_failure(OSError(101, "Network is unreachable"))
    assert "the network failed with OSError ([Errno 101] Network is unreachable)" in str(error)
    assert error.__notes__
