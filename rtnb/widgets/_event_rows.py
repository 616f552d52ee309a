"""What the page of the inspector is told of each event: a few numbers and a short text, and the rest on demand.

A row is `STRIDE` 32-bit integers, little-endian: flags (1 received, 2 trouble, 4 a piece to fold), time since the first
event (0.1 ms), type, size (bytes on the wire), audio (bytes), audio format, item, response, call, content index + 1,
and the number of the client event that caused an error, else −1. Types, formats and ids are numbers of tables; each
frame carries what it uses of them, so that any frame can be read alone.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Sequence
from html import escape
from typing import Any

from rtnb.client.log import EventLog, LogRow, summary
from rtnb.protocol import events
from rtnb.protocol.events import CLIENT_EVENTS, Event, UnknownEvent
from rtnb.protocol.values import PCM16, AudioFormat, SessionConfig, Value

STRIDE = 11
RECEIVED, TROUBLE, PIECE = 1, 2, 4
STATIC_ROWS = 200
"""Rows of the table that stays in a saved notebook; chosen, about 40 kB."""

_LONGEST_NUMBER = 2**31 - 1
_TROUBLE_LENGTH = 160  # characters of an error in its row; chosen
_PIECE_LENGTH = 60  # and of a piece of text; chosen
_WORD_LENGTH = 200  # and of a type or id; chosen
_BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C], "\ufffd")
"""Characters that turn the order of what follows; a row shows that they are there and does not obey them."""


class EventRows:
    """The rows of a log, taken in as it grows.

    Parameters
    ----------
    log : EventLog, or sequence of LogRow
        Only appended to.
    """

    def __init__(self, log: Sequence[LogRow]) -> None:
        self.log = log
        self.errors_of: dict[int, list[int]] = {}
        """Number of a client event -> numbers of the errors it caused."""
        self._start_s = 0.0
        self._numbers = array("i")
        self._summaries: list[str] = []
        self._types = _Table()
        self._ids = _Table("")
        self._formats: list[AudioFormat] = [PCM16]
        self._sent: dict[str, int] = {}
        self._response_of: dict[int, int] = {}
        self._input = self._output = PCM16
        self._of_response: dict[str, AudioFormat] = {}
        for row in getattr(log, "context", ()):  # what came before a slice says in which format its audio is
            self._follow_format(row.event)

    def __len__(self) -> int:
        return len(self._summaries)

    @property
    def total(self) -> int:
        """Number of events so far, with those that the log has dropped."""
        return len(self.log) + _dropped(self.log)

    def row(self, index: int) -> LogRow:
        """Return the row of an event as it may be shown: without secrets, or a mark where the log has dropped it."""
        position = index - _dropped(self.log)
        if position < 0:
            gone = UnknownEvent(type="dropped", payload={}, problem="dropped: the log had reached its limit")
            return LogRow(index, "received", self._start_s, 0.0, "dropped", 0, gone)
        row = self.log[position]
        return self.log.redacted(row) if isinstance(self.log, EventLog) else row

    def read(self, *, most: int) -> bool:
        """Take in at most `most` new events; return whether there are more."""
        first, stop = len(self), min(self.total, len(self) + most)
        for index in range(first, stop):
            row = self.row(index)
            if index == 0:
                self._start_s = row.monotonic_s
            self._add(index, row)
        return stop < self.total

    def pack(self, start: int, stop: int) -> tuple[dict[str, Any], list[bytes]]:
        """The header and the two buffers of rows `start` to `stop`: numbers, and JSON of the texts."""
        numbers = self._numbers[start * STRIDE : stop * STRIDE]
        ids = set(numbers[6::STRIDE]) | set(numbers[7::STRIDE]) | set(numbers[8::STRIDE])
        words = {
            "summaries": self._summaries[start:stop],
            "types": {index: self._types.words[index] for index in set(numbers[2::STRIDE])},
            "ids": {index: self._ids.words[index] for index in ids},
            "formats": [form.bytes_per_ms for form in self._formats],
        }
        if sys.byteorder == "big":
            numbers.byteswap()
        header = {"start": start, "count": stop - start, "total": len(self)}
        return header, [numbers.tobytes(), json.dumps(words, separators=(",", ":")).encode()]

    def format_of(self, index: int) -> AudioFormat:
        """The format of the audio an event carries."""
        return self._formats[self._numbers[index * STRIDE + 5]]

    def cause_of(self, index: int) -> int | None:
        """The number of the client event an error names, None where it names none."""
        cause = self._numbers[index * STRIDE + 10]
        return None if cause < 0 else cause

    def run(self, first: int, last: int) -> list[int]:
        """The numbers of the events of one folded run: same type and same item as its first, up to its last."""
        numbers, at = self._numbers, first * STRIDE
        alike = (numbers[at + 2], numbers[at + 6])
        return [
            index
            for index in range(first, min(last + 1, len(self)))
            if (numbers[index * STRIDE + 2], numbers[index * STRIDE + 6]) == alike
        ]

    def time_s(self, index: int) -> float:
        """Seconds since the first event."""
        return self._numbers[index * STRIDE + 1] / 10_000

    def summary(self, index: int) -> str:
        """The short text of a row."""
        return self._summaries[index]

    # --- one event ----------------------------------------------------------------------------------------------------

    def _add(self, index: int, row: LogRow) -> None:
        event, kind = row.event, row.type
        received = row.direction == "received"
        flags = RECEIVED if received else 0
        item, response, call, content = self._ids_of(event)
        audio_bytes, form, text, cause = 0, 0, "", -1
        if isinstance(event, events.InputAudioBufferAppend):
            audio_bytes, form, flags = len(event.audio), self._format(self._input), flags | PIECE
        elif isinstance(event, events.ResponseOutputAudioDelta):
            audio_bytes, form = event.audio_bytes, self._format(self._of_response.get(event.response_id, self._output))
            flags |= PIECE
        else:
            if kind.endswith(".delta"):
                flags |= PIECE
            else:
                self._follow_format(event)
                audio_bytes, form = self._audio_in_item(event)
            text = _short(event)
            if _is_trouble(event):
                flags |= TROUBLE
                cause = self._cause(index, event)
        if not received and isinstance(event.event_id, str):
            self._sent[event.event_id] = index
        time = min(max(0, round(10_000 * (row.monotonic_s - self._start_s))), _LONGEST_NUMBER)
        size = min(row.size_bytes, _LONGEST_NUMBER)
        number = self._types.number(kind)
        self._numbers.extend((flags, time, number, size, audio_bytes, form, item, response, call, content, cause))
        self._summaries.append(text)

    def _ids_of(self, event: Event) -> tuple[int, int, int, int]:
        """Item, response, call and content index + 1; an item's response is remembered for its later events."""
        get = event.payload.get if isinstance(event, UnknownEvent) else event.__dict__.get
        item, response = get("item"), get("response")
        item_id = get("item_id") or _field(item, "id")
        response_id = get("response_id") or _field(response, "id")
        call_id = get("call_id") or _field(item, "call_id")
        content = get("content_index")
        number = self._ids.number
        item_number = number(item_id) if isinstance(item_id, str) else 0
        response_number = number(response_id) if isinstance(response_id, str) else 0
        if item_number:
            if response_number:
                self._response_of[item_number] = response_number
            else:
                response_number = self._response_of.get(item_number, 0)
        call_number = number(call_id) if isinstance(call_id, str) else 0
        return item_number, response_number, call_number, content + 1 if isinstance(content, int) else 0

    def _audio_in_item(self, event: Event) -> tuple[int, int]:
        item = getattr(event, "item", None)
        parts = getattr(item, "content", None) or ()
        if (part := getattr(event, "part", None)) is not None:
            parts = (part,)
        size = sum(len(part.audio) for part in parts if isinstance(getattr(part, "audio", None), bytes))
        form = self._input if getattr(item, "role", None) == "user" else self._output
        return size, self._format(form) if size else 0

    def _follow_format(self, event: Event) -> None:
        if isinstance(event, events.SessionCreated | events.SessionUpdated):
            self._input, self._output = event.session.input_format, event.session.output_format
        elif isinstance(event, events.ResponseCreated):
            output = event.response.audio and event.response.audio.output
            if output and output.format:
                self._of_response[event.response.id] = output.format

    def _format(self, form: AudioFormat) -> int:
        if form not in self._formats:
            self._formats.append(form)
        return self._formats.index(form)

    def _cause(self, index: int, event: Event) -> int:
        named = event.error.event_id if isinstance(event, events.Error) else None
        cause = self._sent.get(named, -1) if isinstance(named, str) else -1
        if cause >= 0:
            self.errors_of.setdefault(cause, []).append(index)
        return cause


