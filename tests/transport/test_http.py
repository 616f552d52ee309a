"""Requests over HTTP: ephemeral keys, and the offers of WebRTC calls; their failures are in test_failures.py."""

import json
import logging
import time
from typing import Any

import pytest

from rtnb.errors import AuthenticationError, ConnectError, LocalProtocolError, RemoteProtocolError
from rtnb.transport import Azure, EphemeralKey, Headers, TargetFacts
from rtnb.transport.http import Answer, ephemeral_body, mint, post_offer
from tests.transport.conftest import CANARY, web_server

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
    headers, body = seen[0]
    assert headers["api-key"] == CANARY
    assert json.loads(body) == {"session": {}}


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
    with pytest.raises(ConnectError, match="needs the region"):
        azure.calls_url()
    with pytest.raises(ConnectError, match="not 'westeurope'"):
        azure.calls_url(seen_region="West Europe")
