"""The vocabulary: one frozen dataclass per wire event, class name = GA wire type in CamelCase.

`event_id` is optional for the client and always given by the service. Every field beyond the documented ones is kept
in `extra`; every event type beyond these is an `UnknownEvent`. What may be left out on the wire defaults to `UNSET`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, dataclass_transform

from rtnb.protocol.values import (
    UNSET,
    ContentPart,
    EncodedAudio,
    ErrorDetail,
    Item,
    JsonObject,
    RateLimit,
    Response,
    ResponseConfig,
    SessionConfig,
    Unset,
    Usage,
    Value,
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Event(Value):
    """What all events share."""

    type: ClassVar[str]
    """The wire type (GA spelling)."""

    event_id: str | Unset | None = UNSET
    """Chosen by the sender; the service names the offending client event by it in an `error`."""


@dataclass(frozen=True, kw_only=True, repr=False)
class UnknownEvent(Event):
    """An event this version does not know, or whose fields do not fit: kept whole in `payload`, never dropped."""

    type: str  # type: ignore[misc]  # the one event whose type is data
    payload: JsonObject
    """The whole JSON object as it came."""
    problem: str | None = None
    """None for an unknown type; otherwise which field of a known type does not fit."""


CLIENT_EVENTS: dict[str, type[Event]] = {}
"""What a client may say: wire type -> class."""
SERVER_EVENTS: dict[str, type[Event]] = {}
"""What a service may say: wire type -> class."""

_E = TypeVar("_E", bound=type[Event])


@dataclass_transform(frozen_default=True, kw_only_default=True)
def client_event(wire_type: str) -> Callable[[_E], _E]:
    """Make a class a frozen dataclass and register it as what a client says."""
    return lambda cls: _register(cls, wire_type, CLIENT_EVENTS)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def server_event(wire_type: str) -> Callable[[_E], _E]:
    """Make a class a frozen dataclass and register it as what a service says."""
    return lambda cls: _register(cls, wire_type, SERVER_EVENTS)


def _register(cls: Any, wire_type: str, registry: dict[str, type[Event]]) -> Any:
    made = dataclass(frozen=True, kw_only=True, repr=False)(cls)
    made.type = wire_type
    registry[wire_type] = made
    return made


# --- sent by the client -----------------------------------------------------------------------------------------------


@client_event("session.update")
class SessionUpdate(Event):
    """Change settings; answered by `session.updated`, or by `error`, and then nothing at all has changed."""

    session: SessionConfig


@client_event("input_audio_buffer.append")
class InputAudioBufferAppend(Event):
    """Add audio in the session's input format; no answer. At most 15 MiB."""

    audio: bytes


@client_event("input_audio_buffer.commit")
class InputAudioBufferCommit(Event):
    """Make the buffered audio (at least 100 ms) a user item; does not create a response."""


@client_event("input_audio_buffer.clear")
class InputAudioBufferClear(Event):
    """Forget the buffered audio."""


@client_event("conversation.item.create")
class ConversationItemCreate(Event):
    """Put an item into the conversation."""

    item: Item
    previous_item_id: str | Unset | None = UNSET
    """Insert after this item; ``"root"`` puts it first; absent appends."""


@client_event("conversation.item.retrieve")
class ConversationItemRetrieve(Event):
    """Ask for an item with its audio."""

    item_id: str


@client_event("conversation.item.truncate")
class ConversationItemTruncate(Event):
    """Cut an assistant item to what was heard, so that the model does not remember unheard words."""

    item_id: str
    content_index: int
    audio_end_ms: int


@client_event("conversation.item.delete")
class ConversationItemDelete(Event):
    """Remove an item."""

    item_id: str


@client_event("response.create")
class ResponseCreate(Event):
    """Ask for a response."""

    response: ResponseConfig | Unset = UNSET


@client_event("response.cancel")
class ResponseCancel(Event):
    """Stop the running response; answered by `response.done` with status ``cancelled``."""

    response_id: str | Unset = UNSET


@client_event("output_audio_buffer.clear")
class OutputAudioBufferClear(Event):
    """WebRTC and SIP only: stop the audio the service is playing out."""


# --- sent by the service ----------------------------------------------------------------------------------------------


@server_event("error")
class Error(Event):
    """Something was refused; the session goes on unless the connection closes."""

    error: ErrorDetail


@server_event("session.created")
class SessionCreated(Event):
    """The first event: the session exists, with these settings."""

    session: SessionConfig


