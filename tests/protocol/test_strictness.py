"""Refusals of a service: code, parameter and wording as the service's own, and no change of the state."""

import base64
import contextlib
import copy
import gc
import json
import weakref
from dataclasses import replace
from typing import Any

import pytest

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import PCM16, PCMA, PCMU, UNSET, Connection, Dialect, Item, SessionConfig, events
from rtnb.protocol.connection import dialect_hint
from rtnb.protocol.service.replies import answer
from rtnb.protocol.service.schema import APPEND_LIMIT_BYTES, check_event, check_session
from rtnb.protocol.values import AudioFormat, ErrorDetail, ResponseConfig
from tests.protocol.goldens import DIALECTS, SERVER
from tests.protocol.pair import SPOKEN_MS, ConnectionPair, Ids, created, done, service, update, user


def refuse(side: Connection, message: Any) -> Any:
    """Send a message that must be refused without a change; return the error's detail."""
    before = side.state.snapshot()
    with pytest.raises(RemoteProtocolError) as caught:
        side.receive(message if isinstance(message, str | bytes) else json.dumps(message))
    assert side.state.snapshot() == before
    detail = caught.value.answer.error
    assert detail.type == "invalid_request_error"
    assert detail.event_id == (message.get("event_id") if isinstance(message, dict) else None)
    side.send(caught.value.answer)  # the session goes on
    return detail


# --- the frame --------------------------------------------------------------------------------------------------------

BAD_JSON = ("invalid_json", None, "Invalid event: failed to parse JSON value")
NO_TYPE = ("invalid_event", None, "Invalid event: the field 'type' is missing or not a string.")
LONG = "string_above_max_length"
GA_EVENTS = (
    "'session.update', 'input_audio_buffer.append', 'input_audio_buffer.commit', 'input_audio_buffer.clear', "
    "'conversation.item.create', 'conversation.item.retrieve', 'conversation.item.truncate', "
    "'conversation.item.delete', 'response.create', and 'response.cancel'."
)
FRAMES: list[tuple[Any, tuple[str, str | None, str]]] = [
    *((text, BAD_JSON) for text in ("{", "nope", '{"type":"x"', "", "[1]", '"session.update"')),
    *((message, NO_TYPE) for message in ({}, {"event_id": "e1"}, {"type": None}, {"type": 7, "event_id": "e1"})),
    *(
        ({"type": kind, "event_id": "e1"},
         ("invalid_value", "type", f"Invalid value: '{kind}'. Supported values are: {GA_EVENTS}"))
        for kind in ("nope", "session.created", "transcription_session.update", "output_audio_buffer.clear")
    ),
    (b'{"type":"input_audio_buffer.clear"}', ("invalid_event", None, "Expected a text WebSocket message")),
    ({"type": "input_audio_buffer.clear", "event_id": "x" * 513}, (LONG, "event_id", "Invalid 'event_id'")),
]  # fmt: skip


@pytest.mark.parametrize("message, expected", FRAMES, ids=lambda value: str(value)[:40])
def test_a_frame_is_refused(message: Any, expected: tuple[str, str | None, str]) -> None:
    detail = refuse(service(), message)
    assert (detail.code, detail.param, detail.message[: len(expected[2])]) == expected


def test_the_preview_has_one_event_more_and_webrtc_another() -> None:
    detail = refuse(service("preview"), {"type": "nope"})
    assert detail.message.endswith("'response.cancel', and 'transcription_session.update'.")
    side = service(webrtc=True)
    assert side.receive('{"type":"output_audio_buffer.clear"}') == events.OutputAudioBufferClear()


class _Text(str):
    """A text that can be watched: `str` itself takes no weak references."""


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


# --- shapes and values: path of a field, its wrong value, code, where inside of it, piece of the explanation ----------

