"""The service's ``server_vad`` turn detection as a state machine over speech probabilities: "server model v1".

What is **documented** (realtime API reference, turn_detection): `threshold`, `silence_duration_ms`, `prefix_padding_ms`
and their meaning; `audio_start_ms` includes the prefix padding, `audio_end_ms` includes the silence.

What is **inference** from the boundaries in a few public logs (66 segments, all with threshold 0.5, prefix 300,
silence 200), and from the public ``VADIterator`` of Silero VAD, which shows the same arithmetic:

- frames of 32 ms; all ends are multiples of 32 ms, all starts too once the prefix is added back
- one frame is enough to start (`min_speech_frames`)
- the prefix is cut at the start of the stream, but not at the end of the segment before: segments may overlap
- silence is counted from the end of the first frame below the release threshold (`threshold` less the hysteresis, at
  least `lowest_release`); a frame at or above `threshold` cancels it; frames between the two neither cancel nor fire
- it fires with the first frame below the release threshold once the silence has lasted, rounded up to whole frames:
  200 ms are 7 frames, so the shortest segment has 1 + 1 + 7 = 9 frames

The model behind the service is not known, and its state cannot be: take times as right to about three frames, and
correct the constants by a calibration on a live session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import ceil, exp, floor, inf, isfinite, log
from typing import Any

import numpy as np
import numpy.typing as npt

from rtnb.errors import AudioError
from rtnb.vad.probability import FRAME_MS


@dataclass(frozen=True)
class SpeechStarted:
    """Start of speech: the content of `input_audio_buffer.speech_started`."""

    frame: int
    """The first frame of the speech: it begins at 32 * frame ms."""
    audio_start_ms: int
    """Where the item will begin: 32 * frame less the prefix padding, at least 0."""
    emitted_ms: int
    """Amount of audio processed when this was decided: the end of the deciding frame."""


@dataclass(frozen=True)
class SpeechStopped:
    """End of speech: the content of `input_audio_buffer.speech_stopped`; the service commits with it."""

    frame: int
    """The first frame after the segment: 32 * frame == audio_end_ms."""
    audio_end_ms: int
    """Where the item ends, silence included; so much audio was processed when this was decided."""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech as the service would report it; frames [start_frame, stop_frame) without the prefix."""

    start_frame: int
    """The first frame of the speech."""
    stop_frame: int | None
    """The first frame after the segment (silence included), None where the audio ended before that was decided."""
    audio_start_ms: int
    """Start of the item, prefix padding included."""
    audio_end_ms: int | None
    """End of the item, silence included; None where unfinished."""
    started_emitted_ms: int
    """Amount of audio processed when the start was reported; the stop is reported at `audio_end_ms`."""


@dataclass(frozen=True)
class VadConstants:
    """Undocumented constants of the service's ``server_vad``: all of them inference, to be fitted to a live session.

    The defaults are those of Silero's ``VADIterator``, which fit the boundaries in the public logs; `silence_rounding`
    and the two of the threshold map are there because a service may count or detect differently.

    Raises
    ------
    AudioError
        A constant out of its range.

    Examples
    --------
    >>> VadConstants().release(0.5), VadConstants(hysteresis=0).release(0.5)
    (0.35, 0.5)
    >>> VadConstants().silence_frames(200), VadConstants(silence_rounding="down").silence_frames(200)
    (7, 6)
    """

    hysteresis: float = 0.15
    """Inference: the release threshold lies this far below `threshold`."""
    lowest_release: float = 0.01
    """Inference: the release threshold is never lower."""
    min_speech_frames: int = 1
    """Inference: so many frames in a row at or above the threshold start a turn."""
    silence_rounding: str = "up"
    """Inference: how the silence duration becomes whole frames: "up", "nearest" or "down"."""
    threshold_slope: float = 1.0
    """Inference: the service's threshold t meets the local probability m(t), logit m(t) = slope · logit t + shift."""
    threshold_shift: float = 0.0
    """Inference: see `threshold_slope`; above 0 the service detects less than the local net at the same threshold."""

    def __post_init__(self) -> None:
        for name in ("hysteresis", "lowest_release"):
            if not 0 <= getattr(self, name) <= 1:
                raise AudioError(f"{name} is {getattr(self, name)!r}: it must be between 0 and 1")
        if self.min_speech_frames < 1 or self.min_speech_frames != int(self.min_speech_frames):
            raise AudioError(f"min_speech_frames is {self.min_speech_frames!r}: it must be a whole number, at least 1")
        if self.silence_rounding not in _ROUNDINGS:
            raise AudioError(f"silence_rounding is {self.silence_rounding!r}: allowed are {', '.join(_ROUNDINGS)}")
        if not (0 < self.threshold_slope < inf and isfinite(self.threshold_shift)):
            raise AudioError(
                f"threshold_slope is {self.threshold_slope!r} and threshold_shift {self.threshold_shift!r}: "
                "the slope must be above 0, both must be finite"
            )

    def local(self, threshold: float) -> float:
        """Return the local probability that the service's threshold stands for."""
        if (self.threshold_slope, self.threshold_shift) == (1.0, 0.0) or not 0 < threshold < 1:
            return threshold
        logit = self.threshold_slope * log(threshold / (1 - threshold)) + self.threshold_shift
        return 1 / (1 + exp(-logit)) if logit > -700 else 0.0

    def release(self, threshold: float) -> float:
        """Return the local probability below which a frame counts as silence."""
        return self.local(max(threshold - self.hysteresis, self.lowest_release))

    def silence_frames(self, silence_duration_ms: float) -> int:
        """Return the least number of frames from the first quiet one to the report of a stop."""
        return int(_ROUNDINGS[self.silence_rounding](silence_duration_ms / FRAME_MS))


