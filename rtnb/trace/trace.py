"""A recorded session that is opened again: `Trace`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Literal

import numpy as np

from rtnb.analysis.cost import CostMeter
from rtnb.analysis.latency import LatencyMeter
from rtnb.audio import Audio, codec
from rtnb.client.log import EventLog, Formats, LogRow
from rtnb.errors import RtnbError, TraceError
from rtnb.protocol import events, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS
from rtnb.protocol.values import SessionConfig
from rtnb.trace.conversation import Entries, Entry, to_text
from rtnb.trace.file import Lane, TraceFile, lane_of
from rtnb.trace.tracks import Layout, Track, shifted

_Span = tuple[Lane, int, int, bool]
_MISSING = {
    "user": "no audio was sent to the service",
    "model": "no audio was received from the service",
    "heard": "no audio was received that could be played",
}


@dataclass(frozen=True)
class Turn:
    """A message of the conversation on the clock of its trace."""

    role: str
    """``user``, ``assistant``, ``system`` or ``tool``."""
    start_ms: float
    stop_ms: float
    text: str
    item_id: str
    response_id: str
    """Of an answer or a tool call; else empty."""
    status: str
    """As of `Entry`: ``complete``, ``interrupted``, ``not transcribed``, ``failed`` …"""
    detail: str
    note: str
    has_audio: bool
    heard_share: float | None
    """Of an interrupted answer: the share of its audio that was heard, 0 to 1."""
    call_id: str


class Trace:
    """A recorded session: events, audio, turns and settings on one clock, in ms since its first event.

    Everything is read when it is asked for. Nothing in the file is executed, and it needs no service.

    Parameters
    ----------
    source : path or binary file
        The file. Where it is not there but its folder ``….part`` is, the recording did not end: the folder is opened.

    Raises
    ------
    TraceError
        No such file, not a trace, damaged, of another version, or not safe to open.
    """

    def __init__(self, source: str | os.PathLike[str] | IO[bytes]) -> None:
        self._file = TraceFile(source)
        self.manifest: dict[str, Any] = self._file.manifest
        """Facts about the session: version, target, settings over time, missing tracks."""
        self._window: tuple[float, float] | None = None

    # --- events -------------------------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> tuple[list[LogRow], dict[int, _Span]]:
        """Every row without audio, and by its number where its audio lies."""
        rows: list[LogRow] = []
        spans: dict[int, _Span] = {}
        ends: dict[Lane, int] = {"user": 0, "model": 0}
        for number, line in enumerate(self._file.lines()):
            try:
                row = _row(line, number)
                lane = lane_of(row.event)
                if lane is not None:
                    size, lost = int(line["audio_bytes"]), line.get("lost") is True
                    if not 0 <= size <= 2**31:
                        raise ValueError(f"audio_bytes is {size}")
                    spans[number] = lane, ends[lane], size, lost
                    ends[lane] += 0 if lost else size
            except (ValueError, TypeError, KeyError, RtnbError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise TraceError(f"Event {number} of the trace {self._file.name} cannot be read ({reason}).") from error
            rows.append(row)
        return rows, spans

    @cached_property
    def log(self) -> EventLog:
        """Every event, without secrets and without audio."""
        rows, _ = self._rows
        if self._window is not None:
            rows = [row for row in rows if self._window[0] <= self._ms(row) <= self._window[1]]
        return EventLog.of(rows)

    @property
    def events(self) -> EventLog:
        """The same as `log`: ``trace.events.to_frame()`` is a table."""
        return self.log

    def rows(self) -> Iterator[LogRow]:
        """Yield every row with its audio, as the session's own log had it."""
        rows, spans = self._rows
        for row in rows:
            span = spans.get(row.number)
            yield row if span is None or span[3] else row._replace(event=self._with_audio(row.event, span))

    def _with_audio(self, event: Any, span: _Span) -> Any:
        lane, start, size, _ = span
        audio = self._file.audio(lane, start, start + size)
        fields = {name: value for name, value in vars(event).items() if name not in ("audio", "delta")}
        return type(event)(**{"audio" if lane == "user" else "delta": audio}, **fields)

    # --- the clock ----------------------------------------------------------------------------------------------------

    @cached_property
    def _layout(self) -> Layout:
        layout, (rows, spans) = Layout(), self._rows
        for row in rows:
            layout.take(row, spans.get(row.number))
        return layout

    @property
    def _zero_ms(self) -> float:
        return self._window[0] if self._window is not None else 0.0

    def _ms(self, row: LogRow) -> float:
        return self._layout.ms(row)

    @cached_property
    def duration_ms(self) -> float:
        """Time from the first event to the last event or the end of the audio."""
        if self._window is not None:
            return self._window[1] - self._window[0]
        layout = self._layout
        ends = [pieces[-1].stop_ms for pieces in (*layout.pieces.values(), layout.received) if pieces]
        return max([layout.now_ms, *ends])

    def cut(self, start_ms: float, stop_ms: float) -> Trace:
        """Return a part of the trace, whose clock begins at `start_ms`."""
        if not 0 <= start_ms < stop_ms:
            raise TraceError(f"cannot cut from {start_ms:g} to {stop_ms:g} ms; allowed: 0 ≤ start < stop")
        part = object.__new__(type(self))
        part._file, part.manifest = self._file, self.manifest
        part.__dict__.update({name: self.__dict__[name] for name in ("_rows", "_layout") if name in self.__dict__})
        part._window = self._zero_ms + start_ms, self._zero_ms + min(stop_ms, self.duration_ms)
        return part

    # --- what was said ------------------------------------------------------------------------------------------------

    @cached_property
    def _entries(self) -> list[Entry]:
        layout, (rows, _) = self._layout, self._rows
        entries = Entries(layout)
        for row in rows:
            entries.add(row)
        return entries.timed()

    @cached_property
    def turns(self) -> list[Turn]:
        """The messages of the conversation, in order."""
        turns = []
        for entry in self._entries:
            start_ms = entry.start_ms - self._zero_ms
            stop_ms = max(start_ms, (entry.stop_ms or entry.start_ms) - self._zero_ms)
            if stop_ms >= 0 and start_ms <= self.duration_ms:
                same = {name: getattr(entry, name) for name in ("role", "text", "status", "detail", "note", "call_id")}
                same |= {"has_audio": entry.has_audio, "heard_share": entry.heard_share, "item_id": entry.id}
                response_id = self._layout.response_of.get(entry.id, "")
                turns.append(Turn(start_ms=start_ms, stop_ms=stop_ms, response_id=response_id, **same))
        return turns

    @cached_property
    def transcript(self) -> str:
        """One paragraph per message, with what was not heard in brackets."""
        shown = {turn.item_id for turn in self.turns}
        return to_text([entry for entry in self._entries if entry.id in shown])

    # --- audio --------------------------------------------------------------------------------------------------------

    @property
    def tracks(self) -> dict[str, str]:
        """Name of each track (``user``, ``model``, ``heard``) -> why it is missing; empty where it is there."""
        found = {"user": self.user_audio, "model": self.model_audio, "heard": self.heard_audio}
        noted = self.manifest.get("tracks") or {}
        reasons = {name: (noted.get(name) or {}).get("missing") or _MISSING[name] for name in found}
        return {name: "" if track is not None else str(reasons[name]) for name, track in found.items()}

    def _track(self, pieces: list[Any]) -> Track | None:
        return Track(self._file, pieces, duration_ms=self.duration_ms, zero_ms=self._zero_ms) if pieces else None

    @cached_property
    def user_audio(self) -> Track | None:
        """Audio that was sent; None where there is none, see `tracks`."""
        return self._track(self._layout.pieces["you"])

    @cached_property
    def model_audio(self) -> Track | None:
        """Audio that was received, with what nobody heard."""
        return self._track(self._layout.received)

    @cached_property
    def heard_audio(self) -> Track | None:
        """Audio of the model as it was played: cut where the user interrupted it."""
        starts: dict[str, float] = {}
        for marker in self._file.lines(markers=True):
            try:
                at_ms = 1000 * (float(marker["monotonic_s"]) - (self._layout._start_s or 0.0))
                starts.setdefault(str(marker["item_id"]), at_ms - float(marker["played_ms"]))
            except (KeyError, TypeError, ValueError) as error:
                raise TraceError(f"A marker of the trace {self._file.name} cannot be read: {error}.") from error
        return self._track(shifted(self._layout.pieces["model"], starts))

    def stereo(self) -> Audio:
        """Return the user (left) and what was heard of the model (right).

        Returns
        -------
        audio : ndarray, float32, shape (n_samples, 2)
            24 kHz; for hours of audio read the tracks in parts.
        """
        silence = Track(None, [], duration_ms=self.duration_ms)
        return np.stack([(self.user_audio or silence)[:], (self.heard_audio or silence)[:]], axis=1)

    def audio_of(self, item_id: str) -> Audio:
        """Return all audio of an answer's item as it was received: float32, 24 kHz or, for G.711, 8 kHz.

        Raises
        ------
        TraceError
            The trace has no audio of it.
        """
        formats, data, form = Formats(), [], None
        rows, spans = self._rows
        for row in rows:
            found: Any = formats.of(row.event)
            if row.number in spans and getattr(row.event, "item_id", "") == item_id:
                lane, start, size, _ = spans[row.number]
                data.append(self._file.audio(lane, start, start + size))
                form = codec(found.type)
        if form is None:
            raise TraceError(f"the trace has no audio of the item {item_id!r}; trace.turns lists the items")
        joined = b"".join(data)
        return form.decode(joined[: len(joined) // form.bytes_per_sample * form.bytes_per_sample])

    # --- settings and measures ----------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> list[tuple[float, SessionConfig]]:
        """Time in ms and settings, each time that the service confirmed them."""
        kinds = events.SessionCreated | events.SessionUpdated
        return [(self._ms(r) - self._zero_ms, r.event.session) for r in self._rows[0] if isinstance(r.event, kinds)]

    def settings_at(self, t_ms: float) -> SessionConfig:
        """Return the settings in force at a time; before the first ones they are empty."""
        return next((config for at_ms, config in reversed(self.settings) if at_ms <= t_ms), SessionConfig())

    @cached_property
    def latency(self) -> LatencyMeter:
        """Latency of each answer, as of a live session."""
        meter = LatencyMeter()
        meter.feed(self.rows())
        return meter

    @cached_property
    def cost(self) -> CostMeter:
        """Tokens and estimated dollars."""
        meter = CostMeter()
        meter.feed(self._rows[0])
        return meter

    def __repr__(self) -> str:
        end = ", the recording did not end" if self._file.recovered else ""
        return f"<Trace {self._file.name}: {self.duration_ms / 1000:.1f} s, {len(self.turns)} turns{end}>"

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _row(line: dict[str, Any], number: int) -> LogRow:
    direction: Literal["sent", "received"] = "sent" if line["direction"] == "sent" else "received"
    message = line["event"]
    if "audio_bytes" in line:
        message = {**message, ("audio" if direction == "sent" else "delta"): ""}
    event = wire.decode(message, registry=CLIENT_EVENTS if direction == "sent" else SERVER_EVENTS)
    times = float(line["monotonic_s"]), float(line["wall_time"])
    dropped = int(line.get("audio_dropped_bytes", 0)) or (int(line["audio_bytes"]) if line.get("lost") else 0)
    return LogRow(number, direction, *times, event.type, int(line["size_bytes"]), event, dropped)