UNKNOWN, MISSING, VALUE, KIND = "unknown_parameter", "missing_required_parameter", "invalid_value", "invalid_type"
BELOW, ABOVE, DECIMAL_ABOVE = "integer_below_min_value", "integer_above_max_value", "decimal_above_max_value"
ABSENT = "(absent)"
TEXT = {"type": "input_text", "text": "hi"}
FUNCTION = {"type": "function", "name": "f"}
NESTED = {"type": "function", "function": {"name": "f"}}
MESSAGES: dict[str, dict[str, Any]] = {
    "session.update": {"session": {"type": "realtime"}},
    "conversation.item.create": {"item": {"type": "message", "role": "user", "content": [TEXT]}},
    "conversation.item.retrieve": {"item_id": "i"},
    "conversation.item.truncate": {"item_id": "i", "content_index": 0, "audio_end_ms": 0},
    "conversation.item.delete": {"item_id": "i"},
    "input_audio_buffer.append": {"audio": "AAAA"},
    "response.create": {"response": {}},
}
HEAR, SPEAK, TURNS = "session.audio.input", "session.audio.output", "session.audio.input.turn_detection"


def message_with(kind: str, path: str, value: Any, dialect: Dialect) -> dict[str, Any]:
    """Return a right message of a kind with one field set, or left out where the value is `ABSENT`."""
    message = {"type": kind, "event_id": "e7", **copy.deepcopy(MESSAGES[kind])}
    if dialect == "preview" and kind == "session.update":
        del message["session"]["type"]
    *holders, name = path.split(".")
    inside = message
    for holder in holders:
        inside = inside.setdefault(holder, {})
    inside[name] = value
    if value is ABSENT:
        del inside[name]
    return message


def said(kind: str, role: str = "assistant", **fields: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, **fields}]}


