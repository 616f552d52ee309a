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

from rtnb.audio import RATE_HZ, write_wav
from rtnb.audio.formats import to_int16
from rtnb.errors import TraceError
from rtnb.protocol import events
from rtnb.trace.conversation import to_srt, to_vtt
from rtnb.trace.otlp import to_otlp
from rtnb.trace.report import blocks, lanes, to_html
from rtnb.trace.timeline import Track

PAUSE_MS: Final = 500.0
"""Pieces of speech closer than this are one utterance of a case: the user was cut off and went on (chosen)."""
MARGIN_MS: Final = 200.0
"""Audio before and after an utterance that is kept with it (chosen)."""
_TEXTGRID: Final = 'File type = "ooTextFile"\nObject class = "TextGrid"\n'


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
        Another suffix, or ``.parquet`` without the package pyarrow.
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
        hint = "Next: install pyarrow; .csv holds the same table and needs nothing."
        raise TraceError(f"{path.suffix} needs another package: {error}").with_hint(hint) from error
    return path


def to_case(trace: Any, folder: str | os.PathLike[str], *, id: str = "recorded") -> dict[str, Any]:
    """Make a case for `rtnb.experiment` of what the user said and wrote.

    Parameters
    ----------
    trace : Trace
    folder : path
        Gets the user's speech, a WAV file for each turn.
    id : str, default "recorded"
        Name of the case.

    Returns
    -------
    case : dict
        Fields of `rtnb.Case`: its id, and as `user` a list of texts and recordings.

    Examples
    --------
    >>> import asyncio, tempfile, rtnb
    >>> async def talk():
    ...     async with rtnb.connect("sim", latency="fast", voice="babble") as session:
    ...         await session.ask("Hello!")
    ...         return session.save_trace(tempfile.mkdtemp() + "/talk.rtnb")
    >>> rtnb.Trace(asyncio.run(talk())).to_case(tempfile.mkdtemp())
    {'id': 'recorded', 'user': [{'text': 'Hello!'}]}
    """
    track, parts = trace.user_audio, list[tuple[str, list[float]]]()
    committed = {row.event.item_id for row in trace.log if isinstance(row.event, events.InputAudioBufferCommitted)}
    sent_ms, cut_off = 0.0, False
    for turn in trace.turns:
        if turn.role == "user" and track is not None and turn.item_id in committed:
            start_ms, sent_ms = (turn.start_ms, turn.stop_ms) if turn.has_audio else (sent_ms, turn.start_ms)
            if cut_off and start_ms - parts[-1][1][1] < PAUSE_MS:
                parts[-1][1][1] = sent_ms
            else:
                parts.append(("", [start_ms, sent_ms]))
            cut_off = True
        elif turn.role == "user" or turn.has_audio:
            parts += [(turn.text, [])] if turn.role == "user" else []
            cut_off = False
    user = []
    for number, (text, span) in enumerate(parts, 1):
        path = Path(folder) / f"{id}-{number}.wav"
        if track is not None and span:
            write_wav(path, track.read(max(0.0, span[0] - MARGIN_MS), span[1] + MARGIN_MS), rate_hz=RATE_HZ)
        user.append({"audio": str(path)} if span else {"text": text})
    return {"id": id, "user": user}


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
    lines = [_TEXTGRID, "0", f"{end_s:.6f}", "<exists>", str(len(tiers))]
    for role, (_, *intervals) in tiers.items():
        lines += ['"IntervalTier"', f'"{role}"', "0", f"{end_s:.6f}", str(len(intervals))]
        lines += [f'{start:.6f}\n{stop:.6f}\n"{text}"' for start, stop, text in intervals]
    return "\n".join([*lines, ""])


# --- audio and tables -------------------------------------------------------------------------------------------------


def _write_sound(trace: Any, path: Path) -> None:
    """Write both sides, block by block: hours of audio do not fit in memory."""
    silence = Track(trace._file.audio, (), duration_ms=trace.duration_ms)
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
