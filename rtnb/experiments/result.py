"""Outcome of an experiment: a folder of runs, and the tables that can be made of it."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from html import escape
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rtnb.audio import write_wav
from rtnb.errors import CaseError
from rtnb.experiments.case import Case
from rtnb.experiments.run import Run, load_run, plan
from rtnb.experiments.statistics import CONFIDENCE, Values, difference, estimate, holm, more_runs

if TYPE_CHECKING:
    import pandas as pd

FORMAT: Final = 2
"""Version of the folder's layout: ``experiment.json``, and of each run a ``.json`` and a ``.rtnb``."""


class Result:
    """The runs of an experiment with their grades.

    Parameters
    ----------
    path : path
        Folder of the experiment.

    Raises
    ------
    CaseError
        Not the folder of an experiment, or of another version.

    Examples
    --------
    >>> import asyncio, rtnb
    >>> variants = {"a": {"instructions": "Be brief.", "latency": "fast"}}
    >>> made = rtnb.experiment("sim", ["Hello!"], variants, repeats=1, graders=[rtnb.graders.n_words], progress=False)
    >>> result = Result(asyncio.run(made).path)
    >>> len(result.runs), list(result.table["grader"])
    (1, ['n_words'])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        """The folder."""
        try:
            self.manifest: dict[str, Any] = json.loads((self.path / "experiment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CaseError(f"{self.path} is not the folder of an experiment: {error}") from error
        if self.manifest.get("format") != FORMAT:
            raise CaseError(f"{self.path} has format {self.manifest.get('format')!r}; this version reads {FORMAT}")
        self.variants: dict[str, dict[str, Any]] = self.manifest["variants"]
        """Name -> settings."""
        self.graders: dict[str, str] = self.manifest["graders"]
        """Name -> note, such as "not validated" of a judge."""
        kept = self.manifest["cases"]
        users = [one["user"] if isinstance(one["user"], list) else str(one["user"]) for one in kept]
        self.cases = [Case(**{**one, "tools": (), "user": user}) for one, user in zip(kept, users, strict=True)]
        """The cases, without their tools."""
        planned = plan(self.cases, list(self.variants), self.manifest["repeats"], seed=0, folder=self.path)
        self.n_planned = len(planned)
        """Number of runs of the complete experiment; there are fewer where the budget ended."""
        self.runs = [load_run(run) for run in planned if run.file.exists()]
        """The completed runs of the plan; a folder may hold more repeats of an earlier one."""

    @property
    def usd(self) -> float:
        """Estimated cost of all runs whose price is known, US dollars."""
        return sum(run.usd or 0.0 for run in self.runs)

    # --- tables -------------------------------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """Return a row per run: case, variant, repeat, its grades, usd, seconds, retries, error."""
        import pandas as pd

        rows = [
            {"case": run.case.id, "variant": run.variant, "repeat": run.repeat, **run.grades}
            | {name: getattr(run, name) for name in ("usd", "seconds", "retries", "error")}
            for run in self.runs
        ]
        return pd.DataFrame(rows)

    def values(self, grader: str, variant: str) -> Values:
        """Return the grades of a grader and a variant by case, without runs that it does not apply to."""
        found: Values = {}
        for run in self.runs:
            grade = run.grades.get(grader)
            if run.variant == variant and grade is not None:
                found.setdefault(run.case.id, []).append(float(grade))
        return found

    def _is_share(self, grader: str) -> bool:
        grades = [run.grades.get(grader) for run in self.runs]
        return all(isinstance(grade, bool) for grade in grades if grade is not None)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per grader and variant: n_cases, n_runs, estimate, low and high (95 %, over cases), note.

        Runs that failed have no grades; the note counts them, because a variant that fails more often may look better.
        """
        rows = []
        for grader, variant in product(self.graders, self.variants):
            found = estimate(self.values(grader, variant), share=self._is_share(grader))
            rows.append([grader, variant, *astuple(found), self._note(grader, variant)])
        return _frame(rows, "grader, variant, n_cases, n_runs, estimate, low, high, note")

    def _note(self, grader: str, variant: str) -> str:
        failed = sum(run.variant == variant and bool(run.error) for run in self.runs)
        return "; ".join(filter(None, [self.graders[grader], f"{failed} failed, left out" * bool(failed)]))

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """A row per grader and pair of variants.

        Returns
        -------
        pandas.DataFrame
            grader, a, b, n_cases, n_runs, difference (b - a, mean over cases), low, high (95 %), p_adjusted (Holm),
            shown (p_adjusted at most 0.05, and 0 outside the interval), needed (about so many more runs show it).
        """
        return self._compared([(grader, a, b) for grader in self.graders for a, b in combinations(self.variants, 2)])

    def compare(self, other: Result) -> pd.DataFrame:
        """Compare variants of the same name with those of another result, paired by case; columns as `comparisons`."""
        same = [name for name in self.variants if name in other.variants]
        pairs = [(grader, name, name) for grader in self.graders if grader in other.graders for name in same]
        if not pairs:
            raise CaseError("the two results have no variant and grader of the same name")
        return self._compared(pairs, other)

    def _compared(self, pairs: Sequence[tuple[str, str, str]], other: Result | None = None) -> pd.DataFrame:
        found = [
            difference(self.values(grader, a), (other or self).values(grader, b), share=self._is_share(grader))
            for grader, a, b in pairs
        ]
        rows = []
        for pair, one, p in zip(pairs, found, holm([one.p for one in found]), strict=True):
            shown = p <= 1 - CONFIDENCE and (one.low > 0 or one.high < 0)
            needed = None if shown else more_runs(one, n_comparisons=len(found))
            rows.append([*pair, *astuple(one)[:5], p, shown, needed])
        columns = "grader, a, b, n_cases, n_runs, difference, low, high, p_adjusted, shown, needed"
        return _frame(rows, columns).astype({"needed": "Int64"})

    @cached_property
    def flaky(self) -> pd.DataFrame:
        """Cases that pass in some repeats of a variant and fail in others: case, variant, grader, n_passed, n_runs."""
        rows = (
            [case, variant, grader, int(sum(grades)), len(grades)]
            for grader in filter(self._is_share, self.graders)
            for variant in self.variants
            for case, grades in self.values(grader, variant).items()
            if 0 < sum(grades) < len(grades)
        )
        return _frame(rows, "case, variant, grader, n_passed, n_runs")

    # --- listening ----------------------------------------------------------------------------------------------------

    def listen(self, *variants: str, case: str | None = None, blind: bool = False, seed: int = 0) -> Listening:
        """Return players of the runs of variants (all by default), one below the other.

        Parameters
        ----------
        *variants : str
            Names; none is all.
        case : str, optional
            Only this case.
        blind : bool, default False
            Random order, without the names of the variants; the key is in `Listening.runs`.
        seed : int, default 0
            Of the random order.
        """
        known = [*self.variants, *(one.id for one in self.cases)]
        if unknown := {*variants, case or known[0]}.difference(known):
            raise CaseError(f"{unknown.pop()!r} is not in this result; there are: {', '.join(known)}")
        runs = [run for run in self.runs if run.variant in (variants or self.variants) and case in (None, run.case.id)]
        runs = [run for run in runs if run.trace_file]
        if blind:
            random.Random(seed).shuffle(runs)
        return Listening(runs, blind)

    # --- display and files --------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Result: {self.line}; {self.path}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.line)}</p>" + "".join(map(_html, self.texts()))

    @property
    def line(self) -> str:
        """Number of runs, of failures, and the cost, as one line."""
        counts = {"case": len(self.cases), "variant": len(self.variants), "repeat": self.manifest["repeats"]}
        plan = ", ".join(f"{n} {word}{'s' * (n != 1)}" for word, n in counts.items())
        failed = sum(bool(run.error) for run in self.runs)
        return f"{len(self.runs)} of {self.n_planned} runs ({plan}); {failed} failed; about ${self.usd:.4f}"

    def texts(self) -> list[pd.DataFrame]:
        """Return `table` and `comparisons` for people: every cell is a text, with "not shown" in words."""
        estimates = (
            [row.grader, row.variant, row.n_cases, row.n_runs, _number(row.estimate), _span(row), row.note]
            for row in self.table.itertuples()
        )
        differences = (
            [row.grader, f"{row.b} − {row.a}", row.n_cases, _number(row.difference), _span(row), _outcome(row)]
            for row in self.comparisons.astype({"needed": float}).itertuples()
        )
        return [
            _frame(estimates, "grader, variant, cases, runs, estimate, 95 % interval, note").astype(str),
            _frame(differences, "grader, difference, cases, estimate, 95 % interval, outcome").astype(str),
        ]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copy the folder; `Result(path)` opens the copy."""
        return Path(shutil.copytree(self.path, path, dirs_exist_ok=True))

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the result as one page that needs no Python, and write it where a path is given."""
        rules = "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{white-space:pre-wrap}"
        rules += "td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #ccc;vertical-align:top}"
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        head = "<!doctype html><meta charset=utf-8><title>Experiment</title>"
        head += f'<meta http-equiv=Content-Security-Policy content="{policy}"><style>{rules}</style>'
        runs = self.to_frame().assign(answers=[run.text for run in self.runs])
        page = head + self._repr_html_() + _html(runs)
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page


