"""Every fault on demand, over a real socket, as a client meets it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from rtnb.simulator import Simulator
from tests.simulator.plain import fetch

ASK = [
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
    },
    {"type": "response.create"},
]


@dataclass
class Seen:
    """What one client received."""

    messages: list[dict[str, Any]]
    close_code: int | None = None
    reason: str = ""

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]


async def turn(
    *faults: str, last: str = "response.done", asks: list[Any] = ASK, pause_s: float = 20.0, **options: Any
) -> Seen:
    """Hold a written turn with these faults, to its end, to that of the connection, or to a pause."""
    with Simulator(latency="fast", voice="babble", faults=faults, **options) as sim:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{sim.url}/openai/v1/realtime?model=m", headers={"api-key": sim.key}) as ws,
        ):
            for ask in asks:
                await ws.send_json(ask)
            seen = Seen([])
            while last not in seen.types:
                try:
                    message = await ws.receive(timeout=pause_s)
                except TimeoutError:
                    break
                if message.type != WSMsgType.TEXT:
                    seen.close_code, seen.reason = ws.close_code, message.extra or ""
                    break
                seen.messages.append(json.loads(message.data))
            return seen


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
@pytest.mark.parametrize("path", ["/openai/v1/realtime?model=m", "/v1/realtime?model=m"])
async def test_the_connection_is_refused_once(status: int, path: str) -> None:
    with Simulator(latency="fast", voice="babble", faults=(f"http={status}:0x1",)) as sim:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {sim.key}"}) as http:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(sim.url + path)
            assert refused.value.status == status
            if status == 429:
                assert int((refused.value.headers or {})["retry-after-ms"]) > 0
            async with http.ws_connect(sim.url + path) as ws:
                assert (await ws.receive_json())["type"] == "session.created"


@pytest.mark.parametrize(
    "fault, status, details",
    [
        ("failed=rate_limit_exceeded", "failed", {"type": "failed", "error": {"code": "rate_limit_exceeded"}}),
        ("failed", "failed", {"type": "failed", "error": {"type": "server_error"}}),
        ("incomplete", "incomplete", {"type": "incomplete", "reason": "content_filter"}),
        ("incomplete=max_output_tokens@1", "incomplete", {"type": "incomplete", "reason": "max_output_tokens"}),
    ],
)
async def test_a_response_fails_or_is_cut_short(fault: str, status: str, details: dict[str, Any]) -> None:
    first = (await turn(fault)).messages[-1]["response"]
    assert first["status"] == status
    found = first["status_details"]
    error = details.get("error", {})
    assert {**found, "error": {name: found["error"][name] for name in error}} == details if error else found == details
    assert [item["status"] for item in first["output"]] == (["incomplete"] if status == "incomplete" else [])
    assert (await turn(f"{fault.partition('@')[0]}@2")).messages[-1]["response"]["status"] == "completed"


async def test_requests_have_ids_and_azure_names_its_region(sim: Simulator) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {sim.key}"}) as http:
        async with http.ws_connect(f"{sim.url}/openai/v1/realtime?model=m") as ws:
            headers = ws._response.headers
            assert headers["x-ms-region"]
            assert headers["apim-request-id"] == headers["x-request-id"]
        async with http.post(f"{sim.url}/v1/realtime/client_secrets", json={}) as answer:
            assert len(answer.headers["x-request-id"]) == 36
            assert "x-ms-region" not in answer.headers


async def test_keys_are_refused_as_well() -> None:
    with Simulator(latency="fast", voice="babble", faults=("http=403",)) as sim:
        url, headers = f"{sim.url}/v1/realtime/client_secrets", {"Authorization": f"Bearer {sim.key}"}
        assert (await fetch(url, headers=headers, json={})).status == 403


async def test_latency_delays_all_and_keeps_the_order() -> None:
    plain = (await turn()).types
    began = time.perf_counter()
    assert (await turn("latency=300")).types == plain
    assert time.perf_counter() - began > 0.3


UPDATE = {"type": "session.update", "event_id": "u", "session": {"type": "realtime", "instructions": "Whales."}}


@pytest.mark.parametrize(
    "kind, n_left",
    [
        ("session.updated", 1),
        ("conversation.item.added", 1),
        ("response.created", 0),
        ("response.done", 0),
        ("rate_limits.updated", 0),
    ],
)
async def test_the_first_event_of_its_kind_is_lost(kind: str, n_left: int) -> None:
    last = "response.done" if kind == "rate_limits.updated" else "rate_limits.updated"
    seen = await turn(f"drop@{kind}", asks=[UPDATE, UPDATE, *ASK], last=last)
    assert seen.types.count(kind) == n_left


async def test_an_error_without_a_name_is_the_only_answer() -> None:
    faults = ("error=invalid_value@session.updated", "drop@session.updated")
    seen = await turn(*faults, asks=[UPDATE, *ASK])
    assert "session.updated" not in seen.types
    (error,) = [message["error"] for message in seen.messages if message["type"] == "error"]
    assert (error["code"], error["event_id"]) == ("invalid_value", None)
    assert seen.types[-1] == "response.done"


async def test_an_error_at_connect_and_silence_from_then_on() -> None:
    faults = ("error=server_error@session.created", "drop@*:0x1000000")
    seen = await turn(*faults, asks=[UPDATE, *ASK], pause_s=0.5)
    assert (seen.types, seen.close_code) == (["error"], None)


@pytest.mark.parametrize("code", [1011, 1006, 4000])
async def test_the_connection_closes_in_the_middle_of_a_turn(code: int) -> None:
    seen = await turn(f"close={code}@response.output_audio.delta:1")
    assert seen.types.count("response.output_audio.delta") == 1
    assert "response.done" not in seen.types
    assert seen.close_code == code


async def test_an_expired_key() -> None:
    seen = await turn("expired_key", asks=[])  # the service may be gone before they are all sent
    assert seen.types == ["error"]
    assert seen.messages[0]["error"]["code"] == "invalid_api_key"
    assert (seen.close_code, seen.reason) == (3000, "invalid_request_error.invalid_api_key")


async def test_the_session_expires_on_demand() -> None:
    seen = await turn("expire@response.output_audio.delta:2")
    assert seen.messages[-1]["error"]["code"] == "session_expired"
    assert "60 minutes" in seen.messages[-1]["error"]["message"]
    assert seen.close_code == 1001


async def test_the_session_expires_at_its_cap_and_sends_nothing_before() -> None:
    seen = await turn(asks=[], session_minutes=1.2 / 60)
    ended_at = time.time()
    assert seen.types == ["session.created", "error"]
    error = seen.messages[-1]["error"]
    assert (error["type"], error["code"], error["event_id"]) == ("invalid_request_error", "session_expired", None)
    assert error["message"] == "Your session hit the maximum duration of 0.02 minutes."
    assert (seen.close_code, seen.reason) == (1001, error["message"])
    assert -0.3 <= ended_at - seen.messages[0]["session"]["expires_at"] <= 10  # whole seconds on the wire


async def test_a_step_of_a_scenario_brings_its_own_fault() -> None:
    steps = [{"say": "One.", "faults": ["close=1011@response.output_audio.delta"]}]
    seen = await turn(scenario={"steps": steps})
    assert "response.output_audio.delta" not in seen.types
    assert seen.close_code == 1011
