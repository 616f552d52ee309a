from __future__ import annotations

import asyncio

import pytest

from rtnb.errors import ConnectionClosed
from rtnb.transport import Transport
from tests.memory import memory_pair


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def test_what_one_sends_the_other_receives_in_order() -> None:
    here, there = memory_pair()
    assert isinstance(here, Transport)
    for text in ("a", "b", "c"):
        await here.send(text)
    await there.send("back")
    assert [await there.receive() for _ in range(3)] == ["a", "b", "c"]
    assert await here.receive() == "back"


async def test_no_delay_never_sleeps() -> None:
    clock = Clock()
    here, there = memory_pair(clock=clock, sleep=clock.sleep)
    waiting = asyncio.ensure_future(there.receive())
    await asyncio.sleep(0)
    await here.send("late")
    assert await waiting == "late"
    assert clock.slept == []


async def test_delay_is_kept_and_never_reorders() -> None:
    clock = Clock()
    here, there = memory_pair(delay_ms=[50, 10], clock=clock, sleep=clock.sleep)
    await here.send("slow")
    await here.send("fast")
    assert [await there.receive(), await there.receive()] == ["slow", "fast"]
    assert clock.now == pytest.approx(100.05)
    assert clock.slept == [pytest.approx(0.05)]


async def test_a_text_without_delay_does_not_overtake() -> None:
    clock = Clock()
    here, there = memory_pair(delay_ms=[20, 0], clock=clock, sleep=clock.sleep)
    await here.send("first")
    await here.send("second")
    assert [await there.receive(), await there.receive()] == ["first", "second"]


async def test_loss_is_a_pattern_per_direction() -> None:
    here, there = memory_pair(loss=[False, True])
    for number in range(6):
        await here.send(str(number))
        await there.send(str(number))
    await here.close()
    assert [await there.receive() for _ in range(3)] == ["0", "2", "4"]
    with pytest.raises(ConnectionClosed):
        await there.receive()


async def test_closing_delivers_what_is_on_its_way_then_says_why() -> None:
    here, there = memory_pair()
    await here.send("last")
    await here.close(code=4000, reason="enough")
    await here.close()
    assert await there.receive() == "last"
    for _ in range(2):
        with pytest.raises(ConnectionClosed, match=r"the other side closed .*4000 enough") as info:
            await there.receive()
        assert (info.value.code, info.value.reason) == (4000, "enough")
    with pytest.raises(ConnectionClosed, match="cannot send"):
        await there.send("anybody?")


async def test_closing_wakes_both_ends() -> None:
    here, there = memory_pair()
    waiting = [asyncio.ensure_future(here.receive()), asyncio.ensure_future(there.receive())]
    await asyncio.sleep(0)
    await here.close()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(end) for end in ends] == [
        "this side closed the connection (1000)",
        "the other side closed the connection (1000)",
    ]
    with pytest.raises(ConnectionClosed):
        await here.send("too late")


async def test_a_cancelled_receive_loses_nothing() -> None:
    never = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await never.wait()

    now = [0.0]
    here, there = memory_pair(delay_ms=10, clock=lambda: now[0], sleep=sleep)
    await here.send("kept")
    waiting = asyncio.ensure_future(there.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    now[0] = 1.0
    assert await there.receive() == "kept"


@pytest.mark.parametrize("delay_ms", [-1, [], [5, -1], float("inf"), float("nan")])
def test_impossible_delays_are_refused(delay_ms: float) -> None:
    with pytest.raises(ValueError, match="delay_ms"):
        memory_pair(delay_ms=delay_ms)
