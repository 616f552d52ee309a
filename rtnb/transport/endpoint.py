"""From what people paste to the addresses of a service: pure text work, no network.

`read_endpoint` takes apart what was pasted and refuses what cannot work, with the reason and the next step;
`Endpoint` makes the addresses. Paths and query names: Microsoft's GA migration guide, WebSocket and WebRTC how-to
pages (2026), the preview quickstarts (2024-2025), and OpenAI's Realtime guides.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlencode, urlsplit

from rtnb.errors import ConnectError
from rtnb.transport.base import Dialect, Service
from rtnb.transport.credentials import redact, unquoted

OPENAI_BASE_URL = "https://api.openai.com/v1"
PREVIEW_API_VERSION = "2025-04-01-preview"
"""The last preview version Microsoft's documents use (knows WebRTC and ephemeral keys)."""

PREVIEW_REGIONS = ("eastus2", "swedencentral")
"""Where the preview serves WebRTC (Microsoft's preview WebRTC how-to)."""

_AZURE_HOST = re.compile(
    r"\.(openai|cognitiveservices|services\.ai)\.azure\.(com|us|cn)$|\.api\.cognitive\.microsoft\.(com|us)$"
)
_PORTALS = ("ai.azure.com", "portal.azure.com", "oai.azure.com", "platform.openai.com", "learn.microsoft.com")
_PLACEHOLDER = re.compile(r"(?i)[<>{}]|\byour[-_.]?(own|resource|endpoint|azure)|^resource[-_]name(\.|$)")
_KEY = re.compile(r"(?i:(sk|ek)[-_]\S+)|eyJ\S+|[0-9a-fA-F]{32}|[A-Za-z0-9]{40,}")
_API_VERSION = re.compile(r"20\d\d-\d\d-\d\d(-preview)?")
_LAST_STEPS = re.compile(r"/(realtime(/(client_secrets|calls|sessions|transcription_sessions))?|realtimeapi/sessions)$")


@dataclass(frozen=True)
class Endpoint:
    """Where a service is; its methods make the addresses."""

    service: Service
    """Whose paths."""
    dialect: Dialect
    """Which paths."""
    origin: str
    """``http(s)://host[:port]``."""
    base: str
    """Path beneath which the realtime paths live, e.g. ``/openai`` or ``/v1``; no slash at the end."""
    model: str | None
    """Deployment (Azure) or model."""
    api_version: str | None = None
    """Preview at Azure only."""
    exact: str | None = field(default=None, repr=False)
    """Path and query of the WebSocket when somebody pasted exactly that (custom servers)."""

    @property
    def azure_style(self) -> bool:
        """Whether paths are Azure's: ``/openai/v1/realtime`` and the preview's ``/openai/realtime``."""
        return self.service == "azure" or self.base.endswith("/openai")

    @property
    def realtime(self) -> str:
        """Address of the realtime path, http(s), without a query."""
        v1 = "/v1" if self.azure_style and self.dialect == "ga" else ""
        return f"{self.origin}{self.base}{v1}/realtime"

    def websocket(self, *, intent: str | None = None, call_id: str | None = None) -> str:
        """Return the address of the WebSocket.

        Parameters
        ----------
        intent : str, optional
            ``"transcription"`` for a session that only transcribes.
        call_id : str, optional
            ``rtc_…``: watch a WebRTC call from here (GA only).
        """
        if call_id is not None and self.dialect == "preview":
            _refuse("only the GA dialect can watch a WebRTC call (call_id)", self.realtime, "Leave call_id out.")
        if self.exact is not None and call_id is None and intent is None:
            return _ws(self.origin + self.exact)
        query: dict[str, str | None] = {}
        if self.azure_style and self.dialect == "preview":
            query = {"api-version": self.api_version or PREVIEW_API_VERSION, "deployment": self.model}
        elif call_id is not None:
            query = {"call_id": call_id}
        elif intent is None or self.service != "openai":  # OpenAI takes the model of a transcription from the session
            query = {"model": self.model}
        if intent is not None:
            query["intent"] = intent
        path = self.origin + self.exact.partition("?")[0] if self.exact else self.realtime
        return _ws(_with_query(path, query))

    def ephemeral_keys(self) -> str:
        """Return the address that gives short-lived keys (POST)."""
        if self.dialect == "ga":
            return f"{self.realtime}/client_secrets"
        if not self.azure_style:
            return f"{self.realtime}/sessions"
        version = self.api_version or PREVIEW_API_VERSION
        return _with_query(f"{self.origin}{self.base}/realtimeapi/sessions", {"api-version": version})

    def calls(self, *, region: str | None = None, webrtc_filter: bool = False) -> str:
        """Return the address a browser posts its WebRTC offer to.

        Parameters
        ----------
        region : str, optional
            Preview at Azure only: the region of the resource, ``eastus2`` or ``swedencentral``.
        webrtc_filter : bool, default False
            GA at Azure: hide most server events from the browser (also `error` and `response.done`).
        """
        if self.dialect == "ga":
            return _with_query(f"{self.realtime}/calls", {"webrtcfilter": "on" if webrtc_filter else None})
        if self.service != "azure" or is_loopback(urlsplit(self.origin).hostname or ""):
            return _with_query(f"{self.origin}/v1/realtimertc", {"model": self.model})
        where = (region or "").lower().replace(" ", "")
        if where not in PREVIEW_REGIONS:
            allowed = " or ".join(PREVIEW_REGIONS)
            _refuse(
                f"the preview's WebRTC needs the region of the resource: {allowed}, not {region!r}",
                self.origin,
                f"Give region= the resource's region; outside {allowed} use dialect='ga'.",
            )
        rtc = f"https://{where}.realtimeapi-preview.ai.azure.com/v1/realtimertc"
        return _with_query(rtc, {"model": self.model})


