"""Events of a log for the page of the inspector: compact rows, and the details of one event on request.

The details are its JSON, its audio as PCM16, its meaning, and the check before sending. A row is a JSON array: flags
(1 received, 2 trouble, 4 a piece to fold), time since the first event (0.1 ms), type, size (bytes on the wire), audio
(bytes), its duration (0.1 ms), ids of item, response and call ("" for none), content index + 1, the number of the
client event that caused an error (else -1), and a short text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rtnb.audio import RATE_HZ, codec, encode_pcm16, resample
from rtnb.client.log import EventLog, LogRow, summary
from rtnb.errors import AudioError, LocalProtocolError, RemoteProtocolError
from rtnb.protocol import events, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.service.refusals import check_state
from rtnb.protocol.service.schema import check_event
from rtnb.protocol.state import State
from rtnb.protocol.values import PCM16, AudioFormat, Dialect, Value
from rtnb.redaction import mask_known, redact

RECEIVED, TROUBLE, PIECE = 1, 2, 4
KEPT: Final = 200_000
"""Most rows that the kernel keeps (about 50 MB), and the page (about 30 MB); older ones are only counted. Chosen."""

_REMEMBERED: Final = 10_000  # ids that later events may refer to; chosen
_SUMMARY_LENGTH = 160  # characters of a summary in its row; chosen
_PIECE_LENGTH = 60  # and of a piece of text; chosen
_WORD_LENGTH = 200  # and of a type or id; chosen
_ORDER = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C)
REPLACED: Final = dict.fromkeys(_ORDER, "\ufffd")
"""Characters that change the order of the text after them; a row shows that they are there."""
ESCAPED: Final = {code: f"\\u{code:04x}" for code in _ORDER}
"""The same, written as JSON escapes."""

_quote = json.encoder.encode_basestring_ascii  # a row by hand: `json.dumps` would take a third of the time per event


class EventRows:
    """Rows of the newest events of a log.

    At most `kept` rows and an eighth are held; then the oldest are forgotten and `kept` remain.

    Parameters
    ----------
    log : EventLog
        The events themselves.
    kept : int, default KEPT
        The bound.
    facts : dict, optional
        Goes into each header.
    """

    def __init__(self, log: EventLog, *, kept: int = KEPT, facts: dict[str, Any] | None = None) -> None:
        self.log = log
        self._facts = facts or {}
        self.base = 0
        """Number of the oldest row."""
        self._kept = kept
        self._start_s: float | None = None
        self._rows: list[str] = []
        self._formats: list[AudioFormat] = []
        self._sent: dict[str, int] = {}
        self._response_of: dict[str, str] = {}
        self._given: tuple[Any, ...] = ()  # ids of the event before, and their JSON
        self._ids = ""
        self._input = self._output = PCM16
        self._of_response: dict[str, AudioFormat] = {}
        for row in log.context:  # events before a slice carry the format of its audio
            self._follow_format(row.event)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def next(self) -> int:
        """Number of events so far, also those that are forgotten."""
        return self.base + len(self)

    def row(self, index: int) -> LogRow:
        """Return an event as it may be shown: without secrets; or a note where the log has dropped it."""
        position = index - self.log.dropped.events
        if position >= 0:
            return self.log.redacted(self.log[position])
        flags, _, kind, size, *_ = self._read(index)
        note = "The log no longer holds this event: it had reached its limit in memory."
        gone = UnknownEvent(type=kind, payload={}, problem=note)
        return LogRow(index, "received" if flags & RECEIVED else "sent", 0.0, 0.0, kind, size, gone)

    def read(self, most: int) -> bool:
        """Add at most `most` new events; return whether there are more.

        Where the log dropped events before they were read, the rows start anew behind the gap.
        """
        log, dropped = self.log, self.log.dropped.events
        if dropped > self.next:
            self._forget(len(self), dropped)
        total = len(log) + dropped
        for index in range(self.next, min(total, self.next + most)):
            try:
                row = log[index - dropped]
            except IndexError:  # the next line says why
                return True
            if log.dropped.events != dropped:  # the log dropped rows meanwhile, on another thread: positions shifted
                return True
            if self._start_s is None:
                self._start_s = row.monotonic_s
            self._add(index, row)
        if len(self) > self._kept * 9 // 8:
            self._forget(len(self) - self._kept, self.next - self._kept)
        return self.next < total

    def pack(self, start: int, stop: int) -> tuple[dict[str, Any], list[bytes]]:
        """Return a header, and the rows `start` to `stop` as JSON."""
        header = {"start": start, "count": stop - start, "base": self.base, "total": self.next, **self._facts}
        return header, [f"[{','.join(self._rows[start - self.base : stop - self.base])}]".encode()]

    def format_of(self, index: int) -> AudioFormat:
        """Return the format of the audio in an event."""
        return self._formats[index - self.base]

    def run(self, first: int, last: int) -> list[int]:
        """Return the numbers of the events in a folded run: those of the type and item of its first, up to its last."""
        found = [(index, self._read(index)) for index in range(first, min(last + 1, self.next))]
        return [index for index, row in found if (row[2], row[6]) == (found[0][1][2], found[0][1][6])]

    def _read(self, index: int) -> list[Any]:
        row: list[Any] = json.loads(self._rows[index - self.base])
        return row

    def _forget(self, count: int, base: int) -> None:
        del self._rows[:count], self._formats[:count]
        self.base = base

    # --- one event ----------------------------------------------------------------------------------------------------

    def _add(self, index: int, row: LogRow) -> None:
        event, kind = row.event, row.type
        received, piece = row.direction == "received", kind.endswith(".delta")
        audio_bytes, form, text, cause, trouble = 0, self._output, "", -1, False
        if isinstance(event, events.ResponseOutputAudioDelta):
            audio_bytes, form = event.audio_bytes, self._of_response.get(event.response_id, form)
        elif piece and isinstance(delta := event.__dict__.get("delta"), str):
            # Most events are pieces: to search only what is shown costs a tenth of the search in the whole event.
            text = _harmless(mask_known(delta)[:_PIECE_LENGTH].replace("\n", " "))  # spaces stay: a run joins pieces
        elif isinstance(event, events.InputAudioBufferAppend):
            audio_bytes, form, piece = len(event.audio), self._input, True
        else:
            self._follow_format(event)
            event = self.log.redacted(row).event
            text, trouble = _short(event), _is_trouble(event)
            named = event.error.event_id if isinstance(event, events.Error) else None
            cause = self._sent.get(named, -1) if isinstance(named, str) else -1
        if not received and isinstance(event.event_id, str):
            _remember(self._sent, event.event_id, index)
        audio_bytes = row.audio_dropped_bytes or audio_bytes
        flags = RECEIVED * received | TROUBLE * trouble | PIECE * piece
        time, ms = max(0.0, row.monotonic_s - (self._start_s or 0.0)), audio_bytes / form.bytes_per_ms
        numbers = f"{row.size_bytes},{audio_bytes},{10 * ms:.0f}"
        words = f"{self._ids_of(event)},{cause},{_quote(text)}"
        self._rows.append(mask_known(f"[{flags},{10_000 * time:.0f},{_quote(_word(kind))},{numbers},{words}]"))
        self._formats.append(form)

    def _ids_of(self, event: Event) -> str:
        """Return item, response, call and content index + 1 as JSON; an item's later events have its response, too."""
        get = event.payload.get if isinstance(event, UnknownEvent) else event.__dict__.get
        given = get("item_id"), get("response_id"), get("call_id"), get("content_index"), get("item"), get("response")
        if given == self._given:  # as for most pieces
            return self._ids
        item_id, response_id, call_id, content, item, response = given
        item_id, response_id = _word(item_id or _field(item, "id")), _word(response_id or _field(response, "id"))
        if item_id and response_id:
            _remember(self._response_of, item_id, response_id)
        words = item_id, response_id or self._response_of.get(item_id, ""), _word(call_id or _field(item, "call_id"))
        number = content + 1 if isinstance(content, int) else 0
        self._given, self._ids = given, f"{','.join(map(_quote, words))},{number}"
        return self._ids

    def _follow_format(self, event: Event) -> None:
        if isinstance(event, events.SessionCreated | events.SessionUpdated):
            self._input, self._output = event.session.input_format, event.session.output_format
        elif isinstance(event, events.ResponseCreated):
            output = event.response.audio and event.response.audio.output
            if output and output.format:
                _remember(self._of_response, event.response.id, output.format)


