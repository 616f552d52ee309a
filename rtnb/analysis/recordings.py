"""Recordings of speech with what is known about them: the turns, the pauses in them, and where nobody speaks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rtnb.analysis.labels import LabelledSegment, read_labels, segments_by_level
from rtnb.audio import Audio, as_audio, ms_to_samples, read_wav
from rtnb.audio.samples import check_rate
from rtnb.errors import AudioError

Span = tuple[float, float]
"""(start_ms, end_ms) of a recording's own time."""

LEAST_PAUSE_MS = 100.0
"""A shorter silence inside a turn is no pause (eot-bench's holds start here)."""
COLLAR_MS = 250.0
"""So close to a labelled turn nothing counts as non-speech: labels are not exact. Chosen."""
_LABEL_SUFFIXES = (".TextGrid", ".textgrid", ".rttm", ".txt")


@dataclass(frozen=True)
class Turn:
    """One uninterrupted contribution of a speaker; all times in ms of the recording.

    Raises
    ------
    AudioError
        An end that is not after the start, or a pause outside the turn.
    """

    start_ms: float
    """True onset of the speech."""
    end_ms: float
    """True end of the speech."""
    pauses: tuple[Span, ...] = ()
    """(start_ms, end_ms) of the silences in which the speaker means to go on ("holds")."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < self.end_ms < float("inf"):
            raise AudioError(
                f"a turn from {self.start_ms} to {self.end_ms} ms: it must end after its start, at 0 or later"
            )
        object.__setattr__(self, "pauses", tuple((float(start), float(end)) for start, end in self.pauses))
        at = self.start_ms
        for start, end in self.pauses:
            if not at <= start < end <= self.end_ms:
                raise AudioError(
                    f"a pause from {start} to {end} ms: its turn lasts from {self.start_ms} to {self.end_ms} ms, "
                    "and pauses come in their order"
                )
            at = end


@dataclass(frozen=True, eq=False)
class Recording:
    """Audio and its labels, as `sweep` takes them. Nothing is normalised: the level is what turn detection hears.

    Parameters
    ----------
    audio : array_like, shape (n_samples,)
        Anything `as_audio` takes.
    rate_hz : int
        Samples per second.
    name : str
        Names the recording in results; turns of one name are one cluster in statistics.
    turns : sequence of Turn or (start_ms, end_ms), default ()
        In their order, not overlapping. None at all: nobody speaks.
    non_speech : sequence of (start_ms, end_ms), optional
        Where every start is a false trigger. Default: everything `COLLAR_MS` away from turns and from `echo`.
    echo : sequence of (start_ms, end_ms), default ()
        Where only the assistant's playback is heard: every start is a self-interruption.

    Raises
    ------
    AudioError
        What `as_audio` refuses; turns that overlap or lie outside the audio.

    See Also
    --------
    Recording.load, Recording.of_one_turn, Recording.of_room_tone, Recording.of_playback, from_segments

    Examples
    --------
    >>> Recording([0.0] * 48_000, rate_hz=24_000, name="hum", turns=[(500, 1200)])
    <Recording 'hum': 2.0 s, 1 turn, 0.8 s non-speech>
    """

    audio: Audio = field(repr=False)
    rate_hz: int = field(kw_only=True)
    name: str = field(kw_only=True, default="recording")
    turns: tuple[Turn, ...] = field(kw_only=True, default=())
    non_speech: tuple[Span, ...] | None = field(kw_only=True, default=None)  # never None once made
    echo: tuple[Span, ...] = field(kw_only=True, default=())

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "audio", as_audio(self.audio))
        put(self, "rate_hz", check_rate(self.rate_hz))
        put(self, "turns", tuple(turn if isinstance(turn, Turn) else Turn(*turn) for turn in self.turns))
        put(self, "echo", _spans(self.echo, self.duration_ms, "echo"))
        _check_order(self.turns, self.duration_ms, self.name)
        busy = [(turn.start_ms, turn.end_ms) for turn in self.turns] + list(self.echo)
        given = self.non_speech if self.non_speech is not None else _between(busy, self.duration_ms)
        put(self, "non_speech", _spans(given, self.duration_ms, "non_speech"))

    @property
    def duration_ms(self) -> float:
        """Length of the audio."""
        return len(self.audio) * 1000 / self.rate_hz

    def __repr__(self) -> str:
        quiet_s = sum(end - start for start, end in self.non_speech or ()) / 1000
        count = f"{len(self.turns)} turn{'' if len(self.turns) == 1 else 's'}"
        return f"<Recording {self.name!r}: {self.duration_ms / 1000:.1f} s, {count}, {quiet_s:.1f} s non-speech>"

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        labels: str | os.PathLike[str] | Sequence[Any] | None = None,
        turn_gap_ms: float = float("inf"),
        **reading: Any,
    ) -> Recording:
        """Read a WAV file (or, with the package soundfile, FLAC and others) and its labels.

        Parameters
        ----------
        path : str or path
            The audio; its stem becomes the name.
        labels : path, or sequence of (start_ms, end_ms), optional
            Praat TextGrid, RTTM, Audacity's text or JSON (see `read_labels`), or the segments themselves. Default: a
            file beside the audio with the same stem, and where there is none, one clip = one turn (`of_one_turn`).
        turn_gap_ms : float, default inf
            A silence at least this long separates turns; shorter ones are pauses. Default: one turn per file.
        **reading
            For `read_labels`: `tier`, `file_id`.

        Raises
        ------
        AudioError, OSError
            Audio or labels that cannot be read.
        """
        path = Path(path)
        audio, rate_hz = read_audio(path)
        if labels is None:
            beside = (path.with_suffix(suffix) for suffix in _LABEL_SUFFIXES)
            labels = next((candidate for candidate in beside if candidate.is_file()), None)
        if labels is None:
            return cls.of_one_turn(audio, rate_hz=rate_hz, name=path.stem)
        segments = read_labels(labels, **reading) if isinstance(labels, (str, os.PathLike)) else labels
        return from_segments(audio, segments, rate_hz=rate_hz, name=path.stem, turn_gap_ms=turn_gap_ms)

    @classmethod
    def of_one_turn(cls, audio: Any, *, rate_hz: int, name: str = "turn") -> Recording:
        """One clip = one turn: the speech is where it is loud (`segments_by_level`), its last end is the true end."""
        samples = as_audio(audio)
        return from_segments(samples, segments_by_level(samples, rate_hz=rate_hz), rate_hz=rate_hz, name=name)

    @classmethod
    def of_room_tone(cls, audio: Any, *, rate_hz: int, name: str = "room tone") -> Recording:
        """A room in which nobody speaks: every start is a false trigger."""
        return cls(audio, rate_hz=rate_hz, name=name)

    @classmethod
    def of_playback(cls, audio: Any, *, rate_hz: int, name: str = "playback") -> Recording:
        """The assistant's voice through the open microphone, nobody else: every start is a self-interruption."""
        samples = as_audio(audio)
        return cls(samples, rate_hz=rate_hz, name=name, echo=((0.0, len(samples) * 1000 / rate_hz),))

    def padded(self, *, lead_ms: float = 600, tail_ms: float = 3000, seed: int = 0) -> Recording:
        """Put room noise around it, so that a stop after the last word has time to come; labels move along.

        Parameters
        ----------
        lead_ms, tail_ms : float, default 600 and 3000
            How much to add before and after (chosen: the tail is longer than any usual silence duration).
        seed : int, default 0
            Of the noise: white, at the level of the quietest tenth of the recording.
        """
        n_lead, n_tail = (ms_to_samples(ms, rate_hz=self.rate_hz) for ms in (lead_ms, tail_ms))
        noise = np.random.default_rng(seed).standard_normal(n_lead + n_tail).astype(np.float32) * _floor(self)
        audio = np.concatenate([noise[:n_lead], self.audio, noise[n_lead:]])
        return self.shifted(n_lead * 1000 / self.rate_hz, audio=audio)

    def shifted(self, ms: float, *, audio: Audio) -> Recording:
        """The same labels `ms` later, over other audio; what was added is non-speech where it adjoins such."""

        def moved(spans: Iterable[Span]) -> tuple[Span, ...]:
            return tuple((start + ms, end + ms) for start, end in spans)

        turns = tuple(Turn(turn.start_ms + ms, turn.end_ms + ms, moved(turn.pauses)) for turn in self.turns)
        quiet, end_ms = list(moved(self.non_speech or ())), len(audio) * 1000 / self.rate_hz
        if quiet and quiet[0][0] == ms:
            quiet[0] = (0.0, quiet[0][1])
        if quiet and quiet[-1][1] == self.duration_ms + ms:
            quiet[-1] = (quiet[-1][0], end_ms)
        return replace(self, audio=audio, turns=turns, non_speech=tuple(quiet), echo=moved(self.echo))


