"""How soon is the first audio there? ``python tests/benchmarks/first_audio.py``

From `session.ask` to the first audio delta, against the simulator with latency ``fast`` (it waits for nothing, so what
is left is the sockets, the voice and our own work), beside a floor: a bare `websockets` client that sends the same two
events to the same simulator. Also the time of ``import rtnb`` in a fresh Python, beside that of an empty one.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time

import websockets

import rtnb

BOUND_MS = 60.0
IMPORT_BOUND_S = 0.1


async def ours(simulator: rtnb.Simulator, turns: int) -> list[float]:
    """Milliseconds from `ask` to the first audio, one per turn; every turn says something new (nothing is cached)."""
    async with rtnb.connect(simulator) as session:
        session.playback.assume_real_time = False
        waits = []
        for number in range(turns):
            asked_s = time.monotonic()
            response = await session.ask(f"This is sentence number {number}.")
            first = response.time_to_first_audio_ms
            assert first is not None
            waits.append(first + 1000 * (response.requested_s - asked_s))
        return waits


async def floor(simulator: rtnb.Simulator, turns: int) -> list[float]:
    """The same by hand."""
    url = f"{simulator.url.replace('http', 'ws')}/openai/v1/realtime?model=any"
    waits = []
    async with websockets.connect(url, additional_headers={"api-key": simulator.key}, max_size=None) as socket:
        for number in range(turns):
            content = [{"type": "input_text", "text": f"This is phrase number {number}."}]
            item = {"type": "message", "role": "user", "content": content}
            asked_s = time.monotonic()
            await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
            await socket.send('{"type":"response.create"}')
            first = None
            while (kind := json.loads(await socket.recv())["type"]) != "response.done":
                if kind == "response.output_audio.delta" and first is None:
                    first = 1000 * (time.monotonic() - asked_s)
            assert first is not None
            waits.append(first)
    return waits


def import_s(statement: str, *, runs: int = 5) -> float:
    """Median seconds of a fresh Python that runs one statement."""
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def main() -> int:
    with rtnb.Simulator(latency="fast") as simulator:
        mine, bare = (asyncio.run(who(simulator, 30)) for who in (ours, floor))
        voice = simulator.voice
    figures = {
        "rtnb_ms": round(statistics.median(mine), 1),
        "floor_ms": round(statistics.median(bare), 1),
        "import_rtnb_s": round(import_s("import rtnb") - import_s("pass"), 3),
    }
    print(f"voice: {voice}; median of {len(mine)} turns")
    print(f"{'ask -> first audio, rtnb':<34}{figures['rtnb_ms']:>8} ms   (bound {BOUND_MS:.0f})")
    print(f"{'the same, bare websockets':<34}{figures['floor_ms']:>8} ms")
    print(f"{'import rtnb':<34}{figures['import_rtnb_s']:>8} s    (bound {IMPORT_BOUND_S})")
    print(json.dumps({"benchmark": "first_audio", **figures, "bound_ms": BOUND_MS}))
    return 0 if figures["rtnb_ms"] <= BOUND_MS and figures["import_rtnb_s"] <= IMPORT_BOUND_S else 1


if __name__ == "__main__":
    sys.exit(main())
