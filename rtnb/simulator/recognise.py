"""Writing down what was heard, honestly: only speech the simulator knows, exactly; otherwise nothing is invented.

A known utterance is kept as the shape of its spectrum over time. Audio is that utterance when the shapes agree almost
completely, also at another level, after G.711, or with silence around it. This is comparison, not speech recognition.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt

from rtnb.audio import resample

Audio = npt.NDArray[np.float32]

_RATE_HZ: Final = 8_000
_HOP: Final = 160  # 20 ms
_SIZE: Final = 320  # 40 ms
_BANDS: Final = 18
AGREEMENT: Final = 0.93
"""Least correlation of the two shapes. Chosen between what the same utterance reaches through µ-law (0.98) and what
other sentences of the same voice reach (below 0.8)."""
MOST_KNOWN: Final = 500
"""Utterances remembered; the oldest is forgotten first."""
MOST_BYTES: Final = 8 * 2**20
"""Size of their shapes: 40 minutes of speech. Chosen. The oldest is forgotten first."""


class KnownSpeech:
    """The utterances a simulator can write down."""

    def __init__(self) -> None:
        self._shapes: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()
        self._n_bytes = 0

    def learn(self, text: str, audio: Audio, *, rate_hz: int) -> None:
        """Remember an utterance and its exact words; audio without sound is ignored."""
        shape = spectral_shape(audio, rate_hz=rate_hz)
        if len(shape):
            if text in self._shapes:
                self._n_bytes -= self._shapes.pop(text).nbytes
            self._shapes[text] = shape
            self._n_bytes += shape.nbytes
            while len(self._shapes) > MOST_KNOWN or self._n_bytes > MOST_BYTES:
                self._n_bytes -= self._shapes.popitem(last=False)[1].nbytes

    def transcribe(self, audio: Audio, *, rate_hz: int) -> str | None:
        """The exact words where the audio is a known utterance, else None."""
        if not self._shapes:
            return None
        heard = spectral_shape(audio, rate_hz=rate_hz)
        scored = [(agreement(heard, shape), text) for text, shape in self._shapes.items()]
        best, text = max(scored, default=(0.0, ""))
        return text if best >= AGREEMENT else None


def spectral_shape(audio: Audio, *, rate_hz: int) -> npt.NDArray[np.float32]:
    """Log energy in 18 bands up to 4 kHz every 20 ms, trimmed to the sounding part, level removed.

    Returns
    -------
    array of float32, shape (n_frames, 18)
        Empty where nothing sounds.
    """
    narrow = resample(audio, from_rate_hz=rate_hz, to_rate_hz=_RATE_HZ)
    if len(narrow) < _SIZE:
        return np.zeros((0, _BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(narrow, _SIZE)[::_HOP] * np.hanning(_SIZE).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.unique(np.geomspace(3, power.shape[1], _BANDS + 1).astype(int))
    bands = np.add.reduceat(power, edges[:-1], axis=1)
    level = bands.sum(axis=1)
    loud = np.flatnonzero(level > level.max(initial=0.0) * 1e-3)
    if not len(loud) or level.max() < 1e-6:
        return np.zeros((0, _BANDS), np.float32)
    bands = bands[loud[0] : loud[-1] + 1]
    shape = np.log(bands + level.max() * 1e-5)
    return np.asarray(shape - shape.mean(), np.float32)


def agreement(heard: npt.NDArray[np.float32], known: npt.NDArray[np.float32]) -> float:
    """Best correlation of two shapes over shifts of up to 100 ms; 0 where their lengths differ by more than 15 %."""
    if not len(heard) or not len(known) or abs(len(heard) - len(known)) > 0.15 * len(known) + 2:
        return 0.0
    best = 0.0
    for shift in range(-5, 6):
        a, b = heard[max(0, shift) :], known[max(0, -shift) :]
        n_frames = min(len(a), len(b))
        if n_frames < 5:
            continue
        x, y = a[:n_frames].ravel(), b[:n_frames].ravel()
        norm = float(np.linalg.norm(x) * np.linalg.norm(y))
        best = max(best, float(x @ y) / norm if norm else 0.0)
    return best