def read_endpoint(
    service: Service,
    pasted: str,
    *,
    dialect: Dialect = "ga",
    model: str | None = None,
    api_version: str | None = None,
) -> Endpoint:
    """Understand a pasted endpoint.

    Parameters
    ----------
    service : {"azure", "openai", "custom", "simulator"}
        Whose address it is meant to be.
    pasted : str
        A host, base URL or whole realtime address, with http(s) or ws(s) or none, quotes and spaces around it. A
        deployment or model in it is used where `model` is None.
    dialect : {"ga", "preview"}, default "ga"
        Which protocol will be spoken.
    model : str, optional
        Deployment (Azure) or model.
    api_version : str, optional
        Preview at Azure only, e.g. ``2025-04-01-preview`` (the default there).

    Returns
    -------
    Endpoint

    Raises
    ------
    ConnectError
        What cannot work: the reason in the message, the next step in a note.

    Examples
    --------
    >>> read_endpoint("azure", "https://res.openai.azure.com/", model="my-voice").websocket()
    'wss://res.openai.azure.com/openai/v1/realtime?model=my-voice'
    """
    if dialect not in ("ga", "preview"):
        _refuse(f"dialect is {dialect!r}", "", "Use dialect='ga' (today's protocol) or dialect='preview'.")
    parts = _split(pasted, service)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if any(name.lower() in ("api-key", "api_key", "key", "token") for name in query):
        _refuse("there is a key in the address, where logs keep it", _bare(parts), "Pass it as api_key= instead.")
    _check_host(parts, service)
    if service == "azure":
        return _azure(parts, query, dialect=dialect, model=model, api_version=api_version)
    _check_dialect(service, parts, dialect, api_version)
    path = parts.path.rstrip("/")
    azure_paths = dialect == "preview" or is_azure_host(parts.hostname or "")
    base = _LAST_STEPS.sub("", path) or ("/openai" if azure_paths and not path else "/v1")
    exact = None
    if service != "openai" and path.endswith("/realtime"):
        exact = path + (f"?{parts.query}" if parts.query else "")
        if model and not {"model", "deployment"} & query.keys():
            exact = _with_query(exact, {"model": _word(model)})
    if path == "/realtime":
        base = ""
    model = _one_model(model, query.get("model") or query.get("deployment"), _bare(parts))
    if service == "openai" and not model:
        _refuse("no model is named", _bare(parts), "Name one: OpenAI('gpt-realtime-2.1').")
    origin = _origin(parts, secure=service == "openai")
    return Endpoint(
        service,
        dialect,
        origin,
        base.removesuffix("/v1") if base.endswith("/openai/v1") else base,
        model,
        api_version,
        exact,
    )


