"""Events <-> JSON text: the only base64, and the place where both dialects meet.

The codec is driven by the fields of the dataclasses: a field is written unless it is `UNSET`; what does not fit an
optional field, and every unknown field, is kept in `extra` and written back unchanged. The preview dialect is the
same events under other names, so :mod:`rtnb.protocol.preview` translates the JSON on the way in and out.
"""

from __future__ import annotations

import binascii
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from rtnb.errors import LocalProtocolError, RemoteProtocolError
from rtnb.protocol import preview
from rtnb.protocol.events import Event, UnknownEvent
from rtnb.protocol.values import UNSET, Dialect, EncodedAudio, SessionConfig, Unset, Value, is_base64

# --- text <-> event ---------------------------------------------------------------------------------------------------


def encode(event: Event, *, dialect: Dialect = "ga") -> str:
    """Write an event as one line of JSON.

    Raises
    ------
    LocalProtocolError
        The dialect has no such event, or a value cannot be written as JSON.
    """
    try:
        if isinstance(event, UnknownEvent):
            return _ENCODER.encode(dict(event.payload))
        message = {"type": event.type, **_plain_fields(event)}
        return _ENCODER.encode(preview.event_to_preview(message) if dialect == "preview" else message)
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"{event.type} cannot be written as JSON: {error}") from error


def parse(text: str) -> dict[str, Any]:
    """Read one JSON object.

    Raises
    ------
    RemoteProtocolError
        Not JSON, not an object, nested too deeply, or with a number that a float cannot hold.
    """
    try:
        message, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        message, end = None, -1
    if end != len(text):  # white space around it, or no JSON
        message = _decode_all(text)
    if not isinstance(message, dict):
        raise RemoteProtocolError(f"expected a JSON object, got {type(message).__name__}")
    if _nesting(message) > NESTING_LIMIT:
        raise RemoteProtocolError(f"objects and lists are nested more than {NESTING_LIMIT} deep")
    return message


def _decode_all(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not JSON: {error}") from error


NESTING_LIMIT: Final = 100
"""Deepest nesting that is read, so that whatever was read can be compared, shown and written again; chosen."""


def _nesting(value: Any) -> int:
    depth = 0
    level: list[Any] = [value]
    while level:
        depth += 1
        deeper: list[Any] = []
        for held in level:
            for entry in held.values() if isinstance(held, dict) else held:
                if entry.__class__ in _CONTAINERS:
                    deeper.append(entry)
        level = deeper
    return depth


_CONTAINERS: Final[frozenset[Any]] = frozenset({dict, list})


def _finite(digits: str) -> float:
    """NaN and Infinity are no JSON, and 1e999 would become one of them on its way back."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is not a number that can be held")
    return number


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def decode(message: Mapping[str, Any], *, dialect: Dialect = "ga", registry: Mapping[str, type[Event]]) -> Event:
    """Turn a JSON object into an event of `registry`; what is unknown or does not fit becomes an `UnknownEvent`."""
    wire_type = message.get("type")
    if not isinstance(wire_type, str):
        return UnknownEvent(type="", payload=dict(message), problem="has no type")
    translate = dialect == "preview" or wire_type in preview.GA_TYPES
    fields_ = preview.event_from_preview(message) if translate else dict(message)
    cls = registry.get(fields_.pop("type"))
    if cls is None:
        return UnknownEvent(type=wire_type, event_id=_id_of(message), payload=dict(message))
    try:
        return typing.cast("Event", _decode_fields(cls, fields_))
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


_Reader = Callable[[Any], Any]
_Readers = Mapping[type, _Reader | None]
"""Class of a JSON value -> what turns it into the field's value; None where it is that value already."""


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


@functools.cache
def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.name not in ("extra", "payload", "problem"))


@functools.cache
def _plan(cls: type[Any]) -> tuple[dict[str, _Readers], frozenset[str], dict[str, Any]]:
    """Field name -> its readers, the fields that must be there, and what the others are where they are not."""
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.name != "extra"}
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    defaults = {n: f.default for n, f in known.items() if f.default is not MISSING}
    return {name: _readers(hints[name]) for name in known}, frozenset(required), defaults


def _decode_fields(cls: Any, message: Mapping[str, Any]) -> Value:
    plan, required, defaults = _plan(cls)
    values = defaults.copy()
    extra: dict[str, Any] = {}
    for name, raw in message.items():
        if name not in plan:
            extra[name] = raw
            continue
        reader = plan[name].get(raw.__class__, _misfit)
        if reader is None:
            values[name] = raw
            continue
        try:
            values[name] = reader(raw)
        except _MisfitError as error:
            if name in required:
                raise _MisfitError(f"{name}: {error}") from error
            extra[name] = raw
    if not required <= values.keys():
        raise _MisfitError(f"{min(required - values.keys())} is missing")
    values["extra"] = extra
    value = object.__new__(cls)
    value.__dict__.update(values)  # ``cls(**values)`` would set the fields of a frozen dataclass one by one
    return typing.cast("Value", value)


def _readers(hint: Any) -> _Readers:
    """The readers of a type hint, one per class of JSON value that fits."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    readers: dict[type, _Reader | None] = {}
    nouns: list[Any] = []
    for member in members:
        origin = typing.get_origin(member)
        if member is Unset:
            continue
        if origin is tuple:
            readers[list] = _list_reader(_readers(typing.get_args(member)[0]))
        elif origin is not None:  # a mapping, kept as it is
            readers[dict] = None
        elif issubclass(member, Value):
            nouns.append(member)
        elif member is bytes:
            readers[str] = _from_base64
        elif member is EncodedAudio:
            readers[str] = _checked_base64
        elif member is float:
            readers[float] = readers[int] = None
        else:
            readers[member] = None
    if nouns:
        readers[dict] = _noun_reader(nouns)
    return readers


def _list_reader(readers: _Readers) -> _Reader:
    def read(raw: list[Any]) -> tuple[Any, ...]:
        made = []
        for entry in raw:
            reader = readers.get(entry.__class__, _misfit)
            made.append(entry if reader is None else reader(entry))
        return tuple(made)

    return read


def _noun_reader(nouns: list[Any]) -> _Reader:
    """One class, or the class whose `type` the object names (the first where it names none); others stay mappings."""
    if len(nouns) == 1:
        return functools.partial(_decode_fields, nouns[0])
    named = {cls.type: cls for cls in nouns}

    def read(raw: dict[str, Any]) -> Any:
        kind = raw.get("type", nouns[0].type)
        cls = named.get(kind) if isinstance(kind, str) else None
        return raw if cls is None else _decode_fields(cls, raw)

    return read


def _misfit(raw: Any) -> Any:
    raise _MisfitError("unexpected null" if raw is None else f"unexpected {type(raw).__name__}")


def _checked_base64(raw: str) -> str:
    if not is_base64(raw):
        _from_base64(raw)  # raises, and says what is wrong
    return raw


def _from_base64(raw: str) -> bytes:
    try:
        return binascii.a2b_base64(raw, strict_mode=True)
    except ValueError as error:  # binascii.Error is one
        raise _MisfitError(f"not base64: {error}") from error
