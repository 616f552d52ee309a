"""Law 2: after every exchange the client's state equals the service's, in any legal order of events."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from rtnb.protocol import UNSET, Connection, ContentPart, Dialect, Item, Response, SessionConfig, events
from rtnb.protocol.events import Event
from rtnb.protocol.service.replies import committed, item_events
from rtnb.protocol.values import (
    AudioFormat,
    ErrorDetail,
    RateLimit,
    ResponseConfig,
    SemanticVad,
    ServerVad,
    StatusDetails,
    Usage,
)
from tests.protocol.goldens import DIALECTS
from tests.protocol.pair import ConnectionPair, types

both = pytest.mark.parametrize("dialect", DIALECTS)
SPOKEN = "Eleven degrees."


@pytest.fixture(params=DIALECTS)
def pair(request: pytest.FixtureRequest) -> ConnectionPair:
    return ConnectionPair(request.param)


def user(text: str = "hi", **fields: Any) -> Item:
    return Item(type="message", role="user", content=(ContentPart(type="input_text", text=text),), **fields)


def ask(pair: ConnectionPair) -> str:
    """Send a user text; return the item's id."""
    received = pair.send_accepted(events.ConversationItemCreate(item=user()))
    return str(received[0].item.id)  # type: ignore[attr-defined]


def created(response_id: str = "resp_1", **fields: Any) -> events.ResponseCreated:
    fields = {"conversation_id": "conv_1", **fields}
    response = Response(id=response_id, status="in_progress", output=(), usage=None, **fields)
    return events.ResponseCreated(response=response)


def done(response_id: str = "resp_1", *, status: str = "completed", **fields: Any) -> events.ResponseDone:
    fields = {"conversation_id": "conv_1", **fields}
    return events.ResponseDone(response=Response(id=response_id, status=status, **fields))


LIMITS = events.RateLimitsUpdated(rate_limits=(RateLimit(name="tokens", limit=9, remaining=8, reset_seconds=0.1),))


class Spoken:
    """The events of one spoken answer (protocol §7.2, steps 5 … 13), by name, so that tests can reorder them."""

    def __init__(
        self, pair: ConnectionPair, *, item_id: str = "item_a", response_id: str = "resp_1", previous: str | None = None
    ) -> None:
        previous = previous or (pair.state.order[-1] if pair.state.order else None)
        ids: Any = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        output: Any = {"response_id": response_id, "output_index": 0}
        self.begun = Item(type="message", id=item_id, status="in_progress", role="assistant", content=())
        part = ContentPart(type="output_audio", transcript=SPOKEN)
        self.whole = replace(self.begun, status="completed", content=(part,))
        self.output_item_added = events.ResponseOutputItemAdded(item=self.begun, **output)
        (self.item_added,) = item_events(self.begun, previous_item_id=previous, dialect=pair.dialect, done=False)
        self.part_added = events.ResponseContentPartAdded(part=ContentPart(type="audio", transcript=""), **ids)
        self.deltas: list[Event] = [
            events.ResponseOutputAudioTranscriptDelta(delta="Eleven", **ids),
            events.ResponseOutputAudioDelta(delta=bytes(4800), **ids),
            events.ResponseOutputAudioTranscriptDelta(delta=" degrees.", **ids),
            events.ResponseOutputAudioDelta(delta=bytes(9600), **ids),
        ]
        self.audio_done = events.ResponseOutputAudioDone(**ids)
        self.transcript_done = events.ResponseOutputAudioTranscriptDone(transcript=SPOKEN, **ids)
        self.part_done = events.ResponseContentPartDone(part=ContentPart(type="audio", transcript=SPOKEN), **ids)
        ga = pair.dialect == "ga"
        item_done = events.ConversationItemDone(item=self.whole, previous_item_id=previous)
        self.item_done: list[Event] = [item_done] if ga else []
        self.output_item_done = events.ResponseOutputItemDone(item=self.whole, **output)

    def all(self) -> list[Event]:
        """Return the events in the order seen most often."""
        return [
            self.output_item_added, self.item_added, self.part_added, *self.deltas, self.audio_done,
            self.transcript_done, self.part_done, *self.item_done, self.output_item_done,
        ]  # fmt: skip


