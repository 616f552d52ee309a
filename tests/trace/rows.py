"""Rows of a log at given times, for tests of what is made from them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rtnb.client.log import EventLog, LogRow
from rtnb.protocol import events
from rtnb.protocol.events import CLIENT_EVENTS, Event
from rtnb.trace.file import MAX_BYTES, TraceWriter


def log_of(*rows: tuple[float, Event]) -> EventLog:
    log = EventLog()
    for at_s, event in rows:
        direction = "sent" if event.type in CLIENT_EVENTS else "received"
        log.record(direction, event, monotonic_s=at_s, wall_time=at_s)
    return log


def pcm(ms: int, value: int = 1000) -> bytes:
    return np.full(24 * ms, value, np.int16).tobytes()


def delta(ms: int, item: str = "a", value: int = 1000) -> Event:
    return events.ResponseOutputAudioDelta(response_id="r", item_id=item, delta=pcm(ms, value))


START = (10.0, events.InputAudioBufferCleared())


def written(
    path: Path, rows: Iterable[LogRow], *marks: tuple[str, float, float], max_bytes: int = MAX_BYTES, **manifest: Any
) -> Path:
    """Write a trace of rows and reports of a speaker, and return its path."""
    writer = TraceWriter(path.with_suffix(".part"), {"clock": {}, **manifest}, max_bytes=max_bytes)
    for row in rows:
        writer.add(row)
    for mark in marks:
        writer.mark(*mark)
    writer.finish(path)
    return path
