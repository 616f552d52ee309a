"""Events <-> JSON text: the only base64, and the place where both dialects meet.

The codec is driven by the fields of the dataclasses: a field is written unless it is `UNSET`; what does not fit an
optional field, and every unknown field, is kept in `extra` and written back unchanged. The preview dialect is the
same events under other names, so :mod:`rtnb.protocol.preview` translates the JSON on the way in and out.
"""

from __future__ import annotations

import binascii
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from rtnb.errors import LocalProtocolError, RemoteProtocolError
from rtnb.protocol import preview
from rtnb.protocol.base import UNSET, Dialect, Unset, Value
from rtnb.protocol.events import Event, UnknownEvent
from rtnb.protocol.values import SessionConfig

# --- text <-> event ---------------------------------------------------------------------------------------------------


def encode(event: Event, *, dialect: Dialect = "ga") -> str:
    """Write an event as one line of JSON.

    Raises
    ------
    LocalProtocolError
        The dialect has no such event, or a value cannot be written as JSON.
    """
    if isinstance(event, UnknownEvent):
        message: dict[str, Any] = dict(event.payload)
    else:
        message = {"type": event.type, **_plain_fields(event)}
        if dialect == "preview":
            message = preview.event_to_preview(message)
    try:
        return json.dumps(message, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"{event.type} cannot be written as JSON: {error}") from error


def parse(text: str) -> dict[str, Any]:
    """Read one JSON object.

    Raises
    ------
    RemoteProtocolError
        Not JSON, or not an object.
    """
    try:
        message = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise RemoteProtocolError(f"expected a JSON object, got {type(message).__name__}")
    return message


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def decode(message: Mapping[str, Any], *, dialect: Dialect = "ga", registry: Mapping[str, type[Event]]) -> Event:
    """Turn a JSON object into an event of `registry`; what is unknown or does not fit becomes an `UnknownEvent`."""
    wire_type = message.get("type")
    if not isinstance(wire_type, str):
        return UnknownEvent(type="", payload=dict(message), problem="has no type")
    source = preview.event_from_preview(message) if dialect == "preview" or wire_type in preview.GA_TYPES else message
    cls = registry.get(source["type"])
    if cls is None:
        return UnknownEvent(type=wire_type, event_id=_id_of(message), payload=dict(message))
    try:
        return typing.cast("Event", _decode_fields(cls, source, skip="type"))
    except (_MisfitError, RecursionError) as error:
        return UnknownEvent(type=wire_type, event_id=_id_of(message), payload=dict(message), problem=str(error))


def _id_of(message: Mapping[str, Any]) -> str | Unset:
    event_id = message.get("event_id")
    return event_id if isinstance(event_id, str) else UNSET


def encode_session(session: SessionConfig, *, dialect: Dialect = "ga") -> dict[str, Any]:
    """The JSON object of a session configuration, as HTTP requests carry it."""
    plain = _plain_fields(session)
    return preview.session_to_preview(plain) if dialect == "preview" else plain


def decode_session(message: Mapping[str, Any], *, dialect: Dialect = "ga") -> SessionConfig:
    """The session configuration in a JSON object, as HTTP answers carry it; unknown fields are kept."""
    source = preview.session_from_preview(message) if dialect == "preview" else message
    return typing.cast("SessionConfig", _decode_fields(SessionConfig, source))


# --- the codec --------------------------------------------------------------------------------------------------------


class _MisfitError(Exception):
    """A value that its field cannot hold."""


_Decoder = Callable[[Any], Any]


def _plain_fields(value: Value) -> dict[str, Any]:
    """The fields of a value as JSON data."""
    data = value.__dict__
    cls: Any = type(value)
    plain = {name: _plain(data[name]) for name in _names(cls) if data[name] is not UNSET}
    plain.update(value.extra)
    return plain


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False).decode("ascii")
    if isinstance(value, Value):
        return _plain_fields(value)
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return value


@cache
def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.name not in ("extra", "payload", "problem"))


@cache
def _plan(cls: type[Any]) -> tuple[dict[str, _Decoder], frozenset[str]]:
    """Field name -> decoder, and the fields that must be there."""
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.name != "extra"}
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    return {name: _decoder(hints[name]) for name in known}, frozenset(required)


def _decode_fields(cls: Any, message: Mapping[str, Any], *, skip: str = "") -> Value:
    decoders, required = _plan(cls)
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, raw in message.items():
        if name == skip:
            continue
        decoder = decoders.get(name)
        if decoder is None:
            extra[name] = raw
            continue
        try:
            values[name] = decoder(raw)
        except _MisfitError as error:
            if name in required:
                raise _MisfitError(f"{name}: {error}") from error
            extra[name] = raw
    if missing := required - values.keys():
        raise _MisfitError(f"{min(missing)} is missing")
    if extra:
        values["extra"] = extra
    return typing.cast("Value", cls(**values))


def _decoder(hint: Any) -> _Decoder:
    """The decoder of a type hint; a union takes the member that fits the JSON value."""
    if hint is Any:
        return lambda raw: raw
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    members = tuple(m for m in members if m is not Unset)
    if len(members) == 1:
        return _member(members[0])
    by_class = {
        m.type: m
        for m in members
        if isinstance(m, type) and issubclass(m, Value) and len(members) > 2 and hasattr(m, "type")
    }
    options = [_member(m) for m in members]

    def decode_union(raw: Any) -> Any:
        if by_class and isinstance(raw, dict):
            named = by_class.get(raw.get("type", "server_vad"))
            return _decode_fields(named, raw) if named else raw
        for option in options:
            try:
                return option(raw)
            except _MisfitError:
                continue
        raise _MisfitError(f"unexpected {_kind(raw)}")

    return decode_union


def _member(hint: Any) -> _Decoder:
    origin = typing.get_origin(hint)
    if origin is tuple:
        inner = _decoder(typing.get_args(hint)[0])
        return lambda raw: tuple(inner(entry) for entry in _expect(raw, list))
    if isinstance(hint, type) and issubclass(hint, Value):
        return lambda raw: _decode_fields(hint, _expect(raw, dict))
    if hint is bytes:
        return _from_base64
    if hint is float:
        return lambda raw: _expect(raw, (int, float), but_not=bool)
    if hint is int:
        return lambda raw: _expect(raw, int, but_not=bool)
    if hint is type(None):
        return lambda raw: _expect(raw, type(None))
    return lambda raw: _expect(raw, dict if origin is not None else hint)


def _expect(raw: Any, kind: Any, *, but_not: Any = ()) -> Any:
    if not isinstance(raw, kind) or isinstance(raw, but_not):
        raise _MisfitError(f"unexpected {_kind(raw)}")
    return raw


def _kind(raw: Any) -> str:
    return "null" if raw is None else type(raw).__name__


def _from_base64(raw: Any) -> bytes:
    try:
        return binascii.a2b_base64(_expect(raw, str), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise _MisfitError(f"not base64: {error}") from error
