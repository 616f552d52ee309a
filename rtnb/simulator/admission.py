"""Authentication of clients at each endpoint: keys that are accepted, and the error messages of the refusals.

There is one long-lived key per start, and ephemeral keys that expire.

The dialect follows from the path, as at the services. Azure's paths refuse a request with an HTTP status; OpenAI's
accept the socket, say `error` and close it with 3000 (who you are) or 4000 (what you ask), as observed in 2026-09.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Final

from aiohttp import web

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
KEY_PROTOCOL: Final = "openai-insecure-api-key."
"""Browsers that cannot set headers offer the key as a subprotocol with this prefix."""
BETA_PROTOCOL: Final = "openai-beta.realtime-v1"
"""Subprotocol with which a browser asks OpenAI for the beta that is switched off."""
API_VERSION: Final = re.compile(r"202[4-9]-\d\d-\d\d(-preview)?")
"""Shape of the preview's ``api-version`` that is answered; a service knows a list of them."""

OWNER: Final[Any] = getattr(web, "RequestKey", web.AppKey)("owner", str)  # aiohttp < 3.14 has no RequestKey
"""Owner of the key of an admitted request: see `KeyRing.owner`."""


@dataclass(frozen=True)
class Endpoint:
    """Dialect and service that a path stands for."""

    dialect: Dialect
    azure: bool


SOCKET_ENDPOINTS: Final = {
    "/openai/v1/realtime": Endpoint("ga", True),
    "/v1/realtime": Endpoint("ga", False),
    "/openai/realtime": Endpoint("preview", True),
}


class RefusedError(web.HTTPException):
    """Refusal of a request: an HTTP response in the services' JSON."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        self.status_code, self.code, self.message = status, code, message
        error = {"code": code, "message": message, "type": "invalid_request_error", "param": None}
        headers = {"retry-after-ms": "1500", "retry-after": "2"} if status == 429 else None
        super().__init__(text=json.dumps({"error": error}), content_type="application/json", headers=headers)

    def __str__(self) -> str:
        return self.message


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


class KeyRing:
    """The keys a simulator accepts.

    Parameters
    ----------
    key : str, optional
        The long-lived key; a fresh random one when not given.
    wall : callable
        Unix time in seconds.
    grants : mapping, optional
        Ephemeral keys; several workers share them.
    """

    def __init__(
        self, key: str | None = None, *, wall: Callable[[], float], grants: MutableMapping[str, Grant] | None = None
    ) -> None:
        self.key = key or secrets.token_hex(16)
        self._handed_out: dict[str, str] = {}
        self._wall = wall
        self._grants = {} if grants is None else grants

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
        """Make an ephemeral key; expired ones are forgotten, and above `MOST_GRANTS` the oldest."""
        now = self._wall()
        value, grant = f"ek_{secrets.token_hex(16)}", Grant(session, now + lifetime_s, owner, dialect)
        ends = {key: held.expires_at + _REMEMBERED_S for key, held in self._grants.items()}
        surplus = len(ends) + 1 - MOST_GRANTS
        for number, (key, end_s) in enumerate(ends.items()):
            if number < surplus or end_s <= now:
                self._grants.pop(key, None)
        self._grants[value] = grant
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
        return self._grants.get(offered) if offered.startswith("ek_") else None

    def spend(self, offered: str) -> None:
        """Use up an ephemeral key: it opens nothing more."""
        if (grant := self._grants.get(offered)) is not None:
            self._grants[offered] = replace(grant, spent=True)

    def expired(self, grant: Grant) -> bool:
        """Return whether the key has expired; an open session continues."""
        return self._wall() >= grant.expires_at


def admit(request: web.Request, keys: KeyRing, *, azure: bool) -> SessionConfig | None:
    """Check the key: ``api-key`` as header (at Azure also as query), or a token as ``Authorization`` or subprotocol.

    Returns
    -------
    SessionConfig or None
        Configuration an ephemeral key was made with; None for a long-lived key. ``request[OWNER]`` names the owner.

    Raises
    ------
    RefusedError
        Status 401, with the message of the service that has this endpoint.
    """
    api_key = (request.headers.get("api-key") or request.query.get("api-key")) if azure else None  # OpenAI ignores it
    token = token_of(request)
    if api_key and token:
        raise RefusedError(401, "401", message_for(401))
    offered = api_key or token
    if not offered:
        words = "Access token is missing, invalid, audience is incorrect, or have expired."
        raise RefusedError(401, "401", words) if azure else RefusedError(401, None, _MISSING)
    owner = keys.owner(offered)
    if owner is not None:
        request[OWNER] = owner
        return None
    grant = keys.grant(offered) if token else None
    if grant is None:
        raise RefusedError(401, "401", message_for(401)) if azure else RefusedError(401, "invalid_api_key", _INCORRECT)
    if keys.expired(grant):
        raise RefusedError(401, "401" if azure else "invalid_api_key", "The ephemeral key has expired.")
    if grant.spent:
        raise RefusedError(401, "401", "The ephemeral key was used: one of the preview opens one call. Make another.")
    request[OWNER] = grant.owner
    return grant.session


_MISSING = "Missing bearer or basic authentication in header"
_INCORRECT = "Incorrect API key provided."  # OpenAI repeats a part of the key here; we do not


def token_of(request: web.Request) -> str | None:
    """Return the token that a client sends: as ``Authorization``, or as a subprotocol."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for offered in offered_protocols(request):
        if offered.startswith(KEY_PROTOCOL):
            return offered.removeprefix(KEY_PROTOCOL)
    return None


