"""G.711, the two companded 8-bit formats of telephony: µ-law (`audio/pcmu`) and A-law (`audio/pcma`).

Both are piecewise linear: a sign, a segment of three bits (each twice as steep as the one before) and four bits within
it. Decoding is a table of 256 values, encoding one of 65,536.

References
----------
ITU-T Recommendation G.711 (11/88), tables 1a to 2b.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rtnb.audio.pcm import to_int16
from rtnb.audio.samples import Audio

_Int = npt.NDArray[np.int32]


def encode_ulaw(audio: npt.ArrayLike) -> bytes:
    """Turn audio into µ-law bytes, one per sample (North America, Japan).

    Parameters
    ----------
    audio : array_like, shape (n_samples,)
        Full scale ±1, meant for 8 kHz; it is first rounded to 16 bits, and clips beyond full scale.

    Raises
    ------
    AudioError
        What `as_audio` refuses.

    Examples
    --------
    >>> encode_ulaw([0.0, 0.5, -1.0]).hex()
    'ff8f00'
    """
    return _encode(audio, _ulaw_codes())


def decode_ulaw(pcm: bytes) -> Audio:
    """Turn µ-law bytes into audio.

    Encoding the result gives the same bytes back, except that negative zero (0x7F) becomes zero (0xFF).

    Examples
    --------
    >>> decode_ulaw(b"\\xff\\x8f\\x00").tolist()
    [0.0, 0.5115966796875, -0.9803466796875]
    """
    return _decode(pcm, _ulaw_values())


def encode_alaw(audio: npt.ArrayLike) -> bytes:
    """Turn audio into A-law bytes, one per sample (Europe and most of the world).

    Parameters
    ----------
    audio : array_like, shape (n_samples,)
        Full scale ±1, meant for 8 kHz; it is first rounded to 16 bits, and clips beyond full scale.

    Raises
    ------
    AudioError
        What `as_audio` refuses.

    Examples
    --------
    >>> encode_alaw([0.0, 0.5, -1.0]).hex()
    'd5a52a'
    """
    return _encode(audio, _alaw_codes())


def decode_alaw(pcm: bytes) -> Audio:
    """Turn A-law bytes into audio; encoding the result gives the same bytes back. A-law has no zero, only ±8/32768.

    Examples
    --------
    >>> decode_alaw(b"\\xd5\\xa5\\x2a").tolist()
    [0.000244140625, 0.515625, -0.984375]
    """
    return _decode(pcm, _alaw_values())


def _encode(audio: npt.ArrayLike, codes: npt.NDArray[np.uint8]) -> bytes:
    return codes[to_int16(audio).view(np.uint16)].tobytes()


def _decode(pcm: bytes, values: _Int) -> Audio:
    table = (values / 32_768).astype(np.float32)
    return table[np.frombuffer(pcm, np.uint8)]


def _every_int16() -> _Int:
    """Return all 16-bit values, at the place where their bits read as uint16 point."""
    return np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)


@lru_cache(maxsize=1)
def _ulaw_values() -> _Int:
    code = ~np.arange(256) & 0xFF  # all bits travel inverted
    size = ((((code & 0x0F) << 3) + 0x84) << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -size, size).astype(np.int32)


@lru_cache(maxsize=1)
def _ulaw_codes() -> npt.NDArray[np.uint8]:
    sample = _every_int16()
    size = np.minimum(np.abs(sample), 32_635) + 0x84  # 32635 and the bias 0x84 = 33 * 4: G.711 in 16-bit steps
    segment = np.floor(np.log2(size)).astype(np.int32) - 7
    code = (segment << 4) | (size >> (segment + 3) & 0x0F) | np.where(sample < 0, 0x80, 0)
    return np.asarray(~code & 0xFF, np.uint8)


@lru_cache(maxsize=1)
def _alaw_values() -> _Int:
    code = np.arange(256) ^ 0x55  # every other bit travels inverted
    segment = code >> 4 & 7
    size = ((code & 0x0F) << 4) + 8
    size = np.where(segment == 0, size, (size + 0x100) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, size, -size).astype(np.int32)


@lru_cache(maxsize=1)
def _alaw_codes() -> npt.NDArray[np.uint8]:
    sample = _every_int16()
    size = np.where(sample < 0, -sample - 1, sample) >> 4  # 12 bits are left: A-law has 13 with the sign
    segment = np.maximum(np.floor(np.log2(np.maximum(size, 1))).astype(np.int32) - 3, 0)
    within = np.where(segment == 0, size, size >> np.maximum(segment - 1, 0)) & 0x0F
    code = (segment << 4) | within | np.where(sample < 0, 0, 0x80)
    return np.asarray(code ^ 0x55, np.uint8)
