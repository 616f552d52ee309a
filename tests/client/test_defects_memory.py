"""Memory has bounds: the log and its readers stay inside a limit, and a session that was dropped is collected."""

import asyncio
import gc
import json
import os
import sys
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import rtnb
from rtnb.errors import ConnectionClosed
from tests.client.peer import CHUNK, Message, Peer
from tests.client.virtual import hold, outcome, talking, virtual

LIMIT = 200_000
TEXT = {"type": "response.output_audio_transcript.delta", "response_id": "resp_0", "item_id": "item_0"}
AUDIO = {"type": "response.output_audio.delta", "response_id": "resp_0", "item_id": "item_0", "delta": CHUNK}

Test = Callable[[Peer, rtnb.Session], Awaitable[None]]


async def _send(peer: Peer, message: Message, times: int) -> None:
    for number in range(times):
        await peer.send({"output_index": 0, "content_index": 0, "delta": f"word {number}", **message})
    await asyncio.sleep(0.1)


@talking(log_limit_bytes=LIMIT)
async def test_the_log_drops_the_audio_of_old_events_first_and_marks_them(peer: Peer, session: rtnb.Session) -> None:
    assert not session.log.dropped
    await _send(peer, AUDIO, 100)
    assert len(session.log) == 101
    assert session.log.dropped.events == 0
    assert session.log.dropped.audio_bytes >= 100 * 4_800 - LIMIT
    assert session.log.dropped
    deltas = [row.event for row in session.log.filter("response.output_audio.delta")]
    assert bytes(deltas[-1].delta) == bytes(4_800)
    assert not bytes(deltas[0].delta)
    assert "dropped" in session.log._repr_html_()
    assert session.log.to_frame().shape[0] == 101


@talking(log_limit_bytes=LIMIT)
async def test_the_log_then_drops_the_oldest_events_and_keeps_their_numbers(peer: Peer, session: rtnb.Session) -> None:
    await _send(peer, TEXT, 5_000)
    log = session.log
    assert 10 < len(log) < 5_000
    assert log.dropped.events == 5_001 - len(log)
    assert log[0].number == log.dropped.events
    assert log[-1].number == 5_000
    assert [row.number for row in log[-3:]] == [4_998, 4_999, 5_000]
    assert sum(row.size_bytes for row in log) <= LIMIT
    assert list(log.to_frame().index) == list(range(log.dropped.events, 5_001))


def test_a_log_with_a_path_keeps_everything_on_disk(tmp_path: Path) -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
        await _send(peer, AUDIO, 100)
        await _send(peer, TEXT, 4_000)
        assert session.log.dropped.events

    path = tmp_path / "log.jsonl"
    hold(test, Peer(), log_limit_bytes=LIMIT, log_path=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 1 + 4_101
    assert [line["event"]["delta"] for line in lines if line.get("event", {}).get("delta") == CHUNK] == [CHUNK] * 100
    assert len(rtnb.EventLog.load(path)) == 4_101


@talking(log_limit_bytes=LIMIT)
async def test_an_unread_event_stream_stays_inside_the_limit(peer: Peer, session: rtnb.Session) -> None:
    stream = aiter(session)
    await _send(peer, TEXT, 5_000)
    held = len(session.log)
    assert held < 5_000
    first = await outcome(anext(stream))
    assert first.delta != "word 0", "the oldest events were dropped for the reader too"
    received = [first]
    while getattr(received[-1], "delta", "") != "word 4999":
        received.append(await outcome(anext(stream)))
    assert len(received) <= held


@talking()
async def test_the_pieces_of_many_responses_do_not_stay_in_memory(peer: Peer, session: rtnb.Session) -> None:
    kept = [weakref.ref(await session.ask("Hello?")) for _ in range(300)]
    gc.collect()
    assert sum(response() is not None for response in kept) <= 100


# --- sessions without an end ------------------------------------------------------------------------------------------


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
    assert (await session.ask("Hello?")).transcript == "Hello there."
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


async def _collected() -> None:
    """Let everything end that nothing refers to."""
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(1)
