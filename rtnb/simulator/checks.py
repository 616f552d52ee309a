"""Checks of client events beyond the protocol's shapes: audio, running responses, voices, tools, transcription, images.

Codes and wording as observed or reported; ``(u)`` marks those with one weak source. What no source says is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rtnb.protocol import ErrorDetail, SessionConfig, events
from rtnb.protocol.service.refusals import COMMIT_MINIMUM_MS
from rtnb.protocol.state import State
from rtnb.protocol.values import ResponseConfig, Transcription
from rtnb.simulator.mcp import McpTools
from rtnb.simulator.turn_detection import TurnDetection
from rtnb.simulator.usage import image_size

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


def problem(
    event: events.Event,
    *,
    session: SessionConfig,
    state: State,
    turns: TurnDetection,
    pending: str | None,
    azure: bool = False,
    n_responses: int = 0,
    mcp: McpTools | None = None,
) -> events.Error | None:
    """Return the `error` to answer a client event with; None where the event is allowed.

    Parameters
    ----------
    event : Event
        What the protocol accepted.
    session, state, turns
        Of the session.
    pending : str or None
        The response of the conversation that is made but not announced yet.
    azure : bool, default False
        Whether transcription models are names of deployments.
    n_responses : int, default 0
        Responses under way.
    mcp : McpTools, optional
        Calls that wait for approval.
    """
    if isinstance(event, events.InputAudioBufferAppend):
        return _half_sample("audio", [event.audio], turns, event)
    if isinstance(event, events.ConversationItemCreate):
        parts, request_id = event.item.content or (), event.item.approval_request_id
        if event.item.type == "mcp_approval_response" and not (mcp is not None and mcp.is_waiting(request_id)):
            message = f"No call waits for the approval request '{str(request_id)[:100]}'."
            return error("invalid_value", message, param="item.approval_request_id", of=event)  # (u)
        for name, text in (("content.text", "".join(p.text for p in parts if isinstance(p.text, str))),
                           ("output", event.item.output), ("arguments", event.item.arguments)):  # fmt: skip
            if refused := _length(text, f"item.{name}", event):
                return refused
        return _half_sample("item.content", [part.audio for part in parts], turns, event) or _images(parts, event)
    if isinstance(event, events.SessionUpdate):
        return _session(event.session, session, event, azure=azure)
    if isinstance(event, events.InputAudioBufferCommit):
        start_ms, end_ms = turns.uncommitted_ms
        if end_ms - start_ms >= COMMIT_MINIMUM_MS:
            return None
        text = f"Expected at least {COMMIT_MINIMUM_MS}ms of audio, but buffer only has {end_ms - start_ms:.2f}ms."
        message = f"Error committing input audio buffer: buffer too small. {text}"
        return error("input_audio_buffer_commit_empty", message, of=event)
    if isinstance(event, events.ResponseCreate):
        config = event.response or ResponseConfig()
        if n_responses >= MOST_RESPONSES:
            message = f"Too many responses: {n_responses} are in progress. Wait until one is finished."
            return error("rate_limit_exceeded", message, of=event)
        output = config.audio and config.audio.output
        return (
            _no_response(config, session, state, pending, event)
            or _instructions(config.instructions, "response", event)
            or _tools(config, config.tools if isinstance(config.tools, tuple) else session.tools, "response", event)
            or (_voice(output.voice, "response.audio.output.voice", event) if output else None)
        )
    return None


def _session(change: SessionConfig, session: SessionConfig, event: events.Event, *, azure: bool) -> events.Error | None:
    output, audio_input = change.audio and change.audio.output, change.audio and change.audio.input
    transcription = audio_input and audio_input.transcription
    if isinstance(change.prompt, Mapping):
        message = f"Prompt with id '{change.prompt.get('id')}' not found."
        return error("prompt_not_found", message, param="session.prompt.id", of=event)  # (u)
    return (
        _instructions(change.instructions, "session", event)
        or (_voice(output.voice, "session.audio.output.voice", event) if output else None)
        or (_transcription(transcription, event, azure=azure) if transcription else None)
        or _tools(change, change.tools if isinstance(change.tools, tuple) else session.tools, "session", event)
    )


def _instructions(text: Any, where: str, event: events.Event) -> events.Error | None:
    return _length(text, f"{where}.instructions", event)


def _length(text: Any, param: str, event: events.Event) -> events.Error | None:
    if not isinstance(text, str) or len(text) <= MOST_INSTRUCTIONS:
        return None
    expected = f"Expected a string with maximum length {MOST_INSTRUCTIONS}, but got a string with length {len(text)}"
    message = f"Invalid '{param}': string too long. {expected} instead."
    return error("string_above_max_length", message, param=param, of=event)


def _voice(voice: Any, param: str, event: events.Event) -> events.Error | None:
    name = voice.get("id") if isinstance(voice, Mapping) else voice
    if not isinstance(name, str) or name in VOICES or name.startswith("voice_"):
        return None
    listing = ", ".join(f"'{known}'" for known in VOICES)
    message = f"Invalid value: '{name[:200]}'. Supported values are: {listing}."
    return error("invalid_value", message, param=param, of=event)


def _transcription(wanted: Transcription, event: events.Event, *, azure: bool) -> events.Error | None:
    param, model = "session.audio.input.transcription", wanted.model
    if isinstance(model, str) and not azure and model not in TRANSCRIBERS:
        listing = ", ".join(f"'{known}'" for known in TRANSCRIBERS)
        message = f"Invalid value: '{model[:200]}'. Supported values are: {listing}."
        return error("invalid_value", message, param=f"{param}.model", of=event)
    for name, models in _ONLY_FOR.items():
        if getattr(wanted, name) and model not in models and model in TRANSCRIBERS:
            message = f"'{name}' is not supported by '{model}'. Supported models are: {', '.join(models)}."
            return error("invalid_value", message, param=f"{param}.{name}", of=event)  # (u)
    return None


def _tools(config: Any, tools: Any, where: str, event: events.Event) -> events.Error | None:
    """Check tools that come with a configuration, and a choice of one against all that are in force."""
    own = config.tools if isinstance(config.tools, tuple) else ()
    seen: set[str] = set()
    for number, tool in enumerate(own):
        param = f"{where}.tools[{number}]"
        if tool.get("type") == "mcp":
            if refused := _mcp(tool, param, event):
                return refused
            continue
        name, schema = str(tool.get("name")), tool.get("parameters")
        if not _TOOL_NAME.fullmatch(name):
            message = f"Invalid '{param}.name': string does not match pattern. Expected '^[a-zA-Z0-9_-]{{1,64}}$'."
            return error("invalid_value", message, param=f"{param}.name", of=event)
        if name in seen:
            return error("invalid_value", f"Duplicate tool name: '{name}'.", param=f"{param}.name", of=event)  # (u)
        if isinstance(schema, Mapping) and schema and schema.get("type", "object") != "object":
            message = f"Invalid schema for function '{name}': schema must be of type 'object'."
            return error("invalid_function_parameters", message, param=f"{param}.parameters", of=event)
        seen.add(name)
    choice = config.tool_choice
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        wanted = choice.get("name") or (choice.get("function") or {}).get("name")
        if wanted not in {tool.get("name") for tool in tools or ()}:
            message = f"Tool choice '{wanted}' not found in 'tools'."
            return error("invalid_value", message, param=f"{where}.tool_choice", of=event)  # (u)
    if isinstance(choice, Mapping) and choice.get("type") == "mcp":
        label = choice.get("server_label")
        if label not in {tool.get("server_label") for tool in tools or ()}:
            message = f"Tool choice of the MCP server '{label}' not found in 'tools'."
            return error("invalid_value", message, param=f"{where}.tool_choice", of=event)  # (u)
    return None


def _mcp(tool: Mapping[str, Any], param: str, event: events.Event) -> events.Error | None:
    if not isinstance(tool.get("server_label"), str):
        message = f"Missing required parameter: '{param}.server_label'."
        return error("missing_required_parameter", message, param=f"{param}.server_label", of=event)
    if not any(isinstance(tool.get(name), str) for name in ("server_url", "connector_id", "tunnel_id")):
        message = f"Missing required parameter: '{param}.server_url'."
        return error("missing_required_parameter", message, param=f"{param}.server_url", of=event)
    return None


def _images(parts: Sequence[Any], event: events.Event) -> events.Error | None:
    for number, part in enumerate(parts):
        if part.type == "input_image" and image_size(str(part.image_url)) is None:
            message = "Invalid image: expected a data URI with a PNG or JPEG image."
            return error("invalid_value", message, param=f"item.content[{number}].image_url", of=event)  # (u)
    return None


def _half_sample(param: str, data: Iterable[Any], turns: TurnDetection, event: events.Event) -> events.Error | None:
    if not any(len(block) % turns.bytes_per_sample for block in data if block):
        return None
    return error("invalid_value", f"Invalid '{param}': half a sample is left over.", param=param, of=event)


def _no_response(
    config: ResponseConfig, session: SessionConfig, state: State, pending: str | None, event: events.Event
) -> events.Error | None:
    if session.type == "transcription":
        return error("invalid_value", "A transcription session creates no responses.", param="type", of=event)
    for item in config.input or ():
        if item.type == "item_reference" and item.id not in state.entries:
            message = f"Item with id '{item.id}' not found in the conversation."
            return error("item_not_found", message, param="response.input", of=event)
    return busy(pending, of=event) if pending and config.conversation != "none" else None


def busy(response_id: str, *, of: events.Event | None = None) -> events.Error:
    """Return the error of a conversation that has a response already."""
    message = f"Conversation already has an active response in progress: {response_id}. "
    message += "Wait until the response is finished before creating a new one."
    return error("conversation_already_has_active_response", message, of=of)


def error(code: str, message: str, *, param: str | None = None, of: events.Event | None = None) -> events.Error:
    """Return an `error` event that names the client event it is about."""
    event_id = of.event_id if of is not None and of.event_id else None
    detail = ErrorDetail(type="invalid_request_error", code=code, message=message, param=param, event_id=event_id)
    return events.Error(error=detail)
