"""Refusals of a service: code, parameter and wording as the service's own, and no change of the state."""

import base64
import contextlib
import gc
import json
import weakref
from dataclasses import replace
from typing import Any

import pytest

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import (
    PCM16,
    PCMA,
    PCMU,
    UNSET,
    AudioFormat,
    Connection,
    ContentPart,
    Dialect,
    Item,
    SessionConfig,
    events,
)
from rtnb.protocol.service.replies import answer
from rtnb.protocol.service.schema import APPEND_LIMIT_BYTES, check_session
from rtnb.protocol.values import Audio, AudioOutput, Response, ResponseConfig
from tests.protocol.goldens import DIALECTS
from tests.protocol.pair import ConnectionPair, Ids, service

REALTIME = {"type": "realtime"}


class _Text(str):
    """A text that can be watched: `str` itself takes no weak references."""


def refuse(side: Connection, message: Any) -> Any:
    """Send a message that must be refused without a change; return the error's detail."""
    before = side.state.snapshot()
    with pytest.raises(RemoteProtocolError) as caught:
        side.receive(message if isinstance(message, str | bytes) else json.dumps(message))
    assert side.state.snapshot() == before
    detail = caught.value.answer.error
    assert detail.type == "invalid_request_error"
    if isinstance(message, dict):
        assert detail.event_id == message.get("event_id")
    side.send(caught.value.answer)  # the session goes on
    return detail


def update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "event_id": "e7", "session": session}


def ga(**session: Any) -> dict[str, Any]:
    return update(**REALTIME, **session)


def user(**fields: Any) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}], **fields}
    return {"type": "conversation.item.create", "event_id": "e8", "item": item}


def create(**response: Any) -> dict[str, Any]:
    return {"type": "response.create", "event_id": "e9", "response": response}


# --- the frame --------------------------------------------------------------------------------------------------------

_GA_LIST = (
    "'session.update', 'input_audio_buffer.append', 'input_audio_buffer.commit', 'input_audio_buffer.clear', "
    "'conversation.item.create', 'conversation.item.retrieve', 'conversation.item.truncate', "
    "'conversation.item.delete', 'response.create', and 'response.cancel'."
)


@pytest.mark.parametrize(
    "kind", ["nope", "session.created", "transcription_session.update", "output_audio_buffer.clear"]
)
def test_unknown_event(kind: str) -> None:
    detail = refuse(service(), {"type": kind, "event_id": "e1"})
    assert (detail.code, detail.param) == ("invalid_value", "type")
    assert detail.message == f"Invalid value: '{kind}'. Supported values are: {_GA_LIST}"


def test_the_preview_has_one_event_more() -> None:
    detail = refuse(service("preview"), {"type": "nope"})
    assert detail.message.endswith("'response.cancel', and 'transcription_session.update'.")


def test_clearing_the_output_is_for_webrtc() -> None:
    side = service(webrtc=True)
    assert side.receive('{"type":"output_audio_buffer.clear"}') == events.OutputAudioBufferClear()


def test_bad_json() -> None:
    for text in ("{", "nope", '{"type":"x"', "", "[1]", '"session.update"'):
        detail = refuse(service(), text)
        assert (detail.code, detail.param, detail.event_id) == ("invalid_json", None, None)
        assert detail.message.startswith("Invalid event: failed to parse JSON value")


@pytest.mark.parametrize("text", ['{"a":"long', "[" * 100_000, '{"type":"none"}'])
def test_a_refused_text_is_let_go_at_once(text: str) -> None:
    side, refused = service(), _Text(text)
    gone = weakref.ref(refused)
    gc.disable()
    try:
        with contextlib.suppress(RemoteProtocolError):
            side.receive(refused)
        del refused
        assert gone() is None
    finally:
        gc.enable()


