"""What a service accepts from a client, field by field, in both dialects, before it looks at the state of the session.

Written as tables so that they can be compared with the reference line by line: ranges, enumerations and required
fields are those of the GA and preview references; limits without a documented code are marked in
:mod:`rtnb.protocol.service.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rtnb.protocol.preview import PREVIEW_FORMATS
from rtnb.protocol.service.rules import (
    Refusal,
    Rule,
    anything,
    array,
    base64_audio,
    boolean,
    by_type,
    decimal,
    enum,
    integer,
    integer_or_inf,
    invalid_value,
    json_object,
    json_table,
    missing,
    nullable,
    one_of,
    string,
    string_table,
)
from rtnb.protocol.values import Dialect

APPEND_LIMIT_BYTES: Final = 15 * 1024 * 1024
"""Most audio in one `input_audio_buffer.append` (documented)."""
ID_LENGTH: Final = 32
"""Longest item and call id a client may choose (field reports)."""
EVENT_ID_LENGTH: Final = 512
"""Longest client `event_id` (OpenAPI document)."""

_text = string()
_id = string(max_length=ID_LENGTH)
_tokens = integer_or_inf(maximum=4096)
_eagerness = enum("low", "medium", "high", "auto")
_metadata = nullable(string_table(max_pairs=16, key_length=64, value_length=512))
_voice = one_of(_text, json_table({"id": _text}, required=("id",)))

# --- shared shapes ----------------------------------------------------------------------------------------------------

_function_tool = json_table(
    {"type": _text, "name": _text, "description": _text, "parameters": json_object}, required=("name",)
)
_tool = by_type({"function": _function_tool, "mcp": json_object})
_tool_choice_words = enum("none", "auto", "required")

_server_vad_fields: dict[str, Rule] = {
    "type": _text,
    "threshold": decimal(minimum=0, maximum=1),
    "prefix_padding_ms": integer(minimum=0),
    "silence_duration_ms": integer(minimum=0),
    "create_response": boolean,
    "interrupt_response": boolean,
}
_semantic_vad = json_table(
    {"type": _text, "eagerness": _eagerness, "create_response": boolean, "interrupt_response": boolean}
)
_ga_turn_detection = by_type(
    {
        "server_vad": json_table(
            {**_server_vad_fields, "idle_timeout_ms": nullable(integer(minimum=5000, maximum=30_000))}
        ),
        "semantic_vad": _semantic_vad,
    }
)
_preview_turn_detection = by_type(
    {"server_vad": json_table(_server_vad_fields), "semantic_vad": _semantic_vad, "none": json_table({"type": _text})},
    default="server_vad",
)
_transcription = json_table(
    {
        "model": _text,
        "language": _text,
        "prompt": _text,
        "languages": array(_text),
        "keywords": array(_text),
        "delay": enum("minimal", "low", "medium", "high", "xhigh"),
    }
)
_noise = enum("near_field", "far_field")

# --- items ------------------------------------------------------------------------------------------------------------

_input_text = json_table({"type": _text, "text": _text}, required=("text",))
_input_audio = json_table({"type": _text, "audio": base64_audio, "transcript": nullable(_text)}, required=("audio",))
_input_image = json_table(
    {"type": _text, "image_url": _text, "detail": enum("auto", "low", "high")}, required=("image_url",)
)


def _message(frame: Rule, parts: Mapping[str, tuple[str, ...]]) -> Rule:
    """A message, and which parts its role may hold: assistant audio cannot be created by a client."""
    contents = {role: array(by_type({kind: _parts[kind] for kind in kinds})) for role, kinds in parts.items()}

    def check(path: str, value: Any) -> Refusal | None:
        return frame(path, value) or contents[value["role"]](f"{path}.content", value["content"])

    return check


_parts: dict[str, Rule] = {"input_audio": _input_audio, "input_image": _input_image}
_parts.update(dict.fromkeys(("input_text", "output_text", "text"), _input_text))
_item_frame: dict[str, Rule] = {
    "type": _text,
    "id": _id,
    "object": _text,
    "status": enum("completed", "incomplete", "in_progress"),
}
_roles = enum("system", "user", "assistant")
_preview_message = _message(
    json_table({**_item_frame, "role": _roles, "content": array(anything)}, required=("role", "content")),
    {"system": ("input_text",), "user": ("input_text", "input_audio"), "assistant": ("text",)},
)
_ga_message = _message(
    json_table(
        {**_item_frame, "role": _roles, "content": array(anything), "phase": nullable(_text)},
        required=("role", "content"),
    ),
    {
        "system": ("input_text",),
        "user": ("input_text", "input_audio", "input_image"),
        "assistant": ("output_text", "text"),  # the preview's name is still accepted (u)
    },
)
_function_call = json_table(
    {**_item_frame, "name": _text, "arguments": _text, "call_id": _id}, required=("name", "arguments")
)
_function_call_output = json_table({**_item_frame, "call_id": _id, "output": _text}, required=("call_id", "output"))
_approval = json_table(
    {**_item_frame, "approval_request_id": _text, "approve": boolean, "reason": nullable(_text)},
    required=("id", "approval_request_id", "approve"),
)
_calls: dict[str, Rule] = {"function_call": _function_call, "function_call_output": _function_call_output}
_preview_items: dict[str, Rule] = {"message": _preview_message, **_calls}
_ga_items: dict[str, Rule] = {"message": _ga_message, **_calls, "mcp_approval_response": _approval}
_reference = json_table({**_item_frame, "id": _text}, required=("id",))

# --- GA configuration -------------------------------------------------------------------------------------------------

_ga_format = by_type(
    {
        "audio/pcm": json_table({"type": _text, "rate": integer(minimum=24_000, maximum=24_000)}, required=("rate",)),
        "audio/pcmu": json_table({"type": _text}),
        "audio/pcma": json_table({"type": _text}),
    }
)
_ga_noise = json_table({"type": _noise, "strength": decimal()})
_ga_transcription_input = {
    "format": _ga_format,
    "transcription": nullable(_transcription),
    "noise_reduction": nullable(_ga_noise),
    "turn_detection": nullable(_ga_turn_detection),
}
_include = nullable(array(enum("item.input_audio_transcription.logprobs")))


def _ga_modalities(path: str, value: Any) -> Refusal | None:
    """Speech or text, never both."""
    refusal = array(enum("text", "audio"), max_items=2)(path, value)
    if refusal or value in (["audio"], ["text"]):
        return refusal
    return Refusal(
        code="invalid_value",
        message=f"Invalid modalities: {value}. Supported combinations are: ['text'] and ['audio'].",
        param=path,
    )


_ga_tool_choice = one_of(
    _tool_choice_words,
    by_type(
        {
            "function": json_table({"type": _text, "name": _text}, required=("name",)),
            "mcp": json_table(
                {"type": _text, "server_label": _text, "name": nullable(_text)}, required=("server_label",)
            ),
        }
    ),
)
_truncation = one_of(
    enum("auto", "disabled"),
    by_type(
        {
            "retention_ratio": json_table(
                {"type": _text, "retention_ratio": decimal(minimum=0, maximum=1), "token_limits": json_object},
                required=("retention_ratio",),
            )
        }
    ),
)
_reasoning = nullable(json_table({"effort": enum("minimal", "low", "medium", "high", "xhigh")}))
_tracing = nullable(
    one_of(enum("auto"), json_table({"workflow_name": _text, "group_id": _text, "metadata": json_object}))
)
_prompt = nullable(
    json_table({"id": _text, "version": nullable(_text), "variables": nullable(json_object)}, required=("id",))
)
_ga_session = by_type(
    {
        "realtime": json_table(
            {
                "type": _text,
                "model": _text,
                "instructions": _text,
                "output_modalities": _ga_modalities,
                "audio": json_table(
                    {
                        "input": json_table(_ga_transcription_input),
                        "output": json_table(
                            {"format": _ga_format, "voice": _voice, "speed": decimal(minimum=0.25, maximum=1.5)}
                        ),
                    }
                ),
                "include": _include,
                "max_output_tokens": _tokens,
                "tools": array(_tool),
                "tool_choice": _ga_tool_choice,
                "parallel_tool_calls": boolean,
                "reasoning": _reasoning,
                "tracing": _tracing,
                "truncation": _truncation,
                "prompt": _prompt,
            }
        ),
        "transcription": json_table(
            {"type": _text, "audio": json_table({"input": json_table(_ga_transcription_input)}), "include": _include}
        ),
    }
)
_ga_response = json_table(
    {
        "conversation": enum("auto", "none"),
        "input": array(by_type({**_ga_items, "item_reference": _reference})),
        "instructions": _text,
        "output_modalities": _ga_modalities,
        "audio": json_table({"output": json_table({"format": _ga_format, "voice": _voice})}),
        "tools": array(_tool),
        "tool_choice": _ga_tool_choice,
        "parallel_tool_calls": boolean,
        "reasoning": _reasoning,
        "max_output_tokens": _tokens,
        "metadata": _metadata,
        "prompt": _prompt,
    }
)

# --- preview configuration --------------------------------------------------------------------------------------------


def _preview_modalities(path: str, value: Any) -> Refusal | None:
    """Text, or text with audio; audio alone is refused."""
    refusal = array(enum("text", "audio"), max_items=2)(path, value)
    if refusal or sorted(value) in (["text"], ["audio", "text"]):
        return refusal
    return Refusal(
        code="invalid_value",
        message=f"Invalid modalities: {value}. Supported combinations are: ['text'] and ['audio', 'text'].",
        param=path,
    )


_preview_format = enum(*PREVIEW_FORMATS)
_named = json_table({"type": enum("function"), "name": _text}, required=("type", "name"))
_nested = json_table(
    {"type": enum("function"), "function": json_table({"name": _text}, required=("name",))}, required=("type",)
)
_preview_tool_choice = one_of(  # nested as documented, or flat as later preview versions asked for (reports of 2025-05)
    _tool_choice_words, lambda path, value: (_nested if "function" in value else _named)(path, value)
)
_preview_voice_and_tools: dict[str, Rule] = {
    "modalities": _preview_modalities,
    "instructions": _text,
    "voice": _text,
    "output_audio_format": _preview_format,
    "tools": array(by_type({"function": _function_tool})),
    "tool_choice": _preview_tool_choice,
    "temperature": decimal(minimum=0.6, maximum=1.2),
    "max_response_output_tokens": _tokens,
}
_preview_input: dict[str, Rule] = {
    "input_audio_format": _preview_format,
    "input_audio_transcription": nullable(_transcription),
    "input_audio_noise_reduction": nullable(json_table({"type": _noise})),
    "turn_detection": nullable(_preview_turn_detection),
}
_preview_session = json_table(
    {
        "model": _text,
        **_preview_voice_and_tools,
        **_preview_input,
        "speed": decimal(minimum=0.25, maximum=1.5),
        "tracing": _tracing,
        "client_secret": json_object,
    }
)
_preview_transcription_session = json_table(
    {
        **_preview_input,
        "modalities": _preview_modalities,
        "include": nullable(array(_text)),
        "client_secret": json_object,
    }
)
_preview_response = json_table(
    {
        **_preview_voice_and_tools,
        "conversation": enum("auto", "none"),
        "input": array(by_type({**_preview_items, "item_reference": _reference})),
        "max_output_tokens": _tokens,
        "metadata": _metadata,
    }
)

# --- events -----------------------------------------------------------------------------------------------------------

_frame: dict[str, Rule] = {"type": _text, "event_id": nullable(string(max_length=EVENT_ID_LENGTH))}


def _event(required: Mapping[str, Rule] = {}, optional: Mapping[str, Rule] = {}) -> Rule:  # never changed
    return json_table({**_frame, **required, **optional}, required=tuple(required))


def _events(session: Rule, item: Mapping[str, Rule], response: Rule) -> dict[str, Rule]:
    return {
        "session.update": _event({"session": session}),
        "input_audio_buffer.append": _event({"audio": _text}),
        "input_audio_buffer.commit": _event(),
        "input_audio_buffer.clear": _event(),
        "conversation.item.create": _event({"item": by_type(item)}, {"previous_item_id": nullable(_text)}),
        "conversation.item.retrieve": _event({"item_id": _text}),
        "conversation.item.truncate": _event(
            {
                "item_id": _text,
                "content_index": integer(minimum=0, maximum=0),
                "audio_end_ms": integer(minimum=0),
            }
        ),
        "conversation.item.delete": _event({"item_id": _text}),
        "response.create": _event({}, {"response": response}),
        "response.cancel": _event({}, {"response_id": _text}),
        "output_audio_buffer.clear": _event(),
    }


_SCHEMAS: dict[Dialect, dict[str, Rule]] = {
    "ga": _events(_ga_session, _ga_items, _ga_response),
    "preview": {
        **_events(_preview_session, _preview_items, _preview_response),
        "transcription_session.update": _event({"session": _preview_transcription_session}),
    },
}
_SESSION_BODIES: dict[Dialect, Rule] = {"ga": _ga_session, "preview": _preview_session}


def check_event(message: Mapping[str, Any], *, dialect: Dialect, webrtc: bool = False) -> Refusal | None:
    """Judge a client event as a service does, without looking at the state of the session.

    Parameters
    ----------
    message : Mapping
        The JSON object as it came.
    dialect : {"ga", "preview"}
        What the service speaks.
    webrtc : bool, default False
        Whether the connection has an output audio buffer on the service (`output_audio_buffer.clear`).

    Returns
    -------
    Refusal or None
        None where the event is acceptable.
    """
    kind = message.get("type")
    if not isinstance(kind, str):
        return Refusal(code="invalid_event", message="Invalid event: the field 'type' is missing or not a string.")
    schemas = _SCHEMAS[dialect]
    supported = tuple(k for k in schemas if webrtc or k != "output_audio_buffer.clear")
    if kind not in supported:
        return invalid_value("type", kind, supported)
    return schemas[kind]("", message)


def check_session(session: Any, *, dialect: Dialect) -> Refusal | None:
    """Judge the session configuration of an HTTP request (`client_secrets`, `sessions`)."""
    return _SESSION_BODIES[dialect]("session" if dialect == "ga" else "", session)


__all__ = ["APPEND_LIMIT_BYTES", "EVENT_ID_LENGTH", "ID_LENGTH", "check_event", "check_session", "missing"]
