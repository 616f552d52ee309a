"""Player of a trace: its data, and the page that holds everything, for people without Python.

The page is one file. Its policy allows the one script and the one style sheet that it holds, and no network; texts of
the service are data of that script, which shows them as text.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np

from rtnb.audio import encode_ulaw, resample
from rtnb.audio.pcm import encode_pcm16
from rtnb.trace.rules import findings
from rtnb.trace.tracks import RATE_HZ, Track

CLIP_MS: Final = 5_000.0
"""Sound is played in pieces of this length (chosen: 240 kB, so that a notebook server passes several per second)."""
PAGE_BYTES: Final = 96 * 2**20
"""Most sound in a page, as base64. A longer trace is kept at 8 kHz (chosen: 25 minutes of both sides at 24 kHz, or
2 hours of conversation at 8 kHz)."""
SILENT: Final = 0.001
"""Peak below which a piece is left out: −60 dB full scale (chosen)."""

_MOST_BINS, _MOST_EVENTS = 40_000, 5_000  # of the whole axis (chosen: 1 MB together)
_BINS_MS: Final = (5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000)
"""Durations of a bin of the waveform; each divides a minute, so that a minute is read at a time."""
_SCRIPT, _STYLE = (Path(__file__).with_name(f"player.{suffix}").read_text(encoding="utf-8") for suffix in ("js", "css"))


def lanes(trace: Any) -> list[Track | None]:
    """Return what the player plays: the user, and the model as it was heard."""
    return [trace.user_audio, trace.heard_audio]


def blocks(track: Track | None, block_ms: float = 60_000.0) -> Iterator[Any]:
    """Yield a track in parts: hours of audio do not fit in memory. None has no parts."""
    if track is not None:
        for start_ms in np.arange(0.0, track.duration_ms, block_ms):
            yield track.read(start_ms, start_ms + block_ms)


def player_data(trace: Any) -> dict[str, Any]:
    """Return what the player shows, without sound; for hours of audio a few hundred kilobytes and under two seconds."""
    bin_ms = next((one for one in _BINS_MS if trace.duration_ms / one <= _MOST_BINS), _BINS_MS[-1])
    reasons = (trace.tracks["user"], trace.tracks["heard"])
    sides = zip(("You", "Model"), lanes(trace), reasons, strict=True)
    log = trace.log
    shown = [row for row in log if not row.type.endswith((".delta", ".append"))]
    events = [
        {"t_ms": round(trace.time_of(row)), "sent": row.direction == "sent", "type": row.type}
        | {"text": log.summary(row), "number": row.number}
        for row in shown[:_MOST_EVENTS]
    ]
    turns = [
        {name: getattr(turn, name) for name in ("role", "start_ms", "stop_ms", "text", "status")}
        for turn in trace.turns
    ]
    return {
        "title": f"{trace.name}, {trace.duration_ms / 1000:.0f} s",
        "duration_ms": trace.duration_ms,
        "bin_ms": bin_ms,
        "lanes": [{"name": name, "bins": _bins(track, bin_ms), "missing": why} for name, track, why in sides],
        "speech": [[turn.start_ms, turn.stop_ms] for turn in trace.turns if turn.role == "user" and turn.has_audio],
        "turns": turns,
        "events": events,
        "findings": [],
        "note": f"The first {_MOST_EVENTS} of {len(shown)} events are listed." if len(shown) > _MOST_EVENTS else "",
        "clip_ms": CLIP_MS,
        "rate_hz": RATE_HZ,
        "codec": "pcm",
        "clips": {},
    }


def _bins(track: Track | None, bin_ms: float) -> str:
    """Return the lowest and highest sample of every bin, int8, as base64."""
    size, parts = round(bin_ms * RATE_HZ / 1000), []
    for block in blocks(track):
        grid = np.pad(block, (0, -len(block) % size)).reshape(-1, size)
        parts.append(np.stack([grid.min(axis=1), grid.max(axis=1)], axis=1))
    bins = np.concatenate(parts) if parts else np.zeros((0, 2), np.float32)
    return base64.b64encode(np.round(127 * np.clip(bins, -1, 1)).astype(np.int8).tobytes()).decode()


def _clips(trace: Any) -> Iterator[tuple[str, Any]]:
    """Yield the pieces of sound of both sides that are not silent, in order of time, by lane and number."""
    for index, both in enumerate(zip_longest(*(blocks(track, CLIP_MS) for track in lanes(trace)))):
        for lane, block in enumerate(both):
            if block is not None and np.abs(block).max() > SILENT:
                yield f"{lane}/{index}", block


def to_html(trace: Any, path: str | os.PathLike[str] | None = None, *, max_bytes: int = PAGE_BYTES) -> str:
    """Return a trace as one page that plays it without a network, and write it where a path is given.

    Parameters
    ----------
    trace : Trace
    path : path, optional
        File to write.
    max_bytes : int, default 96 MiB
        Most sound in the page, as base64. What does not fit at 24 kHz is kept at 8 kHz (µ-law), and what does not fit
        then is left out from the end on; a note in the page says so.

    Returns
    -------
    html : str
    """
    data = player_data(trace)
    data["findings"] = [finding._asdict() for finding in findings(trace)]
    n_bytes = sum(len(block) for _, block in _clips(trace)) * 2 * 4 // 3
    full = n_bytes <= max_bytes
    data |= {} if full else {"codec": "ulaw", "rate_hz": 8_000}
    left = max_bytes
    for name, block in _clips(trace):
        sound = encode_pcm16(block) if full else encode_ulaw(resample(block, from_rate_hz=RATE_HZ, to_rate_hz=8_000))
        left -= len(sound) * 4 // 3
        if left < 0:
            data["note"] += f" Sound from {int(name.partition('/')[2]) * CLIP_MS / 1000:.0f} s on is not in this page."
            break
        data["clips"][name] = base64.b64encode(sound).decode()
    html = _page(data)
    if path is not None:
        Path(path).write_text(html, encoding="utf-8")
    return html


def _page(data: dict[str, Any]) -> str:
    script, style = f"{_SCRIPT}\npage(document);\n", f"{_STYLE}"
    allowed = [base64.b64encode(sha256(text.encode()).digest()).decode() for text in (script, style)]
    policy = f"default-src 'none'; script-src 'sha256-{allowed[0]}'; style-src 'sha256-{allowed[1]}'"
    content = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # a text cannot end the data
    content = content.encode("utf-8", "backslashreplace").decode()  # a lone surrogate
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(data['title'])}</title>\n<style>{style}</style></head><body>\n"
        f'<script type="application/json" id="data">{content}</script>\n'
        f'<script type="module">{script}</script>\n</body></html>\n'
    )
