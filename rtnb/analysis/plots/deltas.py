"""Figures of a response: what was said, and when each piece of it arrived. The only importer of matplotlib."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rtnb.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

_COLOURS = 10  # matplotlib's default cycle, C0 … C9
_COLUMNS = 2_000  # more points than a figure has pixels across (chosen)


def new_axes(ax: Axes | None, *, figsize: tuple[float, float]) -> Axes:
    """Return the axes to draw into; None makes a figure."""
    if ax is None:
        from matplotlib import pyplot as plt

        ax = plt.subplots(figsize=figsize, layout="constrained")[1]
    return ax


def draw_png(plot: Callable[..., Axes], *arguments: Any, **options: Any) -> tuple[bytes, Axes]:
    """Call a function of this room with a figure outside of pyplot; return the picture, a PNG, and its axes.

    Pyplot belongs to the user's cells: it would show the figure below the running one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    ax = plot(*arguments, ax=figure.subplots(), **options)
    figure.savefig(picture := BytesIO(), dpi=144)
    return picture.getvalue(), ax


def plot_deltas(response: Any, *, ax: Axes | None = None) -> Any:
    """Draw the waveform of a response, one colour per delta, and beneath it when each delta arrived.

    Time of arrival runs downwards. A delta above the dashed line arrived before it had to be played: the usual case,
    speech is made faster than it is spoken. One below the line came too late: there is a gap.

    Parameters
    ----------
    response : Response
        With audio; it may still be growing.
    ax : Axes, optional
        Draw here: only the waveform, with a tick at its foot for each delta's arrival. None makes a figure with two
        panels.

    Returns
    -------
    Axes, or ndarray of two Axes
        What was drawn into.

    Raises
    ------
    AudioError
        The response has no audio.

    Examples
    --------
    >>> import asyncio, rtnb
    >>> async def ask():
    ...     async with rtnb.connect("sim", latency="fast", voice="babble") as session:
    ...         return await session.ask("Please count to ten.")
    >>> waveform, arrivals = plot_deltas(asyncio.run(ask()))
    >>> waveform.get_ylabel()
    'amplitude (full scale = 1)'
    """
    deltas = _spoken(response)
    if ax is not None:
        _draw_waveform(ax, deltas)
        _mark_arrivals(ax, deltas)
        ax.set_xlabel("time in the response (s); ticks: arrival after the request (s)")
        return ax
    from matplotlib import pyplot as plt

    axes = plt.subplots(2, 1, sharex=True, figsize=(9, 4.5), height_ratios=(3, 2), layout="constrained")[1]
    _draw_waveform(axes[0], deltas)
    _draw_arrivals(axes[1], deltas)
    axes[0].set_title(f"{len(deltas)} audio deltas, {_stops_s(deltas)[-1]:.2f} s of speech", loc="left")
    axes[1].set_xlabel("time in the response (s)")
    return axes


