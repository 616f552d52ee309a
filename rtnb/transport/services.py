"""Targets with a name: `Azure`, `OpenAI`, `Custom`. Each knows its address, its dialect and its way to sign in.

>>> Azure("https://res.openai.azure.com", deployment="my-voice", api_key="0123456789abcdef0123456789abcdef")
Azure('https://res.openai.azure.com', deployment='my-voice', dialect='ga', auth='api-key')
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from ssl import SSLContext
from typing import Any, Self
from urllib.parse import urlsplit

from rtnb.errors import AuthenticationError, ConnectError
from rtnb.redaction import redact
from rtnb.transport.base import Dialect, TargetFacts, Transport
from rtnb.transport.credentials import ENTRA_SCOPE, Credential, EphemeralKey, Headers, Secret, credential_for
from rtnb.transport.endpoint import OPENAI_BASE_URL, Endpoint, is_azure_host, read_endpoint
from rtnb.transport.http import ephemeral_body, mint

OPENAI_MODEL = "gpt-realtime-2.1"
"""Newest turn-based realtime model of OpenAI (2026-07)."""

AZURE_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "endpoint": ("AZURE_OPENAI_ENDPOINT",),
    "deployment": ("AZURE_OPENAI_DEPLOYMENT_NAME", "AZURE_OPENAI_DEPLOYMENT"),
    "api_key": ("AZURE_OPENAI_API_KEY",),
    "api_version": ("OPENAI_API_VERSION", "AZURE_OPENAI_API_VERSION"),
}
"""Variables that `Azure.from_env` reads: the names of Microsoft's quickstarts, then those of its older samples."""

_SIGNED_IN = {"none": "without a key", "ephemeral": "with an ephemeral key", "entra": "keyless (Entra)"}


@dataclass(frozen=True, repr=False)
class _Service:
    """Base of the three targets, which differ in their address and their way to sign in."""

    _: KW_ONLY
    dialect: Dialect = "ga"
    """Spelling of the protocol: ``ga``, or ``preview`` for the older one. Azure may switch the preview off any day;
    OpenAI did so on 2026-05-12."""
    api_key: str | Secret | EphemeralKey | None = None
    """Key, wrapped at once. Azure gets it as ``api-key``, other services as a bearer token; an ephemeral key is always
    a bearer token."""
    ssl: SSLContext | None = field(default=None, compare=False)
    """Trusted certificates, None for the system's."""
    _where: Endpoint = field(init=False, compare=False)
    _credential: Credential = field(init=False, compare=False)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    def _wrap_key(self, key: str | Secret | EphemeralKey | None) -> None:
        self._set(api_key=key if key is None or isinstance(key, EphemeralKey) else Secret(key))

    @property
    def facts(self) -> TargetFacts:
        """Facts that explain failures, without secrets."""
        where, credential = self._where, self._credential
        url, scope = redact(where.websocket()), getattr(credential, "scope", None)
        return TargetFacts(where.service, where.dialect, url, where.model, credential.auth, scope)

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> Transport:
        """Open a WebSocket, with fresh headers.

        Parameters
        ----------
        intent : str, optional
            ``"transcription"`` for a session that only transcribes.
        call_id : str, optional
            ``rtc_…``: watch a WebRTC call (GA only).

        Raises
        ------
        ConnectError
            With the reason and the next step; `AuthenticationError` when the key, token or role was refused.
        RateLimited
            HTTP 429.
        """
        from rtnb.transport.websocket import open_websocket  # loads the websockets library

        url = self._where.websocket(intent=intent, call_id=call_id)
        facts = replace(self.facts, url=redact(url))
        return await open_websocket(url, headers=await self._headers(), ssl=self.ssl, facts=facts)

    async def ephemeral_key(
        self, *, session: Mapping[str, Any] | None = None, expires_after_s: int | None = None, intent: str | None = None
    ) -> EphemeralKey:
        """Get a short-lived key for a browser.

        Parameters
        ----------
        session : mapping, optional
            Initial settings of the session, as wire JSON in this target's dialect.
        expires_after_s : int, optional
            10 to 7200; None leaves it to the service (60 s preview, 600 s GA).
        intent : str, optional
            ``"transcription"`` for a session that only transcribes; default: the ``type`` in `session`.
        """
        where, kind = self._where, {"type": intent} if intent else {}
        session = {**(session or {}), **kind}
        body = ephemeral_body(where.dialect, session, model=where.model, expires_after_s=expires_after_s)
        url = where.ephemeral_keys(intent=session.get("type"))
        return await mint(url, headers=await self._headers(), body=body, facts=self.facts, ssl=self.ssl)

    def calls_url(self, *, webrtc_filter: bool = False, seen_region: str | None = None) -> str:
        """Return the address a browser posts its WebRTC offer to, with an ephemeral key.

        Parameters
        ----------
        webrtc_filter : bool, default False
            Azure GA: hide most server events from the browser, also `error` and `response.done`.
        seen_region : str, optional
            Region that the service named (`EphemeralKey.region`): the preview's address depends on it.

        Raises
        ------
        ConnectError
            The preview's region is not known, not served, or not the resource's.
        """
        region = getattr(self, "region", None)
        return self._where.calls(region=region, seen_region=seen_region, webrtc_filter=webrtc_filter)

    async def _headers(self) -> Headers:
        try:
            return await self._credential.headers()
        except AuthenticationError as error:
            error.url = self._where.origin
            raise

    def __str__(self) -> str:
        """Return one line without secrets: place, model, dialect, way to sign in."""
        model = f", {self.facts.noun} {self._where.model}" if self._where.model else ""
        signed_in = _SIGNED_IN.get(self._credential.auth, "with an API key")
        return f"{type(self).__name__} {self._where.origin}{model}, dialect {self._where.dialect}, {signed_in}"


