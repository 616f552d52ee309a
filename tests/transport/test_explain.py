"""Explanations that no small server can provoke: they depend on the service and the sign-in."""

import pytest

from rtnb.errors import AuthenticationError, ConnectError, RateLimited, RtnbError
from rtnb.redaction import remember
from rtnb.transport import TargetFacts
from rtnb.transport.explain import closed, connect_failure, connect_failure_from_event, http_failure
from tests.transport.conftest import CANARY, shown

AZURE = "wss://res.openai.azure.com/openai/v1/realtime?model=m"


KEYLESS = TargetFacts("azure", auth="entra", scope="https://cognitiveservices.azure.com/.default")
OTHER_SCOPE = TargetFacts("azure", auth="entra", scope="https://ai.azure.com/.default")
OLD = TargetFacts("azure", dialect="preview", model="m")


@pytest.mark.parametrize(
    "status, facts, body, texts, absent",
    [
        (401, TargetFacts("azure", auth="api-key"), "", ["of another resource", "allow no keys", "together"], "scope"),
        (401, KEYLESS, "", ["scope was https://cogn", "='https://ai.azure.com/.default'", "tenant", "together"], ""),
        (401, OTHER_SCOPE, "", ["scope='https://cognitiveservices.azure.com/.default'"], ""),
        (401, TargetFacts("azure", auth="ephemeral"), "", ["60 s (preview)", "get a new one"], ""),
        (401, TargetFacts("azure", url=f"{AZURE}&api-version=1", auth="api-key"), "", ["no api-version", "401"], ""),
        (401, TargetFacts("openai", auth="bearer"), "", ["revoked", "project"], ""),
        (401, TargetFacts("custom", auth="none"), "", ["no key was sent"], ""),
        (401, TargetFacts("simulator", auth="bearer"), "", ["the key is wrong"], ""),
        (403, TargetFacts("azure", auth="entra"), "", ["Cognitive Services OpenAI User", "Networking"], ""),
        (403, TargetFacts("azure", auth="entra"), "blocked by Firewall rules", ["Networking"], "OpenAI User"),
        (403, TargetFacts("azure", auth="api-key"), "", ["Networking"], "OpenAI User"),
        (403, TargetFacts("openai", auth="bearer"), "", ["permissions, project"], "OpenAI User"),
        (404, TargetFacts("azure", model="m"), "", ["deployment named 'm'", "retired", "not deployment="], ""),
        (404, OLD, "", ["deployment named 'm'", "dialect='ga'"], ""),
        (404, TargetFacts("azure", url="https://eastus2/v1/realtimertc", model="m"), "", ["WebRTC region"], ""),
        (404, TargetFacts("openai", model="m"), "", ["'m'", "still offered"], ""),
        (404, TargetFacts("custom", model="m"), "", ["Next: most servers serve /v1/realtime"], "model= is missing"),
        (404, TargetFacts("custom"), "", ["Next: model= is missing", "/realtime?model=NAME", "/v1/realtime"], ""),
        (400, TargetFacts("custom"), "", ["Next: model= is missing"], ""),
        (400, TargetFacts("custom", model="m"), "", [], "model= is missing"),
    ],
)
def test_a_status_names_its_causes(status: int, facts: TargetFacts, body: str, texts: list[str], absent: str) -> None:
    error = http_failure(status, facts=facts, body=body)
    assert type(error) is (AuthenticationError if status in (401, 403) else ConnectError)
    assert [text for text in texts if text not in shown(error)] == []
    assert not absent or absent not in shown(error)


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


def test_a_close_without_a_name() -> None:
    assert str(closed(1005)) == "the connection was closed without a reason (1005)"
    assert str(closed(4000, "")) == "the service refused with no reason (4000)"


def test_an_unknown_network_failure_is_named() -> None:
    error = connect_failure(OSError(101, "Network is unreachable"))
    assert "the network failed with OSError ([Errno 101] Network is unreachable)" in str(error)
    assert error.__notes__
