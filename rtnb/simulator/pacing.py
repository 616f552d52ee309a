"""Timing of the deltas of a reply: pure functions from a `Speech` to a timed plan.

The simulator's voice is ready in a millisecond; a service's is not. Without a latency profile a workshop would learn
from a machine that does not exist.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, repeat
from typing import Literal

from rtnb.simulator.speech import Speech, tokens

_OPENING_MS = (100, 150)
_STEADY_MS = 250
_LAST_MS = 600
_LEAD_MS = 1000
"""How far the transcript is ahead of the audio, in speech time: "Hello", "!", " How" come first, as recorded."""


def number_of(value: object) -> float:
    """Return a number, or a text of one, as int where it is whole; NaN for anything else."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    return int(number) if number.is_integer() else number


def unknown_name(given: Iterable[object], known: Sequence[str]) -> str | None:
    """Return what is wrong with the first name that is not known, for a message; None where all are.

    >>> unknown_name({"sya": "Hello!"}, ("say", "hear"))
    "'sya' is not known, did you mean 'say'?; allowed: say, hear"
    """
    wrong = next((name for name in given if name not in known), None)
    if wrong is None:
        return None
    return f"{wrong!r} is not known{did_you_mean(str(wrong), known)}; allowed: {', '.join(known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a spelling hint to append to a message: ``", did you mean 'say'?"``, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class LatencyProfile:
    """Latencies of a service, as a client sees them: a network round trip of about 300 ms is included.

    >>> LatencyProfile.parse("realistic,first_delta_ms=800").first_delta_ms
    800.0

    References
    ----------
    Frame captures of real sessions (2025-12 and 2026-09): response.created 280 ms after response.create, first delta
    476 ms, text done 518 ms, rate_limits.updated 43 ms after response.done, transcription 1.2 to 1.4 s after the
    commit. The others are chosen; `audio_rate` because deltas arrive faster than real time.
    """

    answer_ms: float = 280.0
    """From a client event to its direct answer (session.updated, conversation.item.added), ms: one round trip."""
    response_created_ms: float = 280.0
    """From response.create (or the end of a spoken turn) to response.created, ms."""
    first_delta_ms: float = 476.0
    """From response.create to the first delta, ms."""
    jitter_ms: float = 30.0
    """Each delta comes up to this much later than planned, ms; order is kept. (chosen)"""
    audio_rate: float = 3.0
    """Seconds of audio sent per second: 1 is real time, inf all at once. (chosen)"""
    text_token_ms: float = 10.0
    """From one text or transcript token to the next in a reply of text, ms. (chosen: a short reply takes 42 ms)"""
    transcription_ms: float = 1300.0
    """From the commit to the transcription of what the user said, ms."""
    rate_limits_ms: float = 43.0
    """From response.done to rate_limits.updated, ms."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = number_of(value)
            if math.isnan(number):
                raise ValueError(f"latency {name} is {value!r}; allowed: a number")
            if name == "audio_rate" and not number > 0:
                raise ValueError(f"latency audio_rate is {value!r}; allowed: above 0 (1 is real time, inf at once)")
            if name != "audio_rate" and not 0 <= number < math.inf:
                raise ValueError(f"latency {name} is {value!r}; allowed: 0 ms or more")
            object.__setattr__(self, name, float(number))

    @classmethod
    def parse(cls, text: str) -> LatencyProfile:
        """Read ``"realistic"``, ``"fast"``, ``"real_time"`` or ``"first_delta_ms=300,jitter_ms=20"``.

        Changes may follow a name, ``"fast,audio_rate=1"``; without a name they change "realistic".

        Raises
        ------
        ValueError
            Naming the value and what is allowed.
        """
        profile = PRESETS["realistic"]
        for i, part in enumerate(part.strip() for part in text.split(",")):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                if i or name not in PRESETS:
                    allowed = f"{', '.join(PRESETS)}, or FIELD=NUMBER with commas between"
                    raise ValueError(f"latency {part!r} is not known{did_you_mean(name, PRESETS)}; allowed: {allowed}")
                profile = PRESETS[name]
                continue
            profile = profile.replace({name: value})
        return profile

    def replace(self, changes: Mapping[str, object]) -> LatencyProfile:
        """Return a profile with some fields changed; numbers may be text. Raises ValueError as `parse` does."""
        known = [field.name for field in dataclasses.fields(self)]
        if wrong := unknown_name(changes, known):
            raise ValueError(f"latency field {wrong}")
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


PRESETS = {
    "realistic": LatencyProfile(),
    "real_time": LatencyProfile(audio_rate=1.0),
    "fast": LatencyProfile(0, 0, 0, 0, math.inf, 0, 0, 0),
}
"""``realistic``: as measured; ``real_time``: the same, audio as fast as it plays; ``fast``: no waiting at all."""


@dataclass(frozen=True)
class Planned:
    """Delta to send, with its time."""

    at_ms: float
    """When, ms after response.create."""
    kind: Literal["transcript", "audio", "text"]
    text: str = ""
    """Of a transcript or text delta."""
    start_ms: int = 0
    """Of an audio delta: from here in the speech …"""
    stop_ms: int | None = 0
    """… to here; None to the end. Whole ms, so `cut` finds whole samples at 24 kHz and at 8 kHz alike."""


def plan(speech: Speech, *, latency: LatencyProfile, rng: random.Random) -> tuple[Planned, ...]:
    """Plan the deltas of a spoken reply, in the order in which they are sent.

    Parameters
    ----------
    speech : Speech
        What is said.
    latency : LatencyProfile
        `first_delta_ms`, `audio_rate` and `jitter_ms` count here.
    rng : random.Random
        For the jitter: same state, same plan.

    Returns
    -------
    tuple of Planned
        Times never decrease. The transcript deltas joined are `speech.text`; each comes before the audio in which its
        word begins. The audio deltas cover the speech without gap or overlap.

    References
    ----------
    Sizes of audio deltas: 100, 150, 250, 250, … ms, the last up to 600 ms. Reproduces the three recorded replies of
    the Azure quickstart of 2024-10 byte for byte.
    """
    starts = list(accumulate(_sizes(speech.duration_ms), initial=0))
    at_ms = latency.first_delta_ms
    out: list[Planned] = []
    waiting = list(reversed(speech.words))
    for i, start in enumerate(starts):
        at_ms = max(at_ms, latency.first_delta_ms + start / latency.audio_rate + rng.uniform(0, latency.jitter_ms))
        stop = starts[i + 1] if i + 1 < len(starts) else None
        reach = math.inf if stop is None else max(stop, start + _LEAD_MS)
        while waiting and waiting[-1].start_ms < reach:
            out.append(Planned(at_ms, "transcript", text=waiting.pop().text))
        if len(speech.audio):
            out.append(Planned(at_ms, "audio", start_ms=start, stop_ms=stop))
    return tuple(out)


def plan_text(text: str, *, latency: LatencyProfile, rng: random.Random) -> tuple[Planned, ...]:
    """Plan the deltas of a written reply: kind "text", joined they are `text`."""
    at_ms = latency.first_delta_ms
    out: list[Planned] = []
    for i, token in enumerate(tokens(text)):
        at_ms = max(at_ms, latency.first_delta_ms + i * latency.text_token_ms + rng.uniform(0, latency.jitter_ms))
        out.append(Planned(at_ms, "text", text=token))
    return tuple(out)


def cut(pcm: bytes, delta: Planned, *, bytes_per_ms: int) -> bytes:
    """Return the bytes of an audio delta, cut from the encoded whole speech.

    Encode first, cut then: resampling piece by piece would click at every border.

    Parameters
    ----------
    pcm : bytes
        The whole speech as sent: PCM16 at 24 kHz, or G.711.
    delta : Planned
        Of kind "audio".
    bytes_per_ms : int
        48 for PCM16 at 24 kHz, 8 for G.711 (`rtnb.audio.codec(...).bytes_per_ms`).
    """
    stop = None if delta.stop_ms is None else delta.stop_ms * bytes_per_ms
    return pcm[delta.start_ms * bytes_per_ms : stop]


def _sizes(duration_ms: float) -> list[int]:
    """Sizes of all audio deltas but the last, ms."""
    sizes: list[int] = []
    for size in chain(_OPENING_MS, repeat(_STEADY_MS)):
        if duration_ms - sum(sizes) <= (size if len(sizes) < len(_OPENING_MS) else _LAST_MS):
            break
        sizes.append(size)
    return sizes
