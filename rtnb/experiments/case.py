"""Cases of an experiment: user turns, tools of the model, and expectations; read from YAML, JSON or CSV."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

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
    """With `interrupt`: speak at this word of the answer, in place of `after_ms`."""
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

    @classmethod
    def of(cls, value: Any) -> Turn:
        """Make a turn from a text, from its fields, or from a turn."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(text=value)
        if isinstance(value, Mapping):
            check_names(value, [f.name for f in fields(cls)], "turn")
            return cls(**value)
        raise CaseError(f"a turn is a {type(value).__name__}; allowed: a text, or fields such as say and after_ms")


@dataclass(frozen=True)
class Case:
    """A situation that every variant is tried on.

    Parameters
    ----------
    id : str
        Name of the case: letters, digits, ``-``, ``_`` and ``.``; a file is named after it.
    user : str, mapping, sequence of them, or Persona
        The user's turns in order (see `Turn`), or a caller that a chat model plays.
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

    id: str
    user: Any
    tools: Sequence[Any] = ()
    expect: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]{1,80}", str(self.id)) or str(self.id).startswith("."):
            raise CaseError(f"id is {self.id!r}; allowed: 1 to 80 letters, digits, - _ . and no dot in front")
        object.__setattr__(self, "id", str(self.id))
        if not hasattr(self.user, "next_turn"):
            given = self.user if isinstance(self.user, list | tuple) else [self.user]
            turns = tuple(map(Turn.of, given))
            if not turns:
                raise CaseError(f"case {self.id!r}: user is empty; give at least one turn")
            if turns[0].interrupt:
                raise CaseError(f"case {self.id!r}: turn 1 interrupts, but there is no answer yet")
            object.__setattr__(self, "user", turns)
        object.__setattr__(self, "tags", (self.tags,) if isinstance(self.tags, str) else tuple(self.tags))


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
    if isinstance(source, str | os.PathLike):
        made = list(_of_file(Path(source)))
    else:
        made = [(f"case {n}", value) for n, value in enumerate(source, 1)]
    found: dict[str, Case] = {}
    for number, (where, value) in enumerate(made, 1):
        try:
            case = _case(value, number)
        except (CaseError, TypeError) as error:
            raise CaseError(f"{where}: {error}") from error
        if case.id in found:
            raise CaseError(f"{where}: the id {case.id!r} is there already; give each case its own")
        found[case.id] = case
    if not found:
        raise CaseError(f"no cases in {os.fspath(source) if isinstance(source, str | os.PathLike) else 'the list'}")
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
    return {", ".join(f"{name}={_short(value)}" for name, value in row.items()): row for row in rows}


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
    if not isinstance(text, str) or "{" not in text:
        return dict(settings)

    def put(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] not in values:
            has = ", ".join(values) or "none"
            raise CaseError(f"the instructions have the placeholder {match[0]}, the case has the values: {has}")
        return str(values[match[1]])

    return {**settings, "instructions": re.sub(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}", put, text)}


def _of_file(path: Path) -> Iterator[tuple[str, Any]]:
    text = _read(path)
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(text.splitlines())
        if not {"id", "user"} <= set(reader.fieldnames or ()):
            raise CaseError(f"{path}, line 1: columns {reader.fieldnames}; id and user are needed")
        yield from ((f"{path}, line {reader.line_num}", _of_row(row)) for row in reader)
        return
    read: Callable[[str, Path], list[tuple[int, Any]]] = _json if path.suffix.lower() == ".json" else _yaml
    yield from ((f"{path}, line {line}", _near(value, path.parent)) for line, value in read(text, path))


def _of_row(row: dict[Any, Any]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise CaseError(f"the row of {row.get('id')!r} has another number of columns than line 1")
    case: dict[str, Any] = {"id": row["id"], "user": row["user"], "tags": row.get("tags", "").split()}
    names = [name for name in row if name not in case]
    case["expect"] = {name[7:]: row[name] for name in names if name.startswith("expect.")}
    case["values"] = {name: row[name] for name in names if not name.startswith("expect.")}
    return case


def _json(text: str, path: Path) -> list[tuple[int, Any]]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise CaseError(f"{path}, line {error.lineno}: {error.msg}") from error
    return [(text[: text.find(f'"{v.get("id")}"')].count("\n") + 1, v) for v in _list(values, path)]


def _yaml(text: str, path: Path) -> list[tuple[int, Any]]:
    import yaml

    values = _list(read_yaml(path, text), path)
    node: Any = yaml.compose(text, yaml.SafeLoader)
    return [(part.start_mark.line + 1, value) for part, value in zip(node.value, values, strict=True)]


def read_yaml(path: Path, text: str | None = None) -> Any:
    """Return what a YAML file holds; an error names the line."""
    import yaml

    try:
        return yaml.safe_load(_read(path) if text is None else text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CaseError(f"{path}{where}: {getattr(error, 'problem', None) or error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _list(values: Any, path: Path) -> list[dict[str, Any]]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise CaseError(f"{path}: a list of cases is needed, each with id and user")
    return values


def _near(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve the audio files of a case beside its file."""
    turns = value.get("user")
    for turn in turns if isinstance(turns, list) else [turns]:
        if isinstance(turn, dict) and isinstance(turn.get("audio"), str):
            turn["audio"] = str(folder / turn["audio"])
    return value


def _case(value: Any, number: int) -> Case:
    if isinstance(value, Case):
        return value
    if isinstance(value, str):
        return Case(str(number), user=value)
    if not isinstance(value, Mapping):
        raise CaseError(f"a {type(value).__name__}; allowed: a Case, a text, or fields such as id and user")
    check_names(value, [f.name for f in fields(Case)], "case")
    if "id" not in value or "user" not in value:
        raise CaseError(f"{'id' if 'id' not in value else 'user'} is missing; a case has id and user")
    for name, kind in (("expect", Mapping), ("values", Mapping), ("tags", list | tuple | str), ("tools", list | tuple)):
        if name in value and not isinstance(value[name], kind):
            raise CaseError(f"{name} is {value[name]!r}, a {type(value[name]).__name__}")
    return Case(**value)


def check_names(value: Mapping[str, Any], allowed: Sequence[str], kind: str) -> None:
    wrong = [name for name in value if name not in allowed]
    if wrong:
        raise CaseError(f"unknown field {wrong[0]!r} in the {kind}; allowed: {', '.join(allowed)}")


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 24 else f"{text[:23]}…"
