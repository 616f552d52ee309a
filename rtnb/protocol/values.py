"""The nouns of the protocol: frozen values with the names, defaults and ranges of today's (GA) dialect.

Field by field source: the Realtime API reference as typed by ``openai`` 3.51.0 and observed frames of 2025-12 and
2026-09. The preview spellings of the same nouns live in :mod:`rtnb.protocol.wire` alone.

`UNSET` (not on the wire), ``None`` (``null``) and a value are three different things: see :mod:`rtnb.protocol.values`.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, ClassVar, Final, Literal, overload

JsonObject = Mapping[str, Any]
"""A JSON object kept as it is on the wire (tool schemas, error details, …)."""

Dialect = Literal["ga", "preview"]
"""``"ga"``: today's nested shape. ``"preview"``: the flat shape of 2024-10 … 2025-04, which services switch off."""


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""Not on the wire. False in a condition, and different from ``None``, which is ``null`` on the wire."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """What all nouns share: unknown wire fields are kept in `extra`."""

    replaces_whole: ClassVar[bool] = False
    """True where a partial value makes no sense (an audio format), so that `merge` replaces instead."""

    extra: JsonObject = field(default_factory=dict, repr=False)
    """Fields this version does not know, exactly as they came."""

    def __repr__(self) -> str:
        shown = ((f.name, getattr(self, f.name)) for f in fields(self))
        inside = (
            f"{name}=<{len(value)} bytes>" if isinstance(value, bytes) else f"{name}={value!r}"
            for name, value in shown
            if value is not UNSET and (name, value) != ("extra", {})
        )
        return f"{type(self).__name__}({', '.join(inside)})"


def merge(old: Any, new: Any) -> Any:
    """Lay a partial value over a whole one, as `session.update` does: what is `UNSET` in `new` stays.

    Nested values of the same class are merged field by field; anything else (``None``, lists, an audio format,
    another turn detection class) replaces.

    Examples
    --------
    >>> from rtnb.protocol.values import ServerVad
    >>> merge(ServerVad(threshold=0.5, silence_duration_ms=200), ServerVad(silence_duration_ms=300))
    ServerVad(type='server_vad', threshold=0.5, silence_duration_ms=300)
    """
    if new is UNSET:
        return old
    if not isinstance(new, Value) or type(old) is not type(new) or new.replaces_whole:
        return new
    changes = {f.name: merge(getattr(old, f.name), getattr(new, f.name)) for f in fields(new) if f.name != "extra"}
    return replace(old, **changes, extra={**old.extra, **new.extra})


# --- encoded audio ----------------------------------------------------------------------------------------------------

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def is_base64(text: str) -> bool:
    """Whether a text is base64 as `binascii.a2b_base64` reads it in strict mode, at a fifth of its cost.

    Examples
    --------
    >>> is_base64("AAA="), is_base64("AAA"), is_base64("A A=")
    (True, False, False)
    """
    body = text.rstrip("=")
    if len(text) % 4 or len(text) - len(body) > 2:
        return False
    return not body.encode("utf-8", "replace").translate(None, _ALPHABET)


class EncodedAudio:
    """A field of an event: bytes to whoever reads it, kept as base64 text until then."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, event: None, owner: type) -> EncodedAudio: ...

    @overload
    def __get__(self, event: object, owner: type) -> bytes: ...

    def __get__(self, event: Any, owner: type) -> Any:
        if event is None:
            raise AttributeError(self._name)  # to a dataclass: there is no default
        held = event.__dict__[self._name]
        if isinstance(held, str):
            held = event.__dict__[self._name] = binascii.a2b_base64(held)
        return held

    def __set__(self, event: Any, audio: bytes) -> None:
        event.__dict__[self._name] = audio

    def size_bytes(self, event: Any) -> int:
        """How many bytes of audio the event holds, without decoding them."""
        held = event.__dict__[self._name]
        return len(held) // 4 * 3 - held.count("=", -2) if isinstance(held, str) else len(held)


