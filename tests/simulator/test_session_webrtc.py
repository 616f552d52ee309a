"""A session whose sound goes over tracks, without any: `rtnb.simulator.session` and `rtnb.simulator.delivery`."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from rtnb.audio import decode_pcm16
from rtnb.protocol import ServerVad, events
from rtnb.protocol.values import PCMU, Audio, AudioInput, AudioOutput
from rtnb.simulator.delivery import Playout
from tests.simulator.rig import Rig, at_once, collapse, encoded, spoken, world
from tests.simulator.test_session import PREVIEW_SPOKEN_REPLY, SPOKEN_REPLY
from tests.simulator.test_session_speech import PREVIEW_TURN, SLOW, TURN

FRAME = 960  # bytes in 20 ms
CLEARED, STARTED, STOPPED = (f"output_audio_buffer.{what}" for what in ("cleared", "started", "stopped"))


def call(shared: Any = None, **options: Any) -> Rig:
    return Rig(shared or world(scenario={"steps": [{"say": "Yes, of course."}]}), webrtc=True, **options)


async def talk(rig: Rig, audio: np.ndarray[Any, Any]) -> bytes:
    """Speak and hear at the same time, frame by frame, while both states stay in step; what was heard."""
    heard = bytearray()
    pcm = encoded(audio)
    for start in range(0, len(pcm), FRAME):
        at_once(rig.session.take_audio(pcm[start : start + FRAME]))
        heard += rig.session.play(FRAME)
        while rig.session.outgoing.n_waiting:
            await rig.next()
    return bytes(heard)


async def hear_out(rig: Rig) -> bytes:
    """Hear until the service falls silent."""
    heard = bytearray()
    n_before = len(rig.of(STOPPED))
    while len(rig.of(STOPPED)) == n_before:
        assert len(heard) < 60 * 48_000
        heard += rig.session.play(FRAME)
        await asyncio.sleep(0)
        while rig.session.outgoing.n_waiting:
            await rig.next()
    return bytes(heard)


async def first_sound(rig: Rig) -> None:
    """Hear the first 20 ms of a response."""
    while not rig.of(STARTED):
        await asyncio.sleep(0)
        while rig.session.outgoing.n_waiting:
            await rig.next()
    rig.session.play(FRAME)


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_a_turn_over_tracks(dialect: str) -> None:
    async with call(dialect=dialect) as rig:
        n_before = len(rig.frames)
        heard = await talk(rig, spoken(silence_ms=300))
        heard += await hear_out(rig)
        beside = (STARTED, STOPPED, "rate_limits.updated")
        types = collapse([f["type"] for f in rig.frames[n_before:] if f["type"] not in beside])
        without_sound = [t for t in SPOKEN_REPLY if t != "response.output_audio.delta"]
        if dialect == "preview":
            without_sound = [t for t in PREVIEW_SPOKEN_REPLY if t != "response.audio.delta"]
        assert types == (TURN if dialect == "ga" else PREVIEW_TURN) + without_sound
        types = rig.types[n_before:]
        assert types.index("response.content_part.added") < types.index(STARTED) < types.index(STOPPED)
        done = rig.last("response.done")["response"]
        assert rig.last(STARTED)["response_id"] == rig.last(STOPPED)["response_id"] == done["id"]
        rig.same()
        assert (await rig.retrieved(done["output"][0]["id"])).audio in heard


async def test_barge_in_after_the_response_was_generated() -> None:
    async with call() as rig:
        await rig.ask("Well?")
        item_id = rig.last("response.done")["response"]["output"][0]["id"]
        for _ in range(10):
            rig.session.play(FRAME)
        await rig.rest()
        n_before = len(rig.frames)
        heard = await talk(rig, spoken(silence_ms=0, lead_ms=0)[: 24 * 400])
        assert rig.types[n_before:] == [
            "input_audio_buffer.speech_started",
            CLEARED,
            "conversation.item.truncated",
        ]
        truncated = rig.last("conversation.item.truncated")
        assert truncated["item_id"] == item_id
        rig.send(events.ConversationItemRetrieve(item_id=item_id))
        await rig.until("conversation.item.retrieved")
        left = rig.events[-1].item.content[0].audio
        assert len(left) == truncated["audio_end_ms"] * FRAME // 20
        n_heard = len(left) - 10 * FRAME
        assert heard[:n_heard] == left[10 * FRAME :]
        assert not any(heard[n_heard:])
        assert rig.client.state.entries[item_id].item.content[0].transcript is None
        assert rig.session.play(FRAME) == bytes(FRAME)


async def test_barge_in_while_the_response_is_generated() -> None:
    async with call(world(latency=SLOW)) as rig:
        rig.write("Count to ten")
        rig.respond()
        await first_sound(rig)
        n_before = len(rig.frames)
        await talk(rig, spoken(silence_ms=100))
        assert collapse(rig.types[n_before:]) == [
            "input_audio_buffer.speech_started",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
            CLEARED,
            "conversation.item.truncated",
        ]
        assert rig.last("response.done")["response"]["status_details"]["reason"] == "turn_detected"
        assert not rig.of(STOPPED)


async def test_without_interrupt_response_it_plays_on() -> None:
    async with call() as rig:
        rig.update(turn_detection=ServerVad(interrupt_response=False, create_response=False))
        await rig.ask("Well?")
        await talk(rig, spoken(silence_ms=300))
        await hear_out(rig)
        assert rig.of(STOPPED)
        assert not rig.of(CLEARED)


async def test_stopped_by_hand() -> None:
    async with call(world(latency=SLOW)) as rig:
        rig.write("Count to ten")
        rig.respond()
        await first_sound(rig)
        rig.send(events.ResponseCancel())
        rig.send(events.OutputAudioBufferClear())
        await rig.until("conversation.item.truncated")
        assert rig.last("conversation.item.truncated")["audio_end_ms"] == 20
        cleared = rig.last(CLEARED)["response_id"]
        rig.send(events.OutputAudioBufferClear())  # nothing plays: answered all the same
        assert await rig.until(CLEARED) == [CLEARED]
        assert rig.last(CLEARED)["response_id"] == cleared


async def test_cancelled_only_what_was_said_already_is_played_out() -> None:
    async with call(world(latency="fast,audio_rate=0.01")) as rig:  # the second delta comes 10 s later
        rig.write("Count to ten")
        rig.respond()
        await first_sound(rig)
        rig.send(events.ResponseCancel())
        await rig.until("response.done")
        assert len((await hear_out(rig)).rstrip(b"\0")) == pytest.approx(4 * FRAME, abs=FRAME)  # a delta of 100 ms
        assert rig.frames[-1]["type"] == STOPPED


async def test_push_to_talk_and_the_voice_that_was_heard() -> None:
    async with call() as rig:
        rig.update(turn_detection=None)
        rig.send(events.InputAudioBufferCommit())
        assert await rig.until("error") == ["session.updated", "error"]
        assert rig.last("error")["error"]["code"] == "input_audio_buffer_commit_empty"
        await talk(rig, spoken())
        rig.send(events.InputAudioBufferCommit())
        await rig.until("conversation.item.done")
        assert (await rig.retrieved(rig.last("input_audio_buffer.committed")["item_id"])).audio == encoded(spoken())
        rig.respond()
        await rig.until("response.done")
        await hear_out(rig)
        rig.update(audio=Audio(output=AudioOutput(voice="echo")))
        assert (await rig.refusal())["code"] == "cannot_update_voice"


async def test_formats_have_no_effect_on_the_tracks() -> None:
    async with call() as rig:
        await rig.set(audio=Audio(input=AudioInput(format=PCMU), output=AudioOutput(format=PCMU)))
        await talk(rig, spoken(silence_ms=400))
        assert np.abs(decode_pcm16(await hear_out(rig))).max() > 0.1
        seconds = (rig.last("input_audio_buffer.speech_stopped")["audio_end_ms"]) / 1000
        assert seconds == pytest.approx(len(spoken(silence_ms=200)) / 24_000, abs=0.15)


async def test_who_watches_hears_the_session_and_what_comes() -> None:
    async with call() as rig:
        await rig.ask("Well?")
        await rig.rest()
        ear = rig.session.listen()
        texts = rig.session.outgoing.texts(ear)
        assert '"session.created"' in await anext(texts)
        rig.send(events.InputAudioBufferClear())
        assert '"input_audio_buffer.cleared"' in await anext(texts)
        await texts.aclose()
        rig.session.outgoing.leave(ear)


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