def test_binary_frame() -> None:
    detail = refuse(service(), b'{"type":"input_audio_buffer.clear"}')
    assert (detail.code, detail.param, detail.event_id) == ("invalid_event", None, None)
    assert detail.message.startswith("Expected a text WebSocket message")


@pytest.mark.parametrize("message", [{}, {"event_id": "e1"}, {"type": None}, {"type": 7, "event_id": "e1"}])
def test_missing_type(message: dict[str, Any]) -> None:
    detail = refuse(service(), message)
    assert (detail.code, detail.param) == ("invalid_event", None)


def test_event_id_is_at_most_512_characters() -> None:
    service().receive(json.dumps({"type": "input_audio_buffer.clear", "event_id": "x" * 512}))
    detail = refuse(service(), {"type": "input_audio_buffer.clear", "event_id": "x" * 513})
    assert (detail.code, detail.param) == ("string_above_max_length", "event_id")


# --- shapes and values: (message, code, param, piece of the message) --------------------------------------------------

UNKNOWN, MISSING, VALUE, KIND = "unknown_parameter", "missing_required_parameter", "invalid_value", "invalid_type"
PCM = {"type": "audio/pcm", "rate": 24_000}

BELOW, ABOVE, DECIMAL_ABOVE = "integer_below_min_value", "integer_above_max_value", "decimal_above_max_value"
LONG = "string_above_max_length"
HEAR, SPEAK, TURNS = "session.audio.input", "session.audio.output", "session.audio.input.turn_detection"
PART, MODALITIES = "item.content[0]", "session.output_modalities"


def hear(**fields: Any) -> dict[str, Any]:
    return ga(audio={"input": fields})


def speak(**fields: Any) -> dict[str, Any]:
    return ga(audio={"output": fields})


def turns(kind: str, **fields: Any) -> dict[str, Any]:
    return hear(turn_detection={"type": kind, **fields})


