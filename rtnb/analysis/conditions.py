"""Conditions: the same utterances quieter, in noise, in a room, through a telephone, or at another frame phase.

A condition takes a `Recording` and gives another with the same labels. Everything random comes from a seed, nothing is
normalised, and what goes beyond full scale is clipped, as it would be on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from rtnb.analysis.recordings import Recording
from rtnb.audio import Audio, decode_ulaw, encode_ulaw, ms_to_samples, resample
from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS

AS_RECORDED: Final = "as recorded"
"""The condition in which nothing was done to the audio."""
NOMINAL_SPEECH_DBFS: Final = -26.0
"""Level of speech where a recording has none to measure: the nominal level of ITU-T P.56 and P.830."""


class Condition(Protocol):
    """Change that `sweep` makes to every recording."""

    @property
    def name(self) -> str:
        """Names the condition in results; different conditions need different names."""

    def apply(self, recording: Recording) -> Recording:
        """The same recording under the condition."""


@dataclass(frozen=True)
class Gain:
    """Louder or quieter by so many dB: another microphone, another distance."""

    db: float

    def __post_init__(self) -> None:
        _check(self, "db")

    @property
    def name(self) -> str:
        """E.g. ``gain -12 dB``."""
        return f"gain {self.db:+g} dB"

    def apply(self, recording: Recording) -> Recording:
        """All samples times the gain, clipped at full scale."""
        return replace(recording, audio=_clipped(recording.audio * np.float32(10 ** (self.db / 20))))


@dataclass(frozen=True)
class Noise:
    """Noise at a ratio to the speech, the pauses not counted: the same ratio for loud and soft speakers.

    A recording without speech gets the noise that speech of `NOMINAL_SPEECH_DBFS` would get.
    """

    snr_db: float
    """Power of the speech over that of the noise, dB."""
    noise: Recording | None = field(default=None, kw_only=True)
    """What to add, from a random place on and repeated as needed; None: white noise."""
    seed: int = field(default=0, kw_only=True)
    """Of the white noise, or of the place."""

    def __post_init__(self) -> None:
        _check(self, "snr_db")
        if self.noise is not None and not _power(self.noise.audio):
            raise AudioError(f"the noise {self.noise.name!r} is silent")

    @property
    def name(self) -> str:
        """E.g. ``office at 10 dB SNR``."""
        return f"{'white noise' if self.noise is None else self.noise.name} at {self.snr_db:g} dB SNR"

    def apply(self, recording: Recording) -> Recording:
        """The sum, clipped at full scale."""
        random = np.random.default_rng(self.seed)
        if self.noise is None:
            noise = random.standard_normal(len(recording.audio)).astype(np.float32)
            power = 1.0
        else:
            source = _at_rate(self.noise, recording.rate_hz)
            noise = np.resize(np.roll(source, -int(random.integers(len(source)))), len(recording.audio))
            power = _power(source)
        level = np.sqrt(_speech_power(recording) / power / 10 ** (self.snr_db / 10))
        return replace(recording, audio=_clipped(recording.audio + np.float32(level) * noise))


@dataclass(frozen=True)
class RoomEcho:
    """A reverberant room: the direct sound, then noise that decays by 60 dB within `rt60_ms`."""

    rt60_ms: float = 400.0
    """Reverberation time; 300 ms is a furnished room, 600 ms a bare office."""
    direct_to_reverberant_db: float = field(default=3.0, kw_only=True)
    """Energy of the direct sound over that of the rest; falls with the distance to the microphone. Default chosen."""
    seed: int = field(default=0, kw_only=True)
    """Of the room."""

    def __post_init__(self) -> None:
        _check(self, "rt60_ms", "direct_to_reverberant_db")
        if self.rt60_ms <= 0:
            raise AudioError(f"rt60_ms is {self.rt60_ms!r}: it must be above 0")

    @property
    def name(self) -> str:
        """E.g. ``room echo, RT60 400 ms``."""
        return f"room echo, RT60 {self.rt60_ms:g} ms"

    def apply(self, recording: Recording) -> Recording:
        """The recording in the room; the direct sound keeps its time and level."""
        from scipy.signal import oaconvolve  # slow to import

        times_s = np.arange(1, ms_to_samples(self.rt60_ms, rate_hz=recording.rate_hz) + 1) / recording.rate_hz
        tail = np.random.default_rng(self.seed).standard_normal(len(times_s)) * 10 ** (-3e3 * times_s / self.rt60_ms)
        tail *= 10 ** (-self.direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
        response = np.concatenate([[1.0], tail]).astype(np.float32)
        heard = oaconvolve(recording.audio, response)[: len(recording.audio)]
        return replace(recording, audio=_clipped(heard))


@dataclass(frozen=True)
class AssistantEcho:
    """The assistant's playback leaks into the microphone all the time: where nobody speaks, a start interrupts it."""

    playback: Recording
    """What the assistant says, repeated as needed."""
    below_speech_db: float = field(default=20.0, kw_only=True)
    """How much softer the echo is than the speech; 20 dB is an echo canceller that does little. Chosen."""

    def __post_init__(self) -> None:
        _check(self, "below_speech_db")
        if not _power(self.playback.audio):
            raise AudioError(f"the playback {self.playback.name!r} is silent")

    @property
    def name(self) -> str:
        """E.g. ``assistant echo 20 dB below``."""
        return f"assistant echo {self.below_speech_db:g} dB below"

    def apply(self, recording: Recording) -> Recording:
        """The sum, clipped; what was non-speech is echo now."""
        source = _at_rate(self.playback, recording.rate_hz)
        level = np.sqrt(_speech_power(recording) / _power(source)) * 10 ** (-self.below_speech_db / 20)
        audio = recording.audio + np.float32(level) * np.resize(source, len(recording.audio))
        echo = (*(recording.non_speech or ()), *recording.echo)
        return replace(recording, audio=_clipped(audio), non_speech=(), echo=tuple(sorted(echo)))


