"""The SDP exchange of a WebRTC call: a browser's offer goes to the service, its answer and the call's id come back.

The page posts the offer itself where it reaches the service; `post_offer` does it from here where it does not.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from rtnb.errors import ConnectError, RemoteProtocolError, RtnbError
from rtnb.transport import explain
from rtnb.transport.base import TargetFacts
from rtnb.transport.credentials import bearer, redact, safe_cause
from rtnb.transport.ephemeral import EphemeralKey, proxy_for


@dataclass(frozen=True)
class Answer:
    """What the service answers to an offer."""

    sdp: str
    """Its session description."""
    call_id: str | None
    """``rtc_…``, from ``Location``; None where the service (or the browser) does not show it: the preview has none."""


def offer_facts(facts: TargetFacts, url: str) -> TargetFacts:
    """Return what the words of a failed offer start from."""
    return replace(facts, url=redact(url), auth="ephemeral", purpose="set up a WebRTC call")


def read_answer(status: int, *, headers: Mapping[str, str], body: str | bytes, facts: TargetFacts) -> Answer:
    """Read an HTTP answer to an offer, here or as the page got it.

    Raises
    ------
    ConnectError, AuthenticationError, RateLimited
        The status is no success.
    RemoteProtocolError
        It is, but there is no session description in it.
    """
    if not 200 <= status < 300:
        raise explain.http_failure(status, headers=headers, body=body, facts=facts)
    sdp = body if isinstance(body, str) else body.decode("utf-8", "replace")
    if not sdp.startswith("v="):
        error = RemoteProtocolError(f"HTTP {status} at {facts.url}, but what came is no session description")
        error.add_note("Next: compare the end of the address; GA takes offers at …/realtime/calls.")
        raise error
    location = next((value for name, value in headers.items() if name.lower() == "location"), "")
    call_id = urlsplit(location).path.rstrip("/").rpartition("/")[2]
    return Answer(sdp, call_id or None)


def check_region(given: str | None, seen: str | None, url: str) -> str | None:
    """Return the region of a resource: the one that was given, else the one the service told.

    Raises
    ------
    ConnectError
        They contradict each other: the preview's WebRTC then answers 404, without a reason.
    """
    given, seen = (region and region.lower().replace(" ", "") for region in (given, seen))
    if given and seen and given != seen:
        error = ConnectError(f"the resource is in {seen}, but region= says {given}", url=url)
        error.add_note(f"Next: say region={seen!r}, or leave region out: it is known now.")
        raise error
    return given or seen


async def post_offer(
    url: str,
    *,
    key: EphemeralKey,
    sdp: str,
    facts: TargetFacts,
    timeout_s: float = 15.0,
    trust: ssl.SSLContext | None = None,
) -> Answer:
    """Post an offer with an ephemeral key.

    Parameters
    ----------
    url : str
        From `Endpoint.calls`.
    key : EphemeralKey
        Its permission.
    sdp : str
        The browser's offer.
    facts : TargetFacts
        Of the target, for the words when it fails.
    timeout_s : float, default 15
        For the whole request (chosen).
    trust : ssl.SSLContext, optional
        Whose certificates count, where not the system's.

    Raises
    ------
    ConnectError, AuthenticationError, RateLimited, RemoteProtocolError
        As `read_answer`, and for what goes wrong before there is an answer.
    """
    outcome = await _post(url, key.reveal(), sdp, offer_facts(facts, url), timeout_s, trust)
    if isinstance(outcome, Answer):
        return outcome
    raise outcome  # here, where no local variable holds the key


async def _post(
    url: str, key: str, sdp: str, facts: TargetFacts, timeout_s: float, trust: ssl.SSLContext | None
) -> Answer | RtnbError:
    import aiohttp  # a quarter of a second to import: only for who needs it

    headers = {**bearer(key), "Content-Type": "application/sdp"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as http,
            http.post(
                url, headers=headers, data=sdp, allow_redirects=False, proxy=proxy_for(url), ssl=trust or True
            ) as answer,
        ):
            return read_answer(answer.status, headers=answer.headers, body=await answer.read(), facts=facts)
    except RtnbError as failure:
        return failure
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        refusal = explain.connect_failure(error, facts=facts, timeout_s=timeout_s, secrets=(key,))
        refusal.__cause__ = safe_cause(error, (key,))
        return refusal
