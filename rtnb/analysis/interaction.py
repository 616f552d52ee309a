"""Interaction metrics: responses, interruptions, yields, backchannels and overlaps of one conversation.

A conversation is two rows of ticks (0.2 s each): in which does the user speak, in which does the agent. They are read
from a tick log of tau2-bench, or found on two audio tracks. The definitions are those of that benchmark's panel
(github.com/sierra-research/tau2-bench, MIT licence, commit a2c0247). The turn-taking score is that of ServiceNow's EVA
(github.com/ServiceNow/eva, MIT licence, commit 6ff857c).

>>> user = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0], bool)  # speaks, then interrupts the answer
>>> agent = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0], bool)  # answers after two ticks, yields after three
>>> [(one.kind, one.outcome, round(one.latency_s, 1)) for one in find_events(Ticks(user, agent))]
[('response', 'response', 0.4), ('interruption', 'yield', 0.6)]
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rtnb.analysis.bootstrap import draw_weights, share_interval
from rtnb.analysis.interaction_plots import draw_interaction
from rtnb.audio import Audio, as_audio
from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS, speech_probabilities

if TYPE_CHECKING:
    import pandas as pd

_Bool = npt.NDArray[np.bool_]
_Run = tuple[int, int]

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
"""Fewer latencies give no interval (chosen)."""


class Event(NamedTuple):
    """Event of a conversation with its outcome."""

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
    labels: dict[str, set[int]] = field(default_factory=dict)
    """Kind of `LABELS` -> ticks that carry it."""
    effects: tuple[tuple[int, int, str], ...] = ()
    """(start, stop, kind) of sounds outside the user's speech, stop excluded."""
    tick_s: float = TICK_S

    def kind(self, start: int, stop: int) -> str:
        """Return the kind of a user segment, an empty text where it is addressed to the agent."""
        places = {"backchannel": range(start, start + 1)} | dict.fromkeys(LABELS[1:], range(start, stop))
        return next((kind for kind, at in places.items() if not self.labels.get(kind, set()).isdisjoint(at)), "")


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
    for tick, chunk in enumerate(chunks[0][: len(user)]):
        if (chunk.get("turn_taking_action") or {}).get("action") == "backchannel":
            places.setdefault(("backchannel", ""), []).append(tick)
        for name in ("source_effects", "speech_effects"):
            if insert := (chunk.get(name) or {}).get("speech_insert"):
                kind = "vocal_tic" if insert.get("type") == "vocal_tic" else "non_directed"
                places.setdefault((kind, str(insert.get("text"))), []).append(tick)
    labels: dict[str, set[int]] = {kind: set() for kind in LABELS}
    effects = []
    for (kind, _), ticks in places.items():
        labels[kind].update(ticks)
        if kind != "backchannel":  # ticks of one text in a row are one effect
            effects += [(*run, kind) for run in _runs(np.isin(np.arange(len(user)), ticks) & ~user)]
    return Ticks(user, agent, labels, tuple(sorted(effects)), tick_s)


def find_events(ticks: Ticks) -> list[Event]:
    """Return all events of a conversation, in order of their start."""
    agent = _runs(ticks.agent)
    found = [*_responses(ticks, agent), *_overlaps(ticks, agent), *_effects(ticks, agent)]
    found += [("agent_interruption", "error", start, stop, nan) for start, stop in agent if ticks.user[start]]
    return [
        Event(kind, outcome, start * ticks.tick_s, stop * ticks.tick_s, late * ticks.tick_s)
        for kind, outcome, start, stop, late in sorted(found, key=lambda one: one[2])
    ]


_Found = Iterable[tuple[str, str, int, int, float]]
"""Kind, outcome, start, stop and latency, in ticks."""


def _responses(ticks: Ticks, agent: list[_Run]) -> _Found:
    """Yield a response or its absence for each user segment that is not talked over at its end."""
    speaking = np.append(ticks.agent, False)  # no agent talks over the end of the log
    turns = [run for run in _runs(ticks.user) if not speaking[run[1]] and ticks.kind(*run) != "backchannel"]
    for (start, stop), following in zip(turns, [*turns[1:], None], strict=False):
        reply = next((at for at, _ in agent if at >= stop), None)
        if reply is not None and (following is None or reply <= following[0]):
            yield "response", "response", start, stop, reply - stop
        elif following is not None:
            yield "response", "no response", start, stop, nan


