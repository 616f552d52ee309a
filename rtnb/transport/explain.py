"""Explanations of failures: an exception with the cause, and the next step as a note.

Each function returns a new exception and raises nothing. Quotes of the service have their keys masked. Statuses, codes
and their meaning at Azure and OpenAI come from Microsoft's troubleshooting and migration pages (2026) and captured
OpenAI sessions (2026-09); the order of the advice is chosen.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from rtnb.errors import AuthenticationError, ConnectError, ConnectionClosed, RateLimited
from rtnb.redaction import redact
from rtnb.transport.base import TargetFacts
from rtnb.transport.credentials import ENTRA_SCOPE, OTHER_ENTRA_SCOPE

NAMES = {"azure": "Azure OpenAI", "openai": "OpenAI", "custom": "the server", "simulator": "the simulator"}
"""Name of each service in a sentence."""

_NOWHERE = TargetFacts()
_QUOTED = 400  # characters quoted of a service's answer (chosen)


# --- before any answer: name, network, certificate ------------------------------------------------------------------

_HANGING_UP = "EOFError ConnectionError InvalidMessage ServerDisconnectedError"
_TRUST = "let SSL_CERT_FILE name the certificates of a company's proxy; on localhost use ws:// or http://."
_START = "start the server first (`rtnb simulate`), and compare host and port; a firewall may refuse, too."
_NETWORK: tuple[tuple[str, str, str], ...] = (
    ("proxy", "the proxy refused the connection", "check HTTPS_PROXY and NO_PROXY; it must allow WebSocket upgrades."),
    ("gaierror", "the host name cannot be resolved", "check the spelling of the host, the network and DNS."),
    ("SSLCertVerificationError", "the TLS certificate of the host is not trusted", _TRUST),
    ("SSLError", "no TLS connection", "if the server speaks plain HTTP, write ws:// or http:// instead."),
    ("TimeoutError", "no answer", "check network, VPN and proxy (HTTPS_PROXY, NO_PROXY), and private endpoints."),
    ("ConnectionRefusedError", "the connection was refused: nothing listens there", _START),
    (_HANGING_UP, "the other side hung up before it answered", "does the scheme fit (wss:// for TLS, ws:// without)?"),
    ("InvalidHeader NegotiationError", "the other side answered, but not as a WebSocket server", "check the path."),
)
"""Classes of errors, what happened, and the next step. Names instead of classes: no library is imported."""

_NO_AZURE_HOST = (
    "copy the endpoint from the page Keys and Endpoint (https://NAME.openai.azure.com); a resource without a custom "
    "name, or a private endpoint outside its network, has no public name."
)


def connect_failure(
    error: BaseException, *, facts: TargetFacts = _NOWHERE, timeout_s: float | None = None
) -> ConnectError | RateLimited:
    """Explain a connection without any HTTP answer: DNS, refused, TLS, timeout, proxy, not HTTP.

    Parameters
    ----------
    error : BaseException
        Error of the library or the operating system.
    facts : TargetFacts
        Facts about the target.
    timeout_s : float, optional
        Limit that passed, for the text of a timeout.

    Returns
    -------
    ConnectError
        Without a status.
    """
    # aiohttp's connector errors carry the one of the operating system.
    root = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    kinds = [kind.__name__ for kind in type(root).__mro__]
    if "Proxy" in type(error).__name__:
        kinds = ["proxy"]
    elif f"[Errno {errno.ECONNREFUSED}]" in str(root):  # also where asyncio joins the errors of several addresses
        kinds = ["ConnectionRefusedError"]
    unknown = ("", f"the network failed with {kinds[0]}", "check the address, the network and the proxy.")
    _, what, hint = next((row for kind in kinds for row in _NETWORK if kind in row[0].split()), unknown)
    if "gaierror" in kinds and facts.service == "azure":
        hint = _NO_AZURE_HOST
    if "TimeoutError" in kinds and timeout_s is not None:
        what += f" within {timeout_s:g} s"
    said = redact(str(root))
    return _failure(0, f"{what} ({said})" if said and said not in what else what, hint, facts)


def _failure(
    kind: int, what: str, hint: str, facts: TargetFacts, *, said: str = "", status: int | None = None, **limit: Any
) -> ConnectError | RateLimited:
    """Make the exception for the HTTP status `kind`; `limit` are the arguments of `RateLimited`."""
    quoted = f', "{said}"' if said else ""
    text = f"could not {facts.purpose} at {facts.url or 'the given address'}: {what}{quoted}"
    refused = AuthenticationError if kind in (401, 403) else ConnectError
    failure = RateLimited(text, **limit) if kind == 429 else refused(text, url=facts.url, status=status)
    return failure.with_hint(f"Next: {hint}")


# --- an HTTP answer with another status -----------------------------------------------------------------------------

_NO_MODEL = "model= is missing: if the server needs one, pass model='NAME' or end the address with /realtime?model=NAME"
_ADVICE: tuple[tuple[int, str, str], ...] = (
    (400, "custom no-model", _NO_MODEL),
    (400, "says-version", "leave api_version out: the GA address takes none (it belongs to dialect='preview')"),
    (400, "", "check the request: dialect ({f.dialect!r}), {f.noun} ({f.model!r}), session fields"),
    (401, "ga-with-version", "the GA address takes no api-version (this alone gives 401): leave it out"),
    (401, "none", "no key was sent: pass api_key=, or credential= on Azure"),
    (401, "ephemeral", "an ephemeral key lives 60 s (preview) or 10 min (GA by default): get a new one"),
    (401, "entra", "the token's scope was {f.scope}; the other documented one is scope={other_scope!r}"),
    (401, "entra", "the token may be of another tenant than the resource: `az login --tenant ...`"),
    (401, "azure key", "the key is wrong, replaced or of another resource: copy it again from Keys and Endpoint"),
    (401, "azure key", "the resource may allow no keys at all: leave api_key out to sign in with Entra"),
    (401, "elsewhere key", "the key is wrong, revoked or of another project: make a new one"),
    (401, "azure", "key and token together are refused too: is a proxy or a header of yours adding one?"),
    (403, "elsewhere", "the key may not do this: check its permissions, project, and the supported countries"),
    (403, "azure keyless open", "give the identity the role 'Cognitive Services OpenAI User' (takes minutes)"),
    (403, "azure", "check the resource's page Networking: its rules may not allow this machine's address"),
    (404, "azure", "is there a deployment named {f.model!r} (not its model's name), or is its model retired?"),
    (404, "azure ga", "does the address end in /openai/v1/realtime with model=, not deployment=?"),
    (404, "azure preview", "is the preview still served there? Try dialect='ga'"),
    (404, "rtc", "is the WebRTC region the region of the resource?"),
    (404, "openai", "is the model {f.model!r} spelled right, still offered, and a realtime model?"),
    (404, "custom no-model", _NO_MODEL),
    (404, "custom", "most servers serve /v1/realtime: write another path as a whole into the address"),
    (407, "", "the proxy wants a name and a password: put them into HTTPS_PROXY"),
    (429, "", "{wait} and try again"),
    (429, "azure", "if it stays, raise the quota of the deployment (it is per region and model)"),
    (429, "elsewhere", "if it stays, look at the limits and the credit of the account"),
    (2, "", "an answer came, but not from a realtime service: check the end of the address"),
    (3, "", "the address redirects to {location}; keys are not sent along: use the final address yourself"),
    (5, "", "{name} has a problem: try again in a moment, then look at its status page"),
    (0, "", "read the service's message; compare the address and the request with its documentation"),
)
"""Status (or its first digit, or 0 for any), conditions, advice.

