"""Law 2: after every exchange the client's state equals the service's, in any order of events; and it stays bounded."""

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest

from rtnb.protocol import UNSET, Connection, ContentPart, Dialect, Item, SessionConfig, events
from rtnb.protocol.events import Event
from rtnb.protocol.service.replies import committed, item_events
from rtnb.protocol.state import State
from rtnb.protocol.values import AudioFormat, RateLimit, ResponseConfig, SemanticVad, ServerVad, StatusDetails
from tests.protocol.goldens import DIALECTS
from tests.protocol.pair import SPOKEN, SPOKEN_MS, ConnectionPair, Spoken, created, done, types, user

LIMITS = events.RateLimitsUpdated(rate_limits=(RateLimit(name="tokens", limit=9, remaining=8, reset_seconds=0.1),))
CUT = events.ConversationItemTruncate(item_id="item_a", content_index=0, audio_end_ms=120)


def test_connect_and_update(pair: ConnectionPair) -> None:
    if pair.dialect == "preview":
        pair.serve(events.ConversationCreated(conversation={"id": "conv_1", "object": "realtime.conversation"}))
    replies = pair.update(instructions="Be brief.", turn_detection=ServerVad(silence_duration_ms=500))
    assert types(replies) == ["session.updated"]
    session = pair.state.session
    assert (session.instructions, session.voice, session.id) == ("Be brief.", "alloy", "sess_1")
    assert (session.turn_detection.silence_duration_ms, session.turn_detection.threshold) == (500, 0.5)
    pair.update(turn_detection=SemanticVad(eagerness="low"))
    made = SemanticVad(eagerness="low", create_response=True, interrupt_response=True)
    assert pair.state.session.turn_detection == made
    pair.update(turn_detection=None)
    assert pair.state.session.turn_detection is None
    pair.update(turn_detection=ServerVad())
    assert pair.state.session.turn_detection.silence_duration_ms == 200


@pytest.mark.parametrize("dialect", DIALECTS)
def test_transcription_session(dialect: Dialect) -> None:
    pair = ConnectionPair(dialect, transcription=True)
    pair.update(type="transcription", turn_detection=ServerVad(threshold=0.4))
    assert pair.state.session.type == "transcription"
    assert pair.state.session.turn_detection == ServerVad(threshold=0.4, prefix_padding_ms=300, silence_duration_ms=200)


# --- text in, audio out -----------------------------------------------------------------------------------------------


def unnumbered(event: Event) -> Event:
    """Return the event without the indices that a service may leave out."""
    numbers = {"output_index", "content_index"} & vars(event).keys()
    return replace(event, **dict.fromkeys(numbers, UNSET))


def _variants(s: Spoken) -> dict[str, list[Event]]:
    """Legal orders of one answer, and what is lost or doubled without harm."""
    head = [s.output_item_added, s.item_added, s.part_added]
    ends = [s.audio_done, s.transcript_done]
    tail = [*s.item_done, s.output_item_done]
    usual = [created(), *s.all(), done()]
    return {
        "usual": usual,
        "transcript done before audio done": [created(), *head, *s.deltas, *ends[::-1], s.part_done, *tail, done()],
        "output item done before item done": [created(), *head, *s.deltas, *ends, s.part_done, *tail[::-1], done()],
        "rate limits early": [created(), LIMITS, *s.all(), done()],
        "rate limits late": [*usual, LIMITS],
        "all text before all audio": [
            created(), *head, *s.deltas[::2], s.transcript_done, *s.deltas[1::2], s.audio_done, *tail, done(),
        ],
        "no content part events": [created(), *head[:2], *s.deltas, *ends, *tail, done()],
        "no done events of parts": [created(), *head, *s.deltas, *tail, done()],
        "item before output item": [created(), s.item_added, s.output_item_added, *s.deltas, *ends, *tail, done()],
        "deltas before their item": [created(), *s.deltas, *head, *ends, *tail, done()],
        "no beginning": usual[1:],
        "a second beginning and end": [*usual, done(status="failed"), created()],
        "no indices": [unnumbered(event) for event in usual],
    }  # fmt: skip


