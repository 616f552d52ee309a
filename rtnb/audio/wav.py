"""Sound files, read and written by the package soundfile."""

from __future__ import annotations

import io
import os
from typing import IO

import numpy as np
import numpy.typing as npt
import soundfile

from rtnb.audio.formats import to_int16
from rtnb.audio.samples import Audio, as_audio, check_rate
from rtnb.errors import AudioError

WavSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


def read_wav(source: WavSource) -> tuple[Audio, int]:
    """Read an audio file as mono; several channels are averaged.

    Parameters
    ----------
    source : str, path, bytes or binary file
        WAV, FLAC, Ogg or MP3. A str is a path; the file's content can be given as bytes. Of a file that is cut off,
        what is there is read.

    Returns
    -------
    audio : ndarray, float32, shape (n_samples,)
        Full scale ±1; files of floating-point samples may go beyond.
    rate_hz : int
        As the file says; nothing is resampled.

    Raises
    ------
    AudioError
        No sound file, a damaged one, or one of an unknown format; the message has libsndfile's reason.
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
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return read_wav(file)
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    if not isinstance(getattr(source, "read", str)(0), bytes):
        raise AudioError(f"expected a path, bytes or a binary file, got {type(source).__name__}")
    try:
        channels, rate_hz = soundfile.read(source, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        path = getattr(source, "name", None)  # a number where the file has none
        name = os.path.basename(path) if isinstance(path, (str, os.PathLike)) else "this"
        raise AudioError(f"{name} is no sound file that can be read: {error.error_string}").with_hint(
            "Convert it first, e.g. `ffmpeg -i INPUT -c:a pcm_s16le -ac 1 OUTPUT.wav`."
        ) from error
    with np.errstate(over="ignore", invalid="ignore"):
        return as_audio(channels.mean(axis=1, dtype=np.float64)), int(rate_hz)


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
    pcm, rate = to_int16(audio), check_rate(rate_hz)
    if isinstance(target, (str, os.PathLike)):
        with open(target, "wb") as file:
            soundfile.write(file, pcm, rate, format="WAV", subtype="PCM_16")
    else:
        soundfile.write(target, pcm, rate, format="WAV", subtype="PCM_16")
