"""Every setting of the server VAD on recordings: cut-offs, delays and false triggers as arrays, tables and grids."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.analysis.intervals import weighted_quantiles
from rtnb.errors import AudioError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import FRAME_MS, VadConstants

if TYPE_CHECKING:
    import pandas as pd

from rtnb.analysis.conditions import Condition, FramePhase
from rtnb.analysis.gaps import Gaps, Track
from rtnb.analysis.listening import Failure, Heard, Source, listen
from rtnb.analysis.recordings import Recording

_Bool = npt.NDArray[np.bool_]
_Float32 = npt.NDArray[np.float32]
_Float = npt.NDArray[np.float64]
_Int = npt.NDArray[np.int64]
_Text = npt.NDArray[np.str_]

CLIPPED_MS: Final = 50.0
"""An onset counts as clipped when more than this much of it is missing from the item. Chosen."""
FADE_MS: Final = 320.0
"""Probabilities fall within this after speech: a turn shows a silence duration where its ending is this much longer.
Chosen; at threshold 0.3 and above the slowest tenth of turns takes 300 ms."""
_BLOCK_FRAMES: Final = 112_500
"""Frames that are evaluated at a time: an hour, 0.45 MB of probabilities (chosen, measured)."""
_DIMS = ("threshold", "silence_duration_ms", "prefix_padding_ms")


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
    """(T, S, n_turns) whether a stop comes more than 100 ms before the true end, while the turn goes on."""
    delay_ms: _Float32
    """(T, S, n_turns) endpointing delay: the stop's emission less the true end, ms, at least 0; NaN where none ends the
    turn before the next one begins or the audio is over. Only where the turn is `seen` does NaN mean "never"."""
    onset_delay_ms: _Float32
    """(T, n_turns) the start's emission less the true onset, ms, without speech before; NaN where missed."""
    missed: _Bool
    """(T, n_turns) whether no start comes during the turn, as if there were no speech before."""
    clipped_ms: _Float32
    """(T, P, n_turns) how much of the turn's beginning lies before `audio_start_ms`; all of it where missed."""
    pause_cut: _Bool
    """(T, S, n_pauses) whether a stop comes during the pause."""
    false_triggers: npt.NDArray[np.int32]
    """(T, S, n_recordings) starts in non-speech."""
    self_interruptions: npt.NDArray[np.int32]
    """(T, S, n_recordings) starts while only the assistant's playback is heard."""
    billed_tokens: _Float32
    """(T, S, P, n_recordings) input audio tokens of all committed items: prefix padding and silence included."""
    ending_ms: _Float
    """(n_turns,) length of each turn's ending, the silence behind it: to the next turn, or to the end of the audio."""
    turn_recording: _Int
    """(n_turns,) which recording a turn is of."""
    pause_turn: _Int
    """(n_pauses,) which turn a pause is in."""
    recordings: _Text
    """(n_recordings,) names; equal names are the same speech under different conditions."""
    conditions: _Text
    """(n_recordings,) what was done to the audio."""
    speakers: _Text
    """(n_recordings,) names; empty where none is given."""
    non_speech_h: _Float
    """(n_recordings,) time without speech, hours."""
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
    def seen(self) -> _Bool:
        """(S, n_turns) whether a turn's ending is long enough to see that silence duration end the turn, or not."""
        return self.ending_ms >= self.silences_ms[:, None] + FADE_MS

    @property
    def seen_delay_ms(self) -> _Float32:
        """(T, S, n_turns) the delays that count: infinite where the turn never ended, NaN where it is not seen."""
        ended = np.where(np.isnan(self.delay_ms), np.float32(np.inf), self.delay_ms)
        return np.where(self.seen, ended, np.float32(np.nan))

    @property
    def groups(self) -> _Text:
        """(n_recordings,) what is resampled as one: the speaker, or the recording where no speaker is named."""
        return np.where(self.speakers != "", self.speakers, self.recordings)

    @property
    def short_endings(self) -> str:
        """A sentence about turns that end too soon for the longest silence duration; empty where none does."""
        longest_ms, short = int(self.silences_ms.max()), self.ending_ms < self.silences_ms.max() + FADE_MS
        if not short.any():
            return ""
        least_ms = max(0, int(self.ending_ms.min() - FADE_MS) // FRAME_MS * FRAME_MS)
        return (
            f"{int(short.sum())} of {self.n_turns} turns end too soon to see silences over {least_ms} ms: "
            f"record {np.ceil((longest_ms + FADE_MS) / 500) / 2:g} s of silence after the last word."
        )

    @property
    def n_turns(self) -> int:
        """Number of turns behind the rates (a turn under two conditions counts twice)."""
        return len(self.turn_recording)

    def only(self, condition: str) -> Sweep:
        """The same sweep of the recordings under one condition.

        Raises
        ------
        AudioError
            No such condition.
        """
        if condition not in self.conditions:
            names = ", ".join(dict.fromkeys(self.conditions.tolist()))
            raise AudioError(f"no condition {condition!r}; there are: {names}")
        return self.of_recordings(self.conditions == condition)

    def of_recordings(self, chosen: npt.NDArray[np.bool_]) -> Sweep:
        """The same sweep of some recordings: `chosen` has shape (n_recordings,)."""
        turns = chosen[self.turn_recording]
        kept = {"recording": chosen, "turn": turns, "pause": turns[self.pause_turn]}
        fields = {name: getattr(self, name)[..., kept[axis]] for axis, names in _LAST_AXIS.items() for name in names}
        fields["turn_recording"] = (np.cumsum(chosen) - 1)[fields["turn_recording"]]
        fields["pause_turn"] = (np.cumsum(turns) - 1)[fields["pause_turn"]]
        return replace(self, **fields)

    def grid(self, metric: str) -> pd.DataFrame:
        """Return one metric over the settings it depends on: ``sweep.grid("cut_off_rate").loc[0.5, 512]``.

        Parameters
        ----------
        metric : str
            One of `METRICS`.

        Returns
        -------
        pandas.DataFrame
            One row per threshold, one column per silence duration in whole frames (200 ms is 224), per prefix padding,
            or per both; NaN where no turn, pause or hour is there to count.

        Raises
        ------
        AudioError
            An unknown metric, or several conditions: `only` picks one.
        """
        import pandas as pd

        if metric not in METRICS:
            raise AudioError(f"unknown metric {metric!r}; there are: {', '.join(METRICS)}")
        if len(names := dict.fromkeys(self.conditions.tolist())) > 1:
            raise AudioError(f"the sweep has several conditions: {', '.join(names)}").with_hint(
                "Choose one of them: sweep.only(…)."
            )
        one, axes = METRICS[metric], (self.thresholds, self.silences_ms, self.prefixes_ms)
        index, *columns = (pd.Index(axes[_DIMS.index(dim)], name=dim) for dim in one.dims)
        across = pd.MultiIndex.from_product(columns) if len(columns) > 1 else columns[0] if columns else [metric]
        return pd.DataFrame(one.of(self).reshape(len(index), -1), index=index, columns=across)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per condition and setting, one column per metric (its unit in its name), n beside them.

        Returns
        -------
        pandas.DataFrame
            Columns condition, threshold, silence_duration_ms, prefix_padding_ms, n_turns, n_pauses, then `METRICS`.
        """
        import pandas as pd

        index = pd.MultiIndex.from_product([self.thresholds, self.silences_ms, self.prefixes_ms], names=_DIMS)
        shape, parts = [len(level) for level in index.levels], {}
        for name in dict.fromkeys(self.conditions.tolist()):
            part = self.only(name)
            columns: dict[str, Any] = {"n_turns": part.n_turns, "n_pauses": len(part.pause_turn)}
            for metric, one in METRICS.items():
                spread = tuple(slice(None) if dim in one.dims else None for dim in _DIMS)
                columns[metric] = np.broadcast_to(one.of(part)[spread], shape).ravel()
            parts[name] = pd.DataFrame(columns, index=index)
        table: pd.DataFrame = pd.concat(parts, names=["condition"]).reset_index()
        return table

    def __repr__(self) -> str:
        n_t, n_s, n_p = len(self.thresholds), len(self.silence_frames), len(self.prefixes_ms)
        counts = [f"{len(self.recordings)} recordings", f"{self.n_turns} turns", f"{len(self.pause_turn)} pauses"]
        if (conditions := len(set(self.conditions.tolist()))) > 1:
            counts.append(f"{conditions} conditions")
        failed = f"; {len(self.failures)} FAILED" if self.failures else ""
        return f"<Sweep: {n_t} thresholds × {n_s} silences × {n_p} prefixes; {', '.join(counts)}{failed}>"


_LAST_AXIS: Final = {
    "turn": ("cut_off", "delay_ms", "onset_delay_ms", "missed", "clipped_ms", "ending_ms", "turn_recording"),
    "pause": ("pause_cut", "pause_turn"),
    "recording": (
        *("false_triggers", "self_interruptions", "billed_tokens"),
        *("recordings", "conditions", "speakers", "non_speech_h", "echo_min"),
    ),
}
"""Fields of a `Sweep` by what their last axis counts."""


@dataclass(frozen=True)
class _Metric:
    of: Callable[[Sweep], _Float]
    dims: tuple[str, ...]
    unit: str


def _share(hits: npt.NDArray[Any]) -> _Float:
    n = hits.shape[-1]
    return np.count_nonzero(hits, axis=-1) / n if n else np.full(hits.shape[:-1], np.nan)


def _quantile(values: npt.NDArray[Any], q: float) -> _Float:
    """The definition of `weighted_quantiles`, every turn alike."""
    if not values.size:  # no turns
        return np.full(values.shape[:-1], np.nan)
    rows = values.reshape(-1, values.shape[-1])
    return weighted_quantiles(rows, np.ones((1, rows.shape[1])), share=q).reshape(values.shape[:-1])


def _never(delay_ms: npt.NDArray[Any]) -> _Float:
    """Share of the turns that never end, of those that are seen."""
    n = np.count_nonzero(~np.isnan(delay_ms), axis=-1)
    return np.where(n > 0, np.count_nonzero(np.isinf(delay_ms), axis=-1) / np.maximum(n, 1), np.nan)


def _rate(counts: npt.NDArray[Any], per: _Float) -> _Float:
    total = float(per.sum())
    return counts.sum(axis=-1) / total if total else np.full(counts.shape[:-1], np.nan)


_TS, _T, _TP = _DIMS[:2], _DIMS[:1], (_DIMS[0], _DIMS[2])

METRICS: Final[dict[str, _Metric]] = {
    "cut_off_rate": _Metric(lambda s: _share(s.cut_off), _TS, ""),
    "pause_cut_rate": _Metric(lambda s: _share(s.pause_cut), _TS, ""),
    "delay_p50_ms": _Metric(lambda s: _quantile(s.seen_delay_ms, 0.5), _TS, "ms"),
    "delay_p90_ms": _Metric(lambda s: _quantile(s.seen_delay_ms, 0.9), _TS, "ms"),
    "no_fire_rate": _Metric(lambda s: _never(s.seen_delay_ms), _TS, ""),
    "missed_rate": _Metric(lambda s: _share(s.missed), _T, ""),
    "onset_delay_p50_ms": _Metric(lambda s: _quantile(s.onset_delay_ms, 0.5), _T, "ms"),
    "onset_delay_p90_ms": _Metric(lambda s: _quantile(s.onset_delay_ms, 0.9), _T, "ms"),
    "clipped_rate": _Metric(lambda s: _share(s.clipped_ms > CLIPPED_MS), _TP, ""),
    "false_triggers_per_h": _Metric(lambda s: _rate(s.false_triggers, s.non_speech_h), _TS, "1/h"),
    "self_interruptions_per_min": _Metric(lambda s: _rate(s.self_interruptions, s.echo_min), _TS, "1/min"),
    "billed_tokens": _Metric(lambda s: s.billed_tokens.sum(axis=-1, dtype=np.float64), _DIMS, "tokens"),
}
"""name -> how it comes from a `Sweep`, over which settings, in which unit. Shares lie between 0 and 1."""


THRESHOLDS: Final = tuple(round(0.1 + 0.05 * k, 2) for k in range(17))
"""0.1 to 0.9. Chosen."""
SILENCES_MS: Final = tuple(range(192, 1633, 32))
"""192 to 1632 ms, every one the service can tell apart: 200 is 224, 500 is 512. Chosen."""
PREFIXES_MS: Final = (0, 100, 200, 300, 500)
"""Chosen, around the documented default of 300."""
SERVER_MODEL_V1: Final = VadConstants()
"""What public logs make likely: inference, to be corrected by a calibration."""


def setting_of(detection: ServerVad, name: str) -> Any:
    """Return a setting of a turn detection, the service's default where it is not set."""
    value = getattr(detection, name)
    return value if isinstance(value, int | float) else getattr(SERVER_VAD_DEFAULTS, name)


def pareto_front(x: npt.ArrayLike, y: npt.ArrayLike) -> list[int]:
    """Return the points that no other beats on both axes, by growing x.

    Examples
    --------
    >>> pareto_front([3, 1, 2, 2], [0.1, 0.5, 0.5, 0.2])
    [1, 3, 0]
    """
    across, up = np.asarray(x, float), np.asarray(y, float)
    order = np.lexsort((up, across))
    least = np.minimum.accumulate(np.concatenate([[np.inf], up[order]]))
    return [int(k) for k in order[up[order] < least[:-1]]]


def sweep(
    recordings: Source | Iterable[Source],
    *,
    thresholds: npt.ArrayLike = THRESHOLDS,
    silences_ms: npt.ArrayLike = SILENCES_MS,
    prefixes_ms: npt.ArrayLike = PREFIXES_MS,
    conditions: Iterable[Condition] = (FramePhase(0),),
    constants: VadConstants = SERVER_MODEL_V1,
    executor: Executor | None = None,
    cache: bool | str | os.PathLike[str] = True,
    progress: bool = True,
    load: Callable[[Any], Recording] = Recording.load,
) -> Sweep:
    """Try every threshold, silence duration and prefix padding of ``server_vad`` on recordings.

    More recordings make the answer surer, more settings cost next to nothing: each recording is listened to once
    (seconds per hour of audio, kept on disk), then 1,000 settings take about 0.06 s per hour (two cores).

    Parameters
    ----------
    recordings : Recording, path, or iterable of them
        With their turns labelled; see `Recording`, `Recording.load`.
    thresholds : array_like, shape (T,), default 0.1 to 0.9
        0 to 1.
    silences_ms : array_like, shape (S,), default 192 to 1632 ms
        Become whole frames of 32 ms, each one once.
    prefixes_ms : array_like, shape (P,), default 0, 100, 200, 300, 500 ms
        Whole ms.
    conditions : iterable of Condition, default as recorded
        What else to do to the same utterances; see `rtnb.analysis.conditions`.
    constants : VadConstants
        What is assumed about the service: inference, not documented.
    executor, cache, progress, load
        How to listen to the recordings; see `rtnb.analysis.listening.listen`.

    Returns
    -------
    sweep : Sweep
        Every turn under every setting; recordings that could not be used are its `failures`.

    Raises
    ------
    AudioError
        A setting out of its range, or no recording could be used.

    Examples
    --------
    >>> from rtnb.audio import babble
    >>> recording = Recording.of_one_turn(babble("Hello, is this on?").audio, rate_hz=24_000).padded()
    >>> result = sweep(recording, thresholds=[0.5], silences_ms=[200, 500], cache=False, progress=False)
    >>> result.silences_ms.tolist(), result.grid("no_fire_rate").to_numpy().tolist()
    ([224, 512], [[0.0, 0.0]])
    """
    settings = {"thresholds": thresholds, "silences_ms": silences_ms, "prefixes_ms": prefixes_ms}
    _axes(**settings, constants=constants)  # a wrong one is refused before anything is listened to
    heard, failures = listen(
        recordings, conditions=conditions, executor=executor, cache=cache, progress=progress, load=load
    )
    return replace(evaluate(heard, **settings, constants=constants), failures=tuple(failures))


def evaluate(
    heard: Sequence[Heard],
    *,
    thresholds: npt.ArrayLike = THRESHOLDS,
    silences_ms: npt.ArrayLike = SILENCES_MS,
    prefixes_ms: npt.ArrayLike = PREFIXES_MS,
    constants: VadConstants = SERVER_MODEL_V1,
) -> Sweep:
    """Evaluate every setting on recordings that `listen` has processed.

    For one more threshold or silence alone, ask `rtnb.analysis.gaps.Gaps`: it takes a fraction of a millisecond.
    """
    levels, frames, prefixes = _axes(thresholds, silences_ms, prefixes_ms, constants)
    pauses = [len(turn.pauses) for one in heard for turn in one.turns]
    sizes = {"turn": len(pauses), "pause": sum(pauses), "recording": len(heard)}
    axis_of = {name: axis for axis, names in _LAST_AXIS.items() for name in names}
    found: dict[str, Any] = {}
    endings, at = [], dict.fromkeys(sizes, 0)
    for block in _blocks(heard):
        track = Track(block)
        endings.append(track.ending_ms)
        for t, level in enumerate(levels.tolist()):
            gaps = Gaps(track, threshold=level, constants=constants)
            for name, values in (gaps.onsets(prefixes) | gaps.at(frames, prefixes_ms=prefixes)).items():
                axis = axis_of[name]
                if name not in found:
                    found[name] = np.empty((len(levels), *values.shape[:-1], sizes[axis]), values.dtype)
                found[name][t, ..., at[axis] : at[axis] + values.shape[-1]] = values
        for axis, n in (("turn", track.n_turns), ("pause", len(track.pause_turn)), ("recording", len(block))):
            at[axis] += n
    for name, text in (("recordings", "name"), ("conditions", "condition"), ("speakers", "speaker")):
        found[name] = np.array([getattr(one, text) for one in heard], str)
    return Sweep(
        thresholds=levels,
        silence_frames=frames,
        prefixes_ms=prefixes,
        **found,
        ending_ms=np.concatenate(endings),
        turn_recording=np.repeat(np.arange(len(heard)), [len(one.turns) for one in heard]),
        pause_turn=np.repeat(np.arange(len(pauses)), pauses),
        non_speech_h=np.array([sum(end - start for start, end in one.non_speech) for one in heard]) / 3_600_000,
        echo_min=np.array([sum(end - start for start, end in one.echo) for one in heard]) / 60_000,
        constants=constants,
    )


def _axes(
    thresholds: npt.ArrayLike, silences_ms: npt.ArrayLike, prefixes_ms: npt.ArrayLike, constants: VadConstants
) -> tuple[_Float, _Int, _Int]:
    """Return the axes of a sweep: thresholds, silences in frames, prefixes in ms; each sorted, each value once."""
    axes = {"thresholds": thresholds, "silences_ms": silences_ms, "prefixes_ms": prefixes_ms}
    sorted_axes = {name: np.unique(np.asarray(values, float)) for name, values in axes.items()}
    for name, axis in sorted_axes.items():
        most = 1.0 if name == "thresholds" else np.inf
        if not len(axis) or not (np.isfinite(axis).all() and axis[0] >= 0 and axis[-1] <= most):
            raise AudioError(f"{name} are {axis.tolist()}: give at least one, from 0 to {most:g}")
    levels, silences, prefixes = sorted_axes.values()
    if (prefixes % 1).any():
        raise AudioError(f"prefixes_ms are {prefixes.tolist()}: the service takes whole milliseconds")
    frames = np.unique([constants.silence_frames(ms) for ms in silences.tolist()])
    return levels, frames.astype(np.int64), prefixes.astype(np.int64)


def _blocks(heard: Sequence[Heard]) -> Iterator[list[Heard]]:
    """Yield recordings in blocks that fit the processor's cache, so that the cost per hour does not grow."""
    block: list[Heard] = []
    n_frames = 0
    for one in heard:
        if block and n_frames + len(one.probabilities) > _BLOCK_FRAMES:
            yield block
            block, n_frames = [], 0
        block.append(one)
        n_frames += len(one.probabilities)
    yield block
