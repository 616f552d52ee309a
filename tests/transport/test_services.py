"""Targets with a name: addresses, headers, environment, what each shows, ephemeral keys, offers of calls."""

import copy
import dataclasses
import json
import logging
import os
import pickle
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AzureKeyCredential

from rtnb.errors import AuthenticationError, ConnectError, LocalProtocolError, RemoteProtocolError
from rtnb.simulator import Simulator
from rtnb.transport import Azure, Custom, EphemeralKey, Headers, OpenAI, Target, TargetFacts
from rtnb.transport.http import Answer, ephemeral_body, mint, post_offer
from tests.transport.conftest import CANARY, Seen, web_server, with_locals

HOST = "https://res.openai.azure.com"


async def _token() -> str:
    return "entra-token-1"


def signed(seen: list[Seen]) -> list[tuple[str, dict[str, str], Any]]:
    """Return path, the headers that sign in, and the body of each request."""
    names = ("api-key", "Authorization", "OpenAI-Beta", "x-team")
    heads = [{name: one.headers[name] for name in names if name in one.headers} for one in seen]
    return [(one.path, head, json.loads(one.body or "null")) for one, head in zip(seen, heads, strict=True)]


async def visit(target: Azure | OpenAI | Custom, **options: str) -> None:
    transport = await target.open(**options)  # type: ignore[arg-type]
    assert await transport.receive() == "{}"
    await transport.close()


async def test_azure_opens_and_mints_with_one_header() -> None:
    async with web_server() as (address, seen):
        url = address.removesuffix("/x")
        await visit(Azure(url, deployment="voice", api_key=CANARY))
        await visit(Azure(url, deployment="voice", credential=_token))
        await visit(Azure(url, deployment="voice", api_key=CANARY, credential=_token))
        await visit(Azure(url, deployment="voice", api_key=EphemeralKey("ek_1", expires_at=4e9)))
        await visit(Azure(url, deployment="voice", api_key="ek_0123456789"))
        await visit(Azure(url, deployment="voice", credential=AzureKeyCredential(CANARY)))
        await visit(Azure(url, deployment="voice", dialect="preview", api_key=CANARY), intent="transcription")
        key = await Azure(url, deployment="voice", api_key=CANARY).ephemeral_key(expires_after_s=60)
        await Azure(url, deployment="voice", dialect="preview", api_key=CANARY).ephemeral_key(session={"voice": "ash"})
    version = "api-version=2025-04-01-preview"
    ga, preview = "/openai/v1/realtime?model=voice", f"/openai/realtime?{version}&deployment=voice"
    lifetime, wanted = {"anchor": "created_at", "seconds": 60}, {"type": "realtime", "model": "voice"}
    entra = {"Authorization": "Bearer entra-token-1"}
    assert signed(seen) == [
        (ga, {"api-key": CANARY}, None),
        (ga, entra, None),
        (ga, entra, None),
        (ga, {"Authorization": "Bearer ek_1"}, None),
        (ga, {"Authorization": "Bearer ek_0123456789"}, None),
        (ga, {"api-key": CANARY}, None),
        (f"{preview}&intent=transcription", {"api-key": CANARY}, None),
        ("/openai/v1/realtime/client_secrets", {"api-key": CANARY}, {"expires_after": lifetime, "session": wanted}),
        (f"/openai/realtimeapi/sessions?{version}", {"api-key": CANARY}, {"model": "voice", "voice": "ash"}),
    ]
    assert key.reveal() == "ek_0123456789"


