"""Runs of an experiment: a conversation of a case under a variant, its facts, and its files."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final

from rtnb.analysis.cost import PRICES, CostMeter, Price
from rtnb.analysis.latency import LatencyMeter
from rtnb.client.log import Formats, LogRow
from rtnb.errors import CaseError, ConnectError, RtnbError, TransportError
from rtnb.experiments.callers import converse, opened_voice
from rtnb.experiments.case import Case, fill
from rtnb.protocol import events
from rtnb.redaction import redact
from rtnb.targets import connect
from rtnb.trace import Trace

MAX_RETRIES: Final = 2
"""Most repetitions of a run whose connection failed (chosen)."""
_SIMULATED: Final = {"rtnb-simulator": Price(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)}  # a budget holds there, too


@dataclass(frozen=True)
class Job:
    """Order for one run; it can be sent to another process where the target can."""

    target: Any
    case: Case
    variant: str
    repeat: int
    settings: Mapping[str, Any]
    folder: Path
    seed: int
    voice: Any = "auto"
    prices: Mapping[str, Price] | None = None

    @property
    def name(self) -> str:
        """Name of its files: case, repeat, and a number that stands for the variant."""
        return _name(self.case, self.variant, self.repeat)


@dataclass(frozen=True)
class Run:
    """Outcome of one run: what graders get."""

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
    def text(self) -> str:
        """Everything the model said or wrote."""
        return "\n".join(answer["text"] for answer in self.answers)

    @property
    def trace(self) -> Trace:
        """The kept conversation: to hear, search and replay."""
        return Trace(self.folder / self.trace_file)

    def __repr__(self) -> str:
        state = f"failed: {self.error}" if self.error else f"{len(self.answers)} answers"
        return f"<Run {self.case.id!r}, {self.variant!r}, repeat {self.repeat}: {state}>"


def _name(case: Case, variant: str, repeat: int) -> str:
    return f"{case.id}-{zlib.crc32(variant.encode()):08x}-{repeat}"


async def run_job(job: Job) -> Run:
    """Hold one conversation, keep its trace, and return its facts; failures of the service are facts, too.

    A connection that fails is opened again, at most `MAX_RETRIES` times; nothing else is repeated.
    """
    lost_usd = 0.0
    for retries in range(MAX_RETRIES + 1):
        rows: list[LogRow] = []
        try:
            run = await _converse(job, rows)
            return replace(run, retries=retries, usd=None if run.usd is None else run.usd + lost_usd)
        except TransportError as error:
            lost_usd += read_facts(rows, prices=job.prices)["usd"] or 0.0
            failed = Run(
                job.case, job.variant, job.repeat, job.folder, usd=lost_usd, retries=retries, error=redact(str(error))
            )
            if isinstance(error, ConnectError) and error.status is not None and 400 <= error.status < 500:
                break  # refused: it would be again
    return failed


async def _converse(job: Job, rows: list[LogRow]) -> Run:
    """Hold the conversation; `rows` gets its log, also where its connection fails."""
    settings = fill(job.settings, job.case.values)
    if job.case.tools:
        settings["tools"] = [*settings.get("tools", ()), *job.case.tools]
    if job.target == "sim":
        settings.setdefault("seed", _seed(job))
    path = job.folder / f"{job.name}.rtnb"
    path.unlink(missing_ok=True)
    begun, error = monotonic(), ""
    async with opened_voice(job.voice, [job.case]) as voice, connect(job.target, trace=path, **settings) as session:
        try:
            await converse(session, job.case, voice)
        except TransportError:
            raise
        except (RtnbError, TimeoutError) as raised:
            error = redact(str(raised) or type(raised).__name__)
        finally:
            rows += session.log
    facts = read_facts(rows, prices=job.prices)
    return Run(
        job.case, job.variant, job.repeat, job.folder, **facts,
        seconds=monotonic() - begun, error=error, trace_file=path.name,
    )  # fmt: skip


def _seed(job: Job) -> int:
    """Return a seed for each run, which does not depend on the runs before."""
    return zlib.crc32(f"{job.seed}/{job.name}".encode())


def read_facts(rows: Iterable[LogRow], *, prices: Mapping[str, Price] | None = None) -> dict[str, Any]:
    """Return what graders need of a log: answers, user, calls, usd."""
    latency, formats, cost = LatencyMeter(), Formats(), CostMeter(prices={**PRICES, **_SIMULATED, **(prices or {})})
    cut: set[str] = set()
    answers: dict[str, dict[str, Any]] = {}
    user: dict[str, str] = {}
    calls: dict[str, dict[str, Any]] = {}
    for row in rows:
        latency.feed((row,))
        cost.feed((row,))
        audio_ms = formats.audio_ms(row)
        match event := row.event:
            case events.ConversationItemCreate() | events.ConversationItemAdded():
                _read_item(event.item, user, calls)
            case events.ConversationItemInputAudioTranscriptionCompleted():
                user[event.item_id] = event.transcript
            case events.ResponseOutputAudioDelta():
                answers.setdefault(event.response_id, {"audio_ms": 0.0})["audio_ms"] += audio_ms
            case events.ConversationItemTruncated():
                cut.add(event.item_id)
            case events.ResponseDone(response=response):
                items = response.output or ()
                for item in items:
                    _read_item(item, user, calls)
                answer = answers.setdefault(response.id, {"audio_ms": 0.0})
                answer |= {"text": "\n".join(filter(None, map(_text, items))), "status": response.status}
                answer["items"] = [item.id for item in items]
    for turn in latency.turns:
        if turn.response_id in answers:
            answers[turn.response_id] |= {"kind": turn.kind, "first_audio_ms": turn.ms("first audio")}
    done = [answer for answer in answers.values() if "text" in answer]
    for answer in done:
        answer["interrupted"] = answer["status"] == "cancelled" or not cut.isdisjoint(answer.pop("items"))
    return {
        "answers": done,
        "user": list(user.values()),
        "calls": list(calls.values()),
        "usd": None if cost.unknown else cost.usd,
    }


def _read_item(item: Any, user: dict[str, str], calls: dict[str, dict[str, Any]]) -> None:
    if item.type == "message" and item.role == "user":
        user.setdefault(item.id, _text(item))
    elif item.type == "function_call" and item.call_id:
        try:
            arguments = json.loads(item.arguments or "{}")
        except ValueError:
            arguments = item.arguments
        calls.setdefault(item.call_id, {"name": item.name, "arguments": arguments, "output": None})
        if item.arguments:
            calls[item.call_id]["arguments"] = arguments
    elif item.type == "function_call_output" and item.call_id in calls:
        calls[item.call_id]["output"] = item.output


def _text(item: Any) -> str:
    return " ".join(part.transcript or part.text or "" for part in item.content or ())


# --- files ------------------------------------------------------------------------------------------------------------


def save_run(run: Run) -> None:
    """Write the facts and grades of a run; the file appears at once and whole, so a killed process leaves none."""
    kept = {f.name: getattr(run, f.name) for f in fields(run) if f.name not in ("case", "folder")}
    path = run.folder / f"{_name(run.case, run.variant, run.repeat)}.json"
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"case": run.case.id, **kept}, default=str, ensure_ascii=False), encoding="utf-8")
    os.replace(part, path)


def load_run(path: Path, cases: Mapping[str, Case]) -> Run:
    """Read a run that `save_run` wrote.

    Raises
    ------
    CaseError
        The file is none of a run, or its case is unknown.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Run(case=cases[kept.pop("case")], folder=path.parent, **kept)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CaseError(f"{path} is not the file of a run: {error}") from error
