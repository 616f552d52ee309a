"""A scenario: what the simulator hears, says, calls and gets wrong, as a JSON file.

::

    {"name": "weather", "seed": 7, "latency": "realistic", "faults": ["jitter=40"],
     "steps": [
       {"say": "Hello! Ask me about the weather."},
       {"when": {"text": "weather"}, "hear": "What is the weather in Lund?",
        "call": {"name": "get_weather", "arguments": {"city": "Lund"}}},
       {"when": {"regex": "thanks$"}, "say": "You are welcome.", "timing": {"first_delta_ms": 900},
        "faults": ["close@response.output_audio.delta:3"]}]}

A step with `when` is a rule: it answers every turn that fits. One without is played once, in its place.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from rtnb.errors import ScenarioError
from rtnb.simulator.faults import Fault, LatencyProfile, unknown_name

_T = TypeVar("_T")


@dataclass(frozen=True)
class Call:
    """Call of a tool."""

    name: str
    arguments: str
    """JSON text; a scenario's or a model's may deliberately be none."""


@dataclass(frozen=True)
class When:
    """Which turns a step answers: all that is given must hold."""

    text: str | None = None
    """The user's words contain this, in whatever case."""
    regex: str | None = None
    """The user's words have a match of this (Python's `re`, case ignored)."""
    turn: int | None = None
    """The number of the turn, from 1."""
    speech: bool | None = None
    """True: the turn was spoken; False: it was written."""

    def matches(self, *, text: str | None, turn: int, speech: bool) -> bool:
        """Whether a turn fits; `text` is None where the words are not known."""
        return (
            (self.text is None or (text is not None and self.text.casefold() in text.casefold()))
            and (self.regex is None or (text is not None and bool(re.search(self.regex, text, re.IGNORECASE))))
            and self.turn in (None, turn)
            and self.speech in (None, speech)
        )


@dataclass(frozen=True)
class Step:
    """Step of a scenario: one response and its condition."""

    when: When | None = None
    hear: str | None = None
    """What the user is taken to have said: the transcription of the spoken turn, word for word."""
    say: str | None = None
    calls: tuple[Call, ...] = ()
    faults: tuple[Fault, ...] = ()
    """In force during this step."""
    timing: LatencyProfile | None = None
    """In place of the scenario's latency."""


