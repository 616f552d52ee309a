"""The experiment: cases × variants × repeats against a target, graded, within a budget, resumable."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

from tqdm.auto import tqdm

from rtnb.analysis.cost import PRICES_CHECKED, Budget
from rtnb.errors import CaseError
from rtnb.experiments.callers import opened_voice
from rtnb.experiments.case import Case, cases, fill
from rtnb.experiments.chat import ChatModel
from rtnb.experiments.graders import Grader, grade, name_of
from rtnb.experiments.result import FORMAT, Result
from rtnb.experiments.run import Job, Run, load_run, run_job, save_run
from rtnb.protocol.values import UNSET
from rtnb.redaction import MASK, mask_credentials, redact

MOST_RUNS: Final = 100_000
"""Most runs of one experiment (chosen: a mistyped `repeats` must not start millions)."""


async def experiment(
    target: Any,
    cases: Iterable[Any] | str | os.PathLike[str],
    variants: Mapping[str, Mapping[str, Any]],
    *,
    repeats: int = 5,
    graders: Sequence[Grader] = (),
    budget: Budget | None = None,
    folder: str | os.PathLike[str] | None = None,
    concurrency: int = 4,
    voice: Any = "auto",
    seed: int = 0,
    executor: Executor | None = None,
    on_run: Callable[[Run], object] | None = None,
    progress: bool = True,
) -> Result:
    """Try variants of a prompt or of other settings on cases, several times each, and compare the grades.

    All variants of a case run next to each other, in random order. A run whose connection fails is repeated, at most
    twice; its count is in the table. Where the process is stopped, call it again with the same `folder`: completed runs
    are read, the others are done. New graders grade the completed runs, too.

    Parameters
    ----------
    target : str, Azure, OpenAI, Custom or Simulator
        As for `rtnb.connect`. A function without arguments that returns one, where `executor` is given: targets with a
        key are not sent to other processes.
    cases : list of Case, texts or mappings, or a path
        See `rtnb.cases`.
    variants : mapping
        Name -> settings of `rtnb.connect`, such as `instructions`, `voice`, `turn_detection`. See also `rtnb.grid`.
    repeats : int, default 5
        Runs of each case under each variant.
    graders : sequence of functions
        See `rtnb.graders`.
    budget : Budget, optional
        `usd` for all runs together. No run begins that would exceed it, judged by the dearest run so far.
    folder : path, optional
        Where runs are kept; default a new temporary folder (`Result.save` copies it).
    concurrency : int, default 4
        Conversations at the same time.
    voice : {"auto", "neural", "espeak", "babble"} or Voice, default "auto"
        Speaks the turns with `say`.
    seed : int, default 0
        Order of the runs, and the seeds of simulators.
    executor : concurrent.futures.Executor, optional
        Runs the conversations in other processes or machines; of Dask, ``client.get_executor()``.
    on_run : callable, optional
        Called with every completed run, those of a folder from before, too.
    progress : bool, default True
        Show a bar with the cost so far.

    Raises
    ------
    CaseError
        A wrong case, variant or grader, or a folder of another experiment.

    Examples
    --------
    >>> import rtnb
    >>> async def compare():
    ...     variants = {"short": {"instructions": "Be brief."}, "long": {"instructions": "Explain at length."}}
    ...     graders = [rtnb.graders.max_words(25)]
    ...     return await experiment("sim", ["Hello!"], variants, repeats=1, graders=graders, progress=False)
    >>> asyncio.run(compare()).to_frame()[["case", "variant", "repeat"]].sort_values("variant").values.tolist()
    [['1', 'long', 0], ['1', 'short', 0]]
    """
    made = _checked(cases, variants, repeats, concurrency)
    names = [name_of(grader) for grader in graders]
    if len(set(names)) < len(names):
        raise CaseError(f"two graders have one name: {', '.join(names)}; set __name__ of one of them")
    path = Path(tempfile.mkdtemp(prefix="rtnb-experiment-") if folder is None else folder)
    _write_manifest(path, target, made, variants, repeats=repeats, seed=seed, graders=graders)
    prices = None if budget is None else budget.prices
    async with opened_voice(voice, made.values() if executor is None else ()) as opened:
        jobs = [
            Job(target, made[case], variant, repeat, variants[variant], path, seed, opened, prices)
            for case, variant, repeat in plan(list(made), list(variants), repeats, seed=seed)
        ]
        waiting = [job for job in jobs if not (path / f"{job.name}.json").exists()]
        done = [load_run(path / f"{job.name}.json", made) for job in jobs if job not in waiting]
        note = on_run or (lambda run: None)
        for i, run in enumerate(done):
            done[i] = await _graded(run, graders)
            note(done[i])
        spent = _Spending(budget, done)
        with tqdm(total=len(jobs), initial=len(jobs) - len(waiting), desc="runs", disable=not progress) as bar:
            await _work(waiting, graders, spent, bar, note, concurrency=concurrency, executor=executor)
    return Result(path, cases=list(made.values()))


def plan(cases: Sequence[str], variants: Sequence[str], repeats: int, *, seed: int) -> list[tuple[str, str, int]]:
    """Return (case, variant, repeat) of every run in its order: blocks of one case, variants in random order.

    Examples
    --------
    >>> [variant for _, variant, _ in plan(["x"], ["a", "b"], 3, seed=1)]
    ['a', 'b', 'b', 'a', 'b', 'a']
    """
    chance = random.Random(seed)
    blocks = [(case, repeat) for repeat in range(repeats) for case in chance.sample(cases, len(cases))]
    return [(case, name, n) for case, n in blocks for name in chance.sample(variants, len(variants))]


class _Spending:
    """Money spent so far, and whether one more run fits."""

    def __init__(self, budget: Budget | None, runs: Iterable[Run]) -> None:
        self.limit = budget.usd if budget else None
        self.usd = self.dearest = 0.0
        self.n_known = self.n_running = 0
        for run in runs:
            self.add(run)

    def add(self, run: Run) -> None:
        if self.limit is not None and run.usd is None and not run.error:
            raise CaseError("the price of a run is not known, so the budget cannot be kept; pass Budget(prices=…)")
        self.usd += run.usd or 0.0
        self.dearest = max(self.dearest, run.usd or 0.0)
        self.n_known += 1

    def fits(self) -> bool:
        """Return whether a run may begin; the first one shows what a run costs."""
        if self.limit is None:
            return True
        if not self.n_known:
            return not self.n_running and self.limit > 0
        return self.usd + (self.n_running + 1) * self.dearest <= self.limit


async def _work(
    jobs: list[Job],
    graders: Sequence[Grader],
    spent: _Spending,
    bar: Any,
    note: Callable[[Run], object],
    *,
    concurrency: int,
    executor: Executor | None,
) -> None:
    waiting = list(reversed(jobs))
    running: set[asyncio.Task[Run]] = set()
    try:
        while waiting or running:
            while waiting and len(running) < concurrency and spent.fits():
                running.add(asyncio.create_task(_one(waiting.pop(), graders, executor)))
                spent.n_running += 1
            if not running:
                return  # the budget is used up
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                spent.n_running -= 1
                spent.add(task.result())
                note(task.result())
                bar.update()
                bar.set_postfix_str(f"about ${spent.usd:.3f}")
    except Exception:  # a mistake in a grader: the conversations that run are paid for, so they end and are kept
        await asyncio.gather(*running, return_exceptions=True)
        raise
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _one(job: Job, graders: Sequence[Grader], executor: Executor | None) -> Run:
    if executor is None:
        run = await run_job(job)
    else:
        run = await asyncio.wrap_future(executor.submit(_in_process, job))
    await asyncio.to_thread(save_run, run)  # before the graders, which may fail
    return await _graded(run, graders)


async def _graded(run: Run, graders: Sequence[Grader]) -> Run:
    """Return a run with the grades that it did not have yet, and keep them."""
    missing = [grader for grader in graders if name_of(grader) not in run.grades]
    if not missing:
        return run
    grades, evidence = await grade(run, missing)
    run = replace(run, grades={**run.grades, **grades}, evidence={**run.evidence, **evidence})
    await asyncio.to_thread(save_run, run)
    return run


def _in_process(job: Job) -> Run:
    return asyncio.run(run_job(job))


def _checked(given: Any, variants: Mapping[str, Mapping[str, Any]], repeats: int, concurrency: int) -> dict[str, Case]:
    made = {case.id: case for case in cases(given)}
    if not variants or not all(isinstance(settings, Mapping) for settings in variants.values()):
        raise CaseError("variants is a mapping: name -> settings, e.g. {'short': {'instructions': 'Be brief.'}}")
    for name, value in (("repeats", repeats), ("concurrency", concurrency)):
        if not isinstance(value, int) or value < 1:
            raise CaseError(f"{name} is {value!r}; allowed: whole numbers from 1 on")
    if (n_runs := len(made) * len(variants) * repeats) > MOST_RUNS:
        raise CaseError(f"{n_runs} runs; at most {MOST_RUNS}")
    for settings in variants.values():
        for case in made.values():
            fill(settings, case.values)  # a missing value is found before anything is spent
    for case in made.values():
        for turn in case.user if isinstance(case.user, tuple) else ():
            if turn.audio and not Path(turn.audio).is_file():
                raise CaseError(f"case {case.id!r}: there is no file {turn.audio}")
    return made


def _write_manifest(
    path: Path,
    target: Any,
    made: Mapping[str, Case],
    variants: Mapping[str, Any],
    *,
    repeats: int,
    seed: int,
    graders: Any,
) -> None:
    """Write what was asked for, or check that a folder from before asked for the same."""
    path.mkdir(parents=True, exist_ok=True)
    manifest = {
        "format": FORMAT,
        "rtnb": sys.modules["rtnb"].__version__,
        "target": redact(str(target)),
        "prices_checked": PRICES_CHECKED,
        "repeats": repeats,
        "seed": seed,
        "variants": without_keys(variants),
        "cases": [without_keys(vars(case)) for case in made.values()],
        "graders": [{"name": name_of(grader), "note": getattr(grader, "note", "")} for grader in graders],
    }
    file = path / "experiment.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        for name in ("cases", "variants", "seed"):
            if before.get(name) != json.loads(json.dumps(manifest[name])):
                raise CaseError(f"{path} holds another experiment: its {name} differ; choose another folder")
    file.write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


def _is_key(name: str, value: Any) -> bool:
    return isinstance(value, str) and name.lower().endswith("key")  # chat_key: an option of "sim"


def without_keys(value: Any) -> Any:
    """Return a value as JSON can keep it, with ``****`` for every key; functions and models by their names.

    Examples
    --------
    >>> without_keys({"chat_key": "abc", "instructions": "Be brief."})
    {'chat_key': '****', 'instructions': 'Be brief.'}
    """
    return mask_credentials(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): MASK if _is_key(str(key), one) else _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, ChatModel):
        return value.kept
    if is_dataclass(value) and not isinstance(value, type):
        given = {one.name: getattr(value, one.name) for one in fields(value)}
        return {name: _plain(one) for name, one in given.items() if one is not UNSET and one != {}}
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__))