class _Table:
    """Words and their numbers."""

    def __init__(self, *words: str) -> None:
        self.words = list(words)
        self._numbers = {word: number for number, word in enumerate(words)}

    def number(self, word: str) -> int:
        number = self._numbers.get(word)
        if number is None:
            number = self._numbers[word] = len(self.words)
            self.words.append(_harmless(word[:_WORD_LENGTH]))
        return number


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _is_trouble(event: Event) -> bool:
    if isinstance(event, UnknownEvent):
        return event.problem is not None
    if isinstance(event, events.ResponseDone):
        return event.response.status == "failed"
    return isinstance(event, events.Error) or event.type.endswith(".failed")


def _short(event: Event) -> str:
    """What the row says of an event."""
    error = getattr(event, "error", None)
    if isinstance(event, events.ResponseDone):
        error = event.response.status_details and event.response.status_details.error
    if error:
        text = " ".join(f"{error.code or error.type or 'error'}: {error.message or ''}".split())[:_TROUBLE_LENGTH]
    elif event.type.endswith(".delta"):
        delta = getattr(event, "delta", None)
        text = (
            delta[:_PIECE_LENGTH].replace("\n", " ") if isinstance(delta, str) else ""
        )  # spaces stay: pieces are joined
    elif isinstance(event, UnknownEvent) and not event.problem and event.type in CLIENT_EVENTS:
        text = "sent as it was typed"
    else:
        text = summary(event) or _settings(event)
    return _harmless(text)