@dataclass(frozen=True)
class Listening:
    """Players of runs for a cell; the cell's output holds their audio, so clear it before saving."""

    runs: list[Run]
    """In the order of the players."""
    blind: bool

    def _repr_html_(self) -> str:
        parts = []
        for number, run in enumerate(self.runs, 1):
            name = f"Run {number}" if self.blind else f"{run.variant}, repeat {run.repeat}"
            parts.append(f"<p>{escape(run.case.id)} · {escape(name)}</p>{_player(run)}")
        return "".join(parts) or "<p>No runs with sound.</p>"


def to_wav(run: Run) -> bytes:
    """Return the sound of a run as a WAV file: the user on the left, the model on the right."""
    file = io.BytesIO()
    with run.trace as trace:
        write_wav(file, trace.stereo(), rate_hz=24_000)
    return file.getvalue()


def _player(run: Run) -> str:
    if not run.is_spoken:
        return f"<blockquote>{escape(run.text)}</blockquote>"
    data = base64.b64encode(to_wav(run)).decode("ascii")
    return f'<audio controls preload=metadata src="data:audio/wav;base64,{data}"></audio>'


def _number(value: Any) -> str:
    return "–" if value != value else f"{value:.3g}"


def _span(row: Any) -> str:
    return "not shown: one case" if row.low != row.low else f"{row.low:.3g} to {row.high:.3g}"


def _outcome(row: Any) -> str:
    more = "" if row.needed != row.needed else f": about {row.needed:.0f} more runs"
    return "shown" if row.shown else f"not shown{more}"


def _frame(rows: Iterable[Any], columns: str) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows), columns=columns.split(", "))


def _html(table: pd.DataFrame) -> str:
    import pandas as pd

    with pd.option_context("display.max_colwidth", None):  # by default long texts are cut
        return table.to_html(index=False, border=0, na_rep="–", float_format=_number)
