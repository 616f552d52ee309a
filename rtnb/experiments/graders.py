"""Graders: functions from a run to a grade. True or 1 is good; a number is a measurement.

A grader is any function of a `Run`, sync or async, that returns a bool, a number, None (does not apply), or a dict with
``grade`` and ``evidence``. Its name is its ``__name__``. The functions of this module make ready ones.

>>> from rtnb import graders
>>> graders.max_words(25).__name__
'max_words(25)'
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from rtnb.errors import CaseError, ServiceError, TransportError
from rtnb.experiments.run import Run

Grade: TypeAlias = bool | float | None
Grader: TypeAlias = Callable[[Run], Any]

MEASURES: Final = ("n_words", "first_audio_ms", "usd", "n_interrupted")
"""Ready graders; the others of `READY` are functions that make one."""
READY: Final = (
    "contains", "matches", "never_says", "max_words", "language", "json_schema", "called", "faster_than",
    "spoken_word_error_rate", "pronounces", *MEASURES,
)  # fmt: skip
"""Names of everything in this module that grades."""

_FUNCTION_WORDS: Final = {
    "de": "der die das und ist nicht ein eine ich sie wir zu den mit es auf für von dem sich haben",
    "en": "the and is to of a in that it you for on with are this was be have i not",
    "es": "el la de que y en un una los las por con para es no se del al lo como",
    "fr": "le la les de des et est un une que pour dans vous je pas ce qui sur avec il",
    "it": "il la di che e un una per non è sono con del della le i mi si lo come",
    "nl": "de het een en van is dat niet te in ik je op voor met zijn er aan wij u",
    "pt": "o a de que e um uma os as não para com em por se do da no na é",
}
"""The commonest words of each language (own count on public-domain novels; they overlap little)."""


async def grade(run: Run, graders: Sequence[Grader]) -> tuple[dict[str, Grade], dict[str, Any]]:
    """Apply graders to a run; return grades and evidence by their names. A run that failed has the grade None."""
    grades: dict[str, Grade] = {}
    evidence: dict[str, Any] = {}
    for grader in graders:
        name, found = name_of(grader), None
        try:
            if not run.error:
                found = grader(run)
                found = await found if inspect.isawaitable(found) else found
        except (ServiceError, TransportError) as error:  # of a judge: graded when the experiment goes on
            evidence[name] = f"not graded: {error}"
            continue
        if isinstance(found, Mapping):
            evidence[name] = found.get("evidence")
            found = found.get("grade")
        if not isinstance(found, bool | int | float | None):
            raise CaseError(f"grader {name} returned {found!r}; allowed: bool, number, None, or a dict with 'grade'")
        grades[name] = found
    return grades, evidence


def name_of(grader: Any) -> str:
    """Return the name of a grader, which heads its column."""
    name = getattr(grader, "name", None) or getattr(grader, "__name__", type(grader).__name__)
    if name == "<lambda>":
        raise CaseError("a lambda has no name for its column; write a function with def, or set __name__")
    return str(name)


def _named(name: str, grader: Grader) -> Grader:
    grader.__name__ = name
    return grader


# --- words ------------------------------------------------------------------------------------------------------------


def contains(text: str | None = None) -> Grader:
    """Grade whether the answers contain a text, whatever its case; None takes ``expect["contains"]`` of the case."""

    def grader(run: Run) -> Grade:
        wanted = run.case.expect.get("contains") if text is None else text
        return None if wanted is None else str(wanted).lower() in run.text.lower()

    return _named(f"contains({text!r})" if text is not None else "contains", grader)


def matches(pattern: str) -> Grader:
    """Grade whether a regular expression is found in the answers."""
    compiled = re.compile(pattern, re.IGNORECASE)
    return _named(f"matches({pattern!r})", lambda run: compiled.search(run.text) is not None)


def never_says(*texts: str) -> Grader:
    """Grade whether none of the texts is in the answers, whatever its case."""

    def grader(run: Run) -> Any:
        said = [text for text in texts if text.lower() in run.text.lower()]
        return {"grade": not said, "evidence": said}

    return _named(f"never_says({', '.join(map(repr, texts))})", grader)


def max_words(count: int) -> Grader:
    """Grade whether no answer has more words."""

    def grader(run: Run) -> Grade:
        return all(len(words(answer["text"])) <= count for answer in run.answers)

    return _named(f"max_words({count})", grader)


def n_words(run: Run) -> Grade:
    """Measure the words per answer."""
    return _mean([len(words(answer["text"])) for answer in run.answers])


def _mean(values: Sequence[float]) -> Grade:
    return sum(values) / len(values) if values else None


def language(code: str) -> Grader:
    """Grade whether the answers are in a language, by its commonest words: de, en, es, fr, it, nl or pt.

    Answers with fewer than two such words of any language get None.
    """
    if code not in _FUNCTION_WORDS:
        raise CaseError(f"language {code!r} is not known; allowed: {', '.join(_FUNCTION_WORDS)}")

    def grader(run: Run) -> Grade:
        said = words(run.text)
        counts = {name: sum(word in common.split() for word in said) for name, common in _FUNCTION_WORDS.items()}
        most = max(counts.values())
        return None if most < 2 else counts[code] == most

    return _named(f"language({code!r})", grader)


def json_schema(schema: Mapping[str, Any]) -> Grader:
    """Grade whether every answer is JSON that fits a schema."""
    import jsonschema

    validator = jsonschema.validators.validator_for(schema)(schema)

    def grader(run: Run) -> Any:
        try:
            errors = [error.message for a in run.answers for error in validator.iter_errors(json.loads(a["text"]))]
        except ValueError as error:
            errors = [f"no JSON: {error}"]
        return {"grade": not errors, "evidence": errors[:3]}

    return _named("json_schema", grader)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation.

    Examples
    --------
    >>> words("It's 5 p.m., isn't it?")
    ["it's", '5', 'p', 'm', "isn't", 'it']
    """
    return re.findall(r"\w+(?:'\w+)?", text.lower().replace("’", "'"))


