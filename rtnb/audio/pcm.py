"""16-bit PCM bytes, the form in which the realtime protocol carries audio by default (little-endian, mono)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rtnb.audio.samples import Audio, as_audio
from rtnb.errors import AudioError


def encode_pcm16(audio: npt.ArrayLike) -> bytes:
    """Turn audio into 16-bit little-endian PCM; values beyond full scale clip.

    Parameters
    ----------
    audio : array_like, shape (n_samples,)
        Full scale ±1; anything `as_audio` takes.

    Returns
    -------
    pcm : bytes
        Two bytes per sample.

    Raises
    ------
    AudioError
        What `as_audio` refuses.

    Examples
    --------
    >>> encode_pcm16([0.0, 0.5, -1.0, 2.0]).hex(" ", 2)
    '0000 0040 0080 ff7f'
    """
    return to_int16(audio).astype("<i2", copy=False).tobytes()


def decode_pcm16(pcm: bytes) -> Audio:
    """Turn 16-bit little-endian PCM into audio; `encode_pcm16` gives the same bytes back.

    Parameters
    ----------
    pcm : bytes
        Two bytes per sample, mono.

    Returns
    -------
    audio : ndarray, float32, shape (n_samples,)

    Raises
    ------
    AudioError
        An odd number of bytes: half a sample is left over.

    Examples
    --------
    >>> decode_pcm16(bytes.fromhex("0000 0040 0080")).tolist()
    [0.0, 0.5, -1.0]
    """
    if len(pcm) % 2:
        raise AudioError(f"got {len(pcm)} bytes of 16-bit PCM: the number must be even").with_hint(
            "Keep the odd byte and put it before the next chunk, or cut the chunks at even lengths."
        )
    return np.frombuffer(pcm, "<i2").astype(np.float32) * np.float32(1 / 32_768)


def to_int16(audio: npt.ArrayLike) -> npt.NDArray[np.int16]:
    """Round audio to 16-bit integers, clipping at full scale."""
    scaled = np.rint(as_audio(audio) * np.float64(32_768))
    return np.clip(scaled, -32_768, 32_767).astype(np.int16)
