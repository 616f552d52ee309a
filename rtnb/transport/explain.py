"""From a failure to words: what happened, and as a note what to do next.

Every function returns a ready exception and raises nothing. What the service said is quoted with keys taken out.
The statuses and codes, and what they mean at Azure and OpenAI, are those of Microsoft's troubleshooting and migration
pages (2026) and of captured OpenAI sessions (2026-09); the order of the hints is chosen.
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from rtnb.errors import AuthenticationError, ConnectError, ConnectionClosed, RateLimited
from rtnb.transport.base import TargetFacts
from rtnb.transport.credentials import ENTRA_SCOPE, OTHER_ENTRA_SCOPE, redact

NAMES = {"azure": "Azure OpenAI", "openai": "OpenAI", "custom": "the server", "simulator": "the simulator"}
"""What each service is called in a sentence."""

_NOWHERE = TargetFacts()
_QUOTED = 400  # characters of a service's answer that are quoted (chosen)


# --- before any answer: name, wire, certificate ---------------------------------------------------------------------


def connect_failure(
    error: BaseException, *, facts: TargetFacts = _NOWHERE, timeout_s: float | None = None, secrets: Iterable[str] = ()
) -> ConnectError:
    """Explain why no HTTP answer came: DNS, refused, TLS, timeout, proxy, not HTTP.

    Parameters
    ----------
    error : BaseException
        What the library or the operating system raised.
    facts : TargetFacts
        Where to.
    timeout_s : float, optional
        How long was waited, for the words of a timeout.
    secrets : iterable of str
        Taken out of quoted text.

    Returns
    -------
    ConnectError
        Without a status.
    """
    root = _root(error)
    what, hint = _network_words(root, facts, timeout_s)
    said = redact(str(root), secrets)
    message = f"could not {facts.purpose} at {facts.url or 'the given address'}: {what}"
    failure = ConnectError(f"{message} ({said})" if said and said not in what else message, url=facts.url)
    failure.add_note(f"Next: {hint}")
    return failure


def _root(error: BaseException) -> BaseException:
    """Unpack aiohttp's connector errors, which carry the operating system's."""
    for name in ("certificate_error", "os_error"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return inner
    return error


def _network_words(error: BaseException, facts: TargetFacts, timeout_s: float | None) -> tuple[str, str]:
    kind = type(error).__name__
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved", _dns_hint(facts)
    if isinstance(error, ssl.SSLCertVerificationError):
        return "the TLS certificate of the host is not trusted", (
            "behind a company proxy, point SSL_CERT_FILE to the company's certificate bundle; "
            "for a local server with its own certificate, use ws:// or http:// on localhost."
        )
    if isinstance(error, ssl.SSLError):
        return "no TLS connection", "if the server speaks plain HTTP, write ws:// or http:// instead."
    if isinstance(error, TimeoutError):
        waited = f" within {timeout_s:g} s" if timeout_s is not None else ""
        return f"no answer{waited}", (
            "check the network, VPN and proxy (HTTPS_PROXY, NO_PROXY); "
            "a private endpoint answers only inside its network."
        )
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "the connection was refused: nothing listens there", _refused_hint(facts)
    if "Proxy" in kind:
        return "the proxy did not let us through", (
            "check HTTPS_PROXY and NO_PROXY; a proxy needs to allow CONNECT and WebSocket upgrades."
        )
    if isinstance(error, EOFError | ConnectionError) or kind in ("InvalidMessage", "ServerDisconnectedError"):
        return "the other side hung up before it answered", (
            "is it a realtime service, and does the scheme fit (wss:// for TLS, ws:// without)?"
        )
    if kind in ("InvalidUpgrade", "InvalidHeader", "InvalidHeaderValue", "NegotiationError"):
        return "the other side answered, but not as a WebSocket server", "check the path of the address."
    return f"the network failed with {kind}", "check the address, the network and the proxy settings."


def _dns_hint(facts: TargetFacts) -> str:
    if facts.service == "azure":
        return (
            "copy the endpoint from the resource's page Keys and Endpoint (https://NAME.openai.azure.com); "
            "a resource without a custom name, or a private endpoint outside its network, has no public name."
        )
    return "check the spelling of the host, and whether this machine has a network and DNS."


def _refused_hint(facts: TargetFacts) -> str:
    if facts.service in ("custom", "simulator"):
        return "start the server first (`rtnb simulate`), and compare the port."
    return "check the host and port; a firewall or proxy in between may refuse."


# --- an HTTP answer that is not the wanted one ----------------------------------------------------------------------


def http_failure(
    status: int,
    *,
    headers: Mapping[str, str] | None = None,
    body: str | bytes | bytearray = "",
    facts: TargetFacts = _NOWHERE,
    secrets: Iterable[str] = (),
) -> ConnectError | RateLimited:
    """Explain an HTTP status, of the WebSocket upgrade or of a request.

    Parameters
    ----------
    status : int
        HTTP status.
    headers : mapping, optional
        Of the answer: ``retry-after-ms``, ``retry-after``, ``location`` and request ids are used.
    body : str or bytes
        Of the answer; its error message is quoted.
    facts : TargetFacts
        Where to and as whom.
    secrets : iterable of str
        Taken out of quoted text.

    Returns
    -------
    ConnectError, AuthenticationError (401, 403) or RateLimited (429)
    """
    lowered = {name.lower(): value for name, value in (headers or {}).items()}
    code, said = _service_words(body, secrets)
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "unknown status"
    message = f"could not {facts.purpose} at {facts.url or 'the given address'}: HTTP {status} {phrase}"
    if said:
        message += f', "{said}"'
    failure: ConnectError | RateLimited
    if status == 429:
        retry_after_ms = _retry_after_ms(lowered)
        failure = RateLimited(message, retry_after_ms=retry_after_ms, type="rate_limited", code=code or "429")
        hint = _wait_hint(retry_after_ms, facts)
    else:
        kind = AuthenticationError if status in (401, 403) else ConnectError
        failure = kind(message, url=facts.url, status=status)
        hint = _status_hint(status, said, facts, redact(lowered.get("location", ""), secrets))
    failure.add_note(f"Next: {hint}")
    request_id = lowered.get("apim-request-id") or lowered.get("x-request-id") or lowered.get("x-ms-request-id")
    if request_id:
        failure.add_note(f"Request id, for the service's support: {redact(request_id, secrets)}")
    return failure


def _status_hint(status: int, said: str, facts: TargetFacts, location: str) -> str:
    if status == 401:
        return _hint_401(facts)
    if status == 403:
        return _hint_403(said, facts)
    if status == 404:
        return _hint_404(facts)
    if status == 400:
        if "api-version" in said.lower():
            return "leave api_version out: the GA address takes none (it belongs to dialect='preview')."
        return f"check the request: dialect ({facts.dialect!r}), {facts.noun} ({facts.model!r}), session fields."
    if status == 407:
        return "the proxy wants a name and a password: put them into HTTPS_PROXY."
    if 300 <= status < 400:
        where = f" to {location}" if location else ""
        return f"the address redirects{where}; keys are not sent along: use the final address yourself."
    if 200 <= status < 300:
        return "something answered, but it is no realtime service at this path: check the end of the address."
    if status >= 500:
        return f"{NAMES[facts.service]} has a problem of its own: try again in a moment, then look at its status page."
    return "read what the service said; compare the address and the request with its documentation."


def _hint_401(facts: TargetFacts) -> str:
    causes = []
    if "/v1/" in facts.url and "api-version" in facts.url:
        causes.append("the GA address takes no api-version (this alone gives 401): leave it out")
    if facts.auth == "none":
        causes.append("no key was sent: pass api_key=, or credential= on Azure")
    elif facts.auth == "ephemeral":
        causes.append("an ephemeral key lives 60 s (preview) or 10 min (GA by default): get a new one")
    elif facts.auth == "entra":
        other = OTHER_ENTRA_SCOPE if facts.scope == ENTRA_SCOPE else ENTRA_SCOPE
        causes.append(f"the token's scope was {facts.scope}; the other documented one is scope={other!r}")
        causes.append("the token may be of another tenant than the resource: `az login --tenant ...`")
    elif facts.service == "azure":
        causes.append("the key is wrong, replaced, or of another resource: copy it again from Keys and Endpoint")
        causes.append("the resource may allow no keys at all: leave api_key out to sign in with Entra")
    else:
        causes.append("the key is wrong, revoked or of another project: make a new one")
    if facts.service == "azure":
        causes.append("key and token together are refused too: is a proxy or a header of yours adding one?")
    return "; ".join(causes) + "."


def _hint_403(said: str, facts: TargetFacts) -> str:
    if facts.service != "azure":
        return "the key is known but may not do this: check its permissions, project, and the supported countries."
    role = "give the signed-in identity the role 'Cognitive Services OpenAI User' on the resource (takes minutes)"
    network = "check the resource's page Networking: its rules may not allow this machine's address"
    blocked = any(word in said.lower() for word in ("firewall", "virtual network", "public access", "private"))
    return f"{network}." if blocked or facts.auth == "api-key" else f"{role}; {network}."


def _hint_404(facts: TargetFacts) -> str:
    if facts.service == "azure":
        causes = [
            f"is there a deployment named {facts.model!r} in this resource (its own name, not its model's)",
            "has its model been retired",
        ]
        if facts.dialect == "ga":
            causes.append("does the address end in /openai/v1/realtime with model=, not deployment=")
        else:
            causes.append("is the preview still served there: try dialect='ga'")
        if "realtimertc" in facts.url:
            causes.append("is the WebRTC region the region of the resource")
        return "; ".join(causes) + "?"
    if facts.service == "openai":
        return f"is the model {facts.model!r} spelled right, still offered, and a realtime model?"
    return "the server does not know this path: most serve /v1/realtime; write the whole path into the address."


def _wait_hint(retry_after_ms: int | None, facts: TargetFacts) -> str:
    wait = f"wait {retry_after_ms / 1000:g} s and try again" if retry_after_ms is not None else "wait and try again"
    if facts.service == "azure":
        return f"{wait}; if it stays, raise the quota of the deployment (it is per region and model)."
    return f"{wait}; if it stays, look at the limits and the credit of the account."


def _retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Return ``retry-after-ms``, else ``retry-after`` (seconds); a date is not understood and gives None."""
    for name, factor in (("retry-after-ms", 1), ("retry-after", 1000)):
        try:
            wait_ms = float(headers[name]) * factor
        except (KeyError, ValueError):
            continue
        if 0 <= wait_ms < float("inf"):
            return round(wait_ms)
    return None


