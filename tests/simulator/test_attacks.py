"""One client attacks; the others go on, and what was used is free afterwards: laws 10 and 11.

Times on a shared machine say little, so most tests measure the CPU time of single steps of the simulator's event loop:
nothing else runs during such a step. `tests.benchmarks.attacks` prints the lateness of a conversation meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from asyncio.events import Handle
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from rtnb.simulator import Simulator, delivery, host, service
from rtnb.simulator.admission import MOST_GRANTS
from tests.benchmarks import attacks
from tests.simulator.plain import gone
from tests.simulator.rig import PATIENCE_S, Rig

LONGEST_MS = 250.0
"""CPU time of a step, at most. The longest measured is 52 ms: a socket that hands over 20 MB. Before the slices it was
1,700 ms."""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """CPU ms of every step of event loops in other threads than the test's.

    Objects of the test run are kept out of garbage collection: going through all of them took up to 0.3 s, in whichever
    step it came.
    """
    taken: list[float] = []
    run, mine = Handle._run, threading.get_ident()

    def timed(self: Handle) -> None:
        if threading.get_ident() == mine:
            return run(self)
        began = time.thread_time()
        run(self)
        taken.append((time.thread_time() - began) * 1000)
        return None

    monkeypatch.setattr(Handle, "_run", timed)
    gc.collect()
    gc.freeze()
    yield taken
    gc.unfreeze()


def _line(sim: Simulator) -> dict[str, str]:
    return {"http": sim.url, "ga": f"ws{sim.url.removeprefix('http')}/openai/v1", "key": sim.key}


async def _converse(sim: Simulator, stop: asyncio.Event) -> int:
    """Written turns until `stop`; how many were answered."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    n_turns = 0
    async with attacks.socket(_line(sim)) as ws:
        while not stop.is_set():
            await ws.send_json({"type": "conversation.item.create", "item": item})
            await ws.send_json({"type": "response.create"})
            async with asyncio.timeout(PATIENCE_S):
                await attacks.until(ws, "response.done")
            n_turns += 1
            await asyncio.sleep(0.05)
    return n_turns


@pytest.mark.parametrize(
    "name, size",
    [
        ("big", {"count": 1}),
        ("tiny", {"count": 10_000}),
        ("outside", {"count": 1000, "seconds": 3.0}),
        ("unread", {"count": 300, "seconds": 0.5}),
        ("keys", {"count": 2000}),
        ("half_open", {"count": 90, "seconds": 1.0}),
        ("json", {"count": 1000}),
        ("instructions", {"count": 1}),
    ],
)
async def test_no_step_of_an_attack_is_long_and_a_conversation_goes_on(
    name: str, size: dict[str, Any], sim: Simulator, steps: list[float]
) -> None:
    stop = asyncio.Event()
    conversation = asyncio.create_task(_converse(sim, stop))
    await asyncio.sleep(0.3)
    steps.clear()
    async with asyncio.timeout(3 * PATIENCE_S):
        await attacks.ATTACKS[name](_line(sim), **size)  # type: ignore[call-arg]
    stop.set()
    assert await conversation > 0
    assert max(steps) < LONGEST_MS
    await gone(sim)  # every session of the attack, and its memory with it


async def test_ephemeral_keys_are_bounded(sim: Simulator) -> None:
    ring = sim._started().service.keys
    for _ in range(MOST_GRANTS + 100):
        ring.mint(None, lifetime_s=60.0)  # type: ignore[arg-type]
    assert len(ring._grants) == MOST_GRANTS


async def test_a_client_that_answers_no_ping_loses_its_seat(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PING_S", 0.6)
    url = f"{sim.url}/openai/v1/realtime?model=m"
    async with aiohttp.ClientSession(headers={"api-key": sim.key}) as http:
        alive, lost = await http.ws_connect(url), await http.ws_connect(url, autoping=False)
        for ws in (alive, lost):
            await ws.receive()
        reading = asyncio.create_task(attacks.until(alive, "never"))
        assert sim.n_sessions == 2
        async with asyncio.timeout(PATIENCE_S):
            while sim.n_sessions == 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)
        assert sim.n_sessions == 1  # who answers pings stays
        reading.cancel()
        await lost.close()
        await alive.close()