async def test_openai_and_custom() -> None:
    async with web_server() as (address, seen):
        url = address.removesuffix("/x")
        await visit(OpenAI("gpt-realtime", api_key=CANARY, base_url=f"{url}/v1"))
        await visit(OpenAI("gpt-realtime", api_key=CANARY, base_url=f"{url}/v1"), call_id="rtc_1")
        await visit(Custom(f"{url}/gateway?tenant=a%20b", model="m"), intent="transcription")
        await visit(Custom(f"{url}/v1", dialect="preview", model="m", api_key=CANARY, headers={"x-team": "a"}))
    bearer = {"Authorization": f"Bearer {CANARY}"}
    assert signed(seen) == [
        ("/v1/realtime?model=gpt-realtime", bearer, None),
        ("/v1/realtime?call_id=rtc_1", bearer, None),
        ("/gateway/realtime?tenant=a%20b&model=m&intent=transcription", {}, None),
        ("/v1/realtime?model=m", {**bearer, "OpenAI-Beta": "realtime=v1", "x-team": "a"}, None),
    ]


@pytest.mark.parametrize(
    "target, representation, text",
    [
        (
            Azure(f"{HOST}/openai/v1/", deployment="voice", api_key=CANARY),
            f"Azure('{HOST}', deployment='voice', dialect='ga', auth='api-key')",
            f"Azure {HOST}, deployment voice, dialect ga, with an API key",
        ),
        (Azure(HOST, deployment="voice"), "Azure('", "keyless (Entra)"),
        (Azure(HOST, deployment="voice", credential=_token, api_key=CANARY), "Azure('", "api_key= is not used"),
        (OpenAI("m", api_key=CANARY), "OpenAI('m', auth='bearer')", "with an API key"),
        (Custom("ws://localhost:8765", api_key=CANARY, headers={"x-key": CANARY}), "Custom('", "with an API key"),
        (Custom("localhost:1"), "Custom('ws://localhost:1/v1/realtime', dialect='ga', auth='none')", "without a key"),
    ],
)
def test_a_target_describes_itself_without_secrets(target: Any, representation: str, text: str) -> None:
    assert isinstance(target, Target)
    assert representation in repr(target)
    assert text in str(target) == f"{target}"
    shown = f"{target!r} {target} {vars(target)} {target.facts} {dataclasses.astuple(target)}"
    assert CANARY[:8] not in shown
    assert copy.copy(target) == target
    if getattr(target, "api_key", None):
        with pytest.raises(TypeError):
            pickle.dumps(target)


def test_targets_are_frozen_values_that_can_be_changed_by_replace() -> None:
    azure = Azure(HOST, deployment="voice", api_key=CANARY)
    with pytest.raises(dataclasses.FrozenInstanceError):
        azure.deployment = "other"  # type: ignore[misc]
    other = dataclasses.replace(azure, deployment="other", dialect="preview")
    assert (other.model, other.api_version, other.api_key) == ("other", "2025-04-01-preview", azure.api_key)
    back = dataclasses.replace(other, deployment="voice", dialect="ga", api_version=None)
    assert back == azure
    assert len({azure, back, OpenAI(api_key="k1234"), Custom("ws://localhost:1")}) == 3


def test_custom_knows_azure_hosts() -> None:
    where = "wss://res.openai.azure.com/openai/v1/realtime?model=m"
    assert (Custom(where, api_key=CANARY).facts.auth, Custom(where).facts.auth) == ("api-key", "none")


def test_a_secret_in_an_address_is_not_shown() -> None:
    signed = Custom(f"wss://gate.example/realtime?sig={CANARY}")
    assert CANARY not in f"{signed!r} {signed} {signed.facts} {signed._where}"


async def test_a_traceback_with_local_variables_holds_no_key(unused_tcp_port: int) -> None:
    unused = f"http://127.0.0.1:{unused_tcp_port}"
    async with web_server(status=401, text=f"wrong key {CANARY}") as (served, _):
        for url in (unused, served.removesuffix("/x")):
            target = Azure(url, deployment="voice", api_key=CANARY)
            for attempt in (target.open, target.ephemeral_key):
                with pytest.raises(ConnectError) as info:
                    await attempt()
                assert "headers = " in with_locals(info)
                assert CANARY[:12] not in with_locals(info)


