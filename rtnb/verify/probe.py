"""Probe: one statement of the documentation, and the function that checks it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from rtnb.transport.http import proxy_for
from rtnb.verify.wire import Wire

Run = Callable[[Any], Awaitable[None]]
"""Takes the target, or a session with it; raises `Different` or `NotTested`."""


@dataclass(frozen=True)
class Probe:
    """Probe of one statement."""

    name: str
    statement: str
    source: str
    run: Run
    usd: float = 0.0
    """Estimated cost at the price of gpt-realtime."""
    dialects: tuple[str, ...] = ("ga", "preview")


PROBES: list[Probe] = []

REFERENCE: Final = "API reference"
OBSERVED: Final = "observed at the service, 2025-12 and 2026-09"
COSTS: Final = "OpenAI's guide on costs of the Realtime API: 20 audio tokens per second out"
REPORTED: Final = "reported by users of the service"


def probe(
    source: str, *, usd: float = 0.0, dialects: tuple[str, ...] = ("ga", "preview"), intent: str | None = None
) -> Callable[[Run], Run]:
    """Register a function as a probe: its name with dots, its docstring as the statement.

    A function with a parameter `wire` gets an open session, with `intent`; every other gets the target.
    """

    def register(run: Run) -> Run:
        @functools.wraps(run)
        async def opened(target: Any) -> None:
            async with Wire(target, intent=intent) as wire:
                await run(wire)

        on_target = opened if "wire" in inspect.signature(run).parameters else run
        name = run.__name__.replace("__", ".")
        PROBES.append(Probe(name, (run.__doc__ or "").strip(), source, on_target, usd, dialects))
        return on_target

    return register


async def post(where: Any, url: str, headers: Any, **body: Any) -> tuple[int, Any, str]:
    """Post to a service, with the certificates that its target trusts; return status, headers and text."""
    options: Any = {"headers": dict(headers), "proxy": proxy_for(url), "ssl": where.ssl or True, **body}
    async with aiohttp.ClientSession() as http, http.post(url, **options) as answer:
        return answer.status, answer.headers, await answer.text()


def plain(target: Any) -> Any:
    """Return the target behind a simulator of this process."""
    return getattr(target, "target", target)


TOOL: Final = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
NOWHERE: Final = "https://mcp.invalid/mcp"
"""Address of an MCP server that does not exist (RFC 2606)."""
