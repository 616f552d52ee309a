"""Outcome of an experiment: a folder of runs, and the tables that can be made of it."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from html import escape
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rtnb.audio import write_wav
from rtnb.errors import CaseError, RtnbError
from rtnb.experiments.case import Case
from rtnb.experiments.case import cases as make_cases
from rtnb.experiments.run import Run, load_run
from rtnb.experiments.statistics import CONFIDENCE, Difference, Values, difference, estimate, holm, more_cases

if TYPE_CHECKING:
    import pandas as pd

FORMAT: Final = 1
"""Version of the folder's layout: ``experiment.json``, and of each run a ``.json`` and a ``.rtnb``."""
_COLUMNS: Final = (
    "grader", "a", "b", "n_cases", "n_runs", "difference", "low", "high", "p_adjusted", "shown", "needed",
)  # fmt: skip


class Result:
    """The runs of an experiment with their grades.

    Parameters
    ----------
    path : path
        Folder of the experiment.
    cases : list of Case, optional
        The cases themselves; by default they are read from the folder, where functions are kept by name only.

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

    def __init__(self, path: str | os.PathLike[str], *, cases: Sequence[Case] | None = None) -> None:
        self.path = Path(path)
        """The folder."""
        try:
            self.manifest: dict[str, Any] = json.loads((self.path / "experiment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CaseError(f"{self.path} is not the folder of an experiment: {error}") from error
        if self.manifest.get("format") != FORMAT:
            raise CaseError(f"{self.path} has format {self.manifest.get('format')!r}; this version reads {FORMAT}")
        self.cases = list(cases) if cases is not None else make_cases(_readable(self.manifest["cases"]))
        by_id = {case.id: case for case in self.cases}
        files = (file for file in sorted(self.path.glob("*.json")) if file.name != "experiment.json")
        runs = (load_run(file, by_id) for file in files)
        self.runs: list[Run] = [run for run in runs if run.repeat < self.manifest["repeats"]]
        """The completed runs of the plan; a folder may hold more repeats of an earlier one."""

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """Name -> settings."""
        return dict(self.manifest["variants"])

    @property
    def graders(self) -> dict[str, str]:
        """Name -> note, such as "not validated" of a judge."""
        return {one["name"]: one["note"] for one in self.manifest["graders"]}

    @property
    def usd(self) -> float:
        """Estimated cost of all runs whose price is known, US dollars."""
        return sum(run.usd or 0.0 for run in self.runs)

    @property
    def n_planned(self) -> int:
        """Number of runs of the complete experiment; there are fewer where the budget ended."""
        return len(self.cases) * len(self.variants) * int(self.manifest["repeats"])

    # --- tables -------------------------------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """Return a row per run: case, variant, repeat, its grades, usd, seconds, retries, error."""
        import pandas as pd

        rows = [
            {"case": run.case.id, "variant": run.variant, "repeat": run.repeat, **run.grades}
            | {"usd": run.usd, "seconds": run.seconds, "retries": run.retries, "error": run.error}
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
        """A row per grader and variant: n_cases, n_runs, estimate, low and high (95 %, over cases), note."""
        import pandas as pd

        rows = []
        for grader, note in self.graders.items():
            for variant in self.variants:
                found = estimate(self.values(grader, variant), share=self._is_share(grader))
                rows.append([grader, variant, *vars(found).values(), note])
        columns = ["grader", "variant", "n_cases", "n_runs", "estimate", "low", "high", "note"]
        return pd.DataFrame(rows, columns=columns)

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

    def _compared(self, pairs: Sequence[tuple[str, str, str]], other: Result | None = None) -> pd.DataFrame:
        import pandas as pd

        found = [
            difference(self.values(grader, a), (other or self).values(grader, b), share=self._is_share(grader))
            for grader, a, b in pairs
        ]
        adjusted = holm([one.p for one in found])
        rows = [
            [*pair, one.n_cases, one.n_runs, one.difference, one.low, one.high, p, *self._judged(one, p, len(found))]
            for pair, one, p in zip(pairs, found, adjusted, strict=True)
        ]
        return pd.DataFrame(rows, columns=list(_COLUMNS)).astype({"needed": "Int64"})

    def _judged(self, found: Difference, p: float, n: int) -> tuple[bool, int | None]:
        shown = p <= 1 - CONFIDENCE and (found.low > 0 or found.high < 0)
        cases = None if shown else more_cases(found, n_comparisons=n)
        return shown, None if cases is None else cases * max(1, round(found.n_runs / max(1, found.n_cases)))

    def compare(self, other: Result) -> pd.DataFrame:
        """Compare variants of the same name with those of another result, paired by case; columns as `comparisons`."""
        same = [name for name in self.variants if name in other.variants]
        graders = [name for name in self.graders if name in other.graders]
        if not same or not graders:
            raise CaseError("the two results have no variant and grader of the same name")
        return self._compared([(grader, name, name) for grader in graders for name in same], other)

    @cached_property
    def flaky(self) -> pd.DataFrame:
        """Cases that pass in some repeats of a variant and fail in others: case, variant, grader, n_passed, n_runs."""
        import pandas as pd

        rows = []
        for grader in filter(self._is_share, self.graders):
            for variant in self.variants:
                for case, grades in self.values(grader, variant).items():
                    if 0 < sum(grades) < len(grades):
                        rows.append([case, variant, grader, int(sum(grades)), len(grades)])
        return pd.DataFrame(rows, columns=["case", "variant", "grader", "n_passed", "n_runs"])

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
        for name, allowed in [
            *((v, self.variants) for v in variants),
            *([(case, [c.id for c in self.cases])] if case else []),
        ]:
            if name not in allowed:
                raise CaseError(f"{name!r} is not in this result; there are: {', '.join(allowed)}")
        runs = [run for run in self.runs if run.variant in (variants or self.variants) and case in (None, run.case.id)]
        runs = [run for run in runs if run.trace_file]
        if blind:
            random.Random(seed).shuffle(runs)
        return Listening(runs, blind=blind)

    # --- display and files --------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Result: {len(self.runs)} of {self.n_planned} runs, about ${self.usd:.4f}, {self.path}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.line)}</p>" + "".join(_html(*table) for table in self.texts())

    @property
    def line(self) -> str:
        """Number of runs, of failures, and the cost, as one line."""
        counts = {"case": len(self.cases), "variant": len(self.variants), "repeat": self.manifest["repeats"]}
        plan = ", ".join(f"{n} {word}{'s' * (n != 1)}" for word, n in counts.items())
        failed = sum(bool(run.error) for run in self.runs)
        return f"{len(self.runs)} of {self.n_planned} runs ({plan}); {failed} failed; about ${self.usd:.4f}"

    def texts(self) -> list[tuple[list[str], list[list[Any]]]]:
        """Return `table` and `comparisons` for people: heads and rows of each, with "not shown" in words."""
        estimates = [
            [
                row.grader,
                row.variant,
                row.n_cases,
                row.n_runs,
                _number(row.estimate),
                _span(row.low, row.high),
                row.note,
            ]
            for row in _rows(self.table)
        ]
        differences = []
        for row in _rows(self.comparisons):
            outcome = (
                "shown" if row.shown else f"not shown: about {row.needed} more runs" if row.needed else "not shown"
            )
            span = _span(row.low, row.high)
            differences.append([row.grader, f"{row.b} − {row.a}", row.n_cases, _number(row.difference), span, outcome])
        return [
            (["grader", "variant", "cases", "runs", "estimate", "95 % interval", ""], estimates),
            (["grader", "difference", "cases", "estimate", "95 % interval", "outcome"], differences),
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
        rows = [[run.case.id, run.variant, run.repeat, _grades(run), run.text or run.error] for run in self.runs]
        page = head + self._repr_html_() + _html(["case", "variant", "repeat", "grades", "answers"], rows)
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page


class Listening:
    """Players of runs for a cell; the cell's output holds their audio, so clear it before saving."""

    def __init__(self, runs: Sequence[Run], *, blind: bool) -> None:
        self.runs = list(runs)
        """In the order of the players."""
        self._blind = blind

    def __repr__(self) -> str:
        return f"<Listening: {len(self.runs)} runs>"

    def _repr_html_(self) -> str:
        parts = []
        for number, run in enumerate(self.runs, 1):
            name = f"Run {number}" if self._blind else f"{run.variant}, repeat {run.repeat}"
            parts.append(f"<p>{escape(run.case.id)} · {escape(name)}</p>{_player(run)}")
        return "".join(parts) or "<p>No runs with sound.</p>"


