"""A replay repeats the user's side; a simulator with a recording repeats the service's side."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import rtnb
from rtnb.client.log import LogRow
from rtnb.errors import TraceError
from rtnb.protocol import events
from rtnb.protocol.values import SessionConfig
from rtnb.trace import Trace
from tests.trace.conftest import Talk, talk, trace
from tests.trace.rows import log_of

__all__ = ["talk", "trace"]  # fixtures

FRAME_MS = 32
LIMIT_MS = 20.0


def _boundaries(trace: Trace) -> list[tuple[str, int]]:
    names = {"input_audio_buffer.speech_started": "audio_start_ms", "input_audio_buffer.speech_stopped": "audio_end_ms"}
    return [(row.type, getattr(row.event, names[row.type])) for row in trace.log if row.type in names]


async def test_the_same_timing_gives_the_same_turns(talk: Talk, trace: Trace, tmp_path: Path) -> None:
    with await rtnb.replay(trace, talk.simulator, path=tmp_path / "again.rtnb") as again:
        (names, old_ms), (new_names, new_ms) = (zip(*_boundaries(one), strict=True) for one in (trace, again))
        assert new_names == names
        assert np.abs(np.subtract(new_ms, old_ms)).max() <= FRAME_MS
        texts, new_texts = ([one.text for one in side.turns if one.role != "assistant"] for side in (trace, again))
        assert new_texts == texts
        assert len(again.log.filter("error")) == 1  # the update is refused again


async def test_reacting_waits_for_each_answer_and_takes_other_settings(talk: Talk, trace: Trace) -> None:
    settings = {"instructions": "Be brief.", "input_format": "audio/pcm"}
    with await rtnb.replay(trace, talk.simulator, mode="reacting", settings=settings) as again:
        config = again.settings_at(again.duration_ms)
        assert (config.instructions, config.input_format.type) == ("Be brief.", "audio/pcm")
        assert [turn.status for turn in again.turns if turn.role == "assistant"] == ["complete"] * 3
        texts = ["What is the weather in Oslo?", "Count to five please!", "Good bye!"]
        assert [turn.text for turn in again.turns if turn.role == "user"] == texts
        assert "rain in Oslo" in next(turn.text for turn in again.turns if turn.role == "tool")


async def test_an_unknown_mode_is_refused(talk: Talk) -> None:
    with pytest.raises(ValueError, match="mode is 'fast'; allowed are 'same timing' and 'reacting'"):
        await rtnb.replay(talk.path, talk.simulator, mode="fast")  # type: ignore[arg-type]


async def test_a_missing_trace_is_said_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="is not there"):
        await rtnb.replay(tmp_path / "none.rtnb", "sim")


# --- the other side ---------------------------------------------------------------------------------------------------


async def _lateness_ms(found: list[float]) -> None:
    """Measure how late this busy computer wakes a task."""
    while True:
        due_s = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        found.append(1000 * (time.monotonic() - due_s))


async def test_a_client_of_a_recording_receives_the_same_events_at_the_same_times(trace: Trace) -> None:
    lateness_ms: list[float] = []
    with rtnb.Simulator(replay=trace) as service:
        probe = asyncio.create_task(_lateness_ms(lateness_ms))
        again = await rtnb.replay(trace, service)
        probe.cancel()
    with again:
        old, new = ([row for row in one.rows() if row.direction == "received"] for one in (trace, again))
        assert [row.type for row in new] == [row.type for row in old]
        for a, b in zip(old, new, strict=True):
            # The begin and the end of a response echo an id of the client.
            if re.match("response.(?!created|done)|input_audio", a.type):
                assert a.event == b.event
    # From event to event: a stall of this computer is in one distance, and not in all that follow.
    distances = [np.diff([1000 * row.monotonic_s for row in rows]) for rows in (old, new)]
    own_ms = np.percentile(lateness_ms, 95)  # this computer's own lateness
    assert np.percentile(np.abs(distances[1] - distances[0]), 95) <= LIMIT_MS + 2 * own_ms
    assert abs(distances[1].sum() - distances[0].sum()) < 1000


async def test_a_person_gets_the_recorded_answers(trace: Trace) -> None:
    sent = [row for row in trace.rows() if row.type == "input_audio_buffer.append"]
    setup = [row for row in trace.log.filter("session.update") if row.number < sent[0].number]
    with rtnb.Simulator(replay=trace) as service:
        async with rtnb.connect(service) as session:
            for row in (*setup, *sent[: len(sent) // 2]):
                await session.send(row.event)
            async with asyncio.timeout(10):
                async for event in session:
                    if event.type == "response.function_call_arguments.done":
                        break
            assert "Oslo" in event.arguments
            assert service.n_sessions == 1


async def test_a_recording_waits_for_the_client(trace: Trace) -> None:
    with rtnb.Simulator(replay=trace) as service:
        async with rtnb.connect(service, request_timeout_s=0.3) as session:
            with pytest.raises(rtnb.RequestTimeout):
                await session.conversation.item.create("Hello!")


async def test_a_recording_that_cannot_be_read_closes_the_session(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def rows(self) -> Iterator[LogRow]:
            yield from log_of((10.0, events.SessionCreated(session=SessionConfig(), event_id="e")))
            raise TraceError("event 1 cannot be read")

    with rtnb.Simulator(replay=Broken()) as service:
        session = await rtnb.connect(service)
        with pytest.raises(rtnb.ConnectionClosed, match="event 1 cannot be read"):
            await session.ask("Hello!")
        await session.close()
    assert "a recorded session ended: event 1 cannot be read" in caplog.text


def test_what_is_no_recording_is_refused() -> None:
    with pytest.raises(ValueError, match=r"allowed: a recorded conversation, such as rtnb\.Trace"):
        rtnb.Simulator(replay="talk.rtnb")
