"""Accuracy of speech probabilities, frame by frame, before any turn detection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS

_MOST_LAG_FRAMES: Final = 4  # chosen: Silero runs 1 to 3 frames behind labels


@dataclass(frozen=True)
class FrameMetrics:
    """Accuracy over frames of 32 ms, with the number of frames."""

    n_speech: int
    """Frames labelled as speech: at least half of the frame."""
    n_other: int
    """All other frames."""
    auc: float
    """Area under the ROC curve: the chance that a frame of speech has the higher probability."""
    best_lag_auc: float
    """The same, the probabilities moved to where they fit best."""
    best_lag_ms: int
    """So much later than the labels they fit best, 0 to 128."""
    average_precision: float
    """Area under the curve of precision over recall."""
    precision: float
    """At the threshold: share of frames called speech that are."""
    recall: float
    """At the threshold: share of the speech that is called speech."""
    f1: float
    """Harmonic mean of both."""
    false_alarm_rate: float
    """At the threshold: share of the other frames that is called speech."""
    detection_cost: float
    """0.25 · false alarm rate + 0.75 · miss rate (NIST OpenSAT 2019)."""


def frame_metrics(probabilities: npt.ArrayLike, *, speech: Iterable[Any], threshold: float = 0.5) -> FrameMetrics:
    """Compare probabilities with labelled speech.

    Parameters
    ----------
    probabilities : array_like, shape (n_frames,)
        From `speech_probabilities`.
    speech : iterable of (start_ms, end_ms, …)
        Where speech is, e.g. from `read_labels`.
    threshold : float, default 0.5
        Frames at or above it are called speech.

    Returns
    -------
    metrics : FrameMetrics

    Raises
    ------
    AudioError
        All frames are speech, or none is.

    Examples
    --------
    >>> frame_metrics([0.1, 0.2, 0.9, 0.8], speech=[(64, 128)]).auc
    1.0
    """
    p = np.asarray(probabilities, np.float64)
    covered = np.zeros((len(p), FRAME_MS), bool)  # ms by ms
    for start_ms, end_ms, *_ in speech:
        covered.reshape(-1)[max(0, round(start_ms)) : max(0, round(end_ms))] = True
    labels = covered.sum(axis=1) * 2 >= FRAME_MS
    n_speech = int(labels.sum())
    if not 0 < n_speech < len(p):
        raise AudioError(f"{n_speech} of {len(p)} frames are speech: some must be, and some must not")
    aucs = [_auc(p[lag:], labels[: len(p) - lag]) for lag in range(min(_MOST_LAG_FRAMES + 1, len(p)))]
    best = int(np.nanargmax(aucs))
    called = p >= threshold
    hits = int((called & labels).sum())
    recall, false_alarms = hits / n_speech, (int(called.sum()) - hits) / (len(p) - n_speech)
    return FrameMetrics(
        n_speech=n_speech,
        n_other=len(p) - n_speech,
        auc=aucs[0],
        best_lag_auc=aucs[best],
        best_lag_ms=FRAME_MS * best,
        average_precision=_average_precision(p, labels),
        precision=hits / int(called.sum()) if called.any() else float("nan"),
        recall=recall,
        f1=2 * hits / (n_speech + int(called.sum())),
        false_alarm_rate=false_alarms,
        detection_cost=0.25 * false_alarms + 0.75 * (1 - recall),
    )


def _auc(p: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> float:
    """Mann and Whitney's U over all pairs; ties count one half."""
    n = int(labels.sum())
    if not 0 < n < len(labels):
        return float("nan")
    _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[labels].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


def _average_precision(p: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> float:
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)  # equal probabilities come in together
    hits = np.cumsum(labels[order])[last]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (last + 1)) / hits[-1])