ONLY_PREVIEW = ("modalities", "voice", "turn_detection", "temperature", "input_audio_format")
ONLY_GA = ("type", "audio", "output_modalities", "truncation")
Row = tuple[str, Any, str, str, str]
GA: dict[str, list[Row]] = {
    "session.update": [
        ("session", {"modalities": ["text", "audio"], "voice": "alloy"}, MISSING, ".type", "Missing required "),
        *((f"session.{name}", None, UNKNOWN, "", f"Unknown parameter: 'session.{name}'. ") for name in ONLY_PREVIEW),
        ("session", ABSENT, MISSING, "", ""),
        ("session.type", "live", VALUE, "", "'live'. Supported values are: 'realtime' and 'transcription'."),
        ("session", "x", KIND, "", "expected an object, but got a string instead"),
        ("session.instructions", 5, KIND, "", "expected a string, but got an integer instead. The value is 5."),
        (f"{HEAR}.format", {"type": "audio/pcm"}, MISSING, ".rate", ""),
        (f"{HEAR}.format", "pcm16", KIND, "", ""),
        (f"{HEAR}.format", {"type": "audio/opus"}, VALUE, ".type", "opus"),
        (f"{HEAR}.format", {"type": "audio/pcmu", "rate": 8000}, UNKNOWN, ".rate", ""),
        (f"{HEAR}.format", {"type": "audio/pcm", "rate": 16000}, BELOW, ".rate", "Expected a value >= 24000, but got "),
        (f"{SPEAK}.format", {"type": "audio/pcm", "rate": 48000}, ABOVE, ".rate", "<= 24000"),
        (f"{SPEAK}.speed", 1.6, DECIMAL_ABOVE, "", "<= 1.5, but got 1.6 instead"),
        (f"{SPEAK}.speed", True, KIND, "", "a boolean"),
        (f"{SPEAK}.voice", {}, MISSING, ".id", ""),
        (f"{HEAR}.transcription", {"delay": "slow"}, VALUE, ".delay", "'slow'. Supported values are: 'minimal', "),
        (TURNS, {"threshold": 0.5}, MISSING, ".type", ""),
        (TURNS, {"type": "server_vad", "threshold": 1.5}, DECIMAL_ABOVE, ".threshold", ""),
        (TURNS, {"type": "server_vad", "threshold": "low"}, KIND, ".threshold", "a decimal, but got a string"),
        (TURNS, {"type": "server_vad", "treshold": 1}, UNKNOWN, ".treshold", "Did you mean 'threshold'? Allowed are "),
        (TURNS, {"type": "server_vad", "idle_timeout_ms": 4999}, BELOW, ".idle_timeout_ms", ">= 5000"),
        (TURNS, {"type": "semantic_vad", "threshold": 0.5}, UNKNOWN, ".threshold", ""),
        (TURNS, {"type": "none"}, VALUE, ".type", "'none'. Supported values are: 'server_vad' and 'semantic_vad'."),
        ("session.output_modalities", ["text", "audio"], VALUE, "",
         "Invalid modalities: ['text', 'audio']. Supported combinations are: ['text'] and ['audio']."),
        ("session.output_modalities", [], VALUE, "", ""),
        ("session.output_modalities", ["video"], VALUE, "[0]", "'video'"),
        ("session.max_output_tokens", 0, BELOW, "", ""),
        ("session.max_output_tokens", 4097, ABOVE, "", ""),
        ("session.max_output_tokens", "many", KIND, "", ""),
        ("session.max_output_tokens", 2.5, KIND, "", "an integer, but got a decimal instead. The value is 2.5."),
        ("session.tools", [NESTED], MISSING, "[0].name", ""),
        ("session.tools", [{**FUNCTION, "meta": 1}], UNKNOWN, "[0].meta", "'session.tools[0].meta'."),
        ("session.tools", [{"name": "f"}], MISSING, "[0].type", ""),
        ("session.tool_choice", "always", VALUE, "", "'none', 'auto', and 'required'."),
        ("session.tool_choice", NESTED, MISSING, ".name", ""),
        ("session.truncation", {"type": "retention_ratio"}, MISSING, ".retention_ratio", ""),
        ("session.reasoning", {"effort": "extreme"}, VALUE, ".effort", ""),
        ("session.include", ["everything"], VALUE, "[0]", ""),
        ("session", {"type": "transcription", "instructions": "x"}, UNKNOWN, ".instructions", "Allowed are "),
        ("session", {"type": "transcription", "audio": {"output": {}}}, UNKNOWN, ".audio.output", "Allowed are input"),
    ],
    "conversation.item.create": [
        ("item", ABSENT, MISSING, "", ""),
        ("item.role", 7, KIND, "", ""),
        ("item.role", "robot", VALUE, "", ""),
        ("item.id", "x" * 33, LONG, "", "'item.id': string too long. Expected a string with maximum length 32"),
        ("item.content", [{"type": "output_text", "text": "x"}], VALUE, "[0].type", ""),
        ("item.content", [{"type": "input_text"}], MISSING, "[0].text", ""),
        ("item.content", [{"type": "input_audio", "audio": "?"}], VALUE, "[0].audio", "Expected base64-encoded audio"),
        ("item", said("input_audio", "system", audio=""), VALUE, ".content[0].type", "values are: 'input_text'."),
        ("item", said("output_audio", transcript="x"), VALUE, ".content[0].type", "'output_text' and 'text'"),
        ("item", said("output_audio", audio=""), VALUE, ".content[0].type", ""),
        ("item", {"type": "item_reference", "id": "i"}, VALUE, ".type", ""),
        ("item", {"type": "function_call_output", "call_id": "c"}, MISSING, ".output", ""),
        ("item", {"type": "function_call_output", "call_id": "c" * 33, "output": ""}, LONG, ".call_id", ""),
    ],
    "conversation.item.truncate": [
        ("audio_end_ms", ABSENT, MISSING, "", ""),
        ("audio_end_ms", -1, BELOW, "", ""),
        ("audio_end_ms", 1500.5, KIND, "", "a decimal"),
        ("audio_end_ms", 1500.0, KIND, "", "a decimal"),  # only a client reads it as a whole number
        ("content_index", 1, ABOVE, "", ""),
        ("content_index", 0.0, KIND, "", "a decimal"),
    ],
    "conversation.item.delete": [("item_id", ABSENT, MISSING, "", "")],
    "conversation.item.retrieve": [("item_id", None, KIND, "", "but got null instead")],
    "input_audio_buffer.append": [
        ("audio", ABSENT, MISSING, "", ""),
        ("audio", "data:audio/wav;base64,AAAA", VALUE, "", "Invalid 'audio'. Expected base64"),
        ("audio", "AAA", VALUE, "", ""),
        ("rate", 24_000, UNKNOWN, "", "Unknown parameter: 'rate'."),
    ],
    "response.create": [
        ("response.modalities", ["text"], UNKNOWN, "", ""),
        ("response.conversation", "other", VALUE, "", "'auto' and 'none'"),
        ("response.input", [{"type": "item_reference"}], MISSING, "[0].id", ""),
        ("response.metadata", {str(i): "" for i in range(17)}, "object_above_max_properties", "", "at most 16"),
        ("response.metadata", {"k" * 65: ""}, "property_name_above_max_length", "", "64"),
        ("response.metadata", {"k": "v" * 513}, LONG, ".k", "512"),
        ("response.temperature", 0.8, UNKNOWN, "", ""),
    ],
}  # fmt: skip
PREVIEW: dict[str, list[Row]] = {
    "session.update": [
        *((f"session.{name}", None, UNKNOWN, "", f"Unknown parameter: 'session.{name}'. ") for name in ONLY_GA),
        ("session.modalities", ["audio"], VALUE, "", "['text'] and ['audio', 'text']"),
        ("session.input_audio_format", "g711-ulaw", VALUE, "", "'pcm16', 'g711_ulaw', and 'g711_alaw'"),
        ("session.speed", 9, DECIMAL_ABOVE, "", "<= 1.5, but got 9"),
        ("session.temperature", 0.5, "decimal_below_min_value", "", ">= 0.6"),
        ("session.temperature", 1.3, DECIMAL_ABOVE, "", "<= 1.2"),
        ("session.turn_detection", {"type": "server_vad", "idle_timeout_ms": 6000}, UNKNOWN, ".idle_timeout_ms", ""),
        ("session.turn_detection", {"threshold": "low"}, KIND, ".threshold", "a decimal, but got a string"),
        ("session.input_audio_transcription", {"languages": ["en"]}, UNKNOWN, ".languages", "model, language, prompt"),
        ("session.tools", [{"type": "mcp", "server_label": "x"}], VALUE, "[0].type", "values are: 'function'."),
    ],
    "conversation.item.create": [
        ("item", said("audio", audio=""), VALUE, ".content[0].type", "Supported values are: 'text'."),
        ("item", said("output_text", text="x"), VALUE, ".content[0].type", ""),
        ("item.content", [{"type": "input_image", "image_url": "data:"}], VALUE, "[0].type", ""),
        ("item.phase", "final_answer", UNKNOWN, "", ""),
    ],
    "response.create": [
        ("response.output_modalities", ["text"], UNKNOWN, "", ""),
        ("response.metadata", {"k": 1}, KIND, ".k", "expected a string"),
    ],
}  # fmt: skip
REFUSED = [
    (dialect, kind, *row)
    for dialect, table in (("ga", GA), ("preview", PREVIEW))
    for kind, rows in table.items()
    for row in rows
]


