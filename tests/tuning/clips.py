"""Clips to calibrate with: a babbling voice at several levels and noises, with fades and blips for what is hard."""

from __future__ import annotations

import functools

import numpy as np

from rtnb.analysis.recordings import Recording
from tests.simulator.rig import spoken

RATE_HZ = 24_000


@functools.cache
def clips() -> tuple[Recording, ...]:
    """About 15 s: where it fades, hysteresis shows; where it blips, the minimum speech."""
    rng = np.random.default_rng(0)
    made = []
    texts = ("hello there", "one two, three four", "what is this? really", "tell me something about deltas")
    for number, text in enumerate(texts):
        voice = spoken(text, silence_ms=100, lead_ms=100) * (0.3 + 0.2 * number)
        fade = np.exp(-np.abs(np.linspace(-3, 3, len(voice))) * (0.5 + number))
        noise = rng.standard_normal(len(voice)) * 0.004 * number
        made.append(voice * fade.astype(np.float32) + noise)
    blips = np.zeros(3 * RATE_HZ, np.float32)
    voice = spoken("mama", silence_ms=0, lead_ms=0)
    for number, length_ms in enumerate((20, 30, 40, 50, 60, 75, 90, 110, 130)):
        at = number * RATE_HZ // 3
        piece = voice[2_400 : 2_400 + length_ms * RATE_HZ // 1000]
        blips[at : at + len(piece)] = piece
    made.append(blips)
    return tuple(
        Recording(np.clip(audio, -1, 1).astype(np.float32), rate_hz=RATE_HZ, name=f"clip {k}")
        for k, audio in enumerate(made)
    )