def _service_words(body: str | bytes | bytearray, secrets: Iterable[str]) -> tuple[str | None, str]:
    """Return the code and the message of an error answer, redacted; a page of HTML is not quoted."""
    text = body if isinstance(body, str) else bytes(body).decode("utf-8", "replace")
    code = None
    try:
        answer: Any = json.loads(text)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        inner = answer.get("error", answer)
        if isinstance(inner, dict):
            code = str(inner["code"]) if inner.get("code") else None
            text = str(inner.get("message") or inner.get("detail") or text)
        else:
            text = str(inner)
    if text.lstrip().startswith("<"):
        return code, ""
    return code, redact(" ".join(text.split()), secrets)[:_QUOTED]


# --- the connection was there ---------------------------------------------------------------------------------------

_CLOSES: Mapping[int, tuple[str, str | None]] = {
    1000: ("the session ended as asked", None),
    1001: ("the service ended the session", "open a new session and send it what it needs to know."),
    1002: ("one side broke the WebSocket protocol", "report it with the log; a proxy in between may be the cause."),
    1005: ("the connection was closed without a reason", None),
    1006: ("the connection vanished without a goodbye", "check the network, then open a new session."),
    1008: ("the service refuses to go on (policy)", "read the reason; check the key and its permissions."),
    1009: ("a message was too big", "send audio in smaller chunks (15 MiB per append is the limit)."),
    1011: ("the service had an internal error", "open a new session; if it stays, look at its status page."),
    1012: ("the service restarts", "open a new session."),
    1013: ("the service is overloaded", "wait a moment, then open a new session."),
    3000: ("the key or token was refused", "check the key; an ephemeral key may have expired."),
    4000: ("the request cannot be served", "check model and dialect."),
}


