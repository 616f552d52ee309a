"""Keys of the simulator: one long-lived key per start, and ephemeral keys that expire."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from rtnb.protocol import Dialect, SessionConfig

PREVIEW_LIFETIME_S: Final = 60
"""An ephemeral key of the preview lives one minute (WebRTC how-to of the preview)."""
GA_LIFETIME_S: Final = 600
"""Default of `expires_after` in GA (API reference)."""
MIN_LIFETIME_S: Final = 10
MAX_LIFETIME_S: Final = 7200
"""Allowed range of `expires_after.seconds` (API reference)."""
MOST_GRANTS: Final = 2_000
"""Ephemeral keys that are held; the oldest is forgotten first. Chosen: a class of 30 makes some hundred."""
_REMEMBERED_S = 60.0  # an expired key is distinguished from a wrong one so long; chosen
_MIN_LENGTH = 20  # of a key that others are made from; chosen


@dataclass(frozen=True)
class Grant:
    """Permission of an ephemeral key: one session configuration until a time."""

    session: SessionConfig
    expires_at: float
    """Unix seconds."""
    owner: str = ""
    """Student of a classroom who requested it, else ""."""
    dialect: Dialect = "ga"
    """Of the endpoint at which it was made."""
    spent: bool = False
    """Whether it opened the one call it was for (preview)."""


class Grants:
    """Table of ephemeral keys; with several workers, it lives in a separate process."""

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}

    def add(self, value: str, grant: Grant, now: float) -> None:
        """Add one; expired ones are forgotten, and above `MOST_GRANTS` the oldest."""
        self._grants = {k: g for k, g in self._grants.items() if g.expires_at > now - _REMEMBERED_S}
        while len(self._grants) >= MOST_GRANTS:
            del self._grants[next(iter(self._grants))]
        self._grants[value] = grant

    def find(self, value: str) -> Grant | None:
        """Return the grant of a key, None where there is none."""
        return self._grants.get(value)

    def spend(self, value: str) -> None:
        """Mark a key as used."""
        if value in self._grants:
            self._grants[value] = replace(self._grants[value], spent=True)


class KeyRing:
    """The keys a simulator accepts.

    Parameters
    ----------
    key : str, optional
        The long-lived key; a fresh random one when not given.
    wall : callable
        Unix time in seconds.
    grants : Grants, optional
        Table that several workers share.
    """

    def __init__(self, key: str | None = None, *, wall: Callable[[], float], grants: Grants | None = None) -> None:
        self.key = key or secrets.token_hex(16)
        self._handed_out: dict[str, str] = {}
        self._wall = wall
        self._grants = grants or Grants()

    def __repr__(self) -> str:
        return "KeyRing(****)"

    def hand_out(self, names: Iterable[str]) -> dict[str, str]:
        """Make a long-lived key for each name: 60 bits in letters that can be typed, the same ones from the same key.

        Raises
        ------
        ValueError
            The key is so short that who holds one of them could guess it.
        """
        if len(self.key) < _MIN_LENGTH:
            raise ValueError(
                f"the key has {len(self.key)} characters; keys are made only from one of {_MIN_LENGTH} or more"
            )
        for name in names:
            made = hmac.digest(self.key.encode(), name.encode(), "sha256")
            letters = base64.b32encode(made).decode().lower()
            self._handed_out[name] = "-".join((letters[:4], letters[4:8], letters[8:12]))
        return dict(self._handed_out)

    def mint(
        self, session: SessionConfig, *, lifetime_s: float, owner: str = "", dialect: Dialect = "ga"
    ) -> tuple[str, Grant]:
        """Make an ephemeral key."""
        now = self._wall()
        value, grant = f"ek_{secrets.token_hex(16)}", Grant(session, now + lifetime_s, owner, dialect)
        self._grants.add(value, grant, now)
        return value, grant

    def owner(self, offered: str) -> str | None:
        """Return the owner of a long-lived key: "" for the simulator's own, a student's name; None for no such key."""
        found = None
        for name, key in {"": self.key, **self._handed_out}.items():  # all of them: the time tells nothing
            if hmac.compare_digest(offered.encode("utf-8", "surrogatepass"), key.encode("utf-8", "surrogatepass")):
                found = name
        return found

    def grant(self, offered: str) -> Grant | None:
        """Return the grant of an ephemeral key, also when it is expired; None for an unknown key."""
        return self._grants.find(offered) if offered.startswith("ek_") else None

    def spend(self, offered: str) -> None:
        """Use up an ephemeral key: it opens nothing more."""
        self._grants.spend(offered)

    def expired(self, grant: Grant) -> bool:
        """Return whether the key has expired; an open session continues."""
        return self._wall() >= grant.expires_at
