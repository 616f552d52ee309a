"""The three audio formats a realtime session can carry, each as one `Codec`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rtnb.audio.g711 import decode_alaw, decode_ulaw, encode_alaw, encode_ulaw
from rtnb.audio.pcm import decode_pcm16, encode_pcm16
from rtnb.audio.samples import Audio
from rtnb.errors import AudioError

RATE_HZ: Final = 24_000
"""Sample rate of audio/pcm, and of all speech here."""


@dataclass(frozen=True)
class Codec:
    """Audio format on the wire: encodes samples to bytes and decodes them."""

    media_type: str
    """As in the session configuration: ``audio/pcm``, ``audio/pcmu`` or ``audio/pcma``."""
    rate_hz: int
    """Samples per second on the wire; resample to it before encoding."""
    bytes_per_sample: int
    """2 for PCM, 1 for G.711."""
    encode: Callable[[Audio], bytes]
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
    "audio/pcmu": Codec("audio/pcmu", 8_000, 1, encode_ulaw, decode_ulaw),
    "audio/pcma": Codec("audio/pcma", 8_000, 1, encode_alaw, decode_alaw),
}


def codec(media_type: str) -> Codec:
    """Look up how the wire carries audio of a media type.

    Parameters
    ----------
    media_type : str
        ``audio/pcm`` (16-bit, 24 kHz), ``audio/pcmu`` (µ-law, 8 kHz) or ``audio/pcma`` (A-law, 8 kHz).

    Raises
    ------
    AudioError
        Another media type.

    Examples
    --------
    >>> codec("audio/pcmu").rate_hz, codec("audio/pcm").bytes_per_ms
    (8000, 48)
    """
    if media_type not in _CODECS:
        raise AudioError(f"unknown media type {media_type!r}: allowed are {', '.join(_CODECS)}").with_hint(
            "The preview spellings pcm16, g711_ulaw and g711_alaw are audio/pcm, audio/pcmu and audio/pcma here."
        )
    return _CODECS[media_type]