# --- audio formats and turn detection ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class AudioFormat(Value):
    """How audio travels in one direction: 16-bit PCM at 24 kHz, or G.711 at 8 kHz; always mono."""

    replaces_whole: ClassVar[bool] = True

    type: str = "audio/pcm"
    """``audio/pcm`` (s16le), ``audio/pcmu`` (µ-law) or ``audio/pcma`` (A-law)."""
    rate: int | Unset = UNSET
    """Hz. The service demands 24000 inside a PCM object and takes none for G.711."""

    @property
    def rate_hz(self) -> int:
        """Samples per second: 24 000 for PCM (unless the service said otherwise), 8 000 for G.711."""
        return self.rate if isinstance(self.rate, int) else (24_000 if self.type == "audio/pcm" else 8_000)

    @property
    def bytes_per_ms(self) -> int:
        """48 for PCM at 24 kHz, 8 for G.711; never 0, whatever rate a service claims."""
        return max(1, self.rate_hz // 1000) * (2 if self.type == "audio/pcm" else 1)


PCM16: Final = AudioFormat(type="audio/pcm", rate=24_000)
"""16-bit little-endian mono PCM at 24 kHz: what every realtime service speaks by default."""
PCMU: Final = AudioFormat(type="audio/pcmu")
"""G.711 µ-law at 8 kHz: telephone lines of North America and Japan."""
PCMA: Final = AudioFormat(type="audio/pcma")
"""G.711 A-law at 8 kHz: telephone lines elsewhere."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ServerVad(Value):
    """Turn detection by loudness-independent speech probability and a silence timer."""

    type: str = "server_vad"
    threshold: float | Unset = UNSET
    """0 … 1, service default 0.5. Higher needs clearer speech: fewer false starts, more clipped onsets."""
    prefix_padding_ms: int | Unset = UNSET
    """Audio kept from before the detected start, ms; default 300. Lower clips plosives."""
    silence_duration_ms: int | Unset = UNSET
    """Silence that ends a turn, ms; 200 on the wire, 500 documented. Lower answers sooner and cuts people off."""
    idle_timeout_ms: int | Unset | None = UNSET
    """5000 … 30000 ms, or None: speak up after that much silence following the last reply."""
    create_response: bool | Unset = UNSET
    """Answer by itself when the turn ends; default True."""
    interrupt_response: bool | Unset = UNSET
    """Cancel the running response when the user starts to speak; default True."""


@dataclass(frozen=True, kw_only=True, repr=False)
class SemanticVad(Value):
    """Turn detection by a classifier that judges whether the sentence is finished."""

    type: str = "semantic_vad"
    eagerness: str | Unset = UNSET
    """``low``, ``medium``, ``high`` or ``auto`` (= medium): waits at most 8, 4 or 2 s."""
    create_response: bool | Unset = UNSET
    """Answer by itself when the turn ends; default True."""
    interrupt_response: bool | Unset = UNSET
    """Cancel the running response when the user starts to speak; default True."""


TurnDetection = ServerVad | SemanticVad | JsonObject
"""Turn detection; a kind this version does not know stays a plain mapping. ``None`` means push to talk."""

SERVER_VAD_DEFAULTS: Final = ServerVad(
    threshold=0.5,
    prefix_padding_ms=300,
    silence_duration_ms=200,
    idle_timeout_ms=None,
    create_response=True,
    interrupt_response=True,
)
"""What `session.created` of a real GA session showed (2025-12 and 2026-09)."""
SEMANTIC_VAD_DEFAULTS: Final = SemanticVad(eagerness="auto", create_response=True, interrupt_response=True)
"""Documented defaults."""


# --- session ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class Transcription(Value):
    """Who writes down what the user said; on Azure `model` is the name of a transcription *deployment*."""

    model: str | Unset = UNSET
    language: str | Unset = UNSET
    """ISO-639-1, for example ``en``."""
    prompt: str | Unset = UNSET
    """Words to expect."""


@dataclass(frozen=True, kw_only=True, repr=False)
class NoiseReduction(Value):
    """Cleans the input before turn detection and model: ``near_field`` (headset) or ``far_field`` (room)."""

    type: str | Unset = UNSET
    strength: float | Unset = UNSET
    """Documented without a range; 1 when first enabled."""


@dataclass(frozen=True, kw_only=True, repr=False)
class AudioInput(Value):
    """What the service does with the audio it hears."""

    format: AudioFormat | Unset = UNSET
    transcription: Transcription | Unset | None = UNSET
    noise_reduction: NoiseReduction | Unset | None = UNSET
    turn_detection: TurnDetection | Unset | None = UNSET


@dataclass(frozen=True, kw_only=True, repr=False)
class AudioOutput(Value):
    """How the service speaks."""

    format: AudioFormat | Unset = UNSET
    voice: str | JsonObject | Unset = UNSET
    """A voice name or ``{"id": …}``; frozen once audio was produced."""
    speed: float | Unset = UNSET
    """0.25 … 1.5, default 1."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Audio(Value):
    """Both directions."""

    input: AudioInput | Unset = UNSET
    output: AudioOutput | Unset = UNSET


@dataclass(frozen=True, kw_only=True, repr=False)
class SessionConfig(Value):
    """All settings of a session; partial in an update, whole in what the service confirms."""

    type: str = "realtime"
    """``realtime`` or ``transcription``; required on the wire by GA, implicit in the preview."""
    id: str | Unset = UNSET
    object: str | Unset = UNSET
    model: str | Unset = UNSET
    """Cannot change within a session."""
    instructions: str | Unset = UNSET
    """The system prompt; ``""`` clears it."""
    output_modalities: tuple[str, ...] | Unset = UNSET
    """``("audio",)`` (speech with transcript) or ``("text",)``."""
    audio: Audio | Unset = UNSET
    include: tuple[str, ...] | Unset | None = UNSET
    max_output_tokens: int | str | Unset = UNSET
    """1 … 4096, or ``"inf"``."""
    tools: tuple[JsonObject, ...] | Unset = UNSET
    tool_choice: str | JsonObject | Unset = UNSET
    parallel_tool_calls: bool | Unset = UNSET
    reasoning: JsonObject | Unset | None = UNSET
    tracing: str | JsonObject | Unset | None = UNSET
    truncation: str | JsonObject | Unset = UNSET
    prompt: JsonObject | Unset | None = UNSET
    temperature: float | Unset = UNSET
    """0.6 … 1.2; preview only, GA refuses it."""
    expires_at: int | Unset = UNSET
    """Unix seconds, about 60 minutes after the start."""

    @property
    def turn_detection(self) -> TurnDetection | Unset | None:
        """`audio.input.turn_detection`, UNSET where the service did not say."""
        return self._input.turn_detection

    @property
    def voice(self) -> str | JsonObject | Unset:
        """`audio.output.voice`."""
        return self._output.voice

    @property
    def input_format(self) -> AudioFormat:
        """`audio.input.format`, 16-bit PCM at 24 kHz where the service did not say."""
        return self._input.format or PCM16

    @property
    def output_format(self) -> AudioFormat:
        """`audio.output.format`, 16-bit PCM at 24 kHz where the service did not say."""
        return self._output.format or PCM16

    @property
    def _input(self) -> AudioInput:
        return (self.audio and self.audio.input) or AudioInput()

    @property
    def _output(self) -> AudioOutput:
        return (self.audio and self.audio.output) or AudioOutput()

    @classmethod
    def of(cls, **changes: Any) -> SessionConfig:
        """Build a (partial) configuration from flat names.

        Parameters
        ----------
        **changes
            Any field of this class, or: `input_format`, `transcription`, `noise_reduction`, `turn_detection`
            (audio input) and `output_format`, `voice`, `speed` (audio output).

        Raises
        ------
        TypeError
            For a name that is none of these.

        Examples
        --------
        >>> SessionConfig.of(voice="marin", instructions="Be brief.").voice
        'marin'
        """
        inputs = {_INPUT_NAMES[k]: changes.pop(k) for k in tuple(changes) if k in _INPUT_NAMES}
        outputs = {_OUTPUT_NAMES[k]: changes.pop(k) for k in tuple(changes) if k in _OUTPUT_NAMES}
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(changes) - known):
            allowed = sorted(known - {"extra"} | _INPUT_NAMES.keys() | _OUTPUT_NAMES.keys())
            raise TypeError(f"unknown session setting {unknown[0]!r}; known settings: {', '.join(allowed)}")
        if inputs or outputs:
            nested = Audio(
                input=AudioInput(**inputs) if inputs else UNSET, output=AudioOutput(**outputs) if outputs else UNSET
            )
            changes["audio"] = merge(changes.get("audio", UNSET), nested)
        for name in ("output_modalities", "tools", "include"):
            if isinstance(changes.get(name), list):
                changes[name] = tuple(changes[name])
        return cls(**changes)


