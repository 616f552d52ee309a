"""Opening a session: settings checked first, refusals at once, nothing forgotten, shared simulators."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import rtnb
from rtnb.client import open_session
from rtnb.errors import AuthenticationError, ConnectError, LocalProtocolError, RtnbError, ServiceError
from rtnb.protocol import events
from rtnb.protocol.values import ErrorDetail
from tests.client.peer import Peer, failure
from tests.client.service import ScriptedTarget
from tests.client.virtual import outcome, talking, virtual

WRONG_MODEL = failure("invalid_model", 'Model "peer" is not supported in realtime mode.')
WRONG_KEY = failure("invalid_api_key", "Incorrect API key provided.")
WRONG_VOICE = failure("invalid_value", "Invalid value: 'x'.", param="session.audio.output.voice")


def text_of(error: BaseException) -> str:
    """Return the message of an exception and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


async def _open(target: Any, **options: Any) -> None:
    async with rtnb.connect(target, **options):
        return


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "service, settings, kind, words",
    [
        (Peer(greeting=[WRONG_MODEL], silent=True), {}, ConnectError, "is not supported in realtime mode"),
        (Peer(greeting=[WRONG_KEY], silent=True), {}, AuthenticationError, "Incorrect API key"),
        (
            Peer(refuse={"session.update": [WRONG_VOICE]}, name_errors=False),
            {"voice": "x"},
            RtnbError,
            "Invalid value: 'x'.",
        ),
    ],
    ids=["model", "key", "setting, without naming the event"],
)
@virtual
async def test_an_error_and_then_silence_while_connecting_is_reported_at_once(
    service: Peer, settings: Any, kind: type[Exception], words: str
) -> None:
    clock = asyncio.get_running_loop().time
    async with service as peer:
        start_s = clock()
        error = await outcome(_open(peer.url, clock=clock, **settings))
        assert isinstance(error, kind), error
        assert words in text_of(error)
        assert clock() - start_s < 3


@asynccontextmanager
async def created(target: ScriptedTarget) -> AsyncIterator[ScriptedTarget]:
    """Run a service that has created its session; it ends when the connection is closed."""
    running = asyncio.create_task(target.service.run())
    await target.service.open()
    yield target
    await running


async def test_settings_at_connect() -> None:
    async with created(ScriptedTarget()) as target:
        session = await open_session(target, voice="marin", instructions="Be brief.")
        assert session.config.voice == "marin"
        assert len(target.service.said(events.SessionUpdate)) == 1
        await session.close()


async def test_refused_settings_at_connect_close_the_session() -> None:
    async with created(ScriptedTarget()) as target:
        with pytest.raises(ServiceError, match="Cannot change the model"):
            await open_session(target, model="another")


async def test_a_service_of_the_other_dialect() -> None:
    async with created(ScriptedTarget(dialect="ga", service_dialect="preview")) as target:
        with pytest.raises(ConnectError, match="speaks the preview dialect") as caught:
            await open_session(target)
    assert "dialect='preview'" in caught.value.__notes__[0]


async def test_a_key_refused_after_the_upgrade() -> None:
    target = ScriptedTarget()
    detail = ErrorDetail(type="invalid_request_error", code="invalid_api_key", message="Incorrect API key: sk-abc123")
    await target.service.say(events.Error(error=detail))
    await target.service.transport.close(code=3000, reason="invalid_request_error.invalid_api_key")
    with pytest.raises(AuthenticationError) as caught:
        await open_session(target)
    assert caught.value.status == 3000
    assert "sk-abc123" not in str(caught.value)


async def test_a_goodbye_without_an_error() -> None:
    target = ScriptedTarget()
    await target.service.transport.close(code=4000, reason="invalid_request_error.invalid_model")
    with pytest.raises(ConnectError, match="model"):
        await open_session(target)


async def test_a_service_that_says_nothing() -> None:
    with pytest.raises(ConnectError, match="no answer"):
        await open_session(ScriptedTarget(), timeout_s=0)


# --- settings are checked before a connection is opened ---------------------------------------------------------------

NEAREST: dict[str, tuple[Any, str]] = {
    "instrutions": ("Be kind.", "instructions"),
    "voise": ("alloy", "voice"),
    "turn_detecton": ("server_vad", "turn_detection"),
    "output_formt": ("audio/pcmu", "output_format"),
    "timeout": (5, "timeout_s"),
    "log_pth": ("x.jsonl", "log_path"),
}


