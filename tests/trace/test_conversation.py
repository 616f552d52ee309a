"""Rows of a log become the entries of a transcript, and files of it."""

from __future__ import annotations

import pytest

from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import ContentPart, ErrorDetail, Item, SessionConfig
from rtnb.trace import conversation, timeline
from rtnb.trace.conversation import Entries, Entry
from rtnb.trace.timeline import Timeline
from tests.trace.rows import delta, log_of

Rows = list[tuple[float, Event]]

SESSION = events.SessionUpdated(session=SessionConfig.of(transcription="whisper-1"))
COMMITTED = (1.0, events.InputAudioBufferCommitted(item_id="u1"))
FAILED = events.ConversationItemInputAudioTranscriptionFailed(item_id="u1", error=ErrorDetail(message="noise"))
HI: Rows = [
    (0.0, SESSION),
    (0.0, events.InputAudioBufferSpeechStarted(audio_start_ms=0, item_id="u1")),
    (1.0, events.InputAudioBufferSpeechStopped(audio_end_ms=1000, item_id="u1")),
    COMMITTED,
    (2.0, events.ConversationItemInputAudioTranscriptionCompleted(item_id="u1", transcript="Hi!")),
]
"""A spoken turn of the user, event by event."""


def entries_of(*rows: tuple[float, Event]) -> Entries:
    timeline = Timeline()
    entries = Entries(timeline)
    for row in log_of(*rows):
        timeline.add(row)
        entries.add(row)
    return entries


def only(*rows: tuple[float, Event]) -> Entry:
    (entry,) = entries_of(*rows).timed()
    return entry


def text_item(id: str, text: str) -> Event:
    part = ContentPart(type="input_text", text=text)
    return events.ConversationItemAdded(item=Item(type="message", id=id, role="user", content=(part,)))


def answer(text: str, *, at_s: float = 0.0, status: str = "completed") -> Rows:
    """An answer of two seconds."""
    item = Item(type="message", id="a1", role="assistant", content=(), status="in_progress")
    part = ContentPart(type="output_audio", transcript=text)
    done = Item(type="message", id="a1", role="assistant", status=status, content=(part,))
    said = [
        events.ResponseOutputItemAdded(response_id="r", item=item),
        events.ResponseOutputAudioTranscriptDelta(response_id="r", item_id="a1", delta=text),
        *[delta(1000, "a1")] * 2,
        events.ResponseOutputItemDone(response_id="r", item=done),
    ]
    return [(at_s, event) for event in said]


def test_both_sides_in_order_with_their_times() -> None:
    user, model = entries_of(*HI, *answer("Hello, you.", at_s=2.5)).timed()
    assert (user.role, user.text, user.status, user.start_ms, user.stop_ms) == ("user", "Hi!", "complete", 0.0, 1000.0)
    assert (model.role, model.text, model.status) == ("assistant", "Hello, you.", "complete")
    assert (model.start_ms, model.stop_ms) == (2500.0, 4500.0)


STATES: dict[str, tuple[Rows, str, str]] = {
    "the user speaks": (HI[:2], "in progress", "listening"),
    "the user has spoken": (HI[:4], "in progress", "waiting for the transcript"),
    "the transcript is there": (HI, "complete", ""),
    "transcription is off": (HI[1:4], "not transcribed", "Input transcription is off"),
    "transcription failed": ([*HI[:4], (2.0, FAILED)], "failed", "noise"),
    "the item is deleted": ([*HI, (3.0, events.ConversationItemDeleted(item_id="u1"))], "deleted", ""),
    "the answer is cancelled": (answer("One", status="incomplete"), "interrupted", ""),
}


@pytest.mark.parametrize("rows, status, detail", STATES.values(), ids=STATES.keys())
def test_an_entry_says_where_it_stands(rows: Rows, status: str, detail: str) -> None:
    entry = only(*rows)
    assert (entry.status, entry.detail) == (status, detail)


def test_an_interrupted_answer_ends_where_it_was_heard() -> None:
    cut = events.ConversationItemTruncate(item_id="a1", content_index=0, audio_end_ms=500)
    entry = only(*answer("One two three four five six"), (0.6, cut))
    assert (entry.status, entry.detail, entry.stop_ms) == ("interrupted", "at 0.5 s; 1.5 s not heard", 500.0)
    assert entry.text[: entry.heard_characters] == "One two"  # a quarter, to the end of a word
    assert conversation.to_text([entry]) == "Model: One two – [not heard: three four five six]\n"
    assert "six" not in conversation.to_srt([entry])


def test_subtitles_cannot_be_broken_by_what_is_said() -> None:
    text = "a --> b\n\n00:00:01.000 --> 00:00:02.000\n<script>&"
    entries = entries_of(*answer(text, at_s=3661.5)).timed()
    srt, vtt = conversation.to_srt(entries), conversation.to_vtt(entries)
    assert srt.count("-->") == vtt.count("-->") == 1
    assert srt.startswith("1\n00:00:00,000 --> 00:00:02,000\n")
    assert "\n\n0" not in srt
    assert "<script>" not in vtt
    assert "&lt;script&gt;&amp;" in vtt


def test_text_without_audio_has_a_length_for_subtitles() -> None:
    entry = only((0.0, text_item("u1", "five " * 5)))
    assert (entry.status, entry.stop_ms) == ("complete", 2000.0)
    empty = Entries(Timeline())
    empty.all["x"] = Entry("x", "assistant", status="interrupted", start_ms=500.0)
    assert empty.timed()[0].stop_ms == 500.0


def test_an_answer_carries_the_time_to_its_first_audio() -> None:
    assert only((1.0, events.ResponseCreate()), *answer("Hello.", at_s=1.41)).note == "first audio 410 ms"


def test_a_tool_call_and_its_result_are_one_entry_with_its_duration() -> None:
    call = Item(type="function_call", id="f1", call_id="c1", name="get_weather", arguments='{"city": "Oslo"}')
    output = Item(type="function_call_output", id="o1", call_id="c1", output='{"t": 4}')
    entry = only(
        (0.0, events.ResponseOutputItemAdded(response_id="r1", output_index=0, item=call)),
        (0.5, events.ResponseOutputItemDone(response_id="r1", output_index=0, item=call)),
        (0.62, events.ConversationItemAdded(item=output)),
        (0.63, events.ConversationItemDone(item=output)),
    )
    assert (entry.role, entry.status, entry.note) == ("tool", "complete", "120 ms")
    assert entry.text == 'get_weather(city="Oslo") → {"t": 4}'


def test_the_newest_entries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MAX_STRETCHES", 3)
    entries = entries_of(*[(0.0, text_item(f"u{number}", "Hi")) for number in range(5)])
    assert list(entries.all) == ["u2", "u3", "u4"]
    assert [entry.item_id for entry in entries.timed(entries.changed)] == ["u2", "u3", "u4"]
