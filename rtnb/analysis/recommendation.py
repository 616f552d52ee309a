"""Turn detection settings chosen by evidence: `recommend`, and what is known about each setting.

The rule: of the settings whose cut-offs, missed turns, never-ending turns and false triggers are all **shown** to be
within the budgets (the upper ends of their intervals, not the estimates), take the fastest. Among those as fast up to
one frame, take the nearest to the default. Picking the best of many settings by the turns it is judged by flatters it.
So the same choice is made on bootstrap resamples and judged by the recordings each resample left out. The upper end is
raised by half of the optimism found there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.analysis.conditions import is_frame_phase
from rtnb.analysis.intervals import (
    FEW_GROUPS,
    clopper_pearson,
    effective_turns,
    few_groups_factor,
    keeps_share,
    resample_weights,
    turns_needed,
    weighted_quantiles,
)
from rtnb.analysis.sweeping import CLIPPED_MS, Sweep, pareto_front
from rtnb.errors import AudioError, RtnbError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import FRAME_MS

_Float = npt.NDArray[np.float64]
_Bool = npt.NDArray[np.bool_]

_OPTIMISM: Final = 0.5
"""Share of the optimism by which upper ends are raised. Chosen by simulation (tests/benchmarks/coverage.py): none
leaves up to 9 % of choices over budget, all of it shows half of the settings that are good enough."""
_UNEVEN: Final = 0.5
"""Squared coefficient of variation of the rates of false triggers, where there are too few of them to estimate it
(chosen)."""
_NEAR: Final = (0.1, 100.0)
"""Threshold and silence (ms) that count as one step away from the default (chosen)."""
_OTHER_WAYS: Final = (
    "Try semantic_vad (rtnb.SemanticVad), and verify it first: on Azure it was accepted and never reported speech.",
    "Push to talk (turn_detection=None): no turn is cut off, and the user must press a key.",
    "Detect turns locally (rtnb.vad with a rule of your own) and commit by hand.",
)
"""Advice where no setting keeps the budgets."""


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
    """Upper end of their rate; infinite where there was no such audio, or in fewer than 8 recordings."""
    non_speech_h: float
    """Hours of audio without speech."""
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
        high = f"at most {self.false_triggers_high_per_h:.3g}/h"
        if self.false_triggers_high_per_h == inf:
            high = f"upper end not shown: fewer than {FEW_GROUPS} recordings"
        return f"{rate:.3g}/h ({high}; {self.n_false_triggers:g} in {minutes:.3g} min)"

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
        delay_ms, cut_off = self.choice.delay_p90_ms, self.choice.cut_off
        faster = [c for c in self.front if c.delay_p90_ms < delay_ms and c.cut_off > cut_off]
        slower = [c for c in self.front if c.delay_p90_ms > delay_ms and c.cut_off < cut_off]
        return (*faster[-1:], *slower[:1])

    @property
    def verdict(self) -> str:
        """The answer in one or two sentences."""
        budget, n = f"at most {100 * self.budget.max_cut_off:g} % of turns cut off", _counted(self.n_turns, "turn")
        if self.choice is not None:
            verb = "Keep the default," if self.choice == self.default else "Take"
            groups = f"{n} in {_counted(self.n_recordings, 'recording')}"
            return f"{verb} {_settings(self.choice)}: {budget} is shown by {groups}."
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

    def __repr__(self) -> str:
        choice = () if self.choice is None else (self.choice,)
        roles = {"choice": choice, "default": (self.default,), "alternative": self.alternatives}
        facts = [(role, str(candidate)) for role, candidates in roles.items() for candidate in candidates]
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
        facts += [("next", line) for line in self.advice]
        return "\n".join([self.verdict, *(f"  {name + ':':18} {text}" for name, text in facts)])


def recommend(
    sweep: Sweep,
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
    sweep : Sweep
        From `rtnb.sweep`. With ``conditions=FRAME_PHASES`` it does not matter where in a frame a word begins.
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
        No turns, several conditions, or the default is not on the grid.

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
    sweeps = _phases(sweep)
    evidence = _Evidence(sweeps, budget, SERVER_VAD_DEFAULTS if default is None else default)
    resamples = resample_weights(evidence.n_all, n_resamples=n_resamples, seed=seed)
    chosen, shown = evidence.choose(resamples)
    out_of_bag, optimism = evidence.out_of_bag(resamples, chosen)
    (best,), (is_shown,) = evidence.choose(evidence.whole, optimism=optimism)
    is_shown = bool(is_shown) and out_of_bag <= max_cut_off
    front = pareto_front(evidence.p90_ms, evidence.rate)
    raised = {c: evidence.candidate(c, optimism) for c in (*front, int(best))}
    base = raised[int(best)] if is_shown and best == evidence.base else evidence.candidate(evidence.base, 0.0)
    silence_ms = evidence.silence_ms[chosen[shown]]
    return Recommendation(
        choice=raised[int(best)] if is_shown else None,
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
        share_clean=float(np.mean(evidence.rate == 0)),
        advice=_advice(sweep, evidence, raised[int(best)], is_shown),
    )


def _phases(sweep: Sweep) -> list[Sweep]:
    """Return one sweep per frame phase."""
    conditions = list(dict.fromkeys(sweep.conditions.tolist()))
    if len(conditions) == 1:
        return [sweep]
    if other := [name for name in conditions if not is_frame_phase(name)]:
        raise AudioError(f"{len(conditions)} conditions, of which these change the audio: {other}").with_hint(
            "Choose for one of them, recommend(sweep.only(…)): turns under two conditions are not twice the turns."
        )
    return [sweep.only(name) for name in conditions]


class _Evidence:
    """Events of all settings (in rows, threshold by threshold), by group; phases of a turn count as one turn."""

    def __init__(self, sweeps: list[Sweep], budget: Budget, default: ServerVad) -> None:
        first = sweeps[0]
        self.n_turns = first.n_turns
        if self.n_turns == 0:
            raise AudioError("the sweep has no turns: nothing to choose by").with_hint("Record some speech.")
        self.budget = budget
        self.limits = {
            "cut-offs": budget.max_cut_off,
            "missed turns": budget.max_missed,
            "never-ending turns": budget.max_no_fire,
            "false triggers": budget.max_false_triggers_per_h / 3600,  # per second
        }
        shape = n_thresholds, n_silences = first.cut_off.shape[:2]
        self.threshold, self.silence_ms = np.repeat(first.thresholds, n_silences), np.tile(first.silences_ms, shape[0])
        self.base = self._find(default, first)
        self._group(first)

        def rows(values: Any) -> npt.NDArray[Any]:
            """Return arrays of shape (settings, phases, turns)."""
            found = np.stack([np.broadcast_to(one, (*shape, one.shape[-1])) for one in values], axis=2)
            return found.reshape(n_thresholds * n_silences, len(found[0, 0]), -1)

        delay_ms = rows([one.seen_delay_ms for one in sweeps])
        self.cut = self._by_group(rows([one.cut_off for one in sweeps]).mean(axis=1))
        self.never = self._by_group(np.isinf(delay_ms).mean(axis=1))
        self.missed = self._by_group(rows([one.missed[:, None] for one in sweeps]).mean(axis=1))
        self.seen = self._by_group(rows([first.seen])[:, 0])
        starts = np.mean([one.false_triggers for one in sweeps], axis=0)
        # A lower threshold detects all that a higher one does: where it starts less often, it never stops.
        starts = np.maximum.accumulate(starts[::-1], axis=0)[::-1].reshape(n_thresholds * n_silences, -1)
        self.triggers = (starts @ np.eye(self.n_all)[self.group_of_recording]).T[self.quiet]
        clipped = np.mean([one.clipped_ms > CLIPPED_MS for one in sweeps], axis=0).mean(axis=2)  # (T, P)
        self.clipped, self.prefixes_ms = np.repeat(clipped, n_silences, axis=0), first.prefixes_ms
        # A longer silence only shifts the delays of a threshold, so few rows of quantiles are really different.
        self.delay_ms = delay_ms.reshape(len(delay_ms), -1)
        shifted = np.round(self.delay_ms - self.silence_ms[:, None].astype(np.float32), 2)
        _, distinct, row = np.unique(np.nan_to_num(shifted, nan=-1e9), axis=0, return_index=True, return_inverse=True)
        self._shifted, self._row = shifted[distinct], row.ravel()
        self.p90_ms = self.quantiles(self.whole, 0.9)[0]
        self.rate = self.cut.sum(axis=0) / self.n_turns
        self.own = self.estimates(self.whole)

    def _group(self, sweep: Sweep) -> None:
        """Find the groups: of turns, and of audio without speech (a recording can be in both)."""
        names, self.group_of_recording = np.unique(sweep.groups, return_inverse=True)
        self.n_all, self.whole = len(names), np.ones((1, len(names)))
        self.n_recordings = len({sweep.recordings[k] for k in sweep.turn_recording})
        self._turn_group = self.group_of_recording[sweep.turn_recording]
        turns = np.bincount(self._turn_group, minlength=self.n_all).astype(float)
        quiet_s = np.bincount(self.group_of_recording, 3600 * sweep.non_speech_h, minlength=self.n_all).astype(float)
        self.spoken, self.quiet = turns > 0, quiet_s > 0
        self.turns, self.seconds = turns[self.spoken], quiet_s[self.quiet]
        self.n_groups = len(self.turns)

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
        sums: _Float = (values.astype(float) @ np.eye(self.n_all)[self._turn_group][:, self.spoken]).T
        return sums

    def quantiles(self, weights: _Float, share: float) -> _Float:
        """Return delays, shape (n_resamples, n_rows); infinite where no turn is seen."""
        each = np.tile(weights[:, self._turn_group], self.delay_ms.shape[1] // self.n_turns)
        found = weighted_quantiles(self._shifted, each, share=share)[:, self._row] + self.silence_ms
        return np.where(np.isnan(found), inf, found)

    def estimates(self, weights: _Float) -> dict[str, tuple[_Float, _Float]]:
        """Return for each budget the settings' shares, and the numbers of independent turns that tell as much.

        Both have the shape (n_resamples, n_rows). False triggers are a share of the seconds without speech.
        """
        spoken, confidence = weights[:, self.spoken], self.budget.confidence
        share, n, effect = effective_turns(spoken, self.cut, self.turns, confidence=confidence)
        turns, seen = np.maximum(spoken @ self.turns, 1)[:, None], spoken @ self.seen
        even = turns / np.clip(effect[:, None], 1, turns)  # rare events: the design effect of cut-offs
        if self.n_groups < FEW_GROUPS:
            even = np.full_like(turns, self.n_groups)
        found = {
            "cut-offs": (share, n),
            "missed turns": (spoken @ self.missed / turns, even),
            "never-ending turns": (spoken @ self.never / np.maximum(seen, 1), even * seen / turns),
        }
        if self.quiet.any():
            limit = self.limits["false triggers"]
            unknown = 1 + _UNEVEN * limit * float(self.seconds.mean())
            found["false triggers"] = effective_turns(
                weights[:, self.quiet],
                self.triggers,
                self.seconds,
                most=2 * limit,
                unknown=unknown,
                confidence=confidence,
            )[:2]
        return found

    def shown(self, weights: _Float, optimism: float = 0.0) -> _Bool:
        """Return which settings are shown to keep every budget, shape (n_resamples, n_rows)."""
        shown = np.full((len(weights), len(self.threshold)), self.n_groups >= FEW_GROUPS)
        for name, (share, n) in self.estimates(weights).items():
            count = (share + _OPTIMISM * optimism * (name == "cut-offs")) * n
            shown &= keeps_share(count, n, share=self.limits[name], confidence=self.budget.confidence)
        return shown

    def choose(self, weights: _Float, *, optimism: float = 0.0) -> tuple[npt.NDArray[np.int64], _Bool]:
        """Return the setting to take, for the sample (all weights 1) and for resamples alike, and whether it is shown.

        Where no setting is shown, it is the fastest of those with the fewest cut-offs.
        """
        shown, p90_ms = self.shown(weights, optimism), self.quantiles(weights, 0.9)
        any_shown = np.asarray(shown.any(axis=1))
        share = weights[:, self.spoken] @ self.cut
        usable = np.where(any_shown[:, None], shown, share <= share.min(axis=1, keepdims=True) + 1e-9)
        speed = np.where(usable, p90_ms, inf)
        near = usable & (p90_ms <= speed.min(axis=1, keepdims=True) + FRAME_MS)
        away = np.abs(self.threshold - self.threshold[self.base]) / _NEAR[0]
        away = away + np.abs(self.silence_ms - self.silence_ms[self.base]) / _NEAR[1]
        return np.where(near, away + p90_ms.clip(max=1e6) * 1e-9, inf).argmin(axis=1), any_shown

    def out_of_bag(self, weights: _Float, chosen: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Return the share of cut-offs in the groups that the choices were not made by, and their optimism."""
        taken = weights[:, self.spoken]
        left_out, cut = (taken == 0).astype(float), self.cut[:, chosen].T
        n = left_out @ self.turns
        if not n.any():
            return float("nan"), 0.0
        found = float((left_out * cut).sum() / n.sum())
        own = float(((taken * cut).sum(axis=1) / np.maximum(taken @ self.turns, 1)).mean())
        return found, max(0.0, found - own)

    def always_broken(self) -> tuple[str, ...]:
        """Return the budgets that every setting breaks by its estimates."""
        return tuple(name for name, (share, _) in self.own.items() if (share > self.limits[name]).all())

    def candidate(self, row: int, optimism: float) -> Candidate:
        """Return all that is known about one setting; `optimism` raises the upper end of its cut-offs."""
        confidence = self.budget.confidence
        share, low, high = {}, {}, {}
        for name, (shares, sizes) in self.own.items():
            own, n = (float(np.broadcast_to(one, shares.shape)[0, row]) for one in (shares, sizes))
            raised = min(1.0, own + _OPTIMISM * optimism * (name == "cut-offs"))
            share[name], low[name] = own, clopper_pearson(own * n, n, confidence=confidence)[0]
            high[name] = clopper_pearson(raised * n, n, confidence=confidence)[1]
        if len(self.seconds) < FEW_GROUPS:
            high["false triggers"] = inf
        delays = {f"delay_p{q}{end}_ms": ms for q in (50, 90) for end, ms in self._delays(row, q / 100).items()}
        prefix_ms, clipped = self._prefix(row)
        seen = int(self.seen[:, row].sum())
        return Candidate(
            threshold=round(float(self.threshold[row]), 6),
            silence_duration_ms=int(self.silence_ms[row]),
            prefix_padding_ms=prefix_ms,
            n_turns=self.n_turns,
            n_seen=seen,
            cut_off=share["cut-offs"],
            cut_off_low=low["cut-offs"],
            cut_off_high=high["cut-offs"],
            **delays,
            no_fire=share["never-ending turns"] if seen else float("nan"),
            no_fire_high=high["never-ending turns"],
            missed=share["missed turns"],
            missed_high=high["missed turns"],
            clipped=clipped,
            n_false_triggers=float(self.triggers[:, row].sum()) if self.quiet.any() else None,
            false_triggers_high_per_h=3600 * high["false triggers"],
            non_speech_h=float(self.seconds.sum()) / 3600,
            not_shown=tuple(name for name in share if high[name] > self.limits[name]),
        )

    def _delays(self, row: int, share: float) -> dict[str, float]:
        """Return a quantile of the delays and the ends of its interval by Woodruff's method."""
        values, seen = self.delay_ms[row : row + 1], self.seen[:, row]

        def at(level: float) -> float:
            return float(weighted_quantiles(values, np.ones((1, values.shape[1])), share=min(level, 1.0))[0, 0])

        if not seen.any():
            return {"": inf, "_low": 0.0, "_high": inf}
        late = self._by_group((values > at(share)).reshape(-1, self.n_turns).mean(axis=0)[None])  # NaN is not later
        used, confidence, n_seen = seen > 0, self.budget.confidence, float(seen.sum())
        n = float(effective_turns(np.ones((1, used.sum())), late[used], seen[used], confidence=confidence)[1][0, 0])
        n = min(n, n_seen * few_groups_factor(n_seen, int(used.sum()), confidence=confidence))
        low, high = clopper_pearson(share * n, n, confidence=confidence)
        high += 1 / n_seen  # the next of the ordered turns, so that the interval is not narrower than said
        return {"": at(share), "_low": at(low), "_high": at(high) if high <= 1 else inf}

    def _prefix(self, row: int, default_ms: int = 300) -> tuple[int, float]:
        """Return the shortest prefix padding, from the default on, that clips few onsets, and how many it clips."""
        usable = self.prefixes_ms >= min(default_ms, self.prefixes_ms.max())
        clipped, prefixes_ms = self.clipped[row][usable], self.prefixes_ms[usable]
        best = int((clipped <= max(0.05, clipped.min())).argmax())
        return int(prefixes_ms[best]), float(clipped[best])


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
            minutes = ceil(-60 * log((1 - budget.confidence) / 2) / budget.max_false_triggers_per_h)
            where = f"at least {minutes} minutes in {FEW_GROUPS} or more recordings"
            lines.append(f"Record the room without speech, {where}.")
        return tuple(lines)
    longest_ms = int(sweep.silences_ms.max())
    if longest_ms < 1600:
        lines.append(f"Sweep silences longer than {longest_ms} ms.")
    return (*lines, *_OTHER_WAYS)


def _ms(value: float) -> str:
    return "never" if value == inf else f"{value:.0f} ms"


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _settings(candidate: Candidate) -> str:
    return f"threshold {candidate.threshold:g}, silence {candidate.silence_duration_ms} ms"
