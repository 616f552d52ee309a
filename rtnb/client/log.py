"""Event log of a session, both directions: `EventLog`.

A log is a sequence of rows. It slices, filters, and becomes a DataFrame or a file of JSON Lines that `load` reads.
Rows hold the events as on the wire. Everything that leaves the log as text (files, tables, reprs) is redacted.
The log keeps at most `limit_bytes` in memory: the audio of old events is dropped first, then the oldest events.
"""

from __future__ import annotations

import json
import logging
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from html import escape
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast, overload

from rtnb.errors import LocalProtocolError, RtnbError
from rtnb.protocol import events, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.values import PCM16, UNSET, AudioFormat, Dialect
from rtnb.redaction import mask_credentials, mask_known, redact

if TYPE_CHECKING:
    import pandas as pd

Direction = Literal["sent", "received"]

FILE_VERSION = 1
"""Version of the JSON Lines format, in the first line of every file."""

LIMIT_BYTES: Final = 64 * 2**20
"""Default limit of a log in memory: about 15 minutes of two-way PCM audio with its events (chosen)."""

ROW_BYTES: Final = 1_200
"""Memory of one row besides its wire text: row, event, its dictionary and ids (measured with tracemalloc, CPython 3.11:
`python -m tests.benchmarks.memory`)."""

_SUMMARY_LENGTH = 60


class LogRow(NamedTuple):
    """An event on the wire."""

    number: int
    """Position in the session, counted from 0; dropped rows keep their numbers."""
    direction: Direction
    """``"sent"`` by the client or ``"received"`` from the service."""
    monotonic_s: float
    """Time on a clock that never jumps."""
    wall_time: float
    """Unix time in seconds."""
    type: str
    """The wire type (GA spelling)."""
    size_bytes: int
    """Size of the JSON text on the wire."""
    event: Event
    audio_dropped_bytes: int = 0
    """Bytes of audio that the event carried and the log dropped to stay inside its limit."""

    def __repr__(self) -> str:
        return f"<LogRow {self.number} {self.direction} {self.type}, {self.size_bytes} bytes: {summary(self.event)}>"


@dataclass
class Dropped:
    """Events and audio that a log dropped to stay inside its limit; false while there are none."""

    events: int = 0
    """Number of dropped events."""
    audio_bytes: int = 0
    """Bytes of audio taken out of older events."""

    def __bool__(self) -> bool:
        return bool(self.events or self.audio_bytes)