def from_segments(
    audio: Any,
    segments: Iterable[Any],
    *,
    rate_hz: int,
    name: str = "recording",
    turn_gap_ms: float = float("inf"),
    least_pause_ms: float = LEAST_PAUSE_MS,
) -> Recording:
    """Make a recording of labelled stretches of speech: words, phrases or whole turns.

    Parameters
    ----------
    audio : array_like, shape (n_samples,)
        Anything `as_audio` takes.
    segments : iterable of (start_ms, end_ms, …) or LabelledSegment
        In any order; overlapping ones are joined. A third field (a word, a speaker) is not looked at.
    rate_hz : int
        Samples per second.
    name : str
        Names the recording.
    turn_gap_ms : float, default inf
        A silence at least this long separates turns. Default: all is one turn.
    least_pause_ms : float, default 100
        A shorter silence inside a turn is no pause.

    Returns
    -------
    recording : Recording
    """
    samples = as_audio(audio)
    limit_ms = len(samples) * 1000 / check_rate(rate_hz)
    joined: list[list[float]] = []
    for start, end in sorted((float(one[0]), min(float(one[1]), limit_ms)) for one in segments):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    groups: list[list[list[float]]] = []
    for span in joined:
        if groups and span[0] - groups[-1][-1][1] < turn_gap_ms:
            groups[-1].append(span)
        else:
            groups.append([span])
    turns = [
        Turn(
            group[0][0],
            group[-1][1],
            tuple((before[1], after[0]) for before, after in pairwise(group) if after[0] - before[1] >= least_pause_ms),
        )
        for group in groups
    ]
    return Recording(samples, rate_hz=rate_hz, name=name, turns=tuple(turns))


