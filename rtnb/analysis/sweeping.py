"""Try every setting of the server VAD on recordings: what would be cut off, how long would everyone wait?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rtnb.analysis._plain import plain_sweep
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
    thresholds, prefixes = np.atleast_1d(np.asarray(thresholds, float)), np.atleast_1d(np.asarray(prefixes_ms, float))
    found = plain_sweep(heard, thresholds.tolist(), frames.tolist(), prefixes.tolist(), constants)
    turns = [(k, turn) for k, one in enumerate(heard) for turn in one.turns]
    pauses = [(n, pause) for n, (_, turn) in enumerate(turns) for pause in turn.pauses]
    return Sweep(
        thresholds=thresholds,
        silence_frames=frames,
        prefixes_ms=prefixes,
        **found,
        turn_ms=np.array([(turn.start_ms, turn.end_ms) for _, turn in turns]).reshape(-1, 2),
        turn_recording=np.array([k for k, _ in turns], int),
        pause_ms=np.array([pause for _, pause in pauses], float).reshape(-1, 2),
        pause_turn=np.array([n for n, _ in pauses], int),
        recordings=tuple(one.name for one in heard),
        conditions=tuple(one.condition for one in heard),
        duration_ms=np.array([one.duration_ms for one in heard]),
        non_speech_h=np.array([sum(e - s for s, e in one.non_speech) for one in heard]) / 3_600_000,
        echo_min=np.array([sum(e - s for s, e in one.echo) for one in heard]) / 60_000,
        constants=constants,
    )
