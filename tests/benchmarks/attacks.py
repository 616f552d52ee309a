"""Lateness of a conversation while another client attacks the simulator.

::

    python -m tests.benchmarks.attacks              # all attacks
    python -m tests.benchmarks.attacks tiny json

The simulator is one process, ``rtnb simulate``; the attacker is another. Meanwhile a client of this process speaks and
is answered in real time; its lateness is measured as in :mod:`tests.benchmarks.sessions`. The first row has no attack:
it shows how busy the machine is.
"""

import asyncio
import base64
import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.benchmarks.sessions import LATENCY, messages, user
from tests.benchmarks.stage import cpu_s, late_ms, memory_mb, options, print_row, simulate

Line = dict[str, str]
LEAST_S, ATTACK_S = 10.0, 30.0  # an attack is repeated for so long, and ended after so long
CLEAR = '{"type":"input_audio_buffer.clear"}'
OUTSIDE = '{"type":"response.create","response":{"conversation":"none"}}'


@contextlib.asynccontextmanager
async def socket(line: Line) -> Any:
    """Open a session and read its first event."""
    async with (
        aiohttp.ClientSession(headers={"api-key": line["key"]}) as http,
        http.ws_connect(f"{line['ga']}/realtime?model=m", max_msg_size=0) as ws,
    ):
        await ws.receive()
        yield ws


async def until(ws: Any, kind: str, count: int = 1) -> None:
    """Read until so many events of a type came."""
    async for message in ws:
        count -= message.type == aiohttp.WSMsgType.TEXT and message.data.startswith(f'{{"type":"{kind}"')
        if not count:
            return
    raise ConnectionError("the simulator closed the connection")


def append(n_bytes: int) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(n_bytes)).decode()})


async def appended(n_bytes: int, line: Line, count: int) -> None:
    """Send an append so many times, and wait until all are heard."""
    text = append(n_bytes)
    async with socket(line) as ws:
        for _ in range(count):
            await ws.send_str(text)
        await ws.send_str(CLEAR)
        await until(ws, "input_audio_buffer.cleared")


