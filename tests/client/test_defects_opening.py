"""Opening a session: refusals at once, settings checked first, nothing forgotten, shared simulators."""

import asyncio
import re
from typing import Any

import pytest

import rtnb
from rtnb.errors import AuthenticationError, ConnectError, RtnbError
from tests.client.peer import Peer, failure
from tests.client.virtual import outcome, virtual

WRONG_MODEL = failure("invalid_model", 'Model "peer" is not supported in realtime mode.')


def text_of(error: BaseException) -> str:
    """Return the message of an exception and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


@virtual
async def test_an_error_and_then_silence_while_connecting_is_reported_at_once() -> None:
    loop = asyncio.get_running_loop()
    async with Peer(greeting=[WRONG_MODEL], silent=True) as peer:
        start_s = loop.time()
        error = await outcome(_open(peer.url, clock=loop.time))
        assert isinstance(error, ConnectError), error
        assert "is not supported in realtime mode" in text_of(error)
        assert loop.time() - start_s < 3


@virtual
async def test_a_refused_key_and_then_silence_is_an_authentication_error() -> None:
    loop = asyncio.get_running_loop()
    async with Peer(greeting=[failure("invalid_api_key", "Incorrect API key provided.")], silent=True) as peer:
        error = await outcome(_open(peer.url, clock=loop.time))
        assert isinstance(error, AuthenticationError), error


@virtual
async def test_settings_that_a_service_refuses_without_naming_the_event_are_reported_at_once() -> None:
    loop = asyncio.get_running_loop()
    refusal = failure("invalid_value", "Invalid value: 'x'.", param="session.audio.output.voice")
    async with Peer(refuse={"session.update": [refusal]}, name_errors=False) as peer:
        start_s = loop.time()
        error = await outcome(_open(peer.url, clock=loop.time, voice="x"))
        assert isinstance(error, RtnbError), error
        assert "Invalid value: 'x'." in text_of(error)
        assert loop.time() - start_s < 3


async def _open(target: Any, **options: Any) -> None:
    async with rtnb.connect(target, **options):
        return


# --- settings are checked before a connection is opened ---------------------------------------------------------------

TYPOS = {
    "instrutions": ("Be kind.", "instructions"),
    "voise": ("alloy", "voice"),
    "turn_detecton": ("server_vad", "turn_detection"),
    "output_formt": ("audio/pcmu", "output_format"),
    "timeout": (5, "timeout_s"),
    "log_pth": ("x.jsonl", "log_path"),
}


@pytest.mark.parametrize("typo", TYPOS)
@virtual
async def test_a_typo_in_a_setting_raises_before_a_connection_is_opened_and_names_the_nearest(typo: str) -> None:
    async with Peer() as peer:
        value, right = TYPOS[typo]
        error = await outcome(_open(peer.url, **{typo: value}))
        assert isinstance(error, TypeError), error
        assert peer.paths == [], "a connection was opened"
        found = re.search(rf"\b{right}\b", text_of(error))
        assert found, error
        assert found.start() < 120, "the nearest name comes before the list of all names"


@pytest.mark.parametrize("settings", [{"output_format": "pcm17"}, {"tools": [5]}, {"config": 5}], ids=str)
@virtual
async def test_a_wrong_value_raises_before_a_connection_is_opened(settings: dict[str, Any]) -> None:
    async with Peer() as peer:
        error = await outcome(_open(peer.url, **settings))
        assert isinstance(error, TypeError | ValueError | RtnbError), error
        assert peer.paths == [], "a connection was opened"


@pytest.mark.parametrize("call", ["update", "ask", "create"])
@virtual
async def test_a_typo_in_a_call_raises_before_anything_is_sent(call: str) -> None:
    async with Peer() as peer, rtnb.connect(peer.url, clock=asyncio.get_running_loop().time) as session:
        calls = {
            "update": lambda: session.update(instrutions="Be kind."),
            "ask": lambda: session.ask("Hello?", instrutions="Be kind."),
            "create": lambda: session.response.create(instrutions="Be kind."),
        }
        error = await outcome(calls[call]())
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