class EventLog(Sequence[LogRow]):
    """The events of a session in order.

    Slices and filters are logs too. With `path`, every event is appended to that file as it happens: the file keeps
    what the memory drops, and a crash loses nothing.

    Parameters
    ----------
    path : str or path, optional
        Append each event to this file; None keeps the log in memory only.
    dialect : {"ga", "preview"}, default "ga"
        Spelling of the wire texts.
    limit_bytes : int, default 64 MiB
        Most memory. Above it the audio of old events is dropped first, then the oldest events; see `dropped`.

    Examples
    --------
    >>> log = EventLog()
    >>> _ = log.record("sent", events.InputAudioBufferClear(event_id="e1"), monotonic_s=1.0, wall_time=0.0)
    >>> log
    <EventLog: 1 event, 1 sent, 0 received, 0.0 s>
    """

    def __init__(
        self, *, path: str | os.PathLike[str] | None = None, dialect: Dialect = "ga", limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self.dialect = dialect
        self.limit_bytes = limit_bytes
        self.dropped = Dropped()
        """Number of dropped events and bytes of dropped audio."""
        self.context: tuple[LogRow, ...] = ()
        """Session events before a slice: they carry the format of its audio."""
        self._rows: list[LogRow] = []
        self.next_number = 0
        """The number of the next row: how many events there were so far."""
        self._start_s: float | None = None
        self._held_bytes = 0
        self._without_audio = 0  # so many rows at the front hold no audio any more
        self._subscribers: tuple[Callable[[LogRow], object], ...] = ()
        self._file: IO[str] | None = None
        if path is not None:
            self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  # closed by close()
            self._file.write(_header(dialect) + "\n")

    # --- recording ----------------------------------------------------------------------------------------------------

    def record(
        self,
        direction: Direction,
        event: Event,
        *,
        monotonic_s: float | None = None,
        wall_time: float | None = None,
        text: str | None = None,
    ) -> LogRow:
        """Append one event and push it to the subscribers.

        Parameters
        ----------
        direction : {"sent", "received"}
            From the client's side.
        event : Event
            As on the wire.
        monotonic_s, wall_time : float, optional
            Time; default now.
        text : str, optional
            Its wire text, for the size and the file.
        """
        if text is None:
            text = wire.encode(event)
        size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        if monotonic_s is None:
            monotonic_s = time.monotonic()
        if self._start_s is None:
            self._start_s = monotonic_s
        wall_time = time.time() if wall_time is None else wall_time
        # As `LogRow(…)`, at half its cost: this runs for each event.
        row = tuple.__new__(LogRow, (self.next_number, direction, monotonic_s, wall_time, event.type, size, event, 0))
        self._rows.append(row)
        self.next_number += 1
        self._held_bytes += size + ROW_BYTES
        if self._file is not None:
            self._file.write(self._line(row, text, self.dialect))
        if self._held_bytes > self.limit_bytes:
            self._shrink()
        for subscriber in self._subscribers:
            try:
                subscriber(row)
            except Exception:  # a subscriber's mistake must not end the session
                logging.getLogger("rtnb").exception("a subscriber of the event log failed")
        return row

    def _shrink(self) -> None:
        """Drop audio, then events, until an eighth of the limit is free: so a full log is shrunk only now and then."""
        goal, rows = self.limit_bytes * 7 // 8, self._rows
        while self._held_bytes > goal and self._without_audio < len(rows):
            row = rows[self._without_audio]
            event, audio_bytes = without_audio(row.event)
            if audio_bytes:
                self._held_bytes -= row.size_bytes
                self.dropped.audio_bytes += audio_bytes
                rows[self._without_audio] = row._replace(event=event, audio_dropped_bytes=audio_bytes)
            self._without_audio += 1
        count = 0
        while self._held_bytes > goal and count < len(rows) - 1:  # the newest stays, however small the limit
            row = rows[count]
            self._held_bytes -= ROW_BYTES + (0 if row.audio_dropped_bytes else row.size_bytes)
            if row.type in _FORMAT_TYPES:
                self.context = (*self.context[-1:], row)
            count += 1
        self.dropped.events += count  # before the rows go: a reader in another thread may skip, but not repeat
        self._without_audio -= count
        del rows[:count]

    def subscribe(self, callback: Callable[[LogRow], object]) -> Callable[[], None]:
        """Call `callback` with each new row, on the thread that records it; it must return at once.

        Returns
        -------
        callable
            Ends the subscription; calling it twice is fine.
        """
        own = partial(callback)  # an object of its own, where a callback subscribes twice
        self._subscribers = (*self._subscribers, own)

        def unsubscribe() -> None:
            self._subscribers = tuple(one for one in self._subscribers if one is not own)

        return unsubscribe

    def close(self) -> None:
        """Close the file, if there is one; the log stays readable. Closing twice is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[LogRow]:
        return iter(tuple(self._rows))

    @overload
    def __getitem__(self, index: int) -> LogRow: ...

    @overload
    def __getitem__(self, index: slice) -> EventLog: ...

    def __getitem__(self, index: int | slice) -> LogRow | EventLog:
        if not isinstance(index, slice):
            return self._rows[index]
        rows = tuple(self._rows)
        return self._part(rows[index], before=rows[: index.indices(len(rows))[0]])

    def since(self, number: int) -> EventLog:
        """Return the rows from a row number on, as far as they are still held."""
        return self[bisect_left(self._rows, number, key=lambda row: row.number) :]

    def filter(self, type: str = "*", *, direction: Direction | None = None) -> EventLog:
        """Keep the rows whose type fits.

        Parameters
        ----------
        type : str, default "*"
            A wire type; ``*`` stands for anything, e.g. ``"response.*.delta"``.
        direction : {"sent", "received"}, optional
            None keeps both.
        """
        every = tuple(self._rows)
        rows = [row for row in every if direction in (None, row.direction) and fnmatchcase(row.type, type)]
        return self._part(rows, before=every)

    def _part(self, rows: Sequence[LogRow], *, before: Sequence[LogRow]) -> EventLog:
        part = EventLog.of(rows, dialect=self.dialect, start_s=self._start_s)
        part.next_number = self.next_number
        part.context = self.context + tuple(row for row in before if row.type in _FORMAT_TYPES)
        return part

    def to_frame(self) -> pd.DataFrame:
        """Return the log as a table.

        Returns
        -------
        pandas.DataFrame
            One row per event: t_ms (since the session's first event, also in a slice), gap_ms (since the row before in
            this table), direction, type, size_bytes, item_id, response_id, event_id, audio_ms (duration of its audio),
            summary. ``frame.attrs["dropped_events"]`` counts older events that the log no longer holds.
        """
        import pandas as pd

        rows = tuple(self._rows)
        formats = Formats(self.context)
        before_s = rows[0].monotonic_s if rows else 0.0
        table = []
        for row in rows:
            ids = [_text_or_none(getattr(row.event, name, None)) for name in _IDS]
            for place, noun in enumerate(("item", "response")):
                ids[place] = ids[place] or _text_or_none(getattr(getattr(row.event, noun, None), "id", None))
            times = (1000 * (row.monotonic_s - (self._start_s or 0.0)), 1000 * (row.monotonic_s - before_s))
            ends = (formats.audio_ms(row), self.summary(row))
            table.append((*times, row.direction, row.type, row.size_bytes, *ids, *ends))
            before_s = row.monotonic_s
        frame = pd.DataFrame(table, columns=_COLUMNS, index=pd.Index([row.number for row in rows], name="index"))
        frame.attrs["dropped_events"] = self.dropped.events
        return frame

    def summary(self, row: LogRow) -> str:
        """Return a few words about a row, without secrets."""
        if row.audio_dropped_bytes:
            return f"({row.audio_dropped_bytes} bytes of audio dropped)"
        return summary(row.event)

    def redacted(self, row: LogRow) -> LogRow:
        """Return a row whose event can be shown: the same row where it holds no secret."""
        return row._replace(event=redact_event(row.event)) if _may_hold_secret(row.event) else row

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the log as JSON Lines: a header, then one line per event."""
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(self.lines())

    def lines(self, start: int = 0) -> Iterator[str]:
        """Yield the lines `save` writes: the header (where `start` is 0), then one per row from `start` on."""
        if start == 0:
            yield _header("ga") + "\n"
        for row in tuple(self._rows[start:]):
            yield self._line(row, None, "ga")

    def _line(self, row: LogRow, text: str | None, dialect: Dialect) -> str:
        """Return one line of the file: the wire text, or the event written anew, redacted."""
        head: dict[str, Any] = {"direction": row.direction, "monotonic_s": row.monotonic_s, "wall_time": row.wall_time}
        if row.audio_dropped_bytes:
            head["audio_dropped_bytes"] = row.audio_dropped_bytes
        text = safe_text(row.event, None if text is None or "\n" in text else text, dialect=dialect)
        return f'{json.dumps(head)[:-1]}, "size_bytes": {row.size_bytes}, "event": {text}}}\n'

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EventLog:
        """Read a file of `save` or of a log with `path`; the whole file is held, without a limit.

        Raises
        ------
        RtnbError
            The file is no log, or one of a newer version.
        """
        with open(path, encoding="utf-8") as file:
            dialect = _header_of(file.readline(), path)
            rows: list[LogRow] = []
            for line in file:
                if (start := line.find('{"rtnb_log"')) >= 0:  # appended to, perhaps after half a line of a crash
                    dialect = _header_of(line[start:], path)
                elif line.endswith("\n"):  # a crash may leave half a line at the end
                    rows.append(_row(json.loads(line), len(rows), dialect))
        return cls.of(rows, dialect=dialect)

    @classmethod
    def of(cls, rows: Sequence[LogRow], *, dialect: Dialect = "ga", start_s: float | None = None) -> EventLog:
        """Return a log of rows that were recorded elsewhere; it has no limit. Time 0 is `start_s` or the first row."""
        log = cls(dialect=dialect, limit_bytes=2**63)
        log._rows = list(rows)
        log.next_number = len(log._rows)
        log._start_s = start_s if start_s is not None or not rows else rows[0].monotonic_s
        return log

    # --- display ------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        rows = tuple(self._rows)
        sent = sum(row.direction == "sent" for row in rows)
        length_s = rows[-1].monotonic_s - rows[0].monotonic_s if rows else 0.0
        noun = "event" if len(rows) == 1 else "events"
        dropped = f" ({self.dropped.events} older dropped)" if self.dropped.events else ""
        return f"<EventLog: {len(rows)} {noun}{dropped}, {sent} sent, {len(rows) - sent} received, {length_s:.1f} s>"

    def to_html(self, count: int = 10) -> str:
        """Return the last `count` rows as an HTML table, escaped and without secrets."""
        start_s = self._rows[0].monotonic_s if self._rows else 0.0
        body = "".join(
            f"<tr><td>{row.number}</td><td>{1000 * (row.monotonic_s - start_s):.0f}</td>"
            f"<td>{'→' if row.direction == 'sent' else '←'}</td><td>{escape(short(row.type))}</td>"
            f"<td>{row.size_bytes}</td><td>{escape(self.summary(row))}</td></tr>"
            for row in self._rows[-count:]
        )
        head = "".join(f"<th>{name}</th>" for name in ("", "t (ms)", "", "type", "bytes", "summary"))
        return f"<p>{escape(repr(self))}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    _repr_html_ = to_html


_IDS = ("item_id", "response_id", "event_id")
_COLUMNS = ["t_ms", "gap_ms", "direction", "type", "size_bytes", *_IDS, "audio_ms", "summary"]
_FORMAT_TYPES = ("session.created", "session.updated", "response.created")
_FORMAT_RESPONSES = 3_000  # the newest responses whose own format is kept (chosen: hours of conversation)


class Formats:
    """The audio formats in force along a log."""

    def __init__(self, rows: Sequence[LogRow] = ()) -> None:
        self._input = self._output = PCM16
        self._of_response: dict[str, AudioFormat] = {}
        for row in rows:
            self.of(row.event)

    def of(self, event: Any) -> AudioFormat | None:
        """Return the format of an event's audio, None for events without audio. It needs all events: some change it."""
        if isinstance(event, events.SessionCreated | events.SessionUpdated):
            self._input, self._output = event.session.input_format, event.session.output_format
        elif isinstance(event, events.ResponseCreated):
            output = event.response.audio and event.response.audio.output
            if output and output.format:
                self._of_response[event.response.id] = output.format
                if len(self._of_response) > _FORMAT_RESPONSES:
                    del self._of_response[next(iter(self._of_response))]
        elif isinstance(event, events.InputAudioBufferAppend):
            return self._input
        elif isinstance(event, events.ResponseOutputAudioDelta):
            return self._of_response.get(event.response_id, self._output)
        return None

    def audio_ms(self, row: LogRow) -> float | None:
        """Return the duration of the audio that an event carries, None for events without audio."""
        event: Any = row.event
        if (form := self.of(event)) is None:
            return None
        n_bytes = len(event.audio) if isinstance(event, events.InputAudioBufferAppend) else event.audio_bytes
        return (row.audio_dropped_bytes or n_bytes) / form.bytes_per_ms


def without_audio(event: Event) -> tuple[Event, int]:
    """Return the event without its audio, and how many bytes that were; the same event where it has none."""
    if isinstance(event, events.ResponseOutputAudioDelta):
        return replace(event, delta=b""), event.audio_bytes
    if isinstance(event, events.InputAudioBufferAppend):
        return replace(event, audio=b""), len(event.audio)
    item: Any = getattr(event, "item", None)
    size = sum(len(part.audio) for part in item.content or () if part.audio) if item is not None else 0
    if not size:
        return event, 0
    content = tuple(replace(part, audio=UNSET) for part in item.content)
    return replace(cast("Any", event), item=replace(item, content=content)), size


def summary(event: Event) -> str:
    """Return a few words about an event: text, a status, an error; empty where its type is enough."""
    if isinstance(event, UnknownEvent):
        return short(redact(str(event.problem or event.payload.get("problem") or "unknown event type")))
    if isinstance(event, events.Error):
        return short(redact(f"{event.error.code or event.error.type or 'error'}: {event.error.message or ''}"))
    response = getattr(event, "response", None)
    if isinstance(event, events.ResponseDone | events.ResponseCreated) and response is not None:
        return str(response.status or "")
    for name in ("transcript", "text", "arguments", "delta", "name"):
        value = getattr(event, name, None)
        if isinstance(value, str):
            return short(value)
    item = getattr(event, "item", None)
    if item is not None:
        texts = [part.text or part.transcript or "" for part in item.content or ()]
        tools = ", ".join(str(tool.get("name")) for tool in item.tools or ())
        words = [item.role or item.type, *texts, item.server_label or "", item.name or "", tools, item.arguments or ""]
        return short(" ".join([*words, str(item.output or "")]))
    for name in ("audio_start_ms", "audio_end_ms"):
        if isinstance(value := getattr(event, name, None), int):
            return f"{value} ms"
    return ""


# --- redaction --------------------------------------------------------------------------------------------------------

_TRANSCRIPTION_FAILED: Final = events.ConversationItemInputAudioTranscriptionFailed.type
_CARRIERS: Final = ("session.", "response.create", "response.done", "error", _TRANSCRIPTION_FAILED)
"""Beginnings of the types of events that can carry an unknown secret: settings (keys of MCP servers, ephemeral keys of
preview services) and refusals (services echo parts of a refused key). Others, such as the result of a tool, are
searched for known secrets, audio is not."""
_FREE_TEXTS = frozenset({"message", "reason", "text_as_received"})
"""Fields with text of the service: everything that looks like a key is removed. Elsewhere only known secrets are, since
ids and tool schemas look like keys too."""


def _may_hold_secret(event: Event, text: str | None = None) -> bool:
    """Return whether an event must be searched; `text` is its wire text."""
    audio = type(event) in (events.ResponseOutputAudioDelta, events.InputAudioBufferAppend)
    named = event.type.startswith(_CARRIERS) or isinstance(event, UnknownEvent)
    return not audio and (named or mask_known(text := text or wire.encode(event)) != text)


def safe_text(event: Event, text: str | None = None, *, dialect: Dialect = "ga") -> str:
    """Return the wire text of an event without secrets; `text` is it with them, where it is known.

    Any file can take it: a lone surrogate becomes its escape.
    """
    if text is None and not isinstance(event, UnknownEvent):  # an unknown event may be nested too deeply to be written
        text = wire.encode(event, dialect=dialect)
    if text is None or _may_hold_secret(event, text):
        text = wire.encode(redact_event(event), dialect=dialect)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def redact_event(event: Event) -> Event:
    """Return the event without secrets, to be shown or written: the same object where it holds none."""
    try:
        message = json.loads(wire.encode(event))
    except LocalProtocolError as error:  # nested too deeply to be written, so it cannot be searched
        return UnknownEvent(type=event.type, payload={}, problem=f"not shown: {error}")
    clean = _without_secrets(mask_credentials(message), free=isinstance(event, UnknownEvent))
    if isinstance(event, UnknownEvent):
        return replace(event, payload=clean, problem=redact(event.problem) if event.problem else None)
    if clean == message:
        return event
    return wire.decode(clean, registry=CLIENT_EVENTS if event.type in CLIENT_EVENTS else SERVER_EVENTS)


def _without_secrets(value: Any, *, free: bool) -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(entry, free=free or key in _FREE_TEXTS) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_secrets(entry, free=free) for entry in value]
    if isinstance(value, str):
        return redact(value) if free else mask_known(value)
    return value


