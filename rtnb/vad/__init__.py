"""Listening: speech probabilities of frames, and the segments a realtime service would make of them. NumPy only.

>>> import numpy as np
>>> from rtnb.vad import speech_probabilities
>>> speech_probabilities(np.zeros(16_000, np.float32), rate_hz=16_000).shape
(31,)
"""

from rtnb.vad.probability import FRAME_MS, SpeechProbabilities, push_to_many, speech_probabilities
from rtnb.vad.server_vad import (
    Segment,
    ServerVadMachine,
    SpeechStarted,
    SpeechStopped,
    VadConstants,
    idle_timeout_span,
    server_vad_segments,
)

__all__ = [
    "FRAME_MS", "Segment", "ServerVadMachine", "SpeechProbabilities", "SpeechStarted", "SpeechStopped", "VadConstants",
    "idle_timeout_span", "push_to_many", "server_vad_segments", "speech_probabilities",
]  # fmt: skip
