"""Fixtures of the simulator's tests: one running simulator, and raw sockets to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rtnb.simulator import Simulator


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulator of its own: fast, babbling."""
    with Simulator(latency="fast", voice="babble") as simulator:
        yield simulator