def _overlaps(ticks: Ticks, agent: list[_Run]) -> _Found:
    """Yield the outcome of each user segment that begins while the agent speaks, and of tics that do not."""
    for start, stop in _runs(ticks.user):
        kind = ticks.kind(start, stop)
        if ticks.agent[start]:
            window = int((SHORT_YIELD_S if kind else YIELD_S) / ticks.tick_s)
            late = next(iter(np.flatnonzero(~ticks.agent[start : start + window]).tolist()), nan)
            yields, stays = ("error", "correct") if kind else ("yield", "no yield")
            yield kind or "interruption", stays if np.isnan(late) else yields, start, stop, late
        elif kind in LABELS[1:]:
            yield kind, _reply(ticks, agent, start, stop), start, stop, nan


def _effects(ticks: Ticks, agent: list[_Run]) -> _Found:
    """Yield the outcome of each sound outside the user's speech."""
    for start, stop, kind in ticks.effects:
        end = next((end for at, end in agent if at <= start < end), None)
        if end is None:
            yield kind, _reply(ticks, agent, start, stop), start, stop, nan
        elif (end - start) * ticks.tick_s <= SHORT_YIELD_S:  # a later stop is no event at all
            yield kind, "error", start, stop, end - start


def _reply(ticks: Ticks, agent: list[_Run], start: int, stop: int) -> str:
    return "error" if any(start <= at <= stop + int(YIELD_S / ticks.tick_s) for at, _ in agent) else "correct"


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
    events = [one for log in logs for one in log]
    kinds = {"response": "response", "interruption": "yield"} | {kind: kind for kind in LABELS}
    counts = {f"{name}_total": sum(one.kind == kind for one in events) for kind, name in kinds.items()}
    counts["agent_interrupts_count"] = sum(one.kind == "agent_interruption" for one in events)
    return panel(events) | {"counts": {"n_simulations": len(logs)} | counts}


def panel(events: Sequence[Event]) -> dict[str, float | None]:
    """Return the eight figures of `tick_metrics` for events."""
    shares = {name: (hits / n if n else None) for name, (hits, n) in _shares(events).items()}
    return {name: (sum(times) / len(times) if times else None) for name, times in _latencies(events).items()} | shares


def _shares(events: Sequence[Event]) -> dict[str, tuple[int, int]]:
    """Return (hits, n) of each rate of the panel; an agent interrupts per response event."""
    shares: dict[str, tuple[int, int]] = {}
    rates = [("response_rate", "response", "response"), ("yield_rate", "interruption", "yield")]
    for name, kind, good in [*rates, *((f"selectivity_{kind}", kind, "correct") for kind in LABELS)]:
        outcomes = [one.outcome for one in events if one.kind == kind]
        shares[name] = outcomes.count(good), len(outcomes)
    hits = sum(one.kind == "agent_interruption" for one in events)
    return shares | {"agent_interruption_rate": (hits, shares["response_rate"][1])}


def _latencies(events: Sequence[Event]) -> dict[str, list[float]]:
    return {
        f"{outcome}_latency_mean": [one.latency_s for one in events if one.outcome == outcome]
        for outcome in ("response", "yield")
    }


