"""Codec between events and JSON text, driven by the fields of the dataclasses.

A field is written unless it is `UNSET`; what does not fit an optional field, and every unknown field, is kept in
`extra` and written back unchanged. A float where a whole number is expected is rounded, so 1500.0 reads as 1500. The
preview dialect is the same events with other names: :mod:`rtnb.protocol.preview` translates the JSON when it is read
and written.
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
from rtnb.protocol.values import UNSET, Dialect, EncodedAudio, SessionConfig, Tools, Unset, Value, checked_base64

NESTING_LIMIT: Final = 100
"""Deepest nesting that is read, so that everything read can be compared, shown and written again; chosen."""
LONG: Final = 1000
"""Shortest text, in characters, that `decode` searches for audio to cut out; chosen."""
_AUDIO_DELTAS: Final = ("response.output_audio.delta", "response.audio.delta")

# --- writing ----------------------------------------------------------------------------------------------------------


def encode(event: Event, *, dialect: Dialect = "ga") -> str:
    """Write an event as one line of JSON.

    Raises
    ------
    LocalProtocolError
        The dialect has no such event, or a value cannot be written as JSON.
    """
    try:
        if isinstance(event, UnknownEvent):
            return _ENCODER.encode(event.payload)
        text = _ENCODER.encode({"type": event.type, **_plain(event)})
        if dialect == "preview":
            text = _ENCODER.encode(preview.event_to_preview(json.loads(text)))
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"Cannot write {event.type!r} as JSON: {error}") from error
    return text


def encode_session(session: SessionConfig, *, dialect: Dialect = "ga") -> dict[str, Any]:
    """Return the JSON object of a session configuration, as HTTP requests carry it."""
    plain: dict[str, Any] = json.loads(_ENCODER.encode(session))
    return preview.session_to_preview(plain) if dialect == "preview" else plain


def _plain(value: Any) -> Any:
    """Return one value in the types of JSON; the encoder calls it again for the values inside."""
    if isinstance(value, Value):
        plain, held, cls = {}, value.__dict__, typing.cast("Any", value.__class__)
        for name in _plan(cls).readers:
            if held[name] is not UNSET:
                plain[name] = held[name]
        plain.update(value.extra)
        return plain
    if isinstance(value, bytes | memoryview):
        return binascii.b2a_base64(value, newline=False).decode("ascii")
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no type of JSON")


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)

# --- reading ----------------------------------------------------------------------------------------------------------


def _finite(digits: str) -> float:
    """Refuse NaN and Infinity, which are no JSON, and 1e999, which would become one of them when written."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is not a number that can be held")
    return number


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def parse(text: str) -> dict[str, Any]:
    """Read one JSON object.

    Raises
    ------
    RemoteProtocolError
        Not JSON, not an object, nested too deeply, or with a number that a float cannot hold.
    """
    try:
        message = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise RemoteProtocolError(f"expected a JSON object, got {type(message).__name__}")
    depth = 0
    flat = "[" not in text and text.find("{", 1) < 0  # counting costs ten times as much
    level: list[Any] = [] if flat or text.count("{") + text.count("[") <= NESTING_LIMIT else [message]
    while level:
        depth += 1
        inner = (entry for held in level for entry in (held.values() if isinstance(held, dict) else held))
        level = [entry for entry in inner if entry.__class__ is dict or entry.__class__ is list]
    if depth > NESTING_LIMIT:
        raise RemoteProtocolError(f"objects and lists are nested more than {NESTING_LIMIT} deep")
    return message


def decode(source: str | Mapping[str, Any], *, dialect: Dialect = "ga", registry: Mapping[str, type[Event]]) -> Event:
    """Return a text or a JSON object as an event of `registry`; an `UnknownEvent` where it is unknown or does not fit.

    The base64 of a long audio delta is cut out before the JSON is scanned and put back afterwards, which saves a third
    of the time: ``{"type":"…","delta":"AAAA…"}`` is scanned as ``{"type":"…","delta":""}``. Base64 has no escapes, so
    both give the same. Any other long text is scanned whole.

    Raises
    ------
    RemoteProtocolError
        `parse` refuses the text.
    """
    text = source if isinstance(source, str) else None
    audio, start = "", 0
    message: Any = source if text is None else None
    if text is not None:
        rest = text
        if len(text) > LONG and (key := text.find('"delta":')) > 0:
            start = text.find('"', key + 8) + 1
            end = text.find('"', start)
            if 0 < start <= end:
                audio, rest = text[start:end], text[:start] + text[end:]
        # A second bracket is rare in a delta. Looking for one costs less than measuring the nesting as `parse` does.
        if "[" not in rest and rest.find("{", 1) < 0:
            try:
                found, length = _DECODER.scan_once(rest, 0)  # type: ignore[attr-defined]  # skips no white space
            except (StopIteration, ValueError):
                found, length = None, -1
            if length == len(rest) and found.__class__ is dict:
                cut = found.get("delta") == "" and found.get("type") in _AUDIO_DELTAS and '"delta"' not in rest[start:]
                message = found if cut or not audio else None
        if message is None:
            message, audio = parse(text), ""
    kind = message.get("type")
    if not isinstance(kind, str):
        return UnknownEvent(type="", payload=dict(message), problem="has no type")
    translate = dialect == "preview" or kind in preview.GA_TYPES
    values = preview.event_from_preview(message) if translate else dict(message)
    if audio:
        values["delta"] = audio
    cls, problem = registry.get(values.pop("type")), None
    if cls is not None:
        try:
            event: Event = _decode_fields(cls, values)
            return event
        except (ValueError, RecursionError) as error:
            problem = str(error)
    if audio and text:  # no base64 as it stands, but perhaps with escapes
        return decode(parse(text), dialect=dialect, registry=registry)
    event_id = message["event_id"] if isinstance(message.get("event_id"), str) else UNSET
    return UnknownEvent(type=kind, event_id=event_id, payload=dict(message), problem=problem)


