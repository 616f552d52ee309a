"""Fixtures of the simulator's tests: one running simulator, and raw sockets to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from rtnb.simulator import Simulator
from tests.simulator.rig import Rig


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulator of its own: fast, babbling."""
    with Simulator(latency="fast", voice="babble") as simulator:
        yield simulator


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A session of GA with the service's defaults, without waiting, and a client that follows it."""
    async with Rig() as rig:
        yield rig
