"""Keys and tokens: how they sign in, how they stay hidden, and how a text is cleared of them."""

import base64
import copy
import json
import logging
import pickle
import random
import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import pytest
from azure.core.credentials import AccessToken
from hypothesis import given
from hypothesis import strategies as st

from rtnb import redaction
from rtnb.errors import AuthenticationError, ConnectError
from rtnb.transport import Entra, EphemeralKey, Headers, Secret
from rtnb.transport.credentials import ENTRA_SCOPE, Key, caused_by, remember_headers
from tests.transport.conftest import CANARY, web_server, with_locals

ENTRA_TOKEN = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJjYW5hcnkifQ.c2lnbmF0dXJl"


def redact(text: str, *secrets: str) -> str:
    """Redact a text while exactly these secrets are remembered."""
    with patch.dict(redaction._known, clear=True):
        redaction.remember(secrets)
        return redaction.redact(text)


HIDING = {
    "Secret": (Secret(CANARY), "****"),
    "Headers": (Headers({"api-key": CANARY}), "Headers(api-key: ****)"),
    "EphemeralKey": (EphemeralKey(CANARY, expires_at=1), "EphemeralKey(****, expired, dialect=ga)"),
}


@pytest.mark.parametrize("value, hidden", HIDING.values(), ids=HIDING)
def test_a_value_hides_its_secret_when_shown_copied_or_pickled(value: Any, hidden: str) -> None:
    shown = [repr(value), str(value), f"{value} {value!s:.5} {[value]}", "{}".format(value)]  # noqa: UP032
    shown += [
        repr(copy.copy(value)),
        repr(copy.deepcopy(value)),
        repr(Headers({"api-key": CANARY}).copy()),
        repr(getattr(value, "__dict__", "")),
    ]
    assert CANARY[:6] not in f"{shown} {json.dumps([str(value)])}"
    assert repr(value) == repr(copy.copy(value)) == repr(copy.deepcopy(value)) == hidden
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(value, protocol)


def test_a_secret_is_read_by_reveal_only() -> None:
    key = Secret(CANARY)
    assert key.reveal() == CANARY
    assert CANARY[:6] not in f"{key:>90}"
    for steal in (vars, json.dumps, lambda secret: secret.__getstate__()):
        with pytest.raises(TypeError):
            steal(key)
    assert copy.deepcopy(key) is copy.copy(key) is key
    assert key == Secret(f" '{CANARY}'\n")
    assert key != Secret("another-key")
    assert key != CANARY
    assert len({key, Secret(key)}) == 1


@pytest.mark.parametrize(
    "pasted, reason",
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("''", "is empty"),
        ("<your-api-key>", "placeholder"),
        ("YOUR_API_KEY", "placeholder"),
        ("your api key", "placeholder"),
        ("Paste your key here", "placeholder"),
        ("xxxxxxxx", "placeholder"),
        ("...", "placeholder"),
        ("abc def", "characters that no key has"),
        ("abc\r\nX-Evil: 1", "characters that no key has"),
        ("clé0123456789", "characters that no key has"),
        ("••••••••", "characters that no key has"),
        ("********", "row of stars"),
    ],
)
def test_a_text_that_cannot_be_a_key_is_refused_without_showing_it(pasted: str, reason: str) -> None:
    with pytest.raises(AuthenticationError, match=reason) as info:
        Key(pasted, "api-key")
    assert len(pasted) < 3 or pasted not in f"{info.value}{info.value.__notes__}"


class AsyncCredential:
    """Credential with the interface of azure-identity's async ones."""

    def __init__(self, token: str = ENTRA_TOKEN) -> None:
        self.token = token
        self.scopes: list[str] = []
        self.closed = False

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.scopes += scopes
        return AccessToken(self.token, int(time.time()) + 3600)

    async def close(self) -> None:
        self.closed = True


class BlockingCredential:
    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken(ENTRA_TOKEN, 0)


async def _provider() -> str:
    return ENTRA_TOKEN


@pytest.mark.parametrize("credential", [AsyncCredential(), BlockingCredential(), _provider, lambda: ENTRA_TOKEN])
async def test_entra_takes_any_kind_of_credential(credential: Any) -> None:
    entra = Entra(credential)
    assert dict(await entra.headers()) == {"Authorization": f"Bearer {ENTRA_TOKEN}"}
    assert repr(entra) == f"Entra(scope={ENTRA_SCOPE!r})"


