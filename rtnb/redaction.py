"""Removal of secrets from what is shown or written: known values, key shapes, and the places of credentials.

Nothing between the wire and the code is changed (law 7): reprs, tables, files, logs and exceptions pass through here.
"""

from __future__ import annotations

import re
import string
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, Self

MASK: Final = "****"
"""Text shown instead of a secret; it tells neither length nor first letters."""

SHORTEST_SECRET: Final = 8
"""Shorter values are not searched for in texts: they are words as well, such as "test" (chosen)."""

REMEMBERED: Final = 32
"""Secrets in use that are searched for in each text, the newest (chosen: keys of the connections of one kernel)."""


class Hidden:
    """Base of values with secrets: shown by their `repr` only, not pickled, and copied by reference."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any = None) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret and is not pickled: make it where it is needed")

    __reduce__ = __reduce_ex__  # for callers without a protocol

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __format__(self, spec: str) -> str:
        return repr(self)


_known: dict[str, None] = {}  # in the order of their use


def remember(secrets: Iterable[str]) -> None:
    """Search for these secrets in every text that is redacted from now on; short ones are left out."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            _known.pop(secret, None)
            _known[secret] = None
    for oldest in list(_known)[:-REMEMBERED]:
        del _known[oldest]


def mask_known(text: str) -> str:
    """Mask the remembered secrets in a text, and nothing else: ids and schemas stay."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


_NAMES: Final = re.compile(r"client_secret|(x-)?api[-_]?key", re.IGNORECASE)


def mask_credentials(data: Any) -> Any:
    """Return JSON-like data with ``****`` in place of each credential; the same object where it holds none.

    Only places where the protocol keeps credentials are masked: `authorization` and the values of `headers` in an MCP
    tool (an object of type ``mcp`` or with a `server_label`), `client_secret` or its `value`, and texts under the name
    of a key, such as `api-key`.

    Examples
    --------
    >>> mask_credentials({"type": "mcp", "authorization": "abc", "headers": {"X-Key": "def"}})
    {'type': 'mcp', 'authorization': '****', 'headers': {'X-Key': '****'}}
    """
    if isinstance(data, Mapping):
        mcp = data.get("type") == "mcp" or "server_label" in data
        shown: Any = {}
        for name, value in data.items():
            named = isinstance(value, str) and _NAMES.fullmatch(str(name))
            if value and (named or (mcp and name == "authorization")):
                shown[name] = MASK
            elif name == "client_secret" and isinstance(value, Mapping) and "value" in value:
                shown[name] = {**value, "value": MASK}
            elif mcp and name == "headers" and isinstance(value, Mapping) and value:
                shown[name] = dict.fromkeys(value, MASK)
            elif mcp and name == "server_url" and isinstance(value, str) and (clean := redact(value)) != value:
                shown[name] = clean
            else:
                shown[name] = mask_credentials(value)
        return data if all(shown[name] is value for name, value in data.items()) else shown
    if isinstance(data, list | tuple):
        shown = type(data)(mask_credentials(value) for value in data)
        return data if all(new is old for new, old in zip(shown, data, strict=True)) else shown
    return data


_SHAPES: Mapping[str, re.Pattern[str]] = {
    # Browsers put the key in a subprotocol.
    "openai-insecure-api-key.": re.compile(r"(o(?i:penai-insecure-api-key\.))[^\s,;\"']+"),
    # OpenAI and ephemeral keys, also with stars in the middle; "risk-free" and "week_2" are words.
    "k-": re.compile(r"[SsEe][Kk]-(?<!\w[SsEe][Kk]-)[\w*\-]{3,}"),
    "k_": re.compile(r"[SsEe][Kk]_(?<!\w[SsEe][Kk]_)[\w*\-]{3,}"),
    # JSON Web Tokens.
    "eyj": re.compile(r"eyJ(?<!\weyJ)[\w*\-]{5,}(?:\.[\w*\-]*){0,2}"),
    # Authorization headers, and "Bearer x1...": "bearer authentication" has no digit.
    "authorization": re.compile(r"([Aa](?i:uthorization)[\"']?\s*[:=]\s*[\"']?(?i:bearer|basic)\s+)[^\s\"',;]+"),
    "bearer": re.compile(r"([Bb](?i:earer)\s+)(?=\S*\d)[\w.~+/*\-]{6,}=*"),
    "key": re.compile(r"([Aa](?i:pi[-_ ]?key(?:\s+provided)?)[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;]*[^\s\"'&,;.]"),
    # Credentials in the query of an address, and user:password@ before its host.
    "=": re.compile(r"([?&](?i:token|access_token|sig|key|code)=)[^&\s\"']+"),
    "@": re.compile(r"(//)[^/@\s]+(?=@)"),
}
"""Shapes of keys: a lower-case text that all of them contain, and the pattern. Its group, if any, is kept.

