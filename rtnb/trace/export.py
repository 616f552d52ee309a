"""Files for other programs: labels, subtitles, audio, tables, spans, and a page.

References
----------
Praat manual, "TextGrid file formats" (short text file). Audacity manual, "Importing and Exporting Labels".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from rtnb.audio import RATE_HZ
from rtnb.audio.formats import to_int16
from rtnb.errors import TraceError
from rtnb.trace.conversation import to_srt, to_vtt
from rtnb.trace.otlp import to_otlp
from rtnb.trace.report import blocks, lanes, to_html
from rtnb.trace.tracks import Track


def export(trace: Any, path: str | os.PathLike[str]) -> Path:
    """Write a trace as a file of another program; the suffix says which.

    Parameters
    ----------
    trace : Trace
    path : path
        ``.txt`` (Audacity labels), ``.TextGrid`` (Praat), ``.srt``, ``.vtt``, ``.wav`` or ``.flac`` (user left, heard
        model right), ``.csv`` or ``.parquet`` (events), ``.json`` (OpenTelemetry spans), ``.html`` (page with player).

    Returns
    -------
    path : Path
        Of the file.

    Raises
    ------
    TraceError
        Another suffix, or a package that is needed for it is missing: the message names it.
    OSError
        The file cannot be written.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise TraceError(f"cannot export to {path.suffix or 'a file without suffix'}; allowed: {', '.join(_WRITERS)}")
    try:
        write(trace, path)
    except ImportError as error:
        raise TraceError(f"{path.suffix} needs another package: {error}").with_hint(
            "Install pyarrow for .parquet; .csv holds the same table."
        ) from error
    return path


# --- labels and subtitles ---------------------------------------------------------------------------------------------


def _spoken(trace: Any) -> list[Any]:
    """Return the turns with text that last."""
    return [turn for turn in trace.turns if turn.text.strip() and turn.stop_ms > turn.start_ms]


def _line(text: str) -> str:
    return " ".join(text.split())


def to_audacity(trace: Any) -> str:
    """Return one line per turn: start and stop in seconds, role and text, with tabs between."""
    return "".join(
        f"{turn.start_ms / 1000:.6f}\t{turn.stop_ms / 1000:.6f}\t{turn.role}: {_line(turn.text)}\n"
        for turn in _spoken(trace)
    )


def to_textgrid(trace: Any) -> str:
    """Return a TextGrid with one interval tier per role; where turns of a role overlap, the later one begins later."""
    roles = dict.fromkeys(turn.role for turn in _spoken(trace))
    end_s = max([trace.duration_ms, *(turn.stop_ms for turn in _spoken(trace))]) / 1000
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", f"{end_s:.6f}", "<exists>"]
    lines.append(str(len(roles)))
    for role in roles:
        intervals, at_s = [], 0.0
        for turn in (turn for turn in _spoken(trace) if turn.role == role):
            start_s, stop_s = max(at_s, turn.start_ms / 1000), turn.stop_ms / 1000
            if stop_s - start_s > 1e-3:
                quoted = _line(turn.text).replace('"', '""')
                intervals += [(at_s, start_s, "")] * (start_s > at_s) + [(start_s, stop_s, quoted)]
                at_s = stop_s
        intervals += [(at_s, end_s, "")] * (end_s > at_s)
        lines += ['"IntervalTier"', f'"{role}"', "0", f"{end_s:.6f}", str(len(intervals))]
        lines += [f'{start:.6f}\n{stop:.6f}\n"{text}"' for start, stop, text in intervals]
    return "\n".join([*lines, ""])


# --- audio and tables -------------------------------------------------------------------------------------------------


def _stereo(trace: Any) -> Iterator[Any]:
    """Yield both sides in blocks, int16, shape (n_samples, 2): hours of audio do not fit in memory."""
    silence = Track(None, (), duration_ms=trace.duration_ms)
    for sides in zip(*(blocks(track or silence) for track in lanes(trace)), strict=True):
        yield np.stack([to_int16(side) for side in sides], axis=1)


def _write_sound(trace: Any, path: Path) -> None:
    from soundfile import SoundFile

    with SoundFile(path, "w", samplerate=RATE_HZ, channels=2, subtype="PCM_16") as file:
        for block in _stereo(trace):
            file.write(block)


_WRITERS: Final[dict[str, Callable[[Any, Path], object]]] = {
    ".txt": lambda trace, path: path.write_text(to_audacity(trace), encoding="utf-8"),
    ".textgrid": lambda trace, path: path.write_text(to_textgrid(trace), encoding="utf-8"),
    ".srt": lambda trace, path: path.write_text(to_srt(trace.turns), encoding="utf-8"),
    ".vtt": lambda trace, path: path.write_text(to_vtt(trace.turns), encoding="utf-8"),
    ".wav": _write_sound,
    ".flac": _write_sound,
    ".csv": lambda trace, path: trace.events.to_frame().to_csv(path),
    ".parquet": lambda trace, path: trace.events.to_frame().to_parquet(path),
    ".json": lambda trace, path: path.write_text(json.dumps(to_otlp(trace)), encoding="utf-8"),
    ".html": lambda trace, path: to_html(trace, path),
}
