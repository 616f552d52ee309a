import asyncio
import json
import logging
import pickle
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from rtnb.errors import AuthenticationError, ConnectError, LocalProtocolError, RateLimited, RemoteProtocolError
from rtnb.transport import Azure, EphemeralKey, Headers, TargetFacts
from rtnb.transport.http import Answer, ephemeral_body, mint, post_offer
from tests.transport.conftest import CANARY, http_answer, tcp_server

VALUE = "ek_" + "68af296e8e408191a1120ab6383263c2"  # in two, so that no scanner takes it for a key
FACTS = TargetFacts("azure", url="https://res/openai/v1/realtime/client_secrets", model="m", auth="api-key")
PREVIEW = TargetFacts("azure", "preview", model="m", auth="api-key")


def test_a_key_shows_everything_but_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    key = EphemeralKey(VALUE, expires_at=now + 57.9, dialect="preview", session={"id": "s", "client_secret": 1})
    assert repr(key) == f"{key}" == str(key) == "EphemeralKey(****, expires in 58 s, dialect=preview)"
    assert key.session == {"id": "s"}
    assert key.reveal() == VALUE
    assert not key.expired
    assert key.seconds_left(now=key.expires_at - 10) == 10
    assert key.seconds_left(now=key.expires_at + 10) == 0
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        vars(key)
    with pytest.raises(TypeError):
        json.dumps(key)
    old = EphemeralKey(VALUE, expires_at=1)
    assert old.expired
    assert repr(old) == "EphemeralKey(****, expired, dialect=ga)"


def test_bodies_of_both_dialects() -> None:
    assert ephemeral_body("ga", {}, model="m") == {"session": {"type": "realtime", "model": "m"}}
    assert ephemeral_body("ga", {"type": "transcription"}, model="m", expires_after_s=600) == {
        "expires_after": {"anchor": "created_at", "seconds": 600},
        "session": {"type": "transcription"},
    }
    assert ephemeral_body("preview", {"type": "transcription"}, model="m", expires_after_s=60) == {
        "client_secret": {"expires_at": {"anchor": "created_at", "seconds": 60}}
    }
    assert ephemeral_body("preview", {"voice": "alloy"}, model="m") == {"model": "m", "voice": "alloy"}
    assert ephemeral_body("preview", {}, expires_after_s=10) == {
        "client_secret": {"expires_after": {"anchor": "created_at", "seconds": 10}}
    }


@pytest.mark.parametrize("seconds", [0, 9, 7201])
def test_impossible_lifetimes_are_refused(seconds: int) -> None:
    with pytest.raises(LocalProtocolError, match="10 to 7200 s"):
        ephemeral_body("ga", {}, expires_after_s=seconds)


@asynccontextmanager
async def service(answer: Any, *, status: int = 200) -> AsyncIterator[tuple[str, list[Any]]]:
    seen: list[Any] = []

    async def post(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.json()))
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_post("/mint", post)
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("/mint")), seen


async def test_ga() -> None:
    ends = int(time.time()) + 600
    answer = {"value": VALUE, "expires_at": ends, "session": {"type": "realtime", "client_secret": {"value": VALUE}}}
    async with service(answer) as (url, seen):
        key = await mint(url, headers={"api-key": CANARY}, body={"session": {}}, facts=FACTS)
    assert (key.reveal(), key.expires_at, key.session, key.dialect) == (VALUE, ends, {"type": "realtime"}, "ga")
    headers, body = seen[0]
    assert headers["api-key"] == CANARY
    assert body == {"session": {}}


@pytest.mark.parametrize("status", [200, 201])
async def test_preview(status: int) -> None:
    ends = int(time.time()) + 60
    answer = {"id": "sess_1", "voice": "alloy", "client_secret": {"value": VALUE, "expires_at": ends}}
    async with service(answer, status=status) as (url, _):
        key = await mint(url, headers={}, body={}, facts=PREVIEW)
    assert (key.reveal(), key.expires_at, key.session) == (VALUE, ends, {"id": "sess_1", "voice": "alloy"})


async def test_a_key_without_an_end_gets_the_usual_lifetime() -> None:
    async with service({"value": VALUE, "expires_at": "soon", "session": "odd"}) as (url, _):
        key = await mint(url, headers={}, body={}, facts=PREVIEW)
    assert 50 < key.seconds_left() <= 60
    assert key.session == {}


@pytest.mark.parametrize("answer", [{}, {"value": None}, {"client_secret": VALUE}, [], "text", {"value": 7}])
async def test_an_answer_without_a_key(answer: Any) -> None:
    async with service(answer) as (url, _):
        with pytest.raises(RemoteProtocolError, match="without a key") as info:
            await mint(url, headers={}, body={}, facts=FACTS)
    assert VALUE not in str(info.value)


@pytest.mark.parametrize(
    "status, kind, text",
    [
        (400, ConnectError, "dialect"),
        (401, AuthenticationError, "Keys and Endpoint"),
        (403, AuthenticationError, "Networking"),
        (404, ConnectError, "deployment named 'm'"),
        (429, RateLimited, "wait 1.5 s"),
        (500, ConnectError, "status page"),
        (307, ConnectError, "redirects to https://elsewhere.example/"),
    ],
)
async def test_every_status_is_explained(status: int, kind: type[Exception], text: str) -> None:
    fields = {"retry-after-ms": "1500", "Location": "https://elsewhere.example/"}
    async with tcp_server(http_answer(status, headers=fields, body=f'{{"error": "no: {CANARY}"}}')) as port:
        url = f"http://127.0.0.1:{port}/x"
        with pytest.raises(kind) as info:
            await mint(url, headers={"api-key": CANARY}, body={}, facts=FACTS)
    shown = str(info.value) + info.value.__notes__[0]
    assert type(info.value) is kind
    assert text in shown
    assert "no: ****" in shown
    assert CANARY not in shown