def _azure(
    parts: SplitResult, query: dict[str, str], *, dialect: Dialect, model: str | None, api_version: str | None
) -> Endpoint:
    here = _bare(parts)
    before, openai, after = f"{parts.path.rstrip('/')}/".partition("/openai/")
    named = re.search(r"deployments/([^/]+)", after)
    in_path = unquote(named[1]) if named else None
    model = _one_model(model, query.get("model") or query.get("deployment") or in_path, here)
    if not model:
        _refuse("no deployment is named", here, "Give deployment= the name of your deployment (not of its model).")
    pasted_version = query.get("api-version")
    if dialect == "ga":
        if api_version or pasted_version:
            _refuse(
                f"the GA address takes no api-version (it was {api_version or pasted_version!r}): Azure answers 401",
                here,
                f"Leave it out ({_origin(parts)} is enough), or say dialect='preview' for the older protocol.",
            )
        if openai and re.match(r"realtime(api)?/", after):
            _refuse(
                f"{parts.path} is a path of the preview, but dialect is 'ga'",
                here,
                f"Give {_origin(parts)} alone, or say dialect='preview'.",
            )
    else:
        api_version = unquoted(api_version or pasted_version or PREVIEW_API_VERSION)
        if not _API_VERSION.fullmatch(api_version):
            _refuse(f"api_version is {api_version!r}", here, f"It looks like {PREVIEW_API_VERSION!r}.")
    # Microsoft's hosts serve from the root; what stands before /openai there (a project, /models) is another API's.
    known = is_azure_host(parts.hostname or "")
    prefix = "" if known else re.sub(r"(/v1(/.*)?)?/?$", "", before, count=1)
    return Endpoint("azure", dialect, _origin(parts, secure=True), f"{prefix}/openai", model, api_version)


def _split(pasted: str, service: Service) -> SplitResult:
    text = re.sub(r"^[A-Za-z_]+\s*=\s*", "", unquoted(pasted)).strip(",;")  # also a whole line of a .env file
    text = unquoted(text)
    if not text:
        _refuse("the endpoint is empty", "", _where_to_find(service))
    if _KEY.fullmatch(text):
        _refuse("the endpoint is a key, not an address", "", "Pass the key as api_key=. " + _where_to_find(service))
    had_scheme = "://" in text
    if not had_scheme:
        text = text.lstrip("/")
        host = text.partition("/")[0]
        text = f"{'http' if is_loopback(host.rpartition(':')[0] or host) else 'https'}://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _refusal(f"the endpoint cannot be read: {error}", "", _where_to_find(service)) from error
    shown = redact(text)
    if parts.scheme.lower() not in ("https", "http", "wss", "ws"):
        _refuse(f"the scheme {parts.scheme!r} is not one of https, http, wss, ws", shown, _where_to_find(service))
    if parts.username is not None:
        _refuse("there is a name or password in the address", shown, "Pass keys as api_key= or headers=.")
    if _PLACEHOLDER.search(parts.hostname or parts.netloc) or "<" in text:
        _refuse(f"the endpoint is still the placeholder of a sample: {shown}", shown, _where_to_find(service))
    if not parts.hostname or re.search(r"[\s,]", parts.netloc):
        _refuse(f"there is no host in the endpoint {shown!r}", shown, _where_to_find(service))
    if not (had_scheme or port or "." in parts.hostname or is_loopback(parts.hostname)):
        guess = f"{parts.hostname}.openai.azure.com"
        _refuse(f"{parts.hostname!r} is a name, not a host", shown, f"If it is the resource's name: https://{guess}")
    return parts