# --- 7.1 connect ------------------------------------------------------------------------------------------------------


def test_connect_and_update(pair: ConnectionPair) -> None:
    if pair.dialect == "preview":
        pair.serve(events.ConversationCreated(conversation={"id": "conv_1", "object": "realtime.conversation"}))
    change = SessionConfig.of(instructions="Be brief.", turn_detection=ServerVad(silence_duration_ms=500))
    assert types(pair.send_accepted(events.SessionUpdate(session=change))) == ["session.updated"]
    session = pair.state.session
    assert (session.instructions, session.voice, session.id) == ("Be brief.", "alloy", "sess_1")
    assert (session.turn_detection.silence_duration_ms, session.turn_detection.threshold) == (500, 0.5)
    pair.send_accepted(events.SessionUpdate(session=SessionConfig.of(turn_detection=SemanticVad(eagerness="low"))))
    assert pair.state.session.turn_detection == SemanticVad(
        eagerness="low", create_response=True, interrupt_response=True
    )
    pair.send_accepted(events.SessionUpdate(session=SessionConfig.of(turn_detection=None)))
    assert pair.state.session.turn_detection is None
    pair.send_accepted(events.SessionUpdate(session=SessionConfig.of(turn_detection=ServerVad())))
    assert pair.state.session.turn_detection.silence_duration_ms == 200


def test_a_rejected_update_changes_nothing(pair: ConnectionPair) -> None:
    odd = {"output_modalities": ("video",), "instructions": "lost"}
    pair.refused(events.SessionUpdate(event_id="e1", session=SessionConfig(**odd)))  # type: ignore[arg-type]
    assert pair.received[-1].error.event_id == "e1"  # type: ignore[attr-defined]
    assert pair.state.session.instructions != "lost"


@both
def test_transcription_session(dialect: Dialect) -> None:
    pair = ConnectionPair(dialect, transcription=True)
    change = SessionConfig.of(type="transcription", turn_detection=ServerVad(threshold=0.4))
    pair.send_accepted(events.SessionUpdate(session=change))
    assert pair.state.session.type == "transcription"
    assert pair.state.session.turn_detection == ServerVad(threshold=0.4, prefix_padding_ms=300, silence_duration_ms=200)


# --- 7.2 text in, audio out -------------------------------------------------------------------------------------------


def final_state(pair: ConnectionPair, sent: list[Event]) -> dict[str, Any]:
    ask(pair)
    pair.send_accepted(events.ResponseCreate())
    pair.serve(*sent)
    assert pair.state.active_response_id is None
    entry = pair.state.entries["item_a"]
    assert (entry.parts[0].transcript, entry.audio_ms) == (SPOKEN, 300)
    assert entry.item.content[0].transcript == SPOKEN
    assert pair.state.audio_produced
    return pair.state.snapshot()  # type: ignore[no-any-return]


def _reorderings(s: Spoken) -> dict[str, list[Event]]:
    """Legal variants of one answer."""
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
    }  # fmt: skip


@both
@pytest.mark.parametrize("name", _reorderings(Spoken(ConnectionPair())))
def test_text_in_audio_out_in_any_legal_order(dialect: Dialect, name: str) -> None:
    def walk(variant: str) -> dict[str, Any]:
        pair = ConnectionPair(dialect)
        first = user(id="item_1")
        probe = ConnectionPair(dialect)
        probe.send_accepted(events.ConversationItemCreate(item=first))
        return final_state(pair, _reorderings(Spoken(probe))[variant])

    assert walk(name) == walk("usual")


