"""What a session is after the events so far: session, input audio buffer, conversation and responses.

Every transition is in this file, in one table from event class to function, and none of them knows which role it
plays: the service changes its state by what it says, the client by what it reads, so after every exchange both hold
the same (`State.snapshot`). A client's events change nothing by themselves, except `input_audio_buffer.append`, which
is never answered.

The state keeps counts and text, not audio: who needs the samples keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import ContentPart, Item, Response, SessionConfig


@dataclass
class Part:
    """What has arrived of one content part of an assistant item."""

    text: str = ""
    transcript: str = ""
    audio_bytes: int = 0
    """Encoded bytes in the output format of the response."""


@dataclass
class Entry:
    """An item and what streamed into it."""

    item: Item
    parts: dict[int, Part] = field(default_factory=dict)
    """content_index -> what has arrived."""
    arguments: str = ""
    audio_bytes_per_ms: int = 48
    response_id: str | None = None
    truncated_ms: int | None = None
    """Where the item was cut, None while it is whole."""

    def part(self, content_index: Any) -> Part:
        """The part at `content_index`, made when it is new (services may leave the index out: 0)."""
        return self.parts.setdefault(content_index if isinstance(content_index, int) else 0, Part())

    @property
    def audio_ms(self) -> float:
        """Milliseconds of audio that arrived for this item, not shortened by a truncation."""
        return sum(p.audio_bytes for p in self.parts.values()) / self.audio_bytes_per_ms


@dataclass
class Running:
    """A response and the ids of its items."""

    response: Response
    item_ids: list[str] = field(default_factory=list)

    @property
    def in_conversation(self) -> bool:
        """False for a response outside the conversation (`conversation: "none"`)."""
        return self.response.conversation_id is not None


@dataclass
class InputAudioBuffer:
    """What was appended and not yet committed or cleared."""

    bytes: int = 0
    total_bytes: int = 0
    """All that was ever appended: the clock of `audio_start_ms` and `audio_end_ms`."""
    speech_item_id: str | None = None
    """The item a running user turn will become; None while nobody speaks."""


class State:
    """The four machines of a session: `session`, `input_audio_buffer`, `conversation`, `responses`."""

    def __init__(self) -> None:
        self.session: SessionConfig | None = None
        self.input_audio_buffer = InputAudioBuffer()
        self.order: list[str] = []
        """Ids of the conversation's items, first to last."""
        self.entries: dict[str, Entry] = {}
        """Every item seen, also those outside the conversation."""
        self.responses: dict[str, Running] = {}
        self.active_response_id: str | None = None
        """The response that is being generated into the conversation; at most one."""
        self.audio_produced = False
        """Whether the assistant spoke already: its voice is frozen from then on."""

    @property
    def conversation(self) -> list[Item]:
        """The items in order."""
        return [self.entries[item_id].item for item_id in self.order]

    def apply(self, event: Event) -> None:
        """Follow one event, sent or received; events without a transition change nothing."""
        transition = _TRANSITIONS.get(type(event))
        if transition is not None:
            transition(self, event)

    def snapshot(self) -> dict[str, Any]:
        """Everything as plain data, equal on both sides after every exchange; later events do not change it."""
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


# --- session and input audio buffer -----------------------------------------------------------------------------------


def _session(state: State, event: events.SessionCreated | events.SessionUpdated) -> None:
    state.session = event.session  # always whole: what is not in it any more does not hold any more


def _append(state: State, event: events.InputAudioBufferAppend) -> None:
    state.input_audio_buffer.bytes += len(event.audio)
    state.input_audio_buffer.total_bytes += len(event.audio)


def _speech_started(state: State, event: events.InputAudioBufferSpeechStarted) -> None:
    state.input_audio_buffer.speech_item_id = event.item_id or ""


def _speech_stopped(state: State, event: events.InputAudioBufferSpeechStopped) -> None:
    state.input_audio_buffer.speech_item_id = None


def _buffer_emptied(state: State, event: Event) -> None:
    state.input_audio_buffer.bytes = 0
    state.input_audio_buffer.speech_item_id = None  # the turn became an item, or is forgotten


# --- conversation -----------------------------------------------------------------------------------------------------


def _item_entered(
    state: State, event: events.ConversationItemAdded | events.ConversationItemCreated | events.ConversationItemDone
) -> None:
    item_id = _item(state, event.item)
    if item_id in state.order:
        return
    previous = event.previous_item_id
    if previous is None:
        state.order.insert(0, item_id)
    elif previous in state.order:
        state.order.insert(state.order.index(str(previous)) + 1, item_id)
    else:
        state.order.append(item_id)


def _item(state: State, item: Item) -> str:
    """Remember the newest word on an item; a later event never takes away a transcript that is already known."""
    item_id = item.id or ""
    entry = state.entries.setdefault(item_id, Entry(item=item))
    content = tuple(_known_part(entry, i, part) for i, part in enumerate(item.content or ()))
    entry.item = replace(item, content=content or entry.item.content)
    return item_id


def _known_part(entry: Entry, index: int, part: ContentPart) -> ContentPart:
    """The part as the service shows it, with the transcript that came earlier, or without the one that was cut."""
    if entry.truncated_ms is not None:
        return replace(part, transcript=None) if part.transcript else part
    if part.transcript:
        return part
    old = entry.item.content[index : index + 1] if entry.item.content else ()
    known = old[0].transcript if old else None
    if not known and part.type == "input_audio" and index in entry.parts:
        known = entry.parts[index].transcript
    return replace(part, transcript=known) if known else part


