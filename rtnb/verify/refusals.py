"""Probes of refusals: what a service must refuse, with which code, in one table per dialect."""

from __future__ import annotations

import json
from typing import Any, Final

from rtnb.protocol import events
from rtnb.protocol.events import CLIENT_EVENTS
from rtnb.verify.probe import NOWHERE, OBSERVED, PROBES, REFERENCE, REPORTED, TOOL, Probe, Run
from rtnb.verify.wire import Wire, check, require

Refusal = tuple[Any, str, str | None, str]
"""Message, code, param (None: any), source."""


def _ga(code: str, param: str, source: str, **session: Any) -> Refusal:
    message = {"type": "session.update", "session": {"type": "realtime", **session}}
    return message, code, f"session.{param}", source


def _preview(code: str, param: str, source: str, **session: Any) -> Refusal:
    return {"type": "session.update", "session": session}, code, f"session.{param}", source


def _input(**settings: Any) -> Any:
    return {"input": settings}


GA_REFUSALS: Final[dict[str, Refusal]] = {
    "not_json": ("{", "invalid_json", None, OBSERVED),
    "no_type": ({"a": 1}, "invalid_event", None, REFERENCE),
    "unknown_type": ({"type": "nope"}, "invalid_value", "type", OBSERVED),
    "no_session_type": _preview("missing_required_parameter", "type", OBSERVED, instructions=""),
    "preview_payload": _ga("unknown_parameter", "voice", OBSERVED, voice="alloy"),
    "temperature": _ga("unknown_parameter", "temperature", REFERENCE, temperature=0.8),
    "both_modalities": _ga("invalid_value", "output_modalities", REFERENCE, output_modalities=["audio", "text"]),
    "format_without_rate": _ga(
        "missing_required_parameter", "audio.input.format.rate", REPORTED, audio=_input(format={"type": "audio/pcm"})
    ),
    "rate_16000": _ga(
        "integer_below_min_value", "audio.input.format.rate", OBSERVED,
        audio=_input(format={"type": "audio/pcm", "rate": 16000}),
    ),
    "unknown_voice": _ga("invalid_value", "audio.output.voice", REFERENCE, audio={"output": {"voice": "robot"}}),
    "bad_eagerness": _ga(
        "invalid_value", "audio.input.turn_detection.eagerness", REFERENCE,
        audio=_input(turn_detection={"type": "semantic_vad", "eagerness": "very"}),
    ),
    "tool_name_with_space": _ga("invalid_value", "tools[0].name", REFERENCE, tools=[TOOL | {"name": "two words"}]),
    "mcp_without_label": _ga(
        "missing_required_parameter", "tools[0].server_label", REFERENCE, tools=[{"type": "mcp", "server_url": NOWHERE}]
    ),
}  # fmt: skip
PREVIEW_REFUSALS: Final[dict[str, Refusal]] = {
    "not_json": ("{", "invalid_json", None, OBSERVED),
    "unknown_type": ({"type": "nope"}, "invalid_value", "type", OBSERVED),
    "ga_payload": _preview("unknown_parameter", "type", REPORTED, type="realtime"),
    "audio_alone": _preview("invalid_value", "modalities", REFERENCE, modalities=["audio"]),
    "hot": _preview("decimal_above_max_value", "temperature", REFERENCE, temperature=2.0),
    "unknown_format": _preview("invalid_value", "input_audio_format", REFERENCE, input_audio_format="mp3"),
}
_LONG: Final = {
    "id": "x" * 33, "type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}],
}  # fmt: skip
_PAIRS: Final = {str(n): "" for n in range(17)}
BOTH_REFUSALS: Final[dict[str, Refusal]] = {
    name: ({"type": kind, **fields}, code, param, source)
    for name, kind, fields, code, param, source in (
        ("empty_commit", "input_audio_buffer.commit", {}, "input_audio_buffer_commit_empty", None, REPORTED),
        ("cancel_nothing", "response.cancel", {}, "response_cancel_not_active", None, REPORTED),
        ("delete_unknown_item", "conversation.item.delete", {"item_id": "item_none"}, "item_not_found", None, REPORTED),
        ("retrieve_unknown_item", "conversation.item.retrieve", {"item_id": "none"}, "item_not_found", None, REPORTED),
        ("broken_base64", "input_audio_buffer.append", {"audio": "no base64!"}, "invalid_value", None, REPORTED),
        ("long_item_id", "conversation.item.create", {"item": _LONG}, "string_above_max_length", "item.id", REPORTED),
        ("metadata_of_17", "response.create", {"response": {"metadata": _PAIRS}}, "object_above_max_properties",
         "response.metadata", REFERENCE),
    )
}  # fmt: skip


def _refusal(message: Any, code: str | None, param: str | None) -> Run:
    async def run(target: Any) -> None:
        async with Wire(target) as wire:
            before = (await wire.update(instructions="Before.")).session
            named = message if isinstance(message, str) else {"event_id": "probe_1", **message}
            await wire.send_raw(named)
            event = await wire.next()
            require(isinstance(event, events.Error), event.type, f"error {code}")
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
