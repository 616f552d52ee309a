"""Audio formats that a realtime session can carry: 16-bit PCM, µ-law and A-law, each as one `Codec`.

The two of G.711 are companded 8-bit formats of telephony. libsndfile (package soundfile) gives their tables: 256 values
to decode, 65,536 codes to encode.

References
----------
ITU-T Recommendation G.711 (11/88), tables 1a to 2b.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile

from rtnb.audio.samples import Audio, as_audio
from rtnb.errors import AudioError

RATE_HZ: Final = 24_000
"""Sample rate of audio/pcm, and of all speech here."""


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
    audio: Audio = np.multiply(np.frombuffer(pcm, "<i2"), np.float32(1 / 32_768), dtype=np.float32)
    return audio


def to_int16(audio: npt.ArrayLike) -> npt.NDArray[np.int16]:
    """Round audio to 16-bit integers, clipping at full scale."""
    scaled = np.rint(as_audio(audio) * np.float64(32_768))
    return np.clip(scaled, -32_768, 32_767).astype(np.int16)


def _encode(subtype: str, audio: npt.ArrayLike) -> bytes:
    return _tables(subtype)[1][to_int16(audio).view(np.uint16)].tobytes()


def _decode(subtype: str, pcm: bytes) -> Audio:
    return _tables(subtype)[0][np.frombuffer(pcm, np.uint8)]


@lru_cache(maxsize=2)
def _tables(subtype: str) -> tuple[Audio, npt.NDArray[np.uint8]]:
    """Return the sample of each code, and the code of each 16-bit sample (by its bits as uint16)."""
    raw: Any = {"samplerate": 8_000, "format": "RAW", "subtype": subtype}
    values, _ = soundfile.read(io.BytesIO(bytes(range(256))), channels=1, dtype="float32", **raw)
    codes = io.BytesIO()
    soundfile.write(codes, np.arange(65_536, dtype=np.uint16).view(np.int16), **raw)
    return values, np.frombuffer(codes.getvalue(), np.uint8)


@dataclass(frozen=True)
class Codec:
    """Audio format on the wire: encodes samples to bytes and decodes them."""

    media_type: str
    """As in the session configuration: ``audio/pcm``, ``audio/pcmu`` or ``audio/pcma``."""
    rate_hz: int
    """Samples per second on the wire; resample to it before encoding."""
    bytes_per_sample: int
    """2 for PCM, 1 for G.711."""
    encode: Callable[[npt.ArrayLike], bytes]
    """audio -> bytes; clips beyond full scale."""
    decode: Callable[[bytes], Audio]
    """bytes -> audio; `AudioError` where half a sample is left over."""

    @property
    def bytes_per_ms(self) -> int:
        """Bytes that one millisecond takes: 48 for PCM at 24 kHz, 8 for G.711."""
        return self.rate_hz * self.bytes_per_sample // 1000


# The rates are the service's only ones: 24 kHz for audio/pcm, 8 kHz for G.711 (realtime API reference, session.audio).
_CODECS = {
    "audio/pcm": Codec("audio/pcm", RATE_HZ, 2, encode_pcm16, decode_pcm16),
    "audio/pcmu": Codec("audio/pcmu", 8_000, 1, partial(_encode, "ULAW"), partial(_decode, "ULAW")),
    "audio/pcma": Codec("audio/pcma", 8_000, 1, partial(_encode, "ALAW"), partial(_decode, "ALAW")),
}


def codec(media_type: str) -> Codec:
    """Look up how the wire carries audio of a media type.

    Parameters
    ----------
    media_type : str
        ``audio/pcm`` (16-bit, 24 kHz), ``audio/pcmu`` (µ-law, 8 kHz) or ``audio/pcma`` (A-law, 8 kHz).

    Returns
    -------
    Codec
        Its `encode` rounds to 16 bits and clips beyond full scale. What G.711 decodes is encoded to the same bytes
        again, except that the negative zero of µ-law (0x7F) becomes zero (0xFF); A-law has no zero, only ±8/32768.

    Raises
    ------
    AudioError
        Another media type.

    Examples
    --------
    >>> codec("audio/pcmu").rate_hz, codec("audio/pcm").bytes_per_ms
    (8000, 48)
    >>> codec("audio/pcmu").encode([0.0, 0.5, -1.0]).hex(), codec("audio/pcma").encode([0.0, 0.5, -1.0]).hex()
    ('ff8f00', 'd5a52a')
    """
    if media_type not in _CODECS:
        raise AudioError(f"unknown media type {media_type!r}: allowed are {', '.join(_CODECS)}").with_hint(
            "The preview spellings pcm16, g711_ulaw and g711_alaw are audio/pcm, audio/pcmu and audio/pcma here."
        )
    return _CODECS[media_type]
