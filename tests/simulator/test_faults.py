"""Every fault on demand, as a client meets it: over a real socket, or on a clock that jumps."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from rtnb.protocol import events
from rtnb.simulator import Simulator
from tests.simulator.plain import HANDSHAKE, fetch
from tests.simulator.rig import Rig, world
from tests.simulator.test_session_timing import TimedRig, run

ASK = [
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
    },
    {"type": "response.create"},
]
UPDATE = {"type": "session.update", "event_id": "u", "session": {"type": "realtime", "instructions": "Whales."}}
CLEARED, DELTA, DONE = "input_audio_buffer.cleared", "response.output_audio.delta", "response.done"


@dataclass
class Seen:
    """Messages that one client received, and how its connection ended."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    close_code: int | None = None
    reason: str = ""

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [message["error"] for message in self.messages if message["type"] == "error"]


async def turn(
    *faults: str, last: str = "rate_limits.updated", asks: list[Any] = ASK, pause_s: float = 20.0, **options: Any
) -> Seen:
    """Hold a written turn with these faults, to its end, to that of the connection, or to a pause."""
    with Simulator(latency="fast", voice="babble", seed=1, faults=faults, **options) as sim:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{sim.url}/openai/v1/realtime?model=m", headers={"api-key": sim.key}) as ws,
        ):
            for ask in asks:
                await ws.send_json(ask)
            seen = Seen()
            while last not in seen.types:
                try:
                    message = await ws.receive(timeout=pause_s)
                except TimeoutError:
                    break
                if message.type != WSMsgType.TEXT:
                    seen.close_code, seen.reason = ws.close_code, message.extra or ""
                    break
                try:
                    seen.messages.append(json.loads(message.data))
                except json.JSONDecodeError:
                    seen.messages.append({"type": "no JSON", "text": message.data})
            return seen