@dataclass(frozen=True)
class MuLaw:
    """A telephone line: 8 kHz, µ-law (G.711)."""

    name: str = "µ-law 8 kHz"

    def apply(self, recording: Recording) -> Recording:
        """The recording at 8 kHz, as it comes out of the line."""
        narrow = resample(recording.audio, from_rate_hz=recording.rate_hz, to_rate_hz=8_000)
        audio = decode_ulaw(encode_ulaw(_clipped(narrow)))
        return replace(recording, audio=audio, rate_hz=8_000)


def _check(condition: Any, *names: str) -> None:
    for name in names:
        value = getattr(condition, name)
        if not isinstance(value, (int, float)) or not isfinite(value):
            raise AudioError(f"{name} is {value!r}: it must be a finite number")


def _clipped(audio: npt.NDArray[np.float32]) -> Audio:
    return np.clip(audio, np.float32(-1), np.float32(1))


def _power(audio: Audio) -> float:
    return float(np.mean(np.square(audio, dtype=np.float64))) if len(audio) else 0.0


def _speech_power(recording: Recording) -> float:
    """Mean square of the turns without their pauses."""
    marks = np.zeros(len(recording.audio), bool)
    for value, spans in (
        (True, [(turn.start_ms, turn.end_ms) for turn in recording.turns]),
        (False, [pause for turn in recording.turns for pause in turn.pauses]),
    ):
        for span in spans:
            first, last = (ms_to_samples(ms, rate_hz=recording.rate_hz) for ms in span)
            marks[first:last] = value
    power = _power(recording.audio[marks])
    return power or 10 ** (NOMINAL_SPEECH_DBFS / 10)


def _at_rate(recording: Recording, rate_hz: int) -> Audio:
    return resample(recording.audio, from_rate_hz=recording.rate_hz, to_rate_hz=rate_hz)


@dataclass(frozen=True)
class FramePhase:
    """A condition: everything so many ms later, so that the 32 ms frames begin elsewhere in every word.

    Examples
    --------
    >>> FramePhase(8).apply(Recording([0.0] * 24_000, rate_hz=24_000, turns=[(300, 600)])).turns[0].start_ms
    308
    """

    ms: float
    """0 to less than 32."""

    @property
    def name(self) -> str:
        """``as recorded`` for 0, otherwise e.g. ``frame phase +8 ms``."""
        return f"frame phase +{self.ms:g} ms" if self.ms else AS_RECORDED

    def apply(self, recording: Recording) -> Recording:
        """The same with silence in front, labels moved along."""
        ahead = np.zeros(ms_to_samples(self.ms, rate_hz=recording.rate_hz), np.float32)
        return recording.shifted(self.ms, audio=np.concatenate([ahead, recording.audio])) if self.ms else recording


FRAME_PHASES: Final = tuple(FramePhase(FRAME_MS * k / 4) for k in range(4))
"""For ``sweep(recordings, conditions=FRAME_PHASES)``: quarters of a frame, the recording as it is among them."""


def is_frame_phase(condition: str) -> bool:
    """Whether a condition of a sweep differs from the recording by its frame phase at most."""
    return condition == AS_RECORDED or condition.startswith("frame phase ")
