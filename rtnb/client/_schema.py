"""From a Python function to the tool definition a model reads: `tool_schema`."""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Union

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    list: {"type": "array", "items": {}},
    dict: {"type": "object"},
    Any: {},
    types.NoneType: {"type": "null"},
}
_KNOWN = "str, int, float, bool, list[…], dict, Literal[…], Enum, Optional[…] and unions of them"


def tool_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """Describe a function to a model, from its signature and docstring.

    Parameters
    ----------
    function : callable
        Sync or async, with annotated parameters that can be given by name. The docstring's text becomes the
        description; parameters described in numpydoc or Google style get theirs.

    Returns
    -------
    dict
        A tool definition for `session.update(tools=…)`: type, name, description, parameters (JSON Schema). A
        parameter without a default is required.

    Raises
    ------
    TypeError
        No usable name, a parameter without an annotation or with one no JSON has, ``*args``, ``**kwargs``,
        positional-only parameters.

    Examples
    --------
    >>> def weather(city: str, days: int = 1) -> str:
    ...     '''Forecast the weather.'''
    ...     return "sunny"
    >>> tool_schema(weather)["parameters"]["required"]
    ['city']
    """
    name = getattr(function, "__name__", "")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
        raise TypeError(f"a tool needs a name of letters, digits and _, got {name or function!r}: use a `def` function")
    described, of_parameter = _docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    required = []
    for key, (parameter, hint) in _parameters(function).items():
        schema = dict(_json_schema(hint, f"{name}({key})"))
        if key in of_parameter:
            schema["description"] = of_parameter[key]
        if parameter.default is parameter.empty:
            required.append(key)
        properties[key] = schema
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "name": name, "description": described, "parameters": parameters}


def enum_parameters(function: Callable[..., Any]) -> dict[str, type[enum.Enum]]:
    """The parameters whose words have to be turned into members of an `Enum`."""
    found: dict[str, type[enum.Enum]] = {}
    for key, (_, hint) in _parameters(function).items():
        for member in (hint, *typing.get_args(hint)):
            if isinstance(member, type) and issubclass(member, enum.Enum):
                found[key] = member
    return found


def _parameters(function: Callable[..., Any]) -> dict[str, tuple[inspect.Parameter, Any]]:
    name = getattr(function, "__name__", "tool")
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise TypeError(f"an annotation of {name} cannot be resolved: {error}") from error
    found = {}
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}: the parameter {parameter} cannot be given by name; a model names every argument")
        if key not in hints:
            raise TypeError(f"{name}: the parameter {key!r} has no annotation; known are {_KNOWN}")
        found[key] = (parameter, hints[key])
    return found


def _json_schema(hint: Any, where: str) -> dict[str, Any]:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _one_of([member.value for member in hint])
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _one_of(list(arguments))
    if origin in (Union, types.UnionType):
        return {"anyOf": [dict(_json_schema(member, where)) for member in arguments]}
    if origin is list:
        return {"type": "array", "items": _json_schema(arguments[0], where)}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": _json_schema(arguments[1], where)}
    raise TypeError(f"{where}: the annotation {hint!r} cannot be described to a model; known are {_KNOWN}")


def _one_of(values: list[Any]) -> dict[str, Any]:
    kinds = {type(value) for value in values}
    schema = dict(_PLAIN.get(kinds.pop(), {})) if len(kinds) == 1 else {}
    return {**schema, "enum": values}


# --- docstrings -------------------------------------------------------------------------------------------------------

_SECTION = re.compile(r"^(Parameters|Args|Arguments|Returns|Yields|Raises|Examples?|Notes?|References|See Also):?$")
_NUMPYDOC = re.compile(r"^(\w+)\s*:\s*.+$|^(\w+)$")
_GOOGLE = re.compile(r"^(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description before the first section, and what the docstring says of each parameter."""
    sections: dict[str, list[str]] = {"": []}
    current = ""
    for line in text.splitlines():
        title = _SECTION.match(line.strip()) if not line.startswith(" ") else None
        if title:
            current = "Parameters" if title[1] in ("Args", "Arguments") else title[1]
            sections[current] = []
        elif set(line.strip()) != {"-"}:
            sections[current].append(line)
    described = " ".join(" ".join(sections[""]).split())
    return described, _parameter_texts(sections.get("Parameters", []))


def _parameter_texts(lines: list[str]) -> dict[str, str]:
    """numpydoc names a parameter at the margin and describes it below, Google does both on one indented line."""
    texts: dict[str, str] = {}
    key = ""
    filled = [line for line in lines if line.strip()]
    google = bool(filled) and filled[0].startswith(" ")
    margin = len(filled[0]) - len(filled[0].lstrip()) if filled else 0
    for line in filled:
        at_margin = len(line) - len(line.lstrip()) == margin
        match = (_GOOGLE if google else _NUMPYDOC).match(line.strip()) if at_margin else None
        if match:
            key = match[1] or match[2]
            texts[key] = match[2] if google else ""
        elif key:
            texts[key] = f"{texts[key]} {line.strip()}".strip()
    return {key: text for key, text in texts.items() if text}
