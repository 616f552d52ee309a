"""What a person types becomes protocol values: flat names, short spellings, and updates that hold only changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from rtnb.protocol.values import (
    PCM16,
    PCMA,
    PCMU,
    UNSET,
    Audio,
    AudioFormat,
    AudioInput,
    AudioOutput,
    ContentPart,
    Item,
    NoiseReduction,
    Response,
    ResponseConfig,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
    merge,
)

_FORMATS = {
    "audio/pcm": PCM16,
    "audio/pcmu": PCMU,
    "audio/pcma": PCMA,
    "pcm16": PCM16,
    "g711_ulaw": PCMU,
    "g711_alaw": PCMA,
}


def session_config(**settings: Any) -> SessionConfig:
    """Build a (partial) configuration from flat names and short spellings.

    Parameters
    ----------
    **settings
        As `SessionConfig.of` takes them. Short: formats as ``"audio/pcmu"`` or ``"g711_ulaw"``, `turn_detection` as
        ``"server_vad"``, a mapping or None, `transcription` as a model name, `noise_reduction` as ``"near_field"``,
        `output_modalities` as ``"text"``.

    Raises
    ------
    TypeError
        An unknown name.
    ValueError
        An unknown short spelling; the message lists the known ones.
    """
    return SessionConfig.of(**{name: _spelled_out(name, value) for name, value in settings.items()})


def response_config(**settings: Any) -> ResponseConfig:
    """Build the settings of one response from flat names.

    Parameters
    ----------
    **settings
        Fields of `ResponseConfig`, or `voice` and `output_format`. `input` takes items, mappings and plain texts
        (each a user message).

    Raises
    ------
    TypeError
        An unknown name.
    """
    settings = {name: _spelled_out(name, value) for name, value in settings.items()}
    output = {wire: settings.pop(name) for name, wire in _OUTPUT_NAMES.items() if name in settings}
    known = {field.name for field in fields(ResponseConfig)}
    if unknown := sorted(set(settings) - known):
        allowed = ", ".join(sorted(known - {"extra"} | _OUTPUT_NAMES.keys()))
        raise TypeError(f"unknown response setting {unknown[0]!r}; known settings: {allowed}")
    if output:
        settings["audio"] = merge(settings.get("audio", UNSET), Audio(output=AudioOutput(**output)))
    if "input" in settings:
        settings["input"] = tuple(item_of(entry) for entry in settings["input"])
    return ResponseConfig(**settings)


_OUTPUT_NAMES = {"voice": "voice", "output_format": "format"}


def item_of(item: Item | Mapping[str, Any] | str) -> Item:
    """Make an item of what a person types: a text is a user message, a mapping is an item as on the wire."""
    if isinstance(item, Item):
        return item
    if isinstance(item, str):
        return Item(type="message", role="user", content=(ContentPart(type="input_text", text=item),))
    values = dict(item)
    values.setdefault("type", "message")
    if isinstance(values.get("content"), list | tuple):
        values["content"] = tuple(
            part if isinstance(part, ContentPart) else ContentPart(**part) for part in values["content"]
        )
    return Item(**values)


def _spelled_out(name: str, value: Any) -> Any:
    spell = _SPELLINGS.get(name)
    return spell(value) if spell else value


def _format(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in _FORMATS:
        raise ValueError(f"unknown audio format {value!r}; known are {', '.join(_FORMATS)}")
    return _FORMATS[value]


def _turn_detection(value: Any) -> Any:
    value = {"type": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        return value
    cls = {"server_vad": ServerVad, "semantic_vad": SemanticVad}.get(value.get("type", "server_vad"))
    if cls is None:
        return value  # a kind this version does not know
    known = {field.name for field in fields(cls)}
    extra = {key: entry for key, entry in value.items() if key not in known}
    return cls(**{key: entry for key, entry in value.items() if key in known}, extra=extra)


def _words(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


_SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "input_format": _format,
    "output_format": _format,
    "turn_detection": _turn_detection,
    "transcription": lambda value: Transcription(model=value) if isinstance(value, str) else value,
    "noise_reduction": lambda value: NoiseReduction(type=value) if isinstance(value, str) else value,
    "output_modalities": _words,
    "include": _words,
    "tools": _words,
}


_NESTED = (SessionConfig, Audio, AudioInput, AudioOutput)


def changes(current: SessionConfig, wanted: SessionConfig) -> SessionConfig | None:
    """The part of `wanted` that differs from `current`; None where nothing does.

    A setting that is as it should be is never sent: one refused field makes the service drop the whole update, and a
    repeated voice can be refused.
    """
    kept = {
        field.name: difference
        for field in fields(SessionConfig)
        if field.name not in ("extra", "type")
        and (difference := _difference(getattr(current, field.name), getattr(wanted, field.name))) is not UNSET
    }
    extra = {name: value for name, value in wanted.extra.items() if current.extra.get(name, UNSET) != value}
    return SessionConfig(**kept, type=current.type, extra=extra) if kept or extra else None


def _difference(current: Any, wanted: Any) -> Any:
    if wanted is UNSET or merge(current, wanted) == current:
        return UNSET
    if not isinstance(wanted, _NESTED) or type(current) is not type(wanted):
        return wanted
    inner = {
        field.name: _difference(getattr(current, field.name), getattr(wanted, field.name))
        for field in fields(wanted)
        if field.name != "extra"
    }
    return replace(wanted, **inner)


def audio_format(config: SessionConfig | None, response: Response | None = None) -> AudioFormat:
    """The format of the audio a response carries: its own, else the session's."""
    output = response.audio and response.audio.output if response is not None else None
    if output and output.format:
        return output.format
    return config.output_format if config is not None else PCM16
