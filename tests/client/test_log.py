"""The event log: rows, slices, tables and files; and the bounds of memory, of a session without an end, too."""

import asyncio
import gc
import json
import os
import sys
import weakref
from pathlib import Path

import pytest

import rtnb
from rtnb.client import EventLog
from rtnb.errors import ConnectionClosed, RtnbError
from rtnb.protocol import events, wire
from tests.client.peer import CHUNK, Message, Peer
from tests.client.virtual import now, outcome, said, settle, talk, talking, virtual

UNREADABLE = ("not JSON", "[1]", '{"type":"response.output_audio.delta","delta":7}')
WALL_S = 1_800_000_000.0


async def talked(peer: Peer, session: rtnb.Session) -> EventLog:
    await asyncio.sleep(0.1)
    await session.ask("Grüße <b>")
    await session.input_audio_buffer.append(bytes(4_800))
    for text in ('{"type":"brand.new","event_id":"e","x":[1,{"y":2}]}', *UNREADABLE):
        await peer.write(text)
    await settle()
    return session.log


@talking(both=True, wall=lambda: WALL_S)
async def test_every_row_says_when_which_way_and_how_big(peer: Peer, session: rtnb.Session) -> None:
    log = await talked(peer, session)
    assert [row.number for row in log] == list(range(len(log)))
    assert {row.direction for row in log} == {"sent", "received"}
    asked = log.filter("conversation.item.create")[0]
    assert (asked.monotonic_s, asked.wall_time) == (pytest.approx(1_000.1), WALL_S)
    written = json.loads(wire.encode(asked.event, dialect=session.dialect))
    assert asked.size_bytes == len(json.dumps(written, separators=(",", ":")).encode())
    delta = log.filter("response.output_audio.delta")[0]
    assert delta.type == "response.output_audio.delta"  # in both dialects


@talking()
async def test_slices_and_filters_are_logs(peer: Peer, session: rtnb.Session) -> None:
    log = await talked(peer, session)
    deltas = log.filter("response.*.delta", direction="received")
    assert isinstance(deltas, EventLog)
    assert [row.type.endswith(".delta") for row in deltas] == [True] * 5  # the unreadable one is there too
    assert log[2:4][0] is log[2]
    assert log[-1] is list(log)[-1]
    assert len(log.filter(direction="sent")) == 3
    assert repr(log).startswith(f"<EventLog: {len(log)} events, 3 sent, {len(log) - 3} received")
    assert log._repr_html_().count("<tr>") == 11


@talking()
async def test_the_table(peer: Peer, session: rtnb.Session) -> None:
    frame = (await talked(peer, session)).to_frame()
    assert list(frame.columns[:5]) == ["t_ms", "gap_ms", "direction", "type", "size_bytes"]
    assert (frame.t_ms.iloc[0], frame.t_ms.iloc[1]) == (0, pytest.approx(100))
    assert frame.gap_ms.sum() == pytest.approx(frame.t_ms.iloc[-1])
    assert frame[frame.audio_ms.notna()].audio_ms.tolist() == [100, 100, 100]
    asked = frame[frame.type == "conversation.item.create"].iloc[0]
    assert asked.summary == "user Grüße <b>"
    assert asked.item_id.startswith("item_client")
    assert frame[frame.type == "response.done"].iloc[0].response_id.startswith("resp")
    assert EventLog().to_frame().empty


@talking()
async def test_a_slice_still_knows_the_format(peer: Peer, session: rtnb.Session) -> None:
    await session.update(output_format="g711_alaw", input_format="g711_alaw")
    await session.ask("hi")
    await session.input_audio_buffer.append(bytes(4_800))
    for part in (session.log[-1:], session.log.filter("response.output_audio.delta")[1:]):
        assert set(part.to_frame().audio_ms) == {600.0}


@talking()
async def test_what_is_saved_comes_back(peer: Peer, session: rtnb.Session, tmp_path: Path) -> None:
    log = await talked(peer, session)
    log.save(tmp_path / "log.jsonl")
    back = EventLog.load(tmp_path / "log.jsonl")
    assert [tuple(row) for row in back] == [tuple(row) for row in log]
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(log) + 1
    assert [line.rstrip("\n") for line in log.lines(2)] == lines[3:]
    assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize("dialect", ["ga", "preview"])
@virtual
async def test_a_file_that_grows(tmp_path: Path, dialect: str) -> None:
    path = tmp_path / "session.jsonl"
    for session_number in (1, 2):  # appended to: nothing is overwritten
        async with talk(dialect=dialect, log_path=path) as (peer, session):
            await session.ask("hi")
            await peer.write('{\n"type": "brand.new"\n}')
            await session.ask("and again")
            back = EventLog.load(path)
            assert [row.event for row in back][-len(session.log) :] == [row.event for row in session.log]
            assert len(back) == session_number * len(session.log)


def test_a_file_that_goes_on_after_a_crash_can_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for number, end in enumerate(('{"direction": "sent", "mono', ""), 1):  # the first ends in the middle of a line
        log = EventLog(path=path)
        log.record("sent", events.InputAudioBufferClear())
        log.close()
        with path.open("a") as file:
            file.write(end)
        assert len(EventLog.load(path)) == number


def test_ending_one_of_two_equal_subscriptions_leaves_the_other() -> None:
    log, rows = EventLog(), []
    append = rows.append
    end = log.subscribe(append)
    log.subscribe(append)
    end()
    end()
    log.record("sent", events.InputAudioBufferClear(event_id="e1"))
    assert len(rows) == 1


@pytest.mark.parametrize(
    "text, words", [("{}", "no event log"), ("", "no event log"), ('{"rtnb_log": 9}', "version 9")]
)
def test_other_files_are_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "other.json").write_text(text, encoding="utf-8")
    with pytest.raises(RtnbError, match=words):
        EventLog.load(tmp_path / "other.json")


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
    async with Peer() as peer:
        await (await rtnb.connect(peer.url, clock=now)).close()
        await asyncio.sleep(1)
        tasks, descriptors = asyncio.all_tasks(), _descriptors()
        dropped = [weakref.ref(await _ask_and_drop(peer)) for _ in range(5)]
        await _collected()
        assert [session() for session in dropped] == [None] * 5
        assert asyncio.all_tasks() == tasks
        assert _descriptors() <= descriptors


async def _ask_and_drop(peer: Peer) -> rtnb.Session:
    session = await rtnb.connect(peer.url, clock=now)
    assert await said(session.ask("Hello?")) == "Hello there."
    return session


@virtual
async def test_a_response_of_a_session_that_was_dropped_ends() -> None:
    async with Peer(pace_s=5) as peer:
        response = await (await rtnb.connect(peer.url, clock=now)).response.create()
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
        session = await rtnb.connect(peer.url, clock=now)
        session.on_close(closer)
        await peer.close(1011)
        await asyncio.sleep(1)
        assert session.closed
        del session
        await _collected()
        assert closed
