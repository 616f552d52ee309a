"""Rows of a log at given times, for tests of what is made from them."""

from __future__ import annotations

import numpy as np

from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.events import Event


def log_of(*rows: tuple[float, Event]) -> EventLog:
    log = EventLog()
    sent = (events.InputAudioBufferAppend, events.ConversationItemTruncate)
    for at_s, event in rows:
        log.record("sent" if isinstance(event, sent) else "received", event, monotonic_s=at_s, wall_time=0.0)
    return log


def pcm(ms: int, value: int = 1000) -> bytes:
    return np.full(24 * ms, value, np.int16).tobytes()


def delta(ms: int, item: str = "a", value: int = 1000) -> Event:
    return events.ResponseOutputAudioDelta(response_id="r", item_id=item, delta=pcm(ms, value))


START = (10.0, events.InputAudioBufferCleared())
