"""Time to the first audio of an answer. ``python -m tests.benchmarks.first_audio``

From `session.ask` to the first audio delta, against the simulator with latency ``fast`` (it waits for nothing, so what
is left is the sockets, the voice and our own work). The peer is a bare `websockets` client that sends the same two
events to the same simulator. Both hold one session each and take turns, so that a busy machine disturbs both alike.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import websockets

import rtnb
from tests.benchmarks.stage import options

BOUND = 1.10
"""Largest multiple of the bare client (medians)."""

WARM_UP = 5

Ask = Callable[[str], Awaitable[float]]


def by_rtnb(session: rtnb.Session) -> Ask:
    """Return a function that asks through rtnb and returns the milliseconds to the first audio."""

    async def ask(text: str) -> float:
        asked_s = time.monotonic()
        response = await session.ask(text)
        first_ms = response.time_to_first_audio_ms
        assert first_ms is not None
        return first_ms + 1000 * (response.requested_s - asked_s)

    return ask


def by_hand(socket: websockets.ClientConnection) -> Ask:
    """Return a function that asks with two texts of JSON and returns the milliseconds to the first audio."""

    async def ask(text: str) -> float:
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        asked_s = time.monotonic()
        await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await socket.send('{"type":"response.create"}')
        first_ms = None
        while (kind := json.loads(await socket.recv())["type"]) != "response.done":
            if kind == "response.output_audio.delta" and first_ms is None:
                first_ms = 1000 * (time.monotonic() - asked_s)
        assert first_ms is not None
        return first_ms

    return ask


async def measure(simulator: rtnb.Simulator, turns: int) -> tuple[list[float], list[float]]:
    """Take turns; every turn says something new, so that the voice has nothing cached."""
    url = f"{simulator.url.replace('http', 'ws')}/openai/v1/realtime?model=any"
    headers = {"api-key": simulator.key}
    waits: tuple[list[float], list[float]] = ([], [])
    async with (
        rtnb.connect(simulator) as session,
        websockets.connect(url, additional_headers=headers, compression=None, max_size=None) as socket,
    ):
        session.playback.assume_real_time = False
        asks = (by_rtnb(session), by_hand(socket))
        for number in range(WARM_UP + turns):
            for side in (number % 2, 1 - number % 2):  # each begins every second time
                wait_ms = await asks[side](f"This is sentence number {10_000 + 2 * number + side}.")
                if number >= WARM_UP:
                    waits[side].append(wait_ms)
    return waits


def main() -> int:
    turns = options(__doc__, turns=100).turns
    with rtnb.Simulator(latency="fast") as simulator:
        ours, bare = asyncio.run(measure(simulator, turns))
        voice = simulator.voice
    ours_ms, bare_ms = statistics.median(ours), statistics.median(bare)
    ratio = ours_ms / bare_ms
    print(f"voice: {voice}; median of {len(ours)} turns each, in turn")
    print(f"{'ask -> first audio, rtnb':<34}{ours_ms:>8.2f} ms")
    print(f"{'the same, bare websockets':<34}{bare_ms:>8.2f} ms")
    print(f"rtnb is {ratio:.3f} of the bare client (bound {BOUND:.2f}{'' if ratio <= BOUND else ': BROKEN'})")
    return 0 if ratio <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
