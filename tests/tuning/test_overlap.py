"""Two turn detections of one session: which one is in force when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb.audio import babble
from rtnb.errors import LocalProtocolError
from rtnb.tuning import OverlapSettings

VOICE = babble("wait, I meant the other one", rate_hz=24_000).audio


@pytest.fixture
async def session() -> AsyncIterator[rtnb.Session]:
    """A session with a simulator that answers at once."""
    async with rtnb.connect("sim", latency="fast") as session:
        yield session


def switched(session: rtnb.Session, *, speaking: float = 0.95, listening: float = 0.4) -> OverlapSettings:
    """Begin to switch between two thresholds."""
    low, high = (rtnb.ServerVad(threshold=threshold) for threshold in (listening, speaking))
    return session.overlap_settings(listening=low, speaking=high)


def steps(session: rtnb.Session, *types: str) -> list[Any]:
    """Thresholds of the updates sent, and the types of other events, in the order of the log."""
    found: list[Any] = []
    for row in session.log:
        event: Any = row.event
        if row.type == "session.update":
            found.append(event.session.turn_detection.threshold)
        elif row.type in types and row.type not in found[-1:]:
            found.append(row.type)
    return found


async def until_updated(session: rtnb.Session, threshold: float, *, updates: int = 0) -> None:
    """Wait until the service confirms a threshold, and at least so many updates were sent."""
    stream = aiter(session)
    while getattr(session.config.turn_detection, "threshold", 0) != threshold or len(steps(session)) < updates:
        await anext(stream)


async def test_each_spoken_response_takes_two_updates(session: rtnb.Session) -> None:
    session.playback.assume_real_time = False
    switch = switched(session)
    await until_updated(session, 0.4)
    for turn in (1, 2):
        await session.ask("What is a delta?")
        await until_updated(session, 0.4, updates=1 + 2 * turn)
    audio, done = "response.output_audio.delta", "response.done"
    found = steps(session, audio, done)
    assert steps(session) == [0.4, 0.95, 0.4, 0.95, 0.4]
    assert found.index(audio) < found.index(0.95)
    assert found.index(done) < len(found) - 1 - found[::-1].index(0.4)
    await switch.aclose()
    assert repr(switch) == "<OverlapSettings: ended>"


async def test_listening_waits_for_the_end_of_the_playback(session: rtnb.Session) -> None:
    switched(session)
    await session.ask("Count to three.")
    await until_updated(session, 0.95)
    assert session.playback.playing
    await until_updated(session, 0.4)
    assert not session.playback.playing


async def test_an_interruption_ends_the_state_speaking(session: rtnb.Session) -> None:
    switched(session, speaking=0.5)
    await session.ask("Count to twenty.")
    await until_updated(session, 0.5)
    await session.interrupt()
    await until_updated(session, 0.4)
    table = session.playback.heard()
    assert table["truncated"].tolist() == [True]
    assert table["heard_ms"].iloc[0] < table["generated_ms"].iloc[0]


@pytest.mark.parametrize("threshold, n_starts", [(1.0, 0), (0.5, 1)])
async def test_the_speaking_threshold_decides_on_speech_over_the_answer(
    session: rtnb.Session, threshold: float, n_starts: int
) -> None:
    switched(session, speaking=threshold)
    await until_updated(session, 0.4)
    await session.ask("Count to twenty.")
    await until_updated(session, threshold)
    audio = np.concatenate([VOICE, np.zeros(4_800, np.float32)])
    await session.say(audio, rate_hz=24_000, paced=False, respond=False, trailing_silence_ms=0)
    await session.input_audio_buffer.clear()  # its reply comes after all other events
    assert len(session.log.filter("input_audio_buffer.speech_started")) == n_starts


async def test_a_refused_setting_ends_the_switch_and_is_kept(session: rtnb.Session) -> None:
    session.playback.assume_real_time = False
    switch = switched(session, speaking=7.0)
    await session.ask("What is a delta?")
    while switch.problem is None:
        await session.input_audio_buffer.clear()
    assert "threshold" in str(switch.problem)
    assert repr(switch) in ("<OverlapSettings: ended>", "<OverlapSettings: speaking>")


@pytest.mark.parametrize("n_answers", range(4))
async def test_listening_is_in_force_after_a_close_at_any_moment(session: rtnb.Session, n_answers: int) -> None:
    session.playback.assume_real_time = False
    switch = switched(session)
    for _ in range(n_answers):
        await session.ask("What is a delta?")
    await switch.aclose()
    await session.input_audio_buffer.clear()  # its reply comes after all other events
    assert session.config.turn_detection.threshold == 0.4  # type: ignore[union-attr]
    assert steps(session)[-1] == 0.4


async def test_a_new_switch_during_an_answer_takes_over(session: rtnb.Session) -> None:
    former = switched(session)
    await session.ask("Count to three.")
    switched(session, listening=0.3, speaking=0.8)
    assert repr(former) == "<OverlapSettings: ended>"
    await until_updated(session, 0.3)
    await session.ask("Count to two.")
    await until_updated(session, 0.8)
    assert 0.95 not in steps(session)[steps(session).index(0.8) :]


async def test_the_switch_ends_with_its_session() -> None:
    async with rtnb.connect("sim", latency="fast") as session:
        switch = switched(session)
        await until_updated(session, 0.4)
    await switch.aclose()
    assert switch.problem is None
    assert repr(switch) == "<OverlapSettings: ended>"


async def test_a_transcription_session_is_refused() -> None:
    async with rtnb.connect("sim", intent="transcription") as session:
        with pytest.raises(LocalProtocolError, match="in a transcription session the assistant never speaks"):
            switched(session)
