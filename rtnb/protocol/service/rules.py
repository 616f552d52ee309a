"""A few words for writing down what a JSON object may contain, and what a service says when it does not.

A rule is called with a dotted path and a JSON value and returns a `Refusal` or None. Codes and wording follow the
service: seen on the wire in 2026-09 or reported in public threads; ``(u)`` marks those with one weak source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rtnb.protocol.values import is_base64

SHOWN_LENGTH: Final = 200
"""Longest piece of a wrong value that is repeated to its sender, characters; chosen."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a service does not accept an event."""

    code: str | None
    message: str
    param: str | None = None
    type: str = "invalid_request_error"


Rule = Callable[[str, Any], Refusal | None]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", int: "an integer", float: "a decimal", list: "an array"}
    return names.get(type(value), "an object")


def _wrong_type(path: str, value: Any, expected: str) -> Refusal:
    return Refusal(
        code="invalid_type",
        message=f"Invalid type for '{path}': expected {expected}, but got {_kind(value)} instead.",
        param=path,
    )


def string(*, max_length: int | None = None) -> Rule:
    """Text, at most `max_length` characters."""

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, str):
            return _wrong_type(path, value, "a string")
        if max_length is not None and len(value) > max_length:
            return Refusal(
                code="string_above_max_length",  # (u)
                message=f"Invalid '{path}': string too long. Expected a string with maximum length {max_length}, "
                f"but got a string with length {len(value)} instead.",
                param=path,
            )
        return None

    return check


def boolean(path: str, value: Any) -> Refusal | None:
    """True or false."""
    return None if isinstance(value, bool) else _wrong_type(path, value, "a boolean")


def anything(path: str, value: Any) -> Refusal | None:
    """Any JSON value."""
    return None


def json_object(path: str, value: Any) -> Refusal | None:
    """An object with any content."""
    return None if isinstance(value, dict) else _wrong_type(path, value, "an object")


def integer(*, minimum: int | None = None, maximum: int | None = None) -> Rule:
    """A whole number in a range."""
    return _number("integer", "an integer", int, minimum, maximum)


def decimal(*, minimum: float | None = None, maximum: float | None = None) -> Rule:
    """A number in a range."""
    return _number("decimal", "a decimal", (int, float), minimum, maximum)


def _number(name: str, article: str, kind: Any, minimum: float | None, maximum: float | None) -> Rule:
    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, kind) or isinstance(value, bool):
            return _wrong_type(path, value, article)
        for bound, wrong, sign, word in (
            (minimum, minimum is not None and value < minimum, ">=", ("below", "minimum", "min")),
            (maximum, maximum is not None and value > maximum, "<=", ("above", "maximum", "max")),
        ):
            if wrong:
                return Refusal(  # `integer_below_min_value` was seen, its siblings (u)
                    code=f"{name}_{word[0]}_{word[2]}_value",
                    message=f"Invalid '{path}': {name} {word[0]} {word[1]} value. "
                    f"Expected a value {sign} {bound}, but got {value} instead.",
                    param=path,
                )
        return None

    return check


def enum(*allowed: str) -> Rule:
    """One of a closed list of words."""

    def check(path: str, value: Any) -> Refusal | None:
        if isinstance(value, str) and value in allowed:
            return None
        if not isinstance(value, str):
            return _wrong_type(path, value, "a string")
        return invalid_value(path, value, allowed)

    return check


def invalid_value(path: str, value: str, allowed: tuple[str, ...]) -> Refusal:
    """The refusal of a word that is not on the list."""
    quoted = [f"'{word}'" for word in allowed]
    listing = " and ".join(quoted) if len(quoted) < 3 else f"{', '.join(quoted[:-1])}, and {quoted[-1]}"
    shown = value if len(value) <= SHOWN_LENGTH else f"{value[:SHOWN_LENGTH]}…"
    return Refusal(
        code="invalid_value", message=f"Invalid value: '{shown}'. Supported values are: {listing}.", param=path
    )


