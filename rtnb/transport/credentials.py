"""Keys and tokens: how they sign in, how they stay hidden, and how text is cleared of them.

`Secret.reveal` is the only way to read a secret; `repr`, `str`, `format`, `vars`, `pickle` and `json` cannot show it.
Text from a service goes through `redact` before it is shown: services echo a refused key in part.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, NoReturn, TypeVar

from rtnb._loop import call_any
from rtnb.errors import AuthenticationError, RtnbError
from rtnb.redaction import MASK, Hidden, redact, remember

Auth = Literal["none", "api-key", "entra", "bearer", "ephemeral"]
"""Way to sign in; the explanation of HTTP 401 depends on it."""

ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"
"""Default scope of Entra tokens (Microsoft's SDK samples, 2026-11)."""

OTHER_ENTRA_SCOPE = "https://ai.azure.com/.default"
"""Second documented scope (Microsoft's WebRTC how-to and troubleshooting pages, 2026-09)."""

_QUOTES = "\"'`\u201c\u201d\u2018\u2019"
_SPACES = " \t\r\n\u00a0\u200b\ufeff"

FailureT = TypeVar("FailureT", bound=RtnbError)


def unquoted(text: str) -> str:
    """Remove the white space and quotes that pasting leaves around a value."""
    return text.strip(_QUOTES + _SPACES)


class Secret(Hidden):
    """Secret value that only `reveal` shows.

    Parameters
    ----------
    value : str or Secret
        The secret; white space and quotes around it (left by pasting) are removed.
    what : str, default "key"
        Name of the value in error messages.

    Raises
    ------
    AuthenticationError
        Empty, a placeholder from a sample, or with characters that no HTTP header can carry.

    Examples
    --------
    >>> key = Secret("0123456789abcdef")
    >>> print(f"{key} {key!r} {[key]}")
    **** **** [****]
    >>> key.reveal()
    '0123456789abcdef'
    """

    __slots__ = ("__value",)

    def __init__(self, value: str | Secret, *, what: str = "key") -> None:
        text = value.reveal() if isinstance(value, Secret) else unquoted(value)
        if reason := _why_not_a_secret(text):
            hint = f"Paste the {what} itself: one word, as the service shows it."
            raise AuthenticationError(f"the {what} {reason}").with_hint(hint)
        self.__value = text

    def reveal(self) -> str:
        """Return the secret itself; never print or store it."""
        return self.__value

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode(), other.__value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret does not show its state: use reveal()")


def _why_not_a_secret(text: str) -> str | None:
    if not text:
        return "is empty"
    if text[0] == "<" or re.match(r"(?i)[\[{(]?(your|paste|insert|replace)\b|your[-_ ]|x{4,}$|\.{3}$|…$", text):
        return "is still the placeholder of a sample"
    if not text.isascii() or not text.isprintable() or " " in text:
        return "has characters that no key has (a space, a line break, a letter beyond ASCII)"
    if text.strip("*•") == "":
        return "is a row of stars: it was copied from a place that hides it"
    return None


class Headers(Hidden, dict[str, str]):
    """HTTP headers whose `repr` hides the values, so that no traceback with local variables shows a key."""

    def __repr__(self) -> str:
        return f"Headers({', '.join(f'{name}: {MASK}' for name in self)})"

    __str__ = __repr__

    def copy(self) -> Headers:
        """Return a copy that hides its values, too."""
        return Headers(self)


@dataclass(slots=True, eq=False, repr=False)
class EphemeralKey(Hidden):
    """Short-lived key that a browser may hold; `repr` shows everything but its value."""

    value: str | Secret
    """Key, wrapped at once; `reveal` returns its text."""
    _: KW_ONLY
    expires_at: float
    """End, seconds since 1970."""
    dialect: Literal["ga", "preview"] = "ga"
    """Protocol it opens."""
    session: Mapping[str, Any] = field(default_factory=dict)
    """Session the service will open with it, as wire JSON in that dialect, without the key."""
    region: str | None = None
    """Region of the resource, from Azure's ``x-ms-region``; None without that header."""

    def __post_init__(self) -> None:
        self.value = Secret(self.value, what="ephemeral key")
        self.session = {name: part for name, part in self.session.items() if name not in ("client_secret", "value")}

    def reveal(self) -> str:
        """Return the key itself, for the page; never print or store it."""
        return Secret(self.value).reveal()

    def seconds_left(self, now: float | None = None) -> float:
        """Return the remaining seconds at `now` (seconds since 1970, default: the clock); 0.0 after the end."""
        return max(0.0, self.expires_at - (time.time() if now is None else now))

    @property
    def expired(self) -> bool:
        """True once it opens no session any more; an open session goes on."""
        return self.seconds_left() == 0.0

    def __repr__(self) -> str:
        left = f"expires in {self.seconds_left():.0f} s" if not self.expired else "expired"
        return f"EphemeralKey({MASK}, {left}, dialect={self.dialect})"


# --- ways to sign in ------------------------------------------------------------------------------------------------


class Key:
    """Credential that is one key, sent the way `auth` says; no key for a simulator or server that needs none.

    Azure takes ``api-key`` and answers 401 to a key and a token together. OpenAI, compatible servers and ephemeral
    keys take ``Authorization: Bearer``.
    """

    def __init__(self, key: str | Secret | None, auth: Auth = "bearer") -> None:
        self._key = None if key is None else Secret(key, what="key" if auth == "api-key" else "token")
        self.auth: Auth = auth if key is not None else "none"

    async def headers(self) -> Headers:
        """Return the header that signs in, or none."""
        if self._key is None:
            return Headers()
        value = self._key.reveal()
        return Headers({"api-key": value}) if self.auth == "api-key" else bearer(value)


def bearer(token: str) -> Headers:
    """Return the ``Authorization: Bearer`` header of a token."""
    return Headers({"Authorization": f"Bearer {token}"})


class Entra:
    """Keyless sign-in to Azure: a fresh Entra token for each connection.

    Parameters
    ----------
    credential : optional
        Source of tokens: a credential of azure-identity (async or not), or a callable that returns a token
        (`azure.identity.get_bearer_token_provider`). None makes an `azure.identity.aio.DefaultAzureCredential` for
        each token and closes it; the caller closes a credential that it gave.
    scope : str, default ``https://cognitiveservices.azure.com/.default``
        Scope of the token; ``https://ai.azure.com/.default`` is the other documented one.
    """

    auth: Auth = "entra"

    def __init__(self, credential: Any = None, *, scope: str = ENTRA_SCOPE) -> None:
        self._credential = credential
        self.scope = scope

    async def headers(self) -> Headers:
        """Return ``Authorization: Bearer`` with a token fetched now (tokens live about an hour)."""
        outcome = await self._token()
        if isinstance(outcome, AuthenticationError):
            raise outcome  # here, where no local variable holds the credential's own error
        return bearer(outcome.reveal())

    async def _token(self) -> Secret | AuthenticationError:
        try:
            if self._credential is not None:
                return await _ask(self._credential, self.scope)
            from azure.identity.aio import DefaultAzureCredential  # takes half a second: imported when needed

            async with DefaultAzureCredential() as credential:
                return await _ask(credential, self.scope)
        except Exception as error:  # credentials raise any type; the advice is the same for all
            return _no_token(error, scope=self.scope)

    def __repr__(self) -> str:
        return f"Entra(scope={self.scope!r})"


Credential = Key | Entra
"""Source of the HTTP headers that sign in; `headers` is called once for each connection."""


def credential_for(key: Any, credential: Any = None, *, azure: bool = False, scope: str = ENTRA_SCOPE) -> Credential:
    """Choose the credential.

    Parameters
    ----------
    key : str, Secret, EphemeralKey or None
        An ephemeral key is recognised by its type or its ``ek_`` and sent as a bearer token to every service.
    credential : optional
        For Entra, or an `azure.core.credentials.AzureKeyCredential`; Azure only. It wins over `key`.
    azure : bool, default False
        Send keys as ``api-key``, and use Entra without a key.
    scope : str
        Scope of Entra tokens.
    """
    if azure and credential is not None:
        named = getattr(credential, "key", None)
        return Key(named, "api-key") if isinstance(named, str) else Entra(credential, scope=scope)
    if key is None:
        return Entra(scope=scope) if azure else Key(None)
    text = key.reveal() if isinstance(key, EphemeralKey) else Secret(key).reveal()
    if isinstance(key, EphemeralKey) or text.startswith("ek_"):
        return Key(text, "ephemeral")
    return Key(text, "api-key" if azure else "bearer")


async def _ask(credential: Any, scope: str) -> Secret:
    ask = getattr(credential, "get_token", None)
    answer = await (call_any(credential) if ask is None else call_any(ask, scope))
    return Secret(getattr(answer, "token", answer), what="Entra token")


def _no_token(error: Exception, *, scope: str) -> AuthenticationError:
    if isinstance(error, ModuleNotFoundError):
        what = f"keyless sign-in needs a package that is not installed: {error.name}"
        hint = "`pip install azure-identity aiohttp`, or pass api_key=."
    else:
        first_line = next(iter(redact(str(error)).strip().splitlines()), "") or type(error).__name__
        what = f"no Entra token for {scope}: {first_line}"
        hint = "`az login` (with `--tenant ...`) in the environment that runs the kernel, or credential=, or api_key=."
    return caused_by(AuthenticationError(what).with_hint(f"Next: {hint}"), error)


# --- secrets of a request ---------------------------------------------------------------------------------------------


def remember_headers(headers: Mapping[str, str]) -> None:
    """Let `redact` search for the secret values of HTTP headers from now on."""
    for name, value in headers.items():
        lowered = name.lower()
        if any(part in lowered for part in ("key", "auth", "cookie", "token", "secret")):
            remember(one for one in value.split() if one.lower() not in ("bearer", "basic"))
        elif lowered == "sec-websocket-protocol":
            remember(one.rpartition("openai-insecure-api-key.")[2] for one in value.split(", ") if "api-key." in one)


def caused_by(failure: FailureT, error: BaseException) -> FailureT:
    """Make `error` the cause of `failure` unless it, or an error behind it, holds a secret; return `failure`.

    The frames of libraries are removed, because their local variables hold headers. The caller raises the result
    outside its ``except`` block. There no local variable, and no ``__context__``, holds the error of a library.
    """
    behind: BaseException | None = error
    while behind is not None:
        text = f"{behind} {behind.args!r}"
        if redact(text) != text:
            return failure
        behind.__traceback__ = None
        behind = behind.__cause__ or behind.__context__
    failure.__cause__ = error
    return failure