@dataclass(frozen=True, repr=False)
class Azure(_Service):
    """Deployment of a realtime model in Azure OpenAI (Azure AI Foundry).

    Without a key it signs in with Entra (`DefaultAzureCredential`), which is what Microsoft recommends.

    Examples
    --------
    >>> print(Azure("https://name.openai.azure.com", deployment="my-voice", api_key="secret").endpoint)
    https://name.openai.azure.com
    """

    endpoint: str
    """As pasted: ``https://NAME.openai.azure.com``, with or without path; becomes the resource's address."""
    _: KW_ONLY
    deployment: str | None = None
    """Name of the deployment, not of its model; may also be part of `endpoint`."""
    api_version: str | None = None
    """Preview only; default ``2025-04-01-preview``. GA takes none and refuses one."""
    credential: Any = field(default=None, compare=False)
    """Entra credential or token provider; wins over `api_key`, and ``str(target)`` shows that."""
    scope: str = ENTRA_SCOPE
    """Scope of Entra tokens; ``https://ai.azure.com/.default`` is the other documented one."""
    region: str | None = None
    """Region of the resource, needed only for WebRTC in the preview: ``eastus2`` or ``swedencentral``."""

    def __post_init__(self) -> None:
        self._wrap_key(self.api_key)
        where = read_endpoint("azure", self.endpoint, self.dialect, self.deployment, api_version=self.api_version)
        self._set(_where=where, deployment=where.model, api_version=where.api_version)
        self._set(endpoint=where.origin + where.base.removesuffix("/openai"))
        self._set(_credential=credential_for(self.api_key, self.credential, azure=True, scope=self.scope))

    @classmethod
    def from_env(
        cls, env: Mapping[str, str] | None = None, *, dotenv_path: str | Path | None = None, **overrides: Any
    ) -> Self:
        """Read the usual variables: `AZURE_OPENAI_ENDPOINT`, `AZURE_OPENAI_DEPLOYMENT_NAME`, `AZURE_OPENAI_API_KEY`.

        `OPENAI_API_VERSION` belongs to the preview and to other APIs: it is used with ``dialect="preview"`` and
        ignored otherwise; it never chooses the dialect. A key in the environment is used unless ``credential=`` or
        ``api_key=None`` (keyless) is given.

        Parameters
        ----------
        env : mapping, optional
            Used instead of the process's environment; then no .env file is searched for.
        dotenv_path : path, optional
            A .env file; without one the nearest ``.env`` upwards from the working directory is read. The environment
            wins over the file, and is not changed.
        **overrides
            Any field of `Azure`; wins over both.

        Raises
        ------
        ConnectError
            Some variables are missing; the message names all of them.
        """
        found = variables(env, dotenv_path)
        values: dict[str, Any] = {}
        for name, names in AZURE_VARIABLES.items():
            values[name] = next(filter(None, map(found.get, names)), None)
        if overrides.get("dialect") != "preview":
            values.pop("api_version")
        if overrides.get("credential") is not None:
            values.pop("api_key")  # a stray key is the usual reason for 401 with keyless sign-in
        values |= overrides
        endpoint = values.pop("endpoint") or ""
        named = values["deployment"] or any(part in endpoint for part in ("model=", "deployment=", "/deployments/"))
        needed = {"AZURE_OPENAI_ENDPOINT": endpoint, "AZURE_OPENAI_DEPLOYMENT_NAME": named}
        if missing := [name for name, value in needed.items() if not value]:
            hint = "Next: set them in the environment or in a .env file next to the notebook."
            raise ConnectError(f"not set: {', '.join(missing)}").with_hint(hint)
        return cls(endpoint, **values)

    @property
    def model(self) -> str | None:
        """Name of the deployment."""
        return self.deployment

    def __str__(self) -> str:
        both = self.api_key is not None and self.credential is not None
        return super().__str__() + (" through credential=; api_key= is not used" if both else "")

    def __repr__(self) -> str:
        shown = f"deployment={self.deployment!r}, dialect={self.dialect!r}, auth={self._credential.auth!r}"
        return f"Azure({self.endpoint!r}, {shown})"


