"""Arbitrary events, made from the dataclasses' own type hints, and arbitrary or damaged JSON."""

import copy
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from hypothesis import strategies as st

from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event
from rtnb.protocol.values import EncodedAudio, SemanticVad, ServerVad, Tools, Unset, Value
from tests.protocol.goldens import ALL, is_client

texts = st.text(max_size=12)  # includes lone surrogates, quotes, NUL
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
json_objects = st.dictionaries(texts, json_values, max_size=4)
unknown_fields = st.dictionaries(texts.map("x_".__add__), json_values, max_size=2)  # no known field starts like this
_FIXED_TYPES = {ServerVad: "server_vad", SemanticVad: "semantic_vad"}


def _of_a_kind_of_its_own(made: dict[str, Any]) -> dict[str, Any]:
    """A mapping that is read as a mapping: turn detection of a known (or no) type would be read as its class."""
    return made if "type" in made and made["type"] not in _FIXED_TYPES.values() else {**made, "type": "other"}


def _of_hint(hint: Any, *, depth: int) -> st.SearchStrategy[Any]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        members = [m for m in typing.get_args(hint) if m is not Unset]
        return st.one_of([_of_hint(m, depth=depth) for m in members])
    if origin is tuple:
        return st.lists(_of_hint(typing.get_args(hint)[0], depth=depth), max_size=2).map(tuple)
    if origin is not None and issubclass(origin, Mapping):
        return json_objects.map(_of_a_kind_of_its_own)
    if issubclass(hint, Value):
        return values(hint, depth=depth + 1)
    if hint is Tools:
        return st.lists(json_objects, max_size=2).map(Tools)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: texts,
        int: st.integers(),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
        bytes: st.binary(max_size=12),
        EncodedAudio: st.binary(max_size=12),
        type(None): st.none(),
    }
    return simple[hint]


@st.composite
def values(draw: st.DrawFn, cls: type[Any], *, depth: int = 0) -> Any:
    """Any instance of a value or event class; optional fields are left out half of the time, deep ones always."""
    hints = typing.get_type_hints(cls)
    made: dict[str, Any] = {"extra": draw(unknown_fields)}
    for f in fields(cls):
        optional = f.default is not MISSING
        if f.name == "extra" or (optional and (depth > 3 or draw(st.booleans()))):
            continue
        made[f.name] = draw(_of_hint(hints[f.name], depth=depth))
    if cls in _FIXED_TYPES:
        made["type"] = _FIXED_TYPES[cls]
    return cls(**made)


client_events = st.sampled_from(sorted(CLIENT_EVENTS)).flatmap(lambda name: values(CLIENT_EVENTS[name]))
server_events = st.sampled_from(sorted(SERVER_EVENTS)).flatmap(lambda name: values(SERVER_EVENTS[name]))
all_events: st.SearchStrategy[Event] = client_events | server_events


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a JSON value."""
    found: list[tuple[Any, Any]] = []
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found += [(value, key), *places(value[key])]
    return found


_HUGE = [10**400, -(10**400), 2**63, 1e308, -1, 0, 0.5]
_odd = json_values | st.sampled_from(
    [*_HUGE, "\ud800", "!not base64!", "a", "", [], {}, [[]], {"type": []}, {"": None}]
).map(copy.deepcopy)  # later damage may go inside


@st.composite
def damaged(draw: st.DrawFn, *, client: bool) -> dict[str, Any]:
    """A golden event with one to three places dropped, replaced or added to."""
    message = copy.deepcopy(draw(st.sampled_from([m for _, m in ALL if is_client(m) is client])))
    for _ in range(draw(st.integers(1, 3))):
        found = places(message)
        if not found:
            break
        holder, key = draw(st.sampled_from(found))
        damage = draw(st.sampled_from(["change", "drop", "insert"]))
        if damage == "drop":
            del holder[key]
        elif damage == "change":
            holder[key] = draw(_odd)
        elif isinstance(holder, dict):
            holder[draw(texts)] = draw(_odd)
        else:
            holder.insert(key, draw(_odd))
    return message
