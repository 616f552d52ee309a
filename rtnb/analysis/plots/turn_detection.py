"""Figures of turn detection: what it did to a recording, and what every setting costs. They read well in grey, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rtnb.analysis.gaps import cut_offs
from rtnb.analysis.plots.deltas import fill_waveform, new_axes
from rtnb.analysis.recommendation import Candidate, Recommendation
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import METRICS, Sweep, setting_of
from rtnb.errors import AudioError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import FRAME_MS, Segment, VadConstants, server_vad_segments, speech_probabilities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, distinguishable by the colour-blind; their luminances differ as well.
_BLUE, _ORANGE, _RED, _GREY = "#0072B2", "#E69F00", "#D55E00", "#767676"
_PALE = "#BFD9E8"
_LANE = 0.3  # height of a lane beneath the curve, in units of probability (chosen)


def plot_turns(
    recording: Recording,
    *,
    turn_detection: ServerVad | Sequence[ServerVad] = SERVER_VAD_DEFAULTS,
    constants: VadConstants | None = None,
    start_ms: float = 0.0,
    stop_ms: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the turns that turn detection would find in a recording, with probability and waveform.

    Each setting has a lane: a bar per turn it would take, as long as the item it would commit. A cross is a cut-off:
    the turn was ended in a pause. A bar that goes on after the speech is what everybody waits.

    Parameters
    ----------
    recording : Recording
        With its labels.
    turn_detection : ServerVad or sequence of ServerVad
        One lane each; what is not set is the service's default. The thresholds are drawn on the curve.
    constants : VadConstants, optional
        What a calibration found. Default: the model's own.
    start_ms, stop_ms : float, default 0 and the end
        Which stretch to draw.
    ax : Axes, optional
        Draw here; None makes a figure.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from rtnb.analysis.recordings import thinking_aloud
    >>> from rtnb.audio import babble
    >>> turns = thinking_aloud([babble("well").audio, babble("a table for two").audio], rate_hz=24_000, n_turns=8)
    >>> axes = plot_turns(turns[0], turn_detection=[ServerVad(silence_duration_ms=ms) for ms in (200, 800)])
    >>> axes.get_xlabel()
    'time (s)'
    """
    ax = new_axes(ax, figsize=(9, 4))
    probabilities = speech_probabilities(recording.audio, rate_hz=recording.rate_hz)
    settings = [turn_detection] if isinstance(turn_detection, ServerVad) else list(turn_detection)
    frames_s = FRAME_MS / 1000 * np.arange(len(probabilities) + 1)
    ax.stairs(probabilities, frames_s, color="black", linewidth=1, baseline=None)
    for threshold in sorted({setting_of(one, "threshold") for one in settings}):
        ax.axhline(threshold, color=_GREY, linewidth=0.8, linestyle="--")
    length_s = recording.duration_ms / 1000
    fill_waveform(ax, recording.audio, length_s=length_s, at=-_LANE, height=0.45 * _LANE, color=_GREY)
    turns, pauses = recording.turns, [pause for turn in recording.turns for pause in turn.pauses]
    _bars(ax, [(turn.start_ms, turn.end_ms) for turn in turns], at=-2 * _LANE, color=_BLUE, label="turn")
    _bars(ax, pauses, at=-2 * _LANE, color=_PALE, label="pause in it")
    names = ["audio", "spoken"]
    for number, one in enumerate(settings, start=3):
        asked = {name: setting_of(one, name) for name in ("threshold", "silence_duration_ms", "prefix_padding_ms")}
        segments = server_vad_segments(probabilities, constants=constants or VadConstants(), **asked)
        _draw_segments(ax, segments, recording, at=-number * _LANE)
        names.append(f"{asked['threshold']:g}, {asked['silence_duration_ms']:g} ms")
    lanes = -_LANE * np.arange(1, len(names) + 1)
    ax.set_yticks([1.0, 0.5, 0.0, *lanes], ["1", "0.5", "0", *names])
    ax.set_ylim(lanes[-1] - 0.6 * _LANE, 1.05)
    ax.set_xlim(start_ms / 1000, (recording.duration_ms if stop_ms is None else stop_ms) / 1000)
    if recording.turns:
        gap = recording.turn_gap_ms
        found = f"{len(recording.turns)} turn{'s' * (len(recording.turns) != 1)}"
        ax.set_title(found + (f", silences of {gap:g} ms or more between" if gap is not None else ""), loc="left")
    ax.set_xlabel("time (s)")
    bottom, top = ax.get_ylim()
    ax.set_ylabel("speech probability", y=(0.5 - bottom) / (top - bottom))
    handles, labels = ax.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))  # every lane has the same ones
    ax.legend(named.values(), named, loc="lower right", bbox_to_anchor=(1, 1), fontsize="small", ncols=4, frameon=False)
    return ax


