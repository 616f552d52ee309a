"""What the page is told of events: rows, folded runs, links, audio, and what a saved notebook keeps."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from rtnb.audio import read_wav
from rtnb.client.log import EventLog
from rtnb.errors import AudioError
from rtnb.protocol import events
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event
from rtnb.protocol.state import State
from rtnb.protocol.values import PCMU, ErrorDetail, Item, SessionConfig
from rtnb.widgets import _event_detail as detail
from rtnb.widgets._event_rows import PIECE, RECEIVED, STRIDE, TROUBLE, EventRows, static_table

IDS: dict[str, Any] = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}


def rows_of(*said: Event) -> EventRows:
    log = EventLog()
    for number, event in enumerate(said):
        direction = "sent" if event.type in CLIENT_EVENTS else "received"
        log.record(direction, event, monotonic_s=10 + number / 4, wall_time=0.0)  # type: ignore[arg-type]
    rows = EventRows(log)
    while rows.read(most=3):
        pass
    return rows


def unpacked(rows: EventRows) -> tuple[list[tuple[int, ...]], dict[str, Any]]:
    header, (numbers, words) = rows.pack(0, len(rows))
    assert header == {"start": 0, "count": len(rows), "total": len(rows)}
    return list(struct.iter_unpack(f"<{STRIDE}i", numbers)), json.loads(words)


def test_a_row_says_direction_time_type_size_audio_and_ids() -> None:
    rows = rows_of(
        events.InputAudioBufferAppend(audio=bytes(4800), event_id="mine"),
        events.ResponseOutputAudioDelta(**IDS, delta=bytes(480), event_id="s1"),
    )
    (first, second), words = unpacked(rows)

    assert first[0] == PIECE
    assert second[0] == PIECE | RECEIVED
    assert (first[1], second[1]) == (0, 2500)  # tenths of a millisecond
    assert [words["types"][str(row[2])] for row in (first, second)] == [
        "input_audio_buffer.append",
        "response.output_audio.delta",
    ]
    assert (first[4], second[4]) == (4800, 480)
    assert words["formats"][second[5]] == 48
    assert [words["ids"][str(second[column])] for column in (6, 7, 8)] == ["item_1", "resp_1", ""]
    assert second[9:] == (1, -1)


def test_an_error_knows_the_client_event_that_caused_it() -> None:
    refusal = ErrorDetail(code="nope", message="No.", event_id="mine")
    rows = rows_of(events.InputAudioBufferCommit(event_id="mine"), events.Error(error=refusal, event_id="s1"))
    (_, error), words = unpacked(rows)

    assert error[0] == RECEIVED | TROUBLE
    assert error[10] == 0
    assert words["summaries"][1] == "nope: No."
    assert detail.detail(rows, 1)["cause"] == {"index": 0, "type": "input_audio_buffer.commit"}
    assert detail.detail(rows, 0)["errors"] == [{"index": 1, "text": "nope: No."}]


def test_items_keep_their_response_and_audio_its_format() -> None:
    session = SessionConfig.of(output_format=PCMU)
    rows = rows_of(
        events.SessionCreated(session=session, event_id="s0"),
        events.ResponseOutputAudioDelta(**IDS, delta=bytes(800), event_id="s1"),
        events.ConversationItemDone(item=Item(type="message", id="item_1"), event_id="s2"),
    )
    found, words = unpacked(rows)

    assert words["formats"][found[1][5]] == 8
    assert found[2][7] == found[1][7]  # the response, although the event does not say it
    audio, rate_hz = read_wav(base64.b64decode(detail.sound(rows, 1, 1)))
    assert (len(audio), rate_hz) == (800, 8000)


def test_a_frame_can_be_read_alone() -> None:
    rows = rows_of(*(events.ResponseOutputTextDelta(**IDS, delta=f"{n} ", event_id=f"s{n}") for n in range(9)))
    header, (numbers, words) = rows.pack(5, 9)

    assert (header["start"], header["count"], len(numbers)) == (5, 4, 4 * STRIDE * 4)
    assert json.loads(words)["types"] == {"0": "response.output_text.delta"}
    assert json.loads(words)["summaries"] == ["5 ", "6 ", "7 ", "8 "]


def test_a_run_is_found_joined_and_heard() -> None:
    said: list[Event] = []
    for number in range(3):
        said.append(events.ResponseOutputAudioDelta(**IDS, delta=bytes(4800)))
        said.append(events.ResponseOutputAudioTranscriptDelta(**IDS, delta=f"word{number} "))
    rows = rows_of(*said)

    assert rows.run(0, 4) == [0, 2, 4]
    assert detail.run_detail(rows, 1, 5)["text"] == "word0 word1 word2 "
    audio, rate_hz = read_wav(base64.b64decode(detail.sound(rows, 0, 4)))
    assert len(audio) / rate_hz == pytest.approx(0.3)
    with pytest.raises(AudioError, match="no audio"):
        detail.sound(rows, 1, 1)


def test_the_json_holds_no_audio_and_no_endless_text() -> None:
    long = rows_of(events.ResponseOutputTextDone(**IDS, text="x" * 1_000_000, event_id="s1"))
    told = detail.detail(long, 0)
    assert len(json.dumps(told)) < 6_000
    assert told["cuts"] == [{"path": ["text"], "length": 1_000_000}]

    sound = rows_of(events.InputAudioBufferAppend(audio=b"\1\2" * 2400, event_id="e"))
    told = detail.detail(sound, 0)
    assert told["json"]["audio"] is None
    assert told["audio"] == [{"path": ["audio"], "number": 0, "bytes": 4800, "ms": 100.0}]
    assert "AQIBAg" in detail.whole_text(sound, 0)


@pytest.mark.parametrize("registry", [CLIENT_EVENTS, SERVER_EVENTS])
def test_every_event_says_what_it_means(registry: dict[str, type[Event]]) -> None:
    for kind, cls in registry.items():
        event = object.__new__(cls)
        told = detail.meaning(event, "sent" if registry is CLIENT_EVENTS else "received")
        assert len(told["meaning"]) > 10, kind
        assert all(field["kind"] for field in told["fields"]), kind


def test_text_is_found_wherever_it_stands() -> None:
    event = events.SessionUpdate(session=SessionConfig(instructions="Speak like a Pirate", tools=({"name": "parrot"},)))
    assert detail.contains(event, "pirate")
    assert detail.contains(event, "parrot")
    assert not detail.contains(event, "ninja")


@pytest.mark.parametrize(
    "text, sendable, problem",
    [
        ('{"type": "response.create"}', True, ""),
        ('{"type": "response.create"', False, "This is not JSON"),
        ("[]", False, "expected a JSON object"),
        ("{}", False, 'needs a "type"'),
        ('{"type": "session.created"}', True, "what a service says"),
        ('{"type": "nope"}', True, "would refuse it"),
        ('{"type": "input_audio_buffer.commit"}', True, "buffer too small"),
        ('{"type": "conversation.item.delete"}', True, "item_id"),
    ],
)
def test_an_event_is_judged_before_it_is_sent(text: str, sendable: bool, problem: str) -> None:
    message, said = detail.check(text, dialect="ga", state=State())
    assert (message is not None) == sendable
    assert problem in said
    assert bool(said) == bool(problem)


def test_what_is_offered_to_begin_with_can_be_read() -> None:
    for kind, text in detail.templates().items():
        message, _ = detail.check(text, dialect="ga", state=None)
        assert message is not None
        assert message["type"] == kind


def test_the_static_table_is_escaped_small_and_without_audio() -> None:
    said = [events.ResponseOutputTextDone(**IDS, text="<img src=x onerror=alert(1)>\u202e" * 50) for _ in range(500)]
    html = static_table(rows_of(*said, events.InputAudioBufferAppend(audio=bytes(48_000))))

    assert "<img" not in html
    assert "\u202e" not in html
    assert "the last 200 of 501 events" in html
    assert "AAAA" not in html
    assert len(html) < 100_000
