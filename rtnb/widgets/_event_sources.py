"""What can be inspected, made one thing: a log that grows, and where there is one, somebody to send through."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
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
    """A log and how to add to it."""

    log: EventLog
    send: Send | None = None
    """Sends a JSON object; awaited on any loop. None for a log that is over."""
    state: State | None = None
    dialect: Dialect = "ga"


def source_of(thing: Any) -> Source:
    """Make a `Source` of a session, a log or its file, a realtime connection of `openai`, or a list of events.

    Raises
    ------
    TypeError
        None of these.
    """
    if isinstance(thing, Session):
        return Source(thing.log, thing.send_raw, thing.state, thing.dialect)
    if isinstance(thing, EventLog):
        return Source(thing)
    if isinstance(thing, str | Path):
        return Source(EventLog.load(thing))
    if hasattr(thing, "recv_bytes") and hasattr(thing, "send"):
        return _tapped(thing)
    if isinstance(thing, Iterable) and not isinstance(thing, bytes | dict):
        return Source(_log_of(thing))
    raise TypeError(
        "inspect a Session, an EventLog, the path of a saved log, a realtime connection of openai, "
        f"or a list of events; got {type(thing).__name__}"
    )


def _through(loop: asyncio.AbstractEventLoop, send: Callable[[dict[str, Any]], Any]) -> Send:
    """`send` on the loop its owner lives on."""

    async def sent(message: dict[str, Any]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(send(message), loop))

    return sent


# --- lists ------------------------------------------------------------------------------------------------------------


def _log_of(entries: Iterable[Any]) -> EventLog:
    """A log of events, JSON objects, rows of a log, or lines of its file; without times, all happened at once."""
    log = EventLog()
    for entry in entries:
        direction: Direction | None = None
        at_s, wall_time = 0.0, 0.0
        if isinstance(entry, LogRow):
            direction, at_s, wall_time, entry = entry.direction, entry.monotonic_s, entry.wall_time, entry.event
        elif isinstance(entry, dict) and isinstance(entry.get("event"), dict) and "type" not in entry:
            direction = "sent" if entry.get("direction") == "sent" else "received"
            at_s, wall_time = float(entry.get("monotonic_s", 0)), float(entry.get("wall_time", 0))
            entry = entry["event"]
        _record(log, direction, entry, at_s=at_s, wall_time=wall_time)
    return log


def _record(log: EventLog, direction: Direction | None, said: Any, *, at_s: float, wall_time: float) -> None:
    if isinstance(said, Event):
        event, text = said, None
    elif isinstance(said, dict):
        if direction is None:
            direction = "sent" if said.get("type") in CLIENT_EVENTS else "received"
        event = wire.decode(said, registry=CLIENT_EVENTS if direction == "sent" else SERVER_EVENTS)
        text = json.dumps(said, separators=(",", ":"), default=str)
    else:
        raise TypeError(f"an event is a JSON object or an rtnb event, got {type(said).__name__}")
    if direction is None:
        direction = "sent" if event.type in CLIENT_EVENTS else "received"
    log.record(direction, event, monotonic_s=at_s, wall_time=wall_time, text=text)


# --- openai -----------------------------------------------------------------------------------------------------------

_LOG = "_rtnb_event_log"


def _tapped(connection: Any) -> Source:
    """Have every message of a connection, of either kind (`AsyncRealtimeConnection`, `RealtimeConnection`), logged.

    Its `send`, `send_raw` and `recv_bytes` are replaced on this one object; everything else of it goes through these.
    A connection that is inspected twice has one log.
    """
    log: EventLog | None = connection.__dict__.get(_LOG)
    waits = inspect.iscoroutinefunction(type(connection).recv_bytes)
    if log is None:
        log = connection.__dict__[_LOG] = EventLog()
        tap = _tap_async if waits else _tap
        connection.recv_bytes = tap(connection.recv_bytes, "received", log)
        connection.send = tap(connection.send, "sent", log)
        if hasattr(connection, "send_raw"):
            connection.send_raw = tap(connection.send_raw, "sent", log)
    if not waits:
        return Source(log, lambda message: asyncio.to_thread(connection.send, message))
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # nobody could send there
        return Source(log)
    return Source(log, _through(loop, connection.send))


def _tap_async(plain: Callable[..., Any], direction: Direction, log: EventLog) -> Callable[..., Any]:
    async def tapped(*arguments: Any, **named: Any) -> Any:
        if direction == "sent":
            _note(log, direction, arguments[0] if arguments else next(iter(named.values())))
            return await plain(*arguments, **named)
        data = await plain(*arguments, **named)
        _note(log, direction, data)
        return data

    return tapped


def _tap(plain: Callable[..., Any], direction: Direction, log: EventLog) -> Callable[..., Any]:
    def tapped(*arguments: Any, **named: Any) -> Any:
        if direction == "sent":
            _note(log, direction, arguments[0] if arguments else next(iter(named.values())))
            return plain(*arguments, **named)
        data = plain(*arguments, **named)
        _note(log, direction, data)
        return data

    return tapped


def _note(log: EventLog, direction: Direction, said: Any) -> None:
    """Log one message; whatever it is, the connection goes on as without us."""
    if hasattr(said, "to_json"):
        said = said.to_json(use_api_names=True, exclude_unset=True)
    elif not isinstance(said, str | bytes):
        said = json.dumps(said, default=str)
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    at = {"at_s": time.monotonic(), "wall_time": time.time()}
    try:
        _record(log, direction, wire.parse(text), **at)
    except RemoteProtocolError as error:
        payload = {"text_as_received": text[:2_000]}
        _record(log, direction, UnknownEvent(type="unreadable", payload=payload, problem=str(error)), **at)
