"""What a sweep found: every turn under every setting, as arrays with named axes, tables and grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS, VadConstants

if TYPE_CHECKING:
    import pandas as pd

_Bool = npt.NDArray[np.bool_]
_Float32 = npt.NDArray[np.float32]
_Float = npt.NDArray[np.float64]
_Int = npt.NDArray[np.int64]

CUT_OFF_TOLERANCE_MS: Final = 100.0
"""A stop this close before the true end is no cut-off: labels are not exact (turntune's tolerance)."""
CLIPPED_MS: Final = 50.0
"""An onset counts as clipped when more than this much of it is missing from the item. Chosen."""
TOKENS_PER_S: Final = 10.0
"""Input audio tokens per second of a committed item: what usage counts of a real session show, within ±3 per item."""
AS_RECORDED: Final = "as recorded"
"""The condition in which nothing was done to the audio."""
_DIMS = ("threshold", "silence_duration_ms", "prefix_padding_ms")


@dataclass(frozen=True)
class Failure:
    """A recording that could not be used; it is in no number of the result."""

    name: str
    """Of the recording, or the path it was given by."""
    condition: str
    """Under which condition."""
    error: str
    """What happened, in words."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A small array with named axes.

    Examples
    --------
    >>> grid = Grid(np.array([[1.0, 2.0]]), dims=("threshold", "silence_duration_ms"), unit="ms", name="delay_p50_ms",
    ...             coords={"threshold": np.array([0.5]), "silence_duration_ms": np.array([192, 224])})
    >>> grid.sel(threshold=0.5, silence_duration_ms=200)
    2.0
    """

    values: _Float
    """One number per combination of the coordinates."""
    dims: tuple[str, ...] = field(kw_only=True)
    """Names of the axes of `values`, from the wire: threshold, silence_duration_ms, prefix_padding_ms; or condition."""
    coords: dict[str, npt.NDArray[Any]] = field(kw_only=True)
    """dim -> its coordinates."""
    name: str = field(kw_only=True)
    """The metric."""
    unit: str = field(kw_only=True)
    """Of the values: "" for shares from 0 to 1."""

    def sel(self, **where: Any) -> Any:
        """Pick by coordinate: a float where all axes are picked, otherwise the smaller grid.

        `silence_duration_ms` is rounded up to whole frames as the service does; other coordinates must be in the grid.

        Raises
        ------
        AudioError
            A name that is no axis, or a coordinate that was not swept.
        """
        values, dims = self.values, list(self.dims)
        for dim, wanted in where.items():
            if dim not in dims:
                raise AudioError(f"{self.name} has no axis {dim!r}; it has: {', '.join(self.dims)}")
            at = _index(self.coords[dim], wanted, dim)
            values = np.take(values, at, axis=dims.index(dim))
            dims.remove(dim)
        if not dims:
            return float(values)
        return replace(self, values=values, dims=tuple(dims), coords={dim: self.coords[dim] for dim in dims})

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        axes = ", ".join(f"{dim}: {len(self.coords[dim])}" for dim in self.dims)
        return f"<Grid {self.name}{f' in {self.unit}' if self.unit else ''} ({axes})>"


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """Every turn of every recording under every setting.

    Axes: T thresholds, S silence durations, P prefix paddings; n_turns turns and n_pauses pauses of n_recordings
    recordings (one recording under two conditions is two of them). All times are stream time: ms of audio, not of the
    clock on the wall. A service may hear otherwise: the numbers are those of the local model.
    """

    thresholds: _Float
    """(T,) as in the turn detection."""
    silence_frames: _Int
    """(S,) silence durations in frames of 32 ms."""
    prefixes_ms: _Int
    """(P,) ms."""
    cut_off: _Bool
    """(T, S, n_turns) whether a stop is told more than 100 ms before the true end, while the turn is heard."""
    delay_ms: _Float32
    """(T, S, n_turns) endpointing delay: the stop's emission less the true end, ms; NaN where none ends the turn
    before the next one begins or the audio is over."""
    onset_delay_ms: _Float32
    """(T, n_turns) the start's emission less the true onset, ms, as if nobody had spoken before; NaN where missed."""
    missed: _Bool
    """(T, n_turns) whether no start is told during the turn, as if nobody had spoken before."""
    clipped_ms: _Float32
    """(T, P, n_turns) how much of the turn's beginning lies before `audio_start_ms`; all of it where missed."""
    pause_cut: _Bool
    """(T, S, n_pauses) whether a stop is told during the pause."""
    false_triggers: npt.NDArray[np.int32]
    """(T, S, n_recordings) starts in non-speech."""
    self_interruptions: npt.NDArray[np.int32]
    """(T, S, n_recordings) starts while only the assistant's playback is heard."""
    billed_tokens: _Float32
    """(T, S, P, n_recordings) input audio tokens of all committed items: prefix padding and silence included."""
    turn_ms: _Float
    """(n_turns, 2) true start and end of each turn in its recording, ms."""
    turn_recording: _Int
    """(n_turns,) which recording a turn is of."""
    pause_ms: _Float
    """(n_pauses, 2) start and end of each pause in its recording, ms."""
    pause_turn: _Int
    """(n_pauses,) which turn a pause is in."""
    recordings: tuple[str, ...]
    """(n_recordings,) names; equal names are the same speech under different conditions."""
    conditions: tuple[str, ...]
    """(n_recordings,) what was done to the audio."""
    duration_ms: _Float
    """(n_recordings,) length of the audio."""
    non_speech_h: _Float
    """(n_recordings,) how long nobody speaks, hours."""
    echo_min: _Float
    """(n_recordings,) how long only the assistant's playback is heard, minutes."""
    constants: VadConstants
    """What was assumed about the service."""
    failures: tuple[Failure, ...] = ()
    """Recordings that could not be used."""

    @property
    def silences_ms(self) -> _Int:
        """(S,) silence durations in ms: multiples of 32, every other one is rounded by the service."""
        return self.silence_frames * FRAME_MS

    @property
    def n_turns(self) -> int:
        """How many turns the rates are of (a turn under two conditions counts twice)."""
        return len(self.turn_recording)

    def only(self, condition: str) -> Sweep:
        """The same sweep of the recordings under one condition.

        Raises
        ------
        AudioError
            No such condition.
        """
        if condition not in self.conditions:
            raise AudioError(f"no condition {condition!r}; there are: {', '.join(dict.fromkeys(self.conditions))}")
        return self.of_recordings(np.array([one == condition for one in self.conditions]))

    def of_recordings(self, chosen: npt.NDArray[np.bool_]) -> Sweep:
        """The same sweep of some recordings: `chosen` has shape (n_recordings,)."""
        recordings = np.flatnonzero(chosen)
        turns = np.flatnonzero(chosen[self.turn_recording])
        pauses = np.flatnonzero(np.isin(self.pause_turn, turns))
        kept: dict[str, Any] = {}
        for fields, index in ((_PER_RECORDING, recordings), (_PER_TURN, turns), (_PER_PAUSE, pauses)):
            kept |= {name: getattr(self, name)[..., index] for name in fields}
        return replace(
            self,
            **kept,
            turn_ms=self.turn_ms[turns],
            pause_ms=self.pause_ms[pauses],
            turn_recording=np.searchsorted(recordings, self.turn_recording[turns]),
            pause_turn=np.searchsorted(turns, self.pause_turn[pauses]),
            recordings=tuple(self.recordings[k] for k in recordings),
            conditions=tuple(self.conditions[k] for k in recordings),
        )

    def grid(self, metric: str, *, condition: str | None = None) -> Grid:
        """One metric over the settings it depends on.

        Parameters
        ----------
        metric : str
            One of `METRICS`.
        condition : str, optional
            Of the recordings under this condition. Default: of all where there is one condition only, otherwise one
            grid per condition, along a first axis "condition".

        Returns
        -------
        grid : Grid
            NaN where no turn, pause or hour is there to count.

        Raises
        ------
        AudioError
            An unknown metric or condition.
        """
        if metric not in METRICS:
            raise AudioError(f"unknown metric {metric!r}; there are: {', '.join(METRICS)}")
        names = list(dict.fromkeys(self.conditions))
        one = METRICS[metric]
        coords: dict[str, Any] = dict(zip(_DIMS, (self.thresholds, self.silences_ms, self.prefixes_ms), strict=True))
        if condition is not None or len(names) <= 1:
            part = self if condition is None else self.only(condition)
            values, dims = one.of(part), one.dims
        else:
            values, dims = np.stack([one.of(self.only(name)) for name in names]), ("condition", *one.dims)
            coords["condition"] = np.array(names)
        return Grid(values, dims=dims, coords={dim: coords[dim] for dim in dims}, name=metric, unit=one.unit)

    def to_frame(self) -> pd.DataFrame:
        """One row per condition and setting, one column per metric (its unit in its name), n beside them.

        Returns
        -------
        pandas.DataFrame
            Columns condition, threshold, silence_duration_ms, prefix_padding_ms, n_turns, n_pauses, then `METRICS`.
        """
        import pandas as pd

        shape = (len(self.thresholds), len(self.silence_frames), len(self.prefixes_ms))
        axes = np.meshgrid(self.thresholds, self.silences_ms, self.prefixes_ms, indexing="ij")
        parts = []
        for name in dict.fromkeys(self.conditions):
            part = self.only(name)
            columns: dict[str, Any] = {"condition": name}
            columns |= {dim: axis.ravel() for dim, axis in zip(_DIMS, axes, strict=True)}
            columns |= {"n_turns": part.n_turns, "n_pauses": len(part.pause_turn)}
            for metric, one in METRICS.items():
                spread = tuple(slice(None) if dim in one.dims else None for dim in _DIMS)
                columns[metric] = np.broadcast_to(one.of(part)[spread], shape).ravel()
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*_DIMS, *METRICS])

    def __repr__(self) -> str:
        conditions = len(set(self.conditions))
        return (
            f"<Sweep: {len(self.thresholds)} thresholds × {len(self.silence_frames)} silences × "
            f"{len(self.prefixes_ms)} prefixes; {len(self.recordings)} recordings, {self.n_turns} turns, "
            f"{len(self.pause_turn)} pauses{f', {conditions} conditions' if conditions > 1 else ''}"
            f"{f'; {len(self.failures)} FAILED' if self.failures else ''}>"
        )


