"""Who we are: keys and tokens that never show themselves, and the headers made from them.

A secret is read with `Secret.reveal` and nowhere else; `repr`, `str`, `format`, `vars`, `pickle` and `json` cannot
show it. Text from a service goes through `redact` before anybody sees it: a refused key is often echoed in part.
"""

from __future__ import annotations

import asyncio
import hmac
import inspect
import re
from collections.abc import Iterable
from typing import Any, NoReturn, Protocol

from rtnb.errors import AuthenticationError
from rtnb.transport.base import Auth

MASK = "****"
"""What is shown instead of a secret; says nothing of its length or first letters."""

ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"
"""Default scope of Entra tokens (Microsoft's SDK samples, 2026-11)."""

OTHER_ENTRA_SCOPE = "https://ai.azure.com/.default"
"""The second documented scope (Microsoft's WebRTC how-to and troubleshooting pages, 2026-09)."""

_QUOTES = "\"'`\u201c\u201d\u2018\u2019"
_SPACES = " \t\r\n\u00a0\u200b\ufeff"


def unquoted(text: str) -> str:
    """Take off what pasting leaves around a value: white space and quotes."""
    return text.strip(_QUOTES + _SPACES)


class Secret:
    """A value that shows itself only through `reveal`.

    Parameters
    ----------
    value : str or Secret
        The secret; white space and quotes around it (a usual accident of pasting) are taken off.
    what : str, default "key"
        What it is, for the message when it cannot be one.

    Raises
    ------
    AuthenticationError
        Empty, a placeholder from a sample, or with characters no HTTP header can carry.

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
        refusal = _why_not_a_secret(text)
        if refusal:
            error = AuthenticationError(f"the {what} {refusal}")
            raise error.with_hint(f"Paste the {what} itself: one word, as the service shows it.")
        self.__value = text

    def reveal(self) -> str:
        """Return the secret itself; never print or store what this returns."""
        return self.__value

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode(), other.__value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret is not pickled: read it from the environment where it is needed")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret does not hand out its state: use reveal()")


def _why_not_a_secret(text: str) -> str | None:
    if not text:
        return "is empty"
    if text[0] == "<" or re.match(r"(?i)[\[{(]?(your|paste|insert|replace)\b|your[-_ ]|x{4,}$|\.{3}$|…$", text):
        return "is still the placeholder of a sample"
    if not text.isascii() or not text.isprintable() or " " in text:
        return "has characters no key has (a space, a line break, a letter beyond ASCII)"
    if text.strip("*•") == "":
        return "is a row of stars: it was copied from a place that hides it"
    return None


class Headers(dict[str, str]):
    """HTTP headers whose `repr` hides the values, so that no traceback with local variables shows a key."""

    def __repr__(self) -> str:
        return f"Headers({', '.join(f'{name}: {MASK}' for name in self)})"

    __str__ = __repr__


class Credential(Protocol):
    """Something that can say who we are."""

    @property
    def auth(self) -> Auth:
        """How; the word `TargetFacts.auth` carries."""

    async def headers(self) -> Headers:
        """Make fresh headers; called once per connect."""


class NoCredential:
    """Nobody: for a simulator or a local server without keys."""

    auth: Auth = "none"

    async def headers(self) -> Headers:
        """Return no headers."""
        return Headers()

    def __repr__(self) -> str:
        return "NoCredential()"


class ApiKey:
    """An Azure resource key, sent as ``api-key`` (never beside a token: Azure answers 401 to both)."""

    auth: Auth = "api-key"

    def __init__(self, key: str | Secret) -> None:
        self._key = Secret(key)

    async def headers(self) -> Headers:
        """Return ``api-key``."""
        return Headers({"api-key": self._key.reveal()})

    def __repr__(self) -> str:
        return f"ApiKey({MASK})"


class BearerToken:
    """A key or token sent as ``Authorization: Bearer``: OpenAI keys, ephemeral keys, keys of compatible servers."""

    def __init__(self, token: str | Secret, *, ephemeral: bool = False) -> None:
        self._token = Secret(token, what="token")
        self.auth: Auth = "ephemeral" if ephemeral else "bearer"

    async def headers(self) -> Headers:
        """Return ``Authorization: Bearer``."""
        return bearer(self._token.reveal())

    def __repr__(self) -> str:
        return f"BearerToken({MASK})"


def bearer(token: str) -> Headers:
    """Return the ``Authorization: Bearer`` header of a token."""
    return Headers({"Authorization": f"Bearer {token}"})


class Entra:
    """Keyless sign-in to Azure: a fresh Entra token at each connect.

    Parameters
    ----------
    credential : optional
        What gives tokens: a credential of azure-identity (async or not), or a callable that returns a token
        (`azure.identity.get_bearer_token_provider`). None makes an `azure.identity.aio.DefaultAzureCredential` for
        each token and closes it; one given by the caller is the caller's to close.
    scope : str, default ``https://cognitiveservices.azure.com/.default``
        What the token is for; ``https://ai.azure.com/.default`` is the other documented one.
    """

    auth: Auth = "entra"

    def __init__(self, credential: Any = None, *, scope: str = ENTRA_SCOPE) -> None:
        self._credential = credential
        self.scope = scope

    async def headers(self) -> Headers:
        """Return ``Authorization: Bearer`` with a token fetched now (they live about an hour)."""
        failure: AuthenticationError
        try:
            token = await self._token()
        except Exception as error:  # credentials raise what they like; the words are the same for all
            cause = error
            failure = _no_token(error, scope=self.scope)
        else:
            return bearer(token.reveal())
        raise failure from safe_cause(cause)

    async def _token(self) -> Secret:
        if self._credential is not None:
            return await _ask(self._credential, self.scope)
        from azure.identity.aio import DefaultAzureCredential  # half a second to import: only for who needs it

        async with DefaultAzureCredential() as credential:
            return await _ask(credential, self.scope)

    def __repr__(self) -> str:
        return f"Entra(scope={self.scope!r})"


def credential_for(key: Any, credential: Any = None, *, azure: bool = False, scope: str = ENTRA_SCOPE) -> Credential:
    """Choose how to say who we are.

    Parameters
    ----------
    key : str, Secret, EphemeralKey or None
        An ephemeral key is recognised by its type or its ``ek_`` and sent as a bearer token everywhere.
    credential : optional
        For Entra, or an `azure.core.credentials.AzureKeyCredential`; Azure only. It wins over `key`.
    azure : bool, default False
        Whether keys go into ``api-key``, and Entra is used where there is no key.
    scope : str
        Of Entra tokens.
    """
    if azure and credential is not None:
        named = getattr(credential, "key", None)
        return ApiKey(named) if isinstance(named, str) else Entra(credential, scope=scope)
    if key is None:
        return Entra(scope=scope) if azure else NoCredential()
    secret = key if isinstance(key, Secret | str) else key.reveal()
    text = Secret(secret)
    ephemeral = secret is not key or text.reveal().startswith("ek_")
    return ApiKey(text) if azure and not ephemeral else BearerToken(text, ephemeral=ephemeral)


async def _ask(credential: Any, scope: str) -> Secret:
    ask = getattr(credential, "get_token", None)
    arguments = (scope,) if ask is not None else ()
    ask = ask or credential
    if inspect.iscoroutinefunction(ask):
        answer = await ask(*arguments)
    else:
        answer = await asyncio.to_thread(ask, *arguments)  # a blocking credential (`az login`) must not stop the loop
        if inspect.isawaitable(answer):
            answer = await answer
    return Secret(getattr(answer, "token", answer), what="Entra token")


def _no_token(error: Exception, *, scope: str) -> AuthenticationError:
    if isinstance(error, ModuleNotFoundError):
        missing = AuthenticationError(f"keyless sign-in needs a package that is not installed: {error.name}")
        missing.add_note("Next: `pip install azure-identity aiohttp`, or pass api_key=.")
        return missing
    first_line = next(iter(redact(str(error)).strip().splitlines()), "") or type(error).__name__
    failure = AuthenticationError(f"no Entra token for {scope}: {first_line}")
    failure.add_note(
        "Next: sign in with `az login` (the right tenant: `az login --tenant ...`) in the environment that runs the "
        "kernel, or pass credential=, or use a key: api_key=."
    )
    return failure


# --- redaction ------------------------------------------------------------------------------------------------------

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?i)(openai-insecure-api-key\.)[^\s,;\"']+", rf"\1{MASK}"),  # browsers put the key in a subprotocol
        (r"(?i)\b(?:sk|ek)[-_][\w*\-]{3,}", MASK),  # OpenAI and ephemeral keys, also starred in the middle
        (r"\beyJ[\w\-]{5,}(?:\.[\w\-]*){0,2}", MASK),  # JSON Web Tokens
        (r"(?i)\b(bearer)\s+(?=\S*\d)[\w.~+/\-]{6,}=*", rf"\1 {MASK}"),  # "Bearer authentication" has no digit
        (r"(?i)(\bapi[-_ ]?key(?:\s+provided)?[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;]*[^\s\"'&,;.]", rf"\1{MASK}"),
        (r"(?i)([?&](?:token|access_token|sig|key|code)=)[^&\s\"']+", rf"\1{MASK}"),
        (r"(//)[^/@\s]+@", rf"\1{MASK}@"),  # user:password in an address
        (r"[\w\-]{2,}\*{3,}[\w\-]*", MASK),  # a key starred by the service keeps its ends
        (r"(?<![A-Za-z0-9_])[0-9a-fA-F]{32}(?![A-Za-z0-9])", MASK),  # Azure keys until 2024; not ids such as resp_...
        (r"(?<![A-Za-z0-9_])[A-Za-z0-9]{40,}", MASK),  # Azure keys since: 84 letters and digits
        (r"[A-Za-z0-9+/]{80,}={0,2}", MASK),  # and whatever else is that long in base64
    )
)

_LONG_SECRET = 16  # shorter ones are too like words to look for their pieces (chosen)
_PIECE = 6
_WORD = re.compile(rf"[\w\-+=~]{{{_PIECE},}}")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Take the secrets out of a text that came from elsewhere.

    Parameters
    ----------
    text : str
        The text, e.g. a service's error message.
    secrets : iterable of str, default ()
        Secrets known to be in play: they are taken out literally, and so are pieces of them of 6 letters and more
        (a refused key is echoed in part). What looks like a key is taken out always.

    Returns
    -------
    str
        The text with ``****`` in the place of secrets.

    Examples
    --------
    >>> redact("Incorrect API key provided: sk-proj-ab12********wxyz. Find yours in the portal.")
    'Incorrect API key provided: ****. Find yours in the portal.'
    """
    known = [one for one in secrets if one]
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    long = [one for one in known if len(one) >= _LONG_SECRET]
    if long:
        text = _WORD.sub(lambda word: _masked_piece(word[0], long), text)
    return text


