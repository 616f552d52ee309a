"""The event log: rows, slices, tables and files."""

import asyncio
import json
from pathlib import Path

import pytest

import rtnb
from rtnb.client import EventLog
from rtnb.errors import RtnbError
from rtnb.protocol import events, wire
from tests.client.peer import Peer
from tests.client.virtual import settle, talk, talking, virtual

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