_PER_TURN: Final[tuple[str, ...]] = ("cut_off", "delay_ms", "onset_delay_ms", "missed", "clipped_ms")
_PER_PAUSE: Final[tuple[str, ...]] = ("pause_cut",)
_PER_RECORDING: Final[tuple[str, ...]] = (
    "false_triggers",
    "self_interruptions",
    "billed_tokens",
    "duration_ms",
    "non_speech_h",
    "echo_min",
)


@dataclass(frozen=True)
class _Metric:
    of: Callable[[Sweep], _Float]
    dims: tuple[str, ...]
    unit: str


def _share(hits: npt.NDArray[Any]) -> _Float:
    n = hits.shape[-1]
    return np.count_nonzero(hits, axis=-1) / n if n else np.full(hits.shape[:-1], np.nan)


def _quantile(values: npt.NDArray[Any], q: float) -> _Float:
    """Of the numbers that are not NaN; NaN where there is none. The lower of two neighbours: a delay that happened."""
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    ordered = np.sort(values, axis=-1)  # NaN last
    n = np.count_nonzero(~np.isnan(ordered), axis=-1, keepdims=True)
    at = np.maximum(np.ceil(q * n).astype(int) - 1, 0)
    return np.take_along_axis(ordered, at, axis=-1)[..., 0].astype(np.float64)


