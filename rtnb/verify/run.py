"""Running the probes: budget, progress, results as JSON and as a table, and the comparison of two."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import aiohttp
from tqdm.auto import tqdm

from rtnb.analysis.cost import PRICES, estimate_usd, find_price
from rtnb.errors import RateLimited, RtnbError
from rtnb.redaction import redact
from rtnb.targets import Shared, resolve
from rtnb.verify import probes, refusals, webrtc  # noqa: F401  # they register probes, in the order of the table
from rtnb.verify.probe import PROBES, Probe
from rtnb.verify.wire import SPENT, Different, NotTested

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Version of the JSON result."""
PROBE_S = 120.0
"""Longest time of a probe. Chosen."""
MARKS = {"as documented": "✓", "different": "✗", "not tested": "–"}
"""Outcomes and their signs in the table."""
_ID = re.compile(r"\b(sess|conv|item|resp|event|call|rtc)_\w+")


@dataclass(frozen=True)
class Outcome:
    """Outcome of one probe."""

    probe: str
    outcome: str
    """``as documented``, ``different`` or ``not tested``."""
    statement: str
    source: str
    came: str = ""
    expected: str = ""
    reason: str = ""
    seconds: float = 0.0


@dataclass
class Result:
    """Outcomes of all probes against one target."""

    target: str
    dialect: str
    date: str
    outcomes: list[Outcome] = field(default_factory=list)
    usd: float = 0.0
    """Estimated cost."""

    @property
    def different(self) -> list[str]:
        """Names of the probes that found something else than documented."""
        return [one.probe for one in self.outcomes if one.outcome == "different"]

    def to_frame(self) -> pd.DataFrame:
        """Return the outcomes as a table, one row per probe."""
        import pandas as pd

        return pd.DataFrame([asdict(one) for one in self.outcomes]).set_index("probe")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result as JSON; it holds no key."""
        Path(path).write_text(redact(json.dumps({"rtnb_verify": FORMAT, **asdict(self)}, indent=1)) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Result:
        """Read a file that `save` wrote.

        Raises
        ------
        RtnbError
            It cannot be read, is none, or of another version.
        """
        try:
            raw = json.loads(Path(path).read_text("utf-8"))
            if raw.pop("rtnb_verify") != FORMAT:
                raise RtnbError(f"{path} has another version; known is {FORMAT}")
            return cls(**{**raw, "outcomes": [Outcome(**one) for one in raw["outcomes"]]})
        except OSError as error:
            raise RtnbError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RtnbError(f"{path} is no result of rtnb verify: {error}") from error

    def __str__(self) -> str:
        lines = [f"{self.target}, {self.dialect}, {self.date}"]
        for one in self.outcomes:
            lines.append(f"{MARKS[one.outcome]} {one.probe:34} {one.outcome}")
            if one.outcome == "different":
                lines += [f"    came      {one.came}", f"    expected  {one.expected}", f"    source    {one.source}"]
            elif one.reason:
                lines.append(f"    {one.reason}")
        counts = Counter(one.outcome for one in self.outcomes)
        shares = ", ".join(f"{counts[outcome]} {outcome}" for outcome in MARKS)
        return "\n".join([*lines, f"{shares}; about ${self.usd:.3f}"])


def estimated_usd(target: Any, *, only: str = "") -> float:
    """Return what `verify` costs about at a target, at the price of gpt-realtime; 0 for a simulator."""
    return 0.0 if _free(target) else sum(probe.usd for probe in _chosen(target.dialect, only))


def _free(target: Any) -> bool:
    return bool(target.facts.service == "simulator")


def _chosen(dialect: str, only: str) -> list[Probe]:
    chosen = [probe for probe in PROBES if dialect in probe.dialects and probe.name.startswith(only)]
    if not chosen:
        groups = ", ".join(dict.fromkeys(probe.name.partition(".")[0] for probe in PROBES))
        raise RtnbError(f"no probe begins with {only!r}").with_hint(f"Probes begin with: {groups}.")
    return chosen


async def verify(
    target: Any, *, budget_usd: float = 0.5, only: str = "", dialect: Any = None, at_once: int = 1
) -> Result:
    """Check a service against the documented protocol.

    Parameters
    ----------
    target : str, Azure, OpenAI, Custom, Simulator
        As `rtnb.connect` takes it.
    budget_usd : float, default 0.5
        A probe that would pass this sum is not run. What was spent is computed from the usage that the service told, at
        the price of the model or of gpt-realtime.
    only : str, default ""
        Beginning of the names of the probes to run; empty runs all.
    dialect : {"ga", "preview"}, optional
        Where `target` is a text.
    at_once : int, default 1
        Probes at the same time, each with sessions of its own.

    Returns
    -------
    Result
        Printed, it is a table; `Result.save` writes JSON.

    Raises
    ------
    ConnectError
        The target cannot be reached, or refuses the key.
    RtnbError
        No probe begins with `only`.
    """
    where = resolve(target, dialect=dialect)
    chosen, free = _chosen(where.dialect, only), _free(where)
    price = find_price(where.model) or PRICES["gpt-realtime"]
    result = Result(str(where), where.dialect, datetime.date.today().isoformat())
    gate = asyncio.Semaphore(at_once)

    async def run(probe: Probe) -> Outcome:
        async with gate:
            if not free and result.usd + probe.usd > budget_usd:
                return _outcome(probe, "not tested", reason="the budget is used up")
            spent: list[Any] = []
            SPENT.set(spent)
            result.usd += probe.usd  # set aside, since others run meanwhile
            outcome = await _run(probe, where)
            if free or (spent and all(spent)):
                cost = sum(0.0 if free else estimate_usd(usage, price) for usage in spent)
                result.usd = round(result.usd + cost - probe.usd, 6)
            bar.update()
            return outcome

    if isinstance(where, Shared):
        await where.acquire()
    try:
        await (await where.open()).close()  # a target that cannot be reached is no difference
        with tqdm(total=len(chosen), desc="verify", unit="probe") as bar:
            result.outcomes += await asyncio.gather(*map(run, chosen))
    finally:
        if isinstance(where, Shared):
            await where.release()
    return result


async def _run(probe: Probe, target: Any) -> Outcome:
    start, outcome, more = monotonic(), "as documented", {}
    try:
        async with asyncio.timeout(PROBE_S):
            await probe.run(target)
    except (NotTested, RateLimited, aiohttp.ClientError) as missing:
        outcome, more = "not tested", {"reason": redact(str(missing))}
    except Exception as error:
        # What a probe cannot read is a difference as well: it was written for the documented shape. No error of one
        # probe ends the others, which may have cost money.
        if not isinstance(error, Different):
            late = isinstance(error, TimeoutError)
            came = f"no end within {PROBE_S:g} s" if late else f"{type(error).__name__}: {error}"
            error = Different(came, probe.statement)
        outcome, more = "different", {"came": redact(error.came)[:400], "expected": redact(error.expected)[:400]}
    return _outcome(probe, outcome, seconds=monotonic() - start, **more)


def _outcome(probe: Probe, outcome: str, *, seconds: float = 0.0, **more: str) -> Outcome:
    return Outcome(probe.name, outcome, probe.statement, probe.source, seconds=round(seconds, 2), **more)


def compare(first: Result, second: Result) -> list[tuple[str, str, str]]:
    """Return the probes whose outcome differs between two results: name, first, second; ids do not count."""
    outcomes: Sequence[dict[str, str]] = [
        {one.probe: one.outcome + (one.came and ": " + _ID.sub(r"\1_…", one.came)) for one in result.outcomes}
        for result in (first, second)
    ]
    names = sorted(set(outcomes[0]) | set(outcomes[1]))
    pairs = [(name, *(found.get(name, "not run") for found in outcomes)) for name in names]
    return [(name, one, other) for name, one, other in pairs if one != other]
