"""Recordings of speech and their labels: turns, the pauses in them, and non-speech.

Labels come from files (Praat TextGrid, Audacity, JSON), from the level of a quiet clip (`segments_by_level`), or
for free from phrases put together (`thinking_aloud`)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rtnb.audio import Audio, as_audio, ms_to_samples, read_wav
from rtnb.audio.samples import check_rate
from rtnb.errors import AudioError

Span = tuple[float, float]
"""(start_ms, end_ms) of a recording's own time."""

LEAST_PAUSE_MS = 100.0
"""A shorter silence inside a turn is no pause (eot-bench's holds start here)."""
COLLAR_MS = 250.0
"""So close to a labelled turn nothing counts as non-speech: labels are not exact. Chosen."""
TURN_GAP_MS = 1500.0
"""A silence at least this long separates turns of a file. Chosen: of 127 hand-labelled pauses inside turns, nine of ten
are shorter than 921 ms."""
_LATE_MS = 32.0
"""A label may lie so far behind the audio, as rates and frames are rounded; it is cut there (chosen: a frame)."""
_LABEL_SUFFIXES = (".TextGrid", ".textgrid", ".txt")


@dataclass(frozen=True)
class Turn:
    """Uninterrupted contribution of a speaker; all times in ms of the recording.

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

    @property
    def spoken(self) -> tuple[Span, ...]:
        """(start_ms, end_ms) of the speech between the pauses."""
        edges = [self.start_ms, *(edge for pause in self.pauses for edge in pause), self.end_ms]
        return tuple(span for span in zip(edges[::2], edges[1::2], strict=True) if span[0] < span[1])


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
    speaker : str, default ""
        Who speaks: recordings of one speaker are one cluster in statistics. Name all speakers, or none.
    turns : sequence of Turn or (start_ms, end_ms), default ()
        In their order, not overlapping. None at all: no speech.
    non_speech : sequence of (start_ms, end_ms), optional
        Where every start is a false trigger. Default: everything `COLLAR_MS` away from turns and from `echo`.
    echo : sequence of (start_ms, end_ms), default ()
        Where only the assistant's voice comes through the open microphone: every start is a self-interruption.
    turn_gap_ms : float, optional
        The silence that separates its turns, where they were found so; see `split`.

    Raises
    ------
    AudioError
        What `as_audio` refuses; turns that overlap or lie outside the audio.

    See Also
    --------
    Recording.load, Recording.of_one_turn, Recording.of_room_tone, from_segments

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
    speaker: str = field(kw_only=True, default="")
    turn_gap_ms: float | None = field(kw_only=True, default=None)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "audio", as_audio(self.audio))
        put(self, "rate_hz", check_rate(self.rate_hz))
        turns = (turn if isinstance(turn, Turn) else Turn(*turn) for turn in self.turns)
        put(self, "turns", _checked_turns(turns, self.duration_ms, self.name))
        put(self, "echo", _spans(self.echo, self.duration_ms, "echo"))
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
        turn_gap_ms: float = TURN_GAP_MS,
        tier: str | None = None,
    ) -> Recording:
        """Read a sound file (WAV, FLAC, Ogg or MP3) and its labels.

        Parameters
        ----------
        path : str or path
            The audio; its stem becomes the name.
        labels : path, or sequence of (start_ms, end_ms), optional
            Praat TextGrid, Audacity's text or JSON (see `read_labels`), or the segments themselves. Default: a
            file beside the audio with the same stem, and where there is none, the stretches that are loud.
        turn_gap_ms : float, default 1500
            A silence at least this long separates turns; shorter ones are pauses. `numpy.inf`: one turn per file.
            `VadLab` and `plot_turns` show the turns found; `split` changes them.
        tier : str, optional
            For `read_labels`.

        Raises
        ------
        AudioError, OSError
            Audio or labels that cannot be read.
        """
        path = Path(path)
        audio, rate_hz = read_wav(path)
        if labels is None:
            beside = (path.with_suffix(suffix) for suffix in _LABEL_SUFFIXES)
            labels = next((candidate for candidate in beside if candidate.is_file()), None)
        if labels is None:
            segments: Iterable[Any] = segments_by_level(audio, rate_hz=rate_hz)
        else:
            segments = read_labels(labels, tier=tier) if isinstance(labels, (str, os.PathLike)) else labels
        return from_segments(audio, segments, rate_hz=rate_hz, name=path.stem, turn_gap_ms=turn_gap_ms)

    @classmethod
    def of_one_turn(cls, audio: Any, *, rate_hz: int, name: str = "turn") -> Recording:
        """Make a recording of a clip with one turn: speech is where it is loud (`segments_by_level`)."""
        samples = as_audio(audio)
        return from_segments(samples, segments_by_level(samples, rate_hz=rate_hz), rate_hz=rate_hz, name=name)

    @classmethod
    def of_room_tone(cls, audio: Any, *, rate_hz: int, name: str = "room tone") -> Recording:
        """A room without speech: every start is a false trigger."""
        return cls(audio, rate_hz=rate_hz, name=name)

    def split(self, *, turn_gap_ms: float) -> Recording:
        """Return the same speech divided into turns anew: a silence at least this long separates two of them."""
        spoken = [span for turn in self.turns for span in turn.spoken]
        made = from_segments(self.audio, spoken, rate_hz=self.rate_hz, name=self.name, turn_gap_ms=turn_gap_ms)
        return replace(made, speaker=self.speaker, echo=self.echo, non_speech=None)

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
        step = ms_to_samples(32, rate_hz=self.rate_hz)
        levels = np.sqrt(np.mean(self.audio[: len(self.audio) // step * step].reshape(-1, step) ** 2, axis=1))
        noise = np.random.default_rng(seed).standard_normal(n_lead + n_tail).astype(np.float32)
        noise *= np.quantile(levels, 0.1) if len(levels) else 0
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
    spans = sorted((float(one[0]), min(float(one[1]), limit_ms)) for one in segments)
    joined = [(group[0][0], max(end for _, end in group)) for group in _grouped(spans, gap_ms=0.0)]
    groups = _grouped(joined, gap_ms=turn_gap_ms)
    gap_ms = turn_gap_ms if isfinite(turn_gap_ms) else None
    turns = [
        Turn(
            group[0][0],
            group[-1][1],
            tuple((before[1], after[0]) for before, after in pairwise(group) if after[0] - before[1] >= least_pause_ms),
        )
        for group in groups
    ]
    return Recording(samples, rate_hz=rate_hz, name=name, turns=tuple(turns), turn_gap_ms=gap_ms)


def _grouped(spans: Iterable[Span], *, gap_ms: float) -> list[list[Span]]:
    """Return spans in groups; a silence at least this long separates two, but not spans that touch."""
    groups: list[list[Span]] = []
    end_ms = 0.0
    for start, end in spans:
        if groups and (start <= end_ms or start - end_ms < gap_ms):
            groups[-1].append((start, end))
        else:
            groups.append([(start, end)])
        end_ms = max(end_ms, end)
    return groups


def _between(busy: Sequence[Span], duration_ms: float) -> list[Span]:
    """Return the spans that are `COLLAR_MS` away from all of them."""
    quiet, at = [], 0.0
    for start, end in sorted(busy):
        if start - COLLAR_MS > at:
            quiet.append((at, start - COLLAR_MS))
        at = max(at, end + COLLAR_MS)
    return [*quiet, (at, duration_ms)] if at < duration_ms else quiet


def _spans(spans: Iterable[Any], duration_ms: float, what: str) -> tuple[Span, ...]:
    made = tuple((float(start), float(end)) for start, end in spans)
    for start, end in made:
        if not 0 <= start < end <= duration_ms + _LATE_MS:
            raise AudioError(f"{what} from {start} to {end} ms: it must lie within the audio, 0 to {duration_ms:g} ms")
    return tuple((start, min(end, duration_ms)) for start, end in made if start < duration_ms)


def _checked_turns(turns: Iterable[Turn], duration_ms: float, name: str) -> tuple[Turn, ...]:
    """Return turns in their order; one that ends just behind the audio is cut there."""
    made: list[Turn] = []
    for turn in turns:
        if made and turn.start_ms < made[-1].end_ms:
            raise AudioError(
                f"{name}: a turn begins at {turn.start_ms:g} ms, the one before ends at {made[-1].end_ms:g} ms"
            ).with_hint("Turns are of one speaker: take one speaker's labels, or join overlapping segments first.")
        if turn.start_ms >= duration_ms or turn.end_ms > duration_ms + _LATE_MS:
            raise AudioError(f"{name}: a turn ends at {turn.end_ms:g} ms, the audio at {duration_ms:g} ms")
        if turn.end_ms > duration_ms:
            pauses = tuple((start, min(end, duration_ms)) for start, end in turn.pauses if start < duration_ms)
            turn = Turn(turn.start_ms, duration_ms, pauses)
        made.append(turn)
    return tuple(made)


_SILENT = {"", "sil", "sp", "spn", "silence", "<eps>", "#", "xxx"}  # how aligners and people write "nothing said"
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|([^\s"]+)')
_STEP_MS = 10
_MEDIAN_STEPS, _LEAST_STEPS = 9, 5  # chosen on three word-timed monologues, as the share of the way up
_SHARE = 0.3
_LEAST_CONTRAST_DB = 12.0  # chosen


_Reader = Callable[[Path], "list[LabelledSegment]"]


class LabelledSegment(NamedTuple):
    """Labelled stretch of speech."""

    start_ms: float
    end_ms: float
    label: str = ""
    """The word, the phrase or the speaker."""


def read_labels(path: str | os.PathLike[str], *, tier: str | None = None) -> list[LabelledSegment]:
    """Read the speech segments of a label file; its suffix says which kind it is.

    Parameters
    ----------
    path : str or path
        ``.TextGrid`` (Praat, long or short), ``.txt`` / ``.tsv`` (Audacity: start, end, label in seconds),
        ``.json``: a list of [start_s, end_s] or [start_s, end_s, word], or of objects with `start`, `end` and perhaps
        `word`, as speech recognisers write them.
    tier : str, optional
        TextGrid: which interval tier. Default: the one called "words", otherwise the first.

    Returns
    -------
    segments : list of LabelledSegment
        As in the file, silences left out.

    Raises
    ------
    AudioError
        An unknown kind, or a file that is not what its suffix says: names the line.
    OSError
        The file cannot be opened.
    """
    path = Path(path)
    textgrid: _Reader = partial(_textgrid, tier=tier)
    readers: dict[str, _Reader] = {".textgrid": textgrid, ".txt": _audacity, ".tsv": _audacity, ".json": _json}
    if (kind := path.suffix.lower()) not in readers:
        raise AudioError(f"{path.name}: unknown kind of labels {kind!r}: allowed are {', '.join(readers)}")
    return readers[kind](path)


def segments_by_level(audio: npt.ArrayLike, *, rate_hz: int) -> list[LabelledSegment]:
    """Where a recording is loud: labels for free where one clip holds one turn and not much else.

    Speech is what lies 30 % of the way, in dB, from the quietest tenth to the loudest twentieth of the 10 ms steps, for
    at least 50 ms (median of nine steps; all chosen). No voice activity detection takes part, so its errors are not
    hidden. On three monologues timed word by word, in rooms of 15 to 20 dB of contrast, ends were right to 20 ms, once
    0.6 s late (a breath); starts right to 20 ms, once 1 s early (a noise). Look at what you use: `plot_turns`.

    Parameters
    ----------
    audio : array_like, shape (n_samples,)
        Anything `as_audio` takes.
    rate_hz : int
        Samples per second.

    Returns
    -------
    segments : list of LabelledSegment

    Raises
    ------
    AudioError
        Nothing stands out: label it by hand, or record again closer to the microphone.
    """
    samples = as_audio(audio)
    step = ms_to_samples(_STEP_MS, rate_hz=rate_hz)
    pieces = samples[: len(samples) // step * step].reshape(-1, step).astype(np.float64)
    level_db = 10 * np.log10(np.var(pieces, axis=1) + 1e-12) if len(pieces) else np.zeros(1)
    padded = np.pad(level_db, _MEDIAN_STEPS // 2, mode="edge")
    level_db = np.median(np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN_STEPS), axis=1)
    floor_db, peak_db = np.quantile(level_db, [0.1, 0.95])
    loud = level_db >= floor_db + _SHARE * (peak_db - floor_db)
    edges = np.flatnonzero(np.diff(np.r_[False, loud, False]))
    spans = [(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if last - first >= _LEAST_STEPS]
    if peak_db - floor_db < _LEAST_CONTRAST_DB or not spans:
        raise AudioError(
            f"no speech stands out: the loud part is {peak_db - floor_db:.0f} dB above the quiet one, "
            f"at least {_LEAST_CONTRAST_DB:.0f} dB are needed, for at least {_LEAST_STEPS * _STEP_MS} ms"
        ).with_hint("Give the turns yourself, or record again in a quieter room or closer to the microphone.")
    return [LabelledSegment(float(first * _STEP_MS), float(last * _STEP_MS)) for first, last in spans]


def _textgrid(path: Path, tier: str | None) -> list[LabelledSegment]:
    """Praat's own reader ignores all that is neither a quoted text nor a number, which makes long and short one."""
    tokens = []
    for text, word in _TOKEN.findall(_text(path)):
        if not word:
            tokens.append(text.replace('""', '"'))
        elif re.fullmatch(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?", word):
            tokens.append(float(word))
    tiers: dict[str, list[LabelledSegment]] = {}
    try:
        at = 5  # "ooTextFile", "TextGrid", start, end, number of tiers
        for _ in range(int(tokens[4])):
            kind, name, count = tokens[at], str(tokens[at + 1]), int(tokens[at + 4])
            width = 3 if kind == "IntervalTier" else 2
            rows = [tokens[at + 5 + width * k : at + 5 + width * (k + 1)] for k in range(count)]
            at += 5 + width * count
            if kind == "IntervalTier":
                tiers[name] = [LabelledSegment(row[0] * 1000, row[1] * 1000, str(row[2])) for row in rows]
    except (IndexError, ValueError, TypeError) as error:
        raise AudioError(f"{path.name} is no complete TextGrid") from error
    chosen = tier if tier is not None else "words" if "words" in tiers else next(iter(tiers), None)
    if chosen not in tiers:
        raise AudioError(f"{path.name} has no interval tier {chosen!r}; it has: {', '.join(tiers) or 'none'}")
    return [one for one in tiers[chosen] if one.label.strip().lower() not in _SILENT]


def _audacity(path: Path) -> list[LabelledSegment]:
    segments = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("\\"):  # a backslash starts the frequency range of a spectral label
            continue
        start, end, label = (*line.split("\t", 2), "", "")[:3]
        try:
            segments.append(LabelledSegment(float(start) * 1000, float(end) * 1000, label))
        except ValueError as error:
            raise AudioError(
                f"{path.name}, line {number}: expected start, end, label in seconds: {line[:80]!r}"
            ) from error
    return [one for one in segments if one.end_ms > one.start_ms]  # a point label marks no speech


def _json(path: Path) -> list[LabelledSegment]:
    try:
        rows: list[Any] = json.loads(_text(path))
        parts = [(row["start"], row["end"], row.get("word", "")) if isinstance(row, dict) else row for row in rows]
        return [LabelledSegment(float(one[0]) * 1000, float(one[1]) * 1000, *map(str, one[2:3])) for one in parts]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise AudioError(
            f"{path.name}: expected a list of [start_s, end_s, word] or of objects with start, end and word"
        ) from error


def _text(path: Path) -> str:
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # Praat writes either
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise AudioError(f"{path.name} is no text in UTF-8 or UTF-16") from error


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
        Phrases of one speaker, each spoken without a pause; silence at their edges is cut away.
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
    spoken, rng = [_trimmed(as_audio(phrase)) for phrase in phrases], np.random.default_rng(seed)
    median_ms, slow_ms = PAUSE_MS
    spread = np.log(slow_ms / median_ms) / 1.2816  # of the log-normal: 1.2816 standard deviations are 90 %
    made = []
    for number in range(1, n_turns + 1):
        chosen = rng.permutation(len(spoken))[: 1 + min(int(rng.poisson(pauses)), len(spoken) - 1)]
        lengths_ms = np.maximum(120, median_ms * np.exp(spread * rng.standard_normal(len(chosen) - 1)))
        pieces, spans, at = [], [], 0
        for silence_ms, phrase in zip((_LEAD_MS, *lengths_ms), chosen, strict=True):
            pieces += [np.zeros(ms_to_samples(silence_ms, rate_hz=rate_hz), np.float32), spoken[phrase]]
            start = at + len(pieces[-2])
            at = start + len(pieces[-1])
            spans.append((start * 1000 / rate_hz, at * 1000 / rate_hz))
        pieces.append(np.zeros(ms_to_samples(_TAIL_MS, rate_hz=rate_hz), np.float32))
        audio = np.float32(10 ** (rng.normal(-6, 3) / 20)) * np.concatenate(pieces)
        audio += _room_noise(rng, len(audio))
        made.append(from_segments(np.clip(audio, -1, 1), spans, rate_hz=rate_hz, name=f"turn {number}"))
    return made


def distant_talk(
    phrases: Sequence[npt.ArrayLike], *, rate_hz: int, length_s: float = 120, voices: int = 4, seed: int = 0
) -> Recording:
    """Make a room with colleagues far away and without a user. Every start of turn detection is a false trigger.

    Parameters
    ----------
    phrases : sequence of array_like, shape (n_samples,)
        What is said there, over and over.
    rate_hz : int
        Of the phrases.
    length_s : float, default 120
        How long.
    voices : int, default 4
        How many speak at a time, 46 dB below the phrases (chosen: far away). Fewer are easier to take for a user.
    seed : int, default 0
        Same seed, same room.

    Returns
    -------
    recording : Recording
    """
    rng, spoken = np.random.default_rng(seed), [as_audio(phrase) for phrase in phrases]
    audio = _room_noise(rng, n_samples := int(length_s * rate_hz))
    for _ in range(voices):
        at = 0
        while at < n_samples:
            phrase = spoken[int(rng.integers(len(spoken)))][: n_samples - at]
            audio[at : at + len(phrase)] += np.float32(10 ** (-46 / 20)) * phrase
            at += len(phrase) + int(rng.uniform(0.2, 1.5) * rate_hz)
    return Recording.of_room_tone(audio, rate_hz=rate_hz, name="distant talk")


def _room_noise(rng: np.random.Generator, n_samples: int) -> Audio:
    """The noise of the room."""
    return np.float32(10 ** (_FLOOR_DB / 20)) * rng.standard_normal(n_samples).astype(np.float32)


def _trimmed(phrase: Audio) -> Audio:
    """Without the silence at its edges."""
    loud = np.flatnonzero(np.abs(phrase) > _AUDIBLE * np.abs(phrase).max(initial=0.0))
    if not len(loud):
        raise AudioError("a phrase is silent")
    return phrase[loud[0] : loud[-1] + 1]
