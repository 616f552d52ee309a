"""A session joined to a scripted service, in both dialects."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from rtnb.client import Session, open_session
from rtnb.protocol.values import Dialect
from tests.client.service import Clock, ScriptedTarget, Service


@dataclass
class Joined:
    session: Session
    service: Service
    clock: Clock

    async def settle(self) -> None:
        """Let everything that can happen happen: no clock, only turns of the loop."""
        for _ in range(50):
            await asyncio.sleep(0)


async def join(dialect: Dialect) -> AsyncIterator[Joined]:
    clock = Clock()
    target = ScriptedTarget(dialect=dialect)
    running = asyncio.create_task(target.service.run())
    await target.service.open()
    session = await open_session(target, clock=clock, wall=lambda: 1_800_000_000.0, sleep=clock.sleep)
    target.service.on_create = target.service.answer
    try:
        yield Joined(session, target.service, clock)
    finally:
        await session.close()
        await running
    # Law 2: what both sides hold is the same after everything. Only what is in the input buffer is not: audio can be on
    # its way to the service while the news of a committed turn is on its way here.
    ours, theirs = session.state.snapshot(), target.service.connection.state.snapshot()
    for side in (ours, theirs):
        del side["input_audio_buffer"]["bytes"]
    assert ours == theirs


@pytest.fixture(params=["ga", "preview"])
async def joined(request: pytest.FixtureRequest) -> AsyncIterator[Joined]:
    async for one in join(request.param):
        yield one


@pytest.fixture
async def ga() -> AsyncIterator[Joined]:
    async for one in join("ga"):
        yield one