def closed(
    code: int, reason: str = "", *, facts: TargetFacts = _NOWHERE, secrets: Iterable[str] = ()
) -> ConnectionClosed:
    """Explain the end of a connection.

    Parameters
    ----------
    code : int
        WebSocket close code, 1006 where there was none.
    reason : str
        The reason text, as received; it is redacted here.
    facts, secrets
        As above.
    """
    reason = redact(reason, secrets)
    what, hint = _CLOSES.get(code, ("the connection was closed", "read the reason, then open a new session."))
    if code == 1001 and any(word in reason.lower() for word in ("duration", "maximum", "minute", "expired")):
        what = "the session reached its longest duration (60 minutes)"
    elif code in (3000, 4000):
        refused = _event_words(*split_reason(reason), facts, code)
        what, hint = refused[1], refused[2]
    said = f" ({code}, {reason!r})" if reason else f" ({code})"
    failure = ConnectionClosed(what + said, code=code, reason=reason)
    if hint:
        failure.add_note(f"Next: {hint}")
    return failure


def split_reason(reason: str) -> tuple[str, str | None]:
    """Split a close reason ``type.code`` as OpenAI writes it: ``("invalid_request_error", "invalid_model")``."""
    error_type, _, code = reason.partition(".")
    return error_type, code or None


