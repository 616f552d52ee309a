"""Sources of the inspector, as one kind of object: a log that grows, and where possible a function that sends."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtnb.client import Session
from rtnb.client.log import Direction, EventLog, LogRow
from rtnb.errors import RemoteProtocolError
from rtnb.protocol import wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.state import State
from rtnb.protocol.values import Dialect

Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Source:
    """Log and how to add to it."""

    log: EventLog = field(default_factory=EventLog)
    send: Send | None = None
    """Sends a JSON object; awaited on any loop. None where nothing can be sent."""
    state: State | None = None
    dialect: Dialect = "ga"


def source_of(thing: Any) -> Source:
    """Return a `Source` for a session, a log or its file, a realtime connection of `openai`, or a list of events.

    Parameters
    ----------
    thing : any
        None gives an empty log.

    Raises
    ------
    TypeError
        It is none of these.
    """
    if thing is None:
        return Source()
    if isinstance(thing, Session):
        return Source(thing.log, thing.send_raw, thing.state, thing.dialect)
    if isinstance(thing, EventLog):
        return Source(thing)
    if isinstance(thing, str | Path):
        return Source(EventLog.load(thing))
    if hasattr(thing, "recv_bytes") and hasattr(thing, "send"):
        return _tapped(thing)
    if isinstance(thing, Iterable) and not isinstance(thing, bytes | dict):
        log = EventLog(limit_bytes=2**63)  # the list is in memory anyway
        for entry in thing:
            _add(log, entry)
        return Source(log)
    raise TypeError(
        "inspect a Session, an EventLog, the path of a saved log, a realtime connection of openai, "
        f"or a list of events; got {type(thing).__name__}"
    )


# --- lists ------------------------------------------------------------------------------------------------------------


def _add(log: EventLog, entry: Any, direction: Direction | None = None, at_s: float = 0.0, wall: float = 0.0) -> None:
    """Record an event, a JSON object, or a row of a log; without a time, at 0 s."""
    if isinstance(entry, LogRow):
        direction, at_s, wall, entry = entry.direction, entry.monotonic_s, entry.wall_time, entry.event
    if not isinstance(entry, Event | dict):
        raise TypeError(f"an event is a JSON object or an rtnb event, got {type(entry).__name__}")
    kind, text = (entry.type if isinstance(entry, Event) else entry.get("type")), None
    direction = direction or ("sent" if kind in CLIENT_EVENTS else "received")
    if isinstance(entry, dict):
        text = json.dumps(entry, separators=(",", ":"), default=str)
        entry = wire.decode(entry, registry=CLIENT_EVENTS if direction == "sent" else SERVER_EVENTS)
    log.record(direction, entry, monotonic_s=at_s, wall_time=wall, text=text)


# --- openai -----------------------------------------------------------------------------------------------------------

_LOG = "_rtnb_event_log"


def _tapped(connection: Any) -> Source:
    """Log every message of a connection, of either kind (`AsyncRealtimeConnection`, `RealtimeConnection`).

    Its `send`, `send_raw` and `recv_bytes` are replaced on this one object; everything else of it goes through these.
    A connection that is inspected twice has one log.
    """
    log: EventLog | None = connection.__dict__.get(_LOG)
    awaited = inspect.iscoroutinefunction(type(connection).recv_bytes)
    if log is None:
        log = connection.__dict__[_LOG] = EventLog()
        for name in ("recv_bytes", "send", "send_raw"):
            if plain := getattr(connection, name, None):
                setattr(connection, name, _tap(plain, log, awaited=awaited))
    if not awaited:
        return Source(log, lambda message: asyncio.to_thread(connection.send, message))
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # without its loop nothing can be sent
        return Source(log)

    async def send(message: dict[str, Any]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(connection.send(message), loop))

    return Source(log, send)


def _tap(plain: Callable[..., Any], log: EventLog, *, awaited: bool) -> Callable[..., Any]:
    """Return `plain` with logging: its argument is a message to send; without one, its result is a message received."""

    async def receive() -> Any:
        return _note(log, "received", await plain())

    def tapped(*arguments: Any, **named: Any) -> Any:
        for message in (*arguments, *named.values())[:1]:
            _note(log, "sent", message)
            return plain(*arguments, **named)
        return receive() if awaited else _note(log, "received", plain())

    return tapped


def _note(log: EventLog, direction: Direction, message: Any) -> Any:
    """Log one message, whatever it is, and return it unchanged."""
    content = message
    if hasattr(content, "to_json"):
        content = content.to_json(use_api_names=True, exclude_unset=True)
    elif not isinstance(content, str | bytes):
        content = json.dumps(content, default=str)
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    try:
        entry: Any = wire.parse(text)
    except RemoteProtocolError as error:
        entry = UnknownEvent(type="unreadable", payload={"text_as_received": text[:2_000]}, problem=str(error))
    _add(log, entry, direction, time.monotonic(), time.time())
    return message
