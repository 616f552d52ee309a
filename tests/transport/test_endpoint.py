"""Endpoints as users paste them: the addresses made from them, and the refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.errors import ConnectError
from rtnb.transport import read_endpoint
from rtnb.transport.endpoint import is_loopback

HOST = "res.openai.azure.com"
VERSION = "api-version=2025-04-01-preview"
GA = "wss://res.openai.azure.com/openai/v1/realtime?model=voice"
PREVIEW = "wss://res.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=voice"


@pytest.mark.parametrize(
    "pasted",
    [
        "https://res.openai.azure.com",
        "https://res.openai.azure.com//",
        "http://res.openai.azure.com:80/",  # never without TLS
        "ws://res.openai.azure.com",
        "HTTPS://RES.OpenAI.Azure.com",
        "res.openai.azure.com",
        "//res.openai.azure.com",
        "res.openai.azure.com:443/",
        "  'https://res.openai.azure.com/' \n",
        "\u201chttps://res.openai.azure.com\u201d,",
        'AZURE_OPENAI_ENDPOINT="https://res.openai.azure.com/"',
        "https://res.openai.azure.com/openai/",
        "https://res.openai.azure.com/openai/v1/",
        "https://res.openai.azure.com/openai/v1/realtime",
        "wss://res.openai.azure.com/openai/v1/realtime?model=voice",
        "https://res.openai.azure.com/openai/v1/realtime/client_secrets",
        "https://res.openai.azure.com/openai/deployments/voice/",
        "https://res.openai.azure.com/models",
    ],
)
def test_azure_ga(pasted: str) -> None:
    where = read_endpoint("azure", pasted, model="voice")
    assert where.websocket() == GA
    assert where.ephemeral_keys() == "https://res.openai.azure.com/openai/v1/realtime/client_secrets"
    assert where.calls() == "https://res.openai.azure.com/openai/v1/realtime/calls"


@pytest.mark.parametrize(
    "pasted, origin",
    [
        ("https://res.cognitiveservices.azure.com/", "wss://res.cognitiveservices.azure.com"),
        ("https://res.services.ai.azure.com/api/projects/my-project", "wss://res.services.ai.azure.com"),
        ("https://res.services.ai.azure.com/api/projects/p/openai/v1", "wss://res.services.ai.azure.com"),
        ("https://res.services.ai.azure.com/models", "wss://res.services.ai.azure.com"),
        ("https://eastus2.api.cognitive.microsoft.com/", "wss://eastus2.api.cognitive.microsoft.com"),
        ("https://res.openai.azure.us", "wss://res.openai.azure.us"),
        ("https://resource-name1.openai.azure.com", "wss://resource-name1.openai.azure.com"),
        ("https://my-azure-endpoint.openai.azure.com", "wss://my-azure-endpoint.openai.azure.com"),
        ("https://gate.azure-api.net/team", "wss://gate.azure-api.net/team"),
        ("https://gate.azure-api.net/team/openai/v1/", "wss://gate.azure-api.net/team"),
        ("http://127.0.0.1:8765/v1/realtime", "ws://127.0.0.1:8765"),
        ("localhost:8765", "ws://localhost:8765"),
        ("http://[::1]:8765/", "ws://[::1]:8765"),
    ],
)
def test_azure_hosts(pasted: str, origin: str) -> None:
    assert read_endpoint("azure", pasted, model="voice").websocket() == f"{origin}/openai/v1/realtime?model=voice"


@pytest.mark.parametrize(
    "pasted",
    [
        "https://res.openai.azure.com",
        "https://res.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=voice",
        "wss://res.openai.azure.com/openai/realtime?deployment=voice&api-version=2025-04-01-preview",
        "https://res.openai.azure.com/openai/v1/",
        "https://res.openai.azure.com/openai/realtimeapi/sessions?api-version=2025-04-01-preview",
    ],
)
def test_azure_preview(pasted: str) -> None:
    where = read_endpoint("azure", pasted, dialect="preview", model="voice")
    assert where.websocket() == PREVIEW
    sessions = "https://res.openai.azure.com/openai/realtimeapi/sessions"
    assert where.ephemeral_keys() == f"{sessions}?api-version=2025-04-01-preview"


def test_the_deployment_and_the_version_may_be_in_the_address() -> None:
    assert read_endpoint("azure", GA).model == "voice"
    assert read_endpoint("azure", PREVIEW, dialect="preview").model == "voice"
    named = read_endpoint("azure", "https://res.openai.azure.com/openai/deployments/my%2Dvoice/chat/completions")
    assert named.model == "my-voice"
    inside = PREVIEW.replace("2025-04-01-preview", "2024-12-17")
    assert read_endpoint("azure", inside, dialect="preview").websocket() == inside
    beside = read_endpoint("azure", HOST, dialect="preview", model="v", api_version=" '2024-10-01-preview' ")
    assert "api-version=2024-10-01-preview" in beside.websocket()


@pytest.mark.parametrize(
    "region, seen_region, host",
    [
        ("East US 2", None, "eastus2"),
        (None, "Sweden Central", "swedencentral"),
        ("SwedenCentral", "Sweden Central", "swedencentral"),
    ],
)
def test_preview_webrtc_is_regional(region: str | None, seen_region: str | None, host: str) -> None:
    where = read_endpoint("azure", HOST, dialect="preview", model="v")
    url = f"https://{host}.realtimeapi-preview.ai.azure.com/v1/realtimertc?model=v"
    assert where.calls(region=region, seen_region=seen_region) == url


@pytest.mark.parametrize("region", [None, "", "westeurope"])
def test_preview_webrtc_elsewhere_is_refused(region: str | None) -> None:
    where = read_endpoint("azure", HOST, dialect="preview", model="voice")
    with pytest.raises(ConnectError, match="region of the resource: eastus2 or swedencentral"):
        where.calls(region=region)
    with pytest.raises(ConnectError, match="the resource is in swedencentral, but region= is eastus2"):
        where.calls(region="East US 2", seen_region="Sweden Central")


def test_webrtc_filter_sideband_and_transcription() -> None:
    azure = read_endpoint("azure", HOST, model="voice")
    assert azure.calls(webrtc_filter=True).endswith("/openai/v1/realtime/calls?webrtcfilter=on")
    assert azure.websocket(call_id="rtc_1") == "wss://res.openai.azure.com/openai/v1/realtime?call_id=rtc_1"
    assert azure.websocket(intent="transcription") == f"{GA}&intent=transcription"
    openai = read_endpoint("openai", "https://api.openai.com/v1", model="gpt-realtime")
    assert openai.websocket(intent="transcription") == "wss://api.openai.com/v1/realtime?intent=transcription"
    preview = read_endpoint("azure", HOST, dialect="preview", model="voice")
    assert preview.websocket(intent="transcription") == f"{PREVIEW}&intent=transcription"
    with pytest.raises(ConnectError, match="only the GA dialect"):
        preview.websocket(call_id="rtc_1")


@pytest.mark.parametrize(
    "pasted",
    [
        "https://api.openai.com/v1",
        "api.openai.com",
        "wss://api.openai.com/v1/realtime?model=gpt-realtime",
        "http://api.openai.com/v1/",
    ],
)
def test_openai(pasted: str) -> None:
    where = read_endpoint("openai", pasted, model="gpt-realtime")
    assert where.websocket() == "wss://api.openai.com/v1/realtime?model=gpt-realtime"
    assert where.ephemeral_keys() == "https://api.openai.com/v1/realtime/client_secrets"
    assert where.calls() == "https://api.openai.com/v1/realtime/calls"


@pytest.mark.parametrize(
    "pasted, dialect, model, url",
    [
        ("ws://localhost:8765", "ga", None, "ws://localhost:8765/v1/realtime"),
        ("localhost:8765", "ga", "m", "ws://localhost:8765/v1/realtime?model=m"),
        ("http://127.0.0.1:8765/", "ga", "m", "ws://127.0.0.1:8765/v1/realtime?model=m"),
        ("ws://localhost:8765/realtime", "ga", None, "ws://localhost:8765/realtime"),
        ("ws://localhost:8765/deep/realtime", "ga", "m", "ws://localhost:8765/deep/realtime?model=m"),
        ("ws://localhost:8765/x/realtime?model=a&seed=3", "ga", None, "ws://localhost:8765/x/realtime?model=a&seed=3"),
        ("ws://localhost:8765/openai", "ga", "m", "ws://localhost:8765/openai/v1/realtime?model=m"),
        ("ws://localhost:8765", "preview", "m", f"ws://localhost:8765/openai/realtime?{VERSION}&deployment=m"),
        ("ws://localhost:8765/v1", "preview", "m", "ws://localhost:8765/v1/realtime?model=m"),
        ("speaches.example.org/v1", "ga", "m", "wss://speaches.example.org/v1/realtime?model=m"),
        ("wss://res.openai.azure.com", "ga", "m", "wss://res.openai.azure.com/openai/v1/realtime?model=m"),
        ("http://simulator:8765", "ga", None, "ws://simulator:8765/v1/realtime"),
        ("http://example.org:80", "ga", None, "ws://example.org/v1/realtime"),
        ("https://example.org:80", "ga", None, "wss://example.org:80/v1/realtime"),
    ],
)
def test_custom(pasted: str, dialect: str, model: str | None, url: str) -> None:
    assert read_endpoint("custom", pasted, dialect=dialect, model=model).websocket() == url  # type: ignore[arg-type]


TRANSCRIBE = {"intent": "transcription"}


@pytest.mark.parametrize(
    "pasted, options, url",
    [
        ("/v1?tenant=a%2Fb", {}, "/v1/realtime?tenant=a%2Fb"),
        ("/x/realtime?tenant=a&empty=", {}, "/x/realtime?tenant=a&empty="),
        ("/x/realtime?tenant=a&model=n", TRANSCRIBE, "/x/realtime?tenant=a&model=n&intent=transcription"),
        ("/x/realtime?intent=other&tenant=a", TRANSCRIBE, "/x/realtime?tenant=a&intent=transcription"),
        ("/v1?tenant=a", {"call_id": "rtc_1"}, "/v1/realtime?tenant=a&call_id=rtc_1"),
    ],
)
def test_a_custom_address_keeps_its_query(pasted: str, options: dict[str, str], url: str) -> None:
    origin = "wss://gate.example"
    assert read_endpoint("custom", origin + pasted).websocket(**options) == origin + url


def test_addresses_of_requests() -> None:
    where = read_endpoint("custom", "https://gate.example/x/realtime?model=m&tenant=a&intent=transcription")
    assert where.ephemeral_keys() == "https://gate.example/x/realtime/client_secrets?tenant=a"
    assert where.calls() == "https://gate.example/x/realtime/calls?tenant=a"
    where = read_endpoint("custom", "https://gate.example?tenant=a", dialect="preview", model="m")
    assert where.ephemeral_keys() == f"https://gate.example/openai/realtimeapi/sessions?tenant=a&{VERSION}"
    where = read_endpoint("custom", "ws://localhost:8765/v1", dialect="preview", model="m")
    assert where.ephemeral_keys() == "http://localhost:8765/v1/realtime/sessions"
    assert where.ephemeral_keys(**TRANSCRIBE) == "http://localhost:8765/v1/realtime/transcription_sessions"
    assert where.calls() == "http://localhost:8765/v1/realtimertc?model=m"
    where = read_endpoint("azure", HOST, dialect="preview", model="m")
    sessions = f"https://{HOST}/openai/realtime/transcription_sessions?{VERSION}"
    assert where.ephemeral_keys(**TRANSCRIBE) == sessions
    local = read_endpoint("azure", "http://localhost:8765", dialect="preview", model="m")
    assert local.calls() == "http://localhost:8765/v1/realtimertc?model=m"


KEY_32 = "0123456789abcdef0123456789abcdef"
KEY_84 = "A1b2" * 21


@pytest.mark.parametrize(
    "service, pasted, options, reason, hint",
    [
        ("azure", "", {}, "empty", "Keys and Endpoint"),
        ("azure", KEY_32, {}, "is a key", "api_key="),
        ("azure", KEY_84, {}, "is a key", "api_key="),
        ("openai", "sk-proj-abcdefgh", {}, "is a key", "api_key="),
        ("azure", "https://res.openai.azure.com", {"model": None}, "deployment= is missing", "not of its model"),
        ("openai", "https://api.openai.com/v1", {"model": ""}, "model= is missing", "Name one"),
        ("azure", "https://ai.azure.com/build/overview?wsid=/subscriptions/1", {}, "web page", "Keys and Endpoint"),
        ("azure", "https://portal.azure.com/#@me/resource/x", {}, "web page", "Keys and Endpoint"),
        ("openai", "https://platform.openai.com/playground", {}, "web page", "base_url"),
        ("azure", "https://res.openai.azure.com", {"api_version": "2025-04-01-preview"}, "401", "dialect='preview'"),
        ("azure", f"{GA}&api-version=2025-04-01-preview", {}, "401", "dialect='preview'"),
        ("azure", PREVIEW, {}, "401", "dialect='preview'"),
        ("azure", "https://res.openai.azure.com/openai/realtime", {}, "path of the preview", "dialect='preview'"),
        ("azure", "res.openai.azure.com", {"dialect": "preview", "api_version": "v1"}, "api_version is 'v1'", "2025-"),
        ("azure", "res.openai.azure.com", {"dialect": "beta"}, "dialect is 'beta'", "dialect='ga'"),
        ("openai", "https://api.openai.com/v1", {"dialect": "preview"}, "2026-05-12.*4000", "simulator"),
        ("custom", "wss://api.openai.com/v1", {"dialect": "preview"}, "2026-05-12.*4000", "simulator"),
        ("custom", "ws://localhost:1", {"api_version": "2024-12-17"}, "no api-version", "Leave"),
        ("azure", "https://api.openai.com/v1", {}, "OpenAI's address", "rtnb.OpenAI"),
        ("openai", "https://res.openai.azure.com", {}, "Azure's address", "rtnb.Azure"),
        ("azure", "ftp://res.openai.azure.com", {}, "scheme 'ftp'", "Keys and Endpoint"),
        ("azure", "https://", {}, "no host", "Keys and Endpoint"),
        ("custom", "my-server", {}, "write ws://my-server:8765", "localhost"),
        ("azure", "my-resource", {}, "write https://my-resource.openai.azure.com", "Keys and Endpoint"),
        ("azure", "https://<your-resource>.openai.azure.com", {}, "placeholder", "Keys and Endpoint"),
        ("azure", "https://resource_name.openai.azure.com", {}, "placeholder", "Keys and Endpoint"),
        ("azure", "yourEndpoint", {}, "placeholder", "Keys and Endpoint"),
        ("azure", "https://res.openai.azure.com:port", {}, "cannot be read", "Keys and Endpoint"),
        ("azure", "https://[::1", {}, "cannot be read", "Keys and Endpoint"),
        ("azure", f"https://user:{KEY_32}@res.openai.azure.com", {}, "name or password", "api_key="),
        ("custom", f"ws://localhost:8765/v1/realtime?api-key={KEY_32}", {}, "a key in the address", "api_key="),
        ("azure", GA, {"model": "other"}, "'voice' in the address and 'other'", "Leave one out"),
        ("azure", "res.openai.azure.com", {"model": "my voice"}, "no name of a deployment", "name alone"),
        ("azure", "https://eastus2.realtimeapi-preview.ai.azure.com/v1/realtimertc", {}, "WebRTC", "region="),
        ("azure", "wss://res.cognitiveservices.azure.com/voice-live/realtime", {}, "Voice Live", "realtime model"),
    ],
)
def test_an_endpoint_that_cannot_work_is_refused(
    service: str, pasted: str, options: dict[str, str | None], reason: str, hint: str
) -> None:
    arguments = {"model": "voice", **options} if pasted not in (PREVIEW,) else options
    with pytest.raises(ConnectError, match=reason) as info:
        read_endpoint(service, pasted, **arguments)  # type: ignore[arg-type]
    shown = "\n".join([str(info.value), info.value.url, *info.value.__notes__])
    assert hint in shown
    assert KEY_32 not in shown
    assert KEY_84 not in shown


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused_with_a_next_step(pasted: str) -> None:
    for service in ("azure", "openai", "custom"):
        try:
            outcome = read_endpoint(service, pasted, model="voice").websocket()  # type: ignore[arg-type]
        except ConnectError as refused:
            outcome = refused.__notes__[0]
        assert outcome.startswith(("ws://", "wss://", "Next: "))


def test_this_machine_is_told_from_others() -> None:
    this = ["localhost", "LOCALHOST.", "sim.localhost", "127.0.0.1", "127.8.0.1", "::1", "[::1]"]
    others = ["", "example.org", "10.0.0.1", "localhost.example.org", "0.0.0.0"]
    assert [host for host in this + others if is_loopback(host)] == this
