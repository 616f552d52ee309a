"""HTTP requests to a service: ephemeral keys, and the SDP offers of WebRTC calls.

The page posts its offer itself where it reaches the service; `post_offer` does it from the kernel where it does not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ssl import SSLContext
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from rtnb.errors import LocalProtocolError, RemoteProtocolError, RtnbError
from rtnb.redaction import redact
from rtnb.transport import explain
from rtnb.transport.base import Dialect, TargetFacts
from rtnb.transport.credentials import EphemeralKey, Headers, bearer, caused_by, remember_headers
from rtnb.transport.endpoint import is_loopback

LIFETIME_S: Mapping[Dialect, int] = {"ga": 600, "preview": 60}
"""Lifetime of a key where the service does not name it (Microsoft's and OpenAI's documents)."""

SHORTEST_S, LONGEST_S = 10, 7200
"""Allowed values of `expires_after_s` (OpenAI's reference)."""

TIMEOUT_S = 15.0
"""Limit for a whole request (chosen)."""

T = TypeVar("T")


def ephemeral_body(
    dialect: Dialect, session: Mapping[str, Any], *, model: str | None = None, expires_after_s: int | None = None
) -> dict[str, Any]:
    """Make the JSON body that asks for an ephemeral key.

    Parameters
    ----------
    dialect : {"ga", "preview"}
        Shape of the body: GA nests the session, the preview is the session.
    session : mapping
        Wire JSON in that dialect: instructions, voice, turn detection …, and the ``type``, ``"transcription"`` for a
        session that only transcribes.
    model : str, optional
        Deployment or model; one in `session` wins. Transcription sessions name theirs in their transcription
        settings, so it is left out there.
    expires_after_s : int, optional
        Lifetime, 10 to 7200 s; None leaves it to the service (60 s preview, 600 s GA).

    Raises
    ------
    LocalProtocolError
        A lifetime that no service grants.
    """
    if expires_after_s is not None and not SHORTEST_S <= expires_after_s <= LONGEST_S:
        raise LocalProtocolError(f"expires_after_s is {expires_after_s!r}; allowed: {SHORTEST_S} to {LONGEST_S} s")
    body = dict(session)
    kind = body.pop("type", "realtime")
    if model and kind == "realtime":
        body.setdefault("model", model)
    # The preview's transcription sessions name the lifetime `expires_at` (OpenAI's beta reference).
    name = "expires_at" if dialect == "preview" and kind == "transcription" else "expires_after"
    lifetime = {name: {"anchor": "created_at", "seconds": expires_after_s}} if expires_after_s is not None else {}
    if dialect == "ga":
        return {**lifetime, "session": {"type": kind, **body}}
    return {**body, "client_secret": lifetime} if lifetime else body


async def mint(
    url: str, *, headers: Mapping[str, str], body: Mapping[str, Any], facts: TargetFacts, ssl: SSLContext | None = None
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
    facts : TargetFacts
        Facts about the target: the dialect of url and body, and the explanation of failures.
    ssl : ssl.SSLContext, optional
        Trusted certificates, None for the system's.

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
    facts = replace(facts, url=redact(url), purpose="get an ephemeral key")
    return _raised(await _post(url, _key, facts, headers=headers, json=body, ssl=ssl or True))


@dataclass(frozen=True)
class Answer:
    """Answer of the service to an offer."""

    sdp: str
    """Session description of the service."""
    call_id: str | None
    """``rtc_…``, from ``Location``; None where the service (or the browser) does not show it: the preview has none."""


def offer_facts(facts: TargetFacts, url: str) -> TargetFacts:
    """Return the facts that explain the failure of an offer."""
    return replace(facts, url=redact(url), auth="ephemeral", purpose="set up a WebRTC call")


def read_answer(status: int, *, headers: Mapping[str, str], body: str | bytes, facts: TargetFacts) -> Answer:
    """Read the HTTP answer to an offer, as the page received it.

    Raises
    ------
    ConnectError, AuthenticationError, RateLimited
        The status is no success.
    RemoteProtocolError
        It is, but the body holds no session description.
    """
    return _raised(_read(status, headers, body.encode() if isinstance(body, str) else body, facts, _answer))


async def post_offer(
    url: str, *, key: EphemeralKey, sdp: str, facts: TargetFacts, ssl: SSLContext | None = None
) -> Answer:
    """Post an offer with an ephemeral key.

    Parameters
    ----------
    url : str
        From `Endpoint.calls`.
    key : EphemeralKey
        Key that permits the call.
    sdp : str
        The browser's offer.
    facts : TargetFacts
        Facts about the target, for the explanation of failures.
    ssl : ssl.SSLContext, optional
        Trusted certificates, None for the system's.

    Raises
    ------
    ConnectError, AuthenticationError, RateLimited, RemoteProtocolError
        See `read_answer`; also failures before any answer.
    """
    headers = Headers({**bearer(key.reveal()), "Content-Type": "application/sdp"})
    facts = offer_facts(facts, url)
    return _raised(await _post(url, _answer, facts, headers=headers, data=sdp, ssl=ssl or True))


Reader = Callable[[Mapping[str, str], bytes, TargetFacts], T | RemoteProtocolError]
"""Function that reads headers and body of a successful answer; it returns its failure."""


async def _post(url: str, read: Reader[T], facts: TargetFacts, **request: Any) -> T | RtnbError:
    """Post and read the answer; returns failures, so that no frame of a traceback holds the service's text."""
    import aiohttp  # takes a quarter of a second: imported when needed

    remember_headers(request["headers"])
    try:
        # Without trust_env, which would read ~/.netrc and put its password into Authorization.
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as http,
            http.post(url, allow_redirects=False, proxy=proxy_for(url), **request) as answer,
        ):
            return _read(answer.status, answer.headers, await answer.read(), facts, read)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return caused_by(explain.connect_failure(error, facts=facts, timeout_s=TIMEOUT_S), error)


def _read(status: int, headers: Mapping[str, str], body: bytes, facts: TargetFacts, read: Reader[T]) -> T | RtnbError:
    if 200 <= status < 300:
        return read(headers, body, facts)
    return explain.http_failure(status, headers=headers, body=body, facts=facts)


def _raised(outcome: T | RtnbError) -> T:
    if isinstance(outcome, RtnbError):
        raise outcome
    return outcome


def proxy_for(url: str) -> str | None:
    """Return the environment's proxy for `url`; None for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None
    return getproxies().get(parts.scheme)


def _key(headers: Mapping[str, str], body: bytes, facts: TargetFacts) -> EphemeralKey | RemoteProtocolError:
    try:
        answer: Any = json.loads(body)
    except ValueError:
        answer = None
    # GA: {value, expires_at, session}; preview: the session itself with client_secret {value, expires_at}.
    holder = answer.get("client_secret", answer) if isinstance(answer, dict) else {}
    value = holder.get("value") if isinstance(holder, dict) else None
    if not isinstance(value, str) or not value:
        names = ", ".join(sorted(answer)) if isinstance(answer, dict) else "no JSON object"
        hint = "Next: check the dialect and the end of the address."
        return RemoteProtocolError(f"{facts.url} answered without a key (it sent: {names})").with_hint(hint)
    ends = holder.get("expires_at")
    expires_at = float(ends) if isinstance(ends, int | float) and ends else time.time() + LIFETIME_S[facts.dialect]
    session = answer.get("session") if "value" in answer else answer
    session, region = session if isinstance(session, dict) else {}, headers.get("x-ms-region")
    return EphemeralKey(value, expires_at=expires_at, dialect=facts.dialect, session=session, region=region)


def _answer(headers: Mapping[str, str], body: bytes, facts: TargetFacts) -> Answer | RemoteProtocolError:
    sdp = body.decode("utf-8", "replace")
    if not sdp.startswith("v="):
        hint = "Next: compare the end of the address; GA takes offers at …/realtime/calls."
        return RemoteProtocolError(f"there is no session description in the answer of {facts.url}").with_hint(hint)
    location = next((value for name, value in headers.items() if name.lower() == "location"), "")
    return Answer(sdp, urlsplit(location).path.rstrip("/").rpartition("/")[2] or None)
