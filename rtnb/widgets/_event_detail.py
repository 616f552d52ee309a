"""Details of one event, read on request: its JSON, its audio as WAV, its meaning, and the check before sending."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rtnb.audio import RATE_HZ, codec, encode_pcm16, resample
from rtnb.errors import AudioError, LocalProtocolError, RemoteProtocolError
from rtnb.protocol import wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.service.refusals import check_state
from rtnb.protocol.service.schema import check_event
from rtnb.protocol.state import State
from rtnb.protocol.values import AudioFormat, Dialect, Value
from rtnb.redaction import redact
from rtnb.widgets._event_rows import ESCAPED, REPLACED, EventRows

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
