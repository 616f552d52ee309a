"""Laws of the codec and of `merge` over all values, not only golden ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.errors import LocalProtocolError
from rtnb.protocol import UNSET, Connection, Dialect, merge, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.preview import GA_ONLY_EVENTS
from rtnb.protocol.values import AudioFormat, ServerVad, SessionConfig, Transcription
from tests.protocol.goldens import DIALECTS, SERVER, registry_of
from tests.protocol.strategies import all_events, damaged, json_values, texts, unknown_fields, values

_REGISTRY = CLIENT_EVENTS | SERVER_EVENTS
sessions = values(SessionConfig)

# --- Law 1 ------------------------------------------------------------------------------------------------------------


@given(all_events)
def test_what_is_written_is_read_back(event: Event) -> None:
    text = wire.encode(event)
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


@given(values(SessionConfig))
def test_a_session_of_an_http_request_is_read_back(session: SessionConfig) -> None:
    assert wire.decode_session(wire.encode_session(session)) == session


@given(damaged(client=False), st.sampled_from([None, 1]), st.sampled_from(DIALECTS))
def test_a_text_and_its_object_are_read_alike(message: dict[str, Any], indent: int | None, dialect: Dialect) -> None:
    text = json.dumps(message, indent=indent)
    whole = wire.decode(wire.parse(text), dialect=dialect, registry=SERVER_EVENTS)
    assert wire.decode(text, dialect=dialect, registry=SERVER_EVENTS) == whole


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
        event = Connection("client", dialect=dialect).receive(json.dumps(message))
        assert isinstance(event, UnknownEvent)
        assert (event.type, event.payload) == (kind, message)
        assert json.loads(wire.encode(event, dialect=dialect)) == message


def test_a_known_event_that_does_not_fit_is_delivered_whole() -> None:
    message = {"type": "response.output_audio.delta", "event_id": "e", "response_id": "r", "item_id": "i", "delta": "?"}
    event = Connection("client").receive(json.dumps(message))
    assert isinstance(event, UnknownEvent)
    assert event.payload == message
    assert (event.event_id, event.problem) == ("e", "delta: not base64: Only base64 data is allowed")


def test_an_optional_field_that_does_not_fit_is_kept_aside() -> None:
    message = {"type": "response.done", "event_id": 7, "response": {"id": "r", "status": ["odd"], "usage": "much"}}
    event: Any = Connection("client").receive(json.dumps(message))
    assert event.response.status is UNSET
    assert event.response.extra == {"status": ["odd"], "usage": "much"}
    assert json.loads(wire.encode(event)) == message


def test_enums_are_open() -> None:
    message = {"type": "response.done", "response": {"id": "r", "status": "paused", "output_modalities": ["video"]}}
    event: Any = Connection("client").receive(json.dumps(message))
    assert (event.response.status, event.response.output_modalities) == ("paused", ("video",))


def test_the_newer_names_are_read_in_the_preview_and_the_older_ones_in_ga() -> None:
    ids = {"response_id": "r", "item_id": "i", "delta": "hi"}
    for dialect in DIALECTS:
        for kind in ("response.text.delta", "response.output_text.delta"):
            event = Connection("client", dialect=dialect).receive(json.dumps({"type": kind, **ids}))
            assert event.type == "response.output_text.delta"


# --- merge ------------------------------------------------------------------------------------------------------------


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


def test_null_switches_off_and_a_format_is_replaced_whole() -> None:
    old = SessionConfig.of(
        turn_detection=ServerVad(threshold=0.5), transcription=Transcription(model="a", language="en"),
        input_format=AudioFormat(type="audio/pcm", rate=24_000),
    )  # fmt: skip
    new = merge(old, SessionConfig.of(turn_detection=None, input_format=AudioFormat(type="audio/pcmu")))
    assert new.turn_detection is None
    assert new.input_format == AudioFormat(type="audio/pcmu")
    assert new.audio.input.transcription == Transcription(model="a", language="en")


def test_unknown_settings_are_merged_too() -> None:
    old, new = SessionConfig(extra={"a": 1, "b": 1}), SessionConfig(extra={"b": 2, "c": 2})
    assert merge(old, new).extra == {"a": 1, "b": 2, "c": 2}