@pytest.mark.parametrize("dialect, kind, path, value, code, inside, piece", REFUSED, ids=lambda value: str(value)[:40])
def test_a_wrong_field_is_refused(
    dialect: Dialect, kind: str, path: str, value: Any, code: str, inside: str, piece: str
) -> None:
    message = message_with(kind, path, value, dialect)
    detail = refuse(service(dialect), message)
    assert (detail.code, detail.param) == (code, path + inside)
    explained = check_event(message, dialect=dialect)  # a client can check before it sends
    assert piece in (explained.explanation if explained else detail.message)  # base64 at the top is read with the event


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
APPROVAL = {"type": "mcp_approval_response", "id": "p", "approval_request_id": "q", "approve": True}
MCP_TOOL = {"type": "mcp", "server_label": "x", "server_url": "https://x", "require_approval": "never"}
RIGHT: dict[str, Any] = {
    "turn_detection": None, "noise_reduction": {"type": "far_field"},
    "transcription": {"model": "m", "languages": ["en"], "keywords": ["rtnb"], "delay": "xhigh"},
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "model": "m", "prompt": {"id": "p"}, "parallel_tool_calls": True, "include": None, "tracing": "auto",
    "max_output_tokens": "inf", "tools": [MCP_TOOL], "tool_choice": {"type": "mcp", "server_label": "x"},
    "instructions": "", "reasoning": {"effort": "low"}, "truncation": "disabled",
}  # fmt: skip
LONGEST = {f"{i:064}": "v" * 512 for i in range(16)}
ACCEPTED: list[tuple[Dialect, str, str, Any]] = [
    ("ga", "session.update", "session.type", "realtime"),
    ("ga", "session.update", "session", {"type": "realtime", **OTHERS}),
    ("ga", "session.update", HEAR, RIGHT),
    ("ga", "session.update", HEAR, dict.fromkeys(RIGHT)),
    ("ga", "session.update", SPEAK, {"voice": {"id": "voice_1"}, "speed": 1.1}),
    ("ga", "session.update", "session.tools", []),
    ("ga", "session.update", "session.include", ["item.input_audio_transcription.logprobs"]),
    ("ga", "conversation.item.create", "item.id", "x" * 32),
    ("ga", "conversation.item.create", "item", said("text", text="older name")),
    ("ga", "conversation.item.create", "item.content", [IMAGE]),
    ("ga", "conversation.item.create", "item", APPROVAL),
    ("ga", "conversation.item.create", "item", {**APPROVAL, "approve": False, "reason": "no"}),
    ("ga", "response.create", "response", {"input": [{"type": "item_reference", "id": "i"}], "metadata": LONGEST}),
    ("ga", "response.create", "response", {"conversation": "none", "input": [], "metadata": None}),
    ("ga", "input_audio_buffer.append", "event_id", "x" * 512),
    ("preview", "session.update", "session", {}),
    ("preview", "session.update", "session", {"voice": "a voice of tomorrow", "modalities": ["audio", "text"]}),
    ("preview", "session.update", "session.input_audio_transcription", {"model": "m", "language": "en"}),
    *(
        ("preview", "session.update", "session.turn_detection", detection)
        for detection in ({"silence_duration_ms": 300}, {"type": "none"}, {"type": "semantic_vad"})
    ),
    *(("preview", "session.update", "session.tool_choice", choice) for choice in (NESTED, FUNCTION)),
    ("preview", "response.create", "response", {"max_output_tokens": 9, "temperature": 1.2}),
]


