"""Time of an `ask`: to the first audio, and in a long session. ``python -m tests.benchmarks.asks``

The simulator is another process, so that each side's CPU can be separated; its latency is ``fast`` (it waits for
nothing, so what is left is the sockets, the voice and our own work).

First audio: from `session.ask` to the first audio delta, beside a bare `websockets` client that sends the same two
events to the same simulator. Both hold one session each and take turns, so that a busy machine disturbs both alike.

Long session: the same question 3,000 times. The first 100 asks are the floor of the last 100.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time
from functools import partial
from typing import Any

import psutil
import websockets

import rtnb
from tests.benchmarks.stage import cpu_s, judged, options, print_table, simulate

BOUND_FIRST, BOUND_LONG = 1.10, 1.3
"""Largest multiple of the bare client's time to first audio, and of the first asks' costs (time, CPU of each side)."""

WARM_UP = 5
N = 100
"""Asks that are compared at each end."""

LOG_LIMIT_MIB = 16
REST_MIB = 48
"""Growth allowed beside the log: 6,000 items of the conversation, and what the interpreter keeps (chosen)."""

QUESTION = "Thanks"  # a short answer: the share of what grows is large


async def first_ms_of_rtnb(session: rtnb.Session, text: str) -> float:
    """Ask through rtnb."""
    asked_s = time.monotonic()
    response = await session.ask(text)
    first_ms = response.time_to_first_audio_ms
    assert first_ms is not None
    return first_ms + 1000 * (response.requested_s - asked_s)


async def first_ms_by_hand(socket: websockets.ClientConnection, text: str) -> float:
    """Ask with two texts of JSON."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    asked_s = time.monotonic()
    await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
    await socket.send('{"type":"response.create"}')
    firsts = []
    while (kind := json.loads(await socket.recv())["type"]) != "response.done":
        if kind == "response.output_audio.delta":
            firsts.append(1000 * (time.monotonic() - asked_s))
    return firsts[0]


async def first_audio_ms(target: rtnb.Azure, line: dict[str, Any], turns: int) -> dict[str, float]:
    """Return the median of both clients; every turn says something new, so that the voice has nothing cached."""
    headers, url = {"api-key": line["key"]}, f"{line['ga']}/realtime?model=any"
    waits: dict[str, list[float]] = {"rtnb": [], "bare websockets": []}
    async with (
        rtnb.connect(target) as session,
        websockets.connect(url, additional_headers=headers, compression=None, max_size=None) as socket,
    ):
        session.playback.assume_real_time = False
        asks = {"rtnb": partial(first_ms_of_rtnb, session), "bare websockets": partial(first_ms_by_hand, socket)}
        numbers = itertools.count(10_000)
        for turn in range(WARM_UP + turns):
            for name in sorted(asks, reverse=turn % 2 > 0):  # each begins every second time
                waits[name].append(await asks[name](f"This is sentence number {next(numbers)}."))
    return {name: statistics.median(values[WARM_UP:]) for name, values in waits.items()}


async def long_session(target: rtnb.Azure, pid: int, asks: int) -> tuple[dict[str, dict[str, float]], float]:
    """Return the costs of an ask at both ends (ms: median time, mean CPU), and the growth of the memory in MiB."""
    marks: dict[int, tuple[float, float, float]] = {}
    took_ms = []
    async with rtnb.connect(target, log_limit_bytes=LOG_LIMIT_MIB * 2**20) as session:
        session.playback.assume_real_time = False
        for number in range(asks + 1):
            if number in (0, N, asks - N, asks):
                marks[number] = time.process_time(), cpu_s(pid), psutil.Process().memory_info().rss / 2**20
            start_s = time.perf_counter()
            response = await session.ask(QUESTION)
            took_ms.append(1000 * (time.perf_counter() - start_s))
            assert response.status == "completed", response
    rows = {}
    for name, first in (("first", 0), ("last", asks - N)):
        client_ms, server_ms = (1000 * (marks[first + N][side] - marks[first][side]) / N for side in (0, 1))
        time_ms = statistics.median(took_ms[first : first + N])
        rows[name] = {"time": time_ms, "CPU of the client": client_ms, "CPU of the simulator": server_ms}
    return rows, marks[asks][2] - marks[N][2]


def main() -> int:
    chosen = options(__doc__, turns=100, asks=3_000)
    with simulate("--latency", "fast") as (pid, line):
        target = rtnb.Azure(line["http"], deployment="any", api_key=line["key"])
        first_ms = asyncio.run(first_audio_ms(target, line, chosen.turns))
        costs, grown_mib = asyncio.run(long_session(target, pid, chosen.asks))
    print_table({f"first audio, {name}": {"ms": value} for name, value in first_ms.items()})
    print_table(costs, digits=2)
    first, last = costs["first"], costs["last"]
    ratios = {f"last {N} asks beside the first: {name}": (last[name] / first[name], BOUND_LONG) for name in first}
    return judged(
        {
            "first audio, times bare websockets": (first_ms["rtnb"] / first_ms["bare websockets"], BOUND_FIRST),
            **ratios,
            f"memory after ask {N}, MiB": (grown_mib, LOG_LIMIT_MIB + REST_MIB),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