def item(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": fields}


def part(fields: dict[str, Any], *, role: str = "user") -> dict[str, Any]:
    return user(role=role, content=[fields])


def truncate(content_index: int, audio_end_ms: float) -> dict[str, Any]:
    where = {"item_id": "i", "content_index": content_index, "audio_end_ms": audio_end_ms}
    return {"type": "conversation.item.truncate", **where}


def append(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "input_audio_buffer.append", **fields}


Row = tuple[dict[str, Any], str, str, str]

GA: list[Row] = [
    (update(modalities=["text", "audio"], voice="alloy"), MISSING, "session.type", "Missing required parameter"),
    (ga(modalities=["text"]), UNKNOWN, "session.modalities", "Unknown parameter: 'session.modalities'."),
    (ga(voice="alloy"), UNKNOWN, "session.voice", ""),
    (ga(turn_detection=None), UNKNOWN, "session.turn_detection", ""),
    (ga(temperature=0.8), UNKNOWN, "session.temperature", ""),
    (ga(input_audio_format="pcm16"), UNKNOWN, "session.input_audio_format", ""),
    (create(modalities=["text"]), UNKNOWN, "response.modalities", ""),
    # session
    ({"type": "session.update", "event_id": "e"}, MISSING, "session", ""),
    (update(type="live"), VALUE, "session.type", "'live'. Supported values are: 'realtime' and 'transcription'."),
    ({"type": "session.update", "session": "x"}, KIND, "session", "expected an object, but got a string instead"),
    (speak(format={"type": "audio/pcm"}), MISSING, f"{SPEAK}.format.rate", ""),
    (hear(format={"type": "audio/pcm"}), MISSING, f"{HEAR}.format.rate", ""),
    (hear(format="pcm16"), KIND, f"{HEAR}.format", ""),
    (hear(format={"type": "audio/opus"}), VALUE, f"{HEAR}.format.type", "opus"),
    (hear(format={"type": "audio/pcmu", "rate": 8000}), UNKNOWN, f"{HEAR}.format.rate", ""),
    (hear(format={"type": "audio/pcm", "rate": 16000}),
     BELOW, f"{HEAR}.format.rate", "Expected a value >= 24000, but got 16000 instead."),
    (speak(format={"type": "audio/pcm", "rate": 48000}), ABOVE, f"{SPEAK}.format.rate", "<= 24000"),
    (speak(speed=1.6), DECIMAL_ABOVE, f"{SPEAK}.speed", "<= 1.5"),
    (speak(speed=True), KIND, f"{SPEAK}.speed", "a boolean"),
    (speak(voice={}), MISSING, f"{SPEAK}.voice.id", ""),
    (ga(audio={"input": {"turn_detection": {"threshold": 0.5}}}), MISSING, f"{TURNS}.type", ""),
    (turns("server_vad", threshold=1.5), DECIMAL_ABOVE, f"{TURNS}.threshold", ""),
    (turns("server_vad", idle_timeout_ms=4999), BELOW, f"{TURNS}.idle_timeout_ms", ">= 5000"),
    (turns("semantic_vad", threshold=0.5), UNKNOWN, f"{TURNS}.threshold", ""),
    (turns("none"), VALUE, f"{TURNS}.type", ""),
    (ga(output_modalities=["text", "audio"]), VALUE, MODALITIES, "Invalid modalities: ['text', 'audio']."),
    (ga(output_modalities=[]), VALUE, MODALITIES, ""),
    (ga(output_modalities=["video"]), VALUE, "session.output_modalities[0]", "'video'"),
    (ga(max_output_tokens=0), BELOW, "session.max_output_tokens", ""),
    (ga(max_output_tokens=4097), ABOVE, "session.max_output_tokens", ""),
    (ga(max_output_tokens="many"), KIND, "session.max_output_tokens", ""),
    (ga(tools=[{"type": "function", "function": {"name": "f"}}]), MISSING, "session.tools[0].name", ""),
    (ga(tools=[{"type": "function", "name": "f", "meta": 1}]),
     UNKNOWN, "session.tools[0].meta", "Unknown parameter: 'session.tools[0].meta'."),
    (ga(tools=[{"name": "f"}]), MISSING, "session.tools[0].type", ""),
    (ga(tool_choice="always"), VALUE, "session.tool_choice", "'none', 'auto', and 'required'."),
    (ga(tool_choice={"type": "function", "function": {"name": "f"}}), MISSING, "session.tool_choice.name", ""),
    (ga(truncation={"type": "retention_ratio"}), MISSING, "session.truncation.retention_ratio", ""),
    (ga(reasoning={"effort": "extreme"}), VALUE, "session.reasoning.effort", ""),
    (ga(include=["everything"]), VALUE, "session.include[0]", ""),
    (update(type="transcription", instructions="x"), UNKNOWN, "session.instructions", ""),
    # items
    ({"type": "conversation.item.create"}, MISSING, "item", ""),
    (user(role=7), KIND, "item.role", ""),
    (user(role="robot"), VALUE, "item.role", ""),
    (user(id="x" * 33),
     LONG, "item.id", "Invalid 'item.id': string too long. Expected a string with maximum length 32"),
    (part({"type": "output_text", "text": "x"}), VALUE, f"{PART}.type", ""),
    (part({"type": "input_text"}), MISSING, f"{PART}.text", ""),
    (part({"type": "input_audio", "audio": "?"}), VALUE, f"{PART}.audio", "Expected base64-encoded audio bytes"),
    (part({"type": "input_audio", "audio": ""}, role="system"),
     VALUE, f"{PART}.type", "Supported values are: 'input_text'."),
    (part({"type": "output_audio", "transcript": "x"}, role="assistant"),
     VALUE, f"{PART}.type", "'output_text' and 'text'"),
    (part({"type": "output_audio", "audio": ""}, role="assistant"), VALUE, f"{PART}.type", ""),
    (item({"type": "item_reference", "id": "i"}), VALUE, "item.type", ""),
    (item({"type": "function_call_output", "call_id": "c"}), MISSING, "item.output", ""),
    (item({"type": "function_call_output", "call_id": "c" * 33, "output": ""}), LONG, "item.call_id", ""),
    ({"type": "conversation.item.truncate", "item_id": "i", "content_index": 0}, MISSING, "audio_end_ms", ""),
    (truncate(1, 0), ABOVE, "content_index", ""),
    (truncate(0, -1), BELOW, "audio_end_ms", ""),
    (truncate(0, 1.5), KIND, "audio_end_ms", "a decimal"),
    ({"type": "conversation.item.delete"}, MISSING, "item_id", ""),
    ({"type": "conversation.item.retrieve", "item_id": None}, KIND, "item_id", "but got null instead"),
    # buffer
    ({"type": "input_audio_buffer.append"}, MISSING, "audio", ""),
    (append({"audio": "data:audio/wav;base64,AAAA"}), VALUE, "audio", "Invalid 'audio'. Expected base64"),
    (append({"audio": "AAA"}), VALUE, "audio", ""),
    (append({"audio": "AAAA", "rate": 24000}), UNKNOWN, "rate", "Unknown parameter: 'rate'."),
    # responses
    (create(conversation="other"), VALUE, "response.conversation", "'auto' and 'none'"),
    (create(input=[{"type": "item_reference"}]), MISSING, "response.input[0].id", ""),
    (create(metadata={str(i): "" for i in range(17)}),
     "object_above_max_properties", "response.metadata", "at most 16"),
    (create(metadata={"k" * 65: ""}), "property_name_above_max_length", "response.metadata", "64"),
    (create(metadata={"k": "v" * 513}), LONG, "response.metadata.k", "512"),
    (create(temperature=0.8), UNKNOWN, "response.temperature", ""),
]  # fmt: skip
PREVIEW: list[Row] = [
    (ga(instructions="hi"), UNKNOWN, "session.type", "Unknown parameter: 'session.type'."),
    (update(audio={"output": {"voice": "marin"}}), UNKNOWN, "session.audio", ""),
    (update(output_modalities=["audio"]), UNKNOWN, "session.output_modalities", ""),
    (create(output_modalities=["text"]), UNKNOWN, "response.output_modalities", ""),
    (update(modalities=["audio"]), VALUE, "session.modalities", "['text'] and ['audio', 'text']"),
    (update(input_audio_format="g711-ulaw"),
     VALUE, "session.input_audio_format", "'pcm16', 'g711_ulaw', and 'g711_alaw'"),
    (update(temperature=0.5), "decimal_below_min_value", "session.temperature", ">= 0.6"),
    (update(temperature=1.3), DECIMAL_ABOVE, "session.temperature", "<= 1.2"),
    (update(turn_detection={"type": "server_vad", "idle_timeout_ms": 6000}),
     UNKNOWN, "session.turn_detection.idle_timeout_ms", ""),
    (update(truncation="auto"), UNKNOWN, "session.truncation", ""),
    (update(tools=[{"type": "mcp", "server_label": "x"}]),
     VALUE, "session.tools[0].type", "Supported values are: 'function'."),
    (part({"type": "audio", "audio": ""}, role="assistant"), VALUE, f"{PART}.type", "Supported values are: 'text'."),
    (part({"type": "output_text", "text": "x"}, role="assistant"), VALUE, f"{PART}.type", ""),
    (part({"type": "input_image", "image_url": "data:"}), VALUE, f"{PART}.type", ""),
    (user(phase="final_answer"), UNKNOWN, "item.phase", ""),
    (create(metadata={"k": 1}), KIND, "response.metadata.k", "expected a string"),
]  # fmt: skip
TABLE = [*(("ga", *row) for row in GA), *(("preview", *row) for row in PREVIEW)]


@pytest.mark.parametrize("dialect, message, code, param, piece", TABLE, ids=lambda value: str(value)[:70])
def test_refused(dialect: Dialect, message: dict[str, Any], code: str, param: str, piece: str) -> None:
    detail = refuse(service(dialect), message)
    assert (detail.code, detail.param) == (code, param)
    assert piece in detail.message


ACCEPTED: list[tuple[Dialect, dict[str, Any]]] = [
    ("ga", ga()),
    ("ga", ga(audio={"input": {"turn_detection": None, "noise_reduction": None, "transcription": None}})),
    ("ga", ga(audio={"output": {"voice": {"id": "voice_1"}}}, max_output_tokens="inf", tools=[], instructions="")),
    ("ga", ga(tools=[{"type": "mcp", "server_label": "x", "server_url": "https://x", "require_approval": "never"}])),
    ("ga", ga(tool_choice={"type": "mcp", "server_label": "x"}, reasoning={"effort": "low"}, truncation="disabled")),
    ("ga", ga(model="m", prompt={"id": "p"}, parallel_tool_calls=True, include=None, tracing="auto")),
    ("ga", user(id="x" * 32)),
    ("ga", user(role="assistant", content=[{"type": "text", "text": "older name"}])),
    ("ga", create(input=[{"type": "item_reference", "id": "i"}], metadata={f"{i:064}": "v" * 512 for i in range(16)})),
    ("ga", create(conversation="none", input=[], metadata=None)),
    ("preview", update()),
    ("preview", update(modalities=["audio", "text"], turn_detection={"silence_duration_ms": 300})),
    ("preview", update(turn_detection={"type": "none"}, voice="a voice of tomorrow")),
    ("preview", update(tool_choice={"type": "function", "function": {"name": "f"}})),
    ("preview", update(tool_choice={"type": "function", "name": "f"})),
    ("preview", create(max_output_tokens=9, temperature=1.2)),
]


@pytest.mark.parametrize("dialect, message", ACCEPTED, ids=lambda value: str(value)[:70])
def test_accepted(dialect: Dialect, message: dict[str, Any]) -> None:
    side = service(dialect)
    event = side.receive(json.dumps(message))
    for reply in answer(side.state, event, make_id=Ids(), dialect=dialect):
        side.send(reply)


def test_http_requests_are_judged_by_the_same_tables() -> None:
    assert check_session({"type": "realtime", "model": "m"}, dialect="ga") is None
    assert check_session({"model": "m", "voice": "alloy"}, dialect="preview") is None
    missing, unknown = check_session({"model": "m"}, dialect="ga"), check_session(REALTIME, dialect="preview")
    assert missing
    assert (missing.code, missing.param) == (MISSING, "session.type")
    assert unknown
    assert (unknown.code, unknown.param) == (UNKNOWN, "type")


# --- what the state forbids -------------------------------------------------------------------------------------------


def _silence(ms: int, audio_format: AudioFormat = PCM16) -> events.InputAudioBufferAppend:
    return events.InputAudioBufferAppend(audio=bytes(ms * audio_format.bytes_per_ms))


def _speaking(pair: ConnectionPair, ms: int = 500) -> None:
    """Begin a spoken response: an item with audio, in a response that goes on."""
    item = Item(type="message", id="item_a", status="in_progress", role="assistant", content=())
    response = Response(id="resp_1", status="in_progress", conversation_id="conv_1", output=())
    pair.serve(
        events.ResponseCreated(response=response),
        events.ResponseOutputItemAdded(response_id="resp_1", output_index=0, item=item),
        events.ConversationItemCreated(item=item),
        events.ResponseOutputAudioDelta(
            response_id="resp_1", item_id="item_a", output_index=0, content_index=0, delta=bytes(48 * ms)
        ),
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_voice_is_frozen_once_heard(dialect: Dialect) -> None:
    pair = ConnectionPair(dialect)
    pair.send_accepted(events.SessionUpdate(session=SessionConfig.of(voice="verse")))
    _speaking(pair)
    change = SessionConfig.of(voice="ash", instructions="New.")
    detail = pair.refused(events.SessionUpdate(event_id="e1", session=change))
    assert (detail.code, detail.event_id) == ("cannot_update_voice", "e1")
    assert detail.message == "Cannot update a conversation's voice if assistant audio is present."
    assert detail.param == {"ga": "session.audio.output.voice", "preview": "session.voice"}[dialect]
    assert pair.state.session.instructions != "New."  # all or nothing
    pair.send_accepted(events.SessionUpdate(session=SessionConfig.of(voice="verse", instructions="New.")))
    assert pair.state.session.instructions == "New."


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_response_cannot_take_another_voice_either(dialect: Dialect) -> None:
    def create_with(voice: str, **fields: Any) -> events.ResponseCreate:
        output = Audio(output=AudioOutput(voice=voice))
        return events.ResponseCreate(response=ResponseConfig(audio=output, **fields))

    pair = ConnectionPair(dialect)
    pair.send_accepted(create_with("ash"))
    _speaking(pair)
    pair.serve(events.ResponseDone(response=Response(id="resp_1", status="completed", conversation_id="conv_1")))
    detail = pair.refused(create_with("ash"))
    assert detail.code == "cannot_update_voice"
    assert detail.param == {"ga": "response.audio.output.voice", "preview": "response.voice"}[dialect]
    pair.send_accepted(create_with("alloy"))
    pair.send_accepted(create_with("ash", conversation="none"))


@pytest.mark.parametrize(
    "change, param", [({"model": "other"}, "session.model"), ({"tracing": None}, "session.tracing")]
)
def test_some_settings_cannot_change(change: dict[str, Any], param: str) -> None:
    pair = ConnectionPair()
    pair.send_accepted(events.SessionUpdate(session=SessionConfig(model="m", tracing="auto")))
    assert pair.refused(events.SessionUpdate(session=SessionConfig(**change))).param == param


def test_a_session_keeps_its_type() -> None:
    side = service(transcription=True)
    assert refuse(side, ga()).param == "session.type"
    assert side.receive(json.dumps(update(type="transcription"))) == events.SessionUpdate(
        event_id="e7", session=SessionConfig(type="transcription")
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_response_at_a_time(dialect: Dialect) -> None:
    pair = ConnectionPair(dialect)
    _speaking(pair)
    detail = pair.refused(events.ResponseCreate(event_id="e1"))
    assert (detail.code, detail.param, detail.event_id) == ("conversation_already_has_active_response", None, "e1")
    assert detail.message.startswith("Conversation already has an active response in progress: resp_1. Wait until")
    pair.send_accepted(events.ResponseCreate(response=ResponseConfig(conversation="none", metadata={"topic": "x"})))
    aside = Response(id="resp_2", status="in_progress", conversation_id=None)
    pair.serve(events.ResponseCreated(response=aside))
    assert pair.state.active_response_id == "resp_1"
    pair.send_accepted(events.ResponseCancel(response_id="resp_2"))
    pair.send_accepted(events.ResponseCancel())


@pytest.mark.parametrize("response_id", [UNSET, "resp_9", "resp_1"], ids=["none", "unknown", "ended"])
def test_nothing_to_cancel(response_id: Any) -> None:
    pair = ConnectionPair()
    _speaking(pair)
    pair.serve(events.ResponseDone(response=Response(id="resp_1", status="completed", conversation_id="conv_1")))
    detail = pair.refused(events.ResponseCancel(response_id=response_id))
    assert (detail.code, detail.param) == ("response_cancel_not_active", None)
    assert detail.message == "Cancellation failed: no active response found"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("audio_format", [PCM16, PCMU, PCMA], ids=lambda made: made.type)
def test_a_commit_needs_100_ms(dialect: Dialect, audio_format: AudioFormat) -> None:
    pair = ConnectionPair(dialect)
    pair.send_accepted(events.SessionUpdate(session=SessionConfig.of(input_format=audio_format, turn_detection=None)))
    detail = pair.refused(events.InputAudioBufferCommit(event_id="e1"))
    assert (detail.code, detail.param, detail.event_id) == ("input_audio_buffer_commit_empty", None, "e1")
    assert "Expected at least 100ms of audio, but buffer only has 0.00ms of audio." in detail.message
    pair.send_accepted(_silence(99, audio_format))
    assert "only has 99.00ms" in pair.refused(events.InputAudioBufferCommit()).message
    pair.send_accepted(_silence(1, audio_format))
    pair.send_accepted(events.InputAudioBufferCommit())
    assert pair.refused(events.InputAudioBufferCommit()).code == "input_audio_buffer_commit_empty"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_truncation_stays_within_the_audio(dialect: Dialect) -> None:
    pair = ConnectionPair(dialect)
    pair.send_accepted(events.ConversationItemCreate(item=_user_text("item_u")))
    _speaking(pair, ms=500)

    def cut(item_id: str, ms: int) -> events.ConversationItemTruncate:
        return events.ConversationItemTruncate(event_id="e1", item_id=item_id, content_index=0, audio_end_ms=ms)

    detail = pair.refused(cut("item_a", 501))
    assert (detail.code, detail.event_id) == (None, "e1")
    assert detail.message == "Audio content of 500ms is already shorter than 501ms"
    assert pair.refused(cut("item_u", 1)).message == "Only model output audio messages can be truncated"
    assert pair.refused(cut("item_x", 1)).code == "item_not_found"
    pair.send_accepted(cut("item_a", 300))
    assert pair.refused(cut("item_a", 301)).message == "Audio content of 300ms is already shorter than 301ms"
    pair.send_accepted(cut("item_a", 0))


def _user_text(item_id: str) -> Item:
    return Item(type="message", id=item_id, role="user", content=(ContentPart(type="input_text", text="hi"),))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_items_must_be_known(dialect: Dialect) -> None:
    pair = ConnectionPair(dialect)
    pair.send_accepted(events.ConversationItemCreate(item=_user_text("item_1")))
    output, more = Item(type="function_call_output", call_id="call_9", output="{}"), _user_text("item_2")
    for event, code, param in (
        (events.ConversationItemDelete(item_id="nope"), "item_not_found", "item_id"),
        (events.ConversationItemRetrieve(item_id="nope"), "item_not_found", "item_id"),
        (events.ConversationItemTruncate(item_id="nope", content_index=0, audio_end_ms=0), "item_not_found", "item_id"),
        (events.ConversationItemCreate(item=more, previous_item_id="nope"), "item_not_found", "previous_item_id"),
        (events.ConversationItemCreate(item=_user_text("item_1")), "invalid_value", "item.id"),
        (events.ConversationItemCreate(item=output), "invalid_tool_call_id", "item.call_id"),
    ):
        detail = pair.refused(replace(event, event_id="e1"))
        assert (detail.code, detail.param, detail.event_id) == (code, param, "e1")


def test_an_append_holds_at_most_15_mib() -> None:
    most = base64.b64encode(bytes(APPEND_LIMIT_BYTES)).decode()
    assert service().receive(f'{{"type":"input_audio_buffer.append","audio":"{most}"}}')
    more = base64.b64encode(bytes(APPEND_LIMIT_BYTES + 1)).decode()
    detail = refuse(service(), {"type": "input_audio_buffer.append", "event_id": "e1", "audio": more})
    assert (detail.code, detail.param) == ("string_above_max_length", "audio")
    assert len(detail.message) < 200


def test_a_wrong_value_is_not_repeated_whole() -> None:
    assert len(refuse(service(), {"type": "x" * 1_000_000}).message) < 1000
    assert len(refuse(service(), ga(**{"y" * 1_000_000: 1})).message) < 1000