def test_text_answer(pair: ConnectionPair) -> None:
    ask(pair)
    pair.send_accepted(events.ResponseCreate(response=ResponseConfig(output_modalities=("text",))))
    ids: Any = {"response_id": "resp_1", "item_id": "item_a", "output_index": 0, "content_index": 0}
    item = Item(type="message", id="item_a", status="in_progress", role="assistant", content=())
    pair.serve(
        created(output_modalities=("text",)),
        events.ResponseOutputItemAdded(response_id="resp_1", output_index=0, item=item),
        *item_events(item, previous_item_id="item_1", dialect=pair.dialect, done=False),
        events.ResponseContentPartAdded(part=ContentPart(type="text", text=""), **ids),
        events.ResponseOutputTextDelta(delta="Elev", **ids),
        events.ResponseOutputTextDelta(delta="en.", **ids),
    )
    assert pair.state.entries["item_a"].parts[0].text == "Eleven."
    whole = replace(item, status="completed", content=(ContentPart(type="output_text", text="Eleven."),))
    pair.serve(
        events.ResponseOutputTextDone(text="Eleven.", **ids),
        events.ResponseOutputItemDone(response_id="resp_1", output_index=0, item=whole),
        done(usage=Usage(total_tokens=3)),
    )
    assert pair.state.conversation[-1] == whole
    assert not pair.state.audio_produced


@both
def test_length_of_audio_follows_the_output_format(dialect: Dialect) -> None:
    pair = ConnectionPair(dialect)
    change = SessionConfig.of(output_format=AudioFormat(type="audio/pcmu"))
    pair.send_accepted(events.SessionUpdate(session=change))
    pair.serve(created(), *Spoken(pair).all(), done())
    assert pair.state.entries["item_a"].audio_ms == 14_400 / 8


# --- 7.3 microphone turn, 7.7 idle timeout ----------------------------------------------------------------------------


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


def transcribed(item_id: str) -> events.ConversationItemInputAudioTranscriptionCompleted:
    place: Any = {"item_id": item_id, "content_index": 0}
    return events.ConversationItemInputAudioTranscriptionCompleted(**place, transcript="How cold?")


def test_microphone_turn(pair: ConnectionPair) -> None:
    append_speech(pair)
    assert pair.state.input_audio_buffer.bytes == 48_000
    started, stopped, *rest = turn(pair, "item_u")
    pair.serve(started)
    assert pair.state.input_audio_buffer.speech_item_id == "item_u"
    pair.serve(stopped, *rest)
    buffer = pair.state.input_audio_buffer
    assert (buffer.bytes, buffer.total_bytes, buffer.speech_item_id) == (0, 48_000, None)
    pair.serve(created(), *Spoken(pair).all(), done())
    assert pair.state.order == ["item_u", "item_a"]


@both
def test_transcription_may_come_early_late_or_in_between(dialect: Dialect) -> None:
    finals = []
    for place in range(8):
        pair = ConnectionPair(dialect)
        append_speech(pair)
        received: list[Event] = [*turn(pair, "item_u"), created(), *Spoken(pair, previous="item_u").all(), done()]
        place = [0, 2, 3, 4, 5, 7, 12, len(received)][place]
        pair.serve(*received[:place], transcribed("item_u"), *received[place:])
        assert pair.state.conversation[0].content[0].transcript == "How cold?"
        finals.append(pair.state.snapshot())
    assert all(final == finals[0] for final in finals)


def test_transcription_may_never_come(pair: ConnectionPair) -> None:
    append_speech(pair)
    pair.serve(*turn(pair, "item_u"))
    problem = ErrorDetail(type="server_error", code=None, message="Input transcription failed.")
    pair.serve(events.ConversationItemInputAudioTranscriptionFailed(item_id="item_u", content_index=0, error=problem))
    assert pair.state.conversation[0].content[0].transcript is None


