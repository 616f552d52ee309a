"""Cases of an experiment: user turns, tools of the model, and expectations; read from YAML, JSON or CSV."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from rtnb.errors import CaseError


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Turn of the user; it begins after the answer to the turn before has been played.

    Exactly one of `text`, `say` and `audio`. Speech needs turn detection, or it is committed at its end.
    """

    text: str = ""
    """Typed message."""
    say: str = ""
    """Words that the caller's voice speaks."""
    audio: str = ""
    """Path of a WAV file that is played."""
    after_ms: int = 0
    """Pause before it: after the end of the answer, or with `interrupt` after the answer's first sound."""
    interrupt: bool = False
    """True speaks while the answer plays; the caller does not wait for its end."""
    at_word: str = ""
    """With `interrupt`: `after_ms` counts from this word of the answer."""
    kind: str = "speech"
    """``speech``, or ``backchannel`` or ``noise``, which expect no answer."""

    def __post_init__(self) -> None:
        given = [name for name in ("text", "say", "audio") if getattr(self, name)]
        if len(given) != 1:
            raise CaseError(f"a turn has {' and '.join(given) or 'no words'}; give one of text, say and audio")
        if self.kind not in ("speech", "backchannel", "noise"):
            raise CaseError(f"kind is {self.kind!r}; allowed: speech, backchannel, noise")
        if self.text and (self.interrupt or self.kind != "speech"):
            raise CaseError("a typed message cannot interrupt, and has no kind; give say or audio")
        if not isinstance(self.after_ms, int) or not 0 <= self.after_ms <= 60_000:
            raise CaseError(f"after_ms is {self.after_ms!r}; allowed: whole milliseconds, 0 to 60000")


@dataclass(frozen=True)
class Case:
    """A situation that every variant is tried on.

    Parameters
    ----------
    id : str
        Name of the case: letters, digits, ``-``, ``_`` and ``.``; a file is named after it.
    user : str, mapping, sequence of them, or Persona
        The user's turns in order (see `Turn`), or a caller: an object whose ``await next_turn(said)`` returns the next
        `Turn`, None at the end; `said` holds (role, text) of each message so far.
    tools : sequence of functions or tool definitions
        Tools of the model in this case, besides those of the variant.
    expect : mapping
        Anything that graders read.
    tags : sequence of str
        Groups of cases.
    values : mapping
        Text for the ``{placeholders}`` of a variant's instructions.

    Examples
    --------
    >>> Case("late", user="My train is late.").user
    (Turn(text='My train is late.', say='', audio='', after_ms=0, interrupt=False, at_word='', kind='speech'),)
    """

    id: str = ""
    user: Any = ()
    tools: Sequence[Any] = ()
    expect: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-][\w.-]{0,79}", str(self.id)):
            raise CaseError(f"id is {self.id!r}; allowed: 1 to 80 letters, digits, - _ . and no dot in front")
        for name, kind in (("expect", Mapping), ("values", Mapping), ("tags", Sequence), ("tools", Sequence)):
            if not isinstance(value := getattr(self, name), kind):
                raise CaseError(f"{name} is {value!r}, a {type(value).__name__}; a {kind.__name__.lower()} is needed")
        object.__setattr__(self, "id", str(self.id))
        object.__setattr__(self, "tags", (self.tags,) if isinstance(self.tags, str) else tuple(self.tags))
        if hasattr(self.user, "next_turn"):
            return
        given = self.user if isinstance(self.user, list | tuple) else [self.user]
        turns = tuple(_made(Turn, turn, text=turn) for turn in given)
        if not turns:
            raise CaseError(f"case {self.id!r}: user is empty; give at least one turn")
        if turns[0].interrupt:
            raise CaseError(f"case {self.id!r}: turn 1 interrupts, but there is no answer yet")
        object.__setattr__(self, "user", turns)


def _made(kind: Any, value: Any, **of_text: Any) -> Any:
    """Make a turn or a case from its fields; those of a text are `of_text`."""
    if isinstance(value, kind):
        return value
    given, name = of_text if isinstance(value, str) else value, kind.__name__.lower()
    if not isinstance(given, Mapping):
        raise CaseError(f"a {name} is a {type(value).__name__}; allowed: a text, or fields")
    check_names(given, [f.name for f in fields(kind)], name)
    return kind(**given)


