"""Interaction metrics: responses, interruptions, yields, backchannels and overlaps of one conversation.

A conversation is two rows of ticks (0.2 s each): in which does the user speak, in which does the agent. They are read
from a tick log of tau2-bench, or found in two audio tracks. The definitions are those of that benchmark's panel
(github.com/sierra-research/tau2-bench, MIT licence, commit a2c0247). The turn-taking score is that of ServiceNow's EVA
(github.com/ServiceNow/eva, MIT licence, commit 6ff857c, src/eva/metrics/experience/turn_taking.py).

>>> user = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0], bool)  # speaks, then interrupts the answer
>>> agent = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0], bool)  # answers after two ticks, yields three ticks late
>>> events = find_events(Ticks(user, agent))
>>> [(one.kind, one.outcome, round(one.latency_s, 1)) for one in events]
[('response', 'response', 0.4), ('interruption', 'yield', 0.6)]
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rtnb.analysis.bootstrap import draw_weights, share_interval
from rtnb.audio import Audio, as_audio
from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS, speech_probabilities

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_Bool = npt.NDArray[np.bool_]

TICK_S: Final = 0.2
"""Length of a tick in the logs of tau2-bench."""
YIELD_S: Final = 2.0
"""Longest time in which the agent may yield to an interruption, or reply to an effect (tau2-bench)."""
SHORT_YIELD_S: Final = 1.0
"""The same for backchannels, tics and non-directed speech, to which the agent must not yield (tau2-bench)."""
GAP_S: Final = 1.0
"""A shorter silence does not end the user's speech (chosen: nine of ten pauses inside turns are shorter)."""
AGENT_GAP_S: Final = 0.25
"""The same for the agent's speech, where only its track is known (chosen: longer than pauses between words)."""
LABELS: Final = ("backchannel", "vocal_tic", "non_directed")
"""Kinds of user speech that the agent should speak on through; everything else is addressed to it."""
MIN_EVENTS: Final = 8
"""Fewer latencies give no interval."""


class Label(NamedTuple):
    """Stretch of the user's track whose kind is known."""

    start_s: float
    stop_s: float
    kind: str
    """One of `LABELS`."""


class Event(NamedTuple):
    """One event of a conversation, with its outcome."""

    kind: str
    """``response``, ``interruption``, one of `LABELS`, or ``agent_interruption``."""
    outcome: str
    """``response``, ``no response``, ``yield``, ``no yield``, ``correct`` or ``error``."""
    start_s: float
    stop_s: float
    latency_s: float = nan
    """Of a response (from the end of the user's speech) or a yield (from its start)."""


@dataclass(frozen=True, eq=False)
class Ticks:
    """Speech of both sides, tick by tick."""

    user: _Bool
    """(n_ticks,)"""
    agent: _Bool
    """(n_ticks,)"""
    labels: dict[str, frozenset[int]] = field(default_factory=dict)
    """Kind of `LABELS` -> ticks that carry it."""
    effects: tuple[tuple[int, int, str], ...] = ()
    """(start, stop, kind) of sounds outside the user's speech, stop excluded."""
    tick_s: float = TICK_S


