"""OpenTelemetry spans of a trace: answers, the user's speech and tool calls, as OTLP/JSON.

References
----------
OpenTelemetry semantic conventions for generative AI, "Realtime content generation", "User speech span" and "Execute
tool span" (status Development, read 2026-11). OpenTelemetry protocol, "JSON Protobuf Encoding": ids in hexadecimal,
64-bit integers as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import urlsplit

from rtnb.protocol import events
from rtnb.protocol.values import Response, TokenDetails

_PROVIDERS: Final = {"azure": "azure.ai.openai", "openai": "openai"}
_REASONS: Final = {"completed": "stop", "failed": "error", "cancelled": "error", "incomplete": "error"}
"""Finish reason of a response whose service gives none, by its status."""
_INTERNAL, _CLIENT, _ERROR = 1, 3, 2  # kinds of spans; the status of one that failed


def to_otlp(trace: Any, *, content: bool = False) -> dict[str, Any]:
    """Return the spans of a trace.

    Parameters
    ----------
    trace : Trace
    content : bool, default False
        With the texts, and the arguments and results of tools: the conventions leave out what can be personal.

    Returns
    -------
    request : dict
        An ``ExportTraceServiceRequest`` in OTLP/JSON: post it to a collector's ``/v1/traces``.
    """
    texts = {turn.item_id: turn.text for turn in trace.turns} if content else {}
    opened: dict[str, Any] = {}
    spans: list[dict[str, Any]] = []

    def add(name: str, kind: int, id: str, last: Any, attributes: dict[str, Any], parent: str = "") -> None:
        if (first := opened.pop(id, None)) is not None:
            spans.append(_span(trace, name, kind, id, (first, last), attributes, parent))

    for row in trace.log:
        event: Any = row.event
        match event:
            case events.InputAudioBufferSpeechStarted():
                opened[f"speech {event.item_id}"] = row
            case events.InputAudioBufferSpeechStopped():
                said = {"gen_ai.input.messages": _messages("user", texts, [str(event.item_id)])}
                add("user_speech", _INTERNAL, f"speech {event.item_id}", row, said)
            case events.ResponseCreated():
                opened[event.response.id] = row
            case events.ResponseDone():
                model = trace.settings_at(trace.duration_ms).model or ""
                answer = _answer(event.response, texts) | {"gen_ai.request.model": model or None}
                add(f"realtime_inference {model}".strip(), _CLIENT, event.response.id, row, answer)
            case events.ResponseOutputItemDone() if event.item.type == "function_call":
                opened[f"call {event.item.call_id}"] = row
            case events.ConversationItemCreate() if f"call {event.item.call_id}" in opened:
                call = opened[f"call {event.item.call_id}"].event
                tool = {
                    "gen_ai.tool.name": call.item.name,
                    "gen_ai.tool.call.id": call.item.call_id,
                    "gen_ai.tool.type": "function",
                    "gen_ai.tool.call.arguments": call.item.arguments if content else None,
                    "gen_ai.tool.call.result": event.item.output if content else None,
                }
                id = f"call {call.item.call_id}"
                add(f"execute_tool {call.item.name}", _INTERNAL, id, row, tool, call.response_id)
    scope = {"scope": {"name": "rtnb", "version": str(trace.manifest.get("rtnb", ""))}, "spans": spans}
    resource = {"attributes": _attributes({"service.name": "rtnb"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


def _span(
    trace: Any, name: str, kind: int, id: str, rows: tuple[Any, Any], attributes: dict[str, Any], parent: str
) -> dict[str, Any]:
    target = trace.manifest.get("target") or {}
    session_id, place = str(trace.settings_at(trace.duration_ms).id or ""), urlsplit(str(target.get("url") or ""))
    common: dict[str, Any] = {
        "gen_ai.operation.name": name.partition(" ")[0],
        "gen_ai.provider.name": _PROVIDERS.get(str(target.get("service")), "rtnb"),
        "gen_ai.realtime_session.id": session_id or None,
    }
    if kind == _CLIENT and place.hostname:
        common |= {"server.address": place.hostname, "server.port": place.port or 443}
    span = {
        "traceId": _hex(session_id, 16),
        "spanId": _hex(id, 8),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": _nano(rows[0]),
        "endTimeUnixNano": _nano(rows[1]),
        "attributes": _attributes(common | attributes),
    }
    span |= {"parentSpanId": _hex(parent, 8)} if parent else {}
    return span | ({"status": {"code": _ERROR}} if "error.type" in attributes else {})


def _answer(response: Response, texts: Mapping[str, str]) -> dict[str, Any]:
    details, usage = response.status_details or None, response.usage or None
    made = (usage and usage.output_token_details) or TokenDetails()
    given = (usage and usage.input_token_details) or TokenDetails()
    error = details and details.error
    status = str(response.status or "")
    counts = {
        "input_tokens": usage and usage.input_tokens,
        "output_tokens": usage and usage.output_tokens,
        "cache_read.input_tokens": given.cached_tokens,
        "text.input_tokens": given.text_tokens,
        "audio.input_tokens": given.audio_tokens,
        "image.input_tokens": given.image_tokens,
        "text.output_tokens": made.text_tokens,
        "audio.output_tokens": made.audio_tokens,
    }
    return {f"gen_ai.usage.{name}": count for name, count in counts.items() if isinstance(count, int)} | {
        "gen_ai.response.id": response.id,
        "gen_ai.conversation.id": response.conversation_id or None,
        "gen_ai.response.finish_reasons": [(details and details.reason) or _REASONS.get(status, status)],
        "gen_ai.output.type": "text" if response.output_modalities == ("text",) else "speech",
        "gen_ai.output.messages": _messages("assistant", texts, [str(item.id) for item in response.output or ()]),
        **({"error.type": str((error and (error.code or error.type)) or "_OTHER")} if status == "failed" else {}),
    }


def _messages(role: str, texts: Mapping[str, str], item_ids: list[str]) -> str | None:
    """Return the texts of items as messages in JSON; None where the content is left out."""
    parts = [{"type": "text", "content": texts[id]} for id in item_ids if texts.get(id)]
    return json.dumps([{"role": role, "parts": parts}], ensure_ascii=False) if parts else None


def _hex(id: str, size: int) -> str:
    return blake2b(id.encode(), digest_size=size).hexdigest()


def _nano(row: Any) -> str:
    return str(round(row.wall_time * 1e6) * 1000)


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    def value(one: Any) -> dict[str, Any]:
        if isinstance(one, list):
            return {"arrayValue": {"values": [value(entry) for entry in one]}}
        return {"intValue": str(one)} if isinstance(one, int) else {"stringValue": str(one)}

    return [{"key": name, "value": value(one)} for name, one in values.items() if one is not None]