def _check_host(parts: SplitResult, service: Service) -> None:
    host, here = (parts.hostname or ""), _bare(parts)
    if any(host == portal or host.endswith(f".{portal}") for portal in _PORTALS) and ".services." not in f".{host}":
        if host.endswith("realtimeapi-preview.ai.azure.com"):
            _refuse(
                "this is the WebRTC address of a region, not of your resource",
                here,
                f"{_where_to_find('azure')} The region goes into region=.",
            )
        _refuse(f"{host} is a web page for people, not the service", here, _where_to_find(service))
    if "/voice-live/" in f"{parts.path}/":
        _refuse(
            "this is Azure Voice Live, which has a protocol of its own", here, "Use a deployment of a realtime model."
        )
    if service == "azure" and host.endswith("api.openai.com"):
        _refuse("this is OpenAI's address, not Azure's", here, "Use rtnb.OpenAI(model, api_key=...).")
    if service == "openai" and is_azure_host(host):
        _refuse("this is Azure's address, not OpenAI's", here, "Use rtnb.Azure(endpoint, deployment=...).")


def _check_dialect(service: Service, parts: SplitResult, dialect: Dialect, api_version: str | None) -> None:
    here = _bare(parts)
    if dialect == "preview" and (service == "openai" or (parts.hostname or "").endswith("api.openai.com")):
        _refuse(
            "OpenAI switched the preview dialect off on 2026-05-12 (it closes with code 4000)",
            here,
            "Use dialect='ga'; to study the preview, use the simulator.",
        )
    if api_version and dialect == "ga":
        _refuse(f"the GA address takes no api-version (it was {api_version!r})", here, "Leave api_version out.")


def _one_model(given: str | None, in_address: str | None, here: str) -> str | None:
    given = _word(given) if given is not None else None
    if given and in_address and given != in_address:
        _refuse(
            f"two deployments or models are named: {in_address!r} in the address and {given!r} beside it",
            here,
            "Leave one out.",
        )
    return given or in_address


def _word(model: str) -> str:
    word = unquoted(model)
    if re.search(r"[\s/<>?&#]", word):
        _refuse(
            f"{redact(model)!r} is no name of a deployment or model", "", "Give the name alone: letters, - . and _."
        )
    return word


def _where_to_find(service: Service) -> str:
    if service == "azure":
        return "Copy the endpoint from the resource's page Keys and Endpoint: https://NAME.openai.azure.com"
    if service == "openai":
        return f"Leave base_url out for OpenAI itself ({OPENAI_BASE_URL})."
    return "Give an address such as ws://localhost:8765."


def _origin(parts: SplitResult, *, secure: bool = False) -> str:
    """Return ``http(s)://host[:port]``; `secure` makes it https wherever the host is not this machine."""
    host, port = parts.hostname or "", parts.port
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme.lower(), parts.scheme.lower())
    if secure and scheme == "http" and not is_loopback(host):
        scheme, port = "https", None if port == 80 else port
    shown = f"[{host}]" if ":" in host else host
    if port is None or port == {"http": 80, "https": 443}[scheme]:
        return f"{scheme}://{shown}"
    return f"{scheme}://{shown}:{port}"


def _bare(parts: SplitResult) -> str:
    return redact(f"{_origin(parts)}{parts.path}")


def _ws(url: str) -> str:
    return re.sub(r"^http", "ws", url)


def _with_query(url: str, query: dict[str, str | None]) -> str:
    text = urlencode({name: value for name, value in query.items() if value is not None}, quote_via=quote)
    return f"{url}{'&' if '?' in url else '?'}{text}" if text else url


def is_azure_host(host: str) -> bool:
    """Return whether `host` is one of Azure's: other paths, and keys go into ``api-key``."""
    return bool(_AZURE_HOST.search(host.lower()))


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine (such addresses never go through a proxy).

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "example.org")]
    [True, True, True, False]
    """
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _refusal(message: str, url: str, hint: str) -> ConnectError:
    error = ConnectError(message, url=url)
    error.add_note(f"Next: {hint}")
    return error


def _refuse(message: str, url: str, hint: str) -> NoReturn:
    raise _refusal(message, url, hint)