async def test_entra_asks_afresh_for_its_scope_and_leaves_a_given_credential_open() -> None:
    credential = AsyncCredential()
    entra = Entra(credential, scope="https://ai.azure.com/.default")
    await entra.headers()
    await entra.headers()
    assert credential.scopes == ["https://ai.azure.com/.default"] * 2
    assert not credential.closed


async def test_default_credential_gets_a_token_and_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The real DefaultAzureCredential, as in an App Service whose token service is on loopback."""
    resource = "https://cognitiveservices.azure.com"
    ends = str(int(time.time()) + 3600)
    token = {"access_token": ENTRA_TOKEN, "expires_on": ends, "resource": resource, "token_type": "Bearer"}
    async with web_server(text=json.dumps(token), content_type="application/json") as (url, seen):
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")
        monkeypatch.setenv("IDENTITY_ENDPOINT", url)
        monkeypatch.setenv("IDENTITY_HEADER", "header-of-the-token-service")
        with caplog.at_level(logging.DEBUG):
            headers = await Entra().headers()
    assert dict(headers) == {"Authorization": f"Bearer {ENTRA_TOKEN}"}
    assert [f"resource={resource}" in unquote(request.path) for request in seen] == [True]
    assert ENTRA_TOKEN[:30] not in caplog.text


async def test_without_a_sign_in_the_error_names_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(AuthenticationError, match="no Entra token for https://cognitive") as info:
        await Entra().headers()
    assert "az login" in info.value.__notes__[0]
    assert info.value.__cause__ is not None


class Failing:
    def get_token(self, scope: str) -> str:
        raise RuntimeError("refused, client_secret=sk-" + CANARY)


@pytest.mark.parametrize("credential", [Failing(), lambda: {}[CANARY]], ids=["a message", "a key"])
async def test_a_credential_that_fails_leaves_no_secret_in_the_error_or_a_local_variable(credential: Any) -> None:
    with pytest.raises(AuthenticationError, match="no Entra token") as info:
        await Entra(credential).headers()
    assert "no Entra token" in with_locals(info)
    assert CANARY not in with_locals(info)
    assert info.value.__cause__ is info.value.__context__ is None


@pytest.mark.parametrize(
    "text, clean",
    [
        ("Incorrect API key provided: sk-proj-abc***********wxyz.", "Incorrect API key provided: ****."),
        ("key ek_" + "68af296e8e408191a1120ab6383263c2 expired", "key **** expired"),
        (f"token {ENTRA_TOKEN} refused", "token **** refused"),
        ("key 0123456789abcdef0123456789abcdef", "key ****"),
        ("'0123456789ABCDEF0123456789ABCDEF'", "'****'"),
        (f"key {'A1b2' * 21}", "key ****"),
        ("api-key: abc", "api-key: ****"),
        ("https://x/y?api-key=abc&model=m", "https://x/y?api-key=****&model=m"),
        ('{"api_key": "abc", "x": 1}', '{"api_key": "****", "x": 1}'),
        ("Authorization: Bearer abc123def", "Authorization: Bearer ****"),
        ("openai-insecure-api-key.abc", "openai-insecure-api-key.****"),
        ("http://me:secret@proxy:8080", "http://****@proxy:8080"),
        ("provided: 4fd1****77ab", "provided: ****"),
        ("wss://x/y?model=m&sig=abc", "wss://x/y?model=m&sig=****"),
        ("authorization: Basic dXNlcg", "authorization: Basic ****"),
        (f"key {base64.urlsafe_b64encode(bytes(range(90)) + bytes(9 * [251])).decode()}.", "key ****."),
        (f"key {base64.b64encode(bytes(range(99)) + bytes(3 * [255])).decode()}", "key ****"),
    ],
)
def test_a_text_that_looks_like_a_key_is_masked(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "Missing bearer authentication in header",
        "wss://res.openai.azure.com/openai/v1/realtime?model=gpt-realtime-2.1",
        "session sess_AbCdEf0123456789 and item item_0123456789abcdef hit 60 minutes",
        "apim-request-id 9f3f4f0e-6f9b-4c4f-9a51-0d6dbb8d1b11",
        'Model "desk-top" is not supported in realtime mode. You risk-free try gpt-realtime-1.5.',
        "invalid_request_error.invalid_api_key",
        "active response in progress: resp_68af296e8e408191a1120ab6383263c2",
        '{"item_id": "item_68af296e8e408191a1120ab6383263c2", "event_id": "event_BQgtmli1Rse8PXgSowx55"}',
        "msg_" + "68af296e8e408191a1120ab6383263c2" * 3,
        "-" * 200,
        "/subscriptions/9f3f4f0e-6f9b-4c4f-9a51-0d6dbb8d1b11/resourceGroups/My-Team/providers/Microsoft-X/accounts/Y1",
        "week_2024 and risk-free and keyjack",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert redact(text, CANARY) == text


def test_known_secrets_and_their_pieces() -> None:
    assert redact(f"you sent {CANARY}.", CANARY) == "you sent ****."
    assert redact(f"you sent {CANARY[:8]} ... {CANARY[-8:]}.", CANARY) == "you sent **** ... ****."
    assert redact(f"{CANARY[7:15]}, {CANARY[20:27]}", CANARY) == f"****, {CANARY[20:27]}"
    assert redact(f"item_{CANARY[6:24]}", CANARY) == f"item_{CANARY[6:24]}"


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEF0123456789-_", min_size=8, max_size=90), st.text(), st.text())
def test_a_known_secret_never_survives(secret: str, before: str, after: str) -> None:
    assert secret not in redact(f"{before} {secret} {after}", secret).replace("****", "")


@given(st.text(alphabet="abcXYZ019-_", min_size=16, max_size=90), st.data())
def test_pieces_of_a_long_secret_never_survive(secret: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(secret) - 8))
    piece = secret[start : start + data.draw(st.integers(8, 40))]
    before = data.draw(st.text(alphabet="é .:(", max_size=9))
    assert piece not in redact(f"{before}{piece}) is refused", secret)


def _seconds(work: Callable[[], object]) -> float:
    """Return the shortest of five runs."""
    began = [time.process_time()]
    for _ in range(5):
        work()
        began.append(time.process_time())
    return min(end - start for start, end in pairwise(began))


LONG_TEXTS = {
    "base64url": base64.urlsafe_b64encode(random.Random(1).randbytes(30_000)).decode(),
    "base64": base64.b64encode(random.Random(1).randbytes(30_000)).decode(),
    "dashes": "-" * 40_000,
    "joined words": "a-b_" * 10_000,
    "JSON": json.dumps([{"event_id": f"event_{n}", "delta": "some words of text", "item_id": n} for n in range(600)]),
    "stars": "ab" * 10_000 + "***" + "-" * 20_000,
    "keys": '{"api-key": "abc", "url": "https://me:you@host/?sig=1"}, ' * 700,
}


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_time_is_linear_in_the_length_of_the_text(name: str) -> None:
    """Both measures are ratios of runs on this machine: an absolute limit would fail on a busy one."""
    text = LONG_TEXTS[name]
    once, eight = (_seconds(lambda text=text * n: redact(text, CANARY)) for n in (1, 8))
    assert eight < 3 * 8 * once
    plain_scan = re.compile(r"[^x]\d[a-z]{3}Q")  # a pattern that looks at each character and finds nothing
    assert eight < 25 * _seconds(lambda: plain_scan.search(8 * text))


def test_secrets_in_headers_are_remembered() -> None:
    headers = {
        "api-key": "a1-long-enough",
        "Authorization": "Bearer b2-long-enough",
        "Ocp-Apim-Subscription-Key": "c3-long-enough",
        "User-Agent": "rtnb",
        "Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.d4-long-enough",
        "x-api-key": "test",
    }
    with patch.dict(redaction._known, clear=True):
        remember_headers(headers)
        assert list(redaction._known) == ["a1-long-enough", "b2-long-enough", "c3-long-enough", "d4-long-enough"]


def test_the_newest_secrets_are_remembered() -> None:
    with patch.dict(redaction._known, clear=True):
        for number in range(redaction.REMEMBERED + 1):
            redaction.remember([f"secret-{number}", "in-use-all-the-time"])
        assert len(redaction._known) == redaction.REMEMBERED
        assert "secret-1" not in redaction._known
        assert redaction.redact("in-use-all-the-time") == "****"


def test_a_cause_with_a_secret_is_not_kept() -> None:
    harmless, harmful = OSError(111, "refused"), OSError(f"Bearer {CANARY}")
    redaction.remember([CANARY])
    assert caused_by(ConnectError(""), harmless).__cause__ is harmless
    assert caused_by(ConnectError(""), harmful).__cause__ is None
    outer = RuntimeError("outer")
    outer.__context__ = harmful
    assert caused_by(ConnectError(""), outer).__cause__ is None
