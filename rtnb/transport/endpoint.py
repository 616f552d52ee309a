"""Addresses of a service, from the endpoint that was pasted: text only, no network.

`read_endpoint` takes the pasted text apart and refuses what cannot work, with the reason and the next step; `Endpoint`
makes the addresses. Paths and query names: Microsoft's GA migration guide, WebSocket and WebRTC how-to pages (2026),
the preview quickstarts (2024-2025), and OpenAI's Realtime guides.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlencode, urlsplit

from rtnb.errors import ConnectError
from rtnb.redaction import redact
from rtnb.transport.base import Dialect, Service
from rtnb.transport.credentials import unquoted

OPENAI_BASE_URL = "https://api.openai.com/v1"
PREVIEW_API_VERSION = "2025-04-01-preview"
"""Last preview version in Microsoft's documents (it has WebRTC and ephemeral keys)."""

PREVIEW_REGIONS = ("eastus2", "swedencentral")
"""Regions with the preview's WebRTC (Microsoft's preview WebRTC how-to)."""

_AZURE_HOST = re.compile(
    r"\.(openai|cognitiveservices|services\.ai)\.azure\.(com|us|cn)$|\.api\.cognitive\.microsoft\.(com|us)$"
)
_PORTALS = (".ai.azure.com", ".portal.azure.com", ".oai.azure.com", ".platform.openai.com", ".learn.microsoft.com")
_REGIONAL = "realtimeapi-preview.ai.azure.com"
_WITHOUT_PREVIEW = "Use dialect='ga'; to study the preview, use the simulator."
_SCHEMES = ("https", "http", "wss", "ws")
_PLACEHOLDER = re.compile(r"(?i)[<>{}]|\byour[-_.]?(own|resource|endpoint|azure)|^resource[-_]name(\.|$)")
_KEY = re.compile(r"(?i:(sk|ek)[-_]\S+)|eyJ\S+|[0-9a-fA-F]{32}|[A-Za-z0-9]{40,}")
_API_VERSION = re.compile(r"20\d\d-\d\d-\d\d(-preview)?")
_LAST_STEPS = re.compile(r"/(realtime(/(client_secrets|calls|sessions|transcription_sessions))?|realtimeapi/sessions)$")
_WHERE_TO_FIND = {
    "azure": "Copy the endpoint from the resource's page Keys and Endpoint: https://NAME.openai.azure.com",
    "openai": f"Leave base_url out for OpenAI itself ({OPENAI_BASE_URL}).",
    "custom": "Give an address such as ws://localhost:8765.",
    "simulator": "Give an address such as ws://localhost:8765.",
}