def offered_protocols(request: web.Request) -> list[str]:
    """Return the WebSocket subprotocols that a client offers."""
    return [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]


def check_address(request: web.Request, endpoint: Endpoint, model: str) -> None:
    """Refuse the addresses that the service at this endpoint refuses, once the key is right. OpenAI's needs a model,
    too; ours does not, so that ``ws://localhost:8765`` is enough."""
    if endpoint.dialect == "preview":
        if "api-version" not in request.query or "deployment" not in request.query:
            raise RefusedError(404, "404", message_for(404))
        if not API_VERSION.fullmatch(request.query["api-version"]):
            raise RefusedError(404, "404", message_for(404))
    elif endpoint.azure:
        if not model and "intent" not in request.query and "call_id" not in request.query:
            raise RefusedError(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
    elif "realtime=v1" in request.headers.get("OpenAI-Beta", "") or BETA_PROTOCOL in offered_protocols(request):
        message = "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."
        raise RefusedError(400, "beta_api_shape_disabled", message)


def requested_model(request: web.Request, endpoint: Endpoint, preset: SessionConfig | None) -> str:
    """Return the model of the address (`deployment` in the preview), else of the ephemeral key, else ""."""
    names = ("model",) if endpoint.dialect == "ga" else ("deployment", "model")  # the preview's calls say `model`
    requested = next((request.query[name] for name in names if request.query.get(name)), None)
    return requested or (preset.model if preset is not None and isinstance(preset.model, str) else "")


def lifetime_s(expires_after: Any, *, default: int) -> float:
    """Seconds an ephemeral key lives, from the request's `expires_after`."""
    if expires_after is None:
        return default
    seconds = expires_after.get("seconds", default) if isinstance(expires_after, Mapping) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not MIN_LIFETIME_S <= seconds <= MAX_LIFETIME_S:
        text = f"Invalid 'expires_after.seconds': expected {MIN_LIFETIME_S} to {MAX_LIFETIME_S}, got {seconds!r}."
        raise RefusedError(400, "invalid_value", text)
    return float(seconds)


def message_for(status: int) -> str:
    """Return Azure's message for an HTTP status."""
    words = {
        401: "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
        "for an active subscription and use a correct regional API endpoint for your resource.",
        403: "The principal lacks the required data action.",
        404: "Resource not found",
        429: "Requests have exceeded the rate limit of your current pricing tier.",
    }
    return words.get(status, f"The simulator answers {status}.")
