"""A session with the simulator on one event loop, without a socket: under a virtual clock it takes no time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from rtnb.client import Session, open_session
from rtnb.errors import ConnectionClosed
from rtnb.simulator.faults import Close
from rtnb.simulator.session import ServiceSession
from rtnb.transport.base import TargetFacts
from tests.memory import MemoryTransport, memory_pair
from tests.simulator.rig import world


class Near:
    """Target whose service runs in this event loop."""

    def __init__(self, **options: Any) -> None:
        self.dialect: Any = options.pop("dialect", "ga")
        self.model = "gpt-realtime"
        self.facts = TargetFacts(url="ws://near/realtime", dialect=self.dialect, model=self.model)
        self._options = options
        self._tasks: list[asyncio.Task[Any]] = []

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> MemoryTransport:
        here, there = memory_pair()
        service = ServiceSession(
            world(**self._options), number=1, dialect=self.dialect, model=self.model, started_at=1_800_000_000
        )
        self._tasks = [asyncio.create_task(self._out(service, there)), asyncio.create_task(self._in(service, there))]
        return here

    async def ephemeral_key(self, **_: Any) -> Any:
        raise AssertionError("no test asks for one")

    async def _out(self, service: ServiceSession, there: MemoryTransport) -> None:
        async for text in service.outgoing.texts():
            if isinstance(text, Close):
                await there.close(code=text.code, reason=text.reason)
                return
            await there.send(text)

    async def _in(self, service: ServiceSession, there: MemoryTransport) -> None:
        try:
            with suppress(ConnectionClosed):
                while True:
                    await service.receive(await there.receive())
        finally:
            self._tasks[0].cancel()
            await service.aclose()


@asynccontextmanager
async def near_session(settings: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Session]:
    """Open a session; `options` are those of the simulator's `World`. Its clocks are those of the event loop."""
    loop, target = asyncio.get_running_loop(), Near(**options)
    wall = lambda: 1_800_000_000.0 + loop.time()  # noqa: E731
    session = await open_session(target, clock=loop.time, wall=wall, sleep=asyncio.sleep, **(settings or {}))
    try:
        yield session
    finally:
        await session.close()
        await asyncio.wait(target._tasks)