def plot_sweep(
    sweep: Sweep,
    *,
    metric: str = "cut_off_rate",
    recommendation: Recommendation | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one metric over threshold and silence duration as a heat map, brighter is more.

    Parameters
    ----------
    sweep : Sweep
        Of one condition; metrics that depend on the prefix padding are drawn for its longest.
    metric : str, default ``"cut_off_rate"``
        One of `rtnb.analysis.sweeping.METRICS` that depends on the silence duration. Shares are drawn in percent.
    recommendation : Recommendation, optional
        Marks its choice.
    ax : Axes, optional
        Draw here; None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    AudioError
        An unknown metric, one without a silence axis, or several conditions.

    Examples
    --------
    >>> from rtnb.analysis.recordings import thinking_aloud
    >>> from rtnb.audio import babble
    >>> turns = thinking_aloud([babble("well").audio, babble("a table for two").audio], rate_hz=24_000, n_turns=8)
    >>> from rtnb.analysis import sweep
    >>> result = sweep(turns, cache=False, progress=False)
    >>> plot_sweep(result).get_title(loc="left")
    '8 turns'
    """
    table = sweep.grid(metric)
    if "silence_duration_ms" not in table.columns.names:
        raise AudioError(f"{metric} does not depend on the silence duration: a heat map needs that")
    ax = new_axes(ax, figsize=(6.5, 4))
    values = METRICS[metric].of(sweep).reshape(*sweep.cut_off.shape[:2], -1)[..., -1]
    shown, unit = (100 * values, "%") if not METRICS[metric].unit else (values, METRICS[metric].unit)
    mesh = ax.pcolormesh(sweep.silences_ms, sweep.thresholds, shown, cmap="cividis", shading="nearest", rasterized=True)
    name = metric.removesuffix("_ms").removesuffix("_per_h").removesuffix("_per_min").replace("_", " ")
    ax.figure.colorbar(mesh, ax=ax, label=f"{name} ({unit})")
    if not np.isnan(shown).any() and min(shown.shape) > 1 and np.ptp(shown) > 0:
        _draw_contours(ax, sweep, shown)
    ax.set_xlabel("silence duration (ms)")
    ax.set_ylabel("threshold")
    ax.set_title(f"{sweep.n_turns} turns", loc="left")
    frames = sweep.constants.silence_frames(setting_of(SERVER_VAD_DEFAULTS, "silence_duration_ms"))
    points = [("default", FRAME_MS * frames, setting_of(SERVER_VAD_DEFAULTS, "threshold"))]
    if recommendation is not None and recommendation.choice is not None:
        choice = recommendation.choice
        points.append(("choice", choice.silence_duration_ms, choice.threshold))
    for label, silence_ms, threshold in points:
        ax.plot(silence_ms, threshold, label=label, linestyle="", **_MARKS[label])
    ax.legend(loc="upper right", fontsize="small")
    return ax


def plot_pareto(
    sweep: Sweep,
    *,
    recommendation: Recommendation | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what every setting costs: turns cut off against delay. Down and to the left is better.

    Parameters
    ----------
    sweep : Sweep
        Each setting is a dot.
    recommendation : Recommendation, optional
        Adds the front, the budget, and default and choice with their intervals.
    ax : Axes, optional
        Draw here; None makes a figure.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from rtnb.analysis.recordings import thinking_aloud
    >>> from rtnb.audio import babble
    >>> turns = thinking_aloud([babble("well").audio, babble("a table for two").audio], rate_hz=24_000, n_turns=8)
    >>> from rtnb.analysis import sweep
    >>> result = sweep(turns, cache=False, progress=False)
    >>> plot_pareto(result).get_ylabel()
    'turns cut off (%)'
    """
    ax = new_axes(ax, figsize=(6.5, 4))
    cut_off, delay_ms = (sweep.grid(name).to_numpy() for name in ("cut_off_rate", "delay_p90_ms"))
    shades = np.repeat(sweep.thresholds[:, None], len(sweep.silence_frames), axis=1)
    dots = ax.scatter(
        delay_ms, 100 * cut_off, c=shades, s=14, cmap="cividis", linewidths=0.3, edgecolors=_GREY, rasterized=True
    )
    ax.figure.colorbar(dots, ax=ax, label="threshold")
    if recommendation is not None:
        front = recommendation.front
        delays_ms, percent = [c.delay_p90_ms for c in front], [100 * c.cut_off for c in front]
        ax.plot(delays_ms, percent, color=_GREY, linewidth=1, label="front")
        ax.axhline(100 * recommendation.budget.max_cut_off, color=_RED, linewidth=1, linestyle="--", label="budget")
        _draw_candidate(ax, recommendation.default, "default")
        if recommendation.choice is not None:
            _draw_candidate(ax, recommendation.choice, "choice")
        ax.legend(loc="upper right", fontsize="small")
    interval = f", {100 * recommendation.budget.confidence:g} % intervals" if recommendation is not None else ""
    ax.set_title(f"{sweep.n_turns} turns{interval}", loc="left")
    ax.set_xlabel("endpointing delay, 90th percentile (ms)")
    ax.set_ylabel("turns cut off (%)")
    ax.set_ylim(bottom=-1)
    return ax


# --- parts ------------------------------------------------------------------------------------------------------------

_MARKS: dict[str, dict[str, Any]] = {
    "default": {"marker": "s", "markersize": 8, "color": "white", "markeredgecolor": "black", "markeredgewidth": 1.5},
    "choice": {"marker": "*", "markersize": 14, "color": _ORANGE, "markeredgecolor": "black"},
}


def _bars(ax: Axes, spans: Sequence[tuple[float, float]], *, at: float, color: str, label: str) -> None:
    pieces = [(start / 1000, (end - start) / 1000) for start, end in spans]
    place = (at - 0.3 * _LANE, 0.6 * _LANE)
    ax.broken_barh(pieces, place, facecolor=color, edgecolor="black", linewidth=0.5, label=label if pieces else None)


def _draw_segments(ax: Axes, segments: Sequence[Segment], recording: Recording, *, at: float) -> None:
    ends = [one.audio_end_ms or recording.duration_ms for one in segments]
    spans = [(float(one.audio_start_ms), float(end)) for one, end in zip(segments, ends, strict=True)]
    _bars(ax, spans, at=at, color=_ORANGE, label="item taken")
    cuts = [stop_ms / 1000 for early in cut_offs(recording.turns, segments) for stop_ms in early]
    if cuts:
        style: dict[str, Any] = {"color": _RED, "markeredgecolor": "black", "markersize": 9, "zorder": 5}
        ax.plot(cuts, [at] * len(cuts), "X", label="cut off", **style)


def _draw_contours(ax: Axes, sweep: Sweep, shown: Any) -> None:
    """Lines of equal value, white with a dark edge: to be seen on any ground."""
    from matplotlib import patheffects

    edge: list[patheffects.AbstractPathEffect] = [patheffects.withStroke(linewidth=2, foreground="black")]
    lines = ax.contour(sweep.silences_ms, sweep.thresholds, shown, colors="white", linewidths=0.8)
    lines.set_path_effects(edge)
    # In the upper half, where every line is one smooth curve: lower down they lie on top of each other.
    rows = [round(share * (len(sweep.thresholds) - 1)) for share in (0.6, 0.75)]
    places = []
    for number, level in enumerate(lines.levels):
        row = rows[number % 2]
        for column in np.flatnonzero(np.diff(shown[row] > level))[:1]:
            places.append((sweep.silences_ms[column], sweep.thresholds[row]))
    for text in ax.clabel(lines, fontsize="small", fmt="%g", manual=places):
        text.set_path_effects(edge)


def _draw_candidate(ax: Axes, candidate: Candidate, role: str) -> None:
    x, y = candidate.delay_p90_ms, 100 * candidate.cut_off
    if not np.isfinite(x):
        return  # it never ends most turns
    ends_ms = np.minimum([[candidate.delay_p90_low_ms], [candidate.delay_p90_high_ms]], 10 * x)
    ends = 100 * np.array([[candidate.cut_off_low], [candidate.cut_off_high]])
    style: dict[str, Any] = {"ecolor": "black", "elinewidth": 1, "capsize": 3, "linestyle": "", "zorder": 5}
    ax.errorbar([x], [y], xerr=np.abs(ends_ms - x), yerr=np.abs(ends - y), label=role, **style, **_MARKS[role])