@pytest.mark.parametrize("dialect, kind, path, value", ACCEPTED, ids=lambda value: str(value)[:40])
def test_a_right_field_is_accepted(dialect: Dialect, kind: str, path: str, value: Any) -> None:
    side = service(dialect)
    event = side.receive(json.dumps(message_with(kind, path, value, dialect)))
    for reply in answer(side.state, event, make_id=Ids(), dialect=dialect):
        side.send(reply)
    assert event.type == kind


def test_http_requests_are_judged_by_the_same_tables() -> None:
    assert check_session({"type": "realtime", "model": "m"}, dialect="ga") is None
    assert check_session({"model": "m", "voice": "alloy"}, dialect="preview") is None
    wrong: list[tuple[Any, Dialect]] = [({"model": "m"}, "ga"), ({"type": "realtime"}, "preview")]
    missing, unknown = (check_session(session, dialect=dialect) for session, dialect in wrong)
    assert (getattr(missing, "code", None), getattr(missing, "param", None)) == (MISSING, "session.type")
    assert (getattr(unknown, "code", None), getattr(unknown, "param", None)) == (UNKNOWN, "type")


# --- what the state forbids -------------------------------------------------------------------------------------------


def append(ms: int, audio_format: AudioFormat = PCM16) -> events.InputAudioBufferAppend:
    return events.InputAudioBufferAppend(audio=bytes(ms * audio_format.bytes_per_ms))