@pytest.mark.parametrize(
    "faults, kind, number, instead",
    [
        ((f"drop@{DELTA}",), DELTA, 1, []),
        ((f"drop@{DELTA}:1x1",), DELTA, 2, []),
        ((" duplicate@response.done ",), DONE, 1, [DONE, DONE]),
        ((f"malformed@{DELTA}",), DELTA, 1, ["no JSON"]),
        (("unknown_event=rtnb.surprise@response.done",), DONE, 1, ["rtnb.surprise", DONE]),
        (("error=rate_limit_exceeded@response.done",), DONE, 1, ["error", DONE]),
        ((f"latency=5@{DELTA}", f"drop@{DELTA}", f"close@{DELTA}", f"error@{DELTA}"), DELTA, 1, ["error"]),
        (("http=401:9x1", "latency=1", f"drop@{CLEARED}", "close@3"), DONE, 1, [DONE]),
        (("drop@session.updated",), "session.updated", 1, []),
        (("drop@conversation.item.added",), "conversation.item.added", 1, []),
        (("drop@response.created",), "response.created", 1, []),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
async def test_a_fault_changes_its_event_and_no_other(
    faults: tuple[str, ...], kind: str, number: int, instead: list[str]
) -> None:
    expected = (await turn(asks=[UPDATE, *ASK])).types
    place = [at for at, found in enumerate(expected) if found == kind][number - 1]
    expected[place : place + 1] = instead
    seen = await turn(*faults, asks=[UPDATE, *ASK])
    assert seen.types == expected
    for message in seen.messages:
        assert message.get("text", '{"type": "response.output_audio.delta"').startswith(f'{{"type": "{DELTA}"')
    kinds = {error["code"] or error["type"] for error in seen.errors}
    assert kinds == ({"server_error" if len(faults) > 1 else "rate_limit_exceeded"} if "error" in instead else set())
    assert all(error["event_id"] is None for error in seen.errors)


async def cleared(*faults: str, count: int, number: int = 1) -> TimedRig:
    """Clear an empty buffer often at once."""
    async with TimedRig(world(faults=faults), number=number) as rig:
        for _ in range(count):
            rig.send(events.InputAudioBufferClear())
        await rig.rest()
        return rig


def test_latency_delays_and_adds_up() -> None:
    rig = run(cleared("latency=200", f"latency=50@{CLEARED}", count=3))
    assert rig.when("session.created") == [200.0]
    assert [at - 200.0 for at in rig.when(CLEARED)] == [250.0] * 3


def test_jitter_is_bounded_and_repeatable() -> None:
    first, again, other = (run(cleared(f"jitter=100@{CLEARED}", count=5, number=n)).when(CLEARED) for n in (3, 3, 4))
    assert 0 < first[0] <= max(first) <= 100
    assert first == again != other


def test_a_drop_by_chance() -> None:
    rig = run(cleared(f"drop=0.2@{CLEARED}", count=1000))
    assert 750 < len(rig.of(CLEARED)) < 850


async def test_a_turn_is_a_place() -> None:
    async with Rig(world(faults=("drop@2:1x2",), seed=1)) as rig:
        await rig.ask("hello")
        await rig.until("rate_limits.updated")  # the first event of the second turn
        n_before = len(rig.frames)
        await rig.ask("hello")
        assert rig.types[n_before] == "response.created"  # without the two events of the item
        rig.in_step = False  # the client does not know the item


async def test_the_faults_of_a_step_come_and_go_and_the_counts_of_the_others_stay() -> None:
    steps = [{"say": "One.", "faults": ["drop@response.output_text.done"]}, {"say": "Two."}]
    shared = world(faults=("error=once@response.created:1x1",), scenario={"steps": steps})
    async with Rig(shared) as rig:
        for n_errors in (0, 1):
            await rig.ask("hello", output_modalities=("text",))
            assert (len(rig.of("error")), len(rig.of("response.output_text.done"))) == (n_errors, n_errors)


@pytest.mark.parametrize(
    "fault, status, name, value",
    [
        ("failed=rate_limit_exceeded", "failed", "code", "rate_limit_exceeded"),
        ("failed", "failed", "type", "server_error"),
        ("incomplete", "incomplete", "reason", "content_filter"),
        ("incomplete=max_output_tokens", "incomplete", "reason", "max_output_tokens"),
    ],
)
async def test_a_response_fails_or_is_cut_short_in_its_turn(fault: str, status: str, name: str, value: str) -> None:
    async with Rig(world(faults=(f"{fault}@2",))) as rig:
        first, second, third = [await rig.ask("hello") for _ in range(3)]
        assert (first["status"], second["status"], third["status"]) == ("completed", status, "completed")
        details = second["status_details"]
        assert details["type"] == status
        assert details.get("error", details)[name] == value
        assert [item["status"] for item in second["output"]] == (["incomplete"] if status == "incomplete" else [])


# --- at the connection ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def faulty(fault: str) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Serve with a fault; a client with the key, and the address."""
    with Simulator(latency="fast", voice="babble", faults=(fault,)) as sim:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {sim.key}"}) as http:
            yield http, sim.url


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
@pytest.mark.parametrize("path", ["/openai/v1/realtime?model=m", "/v1/realtime?model=m"])
async def test_connections_are_refused_so_that_retrying_helps(status: int, path: str) -> None:
    found = []
    async with faulty(f"http={status}:1x2") as (http, url):
        for _ in range(4):
            async with http.get(url + path, headers=HANDSHAKE) as answer:
                found.append(answer.status)
                if answer.status == 429:
                    assert int(answer.headers["retry-after-ms"]) > 0
    assert found == [101, status, status, 101]


async def test_without_a_number_every_request_is_refused_also_one_for_a_key() -> None:
    async with faulty("http=403") as (http, url):
        for _ in range(3):
            async with http.post(f"{url}/v1/realtime/client_secrets", json={}) as answer:
                assert answer.status == 403


async def test_requests_have_ids_and_azure_names_its_region(sim: Simulator) -> None:
    url = f"{sim.url}/openai/v1/realtime?model=m"
    async with aiohttp.ClientSession() as http, http.ws_connect(url, headers={"api-key": sim.key}) as ws:
        headers = ws._response.headers
        assert headers["x-ms-region"]
        assert headers["apim-request-id"] == headers["x-request-id"]
    answer = await fetch(f"{sim.url}/v1/realtime/client_secrets", headers={"api-key": sim.key})
    assert len(answer.headers["x-request-id"]) == 36
    assert "x-ms-region" not in answer.headers


async def test_an_error_at_connect_and_silence_from_then_on() -> None:
    faults = ("error=server_error@session.created", "drop@*:0x1000000")
    seen = await turn(*faults, asks=[UPDATE, *ASK], pause_s=0.5)
    assert (seen.types, seen.close_code) == (["error"], None)


@pytest.mark.parametrize(
    "fault, code", [(f"close=1011@{DELTA}:1", 1011), (f"close@{DELTA}:1", 1006), (f"close=4000@{DELTA}:1", 4000)]
)
async def test_the_connection_closes_in_the_middle_of_a_turn(fault: str, code: int) -> None:
    seen = await turn(fault)
    assert seen.types.count(DELTA) == 1
    assert DONE not in seen.types
    assert seen.close_code == code


async def test_an_expired_key() -> None:
    seen = await turn("expired_key", asks=[])  # the service may be gone before they are all sent
    assert seen.types == ["error"]
    assert seen.errors[0]["code"] == "invalid_api_key"
    assert (seen.close_code, seen.reason) == (3000, "invalid_request_error.invalid_api_key")


async def test_the_session_expires_on_demand() -> None:
    seen = await turn(f"expire@{DELTA}:2")
    assert seen.errors[-1]["code"] == "session_expired"
    assert "60 minutes" in seen.errors[-1]["message"]
    assert seen.close_code == 1001


async def test_the_session_expires_at_its_cap_and_sends_nothing_before() -> None:
    seen = await turn(asks=[], session_minutes=1.2 / 60)
    ended_at = time.time()
    assert seen.types == ["session.created", "error"]
    (error,) = seen.errors
    assert (error["type"], error["code"], error["event_id"]) == ("invalid_request_error", "session_expired", None)
    assert error["message"] == "Your session hit the maximum duration of 0.02 minutes."
    assert (seen.close_code, seen.reason) == (1001, error["message"])
    assert -0.3 <= ended_at - seen.messages[0]["session"]["expires_at"] <= 10  # whole seconds on the wire