@dataclass(frozen=True)
class Scenario:
    """A scenario, checked as a whole when it is read."""

    steps: tuple[Step, ...] = ()
    name: str = "scenario"
    seed: int = 0
    latency: LatencyProfile | None = None
    """None: the simulator's own."""
    faults: tuple[Fault, ...] = ()
    """In force all the time; refusals to connect belong here."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scenario:
        """Read a JSON file.

        Raises
        ------
        ScenarioError
            When it cannot be read, is not JSON or not a scenario: names the place, the value and what is allowed.
        """
        file = Path(path)
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ScenarioError(f"the scenario {str(path)!r} cannot be read: {error.strerror or error}") from error
        except json.JSONDecodeError as error:
            place = f"{error.msg} in line {error.lineno}, column {error.colno}"
            raise ScenarioError(f"{file.name} is not JSON: {place}") from error
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{file.name} is not UTF-8 text: byte {error.start}") from error
        return cls.from_dict({"name": file.stem, **raw} if isinstance(raw, dict) else raw)

    @classmethod
    def from_dict(cls, raw: object) -> Scenario:
        """Check and take over a JSON object. Raises ScenarioError naming step and field."""
        whole = (int, "a whole number")
        given = _object(raw, "scenario", name=_TEXT, seed=whole, latency=_LATENCY, faults=_LIST, steps=_LIST)
        if given["steps"] is None:
            raise _wrong("scenario, field 'steps'", None, "a list")
        return cls(
            steps=_each(given["steps"], "", "step", _step),
            name="scenario" if given["name"] is None else given["name"],
            seed=given["seed"] or 0,
            latency=_latency(given["latency"], "scenario, field 'latency'"),
            faults=_each(given["faults"], "scenario, field 'faults', ", "fault", _fault),
        )

    def choose(self, *, text: str | None, turn: int, speech: bool, played: Collection[int] = ()) -> int | None:
        """Index of the step that answers a turn, None where none does.

        Parameters
        ----------
        text : str or None
            The user's words, None where they are not known (a spoken turn, before `hear` says them).
        turn : int
            Number of the turn, from 1.
        speech : bool
            Whether it was spoken.
        played : collection of int
            Steps that were played before; one without `when` is not chosen again.

        Returns
        -------
        int or None
            The first rule that fits; else the first step without `when` that was not played.
        """
        for i, step in enumerate(self.steps):
            if step.when is not None and step.when.matches(text=text, turn=turn, speech=speech):
                return i
        return next((i for i, step in enumerate(self.steps) if step.when is None and i not in played), None)


_Kind = tuple[Any, str]
"""Type of a field, and how an error message names it."""
_TEXT: Final[_Kind] = (str, "a text")
_LIST: Final[_Kind] = (list, "a list")
_LATENCY: Final[_Kind] = (str | dict, 'a text such as "realistic", or an object such as {"first_delta_ms": 300}')
_ANY: Final[_Kind] = (object, "anything")


def _step(raw: object, at: str) -> Step:
    given = _object(raw, at, when=_ANY, hear=_TEXT, say=_TEXT, call=_ANY, faults=_LIST, timing=_LATENCY)
    if not any(given[name] is not None for name in ("hear", "say", "call", "faults")):
        raise ScenarioError(f"{at} does nothing; allowed: at least one of hear, say, call, faults")
    call = given["call"]
    return Step(
        when=None if given["when"] is None else _when(given["when"], f"{at}, field 'when'"),
        hear=given["hear"],
        say=given["say"],
        calls=_each(call if isinstance(call, list | None) else [call], f"{at}, field 'call', ", "call", _call),
        faults=_each(given["faults"], f"{at}, field 'faults', ", "fault", _fault),
        timing=_latency(given["timing"], f"{at}, field 'timing'"),
    )


def _when(raw: object, at: str) -> When:
    from_one = "a whole number from 1"
    given = _object(raw, at, text=_TEXT, regex=_TEXT, turn=(int, from_one), speech=(bool, "true or false"))
    if not raw:
        raise _wrong(at, raw, "at least one of text, regex, turn, speech")
    try:
        re.compile(given["regex"] or "")
    except re.error as error:
        raise _wrong(f"{at}, field 'regex'", given["regex"], f"a regular expression ({error})") from error
    if given["turn"] is not None and given["turn"] < 1:
        raise _wrong(f"{at}, field 'turn'", given["turn"], from_one)
    return When(**given)


def _call(raw: object, at: str) -> Call:
    written = (str | dict, "an object, or a text that is sent as it stands")
    given = _object(raw, at, name=_TEXT, arguments=written)
    if given["name"] is None:
        raise _wrong(f"{at}, field 'name'", None, "a text")
    arguments = {} if given["arguments"] is None else given["arguments"]
    return Call(given["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))


def _latency(raw: str | dict[str, Any] | None, at: str) -> LatencyProfile | None:
    return None if raw is None else _parsed(LatencyProfile.parse, raw, at)


def _fault(raw: object, at: str) -> Fault:
    return _parsed(Fault.parse, raw, at)


def _parsed(parse: Callable[[Any], _T], raw: object, at: str) -> _T:
    try:
        return parse(raw)
    except ValueError as error:
        raise ScenarioError(f"{at}: {error}") from error


def _object(raw: object, at: str, **kinds: _Kind) -> dict[str, Any]:
    """Check an object and the types of its fields; return them, None for a missing one."""
    if not isinstance(raw, dict):
        raise _wrong(at, raw, f"an object with {', '.join(kinds)}")
    if wrong := unknown_name(raw, tuple(kinds)):
        raise ScenarioError(f"{at}: field {wrong}")
    for name, value in raw.items():
        kind, allowed = kinds[name]
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is int)):
            raise _wrong(f"{at}, field {name!r}", value, allowed)
    return dict.fromkeys(kinds) | raw


def _each(raw: list[Any] | None, at: str, item: str, read: Callable[[object, str], _T]) -> tuple[_T, ...]:
    return tuple(read(one, f"{at}{item} {number}") for number, one in enumerate(raw or (), start=1))


def _wrong(at: str, came: object, allowed: str) -> ScenarioError:
    return ScenarioError(f"{at} is {came!r} ({type(came).__name__}); allowed: {allowed}")
