"""Memory of long sessions, of many events and of many sessions. ``python -m tests.benchmarks.memory``

- ``hour``: one hour with the microphone open all the time, and an answer of 30 s each minute, for which nobody asks;
  nothing waits, the transport is in memory.
- ``events``: 100,000 small events while nothing reads the event stream that was opened.
- ``sessions``: 300 sessions on real sockets, each opened, asked once and closed.

Each part runs in two fresh processes: one for the resident size, one for the memory that Python allocated
(`tracemalloc`, which makes the first figure useless). The growth is from after a first small round to the end, after
a garbage collection, with the session still open.
"""

import asyncio
import base64
import gc
import json
import multiprocessing
import os
import random
import re
import resource
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import rtnb
from rtnb.errors import ConnectionClosed
from tests.benchmarks.stage import options, served
from tests.client.peer import Peer

MIB = 2**20
LOG_LIMIT = 64 * MIB
"""The default of the log."""

LIMITS = {"hour": LOG_LIMIT + 24 * MIB, "events": LOG_LIMIT + 24 * MIB, "sessions": 8 * MIB}
"""Largest growth of each part: the log's own limit, and room for all else of a session and the interpreter (chosen)."""

CHUNK = random.Random(0).randbytes(4_800)  # 100 ms of PCM16 at 24 kHz
TURN_CHUNKS = 300


