"""Where in a frame a word begins: chance, and worth some turns. The same recordings at four frame phases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweep_result import AS_RECORDED
from rtnb.audio import ms_to_samples
from rtnb.vad import FRAME_MS


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
