"""Rows of a log become the entries of a transcript, and files of it."""

from __future__ import annotations

import pytest

from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import ContentPart, ErrorDetail, Item, SessionConfig
from rtnb.trace import conversation, timeline
from rtnb.trace.conversation import Entries, Entry
from rtnb.trace.timeline import Timeline

AUDIO = b"\1\0" * 24_000  # a second
SESSION = events.SessionUpdated(session=SessionConfig.of(transcription="whisper-1"))
ANSWER = {"response_id": "r1", "item_id": "a1", "output_index": 0, "content_index": 0}


def entries_of(*rows: tuple[float, Event]) -> Entries:
    log, timeline = EventLog(), Timeline()
    entries = Entries(timeline)
    for at_s, event in rows:
        direction = "sent" if isinstance(event, events.ConversationItemTruncate) else "received"
        log.record(direction, event, monotonic_s=at_s, wall_time=0.0)
    for row in log:
        timeline.add(row)
        entries.add(row)
    return entries


def user_says(text: str, *, at_s: float = 0.0) -> list[tuple[float, Event]]:
    return [
        (at_s, SESSION),
        (at_s, events.InputAudioBufferSpeechStarted(audio_start_ms=0, item_id="u1")),
        (at_s + 1, events.InputAudioBufferSpeechStopped(audio_end_ms=1000, item_id="u1")),
        (at_s + 1, events.InputAudioBufferCommitted(item_id="u1")),
        (at_s + 2, events.ConversationItemInputAudioTranscriptionCompleted(item_id="u1", transcript=text)),
    ]


def model_says(text: str, *, at_s: float, status: str = "completed") -> list[tuple[float, Event]]:
    item = Item(type="message", id="a1", role="assistant", content=(), status="in_progress")
    words = events.ResponseOutputAudioTranscriptDelta(**ANSWER, delta=text)
    done = Item(
        type="message",
        id="a1",
        role="assistant",
        status=status,
        content=(ContentPart(type="output_audio", transcript=text),),
    )
    return [
        (at_s, events.ResponseOutputItemAdded(response_id="r1", output_index=0, item=item)),
        (at_s, words),
        (at_s, events.ResponseOutputAudioDelta(**ANSWER, delta=AUDIO)),
        (at_s, events.ResponseOutputAudioDelta(**ANSWER, delta=AUDIO)),
        (at_s, events.ResponseOutputItemDone(response_id="r1", output_index=0, item=done)),
    ]


def test_both_sides_in_order_with_their_times() -> None:
    entries = entries_of(*user_says("Hi!"), *model_says("Hello, you.", at_s=2.5))
    user, model = entries.timed()
    assert (user.role, user.text, user.status, user.start_ms, user.stop_ms) == ("user", "Hi!", "complete", 0.0, 1000.0)
    assert (model.role, model.text, model.status) == ("assistant", "Hello, you.", "complete")
    assert (model.start_ms, model.stop_ms) == (2500.0, 4500.0)


@pytest.mark.parametrize(
    "rows, status, detail",
    [(2, "in progress", "listening"), (4, "in progress", "waiting for the transcript"), (5, "complete", "")],
)
def test_a_spoken_turn_says_where_it_stands(rows: int, status: str, detail: str) -> None:
    (entry,) = entries_of(*user_says("Hi!")[:rows]).timed()
    assert (entry.status, entry.detail) == (status, detail)


def test_an_interrupted_answer_ends_where_it_was_heard() -> None:
    cut = events.ConversationItemTruncate(item_id="a1", content_index=0, audio_end_ms=500)
    entries = entries_of(*model_says("One two three four five six", at_s=0.0), (0.6, cut))
    (entry,) = entries.timed()
    assert (entry.status, entry.detail, entry.stop_ms) == ("interrupted", "at 0.5 s; 1.5 s not heard", 500.0)
    assert entry.text[: entry.heard_characters] == "One two"  # a quarter, to the end of a word
    assert conversation.to_text([entry]) == "Model: One two – [not heard: three four five six]\n"
    assert "six" not in conversation.to_srt([entry])


