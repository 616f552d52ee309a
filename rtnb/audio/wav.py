"""Read and write WAV files without a library; an error of the reader names what it found.

Read are uncompressed PCM of 8, 16, 24 and 32 bits, float of 32 and 64 bits, A-law and µ-law, each also in the
"extensible" spelling, with any number of channels (mixed down to one). Written is 16-bit PCM.

References
----------
IBM and Microsoft, Multimedia Programming Interface and Data Specifications 1.0 (1991), "Waveform Audio File Format";
Microsoft, "Multiple channel audio data and WAVE files" (2007) for the extensible form.
"""

from __future__ import annotations

import os
import struct
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from rtnb.audio.g711 import decode_alaw, decode_ulaw
from rtnb.audio.pcm import encode_pcm16
from rtnb.audio.samples import Audio, check_finite, check_rate
from rtnb.errors import AudioError

_PCM, _FLOAT, _ALAW, _ULAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_READABLE = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64), (_ALAW, 8), (_ULAW, 8)}
_READABLE_WORDS = "PCM of 8, 16, 24 or 32 bits, float of 32 or 64 bits, A-law, µ-law"
# What writers put where they cannot know the size (a pipe): everything up to the end of the file counts.
_UNKNOWN_SIZES = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000)
# The last 14 bytes of the extensible form's GUID; its first two bytes are the plain format tag.
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_CONVERT_HINT = "Convert it first, e.g. `ffmpeg -i INPUT -c:a pcm_s16le -ac 1 OUTPUT.wav`."

WavSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


class _Format(NamedTuple):
    tag: int
    channels: int
    rate_hz: int
    bits: int


def read_wav(source: WavSource) -> tuple[Audio, int]:
    """Read a WAV file as mono audio; several channels are averaged.

    Parameters
    ----------
    source : str, path, bytes or binary file
        A str is a path; the file's content can be given as bytes.

    Returns
    -------
    audio : ndarray, float32, shape (n_samples,)
        Full scale ±1; float files may go beyond.
    rate_hz : int
        As the file says; nothing is resampled.

    Raises
    ------
    AudioError
        No WAV file, one that is cut off, or one whose format cannot be read here: names what was found.
    OSError
        The file cannot be opened.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_wav(file, [0.0, 0.5, -0.5], rate_hz=24_000)
    >>> audio, rate_hz = read_wav(file.getvalue())
    >>> audio.tolist(), rate_hz
    ([0.0, 0.5, -0.5], 24000)
    """
    data = _all_bytes(source)
    form, body = _find_chunks(data)
    frame_bytes = form.channels * form.bits // 8
    if len(body) % frame_bytes:
        raise AudioError(
            f"the WAV file has {len(body)} bytes of audio: no multiple of {frame_bytes}, the bytes of one sample "
            f"in {form.channels} channel(s)"
        ).with_hint("The file is damaged or was cut off: write it again.")
    samples = _decode(body, form).reshape(-1, form.channels)
    with np.errstate(over="ignore", invalid="ignore"):
        mono = samples[:, 0] if form.channels == 1 else samples.mean(axis=1, dtype=np.float64)
        audio = np.ascontiguousarray(mono, dtype=np.float32)
    return check_finite(audio), form.rate_hz


def write_wav(target: str | os.PathLike[str] | IO[bytes], audio: npt.ArrayLike, *, rate_hz: int) -> None:
    """Write audio as a mono WAV file of 16-bit PCM; values beyond full scale clip.

    Parameters
    ----------
    target : str, path or binary file
        An existing file is replaced.
    audio : array_like, shape (n_samples,)
        Anything `as_audio` takes.
    rate_hz : int
        Samples per second.

    Raises
    ------
    AudioError
        What `as_audio` refuses, or a rate that is no positive whole number.
    OSError
        The file cannot be written.
    """
    pcm = encode_pcm16(audio)
    rate = check_rate(rate_hz)
    form = struct.pack("<HHIIHH", _PCM, 1, rate, 2 * rate, 2, 16)
    head = b"RIFF" + struct.pack("<I", 36 + len(pcm)) + b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form
    wav = head + b"data" + struct.pack("<I", len(pcm)) + pcm
    if isinstance(target, (str, os.PathLike)):
        with open(target, "wb") as file:
            file.write(wav)
    else:
        target.write(wav)