def turn_taking_scores(ticks: Ticks) -> list[float]:
    """Return EVA's turn-taking score of each user turn, 0 to 1; their mean is the score of the conversation.

    A turn is a user segment up to the next one, without backchannels and without overlapping tics and non-directed
    speech. A turn in which the agent interrupts scores ``0.5 (1 - overlap / 2 s)`` or, if lower, the score of the
    latency after it. A turn in which the user interrupts scores ``1 - yield / 2 s``. Both: the lower one. Any other
    turn scores its latency: rising from 0 at -0.5 s to 1 at 0.5 s, 1 up to 2 s, falling to 0 at 5 s (the curve for
    turns without tool calls). A turn without an answer has no score.

    References
    ----------
    github.com/ServiceNow/eva, commit 6ff857c, src/eva/metrics/experience/turn_taking.py.

    Examples
    --------
    >>> user, agent = np.zeros(40, bool), np.zeros(40, bool)
    >>> user[:10], agent[30:] = True, True  # the answer comes after 4 s
    >>> [round(score, 3) for score in turn_taking_scores(Ticks(user, agent))]
    [0.333]
    """
    agent, scores = _runs(ticks.agent), []
    kinds = {run: ticks.kind(*run) for run in _runs(ticks.user)}
    turns = [run for run, kind in kinds.items() if not kind or (kind != LABELS[0] and not ticks.agent[run[0]])]
    for (start, stop), (after, _) in zip(turns, [*turns[1:], (len(ticks.user), 0)], strict=False):
        replies = [(at - stop) * ticks.tick_s for at, _ in agent if stop <= at <= after]
        late = [float(np.interp(replies[0], (-0.5, 0.5, 2.0, 5.0), (0, 1, 1, 0)))] if replies else []
        overlap_s = sum(min(end, stop) - at for at, end in agent if start < at < stop) * ticks.tick_s
        barged_s = [(end - start) * ticks.tick_s for at, end in agent if at <= start < end]
        parts = [max(0.0, 1 - one / YIELD_S) for one in barged_s]
        if overlap_s:
            settled = not any(at <= stop < end for at, end in agent)  # else there is no silence to measure
            parts += [0.5 * max(0.0, 1 - overlap_s / YIELD_S), *(late if settled else [])]
        scores += [min(parts or late)] if parts or late else []
    return scores


# --- audio tracks -----------------------------------------------------------------------------------------------------


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

    user: Audio = field(repr=False)
    """(n_samples,) the user's track."""
    agent: Audio = field(repr=False)
    """(n_samples,) the agent's track."""
    rate_hz: int
    ticks: Ticks = field(repr=False)

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

        Rates have exact binomial intervals, means bootstrap ones (from `MIN_EVENTS` events on, else NaN: not shown).
        They hold for more events of this conversation, not for other conversations. Shares of time have none.

        Returns
        -------
        pandas.DataFrame
            The panel of `tick_metrics`; turn_taking_score; gap_mean_s (silence between two speakers) and
            overlap_mean_s (both speak); user_share, agent_share, talk_over_share and silence_share of the duration.
        """
        import pandas as pd

        user, agent, tick_s = self.ticks.user, self.ticks.agent, self.ticks.tick_s
        inside = [(start, stop) for start, stop in _runs(~user & ~agent) if start and stop < len(user)]
        gaps = [
            (start, stop) for start, stop in inside if user[start - 1] != user[stop] or agent[start - 1] != agent[stop]
        ]
        lists = _latencies(self.events) | {"turn_taking_score": turn_taking_scores(self.ticks)}
        for name, runs in (("gap_mean_s", gaps), ("overlap_mean_s", _runs(user & agent))):
            lists[name] = [(stop - start) * tick_s for start, stop in runs]
        rows = {name: _mean(values) for name, values in lists.items()}
        for name, (hits, n) in _shares(self.events).items():
            ends = share_interval(hits, n) if 0 < n >= hits else (nan, nan)  # more hits than n: a ratio
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
    for start, stop in _runs(~speech):
        if start and stop < len(speech) and FRAME_MS * (stop - start) < 1000 * gap_s:
            speech[start:stop] = True
    return [(FRAME_MS * start / 1000, FRAME_MS * stop / 1000) for start, stop in _runs(speech)]


def _covered(spans: Iterable[tuple[float, float]], begins: npt.NDArray[Any], tick_s: float) -> _Bool:
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
        common = {run: min(run[1], stop) - max(run[0], start) for run in _runs(ticks.user)}
        near = max(common, key=lambda run: common[run], default=(0, 0))
        if common.get(near, 0) > (stop - start) / 2:
            marked[kind] |= set(range(*near))
        elif stop <= len(ticks.user):
            effects.append((start, stop, kind))
    return Ticks(ticks.user, ticks.agent, marked, tuple(sorted(effects)), ticks.tick_s)


def _mean(values: Sequence[float]) -> tuple[float, int, float, float]:
    """Return (mean, n, low, high) with the 90 % bootstrap interval."""
    if len(values) < MIN_EVENTS:
        return float(np.mean(values)) if values else nan, len(values), nan, nan
    draws = draw_weights(np.arange(len(values))) @ np.asarray(values) / len(values)
    low, high = np.quantile(draws, (0.05, 0.95)).tolist()
    return float(np.mean(values)), len(values), low, high


def _runs(flags: _Bool) -> list[_Run]:
    """Return [start, stop) of each run of true flags."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False])).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
