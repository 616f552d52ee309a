"""Checks of client events beyond the protocol's shapes: audio, running responses, voices, tools, transcription, images.

Codes and wording as observed or reported; ``(u)`` marks those with one weak source. What no source says is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rtnb.protocol import ErrorDetail, Item, SessionConfig, events
from rtnb.protocol.service.refusals import COMMIT_MINIMUM_MS
from rtnb.protocol.state import State
from rtnb.protocol.values import ResponseConfig, Transcription
from rtnb.simulator.conversation import image_size
from rtnb.simulator.mcp import McpTools
from rtnb.simulator.turn_detection import TurnDetection

VOICES: Final = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
"""Voices of the service; a made one has an id that begins with ``voice_``."""
TRANSCRIBERS: Final = (
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
)
"""Transcription models of OpenAI; on Azure the name of a deployment is allowed as well."""
MOST_INSTRUCTIONS: Final = 200_000
"""Characters of instructions or of an item: more than any context holds. Chosen; the
service's limit is about 16,384 tokens (u)."""
MOST_RESPONSES: Final = 64
"""Responses of one session at a time. Chosen: a client that wants more can wait for the first."""
_ONLY_FOR: Final = {
    "languages": ("gpt-transcribe", "gpt-live-transcribe"),
    "keywords": ("gpt-transcribe", "gpt-live-transcribe"),
    "delay": ("gpt-realtime-whisper",),
}
"""Fields of a transcription that one family of models has alone (API reference)."""
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RefusedEventError(Exception):
    """Refusal of a client event: code, message and field of its `error`."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param

    def event(self, of: events.Event | None = None) -> events.Error:
        """Return the `error` event that names the client event it is about."""
        event_id = of.event_id if of is not None and of.event_id else None
        kind = "invalid_request_error"
        detail = ErrorDetail(type=kind, code=self.code, message=self.message, param=self.param, event_id=event_id)
        return events.Error(error=detail)


def check_commit(turns: TurnDetection) -> None:
    """Refuse to commit less audio than the service does."""
    start_ms, end_ms = turns.uncommitted_ms
    if end_ms - start_ms < COMMIT_MINIMUM_MS:
        text = f"Expected at least {COMMIT_MINIMUM_MS}ms of audio, but buffer only has {end_ms - start_ms:.2f}ms."
        message = f"Error committing input audio buffer: buffer too small. {text}"
        raise RefusedEventError("input_audio_buffer_commit_empty", message)


def check_item(item: Item, turns: TurnDetection, mcp: McpTools) -> None:
    """Refuse an item that is too long, has a broken image, or answers a question that was not asked."""
    parts, request_id = item.content or (), item.approval_request_id
    if item.type == "mcp_approval_response" and not mcp.is_waiting(request_id):
        message = f"No call waits for the approval request '{str(request_id)[:100]}'."
        raise RefusedEventError("invalid_value", message, "item.approval_request_id")  # (u)
    _length("".join(part.text for part in parts if isinstance(part.text, str)), "item.content.text")
    _length(item.output, "item.output")
    _length(item.arguments, "item.arguments")
    check_samples("item.content", [part.audio for part in parts], turns)
    for number, part in enumerate(parts):
        if part.type == "input_image" and image_size(str(part.image_url)) is None:
            message = "Invalid image: expected a data URI with a PNG or JPEG image."
            raise RefusedEventError("invalid_value", message, f"item.content[{number}].image_url")  # (u)


def check_session(change: SessionConfig, session: SessionConfig, *, azure: bool) -> None:
    """Refuse settings; at Azure, transcription models are names of deployments."""
    audio_input = change.audio and change.audio.input
    if isinstance(change.prompt, Mapping):
        message = f"Prompt with id '{change.prompt.get('id')}' not found."
        raise RefusedEventError("prompt_not_found", message, "session.prompt.id")  # (u)
    _configuration(change, "session", session)
    if audio_input and audio_input.transcription:
        _transcription(audio_input.transcription, azure=azure)


def check_response(
    config: ResponseConfig, session: SessionConfig, state: State, *, pending: str | None, n_responses: int
) -> None:
    """Refuse a response: `pending` is one of the conversation that is not announced yet, of `n_responses` in all."""
    if n_responses >= MOST_RESPONSES:
        message = f"Too many responses: {n_responses} are in progress. Wait until one is finished."
        raise RefusedEventError("rate_limit_exceeded", message)
    if session.type == "transcription":
        raise RefusedEventError("invalid_value", "A transcription session creates no responses.", "type")
    for item in config.input or ():
        if item.type == "item_reference" and item.id not in state.entries:
            message = f"Item with id '{item.id}' not found in the conversation."
            raise RefusedEventError("item_not_found", message, "response.input")
    if pending and config.conversation != "none":
        raise busy(pending)
    _configuration(config, "response", session)


def busy(response_id: str) -> RefusedEventError:
    """Return the refusal of a conversation that has a response already."""
    message = f"Conversation already has an active response in progress: {response_id}. "
    message += "Wait until the response is finished before creating a new one."
    return RefusedEventError("conversation_already_has_active_response", message)


def _configuration(config: SessionConfig | ResponseConfig, where: str, session: SessionConfig) -> None:
    """Check what the session and a response have in common."""
    _length(config.instructions, f"{where}.instructions")
    voice = config.audio and config.audio.output and config.audio.output.voice
    name = voice.get("id") if isinstance(voice, Mapping) else voice
    if isinstance(name, str) and not name.startswith("voice_"):
        _one_of(name, VOICES, f"{where}.audio.output.voice")
    own = config.tools if isinstance(config.tools, tuple) else None
    _tools(own or (), f"{where}.tools")
    choice, tools = config.tool_choice, own if own is not None else session.tools or ()
    if isinstance(choice, Mapping) and choice.get("type") in _CHOICES:
        field, what = _CHOICES[choice["type"]]
        wanted = choice.get(field) or (choice.get("function") or {}).get(field)
        if wanted not in {tool.get(field) for tool in tools}:
            message = f"{what} '{wanted}' not found in 'tools'."
            raise RefusedEventError("invalid_value", message, f"{where}.tool_choice")  # (u)


_CHOICES: Final = {
    "function": ("name", "Tool choice"),
    "mcp": ("server_label", "Tool choice of the MCP server"),
}


def _length(text: Any, param: str) -> None:
    if isinstance(text, str) and len(text) > MOST_INSTRUCTIONS:
        allowed = f"a string with maximum length {MOST_INSTRUCTIONS}, but got a string with length {len(text)} instead"
        message = f"Invalid '{param}': string too long. Expected {allowed}."
        raise RefusedEventError("string_above_max_length", message, param)


def _one_of(name: str, known: Sequence[str], param: str) -> None:
    if name not in known:
        listing = ", ".join(f"'{one}'" for one in known)
        message = f"Invalid value: '{name[:200]}'. Supported values are: {listing}."
        raise RefusedEventError("invalid_value", message, param)


def _transcription(wanted: Transcription, *, azure: bool) -> None:
    param, model = "session.audio.input.transcription", wanted.model
    if isinstance(model, str) and not azure:
        _one_of(model, TRANSCRIBERS, f"{param}.model")
    for name, models in _ONLY_FOR.items():
        if getattr(wanted, name) and model not in models and model in TRANSCRIBERS:
            message = f"'{name}' is not supported by '{model}'. Supported models are: {', '.join(models)}."
            raise RefusedEventError("invalid_value", message, f"{param}.{name}")  # (u)


def _tools(tools: Sequence[Mapping[str, Any]], where: str) -> None:
    seen: set[str] = set()
    for number, tool in enumerate(tools):
        param, name, schema = f"{where}[{number}]", str(tool.get("name")), tool.get("parameters")
        if tool.get("type") == "mcp":
            addresses = ("server_url", "connector_id", "tunnel_id")
            for field, ways in (("server_label", ("server_label",)), ("server_url", addresses)):
                if not any(isinstance(tool.get(way), str) for way in ways):
                    message = f"Missing required parameter: '{param}.{field}'."
                    raise RefusedEventError("missing_required_parameter", message, f"{param}.{field}")
            continue
        if not _TOOL_NAME.fullmatch(name):
            message = f"Invalid '{param}.name': string does not match pattern. Expected '^[a-zA-Z0-9_-]{{1,64}}$'."
            raise RefusedEventError("invalid_value", message, f"{param}.name")
        if name in seen:
            raise RefusedEventError("invalid_value", f"Duplicate tool name: '{name}'.", f"{param}.name")  # (u)
        if isinstance(schema, Mapping) and schema and schema.get("type", "object") != "object":
            message = f"Invalid schema for function '{name}': schema must be of type 'object'."
            raise RefusedEventError("invalid_function_parameters", message, f"{param}.parameters")
        seen.add(name)


def check_samples(param: str, data: Iterable[Any], turns: TurnDetection) -> None:
    """Refuse audio that ends within a sample."""
    if any(len(block) % turns.bytes_per_sample for block in data if block):
        raise RefusedEventError("invalid_value", f"Invalid '{param}': half a sample is left over.", param)
