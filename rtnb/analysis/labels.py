"""Read where speech is: Praat TextGrid, RTTM, Audacity label tracks, JSON; or take it from a quiet clip's level."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rtnb.audio import as_audio, ms_to_samples
from rtnb.errors import AudioError

_SILENT = {"", "sil", "sp", "spn", "silence", "<eps>", "#", "xxx"}  # how aligners and people write "nothing said"
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|([^\s"]+)')
_STEP_MS = 10
_MEDIAN_STEPS, _LEAST_STEPS = 9, 5  # chosen on three word-timed monologues, as the share of the way up
_SHARE = 0.3
_LEAST_CONTRAST_DB = 12.0  # chosen


class LabelledSegment(NamedTuple):
    """A stretch of speech that somebody labelled."""

    start_ms: float
    end_ms: float
    label: str = ""
    """The word, the phrase or the speaker."""


def read_labels(
    path: str | os.PathLike[str], *, tier: str | None = None, file_id: str | None = None
) -> list[LabelledSegment]:
    """Read the speech segments of a label file; its suffix says which kind it is.

    Parameters
    ----------
    path : str or path
        ``.TextGrid`` (Praat, long or short), ``.rttm``, ``.txt`` / ``.tsv`` (Audacity: start, end, label in seconds),
        ``.json``: a list of [start_s, end_s] or [start_s, end_s, word], or of objects with `start`, `end` and perhaps
        `word`, as speech recognisers write them.
    tier : str, optional
        TextGrid: which interval tier. Default: the one called "words", otherwise the first.
    file_id : str, optional
        RTTM: whose lines; speakers are not told apart. Default: all lines.

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
    kind = path.suffix.lower()
    if kind == ".textgrid":
        return _textgrid(path, tier)
    if kind == ".rttm":
        return _rttm(path, file_id)
    if kind in (".txt", ".tsv"):
        return _audacity(path)
    if kind == ".json":
        return _json(path)
    raise AudioError(f"{path.name}: unknown kind of labels {kind!r}: allowed are .TextGrid, .rttm, .txt, .tsv, .json")


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


def _rttm(path: Path, file_id: str | None) -> list[LabelledSegment]:
    segments = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER" or (file_id is not None and fields[1] != file_id):
            continue
        try:
            start_ms, length_ms = float(fields[3]) * 1000, float(fields[4]) * 1000
            segments.append(LabelledSegment(start_ms, start_ms + length_ms, fields[7]))
        except (IndexError, ValueError) as error:
            raise AudioError(f"{path.name}, line {number}: no RTTM line: {line[:80]!r}") from error
    return segments


def _audacity(path: Path) -> list[LabelledSegment]:
    segments = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("\\"):  # a backslash starts the frequency range of a spectral label
            continue
        start, _, rest = line.partition("\t")
        end, _, label = rest.partition("\t")
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
