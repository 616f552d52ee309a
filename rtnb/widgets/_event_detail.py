"""One event in full, on demand: its JSON without audio, its audio as WAV, what it means, whether it may be sent."""

from __future__ import annotations

import base64
import io
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import UnionType
from typing import Any, Final

import numpy as np

from rtnb.audio import codec, write_wav
from rtnb.errors import AudioError, LocalProtocolError, RemoteProtocolError
from rtnb.protocol import events, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.service.refusals import check_state
from rtnb.protocol.service.schema import check_event
from rtnb.protocol.state import State
from rtnb.protocol.values import AudioFormat, Dialect, Unset, Value
from rtnb.redaction import redact
from rtnb.widgets._event_rows import EventRows

SHOWN_LENGTH: Final = 2_000
"""Longest piece of a text that is shown, characters; copying and exporting give all of it. Chosen."""
PLAYED_MS: Final = 60_000
"""Longest audio that is played from one run of pieces; chosen."""

_FIELDS = {
    "event_id": "Names this event; an error says which client event it is about by it.",
    "item_id": "The item of the conversation this is about.",
    "response_id": "The response (one generation) this belongs to.",
    "call_id": "Joins a function call to its output.",
    "output_index": "Which item of the response, counted from 0.",
    "content_index": "Which part of the item's content, counted from 0.",
    "delta": "The piece itself: text, or audio as base64.",
    "audio": "Encoded audio (PCM or G.711 bytes) as base64.",
    "transcript": "What was said, in writing.",
    "text": "The whole text.",
    "arguments": "JSON text of the call's arguments; it can be invalid.",
    "name": "The function that is called.",
    "item": "A message, a function call, its output, or one of the MCP kinds.",
    "part": "One piece of an item's content.",
    "response": "One generation: its status, its items, and at the end what it used.",
    "session": "Settings; in an update only what is to change.",
    "error": "What went wrong: type, code, message, param, and the event_id of the client event.",
    "previous_item_id": "The item before this one; null at the beginning.",
    "audio_start_ms": "Milliseconds of all audio appended in this session until speech began.",
    "audio_end_ms": "Milliseconds of audio, from the first one appended or, in a cut, of the item.",
    "logprobs": "How sure the transcription is of each token.",
    "usage": "Tokens or seconds this took.",
    "rate_limits": "For each quota: limit, what is left, and seconds until it is full again.",
    "conversation": "The conversation and its id.",
}
"""What a field means, where it means the same in every event."""

_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false", bytes: "audio, base64"}


def detail(rows: EventRows, index: int) -> dict[str, Any]:
    """All the pane shows of one event."""
    row = rows.row(index)
    message, audio, cuts = _shown(row.event, rows.format_of(index))
    cause = rows.cause_of(index)
    return {
        "index": index,
        "type": row.type[:SHOWN_LENGTH],
        "wall_time": row.wall_time,
        **meaning(row.event, row.direction),
        "json": message,
        "audio": audio,
        "cuts": cuts,
        "cause": None if cause is None else {"index": cause, "type": rows.row(cause).type},
        "errors": [{"index": error, "text": rows.summary(error)} for error in rows.errors_of.get(index, [])],
    }


def run_detail(rows: EventRows, first: int, last: int) -> dict[str, Any]:
    """What the pane shows of a folded run: the same, with all its pieces of text joined."""
    found = [rows.row(index).event for index in rows.run(first, last)]
    pieces = [delta for event in found if isinstance(delta := getattr(event, "delta", ""), str)]
    text = "".join(pieces)
    row = rows.row(first)
    return {"type": row.type, **meaning(row.event, row.direction), "count": len(found), "text": text[:SHOWN_LENGTH]}


def whole_text(rows: EventRows, index: int) -> str:
    """The event as JSON with everything in it, for the clipboard."""
    return json.dumps(json.loads(wire.encode(rows.row(index).event)), indent=2, ensure_ascii=False)


def contains(event: Event, needle: str) -> bool:
    """Whether any text of an event contains `needle` (lower case)."""
    if isinstance(event, UnknownEvent):
        return needle in json.dumps(dict(event.payload), ensure_ascii=False).lower()
    return any(needle in text.lower() for text in _texts(event))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Value):
        yield from _texts(vars(value))
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _texts(entry)
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from _texts(entry)


# --- meaning ----------------------------------------------------------------------------------------------------------


def meaning(event: Event, direction: str) -> dict[str, Any]:
    """What an event says in words, and its fields."""
    registry = CLIENT_EVENTS if direction == "sent" else SERVER_EVENTS
    cls = registry.get(event.type)  # of an event that was typed, too
    problem = redact(event.problem) if isinstance(event, UnknownEvent) and event.problem else None
    if problem or cls is None:
        return {"meaning": problem or "An event this version does not know; it is kept as it came.", "fields": []}
    hints = typing.get_type_hints(cls)
    listed = [field for field in fields(cls) if field.name != "extra"]
    return {"meaning": " ".join((cls.__doc__ or "").split()), "fields": [_told(field, hints) for field in listed]}


