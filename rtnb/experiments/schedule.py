"""The experiment: cases × variants × repeats against a target, graded, within a budget, resumable."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import fields, is_dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Final
from zlib import crc32

from tqdm.auto import tqdm

from rtnb.analysis.cost import PRICES, PRICES_CHECKED, Budget, CostMeter, Price
from rtnb.analysis.latency import LatencyMeter
from rtnb.client.log import Formats, LogRow
from rtnb.errors import CaseError, ConnectError, RtnbError, TransportError
from rtnb.experiments.case import Case, cases, fill
from rtnb.experiments.conversation import converse, opened_voice
from rtnb.experiments.graders import Grader, grade, name_of
from rtnb.experiments.result import FORMAT, Result
from rtnb.experiments.run import Run, json_or_text, load_run, plan, save_run
from rtnb.protocol import events
from rtnb.protocol.values import UNSET
from rtnb.redaction import MASK, mask_credentials, redact
from rtnb.simulator.responder import text_of
from rtnb.targets import connect

MAX_RETRIES: Final = 2
"""Most repetitions of a run whose connection failed (chosen)."""
_SIMULATED: Final = {"rtnb-simulator": Price(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)}  # a budget holds there, too


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
    path = Path(tempfile.mkdtemp(prefix="rtnb-experiment-") if folder is None else folder)
    notes = {name_of(grader): getattr(grader, "note", "") for grader in graders}
    if len(notes) < len(graders):
        raise CaseError(f"two graders have one name; the names are {', '.join(notes)}: set __name__ of one of them")
    facts = {"target": redact(str(target)), "repeats": repeats, "graders": notes}
    _write_manifest(path, {"seed": seed, "variants": without_keys(variants), "cases": without_keys(made)}, facts)
    planned = plan(made, list(variants), repeats, seed=seed, folder=path)
    prices = None if budget is None else budget.prices
    async with opened_voice(voice, made if executor is None else ()) as opened:
        new = [run for run in reversed(planned) if not run.file.exists()]
        waiting = [partial(hold, run, target, variants[run.variant], seed, opened, prices) for run in new]
        with tqdm(total=len(planned), desc="runs", disable=not progress) as bar:
            work = _Work(graders, budget, executor, on_run, bar)
            for run in planned:
                if run.file.exists():
                    await work.finish(load_run(run))
            if budget is not None and len(waiting) == len(planned):
                await work.take(waiting, most=1)  # alone: it shows what a run costs
            workers = (work.take(waiting) for _ in range(concurrency))
            ended = await asyncio.gather(*workers, return_exceptions=True)
    for error in filter(None, ended):
        raise error
    return Result(path)


async def hold(run: Run, target: Any, settings: Mapping[str, Any], seed: int, voice: Any, prices: Any) -> Run:
    """Hold the conversation, keep its trace, and return its facts; failures of the service are facts, too.

    A connection that fails is opened again, at most `MAX_RETRIES` times; nothing else is repeated.
    """
    settings = fill(settings, run.case.values)
    if run.case.tools:
        settings["tools"] = [*settings.get("tools", ()), *run.case.tools]
    if target == "sim":
        settings.setdefault("seed", crc32(f"{seed}/{run.file.stem}".encode()))
    path, lost_usd, begun = run.file.with_suffix(".rtnb"), 0.0, monotonic()
    for retries in range(MAX_RETRIES + 1):
        path.unlink(missing_ok=True)
        log: Any = ()
        problem: Exception | None = None
        try:
            async with opened_voice(voice, [run.case]) as opened, connect(target, trace=path, **settings) as session:
                log = session.log
                await converse(session, run.case.user, opened)
        except (RtnbError, TimeoutError) as error:
            if not log and not isinstance(error, TransportError):
                raise  # a setting that every run would be refused
            problem = error
        facts = read_facts(log, prices)
        refused = isinstance(problem, ConnectError) and 400 <= (problem.status or 0) < 500  # it would be again
        if not isinstance(problem, TransportError) or refused or retries == MAX_RETRIES:
            break
        lost_usd += facts["usd"] or 0.0
    facts["usd"] = None if facts["usd"] is None else facts["usd"] + lost_usd
    shown = "" if problem is None else redact(str(problem) or type(problem).__name__)
    facts |= {"trace_file": path.name if path.exists() else "", "retries": retries, "seconds": monotonic() - begun}
    return replace(run, **facts, error=shown)


def read_facts(rows: Iterable[LogRow], prices: Mapping[str, Price] | None) -> dict[str, Any]:
    """Return what graders need of a log: answers, user, calls, usd."""
    latency, formats, cost = LatencyMeter(), Formats(), CostMeter(prices={**PRICES, **_SIMULATED, **(prices or {})})
    user: dict[str, str] = {}
    calls: dict[str, dict[str, Any]] = {}
    answers: dict[str, dict[str, Any]] = {}
    audio_ms: dict[str, float] = defaultdict(float)
    cut: set[str] = set()
    for row in rows:
        latency.feed((row,))
        cost.feed((row,))
        length_ms = formats.audio_ms(row) or 0.0
        match event := row.event:
            case events.ConversationItemCreate(item=item) | events.ConversationItemAdded(item=item):
                if item.role == "user":
                    user.setdefault(str(item.id), text_of(item) or "")
                elif item.type == "function_call_output" and item.call_id in calls:
                    calls[item.call_id]["output"] = item.output
            case events.ConversationItemInputAudioTranscriptionCompleted():
                user[event.item_id] = event.transcript
            case events.ResponseOutputAudioDelta():
                audio_ms[event.response_id] += length_ms
            case events.ConversationItemTruncated():
                cut.add(event.item_id)
            case events.ResponseDone(response=response):
                items = response.output or ()
                text = "\n".join(filter(None, map(text_of, items)))
                answers[response.id] = {"text": text, "status": response.status, "items": [item.id for item in items]}
                for item in items:
                    if item.type == "function_call":
                        arguments = json_or_text(item.arguments or "{}")
                        calls[str(item.call_id)] = {"name": item.name, "arguments": arguments, "output": None}
    turns = {turn.response_id: turn for turn in latency.turns}
    for id, answer in answers.items():
        answer["audio_ms"] = audio_ms[id]
        answer["interrupted"] = answer["status"] == "cancelled" or not cut.isdisjoint(answer.pop("items"))
        if turn := turns.get(id):
            answer |= {"kind": turn.kind, "first_audio_ms": turn.ms("first audio")}
    usd = None if cost.unknown else cost.usd
    return {"answers": [*answers.values()], "user": [*user.values()], "calls": [*calls.values()], "usd": usd}


class _Work:
    """Queue of runs: their graders, the money spent so far, and the progress."""

    def __init__(self, graders: Sequence[Grader], budget: Budget | None, pool: Any, on_run: Any, bar: Any) -> None:
        self._graders, self._pool, self._on_run, self._bar = graders, pool, on_run, bar
        self._limit = None if budget is None else budget.usd
        self._usd = self._dearest = 0.0
        self._n_running = 0

    async def take(self, waiting: list[Any], *, most: float = inf) -> None:
        """Carry out orders for runs, the last one first, while one more fits into the budget."""
        while waiting and self._fits() and most > 0:
            most, order = most - 1, waiting.pop()
            self._n_running += 1
            try:
                work = order() if self._pool is None else asyncio.wrap_future(self._pool.submit(_in_process, order))
                run = await work
                await asyncio.to_thread(save_run, run)  # before the graders, which may fail
                await self.finish(run)
            except Exception:  # a mistake in a grader: others that run are paid for, so they end and are kept
                waiting.clear()
                raise
            finally:
                self._n_running -= 1

    def _fits(self) -> bool:
        return self._limit is None or self._usd + (self._n_running + 1) * self._dearest < self._limit

    async def finish(self, run: Run) -> None:
        """Count the cost of a run, and give and keep the grades that it does not have yet."""
        if self._limit is not None and run.usd is None and not run.error:
            raise CaseError("the price of a run is not known, so the budget cannot be kept; pass Budget(prices=…)")
        self._usd += run.usd or 0.0
        self._dearest = max(self._dearest, run.usd or 0.0)
        missing = [grader for grader in self._graders if name_of(grader) not in run.grades]
        if missing:
            grades, evidence = await grade(run, missing)
            run = replace(run, grades={**run.grades, **grades}, evidence={**run.evidence, **evidence})
            await asyncio.to_thread(save_run, run)
        if self._on_run is not None:
            self._on_run(run)
        self._bar.set_postfix_str(f"about ${self._usd:.3f}", refresh=False)
        self._bar.update()


def _in_process(order: Callable[[], Coroutine[Any, Any, Run]]) -> Run:
    return asyncio.run(order())


def _checked(given: Any, variants: Mapping[str, Mapping[str, Any]], repeats: int, concurrency: int) -> list[Case]:
    """Return the cases; a mistake is found before anything is spent."""
    made = cases(given)
    if not variants or not all(isinstance(settings, Mapping) for settings in variants.values()):
        raise CaseError("variants is a mapping: name -> settings, e.g. {'short': {'instructions': 'Be brief.'}}")
    for name, value in (("repeats", repeats), ("concurrency", concurrency)):
        if not isinstance(value, int) or value < 1:
            raise CaseError(f"{name} is {value!r}; allowed: whole numbers from 1 on")
    for case in made:
        for settings in variants.values():
            fill(settings, case.values)
        for turn in case.user if isinstance(case.user, tuple) else ():
            if turn.audio and not Path(turn.audio).is_file():
                raise CaseError(f"case {case.id!r}: there is no file {turn.audio}")
    return made


def _write_manifest(path: Path, asked: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write what was asked for, or check that a folder from before asked for the same."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / "experiment.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else asked
    for name, value in asked.items():
        if before.get(name) != value:
            raise CaseError(f"{path} holds another experiment: its {name} differ; choose another folder")
    versions = {"format": FORMAT, "rtnb": sys.modules["rtnb"].__version__, "prices_checked": PRICES_CHECKED}
    file.write_text(json.dumps({**versions, **asked, **facts}, indent=1, ensure_ascii=False), encoding="utf-8")


def without_keys(value: Any) -> Any:
    """Return a value as JSON can keep it, with ``****`` for every key; functions and models by their names.

    Examples
    --------
    >>> without_keys({"chat_key": "abc", "instructions": "Be brief."})
    {'chat_key': '****', 'instructions': 'Be brief.'}
    """
    if is_dataclass(value) and not isinstance(value, type):
        shown = {one.name: getattr(value, one.name) for one in fields(value) if one.repr}
        value = {name: one for name, one in shown.items() if one is not UNSET and one != {}}
    if isinstance(value, Mapping):
        keys = {name for name, one in value.items() if isinstance(one, str) and str(name).lower().endswith("key")}
        return mask_credentials({str(name): MASK if name in keys else without_keys(one) for name, one in value.items()})
    if isinstance(value, list | tuple):
        return [without_keys(one) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__))
