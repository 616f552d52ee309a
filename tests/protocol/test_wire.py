"""Laws 1 and 3 on golden texts and over all values: what is written is read back, and a client is lenient."""

import base64
import binascii
import json
import typing
from dataclasses import MISSING, fields
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai.types.beta.realtime import RealtimeClientEvent as PreviewClientEvent
from openai.types.beta.realtime import RealtimeServerEvent as PreviewServerEvent
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter

from rtnb.errors import LocalProtocolError, RemoteProtocolError
from rtnb.protocol import UNSET, Connection, Dialect, events, merge, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.preview import GA_ONLY_EVENTS
from rtnb.protocol.service.schema import check_event
from rtnb.protocol.values import SessionConfig, is_base64
from tests.client.peer import as_floats
from tests.protocol.goldens import ALL, CLIENT, DIALECTS, SERVER, is_client, read, registry_of
from tests.protocol.goldens import name as golden_name
from tests.protocol.strategies import all_events, damaged, json_values, texts, unknown_fields, values

# --- golden texts -----------------------------------------------------------------------------------------------------


_FOREIGN = {
    ("ga", True): RealtimeClientEvent,
    ("ga", False): RealtimeServerEvent,
    ("preview", True): PreviewClientEvent,
    ("preview", False): PreviewServerEvent,
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_goldens_name_their_source(dialect: Dialect) -> None:
    head, _ = read(dialect)
    assert head.keys() == {"_source", "_date", "_api"}
    assert all(head.values())


@pytest.mark.parametrize("dialect, message", ALL, ids=golden_name)
def test_golden_text_survives_a_round_trip_and_leaves_nothing_unread(dialect: Dialect, message: dict[str, Any]) -> None:
    event = wire.decode(message, dialect=dialect, registry=registry_of(message))
    assert not isinstance(event, UnknownEvent)
    text = wire.encode(event, dialect=dialect)
    assert json.loads(text) == message
    assert wire.decode(wire.parse(text), dialect=dialect, registry=registry_of(message)) == event
    assert set(_extras(event)) <= {"logprobs", "obfuscation", "client_secret", "format"}


def _extras(value: Any) -> list[str]:
    """Names of all fields that were only kept, not understood."""
    if isinstance(value, tuple):
        return [name for entry in value for name in _extras(entry)]
    if not hasattr(value, "extra"):
        return []
    return [*value.extra, *(name for inner in vars(value).values() for name in _extras(inner))]


def test_every_event_has_a_golden_text() -> None:
    known = CLIENT_EVENTS | SERVER_EVENTS
    assert {message["type"] for dialect, message in ALL if dialect == "ga"} == known.keys()
    preview = [message for dialect, message in ALL if dialect == "preview"]
    read = {type(wire.decode(one, dialect="preview", registry=registry_of(one))) for one in preview}
    assert read == {cls for kind, cls in known.items() if kind not in GA_ONLY_EVENTS}
    renamed = {f"transcription_session.{word}" for word in ("update", "created", "updated")}
    assert renamed <= {message["type"] for message in preview}


def _classes(union: Any) -> dict[str, type[BaseModel]]:
    classes = typing.get_args(typing.get_args(union)[0])
    return {typing.get_args(cls.model_fields["type"].annotation)[0]: cls for cls in classes}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_our_vocabulary_is_the_sdks(dialect: Dialect) -> None:
    for client in (True, False):
        ours = {m["type"] for d, m in ALL if d == dialect and is_client(m) is client}
        assert ours - {"transcription_session.created"} == _classes(_FOREIGN[dialect, client]).keys()


@pytest.mark.parametrize("dialect, message", ALL, ids=golden_name)
def test_a_foreign_client_reads_the_golden_text(dialect: Dialect, message: dict[str, Any]) -> None:
    if message["type"] == "transcription_session.created":
        return  # only in the OpenAPI document, in no SDK
    union = _FOREIGN[dialect, is_client(message)]
    cls = _classes(union)[message["type"]]
    strict = cls.model_validate(message)  # required fields, types and enumerations of the event's own class
    assert strict.type == message["type"]  # type: ignore[attr-defined]
    assert type(TypeAdapter(union).validate_python(message)) is cls


@pytest.mark.parametrize("dialect, message", CLIENT, ids=golden_name)
def test_a_strict_service_accepts_every_client_golden(dialect: Dialect, message: dict[str, Any]) -> None:
    assert check_event(message, dialect=dialect, webrtc=True) is None


@pytest.mark.parametrize("dialect, message", CLIENT + SERVER, ids=golden_name)
def test_translation_between_the_dialects_loses_nothing(dialect: Dialect, message: dict[str, Any]) -> None:
    """GA -> preview -> GA and preview -> GA -> preview, for every event the preview has."""
    event = wire.decode(message, dialect=dialect, registry=registry_of(message))
    if event.type in GA_ONLY_EVENTS:
        return
    for other in DIALECTS:
        text = wire.encode(event, dialect=other)
        assert wire.decode(wire.parse(text), dialect=other, registry=registry_of({"type": event.type})) == event


_REGISTRY = CLIENT_EVENTS | SERVER_EVENTS
sessions = values(SessionConfig)


def receive(message: dict[str, Any], dialect: Dialect = "ga") -> Any:
    """Let a client read a message."""
    return Connection("client", dialect=dialect).receive(json.dumps(message))


# --- Law 1 ------------------------------------------------------------------------------------------------------------


@given(all_events)
def test_what_is_written_is_read_back(event: Event) -> None:
    text = wire.encode(event)
    assert text.isascii()  # half a character breaks no socket
    message = wire.parse(text)
    assert wire.decode(message, registry=_REGISTRY) == event
    assert json.loads(wire.encode(wire.decode(message, registry=_REGISTRY))) == message


@given(all_events)
def test_the_preview_writes_again_what_it_has_read(event: Event) -> None:
    """GA has more events and fields than the preview, so the law holds for the preview text."""
    if event.type in GA_ONLY_EVENTS:
        with pytest.raises(LocalProtocolError, match="The preview dialect has no event"):
            wire.encode(event, dialect="preview")
        return
    first = wire.parse(wire.encode(event, dialect="preview"))
    read = wire.decode(first, dialect="preview", registry=_REGISTRY)
    assert wire.parse(wire.encode(read, dialect="preview")) == first


@given(sessions)
def test_a_session_of_an_http_request_is_read_back(session: SessionConfig) -> None:
    assert wire.decode_session(wire.encode_session(session)) == session


@given(damaged(client=False), st.sampled_from([None, 1]), st.sampled_from(DIALECTS))
def test_a_text_and_its_object_are_read_alike(message: dict[str, Any], indent: int | None, dialect: Dialect) -> None:
    text = json.dumps(message, indent=indent)
    whole = wire.decode(wire.parse(text), dialect=dialect, registry=SERVER_EVENTS)
    assert wire.decode(text, dialect=dialect, registry=SERVER_EVENTS) == whole


@settings(max_examples=50)
@given(sessions, sessions)
def test_an_update_replaces_its_fields_keeps_the_rest_and_changes_nothing_again(
    old: SessionConfig, new: SessionConfig
) -> None:
    assert merge(old, UNSET) == merge(UNSET, old) == merge(old, old) == old
    merged = merge(old, new)
    assert merge(merged, new) == merged
    for name in ("instructions", "tools", "tool_choice", "max_output_tokens", "tracing", "voice"):
        changed = getattr(new, name)
        assert getattr(merged, name) == (getattr(old, name) if changed is UNSET else changed)


# --- Law 3 ------------------------------------------------------------------------------------------------------------


@given(st.sampled_from(SERVER), unknown_fields)
def test_unknown_fields_are_kept(golden: tuple[Any, dict[str, Any]], more: dict[str, Any]) -> None:
    dialect, message = golden
    message = {**message, **more}
    event = wire.decode(message, dialect=dialect, registry=registry_of(message))
    assert event.extra.items() >= more.items()
    assert json.loads(wire.encode(event, dialect=dialect)) == message


@given(texts.filter(lambda kind: kind not in SERVER_EVENTS), st.dictionaries(texts, json_values, max_size=4))
def test_unknown_events_are_delivered_whole(kind: str, rest: dict[str, Any]) -> None:
    message = {**rest, "type": kind}
    for dialect in DIALECTS:
        event = receive(message, dialect)
        assert isinstance(event, UnknownEvent)
        assert (event.type, event.payload) == (kind, message)
        assert json.loads(wire.encode(event, dialect=dialect)) == message


@pytest.mark.parametrize("delta, problem", [("?", "Only base64 data is allowed"), ("AAA", "Incorrect padding")])
def test_a_known_event_that_does_not_fit_is_delivered_whole(delta: str, problem: str) -> None:
    ids = {"event_id": "e", "response_id": "r", "item_id": "i"}
    message = {"type": "response.output_audio.delta", **ids, "delta": delta}
    event = receive(message)
    assert isinstance(event, UnknownEvent)
    assert event.payload == message
    assert (event.event_id, event.problem) == ("e", f"delta: not base64: {problem}")


def test_an_optional_field_that_does_not_fit_is_kept_aside_and_enums_are_open() -> None:
    odd = {"status_details": ["odd"], "usage": "much"}
    response = {"id": "r", "status": "paused", "output_modalities": ["video"], **odd}
    message = {"type": "response.done", "event_id": 7, "response": response}
    event = receive(message)
    assert (event.response.status, event.response.output_modalities) == ("paused", ("video",))
    assert (event.response.usage, repr(event.response.usage), event.response.extra) == (UNSET, "<not set>", odd)
    assert json.loads(wire.encode(event)) == message


def test_the_newer_names_are_read_in_the_preview_and_the_older_ones_in_ga() -> None:
    ids = {"response_id": "r", "item_id": "i", "delta": "hi"}
    for dialect in DIALECTS:
        for kind in ("response.text.delta", "response.output_text.delta"):
            assert receive({"type": kind, **ids}, dialect).type == "response.output_text.delta"


@pytest.mark.parametrize("dialect, message", SERVER, ids=lambda value: str(value)[:40])
def test_golden_events_with_floats_read_as_the_same_events(dialect: Any, message: dict[str, Any]) -> None:
    registry = registry_of(message)
    floats = wire.decode(as_floats(message), dialect=dialect, registry=registry)
    whole = wire.decode(message, dialect=dialect, registry=registry)
    assert floats == whole
    kept_as_it_is = "client_secret" in str(message) or "bytes" in str(message)
    assert kept_as_it_is or wire.encode(floats) == wire.encode(whole)  # whole numbers, not only equal ones


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_as_the_nearest_whole_number(number: float) -> None:
    event = receive({"type": "input_audio_buffer.speech_started", "audio_start_ms": number, "item_id": "i"})
    assert isinstance(event, events.InputAudioBufferSpeechStarted)
    assert type(event.audio_start_ms) is int
    assert abs(event.audio_start_ms - number) <= 0.5


@pytest.mark.parametrize("kind", sorted(SERVER_EVENTS))
def test_missing_optional_fields_are_fine(kind: str) -> None:
    message = next(m for d, m in SERVER if m["type"] == kind and d == "ga")
    cls = SERVER_EVENTS[kind]
    required = {f.name for f in fields(cls) if f.default is MISSING and f.name != "extra"}
    event = receive({"type": kind} | {name: value for name, value in message.items() if name in required})
    assert type(event) is cls
    assert "Unset" not in repr(event)


def test_languages_of_a_transcript_are_read() -> None:
    kind = "conversation.item.input_audio_transcription.completed"
    languages = [{"code": "en"}, {"code": "tr"}]
    event = receive({"type": kind, "item_id": "i", "transcript": "Merhaba", "languages": languages})
    assert (event.languages, event.extra) == (tuple(languages), {})


# --- audio that stays base64 until it is read -------------------------------------------------------------------------


HEAD = '{"type":"response.output_audio.delta","event_id":"e","response_id":"r","item_id":"i","content_index":0,'
encoded = st.binary().map(lambda data: base64.b64encode(data).decode())


@given(encoded | st.text(alphabet="Aa9+/= \n-_é\ud800", max_size=12))
@example("AAAA=")  # the decoder takes it, although its length is odd
def test_the_check_agrees_with_the_strict_decoder(text: str) -> None:
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        assert not is_base64(text)
    else:
        assert is_base64(text)


@given(st.binary(max_size=100))
def test_the_bytes_are_counted_before_and_after_they_are_read(audio: bytes) -> None:
    event = Connection("client").receive(f'{HEAD}"delta":"{base64.b64encode(audio).decode()}"}}')
    assert isinstance(event, events.ResponseOutputAudioDelta)
    assert event.audio_bytes == len(audio)
    assert event.delta == audio
    assert event.audio_bytes == len(audio)
    ids: Any = {"event_id": "e", "response_id": "r", "item_id": "i", "content_index": 0}
    assert event == events.ResponseOutputAudioDelta(delta=audio, **ids)


AUDIO = base64.b64encode(bytes(range(256)) * 6).decode()
LONG_TEXTS = {
    "compact": f'{HEAD}"delta":"{AUDIO}"}}',
    "spaces": f'{HEAD}"delta" : "{AUDIO}"}}',
    "one space": f'{HEAD}"delta": "{AUDIO}"}}',
    "delta first": f'{{"delta":"{AUDIO}",{HEAD[1:-1]}}}',
    "escaped": f'{HEAD}"delta":"\\u0041{AUDIO[1:]}"}}',
    "escaped quote": f'{HEAD}"delta":"{AUDIO}\\"x"}}',
    "no base64": f'{HEAD}"delta":"{AUDIO}?"}}',
    "twice": f'{HEAD}"delta":"{AUDIO}","delta":"AAAA"}}',
    "twice, then empty": f'{HEAD}"delta":"{AUDIO}","delta":""}}',
    "no text": f'{HEAD}"delta":5,"other":"{AUDIO}"}}',
    "inside a key": f'{HEAD}"a\\"delta":"{AUDIO}","delta":"AAAA"}}',
    "inside an object": f'{HEAD}"x":{{"delta":"{AUDIO}"}},"delta":"AAAA"}}',
    "inside a list": f'{HEAD}"x":[{{"delta":"{AUDIO}"}}],"delta":"AAAA"}}',
    "another event": f'{HEAD.replace("audio", "text")}"delta":"{AUDIO}\\n"}}',
    "preview": f'{HEAD.replace("output_", "")}"delta":"{AUDIO}"}}',
    "unknown event": f'{HEAD.replace("response.", "reply.")}"delta":"{AUDIO}"}}',
    "white space": f' {HEAD}"delta":"{AUDIO}"}}' + " " * wire.LONG,
    "no type": f'{{"delta":"{AUDIO}"}}',
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_cutting_the_audio_out_of_a_text_changes_no_event(dialect: Dialect, text: str) -> None:
    assert len(text) > wire.LONG
    whole = wire.decode(wire.parse(text), dialect=dialect, registry=SERVER_EVENTS)
    assert wire.decode(text, dialect=dialect, registry=SERVER_EVENTS) == whole


@pytest.mark.parametrize("text", [LONG_TEXTS["compact"] + "}", LONG_TEXTS["compact"][:-1], LONG_TEXTS["compact"][:-2]])
def test_a_broken_long_text_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not JSON"):
        wire.decode(text, registry=SERVER_EVENTS)