All rows of a status apply whose conditions hold, in this order. For conditions see `_conditions`.
"""


def http_failure(
    status: int, *, headers: Mapping[str, str] | None = None, body: str | bytes = "", facts: TargetFacts = _NOWHERE
) -> ConnectError | RateLimited:
    """Explain an HTTP status, of the WebSocket upgrade or of a request.

    Parameters
    ----------
    status : int
        HTTP status.
    headers : mapping, optional
        Headers of the answer: ``retry-after-ms``, ``retry-after``, ``location`` and request ids are used.
    body : str or bytes
        Body of the answer; its error message is quoted.
    facts : TargetFacts
        Facts about the target.

    Returns
    -------
    ConnectError, AuthenticationError (401, 403) or RateLimited (429)
    """
    lowered = {name.lower(): redact(value) for name, value in (headers or {}).items()}
    code, said = _service_message(body)
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "unknown status"
    retry_after_ms = _retry_after_ms(lowered)
    wait = "wait" if retry_after_ms is None else f"wait {retry_after_ms / 1000:g} s"
    hint = _advice(status, facts, said, wait=wait, location=lowered.get("location", "another one"))
    limit = {"retry_after_ms": retry_after_ms, "type": "rate_limited", "code": code or "429"}
    request_id = lowered.get("apim-request-id") or lowered.get("x-request-id") or lowered.get("x-ms-request-id")
    failure = _failure(status, f"HTTP {status} {phrase}", hint, facts, said=said, status=status, **limit)
    return failure.with_hint(request_id and f"Request id, for the service's support: {request_id}")


def _advice(status: int, facts: TargetFacts, said: str = "", **values: str) -> str:
    true = _conditions(facts, said.lower())
    texts: list[str] = []
    for wanted in (status, status // 100, 0):
        texts = texts or [text for code, only, text in _ADVICE if code == wanted and true.issuperset(only.split())]
    other_scope = OTHER_ENTRA_SCOPE if facts.scope == ENTRA_SCOPE else ENTRA_SCOPE
    return "; ".join(texts).format(f=facts, other_scope=other_scope, name=NAMES[facts.service], **values)


def _conditions(facts: TargetFacts, said: str) -> set[str]:
    flags = {
        "elsewhere": facts.service != "azure",
        "key": facts.auth in ("api-key", "bearer"),
        "keyless": facts.auth != "api-key",
        "no-model": not facts.model,
        "ga-with-version": "/v1/" in facts.url and "api-version" in facts.url,
        "rtc": "realtimertc" in facts.url,
        "says-version": "api-version" in said,
        "open": not any(word in said for word in ("firewall", "virtual network", "public access", "private")),
    }
    return {facts.service, facts.auth, facts.dialect} | {name for name, holds in flags.items() if holds}


def _retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Return ``retry-after-ms``, else ``retry-after`` (seconds); None for a date."""
    for name, factor in (("retry-after-ms", 1), ("retry-after", 1000)):
        try:
            wait_ms = float(headers[name]) * factor
        except (KeyError, ValueError):
            continue
        if 0 <= wait_ms < float("inf"):
            return round(wait_ms)
    return None


