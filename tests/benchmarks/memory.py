"""Memory of long sessions, of many events and of many sessions. ``python -m tests.benchmarks.memory``

- ``hour``: one hour with the microphone open all the time; turn detection begins an answer of 30 s each minute.
- ``events``: 100,000 small events while nothing reads the event stream that was opened.
- ``sessions``: 300 sessions, each opened, asked once and closed.

Each part runs in a fresh process, its service in another. The growth of the resident size (``--allocated``: of
what Python allocated, by `tracemalloc`) is from after a first small round to the end, after a garbage collection, with
the session still open.
"""

import asyncio
import gc
import multiprocessing
import random
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil

import rtnb
from tests.benchmarks.stage import judged, options, print_table, serve
from tests.client import peer
from tests.client.peer import Peer

LOG_LIMIT_MIB = 64
"""The default of the log."""

LIMITS_MIB = {"hour": LOG_LIMIT_MIB + 24, "events": LOG_LIMIT_MIB + 24, "sessions": 8}
"""Largest growth of each part: the log's own limit, and room for all else of a session and the interpreter (chosen)."""

TURNS, EVENTS, SESSIONS = 60, 100_000, 300
CHUNK = random.Random(0).randbytes(4_800)  # 100 ms of PCM16 at 24 kHz


def talker() -> Peer:
    """Return a service that answers each minute of audio with 30 s."""
    peer.TURN_MS = 60_000
    return Peer(turn_detection={"type": "server_vad"}, outputs=[(" word",) * 300] * (TURNS + 1))


async def hour(note: Callable[[], None]) -> None:
    """Hold one hour of audio both ways: 36,000 chunks from the microphone and 18,000 of answers.

    Turn detection begins the answers, and no code asks for them with `next_response`: so it is in a playground.
    """
    with serve(talker) as url:
        async with rtnb.connect(url) as session:
            done = asyncio.Event()
            session.log.subscribe(lambda row: row.type == "response.done" and done.set())
            for number in range(TURNS + 1):
                done.clear()
                for _ in range(600):
                    await session.input_audio_buffer.append(bytes(bytearray(CHUNK)))  # a microphone shares no chunks
                await done.wait()
                if number in (0, TURNS):
                    note()


def announcer() -> Peer:
    """Return a service that answers the first request with very many small events."""
    limits = [{"name": "tokens", "limit": 15_000_000, "remaining": 14_999_716, "reset_seconds": 0.001}]
    many = [{"type": "rate_limits.updated", "rate_limits": limits}] * EVENTS
    return Peer(script=lambda messages: many if messages[0]["type"] == "input_audio_buffer.cleared" else messages)


async def events(note: Callable[[], None]) -> None:
    """Receive 100,000 events that nothing reads from the stream."""
    with serve(announcer) as url:
        async with rtnb.connect(url) as session:
            stream, received = aiter(session), asyncio.Event()
            session.log.subscribe(lambda row: row.number >= EVENTS and received.set())
            note()
            await session.send_raw({"type": "input_audio_buffer.clear"})
            await received.wait()
            note()
            assert (await anext(stream)).type == "rate_limits.updated"


async def sessions(note: Callable[[], None]) -> None:
    """Open, ask and close 300 sessions, one after the other."""
    with serve(Peer) as url:
        for number in range(20 + SESSIONS):
            if number == 20:
                note()
            async with rtnb.connect(url) as session:
                assert (await session.ask("Hello?")).transcript == "Hello there."
        del session
        note()
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()


PARTS: dict[str, Callable[[Callable[[], None]], Awaitable[None]]] = {
    "hour": hour,
    "events": events,
    "sessions": sessions,
}


def run(part: str, allocated: bool) -> dict[str, Any]:
    """Run one part in this process; return its growth, of open descriptors, and its time."""
    process, noted = psutil.Process(), []

    def note() -> None:
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] if allocated else process.memory_info().rss
        noted.append((size / 2**20, process.num_fds() if sys.platform != "win32" else 0))

    if allocated:
        tracemalloc.start()
    start_s = time.perf_counter()
    asyncio.run(PARTS[part](note))  # type: ignore[arg-type]
    (mib, descriptors), (mib_at_end, descriptors_at_end) = noted
    return {
        "mib": mib_at_end - mib,
        "descriptors": descriptors_at_end - descriptors,
        "seconds": time.perf_counter() - start_s,
    }


def main() -> int:
    chosen = options(__doc__, parts=[*PARTS], allocated=False)
    fresh = {"mp_context": multiprocessing.get_context("spawn"), "max_tasks_per_child": 1}
    with ProcessPoolExecutor(1, **fresh) as pool:
        grown = {part: pool.submit(run, part, chosen.allocated).result() for part in chosen.parts}
    print_table(grown)
    memory = {f"{part}, MiB": (row["mib"], LIMITS_MIB[part]) for part, row in grown.items()}
    return judged(memory | {f"{part}, descriptors": (row["descriptors"], 0) for part, row in grown.items()})


if __name__ == "__main__":
    sys.exit(main())
