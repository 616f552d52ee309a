"""Spoken turns: the order of events, barge-in, push to talk, what turn detection is told and what is understood."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from rtnb.protocol import SemanticVad, ServerVad, events
from rtnb.protocol.values import PCMA, PCMU, Transcription
from rtnb.simulator.transcriber import ExactTranscriber
from tests.simulator.rig import VAD_ONLY, Rig, at_once, chunks, collapse, encoded, spoken, world
from tests.simulator.test_session import PREVIEW_SPOKEN_REPLY, SPOKEN_REPLY
from tests.simulator.test_session_timing import run

TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
PREVIEW_TURN = [*TURN[:3], "conversation.item.created"]
SLOW = "fast,audio_rate=1"
SILENCE = np.zeros(24_000, np.float32)


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_a_spoken_turn_is_answered_by_itself(dialect: str) -> None:
    async with Rig(dialect=dialect) as rig:
        n_before = len(rig.frames)
        await rig.listen(spoken())
        if "response.done" not in [f["type"] for f in rig.frames]:
            await rig.until("response.done")
        types = collapse([f["type"] for f in rig.frames[n_before:]])
        turn, reply = (TURN, SPOKEN_REPLY) if dialect == "ga" else (PREVIEW_TURN, PREVIEW_SPOKEN_REPLY)
        assert types == [*turn, *reply]
        started, stopped, committed = (rig.last(kind) for kind in turn[:3])
        assert started["item_id"] == stopped["item_id"] == committed["item_id"]
        assert committed["previous_item_id"] is None
        (item,) = [f["item"] for f in rig.frames if f["type"] == turn[3] and f["item"]["role"] == "user"]
        assert item["content"] == [{"type": "input_audio", "transcript": None}]
        assert item["status"] == "completed"
        said = rig.last("response.done")["response"]["output"][0]["content"][0]["transcript"]
        heard_s = (stopped["audio_end_ms"] - started["audio_start_ms"]) / 1000
        assert said.startswith(f"I heard you speak for {heard_s:.1f} seconds.")
        assert "no language model" in said
        rig.same()


async def test_the_item_is_what_was_heard_between_start_and_end() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=VAD_ONLY)
        await rig.until("session.updated")
        assert await rig.listen(spoken()) == TURN
        start, end = rig.last(TURN[0])["audio_start_ms"], rig.last(TURN[1])["audio_end_ms"]
        rig.send(events.ConversationItemRetrieve(item_id=rig.last(TURN[2])["item_id"]))
        await rig.until("conversation.item.retrieved")
        assert rig.events[-1].item.content[0].audio == encoded(spoken())[start * 48 : end * 48]
        rig.same()


async def test_barge_in_cancels_the_reply_that_is_spoken() -> None:
    async with Rig(world(latency=SLOW)) as rig:
        rig.write("Count to ten")
        rig.respond()
        await rig.until("response.output_audio.delta")
        n_before = len(rig.frames)
        await rig.listen(spoken(silence_ms=100))
        assert collapse([f["type"] for f in rig.frames[n_before:]]) == [
            "input_audio_buffer.speech_started",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        done = rig.last("response.done")["response"]
        assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")
        cut = done["output"][0]
        sent_ms = sum(len(e.delta) for e in rig.events if isinstance(e, events.ResponseOutputAudioDelta)) / 48
        rig.send(events.ConversationItemTruncate(item_id=cut["id"], content_index=0, audio_end_ms=int(sent_ms)))
        while rig.frames[-1]["type"] != "conversation.item.truncated":
            await rig.next()
        rig.same()


async def test_barge_in_cancels_a_reply_that_is_not_announced_yet() -> None:
    async with Rig(world(latency="fast,response_created_ms=10000")) as rig:
        types = await rig.listen(spoken())  # a turn; its reply would come in 10 s
        assert types == TURN
        types = await rig.listen(spoken(silence_ms=100))
        assert types[:3] == ["input_audio_buffer.speech_started", "response.created", "response.done"]
        details = rig.last("response.done")["response"]["status_details"]
        assert details == {"type": "cancelled", "reason": "turn_detected"}
        rig.same()


async def test_barge_in_leaves_responses_outside_the_conversation_alone() -> None:
    async with Rig(world(latency=SLOW)) as rig:
        rig.respond(conversation="none")
        await rig.until("response.output_audio.delta")
        await rig.listen(spoken(silence_ms=100))
        assert not rig.of("response.done")


async def test_without_interrupt_response_the_reply_goes_on_and_no_second_one_begins() -> None:
    async with Rig(world(latency=SLOW)) as rig:
        rig.update(turn_detection=ServerVad(interrupt_response=False))
        rig.write("Count to ten")
        rig.respond()
        await rig.until("response.output_audio.delta")
        types = [t for t in await rig.listen(spoken()) if not t.startswith("response.")]
        assert types == [*TURN, "error"]
        assert rig.last("error")["error"]["code"] == "conversation_already_has_active_response"
        assert not rig.of("response.done")
        rig.same()


async def test_without_create_response_nobody_answers_but_the_reply_is_interrupted() -> None:
    async with Rig(world(latency=SLOW)) as rig:
        rig.update(turn_detection=ServerVad(create_response=False))
        rig.write("Count to ten")
        rig.respond()
        await rig.until("response.output_audio.delta")
        await rig.listen(spoken())
        assert rig.last("response.done")["response"]["status"] == "cancelled"
        assert len(rig.of("response.created")) == 1
        rig.same()


async def test_with_both_off_there_are_only_events() -> None:
    async with Rig(world(latency=SLOW)) as rig:
        rig.update(turn_detection=VAD_ONLY)
        rig.write("Count to ten")
        rig.respond()
        await rig.until("response.output_audio.delta")
        types = [t for t in await rig.listen(spoken()) if not t.startswith("response.")]
        assert types == TURN
        assert not rig.of("response.done")
        assert len(rig.of("response.created")) == 1


async def test_push_to_talk() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=None)
        await rig.until("session.updated")
        assert await rig.listen(spoken()) == []
        rig.send(events.InputAudioBufferCommit())
        assert await rig.until("conversation.item.done") == TURN[2:]
        assert await rig.rest() == []
        rig.send(events.ConversationItemRetrieve(item_id=rig.last(TURN[2])["item_id"]))
        await rig.until("conversation.item.retrieved")
        assert rig.events[-1].item.content[0].audio == encoded(spoken())
        rig.respond()
        assert collapse(await rig.until("response.done")) == SPOKEN_REPLY
        rig.same()


async def test_the_second_commit_holds_only_what_came_after_the_first() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=None)
        await rig.until("session.updated")
        await rig.listen(spoken())
        rig.send(events.InputAudioBufferCommit())
        await rig.until("conversation.item.done")
        first = rig.session.state.order[-1]
        await rig.listen(SILENCE[:4800])
        rig.send(events.InputAudioBufferCommit())
        await rig.until("conversation.item.done")
        assert rig.last("input_audio_buffer.committed")["previous_item_id"] == first
        rig.send(events.ConversationItemRetrieve(item_id=rig.session.state.order[-1]))
        await rig.until("conversation.item.retrieved")
        assert rig.events[-1].item.content[0].audio == bytes(9600)
        rig.same()


@pytest.mark.parametrize("n_samples", [0, 2399])
async def test_a_commit_of_less_than_100_ms_is_refused(n_samples: int) -> None:
    async with Rig() as rig:
        rig.update(turn_detection=None)
        await rig.until("session.updated")
        await rig.listen(SILENCE[:n_samples])
        rig.send(events.InputAudioBufferCommit(event_id="c"))
        assert await rig.until("error") == ["error"]
        error = rig.last("error")["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "c")
        rig.same()


async def test_refused_audio_cannot_be_committed() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=None)
        await rig.until("session.updated")
        rig.send(events.InputAudioBufferAppend(audio=bytes(4801)))
        await rig.until("error")
        rig.send(events.InputAudioBufferCommit())
        await rig.until("error")
        assert rig.last("error")["error"]["code"] == "input_audio_buffer_commit_empty"


async def test_a_commit_in_the_middle_of_a_turn_takes_its_id_and_what_was_heard_so_far() -> None:
    async with Rig() as rig:
        await rig.listen(spoken(silence_ms=0))
        started = rig.last(TURN[0])
        rig.send(events.InputAudioBufferCommit())
        await rig.until("conversation.item.done")
        assert rig.last(TURN[2])["item_id"] == started["item_id"]
        await rig.listen(spoken())
        later = {frame["item_id"] for kind in TURN[:2] for frame in rig.of(kind)[kind == TURN[0] :]}
        assert later
        assert started["item_id"] not in later  # that turn is over, whatever is said next is another
        rig.same()


async def test_cleared_audio_is_gone_also_in_the_middle_of_a_turn() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=VAD_ONLY)
        await rig.until("session.updated")
        await rig.listen(spoken("one two three four five six", silence_ms=0)[: 24 * 1000])
        assert rig.of(TURN[0])
        rig.send(events.InputAudioBufferClear())
        assert await rig.until("input_audio_buffer.cleared") == ["input_audio_buffer.cleared"]
        await rig.listen(spoken("one two three four five six", silence_ms=1500)[24 * 1000 :])
        starts = [f["audio_start_ms"] for f in rig.of(TURN[0])]
        assert len(starts) == 2
        assert starts[1] >= 1000  # not even its padding reaches behind the clear
        assert rig.of(TURN[0])[0]["item_id"] != rig.last(TURN[2])["item_id"]
        rig.send(events.ConversationItemRetrieve(item_id=rig.last(TURN[2])["item_id"]))
        await rig.until("conversation.item.retrieved")
        length_ms = rig.last(TURN[1])["audio_end_ms"] - starts[1]
        assert len(rig.events[-1].item.content[0].audio) == 48 * length_ms
        rig.same()


@pytest.mark.parametrize("media", [PCMU, PCMA], ids=lambda m: m.type)
async def test_g711_in_and_out(media: Any) -> None:
    async with Rig() as rig:
        rig.update(input_format=media, output_format=media)
        await rig.until("session.updated")
        await rig.listen(spoken(), media.type, size=800)
        if "response.done" not in [f["type"] for f in rig.frames]:
            await rig.until("response.done")
        start, end = rig.last(TURN[0])["audio_start_ms"], rig.last(TURN[1])["audio_end_ms"]
        assert end % 32 == 0
        assert 1000 < end < 4000
        rig.send(events.ConversationItemRetrieve(item_id=rig.last(TURN[2])["item_id"]))
        while rig.frames[-1]["type"] != "conversation.item.retrieved":
            await rig.next()
        assert rig.events[-1].item.content[0].audio == encoded(spoken(), media.type)[start * 8 : end * 8]
        assert sum(len(e.delta) for e in rig.events if isinstance(e, events.ResponseOutputAudioDelta)) > 8 * 1000
        rig.same()


async def test_the_input_format_changes_in_the_middle_of_a_session() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=VAD_ONLY)
        await rig.until("session.updated")
        await rig.listen(spoken(silence_ms=0))  # a turn under way …
        assert rig.of(TURN[0])
        heard_ms = len(spoken(silence_ms=0)) / 24
        rig.update(input_format=PCMU)
        await rig.until("session.updated")
        await rig.listen(SILENCE, "audio/pcmu", size=800)
        assert not rig.of(TURN[1])  # … ends with its format
        await rig.listen(spoken(), "audio/pcmu", size=800)
        stop = rig.last(TURN[1])["audio_end_ms"]
        assert heard_ms + 1000 < stop < heard_ms + 1000 + len(spoken()) / 24
        assert len(rig.of(TURN[1])) == 1


async def test_turn_detection_is_switched_off_in_the_middle_of_a_turn() -> None:
    async with Rig() as rig:
        await rig.listen(spoken(silence_ms=0))
        item_id = rig.last(TURN[0])["item_id"]
        rig.update(turn_detection=None)
        await rig.until("session.updated")
        assert await rig.listen(SILENCE) == []
        rig.send(events.InputAudioBufferCommit())
        assert await rig.until("conversation.item.done") == TURN[2:]
        assert rig.last(TURN[2])["item_id"] == item_id
        rig.same()


async def test_a_longer_silence_set_in_the_middle_of_a_pause_holds_at_once() -> None:
    audio = spoken(silence_ms=3000)
    at = len(audio) - 24 * 2900  # 100 ms into the silence
    ends = []
    for silence_ms in (200, 1000):
        async with Rig() as rig:
            rig.update(turn_detection=VAD_ONLY)
            await rig.until("session.updated")
            await rig.listen(audio[:at])
            rig.update(turn_detection=ServerVad(silence_duration_ms=silence_ms))
            await rig.until("session.updated")
            await rig.listen(audio[at:])
            ends.append(rig.of(TURN[1])[0]["audio_end_ms"])
    assert ends[1] - ends[0] == (32 - 7) * 32


# --- the idle timeout -------------------------------------------------------------------------------------------------


async def test_after_the_idle_timeout_the_silence_is_committed_and_answered() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=ServerVad(idle_timeout_ms=6000))
        await rig.until("session.updated")
        await rig.listen(np.zeros(24_000 * 8, np.float32))
        assert not rig.of("input_audio_buffer.timeout_triggered")  # there was no reply to wait after
        done = await rig.ask("hello", output_modalities=("text",))
        types = await rig.listen(np.zeros(24 * 6100, np.float32))
        assert [t for t in types if t != "rate_limits.updated"][:3] == [
            "input_audio_buffer.timeout_triggered",
            "input_audio_buffer.committed",
            "conversation.item.added",
        ]
        timeout = rig.last("input_audio_buffer.timeout_triggered")
        assert timeout["audio_end_ms"] - timeout["audio_start_ms"] == 6016
        assert timeout["audio_start_ms"] == 8000
        assert timeout["item_id"] == rig.last("input_audio_buffer.committed")["item_id"]
        if "response.done" not in types:
            await rig.until("response.done")
        assert rig.last("response.done")["response"]["id"] != done["id"]
        rig.same()


def test_the_idle_timeout_counts_from_the_end_of_playback() -> None:
    async def talk() -> None:
        async with Rig() as rig:
            rig.update(turn_detection=ServerVad(idle_timeout_ms=5000))
            await rig.until("session.updated")
            await rig.ask("hello")
            played_ms = sum(len(e.delta) for e in rig.events if isinstance(e, events.ResponseOutputAudioDelta)) / 48
            await rig.listen(np.zeros(24 * int(played_ms + 5000 + 200), np.float32))
            start = rig.last("input_audio_buffer.timeout_triggered")["audio_start_ms"]
            assert played_ms <= start <= played_ms + 32  # sent at once, played in its own time

    run(talk())  # no time passes but what is waited for


async def test_nobody_is_asked_again_while_a_reply_is_on_its_way() -> None:
    async with Rig(world(latency="fast,audio_rate=1,first_delta_ms=30000")) as rig:
        rig.update(turn_detection=ServerVad(idle_timeout_ms=5000))
        await rig.until("session.updated")
        rig.write("hello")
        rig.respond()
        await rig.until("response.content_part.added")
        rig.send(events.ResponseCancel())
        await rig.until("response.done")
        rig.respond()
        await rig.until("response.content_part.added")
        await rig.listen(np.zeros(24_000 * 7, np.float32))
        assert not rig.of("input_audio_buffer.timeout_triggered")
        assert not rig.of("error")


# --- the semantic stand-in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eagerness", ["low", "medium", "auto", "high"])
async def test_eagerness_bounds_how_long_the_end_is_waited_for(eagerness: str) -> None:
    longest = {"low": 8000, "medium": 4000, "auto": 4000, "high": 2000}[eagerness]
    async with Rig() as rig:
        rig.update(turn_detection=SemanticVad(eagerness=eagerness, create_response=False))
        await rig.until("session.updated")
        await rig.listen(spoken(silence_ms=longest + 700))
        end = rig.last("input_audio_buffer.speech_stopped")["audio_end_ms"]
        ended_ms = len(spoken(silence_ms=0)) / 24
        assert end % 32 == 0
        assert longest / 5 - 200 <= end - ended_ms <= longest + 400
        rig.same()


# --- what is understood -----------------------------------------------------------------------------------------------


async def test_unknown_speech_is_not_written_down() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=VAD_ONLY, transcription=Transcription(model="whisper-1"))
        await rig.until("session.updated")
        await rig.listen(spoken())
        assert await rig.rest() == ["conversation.item.input_audio_transcription.failed"]
        failed = rig.frames[-1]
        assert failed["item_id"] == rig.last(TURN[2])["item_id"]
        assert "nothing is invented" in failed["error"]["message"]
        rig.same()


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_known_speech_is_written_down_word_for_word_and_understood(dialect: str) -> None:
    known = ExactTranscriber()
    known.learn("Tell me a joke", spoken("Tell me a joke"))
    async with Rig(world(exact=known), dialect=dialect) as rig:
        rig.update(turn_detection=ServerVad(silence_duration_ms=600), transcription=Transcription(model="whisper-1"))
        await rig.until("session.updated")
        await rig.listen(spoken("Tell me a joke"))
        await rig.rest()
        completed = rig.last("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "Tell me a joke"
        said = rig.last("response.done")["response"]["output"][0]["content"][0]["transcript"]
        assert "buffer overflow" in said
        assert rig.client.state.conversation[0].content[0].transcript == "Tell me a joke"  # type: ignore[union-attr,index]
        rig.same()


async def test_a_scenario_says_what_was_heard_and_what_is_said() -> None:
    steps = [
        {"hear": "What is the weather in Lund?", "say": "Grey."},
        {"when": {"text": "bye"}, "say": "Bye, then."},
    ]
    async with Rig(world(scenario={"steps": steps})) as rig:
        rig.update(transcription=Transcription(model="whisper-1"))
        await rig.until("session.updated")
        await rig.listen(spoken())
        await rig.rest()
        completed = rig.last("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "What is the weather in Lund?"
        assert rig.last("response.done")["response"]["output"][0]["content"][0]["transcript"] == "Grey."
        done = await rig.ask("Good bye")
        assert done["output"][0]["content"][0]["transcript"] == "Bye, then."
        rig.same()


async def test_no_transcription_without_being_asked_for() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=VAD_ONLY)
        await rig.until("session.updated")
        await rig.listen(spoken())
        assert await rig.rest() == []


@pytest.mark.parametrize(
    "model, deltas, usage",
    [
        ("whisper-1", ["Tell me a joke"], "duration"),
        ("gpt-4o-transcribe", ["Tell", " me", " a", " joke"], "tokens"),
        ("gpt-transcribe", ["Tell", " me", " a", " joke"], "duration"),
    ],
)
async def test_a_transcription_comes_in_deltas_and_costs_by_its_model(
    model: str, deltas: list[str], usage: str
) -> None:
    known = ExactTranscriber()
    known.learn("Tell me a joke", spoken("Tell me a joke"))
    async with Rig(world(exact=known)) as rig:
        include = ("item.input_audio_transcription.logprobs",)
        rig.update(transcription=Transcription(model=model), include=include)
        await rig.listen(spoken("Tell me a joke"))
        await rig.rest()
        assert [one["delta"] for one in rig.of("conversation.item.input_audio_transcription.delta")] == deltas
        completed = rig.last("conversation.item.input_audio_transcription.completed")
        assert completed["usage"]["type"] == usage
        if usage == "tokens":
            heard_ms = rig.last("input_audio_buffer.speech_stopped")["audio_end_ms"]
            heard_ms -= rig.last("input_audio_buffer.speech_started")["audio_start_ms"]
            assert completed["usage"]["input_token_details"]["audio_tokens"] == heard_ms // 100
            assert completed["usage"]["output_tokens"] == 4
            assert [one["token"] for one in completed["logprobs"]] == deltas
            assert all(one["logprob"] <= 0 for one in completed["logprobs"])
        else:
            assert "logprobs" not in completed


async def test_its_own_answer_played_back_to_it_is_understood() -> None:
    async with Rig(world()) as rig:
        done = await rig.ask("Tell me a joke")
        transcript = done["output"][0]["content"][0]["transcript"]
        item = {"type": "conversation.item.retrieve", "item_id": done["output"][0]["id"]}
        at_once(rig.session.receive(json.dumps(item)))
        await rig.until("conversation.item.retrieved")
        pcm = base64.b64decode(rig.last("conversation.item.retrieved")["item"]["content"][0]["audio"])
        answer = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        rig.update(transcription=Transcription(model="whisper-1"), turn_detection=None)
        for piece in chunks(encoded(answer)):
            rig.send(events.InputAudioBufferAppend(audio=piece))
        rig.send(events.InputAudioBufferCommit())
        await rig.until("conversation.item.input_audio_transcription.completed")
        heard = rig.last("conversation.item.input_audio_transcription.completed")["transcript"]
        assert heard == transcript