def _harmless(text: str) -> str:
    return text if text.isascii() else text.translate(_BIDI)


def _settings(event: Event) -> str:
    """The names of the settings an event carries, or the item it is about."""
    if isinstance(event, events.RateLimitsUpdated):
        return ", ".join(f"{limit.name}: {limit.remaining} of {limit.limit} left" for limit in event.rate_limits)
    config = getattr(event, "session", None)
    if isinstance(config, SessionConfig):
        facts = [value for value in (config.model, config.voice) if isinstance(value, str)]
        return ", ".join([*facts, *_given(config)])
    if isinstance(event, events.ResponseCreate) and event.response:
        return ", ".join(_given(event.response))
    item_id = None if hasattr(event, "response_id") else getattr(event, "item_id", None)
    return item_id if isinstance(item_id, str) else ""


def _given(config: Value) -> list[str]:
    unsaid = ("type", "id", "object", "model", "extra", "expires_at")
    return [name for name, value in vars(config).items() if value and name not in unsaid]


# --- without a page ---------------------------------------------------------------------------------------------------


def static_table(rows: EventRows) -> str:
    """The last rows as plain HTML, for a saved notebook that is opened without a kernel; escaped, without audio."""
    first = max(0, len(rows) - STATIC_ROWS)
    body = "".join(_static_row(rows, index) for index in range(first, len(rows)))
    head = "".join(f"<th>{name}</th>" for name in ("#", "time (s)", "", "type", "bytes", "summary"))
    count = f"the last {len(rows) - first} of {len(rows):,} events" if first else f"{len(rows):,} events"
    return (
        f"<details open><summary>Copy without a kernel: {count}</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>"
    )


def _dropped(log: Sequence[LogRow]) -> int:
    return log.dropped.events if isinstance(log, EventLog) else 0


def _static_row(rows: EventRows, index: int) -> str:
    row = rows.row(index)
    arrow = "←" if row.direction == "received" else "→"
    cells = (index, f"{rows.time_s(index):.3f}", arrow, row.type[:100], f"{row.size_bytes:,}", rows.summary(index))
    return f"<tr>{''.join(f'<td>{escape(_harmless(str(cell)))}</td>' for cell in cells)}</tr>"
