"""Law 3 on the client: numbers as floats, missing optional fields and repeated events cost nothing."""

import json
import typing
from dataclasses import MISSING, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Connection, events, wire
from rtnb.protocol.events import SERVER_EVENTS, UnknownEvent
from tests.client.peer import as_floats
from tests.protocol.goldens import SERVER, registry_of
from tests.protocol.pair import service

IDS = {"event_id": "e", "response_id": "r", "item_id": "i"}
AUDIO_DELTA = {"type": "response.output_audio.delta", **IDS, "delta": "AAAA"}


def receive(message: dict[str, Any]) -> Any:
    """Let a client read a message."""
    return Connection("client").receive(json.dumps(message))


@pytest.mark.parametrize("sent, read", [(1500.0, 1500), (1499.6, 1500), (1500.4, 1500), (-0.0, 0), (1500, 1500)])
@pytest.mark.parametrize(
    "kind, name, rest",
    [
        ("input_audio_buffer.speech_started", "audio_start_ms", {"item_id": "i"}),
        ("input_audio_buffer.speech_stopped", "audio_end_ms", {"item_id": "i"}),
        ("conversation.item.truncated", "audio_end_ms", {"item_id": "i", "content_index": 0}),
        ("conversation.item.truncated", "content_index", {"item_id": "i", "audio_end_ms": 1}),
        ("response.output_audio.delta", "content_index", AUDIO_DELTA),
        ("response.output_item.added", "output_index", {"response_id": "r", "item": {"type": "message", "id": "i"}}),
    ],
)
def test_a_float_is_read_as_a_whole_number(kind: str, name: str, rest: dict[str, Any], sent: float, read: int) -> None:
    event = receive({**rest, "type": kind, name: sent})
    assert not isinstance(event, UnknownEvent)
    value = getattr(event, name)
    assert (value, type(value), event.extra) == (read, int, {})


def test_a_float_is_read_inside_nested_objects_and_beside_other_types() -> None:
    usage = {"total_tokens": 12.0, "input_token_details": {"audio_tokens": 3.0}, "seconds": 1.5}
    response = {"id": "r", "usage": usage, "max_output_tokens": 200.0, "temperature": 0.8}
    read = receive({"type": "response.done", "response": response}).response
    assert (read.usage.total_tokens, read.usage.input_token_details.audio_tokens) == (12, 3)
    assert (read.usage.seconds, read.max_output_tokens, read.temperature) == (1.5, 200, 0.8)
    assert read.usage.extra == {}


@pytest.mark.parametrize("dialect, message", SERVER, ids=lambda value: str(value)[:40])
def test_golden_events_with_floats_read_as_the_same_events(dialect: Any, message: dict[str, Any]) -> None:
    registry = registry_of(message)
    floats = wire.decode(as_floats(message), dialect=dialect, registry=registry)
    assert floats == wire.decode(message, dialect=dialect, registry=registry)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_float_makes_an_event_unknown(number: float) -> None:
    event = receive({"type": "input_audio_buffer.speech_started", "audio_start_ms": number, "item_id": "i"})
    assert isinstance(event, events.InputAudioBufferSpeechStarted)
    assert abs(event.audio_start_ms - number) <= 0.5


@pytest.mark.parametrize("kind", sorted(SERVER_EVENTS))
def test_missing_optional_fields_are_fine(kind: str) -> None:
    message = next(m for d, m in SERVER if m["type"] == kind and d == "ga")
    cls = SERVER_EVENTS[kind]
    required = {f.name for f in fields(cls) if f.default is MISSING and f.name != "extra"}
    event = receive({"type": kind} | {name: value for name, value in message.items() if name in required})
    assert type(event) is cls
    assert "Unset" not in repr(event)


def test_an_output_item_without_an_index_and_a_truncation_without_a_part_are_followed() -> None:
    side = Connection("client")
    item = {"type": "message", "id": "i", "content": [{"type": "output_audio", "transcript": "Hi."}]}
    for message in (
        {"type": "response.output_item.added", "response_id": "r", "item": item},
        {"type": "conversation.item.truncated", "item_id": "i", "audio_end_ms": 1500.0},
    ):
        side.receive(json.dumps(message))
    entry = side.state.entries["i"]
    assert (entry.truncated_ms, entry.item.content[0].transcript) == (1500, None)  # type: ignore[index]
    assert side.state.responses["r"].item_ids == ["i"]


@pytest.mark.parametrize("number", [1500.0, 1500.5])
@pytest.mark.parametrize("name", ["audio_end_ms", "content_index"])
def test_the_server_stays_strict(name: str, number: float) -> None:
    message = {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 0}
    message[name] = number  # type: ignore[assignment]
    with pytest.raises(RemoteProtocolError) as caught:
        service().receive(json.dumps(message))
    assert (caught.value.answer.error.code, caught.value.answer.error.param) == ("invalid_type", name)


# --- items and settings of GA -----------------------------------------------------------------------------------------

MCP_ITEMS: list[dict[str, Any]] = [
    {"type": "mcp_list_tools", "id": "l", "server_label": "tides", "tools": [{"name": "search", "input_schema": {}}]},
    {"type": "mcp_call", "id": "c", "server_label": "tides", "name": "search", "arguments": "{}", "output": "high",
     "error": None, "approval_request_id": None},
    {"type": "mcp_call", "id": "d", "server_label": "tides", "name": "search", "arguments": "{}",
     "error": {"type": "http_error", "code": 500, "message": "down"}},
    {"type": "mcp_approval_request", "id": "q", "server_label": "tides", "name": "search", "arguments": "{}"},
    {"type": "mcp_approval_response", "id": "p", "approval_request_id": "q", "approve": False, "reason": "no"},
]  # fmt: skip


@pytest.mark.parametrize("item", MCP_ITEMS, ids=lambda item: item["type"])
def test_mcp_items_are_read_into_fields(item: dict[str, Any]) -> None:
    for kind in ("conversation.item.added", "conversation.item.done", "response.output_item.done"):
        read = receive({"type": kind, "response_id": "r", "item": item}).item
        assert read.extra == {}
        assert json.loads(wire.encode(events.ConversationItemAdded(item=read)))["item"] == item


def test_languages_of_a_transcript_are_read() -> None:
    kind = "conversation.item.input_audio_transcription.completed"
    languages = [{"code": "en"}, {"code": "tr"}]
    event = receive({"type": kind, "item_id": "i", "transcript": "Merhaba", "languages": languages})
    assert (event.languages, event.extra) == (tuple(languages), {})


def test_unset_prints_in_plain_words() -> None:
    assert repr(typing.cast("Any", events.ResponseCreate()).response) == "<not set>"
