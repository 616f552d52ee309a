"""State of a session after the events so far: session, input audio buffer, conversation and responses.

Every transition is in this file, registered for its event classes, and none of them knows which role it plays: the
service follows the events that it sends, the client those that it reads. So after every exchange both hold the same
(`State.snapshot`). A client's own events change nothing until the service confirms them, except
`input_audio_buffer.append`, which has no reply.

The state keeps counts and text, not audio. Its tables are bounded, see `ITEM_LIMIT` and `RESPONSE_LIMIT`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, SupportsIndex, TypeVar

from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import ContentPart, Item, Response, SessionConfig

ITEM_LIMIT: Final = 10_000
"""Most items that are remembered; a new one beyond them makes the state forget the oldest; chosen."""
RESPONSE_LIMIT: Final = 256
"""Most responses that are remembered; a new one beyond them makes the state forget the oldest finished one, or the
oldest of all where none has finished; chosen."""


@dataclass
class Part:
    """Received content of one part of an item."""

    text: str = ""
    transcript: str = ""
    audio_bytes: int = 0
    """Encoded bytes in the output format of the response."""


@dataclass
class Entry:
    """Item with the content that streamed into it."""

    item: Item
    parts: dict[int, Part] = field(default_factory=dict)
    """content_index -> received content."""
    arguments: str = ""
    audio_bytes_per_ms: int = 48
    response_id: str | None = None
    truncated_ms: int | None = None
    """End of the item after a truncation, None while it is whole."""

    @property
    def audio_ms(self) -> float:
        """Milliseconds of audio that arrived for this item, not shortened by a truncation."""
        return sum(p.audio_bytes for p in self.parts.values()) / self.audio_bytes_per_ms


@dataclass
class Running:
    """Response and the ids of its items."""

    response: Response
    item_ids: list[str] = field(default_factory=list)
    done: bool = False
    """Whether `response.done` arrived; later events of the response itself change nothing."""

    @property
    def in_conversation(self) -> bool:
        """False for a response outside the conversation (`conversation: "none"`)."""
        return self.response.conversation_id is not None


@dataclass
class InputAudioBuffer:
    """Audio that was appended and not yet committed or cleared."""

    bytes: int = 0
    total_bytes: int = 0
    """All bytes ever appended: the clock of `audio_start_ms` and `audio_end_ms`."""
    speech_item_id: str | None = None
    """Id of the item that a running user turn will become; None outside a turn."""


class Order(list[str]):
    """Item ids, first to last, as a list whose membership test and appending take the same time at any length."""

    def __init__(self) -> None:
        super().__init__()
        self._members: set[str] = set()

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._members

    def append(self, item_id: str) -> None:
        self._members.add(item_id)
        super().append(item_id)

    def insert(self, index: SupportsIndex, item_id: str) -> None:
        self._members.add(item_id)
        super().insert(index, item_id)

    def remove(self, item_id: str) -> None:
        self._members.remove(item_id)
        super().remove(item_id)


class State:
    """The four machines of a session: `session`, `input_audio_buffer`, `conversation`, `responses`."""

    def __init__(self) -> None:
        self.session: SessionConfig | None = None
        self.input_audio_buffer = InputAudioBuffer()
        self.order: list[str] = Order()
        """Ids of the conversation's items, first to last."""
        self.entries: dict[str, Entry] = {}
        """The last `ITEM_LIMIT` items seen, also those outside the conversation."""
        self.responses: dict[str, Running] = {}
        """The last `RESPONSE_LIMIT` responses."""
        self.active_response_id: str | None = None
        """The response that is being generated into the conversation; at most one."""
        self.audio_produced = False
        """Whether the assistant has sent audio: its voice is frozen from then on."""

    @property
    def conversation(self) -> list[Item]:
        """The items in order."""
        # A copy, and without those that are gone: another thread may read while events arrive.
        return [entry.item for entry in map(self.entries.get, tuple(self.order)) if entry is not None]

    def apply(self, event: Event) -> None:
        """Follow one event, sent or received; events without a transition change nothing."""
        transition = TRANSITIONS.get(type(event))
        if transition is not None:
            transition(self, event)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain data, equal on both sides after every exchange; later events do not change it."""
        return {
            "session": self.session,
            "input_audio_buffer": vars(self.input_audio_buffer).copy(),
            "order": list(self.order),
            "entries": {
                k: vars(v) | {"parts": {i: vars(p).copy() for i, p in v.parts.items()}} for k, v in self.entries.items()
            },
            "responses": {k: vars(v) | {"item_ids": list(v.item_ids)} for k, v in self.responses.items()},
            "active_response_id": self.active_response_id,
            "audio_produced": self.audio_produced,
        }


TRANSITIONS: Final[dict[type[Event], Callable[[State, Any], None]]] = {}
"""Event class -> transition. A class without one changes no state."""

_T = TypeVar("_T", bound=Callable[[State, Any], None])


def _on(*classes: type[Event]) -> Callable[[_T], _T]:
    """Register a function as the transition of event classes."""

    def register(transition: _T) -> _T:
        TRANSITIONS.update(dict.fromkeys(classes, transition))
        return transition

    return register


# --- session and input audio buffer -----------------------------------------------------------------------------------


@_on(events.SessionCreated, events.SessionUpdated)
def _session(state: State, event: events.SessionCreated | events.SessionUpdated) -> None:
    state.session = event.session  # always whole: a setting that is absent holds no longer


@_on(events.InputAudioBufferAppend)
def _append(state: State, event: events.InputAudioBufferAppend) -> None:
    state.input_audio_buffer.bytes += len(event.audio)
    state.input_audio_buffer.total_bytes += len(event.audio)


@_on(events.InputAudioBufferSpeechStarted)
def _speech_started(state: State, event: events.InputAudioBufferSpeechStarted) -> None:
    state.input_audio_buffer.speech_item_id = event.item_id or ""


@_on(events.InputAudioBufferSpeechStopped)
def _speech_stopped(state: State, event: Event) -> None:
    state.input_audio_buffer.speech_item_id = None


@_on(events.InputAudioBufferCommitted, events.InputAudioBufferCleared)
def _buffer_emptied(state: State, event: Event) -> None:
    state.input_audio_buffer.bytes = 0
    state.input_audio_buffer.speech_item_id = None  # the turn became an item, or is forgotten


# --- conversation -----------------------------------------------------------------------------------------------------


@_on(events.ConversationItemAdded, events.ConversationItemCreated, events.ConversationItemDone)
def _item_entered(state: State, event: events.ConversationItemAdded) -> None:
    item_id = event.item.id or ""
    _update_item(_entry(state, item_id), event.item)
    if item_id in state.order:
        return
    previous, order = event.previous_item_id, state.order
    if previous is None:
        order.insert(0, item_id)
    elif previous in order and previous != order[-1]:
        order.insert(order.index(str(previous)) + 1, item_id)
    else:
        order.append(item_id)


def _entry(state: State, item_id: str, response_id: str | None = None) -> Entry:
    """Return the entry of an item, made where the service skipped or lost its announcement."""
    entry = state.entries.get(item_id)
    if entry is None:
        entry = state.entries[item_id] = Entry(Item(type="message", id=item_id), response_id=response_id)
        if len(state.entries) > ITEM_LIMIT:
            oldest = next(iter(state.entries))
            del state.entries[oldest]
            if oldest in state.order:
                state.order.remove(oldest)
    return entry


def _update_item(entry: Entry, item: Item) -> None:
    """Take over the newest version of an item; it never takes away a transcript that is already known."""
    content = tuple(_known_part(entry, i, part) for i, part in enumerate(item.content or ()))
    entry.item = replace(item, content=content or (entry.item.content if entry.item.content else item.content))


def _known_part(entry: Entry, index: int, part: ContentPart) -> ContentPart:
    """Return the part with the transcript that arrived earlier, or without the one that was truncated."""
    if entry.truncated_ms is not None:
        return replace(part, transcript=None) if part.transcript else part
    if part.transcript:
        return part
    old = entry.item.content[index : index + 1] if entry.item.content else ()
    known = old[0].transcript if old else None
    if not known and part.type == "input_audio" and index in entry.parts:
        known = entry.parts[index].transcript
    return replace(part, transcript=known) if known else part


@_on(events.ConversationItemDeleted)
def _item_deleted(state: State, event: events.ConversationItemDeleted) -> None:
    state.entries.pop(event.item_id, None)
    if event.item_id in state.order:
        state.order.remove(event.item_id)


@_on(events.ConversationItemTruncated)
def _item_truncated(state: State, event: events.ConversationItemTruncated) -> None:
    entry = state.entries.get(event.item_id)
    if entry is not None:
        entry.truncated_ms = event.audio_end_ms
        _set_transcript(entry, event.content_index or 0, None)


@_on(events.ConversationItemInputAudioTranscriptionCompleted)
def _transcribed(state: State, event: events.ConversationItemInputAudioTranscriptionCompleted) -> None:
    entry = _entry(state, event.item_id)
    entry.parts.setdefault(event.content_index or 0, Part()).transcript = event.transcript  # the item may come later
    _set_transcript(entry, event.content_index or 0, event.transcript)


def _set_transcript(entry: Entry, content_index: int, transcript: str | None) -> None:
    content = list(entry.item.content or ())
    if 0 <= content_index < len(content):
        content[content_index] = replace(content[content_index], transcript=transcript)
        entry.item = replace(entry.item, content=tuple(content))


# --- responses --------------------------------------------------------------------------------------------------------


@_on(events.ResponseCreated)
def _response_created(state: State, event: events.ResponseCreated) -> None:
    running = _running(state, event.response)
    if not running.done:
        running.response = event.response
        if running.in_conversation:
            state.active_response_id = event.response.id


@_on(events.ResponseDone)
def _response_done(state: State, event: events.ResponseDone) -> None:
    running = _running(state, event.response)
    if not running.done:
        running.response, running.done = event.response, True
        if state.active_response_id == event.response.id:
            state.active_response_id = None


def _running(state: State, response: Response) -> Running:
    """Return the record of a response, made where there is none."""
    running = state.responses.get(response.id)
    if running is None:
        running = state.responses[response.id] = Running(response)
        if len(state.responses) > RESPONSE_LIMIT:
            finished = (k for k, old in state.responses.items() if old.done)
            del state.responses[next(finished, next(iter(state.responses)))]
    return running


@_on(events.ResponseOutputItemAdded, events.ResponseOutputItemDone)
def _output_item(state: State, event: events.ResponseOutputItemAdded | events.ResponseOutputItemDone) -> None:
    item_id = event.item.id or ""
    entry = _entry(state, item_id)
    _update_item(entry, event.item)
    entry.response_id = event.response_id
    running = _running(state, Response(id=event.response_id))  # `response.created` may be lost
    if item_id not in running.item_ids:
        running.item_ids.append(item_id)
    output = running.response.audio and running.response.audio.output
    output_format = (output and output.format) or (state.session and state.session.output_format)
    if output_format:
        entry.audio_bytes_per_ms = output_format.bytes_per_ms


@_on(events.ResponseOutputTextDelta, events.ResponseOutputAudioTranscriptDelta, events.ResponseOutputAudioDelta)
def _delta(state: State, event: Any) -> None:
    """Add a piece to its part. Most events are of these three classes, so the usual case calls no function."""
    entry = state.entries.get(event.item_id)
    part = None if entry is None else entry.parts.get(event.content_index or 0)
    if part is None:
        part = _part(state, event)
    if event.__class__ is events.ResponseOutputAudioDelta:
        held = event.__dict__["delta"]  # base64 as received, bytes as sent; reading `event.delta` would decode it
        part.audio_bytes += len(held) // 4 * 3 - held.count("=", -2) if held.__class__ is str else len(held)
        state.audio_produced = True
    elif event.__class__ is events.ResponseOutputTextDelta:
        part.text += event.delta
    else:
        part.transcript += event.delta


def _part(state: State, event: Any) -> Part:
    """Return the part of an event, made where it is new; without an index it is the first part."""
    return _entry(state, event.item_id, event.response_id).parts.setdefault(event.content_index or 0, Part())


@_on(events.ResponseOutputTextDone)
def _text_done(state: State, event: events.ResponseOutputTextDone) -> None:
    _part(state, event).text = event.text


@_on(events.ResponseOutputAudioTranscriptDone)
def _transcript_done(state: State, event: events.ResponseOutputAudioTranscriptDone) -> None:
    _part(state, event).transcript = event.transcript


@_on(events.OutputAudioBufferStarted)
def _playing(state: State, event: Event) -> None:
    state.audio_produced = True  # WebRTC: the audio itself takes another path


@_on(events.ResponseFunctionCallArgumentsDelta)
def _arguments_delta(state: State, event: events.ResponseFunctionCallArgumentsDelta) -> None:
    _entry(state, event.item_id, event.response_id).arguments += event.delta


@_on(events.ResponseFunctionCallArgumentsDone)
def _arguments_done(state: State, event: events.ResponseFunctionCallArgumentsDone) -> None:
    _entry(state, event.item_id, event.response_id).arguments = event.arguments