_ROUNDINGS = {"up": ceil, "nearest": lambda frames: floor(frames + 0.5), "down": floor}


@dataclass(frozen=True)
class _Settings:
    threshold: float
    silence_duration_ms: float
    prefix_padding_ms: int
    constants: VadConstants

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise AudioError(f"threshold is {self.threshold!r}: it must be between 0 and 1")
        for name in ("silence_duration_ms", "prefix_padding_ms"):
            if not 0 <= getattr(self, name) < inf:
                raise AudioError(f"{name} is {getattr(self, name)!r}: it must be 0 or more milliseconds")


class ServerVadMachine:
    """Decide turn by turn, frame by frame, as the service's ``server_vad`` seems to; knows no clock.

    Parameters
    ----------
    threshold : float, default 0.5
        A frame at or above it is speech. Higher needs clearer speech and gives later starts and earlier stops.
    silence_duration_ms : float, default 200
        How long silence must last to end a turn, rounded up to whole frames. Longer cuts fewer speakers off, and makes
        every answer that much later. The documents say 500 or 200; sessions of the service show 200.
    prefix_padding_ms : int, default 300
        How much audio before the speech belongs to the item.
    constants : VadConstants
        What is inference, not documented: hysteresis, minimum speech, rounding, threshold map.

    Raises
    ------
    AudioError
        A setting out of its range.

    Examples
    --------
    >>> machine = ServerVadMachine(silence_duration_ms=64, prefix_padding_ms=32)
    >>> for event in machine.push([0.0, 0.0, 0.9, 0.9, 0.1, 0.1, 0.1]):
    ...     print(event)
    SpeechStarted(frame=2, audio_start_ms=32, emitted_ms=96)
    SpeechStopped(frame=7, audio_end_ms=224)
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        silence_duration_ms: float = 200,
        prefix_padding_ms: int = 300,
        constants: VadConstants = VadConstants(),
    ) -> None:
        self._use(_Settings(threshold, silence_duration_ms, prefix_padding_ms, constants))
        self.reset()

    def _use(self, settings: _Settings) -> None:
        constants = settings.constants
        self._settings = settings
        self._threshold, self._release = constants.local(settings.threshold), constants.release(settings.threshold)
        self._silence_frames = constants.silence_frames(settings.silence_duration_ms)

    @property
    def frame(self) -> int:
        """The number of the next frame."""
        return self._frame

    @property
    def speaking(self) -> bool:
        """Whether a start has been reported and no stop yet."""
        return self._speaking

    def configure(self, **changes: Any) -> None:
        """Change settings by name from the next frame on. Speech and silence under way go on.

        Raises
        ------
        AudioError
            A setting out of its range; nothing is changed then.
        """
        self._use(replace(self._settings, **changes))

    def reset(self, *, frame: int = 0) -> None:
        """Forget speech and silence under way; the next frame has this number.

        ``reset(frame=machine.frame)`` keeps the time of the stream: for a buffer that was cleared or committed by hand.
        """
        self._frame = frame
        self._speaking = False
        self._run = 0  # frames in a row at or above the threshold, while not speaking
        self._first_quiet: int | None = None  # the frame that armed the silence timer

    def push(self, probabilities: Sequence[float] | npt.NDArray[np.floating]) -> list[SpeechStarted | SpeechStopped]:
        """Take the probabilities of the next frames, return what the service would report about them.

        Parameters
        ----------
        probabilities : array_like, shape (n_frames,)
            0 to 1, one per 32 ms frame; any chunking gives the same events.

        Returns
        -------
        events : list of SpeechStarted and SpeechStopped
            In their order, taking turns.

        Raises
        ------
        AudioError
            Not one-dimensional.
        """
        values = np.asarray(probabilities, np.float64)
        if values.ndim != 1:
            raise AudioError(f"expected one probability per frame, shape (n_frames,), got {values.shape}")
        events: list[SpeechStarted | SpeechStopped] = []
        for probability in values.tolist():
            event = self._stop(probability) if self._speaking else self._start(probability)
            self._frame += 1
            if event is not None:
                events.append(event)
        return events

    def _start(self, probability: float) -> SpeechStarted | None:
        self._run = self._run + 1 if probability >= self._threshold else 0
        if self._run < self._settings.constants.min_speech_frames:
            return None
        first = self._frame - self._run + 1
        self._speaking, self._run, self._first_quiet = True, 0, None
        start_ms = max(0, FRAME_MS * first - self._settings.prefix_padding_ms)
        return SpeechStarted(frame=first, audio_start_ms=start_ms, emitted_ms=FRAME_MS * (self._frame + 1))

    def _stop(self, probability: float) -> SpeechStopped | None:
        if probability >= self._threshold:
            self._first_quiet = None
            return None
        if probability >= self._release:  # the zone between: neither cancels nor fires
            return None
        if self._first_quiet is None:
            self._first_quiet = self._frame
        if self._frame < self._first_quiet + self._silence_frames:
            return None
        self._speaking, self._first_quiet = False, None
        end = self._frame + 1
        return SpeechStopped(frame=end, audio_end_ms=FRAME_MS * end)


def server_vad_segments(
    probabilities: Sequence[float] | npt.NDArray[np.floating],
    *,
    threshold: float = 0.5,
    silence_duration_ms: float = 200,
    prefix_padding_ms: int = 300,
    constants: VadConstants = VadConstants(),
) -> tuple[Segment, ...]:
    """Return the stretches of speech that the service would find in a recording.

    Parameters
    ----------
    probabilities : array_like, shape (n_frames,)
        From `speech_probabilities`.
    threshold, silence_duration_ms, prefix_padding_ms, constants
        As for `ServerVadMachine`; the last are inference, not documented.

    Returns
    -------
    segments : tuple of Segment
        In their order; the last one may be unfinished. They may overlap by the prefix padding, as the service's do.

    Raises
    ------
    AudioError
        A setting out of its range, or probabilities that are not one-dimensional.

    Examples
    --------
    >>> (segment,) = server_vad_segments([0.9] + [0.0] * 8)
    >>> segment.audio_start_ms, segment.audio_end_ms
    (0, 288)
    """
    machine = ServerVadMachine(
        threshold=threshold,
        silence_duration_ms=silence_duration_ms,
        prefix_padding_ms=prefix_padding_ms,
        constants=constants,
    )
    events: list[Any] = list(machine.push(probabilities))  # starts and stops take turns; the last stop may be missing
    return tuple(
        Segment(start.frame, stop and stop.frame, start.audio_start_ms, stop and stop.audio_end_ms, start.emitted_ms)
        for start, stop in zip_longest(events[::2], events[1::2])
    )


def idle_timeout_span(quiet_from_ms: float, *, idle_timeout_ms: float) -> tuple[int, int]:
    """Return the span of silent audio that is committed after an idle timeout without speech.

    Parameters
    ----------
    quiet_from_ms : float
        Audio received when the last reply had been played: the service counts from there (documented).
    idle_timeout_ms : float
        Of the turn detection. Whole frames are inference, from the one documented sample: 6,000 ms became 6,016.

    Returns
    -------
    audio_start_ms, audio_end_ms : int

    Examples
    --------
    >>> idle_timeout_span(13_210, idle_timeout_ms=6_000)
    (13216, 19232)
    """
    start, length = (FRAME_MS * ceil(ms / FRAME_MS) for ms in (quiet_from_ms, idle_timeout_ms))
    return start, start + length
