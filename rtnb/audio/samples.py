"""Arrays of samples: what every other room calls `audio`.

`audio` is float32, shape (n_samples,), mono, full scale ±1. Values beyond ±1 are kept here (they clip when they are
encoded); NaN and infinity are refused, because one of them would poison every filter and model state after it.
"""

from __future__ import annotations

from math import isfinite

import numpy as np
import numpy.typing as npt

from rtnb.errors import AudioError

Audio = npt.NDArray[np.float32]

# What one step of an integer sample is worth: full scale is 2**(bits - 1).
_FULL_SCALE = {("i", 2): 32_768.0, ("i", 4): 2_147_483_648.0, ("u", 1): 128.0}


def as_audio(samples: npt.ArrayLike) -> Audio:
    """Turn an array of samples into `audio`: float32, mono, full scale ±1.

    Integers are scaled by their full scale; two channels are averaged. Nothing is normalised: the level of the
    recording stays the level that turn detection hears.

    Parameters
    ----------
    samples : array_like, shape (n_samples,), (n_samples, 1) or (n_samples, 2)
        int16, int32, uint8 (128 is silence), float32 or float64.

    Returns
    -------
    audio : ndarray, float32, shape (n_samples,)
        The input itself where nothing had to change.

    Raises
    ------
    AudioError
        Another dtype or shape, or a sample that is not a finite number.

    Examples
    --------
    >>> import numpy as np
    >>> as_audio(np.array([0, 16384, -32768], dtype=np.int16)).tolist()
    [0.0, 0.5, -1.0]
    >>> as_audio([[1.0, 0.0], [0.5, 0.5]]).tolist()
    [0.5, 0.5]
    """
    if samples.__class__ is np.ndarray and samples.dtype == np.float32 and samples.ndim == 1:
        return check_finite(samples)  # what streams push, many times a second
    if isinstance(samples, (bytes, bytearray, memoryview, str)):
        raise AudioError(f"expected an array of samples, got {type(samples).__name__}").with_hint(
            "Bytes are `pcm`: decode them first, e.g. with decode_pcm16(pcm) or read_wav(data)."
        )
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise AudioError(f"expected an array of samples, got a ragged {type(samples).__name__}") from error
    audio = _to_float32(array)
    if array.ndim == 2 and array.shape[1] in (1, 2):
        audio = audio[:, 0] if array.shape[1] == 1 else (audio[:, 0] + audio[:, 1]) * np.float32(0.5)
        audio = np.ascontiguousarray(audio)
    elif array.ndim != 1:
        raise AudioError(f"expected shape (n,), (n, 1) or (n, 2), got {array.shape}").with_hint(
            "Channels come last: transpose a (2, n) array with `.T`; more channels must be mixed down first."
        )
    return check_finite(audio)


def check_finite(audio: Audio) -> Audio:
    """Return the audio as it came, or raise `AudioError` where a sample is NaN or infinite."""
    if len(audio) and isfinite(np.add.reduce(audio)):  # one pass; a sum may also overflow
        return audio
    finite = np.isfinite(audio)
    if not finite.all():
        first = int(np.argmin(finite))
        raise AudioError(f"sample {first} is {audio[first]}: every sample must be a finite number").with_hint(
            "Replace it first, e.g. with numpy.nan_to_num."
        )
    return audio


def ms_to_samples(ms: float, *, rate_hz: int) -> int:
    """Return the number of samples in a duration, rounded to the nearest one.

    Parameters
    ----------
    ms : float
        Milliseconds.
    rate_hz : int
        Samples per second.

    Examples
    --------
    >>> ms_to_samples(20, rate_hz=24_000)
    480
    """
    return round(ms * check_rate(rate_hz) / 1000)


def check_rate(rate_hz: int, *, lowest: int = 1) -> int:
    """Return the rate as it came, or raise `AudioError` where it is no positive whole number."""
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, (int, np.integer)) or rate_hz < lowest:
        raise AudioError(f"rate_hz is {rate_hz!r}: it must be a whole number of at least {lowest} Hz")
    return int(rate_hz)


def _to_float32(array: npt.NDArray[np.generic]) -> Audio:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size in (4, 8):
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf and is refused as such
            return array.astype(np.float32, copy=False)
    if (kind, size) not in _FULL_SCALE:
        raise AudioError(f"samples are {array.dtype}: allowed are int16, int32, uint8, float32, float64").with_hint(
            "Convert them first, e.g. `samples.astype('int16')` if they are 16-bit values in a wider integer."
        )
    values = array.astype(np.float64)
    if kind == "u":
        values -= 128.0
    return (values / _FULL_SCALE[kind, size]).astype(np.float32)