@dataclass(frozen=True)
class Endpoint:
    """Place of a service; the methods make its addresses."""

    service: Service
    """Kind of service, which decides the paths."""
    dialect: Dialect
    """Spelling of the protocol, which decides the paths, too."""
    origin: str
    """``http(s)://host[:port]``."""
    base: str
    """Path beneath which the realtime paths live, e.g. ``/openai`` or ``/v1``; no slash at the end."""
    model: str | None
    """Deployment (Azure) or model."""
    api_version: str | None = None
    """Version of Azure's preview."""
    path: str | None = None
    """Path of the WebSocket where the pasted address names it (custom servers)."""
    query: str = field(default="", repr=False)
    """Query of the pasted address (custom servers): part of every address, and possibly secret."""

    @property
    def azure_style(self) -> bool:
        """True for Azure's paths: ``/openai/v1/realtime`` and the preview's ``/openai/realtime``."""
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
        watching = call_id is not None and self.dialect == "preview"
        _refuse_if(watching, "only the GA dialect can watch a call (call_id)", self.realtime, "Leave call_id out.")
        query: dict[str, str | None] = {}
        if self.azure_style and self.dialect == "preview":
            query = {"api-version": self.api_version or PREVIEW_API_VERSION, "deployment": self.model}
        elif call_id is None and not (intent and self.service == "openai"):  # OpenAI reads it from the session there
            query = {"model": self.model}
        pasted = set(parse_qs(self.query, keep_blank_values=True))
        pasted |= {"model", "deployment"} if pasted & {"model", "deployment"} else set()
        query = {name: value for name, value in query.items() if name not in pasted}
        url = self.origin + self.path if self.path is not None else self.realtime
        return re.sub("^http", "ws", _with_query(url, {**query, "call_id": call_id, "intent": intent}, self.query))

    def ephemeral_keys(self, *, intent: str | None = None) -> str:
        """Return the address that gives short-lived keys (POST).

        Parameters
        ----------
        intent : str, optional
            ``"transcription"`` for a session that only transcribes: the preview has an address for those.
        """
        if self.dialect == "ga":
            return _with_query(f"{self.realtime}/client_secrets", {}, self._own_query)
        sessions = "transcription_sessions" if intent == "transcription" else "sessions"
        api = "api" if self.azure_style and intent != "transcription" else ""
        version = self.api_version or PREVIEW_API_VERSION if self.azure_style else None
        return _with_query(f"{self.realtime}{api}/{sessions}", {"api-version": version}, self._own_query)

    @property
    def _own_query(self) -> str:
        """Pasted query without the names that belong to the WebSocket alone."""
        names = ("model=", "deployment=", "intent=", "call_id=", "api-version=")
        return "&".join(part for part in self.query.split("&") if not part.startswith(names))

    def calls(self, *, region: str | None = None, seen_region: str | None = None, webrtc_filter: bool = False) -> str:
        """Return the address a browser posts its WebRTC offer to.

        Parameters
        ----------
        region : str, optional
            Preview at Azure only: the region of the resource, ``eastus2`` or ``swedencentral``.
        seen_region : str, optional
            The region that the service named (`EphemeralKey.region`).
        webrtc_filter : bool, default False
            GA at Azure: hide most server events from the browser (also `error` and `response.done`).

        Raises
        ------
        ConnectError
            The preview's region is missing or without WebRTC, or is not the resource's (which gives a bare 404).
        """
        if self.dialect == "ga":
            filtered = {"webrtcfilter": "on" if webrtc_filter else None}
            return _with_query(f"{self.realtime}/calls", filtered, self._own_query)
        if self.service != "azure" or is_loopback(urlsplit(self.origin).hostname or ""):
            return _with_query(f"{self.origin}/v1/realtimertc", {"model": self.model}, self._own_query)
        given, seen = ((one or "").lower().replace(" ", "") for one in (region, seen_region))
        where, allowed = given or seen, " or ".join(PREVIEW_REGIONS)
        other, hint = seen and where != seen, f"Set region={seen!r}, or leave region out: it is known now."
        _refuse_if(other, f"the resource is in {seen}, but region= is {given}", self.origin, hint)
        if where not in PREVIEW_REGIONS:
            hint = f"Give region= the resource's region; outside {allowed} use dialect='ga'."
            message = f"the preview's WebRTC needs the region of the resource: {allowed}, not {where!r}"
            _refuse(message, self.origin, hint)
        rtc = f"https://{where}.realtimeapi-preview.ai.azure.com/v1/realtimertc"
        return _with_query(rtc, {"model": self.model})


