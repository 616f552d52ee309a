"""OpenTelemetry spans of a trace: answers, the user's speech and tool calls, as OTLP/JSON, without their texts.

References
----------
OpenTelemetry semantic conventions for generative AI, "Realtime content generation", "User speech span" and "Execute
tool span" (status Development, read 2026-11). OpenTelemetry protocol, "JSON Protobuf Encoding": ids in hexadecimal,
64-bit integers as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import urlsplit

from rtnb.protocol import events
from rtnb.protocol.values import Response, TokenDetails, Usage

_PROVIDERS: Final = {"azure": "azure.ai.openai", "openai": "openai"}
_REASONS: Final = {"completed": "stop", "failed": "error", "cancelled": "error", "incomplete": "error"}
"""Finish reason of a response whose service gives none, by its status."""
_INTERNAL, _CLIENT, _ERROR = 1, 3, 2  # kinds of spans; the status of one that failed
_ANSWER: Final = "realtime_inference"


def to_otlp(trace: Any) -> dict[str, Any]:
    """Return the spans of a trace.

    Parameters
    ----------
    trace : Trace

    Returns
    -------
    request : dict
        An ``ExportTraceServiceRequest`` in OTLP/JSON: post it to a collector's ``/v1/traces``.
    """
    config, target = trace.settings_at(trace.duration_ms), trace.manifest.get("target") or {}
    session_id, address = str(config.id or ""), urlsplit(str(target.get("url") or ""))
    common = {
        "gen_ai.provider.name": _PROVIDERS.get(str(target.get("service")), "rtnb"),
        "gen_ai.realtime_session.id": session_id or None,
    }
    server = {"server.address": address.hostname, "server.port": address.port or 443} if address.hostname else {}
    spans = []
    for operation, id, first, last, attributes in _spans(trace.log, config.model or None):
        is_answer, parent = operation == _ANSWER, attributes.pop("parent", None)
        subject = attributes.get("gen_ai.tool.name") or attributes.get("gen_ai.request.model")
        attributes |= common | {"gen_ai.operation.name": operation} | (server if is_answer else {})
        span = {
            "traceId": _hex(session_id, 16),
            "spanId": _hex(id, 8),
            "name": f"{operation} {subject or ''}".strip(),
            "kind": _CLIENT if is_answer else _INTERNAL,
            "startTimeUnixNano": _nano(first),
            "endTimeUnixNano": _nano(last),
            "attributes": _attributes(attributes),
        }
        span |= {"parentSpanId": _hex(parent, 8)} if parent else {}
        spans.append(span | ({"status": {"code": _ERROR}} if "error.type" in attributes else {}))
    scope = {"scope": {"name": "rtnb", "version": str(trace.manifest.get("rtnb", ""))}, "spans": spans}
    resource = {"attributes": _attributes({"service.name": "rtnb"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


def _spans(log: Any, model: str | None) -> Iterator[tuple[str, str, Any, Any, dict[str, Any]]]:
    """Yield operation, id, first and last row and attributes of each answer, stretch of speech and tool call."""
    begun: dict[Any, Any] = {}
    for row in log:
        event: Any = row.event
        match event:
            case events.InputAudioBufferSpeechStarted():
                begun["speech", event.item_id] = row
            case events.InputAudioBufferSpeechStopped() if first := begun.pop(("speech", event.item_id), None):
                yield "user_speech", f"speech {event.item_id}", first, row, {}
            case events.ResponseCreated():
                begun[event.response.id] = row
            case events.ResponseDone() if first := begun.pop(event.response.id, None):
                answer = {"gen_ai.request.model": model} | _answer(event.response)
                yield _ANSWER, event.response.id, first, row, answer
            case events.ResponseOutputItemDone() if event.item.type == "function_call":
                begun["call", event.item.call_id] = row
            case events.ConversationItemCreate() if first := begun.pop(("call", event.item.call_id), None):
                call = first.event.item
                tool = {
                    "gen_ai.tool.name": call.name,
                    "gen_ai.tool.call.id": call.call_id,
                    "gen_ai.tool.type": "function",
                }
                yield "execute_tool", f"call {call.call_id}", first, row, tool | {"parent": first.event.response_id}


def _answer(response: Response) -> dict[str, Any]:
    details, usage = response.status_details or None, response.usage or Usage()
    error, status = details and details.error, str(response.status or "")
    made, given = usage.output_token_details or TokenDetails(), usage.input_token_details or TokenDetails()
    counts = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    counts["cache_read.input_tokens"] = given.cached_tokens
    for medium in ("text", "audio", "image"):
        counts[f"{medium}.input_tokens"] = getattr(given, f"{medium}_tokens")
        counts[f"{medium}.output_tokens"] = getattr(made, f"{medium}_tokens")
    return {f"gen_ai.usage.{name}": count for name, count in counts.items() if isinstance(count, int)} | {
        "gen_ai.response.id": response.id,
        "gen_ai.conversation.id": response.conversation_id or None,
        "gen_ai.response.finish_reasons": [(details and details.reason) or _REASONS.get(status, status)],
        "gen_ai.output.type": "text" if response.output_modalities == ("text",) else "speech",
        **({"error.type": str((error and (error.code or error.type)) or "_OTHER")} if status == "failed" else {}),
    }


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
