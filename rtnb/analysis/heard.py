"""What is left of a recording once it was heard: speech probabilities and labels, no audio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rtnb.analysis.recordings import Recording, Span, Turn


@dataclass(frozen=True, eq=False)
class Heard:
    """The probabilities of one recording under one condition, and its labels (times in ms of that audio)."""

    name: str
    condition: str
    probabilities: npt.NDArray[np.float32]
    """(n_frames,) from `speech_probabilities`."""
    turns: tuple[Turn, ...] = ()
    non_speech: tuple[Span, ...] = ()
    echo: tuple[Span, ...] = ()
    duration_ms: float = 0.0

    @classmethod
    def of(cls, recording: Recording, *, probabilities: npt.NDArray[np.float32], condition: str) -> Heard:
        """Keep the labels of a recording."""
        return cls(
            recording.name,
            condition,
            probabilities,
            recording.turns,
            recording.non_speech or (),
            recording.echo,
            recording.duration_ms,
        )