def nullable(rule: Rule) -> Rule:
    """The rule, or null."""
    return lambda path, value: None if value is None else rule(path, value)


def one_of(text_rule: Rule, object_rule: Rule) -> Rule:
    """Two shapes: what is an object follows the second rule, everything else the first."""
    return lambda path, value: object_rule(path, value) if isinstance(value, dict) else text_rule(path, value)


def integer_or_inf(*, maximum: int) -> Rule:
    """A token limit: 1 … `maximum` or ``"inf"``."""
    number = integer(minimum=1, maximum=maximum)
    return lambda path, value: None if value == "inf" else number(path, value)


def array(rule: Rule, *, max_items: int | None = None) -> Rule:
    """A list whose every entry follows the rule."""

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, list):
            return _wrong_type(path, value, "an array")
        if max_items is not None and len(value) > max_items:
            return Refusal(
                code="array_above_max_length",  # (u)
                message=f"Invalid '{path}': array too long. Expected at most {max_items} entries, got {len(value)}.",
                param=path,
            )
        return next((r for i, entry in enumerate(value) if (r := rule(f"{path}[{i}]", entry))), None)

    return check


def json_table(fields: Mapping[str, Rule], *, required: tuple[str, ...] = ()) -> Rule:
    """An object with exactly these fields: missing ones are refused first, then unknown ones, then wrong values.

    The order is that of reports where both applied: a nested ``tool_choice`` was answered by the missing `name`.
    """

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, dict):
            return _wrong_type(path, value, "an object")
        prefix = f"{path}." if path else ""
        for name in required:
            if name not in value:
                return missing(f"{prefix}{name}")
        for name in value:
            if name not in fields:
                where = f"{prefix}{name[:SHOWN_LENGTH]}"
                return Refusal(code="unknown_parameter", message=f"Unknown parameter: '{where}'.", param=where)
        return next((r for name, entry in value.items() if (r := fields[name](f"{prefix}{name}", entry))), None)

    return check


def string_table(*, max_pairs: int, key_length: int, value_length: int) -> Rule:
    """An object of text to text with a limited size."""
    text = string(max_length=value_length)

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, dict):
            return _wrong_type(path, value, "an object")
        if len(value) > max_pairs:
            return Refusal(
                code="object_above_max_properties",  # (u)
                message=f"Invalid '{path}': too many properties. Expected an object with at most {max_pairs} "
                f"properties, but got an object with {len(value)} properties instead.",
                param=path,
            )
        for name in value:
            if len(name) > key_length:
                return Refusal(
                    code="property_name_above_max_length",  # (u)
                    message=f"Invalid property name in '{path}': too long. Expected a property name with maximum "
                    f"length {key_length}, but got one with length {len(name)} instead.",
                    param=path,
                )
        return next((r for name, entry in value.items() if (r := text(f"{path}.{name}", entry))), None)

    return check


def base64_audio(path: str, value: Any) -> Refusal | None:
    """Encoded audio as base64 text, padded and without line breaks."""
    if not isinstance(value, str):
        return _wrong_type(path, value, "a string")
    return None if is_base64(value) else invalid_audio(path)


def invalid_audio(path: str) -> Refusal:
    """The refusal of what is no base64 (wording as reported from a preview service)."""
    return Refusal(
        code="invalid_value",
        message=f"Invalid '{path}'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) "
        "but got an invalid value.",
        param=path,
    )


def missing(path: str) -> Refusal:
    """The refusal of an absent field."""
    return Refusal(code="missing_required_parameter", message=f"Missing required parameter: '{path}'.", param=path)


def by_type(shapes: Mapping[str, Rule], *, default: str | None = None) -> Rule:
    """An object whose `type` says which rule it follows; without a `default` the type must be there."""
    kinds = enum(*shapes)

    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, dict):
            return _wrong_type(path, value, "an object")
        kind: Any = value.get("type", default)
        if kind is None and "type" not in value:
            return missing(f"{path}.type")
        return kinds(f"{path}.type", kind) or shapes[kind](path, value)

    return check
