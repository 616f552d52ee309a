"""What `recommend` answers: settings, what is known about them, and how well. Never a number without its n."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from rtnb.analysis.bootstrap import highest_rate
from rtnb.errors import RtnbError
from rtnb.protocol.values import ServerVad

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Budget:
    """What a setting may cost."""

    max_cut_off: float
    """Share of turns ended in a pause."""
    max_false_triggers_per_h: float
    """Starts per hour without speech."""
    max_missed: float
    """Share of turns never heard."""
    max_no_fire: float
    """Share of turns never ended."""
    confidence: float
    """Of all intervals, two-sided."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One setting, and all that is known about it."""

    threshold: float
    silence_duration_ms: int
    """Whole frames of 32 ms; the service rounds up to them."""
    prefix_padding_ms: int
    """The shortest of the sweep, 300 ms or more, that clips few onsets."""
    n_turns: int
    """What all shares are of."""
    cut_off: float
    """Share of turns ended in a pause, the mean over the frame phases."""
    cut_off_low: float
    cut_off_high: float
    """Ends of its interval: the wider of the exact one and the bootstrap's."""
    delay_p50_ms: float
    """From the true end of a turn to the service's decision, the median turn; infinite where most never end."""
    delay_p90_ms: float
    """The same for the slowest tenth of the turns."""
    delay_p90_low_ms: float
    delay_p90_high_ms: float
    no_fire: float
    """Share of turns never ended."""
    missed: float
    """Share of turns never heard."""
    clipped: float
    """Share of turns that lose more than 50 ms of their onset."""
    n_false_triggers: float | None
    """Starts in audio without speech, at least as many as at any higher threshold (where a lower one starts less often,
    it never stops); None where there was no such audio."""
    non_speech_h: float
    """Hours of audio without speech."""
    broken: tuple[str, ...]
    """Which budgets it breaks by its estimates."""

    @property
    def turn_detection(self) -> ServerVad:
        """For ``session.update(turn_detection=…)``."""
        return ServerVad(
            threshold=self.threshold,
            silence_duration_ms=self.silence_duration_ms,
            prefix_padding_ms=self.prefix_padding_ms,
        )

    @property
    def false_triggers(self) -> str:
        """How often it starts without speech, in words."""
        if self.n_false_triggers is None:
            return "not measured"
        n, hours = self.n_false_triggers, self.non_speech_h
        most = highest_rate(round(n), hours)
        return f"{n / hours:.3g}/h (at most {most:.3g}/h; {n:.3g} in {60 * hours:.3g} min)"

    def judged(self, budget: Budget) -> Candidate:
        """The same with `broken` filled in."""
        rate = (self.n_false_triggers or 0) / self.non_speech_h if self.non_speech_h else 0.0
        over = {
            "cut-offs": self.cut_off > budget.max_cut_off,
            "false triggers": rate > budget.max_false_triggers_per_h,
            "missed turns": self.missed > budget.max_missed,
            "turns without an end": self.no_fire > budget.max_no_fire,
        }
        return replace(self, broken=tuple(name for name, broken in over.items() if broken))

    def __str__(self) -> str:
        low, high = 100 * self.cut_off_low, 100 * self.cut_off_high
        return (
            f"threshold {self.threshold:g}, silence {self.silence_duration_ms} ms: "
            f"{100 * self.cut_off:.1f} % of {self.n_turns} turns cut off ({low:.1f}–{high:.1f} %), "
            f"delay P90 {_ms(self.delay_p90_ms)} ({_ms(self.delay_p90_low_ms)}–{_ms(self.delay_p90_high_ms)})"
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class Recommendation:
    """The settings to take, if the turns show any; print it to read all that is known."""

    choice: Candidate | None
    """The settings to take; None where no setting is shown to meet the budget."""
    default: Candidate
    """What the service does by itself, on the same turns."""
    front: tuple[Candidate, ...]
    """Settings none other beats in both cut-offs and delay, fastest first."""
    budget: Budget
    n_turns: int
    n_recordings: int
    n_phases: int
    """Frame phases the sweep was done at."""
    n_draws: int
    drawn: str
    """What the bootstrap drew: ``recordings``, or ``turns`` where there are too few recordings."""
    unseen_cut_off: tuple[float, ...]
    """Cut-offs to expect on turns the choice was not made by: mean, low, high; empty where no draw could choose."""
    fastest_silence_ms: tuple[float, ...]
    """Between which silences the draws' choices lie: low, high; empty where no draw could choose."""
    fastest_threshold: tuple[float, ...]
    """The same for thresholds."""
    chosen_in_draws: float
    """Share of the draws that could choose a setting."""
    beats_default: float | None
    """Share of the draws whose choice beats the default on the turns left out: within the budget where the default is
    not, or faster; None where there is nothing to compare."""
    identifiable: bool
    """Whether the turns settle which setting is the fastest within the budget."""
    more_turns: int | None
    """How many more turns would settle it, roughly; 0: none; None: more turns are not known to help."""
    longest_silence_ms: int
    """Of the sweep."""

    @property
    def turn_detection(self) -> ServerVad:
        """The chosen settings, for ``session.update(turn_detection=…)``.

        Raises
        ------
        RtnbError
            No setting is shown to meet the budget: the message says what to do.
        """
        if self.choice is None:
            raise RtnbError(self.verdict).with_hint(self.advice[0])
        return self.choice.turn_detection

    @property
    def alternatives(self) -> tuple[Candidate, ...]:
        """The next on the front on either side of the choice: faster with more cut-offs, slower with fewer."""
        if self.choice is None:
            return self.front[-2:]
        faster = [
            c for c in self.front if c.delay_p90_ms < self.choice.delay_p90_ms and c.cut_off > self.choice.cut_off
        ]
        slower = [
            c for c in self.front if c.delay_p90_ms > self.choice.delay_p90_ms and c.cut_off < self.choice.cut_off
        ]
        return (*faster[-1:], *slower[:1])

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        budget = f"at most {100 * self.budget.max_cut_off:g} % of turns cut off"
        n = f"{self.n_turns} turns"
        if self.choice is not None:
            if self.choice == self.default:
                return f"Keep the default, {_settings(self.choice)}: {budget} is shown by {n}."
            if self.identifiable:
                return f"Take {_settings(self.choice)}: {budget} is shown by {n}."
            low, high = self.fastest_silence_ms
            return (
                f"T{_settings(self.choice)[1:]} is shown to keep the budget ({budget}; {n}), but which such setting is "
                f"the fastest is not identifiable: its silence may be {low:.0f} to {high:.0f} ms. "
                f"Record {self.more_turns} more turns."
            )
        if self.more_turns is not None:
            return f"Not identifiable: {n} cannot show {budget}. Record {self.more_turns} more turns."
        best = min(self.front, key=lambda c: c.cut_off) if self.front else self.default
        if broken := [name for name in best.broken if name != "cut-offs"]:
            return f"No setting keeps the budgets on these {n}: each breaks at least {' or '.join(broken)}."
        return f"No setting keeps {budget} on these {n}: the best is {best}."

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do next, most useful first."""
        if self.identifiable or self.choice == self.default:
            return ("Apply it, and verify on a live session.",)
        if self.more_turns:
            return (f"Record {self.more_turns} more turns, spoken as they will be: pauses and all.",)
        longer = f"Sweep silences longer than {self.longest_silence_ms} ms." if self.longest_silence_ms < 1600 else ""
        semantic = (
            "Try semantic_vad (rtnb.SemanticVad): it waits longer where a sentence sounds unfinished. On Azure it has "
            "been seen accepted while speech_started never came: verify it first."
        )
        others = (
            semantic,
            "Push to talk (turn_detection=None): nobody is cut off, and somebody must press a key.",
            "Detect turns locally (rtnb.vad with a rule of your own) and commit by hand.",
        )
        return (longer, *others) if longer else others

    def to_frame(self) -> pd.DataFrame:
        """The choice, the default, the alternatives and the front as a table, one row per setting, with its role."""
        import pandas as pd

        roles: dict[Candidate, list[str]] = {}
        for role, candidates in self._roles():
            for candidate in candidates:
                roles.setdefault(candidate, []).append(role)
        return pd.DataFrame([{"role": ", ".join(role), **asdict(candidate)} for candidate, role in roles.items()])

    def _roles(self) -> list[tuple[str, tuple[Candidate, ...]]]:
        choice = () if self.choice is None else (self.choice,)
        return [
            ("choice", choice),
            ("default", (self.default,)),
            ("alternative", self.alternatives),
            ("front", self.front),
        ]

    def _facts(self) -> list[tuple[str, str]]:
        facts = [(role, str(candidate)) for role, candidates in self._roles()[:3] for candidate in candidates]
        if self.choice is not None:
            facts.append(("false triggers", f"{self.choice.false_triggers}; default {self.default.false_triggers}"))
        if self.unseen_cut_off:
            mean, low, high = (100 * share for share in self.unseen_cut_off)
            silence, threshold = self.fastest_silence_ms, self.fastest_threshold
            facts.append(
                ("on unseen turns", f"{mean:.1f} % cut off ({low:.1f}–{high:.1f} %), chosen anew in each draw")
            )
            spread = f"silence {silence[0]:.0f}–{silence[1]:.0f} ms, threshold {threshold[0]:g}–{threshold[1]:g}"
            facts.append(("draws choose", f"{spread}; {100 * self.chosen_in_draws:.0f} % of them can choose"))
        if self.beats_default is not None:
            facts.append(("beats the default", f"in {100 * self.beats_default:.0f} % of the draws, on unseen turns"))
        basis = f"{self.n_turns} turns in {self.n_recordings} recordings at {_counted(self.n_phases, 'frame phase')}"
        interval = f"{100 * self.budget.confidence:g} % intervals, {self.n_draws} draws of {self.drawn}"
        return [*facts, ("basis", f"{basis}; {interval}"), *(("next", line) for line in self.advice)]

    def __repr__(self) -> str:
        facts = self._facts()
        return "\n".join([self.verdict, *(f"  {name + ':':18} {text}" for name, text in facts)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._facts()
        )
        return f"<p><b>{escape(self.verdict)}</b></p><table>{rows}</table>"


def _ms(value: float) -> str:
    return "never" if value == float("inf") else f"{value:.0f} ms"


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _settings(candidate: Candidate) -> str:
    return f"threshold {candidate.threshold:g}, silence {candidate.silence_duration_ms} ms"
