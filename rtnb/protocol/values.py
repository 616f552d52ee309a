"""Frozen nouns of the protocol, with the names, defaults and ranges of today's (GA) dialect.

Field by field source: the Realtime API reference as typed by ``openai`` 3.51.0 and observed frames of 2025-12 and
2026-09. The preview spellings of the same nouns live in :mod:`rtnb.protocol.preview` alone.
"""

from __future__ import annotations

import binascii
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, ClassVar, Final, Literal, TypeVar, cast, dataclass_transform, overload

from rtnb.redaction import mask_credentials, mask_known, redact

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
        return "<not set>"


UNSET: Final = Unset.UNSET
"""Not on the wire. False in a condition, and different from ``None``, which is ``null`` on the wire."""


# --- credentials ------------------------------------------------------------------------------------------------------


class Tool(dict[str, Any]):
    """A tool as on the wire; its repr hides the credentials of an MCP tool."""

    def __repr__(self) -> str:
        return dict.__repr__(mask_credentials(self))


class Tools(tuple[Tool, ...]):
    """Tools in order; ``config.tools + [another]`` takes a list as well."""

    def __new__(cls, tools: Iterable[JsonObject] = ()) -> Tools:
        return super().__new__(cls, map(cls._tool, tools))

    @staticmethod
    def _tool(tool: JsonObject) -> Tool:
        if not isinstance(tool, Mapping):
            raise ValueError(f"a tool is an object with type and name, got {tool!r}")
        return Tool(tool)

    def __add__(self, more: Iterable[JsonObject]) -> Tools:  # type: ignore[override]  # a tuple adds tuples only
        return Tools((*self, *more))


# --- values -----------------------------------------------------------------------------------------------------------

_V = TypeVar("_V", bound="Value")


@dataclass_transform(frozen_default=True, kw_only_default=True)
@dataclass(frozen=True, kw_only=True)
class Value:
    """Base of all nouns and events: every subclass is a frozen dataclass that keeps unknown wire fields in `extra`."""

    free_text: ClassVar[bool] = False
    """True for texts of the service: its repr masks everything that looks like a key."""
    replaces_whole: ClassVar[bool] = False
    """True where a partial value makes no sense (an audio format), so that `merge` replaces instead."""

    extra: JsonObject = field(default_factory=dict, repr=False)
    """Fields this version does not know, exactly as received."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True, repr=False)(cls)

    def __repr__(self) -> str:
        shown = ((f.name, getattr(self, f.name)) for f in fields(self))
        inside = (
            f"{name}=<{len(value)} bytes>" if isinstance(value, bytes) else f"{name}={mask_credentials(value)!r}"
            for name, value in shown
            if value is not UNSET and (name, value) != ("extra", {})
        )
        text = f"{type(self).__name__}({', '.join(inside)})"
        return redact(text) if self.free_text else mask_known(text)


Value.extra = {}  # for what was decoded without unknown fields: one dictionary less per event, none for the collector


def merge(old: Any, new: Any) -> Any:
    """Lay a partial value over a whole one, as `session.update` does: what is `UNSET` in `new` stays.

    Nested values of the same class are merged field by field; anything else (``None``, lists, an audio format,
    another turn detection class) replaces.

    Examples
    --------
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


def checked_base64(text: str) -> str:
    """Return a text that is base64 as `binascii.a2b_base64` reads it in strict mode, at a fifth of its cost.

    Raises
    ------
    ValueError
        The text is no base64; the message says why.
    """
    body = text.rstrip("=")
    padded = len(text) % 4 == 0 and len(text) - len(body) <= 2
    if padded and body.isascii() and not body.encode("ascii").translate(None, _ALPHABET):
        return text
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error is one
        raise ValueError(f"not base64: {error}") from error
    return text


def is_base64(text: str) -> bool:
    """Return whether a text is strict base64.

    Examples
    --------
    >>> is_base64("AAA="), is_base64("AAA"), is_base64("A A=")
    (True, False, False)
    """
    try:
        checked_base64(text)
    except ValueError:
        return False
    return True


class EncodedAudio:
    """A field of an event that is bytes when read, and is kept as base64 text until then."""

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


# --- audio formats and turn detection ---------------------------------------------------------------------------------