def to_wav(run: Run) -> bytes:
    """Return the sound of a run as a WAV file: the user on the left, the model on the right."""
    file = io.BytesIO()
    with run.trace as trace:
        write_wav(file, trace.stereo(), rate_hz=24_000)
    return file.getvalue()


def _player(run: Run) -> str:
    if not any(answer["audio_ms"] for answer in run.answers):
        return f"<blockquote>{escape(run.text)}</blockquote>"
    try:
        data = base64.b64encode(to_wav(run)).decode("ascii")
    except RtnbError as error:
        return f"<p>{escape(str(error))}</p>"
    return f'<audio controls preload=none src="data:audio/wav;base64,{data}"></audio>'


def _grades(run: Run) -> str:
    return ", ".join(f"{name}: {_number(grade)}" for name, grade in run.grades.items())


def _readable(kept: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Make cases of a manifest readable without the functions and callers that only have their names there."""
    return [
        {**case, "tools": [], "user": case["user"] if isinstance(case["user"], list) else str(case["user"])}
        for case in kept
    ]


def _rows(table: pd.DataFrame) -> Iterable[Any]:
    """Yield the rows as named tuples, missing values as None."""
    return table.astype(object).where(table.notna(), None).itertuples()


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, bool) else f"{value:.3g}"


def _span(low: float | None, high: float | None) -> str:
    return "not shown: one case" if low is None else f"{low:.3g} to {high:.3g}"


def _html(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