def connect_failure_from_event(
    error_type: str,
    code: str | None,
    message: str,
    *,
    facts: TargetFacts = _NOWHERE,
    close_code: int | None = None,
    secrets: Iterable[str] = (),
) -> ConnectError | RateLimited:
    """Explain "connected, then an `error` event, then closed": how OpenAI refuses a key or a model.

    Parameters
    ----------
    error_type, code, message : str
        Of the `error` event before `session.created`; or of the close reason (see `split_reason`).
    close_code : int, optional
        The close code that followed; becomes ``.status``.
    facts, secrets
        As above.

    Returns
    -------
    ConnectError, AuthenticationError or RateLimited
    """
    kind, what, hint = _event_words(error_type, code, facts, close_code)
    said = redact(" ".join(message.split()), secrets)[:_QUOTED]
    head = f"could not {facts.purpose} at {facts.url or 'the given address'}: {what}"
    text = f'{head}, "{said}"' if said else head
    failure: ConnectError | RateLimited
    if kind is RateLimited:
        failure = RateLimited(text, type=error_type, code=code)
    else:
        failure = (AuthenticationError if kind is AuthenticationError else ConnectError)(
            text, url=facts.url, status=close_code
        )
    failure.add_note(f"Next: {hint}")
    return failure


def _event_words(
    error_type: str, code: str | None, facts: TargetFacts, close_code: int | None = None
) -> tuple[type[ConnectError] | type[RateLimited], str, str]:
    if code == "beta_api_shape_disabled":
        return ConnectError, "OpenAI has switched the preview dialect off (2026-05-12)", "use dialect='ga'."
    if code == "unknown_parameter":
        other = "preview" if facts.dialect == "ga" else "ga"
        hint = f"the address may speak the other dialect: try dialect={other!r}."
        return ConnectError, "the service does not know a parameter we sent", hint
    if code in ("invalid_model", "missing_model", "model_not_found", "DeploymentNotFound"):
        hint = f"name a {facts.noun} that speaks realtime (asked for: {facts.model!r})."
        return ConnectError, f"the {facts.noun} is missing, unknown or not a realtime one", hint
    if code in ("rate_limit_exceeded", "insufficient_quota") or error_type in ("rate_limit_error", "rate_limited"):
        return RateLimited, "the service asks to slow down", _wait_hint(None, facts)
    if code == "session_expired":
        return ConnectError, "the session has expired", "open a new session."
    if code == "invalid_api_key" or error_type == "authentication_error" or close_code == 3000:
        return AuthenticationError, "the key or token was refused", _hint_401(facts)
    if error_type == "server_error":
        return ConnectError, "the service had an internal error", "try again in a moment."
    named = f"{error_type}.{code}" if code else error_type
    return ConnectError, f"the service refused with {named or 'no reason'}", "read what the service said."
