"""The stock clients of OpenAI against the simulator, as their documents show them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from rtnb.audio import read_wav
from rtnb.simulator import Simulator
from tests.simulator.rig import chunks, encoded
from tests.simulator.test_session import WEATHER


@pytest.fixture
async def client(sim: Simulator) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{sim.url}/openai/v1", api_key=sim.key) as client:
        yield client


@pytest.fixture
async def connection(client: AsyncOpenAI) -> AsyncIterator[Any]:
    async with client.realtime.connect(model="any") as connection:
        yield connection


async def until(connection: Any, *types: str) -> list[Any]:
    seen = []
    async for event in connection:
        seen.append(event)
        if event.type in types:
            break
    return seen


async def speak(connection: Any, pcm: bytes) -> None:
    for chunk in chunks(pcm):
        await connection.input_audio_buffer.append(audio=base64.b64encode(chunk).decode())


async def answered(connection: Any, item: dict[str, Any] | str, last: str = "response.done") -> list[Any]:
    """The events of a turn that begins with an item, or with a text."""
    if isinstance(item, str):
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": item}]}
    await connection.conversation.item.create(item=item)
    await connection.response.create()
    return await until(connection, last)


async def test_a_written_turn(connection: Any) -> None:
    events = await answered(connection, "What is a delta?")
    words = "".join(e.delta for e in events if e.type == "response.output_audio_transcript.delta")
    assert "one streamed piece" in words
    audio = b"".join(base64.b64decode(e.delta) for e in events if e.type == "response.output_audio.delta")
    assert np.abs(np.frombuffer(audio, "<i2")).max() > 3000
    assert events[-1].response.status == "completed"
    assert events[-1].response.usage.total_tokens > 0


async def test_a_spoken_turn_of_a_recording(connection: Any, shared_speech: Callable[[str], Path]) -> None:
    audio, _ = read_wav(shared_speech("whats_the_weather_pcm16_24khz_mono.wav"))
    await speak(connection, encoded(audio) + bytes(48_000))
    events = await until(connection, "response.done")
    order = [e.type for e in events if e.type.startswith("input_audio_buffer.")]
    assert order == [f"input_audio_buffer.{w}" for w in ("speech_started", "speech_stopped", "committed")]
    assert events[-1].response.status == "completed"
    assert "I heard you speak for" in events[-1].response.output[0].content[0].transcript


async def test_a_tool_call(connection: Any) -> None:
    await connection.session.update(session={"type": "realtime", "tools": [WEATHER], "output_modalities": ["text"]})
    (call,) = (await answered(connection, "What is the weather in Lund?"))[-1].response.output
    assert json.loads(call.arguments) == {"city": "Lund"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    done = (await answered(connection, output))[-1].response
    assert done.output[0].content[0].text == "The tool answered: rain"


async def test_a_client_secret_opens_a_session(sim: Simulator, client: AsyncOpenAI) -> None:
    made = await client.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session={"type": "realtime", "model": "any", "audio": {"output": {"voice": "marin"}}},
    )
    assert made.session.type == "realtime"
    assert made.session.audio.output.voice == "marin"  # type: ignore[union-attr]
    async with (
        AsyncOpenAI(base_url=f"{sim.url}/v1", api_key=made.value) as guest,
        guest.realtime.connect(model="any") as connection,
    ):
        (created,) = await until(connection, "session.created")
        assert created.session.audio.output.voice == "marin"


async def test_azure_in_the_preview(sim: Simulator) -> None:
    base = f"{sim.url.replace('http', 'ws')}/openai"
    async with (
        AsyncAzureOpenAI(
            azure_endpoint=sim.url, websocket_base_url=base, api_key=sim.key, api_version="2025-04-01-preview"
        ) as client,
        client.beta.realtime.connect(model="any") as connection,
    ):
        await connection.session.update(session={"modalities": ["text"]})
        events = await answered(connection, "What is a delta?")
    assert events[0].type == "session.created"
    words = "".join(e.delta for e in events if e.type == "response.text.delta")
    assert "one streamed piece" in words


async def test_a_transcription_session(sim: Simulator, client: AsyncOpenAI) -> None:
    known = sim.speech("Tell me a joke")
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        audio: Any = {"input": {"transcription": {"model": "whisper-1"}, "turn_detection": None}}
        await connection.session.update(session={"type": "transcription", "audio": audio})
        await speak(connection, encoded(known.audio))
        await connection.input_audio_buffer.commit()
        done = "conversation.item.input_audio_transcription.completed"
        assert (await until(connection, done))[-1].transcript == "Tell me a joke"
