"""Conditions: the same utterances quieter, in noise, through a telephone, or at another frame phase.

A condition takes a `Recording` and gives another with the same labels. Everything random comes from a seed, nothing is
normalised, and what goes beyond full scale is clipped, as it would be on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from rtnb.analysis.recordings import Recording
from rtnb.audio import Audio, codec, ms_to_samples, resample
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
        _check_finite("db", self.db)

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
        _check_finite("snr_db", self.snr_db)
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
            source = resample(self.noise.audio, from_rate_hz=self.noise.rate_hz, to_rate_hz=recording.rate_hz)
            noise = np.resize(np.roll(source, -int(random.integers(len(source)))), len(recording.audio))
            power = _power(source)
        level = np.sqrt(_speech_power(recording) / power / 10 ** (self.snr_db / 10))
        return replace(recording, audio=_clipped(recording.audio + np.float32(level) * noise))


@dataclass(frozen=True)
class MuLaw:
    """A telephone line: 8 kHz, µ-law (G.711)."""

    name: str = "µ-law 8 kHz"

    def apply(self, recording: Recording) -> Recording:
        """The recording at 8 kHz, as it comes out of the line."""
        narrow = resample(recording.audio, from_rate_hz=recording.rate_hz, to_rate_hz=8_000)
        ulaw = codec("audio/pcmu")
        audio = ulaw.decode(ulaw.encode(_clipped(narrow)))
        return replace(recording, audio=audio, rate_hz=8_000)


def _check_finite(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or not isfinite(value):
        raise AudioError(f"{name} is {value!r}: it must be a finite number")


def _clipped(audio: npt.NDArray[np.float32]) -> Audio:
    return np.clip(audio, np.float32(-1), np.float32(1))


def _power(audio: Audio) -> float:
    return float(np.mean(np.square(audio, dtype=np.float64))) if len(audio) else 0.0


def _speech_power(recording: Recording) -> float:
    """Mean square of the turns without their pauses."""
    pieces = [recording.audio[:0]]
    for span in (span for turn in recording.turns for span in turn.spoken):
        start, stop = (ms_to_samples(ms, rate_hz=recording.rate_hz) for ms in span)
        pieces.append(recording.audio[start:stop])
    power = _power(np.concatenate(pieces))
    return power or 10 ** (NOMINAL_SPEECH_DBFS / 10)


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
