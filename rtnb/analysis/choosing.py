"""Which turn detection settings to take, by evidence: `recommend`.

The rule: of the settings whose cut-offs are **shown** to be within the budget (the upper end of the interval, not the
estimate), take the fastest; among those as fast up to one standard error, the nearest to the default. Picking the best
of many by the turns it is judged by flatters it, so the whole choice is repeated on bootstrap draws and judged by the
turns each draw left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rtnb.analysis.bootstrap import (
    draw_weights,
    most_events,
    share_interval,
    turns_needed,
    weighted_counts,
    weighted_quantiles,
)
from rtnb.analysis.phases import is_frame_phase
from rtnb.analysis.recommendation import Budget, Candidate, Recommendation
from rtnb.analysis.sweep_result import CLIPPED_MS, Sweep
from rtnb.errors import AudioError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import FRAME_MS

_FEW_GROUPS = 8
"""With fewer recordings, turns are drawn one by one: so few groups tell nothing about their spread (chosen)."""
_RESOLUTION_MS = 320
"""The best silence is identified where 90 % of the draws agree on it to this (chosen: ten frames)."""
_NEAR = (0.1, 100.0)
"""Threshold and silence (ms) that count as one step away from the default (chosen)."""


def recommend(
    sweep: Sweep | Sequence[Sweep],
    *,
    max_cut_off: float = 0.1,
    max_false_triggers_per_h: float = 30.0,
    max_missed: float = 0.05,
    max_no_fire: float = 0.05,
    default: ServerVad | None = None,
    confidence: float = 0.9,
    n_draws: int = 1000,
    seed: int = 0,
) -> Recommendation:
    """Choose turn detection settings from a sweep: the fastest that are shown to cut off few enough turns.

    A smaller `max_cut_off` cuts fewer speakers off, answers later, and takes more turns to show.

    Parameters
    ----------
    sweep : Sweep or sequence of Sweep
        From `rtnb.sweep`, best with ``conditions=FRAME_PHASES``: where in a frame a word begins is chance, and the
        choice should not depend on it. Several sweeps are taken for the same recordings at several frame phases.
    max_cut_off : float, default 0.1
        At most this share of the turns may be ended in a pause (chosen).
    max_false_triggers_per_h : float, default 30
        At most so many starts per hour without speech (chosen); not judged where no such audio was recorded.
    max_missed, max_no_fire : float, default 0.05
        At most this share of the turns may go unheard, or never end (a setting that never ends a turn cuts none off).
    default : ServerVad, optional
        What to compare with. None: the service's own, threshold 0.5 and 200 ms.
    confidence : float, default 0.9
        Of all intervals, two-sided.
    n_draws : int, default 1000
        Bootstrap draws.
    seed : int, default 0
        Same seed, same answer.

    Returns
    -------
    Recommendation
        Its `turn_detection` is ready for ``session.update``; its repr says all that is known.

    Raises
    ------
    AudioError
        No turns, several conditions, sweeps of different grids, or the default is not on the grid.

    References
    ----------
    One-standard-error rule: L. Breiman et al., Classification and Regression Trees (1984), section 3.4.3.
    Out-of-bag estimates: B. Efron and R. Tibshirani, JASA 92 (1997), 548–560.

    Examples
    --------
    >>> from rtnb.analysis import practice, sweep
    >>> from rtnb.audio import babble
    >>> turns = practice.thinking_aloud([babble("well").audio, babble("four").audio], rate_hz=24_000, n_turns=8)
    >>> print(recommend(sweep(turns, cache=False, progress=False)).verdict)
    Not identifiable: 8 turns cannot show at most 10 % of turns cut off. Record ... more turns.
    """
    table = _Table(list(sweep) if isinstance(sweep, Sequence) else _phases(sweep), confidence)
    budget = Budget(max_cut_off, max_false_triggers_per_h, max_missed, max_no_fire, confidence)
    base = table.find(SERVER_VAD_DEFAULTS if default is None else default)
    draws = _Draws(table, n_draws=n_draws, seed=seed)
    allowed = table.within(budget)
    sure = allowed & table.shown(budget) & (np.mean(draws.cut_off <= max_cut_off, axis=0) >= (1 + confidence) / 2)
    chosen = _choose(table, draws, sure, base) if sure.any() else None
    unseen = _Unseen(table, draws, allowed, base, budget)
    front = table.front(allowed) if allowed.any() else table.front(np.ones_like(allowed))
    described = {c: draws.candidate(c, budget) for c in {base, *front, base if chosen is None else chosen}}
    more_turns = _more_turns(table, unseen, budget, allowed, chosen)
    return Recommendation(
        choice=None if chosen is None else described[chosen],
        default=described[base],
        front=tuple(described[c] for c in front),
        budget=budget,
        n_turns=table.n_turns,
        n_recordings=table.n_recordings,
        n_phases=table.n_phases,
        n_draws=n_draws,
        drawn="recordings" if draws.grouped else "turns",
        unseen_cut_off=unseen.interval(unseen.cut_off),
        fastest_silence_ms=unseen.interval(table.silence_ms[unseen.config])[1:],
        fastest_threshold=unseen.interval(table.threshold[unseen.config])[1:],
        chosen_in_draws=len(unseen.config) / n_draws,
        beats_default=unseen.beats_default if chosen is not None and chosen != base else None,
        identifiable=chosen is not None and more_turns == 0,
        more_turns=more_turns,
        longest_silence_ms=int(table.silence_ms.max()),
    )


def _phases(sweep: Sweep) -> list[Sweep]:
    """One sweep per frame phase."""
    conditions = list(dict.fromkeys(sweep.conditions))
    if len(conditions) == 1:
        return [sweep]
    if other := [name for name in conditions if not is_frame_phase(name)]:
        raise AudioError(
            f"the sweep has {len(conditions)} conditions, of which these change the sound: {other}"
        ).with_hint(
            "Choose for one of them: recommend(sweep.only(…)); the same turns heard twice are not twice the turns."
        )
    return [sweep.only(name) for name in conditions]


class _Table:
    """All settings in a row (threshold by threshold), all turns of all phases in a row (phase by phase)."""

    def __init__(self, sweeps: list[Sweep], confidence: float) -> None:
        first = sweeps[0]
        for other in sweeps[1:]:
            if other.cut_off.shape != first.cut_off.shape or not np.allclose(other.thresholds, first.thresholds):
                raise AudioError("the sweeps differ in their grids or turns").with_hint(
                    "Sweep the same recordings with the same thresholds and silences, only the phase may differ."
                )
        self.n_phases, self.n_turns = len(sweeps), first.cut_off.shape[2]
        if self.n_turns == 0:
            raise AudioError("the sweep has no turns: nothing to choose by").with_hint("Record some speech.")
        self.confidence = confidence
        self.groups = np.unique(first.recordings, return_inverse=True)[1][first.turn_recording]  # one name, one cluster
        self.n_recordings = len(np.unique(self.groups))
        n_thresholds, n_silences = first.cut_off.shape[:2]
        self.threshold = np.repeat(first.thresholds, n_silences)
        self.silence_ms = np.tile(first.silences_ms, n_thresholds)
        rows = n_thresholds * n_silences
        self.cut_off = np.concatenate([s.cut_off.reshape(rows, -1) for s in sweeps], axis=1)
        delay_ms = np.concatenate([s.delay_ms.reshape(rows, -1) for s in sweeps], axis=1)
        self.delay_ms = np.where(np.isnan(delay_ms), np.inf, delay_ms).astype(np.float32)
        self.missed = np.repeat(np.mean([s.missed.mean(axis=1) for s in sweeps], axis=0), n_silences)
        starts = np.mean([s.false_triggers.sum(axis=2) for s in sweeps], axis=0)
        # A lower threshold hears all that a higher one hears: where it starts less often, it is because it never stops.
        self.false_triggers = np.maximum.accumulate(starts[::-1], axis=0)[::-1].ravel()
        self.non_speech_h = float(np.sum(first.non_speech_h))
        self.clipped = np.mean([s.clipped_ms > CLIPPED_MS for s in sweeps], axis=0).mean(axis=2)  # (T, P)
        self.clipped = np.repeat(self.clipped, n_silences, axis=0)
        self.prefixes_ms = first.prefixes_ms
        self.mean_cut_off = self.cut_off.mean(axis=1)
        self.no_fire = np.isinf(self.delay_ms).mean(axis=1)
        even = np.ones((1, self.cut_off.shape[1]), np.float32)
        self.p90_ms = _delay_quantiles(self, even, share=0.9)[0]

    def find(self, wanted: ServerVad) -> int:
        silence_ms = -int(-float(wanted.silence_duration_ms or 0) // FRAME_MS) * FRAME_MS  # whole frames, rounded up
        at = np.isclose(self.threshold, float(wanted.threshold or 0)) & (self.silence_ms == silence_ms)
        if not at.any():
            raise AudioError(
                f"the sweep does not hold the default, threshold {wanted.threshold} and {silence_ms} ms of silence: "
                "nothing can be compared with it"
            ).with_hint("Add it to the thresholds and silences of the sweep, or pass another default=.")
        return int(at.argmax())

    def counts(self) -> npt.NDArray[np.int64]:
        """Turns cut off, the mean over the phases, rounded up."""
        counts: npt.NDArray[np.int64] = np.ceil(self.mean_cut_off * self.n_turns - 1e-6).astype(np.int64)
        return counts

    def shown(self, budget: Budget) -> npt.NDArray[np.bool_]:
        return self.counts() <= most_events(self.n_turns, share=budget.max_cut_off, confidence=self.confidence)

    def within(self, budget: Budget) -> npt.NDArray[np.bool_]:
        """Where the constraints hold, cut-offs aside."""
        quiet = self.false_triggers <= budget.max_false_triggers_per_h * self.non_speech_h + 1e-9
        allowed: npt.NDArray[np.bool_] = quiet & (self.missed <= budget.max_missed)
        allowed &= self.no_fire <= budget.max_no_fire
        return allowed

    def front(self, allowed: npt.NDArray[np.bool_]) -> list[int]:
        """Settings that none other beats in both cut-offs and delay, fastest first."""
        order = np.lexsort((self.mean_cut_off, self.p90_ms))
        order = order[allowed[order] & np.isfinite(self.p90_ms[order])]
        least = np.minimum.accumulate(np.concatenate([[np.inf], self.mean_cut_off[order]]))
        return [int(c) for c, before in zip(order, least[:-1], strict=True) if self.mean_cut_off[c] < before]

    def prefix(self, config: int, default_ms: int = 300) -> tuple[int, float]:
        """The shortest prefix padding, from the default on, that clips as few onsets as any, and how many it clips."""
        clipped = self.clipped[config]
        usable = np.flatnonzero(self.prefixes_ms >= default_ms)
        if not len(usable):
            usable = np.array([int(self.prefixes_ms.argmax())])
        few = max(0.05, float(clipped[usable].min()))
        best = next(i for i in usable[np.argsort(self.prefixes_ms[usable])] if clipped[i] <= few)
        return int(self.prefixes_ms[best]), float(clipped[best])


class _Draws:
    """Every setting on every draw."""

    def __init__(self, table: _Table, *, n_draws: int, seed: int) -> None:
        self._table = table
        self.grouped = table.n_recordings >= _FEW_GROUPS
        groups = table.groups if self.grouped else np.arange(table.n_turns)
        self.weights = draw_weights(groups, n_phases=table.n_phases, n_draws=n_draws, seed=seed)
        self.n = self.weights.sum(axis=1)
        self.counts = weighted_counts(table.cut_off, self.weights)
        self.cut_off = self.counts / self.n[:, None]
        self.p90_ms = _delay_quantiles(table, self.weights, share=0.9)

    def candidate(self, config: int, budget: Budget) -> Candidate:
        """All that is known about one setting."""
        table = self._table
        tails = [50 * (1 - table.confidence), 50 * (1 + table.confidence)]
        spread = np.percentile(self.cut_off[:, config], tails)
        exact = share_interval(int(table.counts()[config]), table.n_turns, confidence=table.confidence)
        delays = np.percentile(self.p90_ms[:, config], tails, method="nearest")
        p50_ms = np.quantile(table.delay_ms[config], 0.5, method="inverted_cdf")
        prefix_ms, clipped = table.prefix(config)
        measured = table.non_speech_h > 0
        return Candidate(
            threshold=round(float(table.threshold[config]), 6),
            silence_duration_ms=int(table.silence_ms[config]),
            prefix_padding_ms=prefix_ms,
            n_turns=table.n_turns,
            cut_off=float(table.mean_cut_off[config]),
            cut_off_low=float(min(spread[0], exact[0])),
            cut_off_high=float(max(spread[1], exact[1])),
            delay_p50_ms=float(p50_ms),
            delay_p90_ms=float(table.p90_ms[config]),
            delay_p90_low_ms=float(delays[0]),
            delay_p90_high_ms=float(delays[1]),
            no_fire=float(table.no_fire[config]),
            missed=float(table.missed[config]),
            clipped=clipped,
            n_false_triggers=float(table.false_triggers[config]) if measured else None,
            non_speech_h=table.non_speech_h,
            broken=(),
        ).judged(budget)


class _Unseen:
    """The same choice made on every draw, judged by the turns the draw left out."""

    def __init__(self, table: _Table, draws: _Draws, allowed: npt.NDArray[np.bool_], base: int, budget: Budget) -> None:
        self.confidence = table.confidence
        most = {
            n: most_events(n, share=budget.max_cut_off, confidence=table.confidence)
            for n in np.unique(draws.n).astype(int)
        }
        limit = np.array([most[int(n)] for n in draws.n])
        speed = np.where((draws.counts <= limit[:, None]) & allowed, draws.p90_ms, np.inf)
        config = speed.argmin(axis=1)
        left_out = (draws.weights.reshape(len(speed), table.n_phases, -1).sum(axis=1) == 0).astype(np.float32)
        usable = np.isfinite(speed[np.arange(len(speed)), config]) & left_out.any(axis=1)
        self.config = config[usable]
        """The setting each draw chooses; draws that can choose none are left away."""
        self._left_out = left_out[usable]
        self.cut_off, p90_ms = self._judge(table, self.config)
        default_cut_off, default_p90_ms = self._judge(table, np.full_like(self.config, base))
        ok, default_ok = (share <= budget.max_cut_off for share in (self.cut_off, default_cut_off))
        better = np.where(ok == default_ok, np.where(ok, p90_ms < default_p90_ms, self.cut_off < default_cut_off), ok)
        self.beats_default = float(better.mean()) if len(better) else None

    def _judge(self, table: _Table, config: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Cut-offs and P90 delay of one setting per draw, on the turns left out, all phases alike."""
        by_phase = (len(table.cut_off), table.n_phases, table.n_turns)
        left_out = self._left_out
        cut_off = (table.cut_off.reshape(by_phase).mean(axis=1)[config] * left_out).sum(axis=1) / left_out.sum(axis=1)
        p90_ms = np.empty(len(config), np.float32)
        for each in np.unique(config):
            rows = np.flatnonzero(config == each)
            weights = np.tile(left_out[rows], (1, table.n_phases))
            p90_ms[rows] = weighted_quantiles(table.delay_ms[each : each + 1], weights, share=0.9)[:, 0]
        return cut_off, p90_ms

    def interval(self, values: npt.NDArray[Any]) -> tuple[float, float, float] | tuple[()]:
        """Mean, low and high over the draws; empty where no draw could choose."""
        if not len(values):
            return ()
        low, high = np.percentile(values, [50 * (1 - self.confidence), 50 * (1 + self.confidence)], method="nearest")
        return float(values.mean()), float(low), float(high)


