"""The wire's vocabulary: one frozen dataclass per event, class name = GA wire type in CamelCase.

`event_id` is optional for the client and always sent by the service. Every field beyond the documented ones is kept
in `extra`; every event type beyond these is an `UnknownEvent`. Fields that may be absent on the wire default to
`UNSET`.
"""

from __future__ import annotations

from typing import ClassVar

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

Registry = dict[str, "type[Event]"]
"""Wire type -> event class."""

CLIENT_EVENTS: Registry = {}
"""Events that a client may send: wire type -> class."""
SERVER_EVENTS: Registry = {}
"""Events that a service may send: wire type -> class."""


class Event(Value):
    """Base of all events; a subclass with a wire type enters the registry of its side."""

    type: ClassVar[str]
    """The wire type (GA spelling)."""
    registry: ClassVar[Registry]

    event_id: str | Unset | None = UNSET
    """Chosen by the sender; an `error` of the service names the client event that caused it by this id."""

    def __init_subclass__(cls, type: str | None = None) -> None:
        super().__init_subclass__()
        if type is not None:
            cls.type = type
            cls.registry[type] = cls


class UnknownEvent(Event):
    """An event this version does not know, or whose fields do not fit: kept whole in `payload`, never dropped."""

    free_text: ClassVar[bool] = True

    type: str  # type: ignore[misc]  # the one event whose type is data
    payload: JsonObject
    """The whole JSON object as received."""
    problem: str | None = None
    """None for an unknown type; otherwise the field of a known type that does not fit."""


class ClientEvent(Event):
    """Event that a client sends."""

    registry = CLIENT_EVENTS


class ServerEvent(Event):
    """Event that a service sends."""

    registry = SERVER_EVENTS


# --- sent by the client -----------------------------------------------------------------------------------------------


class SessionUpdate(ClientEvent, type="session.update"):
    """Change settings; the service answers with `session.updated`, or with `error` and no change at all."""

    session: SessionConfig


class InputAudioBufferAppend(ClientEvent, type="input_audio_buffer.append"):
    """Add audio in the session's input format; no reply. At most 15 MiB."""

    audio: bytes


class InputAudioBufferCommit(ClientEvent, type="input_audio_buffer.commit"):
    """Make the buffered audio (at least 100 ms) a user item; does not create a response."""


class InputAudioBufferClear(ClientEvent, type="input_audio_buffer.clear"):
    """Forget the buffered audio."""


class ConversationItemCreate(ClientEvent, type="conversation.item.create"):
    """Put an item into the conversation."""

    item: Item
    previous_item_id: str | Unset | None = UNSET
    """Insert after this item; ``"root"`` puts it first; absent appends."""


class ConversationItemRetrieve(ClientEvent, type="conversation.item.retrieve"):
    """Ask for an item with its audio."""

    item_id: str


class ConversationItemTruncate(ClientEvent, type="conversation.item.truncate"):
    """Cut an assistant item to the audio that was played, so that the model does not remember unheard words."""

    item_id: str
    content_index: int
    audio_end_ms: int


class ConversationItemDelete(ClientEvent, type="conversation.item.delete"):
    """Remove an item."""

    item_id: str


class ResponseCreate(ClientEvent, type="response.create"):
    """Ask for a response."""

    response: ResponseConfig | Unset = UNSET


class ResponseCancel(ClientEvent, type="response.cancel"):
    """Stop the running response; the service answers with `response.done` and status ``cancelled``."""

    response_id: str | Unset = UNSET


class OutputAudioBufferClear(ClientEvent, type="output_audio_buffer.clear"):
    """WebRTC and SIP only: stop the audio the service is playing out."""


# --- sent by the service ----------------------------------------------------------------------------------------------


class Error(ServerEvent, type="error"):
    """Something was refused; the session goes on unless the connection closes."""

    error: ErrorDetail


class SessionCreated(ServerEvent, type="session.created"):
    """The first event: the session exists, with these settings."""

    session: SessionConfig


class SessionUpdated(ServerEvent, type="session.updated"):
    """The whole effective configuration after an update."""

    session: SessionConfig


class ConversationCreated(ServerEvent, type="conversation.created"):
    """Preview services send it after `session.created`; not seen in GA."""

    conversation: JsonObject