async def test_a_client_that_reads_nothing_loses_its_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LOST_S", 0.5)
    with Simulator(latency="fast", voice="babble") as sim:
        async with attacks.socket(_line(sim)) as ws:
            line = ws._response.connection.transport
            line.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.pause_reading()
            for _ in range(200):
                await ws.send_str(attacks.OUTSIDE)
            await gone(sim)
            line.abort()


_POST = (
    b"POST /v1/realtime/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer KEY\r\nContent-Type: %s\r\n"
    b"Content-Length: 99\r\n\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /openai/v1/realtime?model=m HTTP/1.1\r\nHost: x\r\n",
        b"GET /none HTTP/1.1\r\nHost: x\r\n\r\nGET /none HT",
        _POST % (b"client_secrets", b"application/json") + b"{",
        _POST % (b"calls", b"multipart/form-data; boundary=b") + b"--b\r\n",
    ],
    ids=["nothing", "half the headers", "half of a second request", "half of a body", "half of an offer"],
)
async def test_half_a_request_is_closed_and_a_session_stays(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "REQUEST_S", 0.4)
    monkeypatch.setattr(service, "REQUEST_S", 0.4)
    with Simulator(latency="fast", voice="babble") as sim:
        async with attacks.socket(_line(sim)) as ws:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
            writer.write(sent.replace(b"KEY", sim.key.encode()))
            async with asyncio.timeout(PATIENCE_S / 2):
                answer = await reader.read()
            assert (b" 408 " in answer) == sent.startswith(b"POST")
            writer.close()
            await ws.send_json({"type": "input_audio_buffer.clear"})
            await attacks.until(ws, "input_audio_buffer.cleared")


@pytest.mark.parametrize(
    "change, code",
    [
        (lambda text: text, None),
        (lambda text: text.replace("AAAA", "AA/\\/", 1), None),  # an escape that JSON allows
        (lambda text: text[:600_000] + "=" + text[600_001:], "invalid_value"),
        (lambda text: text[:600_000] + "*" + text[600_001:], "invalid_value"),
        (lambda text: text[:-2], "invalid_json"),
    ],
)
async def test_an_append_in_slices_is_judged_like_a_short_one(change: Any, code: str | None) -> None:
    text = change(attacks.append(600_000))
    async with Rig(settings={"turn_detection": None}) as rig:
        await rig.session.receive(text)
        if code is not None:
            assert (await rig.refusal())["code"] == code
        assert rig.session.heard_ms == (12_500 if code is None else 0)
        assert rig.session.state.input_audio_buffer.bytes == (600_000 if code is None else 0)
        rig.in_step = False  # what the client does not know that it sent


def _item(text: str) -> str:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    return json.dumps({"type": "conversation.item.create", "item": item})


_TOOLS = [{"type": "function", "name": f"t{number}"} for number in range(30_000)]


@pytest.mark.parametrize(
    "text, code, message",
    [
        (_item("a" * 300_000), "string_above_max_length", ""),
        (_item("ä" * 190_000), None, ""),
        (_item("ä" * 250_000), "invalid_value", "more than 200000 times the character \\"),
        (json.dumps({"type": "session.update", "session": {"tools": _TOOLS}}), "invalid_value", "50000 times"),
        ("1" * 1_000_000, "invalid_json", "JSON"),
        (" [" * 1_000_000, "invalid_json", "JSON"),
        (" " * 1_000_000 + '{"type":"input_audio_buffer.clear"}', None, ""),
    ],
    ids=["long item", "many escapes", "too many escapes", "too many values", "number", "brackets", "white space"],
)
async def test_a_long_message_is_judged_like_a_short_one(rig: Rig, text: str, code: str | None, message: str) -> None:
    await rig.session.receive(text)
    await rig.session.receive('{"type":"input_audio_buffer.clear"}')
    await rig.until("input_audio_buffer.cleared")
    errors = [event["error"] for event in rig.of("error")]
    assert [error["code"] for error in errors] == [code] * (code is not None)
    assert all(message in error["message"] for error in errors)