def _delay_quantiles(table: _Table, weights: npt.NDArray[np.float32], *, share: float) -> npt.NDArray[np.float32]:
    """For all settings. A longer silence only shifts the delays of a threshold, so few rows are really different."""
    base = np.round(table.delay_ms - table.silence_ms[:, None].astype(np.float32), 2)
    rows = np.ascontiguousarray(base).view([("", base.dtype, base.shape[1])]).ravel()
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    quantiles = weighted_quantiles(base[first], weights, share=share)[:, inverse]
    quantiles += table.silence_ms.astype(np.float32)
    return quantiles


def _choose(table: _Table, draws: _Draws, sure: npt.NDArray[np.bool_], base: int) -> int:
    """Among the settings as fast as the fastest up to one standard error, the one nearest to the default."""
    fastest = int(np.where(sure, table.p90_ms, np.inf).argmin())
    finite = draws.p90_ms[np.isfinite(draws.p90_ms[:, fastest]), fastest]
    near = sure & (table.p90_ms <= table.p90_ms[fastest] + (finite.std() if len(finite) else 0.0))
    away = np.abs(table.threshold - table.threshold[base]) / _NEAR[0]
    away = away + np.abs(table.silence_ms - table.silence_ms[base]) / _NEAR[1]
    order = np.lexsort((table.p90_ms, np.round(away, 6)))
    return int(next(c for c in order if near[c]))


def _more_turns(
    table: _Table, unseen: _Unseen, budget: Budget, allowed: npt.NDArray[np.bool_], chosen: int | None
) -> int | None:
    """How many turns are missing: 0 none, None where more turns are not known to help."""
    if chosen is None:
        rate = float(table.mean_cut_off[allowed].min()) if allowed.any() else 1.0
        needed = turns_needed(rate, share=budget.max_cut_off, confidence=budget.confidence) if rate < 1 else None
        return None if needed is None else max(1, needed - table.n_turns)
    spread = unseen.interval(table.silence_ms[unseen.config])
    wide = (spread[2] - spread[1]) / _RESOLUTION_MS if spread else 0.0
    return 0 if wide <= 1 else int(np.ceil(table.n_turns * (wide**2 - 1)))  # a spread shrinks with the root of n