def response(**settings: Any) -> events.ResponseCreate:
    return events.ResponseCreate(response=ResponseConfig.of(**settings))


def test_voice_is_frozen_once_heard(pair: ConnectionPair) -> None:
    pair.update(voice="verse")
    pair.begin()
    change = SessionConfig.of(voice="ash", instructions="New.")
    detail = pair.refused(events.SessionUpdate(session=change))  # all or nothing
    assert detail.code == "cannot_update_voice"
    assert detail.message == "Cannot update a conversation's voice if assistant audio is present."
    assert detail.param == {"ga": "session.audio.output.voice", "preview": "session.voice"}[pair.dialect]
    pair.update(voice="verse", instructions="New.")
    assert pair.state.session.instructions == "New."


def test_a_response_cannot_take_another_voice_either(pair: ConnectionPair) -> None:
    pair.send_accepted(response(voice="ash"))
    pair.begin()
    pair.serve(done())
    detail = pair.refused(response(voice="ash"))
    assert detail.code == "cannot_update_voice"
    assert detail.param == {"ga": "response.audio.output.voice", "preview": "response.voice"}[pair.dialect]
    pair.send_accepted(response(voice="alloy"))
    pair.send_accepted(response(voice="ash", conversation="none"))


@pytest.mark.parametrize("name, value", [("model", "other"), ("tracing", None), ("type", "transcription")])
def test_some_settings_cannot_change(name: str, value: Any) -> None:
    pair = ConnectionPair()
    pair.update(model="m", tracing="auto")
    assert pair.refused(events.SessionUpdate(session=SessionConfig(**{name: value}))).param == f"session.{name}"


def test_one_response_at_a_time(pair: ConnectionPair) -> None:
    pair.begin()
    detail = pair.refused(events.ResponseCreate())
    assert (detail.code, detail.param) == ("conversation_already_has_active_response", None)
    assert detail.message.startswith("Conversation already has an active response in progress: resp_1. Wait until")
    pair.send_accepted(response(conversation="none", metadata={"topic": "x"}))
    pair.serve(created("resp_2", conversation_id=None))
    assert pair.state.active_response_id == "resp_1"
    pair.send_accepted(events.ResponseCancel(response_id="resp_2"))
    pair.send_accepted(events.ResponseCancel())


@pytest.mark.parametrize("response_id", [UNSET, "resp_9", "resp_1"], ids=["none", "unknown", "ended"])
def test_nothing_to_cancel(response_id: Any) -> None:
    pair = ConnectionPair()
    pair.begin()
    pair.serve(done())
    detail = pair.refused(events.ResponseCancel(response_id=response_id))
    assert (detail.code, detail.param) == ("response_cancel_not_active", None)
    assert detail.message == "Cancellation failed: no active response found"


@pytest.mark.parametrize("audio_format", [PCM16, PCMU, PCMA], ids=lambda made: made.type)
def test_a_commit_needs_100_ms(pair: ConnectionPair, audio_format: AudioFormat) -> None:
    commit = events.InputAudioBufferCommit()
    pair.update(input_format=audio_format, turn_detection=None)
    detail = pair.refused(commit)
    assert (detail.code, detail.param) == ("input_audio_buffer_commit_empty", None)
    assert "Expected at least 100ms of audio, but buffer only has 0.00ms of audio." in detail.message
    pair.send_accepted(append(99, audio_format))
    assert "only has 99.00ms" in pair.refused(commit).message
    pair.send_accepted(append(1, audio_format))
    pair.send_accepted(commit)
    assert pair.refused(commit).code == "input_audio_buffer_commit_empty"