class _ItemEvent(ServerEvent):
    item: Item
    previous_item_id: str | Unset | None = UNSET


class ConversationItemAdded(_ItemEvent, type="conversation.item.added"):
    """An item entered the conversation (GA)."""


class ConversationItemDone(_ItemEvent, type="conversation.item.done"):
    """An item is final (GA)."""


class ConversationItemCreated(_ItemEvent, type="conversation.item.created"):
    """Preview: an item entered the conversation."""


class ConversationItemRetrieved(ServerEvent, type="conversation.item.retrieved"):
    """The item asked for, with its audio."""

    item: Item


class ConversationItemDeleted(ServerEvent, type="conversation.item.deleted"):
    """The item is gone."""

    item_id: str


class ConversationItemTruncated(ServerEvent, type="conversation.item.truncated"):
    """The item now ends at `audio_end_ms`; its transcript is removed on the service."""

    item_id: str
    content_index: int | Unset = UNSET
    audio_end_ms: int


class _TranscriptionEvent(ServerEvent):
    item_id: str
    content_index: int | Unset = UNSET


class ConversationItemInputAudioTranscriptionDelta(
    _TranscriptionEvent, type="conversation.item.input_audio_transcription.delta"
):
    """A piece of the transcript of the user's turn."""

    delta: str | Unset = UNSET
    logprobs: tuple[JsonObject, ...] | Unset | None = UNSET


class ConversationItemInputAudioTranscriptionCompleted(
    _TranscriptionEvent, type="conversation.item.input_audio_transcription.completed"
):
    """Transcript of the user's turn; may arrive before, between or after the response events."""

    transcript: str
    usage: Usage | Unset | None = UNSET
    languages: tuple[JsonObject | str, ...] | Unset | None = UNSET
    """Detected languages as objects with a `code`; ``gpt-transcribe`` only."""
    logprobs: tuple[JsonObject, ...] | Unset | None = UNSET


class ConversationItemInputAudioTranscriptionSegment(
    _TranscriptionEvent, type="conversation.item.input_audio_transcription.segment"
):
    """A segment of one speaker (diarising models); times in seconds."""

    id: str | Unset = UNSET
    text: str | Unset = UNSET
    speaker: str | Unset = UNSET
    start: float | Unset = UNSET
    end: float | Unset = UNSET


class ConversationItemInputAudioTranscriptionFailed(
    _TranscriptionEvent, type="conversation.item.input_audio_transcription.failed"
):
    """The user's audio could not be transcribed; the conversation goes on."""

    error: ErrorDetail


class InputAudioBufferCommitted(ServerEvent, type="input_audio_buffer.committed"):
    """The buffer became the user item `item_id`."""

    item_id: str
    previous_item_id: str | Unset | None = UNSET


class InputAudioBufferCleared(ServerEvent, type="input_audio_buffer.cleared"):
    """The buffer is empty."""


class InputAudioBufferSpeechStarted(ServerEvent, type="input_audio_buffer.speech_started"):
    """Speech began at `audio_start_ms` of all audio appended in the session (prefix padding included)."""

    audio_start_ms: int
    item_id: str | Unset = UNSET
    """The user item this turn will become."""


class InputAudioBufferSpeechStopped(ServerEvent, type="input_audio_buffer.speech_stopped"):
    """The turn ended at `audio_end_ms` of all audio appended in the session (the silence included)."""

    audio_end_ms: int
    item_id: str | Unset = UNSET


class InputAudioBufferTimeoutTriggered(ServerEvent, type="input_audio_buffer.timeout_triggered"):
    """The user was silent for `idle_timeout_ms`: the service commits the silent audio and creates a response."""

    audio_start_ms: int
    audio_end_ms: int
    item_id: str | Unset = UNSET


class InputAudioBufferDtmfEventReceived(ServerEvent, type="input_audio_buffer.dtmf_event_received"):
    """A telephone key (SIP only)."""

    event: str
    received_at: int | Unset = UNSET


class _PlayoutEvent(ServerEvent):
    response_id: str


class OutputAudioBufferStarted(_PlayoutEvent, type="output_audio_buffer.started"):
    """WebRTC and SIP: the service began to play a response."""


class OutputAudioBufferStopped(_PlayoutEvent, type="output_audio_buffer.stopped"):
    """WebRTC and SIP: all audio of the response was played."""