@pytest.mark.parametrize("dialect", ["ga", "preview"])
@pytest.mark.parametrize("intent", [None, "transcription"])
async def test_a_key_of_the_simulator_opens_a_session(dialect: Any, intent: str | None) -> None:
    """The path of the preview is the one of Microsoft's WebRTC quickstart, next to GA's ``client_secrets``."""
    with Simulator(latency="fast", voice="babble", tls=True) as simulator:
        trust = ssl.create_default_context(cadata=simulator.certificate_pem)
        azure = Azure(simulator.url, deployment="m", dialect=dialect, api_key=simulator.key, ssl=trust)
        key = await azure.ephemeral_key(session=None if intent else PRESET[dialect], intent=intent, expires_after_s=30)
        assert 20 < key.seconds_left() <= 30
        assert intent or "Be brief." in str(key.session)
        transport = await dataclasses.replace(azure, api_key=key).open()
        created = json.loads(await transport.receive())
        await transport.close()
    assert created["session"]["object"] == f"realtime.{'transcription_' if intent else ''}session"


PRESET = {"ga": {"instructions": "Be brief."}, "preview": {"instructions": "Be brief.", "voice": "verse"}}


async def test_a_failed_sign_in_names_the_address() -> None:
    with pytest.raises(AuthenticationError, match="no Entra token") as info:
        await Azure(HOST, deployment="voice", credential=lambda: "").open()
    assert info.value.url == HOST


async def test_openai_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuthenticationError, match="no OpenAI key") as info:
        await OpenAI().open()
    assert "OPENAI_API_KEY" in info.value.__notes__[0]
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    assert OpenAI().facts.auth == "bearer"
    with pytest.raises(ConnectError, match="2026-05-12"):
        OpenAI(dialect="preview")


ENV = {"AZURE_OPENAI_ENDPOINT": f"{HOST}/", "AZURE_OPENAI_DEPLOYMENT_NAME": "voice"}


def test_from_env() -> None:
    keyless = Azure.from_env(ENV)
    assert (keyless.endpoint, keyless.deployment, keyless.facts.auth) == (HOST, "voice", "entra")
    keyed = Azure.from_env({**ENV, "AZURE_OPENAI_API_KEY": CANARY})
    assert keyed.facts.auth == "api-key"
    assert Azure.from_env({**ENV, "AZURE_OPENAI_API_KEY": CANARY}, api_key=None).facts.auth == "entra"
    stray = Azure.from_env({**ENV, "AZURE_OPENAI_API_KEY": CANARY}, credential=_token)
    assert (stray.api_key, stray.facts.auth) == (None, "entra")
    assert Azure.from_env(ENV, deployment="other", region="eastus2").deployment == "other"
    old = {"AZURE_OPENAI_ENDPOINT": HOST, "AZURE_OPENAI_DEPLOYMENT": "voice"}
    assert Azure.from_env(old).deployment == "voice"
    whole = {"AZURE_OPENAI_ENDPOINT": f"{HOST}/openai/v1/realtime?model=voice"}
    assert Azure.from_env(whole) == Azure.from_env(ENV)


def test_a_version_in_the_environment_belongs_to_the_preview() -> None:
    env = {**ENV, "OPENAI_API_VERSION": "2024-10-01-preview"}
    assert Azure.from_env(env).api_version is None
    assert "api-version" not in Azure.from_env(env).facts.url
    preview = Azure.from_env(env, dialect="preview")
    assert (preview.api_version, preview.dialect) == ("2024-10-01-preview", "preview")
    assert Azure.from_env(ENV, dialect="preview").api_version == "2025-04-01-preview"


def test_all_missing_variables_are_named_at_once() -> None:
    with pytest.raises(ConnectError, match="not set: AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT_NAME") as info:
        Azure.from_env({"AZURE_OPENAI_ENDPOINT": ""})
    assert ".env" in info.value.__notes__[0]
    with pytest.raises(ConnectError, match="not set: AZURE_OPENAI_DEPLOYMENT_NAME"):
        Azure.from_env({"AZURE_OPENAI_ENDPOINT": HOST})


