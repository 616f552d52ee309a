"""Posting a WebRTC offer from here, and the region the preview's address depends on."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from rtnb.errors import AuthenticationError, ConnectError, RemoteProtocolError
from rtnb.transport import Azure, EphemeralKey, TargetFacts, mint
from rtnb.transport.offer import Answer, check_region, post_offer

VALUE = "ek_" + "68af296e8e408191a1120ab6383263c2"  # in two, so that no scanner takes it for a key
KEY = EphemeralKey(VALUE, expires_at=time.time() + 60)
FACTS = TargetFacts("azure", url="wss://res/openai/v1/realtime", model="m", auth="api-key")


@asynccontextmanager
async def service(**answer: Any) -> AsyncIterator[tuple[str, list[Any]]]:
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
    async with service(status=201, text="v=0\r\n", headers=headers) as (url, seen):
        answer = await post_offer(url, key=KEY, sdp="v=0\r\no=-", facts=FACTS)
    assert answer == Answer("v=0\r\n", call_id)
    sent, body = seen[0]
    assert body == "v=0\r\no=-"
    assert (sent["Authorization"], sent["Content-Type"]) == (f"Bearer {VALUE}", "application/sdp")


@pytest.mark.parametrize(
    "answer, kind, words",
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
async def test_a_refused_offer_says_why_and_never_the_key(answer: Any, kind: type[Exception], words: str) -> None:
    async with service(**answer) as (url, _):
        with pytest.raises(kind) as refused:
            await post_offer(url, key=KEY, sdp="v=0", facts=FACTS)
    assert words in refused.value.__notes__[0]
    assert VALUE not in str(refused.value) + repr(vars(refused.value))


async def test_nobody_there() -> None:
    with pytest.raises(ConnectError, match=r"could not set up a WebRTC call .*nothing listens"):
        await post_offer("http://127.0.0.1:9/calls", key=KEY, sdp="v=0", facts=FACTS)


def test_the_region_is_the_resources() -> None:
    assert check_region(None, None, "") is None
    assert check_region(None, "Sweden Central", "") == check_region("swedencentral", "Sweden Central", "")
    with pytest.raises(ConnectError, match="the resource is in swedencentral, but region= says eastus2"):
        check_region("East US 2", "Sweden Central", "")


async def test_the_preview_learns_its_region_from_the_key() -> None:
    azure = Azure("https://res.openai.azure.com", deployment="d", api_key="k" * 32, dialect="preview")
    session = {"client_secret": {"value": VALUE, "expires_at": time.time() + 60}}
    async with service(text=json.dumps(session), headers={"x-ms-region": "Sweden Central"}) as (url, _):
        key = await mint(url, headers={}, body={}, dialect="preview")
    where = azure.calls_url(seen_region=key.region)
    assert where == "https://swedencentral.realtimeapi-preview.ai.azure.com/v1/realtimertc?model=d"
    with pytest.raises(ConnectError, match="needs the region"):
        azure.calls_url()
    with pytest.raises(ConnectError, match="not 'westeurope'"):
        azure.calls_url(seen_region="West Europe")
