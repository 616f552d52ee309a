"""What the rooms above rely on: a `Transport` moves text, a `Target` says where to and opens it.

Nothing here knows a library. `TargetFacts` is the secret-free description every explanation of a failure starts from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rtnb.transport.ephemeral import EphemeralKey

Dialect = Literal["ga", "preview"]
"""Which spelling of the protocol is spoken: ``ga`` (today's) or ``preview`` (2024-2025, Azure only)."""

Service = Literal["azure", "openai", "custom", "simulator"]
"""Whose rules and whose failures to expect."""

Auth = Literal["none", "api-key", "entra", "bearer", "ephemeral"]
"""How we say who we are; the words an explanation of HTTP 401 needs."""


@runtime_checkable
class Transport(Protocol):
    """One open connection that carries JSON texts both ways, in order."""

    async def send(self, text: str) -> None:
        """Send one text; returns once it may be forgotten. Raises `ConnectionClosed`."""

    async def receive(self) -> str:
        """Wait for the next text. Cancelling loses nothing. Raises `ConnectionClosed` when no more will come."""

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        """Close; closing twice is fine."""


@dataclass(frozen=True)
class TargetFacts:
    """What is known about a target, without secrets: chooses the right words when something fails."""

    service: Service = "custom"
    """Whose rules apply."""
    dialect: Dialect = "ga"
    """The spelling we speak there."""
    url: str = ""
    """Where to, without secrets."""
    model: str | None = None
    """The deployment (Azure) or model (elsewhere) asked for."""
    auth: Auth = "none"
    """How we say who we are."""
    scope: str | None = None
    """The Entra scope of the token, None without Entra."""
    purpose: str = "open a session"
    """What was tried, after "could not"."""

    @property
    def noun(self) -> str:
        """What the model is called there: ``deployment`` on Azure, ``model`` elsewhere."""
        return "deployment" if self.service == "azure" else "model"


@runtime_checkable
class Target(Protocol):
    """A place where sessions can be opened: a service or a simulator. ``str(target)`` is a secret-free line."""

    @property
    def dialect(self) -> Dialect:
        """The spelling spoken there."""

    @property
    def model(self) -> str | None:
        """The deployment or model, None where the other side chooses."""

    @property
    def facts(self) -> TargetFacts:
        """The secret-free description used to explain failures."""

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> Transport:
        """Open a connection; raises `ConnectError` with the reason and the next step."""

    async def ephemeral_key(
        self, *, session: Mapping[str, Any] | None = None, expires_after_s: int | None = None
    ) -> EphemeralKey:
        """Get a short-lived key for a browser; `session` is wire JSON in this target's dialect."""
