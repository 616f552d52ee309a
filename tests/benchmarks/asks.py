"""Time of an `ask` in a long session. ``python -m tests.benchmarks.asks``

One session asks the simulator (latency ``fast``, voice ``babble``) the same question 3,000 times. The simulator is
another process, so that each side's CPU can be separated. The first 100 asks are the floor of the last 100.
"""

import asyncio
import statistics
import sys
import time
from multiprocessing.connection import Connection as Pipe
from typing import NamedTuple

import rtnb
from tests.benchmarks.memory import MIB, resident_bytes
from tests.benchmarks.stage import options, served

BOUND = 1.3
"""Largest ratio of the last asks to the first ones (medians), for the time and for the CPU of each side."""

N = 100
"""Asks that are compared at each end."""

LOG_LIMIT = 16 * MIB
REST = 48 * MIB
"""Growth allowed beside the log: 6,000 items of the conversation, and what the interpreter keeps (chosen)."""

QUESTION = "Thanks"  # a short answer: the share of what grows is large


class Ask(NamedTuple):
    """Costs of one ask in ms."""

    wall: float
    client_cpu: float
    server_cpu: float


def serve(pipe: Pipe) -> None:
    """Run the simulator, and answer each message with the CPU seconds that this process used so far."""
    with rtnb.Simulator(latency="fast", voice="babble") as simulator:
        pipe.send((f"{simulator.url.replace('http', 'ws')}/openai/v1/realtime?model=any", simulator.key))
        while pipe.recv():
            pipe.send(time.process_time())


async def measure(pipe: Pipe, asks: int) -> tuple[list[Ask], int, rtnb.EventLog]:
    """Return the costs of every ask, the growth of the memory after the first asks, and the log."""
    url, key = pipe.recv()
    costs = []
    before_bytes = 0
    async with rtnb.connect(rtnb.Custom(url, headers={"api-key": key}), log_limit_bytes=LOG_LIMIT) as session:
        session.playback.assume_real_time = False
        for number in range(asks):
            if number == N:
                before_bytes = resident_bytes()
            pipe.send(True)
            server_s, client_s, start_s = pipe.recv(), time.process_time(), time.perf_counter()
            response = await session.ask(QUESTION)
            wall_s, client_s = time.perf_counter() - start_s, time.process_time() - client_s
            pipe.send(True)
            costs.append(Ask(1000 * wall_s, 1000 * client_s, 1000 * (pipe.recv() - server_s)))
            assert response.status == "completed", response
        return costs, resident_bytes() - before_bytes, session.log


def main() -> int:
    asks = options(__doc__, asks=3_000).asks
    with served(serve) as pipe:
        costs, grown, log = asyncio.run(measure(pipe, asks))
    print(f"{f'median ms of {N} asks':<22}{'first':>9}{'last':>9}{'ratio':>8}")
    ratios = []
    for position, name in enumerate(Ask._fields):
        first, last = (statistics.median(cost[position] for cost in part) for part in (costs[:N], costs[-N:]))
        ratios.append(last / first)
        broken = "" if ratios[-1] <= BOUND else "   BROKEN"
        print(f"{name.replace('_', ' '):<22}{first:>9.2f}{last:>9.2f}{ratios[-1]:>8.2f}{broken}")
    limit = LOG_LIMIT + REST
    inside = grown <= limit
    print(f"bound of each ratio: {BOUND}")
    print(
        f"memory after ask {N}: +{grown / MIB:.0f} MiB (limit {limit / MIB:.0f}{'' if inside else ': BROKEN'}), {log!r}"
    )
    return 0 if inside and max(ratios) <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
