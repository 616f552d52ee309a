"""Interaction in a session: both audio tracks on one time axis, and the events found on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.analysis.interaction import (
    LABELS,
    TICK_S,
    Event,
    Ticks,
    event_latencies,
    event_shares,
    find_events,
    runs,
    turn_taking_scores,
)
from rtnb.analysis.intervals import clopper_pearson
from rtnb.analysis.plots.interaction import draw_interaction
from rtnb.audio import RATE_HZ, Audio, as_audio
from rtnb.errors import AudioError
from rtnb.trace.timeline import Track
from rtnb.vad import FRAME_MS, speech_probabilities

if TYPE_CHECKING:
    import pandas as pd

MAX_MINUTES: Final = 60.0
"""Longest conversation that is analysed, 0.7 GB of samples (chosen)."""
GAP_S: Final = 1.0
"""A shorter silence does not end the user's speech (chosen: nine of ten pauses inside turns are shorter)."""
AGENT_GAP_S: Final = 0.25
"""The same for the agent's speech, where only its track is known (chosen: longer than pauses between words)."""
MIN_EVENTS: Final = 8
"""Fewer latencies give no interval (chosen)."""


@dataclass(frozen=True, eq=False)
class Interaction:
    """Conversation on two audio tracks with one time axis, and the speech found on them.

    Examples
    --------
    >>> from rtnb.audio import babble
    >>> quiet, talk = np.zeros(24_000, np.float32), babble("is the table still free tonight").audio
    >>> user, agent = np.r_[quiet, talk, quiet], np.r_[quiet, np.zeros_like(talk), quiet, talk]
    >>> conversation = Interaction.of_tracks(user, agent, rate_hz=24_000)
    >>> conversation.to_frame()[["kind", "outcome"]].values.tolist()
    [['response', 'response']]
    """

    user: Audio
    """(n_samples,) the user's track."""
    agent: Audio
    """(n_samples,) the agent's track."""
    rate_hz: int
    ticks: Ticks

    @classmethod
    def of_tracks(
        cls,
        user: npt.ArrayLike,
        agent: npt.ArrayLike,
        *,
        rate_hz: int,
        labels: Iterable[tuple[float, float, str]] = (),
        agent_spans: Iterable[tuple[float, float]] | None = None,
        tick_s: float = TICK_S,
        gap_s: float = GAP_S,
    ) -> Interaction:
        """Find the speech on two tracks.

        Parameters
        ----------
        user, agent : array_like, shape (n_samples,)
            The tracks from the same moment on; anything `rtnb.audio.as_audio` takes. The shorter one is padded.
        rate_hz : int
            Samples per second of both.
        labels : iterable of (start_s, stop_s, kind)
            Known kinds of user speech (`LABELS`). Without labels each overlap is an interruption.
        agent_spans : iterable of (start_s, stop_s), optional
            Known playback of the agent, its pauses included. Default: found on its track.
        tick_s : float, default 0.2
            Length of a tick. A tick is speech where speech covers at least half of it.
        gap_s : float, default 1.0
            A shorter silence does not end the user's speech.

        Raises
        ------
        AudioError
            An unknown kind of label, or samples that are no audio.
        """
        user, agent = as_audio(user), as_audio(agent)
        size = max(len(user), len(agent))
        user, agent = np.pad(user, (0, size - len(user))), np.pad(agent, (0, size - len(agent)))
        begins = tick_s * np.arange(int(np.ceil(size / rate_hz / tick_s)))
        speech = _covered(_speech(user, rate_hz, gap_s), begins, tick_s)
        playback = _covered(agent_spans or _speech(agent, rate_hz, AGENT_GAP_S), begins, tick_s)
        return cls(user, agent, rate_hz, _labelled(Ticks(speech, playback, tick_s=tick_s), labels))

    @classmethod
    def of_sides(cls, user: Track | None, agent: Track | None, **options: Any) -> Interaction:
        """Measure the tracks of a session: see `rtnb.interaction`."""
        if not (tracks := [track for track in (user, agent) if track is not None]):
            raise AudioError("the session has no audio in its log").with_hint(
                "Over WebRTC the audio does not pass the log: record both sides and use Interaction.of_tracks."
            )
        if (minutes := max(map(len, tracks)) / RATE_HZ / 60) > MAX_MINUTES:
            came = f"the conversation lasts {minutes:.0f} minutes"
            raise AudioError(f"{came}; at most {MAX_MINUTES:g} are analysed").with_hint(
                "Give a part of it: interaction(trace.cut(0, 3_600_000)) or interaction(session.log[:5000])."
            )
        spans_ms = [] if agent is None else agent.spans_ms
        sides = (np.zeros(0, np.float32) if track is None else track[:] for track in (user, agent))
        played = [(start_ms / 1000, stop_ms / 1000) for start_ms, stop_ms in spans_ms]
        return cls.of_tracks(*sides, rate_hz=RATE_HZ, agent_spans=played, **options)

    def __repr__(self) -> str:
        n = len(self.events)
        return f"<Interaction: {len(self.user) / self.rate_hz:.1f} s, {n} event{'s' * (n != 1)}>"

    @property
    def events(self) -> list[Event]:
        """All events, in order."""
        return find_events(self.ticks)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per event: kind, outcome, start_s, stop_s, latency_s."""
        import pandas as pd

        return pd.DataFrame(self.events, columns=list(Event._fields))

    def metrics(self) -> pd.DataFrame:
        """Return one row per metric: value, n and its 90 % interval.

        Rates have exact binomial intervals, means those of `mean_interval` (NaN: not shown).
        They hold for more events of this conversation, not for other conversations. Shares of time have none.

        Returns
        -------
        pandas.DataFrame
            The panel of `tick_metrics`; turn_taking_score; gap_mean_s (silence between two speakers) and
            overlap_mean_s (both speak); user_share, agent_share, talk_over_share and silence_share of the duration.
        """
        import pandas as pd

        user, agent, tick_s = self.ticks.user, self.ticks.agent, self.ticks.tick_s
        inside = [(start, stop) for start, stop in runs(~user & ~agent) if start and stop < len(user)]
        gaps = [(a, b) for a, b in inside if user[a - 1] != user[b] or agent[a - 1] != agent[b]]
        lists = event_latencies(self.events) | {"turn_taking_score": turn_taking_scores(self.ticks)}
        for name, found in (("gap_mean_s", gaps), ("overlap_mean_s", runs(user & agent))):
            lists[name] = [(stop - start) * tick_s for start, stop in found]
        rows = {name: mean_interval(values) for name, values in lists.items()}
        for name, (hits, n) in event_shares(self.events).items():
            ends = clopper_pearson(hits, n) if 0 < n >= hits else (nan, nan)  # more hits than n: a ratio
            rows[name] = (hits / n if n else nan, n, *ends)
        times = {"user": user, "agent": agent, "talk_over": user & agent, "silence": ~user & ~agent}
        rows |= {f"{name}_share": (float(np.mean(at)), len(at), nan, nan) for name, at in times.items() if len(at)}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "n", "low", "high"])

    def plot(self, *, ax: Any = None) -> Any:
        """Draw both tracks with each event marked, into matplotlib `Axes`, which are returned."""
        return draw_interaction(self, ax=ax)


def _speech(audio: Audio, rate_hz: int, gap_s: float) -> list[tuple[float, float]]:
    """Return (start_s, stop_s) of speech, over silences shorter than `gap_s`."""
    speech = speech_probabilities(audio, rate_hz=rate_hz) >= 0.5
    for start, stop in runs(~speech):
        if start and stop < len(speech) and FRAME_MS * (stop - start) < 1000 * gap_s:
            speech[start:stop] = True
    return [(FRAME_MS * start / 1000, FRAME_MS * stop / 1000) for start, stop in runs(speech)]


def _covered(spans: Iterable[tuple[float, float]], begins: npt.NDArray[Any], tick_s: float) -> npt.NDArray[np.bool_]:
    """Return the ticks of which at least half lies in spans."""
    covered_s = np.zeros(len(begins))
    for start_s, stop_s in spans:
        covered_s += np.clip(np.minimum(stop_s, begins + tick_s) - np.maximum(start_s, begins), 0, None)
    return covered_s >= tick_s / 2


def _labelled(ticks: Ticks, labels: Iterable[tuple[float, float, str]]) -> Ticks:
    """Return ticks with labels; a label belongs to the user segment that it overlaps, or else is an effect."""
    marked: dict[str, set[int]] = {kind: set() for kind in LABELS}
    effects = []
    for start_s, stop_s, kind in labels:
        if kind not in LABELS:
            raise AudioError(f"the label {kind!r} is unknown; allowed: {', '.join(LABELS)}")
        start = round(start_s / ticks.tick_s)
        stop = max(round(stop_s / ticks.tick_s), start + 1)
        common = {run: min(run[1], stop) - max(run[0], start) for run in runs(ticks.user)}
        near = max(common, key=lambda run: common[run], default=(0, 0))
        if common.get(near, 0) > (stop - start) / 2:
            marked[kind] |= set(range(*near))
        elif stop <= len(ticks.user):
            effects.append((start, stop, kind))
    return Ticks(ticks.user, ticks.agent, marked, tuple(sorted(effects)), ticks.tick_s)


def mean_interval(values: Sequence[float]) -> tuple[float, int, float, float]:
    """Return (mean, n, low, high) of values, the interval NaN for fewer than `MIN_EVENTS`.

    Student's t at 95 %: for skewed latencies, as most are, it covers the mean in at least 88 % of the cases.
    """
    n, mean = len(values), float(np.mean(values)) if values else nan
    if n < MIN_EVENTS:
        return mean, n, nan, nan
    half = 1.96 * (1 + 1.21 / (n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    return mean, n, mean - half, mean + half