def read_audio(path: str | os.PathLike[str]) -> tuple[Audio, int]:
    """Read mono audio and its rate: WAV by ourselves, everything else by the package soundfile.

    Raises
    ------
    AudioError
        No audio, or soundfile would be needed and is missing.
    OSError
        The file cannot be opened.
    """
    path = Path(path)
    with open(path, "rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return read_wav(path)
    try:
        import soundfile
    except ImportError as error:
        raise AudioError(f"{path.name} is no WAV file: reading it needs the package soundfile").with_hint(
            "pip install soundfile, or convert it: ffmpeg -i INPUT -c:a pcm_s16le OUTPUT.wav"
        ) from error
    try:
        audio, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path.name} cannot be read: {error}") from error
    return as_audio(audio.mean(axis=1)), int(rate_hz)


def _floor(recording: Recording) -> np.float32:
    """RMS level of the quietest tenth of its 32 ms pieces, 0 of an empty recording."""
    step = ms_to_samples(32, rate_hz=recording.rate_hz)
    pieces = recording.audio[: len(recording.audio) // step * step].reshape(-1, step)
    if not len(pieces):
        return np.float32(0)
    return np.float32(np.quantile(np.sqrt(np.mean(pieces**2, axis=1)), 0.1))


def _between(busy: Sequence[Span], duration_ms: float) -> list[Span]:
    """What lies `COLLAR_MS` away from all of them."""
    quiet, at = [], 0.0
    for start, end in sorted(busy):
        if start - COLLAR_MS > at:
            quiet.append((at, start - COLLAR_MS))
        at = max(at, end + COLLAR_MS)
    return [*quiet, (at, duration_ms)] if at < duration_ms else quiet


def _spans(spans: Iterable[Any], duration_ms: float, what: str) -> tuple[Span, ...]:
    made = tuple((float(start), float(end)) for start, end in spans)
    for start, end in made:
        if not 0 <= start < end <= duration_ms + 1e-6:
            raise AudioError(f"{what} from {start} to {end} ms: it must lie within the audio, 0 to {duration_ms:g} ms")
    return made


def _check_order(turns: Sequence[Turn], duration_ms: float, name: str) -> None:
    for before, after in pairwise(turns):
        if after.start_ms < before.end_ms:
            raise AudioError(
                f"{name}: a turn begins at {after.start_ms:g} ms, the one before ends at {before.end_ms:g} ms"
            ).with_hint("Turns are of one speaker: take one speaker's labels, or join overlapping segments first.")
    if turns and turns[-1].end_ms > duration_ms + 1e-6:
        raise AudioError(f"{name}: a turn ends at {turns[-1].end_ms:g} ms, the audio at {duration_ms:g} ms")


__all__ = ["LabelledSegment", "Recording", "Span", "Turn", "from_segments", "read_audio"]
