"""Runs of an experiment: their order, facts and files."""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rtnb.errors import CaseError
from rtnb.experiments.case import Case
from rtnb.trace import Trace


@dataclass(frozen=True)
class Run:
    """Conversation of a case under a variant: graders get it. It has no `answers` until it was held."""

    case: Case
    variant: str
    repeat: int
    folder: Path
    answers: Sequence[Mapping[str, Any]] = ()
    """Of each answer: text, status, interrupted, first_audio_ms, audio_ms, kind of the turn before it."""
    user: Sequence[str] = ()
    """Transcripts or texts of the user's turns."""
    calls: Sequence[Mapping[str, Any]] = ()
    """Of each function call: name, arguments (decoded JSON), output."""
    usd: float | None = None
    """Estimated cost; None where a price is not known."""
    seconds: float = 0.0
    retries: int = 0
    """How often the run was started again because its connection failed."""
    error: str = ""
    """Why the conversation ended early; empty where it did not."""
    trace_file: str = ""
    grades: Mapping[str, Any] = field(default_factory=dict)
    """Grader -> True, False, or a number; None where it does not apply."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Grader -> reasons that it gave."""

    @property
    def file(self) -> Path:
        """File of facts and grades; a number stands for the variant. The trace lies beside it."""
        return self.folder / f"{self.case.id}-{zlib.crc32(self.variant.encode()):08x}-{self.repeat}.json"

    @property
    def text(self) -> str:
        """Everything the model said or wrote."""
        return "\n".join(answer["text"] for answer in self.answers)

    @property
    def trace(self) -> Trace:
        """The kept conversation: to hear, search and replay."""
        return Trace(self.folder / self.trace_file)

    @property
    def is_spoken(self) -> bool:
        """True where there is an answer to play."""
        return bool(self.trace_file) and any(answer["audio_ms"] for answer in self.answers)

    def __repr__(self) -> str:
        state = f"failed: {self.error}" if self.error else f"{len(self.answers)} answers"
        return f"<Run {self.case.id!r}, {self.variant!r}, repeat {self.repeat}: {state}>"


def plan(cases: Sequence[Case], variants: Sequence[str], repeats: int, *, seed: int, folder: Path) -> list[Run]:
    """Return every run in its order: blocks of one case, with its variants in random order.

    Examples
    --------
    >>> [run.variant for run in plan([Case("x", "Hi")], ["a", "b"], 3, seed=1, folder=Path())]
    ['a', 'b', 'b', 'a', 'b', 'a']
    """
    chance = random.Random(seed)
    blocks = [(case, repeat) for repeat in range(repeats) for case in chance.sample(cases, len(cases))]
    return [Run(case, name, n, folder) for case, n in blocks for name in chance.sample(variants, len(variants))]


def json_or_text(text: str) -> Any:
    """Return what JSON stands for; a text that is no JSON as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


# --- files ------------------------------------------------------------------------------------------------------------


def save_run(run: Run) -> None:
    """Write the facts and grades of a run; the file appears at once and whole, so a killed process leaves none."""
    kept = {name: value for name, value in vars(run).items() if name not in ("case", "folder")}
    part = run.file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(kept, default=str, ensure_ascii=False), encoding="utf-8")
    os.replace(part, run.file)


def load_run(run: Run) -> Run:
    """Return a run with the facts and grades that `save_run` wrote.

    Raises
    ------
    CaseError
        The file is none of a run.
    """
    try:
        return replace(run, **json.loads(run.file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CaseError(f"{run.file} is not the file of a run: {error}") from error