def _remember(mapping: dict[str, Any], key: str, value: Any) -> None:
    """Set an entry; of more than `_REMEMBERED` the oldest is forgotten."""
    mapping[key] = value
    if len(mapping) > _REMEMBERED:
        del mapping[next(iter(mapping))]


def _word(text: Any) -> str:
    """Return a type or an id as a row carries it; "" for anything that is no text."""
    return _harmless(text[:_WORD_LENGTH]) if isinstance(text, str) else ""


def _harmless(text: str) -> str:
    return text if text.isascii() else text.translate(REPLACED)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _is_trouble(event: Event) -> bool:
    if isinstance(event, UnknownEvent):
        return event.problem is not None
    if isinstance(event, events.ResponseDone):
        return event.response.status == "failed"
    return isinstance(event, events.Error) or event.type.endswith(".failed")


def _short(event: Event) -> str:
    """Return the summary that the row of an event shows: of an event without words, what stands in its JSON."""
    error = getattr(event, "error", None)
    if isinstance(event, events.ResponseDone):
        error = event.response.status_details and event.response.status_details.error
    if error:
        text = " ".join(f"{error.code or error.type or 'error'}: {error.message or ''}".split())
    elif isinstance(event, UnknownEvent) and not event.problem and event.type in CLIENT_EVENTS:
        text = "sent as it was typed"
    elif not (text := summary(event)):
        fields = json.loads(wire.encode(event)).items()
        text = ", ".join(f"{name}: {json.dumps(value)}" for name, value in fields if name not in ("type", "event_id"))
    return _harmless(text[:_SUMMARY_LENGTH])


