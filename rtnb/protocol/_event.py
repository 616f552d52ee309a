"""What every event is made of, and the two registries: what a client may say and what a service may say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, dataclass_transform

from rtnb.protocol.base import UNSET, JsonObject, Unset, Value


@dataclass(frozen=True, kw_only=True, repr=False)
class Event(Value):
    """What all events share."""

    type: ClassVar[str]
    """The wire type (GA spelling)."""

    event_id: str | Unset | None = UNSET
    """Chosen by the sender; the service names the offending client event by it in an `error`."""


@dataclass(frozen=True, kw_only=True, repr=False)
class UnknownEvent(Event):
    """An event this version does not know, or whose fields do not fit: kept whole in `payload`, never dropped."""

    type: str  # type: ignore[misc]  # the one event whose type is data
    payload: JsonObject
    """The whole JSON object as it came."""
    problem: str | None = None
    """None for an unknown type; otherwise which field of a known type does not fit."""


CLIENT_EVENTS: dict[str, type[Event]] = {}
"""What a client may say: wire type -> class."""
SERVER_EVENTS: dict[str, type[Event]] = {}
"""What a service may say: wire type -> class."""

_E = TypeVar("_E", bound=type[Event])


@dataclass_transform(frozen_default=True, kw_only_default=True)
def client_event(wire_type: str) -> Callable[[_E], _E]:
    """Make a class a frozen dataclass and register it as what a client says."""
    return lambda cls: _register(cls, wire_type, CLIENT_EVENTS)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def server_event(wire_type: str) -> Callable[[_E], _E]:
    """Make a class a frozen dataclass and register it as what a service says."""
    return lambda cls: _register(cls, wire_type, SERVER_EVENTS)


def _register(cls: Any, wire_type: str, registry: dict[str, type[Event]]) -> Any:
    made = dataclass(frozen=True, kw_only=True, repr=False)(cls)
    made.type = wire_type
    registry[wire_type] = made
    return made
