"""The inspector: its rows, runs and details, its sources, and that nothing is lost, leaked or left behind."""

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
from rtnb.errors import AudioError
from rtnb.protocol import events, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event
from rtnb.protocol.state import State
from rtnb.protocol.values import PCMU, ErrorDetail, Item, SessionConfig
from rtnb.widgets import _events as detail
from rtnb.widgets import inspector as inspector_module
from rtnb.widgets._events import PIECE, RECEIVED, TROUBLE, EventRows
from rtnb.widgets._frames import pack
from rtnb.widgets.inspector import EventInspector, inspect
from tests.widgets.page import Page, eventually

# --- rows and details -------------------------------------------------------------------------------------------------

IDS: dict[str, Any] = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}


def record(log: EventLog, count: int = 1) -> None:
    """Record small events, one a second."""
    for _ in range(count):
        log.record("sent", events.InputAudioBufferClear(), monotonic_s=log.next_number, wall_time=0.0)


def log_of(*listed: Event) -> EventLog:
    log = EventLog()
    for number, event in enumerate(listed):
        direction = "sent" if event.type in CLIENT_EVENTS else "received"
        log.record(direction, event, monotonic_s=10 + number / 4, wall_time=0.0)  # type: ignore[arg-type]
    return log


def rows_of(*listed: Event, **options: Any) -> EventRows:
    rows = EventRows(log_of(*listed), **options)
    while rows.read(3):
        pass
    return rows


def unpacked(rows: EventRows) -> list[list[Any]]:
    header, (packed,) = rows.pack(rows.base, rows.next)
    assert header == {"start": rows.base, "count": len(rows), "base": rows.base, "total": rows.next}
    found: list[list[Any]] = json.loads(packed)
    return found


def test_a_row_holds_direction_time_type_size_audio_and_ids() -> None:
    rows = rows_of(
        events.InputAudioBufferAppend(audio=bytes(4800), event_id="mine"),
        events.ResponseOutputAudioDelta(**IDS, delta=bytes(480), event_id="s1"),
    )
    first, second = unpacked(rows)
    assert first[:3] == [PIECE, 0, "input_audio_buffer.append"]
    assert second[:3] == [PIECE | RECEIVED, 2500, "response.output_audio.delta"]  # tenths of a millisecond
    assert [row[4:6] for row in (first, second)] == [[4800, 1000], [480, 100]]
    assert second[6:] == ["item_1", "resp_1", "", 1, -1, ""]


def test_an_error_names_the_client_event_that_caused_it() -> None:
    refusal = ErrorDetail(code="nope", message="No.", event_id="mine")
    rows = rows_of(events.InputAudioBufferCommit(event_id="mine"), events.Error(error=refusal, event_id="s1"))
    _, error = unpacked(rows)

    assert error[0] == RECEIVED | TROUBLE
    assert error[10:] == [0, "nope: No."]


def test_items_keep_their_response_and_audio_its_format() -> None:
    session = SessionConfig.of(output_format=PCMU)
    rows = rows_of(
        events.SessionCreated(session=session, event_id="s0"),
        events.ResponseOutputAudioDelta(**IDS, delta=bytes(800), event_id="s1"),
        events.ConversationItemDone(item=Item(type="message", id="item_1"), event_id="s2"),
    )
    found = unpacked(rows)

    assert found[1][5] == 1000  # 100 ms of 8 bytes
    assert found[2][7] == "resp_1"  # although the event does not carry it
    assert len(detail.sound(rows, 1, 1)) == 100 * 24 * 2  # 100 ms at 24 kHz


def test_the_oldest_rows_are_forgotten_at_the_bound() -> None:
    listed = [events.ResponseOutputTextDelta(**IDS, delta=f"{n} ", event_id=f"s{n}") for n in range(95)]
    rows = rows_of(*listed, kept=80)

    assert (rows.base, rows.next) == (13, 95)  # at 93 rows it went back to 80
    assert [row[-1] for row in unpacked(rows)][:2] == ["13 ", "14 "]
    assert len(rows._formats) == len(rows)
    assert rows.row(13).event == listed[13]


@pytest.mark.parametrize("read", [4, 100])
def test_events_that_the_log_drops_are_left_out_if_unread_and_else_named_as_such(read: int) -> None:
    log = EventLog(limit_bytes=20_000)
    rows = EventRows(log)
    for number in range(100):
        record(log)
        if number < read:
            rows.read(10)
    dropped = log.dropped.events
    assert dropped > 4
    assert not rows.read(1000)
    assert (rows.base, rows.next) == (dropped if read == 4 else 0, 100)
    assert unpacked(rows)[0][1] == rows.base * 10_000  # time counts from the first event
    if read == 100:
        assert rows.row(0).type == "input_audio_buffer.clear"
        assert "no longer holds" in detail.detail(rows, 0, 0)["meaning"]


