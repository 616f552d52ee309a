"""Check of the promises of `rtnb.recommend`: ``python -m tests.benchmarks.coverage`` (``--runs 60``: quick)

Simulates recordings whose true rates are known, chooses a setting from each, and counts: how often a setting is shown,
how often a shown one is over budget in truth (with the upper 95 % bound of that rate), and how often each interval
called 90 % holds the truth. Bars: at most 5 % over budget, bound at most 7 %; at least 88 % covered; with 20 recordings
of 10 independent turns and a setting at 4 % true cut-offs, shown in at least 80 %. Everything is seeded.

A turn has a longest pause, exponential around its speaker's own mean; turns of a group share the mean, so they resemble
each other. Each threshold measures the pause with its own noise, so the best of many settings is also the luckiest.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

from rtnb.analysis.intervals import clopper_pearson
from rtnb.analysis.recommendation import Budget, Candidate, recommend, recordings_needed
from rtnb.analysis.sweeping import SILENCES_MS, THRESHOLDS, Sweep
from rtnb.vad import FRAME_MS
from tests.analysis.grids import ROOMS, swept
from tests.benchmarks.stage import judged, options, print_table

BUDGET = 0.1
ROOM_H = 0.05
"""Length of each recording without speech."""


@dataclass(frozen=True)
class Scenario:
    """Recipe for recordings; the grid has 782 settings unless it is small."""

    name: str
    groups: int
    per_group: int
    spread: float = 0.5
    """Standard deviation between groups, of the log of the mean pause."""
    pause_ms: float = 150.0
    floor: float = 0.0
    """Share of turns that every setting cuts off."""
    only_floor: bool = False
    """Whether one setting cuts off just those, and every other one 40 %."""
    rare: float = 0.0
    """Share of turns that are missed, and of turns that never end, at each threshold of 0.5 and more."""
    speakers: bool = False
    """Whether a group is a speaker with a recording for each turn."""
    uneven: float = 0.0
    """Squared coefficient of variation of the rates of false triggers, room by room."""
    small: bool = False
    """Three thresholds and 12 silences instead of the whole grid."""

    @property
    def triggers_per_h(self) -> Any:
        """False triggers at each threshold, (T,)."""
        return np.where(self.grid()[0] < 0.3, 60.0, 6.0)

    def grid(self) -> tuple[Any, Any]:
        """Return thresholds and silences, ms."""
        if self.small:
            return np.array(THRESHOLDS[4:13:4]), np.array(SILENCES_MS[1::4])
        return np.array(THRESHOLDS), np.array(SILENCES_MS)


SCENARIOS = (
    Scenario("independent, 150 turns", 150, 1),
    Scenario("independent, 20 × 10", 20, 10, spread=0.0),
    Scenario("clustered, 6 × 25", 6, 25),
    Scenario("clustered, 10 × 15", 10, 15),
    Scenario("clustered, 20 × 10", 20, 10),
    Scenario("3 speakers × 50 turns", 3, 50, speakers=True),
    Scenario("rare events, 20 × 10", 20, 10, rare=0.01),
    Scenario("rare cut-offs, 15 × 10", 15, 10, pause_ms=60.0),
    Scenario("uneven rooms, 20 × 10", 20, 10, pause_ms=100.0, uneven=1.0),
    Scenario("36 settings, 12 × 12", 12, 12, small=True),
)
POWER = (
    Scenario("power: one setting at 4 %", 20, 10, spread=0.0, floor=0.04, only_floor=True),
    Scenario("power: many settings at 4 %", 20, 10, spread=0.0, floor=0.04),
)


def speak(scenario: Scenario, rng: np.random.Generator, group: Any) -> tuple[Any, Any]:
    """Return the longest pause and the fade of each turn at each threshold, ms, shape (T, n_turns)."""
    thresholds, n, n_groups = scenario.grid()[0], len(group), int(group[-1]) + 1
    mean_ms = scenario.pause_ms * np.exp(scenario.spread * rng.standard_normal(n_groups) - scenario.spread**2 / 2)
    longest_ms = rng.exponential(mean_ms[group]) + 160 * (thresholds - 0.5)[:, None]
    fade_ms = np.abs(120 + 50 * rng.standard_normal(n) + 25 * rng.standard_normal(n_groups)[group])
    reach_ms = longest_ms + 40 * rng.standard_normal((len(thresholds), n))
    return reach_ms, np.maximum(fade_ms - 150 * (thresholds - 0.5)[:, None], 0)


def overhear(scenario: Scenario, rng: np.random.Generator) -> Any:
    """Return the false triggers of each threshold in each room, shape (T, ROOMS)."""
    loudness = rng.gamma(1 / scenario.uneven, scenario.uneven, ROOMS) if scenario.uneven else np.ones(ROOMS)
    rates = scenario.triggers_per_h  # a low threshold detects all that a high one does, and more
    more = rng.poisson((rates.max() - rates.min()) * loudness * ROOM_H)
    return rng.poisson(rates.min() * loudness * ROOM_H) + (rates > rates.min())[:, None] * more


def simulate(scenario: Scenario, seed: int) -> Sweep:
    """Make a sweep of a scenario."""
    rng = np.random.default_rng(seed)
    thresholds, silence_ms = scenario.grid()
    n = scenario.groups * scenario.per_group
    group = np.arange(n) // scenario.per_group
    reach_ms, fade_ms = speak(scenario, rng, group)
    cut_off = reach_ms[:, None] >= silence_ms[:, None]
    always = rng.random(n) < scenario.floor
    if scenario.only_floor:
        cut_off = rng.random(cut_off.shape) < 0.4
        cut_off[8, 20] = always
    elif scenario.floor:
        cut_off |= always
    delay_ms = fade_ms[:, None] + silence_ms[:, None]
    high = (thresholds >= 0.5)[:, None]
    missed = high & (rng.random(n) < scenario.rare)
    delay_ms = np.where((high & (rng.random(n) < scenario.rare))[:, None], np.nan, delay_ms)
    recording = np.arange(n) if scenario.speakers else group
    n_recordings = int(recording.max()) + 1 + ROOMS  # the last ones hold room tone
    false = np.zeros((len(thresholds), len(silence_ms), n_recordings), int)
    false[..., -ROOMS:] = overhear(scenario, rng)[:, None]
    speaker = group[np.unique(recording, return_index=True)[1]]
    return swept(
        thresholds=thresholds,
        silence_frames=silence_ms // FRAME_MS,
        cut_off=cut_off,
        delay_ms=delay_ms,
        missed=missed,
        false_triggers=false,
        turn_recording=recording,
        speakers=np.array([f"speaker {k}" * scenario.speakers for k in speaker] + [""] * ROOMS),
        room_h=ROOM_H,
    )


@cache
def truth(scenario: Scenario) -> dict[str, Any]:
    """Rates and delays of every setting by 100,000 turns, each of a group of its own."""
    thresholds, silence_ms = scenario.grid()
    n = 100_000
    reach_ms, fade_ms = speak(scenario, np.random.default_rng(987_654_321), np.arange(n))
    cut_off = np.array([1 - np.searchsorted(np.sort(row), silence_ms) / n for row in reach_ms])
    cut_off = scenario.floor + (1 - scenario.floor) * cut_off
    if scenario.only_floor:
        cut_off = np.full(cut_off.shape, 0.4)
        cut_off[8, 20] = scenario.floor
    never = scenario.rare * (thresholds >= 0.5)
    levels = np.array([0.5, 0.9])[:, None] / (1 - never)  # those that never end are the slowest
    ordered = np.sort(fade_ms, axis=1)
    at = np.ceil(levels * n).astype(int) - 1
    quantiles = np.take_along_axis(ordered.T, at, axis=0)
    return {
        "cut_off": cut_off,
        "delay_ms": quantiles[:, :, None] + silence_ms,
        "never": never,
        "triggers": scenario.triggers_per_h,
        "thresholds": thresholds,
        "silences_ms": silence_ms,
    }


def at(one: Candidate, true: dict[str, Any]) -> tuple[int, int]:
    """Return the place of a setting in the grid."""
    t = np.abs(true["thresholds"] - one.threshold).argmin()
    return int(t), int(np.abs(true["silences_ms"] - one.silence_duration_ms).argmin())


def covered(one: Candidate, true: dict[str, Any]) -> dict[str, bool]:
    """Return whether each interval of a setting holds the truth."""
    t, s = at(one, true)
    p50, p90 = true["delay_ms"][:, t, s]
    return {
        "cut-offs": one.cut_off_low <= true["cut_off"][t, s] <= one.cut_off_high,
        "P50": one.delay_p50_low_ms <= p50 <= one.delay_p50_high_ms,
        "P90": one.delay_p90_low_ms <= p90 <= one.delay_p90_high_ms,
        "upper ends": true["never"][t] <= min(one.missed_high, one.no_fire_high),
        "false triggers": true["triggers"][t] <= one.false_triggers_high_per_h,
    }


def run(scenario: Scenario, seed: int) -> dict[str, Any]:
    """Choose once."""
    true = truth(scenario)
    answer = recommend(simulate(scenario, seed), max_cut_off=BUDGET, n_resamples=100, seed=seed)
    result: dict[str, Any] = {f"default {name}": ok for name, ok in covered(answer.default, true).items()}
    if answer.choice is not None:
        t, s = at(answer.choice, true)
        kept = true["cut_off"][t, s] <= BUDGET and true["never"][t] <= 0.05 and true["triggers"][t] <= 30
        result |= {f"choice {name}": ok for name, ok in covered(answer.choice, true).items()}
        result["over budget"] = not kept
    return result


def table(scenario: Scenario, n_runs: int, pool: ProcessPoolExecutor | None) -> dict[str, Any]:
    """Run a scenario so many times and count."""
    run_one = partial(run, scenario)
    results = list(pool.map(run_one, range(n_runs), chunksize=25) if pool else map(run_one, range(n_runs)))
    shown = [one for one in results if "over budget" in one]
    n_over = sum(one["over budget"] for one in shown)
    return {
        "shown": len(shown) / n_runs,
        "over": n_over / max(1, len(shown)),
        "over_bound": clopper_pearson(n_over, len(shown), confidence=0.9)[1],
        "coverage": pd.DataFrame(results, dtype=float).drop(columns="over budget", errors="ignore").mean().to_dict(),
    }


def suffices(rate: float, n_runs: int) -> float:
    """Return how often as many recordings as `recordings_needed` says are enough to show a setting."""
    n = recordings_needed(rate, Budget(BUDGET, 30.0, 0.05, 0.05, 0.9)) or 0
    one = Scenario("recordings needed", n, 1, spread=0.0, floor=rate, only_floor=True)
    return table(one, n_runs, None)["shown"]


def main() -> int:
    chosen = options(__doc__, runs=500)
    rows = {}
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        for scenario in (*SCENARIOS, *POWER):
            row = table(scenario, chosen.runs, pool)
            least = min(row["coverage"], key=row["coverage"].get)
            rows[scenario.name] = row | {"coverage": row["coverage"][least], "least_covered": least}
    print_table(rows, digits=3)
    enough = {rate: suffices(rate, max(1, chosen.runs // 4)) for rate in (0.0, 0.02, 0.04)}
    print("recordings_needed suffices:", ", ".join(f"{100 * share:.0f} % at {rate}" for rate, share in enough.items()))
    shown = [row for row in rows.values() if row["shown"]]
    return judged(
        {
            "not covered by an interval called 90 %": (1 - min(row["coverage"] for row in rows.values()), 0.12),
            "shown settings that are over budget": (max(row["over"] for row in shown), 0.05),
            "their upper 95 % bound": (max(row["over_bound"] for row in shown), 0.07),
            "one setting at 4 %: not shown": (1 - rows[POWER[0].name]["shown"], 0.2),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
