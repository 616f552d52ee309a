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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rtnb.errors import ScenarioError
from rtnb.simulator.faults import Fault
from rtnb.simulator.pacing import LatencyProfile, unknown_name

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

    steps: tuple[Step, ...]
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
            When it is not JSON or not a scenario: names the place, the value and what is allowed.
        OSError
            When it cannot be read.
        """
        file = Path(path)
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ScenarioError(
                f"{file.name} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
            ) from error
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{file.name} is not UTF-8 text: byte {error.start}") from error
        return cls.from_dict({"name": file.stem, **raw} if isinstance(raw, dict) else raw)

    @classmethod
    def from_dict(cls, raw: object) -> Scenario:
        """Check and take over a JSON object. Raises ScenarioError naming step and field."""
        fields = _object(raw, "scenario", ("name", "seed", "latency", "faults", "steps"))
        steps = _list(fields.get("steps"), "scenario, field 'steps'", lambda item, at: _step(item, at), "step")
        latency = fields.get("latency")
        return cls(
            steps=steps,
            name=_typed(fields.get("name", "scenario"), str, "scenario, field 'name'", "a text"),
            seed=_typed(fields.get("seed", 0), int, "scenario, field 'seed'", "a whole number"),
            latency=None if latency is None else _latency(latency, "scenario, field 'latency'"),
            faults=_faults(fields.get("faults", []), "scenario, field 'faults'"),
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


def _step(raw: object, at: str) -> Step:
    fields = _object(raw, at, ("when", "hear", "say", "call", "faults", "timing"))
    if not set(fields) - {"when", "timing"}:
        raise ScenarioError(f"{at} does nothing; allowed: at least one of hear, say, call, faults")
    call = fields.get("call", [])
    timing = fields.get("timing")
    return Step(
        when=_when(fields["when"], f"{at}, field 'when'") if fields.get("when") is not None else None,
        hear=_text(fields.get("hear"), f"{at}, field 'hear'"),
        say=_text(fields.get("say"), f"{at}, field 'say'"),
        calls=_list(call if isinstance(call, list) else [call], f"{at}, field 'call'", _call, "call"),
        faults=_faults(fields.get("faults", []), f"{at}, field 'faults'"),
        timing=None if timing is None else _latency(timing, f"{at}, field 'timing'"),
    )


def _when(raw: object, at: str) -> When:
    fields = _object(raw, at, ("text", "regex", "turn", "speech"))
    if not fields:
        raise _wrong(at, raw, "at least one of text, regex, turn, speech")
    regex = _text(fields.get("regex"), f"{at}, 'regex'")
    try:
        re.compile(regex or "")
    except re.error as error:
        raise _wrong(f"{at}, 'regex'", regex, f"a regular expression ({error})") from error
    turn = fields.get("turn")
    if turn is not None and _typed(turn, int, f"{at}, 'turn'", "a whole number from 1") < 1:
        raise _wrong(f"{at}, 'turn'", turn, "a whole number from 1")
    speech = fields.get("speech")
    if speech is not None:
        _typed(speech, bool, f"{at}, 'speech'", "true or false")
    return When(_text(fields.get("text"), f"{at}, 'text'"), regex, turn, speech)


def _call(raw: object, at: str) -> Call:
    fields = _object(raw, at, ("name", "arguments"))
    name = _typed(fields.get("name"), str, f"{at}, 'name'", "a text")
    arguments = fields.get("arguments", {})
    if not isinstance(arguments, str | dict):
        raise _wrong(f"{at}, 'arguments'", arguments, "an object, or a text that is sent as it stands")
    return Call(name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))


def _latency(raw: object, at: str) -> LatencyProfile:
    try:
        if isinstance(raw, str):
            return LatencyProfile.parse(raw)
        if isinstance(raw, Mapping):
            return LatencyProfile().replace(raw)
    except ValueError as error:
        raise ScenarioError(f"{at}: {error}") from error
    raise _wrong(at, raw, 'a text such as "realistic", or an object such as {"first_delta_ms": 300}')


def _faults(raw: object, at: str) -> tuple[Fault, ...]:
    def read(item: object, place: str) -> Fault:
        try:
            return Fault.parse(item)
        except ScenarioError as error:
            raise ScenarioError(f"{place}: {error}") from error

    return _list(raw, at, read, "fault")


def _object(raw: object, at: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _wrong(at, raw, f"an object with {', '.join(allowed)}")
    if wrong := unknown_name(raw, allowed):
        raise ScenarioError(f"{at}: field {wrong}")
    return raw


def _list(raw: object, at: str, read: Callable[[object, str], _T], item: str) -> tuple[_T, ...]:
    if not isinstance(raw, list):
        raise _wrong(at, raw, "a list")
    where = "" if item == "step" else f"{at}, "
    return tuple(read(one, f"{where}{item} {i}") for i, one in enumerate(raw, start=1))


def _text(value: object, at: str) -> str | None:
    return None if value is None else _typed(value, str, at, "a text")


def _typed(value: object, wanted: type[_T], at: str, allowed: str) -> _T:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise _wrong(at, value, allowed)
    return value


def _wrong(at: str, came: object, allowed: str) -> ScenarioError:
    return ScenarioError(f"{at} is {came!r} ({type(came).__name__}); allowed: {allowed}")