def _all_bytes(source: WavSource) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return file.read()
    if not hasattr(source, "read"):
        raise AudioError(f"expected a path, bytes or a binary file, got {type(source).__name__}")
    data = source.read()
    if not isinstance(data, bytes):
        raise AudioError(f"the file gives {type(data).__name__}, not bytes").with_hint('Open it with mode "rb".')
    return data


def _find_chunks(data: bytes) -> tuple[_Format, bytes]:
    """Walk the chunks up to the audio; everything but the format and the audio is skipped."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise AudioError(f"not a WAV file: it starts with {data[:12]!r}, not with RIFF....WAVE").with_hint(
            _CONVERT_HINT
        )
    form: _Format | None = None
    position = 12
    while position + 8 <= len(data):
        name = data[position : position + 4]
        (size,) = struct.unpack_from("<I", data, position + 4)
        body = data[position + 8 : position + 8 + size]
        if name == b"data":
            if form is None:
                raise AudioError("the WAV file has its audio before its format (chunk 'data' before 'fmt ')")
            if len(body) < size and size not in _UNKNOWN_SIZES:
                raise AudioError(
                    f"the WAV file is cut off: {size} bytes of audio announced, {len(body)} there"
                ).with_hint("Copy or record it again.")
            return form, body if size not in _UNKNOWN_SIZES else _whole_frames(body, form)
        if name == b"fmt ":
            form = _parse_format(body)
        position += 8 + size + size % 2  # chunks start at even places
    missing = "format (chunk 'fmt ')" if form is None else "audio (chunk 'data')"
    raise AudioError(f"the WAV file ends without its {missing}").with_hint("The file is damaged or was cut off.")


def _whole_frames(body: bytes, form: _Format) -> bytes:
    return body[: len(body) - len(body) % (form.channels * form.bits // 8)]


def _parse_format(body: bytes) -> _Format:
    if len(body) < 16:
        raise AudioError(f"the WAV file's format has {len(body)} bytes: at least 16 are needed")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE:
        if len(body) < 40 or body[26:40] != _GUID_TAIL:
            raise AudioError(f"the WAV file's extensible format is unknown: allowed are {_READABLE_WORDS}").with_hint(
                _CONVERT_HINT
            )
        (tag,) = struct.unpack_from("<H", body, 24)
    if channels == 0 or rate_hz == 0:
        raise AudioError(f"the WAV file says {channels} channels at {rate_hz} Hz: both must be positive")
    if (tag, bits) not in _READABLE:
        raise AudioError(
            f"the WAV file has format 0x{tag:04x} with {bits} bits: allowed are {_READABLE_WORDS}"
        ).with_hint(_CONVERT_HINT)
    return _Format(tag, channels, rate_hz, bits)


def _decode(body: bytes, form: _Format) -> npt.NDArray[np.floating]:
    if form.tag == _ALAW:
        return decode_alaw(body)
    if form.tag == _ULAW:
        return decode_ulaw(body)
    if form.tag == _FLOAT:
        return np.frombuffer(body, f"<f{form.bits // 8}")
    if form.bits == 8:
        return (np.frombuffer(body, np.uint8).astype(np.float32) - 128) / 128
    if form.bits == 24:
        padded = np.zeros((len(body) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)  # as the upper three bytes of 32
        return padded.reshape(-1).view("<i4") / 2.0**31
    return np.frombuffer(body, f"<i{form.bits // 8}") / 2.0 ** (form.bits - 1)