@server_event("session.updated")
class SessionUpdated(Event):
    """The whole effective configuration after an update."""

    session: SessionConfig


@server_event("conversation.created")
class ConversationCreated(Event):
    """Preview services say it after `session.created`; not seen in GA."""

    conversation: JsonObject


@server_event("conversation.item.added")
class ConversationItemAdded(Event):
    """An item entered the conversation (GA)."""

    item: Item
    previous_item_id: str | Unset | None = UNSET


@server_event("conversation.item.done")
class ConversationItemDone(Event):
    """An item is final (GA)."""

    item: Item
    previous_item_id: str | Unset | None = UNSET


@server_event("conversation.item.created")
class ConversationItemCreated(Event):
    """Preview: an item entered the conversation."""

    item: Item
    previous_item_id: str | Unset | None = UNSET


@server_event("conversation.item.retrieved")
class ConversationItemRetrieved(Event):
    """The item asked for, with its audio."""

    item: Item


@server_event("conversation.item.deleted")
class ConversationItemDeleted(Event):
    """The item is gone."""

    item_id: str


@server_event("conversation.item.truncated")
class ConversationItemTruncated(Event):
    """The item now ends at `audio_end_ms`; its transcript is removed on the service."""

    item_id: str
    content_index: int
    audio_end_ms: int


@server_event("conversation.item.input_audio_transcription.delta")
class ConversationItemInputAudioTranscriptionDelta(Event):
    """A piece of what the user said."""

    item_id: str
    content_index: int | Unset = UNSET
    delta: str | Unset = UNSET
    logprobs: tuple[JsonObject, ...] | Unset | None = UNSET


@server_event("conversation.item.input_audio_transcription.completed")
class ConversationItemInputAudioTranscriptionCompleted(Event):
    """What the user said; may come before, between or after the response events."""

    item_id: str
    content_index: int | Unset = UNSET
    transcript: str
    usage: Usage | Unset | None = UNSET
    logprobs: tuple[JsonObject, ...] | Unset | None = UNSET


@server_event("conversation.item.input_audio_transcription.segment")
class ConversationItemInputAudioTranscriptionSegment(Event):
    """A stretch of one speaker (diarising models); times in seconds."""

    item_id: str
    content_index: int | Unset = UNSET
    id: str | Unset = UNSET
    text: str | Unset = UNSET
    speaker: str | Unset = UNSET
    start: float | Unset = UNSET
    end: float | Unset = UNSET


@server_event("conversation.item.input_audio_transcription.failed")
class ConversationItemInputAudioTranscriptionFailed(Event):
    """The user's audio could not be transcribed; the conversation goes on."""

    item_id: str
    content_index: int | Unset = UNSET
    error: ErrorDetail


@server_event("input_audio_buffer.committed")
class InputAudioBufferCommitted(Event):
    """The buffer became the user item `item_id`."""

    item_id: str
    previous_item_id: str | Unset | None = UNSET


@server_event("input_audio_buffer.cleared")
class InputAudioBufferCleared(Event):
    """The buffer is empty."""


@server_event("input_audio_buffer.speech_started")
class InputAudioBufferSpeechStarted(Event):
    """Speech began at `audio_start_ms` of all audio appended in the session (prefix padding included)."""

    audio_start_ms: int
    item_id: str | Unset = UNSET
    """The user item this turn will become."""


@server_event("input_audio_buffer.speech_stopped")
class InputAudioBufferSpeechStopped(Event):
    """The turn ended at `audio_end_ms` of all audio appended in the session (the silence included)."""

    audio_end_ms: int
    item_id: str | Unset = UNSET


@server_event("input_audio_buffer.timeout_triggered")
class InputAudioBufferTimeoutTriggered(Event):
    """Nobody spoke for `idle_timeout_ms`: the silent audio is committed and answered."""

    audio_start_ms: int
    audio_end_ms: int
    item_id: str | Unset = UNSET


@server_event("input_audio_buffer.dtmf_event_received")
class InputAudioBufferDtmfEventReceived(Event):
    """A telephone key (SIP only)."""

    event: str
    received_at: int | Unset = UNSET


@server_event("output_audio_buffer.started")
class OutputAudioBufferStarted(Event):
    """WebRTC and SIP: the service began to play a response."""

    response_id: str


@server_event("output_audio_buffer.stopped")
class OutputAudioBufferStopped(Event):
    """WebRTC and SIP: all audio of the response was played."""

    response_id: str


@server_event("output_audio_buffer.cleared")
class OutputAudioBufferCleared(Event):
    """WebRTC and SIP: playing was cut off."""

    response_id: str