def test_truncation_stays_within_the_audio(pair: ConnectionPair) -> None:
    def cut(item_id: str, ms: int) -> events.ConversationItemTruncate:
        return events.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=ms)

    pair.send_accepted(events.ConversationItemCreate(item=user(id="item_u")))
    pair.begin()
    detail = pair.refused(cut("item_a", SPOKEN_MS + 1))
    assert (detail.code, detail.message) == (None, "Audio content of 300ms is already shorter than 301ms")
    assert pair.refused(cut("item_u", 1)).message == "Only model output audio messages can be truncated"
    for ms in (SPOKEN_MS, 200):
        pair.send_accepted(cut("item_a", ms))
    assert pair.refused(cut("item_a", 201)).message == "Audio content of 200ms is already shorter than 201ms"
    pair.send_accepted(cut("item_a", 0))


ITEMS: dict[str, tuple[Any, str, str]] = {
    "delete": (events.ConversationItemDelete(item_id="x"), "item_not_found", "item_id"),
    "retrieve": (events.ConversationItemRetrieve(item_id="x"), "item_not_found", "item_id"),
    "truncate": (
        events.ConversationItemTruncate(item_id="x", content_index=0, audio_end_ms=0), "item_not_found", "item_id",
    ),
    "after": (events.ConversationItemCreate(item=user(), previous_item_id="x"), "item_not_found", "previous_item_id"),
    "same id": (events.ConversationItemCreate(item=user(id="item_1")), "invalid_value", "item.id"),
    "output of no call": (
        events.ConversationItemCreate(item=Item(type="function_call_output", call_id="call_9", output="{}")),
        "invalid_tool_call_id", "item.call_id",
    ),
}  # fmt: skip


@pytest.mark.parametrize("event, code, param", ITEMS.values(), ids=ITEMS)
def test_items_must_be_known(pair: ConnectionPair, event: Any, code: str, param: str) -> None:
    pair.send_accepted(events.ConversationItemCreate(item=user(id="item_1")))
    detail = pair.refused(replace(event))
    assert (detail.code, detail.param) == (code, param)


def test_an_append_holds_at_most_15_mib() -> None:
    assert service().receive(f'{{"type":"input_audio_buffer.append","audio":"{encoded(APPEND_LIMIT_BYTES)}"}}')
    more = encoded(APPEND_LIMIT_BYTES + 1)
    detail = refuse(service(), {"type": "input_audio_buffer.append", "event_id": "e1", "audio": more})
    assert (detail.code, detail.param) == (LONG, "audio")
    assert len(detail.message) < 200


def encoded(n_bytes: int) -> str:
    return base64.b64encode(bytes(n_bytes)).decode()


def test_a_wrong_value_is_not_repeated_whole() -> None:
    for message in ({"type": "x" * 1_000_000}, message_with("session.update", f"session.{'y' * 1_000_000}", 1, "ga")):
        assert len(refuse(service(), message).message) < 1000


# --- dialect of the peer ----------------------------------------------------------------------------------------------


CREATED = [(d, m) for d, m in SERVER if m["type"].endswith("session.created")]


@pytest.mark.parametrize("mine", DIALECTS)
@pytest.mark.parametrize("theirs, message", CREATED, ids=lambda value: str(value)[:40])
def test_the_first_session_object_shows_the_dialect(mine: Dialect, theirs: Dialect, message: dict[str, Any]) -> None:
    side = Connection("client", dialect=mine)
    assert side.peer_dialect is None
    event = side.receive(json.dumps(message))
    if message["type"] == "transcription_session.created" and mine == "ga":
        assert isinstance(event, events.UnknownEvent)  # kept, but this name does not exist in GA
        return
    assert isinstance(event, events.SessionCreated)
    assert side.peer_dialect == theirs


def test_a_session_object_without_marks_and_a_server_leave_the_dialect_open() -> None:
    for dialect in DIALECTS:
        side = Connection("client", dialect=dialect)
        side.receive('{"type":"session.created","session":{"id":"sess_1"}}')
        assert (side.peer_dialect, service().peer_dialect) == (None, None)