# --- texts ------------------------------------------------------------------------------------------------------------


def short(text: str) -> str:
    """Return a text in one line of at most 60 characters, without known secrets."""
    # A lone surrogate cannot be printed.
    text = " ".join(mask_known(text).encode("utf-8", "replace").decode("utf-8").split())
    return text if len(text) <= _SUMMARY_LENGTH else text[: _SUMMARY_LENGTH - 1] + "…"


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _header(dialect: Dialect) -> str:
    return json.dumps({"rtnb_log": FILE_VERSION, "dialect": dialect})


def _header_of(line: str, path: str | os.PathLike[str]) -> Dialect:
    try:
        header = json.loads(line)
        version = header["rtnb_log"]
    except (ValueError, TypeError, KeyError) as error:
        raise RtnbError(f'{os.fspath(path)} is no event log: its first line has no "rtnb_log"') from error
    if version != FILE_VERSION:
        raise RtnbError(f"{os.fspath(path)} is an event log of version {version!r}, allowed is {FILE_VERSION}")
    return "preview" if header.get("dialect") == "preview" else "ga"


def _row(line: dict[str, Any], index: int, dialect: Dialect) -> LogRow:
    direction: Direction = "sent" if line["direction"] == "sent" else "received"
    registry = CLIENT_EVENTS if direction == "sent" else SERVER_EVENTS
    event = wire.decode(line["event"], dialect=dialect, registry=registry)
    rest = line["size_bytes"], event, line.get("audio_dropped_bytes", 0)
    return LogRow(index, direction, line["monotonic_s"], line["wall_time"], event.type, *rest)