def read_endpoint(
    service: Service, pasted: str, dialect: Dialect = "ga", model: str | None = None, *, api_version: str | None = None
) -> Endpoint:
    """Understand a pasted endpoint.

    Parameters
    ----------
    service : {"azure", "openai", "custom", "simulator"}
        Kind of service the address is meant for.
    pasted : str
        A host, base URL or whole realtime address, with http(s) or ws(s) or none, quotes and spaces around it. A
        deployment or model in it is used where `model` is None.
    dialect : {"ga", "preview"}, default "ga"
        Spelling of the protocol.
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
        The address cannot work: the reason is the message, the next step a note.

    Examples
    --------
    >>> read_endpoint("azure", "https://res.openai.azure.com/", model="my-voice").websocket()
    'wss://res.openai.azure.com/openai/v1/realtime?model=my-voice'
    """
    unknown = dialect not in ("ga", "preview")
    _refuse_if(unknown, f"dialect is {dialect!r}", "", "Use dialect='ga' (today's protocol) or dialect='preview'.")
    parts = _split(pasted, service)
    here = _bare(parts)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    has_key = any(name.lower() in ("api-key", "api_key", "key", "token") for name in query)
    _refuse_if(has_key, "there is a key in the address, where logs keep it", here, "Pass it as api_key= instead.")
    _check_host(parts, service, dialect)
    in_path = re.search(r"/openai/deployments/([^/]+)", parts.path) if service == "azure" else None
    named = query.get("model") or query.get("deployment") or (unquote(in_path[1]) if in_path else None)
    model = _one_model(model, named, here)
    if service == "azure":
        return _azure(parts, query.get("api-version"), dialect=dialect, model=model, api_version=api_version)
    versioned = api_version and dialect == "ga"
    _refuse_if(versioned, f"the GA address takes no api-version (it was {api_version!r})", here, "Leave it out.")
    _refuse_if(service == "openai" and not model, "model= is missing", here, "Name one: OpenAI('gpt-realtime-2.1').")
    path = parts.path.rstrip("/")
    azure_paths = dialect == "preview" or is_azure_host(parts.hostname or "")
    base = _LAST_STEPS.sub("", path) if path else "/openai" if azure_paths else "/v1"
    base = base.removesuffix("/v1") if base.endswith("/openai/v1") else base
    if service == "openai":
        return Endpoint(service, dialect, _origin(parts, secure=True), base, model, api_version)
    exact = path if path.endswith("/realtime") else None
    return Endpoint(service, dialect, _origin(parts), base, model, api_version, exact, parts.query)


def _azure(
    parts: SplitResult, pasted_version: str | None, *, dialect: Dialect, model: str | None, api_version: str | None
) -> Endpoint:
    here = _bare(parts)
    before, openai, after = f"{parts.path.rstrip('/')}/".partition("/openai/")
    _refuse_if(not model, "deployment= is missing", here, "Give the name of your deployment (not of its model).")
    version = api_version or pasted_version
    if dialect == "ga":
        hint = f"Give {_origin(parts)} alone, or dialect='preview' for the older protocol."
        old_path = openai and re.match(r"realtime(api)?/", after)
        _refuse_if(version, f"the GA address takes no api-version (it was {version!r}; it gives 401)", here, hint)
        _refuse_if(old_path, f"{parts.path} is a path of the preview, but dialect is 'ga'", here, hint)
    else:
        version = unquoted(version or PREVIEW_API_VERSION)
        wrong = not _API_VERSION.fullmatch(version)
        _refuse_if(wrong, f"api_version is {version!r}", here, f"It looks like {PREVIEW_API_VERSION!r}.")
    # Microsoft's hosts serve from the root; a path before /openai there (a project, /models) belongs to another API.
    known = is_azure_host(parts.hostname or "")
    prefix = "" if known else re.sub(r"(/v1(/.*)?)?/?$", "", before, count=1)
    return Endpoint("azure", dialect, _origin(parts, secure=True), f"{prefix}/openai", model, version)


