"""Memory has bounds: the log and its readers stay inside a limit, and a session that was dropped is collected."""

import asyncio
import gc
import json
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import rtnb
from rtnb.errors import ConnectionClosed
from tests.client.peer import CHUNK, Message, Peer
from tests.client.virtual import outcome, said, talk, talking, virtual

LIMIT = 200_000
TEXT = {"type": "response.output_audio_transcript.delta", "response_id": "resp_0", "item_id": "item_0"}
AUDIO = {"type": "response.output_audio.delta", "response_id": "resp_0", "item_id": "item_0", "delta": CHUNK}


async def _send(peer: Peer, message: Message, times: int) -> None:
    for number in range(times):
        await peer.send({"output_index": 0, "content_index": 0, "delta": f"word {number}", **message})
    await asyncio.sleep(0.1)


@talking(log_limit_bytes=LIMIT)
async def test_the_log_drops_the_audio_of_old_events_first_and_marks_them(peer: Peer, session: rtnb.Session) -> None:
    assert not session.log.dropped
    await _send(peer, AUDIO, 100)
    assert len(session.log) == session.log.to_frame().shape[0] == 101
    assert session.log.dropped
    assert session.log.dropped.events == 0
    assert session.log.dropped.audio_bytes >= 100 * 4_800 - LIMIT
    first, *_, last = [row.event for row in session.log.filter("response.output_audio.delta")]
    assert (bytes(first.delta), bytes(last.delta)) == (b"", bytes(4_800))
    assert "dropped" in session.log._repr_html_()


@talking(log_limit_bytes=LIMIT)
async def test_the_log_then_drops_the_oldest_events_and_keeps_their_numbers(peer: Peer, session: rtnb.Session) -> None:
    await _send(peer, TEXT, 5_000)
    log = session.log
    assert 10 < len(log) < 5_000
    assert log.dropped.events == 5_001 - len(log)
    assert [row.number for row in log] == list(log.to_frame().index) == list(range(log.dropped.events, 5_001))
    assert [row.number for row in log[-3:]] == [4_998, 4_999, 5_000]
    assert sum(row.size_bytes for row in log) <= LIMIT


@virtual
async def test_a_log_with_a_path_keeps_everything_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    async with talk(log_limit_bytes=LIMIT, log_path=path) as (peer, session):
        await _send(peer, AUDIO, 100)
        await _send(peer, TEXT, 4_000)
        assert session.log.dropped.events
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 1 + 4_101
    assert [line.get("event", {}).get("delta") for line in lines].count(CHUNK) == 100
    assert len(rtnb.EventLog.load(path)) == 4_101


@talking(log_limit_bytes=LIMIT)
async def test_an_unread_event_stream_stays_inside_the_limit(peer: Peer, session: rtnb.Session) -> None:
    stream = aiter(session)
    await _send(peer, TEXT, 5_000)
    held = len(session.log)
    assert held < 5_000
    received = [await outcome(anext(stream))]
    assert received[0].delta != "word 0", "the oldest events were dropped for the reader too"
    while getattr(received[-1], "delta", "") != "word 4999":
        received.append(await outcome(anext(stream)))
    assert len(received) <= held


@talking(log_limit_bytes=0)
async def test_a_stream_with_a_log_of_no_size_yields_the_newest_event(peer: Peer, session: rtnb.Session) -> None:
    stream = aiter(session)
    await session.ask("Hello?")
    assert (await anext(stream)).type == "response.done"


@talking()
async def test_the_pieces_of_many_responses_do_not_stay_in_memory(peer: Peer, session: rtnb.Session) -> None:
    kept = [weakref.ref(await session.ask("Hello?")) for _ in range(150)]
    gc.collect()
    assert sum(response() is not None for response in kept) <= 100


# --- sessions without an end ------------------------------------------------------------------------------------------


async def _collected() -> None:
    """Let everything end that nothing refers to."""
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(1)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@virtual
async def test_a_session_that_was_dropped_without_close_is_collected() -> None:
    clock = asyncio.get_running_loop().time
    async with Peer() as peer:
        await (await rtnb.connect(peer.url, clock=clock)).close()
        await asyncio.sleep(1)
        tasks, descriptors = asyncio.all_tasks(), _descriptors()
        dropped = [weakref.ref(await _ask_and_drop(peer, clock)) for _ in range(5)]
        await _collected()
        assert [session() for session in dropped] == [None] * 5
        assert asyncio.all_tasks() == tasks
        assert _descriptors() <= descriptors


async def _ask_and_drop(peer: Peer, clock: Callable[[], float]) -> rtnb.Session:
    session = await rtnb.connect(peer.url, clock=clock)
    assert await said(session.ask("Hello?")) == "Hello there."
    return session


@virtual
async def test_a_response_of_a_session_that_was_dropped_ends() -> None:
    async with Peer(pace_s=5) as peer:
        response = await (await rtnb.connect(peer.url, clock=asyncio.get_running_loop().time)).response.create()
        gc.collect()
        ended = await outcome(response)
        assert isinstance(ended, ConnectionClosed) or ended.transcript == "Hello there."
        del response, ended
        await _collected()
        await peer.close(1000)


@virtual
async def test_a_closed_session_with_a_budget_in_minutes_is_collected() -> None:
    async with Peer() as peer:
        session = await rtnb.connect(peer.url, budget=rtnb.Budget(minutes=60))
        await session.close()
        log = weakref.ref(session.log)
        del session
        await _collected()
        assert log() is None


@virtual
async def test_what_belongs_to_a_session_that_ended_is_closed_when_it_is_dropped() -> None:
    closed = []

    async def closer() -> None:
        closed.append(True)

    async with Peer() as peer:
        session = await rtnb.connect(peer.url, clock=asyncio.get_running_loop().time)
        session.on_close(closer)
        await peer.close(1011)
        await asyncio.sleep(1)
        assert session.closed
        del session
        await _collected()
        assert closed
