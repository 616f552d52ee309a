"""Figures of interaction: two tracks with their events, yields to overlaps, detectors side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rtnb.analysis.plots.deltas import fill_waveform, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours; the outcomes also differ in their markers.
_GOOD: Final[dict[str, Any]] = {"color": "#0072B2", "marker": "o"}
_BAD: Final[dict[str, Any]] = {"color": "#D55E00", "marker": "X"}
_ROWS: Final = ("response", "interruption", "agent_interruption", "backchannel", "vocal_tic", "non_directed")


def draw_interaction(conversation: Any, *, ax: Axes | None = None) -> Axes:
    """Draw an `Interaction`: the user's track above, the agent's below, a lane per kind of event between them.

    A lane's bar spans the user's or agent's speech of the event; its marker lies at the start, a circle for a good
    outcome and a cross for an error. The line behind a circle is the latency.
    """
    ax = new_axes(ax, figsize=(9, 4))
    kinds = [kind for kind in _ROWS if any(one.kind == kind for one in conversation.events)]
    lanes = {kind: -1.5 - k for k, kind in enumerate(kinds)}
    bottom = -1.5 - len(kinds)
    for audio, at in ((conversation.user, 0.0), (conversation.agent, bottom)):
        fill_waveform(ax, audio, length_s=len(audio) / conversation.rate_hz, at=at, height=0.9, color="0.45")
    for one in conversation.events:
        style, at = _GOOD if one.outcome in ("response", "yield", "correct") else _BAD, lanes[one.kind]
        ax.broken_barh([(one.start_s, one.stop_s - one.start_s)], (at - 0.2, 0.4), facecolor="0.8")
        begin_s = one.stop_s if one.kind == "response" else one.start_s
        ax.plot([begin_s, begin_s + np.nan_to_num(one.latency_s)], [at, at], color=style["color"], linewidth=2)
        ax.plot(begin_s, at, linestyle="", markeredgecolor="black", markersize=7, **style)
    ax.set_yticks([0.0, *lanes.values(), bottom], ["user", *(kind.replace("_", " ") for kind in kinds), "agent"])
    ax.set_ylim(bottom - 1, 1)
    ax.set_xlabel("time (s)")
    return ax


def plot_overlaps(frame: Any, *, ax: Axes | None = None) -> Axes:
    """Draw a table of `overlap_lab`: kinds that should start a turn (solid), kinds that should not, with intervals."""
    ax = new_axes(ax, figsize=(7, 4))
    names = list(dict.fromkeys(frame["threshold"]))
    for number, (kind, rows) in enumerate(frame.groupby("kind", sort=False)):
        x = [names.index(name) + 0.06 * number for name in rows["threshold"]]
        label = f"{kind} (n = {rows['n'].iloc[0]}, {rows['n_groups'].iloc[0]} groups)"
        _draw_rates(ax, number, x, rows, "rate", label, "-" if kind in ("interruption", "turn") else "--")
    ax.set_xticks(range(len(names)), names)
    ax.set_xlabel("threshold (listening / speaking)")
    ax.set_ylabel("clips that start a turn (%)")
    ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1))
    return ax


def plot_detectors(frame: Any, *, ax: Axes | None = None) -> Axes:
    """Draw a table of `compare_detectors`: turns cut off over the median delay, a front with intervals per detector."""
    ax = new_axes(ax, figsize=(7, 4))
    for number, (name, rows) in enumerate(frame[np.isfinite(frame["delay_ms"])].groupby("detector", sort=False)):
        ax.scatter(rows["delay_ms"], 100 * rows["cut_off"], s=6, alpha=0.3, color=f"C{number}", linewidths=0)
        front = rows[rows["front"]].sort_values("delay_ms")
        _draw_rates(ax, number, front["delay_ms"], front, "cut_off", str(name), "-")
    ax.set_xlabel("delay after the end of the turn, median (ms)")
    ax.set_ylabel("turns cut off (%)")
    ax.set_title(f"{frame['n_turns'].iloc[0]} turns of {frame['n_groups'].iloc[0]} recordings", loc="left")
    ax.legend(fontsize="small")
    return ax


def _draw_rates(ax: Axes, number: int, x: Any, rows: Any, name: str, label: str, linestyle: Any) -> None:
    """Draw rates in percent with their intervals, where shown; colour and marker are those of a number."""
    label += "" if np.isfinite(rows["low"]).any() else ", interval not shown"
    errors = 100 * np.nan_to_num([rows[name] - rows["low"], rows["high"] - rows[name]]).clip(0)
    style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "os^vDP*<>h"[number % 10], "linestyle": linestyle}
    ax.errorbar(x, 100 * rows[name], yerr=errors, capsize=3, elinewidth=0.8, label=label, **style)
