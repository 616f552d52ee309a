"""The event log: rows, slices, tables and files."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rtnb.client import EventLog, open_session
from rtnb.errors import RtnbError
from rtnb.protocol import events, wire
from tests.client.conftest import Joined
from tests.client.service import ScriptedTarget


async def talked(joined: Joined) -> EventLog:
    joined.clock.advance(100)
    await joined.session.ask("Grüße <b>")
    await joined.session.input_audio_buffer.append(bytes(4_800))
    await joined.service.say_raw('{"type":"brand.new","event_id":"e","x":[1,{"y":2}]}')
    await joined.service.say_raw("not JSON")
    await joined.service.say_raw("[1]")
    await joined.service.say_raw('{"type":"response.output_audio.delta","delta":7}')
    await joined.settle()
    return joined.session.log


async def test_every_row_says_when_which_way_and_how_big(joined: Joined) -> None:
    log = await talked(joined)
    assert [row.number for row in log] == list(range(len(log)))
    assert {row.direction for row in log} == {"sent", "received"}
    asked = log.filter("conversation.item.create")[0]
    assert asked.monotonic_s == pytest.approx(1_000.1)
    assert asked.wall_time == 1_800_000_000.0
    written = json.loads(wire.encode(asked.event, dialect=joined.session.dialect))
    assert asked.size_bytes == len(json.dumps(written, separators=(",", ":")).encode())
    delta = log.filter("response.output_audio.delta")[0]
    assert delta.type == "response.output_audio.delta"  # in both dialects


async def test_slices_and_filters_are_logs(joined: Joined) -> None:
    log = await talked(joined)
    deltas = log.filter("response.*.delta", direction="received")
    assert isinstance(deltas, EventLog)
    assert all(row.type.endswith(".delta") for row in deltas)
    assert len(deltas) == 6  # the unreadable one is there too
    assert log[2:4][0] is log[2]
    assert log[-1] is list(log)[-1]
    assert len(log.filter(direction="sent")) == 3


async def test_the_table(joined: Joined) -> None:
    frame = (await talked(joined)).to_frame()
    assert list(frame.columns[:5]) == ["t_ms", "gap_ms", "direction", "type", "size_bytes"]
    assert frame.t_ms.iloc[0] == 0
    assert frame.t_ms.iloc[1] == pytest.approx(100)
    assert frame.gap_ms.sum() == pytest.approx(frame.t_ms.iloc[-1])
    audio = frame[frame.audio_ms.notna()]
    assert audio.audio_ms.tolist() == [100, 100, 100, 100]
    asked = frame[frame.type == "conversation.item.create"].iloc[0]
    assert asked.summary == "user Grüße <b>"
    assert asked.item_id.startswith("item_client")
    assert frame[frame.type == "response.done"].iloc[0].response_id.startswith("resp")
    assert EventLog().to_frame().empty


async def test_a_slice_still_knows_the_format(joined: Joined) -> None:
    await joined.session.update(output_format="g711_alaw", input_format="g711_alaw")
    await joined.session.ask("hi")
    await joined.session.input_audio_buffer.append(bytes(800))
    log = joined.session.log
    for part in (log[-1:], log.filter("response.output_audio.delta")[1:]):
        assert set(part.to_frame().audio_ms) == {100.0}


async def test_what_is_saved_comes_back(joined: Joined, tmp_path: Path) -> None:
    log = await talked(joined)
    log.save(tmp_path / "log.jsonl")
    back = EventLog.load(tmp_path / "log.jsonl")
    assert [tuple(row) for row in back] == [tuple(row) for row in log]
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(log) + 1
    assert [line.rstrip("\n") for line in log.lines(2)] == lines[3:]
    assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_a_file_that_grows(tmp_path: Path, dialect: Any) -> None:
    path = tmp_path / "session.jsonl"
    for session_number in (1, 2):  # appended to: nothing is overwritten
        target = ScriptedTarget(dialect=dialect)
        running = asyncio.create_task(target.service.run())
        await target.service.open()
        target.service.on_create = target.service.answer
        async with await open_session(target, log_path=path) as session:
            await session.ask("hi")
            await target.service.say_raw('{\n"type": "brand.new"\n}')
            await session.ask("and again")
            back = EventLog.load(path)
            assert [row.event for row in back][-len(session.log) :] == [row.event for row in session.log]
            assert len(back) == session_number * len(session.log)
        await running


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


def test_other_files_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for text, words in (("{}", "no event log"), ("", "no event log"), ('{"rtnb_log": 9}', "version 9")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RtnbError, match=words):
            EventLog.load(path)


async def test_looks(joined: Joined) -> None:
    log = await talked(joined)
    assert repr(log).startswith(f"<EventLog: {len(log)} events, 3 sent, {len(log) - 3} received")
    html = log._repr_html_()
    assert html.count("<tr>") == 11
    assert "<b>" not in html