def test_a_dotenv_file_is_read_and_pollutes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(
        f'AZURE_OPENAI_ENDPOINT="{HOST}/"\nAZURE_OPENAI_DEPLOYMENT_NAME=of-the-file\nAZURE_OPENAI_API_KEY={CANARY}\n'
    )
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    before = dict(os.environ)
    assert Azure.from_env().deployment == "of-the-file"
    assert Azure.from_env(dotenv_path=tmp_path / ".env").facts.auth == "api-key"
    monkeypatch.setenv("AZURE_OPENAI_DEPLOYMENT_NAME", "of-the-environment")
    assert Azure.from_env().deployment == "of-the-environment"
    monkeypatch.setenv("AZURE_OPENAI_DEPLOYMENT_NAME", "")  # empty is not set
    assert Azure.from_env().deployment == "of-the-file"
    monkeypatch.delenv("AZURE_OPENAI_DEPLOYMENT_NAME")
    assert dict(os.environ) == before
    with pytest.raises(ConnectError, match="there is no file"):
        Azure.from_env(dotenv_path=tmp_path / "missing.env")
    with pytest.raises(ConnectError, match="not set"):
        Azure.from_env({})  # an environment of one's own: no file is looked for


def test_importing_the_room_loads_no_network_library() -> None:
    heavy = ("aiohttp", "websockets", "azure", "dotenv", "numpy")
    script = f"import sys, rtnb.transport; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


VALUE = "ek_" + "68af296e8e408191a1120ab6383263c2"  # in two, so that no scanner takes it for a key
FACTS = TargetFacts("azure", url="https://res/openai/v1/realtime/client_secrets", model="m", auth="api-key")
PREVIEW = TargetFacts("azure", "preview", model="m", auth="api-key")


def test_a_key_shows_everything_but_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    key = EphemeralKey(VALUE, expires_at=now + 57.9, dialect="preview", session={"id": "s", "client_secret": 1})
    assert repr(key) == "EphemeralKey(****, expires in 58 s, dialect=preview)"
    assert (key.session, key.reveal(), key.expired) == ({"id": "s"}, VALUE, False)
    assert key.seconds_left(now=key.expires_at - 10) == 10
    assert key.seconds_left(now=key.expires_at + 10) == 0
    assert EphemeralKey(VALUE, expires_at=1).expired


TRANSCRIBE = {"type": "transcription"}


@pytest.mark.parametrize(
    "dialect, session, expires_after_s, body",
    [
        ("ga", {}, None, {"session": {"type": "realtime", "model": "m"}}),
        ("ga", TRANSCRIBE, 600, {"expires_after": {"anchor": "created_at", "seconds": 600}, "session": TRANSCRIBE}),
        ("preview", TRANSCRIBE, 60, {"client_secret": {"expires_at": {"anchor": "created_at", "seconds": 60}}}),
        ("preview", {"voice": "alloy"}, None, {"model": "m", "voice": "alloy"}),
        (
            "preview",
            {},
            10,
            {"model": "m", "client_secret": {"expires_after": {"anchor": "created_at", "seconds": 10}}},
        ),
    ],
)
def test_bodies_of_both_dialects(dialect: Any, session: Any, expires_after_s: int | None, body: Any) -> None:
    assert ephemeral_body(dialect, session, model="m", expires_after_s=expires_after_s) == body


@pytest.mark.parametrize("seconds", [0, 9, 7201])
def test_impossible_lifetimes_are_refused(seconds: int) -> None:
    with pytest.raises(LocalProtocolError, match="10 to 7200 s"):
        ephemeral_body("ga", {}, expires_after_s=seconds)


def minting(answer: Any, *, status: int = 200) -> Any:
    """Serve a JSON answer."""
    return web_server(status=status, text=json.dumps(answer), content_type="application/json")