def test_idle_timeout() -> None:
    pair = ConnectionPair()
    append_speech(pair)
    pair.serve(
        events.InputAudioBufferTimeoutTriggered(audio_start_ms=0, audio_end_ms=1000, item_id="item_u"),
        *committed(pair.server.state, "item_u", dialect="ga"),
    )
    assert pair.state.order == ["item_u"]


# --- 7.4 push to talk -------------------------------------------------------------------------------------------------


def test_push_to_talk(pair: ConnectionPair) -> None:
    pair.send_accepted(events.SessionUpdate(session=SessionConfig.of(turn_detection=None)))
    append_speech(pair, 300)
    assert types(pair.send_accepted(events.InputAudioBufferClear())) == ["input_audio_buffer.cleared"]
    append_speech(pair, 200)
    received = types(pair.send_accepted(events.InputAudioBufferCommit()))
    announced = {"ga": ["conversation.item.added", "conversation.item.done"], "preview": ["conversation.item.created"]}
    assert received == ["input_audio_buffer.committed", *announced[pair.dialect]]
    assert pair.state.active_response_id is None  # a commit creates no response
    assert pair.refused(events.InputAudioBufferCommit()).code == "input_audio_buffer_commit_empty"
    pair.send_accepted(events.ResponseCreate())
    pair.serve(created(), *Spoken(pair).all(), done())
    assert pair.state.input_audio_buffer.total_bytes == 48 * 500


def test_a_commit_by_hand_ends_the_running_turn(pair: ConnectionPair) -> None:
    append_speech(pair)
    pair.serve(events.InputAudioBufferSpeechStarted(audio_start_ms=0, item_id="item_u"))
    first = pair.send_accepted(events.InputAudioBufferCommit())
    append_speech(pair)
    second = pair.send_accepted(events.InputAudioBufferCommit())
    assert first[0].item_id == "item_u"  # type: ignore[attr-defined]
    assert second[0].item_id != "item_u"  # type: ignore[attr-defined]


# --- 7.5 barge-in -----------------------------------------------------------------------------------------------------


def test_barge_in_while_speaking(pair: ConnectionPair) -> None:
    ask(pair)
    s = Spoken(pair)
    pair.serve(created(), s.output_item_added, s.item_added, s.part_added, *s.deltas)
    append_speech(pair)
    pair.serve(events.InputAudioBufferSpeechStarted(audio_start_ms=100, item_id="item_u"))
    cut = replace(s.whole, status="incomplete")
    reason = StatusDetails(type="cancelled", reason="turn_detected")
    pair.serve(
        s.audio_done,
        s.transcript_done,
        replace(s.output_item_done, item=cut),
        done(status="cancelled", status_details=reason, output=(cut,)),
    )
    assert pair.state.active_response_id is None
    received = pair.send_accepted(events.ConversationItemTruncate(item_id="item_a", content_index=0, audio_end_ms=120))
    assert types(received) == ["conversation.item.truncated"]
    entry = pair.state.entries["item_a"]
    assert (entry.truncated_ms, entry.audio_ms) == (120, 300)
    assert entry.item.content[0].transcript is None  # unheard words are forgotten
    assert entry.item.status == "incomplete"
    pair.serve(*turn(pair, "item_u")[1:], created("resp_2"))
    assert pair.state.active_response_id == "resp_2"


@both
def test_truncation_may_overtake_the_end_of_the_response(dialect: Dialect) -> None:
    """Cut before, between or after the closing events: the same in the end."""
    finals = []
    for place in range(4):
        pair = ConnectionPair(dialect)
        s = Spoken(pair)
        pair.serve(created(), s.output_item_added, s.item_added, *s.deltas)
        closing: list[Event] = [s.transcript_done, s.output_item_done, done(status="cancelled")]
        pair.serve(*closing[:place])
        pair.send_accepted(events.ConversationItemTruncate(item_id="item_a", content_index=0, audio_end_ms=0))
        pair.serve(*closing[place:])
        finals.append(pair.state.snapshot())
        assert pair.state.entries["item_a"].item.content[0].transcript is None
    assert all(final == finals[0] for final in finals)