def read_ticks(path: str | os.PathLike[str], *, tick_s: float = TICK_S) -> Ticks:
    """Read a tick log of tau2-bench.

    Parameters
    ----------
    path : str or path
        JSON with a list ``ticks``; each has ``user_chunk`` and ``agent_chunk`` or null.
    tick_s : float, default 0.2
        Length of a tick in seconds.

    Raises
    ------
    AudioError
        The file is no tick log.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["ticks"]
        chunks = [[row.get(f"{side}_chunk") or {} for row in rows] for side in ("user", "agent")]
        user, agent = (np.array([bool(one.get("contains_speech")) for one in side], bool) for side in chunks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AudioError(f"{Path(path).name} is no tick log: it needs a list 'ticks' of chunks") from error
    if len(user) > 1 and user[-1] and not user[-2]:  # speech that begins as the log ends has no outcome
        user, agent = user[:-1], agent[:-1]
    places: dict[tuple[str, str], list[int]] = {}
    backchannels = []
    for tick, chunk in enumerate(chunks[0][: len(user)]):
        if (chunk.get("turn_taking_action") or {}).get("action") == "backchannel":
            backchannels.append(tick)
        for name in ("source_effects", "speech_effects"):
            if insert := (chunk.get(name) or {}).get("speech_insert"):
                kind = "vocal_tic" if insert.get("type") == "vocal_tic" else "non_directed"
                places.setdefault((kind, str(insert.get("text"))), []).append(tick)
    labels = {"backchannel": frozenset(backchannels)}
    for kind in LABELS[1:]:
        labels[kind] = frozenset(tick for (one, _), ticks in places.items() if one == kind for tick in ticks)
    effects = [
        (start, stop, kind)
        for (kind, _), ticks in places.items()
        for start, stop in _runs(np.isin(np.arange(len(user)), ticks) & ~user)
    ]
    return Ticks(user, agent, labels, tuple(sorted(effects)), tick_s)


def find_events(ticks: Ticks) -> list[Event]:
    """Return all events of a conversation, in order of their start."""
    user, agent, tick_s = _runs(ticks.user), _runs(ticks.agent), ticks.tick_s
    found = [*_responses(ticks, user, agent), *_overlaps(ticks, user, agent), *_effects(ticks, user, agent)]
    found += [("agent_interruption", "error", start, stop, nan) for start, stop in agent if ticks.user[start]]
    return [Event(*one[:2], one[2] * tick_s, one[3] * tick_s, one[4]) for one in sorted(found, key=lambda one: one[2])]


_Found = tuple[str, str, int, int, float]


def _kind(ticks: Ticks, start: int, stop: int) -> str:
    if start in ticks.labels.get("backchannel", ()):
        return "backchannel"
    return next(
        (kind for kind in LABELS[1:] if not ticks.labels.get(kind, frozenset()).isdisjoint(range(start, stop))), ""
    )


def _responses(ticks: Ticks, user: Sequence[tuple[int, int]], agent: Sequence[tuple[int, int]]) -> Iterable[_Found]:
    """Yield a response or its absence for each user segment that ends in silence of the agent."""
    talked_over = ticks.agent[[stop for _, stop in user if stop < len(ticks.agent)]]
    talked_over = np.append(talked_over, False)[: len(user)]
    eligible = [
        one for one, over in zip(user, talked_over, strict=True) if not over and _kind(ticks, *one) != "backchannel"
    ]
    for (start, stop), following in zip(eligible, [*eligible[1:], None], strict=True):
        reply = next((at for at, _ in agent if at >= stop), None)
        if reply is not None and (following is None or reply <= following[0]):
            yield "response", "response", start, stop, (reply - stop) * ticks.tick_s
        elif following is not None:
            yield "response", "no response", start, stop, nan


def _overlaps(ticks: Ticks, user: Sequence[tuple[int, int]], agent: Sequence[tuple[int, int]]) -> Iterable[_Found]:
    """Yield the outcome of each user segment that begins while the agent speaks, and of tics that do not."""
    for start, stop in user:
        kind = _kind(ticks, start, stop)
        if not ticks.agent[start]:
            if kind in LABELS[1:]:
                yield kind, _reply(ticks, agent, start, stop), start, stop, nan
            continue
        silent = np.flatnonzero(~ticks.agent[start : start + int((SHORT_YIELD_S if kind else YIELD_S) / ticks.tick_s)])
        late_s = float(silent[0]) * ticks.tick_s if len(silent) else nan
        names = ("error", "correct") if kind else ("yield", "no yield")
        yield kind or "interruption", names[not len(silent)], start, stop, late_s


def _effects(ticks: Ticks, user: Sequence[tuple[int, int]], agent: Sequence[tuple[int, int]]) -> Iterable[_Found]:
    """Yield the outcome of each sound outside the user's speech."""
    for start, stop, kind in ticks.effects:
        speaking = next(((at, end) for at, end in agent if at <= start < end), None)
        if speaking is None:
            yield kind, _reply(ticks, agent, start, stop), start, stop, nan
        elif (late_s := (speaking[1] - start) * ticks.tick_s) <= SHORT_YIELD_S:  # a later stop is no event at all
            yield kind, "error", start, stop, late_s


def _reply(ticks: Ticks, agent: Sequence[tuple[int, int]], start: int, stop: int) -> str:
    last = stop + int(YIELD_S / ticks.tick_s)
    return "error" if any(start <= at <= last for at, _ in agent) else "correct"


# --- the panel --------------------------------------------------------------------------------------------------------


