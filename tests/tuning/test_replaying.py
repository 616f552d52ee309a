"""A replay repeats the user's side; a simulator with a recording repeats the service's side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb.client.log import LogRow
from rtnb.errors import TraceError
from rtnb.protocol import events
from rtnb.protocol.values import SessionConfig
from rtnb.trace import Trace
from tests.trace.conftest import Talk, talk
from tests.trace.rows import log_of

__all__ = ["talk"]  # a fixture

FRAME_MS = 32
LIMIT_MS = 20.0


def _boundaries(trace: Trace) -> list[tuple[str, int]]:
    names = {"input_audio_buffer.speech_started": "audio_start_ms", "input_audio_buffer.speech_stopped": "audio_end_ms"}
    return [(row.type, getattr(row.event, names[row.type])) for row in trace.log if row.type in names]


async def test_the_same_timing_gives_the_same_turns(talk: Talk, tmp_path: Path) -> None:
    before = Trace(talk.path)
    after = await rtnb.replay(before, talk.simulator, path=tmp_path / "again.rtnb")
    assert [name for name, _ in _boundaries(after)] == [name for name, _ in _boundaries(before)]
    for (_, new_ms), (_, old_ms) in zip(_boundaries(after), _boundaries(before), strict=True):
        assert abs(new_ms - old_ms) <= FRAME_MS
    assert [turn.text for turn in after.turns if turn.role != "assistant"] == [
        turn.text for turn in before.turns if turn.role != "assistant"
    ]
    assert [row.event for row in after.log.filter("error")] != []  # the update is refused again
    after.close()
    before.close()


async def test_reacting_waits_for_each_answer_and_takes_other_settings(talk: Talk) -> None:
    with Trace(talk.path) as before:
        after = await rtnb.replay(
            before, talk.simulator, mode="reacting", settings={"instructions": "Be brief.", "input_format": "audio/pcm"}
        )
    assert after.settings_at(after.duration_ms).instructions == "Be brief."
    assert after.settings_at(after.duration_ms).input_format.type == "audio/pcm"
    answers = [turn for turn in after.turns if turn.role == "assistant"]
    assert [turn.status for turn in answers] == ["complete"] * 3
    assert [turn.text for turn in after.turns if turn.role == "user"] == [
        "What is the weather in Oslo?",
        "Count to five please!",
        "Good bye!",
    ]
    assert "rain in Oslo" in next(turn.text for turn in after.turns if turn.role == "tool")
    after.close()


async def test_an_unknown_mode_is_refused(talk: Talk) -> None:
    with pytest.raises(ValueError, match="mode is 'fast'; allowed are 'same timing' and 'reacting'"):
        await rtnb.replay(talk.path, talk.simulator, mode="fast")  # type: ignore[arg-type]


async def test_a_missing_trace_is_said_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="is not there"):
        await rtnb.replay(tmp_path / "none.rtnb", "sim")


# --- the other side ---------------------------------------------------------------------------------------------------


def _received(rows: Any) -> list[LogRow]:
    return [row for row in rows if row.direction == "received"]


async def _lateness_ms(found: list[float]) -> None:
    """Measure how late this busy computer wakes a task."""
    while True:
        due_s = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        found.append(1000 * (time.monotonic() - due_s))


async def test_a_client_of_a_recording_receives_the_same_events_at_the_same_times(talk: Talk) -> None:
    lateness_ms: list[float] = []
    with Trace(talk.path) as kept, rtnb.Simulator(replay=kept) as service:
        probe = asyncio.create_task(_lateness_ms(lateness_ms))
        again = await rtnb.replay(kept, service)
        probe.cancel()
        old, new = _received(kept.rows()), _received(again.rows())
        assert [row.type for row in new] == [row.type for row in old]
        same = [(a, b) for a, b in zip(old, new, strict=True) if a.type.startswith(("response.", "input_audio"))]
        for a, b in same:
            if not a.type.startswith(("response.created", "response.done")):  # they echo an id of the client
                assert a.event == b.event
        # From event to event: a stall of this computer is in one distance, and not in all that follow.
        distances = [np.diff([1000 * row.monotonic_s for row in rows]) for rows in (old, new)]
        late_ms = np.abs(distances[1] - distances[0])
        assert np.percentile(late_ms, 95) <= LIMIT_MS + 2 * np.percentile(
            lateness_ms, 95
        )  # this computer's own lateness
        assert abs(distances[1].sum() - distances[0].sum()) < 1000
        again.close()


async def test_a_person_gets_the_recorded_answers(talk: Talk) -> None:
    with Trace(talk.path) as kept, rtnb.Simulator(replay=kept) as service:
        async with rtnb.connect(service) as session:
            for row in kept.log:
                if row.type == "session.update":
                    await session.send(row.event)
                if row.type == "input_audio_buffer.append":
                    break
            sent = [row for row in kept.rows() if row.type == "input_audio_buffer.append"]
            for row in sent[: len(sent) // 2]:
                await session.send(row.event)
            async with asyncio.timeout(10):
                async for event in session:
                    if event.type == "response.function_call_arguments.done":
                        break
            assert "Oslo" in event.arguments  # type: ignore[attr-defined]
            assert service.n_sessions == 1


async def test_a_recording_waits_for_the_client(talk: Talk) -> None:
    with Trace(talk.path) as kept, rtnb.Simulator(replay=kept) as service:
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
