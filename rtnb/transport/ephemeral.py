"""Ephemeral keys: short-lived keys a browser may hold, got with the real one."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from rtnb.errors import LocalProtocolError, RemoteProtocolError, RtnbError
from rtnb.transport import explain
from rtnb.transport.base import Dialect, TargetFacts
from rtnb.transport.credentials import MASK, Secret, redact, safe_cause, secrets_in
from rtnb.transport.endpoint import is_loopback

LIFETIME_S: Mapping[Dialect, int] = {"ga": 600, "preview": 60}
"""How long a key lives when the service does not say (Microsoft's and OpenAI's documents)."""

SHORTEST_S, LONGEST_S = 10, 7200
"""What `expires_after_s` may be (OpenAI's reference)."""


class EphemeralKey:
    """A short-lived key; shows everything about itself but its value.

    Parameters
    ----------
    value : str or Secret
        The key.
    expires_at : float
        When it ends, seconds since 1970.
    dialect : {"ga", "preview"}
        Which protocol it opens.
    session : mapping, optional
        The session the service will open with it, as wire JSON in that dialect.
    region : str, optional
        Where the resource is, as Azure said in ``x-ms-region``; None where it did not.
    """

    __slots__ = ("_secret", "dialect", "expires_at", "region", "session")

    def __init__(
        self,
        value: str | Secret,
        *,
        expires_at: float,
        dialect: Dialect = "ga",
        session: Mapping[str, Any] | None = None,
        region: str | None = None,
    ) -> None:
        self._secret = Secret(value, what="ephemeral key")
        self.expires_at = expires_at
        self.region = region
        self.dialect: Dialect = dialect
        self.session: dict[str, Any] = {
            name: part for name, part in (session or {}).items() if name not in ("client_secret", "value")
        }

    def reveal(self) -> str:
        """Return the key itself; hand it to the page, never print or store it."""
        return self._secret.reveal()

    def seconds_left(self, now: float | None = None) -> float:
        """Return how many seconds it still lives at `now` (seconds since 1970, default: the clock); 0.0 when over."""
        return max(0.0, self.expires_at - (time.time() if now is None else now))

    @property
    def expired(self) -> bool:
        """Whether it no longer opens a session; one already open goes on."""
        return self.seconds_left() == 0.0

    def __repr__(self) -> str:
        left = f"expires in {self.seconds_left():.0f} s" if not self.expired else "expired"
        return f"EphemeralKey({MASK}, {left}, dialect={self.dialect})"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("an ephemeral key is not pickled: get a new one")


def ephemeral_body(
    dialect: Dialect,
    *,
    model: str | None = None,
    session: Mapping[str, Any] | None = None,
    expires_after_s: int | None = None,
) -> dict[str, Any]:
    """Make the JSON body that asks for an ephemeral key.

    Parameters
    ----------
    dialect : {"ga", "preview"}
        Its shape: GA nests the session, the preview is the session.
    model : str, optional
        Deployment or model; one in `session` comes first.
    session : mapping, optional
        Wire JSON in that dialect: instructions, voice, turn detection …
    expires_after_s : int, optional
        Lifetime, 10 to 7200 s; None leaves it to the service (60 s preview, 600 s GA).

    Raises
    ------
    LocalProtocolError
        A lifetime no service gives.
    """
    named: dict[str, Any] = {"model": model} if model else {}
    after = None
    if expires_after_s is not None:
        if not SHORTEST_S <= expires_after_s <= LONGEST_S:
            raise LocalProtocolError(f"expires_after_s is {expires_after_s!r}; {SHORTEST_S} to {LONGEST_S} s")
        after = {"anchor": "created_at", "seconds": expires_after_s}
    if dialect == "preview":
        expiry = {"client_secret": {"expires_after": after}} if after else {}
        return {**named, **(session or {}), **expiry}
    body: dict[str, Any] = {"session": {"type": "realtime", **named, **(session or {})}}
    return {"expires_after": after, **body} if after else body


async def mint(
    url: str,
    *,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    dialect: Dialect,
    facts: TargetFacts | None = None,
    timeout_s: float = 10.0,
    trust: ssl.SSLContext | None = None,
) -> EphemeralKey:
    """Get an ephemeral key from a service.

    Parameters
    ----------
    url : str
        From `Endpoint.ephemeral_keys`.
    headers : mapping of str to str
        From a `Credential`.
    body : mapping
        From `ephemeral_body`.
    dialect : {"ga", "preview"}
        The one of url and body.
    facts : TargetFacts, optional
        For the words when it fails.
    timeout_s : float, default 10
        For the whole request (chosen).
    trust : ssl.SSLContext, optional
        Whose certificates count, where not the system's.

    Returns
    -------
    EphemeralKey

    Raises
    ------
    ConnectError
        Network failures and HTTP statuses; `AuthenticationError` for 401 and 403.
    RateLimited
        HTTP 429.
    RemoteProtocolError
        The service agreed but sent no key.
    """
    facts = facts or TargetFacts(url=redact(url), dialect=dialect, purpose="get an ephemeral key")
    outcome = await _post(url, headers, body, dialect, facts, timeout_s, trust)
    if isinstance(outcome, EphemeralKey):
        return outcome
    raise outcome  # here, where no local variable holds what the service said


async def _post(
    url: str,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    dialect: Dialect,
    facts: TargetFacts,
    timeout_s: float,
    trust: ssl.SSLContext | None,
) -> EphemeralKey | RtnbError:
    import aiohttp  # a quarter of a second to import: only for who needs it

    secrets = secrets_in(headers.items())
    try:
        # Not trust_env: it would read ~/.netrc and put a password of its own into Authorization.
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as http,
            http.post(
                url, headers=headers, json=body, allow_redirects=False, proxy=proxy_for(url), ssl=trust or True
            ) as answer,
        ):
            content = await answer.read()
            if not 200 <= answer.status < 300:
                return explain.http_failure(
                    answer.status, headers=answer.headers, body=content, facts=facts, secrets=secrets
                )
            key = _read(answer.status, content, dialect=dialect, facts=facts)
            if isinstance(key, EphemeralKey):
                key.region = answer.headers.get("x-ms-region")
            return key
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        failure = explain.connect_failure(error, facts=facts, timeout_s=timeout_s, secrets=secrets)
        failure.__cause__ = safe_cause(error, secrets)
        return failure


def proxy_for(url: str) -> str | None:
    """Return the proxy of the environment for `url`; never one for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None
    return getproxies().get(parts.scheme)


def _read(status: int, content: bytes, *, dialect: Dialect, facts: TargetFacts) -> EphemeralKey | RemoteProtocolError:
    try:
        answer: Any = json.loads(content)
    except ValueError:
        answer = None
    # GA: {value, expires_at, session}; preview: the session itself with client_secret {value, expires_at}.
    holder = answer.get("client_secret", answer) if isinstance(answer, dict) else {}
    value = holder.get("value") if isinstance(holder, dict) else None
    if not isinstance(value, str) or not value:
        names = ", ".join(sorted(answer)) if isinstance(answer, dict) else "no JSON object"
        error = RemoteProtocolError(
            f"the service answered HTTP {status} at {facts.url} without a key (it sent: {names})"
        )
        error.add_note("Next: check the dialect and the end of the address.")
        return error
    said = holder.get("expires_at")
    expires_at = float(said) if isinstance(said, int | float) and said else time.time() + LIFETIME_S[dialect]
    session = answer.get("session") if "value" in answer else answer
    return EphemeralKey(
        value, expires_at=expires_at, dialect=dialect, session=session if isinstance(session, dict) else None
    )
