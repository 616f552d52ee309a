"""A recording survives its process, keeps its bounds, and says what it does not have."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb.errors import TraceError
from rtnb.protocol import events
from rtnb.trace import Trace
from rtnb.trace.file import TraceWriter
from tests.trace.rows import START, delta, log_of, pcm, written

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10
FAST: dict[str, Any] = {"latency": "fast", "voice": "babble"}


# --- a process that is killed -----------------------------------------------------------------------------------------


async def _killed_talk(simulator: rtnb.Simulator, path: Path, seconds: float) -> float:
    """Let a process talk for some seconds, kill it, and return when that was."""
    arguments = [sys.executable, "-m", "tests.trace.talker", simulator.url, simulator.key, str(path)]
    process = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert await process.stdout.readline() == b"open\n"
    await asyncio.sleep(seconds)
    killed_s = time.monotonic()
    process.kill()
    await process.communicate()
    return killed_s


async def test_a_killed_process_loses_less_than_a_second(tmp_path: Path) -> None:
    moments = [random.Random(seed).uniform(0.3, 7.0) for seed in range(KILLS)]
    paths = [tmp_path / f"{number}.rtnb" for number in range(KILLS)]
    sent: dict[str, list[tuple[float, bytes]]] = defaultdict(list)  # by the simulator: item -> [when, audio]

    def watch(event: Any) -> None:
        if isinstance(event, events.ResponseOutputAudioDelta):
            sent[event.item_id].append((time.monotonic(), bytes(event.delta)))

    with rtnb.Simulator(latency="real_time", voice="babble") as simulator:
        simulator._started().service.watcher = lambda owner: watch  # type: ignore[method-assign]
        talks = [_killed_talk(simulator, path, moment) for path, moment in zip(paths, moments, strict=True)]
        killed = [*await asyncio.gather(*talks[:5]), *await asyncio.gather(*talks[5:])]
    n_heard = 0
    for path, killed_s, seconds in zip(paths, killed, moments, strict=True):
        assert not path.exists()
        with Trace(path) as trace:
            assert not trace.manifest["complete"]
            rows = list(trace.rows())
            assert rows[-1].monotonic_s > killed_s - 1.0
            assert seconds <= 1.0 or any(row.type == "input_audio_buffer.append" for row in rows)
            received: dict[str, bytes] = defaultdict(bytes)
            for row in rows:
                if isinstance(row.event, events.ResponseOutputAudioDelta):
                    received[row.event.item_id] += bytes(row.event.delta)
            for item_id, data in received.items():
                assert b"".join(chunk for _, chunk in sent[item_id]).startswith(data)
                assert data.startswith(b"".join(chunk for at_s, chunk in sent[item_id] if at_s < killed_s - 1.0))
                n_heard += len(data)
    assert n_heard > 48_000


# --- a session that ends ----------------------------------------------------------------------------------------------


async def test_a_failed_session_leaves_its_recording(tmp_path: Path) -> None:
    path = tmp_path / "talk.rtnb"
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with rtnb.connect("sim", trace=path, **FAST) as session:
            await session.ask("Hello!")
            raise ZeroDivisionError
    with Trace(path) as trace:
        assert trace.manifest["complete"]
        assert trace.turns[0].text == "Hello!"
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.rtnb"]


async def test_a_folder_gets_a_file_for_each_session(tmp_path: Path) -> None:
    with rtnb.Simulator(**FAST) as simulator:
        for target in (tmp_path, tmp_path, tmp_path / "class-{time}.rtnb"):
            async with rtnb.connect(simulator, trace=target):
                assert len(list(tmp_path.glob("*.part"))) == 1
    assert len(list(tmp_path.glob("2*.rtnb"))) == 2
    assert len(list(tmp_path.glob("class-2*.rtnb"))) == 1
    assert len(list(tmp_path.iterdir())) == 3


async def test_an_open_recording_can_be_read(tmp_path: Path) -> None:
    async with rtnb.connect("sim", trace=tmp_path / "talk.rtnb", **FAST) as session:
        await session.ask("Hello!")
        while not (tmp_path / "talk.rtnb.part" / "events.jsonl").stat().st_size:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with Trace(tmp_path / "talk.rtnb") as trace:
            assert "the recording did not end" in repr(trace)
            assert trace.settings


async def test_what_a_crash_left_is_renamed_and_not_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    TraceWriter(tmp_path / "talk.rtnb.part", {"clock": {}}).close()
    async with rtnb.connect("sim", trace=tmp_path / "talk.rtnb", **FAST):
        pass
    [left] = tmp_path.glob("talk.rtnb-2*.part")
    assert left.name in caplog.text
    with Trace(tmp_path / "talk.rtnb") as trace, Trace(left) as before:
        assert trace.manifest["complete"]
        assert before.turns == []


async def test_a_path_that_cannot_be_written_closes_the_session(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with rtnb.Simulator(**FAST) as simulator:
        with pytest.raises(TraceError, match="cannot record into"):
            await rtnb.connect(simulator, trace=tmp_path / "file" / "talk.rtnb")
        while simulator.n_sessions:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_audio_takes_nine_tenths_of_the_bound_and_events_the_rest(tmp_path: Path) -> None:
    log = log_of(START, *((11 + i / 10, events.InputAudioBufferAppend(audio=pcm(100))) for i in range(30)))
    with Trace(written(tmp_path / "talk.rtnb", log, max_bytes=120_000)) as trace:
        assert len(trace.events) == 31
        kept = sum(len(row.event.audio) for row in trace.events.filter("*append"))
        n_lines = sum(not row.audio_dropped_bytes for row in trace.events)
        assert kept <= 108_000 < kept + 4_800 + 300 * n_lines


async def test_a_bound_leaves_out_audio_first(tmp_path: Path) -> None:
    path = tmp_path / "talk.rtnb"
    async with rtnb.connect("sim", trace=path, trace_max_bytes=60_000, turn_detection=None, **FAST) as session:
        for _ in range(4):
            await session.input_audio_buffer.append(pcm(500))
        await session.input_audio_buffer.clear()
    assert path.stat().st_size < 60_000
    with Trace(path) as trace:
        assert trace.manifest["dropped"] == {"events": 0, "audio_bytes": 48_000}
        assert trace.manifest["tracks"]["user"] == {"bytes": 48_000}
        assert [row.audio_dropped_bytes for row in trace.events.filter("*append")] == [0, 0, 24_000, 24_000]
        assert trace.events[-1].type == "input_audio_buffer.cleared"


# --- from the log -----------------------------------------------------------------------------------------------------


async def test_a_session_without_a_recording_saves_its_log(tmp_path: Path) -> None:
    async with rtnb.connect("sim", **FAST) as session:
        response = await session.ask("Hello!")
        with Trace(session.save_trace(tmp_path / "new" / "talk.rtnb")) as trace:
            assert trace.transcript.startswith("You: Hello!")
            heard = trace.model_audio.read(trace.turns[1].start_ms)
            assert np.array_equal(heard[: len(response.audio)], response.audio)
            assert trace.manifest["notes"] == []


async def test_a_saved_log_says_what_it_had_dropped(tmp_path: Path) -> None:
    async with rtnb.connect("sim", log_limit_bytes=150_000, **FAST) as session:
        await session.ask("Count to five!")
        assert session.log.dropped.audio_bytes
        with Trace(session.save_trace(tmp_path / "talk.rtnb")) as trace:
            assert "which had dropped" in trace.manifest["notes"][0]
            assert trace.manifest["dropped"]["audio_bytes"] == session.log.dropped.audio_bytes
            assert trace.turns[1].has_audio


# --- where a track is missing -----------------------------------------------------------------------------------------


def test_a_call_says_that_its_audio_went_past_the_kernel(tmp_path: Path) -> None:
    with Trace(written(tmp_path / "call.rtnb", log_of(START), webrtc=True)) as trace:
        assert trace.user_audio is trace.model_audio is trace.heard_audio is None
        for name in ("user", "model", "heard"):
            assert trace.manifest["tracks"][name]["missing"].startswith("WebRTC: this audio went between the page")


def test_a_speaker_says_when_it_began_to_play(tmp_path: Path) -> None:
    rows = log_of(START, (11.0, delta(500)))
    with Trace(written(tmp_path / "talk.rtnb", rows, ("a", 200.0, 11.6))) as trace:
        assert not trace.heard_audio.read(1000, 1399).any()
        assert trace.heard_audio.read(1401, 1800).all()


def test_sent_audio_that_ends_within_a_sample_does_not_move_what_follows(tmp_path: Path) -> None:
    sent = [(11 + i, events.InputAudioBufferAppend(audio=part)) for i, part in enumerate((b"abc", pcm(100), pcm(100)))]
    with Trace(written(tmp_path / "talk.rtnb", log_of(START, *sent))) as trace:
        assert np.unique(trace.user_audio.read(1900, 3000) * 2**15).tolist() == [0, 1000]


def test_half_a_sample_is_joined_with_its_other_half(tmp_path: Path) -> None:
    halves = [
        (at_s, events.ResponseOutputAudioDelta(response_id="r", item_id="a", delta=part))
        for at_s, part in ((11.0, pcm(100)[:2401]), (11.01, pcm(100)[2401:]))
    ]
    with Trace(written(tmp_path / "talk.rtnb", log_of(START, *halves))) as trace:
        assert np.unique(trace.model_audio.read(1000, 1100) * 2**15).tolist() == [1000]
        assert np.count_nonzero(trace.model_audio) == 2400