def cases(source: str | os.PathLike[str] | Iterable[Any]) -> list[Case]:
    """Read cases from a file, or make them from texts and mappings.

    Parameters
    ----------
    source : path or iterable
        A YAML or JSON file with a list of cases, or a CSV file with the columns ``id`` and ``user`` (others are the
        values of placeholders; ``tags`` is split at spaces, ``expect.NAME`` goes into `Case.expect`). An iterable holds
        cases, mappings with their fields, or texts.

    Raises
    ------
    CaseError
        The file cannot be read, or a case is wrong: names the line or number, the field, and what is allowed.

    Examples
    --------
    >>> [case.id for case in cases(["Hello!", {"id": "late", "user": "My train is late."}])]
    ['1', 'late']
    """
    values: Any = source
    path = Path(values) if isinstance(source, str | os.PathLike) else None
    made = _of_file(path) if path else ((f"case {number}", value) for number, value in enumerate(values, 1))
    found: dict[str, Case] = {}
    for number, (where, value) in enumerate(made, 1):
        try:
            case = _made(Case, value, id=str(number), user=value)
        except CaseError as error:
            raise CaseError(f"{where}: {error}") from error
        if case.id in found:
            raise CaseError(f"{where}: the id {case.id!r} is there already; give each case its own")
        if path and isinstance(case.user, tuple):
            near = [replace(turn, audio=str(path.parent / turn.audio)) if turn.audio else turn for turn in case.user]
            case = replace(case, user=tuple(near))
        found[case.id] = case
    if not found:
        raise CaseError("there are no cases; give at least one")
    return list(found.values())


def grid(**settings: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Return a variant for every combination of settings.

    Examples
    --------
    >>> list(grid(voice=["marin", "cedar"], speed=[1.0, 1.2]))
    ['voice=marin, speed=1.0', 'voice=marin, speed=1.2', 'voice=cedar, speed=1.0', 'voice=cedar, speed=1.2']
    """
    for name, values in settings.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise CaseError(f"{name} is {values!r}; give a list of values")
    rows = [dict(zip(settings, row, strict=True)) for row in itertools.product(*settings.values())]
    return {", ".join(f"{name}={shorten(str(value), 24)}" for name, value in row.items()): row for row in rows}


def fill(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the placeholders of a variant's instructions with the values of a case.

    ``{name}`` is a placeholder, ``{{`` a brace; other text in braces (JSON, say) stays as it is.

    Raises
    ------
    CaseError
        The case has no such value.

    Examples
    --------
    >>> fill({"instructions": 'Greet {name}. Answer {"ok": true}.'}, {"name": "Ada"})["instructions"]
    'Greet Ada. Answer {"ok": true}.'
    """
    text = settings.get("instructions")
    if not isinstance(text, str):
        return dict(settings)

    def put(match: re.Match[str]) -> str:
        return str(values[match[1]]) if match[1] else match[0][0]

    try:
        return {**settings, "instructions": re.sub(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}", put, text)}
    except KeyError as error:
        name, has = error.args[0], ", ".join(values) or "none"
        raise CaseError(f"the instructions have the placeholder {{{name}}}, the case has the values: {has}") from None


def _of_file(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the line of each case of a file, and its fields."""
    values = read_data(path)
    if path.suffix.lower() == ".csv":
        yield from ((f"{path}, line {line}", _of_row(row)) for line, row in values)
        return
    if not isinstance(values, list):
        raise CaseError(f"{path}: a list of cases is needed, each with id and user")
    text = path.read_text(encoding="utf-8-sig").replace("\t", " ")  # but for tabs, JSON is YAML
    nodes: Any = yaml.compose(text, yaml.SafeLoader)
    yield from ((f"{path}, line {node.start_mark.line + 1}", v) for node, v in zip(nodes.value, values, strict=True))


def _of_row(row: dict[Any, Any]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise CaseError(f"the row of {row.get('id')!r} has another number of columns than line 1")
    case = {name: row.pop(name, "") for name in ("id", "user", "tags")}
    expect = {name.removeprefix("expect."): row.pop(name) for name in list(row) if name.startswith("expect.")}
    return {**case, "tags": case["tags"].split(), "expect": expect, "values": row}


def read_data(path: Path) -> Any:
    """Return what a YAML or JSON file holds, or the rows of a CSV file with their lines; an error names the line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            reader = csv.DictReader(text.splitlines())
            return [(reader.line_num, row) for row in reader]
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CaseError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def check_names(value: Mapping[str, Any], allowed: Sequence[str], kind: str) -> None:
    wrong = [name for name in value if name not in allowed]
    if wrong:
        raise CaseError(f"unknown field {wrong[0]!r} in the {kind}; allowed: {', '.join(allowed)}")