class OutputAudioBufferCleared(_PlayoutEvent, type="output_audio_buffer.cleared"):
    """WebRTC and SIP: playing was cut off."""


class ResponseCreated(ServerEvent, type="response.created"):
    """A response begins."""

    response: Response


class ResponseDone(ServerEvent, type="response.done"):
    """A response ended, whatever its status; carries the usage."""

    response: Response


class _OutputItem(ServerEvent):
    response_id: str
    output_index: int | Unset = UNSET
    item: Item


class ResponseOutputItemAdded(_OutputItem, type="response.output_item.added"):
    """A response begins an item."""


class ResponseOutputItemDone(_OutputItem, type="response.output_item.done"):
    """The item is complete: a function call is run from here."""


class _CallEvent(ServerEvent):
    response_id: str
    item_id: str
    output_index: int | Unset = UNSET


class _PartEvent(_CallEvent):
    content_index: int | Unset = UNSET


class ResponseContentPartAdded(_PartEvent, type="response.content_part.added"):
    """An item begins a piece of content."""

    part: ContentPart


class ResponseContentPartDone(_PartEvent, type="response.content_part.done"):
    """The piece of content is complete."""

    part: ContentPart


class ResponseOutputTextDelta(_PartEvent, type="response.output_text.delta"):
    """A piece of a text answer."""

    delta: str


class ResponseOutputTextDone(_PartEvent, type="response.output_text.done"):
    """The whole text answer."""

    text: str


class ResponseOutputAudioTranscriptDelta(_PartEvent, type="response.output_audio_transcript.delta"):
    """A piece of the transcript, usually ahead of the audio."""

    delta: str


class ResponseOutputAudioTranscriptDone(_PartEvent, type="response.output_audio_transcript.done"):
    """The whole transcript of one part."""

    transcript: str


class ResponseOutputAudioDelta(_PartEvent, type="response.output_audio.delta"):
    """A piece of audio in the session's output format."""

    delta: EncodedAudio = EncodedAudio()

    @property
    def audio_bytes(self) -> int:
        """Number of bytes of audio in `delta`; cheaper than reading them."""
        held = self.__dict__["delta"]
        return len(held) // 4 * 3 - held.count("=", -2) if isinstance(held, str) else len(held)


class ResponseOutputAudioDone(_PartEvent, type="response.output_audio.done"):
    """No more audio for this part."""


class ResponseFunctionCallArgumentsDelta(_CallEvent, type="response.function_call_arguments.delta"):
    """A piece of the arguments' JSON text."""

    call_id: str | Unset = UNSET
    delta: str


class ResponseFunctionCallArgumentsDone(_CallEvent, type="response.function_call_arguments.done"):
    """The arguments' JSON text; sent for cancelled calls too, so never run a tool from here."""

    call_id: str | Unset = UNSET
    name: str | Unset = UNSET
    arguments: str


class ResponseMcpCallArgumentsDelta(_CallEvent, type="response.mcp_call_arguments.delta"):
    """A piece of an MCP call's arguments."""

    delta: str


class ResponseMcpCallArgumentsDone(_CallEvent, type="response.mcp_call_arguments.done"):
    """An MCP call's arguments."""

    arguments: str


class _McpProgress(ServerEvent):
    item_id: str
    output_index: int | Unset = UNSET


class ResponseMcpCallInProgress(_McpProgress, type="response.mcp_call.in_progress"):
    """The service runs an MCP tool."""


class ResponseMcpCallCompleted(_McpProgress, type="response.mcp_call.completed"):
    """The MCP tool returned a result."""


class ResponseMcpCallFailed(_McpProgress, type="response.mcp_call.failed"):
    """The MCP tool failed."""


class McpListToolsInProgress(_McpProgress, type="mcp_list_tools.in_progress"):
    """The service asks an MCP server for its tools."""


class McpListToolsCompleted(_McpProgress, type="mcp_list_tools.completed"):
    """The MCP server's tools are known."""


class McpListToolsFailed(_McpProgress, type="mcp_list_tools.failed"):
    """The MCP server did not answer."""


class RateLimitsUpdated(ServerEvent, type="rate_limits.updated"):
    """The remaining quotas."""

    rate_limits: tuple[RateLimit, ...]
