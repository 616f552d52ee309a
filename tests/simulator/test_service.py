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
from aiohttp import WSMsgType

from rtnb.simulator import Simulator
from rtnb.simulator.admission import MAX_LIFETIME_S
from tests.simulator.plain import HANDSHAKE, Answer, fetch, gone

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


async def created(sim: Simulator, path: str, **options: Any) -> dict[str, Any]:
    """The session as its first event shows it."""
    async with socket(sim, path, **options) as ws:
        first = await ws.receive_json()
        assert first["type"] in ("session.created", "transcription_session.created")
        return first["session"]  # type: ignore[no-any-return]


async def refusal(sim: Simulator, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and code of a refused handshake, asked for as a plain client does."""
    answer = await fetch(sim.url + path, "GET", headers=HANDSHAKE | headers)
    assert sim.key not in answer.text
    assert sim.n_sessions == 0
    return answer.status, answer.body["error"]["code"]


async def goodbye(ws: aiohttp.ClientWebSocketResponse) -> tuple[list[Any], int | None, str]:
    """Codes of the errors that are sent until the service closes, its close code and reason."""
    codes = []
    while (message := await ws.receive(timeout=10)).type == WSMsgType.TEXT:
        sent = json.loads(message.data)
        assert sent["type"] == "error"
        codes.append(sent["error"]["code"])
    return codes, ws.close_code, message.extra or ""


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
    await gone(sim)


@pytest.mark.parametrize("path", [GA_OK, PREVIEW_OK])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"api-key": "wrong"},
        {"api-key": ""},
        {"api-key": "kéy"},
        {"api-key": "KEY "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer ek_wrong"},
        {"Authorization": "Basic KEY"},
        {"Authorization": "KEY"},
        {"api-key": "KEY", "Authorization": "Bearer KEY"},
    ],
)
async def test_azure_refuses_a_wrong_key_with_401(sim: Simulator, path: str, headers: dict[str, str]) -> None:
    headers = {name: value.replace("KEY ", sim.key[:-1]).replace("KEY", sim.key) for name, value in headers.items()}
    assert await refusal(sim, path, headers) == (401, "401")


AS_PROTOCOL = ("realtime", "openai-insecure-api-key.KEY")


@pytest.mark.parametrize(
    "path, options",
    [
        pytest.param(f"{GA_OK}&api-key=KEY", {}, id="Azure, in the query"),
        pytest.param(f"{PREVIEW_OK}&api-key=KEY", {}, id="Azure's preview, in the query"),
        pytest.param(GA_OK, {"protocols": AS_PROTOCOL}, id="Azure, from a page"),
        pytest.param(OPENAI_OK, {"protocols": AS_PROTOCOL}, id="OpenAI, from a page"),
        pytest.param(GA_OK, {"headers": {"api-key": "KEY", "OpenAI-Beta": "realtime=v1"}}, id="Azure with beta header"),
    ],
)
async def test_other_ways_to_show_the_key(sim: Simulator, path: str, options: dict[str, Any]) -> None:
    headers = {name: value.replace("KEY", sim.key) for name, value in options.get("headers", {}).items()}
    protocols = [value.replace("KEY", sim.key) for value in options.get("protocols", ())]
    async with socket(sim, path.replace("KEY", sim.key), headers=headers, protocols=protocols) as ws:
        assert ws.protocol == ("realtime" if protocols else None)
        assert (await ws.receive_json())["type"] == "session.created"


BETA = ["beta_api_shape_disabled"]


@pytest.mark.parametrize(
    "query, headers, protocols, codes, close, reason",
    [
        ("", {"Authorization": "Bearer wrong"}, (), ["invalid_api_key"], 3000, ".invalid_api_key"),
        ("", {}, (), [None], 3000, ""),
        ("&api-key=KEY", {}, (), [None], 3000, ""),
        ("&api-key=KEY", {"api-key": "KEY"}, (), [None], 3000, ""),
        ("", {"Authorization": "Bearer KEY", "OpenAI-Beta": "realtime=v1"}, (), BETA, 4000, f".{BETA[0]}"),
        ("", {}, (*AS_PROTOCOL, "openai-beta.realtime-v1"), BETA, 4000, f".{BETA[0]}"),
    ],
)
async def test_openai_accepts_says_error_and_closes(
    sim: Simulator, query: str, headers: dict[str, str], protocols: Any, codes: Any, close: int, reason: str
) -> None:
    headers = {name: value.replace("KEY", sim.key) for name, value in headers.items()}
    protocols = [value.replace("KEY", sim.key) for value in protocols]
    path = OPENAI_OK + query.replace("KEY", sim.key)
    async with socket(sim, path, headers=headers, protocols=protocols) as ws:
        assert await goodbye(ws) == (codes, close, f"invalid_request_error{reason}")


@pytest.mark.parametrize(
    "path, status, code",
    [
        (f"{GA_OK}&api-version=2025-04-01-preview", 401, "401"),
        (GA, 404, "DeploymentNotFound"),
        (f"{GA}?deployment=m", 404, "DeploymentNotFound"),
        (PREVIEW_OK.replace("2025-04-01-preview", "1999"), 404, "404"),
        (f"{PREVIEW}?api-version=2025-04-01-preview", 404, "404"),
        (f"{PREVIEW}?api-version=2025-04-01-preview&model=m", 404, "404"),
        (f"{PREVIEW}?deployment=m", 404, "404"),
        ("/openai/realtime/nothing", 404, "404"),
        ("/", 404, "404"),
    ],
)
async def test_a_wrong_address_is_refused(sim: Simulator, path: str, status: int, code: str) -> None:
    assert await refusal(sim, path, key_of(sim)) == (status, code)


async def test_what_is_no_handshake_leaves_no_session(sim: Simulator) -> None:
    headers = key_of(sim)
    assert (await fetch(sim.url + GA_OK, "GET", headers=headers)).status == 426
    broken = {name: value for name, value in HANDSHAKE.items() if name != "Sec-WebSocket-Key"}
    assert (await fetch(sim.url + GA_OK, "GET", headers=broken | headers)).status == 400
    assert sim.n_sessions == 0


async def test_many_handshakes_at_once_keep_their_sessions_apart(sim: Simulator) -> None:
    sessions = await asyncio.gather(*(created(sim, GA_OK) for _ in range(20)))
    assert len({session["id"] for session in sessions}) == 20
    await gone(sim)


# --- pages ------------------------------------------------------------------------------------------------------------

PAGE = {"Origin": "http://localhost:8888"}


@pytest.mark.parametrize("path", ["/v1/realtime", "/openai/v1/realtime"])
async def test_a_page_may_make_calls_only_and_read_their_answers(sim: Simulator, path: str) -> None:
    calls, keys = (f"{sim.url}{path}/{place}" for place in ("calls", "client_secrets"))
    before = PAGE | {"Access-Control-Request-Method": "POST"}
    asked = await fetch(calls, "OPTIONS", headers=before)
    assert (asked.status, asked.headers["Access-Control-Allow-Origin"]) == (204, PAGE["Origin"])
    assert "authorization" in asked.headers["Access-Control-Allow-Headers"]
    refused = await fetch(calls, headers=PAGE | {"Authorization": "Bearer wrong"}, data="v=0")
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, PAGE["Origin"])
    assert refused.headers["Access-Control-Expose-Headers"] == "Location"
    assert (await fetch(keys, "OPTIONS", headers=before)).status == 403  # making keys is for pages that were named
    refused = await fetch(keys, headers=PAGE | key_of(sim, path), json={})
    assert (refused.status, "Access-Control-Allow-Origin" in refused.headers) == (403, False)
    assert await refusal(sim, GA_OK, key_of(sim) | PAGE) == (403, "origin_not_allowed")


# --- ephemeral keys ---------------------------------------------------------------------------------------------------


async def post(sim: Simulator, path: str, body: Any, *, headers: dict[str, str] | None = None) -> Answer:
    headers = {"Content-Type": "application/json", **(key_of(sim, path) if headers is None else headers)}
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    return await fetch(sim.url + path, data=data, headers=headers)


PREVIEW_KEYS = "/openai/realtimeapi/sessions?api-version=2025-04-01-preview"


async def test_a_ga_key_opens_sessions_as_it_was_made(sim: Simulator) -> None:
    asked = {"type": "realtime", "model": "dep", "instructions": "Whales.", "audio": {"output": {"voice": "marin"}}}
    made = (await post(sim, "/openai/v1/realtime/client_secrets", {"session": asked})).body
    assert made["value"].startswith("ek_")
    assert made["session"]["audio"]["output"]["voice"] == "marin"
    for _ in range(2):  # it may open several
        session = await created(sim, GA, headers={"Authorization": f"Bearer {made['value']}"})
        assert (session["instructions"], session["model"]) == ("Whales.", "dep")
        assert session["audio"]["output"]["voice"] == "marin"
        assert session["audio"]["input"]["turn_detection"]["threshold"] == 0.5


async def test_a_preview_key_opens_sessions_as_it_was_made(sim: Simulator) -> None:
    made = (await post(sim, PREVIEW_KEYS, {"model": "dep", "voice": "verse"})).body
    assert (made["voice"], made["modalities"]) == ("verse", ["text", "audio"])
    headers = {"Authorization": f"Bearer {made['client_secret']['value']}"}
    assert (await created(sim, PREVIEW_OK, headers=headers))["voice"] == "verse"


@pytest.mark.parametrize(
    "path, body, where",
    [
        ("/v1/realtime/client_secrets", {"session": {"type": "transcription"}}, GA_OK),
        (PREVIEW_KEYS.replace("sessions", "transcription_sessions"), {"turn_detection": None}, PREVIEW_OK),
    ],
)
async def test_a_key_for_transcription_opens_such_a_session(sim: Simulator, path: str, body: Any, where: str) -> None:
    made = (await post(sim, path, body)).body
    key = made["value"] if where == GA_OK else made["client_secret"]["value"]
    async with socket(sim, where, headers={"Authorization": f"Bearer {key}"}) as ws:
        message = await ws.receive_json()
        assert message["type"] == ("session.created" if where == GA_OK else "transcription_session.created")
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
    answer = await post(sim, path, body)
    assert answer.status == status
    if code is not None:
        assert answer.body["error"]["code"] == code


async def test_who_may_make_keys(sim: Simulator) -> None:
    path = "/v1/realtime/client_secrets"
    value = (await post(sim, path, {})).body["value"]
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {value}"}, {"api-key": value}):
        assert (await post(sim, path, {}, headers=headers)).status == 401


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seconds, lives", [(None, 600), (10, 10)])
async def test_a_key_expires_and_the_open_session_goes_on(
    sim: Simulator, seconds: int | None, lives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(sim._started().service.keys, "_wall", clock)
    body = {"expires_after": {"anchor": "created_at", "seconds": seconds}} if seconds else {}
    made = (await post(sim, "/v1/realtime/client_secrets", body)).body
    assert made["expires_at"] == clock.now + lives
    headers = {"Authorization": f"Bearer {made['value']}"}
    clock.now += lives - 1
    async with socket(sim, GA_OK, headers=headers) as ws:
        await ws.receive_json()
        clock.now += 1
        assert (await fetch(sim.url + GA_OK, "GET", headers=HANDSHAKE | headers)).status == 401
        for remembered in (True, False):
            offer = await fetch(
                f"{sim.url}{GA}/calls", headers=headers | {"Content-Type": "application/sdp"}, data="v=0"
            )
            assert (offer.status, "expired" in offer.text) == (401, remembered)
            clock.now += MAX_LIFETIME_S
            await post(sim, "/v1/realtime/client_secrets", {})  # a new one: it is forgotten at last
        await ws.send_json({"type": "input_audio_buffer.clear"})
        assert (await ws.receive_json())["type"] == "input_audio_buffer.cleared"


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
        await gone(sim)
    assert await created(sim, GA_OK)


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
        assert await created(sim, GA_OK, ssl=trust)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await created(sim, GA_OK)
        transport = await sim.open()
        assert "session.created" in await transport.receive()
        await transport.close()
        key = await sim.ephemeral_key(expires_after_s=60)
        assert 50 < key.seconds_left() <= 60