ENDS = int(time.time()) + 600
NESTED = {"client_secret": {"value": VALUE, "expires_at": ENDS}}


@pytest.mark.parametrize(
    "facts, status, answer, session",
    [
        (FACTS, 200, {"value": VALUE, "expires_at": ENDS, "session": {"id": "s", **NESTED}}, {"id": "s"}),
        (PREVIEW, 200, {"id": "s", "voice": "alloy", **NESTED}, {"id": "s", "voice": "alloy"}),
        (PREVIEW, 201, {"id": "s", "voice": "alloy", **NESTED}, {"id": "s", "voice": "alloy"}),
    ],
    ids=["ga", "preview", "preview, created"],
)
async def test_a_key_is_read_in_both_dialects(facts: TargetFacts, status: int, answer: Any, session: Any) -> None:
    async with minting(answer, status=status) as (url, seen):
        key = await mint(url, headers={"api-key": CANARY}, body={"session": {}}, facts=facts)
    assert (key.reveal(), key.expires_at, key.session, key.dialect) == (VALUE, ENDS, session, facts.dialect)
    assert signed(seen) == [("/x", {"api-key": CANARY}, {"session": {}})]


async def test_a_key_without_an_end_gets_the_usual_lifetime() -> None:
    async with minting({"value": VALUE, "expires_at": "soon", "session": "odd"}) as (url, _):
        key = await mint(url, headers={}, body={}, facts=PREVIEW)
    assert 50 < key.seconds_left() <= 60
    assert key.session == {}


@pytest.mark.parametrize("answer", [{}, {"value": None}, {"client_secret": VALUE}, [], "text", {"value": 7}])
async def test_an_answer_without_a_key(answer: Any) -> None:
    async with minting(answer) as (url, _):
        with pytest.raises(RemoteProtocolError, match="without a key") as info:
            await mint(url, headers={}, body={}, facts=FACTS)
    assert VALUE not in str(info.value)


async def test_no_log_holds_a_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with minting({"value": VALUE}) as (url, _):
            key = await mint(url, headers=Headers({"api-key": CANARY}), body={}, facts=FACTS)
            logging.getLogger(__name__).debug("got %s", key)
    assert "EphemeralKey(****" in caplog.text
    assert CANARY not in caplog.text
    assert VALUE not in caplog.text


# --- offers -----------------------------------------------------------------------------------------------------------

OFFER_KEY = EphemeralKey(VALUE, expires_at=time.time() + 60)


@pytest.mark.parametrize("location, call_id", [("/v1/realtime/calls/rtc_1?x=1", "rtc_1"), ("", None)])
async def test_an_offer_is_answered(location: str, call_id: str | None) -> None:
    headers = {"Location": location} if location else {}
    async with web_server(status=201, text="v=0\r\n", headers=headers) as (url, seen):
        answer = await post_offer(url, key=OFFER_KEY, sdp="v=0\r\no=-", facts=FACTS)
    assert answer == Answer("v=0\r\n", call_id)
    (sent,) = seen
    assert sent.body == "v=0\r\no=-"
    assert (sent.headers["Authorization"], sent.headers["Content-Type"]) == (f"Bearer {VALUE}", "application/sdp")


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
    async with web_server(**answer) as (url, _):
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
    async with web_server(text=json.dumps(session), headers={"x-ms-region": "Sweden Central"}) as (url, _):
        key = await mint(url, headers={}, body={}, facts=PREVIEW)
    where = azure.calls_url(seen_region=key.region)
    assert where == "https://swedencentral.realtimeapi-preview.ai.azure.com/v1/realtimertc?model=d"
    assert dataclasses.replace(azure, region="eastus2").calls_url() == where.replace("swedencentral", "eastus2")
    with pytest.raises(ConnectError, match="needs the region"):
        azure.calls_url()
    with pytest.raises(ConnectError, match="not 'westeurope'"):
        azure.calls_url(seen_region="West Europe")
