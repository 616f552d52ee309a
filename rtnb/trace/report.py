"""Player of a trace: its data and parts, and the page that holds all of them, for people without Python.

The page is one file. Its policy allows the one script and the one style sheet that it holds, and no network. Texts of
the service are data of that script, which shows them as text.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

from rtnb.audio import RATE_HZ
from rtnb.trace.rules import findings
from rtnb.trace.timeline import Track

CLIP_MS: Final = 5_000.0
"""Sound is played in pieces of this length (chosen: 120 kB, so that a notebook server passes several per second)."""
PAGE_CLIPS: Final = 1_500
"""Most pieces of sound in a page (chosen: 240 MB of speech without a pause, or 2 hours in which one side speaks)."""
SILENT: Final = 0.001
"""Peak below which a piece is left out of a page: −60 dB full scale (chosen)."""

_MOST_BINS, _MOST_EVENTS = 40_000, 5_000  # of the whole axis (chosen: under 1 MB together)
_BINS_MS: Final = (5, 10, 20, 50, 100, 200, 500, 1_000, 5_000)
"""Durations of a bin of the waveform; each divides `CLIP_MS`, which is read at a time."""
_SCRIPT, _STYLE = (Path(__file__).with_name(f"player.{suffix}").read_text(encoding="utf-8") for suffix in ("js", "css"))


def lanes(trace: Any) -> list[Track | None]:
    """Return the tracks that are played: the user, and the model as it was heard."""
    return [trace.user_audio, trace.heard_audio]


def blocks(track: Track | None) -> Iterator[Any]:
    """Yield a track in parts of `CLIP_MS`: hours of audio do not fit in memory. None has no parts.

    Longer parts take three times as long, because each gets fresh memory (measured).
    """
    if track is not None:
        size = round(CLIP_MS * RATE_HZ / 1000)
        for start in range(0, len(track), size):
            yield track[start : start + size]


def player_data(trace: Any) -> dict[str, Any]:
    """Return what the player shows at once; see `part` for the rest."""
    log, sides = trace.log, zip(("You", "Model"), ("user", "heard"), lanes(trace), strict=True)
    shown = [row for row in log if not row.type.endswith((".delta", ".append"))]
    return {
        "title": f"{trace.name}, {trace.duration_ms / 1000:.0f} s",
        "duration_ms": trace.duration_ms,
        "bin_ms": _bin_ms(trace),
        "lanes": [
            {"name": title, "missing": "" if track else trace.manifest["tracks"][name].get("missing", "no audio")}
            for title, name, track in sides
        ],
        "speech": [[turn.start_ms, turn.stop_ms] for turn in trace.turns if turn.role == "user" and turn.has_audio],
        "turns": [[turn.role, turn.start_ms, turn.stop_ms, turn.text, turn.status] for turn in trace.turns],
        "events": [
            [round(trace.time_of(row)), row.direction == "sent", row.type, log.summary(row)]
            for row in shown[:_MOST_EVENTS]
        ],
        "note": f"The first {_MOST_EVENTS} of {len(shown)} events are listed." if len(shown) > _MOST_EVENTS else "",
        "clip_ms": CLIP_MS,
    }


def part(trace: Any, name: str) -> bytes:
    """Return a part that the player asks for when it needs it.

    Parameters
    ----------
    trace : Trace
    name : str
        ``"findings"`` (JSON), ``"bins/0"`` (lowest and highest sample of each bin of a lane, int8) or ``"clip/0/12"``
        (a lane and the number of a piece of `CLIP_MS`: FLAC, or nothing where there is no track).
    """
    kind, *place = name.split("/")
    if kind == "findings":
        return json.dumps([finding._asdict() for finding in findings(trace)]).encode()
    track, file = lanes(trace)[int(place[0])], io.BytesIO()
    if kind == "bins":
        return _bins(track, round(_bin_ms(trace) * RATE_HZ / 1000))
    if track is not None:
        start_ms = int(place[1]) * CLIP_MS
        soundfile.write(file, track.read(start_ms, start_ms + CLIP_MS), RATE_HZ, format="FLAC")
    return file.getvalue()


def _bin_ms(trace: Any) -> int:
    return next((one for one in _BINS_MS if trace.duration_ms / one <= _MOST_BINS), _BINS_MS[-1])


def _bins(track: Track | None, size: int) -> bytes:
    parts = [np.zeros((0, 2), np.float32)]
    for block in blocks(track):
        starts = np.arange(0, len(block), size)
        parts.append(np.stack([np.minimum.reduceat(block, starts), np.maximum.reduceat(block, starts)], axis=1))
    return np.round(127 * np.clip(np.concatenate(parts), -1, 1)).astype(np.int8).tobytes()


def to_html(trace: Any, path: str | os.PathLike[str] | None = None, *, max_clips: int = PAGE_CLIPS) -> str | None:
    """Write a trace as one page that plays it without a network.

    Parameters
    ----------
    trace : Trace
    path : path, optional
        File to write; None returns the page.
    max_clips : int, default 1_500
        Most pieces of sound of 5 s; silent ones do not count. A note in the page names the time from which on there is
        none.

    Returns
    -------
    html : str or None
        The page where no path was given.
    """
    if path is None:
        return "".join(_page(trace, max_clips))
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(_page(trace, max_clips))
    return None


def _page(trace: Any, max_clips: int) -> Iterator[str]:
    data = player_data(trace)
    sides = enumerate(zip_longest(*(blocks(track) for track in lanes(trace)), fillvalue=np.zeros(1)))
    clips = [(index, lane) for index, both in sides for lane, clip in enumerate(both) if np.abs(clip).max() > SILENT]
    if left_out := clips[max_clips:]:
        data["note"] += f" Sound from {left_out[0][0] * CLIP_MS / 1000:.0f} s on is not in this page."
    script, style = f"{_SCRIPT}\npage(document);\n", _STYLE
    allowed = [base64.b64encode(sha256(text.encode()).digest()).decode() for text in (script, style)]
    content = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # a text cannot end the data
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; script-src 'sha256-{allowed[0]}'; style-src 'sha256-{allowed[1]}'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(data['title'])}</title>\n<style>{style}</style></head><body>\n"
        f'<script type="application/json" id="data">{content.encode("utf-8", "backslashreplace").decode()}</script>\n'
    )
    for name in ["findings", "bins/0", "bins/1", *(f"clip/{lane}/{index}" for index, lane in clips[:max_clips])]:
        text = base64.b64encode(part(trace, name)).decode()
        yield f'<script type="text/plain" id="{name}">{text}</script>\n'
    yield f'<script type="module">{script}</script>\n</body></html>\n'
