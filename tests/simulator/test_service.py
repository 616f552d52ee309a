"""Endpoints of the service over real sockets: paths, keys, refusals, pages. `rtnb.simulator.service`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from rtnb.simulator import Simulator
from rtnb.simulator.admission import KeyRing
from rtnb.simulator.service import Service
from tests.simulator.rig import world

GA, OPENAI, PREVIEW = "/openai/v1/realtime", "/v1/realtime", "/openai/realtime"
GA_OK = f"{GA}?model=m"
OPENAI_OK = f"{OPENAI}?model=m"
PREVIEW_OK = f"{PREVIEW}?api-version=2025-04-01-preview&deployment=m"


def key_of(sim: Simulator, path: str = GA) -> dict[str, str]:
    """The key as the service at this path takes it."""
    return {"api-key": sim.key} if path.startswith("/openai") else {"Authorization": f"Bearer {sim.key}"}


@contextlib.asynccontextmanager
async def socket(sim: Simulator, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    options.setdefault("headers", key_of(sim, path))
    async with aiohttp.ClientSession() as http, http.ws_connect(sim.url + path, **options) as ws:
        yield ws


async def nobody_left(sim: Simulator) -> None:
    """The service notices that its clients went; it lives in another thread, so there is nothing to wait on."""
    async with asyncio.timeout(10):
        while sim.n_sessions:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def refusal(sim: Simulator, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of a refused handshake, asked for as a plain client does."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **options.pop("headers", {}),
    }
    async with aiohttp.ClientSession() as http, http.get(sim.url + path, headers=headers, **options) as answer:
        return answer.status, (await answer.json())["error"]


async def goodbye(ws: aiohttp.ClientWebSocketResponse) -> tuple[list[dict[str, Any]], int | None, str]:
    """What is said until the service closes, its code and reason."""
    said = []
    while True:
        message = await ws.receive(timeout=10)
        if message.type != WSMsgType.TEXT:
            return said, ws.close_code, message.extra or ""
        said.append(json.loads(message.data))


@pytest.mark.parametrize(
    "path, n_first", [(GA_OK, 1), (OPENAI_OK, 1), (OPENAI, 1), (PREVIEW_OK, 2), (f"{GA}?intent=transcription", 1)]
)
async def test_every_path_opens_a_session_of_its_dialect(sim: Simulator, path: str, n_first: int) -> None:
    headers = {"Authorization": f"Bearer {sim.key}"}
    async with socket(sim, path, headers=headers) as ws:
        session = (await ws.receive_json())["session"]
        assert ("modalities" in session) == (path == PREVIEW_OK)
        assert session["object"] == f"realtime.{'transcription_' if 'intent' in path else ''}session"
        if n_first == 2:
            assert (await ws.receive_json())["type"] == "conversation.created"
        assert sim.n_sessions == 1
    await nobody_left(sim)


@pytest.mark.parametrize("path", [GA_OK, PREVIEW_OK])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"api-key": "wrong"},
        {"api-key": ""},
        {"api-key": "kéy"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer ek_wrong"},
        {"Authorization": "Basic KEY"},
        {"Authorization": "KEY"},
        {"api-key": "KEY", "Authorization": "Bearer KEY"},
    ],
)
async def test_azure_refuses_a_wrong_key_with_401(sim: Simulator, path: str, headers: dict[str, str]) -> None:
    headers = {name: value.replace("KEY", sim.key) for name, value in headers.items()}
    status, error = await refusal(sim, path, headers=headers)
    assert (status, error["code"]) == (401, "401")
    assert sim.key not in json.dumps(error)
    assert sim.n_sessions == 0


@pytest.mark.parametrize("path", [GA_OK, PREVIEW_OK])
async def test_azure_takes_the_key_in_the_query(sim: Simulator, path: str) -> None:
    async with socket(sim, f"{path}&api-key={sim.key}", headers={}) as ws:
        assert (await ws.receive_json())["type"] == "session.created"


@pytest.mark.parametrize("headers", [{}, {"api-key": "KEY"}])
async def test_openai_takes_no_api_key_from_query_or_header(sim: Simulator, headers: dict[str, str]) -> None:
    given = dict.fromkeys(headers, sim.key)
    async with socket(sim, f"{OPENAI_OK}&api-key={sim.key}", headers=given) as ws:
        assert (await goodbye(ws))[1] == 3000


async def test_openai_refuses_the_beta_also_as_a_subprotocol(sim: Simulator) -> None:
    protocols = ("realtime", f"openai-insecure-api-key.{sim.key}", "openai-beta.realtime-v1")
    async with socket(sim, OPENAI_OK, headers={}, protocols=protocols) as ws:
        said, code, _ = await goodbye(ws)
    assert (said[-1]["error"]["code"], code) == ("beta_api_shape_disabled", 4000)


async def test_the_preview_knows_no_such_version(sim: Simulator) -> None:
    status, error = await refusal(sim, PREVIEW_OK.replace("2025-04-01-preview", "1999"), headers=key_of(sim))
    assert (status, error["code"]) == (404, "404")


@pytest.mark.parametrize("path", [GA_OK, OPENAI_OK])
async def test_a_browser_shows_the_key_as_a_subprotocol(sim: Simulator, path: str) -> None:
    protocols = ("realtime", f"openai-insecure-api-key.{sim.key}")
    async with socket(sim, path, headers={}, protocols=protocols) as ws:
        assert ws.protocol == "realtime"
        assert (await ws.receive_json())["type"] == "session.created"


@pytest.mark.parametrize(
    "headers, code, close, reason",
    [
        ({"Authorization": "Bearer wrong"}, "invalid_api_key", 3000, "invalid_request_error.invalid_api_key"),
        ({}, None, 3000, "invalid_request_error"),
        (
            {"Authorization": "Bearer KEY", "OpenAI-Beta": "realtime=v1"},
            "beta_api_shape_disabled",
            4000,
            "invalid_request_error.beta_api_shape_disabled",
        ),
    ],
)
async def test_openai_accepts_says_error_and_closes(
    sim: Simulator, headers: dict[str, str], code: str | None, close: int, reason: str
) -> None:
    headers = {name: value.replace("KEY", sim.key) for name, value in headers.items()}
    async with socket(sim, OPENAI_OK, headers=headers) as ws:
        said, closed, why = await goodbye(ws)
    assert [message["type"] for message in said] == ["error"]
    assert said[0]["error"]["code"] == code
    assert (closed, why) == (close, reason)


async def test_azure_does_not_mind_the_beta_header(sim: Simulator) -> None:
    async with socket(sim, GA_OK, headers={**key_of(sim), "OpenAI-Beta": "realtime=v1"}) as ws:
        assert (await ws.receive_json())["type"] == "session.created"


@pytest.mark.parametrize(
    "path, status, code",
    [
        (f"{GA_OK}&api-version=2025-04-01-preview", 401, "401"),
        (GA, 404, "DeploymentNotFound"),
        (f"{GA}?deployment=m", 404, "DeploymentNotFound"),
        (f"{PREVIEW}?api-version=2025-04-01-preview", 404, "404"),
        (f"{PREVIEW}?api-version=2025-04-01-preview&model=m", 404, "404"),
        (f"{PREVIEW}?deployment=m", 404, "404"),
        ("/openai/realtime/nothing", 404, "404"),
        ("/", 404, "404"),
    ],
)
async def test_a_wrong_address_is_refused(sim: Simulator, path: str, status: int, code: str) -> None:
    answer, error = await refusal(sim, path, headers=key_of(sim))
    assert (answer, error["code"]) == (status, code)


async def test_a_plain_request_is_told_to_speak_websocket(sim: Simulator) -> None:
    async with aiohttp.ClientSession() as http, http.get(sim.url + GA_OK, headers=key_of(sim)) as answer:
        assert answer.status == 426


async def test_a_broken_handshake_leaves_no_session(sim: Simulator) -> None:
    headers = {**key_of(sim), "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    async with aiohttp.ClientSession() as http, http.get(sim.url + GA_OK, headers=headers) as answer:
        assert answer.status == 400
    assert sim.n_sessions == 0


async def test_many_handshakes_at_once_keep_their_sessions_apart(sim: Simulator) -> None:
    async def talk() -> str:
        async with socket(sim, GA_OK) as ws:
            return str((await ws.receive_json())["session"]["id"])

    assert len(set(await asyncio.gather(*(talk() for _ in range(20))))) == 20
    await nobody_left(sim)


# --- pages ------------------------------------------------------------------------------------------------------------

PAGE = "http://localhost:8888"


async def test_a_page_may_make_calls_only(sim: Simulator) -> None:
    async with aiohttp.ClientSession() as http:
        asking = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        async with http.options(f"{sim.url}/v1/realtime/calls", headers=asking) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
        async with http.post(f"{sim.url}/v1/realtime/calls", headers={"Origin": PAGE}) as refused:
            assert refused.status == 401
            assert refused.headers["Access-Control-Allow-Origin"] == PAGE  # so that the page can read why
        page = {"Origin": PAGE, "Authorization": f"Bearer {sim.key}"}
        async with http.post(f"{sim.url}/v1/realtime/client_secrets", headers=page, json={}) as refused:
            assert refused.status == 403
            assert "Access-Control-Allow-Origin" not in refused.headers
    status, error = await refusal(sim, GA_OK, headers={**key_of(sim), "Origin": PAGE})
    assert (status, error["code"]) == (403, "origin_not_allowed")


# --- ephemeral keys ---------------------------------------------------------------------------------------------------


async def post(
    sim: Simulator, path: str, body: Any, *, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    headers = key_of(sim, path) if headers is None else headers
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    headers = {"Content-Type": "application/json", **headers}
    async with aiohttp.ClientSession() as http, http.post(sim.url + path, data=data, headers=headers) as answer:
        return answer.status, await answer.json()


PREVIEW_KEYS = "/openai/realtimeapi/sessions?api-version=2025-04-01-preview"


async def test_a_ga_key_opens_sessions_as_it_was_made(sim: Simulator) -> None:
    asked = {"type": "realtime", "model": "dep", "instructions": "Whales.", "audio": {"output": {"voice": "marin"}}}
    status, made = await post(sim, "/openai/v1/realtime/client_secrets", {"session": asked})
    assert status == 200
    assert made["value"].startswith("ek_")
    assert made["session"]["audio"]["output"]["voice"] == "marin"
    for _ in range(2):  # it may open several
        async with socket(sim, GA, headers={"Authorization": f"Bearer {made['value']}"}) as ws:
            session = (await ws.receive_json())["session"]
            assert (session["instructions"], session["model"]) == ("Whales.", "dep")
            assert session["audio"]["output"]["voice"] == "marin"
            assert session["audio"]["input"]["turn_detection"]["threshold"] == 0.5


async def test_a_preview_key_opens_sessions_as_it_was_made(sim: Simulator) -> None:
    status, made = await post(sim, PREVIEW_KEYS, {"model": "dep", "voice": "verse"})
    assert status == 200
    assert made["voice"] == "verse"
    assert made["modalities"] == ["text", "audio"]
    headers = {"Authorization": f"Bearer {made['client_secret']['value']}"}
    async with socket(sim, PREVIEW_OK, headers=headers) as ws:
        assert (await ws.receive_json())["session"]["voice"] == "verse"


async def test_a_key_for_transcription_opens_such_a_session(sim: Simulator) -> None:
    for path, body in (
        ("/v1/realtime/client_secrets", {"session": {"type": "transcription"}}),
        (PREVIEW_KEYS.replace("sessions", "transcription_sessions"), {"turn_detection": None}),
    ):
        status, made = await post(sim, path, body)
        assert status == 200, made
        ga = "value" in made
        key = made["value"] if ga else made["client_secret"]["value"]
        where = GA_OK if ga else PREVIEW_OK
        async with socket(sim, where, headers={"Authorization": f"Bearer {key}"}) as ws:
            message = await ws.receive_json()
            assert message["type"] == ("session.created" if ga else "transcription_session.created")
            assert message["session"]["object"] == "realtime.transcription_session"


@pytest.mark.parametrize(
    "path, body, status, code",
    [
        ("/v1/realtime/client_secrets", b"{", 400, "invalid_json"),
        ("/v1/realtime/client_secrets", b"\xff", 400, "invalid_json"),
        ("/v1/realtime/client_secrets", [], 400, "invalid_json"),
        ("/v1/realtime/client_secrets", {"session": {"type": "realtime", "voice": "x"}}, 400, "unknown_parameter"),
        ("/v1/realtime/client_secrets", {"session": 3}, 400, None),
        ("/v1/realtime/client_secrets", {"model": "m", "voice": "alloy"}, 400, "unknown_parameter"),
        ("/v1/realtime/client_secrets", {"session": {}}, 400, "missing_required_parameter"),
        ("/v1/realtime/client_secrets", {"expires_after": {"seconds": 9}}, 400, "invalid_value"),
        ("/v1/realtime/client_secrets", {"expires_after": {"seconds": 7201}}, 400, "invalid_value"),
        ("/v1/realtime/client_secrets", {"expires_after": 5}, 400, "invalid_value"),
        ("/openai/v1/realtime/client_secrets?api-version=1", {}, 400, "400"),
        (PREVIEW_KEYS, {"session": {}}, 400, "unknown_parameter"),
        (PREVIEW_KEYS, {"client_secret": {"expires_after": {"seconds": 5}}}, 400, "invalid_value"),
        ("/openai/realtimeapi/sessions", {}, 404, "404"),
        ("/v1/realtime/client_secrets", b"x" * (1 << 21), 413, "413"),
    ],
)
async def test_a_wrong_request_for_a_key(sim: Simulator, path: str, body: Any, status: int, code: str | None) -> None:
    answer, said = await post(sim, path, body)
    assert answer == status
    if code is not None:
        assert said["error"]["code"] == code


async def test_who_may_make_keys(sim: Simulator) -> None:
    path = "/v1/realtime/client_secrets"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert (await post(sim, path, {}, headers=headers))[0] == 401
    value = (await post(sim, path, {}))[1]["value"]
    assert (await post(sim, path, {}, headers={"Authorization": f"Bearer {value}"}))[0] == 401
    assert (await post(sim, path, {}, headers={"api-key": value}))[0] == 401


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seconds, lives", [(None, 600), (10, 10)])
async def test_a_key_expires_and_the_open_session_goes_on(seconds: int | None, lives: int) -> None:
    clock = Clock()
    service = Service(world(), KeyRing("main", wall=clock))
    runner = web.AppRunner(service.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as http:
            body = {"expires_after": {"anchor": "created_at", "seconds": seconds}} if seconds else {}
            headers = {"Authorization": "Bearer main"}
            async with http.post(f"{url}/v1/realtime/client_secrets", json=body, headers=headers) as answer:
                made = await answer.json()
            assert made["expires_at"] == clock.now + lives
            headers = {"Authorization": f"Bearer {made['value']}"}
            clock.now += lives - 1
            async with http.ws_connect(url + GA_OK, headers=headers) as ws:
                await ws.receive_json()
                clock.now += 1
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await http.ws_connect(url + GA_OK, headers=headers)
                assert refused.value.status == 401
                await ws.send_json({"type": "input_audio_buffer.clear"})
                assert (await ws.receive_json())["type"] == "input_audio_buffer.cleared"
    finally:
        await runner.cleanup()


# --- life of a socket -------------------------------------------------------------------------------------------------


async def test_a_client_that_goes_in_the_middle_of_an_append_leaves_nothing(sim: Simulator) -> None:
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(sim.url + GA_OK, headers=key_of(sim))
        await ws.receive_json()
        connection = ws._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.write(b"\x81\xfe\xff\xff\x00\x00\x00\x00" + b"x" * 100)  # of 65535 bytes
        connection.transport.abort()
        await nobody_left(sim)
    async with socket(sim, GA_OK) as ws:
        assert (await ws.receive_json())["type"] == "session.created"


async def test_a_message_beyond_all_measure_closes_with_1009(sim: Simulator) -> None:
    async with socket(sim, GA_OK) as ws:
        await ws.receive_json()
        with contextlib.suppress(ConnectionError):
            await ws.send_str("x" * (33 << 20))
        assert (await goodbye(ws))[1] in (1009, 1006)


async def test_an_error_of_ours_closes_with_1011_and_is_logged(
    sim: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    async with socket(sim, GA_OK) as ws:
        await ws.receive_json()
        (session,) = sim._started().service.sessions
        session._turns = None  # type: ignore[assignment]
        await ws.send_json({"type": "input_audio_buffer.append", "audio": "AAA="})
        assert (await goodbye(ws))[1] == 1011
    assert "a session ended by an error" in caplog.text


async def test_tls_with_a_client_that_trusts_the_certificate() -> None:
    with Simulator(latency="fast", voice="babble", tls=True) as sim:
        assert sim.url.startswith("https://")
        assert sim.certificate_pem is not None
        trust = ssl.create_default_context(cadata=sim.certificate_pem)
        trust.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        async with socket(sim, GA_OK, ssl=trust) as ws:
            assert (await ws.receive_json())["type"] == "session.created"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            async with socket(sim, GA_OK):
                pass
        transport = await sim.open()
        assert "session.created" in await transport.receive()
        await transport.close()
        key = await sim.ephemeral_key(expires_after_s=60)
        assert 50 < key.seconds_left() <= 60