# --- tools ------------------------------------------------------------------------------------------------------------


def called(name: str, **arguments: Any) -> Grader:
    """Grade whether a function was called, with at least these arguments.

    An argument is compared by equality, or by a function of it that returns True.
    """

    def fits(given: Any) -> bool:
        return isinstance(given, dict) and all(
            key in given and (wanted(given[key]) if callable(wanted) else given[key] == wanted)
            for key, wanted in arguments.items()
        )

    def grader(run: Run) -> Any:
        calls = [call["arguments"] for call in run.calls if call["name"] == name]
        return {"grade": any(map(fits, calls)), "evidence": calls}

    shown = (f"{key}={getattr(value, '__name__', value)!r}" for key, value in arguments.items())
    return _named(f"called({', '.join([repr(name), *shown])})", grader)


# --- time and money ---------------------------------------------------------------------------------------------------


def _first_audio_ms(run: Run) -> list[float]:
    return [answer["first_audio_ms"] for answer in run.answers if answer.get("first_audio_ms") is not None]


def first_audio_ms(run: Run) -> Grade:
    """Measure the time from the end of the user's turn to the first audio, ms, mean of the answers."""
    return _mean(_first_audio_ms(run))


def faster_than(limit_ms: float) -> Grader:
    """Grade whether every answer begins within a time, ms."""

    def grader(run: Run) -> Grade:
        return max(found) <= limit_ms if (found := _first_audio_ms(run)) else None

    return _named(f"faster_than({limit_ms:g})", grader)


def usd(run: Run) -> Grade:
    """Measure the estimated cost of a run, US dollars."""
    return run.usd


def n_interrupted(run: Run) -> Grade:
    """Count answers that were cancelled or cut while they played."""
    return float(sum(answer["interrupted"] for answer in run.answers))


# --- speech -----------------------------------------------------------------------------------------------------------


def word_error_rate(reference: Iterable[str], heard: Iterable[str]) -> float:
    """Return the share of words that are wrong: substitutions, insertions and deletions over the reference's words.

    Examples
    --------
    >>> word_error_rate(["how", "are", "you"], ["how", "you", "do"])
    0.6666666666666666
    """
    wanted, found = list(reference), list(heard)
    costs = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        before, costs[0] = costs[0], i
        for j, other in enumerate(found, 1):
            before, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, before + (word != other))
    return costs[-1] / max(1, len(wanted))


def spoken_word_error_rate(transcriber: Any = "whisper") -> Grader:
    """Measure how much of what the model said is understood: a transcriber hears its speech, word error rate.

    Parameters
    ----------
    transcriber : str or Transcriber, default "whisper"
        As for `rtnb.Simulator`: ``"whisper"`` (extra ``local``), or the address of a transcription service.
    """

    async def grader(run: Run) -> Any:
        heard = await hear(run, transcriber)
        return None if heard is None else {"grade": word_error_rate(words(run.text), words(heard)), "evidence": heard}

    return _named("spoken_word_error_rate", grader)


def pronounces(*terms: str, transcriber: Any = "whisper") -> Grader:
    """Measure the share of the given terms, of those that were said, that a transcriber understands."""

    async def grader(run: Run) -> Any:
        said = [term for term in terms if term.lower() in run.text.lower()]
        heard = await hear(run, transcriber) if said else None
        if heard is None:
            return None
        missed = [term for term in said if term.lower() not in heard.lower()]
        return {"grade": 1 - len(missed) / len(said), "evidence": missed}

    return _named("pronounces", grader)


async def hear(run: Run, transcriber: Any) -> str | None:
    """Transcribe the model's speech of a run; None where it has none."""
    from rtnb.simulator.transcriber import ExactTranscriber, open_transcriber

    track = run.trace.model_audio if run.trace_file else None
    if track is None:
        return None
    opened = open_transcriber(transcriber, ExactTranscriber())
    try:
        found = await opened.transcribe(np.asarray(track), rate_hz=track.rate_hz)
    finally:
        if isinstance(transcriber, str):
            await opened.aclose()
    return found.text if found else ""