@pytest.mark.parametrize("name", _variants(Spoken()))
def test_text_in_audio_out_in_any_order(pair: ConnectionPair, name: str) -> None:
    finals = []
    for variant in (name, "usual"):
        one = ConnectionPair(pair.dialect)
        one.send_accepted(events.ConversationItemCreate(item=user(id="item_1")))
        one.send_accepted(events.ResponseCreate())
        one.serve(*_variants(one.spoken())[variant])
        assert one.state.active_response_id is None
        entry = one.state.entries["item_a"]
        assert (entry.parts[0].transcript, entry.audio_ms) == (SPOKEN, SPOKEN_MS)
        assert entry.item.content[0].transcript == SPOKEN
        assert one.state.audio_produced
        finals.append(one.state.snapshot())
    assert finals[0] == finals[1]


def test_text_answer(pair: ConnectionPair) -> None:
    s = pair.spoken()
    pair.serve(created(output_modalities=("text",)), s.output_item_added, s.item_added)
    for piece in ("Elev", "en."):
        pair.serve(events.ResponseOutputTextDelta(delta=piece, **s.ids))
    part = pair.state.entries["item_a"].parts[0]
    assert part.text == "Eleven."
    pair.serve(events.ResponseOutputTextDone(text="Eleven!", **s.ids))
    assert part.text == "Eleven!"
    whole = replace(s.begun, status="completed", content=(ContentPart(type="output_text", text="Eleven!"),))
    pair.serve(replace(s.output_item_done, item=whole), done())
    assert pair.state.conversation[-1] == whole
    assert not pair.state.audio_produced


def test_length_of_audio_follows_the_output_format(pair: ConnectionPair) -> None:
    pair.update(output_format=AudioFormat(type="audio/pcmu"))
    pair.serve(created(), *pair.spoken().all(), done())
    assert pair.state.entries["item_a"].audio_ms == 48 * SPOKEN_MS / 8


def test_a_snapshot_does_not_follow_later_events(pair: ConnectionPair) -> None:
    s = pair.spoken()
    pair.serve(created(), s.output_item_added, s.deltas[0])
    before = pair.state.snapshot()
    once = repr(before)
    pair.serve(*s.deltas, replace(s.output_item_added, item=replace(s.begun, id="item_b")), done())
    append_speech(pair)
    assert repr(before) == once


# --- microphone and push to talk --------------------------------------------------------------------------------------


def turn(pair: ConnectionPair, item_id: str) -> list[Event]:
    """A user turn found by the service: it started, stopped, and became an item."""
    return [
        events.InputAudioBufferSpeechStarted(audio_start_ms=100, item_id=item_id),
        events.InputAudioBufferSpeechStopped(audio_end_ms=900, item_id=item_id),
        *committed(pair.server.state, item_id, dialect=pair.dialect),
    ]