A pattern opens with a letter that always matches itself, because `re` then skips other characters fast; conditions on
the character before it follow as a lookbehind. The search for the text is faster still and mostly decides.
"""

_RUN = re.compile(rb"x*")
_IN_ID = re.compile(r"\b[a-z]{2,}_[A-Za-z0-9]*$")  # such as item_
_WORD = string.ascii_letters + string.digits + "_-"


def _alphabet(signs: str) -> bytes:
    """Return a table for `bytes.translate`: letters, digits and `signs` become ``x``, others a space, "_" stays."""
    kept = (string.ascii_letters + string.digits + signs).encode()
    return bytes(ord("x") if code in kept else code if code == ord("_") else ord(" ") for code in range(256))


def _is_base64(run: str) -> bool:
    # Base64 has 1 sign in 32 characters, paths and joined words more than 1 in 10; ids such as msg_... have one.
    return sum(map(run.count, "+/-_")) * 10 < len(run) and not re.fullmatch(r"[a-z]+_[A-Za-z0-9]+", run)


def _is_key(run: str) -> bool:
    # 32 hex digits: Azure keys until 2024; 84 letters and digits: since then.
    return len(run) >= 40 or (len(run) == 32 and not run.strip(string.hexdigits))


_RUNS = ((_alphabet("+/-_"), 80, _is_base64), (_alphabet(""), 32, _is_key))
"""Runs of characters that may be keys: their alphabet, shortest length, and the test that decides."""


def redact(text: str) -> str:
    """Mask the secrets in a text that came from elsewhere: the remembered ones, and what is shaped like a key.

    Pieces of 8 or more characters of long secrets are masked, too: services echo a refused key in part. The time is
    linear in the length of the text: about 10 ms for 1 MB.

    Parameters
    ----------
    text : str
        The text, e.g. a service's error message.

    Returns
    -------
    str
        The text with ``****`` in the place of secrets.

    Examples
    --------
    >>> redact("Incorrect API key provided: sk-proj-ab12********wxyz. Find yours in the portal.")
    'Incorrect API key provided: ****. Find yours in the portal.'
    """
    text = mask_known(text)
    for alphabet, shortest, is_key in _RUNS:
        text = _cut(text, _runs(text, alphabet, shortest, is_key))
    lowered = text.lower()
    for trigger, pattern in _SHAPES.items():
        if trigger in lowered:
            text = pattern.sub(rf"\1{MASK}" if pattern.groups else MASK, text)
    if "***" in text:
        text = _cut(text, _starred(text))
    return _cut(text, _pieces(text, [secret for secret in _known if len(secret) >= 2 * SHORTEST_SECRET]))


def _cut(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Replace each span by the mask; spans that overlap become one."""
    parts: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start > done or not parts:
            parts += text[done:start], MASK
        done = max(done, end)
    return "".join([*parts, text[done:]])


def _starred(text: str) -> Iterator[tuple[int, int]]:
    """Find keys with stars in the middle, as services echo them: their ends are part of the key."""
    for stars in re.finditer(r"\*{3,}[\w\-]*", text):
        head = text[max(0, stars.start() - 100) : stars.start()]
        length = len(head) - len(head.rstrip(_WORD))
        if length >= 2:
            yield stars.start() - length, stars.end()


def _runs(text: str, alphabet: bytes, shortest: int, is_key: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """Find the keys among the runs of characters of an alphabet, of a length of at least `shortest`.

    Searching for a space and ``x`` times `shortest` in the translated text takes about 0.5 ns per character; a pattern
    such as ``[A-Za-z0-9]{32,}`` tries each position of each word. The space excludes ids: resp_68af... has a "_".
    """
    shape = b" " + _plain(text).translate(alphabet) + b" "  # position n + 1 is the character n of the text
    end = 0
    while (start := shape.find(b" " + b"x" * shortest, end)) >= 0:
        end = _RUN.match(shape, start + 1).end()  # type: ignore[union-attr]  # it always matches
        if is_key(text[start : end - 1]):
            yield start, end - 1


def _pieces(text: str, secrets: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Find parts of secrets, of `SHORTEST_SECRET` characters.

    Example: "xx3456789012" holds the piece "34567890" of a secret at 2. Each 8 characters in a row hold a whole block
    of 4 that begins at 0, 4, 8 …, here "5678" at 4. So one fast pass compares these blocks, as integers, with every 4
    characters of the secrets; the windows of 8 characters are compared only around a block that is found.
    """
    size, plain = SHORTEST_SECRET, _plain(text)
    windows = {secret[at : at + size] for secret in secrets for at in range(len(secret) - size + 1)}
    quads = {window[at : at + 4] for window in windows for at in range(size - 3)}
    wanted = frozenset(memoryview(_plain("".join(quads))).cast("I"))
    found = wanted.intersection(memoryview(plain[: len(plain) // 4 * 4]).cast("I")) if wanted else ()
    for quad in (number.to_bytes(4, sys.byteorder) for number in found):
        at = -1
        while (at := plain.find(quad, at + 1)) >= 0:
            for start in range(max(0, at - 4), at + 1):
                if text[start : start + size] in windows and not _IN_ID.search(text[max(0, start - 64) : start]):
                    yield start, start + size


def _plain(text: str) -> bytes:
    return text.encode("ascii", "replace")  # one byte for each character, so that positions stay the same