def resident_bytes() -> int:
    """Return the resident size of this process; where the system does not say, the largest so far."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class Feed:
    """Transport that gives the texts that were put into it, one by one, and forgets what is sent."""

    def __init__(self) -> None:
        self._texts = iter([_text("session.created", session={"type": "realtime", "id": "sess_1"})])
        self._changed = asyncio.Event()
        self._closed = False
        self.sent = 0

    def put(self, texts: Iterator[str]) -> None:
        """Let more texts arrive, after the ones before."""
        self._texts = chain(self._texts, texts)
        self._changed.set()

    async def send(self, text: str) -> None:
        self.sent += 1

    async def receive(self) -> str:
        await asyncio.sleep(0)  # others may run, as while a socket is read
        while (text := next(self._texts, None)) is None:
            if self._closed:
                raise ConnectionClosed("closed", code=1000)
            self._changed.clear()
            await self._changed.wait()
        return text

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        self._closed = True
        self._changed.set()


def _text(kind: str, **body: Any) -> str:
    return json.dumps({"type": kind, "event_id": "event_1", **body}, separators=(",", ":"))


# --- the three parts --------------------------------------------------------------------------------------------------


def _turn(number: int) -> Iterator[str]:
    """Yield the events of one turn: the user's part is committed, the answer has 30 s of audio."""
    encoded = base64.b64encode(CHUNK).decode()
    asked, answer, response_id = f"item_u{number}", f"item_a{number}", f"resp_{number}"
    content = [{"type": "input_audio", "transcript": "Tell me more."}]
    user = {"id": asked, "type": "message", "role": "user", "status": "completed", "content": content}
    yield _text("input_audio_buffer.committed", item_id=asked, previous_item_id=None)
    yield _text("conversation.item.added", item=user, previous_item_id=None)
    head = {"object": "realtime.response", "id": response_id, "conversation_id": "conv_1", "output": []}
    yield _text("response.created", response={**head, "status": "in_progress"})
    said = {"id": answer, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    place: dict[str, Any] = {"response_id": response_id, "output_index": 0}
    yield _text("response.output_item.added", **place, item=said)
    yield _text("conversation.item.added", item=said, previous_item_id=asked)
    place |= {"item_id": answer, "content_index": 0}
    for _ in range(TURN_CHUNKS):
        yield _text("response.output_audio.delta", **place, delta=encoded)
        yield _text("response.output_audio_transcript.delta", **place, delta=" word")
    yield _text("response.done", response={**head, "status": "completed"})


async def hour(grown: Callable[[str], None], turns: int = 60) -> None:
    """Hold one hour of audio both ways: 36,000 chunks from the microphone and 18,000 of answers.

    Turn detection begins the answers, and nobody asks for them with `next_response`: so it is in a playground.
    """
    feed = Feed()
    async with rtnb.connect(feed) as session:
        done = asyncio.Event()
        session.log.subscribe(lambda row: row.type == "response.done" and done.set())
        for number in range(turns + 1):
            done.clear()
            feed.put(_turn(number))
            for _ in range(2 * TURN_CHUNKS):  # the microphone is open while the answer arrives
                await session.input_audio_buffer.append(bytes(bytearray(CHUNK)))  # a microphone shares no chunks
            await done.wait()
            if number == 0:
                grown("start")
        assert feed.sent == (turns + 1) * 2 * TURN_CHUNKS
        grown("end")


def _words(events: int) -> Iterator[str]:
    limits = [{"name": "tokens", "limit": 15_000_000, "remaining": 14_999_716, "reset_seconds": 0.001}]
    for number in range(events):
        yield _text("rate_limits.updated", rate_limits=limits, number=number)


async def events(grown: Callable[[str], None], count: int = 100_000) -> None:
    """Receive 100,000 events that nothing reads from the stream."""
    feed = Feed()
    async with rtnb.connect(feed) as session:
        stream, all_received = aiter(session), asyncio.Event()
        end = session.log.subscribe(lambda row: row.number == count and all_received.set())
        grown("start")
        feed.put(_words(count))
        await all_received.wait()
        end()
        grown("end")
        assert (await anext(stream)).type == "rate_limits.updated"


def serve(pipe: Pipe) -> None:
    """Run a bare service."""

    async def run() -> None:
        async with Peer() as peer:
            pipe.send(peer.url)
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    asyncio.run(run())


async def sessions(grown: Callable[[str], None], count: int = 300) -> None:
    """Open, ask and close 300 sessions, one after the other."""
    with served(serve) as pipe:
        url = pipe.recv()
        for number in range(20 + count):
            if number == 20:
                grown("start")
            async with rtnb.connect(url) as session:
                assert (await session.ask("Hello?")).transcript == "Hello there."
        del session
        grown("end")
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()


PARTS: dict[str, Callable[[Callable[[str], None]], Awaitable[None]]] = {
    "hour": hour,
    "events": events,
    "sessions": sessions,
}


# --- measuring --------------------------------------------------------------------------------------------------------


def run(part: str, traced: bool, pipe: Pipe) -> None:
    """Run one part in this process and send its growth in bytes, of open descriptors, and its time."""
    figures: dict[str, tuple[int, int]] = {}

    def note(moment: str) -> None:
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] if traced else resident_bytes()
        figures[moment] = size, len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    if traced:
        tracemalloc.start()
    start_s = time.perf_counter()
    asyncio.run(PARTS[part](note))  # type: ignore[arg-type]
    (size, descriptors), (size_at_end, descriptors_at_end) = figures["start"], figures["end"]
    pipe.send((size_at_end - size, descriptors_at_end - descriptors, time.perf_counter() - start_s))


def measure(part: str, traced: bool) -> tuple[int, int, float]:
    """Run one part in a fresh process."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run, args=(part, traced, there))
    process.start()  # no daemon: one part has a child of its own
    there.close()
    try:
        return here.recv()  # type: ignore[no-any-return]
    finally:
        process.join(10)


def main() -> int:
    print(f"{'growth in MiB':<12}{'resident':>10}{'allocated':>11}{'limit':>8}{'descriptors':>13}{'seconds':>9}")
    holds = True
    for part in options(__doc__, parts=[*PARTS]).parts:
        resident, descriptors, took_s = measure(part, traced=False)
        allocated, _, _ = measure(part, traced=True)
        inside = max(resident, allocated) <= LIMITS[part] and descriptors <= 0
        holds &= inside
        sizes = f"{resident / MIB:>10.1f}{allocated / MIB:>11.1f}{LIMITS[part] / MIB:>8.0f}"
        print(f"{part:<12}{sizes}{descriptors:>13}{took_s:>9.1f}{'' if inside else '   BROKEN'}", flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