def append_speech(pair: ConnectionPair, ms: int = 1000) -> None:
    for _ in range(ms // 100):
        assert pair.send_accepted(events.InputAudioBufferAppend(audio=bytes(4800))) == []


def test_microphone_turn(pair: ConnectionPair) -> None:
    append_speech(pair)
    assert pair.state.input_audio_buffer.bytes == 48_000
    started, stopped, *rest = turn(pair, "item_u")
    pair.serve(started)
    assert pair.state.input_audio_buffer.speech_item_id == "item_u"
    pair.serve(stopped, *rest)
    buffer = pair.state.input_audio_buffer
    assert (buffer.bytes, buffer.total_bytes, buffer.speech_item_id) == (0, 48_000, None)
    pair.serve(created(), *pair.spoken().all(), done())
    assert pair.state.order == ["item_u", "item_a"]


def test_transcription_may_come_early_late_or_in_between(pair: ConnectionPair) -> None:
    transcribed = events.ConversationItemInputAudioTranscriptionCompleted(
        item_id="item_u", content_index=0, transcript="How cold?"
    )
    finals = []
    for place in (0, 2, 3, 4, 5, 7, 12, 99):
        one = ConnectionPair(pair.dialect)
        append_speech(one)
        answer = Spoken(previous="item_u", dialect=one.dialect).all()
        received: list[Event] = [*turn(one, "item_u"), created(), *answer, done()]
        one.serve(*received[:place], transcribed, *received[place:])
        assert one.state.conversation[0].content[0].transcript == "How cold?"
        finals.append(one.state.snapshot())
    assert all(final == finals[0] for final in finals)


def test_push_to_talk(pair: ConnectionPair) -> None:
    pair.update(turn_detection=None)
    append_speech(pair, 300)
    assert types(pair.send_accepted(events.InputAudioBufferClear())) == ["input_audio_buffer.cleared"]
    append_speech(pair, 200)
    received = types(pair.send_accepted(events.InputAudioBufferCommit()))
    announced = {"ga": ["conversation.item.added", "conversation.item.done"], "preview": ["conversation.item.created"]}
    assert received == ["input_audio_buffer.committed", *announced[pair.dialect]]
    assert pair.state.active_response_id is None  # a commit creates no response
    buffer = pair.state.input_audio_buffer
    assert (buffer.bytes, buffer.total_bytes) == (0, 48 * 500)


def test_a_commit_by_hand_ends_the_running_turn(pair: ConnectionPair) -> None:
    append_speech(pair)
    pair.serve(events.InputAudioBufferSpeechStarted(audio_start_ms=0, item_id="item_u"))
    first: Any = pair.send_accepted(events.InputAudioBufferCommit())
    append_speech(pair)
    second: Any = pair.send_accepted(events.InputAudioBufferCommit())
    assert first[0].item_id == "item_u"
    assert second[0].item_id != "item_u"


# --- barge-in ---------------------------------------------------------------------------------------------------------


def test_barge_in_while_speaking(pair: ConnectionPair) -> None:
    s = pair.begin()
    append_speech(pair)
    pair.serve(events.InputAudioBufferSpeechStarted(audio_start_ms=100, item_id="item_u"))
    cut = replace(s.whole, status="incomplete")
    reason = StatusDetails(type="cancelled", reason="turn_detected")
    ended = done(status="cancelled", status_details=reason, output=(cut,))
    pair.serve(s.audio_done, s.transcript_done, replace(s.output_item_done, item=cut), ended)
    assert pair.state.active_response_id is None
    assert types(pair.send_accepted(CUT)) == ["conversation.item.truncated"]
    entry = pair.state.entries["item_a"]
    assert (entry.truncated_ms, entry.audio_ms) == (120, SPOKEN_MS)
    assert entry.item.content[0].transcript is None  # unheard words are forgotten
    assert entry.item.status == "incomplete"
    pair.serve(*turn(pair, "item_u")[1:], created("resp_2"))
    assert pair.state.active_response_id == "resp_2"


def test_truncation_may_overtake_the_end_of_the_response(pair: ConnectionPair) -> None:
    """Cut before, between or after the last events of a cancelled response: the same in the end."""
    finals = []
    for place in range(5):
        one = ConnectionPair(pair.dialect)
        s = one.spoken()
        one.serve(created(), s.output_item_added, s.item_added, *s.deltas[:-1])
        one.send_accepted(events.ResponseCancel())
        closing: list[Event] = [s.deltas[-1], s.transcript_done, s.output_item_done, done(status="cancelled")]
        one.serve(*closing[:place])
        one.send_accepted(replace(CUT, audio_end_ms=0))
        one.serve(*closing[place:])
        entry = one.state.entries["item_a"]
        assert (entry.item.content[0].transcript, entry.audio_ms) == (None, SPOKEN_MS)
        finals.append(one.state.snapshot())
    assert all(final == finals[0] for final in finals)


def test_a_truncation_without_an_index_is_that_of_the_first_part(pair: ConnectionPair) -> None:
    pair.serve(created(), *pair.spoken().all(), done())
    pair.serve(events.ConversationItemTruncated(item_id="item_a", audio_end_ms=120))
    entry = pair.state.entries["item_a"]
    assert (entry.truncated_ms, entry.item.content[0].transcript) == (120, None)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_webrtc_clears_its_own_output(dialect: Dialect) -> None:
    pair = ConnectionPair(dialect, webrtc=True)
    pair.serve(created(), events.OutputAudioBufferStarted(response_id="resp_1"))
    assert pair.state.audio_produced
    pair.send_accepted(events.ResponseCancel())
    pair.send_accepted(events.OutputAudioBufferClear())
    pair.serve(done(status="cancelled"), events.OutputAudioBufferCleared(response_id="resp_1"))
    assert pair.state.active_response_id is None


# --- function calls and responses out of band -------------------------------------------------------------------------


def test_function_calls(pair: ConnectionPair) -> None:
    pair.serve(created())
    for n in (1, 2):
        item = Item(
            type="function_call", id=f"item_f{n}", name="f", call_id=f"call_{n}", arguments="", status="in_progress"
        )
        output: Any = {"response_id": "resp_1", "output_index": n - 1}
        ids: Any = {**output, "item_id": item.id, "call_id": item.call_id}
        previous = pair.state.order[-1] if pair.state.order else None
        pair.serve(
            events.ResponseOutputItemAdded(item=item, **output),
            *item_events(item, previous_item_id=previous, dialect=pair.dialect, done=False),
            events.ResponseFunctionCallArgumentsDelta(delta='{"a":', **ids),
            events.ResponseFunctionCallArgumentsDelta(delta="1}", **ids),
        )
        assert pair.state.entries[item.id].arguments == '{"a":1}'
        name = "f" if pair.dialect == "ga" else UNSET
        pair.serve(
            events.ResponseFunctionCallArgumentsDone(name=name, arguments='{"a":2}', **ids),
            events.ResponseOutputItemDone(item=replace(item, status="completed", arguments='{"a":2}'), **output),
        )
        assert pair.state.entries[item.id].arguments == '{"a":2}'
    pair.serve(done())
    assert pair.state.responses["resp_1"].item_ids == ["item_f1", "item_f2"]
    for n in (1, 2):
        result = Item(type="function_call_output", call_id=f"call_{n}", output='{"ok":true}')
        pair.send_accepted(events.ConversationItemCreate(item=result))
    assert [item.type for item in pair.state.conversation] == ["function_call"] * 2 + ["function_call_output"] * 2


def test_out_of_band_answers_leave_the_conversation_alone(pair: ConnectionPair) -> None:
    s, aside = pair.spoken(), pair.spoken(item_id="item_x", response_id="resp_x")
    pair.serve(created(), s.output_item_added, s.item_added)
    config = ResponseConfig(conversation="none", input=(), metadata={"topic": "mood"}, output_modalities=("text",))
    pair.send_accepted(events.ResponseCreate(response=config))
    pair.serve(created("resp_x", conversation_id=None, metadata={"topic": "mood"}), aside.output_item_added)
    for mine, other in itertools.zip_longest([*s.deltas, s.output_item_done], [*aside.deltas, aside.output_item_done]):
        pair.serve(mine, other)
    pair.serve(done("resp_x", conversation_id=None))
    assert pair.state.active_response_id == "resp_1"
    pair.serve(done())
    assert pair.state.order == ["item_a"]
    assert pair.state.responses["resp_x"].item_ids == ["item_x"]
    assert pair.state.entries["item_x"].audio_ms == SPOKEN_MS
    assert pair.refused(events.ConversationItemDelete(item_id="item_x")).code == "item_not_found"


# --- items ------------------------------------------------------------------------------------------------------------


def test_items_are_inserted_where_the_client_says(pair: ConnectionPair) -> None:
    def create(item_id: str, **where: Any) -> None:
        pair.send_accepted(events.ConversationItemCreate(item=user(id=item_id), **where))

    create("root_of_nothing", previous_item_id="root")
    create("appended")
    create("appended too", previous_item_id=None)
    create("first", previous_item_id="root")
    create("second", previous_item_id="first")
    assert pair.state.order == ["first", "second", "root_of_nothing", "appended", "appended too"]
    pair.send_accepted(events.ConversationItemDelete(item_id="second"))
    assert "second" not in pair.state.order
    create("second", previous_item_id="first")
    pair.send_accepted(events.ConversationItemDelete(item_id="first"))
    assert pair.state.order == ["second", "root_of_nothing", "appended", "appended too"]


def test_input_audio_is_not_echoed(pair: ConnectionPair) -> None:
    part = ContentPart(type="input_audio", audio=bytes(480))
    item = Item(type="message", role="user", content=(part,))
    received: Any = pair.send_accepted(events.ConversationItemCreate(item=item))
    assert received[0].item.content == (ContentPart(type="input_audio", transcript=None),)
    assert received[0].item.status == "completed"


def test_unconfirmed_client_events_do_not_change_the_state() -> None:
    """Only what the service confirms counts: a client is not ahead of the service."""
    client = Connection("client")
    client.send(events.SessionUpdate(session=SessionConfig.of(voice="ash")))
    client.send(events.ConversationItemCreate(item=user(id="item_1")))
    client.send(events.ResponseCreate())
    assert client.state.snapshot() == Connection("client").state.snapshot()


def test_a_confirmed_session_is_whole() -> None:
    """A setting that the service no longer sends holds no longer."""
    pair = ConnectionPair()
    pair.serve(events.SessionUpdated(session=SessionConfig(id="sess_1", prompt={"id": "p"})))
    pair.serve(events.SessionUpdated(session=SessionConfig(id="sess_1")))
    assert pair.state.session.prompt is UNSET


# --- bounds -----------------------------------------------------------------------------------------------------------


def numbered(number: int) -> list[Event]:
    """Return the events of one answer out of many."""
    answer = Spoken(item_id=f"item_{number}", response_id=f"resp_{number}", previous=f"item_{number - 1}")
    return [created(f"resp_{number}"), *answer.all(), done(f"resp_{number}")]


def test_both_sides_forget_the_oldest_items_and_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.protocol.state.ITEM_LIMIT", 5)
    monkeypatch.setattr("rtnb.protocol.state.RESPONSE_LIMIT", 3)
    pair = ConnectionPair()  # compares both states after every event
    for number in range(12):
        pair.serve(*numbered(number))
    assert list(pair.state.entries) == pair.state.order == [f"item_{number}" for number in range(7, 12)]
    assert "item_6" not in pair.state.order
    assert list(pair.state.responses) == ["resp_9", "resp_10", "resp_11"]
    pair.serve(done("resp_99"))  # its beginning was lost
    assert pair.state.responses["resp_99"].done


@pytest.mark.parametrize(
    "ends, kept", [(True, ["resp_0", "resp_8", "resp_9"]), (False, ["resp_7", "resp_8", "resp_9"])]
)
def test_finished_responses_are_forgotten_before_running_ones(
    monkeypatch: pytest.MonkeyPatch, ends: bool, kept: list[str]
) -> None:
    monkeypatch.setattr("rtnb.protocol.state.RESPONSE_LIMIT", 3)
    state = State()
    for number in range(10):
        state.apply(created(f"resp_{number}"))
        if ends and number:
            state.apply(done(f"resp_{number}"))
    assert list(state.responses) == kept


def test_an_answer_takes_the_same_time_after_9_000_items() -> None:
    def shortest_s(first: int) -> float:  # other load does not change it
        times_s = []
        for answer in map(numbered, range(first, first + 300)):
            start_s = time.perf_counter()
            for event in answer:
                state.apply(event)
            times_s.append(time.perf_counter() - start_s)
        return min(times_s)

    state = State()
    early_s = shortest_s(0)
    for number in range(300, 9_000):
        item = user(id=f"item_{number}")
        state.apply(events.ConversationItemAdded(item=item, previous_item_id=f"item_{number - 1}"))
    assert shortest_s(9_000) < 2 * early_s