def _item_deleted(state: State, event: events.ConversationItemDeleted) -> None:
    state.entries.pop(event.item_id, None)
    if event.item_id in state.order:
        state.order.remove(event.item_id)


def _item_truncated(state: State, event: events.ConversationItemTruncated) -> None:
    entry = state.entries.get(event.item_id)
    if entry is not None:
        entry.truncated_ms = event.audio_end_ms
        _set_transcript(entry, event.content_index, None)


def _transcribed(state: State, event: events.ConversationItemInputAudioTranscriptionCompleted) -> None:
    entry = state.entries.setdefault(event.item_id, Entry(item=Item(type="message", id=event.item_id)))
    entry.part(event.content_index).transcript = event.transcript  # the item itself may come later
    _set_transcript(entry, event.content_index or 0, event.transcript)


def _set_transcript(entry: Entry, content_index: int, transcript: str | None) -> None:
    content = list(entry.item.content or ())
    if 0 <= content_index < len(content):
        content[content_index] = replace(content[content_index], transcript=transcript)
        entry.item = replace(entry.item, content=tuple(content))


# --- responses --------------------------------------------------------------------------------------------------------


def _response_created(state: State, event: events.ResponseCreated) -> None:
    running = Running(event.response)
    state.responses[event.response.id] = running
    if running.in_conversation:
        state.active_response_id = event.response.id


def _response_done(state: State, event: events.ResponseDone) -> None:
    running = state.responses.setdefault(event.response.id, Running(event.response))
    running.response = event.response
    if state.active_response_id == event.response.id:
        state.active_response_id = None


def _output_item(state: State, event: events.ResponseOutputItemAdded | events.ResponseOutputItemDone) -> None:
    item_id = _item(state, event.item)
    entry = state.entries[item_id]
    entry.response_id = event.response_id
    running = state.responses.get(event.response_id)
    if running is not None:
        if item_id not in running.item_ids:
            running.item_ids.append(item_id)
        output = running.response.audio and running.response.audio.output
        session_format = state.session.output_format if state.session else None
        output_format = (output and output.format) or session_format
        if output_format:
            entry.audio_bytes_per_ms = output_format.bytes_per_ms


def _entry(state: State, event: Any) -> Entry:
    """The entry a delta belongs to, made when the service skipped its announcement."""
    entry = state.entries.get(event.item_id)
    if entry is None:
        entry = Entry(item=Item(type="message", id=event.item_id), response_id=event.response_id)
        state.entries[event.item_id] = entry
    return entry


def _text_delta(state: State, event: events.ResponseOutputTextDelta) -> None:
    _entry(state, event).part(event.content_index).text += event.delta


def _text_done(state: State, event: events.ResponseOutputTextDone) -> None:
    _entry(state, event).part(event.content_index).text = event.text


def _transcript_delta(state: State, event: events.ResponseOutputAudioTranscriptDelta) -> None:
    _entry(state, event).part(event.content_index).transcript += event.delta


def _transcript_done(state: State, event: events.ResponseOutputAudioTranscriptDone) -> None:
    _entry(state, event).part(event.content_index).transcript = event.transcript


def _audio_delta(state: State, event: events.ResponseOutputAudioDelta) -> None:
    _entry(state, event).part(event.content_index).audio_bytes += event.audio_bytes
    state.audio_produced = True


def _spoken(state: State, event: Event) -> None:
    state.audio_produced = True  # WebRTC: the audio itself takes another way


def _arguments_delta(state: State, event: events.ResponseFunctionCallArgumentsDelta) -> None:
    _entry(state, event).arguments += event.delta


def _arguments_done(state: State, event: events.ResponseFunctionCallArgumentsDone) -> None:
    _entry(state, event).arguments = event.arguments


_TRANSITIONS: Final[dict[type[Event], Callable[[State, Any], None]]] = {
    events.SessionCreated: _session,
    events.SessionUpdated: _session,
    events.InputAudioBufferAppend: _append,
    events.InputAudioBufferSpeechStarted: _speech_started,
    events.InputAudioBufferSpeechStopped: _speech_stopped,
    events.InputAudioBufferCommitted: _buffer_emptied,
    events.InputAudioBufferCleared: _buffer_emptied,
    events.ConversationItemAdded: _item_entered,
    events.ConversationItemCreated: _item_entered,
    events.ConversationItemDone: _item_entered,
    events.ConversationItemDeleted: _item_deleted,
    events.ConversationItemTruncated: _item_truncated,
    events.ConversationItemInputAudioTranscriptionCompleted: _transcribed,
    events.ResponseCreated: _response_created,
    events.ResponseDone: _response_done,
    events.ResponseOutputItemAdded: _output_item,
    events.ResponseOutputItemDone: _output_item,
    events.ResponseOutputTextDelta: _text_delta,
    events.ResponseOutputTextDone: _text_done,
    events.ResponseOutputAudioTranscriptDelta: _transcript_delta,
    events.ResponseOutputAudioTranscriptDone: _transcript_done,
    events.ResponseOutputAudioDelta: _audio_delta,
    events.OutputAudioBufferStarted: _spoken,
    events.ResponseFunctionCallArgumentsDelta: _arguments_delta,
    events.ResponseFunctionCallArgumentsDone: _arguments_done,
}
"""Event class -> transition. What is not listed changes no state."""
