"""Explanations that no small server can provoke: they depend on the service and the sign-in."""

import pytest

from rtnb.errors import AuthenticationError, ConnectError, RateLimited, RtnbError
from rtnb.redaction import remember
from rtnb.transport import TargetFacts
from rtnb.transport.explain import closed, connect_failure, connect_failure_from_event, http_failure, split_reason
from tests.transport.conftest import CANARY, shown

AZURE = "wss://res.openai.azure.com/openai/v1/realtime?model=m"


@pytest.mark.parametrize(
    "facts, texts",
    [
        (TargetFacts("azure", url=AZURE, auth="api-key"), ["of another resource", "allow no keys", "together"]),
        (
            TargetFacts("azure", auth="entra", scope="https://cognitiveservices.azure.com/.default"),
            ["scope was https://cognitiveservices", "scope='https://ai.azure.com/.default'", "tenant", "together"],
        ),
        (
            TargetFacts("azure", auth="entra", scope="https://ai.azure.com/.default"),
            ["scope='https://cognitiveservices.azure.com/.default'"],
        ),
        (TargetFacts("azure", auth="ephemeral"), ["60 s (preview)", "get a new one"]),
        (TargetFacts("azure", url=f"{AZURE}&api-version=1", auth="api-key"), ["no api-version", "401"]),
        (TargetFacts("openai", auth="bearer"), ["revoked", "project"]),
        (TargetFacts("custom", auth="none"), ["no key was sent"]),
        (TargetFacts("simulator", auth="bearer"), ["the key is wrong"]),
    ],
)
def test_401_names_its_causes(facts: TargetFacts, texts: list[str]) -> None:
    error = http_failure(401, facts=facts)
    assert type(error) is AuthenticationError
    assert all(text in shown(error) for text in texts)


@pytest.mark.parametrize(
    "facts, body, texts",
    [
        (TargetFacts("azure", auth="entra"), "", ["Cognitive Services OpenAI User", "Networking"]),
        (TargetFacts("azure", auth="entra"), "blocked by Firewall rules", ["Networking"]),
        (TargetFacts("azure", auth="api-key"), "", ["Networking"]),
        (TargetFacts("openai", auth="bearer"), "", ["permissions, project"]),
    ],
)
def test_403_role_or_network(facts: TargetFacts, body: str, texts: list[str]) -> None:
    error = http_failure(403, facts=facts, body=body)
    assert type(error) is AuthenticationError
    assert all(text in shown(error) for text in texts)
    assert ("OpenAI User" in shown(error)) == ("OpenAI User" in texts[0] if "Cognitive" in texts[0] else False)


@pytest.mark.parametrize(
    "facts, texts",
    [
        (TargetFacts("azure", model="m"), ["deployment named 'm'", "retired", "not deployment="]),
        (TargetFacts("azure", dialect="preview", model="m"), ["deployment named 'm'", "dialect='ga'"]),
        (TargetFacts("azure", url="https://eastus2/v1/realtimertc", model="m"), ["WebRTC region"]),
        (TargetFacts("openai", model="m"), ["'m'", "still offered"]),
        (TargetFacts("custom", model="m"), ["Next: most servers serve /v1/realtime"]),
        (TargetFacts("custom"), ["Next: model= is missing", "/realtime?model=NAME", "/v1/realtime"]),
    ],
)
def test_404_names_its_causes(facts: TargetFacts, texts: list[str]) -> None:
    assert all(text in shown(http_failure(404, facts=facts)) for text in texts)


def test_a_missing_model_is_named_before_other_causes_of_400() -> None:
    assert "Next: model= is missing" in shown(http_failure(400, facts=TargetFacts("custom")))
    assert "model= is missing" not in shown(http_failure(400, facts=TargetFacts("custom", model="m")))


def test_the_message_of_the_service_is_quoted_clean_and_short() -> None:
    assert '"plain words"' in str(http_failure(500, body="plain\n  words"))
    assert '"in detail"' in str(http_failure(500, body=b'{"detail": "in detail"}'))
    assert '"just text"' in str(http_failure(500, body='{"error": "just text"}'))
    assert '"flat"' in str(http_failure(500, body='{"statusCode": 500, "message": "flat"}'))
    assert len(str(http_failure(500, body="word " * 1000))) < 600
    remember([CANARY])
    assert CANARY[:10] not in str(http_failure(401, body=f"key {CANARY[:30]}"))
    assert str(http_failure(599)) == "could not open a session at the given address: HTTP 599 unknown status"


@pytest.mark.parametrize(
    "error_type, code, message, close_code, kind, texts",
    [
        ("invalid_request_error", "invalid_api_key", f"Incorrect API key provided: sk-{CANARY[:20]}", 3000,
         AuthenticationError, ["key or token was refused", "****", "revoked"]),
        ("invalid_request_error", None, "Missing bearer authentication in header", 3000,
         AuthenticationError, ["Missing bearer authentication"]),
        ("invalid_request_error", "invalid_model", 'Model "x" is not supported in realtime mode.', 4000,
         ConnectError, ["model is missing, unknown", "asked for: 'gpt-x'"]),
        ("invalid_request_error", "missing_model", "you must provide a model parameter", 4000,
         ConnectError, ["model is missing"]),
        ("invalid_request_error", "beta_api_shape_disabled", "The Realtime Beta API is no longer supported.", 4000,
         ConnectError, ["2026-05-12", "dialect='ga'"]),
        ("invalid_request_error", "unknown_parameter", "Unknown parameter: 'session.type'.", None,
         ConnectError, ["dialect='preview'"]),
        ("invalid_request_error", "session_expired", "", 1001, ConnectError, ["expired"]),
        ("invalid_request_error", "insufficient_quota", "You exceeded your current quota", None,
         RateLimited, ["credit of the account"]),
        ("server_error", None, "The server had an error", 1011, ConnectError, ["internal error"]),
        ("something", "new", "unheard of", 4999, ConnectError, ["something.new", "unheard of"]),
    ],
)  # fmt: skip
def test_connected_then_error_then_closed(
    error_type: str, code: str | None, message: str, close_code: int | None, kind: type[RtnbError], texts: list[str]
) -> None:
    facts = TargetFacts("openai", url="wss://api.openai.com/v1/realtime?model=gpt-x", model="gpt-x", auth="bearer")
    error = connect_failure_from_event(error_type, code, message, facts=facts, close_code=close_code)
    assert type(error) is kind
    assert all(text in shown(error) for text in texts)
    assert CANARY[:10] not in shown(error)
    if isinstance(error, ConnectError):
        assert (error.status, error.url) == (close_code, facts.url)
    elif isinstance(error, RateLimited):
        assert (error.type, error.code) == (error_type, code)


def test_reasons_are_split_as_openai_writes_them() -> None:
    assert split_reason("invalid_request_error.invalid_model") == ("invalid_request_error", "invalid_model")
    assert split_reason("invalid_request_error") == ("invalid_request_error", None)
    assert split_reason("") == ("", None)


def test_a_close_without_a_name() -> None:
    assert str(closed(1005)) == "the connection was closed without a reason (1005)"
    assert str(closed(4000, "")) == "the service refused with no reason (4000)"


def test_an_unknown_network_failure_is_named() -> None:
    error = connect_failure(OSError(101, "Network is unreachable"))
    assert "the network failed with OSError ([Errno 101] Network is unreachable)" in str(error)
    assert error.__notes__