@server_event("response.created")
class ResponseCreated(Event):
    """A response begins."""

    response: Response


@server_event("response.done")
class ResponseDone(Event):
    """A response ended, whatever its status; carries the usage."""

    response: Response


@dataclass(frozen=True, kw_only=True, repr=False)
class _OutputItem(Event):
    response_id: str
    output_index: int
    item: Item


@server_event("response.output_item.added")
class ResponseOutputItemAdded(_OutputItem):
    """A response begins an item."""


@server_event("response.output_item.done")
class ResponseOutputItemDone(_OutputItem):
    """The item is complete: a function call is run from here."""


@dataclass(frozen=True, kw_only=True, repr=False)
class _PartEvent(Event):
    response_id: str
    item_id: str
    output_index: int | Unset = UNSET
    content_index: int | Unset = UNSET


@server_event("response.content_part.added")
class ResponseContentPartAdded(_PartEvent):
    """An item begins a piece of content."""

    part: ContentPart


@server_event("response.content_part.done")
class ResponseContentPartDone(_PartEvent):
    """The piece of content is complete."""

    part: ContentPart


@server_event("response.output_text.delta")
class ResponseOutputTextDelta(_PartEvent):
    """A piece of written answer."""

    delta: str


@server_event("response.output_text.done")
class ResponseOutputTextDone(_PartEvent):
    """The whole written answer."""

    text: str


@server_event("response.output_audio_transcript.delta")
class ResponseOutputAudioTranscriptDelta(_PartEvent):
    """A piece of what is being said, usually ahead of the audio."""

    delta: str


@server_event("response.output_audio_transcript.done")
class ResponseOutputAudioTranscriptDone(_PartEvent):
    """All that was said."""

    transcript: str


@server_event("response.output_audio.delta")
class ResponseOutputAudioDelta(_PartEvent):
    """A piece of speech in the session's output format."""

    delta: EncodedAudio = EncodedAudio()

    @property
    def audio_bytes(self) -> int:
        """How many bytes of audio `delta` has; cheaper than asking for them."""
        return int(_DELTA.size_bytes(self))


_DELTA = vars(ResponseOutputAudioDelta)["delta"]


@server_event("response.output_audio.done")
class ResponseOutputAudioDone(_PartEvent):
    """No more speech for this part."""


@dataclass(frozen=True, kw_only=True, repr=False)
class _CallEvent(Event):
    response_id: str
    item_id: str
    output_index: int | Unset = UNSET


@server_event("response.function_call_arguments.delta")
class ResponseFunctionCallArgumentsDelta(_CallEvent):
    """A piece of the arguments' JSON text."""

    call_id: str | Unset = UNSET
    delta: str


@server_event("response.function_call_arguments.done")
class ResponseFunctionCallArgumentsDone(_CallEvent):
    """The arguments' JSON text; sent for cancelled calls too, so never run a tool from here."""

    call_id: str | Unset = UNSET
    name: str | Unset = UNSET
    arguments: str


@server_event("response.mcp_call_arguments.delta")
class ResponseMcpCallArgumentsDelta(_CallEvent):
    """A piece of an MCP call's arguments."""

    delta: str


@server_event("response.mcp_call_arguments.done")
class ResponseMcpCallArgumentsDone(_CallEvent):
    """An MCP call's arguments."""

    arguments: str


@dataclass(frozen=True, kw_only=True, repr=False)
class _McpProgress(Event):
    item_id: str
    output_index: int | Unset = UNSET


@server_event("response.mcp_call.in_progress")
class ResponseMcpCallInProgress(_McpProgress):
    """The service runs an MCP tool."""


@server_event("response.mcp_call.completed")
class ResponseMcpCallCompleted(_McpProgress):
    """The MCP tool answered."""


@server_event("response.mcp_call.failed")
class ResponseMcpCallFailed(_McpProgress):
    """The MCP tool failed."""


@server_event("mcp_list_tools.in_progress")
class McpListToolsInProgress(_McpProgress):
    """The service asks an MCP server for its tools."""


@server_event("mcp_list_tools.completed")
class McpListToolsCompleted(_McpProgress):
    """The MCP server's tools are known."""


@server_event("mcp_list_tools.failed")
class McpListToolsFailed(_McpProgress):
    """The MCP server did not answer."""


@server_event("rate_limits.updated")
class RateLimitsUpdated(Event):
    """What is left of the quotas."""

    rate_limits: tuple[RateLimit, ...]
