"""Laws 1 and 3 over all values: what is written is read back, and a client is lenient in what it reads."""

import json
from dataclasses import MISSING, fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtnb.errors import LocalProtocolError
from rtnb.protocol import UNSET, Connection, Dialect, events, merge, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.preview import GA_ONLY_EVENTS
from rtnb.protocol.values import SessionConfig
from tests.client.peer import as_floats
from tests.protocol.goldens import DIALECTS, SERVER, registry_of
from tests.protocol.strategies import all_events, damaged, json_values, texts, unknown_fields, values

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
