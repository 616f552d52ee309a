"""The simulator in a thread of this process: its life, its options, and that the key stays where it belongs."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import aiohttp
import pytest

from rtnb.errors import ConnectError, LocalProtocolError, ScenarioError
from rtnb.protocol import Connection
from rtnb.simulator import Options, Simulator
from tests.simulator.plain import fetch

QUICK: dict[str, Any] = {"latency": "fast", "voice": "babble"}


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rtnb")]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test no thread of a simulator runs."""
    yield
    assert ours() == []


def children() -> list[str]:
    """The voices' processes that have this one as parent (where there is a `ps`)."""
    if shutil.which("ps") is None:
        pytest.skip("there is no ps here")
    words = ["ps", "-ww", "-o", "args=", "--ppid", str(os.getpid())]
    listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return [line for line in listed.splitlines() if "_espeak_worker" in line]


def test_it_starts_stops_and_starts_again() -> None:
    simulator = Simulator(**QUICK)
    assert not simulator.running
    first = simulator.start().url
    assert simulator.start().url == first
    assert simulator.running
    assert ours()
    simulator.stop()
    simulator.stop()
    assert (simulator.running, ours()) == (False, [])
    with simulator:
        assert simulator.running


@pytest.mark.skipif(sys.platform == "win32", reason="no ps")
def test_the_process_of_its_voice_ends_with_it() -> None:
    with Simulator(latency="fast", voice="auto") as simulator:
        if not simulator.voice.startswith("espeak"):
            pytest.skip(f"the voice here is {simulator.voice}")
        assert children()
    assert children() == []


async def test_two_that_open_it_at_once_get_the_same_service() -> None:
    simulator = Simulator(**QUICK)
    try:
        first, second = await asyncio.gather(simulator.open(), simulator.open())
        for transport in (first, second):
            assert "session.created" in await transport.receive()
        assert simulator.n_sessions == 2
        assert len(ours()) == 1
        await first.close()
        await second.close()
    finally:
        await simulator.astop()


async def test_stopping_closes_the_sessions_with_1001() -> None:
    async with aiohttp.ClientSession() as http:
        simulator = await Simulator(**QUICK).astart()
        ws = await http.ws_connect(f"{simulator.url}/openai/v1/realtime?model=m", headers={"api-key": simulator.key})
        await ws.receive_json()
        stopping = asyncio.create_task(simulator.astop())
        message = await ws.receive()
        assert (message.type, ws.close_code, message.extra) == (aiohttp.WSMsgType.CLOSE, 1001, "the simulator stops")
        await stopping


