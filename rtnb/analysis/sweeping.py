"""Try every setting of the server VAD on recordings: whom would it cut off, how long would everyone wait?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.analysis.conditions import AsRecorded, Condition
from rtnb.analysis.gaps import Gaps, Track
from rtnb.analysis.heard import Heard
from rtnb.analysis.listening import Source, listen
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweep_result import Sweep
from rtnb.errors import AudioError
from rtnb.vad import VadConstants

THRESHOLDS: Final = tuple(round(0.1 + 0.05 * k, 2) for k in range(17))
"""0.1 to 0.9. Chosen."""
SILENCES_MS: Final = tuple(range(192, 1633, 32))
"""192 to 1632 ms, every one the service can tell apart: 200 is 224, 500 is 512. Chosen."""
PREFIXES_MS: Final = (0, 100, 200, 300, 500)
"""Chosen, around the documented default of 300."""
SERVER_MODEL_V1: Final = VadConstants()
"""What public logs make likely: inference, to be corrected by a calibration."""


def sweep(
    recordings: Source | Iterable[Source],
    *,
    thresholds: npt.ArrayLike = THRESHOLDS,
    silences_ms: npt.ArrayLike = SILENCES_MS,
    prefixes_ms: npt.ArrayLike = PREFIXES_MS,
    conditions: Iterable[Condition] = (AsRecorded(),),
    constants: VadConstants = SERVER_MODEL_V1,
    executor: Executor | None = None,
    cache: bool | str | os.PathLike[str] = True,
    progress: bool = True,
    load: Callable[[Any], Recording] = Recording.load,
) -> Sweep:
    """Try every threshold, silence duration and prefix padding of ``server_vad`` on recordings.

    More recordings make the answer surer, more settings cost next to nothing: each recording is listened to once
    (seconds per hour of audio, kept on disk), then 1,000 settings take about 0.03 s per hour.

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
    >>> result.silences_ms.tolist(), result.grid("no_fire_rate").values.tolist()
    ([224, 512], [[0.0, 0.0]])
    """
    settings = check_settings(thresholds, silences_ms, prefixes_ms, constants)
    heard, failures = listen(
        recordings, conditions=conditions, executor=executor, cache=cache, progress=progress, load=load
    )
    return replace(_evaluate(heard, *settings, constants), failures=tuple(failures))


def evaluate(
    heard: Sequence[Heard],
    *,
    thresholds: npt.ArrayLike = THRESHOLDS,
    silences_ms: npt.ArrayLike = SILENCES_MS,
    prefixes_ms: npt.ArrayLike = PREFIXES_MS,
    constants: VadConstants = SERVER_MODEL_V1,
) -> Sweep:
    """As `sweep`, of recordings that `listen` has heard already.

    For one more threshold or silence alone, ask `rtnb.analysis.gaps.Gaps`: it takes a fraction of a millisecond.
    """
    return _evaluate(heard, *check_settings(thresholds, silences_ms, prefixes_ms, constants), constants)


def check_settings(
    thresholds: npt.ArrayLike, silences_ms: npt.ArrayLike, prefixes_ms: npt.ArrayLike, constants: VadConstants
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The axes of a sweep: thresholds, silences in frames, prefixes in ms; each sorted, each value once.

    Raises
    ------
    AudioError
        None of one kind, or a value out of its range.
    """
    axes = []
    for name, values, most in (
        ("thresholds", thresholds, 1.0),
        ("silences_ms", silences_ms, np.inf),
        ("prefixes_ms", prefixes_ms, np.inf),
    ):
        axis = np.unique(np.asarray(values, float))
        if not len(axis) or not (np.isfinite(axis).all() and axis[0] >= 0 and axis[-1] <= most):
            raise AudioError(f"{name} are {axis.tolist()}: give at least one, from 0 to {most:g}")
        axes.append(axis)
    levels, silences, prefixes = axes
    if (prefixes % 1).any():
        raise AudioError(f"prefixes_ms are {prefixes.tolist()}: the service takes whole milliseconds")
    frames = np.unique([constants.silence_frames(ms) for ms in silences.tolist()])
    return levels, frames.astype(np.int64), prefixes.astype(np.int64)


def _evaluate(
    heard: Sequence[Heard],
    levels: npt.NDArray[np.float64],
    frames: npt.NDArray[np.int64],
    prefixes: npt.NDArray[np.int64],
    constants: VadConstants,
) -> Sweep:
    track = Track(heard)
    n_t, n_s, n_p, n = len(levels), len(frames), len(prefixes), len(heard)
    found: dict[str, Any] = {
        "cut_off": np.empty((n_t, n_s, track.n_turns), bool),
        "delay_ms": np.empty((n_t, n_s, track.n_turns), np.float32),
        "onset_delay_ms": np.empty((n_t, track.n_turns), np.float32),
        "missed": np.empty((n_t, track.n_turns), bool),
        "clipped_ms": np.empty((n_t, n_p, track.n_turns), np.float32),
        "pause_cut": np.empty((n_t, n_s, len(track.pause_turn)), bool),
        "false_triggers": np.empty((n_t, n_s, n), np.int32),
        "self_interruptions": np.empty((n_t, n_s, n), np.int32),
        "billed_tokens": np.empty((n_t, n_s, n_p, n), np.float32),
    }
    for t, threshold in enumerate(levels.tolist()):
        gaps = Gaps(track, threshold=threshold, constants=constants)
        for part in (gaps.onsets(prefixes), gaps.at(frames, prefixes_ms=prefixes)):
            for name, values in vars(part).items():
                found[name][t] = values
    return Sweep(
        thresholds=levels,
        silence_frames=frames,
        prefixes_ms=prefixes,
        **found,
        turn_ms=track.turn_ms,
        turn_recording=track.turn_recording,
        pause_ms=track.pause_ms,
        pause_turn=track.pause_turn,
        recordings=tuple(one.name for one in heard),
        conditions=tuple(one.condition for one in heard),
        duration_ms=np.array([one.duration_ms for one in heard]),
        non_speech_h=np.array([sum(end - start for start, end in one.non_speech) for one in heard]) / 3_600_000,
        echo_min=np.array([sum(end - start for start, end in one.echo) for one in heard]) / 60_000,
        constants=constants,
    )