SHOWN_LENGTH: Final = 2_000
"""Longest part of one text that is shown, characters; copy and export give all of it. Chosen."""
SHOWN_JSON: Final = 100_000
"""Longest JSON that is shown, characters; chosen."""
PLAYED_MS: Final = 60_000
"""Longest audio that is played from one run of pieces; chosen."""


def detail(rows: EventRows, first: int, last: int) -> dict[str, Any]:
    """Return the content of the pane: the JSON of an event, or audio and text of a folded run, joined."""
    row = rows.row(first)
    if last > first:
        events = [rows.row(index).event for index in rows.run(first, last)]
        text = "".join(delta for event in events if isinstance(delta := getattr(event, "delta", ""), str))
        size = sum(len(leaf) for event in events for _, leaf in _leaves(event) if isinstance(leaf, bytes))
        parts: list[Any] = [_audio(None, size, rows.format_of(first))] if size else []
        parts.append(text[:SHOWN_LENGTH].translate(REPLACED))
    else:
        parts = _parts(row.event, rows.format_of(first))
    return {"meaning": _meaning(row.event, row.direction), "parts": parts}


def whole_text(rows: EventRows, index: int) -> str:
    """Return an event as complete JSON, for the clipboard."""
    return json.dumps(json.loads(wire.encode(rows.row(index).event)), indent=2, ensure_ascii=False)


def contains(event: Event, needle: str) -> bool:
    """Return whether a text of an event contains `needle`, which is in lower case."""
    return any(isinstance(leaf, str) and needle in leaf.lower() for _, leaf in _leaves(event))


def _meaning(event: Event, direction: str) -> str:
    """Return the sentence that documents an event's class, or what is wrong with the event."""
    if isinstance(event, UnknownEvent) and event.problem:
        return redact(event.problem)[:SHOWN_LENGTH].translate(REPLACED)
    cls = (CLIENT_EVENTS if direction == "sent" else SERVER_EVENTS).get(event.type)  # also of an event typed by hand
    return " ".join(((cls and cls.__doc__) or "This version does not know this event; it is kept unchanged.").split())


