"""Functions of rtnb that one call crosses. ``python -m tests.benchmarks.crossed``

Two paths are traced, both on a warm session: `ask`, from the call until both texts are handed to the transport (in the
calling task), and one audio delta, from the transport's `receive` until the subscribers of the log have it (in the
task that reads). Comprehensions are not counted; everything else is, lambdas and properties too.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import rtnb
from rtnb.errors import ConnectionClosed
from tests.client.peer import CHUNK

BOUND = 12
"""Most functions of each path."""

HOME = Path(rtnb.__file__).parent
WARM = 3


class Recorder:
    """Transport in memory that stops the trace when a text was sent, or when the next one is read."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[str | None] = asyncio.Queue()
        self.sent: list[str] = []
        self.trace: Trace | None = None

    def put(self, kind: str, **body: Any) -> None:
        """Let an event of the service arrive."""
        self._incoming.put_nowait(json.dumps({"type": kind, "event_id": "event_1", **body}))

    async def send(self, text: str) -> None:
        self.sent.append(text)
        if self.trace is not None and '"response.create"' in text:
            self.trace.stop()

    async def receive(self) -> str:
        trace, kept = self.trace, sys.getprofile()
        if trace is not None and trace.reads and kept is not None:
            trace.stop()
        text = await self._incoming.get()
        if text is None:
            raise ConnectionClosed("closed", code=1000)
        if trace is not None and trace.reads and '"response.output_audio.delta"' in text:
            trace.start()
        return text

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        self._incoming.put_nowait(None)


class Trace:
    """Functions of rtnb that one task enters, in the order of their first call."""

    def __init__(self, *, reads: bool) -> None:
        self.reads = reads
        self.crossed: dict[CodeType, None] = {}
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        self._task = asyncio.current_task()
        sys.setprofile(self._note)

    def stop(self) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(HOME)) or asyncio.current_task() is not self._task:
            return
        if not code.co_name.endswith(("comp>", "genexpr>")):
            self.crossed[code] = None

    def names(self) -> list[str]:
        """Return the functions as ``file:function``."""
        return [f"{Path(code.co_filename).relative_to(HOME)}:{code.co_qualname}" for code in self.crossed]


@contextmanager
def tracing(transport: Recorder, *, reads: bool) -> Iterator[Trace]:
    """Trace one path; the transport begins or ends it."""
    transport.trace = Trace(reads=reads)
    try:
        yield transport.trace
    finally:
        transport.trace.stop()
        transport.trace = None


async def begin(session: rtnb.Session, transport: Recorder, number: int) -> asyncio.Task[Any]:
    """Ask, and let the response begin."""
    asking = asyncio.create_task(session.ask("What is a delta?"))
    await asyncio.sleep(0)
    await settle()
    item = json.loads(transport.sent[-2])["item"]
    transport.put("conversation.item.added", item={**item, "status": "completed"}, previous_item_id=None)
    transport.put("response.created", response=response_of(number, "in_progress"))
    await settle()
    return asking


def response_of(number: int, status: str) -> dict[str, Any]:
    """Return the response with this number."""
    return {"object": "realtime.response", "id": f"resp_{number}", "status": status, "output": []} | {
        "conversation_id": "conv_1"
    }


def put_delta(transport: Recorder, number: int) -> None:
    """Let 100 ms of audio arrive."""
    place = {"response_id": f"resp_{number}", "item_id": f"item_{number}", "output_index": 0, "content_index": 0}
    transport.put("response.output_audio.delta", **place, delta=CHUNK)


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def trace_both() -> dict[str, list[str]]:
    """Return the functions of both paths."""
    transport = Recorder()
    transport.put("session.created", session={"type": "realtime", "id": "sess_1"})
    async with rtnb.connect(transport) as session:
        received: list[str] = []
        session.log.subscribe(lambda row: received.append(row.type))
        for number in range(WARM):
            asking = await begin(session, transport, number)
            for _ in range(WARM):
                put_delta(transport, number)
            await settle()
            transport.put("response.done", response=response_of(number, "completed"))
            await asking
        with tracing(transport, reads=False) as ask:
            await _traced(ask, session)
        await settle()
        transport.put("response.created", response=response_of(WARM, "in_progress"))
        put_delta(transport, WARM)
        await settle()
        received.clear()
        with tracing(transport, reads=True) as delta:
            # The reader waits inside `receive` already: only from its next text on it sees the trace.
            transport.put("rate_limits.updated", rate_limits=[])
            await settle()
            put_delta(transport, WARM)
            await settle()
        assert received == ["rate_limits.updated", "response.output_audio.delta"], received
        return {"ask": ask.names(), "audio delta": delta.names()}


async def _traced(trace: Trace, session: rtnb.Session) -> None:
    """Ask in a new task, trace it from its first step on, and give up once both texts are sent."""

    async def ask() -> None:
        trace.start()
        await session.ask("What is a delta?")

    asking = asyncio.create_task(ask())
    await settle()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


def main() -> int:
    paths = asyncio.run(trace_both())
    for path, names in paths.items():
        broken = "" if len(names) <= BOUND else ": BROKEN"
        print(f"{path}: {len(names)} functions of rtnb (bound {BOUND}{broken})")
        print(*(f"    {name}" for name in names), sep="\n")
    return 0 if all(0 < len(names) <= BOUND for names in paths.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