def test_a_cancelled_answer_is_not_complete() -> None:
    (entry,) = entries_of(*model_says("One", at_s=0.0, status="incomplete")).timed()
    assert entry.status == "interrupted"


def test_what_was_not_understood_and_what_was_deleted() -> None:
    failed = events.ConversationItemInputAudioTranscriptionFailed(item_id="u1", error=ErrorDetail(message="noise"))
    entries = entries_of(*user_says("")[:4], (2.0, failed))
    assert (entries.timed()[0].status, entries.timed()[0].detail) == ("failed", "noise")
    entries = entries_of(*user_says("x"), (3.0, events.ConversationItemDeleted(item_id="u1")))
    assert entries.timed()[0].status == "deleted"


def test_subtitles_cannot_be_broken_by_what_is_said() -> None:
    text = "a --> b\n\n00:00:01.000 --> 00:00:02.000\n<script>&"
    entries = entries_of(*model_says(text, at_s=3661.5)).timed()
    srt, vtt = conversation.to_srt(entries), conversation.to_vtt(entries)
    assert srt.count("-->") == vtt.count("-->") == 1
    assert srt.startswith("1\n00:00:00,000 --> 00:00:02,000\n")
    assert "\n\n0" not in srt
    assert "<script>" not in vtt
    assert "&lt;script&gt;&amp;" in vtt


def test_text_without_audio_has_a_length_for_subtitles() -> None:
    item = Item(type="message", id="u1", role="user", content=(ContentPart(type="input_text", text="five " * 5),))
    (entry,) = entries_of((0.0, events.ConversationItemAdded(item=item))).timed()
    assert (entry.status, entry.stop_ms) == ("complete", 2000.0)


def test_a_spoken_turn_says_that_transcription_is_off() -> None:
    rows = user_says("")[1:4]
    (entry,) = entries_of(*rows).timed()
    assert (entry.status, entry.detail) == ("not transcribed", "Input transcription is off")


def test_an_answer_carries_the_time_to_its_first_audio() -> None:
    entries = entries_of((1.0, events.ResponseCreate()), *model_says("Hello.", at_s=1.41))
    assert entries.timed()[0].note == "first audio 410 ms"


def test_a_tool_call_and_its_result_are_one_entry_with_its_duration() -> None:
    call = Item(type="function_call", id="f1", call_id="c1", name="get_weather", arguments='{"city": "Oslo"}')
    output = Item(type="function_call_output", id="o1", call_id="c1", output='{"t": 4}')
    entries = entries_of(
        (0.0, events.ResponseOutputItemAdded(response_id="r1", output_index=0, item=call)),
        (0.5, events.ResponseOutputItemDone(response_id="r1", output_index=0, item=call)),
        (0.62, events.ConversationItemAdded(item=output)),
        (0.63, events.ConversationItemDone(item=output)),
    )
    (entry,) = entries.timed()
    assert (entry.role, entry.status, entry.note) == ("tool", "complete", "120 ms")
    assert entry.text == 'get_weather(city="Oslo") → {"t": 4}'


def test_the_newest_entries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MAX_STRETCHES", 3)
    items = [
        Item(type="message", id=f"u{number}", role="user", content=(ContentPart(type="input_text", text="Hi"),))
        for number in range(5)
    ]
    entries = entries_of(*[(0.0, events.ConversationItemAdded(item=item)) for item in items])
    assert list(entries.all) == ["u2", "u3", "u4"]
    assert [entry.item_id for entry in entries.timed(entries.changed)] == ["u2", "u3", "u4"]


def test_an_answer_without_a_word_takes_no_time() -> None:
    entries = Entries(Timeline())
    entries.all["x"] = Entry("x", "assistant", status="interrupted", start_ms=500.0)
    (entry,) = entries.timed()
    assert entry.stop_ms == entry.start_ms
