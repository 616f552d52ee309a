"""Probes of refusals: what a service must refuse, with which code, in one table per dialect."""

from __future__ import annotations

import json
from typing import Any, Final

from rtnb.protocol import events
from rtnb.protocol.events import CLIENT_EVENTS
from rtnb.verify.probe import NOWHERE, OBSERVED, PROBES, REFERENCE, REPORTED, TOOL, Probe, Run
from rtnb.verify.wire import Different, Wire, check

GA_REFUSALS: Final[dict[str, tuple[Any, str | None, str | None, str]]] = {
    "not_json": ("{", "invalid_json", None, OBSERVED),
    "no_type": ({"a": 1}, "invalid_event", None, REFERENCE),
    "unknown_type": ({"type": "nope"}, "invalid_value", "type", OBSERVED),
    "no_session_type": (
        {"type": "session.update", "session": {"instructions": ""}},
        "missing_required_parameter",
        "session.type",
        OBSERVED,
    ),
    "preview_payload": (
        {"type": "session.update", "session": {"type": "realtime", "voice": "alloy"}},
        "unknown_parameter",
        "session.voice",
        OBSERVED,
    ),
    "temperature": (
        {"type": "session.update", "session": {"type": "realtime", "temperature": 0.8}},
        "unknown_parameter",
        "session.temperature",
        REFERENCE,
    ),
    "both_modalities": (
        {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["audio", "text"]}},
        "invalid_value",
        "session.output_modalities",
        REFERENCE,
    ),
    "format_without_rate": (
        {
            "type": "session.update",
            "session": {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm"}}}},
        },
        "missing_required_parameter",
        "session.audio.input.format.rate",
        REPORTED,
    ),
    "rate_16000": (
        {
            "type": "session.update",
            "session": {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
        },
        "integer_below_min_value",
        "session.audio.input.format.rate",
        OBSERVED,
    ),
    "unknown_voice": (
        {"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"voice": "robot"}}}},
        "invalid_value",
        "session.audio.output.voice",
        REFERENCE,
    ),
    "bad_eagerness": (
        {
            "type": "session.update",
            "session": {
                "type": "realtime",
                "audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "very"}}},
            },
        },
        "invalid_value",
        "session.audio.input.turn_detection.eagerness",
        REFERENCE,
    ),
    "tool_name_with_space": (
        {"type": "session.update", "session": {"type": "realtime", "tools": [TOOL | {"name": "two words"}]}},
        "invalid_value",
        "session.tools[0].name",
        REFERENCE,
    ),
    "mcp_without_label": (
        {"type": "session.update", "session": {"type": "realtime", "tools": [{"type": "mcp", "server_url": NOWHERE}]}},
        "missing_required_parameter",
        "session.tools[0].server_label",
        REFERENCE,
    ),
}
PREVIEW_REFUSALS: Final[dict[str, tuple[Any, str | None, str | None, str]]] = {
    "not_json": ("{", "invalid_json", None, OBSERVED),
    "unknown_type": ({"type": "nope"}, "invalid_value", "type", OBSERVED),
    "ga_payload": (
        {"type": "session.update", "session": {"type": "realtime"}},
        "unknown_parameter",
        "session.type",
        REPORTED,
    ),
    "audio_alone": (
        {"type": "session.update", "session": {"modalities": ["audio"]}},
        "invalid_value",
        "session.modalities",
        REFERENCE,
    ),
    "hot": (
        {"type": "session.update", "session": {"temperature": 2.0}},
        "decimal_above_max_value",
        "session.temperature",
        REFERENCE,
    ),
    "unknown_format": (
        {"type": "session.update", "session": {"input_audio_format": "mp3"}},
        "invalid_value",
        "session.input_audio_format",
        REFERENCE,
    ),
}
BOTH_REFUSALS: Final[dict[str, tuple[Any, str | None, str | None, str]]] = {
    "empty_commit": ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None, REPORTED),
    "cancel_nothing": ({"type": "response.cancel"}, "response_cancel_not_active", None, REPORTED),
    "delete_unknown_item": (
        {"type": "conversation.item.delete", "item_id": "item_none"},
        "item_not_found",
        None,
        REPORTED,
    ),
    "retrieve_unknown_item": (
        {"type": "conversation.item.retrieve", "item_id": "item_none"},
        "item_not_found",
        None,
        REPORTED,
    ),
    "broken_base64": ({"type": "input_audio_buffer.append", "audio": "no base64!"}, "invalid_value", None, REPORTED),
    "long_item_id": (
        {
            "type": "conversation.item.create",
            "item": {
                "id": "x" * 33,
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "a"}],
            },
        },
        "string_above_max_length",
        "item.id",
        REPORTED,
    ),
    "metadata_of_17": (
        {"type": "response.create", "response": {"metadata": {str(n): "" for n in range(17)}}},
        "object_above_max_properties",
        "response.metadata",
        REFERENCE,
    ),
}


def _refusal(message: Any, code: str | None, param: str | None) -> Run:
    async def run(target: Any) -> None:
        async with Wire(target) as wire:
            before = (await wire.update(instructions="Before.")).session
            named = message if isinstance(message, str) else {"event_id": "probe_1", **message}
            await wire.send_raw(named)
            event = await wire.next()
            if not isinstance(event, events.Error):
                raise Different(event.type, f"error {code}")
            check(event.error.code, code, "code")
            if param is not None:
                check(event.error.param, param, "param")
            if not isinstance(message, str) and message.get("type") in CLIENT_EVENTS:
                check(event.error.event_id, "probe_1", "event_id")
            # The session lives on and nothing has changed. An update went before, too: what updates do to other fields
            # is for another probe.
            after = (await wire.update(instructions="Before.")).session
            check(after.voice, before.voice, "voice afterwards")
            check(after.turn_detection, before.turn_detection, "turn detection afterwards")

    return run


for _dialects, _table in ((("ga",), GA_REFUSALS), (("preview",), PREVIEW_REFUSALS), (("ga", "preview"), BOTH_REFUSALS)):
    for _name, (_message, _code, _param, _source) in _table.items():
        _said = f"This is refused with {_code}, the session lives on: {json.dumps(_message)[:160]}"
        PROBES.append(Probe(f"refusal.{_name}", _said, _source, _refusal(_message, _code, _param), 0.0, _dialects))
