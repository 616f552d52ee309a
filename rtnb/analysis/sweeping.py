"""Try every setting of the server VAD on recordings: what would be cut off, how long would everyone wait?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rtnb.analysis.gaps import Gaps, Track
from rtnb.analysis.heard import Heard
from rtnb.analysis.sweep_result import AS_RECORDED, Sweep
from rtnb.vad import VadConstants, speech_probabilities

THRESHOLDS = tuple(round(0.1 + 0.05 * k, 2) for k in range(17))
SILENCES_MS = tuple(range(192, 1633, 32))
SERVER_MODEL_V1 = VadConstants()
PREFIXES_MS = (0, 100, 200, 300, 500)


def sweep(
    recordings: Iterable[Any],
    *,
    thresholds: npt.ArrayLike = THRESHOLDS,
    silences_ms: npt.ArrayLike = SILENCES_MS,
    prefixes_ms: npt.ArrayLike = PREFIXES_MS,
    constants: VadConstants = SERVER_MODEL_V1,
) -> Sweep:
    heard = [
        Heard.of(one, probabilities=speech_probabilities(one.audio, rate_hz=one.rate_hz), condition=AS_RECORDED)
        for one in recordings
    ]
    return evaluate(heard, thresholds=thresholds, silences_ms=silences_ms, prefixes_ms=prefixes_ms, constants=constants)


def evaluate(
    heard: Sequence[Heard],
    *,
    thresholds: npt.ArrayLike = THRESHOLDS,
    silences_ms: npt.ArrayLike = SILENCES_MS,
    prefixes_ms: npt.ArrayLike = PREFIXES_MS,
    constants: VadConstants = SERVER_MODEL_V1,
) -> Sweep:
    frames = np.unique([constants.silence_frames(ms) for ms in np.atleast_1d(np.asarray(silences_ms, float))])
    levels = np.unique(np.asarray(thresholds, float))
    prefixes = np.unique(np.asarray(prefixes_ms)).astype(np.int64)
    track = Track(heard)
    n_t, n_s, n_p, n = len(levels), len(frames), len(prefixes), len(heard)
    found: dict[str, Any] = {
        "cut_off": np.empty((n_t, n_s, track.n_turns), bool),
        "delay_ms": np.empty((n_t, n_s, track.n_turns), np.float32),
        "onset_delay_ms": np.empty((n_t, track.n_turns), np.float32),
        "missed": np.empty((n_t, track.n_turns), bool),
        "clipped_ms": np.empty((n_t, n_p, track.n_turns), np.float32),
        "pause_cut": np.empty((n_t, n_s, len(track.pause_turn)), bool),
        "false_triggers": np.empty((n_t, n_s, n), np.int64),
        "self_interruptions": np.empty((n_t, n_s, n), np.int64),
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