def decode_session(message: Mapping[str, Any], *, dialect: Dialect = "ga") -> SessionConfig:
    """Return the session configuration in a JSON object, as HTTP answers carry it; unknown fields are kept."""
    source = preview.session_from_preview(message) if dialect == "preview" else message
    return typing.cast("SessionConfig", _decode_fields(SessionConfig, source))


_Reader = Callable[[Any], Any]
_Readers = Mapping[type, _Reader | None]
"""Class of a JSON value -> what turns it into the field's value; None where it is that value already."""


class _Plan(typing.NamedTuple):
    """Reading plan of one class, made once from its type hints."""

    plain: dict[str, type]
    """Field -> a class of JSON value that it holds as it is: most fields need no other look."""
    readers: dict[str, _Readers]
    required: frozenset[str]
    defaults: dict[str, Any]


@functools.cache
def _plan(cls: type[Any]) -> _Plan:
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.name != "extra"}
    defaults = {name: f.default for name, f in known.items() if f.default is not MISSING}
    readers = {name: _readers(hints[name]) for name in known}
    plain = {n: next((kind for kind, read in of_kind.items() if read is None), Unset) for n, of_kind in readers.items()}
    return _Plan(plain, readers, frozenset(known.keys() - defaults), defaults)


def _decode_fields(cls: Any, message: Mapping[str, Any]) -> Any:
    """Build a value of `cls`; ValueError names the required field that is missing or does not fit."""
    plain, readers, required, defaults = _plan(cls)
    values = dict(message)
    extra: dict[str, Any] = {}
    for name, raw in message.items():
        if plain.get(name) is raw.__class__:
            continue
        if name not in readers:
            extra[name] = values.pop(name)
            continue
        reader = readers[name].get(raw.__class__, _misfit)
        if reader is None:
            continue
        try:
            values[name] = reader(raw)
        except ValueError as error:
            if name in required:
                raise ValueError(f"{name}: {error}") from error
            values[name], extra[name] = defaults[name], raw
    if len(values) < len(readers):
        if missing := required - values.keys():
            raise ValueError(f"{min(missing)} is missing")
        values = defaults | values
    if extra:
        values["extra"] = extra
    value = object.__new__(cls)
    object.__setattr__(value, "__dict__", values)  # ``cls(**values)`` would set the frozen fields one by one
    return value


def _readers(hint: Any) -> _Readers:
    """Return the readers of a type hint, one per class of JSON value that fits."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    readers: dict[type, _Reader | None] = {}
    for member in members:
        origin = typing.get_origin(member)
        if origin is tuple:
            readers[list] = functools.partial(_read_list, _readers(typing.get_args(member)[0]))
        elif origin is not None:  # a mapping, kept as it is
            readers.setdefault(dict, None)
        elif issubclass(member, Value):
            nouns = [m for m in members if isinstance(m, type) and issubclass(m, Value)]
            readers[dict] = functools.partial(_read_noun, nouns)
        elif member is Tools:
            readers[list] = Tools
        elif member is int:
            readers |= {int: None, float: round}  # some services write whole numbers as 1500.0
        elif member is float:
            readers |= {int: None, float: None}
        elif member in (bytes, EncodedAudio):
            readers[str] = checked_base64 if member is EncodedAudio else _from_base64
        elif member is not Unset:
            readers[member] = None
    return readers


def _read_list(readers: _Readers, raw: list[Any]) -> tuple[Any, ...]:
    pairs = ((entry, readers.get(entry.__class__, _misfit)) for entry in raw)
    return tuple(entry if reader is None else reader(entry) for entry, reader in pairs)


def _read_noun(nouns: list[Any], raw: dict[str, Any]) -> Any:
    """Read the only class, or the class that `type` names (the first without a type); others stay mappings."""
    if len(nouns) == 1:
        return _decode_fields(nouns[0], raw)
    kind = raw.get("type", nouns[0].type)
    cls = next((noun for noun in nouns if noun.type == kind), None)
    return raw if cls is None else _decode_fields(cls, raw)


def _misfit(raw: Any) -> Any:
    raise ValueError("unexpected null" if raw is None else f"unexpected {type(raw).__name__}")


def _from_base64(raw: str) -> bytes:
    return binascii.a2b_base64(checked_base64(raw))
