"""Opening a session: settings checked first, refusals at once, nothing forgotten, shared simulators."""

import asyncio
import re
from typing import Any

import pytest

import rtnb
from rtnb.errors import AuthenticationError, ConnectError, LocalProtocolError, ServiceError
from tests.client.peer import Peer, failure
from tests.client.virtual import outcome, settle, talking, virtual


def text_of(error: BaseException) -> str:
    """Return the message of an exception and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


async def refused(peer: Peer, **options: Any) -> BaseException:
    """Return the error of an attempt to open a session."""

    async def attempt() -> None:
        async with rtnb.connect(peer.url, clock=asyncio.get_running_loop().time, **options):
            return

    error = await outcome(attempt())
    assert isinstance(error, BaseException), "a session was opened"
    return error


# --- refusals ---------------------------------------------------------------------------------------------------------

WRONG_MODEL = failure("invalid_model", 'Model "peer" is not supported in realtime mode.')
WRONG_KEY = failure("invalid_api_key", "Incorrect API key provided: sk-abc123.")
WRONG_VOICE = failure("invalid_value", "Invalid value: 'x'.", param="session.audio.output.voice")


@pytest.mark.parametrize(
    "peer, settings, end, kind, words",
    [
        (Peer(greeting=[WRONG_MODEL]), {}, None, ConnectError, "is not supported in realtime mode"),
        (Peer(greeting=[WRONG_KEY]), {}, None, AuthenticationError, "Incorrect API key"),
        (
            Peer(greeting=[WRONG_KEY]),
            {},
            (3000, "invalid_request_error.invalid_api_key"),
            AuthenticationError,
            "Incorrect API key",
        ),
        (Peer(greeting=[]), {}, (4000, "invalid_request_error.invalid_model"), ConnectError, "model"),
        (
            Peer(refuse={"session.update": [WRONG_VOICE]}, name_errors=False),
            {"voice": "x"},
            None,
            ServiceError,
            "Invalid value: 'x'.",
        ),
        (Peer(dialect="preview"), {}, None, ConnectError, "speaks the preview dialect"),
    ],
    ids=["model", "key", "key, then closed", "closed without an error", "setting, unnamed", "other dialect"],
)
@virtual
async def test_a_refusal_while_connecting_is_reported_at_once(
    peer: Peer, settings: Any, end: tuple[int, str] | None, kind: type[Exception], words: str
) -> None:
    async with peer:
        start_s = asyncio.get_running_loop().time()
        opening = asyncio.create_task(refused(peer, **settings))
        while not peer.paths:
            await settle()
        await settle()
        if end:
            await peer.close(*end)
        error = await opening
        assert isinstance(error, kind), error
        assert words in text_of(error)
        assert "sk-abc123" not in text_of(error)
        assert asyncio.get_running_loop().time() - start_s < 3
        assert end is None or error.status == end[0]
        assert "dialect" not in words or "dialect='preview'" in error.__notes__[0]


@virtual
async def test_a_service_that_says_nothing() -> None:
    async with Peer(greeting=[]) as peer:
        error = await refused(peer, timeout_s=5)
        assert isinstance(error, ConnectError)
        assert "no answer within 5 s" in str(error)


# --- settings are checked before a connection is opened ---------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, kind, words",
    [
        ({"instrutions": "Be kind."}, TypeError, "instructions"),
        ({"voise": "alloy"}, TypeError, "voice"),
        ({"turn_detecton": "server_vad"}, TypeError, "turn_detection"),
        ({"output_formt": "audio/pcmu"}, TypeError, "output_format"),
        ({"timeout": 5}, TypeError, "timeout_s"),
        ({"log_pth": "x.jsonl"}, TypeError, "log_path"),
        ({"output_format": "pcm17"}, ValueError, "pcm17"),
        ({"tools": [5]}, TypeError, "5"),
        ({"config": 5}, TypeError, "SessionConfig"),
        ({"temperature": 0.8}, LocalProtocolError, "session.temperature"),
        ({"turn_detection": {"threshold": 2}}, LocalProtocolError, "threshold"),
    ],
    ids=str,
)
@virtual
async def test_a_typo_or_a_wrong_value_raises_before_a_connection_is_opened(
    settings: dict[str, Any], kind: type[Exception], words: str
) -> None:
    async with Peer() as peer:
        error = await refused(peer, **settings)
        assert isinstance(error, kind), error
        assert peer.paths == [], "a connection was opened"
        found = re.search(rf"\b{words}\b", text_of(error))
        assert found, error
        assert found.start() < 120, "the nearest name comes before the list of all names"


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