REQUESTS: list[tuple[Dialect, events.Event]] = [
    *((mine, update()) for mine in DIALECTS),
    ("ga", update(voice="marin")),
    ("preview", update(voice="alloy")),
    *((mine, events.ResponseCreate(response=ResponseConfig(output_modalities=("text",)))) for mine in DIALECTS),
    ("preview", events.ResponseCreate(response=ResponseConfig(temperature=0.8))),
]


@pytest.mark.parametrize("mine, event", REQUESTS, ids=str)
def test_a_client_at_a_service_of_the_other_dialect_gets_a_hint(mine: Dialect, event: events.Event) -> None:
    client = Connection("client", dialect=mine)
    theirs: Dialect = "preview" if mine == "ga" else "ga"
    with pytest.raises(RemoteProtocolError) as caught:
        service(theirs).receive(client.send(event))
    received: Any = client.receive(service(theirs).send(caught.value.answer))
    assert f"dialect='{theirs}'" in (dialect_hint(received.error, dialect=mine) or "")


OTHERS_NAMES: dict[Dialect, tuple[str, ...]] = {
    "ga": ("type", "audio", "audio.input.format"),
    "preview": (*ONLY_PREVIEW, "max_response_output_tokens"),
}
HINTED = [
    *((dialect, UNKNOWN, f"session.{name}") for dialect, names in OTHERS_NAMES.items() for name in names),
    ("preview", MISSING, "session.type"),
    *((dialect, "beta_api_shape_disabled", None) for dialect in DIALECTS),
]
NOT_HINTED = [
    ("ga", MISSING, "session.type"),  # a GA service refuses it like this
    ("ga", VALUE, "session.type"),
    *(("ga", UNKNOWN, f"session.{name}") for name in ("voice", "tools[0].meta")),
    *(("preview", UNKNOWN, param) for param in ("session.tracing", None)),
    ("ga", None, None),
]


@pytest.mark.parametrize("dialect, code, param", [*HINTED, *NOT_HINTED])
def test_a_hint_is_given_for_names_of_the_other_dialect_only(dialect: Dialect, code: str, param: str | None) -> None:
    error = ErrorDetail(type="invalid_request_error", code=code, param=param)
    assert (dialect_hint(error, dialect=dialect) is not None) is ((dialect, code, param) in HINTED)


def test_a_session_of_the_other_dialect_is_still_read() -> None:
    """A client set to the wrong dialect still follows the session well enough to name the mistake."""
    sides: Any = {dialect: Connection("client", dialect=dialect) for dialect in DIALECTS}
    for theirs, message in CREATED:
        if message["type"] == "session.created":
            sides["preview" if theirs == "ga" else "ga"].receive(json.dumps(message))
    assert sides["preview"].state.session.voice == "alloy"
    assert sides["ga"].state.session.extra["voice"] == "verse"


MIGRATION: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"output_modalities": ("audio",)}, {"modalities": ["text", "audio"]}),
    ({"voice": "alloy"}, {"voice": "alloy"}),
    ({"speed": 1.1}, {"speed": 1.1}),
    ({"max_output_tokens": 9}, {"max_response_output_tokens": 9}),
    ({"input_format": PCMU}, {"input_audio_format": "g711_ulaw"}),
    ({"output_format": PCMA}, {"output_audio_format": "g711_alaw"}),
    ({"transcription": "whisper-1"}, {"input_audio_transcription": {"model": "whisper-1"}}),
    ({"turn_detection": None}, {"turn_detection": None}),
    ({"noise_reduction": None}, {"input_audio_noise_reduction": None}),
    ({"tool_choice": FUNCTION}, {"tool_choice": NESTED}),
]


@pytest.mark.parametrize("settings, spelled", MIGRATION, ids=str)
def test_preview_spellings(settings: dict[str, Any], spelled: dict[str, Any]) -> None:
    """The migration table, line by line."""
    text = Connection("client", dialect="preview").send(update(**settings))
    assert json.loads(text) == {"type": "session.update", "session": spelled}