def plot_arrivals(response: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how much audio had arrived and how much could be played by then: the distance is what a speaker has in hand.

    Where the two lines touch, playback runs dry: there is a gap. Playback starts with the first delta, without a
    buffer; what a speaker buffers first shifts its line to the right.

    Parameters
    ----------
    response : Response
        With audio.
    ax : Axes, optional
        Draw here; None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    AudioError
        The response has no audio.

    Examples
    --------
    >>> import asyncio, rtnb
    >>> async def ask():
    ...     async with rtnb.connect("sim", latency="fast", voice="babble") as session:
    ...         return await session.ask("Please count to ten.")
    >>> plot_arrivals(asyncio.run(ask())).get_xlabel()
    'time after the request (s)'
    """
    deltas = _spoken(response)
    ax = new_axes(ax, figsize=(7, 4))
    arrived_s = np.array([delta.arrived_ms for delta in deltas]) / 1000
    lengths_s = np.array([delta.audio_ms for delta in deltas]) / 1000
    starts_s, stops_s = _played(arrived_s, lengths_s)
    ahead_s, total_s = np.cumsum(lengths_s) - lengths_s, np.cumsum(lengths_s)
    end_s = max(stops_s[-1], arrived_s[-1])
    arrived_at, there_s = np.append(arrived_s, end_s), np.append(total_s, total_s[-1])
    times = np.stack([starts_s, stops_s], axis=1).ravel(), np.stack([ahead_s, total_s], axis=1).ravel()
    ax.step(arrived_at, there_s, where="post", color="C0", label="arrived")
    ax.plot(*times, color="C1", label="played")
    grid = np.union1d(np.linspace(arrived_s[0], end_s, _COLUMNS), arrived_at)
    held_s = there_s[np.searchsorted(arrived_at, grid, side="right") - 1]  # a step curve
    gone_s = np.interp(grid, *times)
    label = f"in hand, at most {1000 * (held_s - gone_s).max():.0f} ms"
    ax.fill_between(grid, gone_s, held_s, color="C0", alpha=0.12, linewidth=0, label=label)
    dry = int(np.sum(starts_s[1:] > stops_s[:-1] + 1e-6))
    if dry:
        ax.plot([], [], " ", label=f"ran dry {dry} {'time' if dry == 1 else 'times'}")
    ax.set(xlabel="time after the request (s)", ylabel="audio (s)", xlim=(0, None), ylim=(0, None))
    ax.legend(loc="lower right")
    return ax


# --- parts ------------------------------------------------------------------------------------------------------------


def plot_lanes(lanes: Mapping[str, Sequence[tuple[float, float, bool]]], *, ax: Axes | None = None) -> Axes:
    """Draw bars on one time axis, one row per lane.

    Parameters
    ----------
    lanes : mapping
        Name of a lane -> its bars: start and stop in ms, and whether it is hatched.
    ax : Axes, optional
        Draw here; None makes a figure.
    """
    ax = new_axes(ax, figsize=(9, 0.8 + 0.5 * len(lanes)))
    for place, bars in enumerate(lanes.values()):
        for start, stop, hatched in bars:
            span, hatch = (start / 1000, (stop - start) / 1000), "////" if hatched else ""
            ax.broken_barh([span], (place - 0.35, 0.7), facecolor=f"C{place % 2}", edgecolor="white", hatch=hatch)
    ax.set_yticks(range(len(lanes)), list(lanes))
    ax.invert_yaxis()
    ax.set_xlabel("time (s)")
    return ax


def _spoken(response: Any) -> list[Any]:
    deltas = [delta for delta in response.deltas if delta.kind == "audio" and delta.audio_ms]
    if not deltas:
        raise AudioError("the response has no audio to draw").with_hint("Await it first, or look at its text.")
    return deltas


def _stops_s(deltas: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return where each delta ends within the response, in seconds."""
    return np.cumsum([delta.audio_ms for delta in deltas]) / 1000


def _draw_waveform(ax: Axes, deltas: Sequence[Any]) -> None:
    stops_s = _stops_s(deltas)
    for number, (delta, stop_s) in enumerate(zip(deltas, stops_s, strict=True)):
        length_s = delta.audio_ms / 1000
        low, high = outline(delta.audio, columns=max(2, round(_COLUMNS * length_s / stops_s[-1])))
        times_s = np.linspace(stop_s - length_s, stop_s, len(low))
        ax.fill_between(times_s, low, high, color=f"C{number % _COLOURS}", linewidth=0.5)
    peak = max(float(np.abs(delta.audio).max(initial=0.0)) for delta in deltas)
    ax.set_xlim(0, stops_s[-1])
    ax.set_ylim(-1.1 * (peak or 1.0), 1.1 * (peak or 1.0))
    ax.set_ylabel("amplitude (full scale = 1)")


def outline(audio: npt.NDArray[np.float32], *, columns: int) -> tuple[Any, Any]:
    """The lowest and the highest sample of each column: what the eye sees of a waveform, at any length."""
    edges = np.linspace(0, len(audio), min(columns, len(audio)) + 1).astype(int)[:-1]
    return np.minimum.reduceat(audio, edges), np.maximum.reduceat(audio, edges)


def fill_waveform(ax: Axes, audio: Any, *, length_s: float, at: float, height: float, color: str) -> None:
    """Draw a waveform around a height, scaled to its peak."""
    if not len(audio):
        return
    low, high = outline(audio, columns=_COLUMNS)
    scale = height / max(float(np.abs(audio).max()), 1e-6)
    ax.fill_between(np.linspace(0, length_s, len(low)), at + scale * low, at + scale * high, color=color, linewidth=0.3)


def _draw_arrivals(ax: Axes, deltas: Sequence[Any]) -> None:
    stops_s = _stops_s(deltas)
    first_s = deltas[0].arrived_ms / 1000
    for number, (delta, stop_s) in enumerate(zip(deltas, stops_s, strict=True)):
        length_s = delta.audio_ms / 1000
        place = {"left": stop_s - length_s, "height": max(0.03, 0.04 * stops_s[-1])}
        ax.barh(delta.arrived_ms / 1000 - first_s, length_s, color=f"C{number % _COLOURS}", **place)
    ax.plot([0, stops_s[-1]], [0, stops_s[-1]], color="0.5", linewidth=1, linestyle="--", label="played")
    ax.set_ylabel("arrived after\nthe first (s)")
    ax.invert_yaxis()
    ax.legend(loc="lower left", frameon=False)
    ax.set_title(f"first audio {deltas[0].arrived_ms:.0f} ms after the request", loc="right", fontsize="medium")


def _mark_arrivals(ax: Axes, deltas: Sequence[Any]) -> None:
    """A tick at the foot of the waveform for each arrival."""
    low, high = ax.get_ylim()
    for number, delta in enumerate(deltas):
        ax.vlines(delta.arrived_ms / 1000, low, low + 0.08 * (high - low), color=f"C{number % _COLOURS}", linewidth=1.5)
    ax.set_xlim(0, max(_stops_s(deltas)[-1], deltas[-1].arrived_ms / 1000))


def _played(
    arrived_s: npt.NDArray[np.float64], lengths_s: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return when each delta is played: as soon as it is there and the one before has ended."""
    ahead_s = np.cumsum(lengths_s) - lengths_s
    starts = ahead_s + np.maximum.accumulate(arrived_s - ahead_s)
    return starts, starts + lengths_s
