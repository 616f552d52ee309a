"""Vocabulary for tables of what a JSON object may contain, and the refusals of a service when it does not fit.

A rule is called with a dotted path and a JSON value and returns a `Refusal` or None. Codes and wording follow the
service: seen on the wire in 2026-09 or reported in public threads; ``(u)`` marks those with one weak source.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rtnb.protocol.values import is_base64
from rtnb.redaction import mask_credentials

SHOWN_LENGTH: Final = 200
"""Longest piece of a wrong value that is repeated to its sender, characters; chosen."""


@dataclass(frozen=True)
class Refusal:
    """Reason why a service does not accept an event, in the service's own words."""

    code: str | None
    message: str
    param: str | None = None
    """Dotted path of the wrong field."""
    hint: str = ""
    """Facts that the service does not send: the wrong value, or the names that are allowed."""
    type: str = "invalid_request_error"

    @property
    def explanation(self) -> str:
        """Path, message and hint in one text, for a check before sending."""
        where = "" if self.param is None or self.param in self.message else f"{self.param}: "
        return f"{where}{self.message} {self.hint}".rstrip()


Rule = Callable[[str, Any], Refusal | None]
_KINDS: Final = {
    type(None): "null", bool: "a boolean", str: "a string", int: "an integer", float: "a decimal", list: "an array",
}  # fmt: skip


def _shown(value: str) -> str:
    """Return a text short enough to repeat and printable, also with half of a surrogate pair in it."""
    value = value if len(value) <= SHOWN_LENGTH else f"{value[:SHOWN_LENGTH]}…"
    return value.encode("utf-8", "replace").decode("utf-8")


def _wrong_type(path: str, value: Any, expected: str) -> Refusal:
    got = _KINDS.get(type(value), "an object")
    hint = f"The value is {_shown(reprlib.repr(mask_credentials(value)))}."
    return Refusal(
        "invalid_type", f"Invalid type for '{path}': expected {expected}, but got {got} instead.", path, hint
    )


def invalid_value(path: str, value: str, allowed: Collection[str]) -> Refusal:
    """Return the refusal of a word that is not on the list."""
    quoted = [f"'{word}'" for word in allowed]
    listing = " and ".join(quoted) if len(quoted) < 3 else f"{', '.join(quoted[:-1])}, and {quoted[-1]}"
    return Refusal("invalid_value", f"Invalid value: '{_shown(value)}'. Supported values are: {listing}.", path)


def missing(path: str) -> Refusal:
    """Return the refusal of an absent field."""
    return Refusal("missing_required_parameter", f"Missing required parameter: '{path}'.", path)


def invalid_audio(path: str) -> Refusal:
    """Return the refusal of a text that is no base64 (wording as reported from a preview service)."""
    expected = "Expected base64-encoded audio bytes (mono PCM16 at 24kHz)"
    return Refusal("invalid_value", f"Invalid '{path}'. {expected} but got an invalid value.", path)


# --- simple values ----------------------------------------------------------------------------------------------------


def string(*, max_length: int | None = None) -> Rule:
    """Make a rule for text of at most `max_length` characters."""

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, str):
            return _wrong_type(path, value, "a string")
        if max_length is None or len(value) <= max_length:
            return None
        expected = f"Expected a string with maximum length {max_length}, but got a string with length {len(value)}"
        return Refusal(
            "string_above_max_length", f"Invalid '{path}': string too long. {expected} instead.", path
        )  # (u)

    return check


def base64_audio(path: str, value: Any) -> Refusal | None:
    """Check encoded audio: base64 text, padded and without line breaks."""
    if not isinstance(value, str):
        return _wrong_type(path, value, "a string")
    return None if is_base64(value) else invalid_audio(path)


def boolean(path: str, value: Any) -> Refusal | None:
    """Check true or false."""
    return None if isinstance(value, bool) else _wrong_type(path, value, "a boolean")


def json_object(path: str, value: Any) -> Refusal | None:
    """Check an object with any content."""
    return None if isinstance(value, dict) else _wrong_type(path, value, "an object")