@dataclass(frozen=True, repr=False)
class OpenAI(_Service):
    """Realtime model at OpenAI. There is only the GA dialect.

    Examples
    --------
    >>> OpenAI("gpt-realtime", api_key="secret").model
    'gpt-realtime'
    """

    model: str = OPENAI_MODEL
    """Name of the model."""
    _: KW_ONLY
    api_key: str | Secret | EphemeralKey | None = None
    """Key, default: the variable `OPENAI_API_KEY` as it is now; wrapped at once."""
    base_url: str = OPENAI_BASE_URL
    """Address beneath which ``/realtime`` lives."""

    def __post_init__(self) -> None:
        self._wrap_key(self.api_key if self.api_key is not None else os.environ.get("OPENAI_API_KEY") or None)
        where = read_endpoint("openai", self.base_url, self.dialect, self.model)
        self._set(_where=where, _credential=credential_for(self.api_key))
        self._set(base_url=where.origin + where.base, model=where.model)

    async def _headers(self) -> Headers:
        if self.api_key is None:
            error = AuthenticationError("no OpenAI key", url=self._where.websocket())
            raise error.with_hint("Next: set OPENAI_API_KEY, or pass api_key=.")
        return await super()._headers()

    def __repr__(self) -> str:
        base = "" if self.base_url == OPENAI_BASE_URL else f", base_url={self.base_url!r}"
        return f"OpenAI({self.model!r}{base}, auth={self._credential.auth!r})"


@dataclass(frozen=True, repr=False)
class Custom(_Service):
    """Other server that speaks the protocol: a simulator in another process, a compatible server, a gateway.

    Examples
    --------
    >>> Custom("ws://localhost:8765").url
    'ws://localhost:8765'
    """

    url: str
    """``ws://localhost:8765``; beneath a bare host ``/v1/realtime`` is used (preview: ``/openai/realtime``). The path
    of an address that ends in ``/realtime`` is used as it is, and every query is kept."""
    _: KW_ONLY
    model: str | None = None
    """Model to ask for, None where the server chooses."""
    headers: Mapping[str, str] | None = field(default=None, hash=False)
    """More headers, e.g. a gateway's own key; never shown."""

    def __post_init__(self) -> None:
        self._wrap_key(self.api_key)
        where = read_endpoint("custom", self.url, self.dialect, self.model)
        azure = self.api_key is not None and is_azure_host(urlsplit(where.origin).hostname or "")
        self._set(_where=where, _credential=credential_for(self.api_key, azure=azure))
        self._set(headers=Headers(self.headers or {}), model=where.model)

    async def _headers(self) -> Headers:
        headers = await super()._headers()
        if self.dialect == "preview" and not self._where.azure_style:
            headers["OpenAI-Beta"] = "realtime=v1"  # OpenAI's preview needed it; compatible servers copied that
        return Headers({**headers, **(self.headers or {})})

    def __repr__(self) -> str:
        return f"Custom({self.facts.url!r}, dialect={self.dialect!r}, auth={self._credential.auth!r})"


def variables(env: Mapping[str, str] | None = None, dotenv_path: str | Path | None = None) -> Mapping[str, str | None]:
    """Return the environment over the .env file; os.environ is read, never written."""
    if env is not None and dotenv_path is None:
        return dict(env)
    from dotenv import dotenv_values, find_dotenv

    if dotenv_path is not None and not Path(dotenv_path).is_file():
        hint = "Next: give dotenv_path= the path of your .env file, or leave it out."
        raise ConnectError(f"there is no file {dotenv_path}").with_hint(hint)
    path = dotenv_path or find_dotenv(usecwd=True)
    real = os.environ if env is None else env
    return {**(dotenv_values(path) if path else {}), **{name: value for name, value in real.items() if value}}