def _service_message(body: str | bytes) -> tuple[str | None, str]:
    """Return code and message of an error answer, redacted; a page of HTML is not quoted."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    try:
        answer: Any = json.loads(text)
    except ValueError:
        answer = None
    code = None
    if isinstance(answer, dict):
        inner = answer.get("error", answer)
        fields = inner if isinstance(inner, dict) else {"message": inner}
        code = str(fields["code"]) if fields.get("code") else None
        text = str(fields.get("message") or fields.get("detail") or text)
    return code, "" if text.lstrip().startswith("<") else _quoted(text)


def _quoted(text: str) -> str:
    return redact(" ".join(text.split()))[:_QUOTED]


# --- after the connection was open ----------------------------------------------------------------------------------

_CLOSES: Mapping[int, tuple[str, str]] = {
    1000: ("the session ended as asked", ""),
    1001: ("the service ended the session", "open a new session and send it what it needs to know."),
    1002: ("one side broke the WebSocket protocol", "report it with the log; a proxy in between may be the cause."),
    1005: ("the connection was closed without a reason", ""),
    1006: ("the connection broke without a closing message", "check the network, then open a new session."),
    1008: ("the service refuses to go on (policy)", "read the reason; check the key and its permissions."),
    1009: ("a message was too big", "send audio in smaller chunks (15 MiB per append is the limit)."),
    1011: ("the service had an internal error", "open a new session; if it stays, look at its status page."),
    1012: ("the service restarts", "open a new session."),
    1013: ("the service is overloaded", "wait a moment, then open a new session."),
}
"""Close code -> what happened, and the next step, if any."""

_WRONG_MODEL = "invalid_model missing_model model_not_found DeploymentNotFound"
_NAME_ANOTHER = "name a {f.noun} that speaks realtime with {f.noun}= (asked for: {f.model!r})."
_EVENTS: tuple[tuple[str, int, str, str], ...] = (
    ("beta_api_shape_disabled", 400, "OpenAI has switched the preview dialect off (2026-05-12)", "use dialect='ga'."),
    ("unknown_parameter", 400, "the service does not know a parameter of the request", "try dialect={other!r}."),
    (_WRONG_MODEL, 404, "the {f.noun} is missing, unknown or not a realtime one", _NAME_ANOTHER),
    ("rate_limit_exceeded insufficient_quota rate_limit_error rate_limited", 429, "the service asks to slow down", ""),
    ("session_expired", 408, "the session has expired", "open a new session."),
    ("invalid_api_key authentication_error", 401, "the key or token was refused", ""),
    ("server_error", 500, "the service had an internal error", "try again in a moment."),
)
"""Codes and types of an `error` event, its HTTP status, what happened, and the next step (empty: `_ADVICE`)."""


def closed(code: int, reason: str = "", *, facts: TargetFacts = _NOWHERE) -> ConnectionClosed:
    """Explain the end of a connection.

    Parameters
    ----------
    code : int
        WebSocket close code, 1006 without one.
    reason : str
        Reason text, as received; it is redacted here.
    facts : TargetFacts
        Facts about the target.
    """
    reason = redact(reason)
    if code in (3000, 4000):
        _, what, hint = _event(*split_reason(reason), facts, code)
    else:
        what, hint = _CLOSES.get(code, ("the connection was closed", "read the reason, then open a new session."))
    if code == 1001 and any(word in reason.lower() for word in ("duration", "maximum", "minute", "expired")):
        what = "the session reached its longest duration (60 minutes)"
    text = f"{what} ({code}, {reason!r})" if reason else f"{what} ({code})"
    return ConnectionClosed(text, code=code, reason=reason).with_hint(hint and f"Next: {hint}")


def split_reason(reason: str) -> tuple[str, str | None]:
    """Split a close reason ``type.code`` of OpenAI: ``("invalid_request_error", "invalid_model")``."""
    error_type, _, code = reason.partition(".")
    return error_type, code or None


def connect_failure_from_event(
    error_type: str, code: str | None, message: str, *, facts: TargetFacts = _NOWHERE, close_code: int | None = None
) -> ConnectError | RateLimited:
    """Explain an `error` event before `session.created`: OpenAI's refusal of a key or a model.

    Parameters
    ----------
    error_type, code, message : str
        Fields of the event, or of the close reason (see `split_reason`).
    close_code : int, optional
        Close code that followed; becomes ``.status``.
    facts : TargetFacts
        Facts about the target.

    Returns
    -------
    ConnectError, AuthenticationError or RateLimited
    """
    kind, what, hint = _event(error_type, code, facts, close_code)
    what = f"{what} ({code})" if code and code not in what + message else what
    said = _quoted(message)
    return _failure(kind, what, hint, facts, said=said, status=close_code, type=error_type, code=code)


def _event(error_type: str, code: str | None, facts: TargetFacts, close_code: int | None) -> tuple[int, str, str]:
    for name in (code, error_type, "invalid_api_key" if close_code == 3000 else None):
        for names, kind, what, hint in _EVENTS:
            if name in names.split():
                other = "preview" if facts.dialect == "ga" else "ga"
                step = hint.format(f=facts, other=other) or _advice(kind, facts, wait="wait")
                return kind, what.format(f=facts), step
    named = f"{error_type}.{code}" if code else error_type
    return 400, f"the service refused with {named or 'no reason'}", "read the service's message."