@pytest.mark.parametrize("typo", NEAREST)
@virtual
async def test_a_typo_in_a_setting_raises_before_a_connection_is_opened_and_names_the_nearest(typo: str) -> None:
    value, right = NEAREST[typo]
    async with Peer() as peer:
        error = await outcome(_open(peer.url, **{typo: value}))
        assert isinstance(error, TypeError), error
        assert peer.paths == [], "a connection was opened"
        found = re.search(rf"\b{right}\b", text_of(error))
        assert found, error
        assert found.start() < 120, "the nearest name comes before the list of all names"


@pytest.mark.parametrize(
    "settings, kind, words",
    [
        ({"output_format": "pcm17"}, ValueError, "pcm17"),
        ({"tools": [5]}, TypeError, "5"),
        ({"config": 5}, TypeError, "SessionConfig"),
        ({"temperature": 0.8}, LocalProtocolError, "session.temperature"),
        ({"turn_detection": {"threshold": 2}}, LocalProtocolError, "threshold"),
    ],
    ids=str,
)
@virtual
async def test_a_wrong_value_raises_before_a_connection_is_opened(
    settings: dict[str, Any], kind: type[Exception], words: str
) -> None:
    async with Peer() as peer:
        error = await outcome(_open(peer.url, **settings))
        assert isinstance(error, kind), error
        assert words in text_of(error)
        assert peer.paths == [], "a connection was opened"


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.update(instrutions="Be kind."),
        lambda session: session.ask("Hello?", instrutions="Be kind."),
        lambda session: session.response.create(instrutions="Be kind."),
    ],
    ids=["update", "ask", "response.create"],
)
@talking()
async def test_a_typo_in_a_call_raises_before_anything_is_sent(peer: Peer, session: rtnb.Session, call: Any) -> None:
    error = await outcome(call(session))
    assert isinstance(error, TypeError), error
    found = re.search(r"\binstructions\b", text_of(error))
    assert found, error
    assert found.start() < 80, "the nearest name comes before the list of all names"
    assert peer.heard == []


# --- nothing is forgotten ---------------------------------------------------------------------------------------------


async def test_a_connect_object_that_is_entered_again_keeps_its_dialect_and_options() -> None:
    connecting = rtnb.connect("sim", dialect="preview", instructions="Be brief.")
    for _ in range(2):
        async with asyncio.timeout(20), connecting as session:
            assert session.dialect == "preview"
            assert session.config.instructions == "Be brief."


@virtual
async def test_a_connect_object_can_be_used_by_two_sessions_at_once() -> None:
    async with Peer() as peer:
        connecting = rtnb.connect(peer.url, clock=asyncio.get_running_loop().time, instructions="Be brief.")
        async with connecting, connecting:
            pass
        assert len(peer.paths) == len(peer.asked("session.update")) == 2


@pytest.mark.parametrize("intent", [None, "transcription"])
@pytest.mark.parametrize("path", ["/v1/realtime", "/gateway/realtime", "/gateway", "/", ""])
@virtual
async def test_a_custom_url_keeps_its_query(path: str, intent: str | None) -> None:
    async with Peer() as peer:
        base = peer.url.removesuffix("/v1/realtime")
        options = {} if intent is None else {"intent": intent}
        transport = await rtnb.Custom(f"{base}{path}?tenant=a%20b&region=eu", model="m").open(**options)
        await transport.close()
        (path_heard,) = peer.paths
        assert "tenant=a%20b&region=eu" in path_heard.replace("a+b", "a%20b")
        assert "model=m" in path_heard
        assert intent is None or f"intent={intent}" in path_heard


# --- a shared simulator -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
async def test_closing_one_of_several_sessions_on_a_simulator_leaves_the_others_open(first: int) -> None:
    simulator = rtnb.Simulator(latency="fast", voice="babble")
    try:
        sessions = [await rtnb.connect(simulator) for _ in range(2)]
        await sessions[first].close()
        response = await outcome(sessions[1 - first].ask("What is a delta?"), within_s=20)
        assert getattr(response, "status", response) == "completed"
        await sessions[1 - first].close()
    finally:
        await simulator.astop()


async def test_sessions_on_a_simulator_that_was_started_by_hand_do_not_stop_it() -> None:
    async with rtnb.Simulator(latency="fast", voice="babble") as simulator:
        async with asyncio.timeout(20):
            for _ in range(2):
                async with rtnb.connect(simulator) as session:
                    assert (await session.ask("What is a delta?")).status == "completed"
        assert simulator.running