@pytest.mark.usefixtures("no_such_host")
async def test_network_failures_are_explained(
    unused_tcp_port: int, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(url: str) -> None:
        await mint(url, headers={}, body={}, facts=FACTS)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    with pytest.raises(ConnectError, match="cannot be resolved"):
        await get("http://does-not-exist.invalid/x")
    with pytest.raises(ConnectError, match="nothing listens there"):
        await get(f"http://127.0.0.1:{unused_tcp_port}/x")
    with monkeypatch.context() as patched:
        patched.setattr("rtnb.transport.http.TIMEOUT_S", 0.05)
        async with tcp_server(silent) as port:
            with pytest.raises(ConnectError, match=r"no answer within 0\.05 s"):
                await get(f"http://127.0.0.1:{port}/x")
    async with tcp_server(hang_up) as port:
        with pytest.raises(ConnectError, match="hung up"):
            await get(f"http://127.0.0.1:{port}/x")
    server = await asyncio.start_server(silent, "127.0.0.1", 0, ssl=server_tls)
    async with server:
        with pytest.raises(ConnectError, match="not trusted"):
            await get(f"https://localhost:{server.sockets[0].getsockname()[1]}/x")


@pytest.mark.usefixtures("no_such_host")
async def test_a_proxy_is_used_for_others_and_never_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    async with tcp_server(proxy) as port, service({"value": VALUE}) as (url, _):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        await mint(url, headers={}, body={}, facts=FACTS)
        assert asked == []
        with pytest.raises(ConnectError, match="HTTP 502"):
            await mint("http://res.example/x", headers={}, body={}, facts=FACTS)
        assert asked[0].startswith(b"POST http://res.example/x ")
        monkeypatch.setenv("no_proxy", "res.invalid")
        with pytest.raises(ConnectError, match="cannot be resolved"):
            await mint("http://res.invalid/x", headers={}, body={}, facts=FACTS)


async def test_no_log_holds_a_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with service({"value": VALUE}) as (url, _):
            key = await mint(url, headers=Headers({"api-key": CANARY}), body={}, facts=FACTS)
            logging.getLogger(__name__).debug("got %s", key)
    assert "EphemeralKey(****" in caplog.text
    assert CANARY not in caplog.text
    assert VALUE not in caplog.text


# --- offers -----------------------------------------------------------------------------------------------------------

OFFER_KEY = EphemeralKey(VALUE, expires_at=time.time() + 60)


@asynccontextmanager
async def offers(**answer: Any) -> AsyncIterator[tuple[str, list[Any]]]:
    seen: list[Any] = []

    async def post(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.text()))
        return web.Response(**answer)

    app = web.Application()
    app.router.add_post("/calls", post)
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("/calls")), seen


@pytest.mark.parametrize("location, call_id", [("/v1/realtime/calls/rtc_1?x=1", "rtc_1"), ("", None)])
async def test_an_offer_is_answered(location: str, call_id: str | None) -> None:
    headers = {"Location": location} if location else {}
    async with offers(status=201, text="v=0\r\n", headers=headers) as (url, seen):
        answer = await post_offer(url, key=OFFER_KEY, sdp="v=0\r\no=-", facts=FACTS)
    assert answer == Answer("v=0\r\n", call_id)
    sent, body = seen[0]
    assert body == "v=0\r\no=-"
    assert (sent["Authorization"], sent["Content-Type"]) == (f"Bearer {VALUE}", "application/sdp")


@pytest.mark.parametrize(
    "answer, kind, hint",
    [
        (
            {"status": 401, "text": f'{{"error": {{"message": "expired {VALUE}"}}}}'},
            AuthenticationError,
            "get a new one",
        ),
        ({"status": 404}, ConnectError, "deployment named 'm'"),
        ({"status": 200, "text": "<html>"}, RemoteProtocolError, "/realtime/calls"),
    ],
)
async def test_a_refused_offer_is_explained_without_the_key(answer: Any, kind: type[Exception], hint: str) -> None:
    async with offers(**answer) as (url, _):
        with pytest.raises(kind) as refused:
            await post_offer(url, key=OFFER_KEY, sdp="v=0", facts=FACTS)
    assert hint in refused.value.__notes__[0]
    assert VALUE not in str(refused.value) + repr(vars(refused.value))


async def test_an_offer_without_a_server() -> None:
    with pytest.raises(ConnectError, match=r"could not set up a WebRTC call .*nothing listens"):
        await post_offer("http://127.0.0.1:9/calls", key=OFFER_KEY, sdp="v=0", facts=FACTS)


async def test_the_preview_learns_its_region_from_the_key() -> None:
    azure = Azure("https://res.openai.azure.com", deployment="d", api_key="k" * 32, dialect="preview")
    session = {"client_secret": {"value": VALUE, "expires_at": time.time() + 60}}
    async with offers(text=json.dumps(session), headers={"x-ms-region": "Sweden Central"}) as (url, _):
        key = await mint(url, headers={}, body={}, facts=PREVIEW)
    where = azure.calls_url(seen_region=key.region)
    assert where == "https://swedencentral.realtimeapi-preview.ai.azure.com/v1/realtimertc?model=d"
    with pytest.raises(ConnectError, match="needs the region"):
        azure.calls_url()
    with pytest.raises(ConnectError, match="not 'westeurope'"):
        azure.calls_url(seen_region="West Europe")