def tick_metrics(paths: Iterable[str | os.PathLike[str]], tick_s: float = TICK_S) -> dict[str, Any]:
    """Return the interaction panel of tau2-bench over tick logs; the events of all logs are pooled.

    Parameters
    ----------
    paths : iterable of str or path
        Tick logs, see `read_ticks`.
    tick_s : float, default 0.2
        Length of a tick in seconds.

    Returns
    -------
    dict
        response_latency_mean and yield_latency_mean (s), response_rate, yield_rate, agent_interruption_rate,
        selectivity_backchannel, selectivity_vocal_tic and selectivity_non_directed (0 to 1), None without an event;
        ``counts``: n_simulations, response_total, yield_total, backchannel_total, vocal_tic_total,
        non_directed_total, agent_interrupts_count.
    """
    logs = [find_events(read_ticks(path, tick_s=tick_s)) for path in paths]
    return panel([one for events in logs for one in events]) | {"counts": _counts(logs)}


def panel(events: Sequence[Event]) -> dict[str, float | None]:
    """Return the eight figures of `tick_metrics` for events."""
    shares = {name: (hits / n if n else None) for name, (hits, n) in _shares(events).items()}
    means = {name: (float(np.mean(values)) if values else None) for name, values in _latencies(events).items()}
    return {**means, **shares}


def _shares(events: Sequence[Event]) -> dict[str, tuple[int, int]]:
    """Return (hits, n) of each rate of the panel; an agent interrupts per response event."""
    counts: dict[str, tuple[int, int]] = {}
    good = {"response": "response", "interruption": "yield"} | dict.fromkeys(LABELS, "correct")
    names = {"response": "response_rate", "interruption": "yield_rate"}
    for kind, outcome in good.items():
        outcomes = [one.outcome for one in events if one.kind == kind]
        counts[names.get(kind, f"selectivity_{kind}")] = outcomes.count(outcome), len(outcomes)
    n = sum(one.kind == "agent_interruption" for one in events)
    return counts | {"agent_interruption_rate": (n, counts["response_rate"][1])}


def _latencies(events: Sequence[Event]) -> dict[str, list[float]]:
    wanted = {"response_latency_mean": "response", "yield_latency_mean": "yield"}
    return {name: [one.latency_s for one in events if one.outcome == outcome] for name, outcome in wanted.items()}


def _counts(logs: Sequence[Sequence[Event]]) -> dict[str, int]:
    kinds = [one.kind for events in logs for one in events]
    named = {"response_total": "response", "yield_total": "interruption"} | {f"{kind}_total": kind for kind in LABELS}
    named["agent_interrupts_count"] = "agent_interruption"
    return {"n_simulations": len(logs)} | {name: kinds.count(kind) for name, kind in named.items()}


def turn_taking_score(ticks: Ticks) -> list[float]:
    """Return EVA's turn-taking score of each user turn, 0 to 1; its mean is the score of the conversation.

    A turn is a user segment up to the next one; backchannels, tics and non-directed speech are none. A turn in which
    the agent interrupts scores ``0.5 (1 - overlap / 2 s)`` or, if lower, the score of the latency after it. A turn in
    which the user interrupts scores ``1 - yield / 2 s``. Both: the lower one. Any other turn scores its latency:
    rising from 0 at -0.5 s to 1 at 0.5 s, 1 up to 2 s, falling to 0 at 5 s (the curve for turns without tool calls).
    A turn without an answer has no score, as in EVA.

    References
    ----------
    github.com/ServiceNow/eva, commit 6ff857c, src/eva/metrics/experience/turn_taking.py.

    Examples
    --------
    >>> user, agent = np.zeros(40, bool), np.zeros(40, bool)
    >>> user[:10], agent[30:] = True, True  # the answer comes after 4 s
    >>> [round(score, 3) for score in turn_taking_score(Ticks(user, agent))]
    [0.333]
    """
    agent = _runs(ticks.agent)
    turns = [one for one in _runs(ticks.user) if not _kind(ticks, *one)]
    scores = []
    for (start, stop), (after, _) in zip(turns, [*turns[1:], (len(ticks.user), 0)], strict=True):
        parts = []
        inside = [(at, end) for at, end in agent if start < at < stop]
        reply = next((at for at, _ in agent if stop <= at <= after), None)
        late = [] if reply is None else [_latency_score(reply - stop, ticks)]
        if inside:
            overlap_s = sum(min(end, stop) - at for at, end in inside) * ticks.tick_s
            settled = not any(at <= stop < end for at, end in agent)  # else no silence is there to measure
            parts += [0.5 * max(0.0, 1 - overlap_s / YIELD_S), *(late if settled else [])]
        if barged := [end for at, end in agent if at <= start < end]:
            parts.append(max(0.0, 1 - (barged[0] - start) * ticks.tick_s / YIELD_S))
        scores += [min(parts or late)] if parts or late else []
    return scores


