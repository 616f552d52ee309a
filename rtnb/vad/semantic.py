"""Semantic end of turn: the probability that a speaker has finished, from how the turn sounds.

The model is Smart Turn v3 (Daily, BSD-2 licence, https://github.com/pipecat-ai/smart-turn), an ONNX file of 8.7 MB that
takes the last 8 s as Whisper's log-mel features. The file is not part of this package: give its path, or install
``pipecat-ai``, which carries it. Needs ``onnxruntime``.
"""

from __future__ import annotations

import importlib
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.audio import Audio, resample
from rtnb.errors import AudioError

RATE_HZ: Final = 16_000
WINDOW_S: Final = 8
"""Audio that the model takes: the end of the turn, silence in front of a shorter one."""
WEIGHTS_VARIABLE: Final = "RTNB_SMART_TURN"
"""Environment variable with the path of the ONNX file."""
_FFT, _HOP, _MELS = 400, 160, 80  # of Whisper's features: 25 ms windows every 10 ms (Radford et al. 2022, section 2.2)


def find_smart_turn(weights: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of the model.

    Parameters
    ----------
    weights : path, optional
        The ONNX file. None takes `RTNB_SMART_TURN`, else the one inside an installed ``pipecat-ai``.

    Raises
    ------
    AudioError
        The file or the package ``onnxruntime`` is missing; the message says what to install.
    """
    if find_spec("onnxruntime") is None:
        raise AudioError("the semantic turn detector needs the package onnxruntime").with_hint(
            'Install it with `pip install "rtnb[local]"`.'
        )
    named = weights or os.environ.get(WEIGHTS_VARIABLE)
    if named is not None:
        found = [Path(named)] if Path(named).is_file() else []
    else:
        package = find_spec("pipecat")  # found without importing it
        folders = [Path(place) for place in (package.submodule_search_locations or ())] if package else []
        found = sorted(path for folder in folders for path in folder.glob("audio/turn/smart_turn/data/*-cpu.onnx"))
    if not found:
        came = f"{str(named)!r} is no file" if named else "no weights are installed"
        raise AudioError(f"the semantic turn detector: {came}").with_hint(
            f"Install pipecat-ai, or set {WEIGHTS_VARIABLE} to the path of a Smart Turn v3 ONNX file."
        )
    return found[-1]


class SmartTurn:
    """Smart Turn v3 on one CPU thread.

    Parameters
    ----------
    weights : path, optional
        As of `find_smart_turn`, whose errors are raised.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None) -> None:
        self.path = find_smart_turn(weights)
        self._session: Any = None

    def probability(self, audio: Audio, *, rate_hz: int) -> float:
        """Return the probability that the turn is finished; about 35 ms of work.

        Parameters
        ----------
        audio : ndarray, float32, shape (n_samples,)
            The turn so far, with the silence after it.
        rate_hz : int
            Its sample rate.
        """
        if self._session is None:
            onnx = importlib.import_module("onnxruntime")
            options = onnx.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            self._session = onnx.InferenceSession(
                str(self.path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        features = log_mel(resample(audio, from_rate_hz=rate_hz, to_rate_hz=RATE_HZ))
        (output, *_) = self._session.run(None, {"input_features": features[None]})
        return float(np.ravel(output)[0])


def log_mel(audio: Audio) -> npt.NDArray[np.float32]:
    """Return Whisper's features of the last 8 s.

    Parameters
    ----------
    audio : ndarray, float32, shape (n_samples,)
        At 16 kHz.

    Returns
    -------
    ndarray, float32, shape (80, 800)
        Mel bands every 10 ms, about −1 to 1.

    References
    ----------
    A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022; the waveform is brought to
    zero mean and unit variance first, as Smart Turn was trained.
    """
    size = WINDOW_S * RATE_HZ
    window = np.zeros(size, np.float32)
    if len(audio):
        window[-min(size, len(audio)) :] = audio[-size:]
    window = (window - window.mean()) / np.sqrt(window.var() + 1e-7)
    padded = np.pad(window.astype(np.float64), _FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP][: size // _HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_FFT + 1)[:-1])) ** 2
    bands = np.log10(np.maximum(power @ _mel_filters(), 1e-10)).T
    bands = np.maximum(bands, bands.max() - 8.0)
    return np.asarray((bands + 4.0) / 4.0, np.float32)


@lru_cache(maxsize=1)
def _mel_filters() -> npt.NDArray[np.float64]:
    """Return triangular filters of equal area on the Slaney mel scale, shape (201, 80)."""
    # Linear below 1 kHz (15 mels), logarithmic above: M. Slaney, Auditory Toolbox, 1998.
    step = np.log(6.4) / 27
    top = 15 + np.log(RATE_HZ / 2 / 1000) / step
    mels = np.linspace(0, top, _MELS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    bins = np.linspace(0, RATE_HZ / 2, _FFT // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters: npt.NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))
    return filters