def _rate(counts: npt.NDArray[Any], per: _Float) -> _Float:
    total = float(per.sum())
    return counts.sum(axis=-1) / total if total else np.full(counts.shape[:-1], np.nan)


_TS, _T, _TP = _DIMS[:2], _DIMS[:1], (_DIMS[0], _DIMS[2])

METRICS: Final[dict[str, _Metric]] = {
    "cut_off_rate": _Metric(lambda s: _share(s.cut_off), _TS, ""),
    "pause_cut_rate": _Metric(lambda s: _share(s.pause_cut), _TS, ""),
    "delay_p50_ms": _Metric(lambda s: _quantile(s.delay_ms, 0.5), _TS, "ms"),
    "delay_p90_ms": _Metric(lambda s: _quantile(s.delay_ms, 0.9), _TS, "ms"),
    "no_fire_rate": _Metric(lambda s: _share(np.isnan(s.delay_ms)), _TS, ""),
    "missed_rate": _Metric(lambda s: _share(s.missed), _T, ""),
    "onset_delay_p50_ms": _Metric(lambda s: _quantile(s.onset_delay_ms, 0.5), _T, "ms"),
    "onset_delay_p90_ms": _Metric(lambda s: _quantile(s.onset_delay_ms, 0.9), _T, "ms"),
    "clipped_rate": _Metric(lambda s: _share(s.clipped_ms > CLIPPED_MS), _TP, ""),
    "false_triggers_per_h": _Metric(lambda s: _rate(s.false_triggers, s.non_speech_h), _TS, "1/h"),
    "self_interruptions_per_min": _Metric(lambda s: _rate(s.self_interruptions, s.echo_min), _TS, "1/min"),
    "billed_tokens": _Metric(lambda s: s.billed_tokens.sum(axis=-1, dtype=np.float64), _DIMS, "tokens"),
}
"""name -> how it comes from a `Sweep`, over which settings, in which unit. Shares lie between 0 and 1."""


def _index(coordinates: npt.NDArray[Any], wanted: Any, dim: str) -> int:
    if dim == "silence_duration_ms":
        wanted = -int(-wanted // FRAME_MS) * FRAME_MS
    if coordinates.dtype.kind in "fi":
        hits = np.flatnonzero(np.isclose(coordinates.astype(float), wanted, rtol=0, atol=1e-9))
    else:
        hits = np.flatnonzero(coordinates == wanted)
    if not len(hits):
        raise AudioError(f"{dim} {wanted!r} was not swept; there are: {', '.join(map(str, coordinates.tolist()))}")
    return int(hits[0])