def _masked_piece(word: str, secrets: Iterable[str]) -> str:
    piece = word.strip("-=")
    is_piece = len(piece) >= _PIECE and any(piece in secret for secret in secrets)
    return word.replace(piece, MASK) if is_piece else word


class _Hidden(tuple[str, ...]):
    """Known secrets, hidden from tracebacks that show local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"({len(self)} secrets)"


def secrets_in(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the secret values among HTTP headers: to be handed to `redact`."""
    found: list[str] = []
    for name, value in headers:
        lowered = name.lower()
        if any(part in lowered for part in ("key", "auth", "cookie", "token", "secret")):
            found += [one for one in value.split() if one.lower() not in ("bearer", "basic")]
        elif lowered == "sec-websocket-protocol":
            found += [one.rpartition("openai-insecure-api-key.")[2] for one in value.split(", ") if "api-key." in one]
    return _Hidden(found)


def safe_cause(error: BaseException, secrets: Iterable[str] = ()) -> BaseException | None:
    """Prepare `error` for ``raise ... from``: without the frames of libraries, whose local variables hold headers.

    Returns None where the text of the error, or of one behind it, holds a secret.
    """
    secrets = tuple(secrets)
    behind: BaseException | None = error
    while behind is not None:
        text = f"{behind} {behind.args!r}"
        if redact(text, secrets) != text:
            return None
        behind.__traceback__ = None
        behind = behind.__cause__ or behind.__context__
    return error
