"""Speech probabilities of audio at any rate: the resampler in front of the net."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rtnb.audio.resampler import Resampler
from rtnb.audio.samples import as_audio
from rtnb.vad.silero import FRAME_SAMPLES, RATE_HZ, Silero, push_many

FRAME_MS = FRAME_SAMPLES * 1000 // RATE_HZ
"""Length of a frame: 32 ms, that of the net and (by its logs) of the service."""


class SpeechProbabilities:
    """Stream of speech probabilities, one for each 32 ms of audio as it arrives.

    Frame i is the stretch [32 i, 32 (i + 1)) ms of the audio pushed since the start: the change of rate shifts nothing.
    Its probability is given as soon as that stretch and at most 13 ms after it have arrived. Any chunking gives the
    same probabilities, bit for bit. Push exactly what is sent: the level matters, so nothing is normalised here.

    Parameters
    ----------
    rate_hz : int
        Of the audio pushed, 4,000 to 192,000 Hz; resampled to the net's 16 kHz.

    Raises
    ------
    AudioError
        A rate outside that range.

    Examples
    --------
    >>> stream = SpeechProbabilities(rate_hz=24_000)
    >>> [len(stream.push([0.0] * 480)) for _ in range(4)]
    [0, 1, 0, 1]
    """

    def __init__(self, *, rate_hz: int) -> None:
        self._resampler = Resampler(from_rate_hz=rate_hz, to_rate_hz=RATE_HZ)
        self._silero = Silero()

    @property
    def rate_hz(self) -> int:
        """Rate of the audio pushed, Hz."""
        return self._resampler.from_rate_hz

    def push(self, audio: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Take the next audio, give the probabilities of the frames it completes.

        Parameters
        ----------
        audio : array_like, shape (n_samples,)
            Any length; anything `as_audio` takes.

        Returns
        -------
        probabilities : ndarray, float32, shape (n_frames_completed,)
            0 to 1; empty where no frame is complete yet.

        Raises
        ------
        AudioError
            What `as_audio` refuses; the stream is as if it had not been pushed.
        """
        return self._silero.push(self._resampler.process(audio))

    def flush(self) -> npt.NDArray[np.float32]:
        """End the stream: give the complete frames that waited for audio after them, and start anew.

        A last frame of less than 32 ms is dropped.
        """
        probabilities = self._silero.push(self._resampler.flush())
        self._silero.reset()
        return probabilities


def push_to_many(
    streams: Sequence[SpeechProbabilities], audio: Sequence[npt.ArrayLike]
) -> list[npt.NDArray[np.float32]]:
    """Push the next audio of several streams at once: the answers of `SpeechProbabilities.push`, at half the cost.

    Parameters
    ----------
    streams, audio : sequences of the same length
        Different streams, and for each its audio.

    Returns
    -------
    list of ndarray, float32
        Probabilities of each stream, bit for bit those of single pushes.
    """
    return push_many(
        [stream._silero for stream in streams],
        [stream._resampler.process(samples) for stream, samples in zip(streams, audio, strict=True)],
    )


def speech_probabilities(audio: npt.ArrayLike, *, rate_hz: int) -> npt.NDArray[np.float32]:
    """Return the speech probability of each 32 ms of a recording.

    One number per complete frame: frame i is the stretch [32 i, 32 (i + 1)) ms; a last piece of less than 32 ms gets
    none. Streaming the same audio through `SpeechProbabilities` gives the same numbers, bit for bit.

    Parameters
    ----------
    audio : array_like, shape (n_samples,)
        Anything `as_audio` takes.
    rate_hz : int
        4,000 to 192,000 Hz; resampled to the net's 16 kHz.

    Returns
    -------
    probabilities : ndarray, float32, shape (n_frames,)
        0 to 1, by Silero VAD 6 (see `rtnb.vad.silero`).

    Raises
    ------
    AudioError
        What `as_audio` refuses, or a rate outside that range.

    Examples
    --------
    >>> import numpy as np
    >>> silence = np.zeros(24_000, np.float32)
    >>> bool(speech_probabilities(silence, rate_hz=24_000).max() < 0.1)
    True
    """
    stream = SpeechProbabilities(rate_hz=rate_hz)
    return np.concatenate([stream.push(as_audio(audio)), stream.flush()])