def test_barge_in_after_generation_needs_only_the_truncation(pair: ConnectionPair) -> None:
    pair.serve(created(), *Spoken(pair).all(), done())
    pair.serve(events.InputAudioBufferSpeechStarted(audio_start_ms=0, item_id="item_u"))
    assert pair.refused(events.ResponseCancel()).code == "response_cancel_not_active"
    pair.send_accepted(events.ConversationItemTruncate(item_id="item_a", content_index=0, audio_end_ms=300))


def test_late_deltas_of_a_cancelled_response_stay_with_their_item(pair: ConnectionPair) -> None:
    s = Spoken(pair)
    pair.serve(created(), s.output_item_added, s.item_added, *s.deltas[:2])
    pair.send_accepted(events.ResponseCancel())
    pair.serve(*s.deltas[2:], s.output_item_done, done(status="cancelled"))
    assert pair.state.entries["item_a"].audio_ms == 300


@both
def test_webrtc_clears_its_own_output(dialect: Dialect) -> None:
    pair = ConnectionPair(dialect, webrtc=True)
    pair.serve(created(), events.OutputAudioBufferStarted(response_id="resp_1"))
    pair.send_accepted(events.ResponseCancel())
    pair.send_accepted(events.OutputAudioBufferClear())
    pair.serve(done(status="cancelled"), events.OutputAudioBufferCleared(response_id="resp_1"))


# --- 7.6 function call ------------------------------------------------------------------------------------------------


def test_function_calls(pair: ConnectionPair) -> None:
    ask(pair)
    pair.serve(created())
    for n in (1, 2):
        item = Item(type="function_call", id=f"item_f{n}", name="f", call_id=f"call_{n}", arguments="")
        item = replace(item, status="in_progress")
        ids: Any = {"response_id": "resp_1", "item_id": item.id, "output_index": n - 1, "call_id": item.call_id}
        pair.serve(
            events.ResponseOutputItemAdded(response_id="resp_1", output_index=n - 1, item=item),
            *item_events(item, previous_item_id=pair.state.order[-1], dialect=pair.dialect, done=False),
            events.ResponseFunctionCallArgumentsDelta(delta='{"a":', **ids),
            events.ResponseFunctionCallArgumentsDelta(delta="1}", **ids),
        )
        assert pair.state.entries[item.id].arguments == '{"a":1}'
        name = "f" if pair.dialect == "ga" else UNSET
        whole = replace(item, status="completed", arguments='{"a":1}')
        pair.serve(
            events.ResponseFunctionCallArgumentsDone(name=name, arguments='{"a":1}', **ids),
            events.ResponseOutputItemDone(response_id="resp_1", output_index=n - 1, item=whole),
        )
    assert pair.refused(events.ResponseCreate()).code == "conversation_already_has_active_response"
    pair.serve(done())
    assert pair.state.responses["resp_1"].item_ids == ["item_f1", "item_f2"]
    for n in (1, 2):
        output = Item(type="function_call_output", call_id=f"call_{n}", output='{"ok":true}')
        pair.send_accepted(events.ConversationItemCreate(item=output))
    pair.send_accepted(events.ResponseCreate())
    types_ = [item.type for item in pair.state.conversation]
    assert types_ == ["message", *["function_call"] * 2, *["function_call_output"] * 2]


# --- 7.8 MCP ----------------------------------------------------------------------------------------------------------