def _told(field: Field[Any], hints: dict[str, Any]) -> dict[str, Any]:
    needed = field.default is MISSING and field.default_factory is MISSING
    return {
        "name": field.name,
        "kind": _kind(hints[field.name]),
        "needed": needed,
        "what": _FIELDS.get(field.name, ""),
    }


def _kind(hint: Any) -> str:
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    names = []
    for member in members:
        if member in (Unset, type(None)):
            continue
        origin = typing.get_origin(member)
        names.append("list" if origin is tuple else _KINDS.get(member, "object"))
    return " or ".join(dict.fromkeys(names))


# --- JSON without audio -----------------------------------------------------------------------------------------------


def _shown(event: Event, form: AudioFormat) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """The event as JSON; where its audio was, and where long texts were cut."""
    try:
        message = json.loads(wire.encode(event))
    except LocalProtocolError as error:
        return {"type": event.type, "problem": str(error)}, [], []
    audio = []
    for number, (path, pcm) in enumerate(_sounds(event)):
        _put(message, path, None)
        audio.append({"path": path, "number": number, "bytes": len(pcm), "ms": len(pcm) / form.bytes_per_ms})
    cuts: list[dict[str, Any]] = []
    return _cut(message, [], cuts), audio, cuts


def _sounds(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[list[str | int], bytes]]:
    """Every piece of audio in an event with its place in the JSON."""
    if isinstance(value, bytes):
        yield list(path), value
    elif isinstance(value, Value):
        for name, entry in vars(value).items():
            if name not in ("extra", "payload"):
                yield from _sounds(entry, (*path, name))
    elif isinstance(value, tuple):
        for place, entry in enumerate(value):
            yield from _sounds(entry, (*path, place))


def _put(message: Any, path: Sequence[str | int], value: Any) -> None:
    for step in path[:-1]:
        message = message[step]
    message[path[-1]] = value


def _cut(value: Any, path: list[str | int], cuts: list[dict[str, Any]]) -> Any:
    if isinstance(value, str) and len(value) > SHOWN_LENGTH:
        cuts.append({"path": path, "length": len(value)})
        return value[:SHOWN_LENGTH]
    if isinstance(value, dict):
        return {key[:SHOWN_LENGTH]: _cut(entry, [*path, key[:SHOWN_LENGTH]], cuts) for key, entry in value.items()}
    if isinstance(value, list):
        return [_cut(entry, [*path, place], cuts) for place, entry in enumerate(value)]
    return value


# --- audio ------------------------------------------------------------------------------------------------------------


def sound(rows: EventRows, first: int, last: int, *, number: int = 0) -> str:
    """The audio of an event (its `number`-th piece) or of a folded run, as a base64 WAV.

    Raises
    ------
    AudioError
        There is none, or its format has no decoder.
    """
    form = rows.format_of(first)
    if first == last:
        found = [pcm for _, pcm in _sounds(rows.row(first).event)][number : number + 1]
    else:
        found = [pcm for index in rows.run(first, last) for _, pcm in _sounds(rows.row(index).event)]
    pcm = b"".join(found)[: PLAYED_MS * form.bytes_per_ms]
    if not pcm:
        raise AudioError("this event carries no audio")
    decoder = codec(form.type)
    samples = decoder.decode(pcm[: len(pcm) - len(pcm) % decoder.bytes_per_sample])
    file = io.BytesIO()
    write_wav(file, np.asarray(samples), rate_hz=form.rate_hz)
    return base64.b64encode(file.getvalue()).decode()


# --- sending ----------------------------------------------------------------------------------------------------------


def check(text: str, *, dialect: Dialect, state: State | None) -> tuple[dict[str, Any] | None, str]:
    """Read an event a person typed; return it and why a service would refuse it ("" if it would not).

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
        return message, f"{kind} is what a service says; a client does not send it."
    refusal = check_event(message, dialect=dialect)
    if refusal is None:
        event = wire.decode(message, dialect=dialect, registry=CLIENT_EVENTS)
        if isinstance(event, UnknownEvent):
            return message, event.problem or f"{kind} is no event a client says."
        refusal = check_state(state, event, dialect=dialect) if state is not None else None
    if refusal is None:
        return message, ""
    about = f" ({refusal.code})" if refusal.code else ""
    return message, f"The service would refuse it{about}: {refusal.message}"


def templates() -> dict[str, str]:
    """For every client event, the JSON to begin with."""
    return {kind: json.dumps({"type": kind, **_BEGINNINGS.get(kind, {})}, indent=2) for kind in CLIENT_EVENTS}


_ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
_BEGINNINGS: dict[str, dict[str, Any]] = {
    events.SessionUpdate.type: {"session": {"type": "realtime", "instructions": "Be brief."}},
    events.InputAudioBufferAppend.type: {"audio": "AAAA"},
    events.ConversationItemCreate.type: {"item": _ITEM},
    events.ConversationItemRetrieve.type: {"item_id": "item_…"},
    events.ConversationItemTruncate.type: {"item_id": "item_…", "content_index": 0, "audio_end_ms": 0},
    events.ConversationItemDelete.type: {"item_id": "item_…"},
}
