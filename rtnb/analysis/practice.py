"""Turns to practise on: spoken phrases put together with the pauses of somebody who thinks. Labels come for free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rtnb.analysis.recordings import Recording, Turn
from rtnb.audio import Audio, as_audio, ms_to_samples
from rtnb.errors import AudioError

PAUSE_MS = (435.0, 921.0)
"""Median and 90th percentile of 127 pauses inside turns, in 33 hand-labelled recordings of people talking freely."""
_LEAD_MS, _TAIL_MS = 600, 2_200
"""Silence before and after a turn: the tail is longer than any usual silence duration (chosen)."""
_FLOOR_DB = -66.0
"""Level of the room's noise below full scale (chosen: a quiet office)."""
_AUDIBLE = 0.02
"""Share of the peak below which the edges of a phrase are taken for silence (chosen)."""


def thinking_aloud(
    phrases: Sequence[npt.ArrayLike], *, rate_hz: int, n_turns: int = 60, pauses: float = 1.0, seed: int = 0
) -> list[Recording]:
    """Make recordings of one turn each: phrases in random order with thinking pauses between them.

    Parameters
    ----------
    phrases : sequence of array_like, shape (n_samples,)
        Somebody's phrases, each spoken without a pause; silence at their edges is cut away.
    rate_hz : int
        Of the phrases.
    n_turns : int, default 60
        How many recordings to make.
    pauses : float, default 1
        How many pauses a turn has on average (Poisson). More: a speaker who is harder not to cut off.
    seed : int, default 0
        Same seed, same recordings.

    Returns
    -------
    recordings : list of Recording
        One turn each, with its pauses labelled; levels differ by some dB, as people do.

    Raises
    ------
    AudioError
        No phrases, or a silent one.

    Examples
    --------
    >>> from rtnb.audio import babble
    >>> phrases = [babble(text).audio for text in ("well", "let me see", "a table for two")]
    >>> thinking_aloud(phrases, rate_hz=24_000, n_turns=2)[0]
    <Recording 'turn 1': ... s, 1 turn, ... s non-speech>
    """
    if not phrases:
        raise AudioError("no phrases to speak")
    spoken = [_trimmed(as_audio(phrase)) for phrase in phrases]
    rng = np.random.default_rng(seed)
    return [
        _turn(spoken, rng, rate_hz=rate_hz, pauses=pauses, name=f"turn {number}") for number in range(1, n_turns + 1)
    ]


def distant_talk(
    phrases: Sequence[npt.ArrayLike], *, rate_hz: int, length_s: float = 120, voices: int = 4, seed: int = 0
) -> Recording:
    """Make a room in which nobody speaks to us: colleagues, far away. Every start of turn detection is a false trigger.

    Parameters
    ----------
    phrases : sequence of array_like, shape (n_samples,)
        What is said there, over and over.
    rate_hz : int
        Of the phrases.
    length_s : float, default 120
        How long.
    voices : int, default 4
        How many speak at a time, 46 dB below the phrases (chosen: far away). Fewer are easier to take for somebody.
    seed : int, default 0
        Same seed, same room.

    Returns
    -------
    recording : Recording
    """
    rng, spoken = np.random.default_rng(seed), [as_audio(phrase) for phrase in phrases]
    audio = _floor(rng, n_samples := int(length_s * rate_hz))
    for _ in range(voices):
        at = 0
        while at < n_samples:
            phrase = spoken[int(rng.integers(len(spoken)))][: n_samples - at]
            audio[at : at + len(phrase)] += np.float32(10 ** (-46 / 20)) * phrase
            at += len(phrase) + int(rng.uniform(0.2, 1.5) * rate_hz)
    return Recording.of_room_tone(audio, rate_hz=rate_hz, name="distant talk")


def _floor(rng: np.random.Generator, n_samples: int) -> Audio:
    """The noise of the room."""
    return np.float32(10 ** (_FLOOR_DB / 20)) * rng.standard_normal(n_samples).astype(np.float32)


def _turn(phrases: Sequence[Audio], rng: np.random.Generator, *, rate_hz: int, pauses: float, name: str) -> Recording:
    median_ms, slow_ms = PAUSE_MS
    spread = np.log(slow_ms / median_ms) / 1.2816  # of the log-normal: 1.2816 standard deviations are 90 %
    chosen = rng.permutation(len(phrases))[: 1 + min(int(rng.poisson(pauses)), len(phrases) - 1)]
    lengths_ms = np.maximum(120, median_ms * np.exp(spread * rng.standard_normal(len(chosen) - 1)))
    pieces, holds, at_ms = [], [], float(_LEAD_MS)
    for k, phrase in enumerate(chosen):
        if k:
            gap = np.zeros(ms_to_samples(lengths_ms[k - 1], rate_hz=rate_hz), np.float32)
            holds.append((at_ms, at_ms + len(gap) * 1000 / rate_hz))
            at_ms = holds[-1][1]
            pieces.append(gap)
        pieces.append(phrases[phrase])
        at_ms += len(phrases[phrase]) * 1000 / rate_hz
    gain = np.float32(10 ** (rng.normal(-6, 3) / 20))
    lead, tail = (np.zeros(ms_to_samples(ms, rate_hz=rate_hz), np.float32) for ms in (_LEAD_MS, _TAIL_MS))
    audio = gain * np.concatenate([lead, *pieces, tail])
    audio += _floor(rng, len(audio))
    turn = Turn(float(_LEAD_MS), at_ms, tuple(holds))
    return Recording(np.clip(audio, -1, 1), rate_hz=rate_hz, name=name, turns=(turn,))


def _trimmed(phrase: Audio) -> Audio:
    """Without the silence at its edges."""
    loud = np.flatnonzero(np.abs(phrase) > _AUDIBLE * np.abs(phrase).max(initial=0.0))
    if not len(loud):
        raise AudioError("a phrase is silent")
    return phrase[loud[0] : loud[-1] + 1]
