"""Shapes that a service accepts from a client, field by field, in both dialects, apart from the session's state.

The tables can be compared with the reference line by line: ranges, enumerations and required fields are those of the
GA and preview references; limits without a documented code are marked in :mod:`rtnb.protocol.service.rules`. A field
name that ends in ``!`` is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rtnb.protocol.preview import PREVIEW_FORMATS
from rtnb.protocol.service.rules import (
    Refusal,
    Rule,
    array,
    base64_audio,
    boolean,
    by_type,
    enum,
    integer_or_inf,
    invalid_value,
    json_object,
    nullable,
    number,
    one_of,
    string,
    string_table,
    table,
)
from rtnb.protocol.values import Dialect

APPEND_LIMIT_BYTES: Final = 15 * 1024 * 1024
"""Most audio in one `input_audio_buffer.append` (documented)."""
ID_LENGTH: Final = 32
"""Longest item and call id a client may choose (field reports)."""
EVENT_ID_LENGTH: Final = 512
"""Longest client `event_id` (OpenAPI document)."""

_Fields = dict[str, Rule]
_text = string()
_id = string(max_length=ID_LENGTH)
_tokens = integer_or_inf(maximum=4096)
_ms = number("integer", 0)
_ratio = number("decimal", 0, 1)
_speed = number("decimal", 0.25, 1.5)
_metadata = nullable(string_table(max_pairs=16, key_length=64, value_length=512))
_voice = one_of(_text, table({"id!": _text}))
_where = enum("auto", "none")

# --- shared shapes ----------------------------------------------------------------------------------------------------

_function_tool: _Fields = {"name!": _text, "description": _text, "parameters": json_object}
_tool = by_type({"function": _function_tool, "mcp": json_object})
_tool_choice_words = enum("none", "auto", "required")

_turn: _Fields = {"create_response": boolean, "interrupt_response": boolean}
_server_vad: _Fields = {"threshold": _ratio, "prefix_padding_ms": _ms, "silence_duration_ms": _ms, **_turn}
_semantic_vad: _Fields = {"eagerness": enum("low", "medium", "high", "auto"), **_turn}
_ga_turn_detection = by_type(
    {
        "server_vad": {**_server_vad, "idle_timeout_ms": nullable(number("integer", 5000, 30_000))},
        "semantic_vad": _semantic_vad,
    }
)
_preview_turn_detection = by_type(
    {"server_vad": _server_vad, "semantic_vad": _semantic_vad, "none": {}}, default="server_vad"
)
_preview_transcription: _Fields = {"model": _text, "language": _text, "prompt": _text}
_ga_transcription: _Fields = {
    **_preview_transcription,
    "languages": array(_text),
    "keywords": array(_text),
    "delay": enum("minimal", "low", "medium", "high", "xhigh"),
}
_noise = enum("near_field", "far_field")
_logprobs = nullable(array(enum("item.input_audio_transcription.logprobs")))

# --- items ------------------------------------------------------------------------------------------------------------

_parts: dict[str, _Fields] = {
    "input_audio": {"audio!": base64_audio, "transcript": nullable(_text)},
    "input_image": {"image_url!": _text, "detail": enum("auto", "low", "high")},
    **{kind: {"text!": _text} for kind in ("input_text", "output_text", "text")},
}
_item: _Fields = {"id": _id, "object": _text, "status": enum("completed", "incomplete", "in_progress")}


def _message(more: _Fields, parts: Mapping[str, tuple[str, ...]]) -> Rule:
    """Make a rule for a message: `parts` lists what each role may hold; a client cannot create assistant audio."""
    frame = table({"type": _text, **_item, **more, "role!": enum(*parts), "content!": lambda path, value: None})
    contents = {role: array(by_type({kind: _parts[kind] for kind in kinds})) for role, kinds in parts.items()}
    return lambda path, value: frame(path, value) or contents[value["role"]](f"{path}.content", value["content"])


_calls: dict[str, _Fields] = {
    "function_call": {**_item, "name!": _text, "arguments!": _text, "call_id": _id},
    "function_call_output": {**_item, "call_id!": _id, "output!": _text},
}
_preview_items: dict[str, Rule | Mapping[str, Rule]] = {
    "message": _message({}, {"system": ("input_text",), "user": ("input_text", "input_audio"), "assistant": ("text",)}),
    **_calls,
}
_ga_items: dict[str, Rule | Mapping[str, Rule]] = {
    "message": _message(
        {"phase": nullable(_text)},
        {
            "system": ("input_text",),
            "user": ("input_text", "input_audio", "input_image"),
            "assistant": ("output_text", "text"),  # the preview's name is still accepted (u)
        },
    ),
    **_calls,
    "mcp_approval_response": {
        **_item, "id!": _id, "approval_request_id!": _text, "approve!": boolean, "reason": nullable(_text),
    },
}  # fmt: skip
_reference: dict[str, _Fields] = {"item_reference": {**_item, "id!": _text}}

# --- configuration ----------------------------------------------------------------------------------------------------


def _modalities(*combinations: list[str]) -> Rule:
    """Make a rule for these combinations of text and audio, in any order."""
    words = array(enum("text", "audio"))

    def check(path: str, value: Any) -> Refusal | None:
        refusal = words(path, value)
        if refusal or sorted(value) in combinations:
            return refusal
        listing = " and ".join(map(str, combinations))
        return Refusal(
            "invalid_value", f"Invalid modalities: {value[:3]}. Supported combinations are: {listing}.", path
        )

    return check


_ga_format = by_type({"audio/pcm": {"rate!": number("integer", 24_000, 24_000)}, "audio/pcmu": {}, "audio/pcma": {}})
_ga_input = table(
    {
        "format": _ga_format,
        "transcription": nullable(table(_ga_transcription)),
        "noise_reduction": nullable(table({"type": _noise, "strength": number("decimal")})),
        "turn_detection": nullable(_ga_turn_detection),
    }
)
_tracing = nullable(one_of(enum("auto"), table({"workflow_name": _text, "group_id": _text, "metadata": json_object})))
_truncation = by_type({"retention_ratio": {"retention_ratio!": _ratio, "token_limits": json_object}})
_ga_common: _Fields = {
    "instructions": _text,
    "output_modalities": _modalities(["text"], ["audio"]),
    "tools": array(_tool),
    "tool_choice": one_of(
        _tool_choice_words,
        by_type({"function": {"name!": _text}, "mcp": {"server_label!": _text, "name": nullable(_text)}}),
    ),
    "parallel_tool_calls": boolean,
    "reasoning": nullable(table({"effort": enum("minimal", "low", "medium", "high", "xhigh")})),
    "max_output_tokens": _tokens,
    "prompt": nullable(table({"id!": _text, "version": nullable(_text), "variables": nullable(json_object)})),
}
_ga_session = by_type(
    {
        "realtime": {
            **_ga_common,
            "model": _text,
            "audio": table(
                {"input": _ga_input, "output": table({"format": _ga_format, "voice": _voice, "speed": _speed})}
            ),
            "include": _logprobs,
            "tracing": _tracing,
            "truncation": one_of(enum("auto", "disabled"), _truncation),
        },
        "transcription": {"audio": table({"input": _ga_input}), "include": _logprobs},
    }
)
_ga_response = table(
    {
        **_ga_common,
        "conversation": _where,
        "input": array(by_type({**_ga_items, **_reference})),
        "audio": table({"output": table({"format": _ga_format, "voice": _voice})}),
        "metadata": _metadata,
    }
)

_preview_format = enum(*PREVIEW_FORMATS)
_named = table({"type!": enum("function"), "name!": _text})
_nested = table({"type!": enum("function"), "function": table({"name!": _text})})
_preview_common: _Fields = {
    "modalities": _modalities(["text"], ["audio", "text"]),
    "instructions": _text,
    "voice": _text,
    "output_audio_format": _preview_format,
    "tools": array(by_type({"function": _function_tool})),
    "tool_choice": one_of(  # nested as documented, or flat as later preview versions asked for (reports of 2025-05)
        _tool_choice_words, lambda path, value: (_nested if "function" in value else _named)(path, value)
    ),
    "temperature": number("decimal", 0.6, 1.2),
    "max_response_output_tokens": _tokens,
}
_preview_input: _Fields = {
    "input_audio_format": _preview_format,
    "input_audio_transcription": nullable(table(_preview_transcription)),
    "input_audio_noise_reduction": nullable(table({"type": _noise})),
    "turn_detection": nullable(_preview_turn_detection),
    "client_secret": json_object,
}
_preview_session = table({"model": _text, **_preview_common, **_preview_input, "speed": _speed, "tracing": _tracing})
_preview_transcription_session = table(
    {**_preview_input, "modalities": _preview_common["modalities"], "include": nullable(array(_text))}
)
_preview_response = table(
    {
        **_preview_common,
        "conversation": _where,
        "input": array(by_type({**_preview_items, **_reference})),
        "max_output_tokens": _tokens,
        "metadata": _metadata,
    }
)

# --- events -----------------------------------------------------------------------------------------------------------


def _events(session: Rule, item: Rule, response: Rule) -> dict[str, _Fields]:
    return {
        "session.update": {"session!": session},
        "input_audio_buffer.append": {"audio!": _text},
        "input_audio_buffer.commit": {},
        "input_audio_buffer.clear": {},
        "conversation.item.create": {"item!": item, "previous_item_id": nullable(_text)},
        "conversation.item.retrieve": {"item_id!": _text},
        "conversation.item.truncate": {
            "item_id!": _text, "content_index!": number("integer", 0, 0), "audio_end_ms!": _ms,
        },
        "conversation.item.delete": {"item_id!": _text},
        "response.create": {"response": response},
        "response.cancel": {"response_id": _text},
        "output_audio_buffer.clear": {},
    }  # fmt: skip


_frame: _Fields = {"type": _text, "event_id": nullable(string(max_length=EVENT_ID_LENGTH))}
_FIELDS: dict[Dialect, dict[str, _Fields]] = {
    "ga": _events(_ga_session, by_type(_ga_items), _ga_response),
    "preview": {
        **_events(_preview_session, by_type(_preview_items), _preview_response),
        "transcription_session.update": {"session!": _preview_transcription_session},
    },
}
_SCHEMAS = {
    dialect: {kind: table({**_frame, **fields}) for kind, fields in kinds.items()} for dialect, kinds in _FIELDS.items()
}


def check_event(message: Mapping[str, Any], *, dialect: Dialect, webrtc: bool = False) -> Refusal | None:
    """Check a client event as a service does, without looking at the state of the session.

    A client can check before it sends: `Refusal.explanation` then names the path, the value and what is allowed.

    Parameters
    ----------
    message : Mapping
        The JSON object as on the wire.
    dialect : {"ga", "preview"}
        The dialect of the service.
    webrtc : bool, default False
        Whether the connection has an output audio buffer on the service (`output_audio_buffer.clear`).

    Returns
    -------
    Refusal or None
        None where the event is acceptable.
    """
    kind = message.get("type")
    if not isinstance(kind, str):
        return Refusal("invalid_event", "Invalid event: the field 'type' is missing or not a string.")
    schemas = _SCHEMAS[dialect]
    if kind not in schemas or (kind == "output_audio_buffer.clear" and not webrtc):
        return invalid_value("type", kind, tuple(k for k in schemas if webrtc or k != "output_audio_buffer.clear"))
    return schemas[kind]("", message)


def check_session(session: Any, *, dialect: Dialect) -> Refusal | None:
    """Check the session configuration of an HTTP request (`client_secrets`, `sessions`)."""
    return _ga_session("session", session) if dialect == "ga" else _preview_session("", session)
