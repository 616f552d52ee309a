"""Sources of the inspector, and that nothing is lost, leaked or left behind."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import rtnb
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.widgets import inspector as inspector_module
from rtnb.widgets._frames import pack
from rtnb.widgets.inspector import EventInspector, inspect
from tests.widgets.page import Page, eventually

CREATE = {"type": "response.create", "event_id": "e1"}


async def ask(inspector: EventInspector, kind: str, **header: Any) -> Any:
    """Return the reply to a request of the page."""
    return await inspector._on_message(kind, header, [])


def record(log: EventLog, count: int = 1) -> None:
    for _ in range(count):
        log.record("sent", events.InputAudioBufferClear(), monotonic_s=0.0, wall_time=0.0)


def test_a_list_a_log_and_a_file_are_the_same(tmp_path: Path) -> None:
    listed = EventInspector([CREATE, {"type": "input_audio_buffer.cleared", "event_id": "s1"}])
    listed.event_log.save(tmp_path / "log.jsonl")
    saved = inspect(tmp_path / "log.jsonl")
    again = inspect(list(saved.event_log))

    for inspector in (listed, saved, again):
        assert [(row.direction, row.type) for row in inspector.event_log] == [
            ("sent", "response.create"),
            ("received", "input_audio_buffer.cleared"),
        ]
        assert not inspector.can_send


@pytest.mark.parametrize("thing", [7, b"x", {"type": "error"}, [7]])
def test_anything_else_is_refused_by_a_sentence(thing: Any) -> None:
    with pytest.raises(TypeError, match="event"):
        EventInspector(thing)


async def test_requests_are_answered_and_nonsense_is_refused() -> None:
    inspector = inspect([CREATE])
    inspector._rows.read(10)
    assert (await ask(inspector, "event", first=0, last=0))["meaning"] == "Ask for a response."
    assert await ask(inspector, "event", first=5, last=5) == {"error": "there is no event 5"}
    assert await ask(inspector, "audio", first=0, last=0, number=0) == {"error": "this event carries no audio"}
    assert await ask(inspector, "nope") == {"error": "unknown request 'nope'"}
    exported = await ask(inspector, "export", start=0)
    assert [json.loads(line).get("direction") for line in exported["text"].splitlines()] == [None, "sent"]


async def test_a_session_is_watched_and_spoken_through(session: rtnb.Session) -> None:
    inspector = inspect(session)
    assert inspector.can_send
    checked = await ask(inspector, "send", text='{"type": "input_audio_buffer.commit"}', anyway=False)
    assert "buffer too small" in checked["problem"]
    assert len(session.log.filter("input_audio_buffer.commit")) == 0
    assert await ask(inspector, "send", text='{"type": "input_audio_buffer.clear"}', anyway=False) == {"sent": True}
    assert session.log[-1].type.startswith("input_audio_buffer.clear")


async def test_any_openai_connection_is_watched_both_ways(simulator: rtnb.Simulator) -> None:
    openai = pytest.importorskip("openai")
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    async with (
        openai.AsyncOpenAI(api_key=simulator.key, base_url=f"{simulator.url}/openai/v1") as client,
        client.realtime.connect(model="m") as connection,
    ):
        inspector = inspect(connection)
        log = inspector.event_log
        assert inspect(connection).event_log is log
        await connection.conversation.item.create(item=said)
        await connection.response.create()
        async for event in connection:
            if event.type == "response.done":
                break
        assert [row.type for row in log if row.direction == "sent"] == ["conversation.item.create", "response.create"]
        assert len(log.filter("response.output_audio.delta", direction="received")) > 0
        assert not any(isinstance(row.event, events.UnknownEvent) for row in log if row.direction == "received")
        assert await ask(inspector, "send", text='{"type": "response.create"}', anyway=False) == {"sent": True}
        assert log[-1].type == "response.create"
        assert simulator.key not in "".join(repr(row) for row in log)


async def test_an_event_that_is_never_sent_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stalled:
        """Connection of another package that never sends."""

        async def recv_bytes(self) -> bytes:
            return b"{}"

        async def send(self, event: dict[str, Any]) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(inspector_module, "_SEND_S", 0.05)
    reply = await ask(inspect(Stalled()), "send", text='{"type": "response.create"}', anyway=False)
    assert "the session did not send it within" in reply["problem"]


def test_findings_mark_their_first_events_until_another_source_is_shown() -> None:
    broken = {"type": "error", "event_id": "s1", "error": {"type": "server_error", "message": "Broken."}}
    inspector = EventInspector([CREATE, broken])
    (finding,) = inspector.findings()
    assert finding.rule == "service-error"
    assert inspector.marks["1"].startswith("error: The service reports an error: Broken.")
    inspector.source = []
    assert inspector.marks == {}


async def test_the_log_of_an_inspector_is_not_copied() -> None:
    log = EventLog()
    inspector = EventInspector(log)
    record(log)
    assert inspector.event_log is log
    assert await ask(inspector, "search", terms=["clear"], start=0) == {"hits": [], "next": 0}


# --- pushing ----------------------------------------------------------------------------------------------------------


def rows_sent(page: Page) -> list[dict[str, Any]]:
    return [frame.header for frame in page.by_message if frame.kind == "rows"]


async def test_many_events_become_few_messages_and_silence_none(page: Page) -> None:
    log = EventLog()
    inspector = inspect(log)
    await page.join(inspector.stream_name)
    await eventually(lambda: rows_sent(page))
    before = len(rows_sent(page))
    for _ in range(60):
        record(log, 5)
        await asyncio.sleep(0)  # the background loop may run
    await eventually(lambda: rows_sent(page)[-1]["total"] == 300)
    assert len(rows_sent(page)) - before <= 3  # at most one each 0.1 s
    assert inspector._timer is not None
    assert inspector._timer.when() <= time.monotonic()  # in the past: nothing is due while nothing happens


async def test_a_page_gets_everything_from_where_it_asks(page: Page) -> None:
    log = EventLog()
    record(log, 4_500)
    inspector = inspect(log)
    await page.join(inspector.stream_name)
    await eventually(lambda: rows_sent(page) and rows_sent(page)[-1]["start"] + rows_sent(page)[-1]["count"] == 4_500)
    assert [header["count"] for header in rows_sent(page)] == [1000, 1000, 1000, 1000, 500]
    before = len(rows_sent(page))
    page.send(pack(inspector.stream_name, "from", {"start": 4_400}))
    await eventually(lambda: len(rows_sent(page)) > before)
    assert (rows_sent(page)[-1]["start"], rows_sent(page)[-1]["count"]) == (4_400, 100)


async def test_another_source_can_be_given_and_none_waited_for(page: Page) -> None:
    inspector = EventInspector()
    assert (len(inspector.event_log), inspector.can_send) == (0, False)
    await page.join(inspector.stream_name)
    await eventually(lambda: rows_sent(page))
    assert rows_sent(page)[-1]["waiting"]
    log = EventLog()
    record(log, 2)
    inspector.selected_index = 0
    inspector.source = log
    assert inspector.event_log is log
    assert inspector.selected_index is None
    await eventually(lambda: rows_sent(page)[-1]["count"] == 2)
    assert rows_sent(page)[-1]["source"] > rows_sent(page)[0]["source"]
    other = inspector.source = EventLog()
    await eventually(lambda: rows_sent(page)[-1]["total"] == 0)
    record(log)
    record(other, 7)
    await eventually(lambda: rows_sent(page)[-1]["total"] == 7)
    assert not log._subscribers
    inspector.close()
    assert not other._subscribers


async def test_no_timer_is_left_after_closing(page: Page) -> None:
    log = EventLog()
    inspector = inspect(log)
    inspector._in_output = True  # as in a cell
    await page.join(inspector.stream_name)
    await eventually(lambda: inspector._static_timer is not None)
    record(log)
    inspector.close()
    await eventually(lambda: not inspector._stream.joined)
    timers = [timer for timer in (inspector._timer, inspector._static_timer) if timer is not None]
    assert all(timer.cancelled() or timer.when() <= time.monotonic() for timer in timers)
    record(log)  # and nothing listens any more


def test_a_cell_that_ends_with_inspect_prints_one_line() -> None:
    cell = "import rtnb; rtnb.inspect([{'type': 'response.create', 'event_id': 'e1'}])"
    script = f"from IPython.terminal.interactiveshell import *; TerminalInteractiveShell.instance().run_cell({cell!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert len(done.stdout.strip().splitlines()) == 1
    assert "<EventInspector>" in done.stdout
