"""``rtnb simulate`` as a process of its own: `rtnb.simulator.serve`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from rtnb.simulator.host import Options, Running
from rtnb.simulator.serve import _announcement
from rtnb.transport import Custom
from tests.benchmarks.attacks import append, until
from tests.benchmarks.attacks import socket as attacked
from tests.benchmarks.stage import memory_mb

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
PATIENCE_S = 30.0


@contextlib.asynccontextmanager
async def simulate(*words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """The command, and its line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rtnb", "simulate", "--json", "--port", "0", "--latency", "fast", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        yield process, json.loads(line) if line else {}
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode, out.decode(), err.decode()


async def test_its_one_line_is_all_that_clients_need() -> None:
    async with simulate("--voice", "babble") as (process, line):
        assert list(line) == ["http", "ga", "preview", "key"]
        item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
        async with (
            AsyncOpenAI(base_url=line["http"], websocket_base_url=line["ga"], api_key=line["key"]) as client,
            client.realtime.connect(model="any") as connection,
        ):
            await connection.conversation.item.create(item=item)
            await connection.response.create()
            async for event in connection:
                if event.type == "response.done":
                    assert event.response.status == "completed"
                    break
        azure = AsyncAzureOpenAI(
            azure_endpoint=line["http"],
            websocket_base_url=line["preview"],
            api_key=line["key"],
            api_version="2025-04-01-preview",
        )
        async with azure, azure.beta.realtime.connect(model="any") as connection:
            assert (await connection.recv()).type == "session.created"
        for target in (
            Custom(line["ga"], model="any", api_key=line["key"]),
            Custom(line["http"].replace("http", "ws"), api_key=line["key"]),
        ):
            transport = await target.open()
            assert "session.created" in await transport.receive()
            await transport.close()
        process.terminate()
        code, out, err = await ended(process)
        assert (code, out, err) == (0, "", "")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
async def test_a_signal_stops_it_with_sessions_open(name: str) -> None:
    async with simulate("--key", "mine") as (process, line):
        assert line["key"] == "mine"
        async with aiohttp.ClientSession() as http:
            url, headers = f"{line['http']}/v1/realtime?model=m", {"Authorization": "Bearer mine"}
            ws = await http.ws_connect(url, headers=headers)
            silent = await http.ws_connect(url, headers=headers, autoping=False)
            await ws.receive_json()
            os.killpg(process.pid, getattr(signal, name))  # as a terminal does: the voice's process hears it, too
            message = await ws.receive(timeout=10)
            assert (message.type, ws.close_code) == (aiohttp.WSMsgType.CLOSE, 1001)
            code, out, err = await ended(process)  # the other client never answers, and keeps nobody waiting
            assert (code, out, err) == (0, "", "")
            await silent.close()


async def test_tls_says_what_to_trust() -> None:
    async with simulate("--voice", "babble", "--tls") as (_, line):
        assert line["ga"].startswith("wss://")
        trust = ssl.create_default_context(cadata=line["certificate"])
        async with aiohttp.ClientSession() as http:
            headers = {"api-key": line["key"]}
            async with http.ws_connect(f"{line['ga']}/realtime?model=m", headers=headers, ssl=trust) as ws:
                assert (await ws.receive_json())["type"] == "session.created"


async def test_two_workers_share_port_keys_and_end() -> None:
    async with simulate("--voice", "babble", "--workers", "2", "--key", "mine") as (process, line):
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer mine"}) as http:
            url = f"{line['http']}/v1/realtime"
            sockets = [await http.ws_connect(f"{url}?model=m") for _ in range(16)]
            ids = {(await ws.receive_json())["session"]["id"] for ws in sockets}
            assert len(ids) == 16  # no two workers number their sessions alike
            async with http.post(f"{url}/client_secrets", json={}) as answer:
                ephemeral = (await answer.json())["value"]
            for _ in range(8):  # whichever worker it reaches
                ws = await http.ws_connect(f"{url}?model=m", headers={"Authorization": f"Bearer {ephemeral}"})
                assert (await ws.receive_json())["type"] == "session.created"
                await ws.close()
            async with http.post(f"{url}/calls/rtc_1/hangup") as answer:
                assert "a call stays with its worker" in (await answer.json())["error"]["message"]
            process.terminate()
            for ws in sockets:
                assert (await ws.receive(timeout=10)).type == aiohttp.WSMsgType.CLOSE
        assert await ended(process) == (0, "", "")


async def test_workers_end_with_a_parent_that_is_killed() -> None:
    async with simulate("--voice", "babble", "--workers", "2", "--key", "mine") as (process, line):
        process.kill()
        await process.wait()
        async with aiohttp.ClientSession() as http:
            until_s = time.monotonic() + PATIENCE_S
            while (answers := await _answers(http, line["http"])) and time.monotonic() < until_s:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert not answers


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url):
            return True
    except aiohttp.ClientConnectionError:
        return False


@pytest.mark.parametrize(
    "words, said",
    [
        (("--latency", "slow"), "latency 'slow' is not known"),
        (("--host", "192.0.2.1"), "192.0.2.1"),
        (("--workers", "2", "--scenario", "/nowhere.json"), "cannot be read"),
        (("--workers", "2", "--class"), "--class works with one worker"),
    ],
)
async def test_what_cannot_start_says_why(words: tuple[str, ...], said: str) -> None:
    async with simulate(*words) as (process, line):
        assert line == {}
        code, _, err = await ended(process)
        assert code == 1
        assert said in err
        assert "Traceback" not in err


async def test_a_taken_port_is_named_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with simulate("--voice", "babble", "--port", port) as (process, line):
            assert line == {}
            code, _, err = await ended(process)
            assert code == 1
            assert port in err
            assert "another port" in err


async def test_an_address_that_others_can_reach_is_warned_about() -> None:
    async with simulate("--voice", "babble", "--host", "0.0.0.0") as (process, line):
        assert line["http"].startswith("http://127.0.0.1:")
        process.terminate()
        code, _, err = await ended(process)
        assert code == 0
        assert "can be reached by other machines" in err
        assert "not encrypted" in err
        assert line["key"] not in err


async def test_it_says_where_to_call_or_why_nobody_can(monkeypatch: pytest.MonkeyPatch) -> None:
    running = await Running.start(Options(voice="babble"))
    try:
        assert f"WebRTC   {running.http}/openai/v1/realtime/calls" in _announcement(running, json_line=False)
        monkeypatch.setattr("ifaddr.get_adapters", list)
        assert "WebRTC   no: WebRTC does not connect over the loopback" in _announcement(running, json_line=False)
    finally:
        await running.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process from /proc")
async def test_memory_that_long_messages_took_goes_back_to_the_system() -> None:
    escapes, brackets, audio = '{"a":"' + "\\u0041" * 1_000_000, "[" * 8_000_000, append(15 * 2**20)

    async def attack(line: dict[str, Any], texts: list[str]) -> None:
        async with attacked(line) as ws:
            for text in [*texts, '{"type":"input_audio_buffer.clear"}']:
                await ws.send_str(text)
            await until(ws, "input_audio_buffer.cleared")

    async with simulate("--voice", "babble") as (process, line):
        await attack(line, ["{}"])
        before_mb = memory_mb(process.pid)
        for text in 2 * [audio, escapes, brackets]:
            await attack(line, 3 * [text])
        async with asyncio.timeout(PATIENCE_S):
            while memory_mb(process.pid) > before_mb + 40:  # noqa: ASYNC110  # until the last session has ended
                await asyncio.sleep(0.1)