# --- JSON without audio -----------------------------------------------------------------------------------------------


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str | bytes]]:
    """Yield every text and every audio in an event, or in its JSON, with its path."""
    if isinstance(value, str | bytes):
        yield path, value
    elif isinstance(value, Value):
        for name in vars(value):  # audio is decoded by reading the attribute
            yield from _leaves(getattr(value, name), path if name in ("extra", "payload") else (*path, name))
    elif isinstance(value, Mapping | tuple | list):
        for key, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(entry, (*path, key))


def _parts(event: Event, form: AudioFormat) -> list[str | dict[str, Any]]:
    """Return the JSON of an event as text, with long texts cut and an object wherever it holds audio."""
    try:
        message = json.loads(wire.encode(event))
    except LocalProtocolError as error:
        return [str(error)]
    for path, text in list(_leaves(message)):
        if len(text) > SHOWN_LENGTH:
            _put(message, path, f"{text[:SHOWN_LENGTH]!s} … ({len(text):,} characters, all of them with Copy)")
    mark, audio = secrets.token_hex(8), [(path, leaf) for path, leaf in _leaves(event) if isinstance(leaf, bytes)]
    for number, (path, _) in enumerate(audio):
        _put(message, path, f"{mark}{number}")
    text = json.dumps(message, indent=2, ensure_ascii=False).translate(ESCAPED)[:SHOWN_JSON]
    parts: list[Any] = re.split(f'"{mark}(\\d+)"', text)  # text, number of an audio, text …
    for place in range(1, len(parts), 2):
        number = int(parts[place])
        parts[place] = _audio(number, len(audio[number][1]), form)
    return parts


def _audio(number: int | None, size: int, form: AudioFormat) -> dict[str, Any]:
    return {"number": number, "bytes": size, "ms": size / form.bytes_per_ms}


def _put(message: Any, path: tuple[str | int, ...], value: str) -> None:
    for step in path[:-1]:
        message = message[step]
    message[path[-1]] = value


def sound(rows: EventRows, first: int, last: int, *, number: int | None = None) -> bytes:
    """Return the audio of an event (its `number`-th piece; None for all) or of a folded run, as PCM16 at 24 kHz.

    Raises
    ------
    AudioError
        There is none, or its format has no decoder.
    """
    form = rows.format_of(first)
    many = rows.run(first, last) if last > first else [first]
    found = [leaf for index in many for _, leaf in _leaves(rows.row(index).event) if isinstance(leaf, bytes)]
    pcm = b"".join(found if number is None else found[number : number + 1])[: PLAYED_MS * form.bytes_per_ms]
    if not pcm:
        raise AudioError("this event carries no audio")
    decoder = codec(form.type)
    samples = decoder.decode(pcm[: len(pcm) - len(pcm) % decoder.bytes_per_sample])
    return encode_pcm16(resample(samples, from_rate_hz=form.rate_hz, to_rate_hz=RATE_HZ))


# --- sending ----------------------------------------------------------------------------------------------------------


def check(text: str, *, dialect: Dialect, state: State | None) -> tuple[dict[str, Any] | None, str]:
    """Parse the JSON text of an event; return it and the reason why a service would refuse it ("" if it would not).

    The event is None where it cannot be sent at all.
    """
    try:
        message = wire.parse(text)
    except RemoteProtocolError as error:
        return None, f"This is {error}." if str(error).startswith("not JSON") else f"{error}."
    kind = message.get("type")
    if not isinstance(kind, str):
        return None, 'An event needs a "type", for example {"type": "response.create"}.'
    if kind in SERVER_EVENTS:
        return message, f"{kind} is a server event; a client does not send it."
    refusal = check_event(message, dialect=dialect)
    if refusal is None:
        event = wire.decode(message, dialect=dialect, registry=CLIENT_EVENTS)
        if isinstance(event, UnknownEvent):
            return message, event.problem or f"{kind} is no client event."
        refusal = check_state(state, event, dialect=dialect) if state is not None else None
    if refusal is None:
        return message, ""
    about = f" ({refusal.code})" if refusal.code else ""
    return message, f"The service would refuse this event{about}: {refusal.message}"