def _split(pasted: str, service: Service) -> SplitResult:
    text = re.sub(r"^[A-Za-z_]+\s*=\s*", "", unquoted(pasted)).strip(",;")  # also a whole line of a .env file
    text, hint = unquoted(text), _WHERE_TO_FIND[service]
    _refuse_if(not text, "the endpoint is empty", "", hint)
    _refuse_if(_KEY.fullmatch(text), "the endpoint is a key, not an address", "", f"Pass it as api_key=. {hint}")
    had_scheme = "://" in text
    if not had_scheme:
        text = text.lstrip("/")
        host = text.partition("/")[0]
        text = f"{'http' if is_loopback(host.rpartition(':')[0] or host) else 'https'}://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        _refuse(f"the endpoint cannot be read: {error}", "", hint, error)
    shown, host = redact(text), parts.hostname or ""
    scheme, sample = parts.scheme.lower(), "<" in text or _PLACEHOLDER.search(host or parts.netloc)
    _refuse_if(scheme not in _SCHEMES, f"the scheme {scheme!r} is not one of {', '.join(_SCHEMES)}", shown, hint)
    has_name = parts.username is not None
    _refuse_if(has_name, "there is a name or password in the address", shown, "Pass keys as api_key= or headers=.")
    _refuse_if(sample, f"the endpoint is still the placeholder of a sample: {shown}", shown, hint)
    no_host = not host or re.search(r"[\s,]", parts.netloc)
    _refuse_if(no_host, f"there is no host in the endpoint {shown!r}", shown, hint)
    if not (had_scheme or port or "." in host or is_loopback(host)):
        form = f"https://{host}.openai.azure.com" if service == "azure" else f"ws://{host}:8765"
        _refuse(f"the endpoint {host!r} is a name, not an address: write {form}", shown, hint)
    return parts


def _check_host(parts: SplitResult, service: Service, dialect: Dialect) -> None:
    host, here, find = parts.hostname or "", _bare(parts), _WHERE_TO_FIND
    openai, azure = host.endswith("api.openai.com"), is_azure_host(host)
    regional, portal = host.endswith(_REGIONAL), f".{host}".endswith(_PORTALS) and ".services." not in f".{host}"
    voice_live = "/voice-live/" in f"{parts.path}/"
    gone = dialect == "preview" and (service == "openai" or openai)
    _refuse_if(regional, "this is the WebRTC address of a region: give region=", here, find["azure"])
    _refuse_if(portal, f"{host} is a web page for people, not the service", here, find[service])
    _refuse_if(voice_live, "this is Azure Voice Live, another protocol", here, "Deploy a realtime model.")
    _refuse_if(service == "azure" and openai, "this is OpenAI's address, not Azure's", here, "Use rtnb.OpenAI(model).")
    _refuse_if(service == "openai" and azure, "this is Azure's address, not OpenAI's", here, "Use rtnb.Azure(...).")
    _refuse_if(gone, "OpenAI switched the preview off on 2026-05-12 (it closes with 4000)", here, _WITHOUT_PREVIEW)


def _one_model(given: str | None, in_address: str | None, here: str) -> str | None:
    model = unquoted(given or "")
    odd, hint = re.search(r"[\s/<>?&#]", model), "Give the name alone: letters, - . and _."
    _refuse_if(odd, f"{redact(model)!r} is no name of a deployment or model", here, hint)
    two = f"two deployments or models: {in_address!r} in the address and {model!r} as an argument"
    _refuse_if(model and in_address and model != in_address, two, here, "Leave one out.")
    return model or in_address or None


def _origin(parts: SplitResult, *, secure: bool = False) -> str:
    """Return ``http(s)://host[:port]``; `secure` makes it https wherever the host is not this machine."""
    host, port = parts.hostname or "", parts.port
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme.lower(), parts.scheme.lower())
    if secure and scheme == "http" and not is_loopback(host):
        scheme, port = "https", None if port == 80 else port
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + (f":{port}" if port not in (None, {"http": 80, "https": 443}[scheme]) else "")


def _bare(parts: SplitResult) -> str:
    return redact(f"{_origin(parts)}{parts.path}")


def _with_query(url: str, added: dict[str, str | None], given: str = "") -> str:
    """Add a query: the given one as it is, but for names that are added anew."""
    values = {name: value for name, value in added.items() if value is not None}
    kept = [part for part in given.split("&") if part and unquote(part.partition("=")[0]) not in values]
    text = "&".join([*kept, *([urlencode(values, quote_via=quote)] if values else [])])
    return f"{url}?{text}" if text else url


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


def _refuse(message: str, url: str, hint: str, cause: Exception | None = None) -> NoReturn:
    raise ConnectError(message, url=url).with_hint(f"Next: {hint}") from cause


def _refuse_if(wrong: object, message: str, url: str, hint: str) -> None:
    if wrong:
        _refuse(message, url, hint)
