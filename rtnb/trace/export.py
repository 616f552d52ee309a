"""Files for other programs: labels, subtitles, audio, tables, spans, and a page.

References
----------
Praat manual, "TextGrid file formats" (short text file). Audacity manual, "Importing and Exporting Labels".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from soundfile import SoundFile

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
        Another suffix.
    ImportError
        ``.parquet`` without the package pyarrow; ``.csv`` holds the same table.
    OSError
        The file cannot be written.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise TraceError(f"cannot export to {path.suffix or 'a file without suffix'}; allowed: {', '.join(_WRITERS)}")
    write(trace, path)
    return path


# --- labels and subtitles ---------------------------------------------------------------------------------------------


def _spoken(trace: Any) -> list[tuple[str, float, float, str]]:
    """Return role, start and stop (s) and text, on one line, of the turns with text that last."""
    rows = [(turn.role, turn.start_ms / 1000, turn.stop_ms / 1000, " ".join(turn.text.split())) for turn in trace.turns]
    return [(role, start_s, stop_s, text) for role, start_s, stop_s, text in rows if text and stop_s > start_s]


def to_audacity(trace: Any) -> str:
    """Return one line per turn: start and stop in seconds, role and text, with tabs between."""
    return "".join(f"{start:.6f}\t{stop:.6f}\t{role}: {text}\n" for role, start, stop, text in _spoken(trace))


def to_textgrid(trace: Any) -> str:
    """Return a TextGrid with one interval tier per role; where turns of a role overlap, the later one begins later."""
    spoken = _spoken(trace)
    end_s = max([trace.duration_ms / 1000, *(stop_s for _, _, stop_s, _ in spoken)])
    tiers: dict[str, list[tuple[float, float, str]]] = {role: [(0.0, 0.0, "")] for role, *_ in spoken}
    for role, start_s, stop_s, text in [*spoken, *((role, end_s, end_s, "") for role in tiers)]:
        at_s = tiers[role][-1][1]
        pause, turn = (at_s, start_s, ""), (max(at_s, start_s), stop_s, text.replace('"', '""'))
        tiers[role] += [one for one in (pause, turn) if one[1] - one[0] > 1e-3]
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "0",
        f"{end_s:.6f}",
        "<exists>",
        str(len(tiers)),
    ]
    for role, (_, *intervals) in tiers.items():
        lines += ['"IntervalTier"', f'"{role}"', "0", f"{end_s:.6f}", str(len(intervals))]
        lines += [f'{start:.6f}\n{stop:.6f}\n"{text}"' for start, stop, text in intervals]
    return "\n".join([*lines, ""])


# --- audio and tables -------------------------------------------------------------------------------------------------


def _write_sound(trace: Any, path: Path) -> None:
    """Write both sides, block by block: hours of audio do not fit in memory."""
    silence = Track(None, (), duration_ms=trace.duration_ms)
    with SoundFile(path, "w", samplerate=RATE_HZ, channels=2, subtype="PCM_16") as file:
        for sides in zip(*(blocks(track or silence) for track in lanes(trace)), strict=True):
            file.write(np.stack([to_int16(side) for side in sides], axis=1))


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
