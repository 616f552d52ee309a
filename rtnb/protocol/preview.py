"""Preview dialect (2024-10 … 2025-04) as a translation of JSON objects to and from the GA spelling.

Lossless both ways: a field without a counterpart is left as it is, so that the peer can judge it. Source: the
migration tables of the service's documentation and the beta types of ``openai`` 3.51.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rtnb.errors import LocalProtocolError
from rtnb.protocol.events import SERVER_EVENTS

_NAMES = ("text.delta", "text.done", "audio.delta", "audio.done", "audio_transcript.delta", "audio_transcript.done")
GA_TYPES = {f"response.{name}": f"response.output_{name}" for name in _NAMES}
"""Preview name of an event -> GA name."""
PREVIEW_TYPES = {ga: preview for preview, ga in GA_TYPES.items()}
PREVIEW_FORMATS: dict[str, dict[str, Any]] = {
    "pcm16": {"type": "audio/pcm", "rate": 24_000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
"""Preview name of an audio format -> GA object."""
_GA_FORMATS = {entry["type"]: name for name, entry in PREVIEW_FORMATS.items()}
_TO_GA = {"text": "output_text", "audio": "output_audio"}
_TO_PREVIEW = {ga: preview for preview, ga in _TO_GA.items()}

_Path = tuple[str, ...]
SESSION_PATHS: dict[str, _Path] = {
    "modalities": ("output_modalities",),
    "max_response_output_tokens": ("max_output_tokens",),
    "input_audio_format": ("audio", "input", "format"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "output_audio_format": ("audio", "output", "format"),
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
}
"""Flat preview name of a session setting -> its place in GA."""
_RESPONSE_PATHS = {k: SESSION_PATHS[k] for k in ("modalities", "output_audio_format", "voice")}
_CREATE_PATHS = {**_RESPONSE_PATHS, "max_response_output_tokens": ("max_output_tokens",)}
_GA_ONLY = re.compile(r"mcp|segment|timeout|dtmf|^conversation\.item\.(added|done)$")
GA_ONLY_EVENTS = frozenset(filter(_GA_ONLY.search, SERVER_EVENTS))
"""Server events that the preview dialect does not have."""


def event_from_preview(message: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a JSON event from the preview spelling to the GA one."""
    kind = message["type"]
    out = _event(message, _nest, _TO_GA)
    out["type"] = GA_TYPES.get(kind, kind)
    if kind.startswith("transcription_session."):
        out["type"] = kind.removeprefix("transcription_")
        if isinstance(out.get("session"), dict):
            out["session"]["type"] = "transcription"
    return out


def event_to_preview(message: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a JSON event from the GA spelling to the preview one.

    Raises
    ------
    LocalProtocolError
        The preview dialect has no such event.
    """
    kind = message["type"]
    if kind in GA_ONLY_EVENTS:
        raise LocalProtocolError(f"The preview dialect has no event {kind!r}. It exists in the dialect 'ga'.")
    out = _event(message, _flatten, _TO_PREVIEW)
    out["type"] = PREVIEW_TYPES.get(kind, kind)
    if isinstance(out.get("session"), dict) and out["session"].pop("type", None) == "transcription":
        out["type"] = "transcription_" + kind
    return out


def session_from_preview(session: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a session configuration from the preview spelling to the GA one."""
    return _nest(session, SESSION_PATHS)


def session_to_preview(session: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a session configuration from the GA spelling to the preview one."""
    return _flatten({k: v for k, v in session.items() if k != "type"}, SESSION_PATHS)


def _event(message: Mapping[str, Any], translate: Any, content: Mapping[str, str]) -> dict[str, Any]:
    """Return a message whose session, item and response are translated."""
    out = dict(message)
    if isinstance(session := out.get("session"), dict):
        out["session"] = translate(session, SESSION_PATHS)
    if isinstance(response := out.get("response"), dict):
        paths = _CREATE_PATHS if message["type"] == "response.create" else _RESPONSE_PATHS
        out["response"] = response = translate(response, paths)
        for key in ("output", "input"):
            if isinstance(response.get(key), list):
                response[key] = [_item(entry, content) for entry in response[key]]
    if "item" in out:
        out["item"] = _item(out["item"], content)
    return out


def _item(item: Any, names: Mapping[str, str]) -> Any:
    """Return an item whose content parts have the other dialect's types."""
    if not isinstance(item, dict) or not isinstance(item.get("content"), list):
        return item
    content = [
        {**part, "type": names.get(part["type"], part["type"])}
        if isinstance(part, dict) and isinstance(part.get("type"), str)
        else part
        for part in item["content"]
    ]
    return {**item, "content": content}


def _nest(flat: Mapping[str, Any], paths: Mapping[str, _Path]) -> dict[str, Any]:
    """Move flat settings to their places in GA."""
    out = {k: v for k, v in flat.items() if k not in paths}
    for name, (*steps, last) in paths.items():
        if name not in flat:
            continue
        value, target = flat[name], out
        if name.endswith("_audio_format") and isinstance(value, str):
            value = dict(PREVIEW_FORMATS.get(value, {"type": value}))
        elif name == "modalities" and value == ["text", "audio"]:
            value = ["audio"]
        for step in steps:
            held = target.get(step)
            target[step] = target = dict(held) if isinstance(held, dict) else {}
        target[last] = value
    if isinstance(choice := out.get("tool_choice"), dict) and isinstance(choice.get("function"), dict):
        out["tool_choice"] = {"type": choice.get("type"), **choice["function"]}
    return out


def _flatten(nested: Mapping[str, Any], paths: Mapping[str, _Path]) -> dict[str, Any]:
    """Move the settings of GA to their flat names; an object that this empties is left out."""
    out = dict(nested)
    for name, path in paths.items():
        value = _take(out, path)
        if value is _ABSENT:
            continue
        if name.endswith("_audio_format") and isinstance(value, dict) and isinstance(value.get("type"), str):
            value = _GA_FORMATS.get(value["type"], value["type"])
        elif name == "modalities" and value == ["audio"]:
            value = ["text", "audio"]
        out[name] = value
    choice = out.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
        out["tool_choice"] = {"type": "function", "function": {k: v for k, v in choice.items() if k != "type"}}
    return out


_ABSENT = object()


def _take(holder: dict[str, Any], path: _Path) -> Any:
    """Remove the value at `path` from copies of the objects on the way, and return it."""
    step, *rest = path
    held = holder.get(step, _ABSENT)
    if not rest:
        return holder.pop(step, _ABSENT)
    if not isinstance(held, dict):
        return _ABSENT
    holder[step] = inner = dict(held)
    value = _take(inner, tuple(rest))
    if not inner:
        del holder[step]
    return value
