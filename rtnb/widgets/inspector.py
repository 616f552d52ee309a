"""Event inspector: all events of a session in one table, both directions, with the details of the selected one.

The kernel holds the log and sends compact rows (see `rtnb.widgets._events`) at most ten times a second. Message to
the page: ``rows`` {start, count, base, total, source, waiting}. Messages from it: ``from`` {start} asks for the rows
from there on. Requests: ``event`` {first, last}, ``audio`` {first, last, number}, ``text`` {index}, ``search`` {terms,
start}, ``export`` {start}, ``check`` and ``send`` {text, anyway}. An event alone is a run from `first` to `first`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from itertools import islice
from pathlib import Path
from typing import Any, Final

from IPython.display import display, update_display
from traitlets import Bool, Dict, Int, Unicode

from rtnb._loop import shared_loop
from rtnb.client import Session
from rtnb.client.log import Direction, EventLog, LogRow
from rtnb.errors import ConnectionClosed, RemoteProtocolError, RtnbError
from rtnb.protocol import Dialect, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.state import State
from rtnb.trace import Findings, findings
from rtnb.widgets import _events as detail
from rtnb.widgets._events import REPLACED, EventRows
from rtnb.widgets.channel import Answer, StreamWidget

__all__ = ["EventInspector", "inspect"]

_INTERVAL_S: Final = 0.1  # between messages while events arrive one by one (measured: tests/benchmarks/inspector.py)
_AT_ONCE: Final = 1_000  # rows per message: about 10 ms of work on either side
_SEARCHED: Final = 1_000  # events searched per request: about 10 ms of the background loop
_EXPORTED: Final = 100  # events exported per request: with long audio some MB
_STILL_S: Final = 2.0  # so long after the last event the copy for the saved notebook is renewed (chosen)
_SEND_S: Final = 8.0
_STATIC_ROWS: Final = 200  # of the table that stays in a saved notebook: about 40 kB (chosen)


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
    awaited = iscoroutinefunction(type(connection).recv_bytes)
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


class EventInspector(StreamWidget):
    """Table of every event: filter, fold, play, link, export, send.

    Kernel and page keep the newest 200,000 rows each; the page shows how many older events it leaves out.

    Parameters
    ----------
    source : Session, EventLog, path, list, or a realtime connection of `openai`, optional
        A session or connection is followed; messages of a connection before this call are not known. A path is a saved
        log. A list holds events, JSON objects or rows of a log. None waits until `source` is set.
    height_px : int, default 480
        Height of the whole inspector.

    Attributes
    ----------
    source
        As given; set another one and the table starts anew.
    event_log : EventLog
        The events shown, in full.
    selected_index : int or None
        The selected event, settable in both directions: link it with a `Waveform`'s.

    Examples
    --------
    >>> EventInspector([{"type": "response.create", "event_id": "e1"}]).event_log
    <EventLog: 1 event, 1 sent, 0 received, 0.0 s>
    """

    static_id = Unicode().tag(sync=True)
    can_send = Bool(False).tag(sync=True)
    height_px = Int(480, min=160, help="Height of the inspector, px.").tag(sync=True)
    selected_index = Int(None, allow_none=True, help="The selected event: its index in the log.").tag(sync=True)
    n_events = Int(0, help="Number of events on the page.")
    marks = Dict(help="Texts of the findings by the number of their first event.").tag(sync=True)

    def __init__(self, source: Any = None, *, height_px: int = 480) -> None:
        found = source_of(source)  # first: a source it does not take leaves nothing behind
        super().__init__(height_px=height_px, static_id=secrets.token_hex(8))
        self._sent = self._source_number = 0
        self._next_s = 0.0
        self._due = self._in_output = False
        self._timer: asyncio.TimerHandle | None = None
        self._static_timer: asyncio.TimerHandle | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        stream = self.open_stream(self._on_message)
        stream.on_page = lambda page, change: self._wake()  # with its message, the page sees whether it lacks rows
        self._follow(source, found)

    @property
    def source(self) -> Any:
        """Session, log, file, list or connection whose events are shown; None while it waits for one."""
        return self._given

    @source.setter
    def source(self, source: Any) -> None:
        self._follow(source, source_of(source))
        self.selected_index = None

    def _follow(self, given: Any, source: Source) -> None:
        self._unsubscribe()
        self._source_number += 1
        facts = {"source": self._source_number, "waiting": given is None}
        self._rows = EventRows(source.log, facts=facts)  # in one step: the loop may be sending rows of the one before
        self._given, self._source, self.event_log, self.marks = given, source, source.log, {}
        self.can_send = source.send is not None
        self._unsubscribe = source.log.subscribe(self._wake)
        self._wake()

    def findings(self) -> Findings:
        """Search the events for mistakes and surprises, and mark them in the table: see `rtnb.trace.findings`."""
        found = findings(self.event_log)
        self.marks = {str(one.events[0]): f"{one.severity}: {one.text} {one.next_step}" for one in reversed(found)}
        return found

    def close(self) -> None:
        """Leave the page; the log stays. Closing twice is fine."""
        if self._opened:  # not where the constructor refused
            self._unsubscribe()
            shared_loop().call_if_running(self._stop)
        super().close()

    def _stop(self) -> None:
        for timer in (self._timer, self._static_timer):
            if timer is not None:
                timer.cancel()

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _wake(self, row: LogRow | None = None) -> None:
        """Have the page sent what is new, soon and once however often this is called; from any thread."""
        if not self._due and self._stream.joined:
            self._due = True
            shared_loop().call_soon(self._schedule)

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(max(loop.time(), self._next_s), self._send_rows)

    def _send_rows(self) -> None:
        """Read the next events and send the rows that a page lacks: one message, which also carries the state."""
        self._due = False  # before the log is read: an event from now on wakes again
        rows = self._rows
        more = rows.read(_AT_ONCE)
        start = max(self._sent, rows.base) if self._sent <= rows.next else rows.base
        self._sent = min(start + _AT_ONCE, rows.next)
        self._stream.publish("rows", *rows.pack(start, self._sent))
        loop = asyncio.get_running_loop()
        if more or self._sent < rows.next:
            self._next_s = 0.0
            self._wake()
        else:
            self._next_s, self.n_events = loop.time() + _INTERVAL_S, rows.next
        if self._in_output:
            if self._static_timer is not None:
                self._static_timer.cancel()
            self._static_timer = loop.call_later(_STILL_S, self._renew_static)

    # --- the copy in the saved notebook -------------------------------------------------------------------------------

    def _renew_static(self) -> None:
        """Update the copy; no event has arrived for a while."""
        update_display(self._static(), display_id=self.static_id, raw=True)  # type: ignore[no-untyped-call]

    def _static(self) -> dict[str, str]:
        table = self.event_log.to_html(_STATIC_ROWS).translate(REPLACED)
        title = f"At most {_STATIC_ROWS} events, for reading without a kernel"
        details = f"<details open><summary>{title}</summary>{table}</details>"
        return {"text/html": f'<div data-rtnb-static="{self.static_id}">{details}</div>'}

    def _ipython_display_(self) -> None:
        """Display the widget and a table for readers without a kernel, which a live page hides."""
        data, metadata = self._repr_mimebundle_() or ({}, {})
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
        self._in_output = True
        display(self._static(), display_id=self.static_id, raw=True)  # type: ignore[no-untyped-call]

    # --- requests of the page -----------------------------------------------------------------------------------------

    async def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Answer:
        rows = self._rows
        try:
            match kind:
                case "from":
                    self._sent = max(0, int(header["start"]))
                    self._wake()
                    return None
                case "event":
                    return detail.detail(rows, self._index(header["first"]), self._index(header["last"]))
                case "audio":
                    first, last, number = self._index(header["first"]), self._index(header["last"]), header["number"]
                    return {}, [detail.sound(rows, first, last, number=None if number is None else int(number))]
                case "text":
                    return {"text": detail.whole_text(rows, self._index(header["index"]))}
                case "search":
                    return self._search([str(term).lower() for term in header["terms"]], int(header["start"]))
                case "export":
                    return self._export(max(0, int(header["start"])))
                case "check" | "send":
                    return await self._check(str(header["text"]), send=kind == "send", anyway=bool(header["anyway"]))
            raise ValueError(f"unknown request {kind!r}")
        except (RtnbError, ValueError) as error:  # for the user to read; any other error goes to the log
            return {"error": str(error)}

    def _index(self, number: Any) -> int:
        if not isinstance(number, int) or not self._rows.base <= number < self._rows.next:
            raise ValueError(f"there is no event {number!r}")
        return number

    def _search(self, terms: list[str], start: int) -> dict[str, Any]:
        rows = self._rows
        start = max(start, rows.base)
        stop = min(start + _SEARCHED, rows.next)
        found = ((index, rows.row(index).event) for index in range(start, stop))
        hits = [index for index, event in found if any(detail.contains(event, term) for term in terms)]
        return {"hits": hits, "next": stop}

    def _export(self, start: int) -> dict[str, Any]:
        log, dropped = self.event_log, self.event_log.dropped.events
        position = max(0, start - dropped)
        lines = list(islice(log.lines(position), _EXPORTED))
        stop = dropped + position + len(lines) - (position == 0)  # the header is no event
        return {"text": "".join(lines), "next": stop, "more": stop < dropped + len(log)}

    async def _check(self, text: str, *, send: bool, anyway: bool) -> dict[str, Any]:
        source = self._source
        message, problem = detail.check(text, dialect=source.dialect, state=source.state)
        if message is None or source.send is None:
            return {"problem": problem, "possible": False}
        if not send or (problem and not anyway):
            return {"problem": problem, "possible": True}
        try:
            async with asyncio.timeout(_SEND_S):
                await source.send(message)
        except (ConnectionClosed, OSError) as error:  # a timeout is an OSError without a text
            why = str(error) or f"the session did not send it within {_SEND_S:.0f} s; a cell may block its loop"
            return {"problem": f"Not sent: {why}", "possible": False}
        return {"sent": True}


def inspect(source: Any, *, height_px: int = 480) -> EventInspector:
    """Return an `EventInspector` of `source`: as the last line of a cell it shows every event.

    Give a connection of `openai` (``async with client.realtime.connect(…) as connection``) before its first event is
    read; only this object is watched, and it works on as before.

    Examples
    --------
    >>> import rtnb
    >>> inspector = rtnb.inspect(rtnb.EventLog())
    >>> inspector
    <EventInspector>
    >>> inspector.close()
    """
    return EventInspector(source, height_px=height_px)
