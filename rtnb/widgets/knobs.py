"""Knobs of a session: `KNOBS` is the table in ``knobs.toml``, one row per setting.

The controls, their traits, the tooltips, the presets and the exported code are made from it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from traitlets import Any as AnyTrait
from traitlets import Bool, Float, Int, TraitType, Unicode

from rtnb.tuning.updates import MISSING
from rtnb.widgets._base import FOLDER

_TABLE: Final = tomllib.loads((FOLDER / "knobs.toml").read_text(encoding="utf-8"))
_TRAITS: Final = {bool: Bool, int: Int, float: Float, str: Unicode}

Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""Functions from a knob's value to the wire, and back; the second returns `MISSING` where the knob keeps its value."""


def _inner(value: Any, name: str, otherwise: Any) -> Any:
    return value.get(name, otherwise) if isinstance(value, Mapping) else otherwise


CODECS: Final[dict[str, Codec]] = {
    "plain": (lambda value: value, lambda wire: MISSING if wire is None else wire),
    "none_is_null": (lambda value: value, lambda wire: wire or "none"),
    "zero_is_null": (lambda value: value or None, lambda wire: wire or 0),
    "is_set": (lambda value: value, lambda wire: wire is not None),
    "model": (lambda value: value or "whisper-1", lambda wire: wire or MISSING),
    # A voice made from samples has an id.
    "voice": (
        lambda value: {"id": value} if value.startswith("voice_") else value,
        lambda wire: _inner(wire, "id", wire),
    ),
    "modalities": (lambda value: [value], lambda wire: "audio" if "audio" in (wire or ()) else "text"),
    "number_or_text": (lambda value: int(value) if value.strip().isdecimal() else value.strip(), str),
    "effort": (lambda value: {"effort": value}, lambda wire: _inner(wire, "effort", MISSING)),
    "truncation": (
        lambda value: {"type": "retention_ratio", "retention_ratio": value} if isinstance(value, float) else value,
        lambda wire: _inner(wire, "retention_ratio", wire),
    ),
    "noise": (lambda value: {"type": value} if value != "off" else None, lambda wire: _inner(wire, "type", "off")),
}
"""Codecs by the name in the table."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """Row of the table: a setting of a session. ``knobs.toml`` describes its fields."""

    group: str
    name: str
    label: str
    help: str
    path: str
    default: Any
    unit: str = ""
    range: tuple[float, float, float] | None = None
    choices: tuple[Any, ...] = ()
    dialect: str | None = None
    needs: str | None = None
    codec: str = "plain"

    @property
    def options(self) -> tuple[tuple[str, Any], ...]:
        """Pairs of label and value to choose from."""
        return tuple((one, one) if isinstance(one, str) else tuple(one) for one in self.choices)

    @property
    def tooltip(self) -> str:
        """Wire path, range and default."""
        known = ", ".join(label for label, _ in self.options)
        if self.range:
            known = f"{self.range[0]:g} to {self.range[1]:g}"
        return f"{self.path}: {f'{known}; ' if known else ''}default {self.default!r}"

    def trait(self) -> TraitType[Any, Any]:
        """Make the trait of a control."""
        kinds = {type(value) for _, value in self.options} | {type(self.default)}
        kind: Any = _TRAITS[kinds.pop()] if len(kinds) == 1 else AnyTrait
        return kind(self.default, help=f"{self.help} {self.tooltip}")  # type: ignore[no-any-return]

    def to_wire(self, value: Any) -> Any:
        """Return the wire value of the knob's value."""
        return CODECS[self.codec][0](value)

    def from_wire(self, wire: Any) -> Any:
        """Return the knob's value of a wire value; `MISSING` where the knob keeps its own."""
        return MISSING if wire is MISSING else CODECS[self.codec][1](wire)

    def why_not(self, values: Any, dialect: str) -> str:
        """Return the reason why the knob does nothing beside these values of other knobs, else an empty text."""
        needs = _TABLE["needs"].get(self.needs)
        if needs and getattr(values, needs["knob"]) not in needs["values"]:
            return str(needs["reason"])
        return "" if self.dialect in (None, dialect) else f"only the {self.dialect} dialect has it"


KNOBS: Final = tuple(
    Knob(group=group, name=name, **row) for group, rows in _TABLE["knobs"].items() for name, row in rows.items()
)
"""All knobs, in the order of the page."""
TURN_PRESETS: Final[dict[str, dict[str, Any]]] = _TABLE["presets"]
"""Presets of turn detection: name -> ``meaning`` and ``knobs``."""

TEXTS: Final[dict[str, str]] = _TABLE["texts"]
"""Other texts of the controls."""


def knobs_of(group: str) -> dict[str, Knob]:
    """Return the knobs of a group by name."""
    return {knob.name: knob for knob in KNOBS if knob.group == group}


def traits_of(group: str) -> dict[str, TraitType[Any, Any]]:
    """Make the traits of a group's control."""
    return {name: knob.trait() for name, knob in knobs_of(group).items()}
