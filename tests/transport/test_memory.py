"""The connection in memory that other tests use behaves as a `Transport` does."""

import asyncio

import pytest

from rtnb.errors import ConnectionClosed
from rtnb.transport import Transport
from tests.memory import memory_pair


async def test_texts_arrive_in_order_and_a_cancelled_receive_loses_none() -> None:
    here, there = memory_pair()
    assert isinstance(here, Transport)
    waiting = asyncio.ensure_future(there.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    for text in ("a", "b", "c"):
        await here.send(text)
    await there.send("back")
    assert [await there.receive() for _ in range(3)] == ["a", "b", "c"]
    assert await here.receive() == "back"


async def test_closing_delivers_sent_texts_then_wakes_both_ends() -> None:
    here, there = memory_pair()
    waiting = asyncio.ensure_future(here.receive())
    await here.send("last")
    await here.close(code=4000, reason="enough")
    await here.close()
    assert await there.receive() == "last"
    with pytest.raises(ConnectionClosed, match="this side closed the connection"):
        await waiting
    for _ in range(2):
        with pytest.raises(ConnectionClosed, match=r"the other side closed .*4000 enough") as info:
            await there.receive()
        assert (info.value.code, info.value.reason) == (4000, "enough")
    with pytest.raises(ConnectionClosed, match="cannot send"):
        await there.send("anyone?")
