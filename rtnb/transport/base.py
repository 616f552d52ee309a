"""Interfaces of this room: a `Transport` moves text, a `Target` opens one.

Nothing here depends on a library. `TargetFacts` is the description without secrets that explains failures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from rtnb.transport.credentials import Auth, EphemeralKey

Dialect = Literal["ga", "preview"]
"""Spelling of the protocol: ``ga`` (today's) or ``preview`` (2024-2025, Azure only)."""

Service = Literal["azure", "openai", "custom", "simulator"]
"""Kind of service: decides paths, rules and likely failures."""


@runtime_checkable
class Transport(Protocol):
    """Open connection that carries JSON texts both ways, in order."""

    async def send(self, text: str) -> None:
        """Send one text; returns once it may be forgotten. Raises `ConnectionClosed`."""

    async def receive(self) -> str:
        """Wait for the next text. Cancelling loses nothing. Raises `ConnectionClosed` at the end."""

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        """Close; closing twice is fine."""


@dataclass(frozen=True)
class TargetFacts:
    """Facts about a target, without secrets, from which failures are explained."""

    service: Service = "custom"
    """Kind of service."""
    dialect: Dialect = "ga"
    """Spelling of the protocol."""
    url: str = ""
    """Address, without secrets."""
    model: str | None = None
    """Requested deployment (Azure) or model (elsewhere)."""
    auth: Auth = "none"
    """Way to sign in."""
    scope: str | None = None
    """Entra scope of the token, None without Entra."""
    purpose: str = "open a session"
    """Attempted action, after "could not"."""

    @property
    def noun(self) -> str:
        """Service's name for a model: ``deployment`` on Azure, ``model`` elsewhere."""
        return "deployment" if self.service == "azure" else "model"


@runtime_checkable
class Target(Protocol):
    """Service or simulator that opens sessions. ``str(target)`` is one line without secrets."""

    @property
    def dialect(self) -> Dialect:
        """Spelling of the protocol."""

    @property
    def model(self) -> str | None:
        """Deployment or model, None where the service chooses."""

    @property
    def facts(self) -> TargetFacts:
        """Facts that explain failures."""

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> Transport:
        """Open a connection; raises `ConnectError` with the reason and the next step."""

    async def ephemeral_key(
        self, *, session: Mapping[str, Any] | None = None, expires_after_s: int | None = None, intent: str | None = None
    ) -> EphemeralKey:
        """Get a short-lived key for a browser; `session` is wire JSON in this target's dialect."""
