"""Every event of a session, both ways: `EventLog`.

A log is a sequence of rows; it slices, filters, becomes a DataFrame and a file of JSON Lines, and back. Secrets never
enter it: `rtnb.client.redaction` cleans what could carry one before it is recorded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from html import escape
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

from rtnb.client.redaction import CARRIERS
from rtnb.errors import RtnbError
from rtnb.protocol import events, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.values import PCM16, UNSET, AudioFormat, Dialect

if TYPE_CHECKING:
    import pandas as pd

Direction = Literal["sent", "received"]

FILE_VERSION = 1
"""Version of the JSON Lines format, in the first line of every file."""

_HTML_ROWS = 10
_SUMMARY_LENGTH = 60


class LogRow(NamedTuple):
    """One event on its way."""

    number: int
    """Position in the log of the session."""
    direction: Direction
    """``"sent"`` by the client or ``"received"`` from the service."""
    monotonic_s: float
    """When, on a clock that never jumps."""
    wall_time: float
    """When, as Unix time in seconds."""
    type: str
    """The wire type (GA spelling)."""
    size_bytes: int
    """Size of the JSON text on the wire."""
    event: Event


class EventLog(Sequence[LogRow]):
    """The events of a session in order.

    Slices and filters are logs too. With `path`, every event is appended to that file as it happens, so that a crash
    loses nothing.

    Parameters
    ----------
    path : str or path, optional
        Append each event to this file; None keeps the log in memory only.
    dialect : {"ga", "preview"}, default "ga"
        The spelling of the wire texts.

    Examples
    --------
    >>> log = EventLog()
    >>> _ = log.record("sent", events.InputAudioBufferClear(event_id="e1"), monotonic_s=1.0, wall_time=0.0)
    >>> log
    <EventLog: 1 event, 1 sent, 0 received, 0.0 s>
    """

    def __init__(self, *, path: str | os.PathLike[str] | None = None, dialect: Dialect = "ga") -> None:
        self.dialect = dialect
        self._rows: list[LogRow] = []
        self.context: tuple[LogRow, ...] = ()
        """Session events before a slice: they say in which format its audio is."""
        self._whole: EventLog = self
        """The log this is a part of: its first row is the zero of time."""
        self._file: IO[str] | None = None
        if path is not None:
            self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  # closed by close()
            self._file.write(_header(dialect) + "\n")

    # --- recording ----------------------------------------------------------------------------------------------------

    def record(
        self, direction: Direction, event: Event, *, monotonic_s: float, wall_time: float, text: str | None = None
    ) -> LogRow:
        """Append one event; `text` is its wire text, for the size and the file."""
        if text is None:
            text = wire.encode(event)
        size = len(text) if text.isascii() else len(text.encode())
        row = LogRow(len(self._rows), direction, monotonic_s, wall_time, event.type, size, event)
        self._rows.append(row)
        if self._file is not None:
            self._file.write(_line(row, None if _may_differ(event) or "\n" in text else text, self.dialect))
        return row

    def close(self) -> None:
        """Close the file, if there is one; the log stays readable. Closing twice is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[LogRow]:
        return iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> LogRow: ...

    @overload
    def __getitem__(self, index: slice) -> EventLog: ...

    def __getitem__(self, index: int | slice) -> LogRow | EventLog:
        if not isinstance(index, slice):
            return self._rows[index]
        first = index.indices(len(self._rows))[0]
        return self._part(self._rows[index], before=self._rows[:first])

    def filter(self, type: str = "*", *, direction: Direction | None = None) -> EventLog:
        """Keep the rows whose type fits.

        Parameters
        ----------
        type : str, default "*"
            A wire type; ``*`` stands for anything, e.g. ``"response.*.delta"``.
        direction : {"sent", "received"}, optional
            None keeps both.
        """
        rows = [
            row
            for row in self._rows
            if (direction is None or row.direction == direction) and fnmatchcase(row.type, type)
        ]
        return self._part(rows, before=self._rows)

    def _part(self, rows: list[LogRow], *, before: list[LogRow]) -> EventLog:
        part = EventLog(dialect=self.dialect)
        part._rows = rows
        part._whole = self._whole
        part.context = self.context + tuple(row for row in before if row.type in _FORMAT_TYPES)
        return part

    def to_frame(self) -> pd.DataFrame:
        """Return the log as a table.

        Returns
        -------
        pandas.DataFrame
            One row per event: t_ms (since the session's first event, also in a slice), gap_ms (since the row before in
            this table), direction, type, size_bytes, item_id, response_id, event_id, audio_ms (length of its
            audio), summary.
        """
        import pandas as pd

        formats = _Formats(self.context)
        start_s = self._whole._rows[0].monotonic_s if self._rows else 0.0
        before_s = self._rows[0].monotonic_s if self._rows else 0.0
        table = []
        for row in self._rows:
            audio_ms = formats.audio_ms(row.event)
            ids = [_text_or_none(getattr(row.event, name, None)) for name in ("item_id", "response_id", "event_id")]
            if ids[0] is None and (item := getattr(row.event, "item", None)) is not None:
                ids[0] = _text_or_none(item.id)
            if ids[1] is None and (response := getattr(row.event, "response", None)) is not None:
                ids[1] = _text_or_none(getattr(response, "id", None))
            gap_ms = 1000 * (row.monotonic_s - before_s)
            t_ms = 1000 * (row.monotonic_s - start_s)
            table.append((t_ms, gap_ms, row.direction, row.type, row.size_bytes, *ids, audio_ms, summary(row.event)))
            before_s = row.monotonic_s
        return pd.DataFrame(table, columns=_COLUMNS, index=pd.Index([row.number for row in self._rows], name="index"))

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the log as JSON Lines: a header, then one line per event."""
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(self.lines())

    def lines(self, start: int = 0) -> Iterator[str]:
        """Yield the lines `save` writes: the header (where `start` is 0), then one per event from `start` on."""
        if start == 0:
            yield _header("ga") + "\n"
        for index in range(start, len(self._rows)):
            yield _line(self._rows[index], None, "ga")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EventLog:
        """Read what `save` or a log with `path` wrote.

        Raises
        ------
        RtnbError
            The file is no log, or one of a newer version.
        """
        with open(path, encoding="utf-8") as file:
            first = _header_of(file.readline(), path)
            log = cls(dialect=first)
            dialect = first
            for line in file:
                if line.startswith('{"rtnb_log"'):
                    dialect = _header_of(line, path)  # a file that was appended to in several sessions
                elif line.endswith("\n"):  # a crash may leave half a line at the end
                    log._rows.append(_row(json.loads(line), len(log._rows), dialect))
        return log

    # --- looks --------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        sent = sum(row.direction == "sent" for row in self._rows)
        length_s = self._rows[-1].monotonic_s - self._rows[0].monotonic_s if self._rows else 0.0
        noun = "event" if len(self) == 1 else "events"
        return f"<EventLog: {len(self)} {noun}, {sent} sent, {len(self) - sent} received, {length_s:.1f} s>"

    def _repr_html_(self) -> str:
        start_s = self._rows[0].monotonic_s if self._rows else 0.0
        body = "".join(
            f"<tr><td>{row.number}</td><td>{1000 * (row.monotonic_s - start_s):.0f}</td>"
            f"<td>{'→' if row.direction == 'sent' else '←'}</td><td>{escape(row.type)}</td>"
            f"<td>{row.size_bytes}</td><td>{escape(summary(row.event))}</td></tr>"
            for row in self._rows[-_HTML_ROWS:]
        )
        head = "".join(f"<th>{name}</th>" for name in ("", "t (ms)", "", "type", "bytes", "summary"))
        return f"<p>{escape(repr(self))}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_COLUMNS = [
    "t_ms",
    "gap_ms",
    "direction",
    "type",
    "size_bytes",
    "item_id",
    "response_id",
    "event_id",
    "audio_ms",
    "summary",
]
_FORMAT_TYPES = frozenset({"session.created", "session.updated", "response.created"})


class _Formats:
    """Follows which format audio has in a log, to give its length."""

    def __init__(self, rows: Sequence[LogRow] = ()) -> None:
        self._input = self._output = PCM16
        self._of_response: dict[str, AudioFormat] = {}
        for row in rows:
            self.audio_ms(row.event)

    def audio_ms(self, event: Event) -> float | None:
        """The length of the audio an event carries, None for events without audio."""
        if isinstance(event, events.SessionCreated | events.SessionUpdated):
            self._input, self._output = event.session.input_format, event.session.output_format
        elif isinstance(event, events.ResponseCreated):
            output = event.response.audio and event.response.audio.output
            if output and output.format:
                self._of_response[event.response.id] = output.format
        elif isinstance(event, events.InputAudioBufferAppend):
            return len(event.audio) / self._input.bytes_per_ms
        elif isinstance(event, events.ResponseOutputAudioDelta):
            return event.audio_bytes / self._of_response.get(event.response_id, self._output).bytes_per_ms
        return None


def summary(event: Event) -> str:
    """Say in a few words what an event carries: text, a status, an error; empty where its type says it all."""
    if isinstance(event, UnknownEvent):
        return event.problem or "unknown event type"
    if isinstance(event, events.Error):
        return _short(f"{event.error.code or event.error.type or 'error'}: {event.error.message or ''}")
    response = getattr(event, "response", None)
    if isinstance(event, events.ResponseDone | events.ResponseCreated) and response is not None:
        return str(response.status or "")
    for name in ("transcript", "text", "arguments", "delta", "name"):
        value = getattr(event, name, None)
        if isinstance(value, str):
            return _short(value)
    item = getattr(event, "item", None)
    if item is not None:
        texts = [part.text or part.transcript or "" for part in item.content or ()]
        return _short(" ".join([item.role or item.type, *texts, item.name or "", item.output or ""]))
    for name in ("audio_start_ms", "audio_end_ms"):
        if isinstance(value := getattr(event, name, None), int):
            return f"{value} ms"
    return ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SUMMARY_LENGTH else text[: _SUMMARY_LENGTH - 1] + "…"


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _may_differ(event: Event) -> bool:
    """Whether the event can differ from its wire text, because a secret was taken out."""
    return type(event) in CARRIERS


def _header(dialect: Dialect) -> str:
    return json.dumps({"rtnb_log": FILE_VERSION, "dialect": dialect})


def _header_of(line: str, path: str | os.PathLike[str]) -> Dialect:
    try:
        header = json.loads(line)
        version = header["rtnb_log"]
    except (ValueError, TypeError, KeyError) as error:
        raise RtnbError(f"{os.fspath(path)} is no event log: its first line says nothing of rtnb_log") from error
    if version != FILE_VERSION:
        raise RtnbError(f"{os.fspath(path)} is an event log of version {version!r}, allowed is {FILE_VERSION}")
    return "preview" if header.get("dialect") == "preview" else "ga"


def _line(row: LogRow, text: str | None, dialect: Dialect) -> str:
    """One line of the file; `text` is put in as it is, None has the event written anew."""
    head = json.dumps({"direction": row.direction, "monotonic_s": row.monotonic_s, "wall_time": row.wall_time})
    if text is None:
        text = _encode(row.event, dialect)
    return f'{head[:-1]}, "size_bytes": {row.size_bytes}, "event": {text}}}\n'


def _encode(event: Event, dialect: Dialect) -> str:
    if isinstance(event, UnknownEvent):  # its payload alone does not say what was wrong with it
        whole = {"rtnb_unknown": event.type, "problem": event.problem, "payload": event.payload}
        return wire.encode(UnknownEvent(type=event.type, payload=whole))
    return wire.encode(event, dialect=dialect)


def _row(line: dict[str, Any], index: int, dialect: Dialect) -> LogRow:
    direction: Direction = "sent" if line["direction"] == "sent" else "received"
    message = line["event"]
    event: Event
    if "rtnb_unknown" in message:
        payload = cast("dict[str, Any]", message["payload"])
        named = payload.get("event_id")
        event = UnknownEvent(
            type=message["rtnb_unknown"],
            event_id=named if isinstance(named, str) else UNSET,
            payload=payload,
            problem=message.get("problem"),
        )
    else:
        registry = CLIENT_EVENTS if direction == "sent" else SERVER_EVENTS
        event = wire.decode(message, dialect=dialect, registry=registry)
    return LogRow(index, direction, line["monotonic_s"], line["wall_time"], event.type, line["size_bytes"], event)
