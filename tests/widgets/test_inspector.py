"""What can be inspected, and that nothing is lost, leaked or left behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import rtnb
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.widgets.inspector import EventInspector, inspect

KEY = "sk-" + "a1B2" * 12


def test_a_list_a_log_and_a_file_are_the_same(tmp_path: Path) -> None:
    said = [{"type": "response.create", "event_id": "e1"}, {"type": "input_audio_buffer.cleared", "event_id": "s1"}]
    listed = EventInspector(said)
    listed.event_log.save(tmp_path / "log.jsonl")
    saved = inspect(tmp_path / "log.jsonl")
    again = inspect(list(saved.event_log))

    for inspector in (listed, saved, again):
        assert [(row.direction, row.type) for row in inspector.event_log] == [
            ("sent", "response.create"),
            ("received", "input_audio_buffer.cleared"),
        ]
        assert not inspector.can_send
        inspector.close()
        inspector.close()


def test_lines_of_a_file_keep_their_time_and_direction() -> None:
    line = {"direction": "sent", "monotonic_s": 3.5, "wall_time": 7.0, "event": {"type": "nope"}}
    inspector = inspect([line])
    assert inspector.event_log[0][1:5] == ("sent", 3.5, 7.0, "nope")
    inspector.close()


@pytest.mark.parametrize("thing", [7, None, b"x", {"type": "error"}, [7]])
def test_what_cannot_be_inspected_is_refused_in_words(thing: Any) -> None:
    with pytest.raises(TypeError, match="event"):
        EventInspector(thing)


def test_secrets_of_a_list_do_not_enter_the_log() -> None:
    tool = {"type": "mcp", "server_label": "x", "authorization": KEY}
    inspector = inspect([{"type": "session.update", "session": {"type": "realtime", "tools": [tool]}}])
    inspector._rows.read(most=10)
    assert KEY not in json.dumps(inspector._static())
    assert KEY not in json.dumps(inspector._rows.pack(0, 1)[1][1].decode())
    assert KEY not in repr(inspector.get_state())
    inspector.close()


async def test_requests_are_answered_and_nonsense_is_told() -> None:
    inspector = inspect([{"type": "response.create", "event_id": "e1"}])
    inspector._rows.read(most=10)
    told = await inspector._on_message("event", {"index": 0}, [])
    assert told is not None
    assert told["meaning"] == "Ask for a response."
    assert await inspector._on_message("event", {"index": 5}, []) == {"error": "there is no event 5"}
    assert await inspector._on_message("audio", {"first": 0, "last": 0, "number": 0}, []) == {
        "error": "this event carries no audio"
    }
    assert await inspector._on_message("nope", {}, []) == {"error": "unknown request 'nope'"}
    exported = await inspector._on_message("export", {"start": 0}, [])
    assert exported is not None
    assert [json.loads(line).get("direction") for line in exported["text"].splitlines()] == [None, "sent"]
    inspector.close()


async def test_a_session_is_watched_and_spoken_through() -> None:
    async with rtnb.connect("sim") as session:
        inspector = inspect(session)
        assert inspector.can_send
        judged = await inspector._on_message(
            "send", {"text": '{"type": "input_audio_buffer.commit"}', "anyway": False}, []
        )
        assert judged is not None
        assert "buffer too small" in judged["problem"]
        assert len(session.log.filter("input_audio_buffer.commit")) == 0
        sent = await inspector._on_message(
            "send", {"text": '{"type": "input_audio_buffer.clear"}', "anyway": False}, []
        )
        assert sent == {"sent": True}
        assert session.log[-1].type.startswith("input_audio_buffer.clear")
        inspector.close()


async def test_any_openai_connection_is_watched_both_ways() -> None:
    openai = pytest.importorskip("openai")
    async with rtnb.Simulator() as simulator:
        client = openai.AsyncOpenAI(api_key=simulator.key, base_url=f"{simulator.url}/openai/v1")
        async with client.realtime.connect(model="m") as connection:
            inspector = inspect(connection)
            assert inspect(connection).event_log is inspector.event_log
            await connection.conversation.item.create(
                item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
            )
            await connection.response.create()
            async for event in connection:
                if event.type == "response.done":
                    break
            log = inspector.event_log
            sent = [row.type for row in log if row.direction == "sent"]
            assert sent == ["conversation.item.create", "response.create"]
            assert len(log.filter("response.output_audio.delta", direction="received")) > 0
            assert not any(isinstance(row.event, events.UnknownEvent) for row in log if row.direction == "received")
            assert (
                await inspector._on_message("send", {"text": '{"type": "response.create"}', "anyway": False}, [])
            ) == {"sent": True}
            assert log[-1].type == "response.create"
            assert simulator.key not in "".join(repr(row) for row in log)
        await client.close()


def test_the_log_of_an_inspector_is_not_copied() -> None:
    log = EventLog()
    inspector = EventInspector(log)
    log.record("sent", events.InputAudioBufferClear(), monotonic_s=0.0, wall_time=0.0)
    assert inspector.event_log is log
    assert asyncio.run(inspector._on_message("search", {"text": "clear", "start": 0}, [])) == {"hits": [], "next": 0}
    inspector.close()
