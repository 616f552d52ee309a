"""Probe: one statement of the documentation, and the function that checks it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from rtnb.verify.wire import Wire

Run = Callable[[Any], Awaitable[None]]
"""Takes the target; raises `Different` or `NotTested`."""


WireRun = Callable[[Wire], Awaitable[None]]
"""Takes a session with the target."""


class NotTested(Exception):  # an outcome, not a mistake
    """The target has no such thing, or it cannot be reached here."""


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


def target_probe(
    source: str, *, usd: float = 0.0, dialects: tuple[str, ...] = ("ga", "preview")
) -> Callable[[Run], Run]:
    """Register a function of a target as a probe: its name with dots, its docstring as the statement."""

    def register(run: Run) -> Run:
        name = run.__name__.replace("__", ".")
        PROBES.append(Probe(name, (run.__doc__ or "").strip(), source, run, usd, dialects))
        return run

    return register


def probe(source: str, *, intent: str | None = None, **more: Any) -> Callable[[WireRun], Run]:
    """Register a function of an open session; parameters as of `target_probe`."""

    def register(run: WireRun) -> Run:
        @functools.wraps(run)
        async def opened(target: Any) -> None:
            async with Wire(target, intent=intent) as wire:
                await run(wire)

        return target_probe(source, **more)(opened)

    return register


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
