"""Interaction metrics: responses, interruptions, yields, backchannels and overlaps of one conversation.

A conversation is two rows of ticks (0.2 s each): in which does the user speak, in which does the agent. They are read
from a tick log of tau2-bench, or found on two audio tracks (`rtnb.trace.interaction`). The definitions are those of its
panel (github.com/sierra-research/tau2-bench, MIT licence, commit a2c0247). The turn-taking score is that of
ServiceNow's EVA (github.com/ServiceNow/eva, MIT licence, commit 6ff857c).

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
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rtnb.errors import AudioError

_Bool = npt.NDArray[np.bool_]
_Run = tuple[int, int]

TICK_S: Final = 0.2
"""Length of a tick in the logs of tau2-bench."""
YIELD_S: Final = 2.0
"""Longest time in which the agent may yield to an interruption, or reply to an effect (tau2-bench)."""
SHORT_YIELD_S: Final = 1.0
"""The same for backchannels, tics and non-directed speech, to which the agent must not yield (tau2-bench)."""
LABELS: Final = ("backchannel", "vocal_tic", "non_directed")
"""Kinds of user speech that the agent should speak on through; everything else is addressed to it."""


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
            effects += [(*run, kind) for run in runs(np.isin(np.arange(len(user)), ticks) & ~user)]
    return Ticks(user, agent, labels, tuple(sorted(effects)), tick_s)


def find_events(ticks: Ticks) -> list[Event]:
    """Return all events of a conversation, in order of their start."""
    agent = runs(ticks.agent)
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
    turns = [run for run in runs(ticks.user) if not speaking[run[1]] and ticks.kind(*run) != "backchannel"]
    for (start, stop), following in zip(turns, [*turns[1:], None], strict=False):
        reply = next((at for at, _ in agent if at >= stop), None)
        if reply is not None and (following is None or reply <= following[0]):
            yield "response", "response", start, stop, reply - stop
        elif following is not None:
            yield "response", "no response", start, stop, nan


def _overlaps(ticks: Ticks, agent: list[_Run]) -> _Found:
    """Yield the outcome of each user segment that begins while the agent speaks, and of tics that do not."""
    for start, stop in runs(ticks.user):
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

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> speech, silence = {"contains_speech": True}, {"contains_speech": False}
    >>> ticks = [{"user_chunk": speech}] * 5 + [{"user_chunk": silence}] * 3 + [{"agent_chunk": speech}] * 4
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "log.json").write_text(json.dumps({"ticks": ticks}))
    ...     round(tick_metrics([Path(folder, "log.json")])["response_latency_mean"], 1)
    0.6
    """
    logs = [find_events(read_ticks(path, tick_s=tick_s)) for path in paths]
    events = [one for log in logs for one in log]
    kinds = {"response": "response", "interruption": "yield"} | {kind: kind for kind in LABELS}
    counts = {f"{name}_total": sum(one.kind == kind for one in events) for kind, name in kinds.items()}
    counts["agent_interrupts_count"] = sum(one.kind == "agent_interruption" for one in events)
    return panel(events) | {"counts": {"n_simulations": len(logs)} | counts}


def panel(events: Sequence[Event]) -> dict[str, float | None]:
    """Return the eight figures of `tick_metrics` for events."""
    means = {name: (sum(times) / len(times) if times else None) for name, times in event_latencies(events).items()}
    return means | {name: (hits / n if n else None) for name, (hits, n) in event_shares(events).items()}


def event_shares(events: Sequence[Event]) -> dict[str, tuple[int, int]]:
    """Return (hits, n) of each rate of the panel; an agent interrupts per response event."""
    shares: dict[str, tuple[int, int]] = {}
    rates = [("response_rate", "response", "response"), ("yield_rate", "interruption", "yield")]
    for name, kind, good in [*rates, *((f"selectivity_{kind}", kind, "correct") for kind in LABELS)]:
        outcomes = [one.outcome for one in events if one.kind == kind]
        shares[name] = outcomes.count(good), len(outcomes)
    hits = sum(one.kind == "agent_interruption" for one in events)
    return shares | {"agent_interruption_rate": (hits, shares["response_rate"][1])}


def event_latencies(events: Sequence[Event]) -> dict[str, list[float]]:
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
    agent, scores = runs(ticks.agent), []
    kinds = {run: ticks.kind(*run) for run in runs(ticks.user)}
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


def runs(flags: _Bool) -> list[_Run]:
    """Return [start, stop) of each run of true flags."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False])).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
