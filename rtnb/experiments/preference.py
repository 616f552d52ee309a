"""Blind listening: which of two variants people prefer, with an interval, and the advantage of the first answer."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, Final

from rtnb.analysis.intervals import clopper_pearson
from rtnb.errors import CaseError
from rtnb.experiments.result import Result
from rtnb.experiments.run import Run
from rtnb.experiments.statistics import CONFIDENCE, Estimate, Values, estimate

CHOICES: Final = ("first", "second", "neither")


@dataclass(frozen=True)
class Preference:
    """Outcome of the votes."""

    a: str
    b: str
    share: Estimate
    """Share of votes for `b`, mean over cases; "neither" counts as half a vote."""
    n_decided: int
    n_first: int
    """Decided votes for the answer that was heard first: half of them where the order has no influence."""

    @property
    def first_interval(self) -> tuple[float, float]:
        """95 % interval of ``n_first / n_decided`` (Clopper-Pearson)."""
        return clopper_pearson(self.n_first, self.n_decided, confidence=CONFIDENCE)

    def __str__(self) -> str:
        share, (low, high) = self.share, self.first_interval
        if not share.n_runs:
            return "No votes yet."
        interval = f"{share.low:.0%} to {share.high:.0%}" if share.n_cases > 1 else "interval not shown: one case"
        shown = "" if share.low > 0.5 or share.high < 0.5 else "not "
        return (
            f"{self.b} is preferred in {share.estimate:.0%} of the votes ({interval}); a preference is {shown}shown. "
            f"Votes: {share.n_runs}, cases: {share.n_cases}. The first answer was chosen in {self.n_first} of "
            f"{self.n_decided} ({low:.0%} to {high:.0%}; 50% without position bias)."
        )


class BlindPairs:
    """Pairs of answers to the same case, in random order and without the names of their variants.

    Votes are kept in ``votes.jsonl`` in the folder of the result, so listening can go on later.

    Parameters
    ----------
    result : Result
        Its runs with sound.
    a, b : str
        Names of two variants.
    seed : int, default 0
        Order of the pairs, and of the two answers of each.

    Raises
    ------
    CaseError
        The result has no pair of runs with sound.
    """

    def __init__(self, result: Result, a: str, b: str, *, seed: int = 0) -> None:
        self.a, self.b = a, b
        chance = random.Random(seed)
        found = {(run.variant, run.case.id, run.repeat): run for run in result.runs if run.is_spoken}
        self.pairs = [
            tuple(chance.sample((run, found[b, case, repeat]), 2))
            for (variant, case, repeat), run in found.items()
            if variant == a and (b, case, repeat) in found
        ]
        """Two runs each, in the order in which they are heard."""
        if not self.pairs:
            raise CaseError(
                f"no case has a run with sound of both {a!r} and {b!r}; there are: {', '.join(result.variants)}"
            )
        chance.shuffle(self.pairs)
        self._file = result.path / "votes.jsonl"
        kept = map(json.loads, self._file.read_text(encoding="utf-8").splitlines()) if self._file.exists() else ()
        self.votes: list[dict[str, Any]] = [vote for vote in kept if {vote["first"], vote["second"]} == {a, b}]
        """Of each vote: case, repeat, the variants heard first and second, better ("first", "second" or "neither")."""

    @property
    def next(self) -> tuple[Run, Run] | None:
        """The next pair without a vote, None after the last one."""
        done = {(vote["case"], vote["repeat"]) for vote in self.votes}
        waiting = ((first, second) for first, second in self.pairs if (first.case.id, first.repeat) not in done)
        return next(waiting, None)

    def vote(self, better: str) -> None:
        """Keep a vote on the next pair: "first", "second" or "neither"."""
        if better not in CHOICES:
            raise CaseError(f"vote {better!r}; allowed: {', '.join(CHOICES)}")
        if (pair := self.next) is None:
            raise CaseError("every pair has a vote")
        first, second = pair
        vote = {"case": first.case.id, "repeat": first.repeat, "first": first.variant, "second": second.variant}
        self.votes.append({**vote, "better": better})
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.votes[-1]) + "\n")

    @property
    def preference(self) -> Preference:
        """Outcome of the votes so far."""
        values: Values = {}
        for vote in self.votes:
            points = 0.5 if vote["better"] == "neither" else float(vote[vote["better"]] == self.b)
            values.setdefault(vote["case"], []).append(points)
        decided = [vote["better"] for vote in self.votes if vote["better"] != "neither"]
        return Preference(self.a, self.b, estimate(values, share=True), len(decided), decided.count("first"))
