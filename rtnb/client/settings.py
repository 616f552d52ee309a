"""Settings as keyword arguments: the types that editors complete, and their check before a connection is opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypedDict

from rtnb.analysis.cost import Budget
from rtnb.errors import LocalProtocolError
from rtnb.protocol import wire
from rtnb.protocol.service.schema import check_event
from rtnb.protocol.values import (
    AudioFormat,
    Dialect,
    Item,
    JsonObject,
    NoiseReduction,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
    Unset,
    check_names,
)

Format = AudioFormat | Literal["audio/pcm", "audio/pcmu", "audio/pcma", "pcm16", "g711_ulaw", "g711_alaw"]


class SessionSettings(TypedDict, total=False):
    """Settings of a session by name."""

    instructions: str
    """System prompt; ``""`` clears it."""
    voice: str | JsonObject
    """Voice name or ``{"id": …}``; fixed once the assistant has spoken."""
    speed: float
    """0.25 … 1.5, default 1."""
    output_modalities: Literal["audio", "text"] | Sequence[str]
    """``"audio"`` (speech with transcript) or ``"text"``."""
    turn_detection: ServerVad | SemanticVad | JsonObject | Unset | Literal["server_vad", "semantic_vad"] | None
    """End-of-turn detection; None is push to talk."""
    transcription: Transcription | str | None
    """Model that transcribes the user's speech; on Azure the name of its deployment."""
    noise_reduction: NoiseReduction | Literal["near_field", "far_field"] | None
    """Filter before turn detection and model."""
    input_format: Format
    output_format: Format
    include: Sequence[str] | None
    """More fields in events, e.g. ``item.input_audio_transcription.logprobs``."""
    max_output_tokens: int | Literal["inf"]
    """1 … 4096, or ``"inf"``."""
    tool_choice: str | JsonObject
    parallel_tool_calls: bool
    reasoning: JsonObject | None
    tracing: str | JsonObject | None
    truncation: str | JsonObject
    prompt: JsonObject | None
    temperature: float
    """0.6 … 1.2; preview dialect only."""
    model: str
    """Cannot change within a session."""


class UpdateSettings(SessionSettings, total=False):
    """Settings of a session by name, for `Session.update`."""

    tools: Iterable[JsonObject]
    """Tool definitions; for Python functions see `session.tools.register`."""


class ResponseSettings(TypedDict, total=False):
    """Settings of one response by name; a missing one is taken from the session."""

    instructions: str
    voice: str | JsonObject
    output_modalities: Literal["audio", "text"] | Sequence[str]
    output_format: Format
    conversation: Literal["auto", "none"]
    """``"none"``: outside the conversation."""
    input: Iterable[Item | Mapping[str, Any] | str]
    """Context instead of the conversation; ``()`` is an empty context."""
    tools: Iterable[JsonObject]
    tool_choice: str | JsonObject
    parallel_tool_calls: bool
    reasoning: JsonObject
    max_output_tokens: int | Literal["inf"]
    metadata: JsonObject
    """Up to 16 pairs (one is used by rtnb); echoed in the response."""
    prompt: JsonObject | None
    temperature: float


class DispatcherOptions(TypedDict, total=False):
    """Deadlines of a session, and its clocks for tests."""

    request_timeout_s: float
    """Deadline of acknowledgements, default 15 s."""
    response_timeout_s: float
    """Longest time without an event of a response, default 60 s."""
    clock: Callable[[], float]
    wall: Callable[[], float]
    sleep: Callable[[float], Awaitable[object]]
    make_id: Callable[[str], str] | None


class SessionOptions(SessionSettings, DispatcherOptions, total=False):
    """Settings, deadlines and clocks of a session."""


class ConnectOptions(SessionOptions, total=False):
    """Options of `rtnb.connect`: how to connect, and the settings of the session."""

    config: SessionConfig
    """Settings as a value, instead of by name."""
    tools: Iterable[Callable[..., Any] | Mapping[str, Any]]
    """Python functions that the model may call, or tool definitions."""
    intent: Literal["transcription"]
    """A session that only transcribes."""
    log_path: str | PathLike[str]
    """Append every event to this file."""
    log_limit_bytes: int
    """Most memory of the log, default 64 MiB."""
    trace: str | PathLike[str]
    """Record the session into this file; ``{time}`` in it, or a folder, makes a new file for each session."""
    trace_max_bytes: int
    """Most bytes of the recording, default 2 GiB."""
    timeout_s: float
    """Deadline of the connection and of the first settings, default 15 s."""
    reconnect: bool
    """Open a new session with the same settings and conversation when the connection ends."""
    budget: Budget
    """Most money, time or speech."""


def wanted_settings(config: SessionConfig | None, settings: Mapping[str, Any]) -> SessionConfig:
    """Return settings that were given as a value or by name.

    Raises
    ------
    TypeError
        Both, not a `SessionConfig`, or an unknown name; names the nearest option of `rtnb.connect`.
    """
    if config is None:
        check_names(settings, {*ConnectOptions.__optional_keys__, "type", "audio"}, "session setting")
        return SessionConfig.of(**settings)
    if settings or not isinstance(config, SessionConfig):
        given = f"{type(config).__name__} and {', '.join(settings) or 'no settings'}"
        raise TypeError(f"give a SessionConfig, or settings by name; got {given}")
    return config


def check_settings(config: SessionConfig, *, dialect: Dialect) -> None:
    """Check settings as the service would, before a connection is opened.

    Raises
    ------
    LocalProtocolError
        A value that the service refuses: names the field, the value and what is allowed.
    """
    message = {"type": "session.update", "session": wire.encode_session(config, dialect=dialect)}
    if dialect == "preview" and config.type == "transcription":
        message["type"] = "transcription_session.update"
    refusal = check_event(message, dialect=dialect)
    if refusal is not None:
        raise LocalProtocolError(f"wrong setting: {refusal.explanation}").with_hint(
            "Nothing was sent. Change the setting, then connect again."
        )
