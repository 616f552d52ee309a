"""The preview dialect (2024-10 … 2025-04) as a translation of JSON objects to and from the GA spelling.

Lossless both ways: what has no counterpart is left as it is, so that the peer can judge it. Source: the migration
tables of the service's documentation and the beta types of ``openai`` 3.51.0.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from rtnb.errors import LocalProtocolError
from rtnb.protocol.events import SERVER_EVENTS

GA_TYPES = {
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
}
PREVIEW_TYPES = {ga: preview for preview, ga in GA_TYPES.items()}
_TRANSCRIPTION_TYPES = {
    "transcription_session.update": "session.update",
    "transcription_session.created": "session.created",
    "transcription_session.updated": "session.updated",
}
PREVIEW_FORMATS: dict[str, dict[str, Any]] = {
    "pcm16": {"type": "audio/pcm", "rate": 24_000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
"""Preview name of an audio format -> GA object."""
_GA_FORMATS = {entry["type"]: name for name, entry in PREVIEW_FORMATS.items()}
_PREVIEW_CONTENT = {"text": "output_text", "audio": "output_audio"}
_GA_CONTENT = {ga: preview for preview, ga in _PREVIEW_CONTENT.items()}

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
"""Flat preview name of a session setting -> where GA keeps it."""
_RESPONSE_PATHS = {k: SESSION_PATHS[k] for k in ("modalities", "output_audio_format", "voice")}
_CREATE_PATHS = {
    k: SESSION_PATHS[k] for k in ("modalities", "output_audio_format", "voice", "max_response_output_tokens")
}
GA_ONLY_EVENTS = frozenset(
    t
    for t in SERVER_EVENTS
    if "mcp" in t
    or t.endswith((".segment", "timeout_triggered", "dtmf_event_received", "item.added", "conversation.item.done"))
) - {"response.output_item.added"}
"""Server events that the preview dialect does not have."""


def event_from_preview(message: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a JSON event from the preview spelling to the GA one."""
    out = dict(message)
    kind = message["type"]
    if kind in _TRANSCRIPTION_TYPES:
        out["type"] = _TRANSCRIPTION_TYPES[kind]
        if isinstance(out.get("session"), dict):
            out["session"] = {**session_from_preview(out["session"]), "type": "transcription"}
        return out
    out["type"] = GA_TYPES.get(kind, kind)
    if isinstance(out.get("session"), dict):
        out["session"] = session_from_preview(out["session"])
    if isinstance(out.get("item"), dict):
        out["item"] = _item(out["item"], _PREVIEW_CONTENT)
    if isinstance(out.get("response"), dict):
        out["response"] = _response_from_preview(
            out["response"], _CREATE_PATHS if kind == "response.create" else _RESPONSE_PATHS
        )
    return out


def event_to_preview(message: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a JSON event from the GA spelling to the preview one.

    Raises
    ------
    LocalProtocolError
        The preview dialect has no such event.
    """
    out = dict(message)
    kind = message["type"]
    if kind in GA_ONLY_EVENTS:
        raise LocalProtocolError(f"the preview dialect has no event {kind!r}")
    out["type"] = PREVIEW_TYPES.get(kind, kind)
    if isinstance(out.get("session"), dict):
        if out["session"].get("type") == "transcription":
            out["type"] = "transcription_" + kind
        out["session"] = session_to_preview(out["session"])
    if isinstance(out.get("item"), dict):
        out["item"] = _item(out["item"], _GA_CONTENT)
    if isinstance(out.get("response"), dict):
        out["response"] = _response_to_preview(
            out["response"], _CREATE_PATHS if kind == "response.create" else _RESPONSE_PATHS
        )
    return out


def session_from_preview(session: Mapping[str, Any]) -> dict[str, Any]:
    return _nest(session, SESSION_PATHS)


def session_to_preview(session: Mapping[str, Any]) -> dict[str, Any]:
    return _flatten({k: v for k, v in session.items() if k != "type"}, SESSION_PATHS)


def _response_from_preview(response: Mapping[str, Any], paths: Mapping[str, _Path]) -> dict[str, Any]:
    out = _nest(response, paths)
    for key in ("output", "input"):
        if isinstance(out.get(key), list):
            out[key] = [_item(entry, _PREVIEW_CONTENT) for entry in out[key]]
    return out


def _response_to_preview(response: Mapping[str, Any], paths: Mapping[str, _Path]) -> dict[str, Any]:
    out = _flatten(response, paths)
    for key in ("output", "input"):
        if isinstance(out.get(key), list):
            out[key] = [_item(entry, _GA_CONTENT) for entry in out[key]]
    return out


def _item(item: Any, content_types: Mapping[str, str]) -> Any:
    if not isinstance(item, dict) or not isinstance(item.get("content"), list):
        return item
    content = [
        {**part, "type": content_types.get(part["type"], part["type"])}
        if isinstance(part, dict) and isinstance(part.get("type"), str)
        else part
        for part in item["content"]
    ]
    return {**item, "content": content}


def _nest(flat: Mapping[str, Any], paths: Mapping[str, _Path]) -> dict[str, Any]:
    out = {k: v for k, v in flat.items() if k not in paths}
    for name, path in paths.items():
        if name in flat:
            target = out
            for step in path[:-1]:
                held = target.get(step)
                target[step] = target = dict(held) if isinstance(held, dict) else {}
            target[path[-1]] = _value_from_preview(name, flat[name])
    if isinstance(choice := out.get("tool_choice"), dict) and isinstance(choice.get("function"), dict):
        out["tool_choice"] = {"type": choice.get("type"), **choice["function"]}
    return out


def _flatten(nested: Mapping[str, Any], paths: Mapping[str, _Path]) -> dict[str, Any]:
    out = copy.deepcopy(dict(nested)) if "audio" in nested else dict(nested)
    for name, path in paths.items():
        holders = [out]
        for step in path[:-1]:
            held = holders[-1].get(step)
            holders.append(held if isinstance(held, dict) else {})
        if path[-1] in holders[-1]:
            out[name] = _value_to_preview(name, holders[-1].pop(path[-1]))
        for holder, step in zip(holders[-2::-1], path[-2::-1], strict=False):
            if holder.get(step) == {}:
                del holder[step]
    choice = out.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
        out["tool_choice"] = {"type": "function", "function": {k: v for k, v in choice.items() if k != "type"}}
    return out


def _value_from_preview(name: str, value: Any) -> Any:
    if name.endswith("_audio_format") and isinstance(value, str):
        return dict(PREVIEW_FORMATS.get(value, {"type": value}))
    return ["audio"] if name == "modalities" and value == ["text", "audio"] else value


def _value_to_preview(name: str, value: Any) -> Any:
    if name.endswith("_audio_format") and isinstance(value, dict) and isinstance(value.get("type"), str):
        return _GA_FORMATS.get(value["type"], value["type"])
    return ["text", "audio"] if name == "modalities" and value == ["audio"] else value