def _latency_score(n_ticks: int, ticks: Ticks) -> float:
    return float(np.interp(n_ticks * ticks.tick_s, (-0.5, 0.5, 2.0, 5.0), (0, 1, 1, 0)))


# --- audio tracks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class Interaction:
    """One conversation: two audio tracks on one time axis, and the events found in them.

    Examples
    --------
    >>> from rtnb.audio import babble
    >>> quiet, talk = np.zeros(24_000, np.float32), babble("is the table still free tonight").audio
    >>> user, agent = np.r_[quiet, talk, quiet], np.r_[quiet, np.zeros_like(talk), quiet, talk]
    >>> conversation = Interaction.of_tracks(user, agent, rate_hz=24_000)
    >>> conversation.to_frame()[["kind", "outcome"]].values.tolist()
    [['response', 'response']]
    """

    user: Audio = field(repr=False)
    """(n_samples,) the user's track."""
    agent: Audio = field(repr=False)
    """(n_samples,) the agent's track."""
    rate_hz: int
    ticks: Ticks = field(repr=False)
    events: tuple[Event, ...]
    marks: tuple[tuple[float, str], ...] = ()
    """(time_s, name) of events on the wire, for the plot."""

    @classmethod
    def of_tracks(
        cls,
        user: npt.ArrayLike,
        agent: npt.ArrayLike,
        *,
        rate_hz: int,
        labels: Iterable[tuple[float, float, str]] = (),
        marks: Iterable[tuple[float, str]] = (),
        agent_spans: Sequence[tuple[float, float]] | None = None,
        tick_s: float = TICK_S,
        gap_s: float = GAP_S,
    ) -> Interaction:
        """Find the speech on two tracks, and the events between them.

        Parameters
        ----------
        user, agent : array_like, shape (n_samples,)
            The tracks from the same moment on; anything `rtnb.audio.as_audio` takes. The shorter one is padded.
        rate_hz : int
            Samples per second of both.
        labels : iterable of (start_s, stop_s, kind)
            Known kinds of user speech (`LABELS`). Without labels each overlap is an interruption.
        marks : iterable of (time_s, name)
            Drawn by `plot`.
        agent_spans : sequence of (start_s, stop_s), optional
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
        tracks = [as_audio(user), as_audio(agent)]
        size = max(map(len, tracks))
        tracks = [np.pad(track, (0, size - len(track))) for track in tracks]
        begins = tick_s * np.arange(int(np.ceil(size / rate_hz / tick_s)))
        user_spans = _speech(tracks[0], rate_hz, gap_s)
        agent_spans = _speech(tracks[1], rate_hz, AGENT_GAP_S) if agent_spans is None else agent_spans
        speech = [_covered(spans, begins, tick_s) for spans in (user_spans, agent_spans)]
        ticks = _labelled(speech[0], speech[1], [Label(*one) for one in labels], tick_s)
        events = tuple(find_events(ticks))
        return cls(user=tracks[0], agent=tracks[1], rate_hz=rate_hz, ticks=ticks, events=events, marks=tuple(marks))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per event: kind, outcome, start_s, stop_s, latency_s."""
        import pandas as pd

        return pd.DataFrame(list(self.events), columns=list(Event._fields))

    def metrics(self) -> pd.DataFrame:
        """Return one row per metric: value, n and its 90 % interval.

        Rates have exact binomial intervals, means bootstrap ones (from `MIN_EVENTS` events on, else NaN: not shown).
        They hold for more events of this conversation, not for other conversations. Shares of time have none.

        Returns
        -------
        pandas.DataFrame
            The panel of `tick_metrics`; turn_taking_score; user_share, agent_share, talk_over_share and silence_share
            of the duration; gap_mean_s (silence between two speakers) and overlap_mean_s (both speak).
        """
        import pandas as pd

        rows = {name: (*_mean(values),) for name, values in _latencies(self.events).items()}
        for name, (hits, n) in _shares(self.events).items():
            known = 0 < n >= hits  # more interruptions of the agent than responses: a ratio, not a share
            rows[name] = (hits / n if n else nan, n, *(share_interval(hits, n) if known else (nan, nan)))
        user, agent = self.ticks.user, self.ticks.agent
        rows["turn_taking_score"] = _mean(turn_taking_score(self.ticks))
        times = {"user": user, "agent": agent, "talk_over": user & agent, "silence": ~user & ~agent}
        for name, where in times.items():
            rows[f"{name}_share"] = (float(where.mean()) if len(where) else nan, len(where), nan, nan)
        rows["gap_mean_s"] = _mean([(stop - start) * self.ticks.tick_s for start, stop in _gaps(user, agent)])
        rows["overlap_mean_s"] = _mean([(stop - start) * self.ticks.tick_s for start, stop in _runs(user & agent)])
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "n", "low", "high"])

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw both tracks with each event marked."""
        from rtnb.analysis.interaction_plots import draw_interaction

        return draw_interaction(self, ax=ax)


def _speech(audio: Audio, rate_hz: int, gap_s: float) -> list[tuple[float, float]]:
    """Return (start_s, stop_s) of speech, over silences shorter than `gap_s`."""
    runs = _runs(speech_probabilities(audio, rate_hz=rate_hz) >= 0.5)
    gaps = [FRAME_MS * (after[0] - before[1]) / 1000 >= gap_s for before, after in pairwise(runs)]
    starts = [run[0] for run, new in zip(runs, [True, *gaps], strict=False) if new]
    stops = [run[1] for run, last in zip(runs, [*gaps, True], strict=False) if last]
    return [(FRAME_MS * start / 1000, FRAME_MS * stop / 1000) for start, stop in zip(starts, stops, strict=True)]


def _covered(spans: Iterable[tuple[float, float]], begins: npt.NDArray[np.floating], tick_s: float) -> _Bool:
    """Return the ticks of which at least half lies in spans."""
    covered_s = np.zeros(len(begins))
    for start_s, stop_s in spans:
        covered_s += np.clip(np.minimum(stop_s, begins + tick_s) - np.maximum(start_s, begins), 0, None)
    return covered_s >= tick_s / 2


def _labelled(user: _Bool, agent: _Bool, labels: Sequence[Label], tick_s: float) -> Ticks:
    """Return ticks with labels; a label belongs to the user segment that it overlaps, or else is an effect."""
    if unknown := {one.kind for one in labels} - set(LABELS):
        raise AudioError(f"the label {sorted(unknown)[0]!r} is unknown; allowed: {', '.join(LABELS)}")
    marked: dict[str, set[int]] = {kind: set() for kind in LABELS}
    effects = []
    for one in labels:
        start, stop = round(one.start_s / tick_s), max(round(one.stop_s / tick_s), round(one.start_s / tick_s) + 1)
        near = max(_runs(user), key=lambda run: min(run[1], stop) - max(run[0], start), default=(0, 0))
        if min(near[1], stop) - max(near[0], start) > (stop - start) / 2:
            marked[one.kind] |= set(range(*near))
        else:
            effects.append((start, stop, one.kind))
    return Ticks(user, agent, {kind: frozenset(at) for kind, at in marked.items()}, tuple(sorted(effects)), tick_s)


def _gaps(user: _Bool, agent: _Bool) -> list[tuple[int, int]]:
    """Return the silences whose two sides are different speakers."""
    silences = [(start, stop) for start, stop in _runs(~user & ~agent) if start > 0 and stop < len(user)]
    return [
        (start, stop) for start, stop in silences if user[start - 1] != user[stop] or agent[start - 1] != agent[stop]
    ]


def _mean(values: Sequence[float]) -> tuple[float, int, float, float]:
    """Return (mean, n, low, high) with the 90 % bootstrap interval."""
    if len(values) < MIN_EVENTS:
        return float(np.mean(values)) if values else nan, len(values), nan, nan
    draws = draw_weights(np.arange(len(values))) @ np.asarray(values) / len(values)
    low, high = np.quantile(draws, (0.05, 0.95)).tolist()
    return float(np.mean(values)), len(values), low, high


def _runs(flags: _Bool) -> list[tuple[int, int]]:
    """Return [start, stop) of each run of true flags."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False])).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