def test_a_taken_port_is_an_error_with_a_way_out_and_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        simulator = Simulator(port=port, **QUICK)
        with pytest.raises(OSError, match=str(port)) as failed:
            simulator.start()
        assert "another port" in "".join(failed.value.__notes__)
        assert ours() == []
    with simulator:  # free now
        assert simulator.url.endswith(f":{port}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_url_is_where_it_listens_and_nobody_else_reaches_it(host: str) -> None:
    with Simulator(host=host, **QUICK) as simulator:
        assert simulator.url.startswith(f"http://{host}:")
        assert (await fetch(f"{simulator.url}/nothing", "GET")).status == 404
        assert {address[0] for address in simulator._started().runner.addresses} <= {"127.0.0.1", "::1"}
    assert Options().host == "127.0.0.1"


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"nonsense": 1}, TypeError, "nonsense"),
        ({"dialect": "beta"}, LocalProtocolError, "'ga', 'preview'"),
        ({"port": 70_000}, ValueError, "0 .a free one. to 65535"),
        ({"latency": "slow"}, ValueError, "latency 'slow' is not known"),
        ({"faults": ("drip",)}, ScenarioError, "did you mean 'drop'"),
        ({"scenario": {"steps": [{}]}}, ScenarioError, "does nothing"),
        ({"scenario": "/nowhere.json"}, ScenarioError, "cannot be read"),
        ({"chat_url": "http://a?key=b"}, ValueError, "address of the chat service is none"),
        ({"session_minutes": 0}, ValueError, "above 0"),
    ],
)
def test_what_cannot_be_is_refused_at_once(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Simulator(**options)


def test_before_the_start_it_says_what_to_do() -> None:
    with pytest.raises(LocalProtocolError) as failed:
        Simulator().url  # noqa: B018
    assert "start()" in "".join(failed.value.__notes__)


def test_the_key_is_fresh_unless_given() -> None:
    with Simulator(**QUICK) as first, Simulator(**QUICK) as second, Simulator(key="mine", **QUICK) as third:
        assert len({first.key, second.key, third.key}) == 3
        assert third.key == "mine"


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_it_is_a_target(dialect: Any) -> None:
    with Simulator(dialect=dialect, **QUICK) as simulator:
        made = await simulator.ephemeral_key(session={"instructions": "Whales."})
        assert made.session["instructions"] == "Whales."
        transport = await simulator.open()
        client = Connection("client", dialect=dialect)
        created: Any = client.receive(await transport.receive())
        assert created.session.model == simulator.model
        assert client.peer_dialect == dialect
        await transport.close()
        transcribing = await simulator.open(intent="transcription")
        assert "transcription_session" in await transcribing.receive()
        await transcribing.close()


async def test_the_key_is_nowhere_but_where_it_is_asked_for(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    key, wrong = "very-secret-key-0123456789abcdef", "wrong-secret-key-fedcba9876543210"
    said = []
    with Simulator(key=key, **QUICK) as simulator:
        said.append(f"{simulator!r} {simulator} {simulator.options!r} {simulator.facts!r} {simulator.target!r}")
        said.append(f"{simulator._started().service!r} {simulator._started().service.keys!r}")
        ways: list[tuple[str, dict[str, str], tuple[str, ...]]] = [
            (f"?model=m&api-key={key}", {}, ()),
            ("?model=m", {"api-key": key}, ()),
            ("?model=m", {"Authorization": f"Bearer {key}"}, ()),
            ("?model=m", {}, ("realtime", f"openai-insecure-api-key.{key}")),
            ("?model=m", {"api-key": wrong}, ()),
            (f"?model=m&api-key={wrong}", {}, ()),
            ("?model=m", {"api-key": key, "Authorization": f"Bearer {key}"}, ()),
        ]
        async with aiohttp.ClientSession() as http:
            for (query, headers, protocols), path in product(ways, ("/openai/v1/realtime", "/v1/realtime")):
                try:
                    ws = await http.ws_connect(simulator.url + path + query, headers=headers, protocols=protocols)
                except aiohttp.WSServerHandshakeError as error:
                    said.append(str(error.message))
                else:
                    said.append(str(await ws.receive()))
                    await ws.send_str("{")
                    said.append(str(await ws.receive()))
                    await ws.close()
        for value in (key, wrong):
            url, headers = f"{simulator.url}/v1/realtime/client_secrets", {"Authorization": f"Bearer {value}"}
            said.append((await fetch(url, headers=headers, json={})).text)
    said += [record.getMessage() for record in caplog.records if not record.name.startswith("aiohttp.client")]
    said += capfd.readouterr()
    for secret in (key, wrong):
        assert not [text for text in said if secret in text]


def test_importing_it_loads_no_certificates() -> None:
    code = "import sys, rtnb.simulator; print('cryptography' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


# --- references -------------------------------------------------------------------------------------------------------


async def answers(transport: Any) -> bool:
    """Whether a session still answers over its socket."""
    await transport.send('{"type": "input_audio_buffer.clear"}')
    async with asyncio.timeout(10):
        while "input_audio_buffer.cleared" not in await transport.receive():
            pass
    return True


async def visit(simulator: Simulator) -> bool:
    """Open a session, use it and close it."""
    transport = await simulator.open()
    try:
        return await answers(transport)
    finally:
        await transport.close()


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """One that is not started; stopped at the end."""
    made = Simulator(**QUICK)
    yield made
    await made.astop()


async def test_a_shared_simulator_stops_with_its_last_reference(simulator: Simulator) -> None:
    await simulator.acquire()
    first = await simulator.open()
    await simulator.acquire()
    second = await simulator.open()
    simulator.speech("Hello.")
    await first.close()
    await simulator.release()
    assert await answers(second)
    await second.close()
    await simulator.release()
    assert (simulator.running, ours()) == (False, [])
    with pytest.raises(LocalProtocolError, match="more often than acquire"):
        await simulator.release()


@pytest.mark.parametrize("owner_first", [True, False])
async def test_a_reference_does_not_stop_what_the_owner_started(simulator: Simulator, owner_first: bool) -> None:
    if owner_first:
        await simulator.astart()
    await simulator.acquire()
    if not owner_first:
        await simulator.astart()  # the owner takes over a run that a reference started
    await simulator.release()
    assert await visit(simulator)


async def test_what_open_started_stays_until_it_is_stopped(simulator: Simulator) -> None:
    transport = await simulator.open()
    await simulator.acquire()
    await simulator.release()
    assert await answers(transport)
    await transport.close()


def test_references_are_taken_and_given_back_in_several_threads() -> None:
    simulator = Simulator(**QUICK)

    async def use() -> None:
        for _ in range(4):
            await simulator.acquire()
            try:
                assert await visit(simulator)
            finally:
                await simulator.release()

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(asyncio.run, use()) for _ in range(6)]:
            done.result()
    assert not simulator.running


async def test_an_acquire_that_fails_holds_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        simulator = Simulator(port=taken.getsockname()[1], **QUICK)
        outcomes = await asyncio.gather(simulator.acquire(), simulator.acquire(), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
        assert ours() == []
    await simulator.acquire()  # the port is free now
    assert simulator.running
    await simulator.release()


@pytest.mark.parametrize("n_others", [0, 1])
async def test_a_cancelled_acquire_leaves_the_others_alone(simulator: Simulator, n_others: int) -> None:
    first, *others = [asyncio.create_task(simulator.acquire()) for _ in range(1 + n_others)]
    for _ in range(2 - n_others):  # alone: also while it cleans up
        await asyncio.sleep(0)
        first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.gather(*others)
    assert simulator.running == (n_others > 0)


async def test_the_owner_may_stop_it_under_its_references(simulator: Simulator) -> None:
    starting = asyncio.create_task(simulator.acquire())
    await asyncio.sleep(0)
    await simulator.astop()
    with pytest.raises(ConnectError, match="stopped while it started"):
        await starting
    await simulator.acquire()
    await simulator.astop()
    await simulator.acquire()
    transport = await simulator.open()
    await simulator.release()  # of the run that is over
    assert await answers(transport)
    await transport.close()


async def test_it_starts_again_on_its_port_while_it_still_ends(unused_tcp_port: int) -> None:
    simulator = Simulator(port=unused_tcp_port, **QUICK)
    await simulator.acquire()
    transport = await simulator.open()  # its goodbye takes a moment
    ending = asyncio.create_task(simulator.release())
    await asyncio.sleep(0)
    await simulator.acquire()
    assert await visit(simulator)
    await transport.close()
    await ending
    await simulator.release()


@pytest.mark.parametrize("last", ["", "del simulator; gc.collect()", "asyncio.run(simulator.open())"])
@pytest.mark.parametrize("voice", ["babble", "auto"])
def test_a_simulator_that_is_never_released_lets_the_interpreter_exit(voice: str, last: str) -> None:
    code = f"""
import asyncio, gc
from rtnb.simulator import Simulator
simulator = Simulator(latency="fast", voice={voice!r})
asyncio.run(simulator.acquire())
simulator.speech("Hello.")
{last}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
