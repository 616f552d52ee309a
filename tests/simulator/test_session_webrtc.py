"""A session whose sound goes over tracks, without any: `rtnb.simulator.session` and `rtnb.simulator.delivery`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from rtnb.audio import decode_pcm16
from rtnb.protocol import events
from rtnb.protocol.values import PCMU, Audio, AudioOutput
from rtnb.simulator.delivery import Playout
from tests.simulator.rig import VAD_ONLY, Rig, at_once, collapse, encoded, spoken, world
from tests.simulator.test_session import REPLY, both
from tests.simulator.test_session_speech import BARGE_IN, PREVIEW_TURN, PUSH_TO_TALK, SLOW, TURN, commit

FRAME = 960  # bytes in 20 ms
CLEARED, STARTED, STOPPED = (f"output_audio_buffer.{what}" for what in ("cleared", "started", "stopped"))
TRUNCATED = "conversation.item.truncated"


def call(shared: Any = None, **options: Any) -> Rig:
    return Rig(shared or world(scenario={"steps": [{"say": "Yes, of course."}]}), webrtc=True, **options)


async def talk(rig: Rig, audio: np.ndarray[Any, Any]) -> bytes:
    """Speak and hear at the same time, frame by frame, while both states stay in step; what was heard."""
    heard = bytearray()
    pcm = encoded(audio)
    for start in range(0, len(pcm), FRAME):
        at_once(rig.session.take_audio(pcm[start : start + FRAME]))
        heard += rig.session.play(FRAME)
        await rig.catch_up()
    return bytes(heard)


async def hear_out(rig: Rig) -> bytes:
    """Hear until the service falls silent."""
    heard = bytearray()
    n_before = len(rig.of(STOPPED))
    while len(rig.of(STOPPED)) == n_before:
        assert len(heard) < 60 * 48_000
        heard += rig.session.play(FRAME)
        await asyncio.sleep(0)
        await rig.catch_up()
    return bytes(heard)


@asynccontextmanager
async def counting(latency: str) -> AsyncIterator[Rig]:
    """A call in which 20 ms of a long response were heard."""
    async with call(world(latency=latency)) as rig:
        rig.write("Count to ten")
        rig.respond()
        async with asyncio.timeout(10):
            while not rig.of(STARTED):
                await asyncio.sleep(0)
                await rig.catch_up()
        rig.session.play(FRAME)
        yield rig


@both
async def test_a_turn_over_tracks(dialect: str) -> None:
    async with call(dialect=dialect) as rig:
        n_before = len(rig.frames)
        heard = await talk(rig, spoken(silence_ms=300))
        heard += await hear_out(rig)
        types = rig.types[n_before:]
        beside = (STARTED, STOPPED, "rate_limits.updated")
        turn = TURN if dialect == "ga" else PREVIEW_TURN
        without_sound = [t for t in REPLY[dialect] if not t.endswith("audio.delta")]
        assert collapse([t for t in types if t not in beside]) == turn + without_sound
        assert types.index("response.content_part.added") < types.index(STARTED) < types.index(STOPPED)
        done = rig.last("response.done")["response"]
        assert rig.last(STARTED)["response_id"] == rig.last(STOPPED)["response_id"] == done["id"]
        assert (await rig.retrieved(done["output"][0]["id"])).audio in heard


async def test_barge_in_after_the_response_was_generated() -> None:
    async with call() as rig:
        item_id = (await rig.ask("Well?"))["output"][0]["id"]
        for _ in range(10):
            rig.session.play(FRAME)
        await rig.rest()
        n_before = len(rig.frames)
        heard = await talk(rig, spoken(silence_ms=0, lead_ms=0)[: 24 * 400])
        assert rig.types[n_before:] == [TURN[0], CLEARED, TRUNCATED]
        truncated = rig.last(TRUNCATED)
        assert truncated["item_id"] == item_id
        left = (await rig.retrieved(item_id)).audio
        assert len(left) == truncated["audio_end_ms"] * FRAME // 20
        n_heard = len(left) - 10 * FRAME
        assert heard[:n_heard] == left[10 * FRAME :]
        assert not any(heard[n_heard:])
        assert rig.client.state.entries[item_id].item.content[0].transcript is None
        assert rig.session.play(FRAME) == bytes(FRAME)


async def test_barge_in_while_the_response_is_generated() -> None:
    async with counting(SLOW) as rig:
        n_before = len(rig.frames)
        await talk(rig, spoken(silence_ms=100))
        assert collapse(rig.types[n_before:]) == [*BARGE_IN, CLEARED, TRUNCATED]
        assert rig.last("response.done")["response"]["status_details"]["reason"] == "turn_detected"
        assert not rig.of(STOPPED)


async def test_without_interrupt_response_it_plays_on() -> None:
    async with call(settings={"turn_detection": VAD_ONLY}) as rig:
        await rig.ask("Well?")
        await talk(rig, spoken(silence_ms=300))
        await hear_out(rig)
        assert rig.of(STOPPED)
        assert not rig.of(CLEARED)


async def test_stopped_by_hand() -> None:
    async with counting(SLOW) as rig:
        rig.send(events.ResponseCancel())
        rig.send(events.OutputAudioBufferClear())
        await rig.until(TRUNCATED)
        assert rig.last(TRUNCATED)["audio_end_ms"] == 20
        cleared = rig.last(CLEARED)["response_id"]
        rig.send(events.OutputAudioBufferClear())  # nothing plays: answered all the same
        assert await rig.until(CLEARED) == [CLEARED]
        assert rig.last(CLEARED)["response_id"] == cleared


async def test_cancelled_only_what_was_said_already_is_played_out() -> None:
    async with counting("fast,audio_rate=0.01") as rig:  # the second delta comes 10 s later
        rig.send(events.ResponseCancel())
        await rig.until("response.done")
        assert len((await hear_out(rig)).rstrip(b"\0")) == pytest.approx(4 * FRAME, abs=FRAME)  # a delta of 100 ms
        assert rig.types[-1] == STOPPED


async def test_push_to_talk_and_the_voice_that_was_heard() -> None:
    async with call(settings=PUSH_TO_TALK) as rig:
        rig.send(events.InputAudioBufferCommit())
        assert (await rig.refusal())["code"] == "input_audio_buffer_commit_empty"
        await talk(rig, spoken())
        assert (await rig.retrieved(await commit(rig))).audio == encoded(spoken())
        rig.respond()
        await rig.until("response.done")
        await hear_out(rig)
        rig.update(audio=Audio(output=AudioOutput(voice="echo")))
        assert (await rig.refusal())["code"] == "cannot_update_voice"


async def test_formats_have_no_effect_on_the_tracks() -> None:
    async with call(settings={"input_format": PCMU, "output_format": PCMU}) as rig:
        await talk(rig, spoken(silence_ms=400))
        assert np.abs(decode_pcm16(await hear_out(rig))).max() > 0.1
        seconds = rig.last(TURN[1])["audio_end_ms"] / 1000
        assert seconds == pytest.approx(len(spoken(silence_ms=200)) / 24_000, abs=0.15)


def test_responses_play_one_after_the_other_and_wait_for_late_sound() -> None:
    playout = Playout()
    assert [e.type for e in playout.push("a", "1", b"\1" * 1000)] == [STARTED]
    assert playout.push("b", "2", b"\2" * 960) == []
    assert playout.pull(960) == (b"\1" * 960, [])
    sound, said = playout.pull(960)
    assert (sound, said) == (b"\1" * 40 + bytes(920), [])
    assert playout.pull(960) == (bytes(960), [])  # more of it may come
    playout.push("a", "1", b"\1" * 960)
    assert playout.pull(960) == (b"\1" * 960, [])
    playout.end("a")
    playout.end("unheard")
    sound, said = playout.pull(960)
    assert (sound, [e.type for e in said]) == (b"\2" * 960, [STOPPED, STARTED])
    assert playout.clear() == (["b"], {"2": 20})
    assert playout.clear() == ([], {})
