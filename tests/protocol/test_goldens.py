"""Law 1 on golden texts: an event is read as it was written, in both dialects, and a foreign client reads the same."""

import json
import typing
from typing import Any

import pytest
from openai.types.beta.realtime import RealtimeClientEvent as PreviewClientEvent
from openai.types.beta.realtime import RealtimeServerEvent as PreviewServerEvent
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter

from rtnb.protocol import Dialect, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, UnknownEvent
from rtnb.protocol.preview import GA_ONLY_EVENTS
from rtnb.protocol.service.schema import check_event
from tests.protocol.goldens import ALL, CLIENT, DIALECTS, SERVER, is_client, name, read, registry_of

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


@pytest.mark.parametrize("dialect, message", ALL, ids=name)
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


@pytest.mark.parametrize("dialect, message", ALL, ids=name)
def test_a_foreign_client_reads_the_golden_text(dialect: Dialect, message: dict[str, Any]) -> None:
    if message["type"] == "transcription_session.created":
        return  # only in the OpenAPI document, in no SDK
    union = _FOREIGN[dialect, is_client(message)]
    cls = _classes(union)[message["type"]]
    strict = cls.model_validate(message)  # required fields, types and enumerations of the event's own class
    assert strict.type == message["type"]  # type: ignore[attr-defined]
    assert type(TypeAdapter(union).validate_python(message)) is cls


@pytest.mark.parametrize("dialect, message", CLIENT, ids=name)
def test_a_strict_service_accepts_every_client_golden(dialect: Dialect, message: dict[str, Any]) -> None:
    assert check_event(message, dialect=dialect, webrtc=True) is None


@pytest.mark.parametrize("dialect, message", CLIENT + SERVER, ids=name)
def test_translation_between_the_dialects_loses_nothing(dialect: Dialect, message: dict[str, Any]) -> None:
    """GA -> preview -> GA and preview -> GA -> preview, for every event the preview has."""
    event = wire.decode(message, dialect=dialect, registry=registry_of(message))
    if event.type in GA_ONLY_EVENTS:
        return
    for other in DIALECTS:
        text = wire.encode(event, dialect=other)
        assert wire.decode(wire.parse(text), dialect=other, registry=registry_of({"type": event.type})) == event