def test_mcp() -> None:
    pair = ConnectionPair()
    listed = Item(type="mcp_list_tools", id="item_l", server_label="tides", tools=())
    tool = {"type": "mcp", "server_label": "tides", "server_url": "https://tides.example/mcp"}
    pair.send_accepted(events.SessionUpdate(session=SessionConfig(tools=(tool,))))
    request = Item(type="mcp_approval_request", id="mcpa_1", server_label="tides", name="search", arguments="{}")
    pair.serve(
        events.McpListToolsInProgress(item_id="item_l"),
        events.ConversationItemAdded(item=listed),
        events.McpListToolsCompleted(item_id="item_l"),
        events.ConversationItemDone(item=replace(listed, tools=({"name": "search", "input_schema": {}},))),
        events.ConversationItemAdded(item=request),
        events.ConversationItemDone(item=request),
    )
    approval = Item(type="mcp_approval_response", id="mcpr_1", approval_request_id="mcpa_1", approve=True)
    pair.send_accepted(events.ConversationItemCreate(item=approval))
    assert pair.state.order == ["item_l", "mcpa_1", "mcpr_1"]


# --- 7.10 out of band -------------------------------------------------------------------------------------------------


def test_out_of_band_answers_leave_the_conversation_alone(pair: ConnectionPair) -> None:
    ask(pair)
    s, aside = Spoken(pair), Spoken(pair, item_id="item_x", response_id="resp_x")
    pair.serve(created(), s.output_item_added, s.item_added)
    aside_config = ResponseConfig(
        conversation="none", input=(), metadata={"topic": "mood"}, output_modalities=("text",)
    )
    pair.send_accepted(events.ResponseCreate(response=aside_config))
    pair.serve(created("resp_x", conversation_id=None, metadata={"topic": "mood"}), aside.output_item_added)
    for mine, other in itertools.zip_longest([*s.deltas, s.output_item_done], [*aside.deltas, aside.output_item_done]):
        pair.serve(mine, other)
    pair.serve(done("resp_x", conversation_id=None))
    assert pair.state.active_response_id == "resp_1"
    pair.serve(done())
    assert pair.state.order == ["item_1", "item_a"]
    assert pair.state.responses["resp_x"].item_ids == ["item_x"]
    assert pair.state.entries["item_x"].audio_ms == 300
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
    create("again second", previous_item_id="first")
    pair.send_accepted(events.ConversationItemDelete(item_id="first"))
    assert pair.state.order == ["again second", "root_of_nothing", "appended", "appended too"]


def test_input_audio_is_not_echoed(pair: ConnectionPair) -> None:
    part = ContentPart(type="input_audio", audio=bytes(480))
    received: Any = pair.send_accepted(
        events.ConversationItemCreate(item=Item(type="message", role="user", content=(part,)))
    )
    assert received[0].item.content == (ContentPart(type="input_audio", transcript=None),)
    assert received[0].item.status == "completed"


def test_unconfirmed_client_events_do_not_change_the_state() -> None:
    """Only what the service confirms counts: a client is not ahead of the service."""
    client = Connection("client")
    client.send(events.SessionUpdate(session=SessionConfig.of(voice="ash")))
    client.send(events.ConversationItemCreate(item=user(id="item_1")))
    client.send(events.ResponseCreate())
    assert client.state.snapshot() == Connection("client").state.snapshot()


def test_a_snapshot_does_not_follow_later_events(pair: ConnectionPair) -> None:
    s = Spoken(pair)
    pair.serve(created(), s.output_item_added, s.deltas[0])
    before = pair.state.snapshot()
    once = repr(before)
    pair.serve(*s.deltas, replace(s.output_item_added, item=replace(s.begun, id="item_b")), done())
    append_speech(pair)
    assert repr(before) == once


def test_a_confirmed_session_is_whole() -> None:
    """A setting that the service no longer sends holds no longer."""
    pair = ConnectionPair()
    pair.serve(events.SessionUpdated(session=SessionConfig(id="sess_1", prompt={"id": "p"})))
    pair.serve(events.SessionUpdated(session=SessionConfig(id="sess_1")))
    assert pair.state.session.prompt is UNSET