def number(name: str, minimum: float | None = None, maximum: float | None = None) -> Rule:
    """Make a rule for an ``integer`` or a ``decimal`` in a range."""
    kind: Any = int if name == "integer" else (int, float)

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, kind) or isinstance(value, bool):
            return _wrong_type(path, value, f"an {name}" if name == "integer" else f"a {name}")
        if minimum is not None and value < minimum:
            where, bound = "below min", f">= {minimum}"
        elif maximum is not None and value > maximum:
            where, bound = "above max", f"<= {maximum}"
        else:
            return None
        message = f"Invalid '{path}': {name} {where}imum value. Expected a value {bound}, but got {value} instead."
        return Refusal(f"{name}_{where.replace(' ', '_')}_value", message, path)  # seen for `integer_below`, others (u)

    return check


def integer_or_inf(*, maximum: int) -> Rule:
    """Make a rule for a token limit: 1 … `maximum` or ``"inf"``."""
    limit = number("integer", 1, maximum)
    return lambda path, value: None if value == "inf" else limit(path, value)


def enum(*allowed: str) -> Rule:
    """Make a rule for a closed list of words."""

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, str):
            return _wrong_type(path, value, "a string")
        return None if value in allowed else invalid_value(path, value, allowed)

    return check


# --- composed values --------------------------------------------------------------------------------------------------


def nullable(rule: Rule) -> Rule:
    """Make a rule that also accepts null."""
    return lambda path, value: None if value is None else rule(path, value)


def one_of(text_rule: Rule, object_rule: Rule) -> Rule:
    """Make a rule for two shapes: an object follows the second rule, everything else the first."""
    return lambda path, value: object_rule(path, value) if isinstance(value, dict) else text_rule(path, value)


def array(rule: Rule) -> Rule:
    """Make a rule for a list whose every entry follows `rule`."""

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, list):
            return _wrong_type(path, value, "an array")
        return next((r for i, entry in enumerate(value) if (r := rule(f"{path}[{i}]", entry))), None)

    return check


def table(fields: Mapping[str, Rule]) -> Rule:
    """Make a rule for an object with exactly these fields; a name that ends in ``!`` is required.

    Missing fields are refused first, then unknown ones, then wrong values. The order is that of reports where both
    applied: the service answered a nested ``tool_choice`` with the missing `name`.
    """
    known = {name.rstrip("!"): rule for name, rule in fields.items()}
    required = [name[:-1] for name in fields if name.endswith("!")]

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, dict):
            return _wrong_type(path, value, "an object")
        prefix = f"{path}." if path else ""
        for name in required:
            if name not in value:
                return missing(f"{prefix}{name}")
        for name in value:
            if name not in known:
                where = f"{prefix}{_shown(name)}"
                close = difflib.get_close_matches(name[:SHOWN_LENGTH], known, n=1)
                nearest = f"Did you mean '{close[0]}'? " if close else ""
                hint = f"{nearest}Allowed are {', '.join(known)}."
                return Refusal("unknown_parameter", f"Unknown parameter: '{where}'.", where, hint)
        return next((r for name, entry in value.items() if (r := known[name](f"{prefix}{name}", entry))), None)

    return check


def by_type(shapes: Mapping[str, Rule | Mapping[str, Rule]], *, default: str | None = None) -> Rule:
    """Make a rule for an object whose `type` names its shape; without a `default` the type must be there.

    A shape given as fields is a `table` that has the field `type` too.
    """
    kinds = enum(*shapes)
    rules = {k: table({"type": string(), **s}) if isinstance(s, Mapping) else s for k, s in shapes.items()}

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, dict):
            return _wrong_type(path, value, "an object")
        kind: Any = value.get("type", default)
        if kind is None and "type" not in value:
            return missing(f"{path}.type" if path else "type")
        return kinds(f"{path}.type" if path else "type", kind) or rules[kind](path, value)

    return check


def string_table(*, max_pairs: int, key_length: int, value_length: int) -> Rule:
    """Make a rule for an object of text to text with a limited size."""
    text = string(max_length=value_length)

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, dict):
            return _wrong_type(path, value, "an object")
        if len(value) > max_pairs:
            expected = f"Expected an object with at most {max_pairs} properties, but got an object with {len(value)}"
            message = f"Invalid '{path}': too many properties. {expected} properties instead."
            return Refusal("object_above_max_properties", message, path)  # (u)
        for name, entry in value.items():
            if len(name) > key_length:
                expected = f"Expected a property name with maximum length {key_length}, but got one with length"
                message = f"Invalid property name in '{path}': too long. {expected} {len(name)} instead."
                return Refusal("property_name_above_max_length", message, path)  # (u)
            if refusal := text(f"{path}.{name}", entry):
                return refusal
        return None

    return check