class AudioFormat(Value):
    """Audio encoding of one direction: 16-bit PCM at 24 kHz, or G.711 at 8 kHz; always mono."""

    replaces_whole: ClassVar[bool] = True

    type: str = "audio/pcm"
    """``audio/pcm`` (s16le), ``audio/pcmu`` (µ-law) or ``audio/pcma`` (A-law)."""
    rate: int | Unset = UNSET
    """Hz. The service demands 24000 inside a PCM object and takes none for G.711."""

    @property
    def rate_hz(self) -> int:
        """Samples per second: 24 000 for PCM (unless the service names another rate), 8 000 for G.711."""
        return self.rate if isinstance(self.rate, int) else (24_000 if self.type == "audio/pcm" else 8_000)

    @property
    def bytes_per_ms(self) -> int:
        """48 for PCM at 24 kHz, 8 for G.711; never 0, whatever rate a service claims."""
        return max(1, self.rate_hz // 1000) * (2 if self.type == "audio/pcm" else 1)


PCM16: Final = AudioFormat(type="audio/pcm", rate=24_000)
"""16-bit little-endian mono PCM at 24 kHz, the default of every realtime service."""
PCMU: Final = AudioFormat(type="audio/pcmu")
"""G.711 µ-law at 8 kHz: telephony in North America and Japan."""
PCMA: Final = AudioFormat(type="audio/pcma")
"""G.711 A-law at 8 kHz: telephony elsewhere."""


class ServerVad(Value):
    """Turn detection by loudness-independent speech probability and a silence timer.

    >>> ServerVad(threshold=0.6, silence_duration_ms=500).silence_duration_ms
    500
    """

    type: str = "server_vad"
    threshold: float | Unset = UNSET
    """0 … 1, service default 0.5. Higher needs clearer speech: fewer false starts, more clipped onsets."""
    prefix_padding_ms: int | Unset = UNSET
    """Audio kept from before the detected start, ms; default 300. Lower clips plosives."""
    silence_duration_ms: int | Unset = UNSET
    """Silence that ends a turn, ms; 200 on the wire, 500 documented. Lower answers sooner and cuts people off."""
    idle_timeout_ms: int | Unset | None = UNSET
    """5000 … 30000 ms, or None: create a response after that much silence following the last reply."""
    create_response: bool | Unset = UNSET
    """Create a response when the turn ends; default True."""
    interrupt_response: bool | Unset = UNSET
    """Cancel the running response when the user starts to speak; default True."""


class SemanticVad(Value):
    """Turn detection by a classifier that judges whether the sentence is finished.

    >>> SemanticVad(eagerness="low").eagerness
    'low'
    """

    type: str = "semantic_vad"
    eagerness: str | Unset = UNSET
    """``low``, ``medium``, ``high`` or ``auto`` (= medium): waits at most 8, 4 or 2 s."""
    create_response: bool | Unset = UNSET
    """Create a response when the turn ends; default True."""
    interrupt_response: bool | Unset = UNSET
    """Cancel the running response when the user starts to speak; default True."""


TurnDetection = ServerVad | SemanticVad | JsonObject
"""Turn detection; a kind this version does not know stays a plain mapping. ``None`` means push to talk."""

SERVER_VAD_DEFAULTS: Final = ServerVad(
    threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200, idle_timeout_ms=None,
    create_response=True, interrupt_response=True,
)  # fmt: skip
"""Values in `session.created` of a real GA session (2025-12 and 2026-09)."""
SEMANTIC_VAD_DEFAULTS: Final = SemanticVad(eagerness="auto", create_response=True, interrupt_response=True)
"""Documented defaults."""


# --- session ----------------------------------------------------------------------------------------------------------


class Transcription(Value):
    """Transcription of the user's speech; on Azure `model` is the name of a transcription *deployment*."""

    model: str | Unset = UNSET
    language: str | Unset = UNSET
    """ISO-639-1, for example ``en``."""
    prompt: str | Unset = UNSET
    """Words to expect."""
    languages: tuple[str, ...] | Unset = UNSET
    """Candidate languages; ``gpt-transcribe`` and ``gpt-live-transcribe`` only, like `keywords`."""
    keywords: tuple[str, ...] | Unset = UNSET
    delay: str | Unset = UNSET
    """``minimal``, ``low``, ``medium``, ``high`` or ``xhigh``; ``gpt-realtime-whisper`` only."""


class NoiseReduction(Value):
    """Noise reduction before turn detection and model: ``near_field`` (headset) or ``far_field`` (room)."""

    type: str | Unset = UNSET
    strength: float | Unset = UNSET
    """Documented without a range; 1 when first enabled."""


class AudioInput(Value):
    """Settings for the audio that the client sends."""

    format: AudioFormat | Unset = UNSET
    transcription: Transcription | Unset | None = UNSET
    noise_reduction: NoiseReduction | Unset | None = UNSET
    turn_detection: TurnDetection | Unset | None = UNSET


class AudioOutput(Value):
    """Settings for the audio that the service sends."""

    format: AudioFormat | Unset = UNSET
    voice: str | JsonObject | Unset = UNSET
    """A voice name or ``{"id": …}``; frozen once audio was produced."""
    speed: float | Unset = UNSET
    """0.25 … 1.5, default 1."""


class Audio(Value):
    """Settings of both audio directions."""

    input: AudioInput | Unset = UNSET
    output: AudioOutput | Unset = UNSET


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
    tools: Tools | Unset = UNSET
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
        """`audio.input.turn_detection`, UNSET where the service did not send it."""
        return self._input.turn_detection

    @property
    def voice(self) -> str | JsonObject | Unset:
        """`audio.output.voice`."""
        return self._output.voice

    @property
    def input_format(self) -> AudioFormat:
        """`audio.input.format`, 16-bit PCM at 24 kHz where the service did not send one."""
        return self._input.format or PCM16

    @property
    def output_format(self) -> AudioFormat:
        """`audio.output.format`, 16-bit PCM at 24 kHz where the service did not send one."""
        return self._output.format or PCM16

    @property
    def _input(self) -> AudioInput:
        return (self.audio and self.audio.input) or AudioInput()

    @property
    def _output(self) -> AudioOutput:
        return (self.audio and self.audio.output) or AudioOutput()

    @classmethod
    def of(cls, **settings: Any) -> SessionConfig:
        """Build a (partial) configuration from flat names and short spellings.

        Parameters
        ----------
        **settings
            Fields of this class, or flat names: `input_format`, `transcription`, `noise_reduction`, `turn_detection`
            (audio input), `output_format`, `voice`, `speed` (audio output). Short spellings: a format as
            ``"g711_ulaw"``, a turn detection as ``"server_vad"``, a transcription as its model, a noise reduction as
            ``"near_field"``, one modality as ``"text"``; mappings and lists as on the wire.

        Raises
        ------
        TypeError
            An unknown name; the message gives the nearest one and all that are allowed.
        ValueError
            An unknown audio format.

        Examples
        --------
        >>> SessionConfig.of(voice="marin", instructions="Be brief.").voice
        'marin'
        """
        return _from_flat(cls, settings, (*_INPUT_NAMES, *_OUTPUT_NAMES), "session setting")

    def changes_to(self, wanted: SessionConfig) -> SessionConfig | None:
        """Return the part of `wanted` that differs from this configuration; None where nothing does.

        One refused field makes the service drop the whole update, and a repeated voice can be refused.

        Examples
        --------
        >>> now = SessionConfig.of(voice="marin", instructions="Be brief.")
        >>> now.changes_to(SessionConfig.of(voice="marin", instructions="Be kind."))
        SessionConfig(type='realtime', instructions='Be kind.')
        """
        changed = _difference(self, replace(wanted, type=self.type))
        return None if changed is UNSET else replace(changed, type=self.type)


def _difference(current: Any, wanted: Any) -> Any:
    """Return what `wanted` changes in `current`, nested objects field by field; UNSET where it changes nothing."""
    if wanted is UNSET or merge(current, wanted) == current:
        return UNSET
    if type(current) is not type(wanted) or not isinstance(wanted, SessionConfig | Audio | AudioInput | AudioOutput):
        return wanted
    inner = {f.name: _difference(getattr(current, f.name), getattr(wanted, f.name)) for f in fields(wanted)}
    extra = {name: value for name, value in wanted.extra.items() if current.extra.get(name, UNSET) != value}
    return replace(wanted, **{**inner, "extra": extra})


# --- conversation -----------------------------------------------------------------------------------------------------


class ContentPart(Value):
    """Piece of an item: text, audio with its transcript, or an image."""

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


class Item(Value):
    """Entry of the conversation: a message, a function call, its output, or one of the MCP kinds."""

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

    @classmethod
    def of(cls, given: Item | Mapping[str, Any] | str) -> Item:
        """Return an item: a text becomes a user message, a mapping is an item as on the wire.

        Raises
        ------
        TypeError
            An unknown field of an item or of a content part; the message gives the nearest one.

        Examples
        --------
        >>> Item.of("Hello").content
        (ContentPart(type='input_text', text='Hello'),)
        """
        if isinstance(given, Item):
            return given
        if isinstance(given, str):
            return cls(type="message", role="user", content=(ContentPart(type="input_text", text=given),))
        made = {"type": "message", **given}
        if isinstance(made.get("content"), list | tuple):
            made["content"] = tuple(_exactly(ContentPart, part, "field of a content part") for part in made["content"])
        return _exactly(cls, made, "item field")


class TokenDetails(Value):
    """Tokens by kind; the cached ones are part of the input, not on top."""

    text_tokens: int | Unset = UNSET
    audio_tokens: int | Unset = UNSET
    image_tokens: int | Unset = UNSET
    cached_tokens: int | Unset = UNSET
    cached_tokens_details: TokenDetails | Unset | None = UNSET


class Usage(Value):
    """Tokens or seconds that a response or a transcription consumed."""

    type: str | Unset = UNSET
    """``tokens`` or ``duration``; transcriptions only."""
    total_tokens: int | Unset = UNSET
    input_tokens: int | Unset = UNSET
    output_tokens: int | Unset = UNSET
    input_token_details: TokenDetails | Unset | None = UNSET
    output_token_details: TokenDetails | Unset | None = UNSET
    seconds: float | Unset = UNSET


class ErrorDetail(Value):
    """Content of an `error` event, as the service sends it."""

    free_text: ClassVar[bool] = True

    type: str | Unset = UNSET
    code: str | Unset | None = UNSET
    message: str | Unset | None = UNSET
    param: str | Unset | None = UNSET
    event_id: str | Unset | None = UNSET
    """The client event that caused it."""


class StatusDetails(Value):
    """Reason why a response did not complete."""

    type: str | Unset = UNSET
    reason: str | Unset = UNSET
    """``turn_detected``, ``client_cancelled``, ``max_output_tokens`` or ``content_filter``."""
    error: ErrorDetail | Unset | None = UNSET


class Response(Value):
    """Generation as `response.created` and `response.done` describe it."""

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


class ResponseConfig(Value):
    """Settings of one `response.create`; the session's settings replace what is UNSET."""

    conversation: str | Unset = UNSET
    """``auto`` (default) or ``none`` (outside the conversation)."""
    input: tuple[Item, ...] | Unset = UNSET
    """Context instead of the conversation; ``()`` is an empty context."""
    instructions: str | Unset = UNSET
    output_modalities: tuple[str, ...] | Unset = UNSET
    audio: Audio | Unset = UNSET
    tools: Tools | Unset = UNSET
    tool_choice: str | JsonObject | Unset = UNSET
    parallel_tool_calls: bool | Unset = UNSET
    reasoning: JsonObject | Unset = UNSET
    max_output_tokens: int | str | Unset = UNSET
    metadata: JsonObject | Unset | None = UNSET
    """Up to 16 pairs, keys up to 64 and values up to 512 characters; echoed in the response."""
    prompt: JsonObject | Unset | None = UNSET
    temperature: float | Unset = UNSET

    @classmethod
    def of(cls, **settings: Any) -> ResponseConfig:
        """Build the settings of one response from flat names and short spellings, as `SessionConfig.of` does.

        Parameters
        ----------
        **settings
            Fields of this class, or `voice` and `output_format`. `input` takes items, mappings and plain texts (each
            a user message).

        Examples
        --------
        >>> ResponseConfig.of(output_modalities="text", input=["Hello"]).output_modalities
        ('text',)
        """
        return _from_flat(cls, settings, ("voice", "output_format"), "response setting")


class RateLimit(Value):
    """Remaining part of one quota."""

    name: str | Unset = UNSET
    limit: int | Unset = UNSET
    remaining: int | Unset = UNSET
    reset_seconds: float | Unset = UNSET


# --- flat names and short spellings -----------------------------------------------------------------------------------

_INPUT_NAMES: Final = {"input_format": "format"} | {
    n: n for n in ("transcription", "noise_reduction", "turn_detection")
}
_OUTPUT_NAMES: Final = {"output_format": "format", "voice": "voice", "speed": "speed"}
_FORMATS: Final = {"pcm16": PCM16, "g711_ulaw": PCMU, "g711_alaw": PCMA} | {f.type: f for f in (PCM16, PCMU, PCMA)}


def check_names(given: Iterable[str], allowed: Iterable[str], kind: str) -> None:
    known = sorted(name for name in allowed if name != "extra")
    for name in given:
        if name not in known and name != "extra":
            close = difflib.get_close_matches(name, known, n=1)
            nearest = f"; did you mean {close[0]!r}?" if close else "."
            raise TypeError(f"Unknown {kind} {name!r}{nearest} Allowed are {', '.join(known)}.")


def _from_flat(cls: type[_V], settings: Mapping[str, Any], flat: tuple[str, ...], kind: str) -> _V:
    """Build a configuration whose flat names are moved into `audio`."""
    check_names(settings, {f.name for f in fields(cls)} | {*flat}, kind)
    made = {name: _SPELLINGS[name](value) if name in _SPELLINGS else value for name, value in settings.items()}
    inputs = {_INPUT_NAMES[name]: made.pop(name) for name in flat if name in made and name in _INPUT_NAMES}
    outputs = {_OUTPUT_NAMES[name]: made.pop(name) for name in flat if name in made}
    if inputs or outputs:
        nested = Audio(
            input=AudioInput(**inputs) if inputs else UNSET, output=AudioOutput(**outputs) if outputs else UNSET
        )
        made["audio"] = merge(made.get("audio", UNSET), nested)
    return cls(**made)


def _from_mapping(cls: type[_V], given: Mapping[str, Any]) -> _V:
    """Build a noun from a mapping as on the wire; what it does not know is kept in `extra`."""
    known = {f.name for f in fields(cls)} - {"extra"}
    made = {k: tuple(value) if isinstance(value, list) else value for k, value in given.items() if k in known}
    return cls(**made, extra={name: value for name, value in given.items() if name not in known})


def _exactly(cls: type[_V], given: Any, kind: str) -> _V:
    """Build a noun from a mapping as on the wire; it must know every name."""
    if isinstance(given, Mapping):
        check_names(given, (f.name for f in fields(cls)), kind)
        return cls(**given)
    return cast("_V", given)


def _format(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _from_mapping(AudioFormat, value)
    if isinstance(value, str) and value not in _FORMATS:
        raise ValueError(f"Unknown audio format {value!r}. Allowed are {', '.join(_FORMATS)}.")
    return _FORMATS[value] if isinstance(value, str) else value


def _turn_detection(value: Any) -> Any:
    value = {"type": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        return value
    cls = {"server_vad": ServerVad, "semantic_vad": SemanticVad}.get(value.get("type", "server_vad"))
    return value if cls is None else _from_mapping(cls, value)  # another kind stays a mapping


def _named(cls: type[_V], name: str) -> Callable[[Any], Any]:
    """Return a reader that takes the field `name` alone, a mapping or the noun itself."""

    def read(value: Any) -> Any:
        value = {name: value} if isinstance(value, str) else value
        return _from_mapping(cls, value) if isinstance(value, Mapping) else value

    return read


def _entries(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a reader of a list, or of one word alone, whose entries `read` reads."""

    def read_all(value: Any) -> Any:
        value = [value] if isinstance(value, str) else value
        return tuple(map(read, value)) if isinstance(value, list | tuple) else value

    return read_all


_SPELLINGS: Final[dict[str, Callable[[Any], Any]]] = {
    "input_format": _format,
    "output_format": _format,
    "turn_detection": _turn_detection,
    "transcription": _named(Transcription, "model"),
    "noise_reduction": _named(NoiseReduction, "type"),
    "output_modalities": _entries(lambda word: word),
    "include": _entries(lambda word: word),
    "tools": lambda value: value if value in (None, UNSET) else Tools(value),
    "input": _entries(Item.of),
}
