"""Recorded conversation for the tests of this folder: barge-in, tool call, refused update, G.711."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import rtnb
from rtnb.analysis.latency import LatencyMeter
from rtnb.audio import codec, resample
from rtnb.client.log import EventLog, LogRow
from rtnb.protocol import events
from rtnb.trace import Entries, Entry, Timeline

CANARY = "sk-canary-0123456789abcdef0123456789abcdef"


@dataclass
class Talk:
    """Facts of the live session, and its recording."""

    simulator: rtnb.Simulator
    path: Path
    log: EventLog
    answers: dict[str, str]
    """Item id -> checksum of its audio."""

    def facts(self) -> dict[str, Any]:
        """Facts as the widgets of the live session show them, without the secret."""
        timeline, meter = Timeline(), LatencyMeter()
        entries = Entries(timeline)
        meter.feed(self.log)
        for row in self.log:
            timeline.add(row)
            entries.add(row)
        changes = [row for row in self.log if row.type in ("session.created", "session.updated")]
        settings: Any = [(timeline.ms(row), getattr(row.event, "session", None)) for row in changes]
        return facts_of(self.log, entries.timed(), settings, meter) | {"audio": self.answers}


def facts_of(rows: Iterable[LogRow], turns: list[Entry], settings: list[Any], meter: LatencyMeter) -> dict[str, Any]:
    """What a live session and its recording must have in common, as JSON."""
    received: dict[str, bytes] = defaultdict(bytes)
    sent = sha256()
    for row in rows:
        if isinstance(row.event, events.ResponseOutputAudioDelta):
            received[row.event.item_id] += bytes(row.event.delta)
        elif isinstance(row.event, events.InputAudioBufferAppend):
            sent.update(row.event.audio)
    audio = {
        id: resample(codec("audio/pcmu").decode(data), from_rate_hz=8000, to_rate_hz=24_000)
        for id, data in received.items()
    }
    facts = {
        "turns": [asdict(turn) | {"response_id": ""} for turn in turns],
        "audio": {id: sha256(samples.tobytes()).hexdigest() for id, samples in audio.items()},
        "sent": sent.hexdigest(),
        "settings": [(t_ms, repr(config)) for t_ms, config in settings],
        "latency": repr(meter.turns),
    }
    return dict(json.loads(json.dumps(facts).replace(CANARY, "****")))


async def _talk(simulator: rtnb.Simulator, path: Path) -> Talk:
    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        return f"rain in {city}, key {CANARY}"

    weather, count = (
        simulator.speech(text).audio for text in ("What is the weather in Oslo?", "Count to five please!")
    )
    session = await rtnb.connect(
        simulator,
        trace=path,
        turn_detection="server_vad",
        transcription="whisper-1",
        input_format="g711_ulaw",
        output_format="g711_ulaw",
        tools=[get_weather],
    )
    async with session:
        responses = [await session.say(weather, rate_hz=24_000)]
        await asyncio.sleep(0.6)
        responses.append(await session.say(count, rate_hz=24_000))  # while the answer is being played
        with pytest.raises(rtnb.ServiceError):
            await session.update(temperature=9.0)
        await session.update(turn_detection=rtnb.ServerVad(silence_duration_ms=300))
        mcp = {"type": "mcp", "server_label": "shop", "server_url": "https://example.org", "authorization": CANARY}
        await session.send_raw({"type": "session.update", "session": {"type": "realtime", "tools": [mcp]}})
        responses.append(await session.ask("Good bye!"))
    found = {}
    for response in responses:
        [item_id] = {row.event.item_id for row in session.log if _is_audio_of(row.event, response.id)}
        found[item_id] = sha256(response.audio.tobytes()).hexdigest()
    return Talk(simulator, path, session.log, found)


def _is_audio_of(event: Any, response_id: str) -> bool:
    return isinstance(event, events.ResponseOutputAudioDelta) and event.response_id == response_id


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    """A conversation of a few seconds with the simulator, which stays open."""
    with rtnb.Simulator(latency="fast", voice="babble", key=CANARY) as simulator:
        yield asyncio.run(_talk(simulator, tmp_path_factory.mktemp("talk") / "talk.rtnb"))


@pytest.fixture
def trace(talk: Talk) -> Iterator[rtnb.Trace]:
    with rtnb.Trace(talk.path) as opened:
        yield opened
