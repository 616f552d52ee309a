"""Turn detection settings chosen by evidence: `recommend`, and what is known about each setting.

The rule: of the settings whose cut-offs, missed turns, never-ending turns and false triggers are all **shown** to be
within the budgets (the upper ends of their intervals, not the estimates), take the fastest. Among those as fast up to
one frame, take the nearest to the default. Picking the best of many settings by the turns it is judged by flatters it.
So the same choice is made on bootstrap resamples and judged by the recordings each resample left out. The upper end is
raised by half of the optimism found there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.analysis.conditions import is_frame_phase
from rtnb.analysis.intervals import (
    FEW_GROUPS,
    clopper_pearson,
    effective_turns,
    few_groups_factor,
    most_events,
    poisson_upper,
    resample_weights,
    turns_needed,
    weighted_quantiles,
)
from rtnb.analysis.sweeping import CLIPPED_MS, Sweep
from rtnb.errors import AudioError, RtnbError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import FRAME_MS

if TYPE_CHECKING:
    import pandas as pd

_Float = npt.NDArray[np.float64]
_Bool = npt.NDArray[np.bool_]

_OPTIMISM: Final = 0.5
"""Share of the optimism by which upper ends are raised. Chosen by simulation (tests/benchmarks/coverage.py): none
leaves up to 9 % of choices over budget, all of it shows half of the settings that are good enough."""
_NEAR: Final = (0.1, 100.0)
"""Threshold and silence (ms) that count as one step away from the default (chosen)."""
_ROLES: Final = ("choice", "default", "alternative", "front")


@dataclass(frozen=True)
class Budget:
    """What a setting may cost."""

    max_cut_off: float
    """Share of turns ended in a pause."""
    max_false_triggers_per_h: float
    """Starts per hour without speech."""
    max_missed: float
    """Share of turns without a start."""
    max_no_fire: float
    """Share of turns that never end."""
    confidence: float
    """Of all intervals, two-sided."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Setting with its estimates; ends of intervals are named ``_low`` and ``_high``."""

    threshold: float
    silence_duration_ms: int
    """Whole frames of 32 ms; the service rounds to them."""
    prefix_padding_ms: int
    """The shortest of the sweep, 300 ms or more, that clips few onsets."""
    n_turns: int
    """Turns of the sweep."""
    n_seen: int
    """Turns whose ending is long enough for this silence: delays and never-ending turns are of these."""
    cut_off: float
    """Share of turns ended in a pause, the mean over the frame phases."""
    cut_off_low: float
    cut_off_high: float
    """Korn and Graubard's interval; the upper end is raised by what the search over settings hides."""
    delay_p50_ms: float
    """From the true end of a turn to the service's decision, the median turn; infinite where most never end."""
    delay_p50_low_ms: float
    delay_p50_high_ms: float
    """Woodruff's interval: the quantiles at the ends of the interval of the share."""
    delay_p90_ms: float
    """The same for the slowest tenth of the turns."""
    delay_p90_low_ms: float
    delay_p90_high_ms: float
    no_fire: float
    """Share of the seen turns that never end; NaN where none is seen."""
    no_fire_high: float
    missed: float
    """Share of turns without a start."""
    missed_high: float
    clipped: float
    """Share of turns that lose more than 50 ms of their onset."""
    n_false_triggers: float | None
    """Starts in audio without speech, at least as many as at any higher threshold (where a lower one starts less often,
    it never stops); None where there was no such audio."""
    false_triggers_high_per_h: float
    """Upper end of their rate; infinite where there was no such audio."""
    non_speech_h: float
    """Hours of audio without speech."""
    broken: tuple[str, ...]
    """Which budgets it breaks by its estimates."""
    not_shown: tuple[str, ...]
    """Which budgets the upper ends do not show it to keep."""

    @property
    def turn_detection(self) -> ServerVad:
        """The setting for ``session.update(turn_detection=…)``."""
        return ServerVad(
            threshold=self.threshold,
            silence_duration_ms=self.silence_duration_ms,
            prefix_padding_ms=self.prefix_padding_ms,
        )

    @property
    def false_triggers(self) -> str:
        """Rate, its upper end and what it was counted in."""
        if self.n_false_triggers is None:
            return "not measured"
        rate, minutes = self.n_false_triggers / self.non_speech_h, 60 * self.non_speech_h
        return (
            f"{rate:.3g}/h (at most {self.false_triggers_high_per_h:.3g}/h; {self.n_false_triggers:g} in "
            f"{minutes:.3g} min)"
        )

    def __str__(self) -> str:
        spread = f"{_ms(self.delay_p90_low_ms)}–{_ms(self.delay_p90_high_ms)}"
        return (
            f"{_settings(self)}: {100 * self.cut_off:.1f} % cut off "
            f"({100 * self.cut_off_low:.1f}–{100 * self.cut_off_high:.1f} %), "
            f"delay {_ms(self.delay_p50_ms)}, P90 {_ms(self.delay_p90_ms)} ({spread}), n={self.n_turns}"
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class Recommendation:
    """A setting and the evidence for it, or why there is none; print it to read both."""

    choice: Candidate | None
    """None where no setting is shown to meet the budgets."""
    default: Candidate
    """What it is compared with."""
    front: tuple[Candidate, ...]
    """The settings that none other beats in both cut-offs and delay, fastest first."""
    budget: Budget
    n_turns: int
    n_recordings: int
    n_groups: int
    """Groups of turns that resemble each other: speakers where they are named, otherwise recordings."""
    n_phases: int
    """Frame phases of the sweep."""
    n_resamples: int
    out_of_bag: float
    """Share of cut-offs among recordings that a choice was not made by, the mean over the resamples; NaN with one
    group."""
    optimism: float
    """By how much that is more than the share the choice was made by."""
    resampled_silence_ms: tuple[float, ...]
    """Between which silences nine of ten of the resamples' choices lie; empty where none is shown in any."""
    always_broken: tuple[str, ...]
    """Budgets that every setting breaks by its estimates."""
    share_clean: float
    """Share of the settings that cut off no turn of the sweep."""
    advice: tuple[str, ...]
    """What to do next, most useful first."""

    @property
    def turn_detection(self) -> ServerVad:
        """The chosen settings, for ``session.update(turn_detection=…)``.

        Raises
        ------
        RtnbError
            No setting is shown to meet the budgets: the message says what to do.
        """
        if self.choice is None:
            raise RtnbError(self.verdict).with_hint(self.advice[0])
        return self.choice.turn_detection

    @property
    def alternatives(self) -> tuple[Candidate, ...]:
        """The next on the front on either side of the choice: faster with more cut-offs, slower with fewer."""
        if self.choice is None:
            return self.front[-2:]
        own = (self.choice.delay_p90_ms, self.choice.cut_off)
        faster = [c for c in self.front if c.delay_p90_ms < own[0] and c.cut_off > own[1]]
        slower = [c for c in self.front if c.delay_p90_ms > own[0] and c.cut_off < own[1]]
        return (*faster[-1:], *slower[:1])

    @property
    def verdict(self) -> str:
        """The answer in one or two sentences."""
        budget, n = f"at most {100 * self.budget.max_cut_off:g} % of turns cut off", _counted(self.n_turns, "turn")
        if self.choice is not None:
            verb = "Keep the default" if self.choice == self.default else "Take"
            comma = "," * (self.choice == self.default)
            groups = f"{n} in {_counted(self.n_recordings, 'recording')}"
            return f"{verb}{comma} {_settings(self.choice)}: {budget} is shown by {groups}."
        least = min(self.front, key=lambda c: c.cut_off) if self.front else self.default
        if least.cut_off > self.budget.max_cut_off:
            return f"No setting keeps {budget} in these {n}: the least is {100 * least.cut_off:.1f} %."
        if self.always_broken:
            return f"No setting keeps the budgets in these {n}: each breaks that of {' and '.join(self.always_broken)}."
        if self.n_groups < FEW_GROUPS:
            noun = "recording" if self.n_groups == self.n_recordings else "speaker"
            why = f"{_counted(self.n_groups, noun)}, at least {FEW_GROUPS} are needed"
        else:
            why = f"{n} in {_counted(self.n_recordings, 'recording')} leave open: {', '.join(least.not_shown)}"
        clean = f"{100 * self.share_clean:.0f} % of the settings cut off none of these {n}"
        return f"Not shown: {why}. {clean}."

    def to_frame(self) -> pd.DataFrame:
        """Return the choice, the default, the alternatives and the front as a table, one row per setting and role."""
        import pandas as pd

        roles: dict[Candidate, list[str]] = {}
        for role, candidates in zip(_ROLES, self._roles(), strict=True):
            for candidate in candidates:
                roles.setdefault(candidate, []).append(role)
        return pd.DataFrame([{"role": ", ".join(role), **asdict(candidate)} for candidate, role in roles.items()])

    def _roles(self) -> tuple[tuple[Candidate, ...], ...]:
        choice = () if self.choice is None else (self.choice,)
        return choice, (self.default,), self.alternatives, self.front

    def _facts(self) -> list[tuple[str, str]]:
        rows = zip(_ROLES[:3], self._roles(), strict=False)
        facts = [(role, str(candidate)) for role, candidates in rows for candidate in candidates]
        if self.choice is not None:
            facts.append(("false triggers", f"{self.choice.false_triggers}; default {self.default.false_triggers}"))
        if not np.isnan(self.out_of_bag):
            text = f"{100 * self.out_of_bag:.1f} % cut off in the recordings that a choice was not made by"
            facts.append(("out of bag", text))
        if self.resampled_silence_ms:
            low, high = self.resampled_silence_ms
            facts.append(("resamples", f"nine of ten choose a silence of {low:.0f} to {high:.0f} ms"))
        phases = _counted(self.n_phases, "frame phase")
        groups = "recordings" if self.n_groups == self.n_recordings else f"{self.n_groups} speakers"
        basis = f"{self.n_turns} turns in {self.n_recordings} recordings at {phases}"
        interval = f"{100 * self.budget.confidence:g} % intervals (shares: Korn and Graubard, delays: Woodruff)"
        facts.append(("basis", f"{basis}; {interval}; {self.n_resamples} resamples of {groups}"))
        return [*facts, *(("next", line) for line in self.advice)]

    def __repr__(self) -> str:
        return "\n".join([self.verdict, *(f"  {name + ':':18} {text}" for name, text in self._facts())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._facts()
        )
        return f"<p><b>{escape(self.verdict)}</b></p><table>{rows}</table>"


def recommend(
    sweep: Sweep | Sequence[Sweep],
    *,
    max_cut_off: float = 0.1,
    max_false_triggers_per_h: float = 30.0,
    max_missed: float = 0.05,
    max_no_fire: float = 0.05,
    default: ServerVad | None = None,
    confidence: float = 0.9,
    n_resamples: int = 200,
    seed: int = 0,
) -> Recommendation:
    """Choose turn detection settings from a sweep: the fastest that are shown to keep the budgets.

    A smaller `max_cut_off` cuts fewer speakers off, answers later, and takes more turns to show. At least 8 recordings
    are needed, or 8 speakers where `Recording.speaker` names them: turns of one recording resemble each other.

    Parameters
    ----------
    sweep : Sweep or sequence of Sweep
        From `rtnb.sweep`. With ``conditions=FRAME_PHASES`` it does not matter where in a frame a word begins.
        Several sweeps are taken for the same recordings at several frame phases.
    max_cut_off : float, default 0.1
        At most this share of the turns may be ended in a pause (chosen).
    max_false_triggers_per_h : float, default 30
        At most so many starts per hour without speech (chosen); not judged where no such audio was recorded.
    max_missed, max_no_fire : float, default 0.05
        At most this share of the turns may have no start, or never end (a setting that ends no turn cuts none off).
    default : ServerVad, optional
        What to compare with. None: the service's own, threshold 0.5 and 200 ms.
    confidence : float, default 0.9
        Of all intervals, two-sided.
    n_resamples : int, default 200
        Bootstrap resamples of recordings or speakers.
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
    Optimism and out-of-bag estimates: B. Efron and R. Tibshirani, JASA 92 (1997), 548–560.
    Intervals: `rtnb.analysis.intervals`; R. S. Woodruff, JASA 47 (1952), 635–646.

    Examples
    --------
    >>> from rtnb.analysis import sweep
    >>> from rtnb.analysis.recordings import thinking_aloud
    >>> from rtnb.audio import babble
    >>> turns = thinking_aloud([babble("well").audio, babble("four").audio], rate_hz=24_000, n_turns=8)
    >>> print(recommend(sweep(turns, cache=False, progress=False)).verdict)
    Not shown: 8 turns in 8 recordings leave open: cut-offs... % of the settings cut off none of these 8 turns.
    """
    budget = Budget(max_cut_off, max_false_triggers_per_h, max_missed, max_no_fire, confidence)
    sweeps = list(sweep) if isinstance(sweep, Sequence) else _phases(sweep)
    evidence = _Evidence(sweeps, budget, SERVER_VAD_DEFAULTS if default is None else default)
    whole = np.ones((1, evidence.n_groups))
    resamples = resample_weights(evidence.n_groups, n_resamples=n_resamples, seed=seed)
    chosen, shown = evidence.choose(resamples)
    out_of_bag, optimism = evidence.out_of_bag(resamples, chosen)
    (best,), (is_shown,) = evidence.choose(whole, optimism=optimism)
    is_shown = bool(is_shown) and out_of_bag <= max_cut_off
    front = evidence.front()
    raised = {c: evidence.candidate(c, optimism) for c in (*front, int(best))}
    base = raised[int(best)] if is_shown and best == evidence.base else evidence.candidate(evidence.base, 0.0)
    silence_ms = evidence.silence_ms[chosen[shown]]
    choice = raised[int(best)] if is_shown else None
    return Recommendation(
        choice=choice,
        default=base,
        front=tuple(raised[c] for c in front),
        budget=budget,
        n_turns=evidence.n_turns,
        n_recordings=evidence.n_recordings,
        n_groups=evidence.n_groups,
        n_phases=len(sweeps),
        n_resamples=n_resamples,
        out_of_bag=out_of_bag,
        optimism=optimism,
        resampled_silence_ms=tuple(np.percentile(silence_ms, [5, 95], method="nearest")) if len(silence_ms) else (),
        always_broken=evidence.always_broken(),
        share_clean=float(np.mean(evidence.cut.sum(axis=0) == 0)),
        advice=_advice(sweeps[0], evidence, raised[int(best)], is_shown),
    )


def _phases(sweep: Sweep) -> list[Sweep]:
    """Return one sweep per frame phase."""
    conditions = list(dict.fromkeys(sweep.conditions))
    if len(conditions) == 1:
        return [sweep]
    if other := [name for name in conditions if not is_frame_phase(name)]:
        raise AudioError(
            f"the sweep has {len(conditions)} conditions, of which these change the audio: {other}"
        ).with_hint(
            "Choose for one of them, recommend(sweep.only(…)): turns under two conditions are not twice the turns."
        )
    return [sweep.only(name) for name in conditions]


class _Evidence:
    """Events of all settings (in rows, threshold by threshold), by group; phases of a turn count as one turn."""

    def __init__(self, sweeps: list[Sweep], budget: Budget, default: ServerVad) -> None:
        first = sweeps[0]
        for other in sweeps[1:]:
            if other.cut_off.shape != first.cut_off.shape or not np.allclose(other.thresholds, first.thresholds):
                raise AudioError("the sweeps differ in their grids or turns").with_hint(
                    "Sweep the same recordings with the same thresholds and silences, only the phase may differ."
                )
        self.n_turns = first.n_turns
        if self.n_turns == 0:
            raise AudioError("the sweep has no turns: nothing to choose by").with_hint("Record some speech.")
        self.budget = budget
        n_silences = len(first.silence_frames)
        self.threshold = np.repeat(first.thresholds, n_silences)
        self.silence_ms = np.tile(first.silences_ms, len(first.thresholds))
        self.base = self._find(default, first)
        self.n_recordings = len({first.recordings[k] for k in first.turn_recording})
        names = [first.groups[k] for k in first.turn_recording]
        self.group = np.unique(names, return_inverse=True)[1]  # of each turn
        self.turns = np.bincount(self.group).astype(float)
        self.n_groups = len(self.turns)
        rows = len(self.threshold)
        self.delay_ms = np.concatenate([one.seen_delay_ms.reshape(rows, -1) for one in sweeps], axis=1)
        never = np.mean([np.isinf(one.seen_delay_ms) for one in sweeps], axis=0).reshape(rows, -1)
        self.cut = self._by_group(np.mean([one.cut_off for one in sweeps], axis=0).reshape(rows, -1))
        self.never = self._by_group(never)
        self.seen = self._by_group(np.tile(first.seen, (len(first.thresholds), 1)))
        missed = np.mean([one.missed for one in sweeps], axis=0)
        self.missed = self._by_group(np.repeat(missed, n_silences, axis=0))
        starts = np.mean([one.false_triggers.sum(axis=2) for one in sweeps], axis=0)
        # A lower threshold detects all that a higher one does: where it starts less often, it never stops.
        self.triggers = np.maximum.accumulate(starts[::-1], axis=0)[::-1].ravel()
        self.non_speech_h = float(np.sum(first.non_speech_h))
        clipped = np.mean([one.clipped_ms > CLIPPED_MS for one in sweeps], axis=0).mean(axis=2)  # (T, P)
        self.clipped, self.prefixes_ms = np.repeat(clipped, n_silences, axis=0), first.prefixes_ms
        # A longer silence only shifts the delays of a threshold, so few rows of quantiles are really different.
        shifted = np.round(self.delay_ms - self.silence_ms[:, None].astype(np.float32), 2)
        _, self._distinct, self._row = np.unique(
            np.nan_to_num(shifted, nan=-1e9), axis=0, return_index=True, return_inverse=True
        )
        self._shifted = shifted[self._distinct]
        sizes = np.unique(np.geomspace(1, max(2, self.n_turns), 100))
        self._limits = {
            share: (sizes, [most_events(float(n), share=share, confidence=budget.confidence) for n in sizes])
            for share in {budget.max_cut_off, budget.max_missed, budget.max_no_fire}
        }
        self._quiet = np.array(
            [not self.non_speech_h or self.triggers_high(n) <= budget.max_false_triggers_per_h for n in self.triggers]
        )
        self.p90_ms = self.quantiles(np.ones((1, self.n_groups)), 0.9)[0]
        self.rate = self.cut.sum(axis=0) / self.n_turns

    def _find(self, wanted: ServerVad, sweep: Sweep) -> int:
        silence_ms = FRAME_MS * sweep.constants.silence_frames(float(wanted.silence_duration_ms or 0))
        at = np.isclose(self.threshold, float(wanted.threshold or 0)) & (self.silence_ms == silence_ms)
        if not at.any():
            raise AudioError(
                f"the sweep does not hold the default, threshold {wanted.threshold} and {silence_ms} ms of silence: "
                "nothing can be compared with it"
            ).with_hint("Add it to the thresholds and silences of the sweep, or pass another default=.")
        return int(at.argmax())

    def _by_group(self, values: npt.NDArray[Any]) -> _Float:
        """Return sums over the turns of each group, shape (n_groups, n_rows)."""
        member = np.zeros((values.shape[1], self.n_groups))
        member[np.arange(len(self.group)), self.group] = 1
        sums: _Float = (values.astype(float) @ member).T
        return sums

    def triggers_high(self, count: float) -> float:
        """Return the upper end of the rate of false triggers, per hour."""
        if not self.non_speech_h:
            return float("inf")
        return poisson_upper(float(count), self.non_speech_h, confidence=self.budget.confidence)

    def quantiles(self, weights: _Float, share: float) -> _Float:
        """Return delays, shape (n_resamples, n_rows); infinite where no turn is seen."""
        each = np.tile(weights[:, self.group], self.delay_ms.shape[1] // self.n_turns)
        found = weighted_quantiles(self._shifted, each, share=share)[:, self._row.ravel()] + self.silence_ms
        return np.where(np.isnan(found), np.inf, found)

    def shown(self, weights: _Float, optimism: float = 0.0) -> _Bool:
        """Return which settings are shown to keep every budget, shape (n_resamples, n_rows)."""
        if self.n_groups < FEW_GROUPS:
            return np.zeros((len(weights), len(self.threshold)), bool)
        confidence = self.budget.confidence
        share, n, effect = effective_turns(weights, self.cut, self.turns, confidence=confidence)
        shown = self._keeps(share + _OPTIMISM * optimism, n, self.budget.max_cut_off) & self._quiet
        turns, seen = (weights @ self.turns)[:, None], weights @ self.seen
        even = np.clip(turns / np.maximum(effect, 1)[:, None], 1, None)  # rare events: the design effect of cut-offs
        shown &= self._keeps(weights @ self.missed / turns, even, self.budget.max_missed)
        never = weights @ self.never / np.maximum(seen, 1)
        kept: _Bool = shown & self._keeps(never, even * seen / turns, self.budget.max_no_fire)
        return kept

    def _keeps(self, share: _Float, n: _Float, budget: float) -> _Bool:
        kept: _Bool = share * n <= np.where(n < 1, -1.0, np.interp(n, *self._limits[budget]))
        return kept

    def choose(self, weights: _Float, *, optimism: float = 0.0) -> tuple[npt.NDArray[np.int64], _Bool]:
        """Return the setting to take, for the sample (all weights 1) and for resamples alike, and whether it is shown.

        Where no setting is shown, it is the fastest of those with the fewest cut-offs.
        """
        shown, p90_ms = self.shown(weights, optimism), self.quantiles(weights, 0.9)
        any_shown = np.asarray(shown.any(axis=1))
        share = weights @ self.cut
        usable = np.where(any_shown[:, None], shown, share <= share.min(axis=1, keepdims=True) + 1e-9)
        speed = np.where(usable, p90_ms, np.inf)
        near = usable & (p90_ms <= speed.min(axis=1, keepdims=True) + FRAME_MS)
        away = np.abs(self.threshold - self.threshold[self.base]) / _NEAR[0]
        away = away + np.abs(self.silence_ms - self.silence_ms[self.base]) / _NEAR[1]
        return np.where(near, away + p90_ms.clip(max=1e6) * 1e-9, np.inf).argmin(axis=1), any_shown

    def out_of_bag(self, weights: _Float, chosen: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Return the share of cut-offs in the groups that the choices were not made by, and their optimism."""
        left_out = (weights == 0).astype(float)
        n = left_out @ self.turns
        if not n.any():
            return float("nan"), 0.0
        found = float((left_out * self.cut[:, chosen].T).sum() / n.sum())
        own = float(((weights * self.cut[:, chosen].T).sum(axis=1) / (weights @ self.turns)).mean())
        return found, max(0.0, found - own)

    def always_broken(self) -> tuple[str, ...]:
        """Return the budgets that every setting breaks by its estimates."""
        budget, seen = self.budget, self.seen.sum(axis=0)
        broken = {
            "cut-offs": self.rate > budget.max_cut_off,
            "missed turns": self.missed.sum(axis=0) > budget.max_missed * self.n_turns,
            "never-ending turns": self.never.sum(axis=0) > budget.max_no_fire * seen,
            "false triggers": self.triggers > budget.max_false_triggers_per_h * (self.non_speech_h or np.inf),
        }
        return tuple(name for name, flags in broken.items() if flags.all())

    def front(self) -> list[int]:
        """Return the settings that none other beats in both cut-offs and delay, fastest first, fewest cut-offs last."""
        order = np.lexsort((self.rate, self.p90_ms))
        least = np.minimum.accumulate(np.concatenate([[np.inf], self.rate[order]]))
        return [int(c) for c, before in zip(order, least[:-1], strict=True) if self.rate[c] < before]

    def candidate(self, row: int, optimism: float) -> Candidate:
        """Return all that is known about one setting; `optimism` raises the upper end of its cut-offs."""
        whole, confidence = np.ones((1, self.n_groups)), self.budget.confidence
        shares, n, effect = effective_turns(whole, self.cut, self.turns, confidence=confidence)
        share, size = float(shares[0, row]), float(n[0, row])
        low = clopper_pearson(share * size, size, confidence=confidence)[0]
        raised = min(1.0, share + _OPTIMISM * optimism)
        high = clopper_pearson(raised * size, size, confidence=confidence)[1]
        seen = float(self.seen[:, row].sum())
        even = (
            float(np.clip(self.n_turns / max(effect[0], 1), 1, None)) if self.n_groups >= FEW_GROUPS else self.n_groups
        )
        missed, never = float(self.missed[:, row].sum()) / self.n_turns, float(self.never[:, row].sum())
        no_fire, n_seen = never / seen if seen else float("nan"), even * seen / self.n_turns
        prefix_ms, clipped = self._prefix(row)
        delays = {f"delay_p{q}{end}_ms": ms for q in (50, 90) for end, ms in self._delays(row, q / 100).items()}
        upper = {
            "cut-offs": high,
            "missed turns": clopper_pearson(missed * even, even, confidence=confidence)[1],
            "never-ending turns": clopper_pearson(never / max(seen, 1) * n_seen, n_seen, confidence=confidence)[1],
            "false triggers": self.triggers_high(self.triggers[row]) if self.non_speech_h else 0.0,
        }
        rate_per_h = float(self.triggers[row]) / self.non_speech_h if self.non_speech_h else 0.0
        estimates = dict(zip(upper, (share, missed, no_fire, rate_per_h), strict=True))
        b = self.budget
        limits = dict(zip(upper, (b.max_cut_off, b.max_missed, b.max_no_fire, b.max_false_triggers_per_h), strict=True))
        return Candidate(
            threshold=round(float(self.threshold[row]), 6),
            silence_duration_ms=int(self.silence_ms[row]),
            prefix_padding_ms=prefix_ms,
            n_turns=self.n_turns,
            n_seen=int(seen),
            cut_off=share,
            cut_off_low=low,
            cut_off_high=high,
            **delays,
            no_fire=no_fire,
            no_fire_high=upper["never-ending turns"],
            missed=missed,
            missed_high=upper["missed turns"],
            clipped=clipped,
            n_false_triggers=float(self.triggers[row]) if self.non_speech_h else None,
            false_triggers_high_per_h=self.triggers_high(self.triggers[row]),
            non_speech_h=self.non_speech_h,
            broken=tuple(name for name, limit in limits.items() if estimates[name] > limit),
            not_shown=tuple(name for name, limit in limits.items() if upper[name] > limit),
        )

    def _delays(self, row: int, share: float) -> dict[str, float]:
        """Return a quantile of the delays and the ends of its interval by Woodruff's method."""
        whole, values = np.ones((1, self.n_groups)), self.delay_ms[row : row + 1]
        each = np.ones((1, values.shape[1]))
        at_ms = float(weighted_quantiles(values, each, share=share)[0, 0])
        seen = self.seen[:, row]
        if np.isnan(at_ms) or not seen.any():
            return {"": float("inf"), "_low": 0.0, "_high": float("inf")}
        late = self._by_group((values > at_ms).reshape(-1, self.n_turns).mean(axis=0)[None])  # NaN is not later
        used = seen > 0
        confidence, n_seen = self.budget.confidence, float(seen.sum())
        n = float(effective_turns(whole[:, used], late[used], seen[used], confidence=confidence)[1][0, 0])
        n = min(n, n_seen * few_groups_factor(n_seen, int(used.sum()), confidence=confidence))
        ends = clopper_pearson(share * n, n, confidence=confidence)
        ends = ends[0], ends[1] + 1 / n_seen  # the next of the ordered turns, so that it is not narrower than said
        low, high = (float(weighted_quantiles(values, each, share=min(end, 1.0))[0, 0]) for end in ends)
        return {"": at_ms, "_low": low, "_high": high if ends[1] <= 1 else float("inf")}

    def _prefix(self, row: int, default_ms: int = 300) -> tuple[int, float]:
        """Return the shortest prefix padding, from the default on, that clips few onsets, and how many it clips."""
        clipped = self.clipped[row]
        usable = np.flatnonzero(self.prefixes_ms >= default_ms)
        if not len(usable):
            usable = np.array([int(self.prefixes_ms.argmax())])
        few = max(0.05, float(clipped[usable].min()))
        best = next(i for i in usable[np.argsort(self.prefixes_ms[usable])] if clipped[i] <= few)
        return int(self.prefixes_ms[best]), float(clipped[best])


def recordings_needed(rate: float, budget: Budget) -> int | None:
    """Return how many recordings of one turn suffice, four times in five, to show a setting that cuts off `rate`.

    None: no number is known to. It is 30 % more than `turns_needed`, as the design effect is estimated, too (chosen,
    checked by tests/benchmarks/coverage.py).
    """
    needs = [(rate, budget.max_cut_off), (0.0, budget.max_missed), (0.0, budget.max_no_fire)]
    turns = [turns_needed(own, share=share, confidence=budget.confidence) for own, share in needs]
    return None if None in turns else ceil(1.3 * max(n for n in turns if n is not None))


def _advice(sweep: Sweep, evidence: _Evidence, best: Candidate, is_shown: bool) -> tuple[str, ...]:
    """Return what to do next, most useful first."""
    if is_shown:
        return ("Apply it, and verify on a live session.",)
    budget, lines = evidence.budget, [sweep.short_endings] if sweep.short_endings else []
    if not evidence.always_broken():
        target = 0.4 * budget.max_cut_off
        few = turns_needed(0.0, share=budget.max_cut_off, confidence=budget.confidence)
        enough = recordings_needed(target, budget)
        lines.append(
            f"Record at least {max(FEW_GROUPS, few or 0)} turns in {FEW_GROUPS} or more recordings, pauses and all. "
            f"Where a setting truly cuts off {100 * target:g} %, {enough} recordings of one turn suffice four times in "
            "five."
        )
        if "false triggers" in best.not_shown:
            minutes = 60 * poisson_upper(0, 1.0, confidence=budget.confidence) / budget.max_false_triggers_per_h
            lines.append(f"Record the room without speech, at least {np.ceil(minutes):.0f} minutes in all.")
        return tuple(lines)
    longest_ms = int(sweep.silences_ms.max())
    if longest_ms < 1600:
        lines.append(f"Sweep silences longer than {longest_ms} ms.")
    return (
        *lines,
        (
            "Try semantic_vad (rtnb.SemanticVad): it waits longer where a sentence sounds unfinished. On Azure it was "
            "accepted and speech_started never came: verify it first."
        ),
        "Push to talk (turn_detection=None): no turn is cut off, and the user must press a key.",
        "Detect turns locally (rtnb.vad with a rule of your own) and commit by hand.",
    )


def _ms(value: float) -> str:
    return "never" if value == float("inf") else f"{value:.0f} ms"


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _settings(candidate: Candidate) -> str:
    return f"threshold {candidate.threshold:g}, silence {candidate.silence_duration_ms} ms"