async def outside(line: Line, count: int = 1000, seconds: float = 15.0) -> None:
    """Responses outside the conversation, all asked for at once."""
    async with socket(line) as ws:
        for _ in range(count):
            await ws.send_str(OUTSIDE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await until(ws, "response.done", count)


async def unread(line: Line, count: int = 1000, seconds: float = 8.0) -> None:
    """Ask for much and read nothing."""
    async with socket(line) as ws:
        ws._response.connection.transport.pause_reading()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for _ in range(count):
                    await ws.send_str(OUTSIDE)
                await asyncio.sleep(seconds)


async def keys(line: Line, count: int = 5000) -> None:
    """Ephemeral keys with long instructions."""
    body = {"session": {"type": "realtime", "instructions": "Speak slowly. " * 1000}}
    async with aiohttp.ClientSession(headers={"api-key": line["key"]}) as http:

        async def some(n: int) -> None:
            for _ in range(n):
                async with http.post(f"{line['http']}/openai/v1/realtime/client_secrets", json=body) as answer:
                    assert answer.status == 200, await answer.text()

        await asyncio.gather(*(some(count // 20) for _ in range(20)))


async def half_open(line: Line, count: int = 300, seconds: float = 5.0) -> None:
    """Connections that send nothing, half a request, or half a frame."""
    place = urlsplit(line["http"])
    request = (
        f"GET /openai/v1/realtime?model=m HTTP/1.1\r\nHost: x\r\napi-key: {line['key']}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()
    frame = b"\x81\xff" + (8 * 2**20).to_bytes(8, "big") + bytes(4) + b"x" * 1000
    writers = []
    for i in range(count):
        _, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write((b"", request[:60], request + frame)[i % 3])
        writers.append(writer)
    await asyncio.sleep(seconds)
    for writer in writers:
        writer.transport.abort()


async def invalid(line: Line, count: int = 5000) -> None:
    """JSON that is none: short and many, and long."""
    async with socket(line) as ws:
        reading = asyncio.create_task(until(ws, "error", count + 12))
        for _ in range(count):
            await ws.send_str("{" * 1000)
        escapes = '{"a":"' + "\\u0041" * 1_000_000
        for text in ("[" * 8_000_000, '{"type":' + '{"a":' * 100_000, escapes, "1" * 10_000_000):
            for _ in range(3):
                await ws.send_str(text)
        await reading


async def instructions(line: Line, count: int = 5) -> None:
    """Instructions of 8 MB, and valid events that are as long and deep."""
    long = "a b " * 2_000_000
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": long}]}
    tools = [{"type": "function", "name": f"t{i}", "parameters": {}} for i in range(60_000)]
    texts = [
        json.dumps({"type": "session.update", "session": {"type": "realtime", "instructions": long}}),
        json.dumps({"type": "response.create", "response": {"conversation": "none", "instructions": long}}),
        json.dumps({"type": "conversation.item.create", "item": item}),
        json.dumps({"type": "session.update", "session": {"type": "realtime", "tools": tools}}),
        OUTSIDE,
    ]
    async with socket(line) as ws:
        reading = asyncio.create_task(until(ws, "input_audio_buffer.cleared"))
        for _ in range(count):
            for text in texts:
                await ws.send_str(text)
        await ws.send_str(CLEAR)
        await reading


ATTACKS: dict[str, Callable[[Line], Awaitable[None]]] = {
    "big": partial(appended, 15 * 2**20, count=4),
    "tiny": partial(appended, 48, count=10_000),  # a millisecond each
    "outside": outside,
    "unread": unread,
    "keys": keys,
    "half_open": half_open,
    "json": invalid,
    "instructions": instructions,
}


def _attack(name: str, line: Line) -> None:
    until_s = time.monotonic() + LEAST_S
    while time.monotonic() < until_s:
        asyncio.run(ATTACKS[name](line) if name in ATTACKS else asyncio.sleep(8))  # type: ignore[arg-type]


async def measure(name: str, pid: int, line: Line) -> dict[str, Any]:
    """Run one attack; return how late the deltas of a conversation came meanwhile."""
    frames = messages(100)
    speech = frames[:35] + frames[-1:] * 45  # a turn every 8 s
    attacker = multiprocessing.get_context("spawn").Process(target=_attack, args=(name, line), daemon=True)
    stop = asyncio.Event()
    begin, memory, cpu = time.monotonic() + 3, memory_mb(pid), cpu_s(pid)

    async def attack() -> float:
        await asyncio.sleep(4)
        attacker.start()
        started = time.monotonic()
        await asyncio.to_thread(attacker.join, ATTACK_S)
        attacker.kill()
        stop.set()
        return time.monotonic() - started

    attacking = asyncio.create_task(attack())
    talking = [asyncio.create_task(user(line, speech, 100, begin + 120, begin, stop=stop)) for _ in range(4)]
    lasted = await attacking
    seen = await asyncio.gather(*talking)
    late = [late for one in seen for late in one.late_ms]
    await asyncio.sleep(1)
    return {
        "attack": name,
        "s": round(lasted, 1),
        "ended": attacker.exitcode,
        "deltas": len(late),
        **late_ms(late, "late"),
        "cpu_s": round(cpu_s(pid) - cpu, 1),
        "memory_before_mb": round(memory),
        "memory_after_mb": round(memory_mb(pid)),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    names = ["none", *options(__doc__, attacks=[*ATTACKS]).attacks]
    print("wanted: late_p99_ms at most 50")
    with simulate("--voice", "babble", "--latency", LATENCY) as (pid, line):
        for name in names:
            print_row(asyncio.run(measure(name, pid, line)), head=name == "none")


if __name__ == "__main__":
    main()