def test_a_run_is_found_joined_and_played() -> None:
    listed: list[Event] = []
    for number in range(3):
        listed.append(events.ResponseOutputAudioDelta(**IDS, delta=bytes(4800)))
        listed.append(events.ResponseOutputAudioTranscriptDelta(**IDS, delta=f"word{number} "))
    rows = rows_of(*listed)

    assert rows.run(0, 4) == [0, 2, 4]
    assert detail.detail(rows, 1, 5)["parts"] == ["word0 word1 word2 "]
    assert detail.detail(rows, 0, 4)["parts"] == [{"number": None, "bytes": 14_400, "ms": 300.0}, ""]
    assert len(detail.sound(rows, 0, 4)) == 300 * 24 * 2
    with pytest.raises(AudioError, match="no audio"):
        detail.sound(rows, 1, 1)


def test_the_json_holds_no_audio_and_no_endless_text() -> None:
    long = rows_of(events.ResponseOutputTextDone(**IDS, text="x" * 1_000_000, event_id="s1"))
    (text,) = detail.detail(long, 0, 0)["parts"]
    assert len(text) < 6_000
    assert "(1,000,000 characters, all of them with Copy)" in text

    sound = rows_of(events.InputAudioBufferAppend(audio=b"\1\2" * 2400, event_id="e"))
    before, audio, after = detail.detail(sound, 0, 0)["parts"]
    assert before.endswith('"audio": ')
    assert audio == {"number": 0, "bytes": 4800, "ms": 100.0}
    assert after == "\n}"
    assert "AQIBAg" in detail.whole_text(sound, 0)


def test_audio_as_it_arrives_from_the_wire_is_found_too() -> None:
    text = json.dumps({"type": "response.output_audio.delta", "event_id": "s1", **IDS, "delta": "AQIBAgEC"})
    event = wire.decode(wire.parse(text), registry=SERVER_EVENTS)  # its base64 is decoded by the first reader
    assert detail.detail(rows_of(event), 0, 0)["parts"][1] == {"number": 0, "bytes": 6, "ms": 0.125}
    assert not detail.contains(event, "aqib")


@pytest.mark.parametrize("direction, registry", [("sent", CLIENT_EVENTS), ("received", SERVER_EVENTS)])
def test_every_event_has_a_meaning(direction: str, registry: dict[str, type[Event]]) -> None:
    for kind, cls in registry.items():
        assert len(detail._meaning(object.__new__(cls), direction)) > 10, kind


def test_text_is_found_wherever_it_stands() -> None:
    event = events.SessionUpdate(session=SessionConfig(instructions="Speak like a Pirate", tools=({"name": "parrot"},)))
    assert [detail.contains(event, word) for word in ("pirate", "parrot", "ninja")] == [True, True, False]


@pytest.mark.parametrize(
    "text, sendable, problem",
    [
        ('{"type": "response.create"}', True, ""),
        ('{"type": "response.create"', False, "This is not JSON"),
        ("[]", False, "expected a JSON object"),
        ("{}", False, 'needs a "type"'),
        ('{"type": "session.created"}', True, "server event"),
        ('{"type": "nope"}', True, "would refuse this event"),
        ('{"type": "input_audio_buffer.commit"}', True, "buffer too small"),
        ('{"type": "conversation.item.delete"}', True, "item_id"),
    ],
)
def test_an_event_is_checked_before_it_is_sent(text: str, sendable: bool, problem: str) -> None:
    message, refusal = detail.check(text, dialect="ga", state=State())
    assert (message is not None) == sendable
    assert problem in refusal
    assert bool(refusal) == bool(problem)


def test_the_table_of_a_saved_notebook_is_escaped_small_and_without_audio() -> None:
    listed = [events.ResponseOutputTextDone(**IDS, text="<img src=x onerror=alert(1)>\u202e" * 50) for _ in range(500)]
    inspector = EventInspector(log_of(*listed, events.InputAudioBufferAppend(audio=bytes(48_000))))
    html = inspector._static()["text/html"]

    assert "<img" not in html
    assert "\u202e" not in html
    assert "501 events" in html
    assert html.count("<tr>") == 201
    assert "AAAA" not in html
    assert len(html) < 100_000


# --- sources ----------------------------------------------------------------------------------------------------------

CREATE = {"type": "response.create", "event_id": "e1"}


async def ask(inspector: EventInspector, kind: str, **header: Any) -> Any:
    """Return the reply to a request of the page."""
    return await inspector._on_message(kind, header, [])


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