_INPUT_NAMES = {
    "input_format": "format",
    "transcription": "transcription",
    "noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
_OUTPUT_NAMES = {"output_format": "format", "voice": "voice", "speed": "speed"}


# --- conversation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class ContentPart(Value):
    """One piece of an item: text, audio with its transcript, or an image."""

    type: str
    """``input_text``, ``input_audio``, ``input_image``, ``output_text``, ``output_audio``; `text` and `audio` in
    `response.content_part.*` of both dialects."""
    text: str | Unset | None = UNSET
    audio: bytes | Unset | None = UNSET
    """Encoded audio (PCM or G.711 bytes)."""
    transcript: str | Unset | None = UNSET
    """None until transcribed."""
    image_url: str | Unset = UNSET
    detail: str | Unset = UNSET


@dataclass(frozen=True, kw_only=True, repr=False)
class Item(Value):
    """One entry of the conversation: a message, a function call, its output, or one of the MCP kinds."""

    type: str
    id: str | Unset = UNSET
    """At most 32 characters when the client chooses it."""
    object: str | Unset = UNSET
    status: str | Unset = UNSET
    """``completed``, ``incomplete`` or ``in_progress``."""
    role: str | Unset = UNSET
    """``system``, ``user`` or ``assistant`` (messages)."""
    content: tuple[ContentPart, ...] | Unset = UNSET
    name: str | Unset = UNSET
    call_id: str | Unset = UNSET
    """Joins a function call to its output; at most 32 characters."""
    arguments: str | Unset = UNSET
    """JSON text, which can be invalid JSON."""
    output: str | Unset | None = UNSET
    phase: str | Unset | None = UNSET
    server_label: str | Unset = UNSET
    """MCP kinds only, like the rest below."""
    tools: tuple[JsonObject, ...] | Unset = UNSET
    approval_request_id: str | Unset | None = UNSET
    approve: bool | Unset = UNSET
    reason: str | Unset | None = UNSET
    error: JsonObject | Unset | None = UNSET


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenDetails(Value):
    """Tokens by kind; the cached ones are part of the input, not on top."""

    text_tokens: int | Unset = UNSET
    audio_tokens: int | Unset = UNSET
    image_tokens: int | Unset = UNSET
    cached_tokens: int | Unset = UNSET
    cached_tokens_details: TokenDetails | Unset | None = UNSET


@dataclass(frozen=True, kw_only=True, repr=False)
class Usage(Value):
    """What a response or a transcription consumed."""

    type: str | Unset = UNSET
    """``tokens`` or ``duration``; transcriptions only."""
    total_tokens: int | Unset = UNSET
    input_tokens: int | Unset = UNSET
    output_tokens: int | Unset = UNSET
    input_token_details: TokenDetails | Unset | None = UNSET
    output_token_details: TokenDetails | Unset | None = UNSET
    seconds: float | Unset = UNSET


@dataclass(frozen=True, kw_only=True, repr=False)
class ErrorDetail(Value):
    """What went wrong, in the service's words."""

    type: str | Unset = UNSET
    code: str | Unset | None = UNSET
    message: str | Unset | None = UNSET
    param: str | Unset | None = UNSET
    event_id: str | Unset | None = UNSET
    """The client event that caused it."""


@dataclass(frozen=True, kw_only=True, repr=False)
class StatusDetails(Value):
    """Why a response did not simply complete."""

    type: str | Unset = UNSET
    reason: str | Unset = UNSET
    """``turn_detected``, ``client_cancelled``, ``max_output_tokens`` or ``content_filter``."""
    error: ErrorDetail | Unset | None = UNSET


@dataclass(frozen=True, kw_only=True, repr=False)
class Response(Value):
    """One generation, as `response.created` and `response.done` describe it."""

    id: str
    object: str | Unset = UNSET
    status: str | Unset = UNSET
    """``in_progress``, ``completed``, ``cancelled``, ``incomplete`` or ``failed``."""
    status_details: StatusDetails | Unset | None = UNSET
    output: tuple[Item, ...] | Unset = UNSET
    usage: Usage | Unset | None = UNSET
    metadata: JsonObject | Unset | None = UNSET
    conversation_id: str | Unset | None = UNSET
    """None for a response outside the conversation."""
    output_modalities: tuple[str, ...] | Unset = UNSET
    audio: Audio | Unset = UNSET
    max_output_tokens: int | str | Unset = UNSET
    temperature: float | Unset = UNSET


@dataclass(frozen=True, kw_only=True, repr=False)
class ResponseConfig(Value):
    """Settings of one `response.create`; what is UNSET is taken from the session."""

    conversation: str | Unset = UNSET
    """``auto`` (default) or ``none`` (outside the conversation)."""
    input: tuple[Item, ...] | Unset = UNSET
    """Context instead of the conversation; ``()`` is an empty context."""
    instructions: str | Unset = UNSET
    output_modalities: tuple[str, ...] | Unset = UNSET
    audio: Audio | Unset = UNSET
    tools: tuple[JsonObject, ...] | Unset = UNSET
    tool_choice: str | JsonObject | Unset = UNSET
    parallel_tool_calls: bool | Unset = UNSET
    reasoning: JsonObject | Unset = UNSET
    max_output_tokens: int | str | Unset = UNSET
    metadata: JsonObject | Unset | None = UNSET
    """Up to 16 pairs, keys up to 64 and values up to 512 characters; echoed in the response."""
    prompt: JsonObject | Unset | None = UNSET
    temperature: float | Unset = UNSET


@dataclass(frozen=True, kw_only=True, repr=False)
class RateLimit(Value):
    """How much is left of one quota."""

    name: str | Unset = UNSET
    limit: int | Unset = UNSET
    remaining: int | Unset = UNSET
    reset_seconds: float | Unset = UNSET
