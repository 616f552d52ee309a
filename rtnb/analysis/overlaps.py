"""Barge-in lab: does speech, a cough or an echo stop the assistant, under which turn detection setting?

While the assistant speaks, `server_vad` stops it at the first `speech_started`. An interruption should do that; a
backchannel, a cough, noise and the assistant's own echo should not. The first start depends on the threshold alone, so
the lab tries thresholds: one for both states, or one for listening and another for speaking.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from rtnb.analysis.intervals import clustered_median, clustered_share
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import SERVER_MODEL_V1, setting_of
from rtnb.audio import Audio, as_audio, ms_to_samples
from rtnb.errors import AudioError
from rtnb.protocol.values import ServerVad
from rtnb.vad import FRAME_MS, VadConstants, server_vad_segments, speech_probabilities

if TYPE_CHECKING:
    import pandas as pd

TURN: Final = "turn"
"""Kind of the clips that begin while the assistant is silent: they should be detected."""
_LEAD_MS: Final = 1024  # whole frames of quiet in front of a clip, in which the model settles (chosen)
_TAIL_MS: Final = 256  # a start so long after a clip is still an effect of it (chosen)
_FLOOR: Final = 3e-4  # -70 dBFS of white noise: a quiet microphone (chosen)

Pair = tuple[ServerVad, ServerVad]
"""Settings while the assistant listens, and while it speaks."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """Labelled sound on the user's side.

    Examples
    --------
    >>> Overlap([0.0] * 4800, rate_hz=24_000, kind="cough", group="Ann")
    Overlap(rate_hz=24000, kind='cough', group='Ann')
    """

    audio: Audio = field(repr=False)
    """Samples without silence around them; anything `rtnb.audio.as_audio` takes."""
    rate_hz: int = field(kw_only=True)
    kind: str = field(kw_only=True)
    """``interruption`` (should stop the assistant), ``turn`` (speech while the assistant is silent), or the name of
    something that should not stop it: ``backchannel``, ``cough``, ``noise``, ``echo -30 dB`` …"""
    group: str = field(kw_only=True, default="")
    """Recording or speaker: clips of one group resemble each other, and intervals respect that."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "audio", as_audio(self.audio))

    @classmethod
    def of_turns(cls, recording: Recording, *, kind: str = "interruption") -> list[Overlap]:
        """Return one clip for each labelled turn of a recording."""
        rate_hz, clips = recording.rate_hz, []
        for turn in recording.turns:
            start, stop = (ms_to_samples(ms, rate_hz=rate_hz) for ms in (turn.start_ms, turn.end_ms))
            clips.append(cls(recording.audio[start:stop], rate_hz=rate_hz, kind=kind, group=recording.name))
        return clips

    @classmethod
    def of_echo(
        cls, playback: npt.ArrayLike, *, rate_hz: int, levels_db: Iterable[float] = (-20, -30, -40), group: str = ""
    ) -> list[Overlap]:
        """Return the assistant's own voice as the microphone picks it up, once for each level below the playback."""
        voices = {f"echo {db:g} dB": as_audio(playback) * np.float32(10 ** (db / 20)) for db in levels_db}
        return [cls(audio, rate_hz=rate_hz, kind=kind, group=group) for kind, audio in voices.items()]


def overlap_lab(
    clips: Iterable[Overlap], settings: Iterable[ServerVad | Pair], *, constants: VadConstants = SERVER_MODEL_V1
) -> pd.DataFrame:
    """Try turn detection settings on labelled overlaps while the assistant speaks.

    Parameters
    ----------
    clips : iterable of Overlap
        At least 8 groups of a kind give it an interval.
    settings : iterable of ServerVad or (listening, speaking)
        A pair applies the second while the assistant speaks: to all clips but those of kind ``turn``.
    constants : VadConstants
        Model of the service, e.g. `Calibration.constants`.

    Returns
    -------
    pandas.DataFrame
        One row per setting and kind: threshold (``0.5``, or ``0.3 / 0.9`` of a pair), kind, rate (share of clips that
        start a turn: yields to interruptions, false yields to the others), low and high (90 % interval over groups,
        NaN: not shown), n, n_groups, latency_ms (from the clip's start to the report of speech: median over groups)
        with its own interval. `plot_overlaps` draws it.

    Raises
    ------
    AudioError
        No clips, no settings, or one that is no `ServerVad`.

    Examples
    --------
    >>> from rtnb.audio import babble
    >>> voice = babble("sorry, may I interrupt you").audio
    >>> clips = [Overlap(voice, rate_hz=24_000, kind="interruption")]
    >>> clips += Overlap.of_echo(voice, rate_hz=24_000, levels_db=[-60])
    >>> table = overlap_lab(clips, [ServerVad(threshold=0.5), (ServerVad(threshold=0.3), ServerVad(threshold=0.9))])
    >>> table[["threshold", "kind", "rate"]].values.tolist()
    [['0.5', 'interruption', 1.0], ['0.5', 'echo -60 dB', 0.0],
     ['0.3 / 0.9', 'interruption', 1.0], ['0.3 / 0.9', 'echo -60 dB', 0.0]]
    """
    import pandas as pd

    clips, pairs = list(clips), [one if isinstance(one, tuple) else (one, one) for one in settings]
    if not clips or not pairs:
        raise AudioError(f"{len(clips)} clips and {len(pairs)} settings: give at least one of each")
    if wrong := [one for one in pairs if [type(part) for part in one] != [ServerVad, ServerVad]]:
        raise AudioError(f"the setting {wrong[0]!r} is no ServerVad and no pair (listening, speaking) of them")
    kinds, groups = (np.array([getattr(one, name) for one in clips], str) for name in ("kind", "group"))
    heard, rows = [_probabilities(one) for one in clips], []
    for pair in pairs:
        thresholds = [setting_of(one, "threshold") for one in pair]
        speaking = (kinds != TURN).astype(int).tolist()
        starts = [_start_ms(*one, thresholds[at], constants) for one, at in zip(heard, speaking, strict=True)]
        for kind in dict.fromkeys(kinds.tolist()):
            latencies, names = np.array(starts)[kinds == kind], groups[kinds == kind]
            found = np.isfinite(latencies)
            share = clustered_share(found, names.tolist())
            median = clustered_median(latencies[found], names[found].tolist())
            rows.append((" / ".join(dict.fromkeys(f"{one:g}" for one in thresholds)), kind, *share, *median))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


_COLUMNS = (
    *("threshold", "kind", "rate", "low", "high", "n", "n_groups"),
    *("latency_ms", "latency_low_ms", "latency_high_ms"),
)


def _probabilities(clip: Overlap) -> tuple[npt.NDArray[np.float32], float]:
    """Return the speech probabilities of a clip in a quiet room, and its length in ms."""
    lead, tail = (ms_to_samples(ms, rate_hz=clip.rate_hz) for ms in (_LEAD_MS, _TAIL_MS + FRAME_MS))
    audio = np.pad(clip.audio, (lead, tail))
    audio = audio + _FLOOR * np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    return speech_probabilities(audio, rate_hz=clip.rate_hz), len(clip.audio) * 1000 / clip.rate_hz


def _start_ms(p: npt.NDArray[np.float32], clip_ms: float, threshold: float, constants: VadConstants) -> float:
    """Return when the first start within a clip is reported, in ms from its begin; NaN: there is none."""
    segments = server_vad_segments(p, threshold=threshold, constants=constants)
    latencies = (float(one.started_emitted_ms - _LEAD_MS) for one in segments)
    return next((ms for ms in latencies if 0 < ms <= clip_ms + _TAIL_MS), nan)
