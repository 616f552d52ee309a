"""Spoken turns: the order of events, barge-in, push to talk, what turn detection is told and what is understood."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from rtnb.audio import decode_pcm16
from rtnb.protocol import SemanticVad, ServerVad, events
from rtnb.protocol.values import PCMA, PCMU, Transcription
from rtnb.simulator.transcriber import ExactTranscriber
from tests.simulator.rig import VAD_ONLY, WRITTEN, Rig, chunks, collapse, encoded, spoken, world
from tests.simulator.test_session import REPLY, SPOKEN_REPLY, both
from tests.simulator.test_session_timing import run

TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
PREVIEW_TURN = [*TURN[:3], "conversation.item.created"]
BARGE_IN = [TURN[0], *SPOKEN_REPLY[6:]]
SLOW = "fast,audio_rate=1"
SILENCE = np.zeros(24_000, np.float32)
JOKE = "Tell me a joke"
TRANSCRIBED = "conversation.item.input_audio_transcription"
ONLY_EVENTS: dict[str, Any] = {"turn_detection": VAD_ONLY}
PUSH_TO_TALK: dict[str, Any] = {"turn_detection": None}
WRITES_DOWN: dict[str, Any] = {"transcription": Transcription(model="whisper-1")}


async def commit(rig: Rig) -> str:
    """Commit what was said; the item's id."""
    rig.send(events.InputAudioBufferCommit())
    assert await rig.until("conversation.item.done") == TURN[2:]
    return str(rig.last(TURN[2])["item_id"])


def knows_a_joke(**options: Any) -> Any:
    """What sessions share where one sentence is known."""
    known = ExactTranscriber()
    known.learn(JOKE, spoken(JOKE))
    return world(exact=known, **options)


@both
async def test_a_spoken_turn_is_answered_by_itself(dialect: str) -> None:
    async with Rig(dialect=dialect) as rig:
        n_before = len(rig.frames)
        await rig.listen(spoken())
        if "response.done" not in rig.types:
            await rig.until("response.done")
        turn = TURN if dialect == "ga" else PREVIEW_TURN
        assert collapse(rig.types[n_before:]) == [*turn, *REPLY[dialect]]
        started, stopped, committed = (rig.last(kind) for kind in turn[:3])
        assert started["item_id"] == stopped["item_id"] == committed["item_id"]
        assert committed["previous_item_id"] is None
        (item,) = [f["item"] for f in rig.frames if f["type"] == turn[3] and f["item"]["role"] == "user"]
        assert item["content"] == [{"type": "input_audio", "transcript": None}]
        assert item["status"] == "completed"
        heard_s = (stopped["audio_end_ms"] - started["audio_start_ms"]) / 1000
        assert rig.said().startswith(f"I heard you speak for {heard_s:.1f} seconds.")
        assert "no language model" in rig.said()


async def test_the_item_is_what_was_heard_between_start_and_end() -> None:
    async with Rig(settings=ONLY_EVENTS) as rig:
        assert await rig.listen(spoken()) == TURN
        start, end = rig.last(TURN[0])["audio_start_ms"], rig.last(TURN[1])["audio_end_ms"]
        kept = await rig.retrieved(rig.last(TURN[2])["item_id"])
        assert kept.audio == encoded(spoken())[start * 48 : end * 48]
        assert await rig.rest() == []  # no transcription without being asked for


async def test_barge_in_cancels_the_reply_that_is_spoken() -> None:
    async with Rig(world(latency=SLOW)) as rig:
        await rig.begin()
        assert collapse(await rig.listen(spoken(silence_ms=100))) == BARGE_IN
        done = rig.last("response.done")["response"]
        assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")
        sent_ms = len(rig.sent()) // 48
        cut = events.ConversationItemTruncate(item_id=done["output"][0]["id"], content_index=0, audio_end_ms=sent_ms)
        rig.send(cut)
        await rig.until("conversation.item.truncated")


async def test_barge_in_cancels_a_reply_that_is_not_announced_yet() -> None:
    async with Rig(world(latency="fast,response_created_ms=10000")) as rig:
        assert await rig.listen(spoken()) == TURN  # its reply would come in 10 s
        types = await rig.listen(spoken(silence_ms=100))
        assert types[:3] == [TURN[0], "response.created", "response.done"]
        details = rig.last("response.done")["response"]["status_details"]
        assert details == {"type": "cancelled", "reason": "turn_detected"}


async def test_barge_in_leaves_responses_outside_the_conversation_alone() -> None:
    async with Rig(world(latency=SLOW)) as rig:
        rig.respond(conversation="none")
        await rig.until("response.output_audio.delta")
        await rig.listen(spoken(silence_ms=100))
        assert not rig.of("response.done")


@pytest.mark.parametrize(
    "vad, expected",
    [
        pytest.param(ServerVad(interrupt_response=False), [*TURN, "error"], id="no interruption: no second reply"),
        pytest.param(
            ServerVad(create_response=False), [TURN[0], "conversation.item.done", *TURN[1:]], id="interrupted only"
        ),
        pytest.param(VAD_ONLY, TURN, id="neither: events only"),
    ],
)
async def test_replies_and_interruptions_are_switched_off(vad: ServerVad, expected: list[str]) -> None:
    async with Rig(world(latency=SLOW), settings={"turn_detection": vad}) as rig:
        await rig.begin()
        types = await rig.listen(spoken())
        assert [t for t in types if not t.startswith(("response.", "rate_limits."))] == expected
        ends = [frame["response"]["status"] for frame in rig.of("response.done")]
        assert ends == (["cancelled"] if vad.interrupt_response is not False else [])
        assert len(rig.of("response.created")) == 1
        codes = [frame["error"]["code"] for frame in rig.of("error")]
        assert codes == ["conversation_already_has_active_response"] * expected.count("error")


async def test_push_to_talk() -> None:
    async with Rig(settings=PUSH_TO_TALK) as rig:
        assert await rig.listen(spoken()) == []
        item_id = await commit(rig)
        assert await rig.rest() == []
        assert (await rig.retrieved(item_id)).audio == encoded(spoken())
        rig.respond()
        assert collapse(await rig.until("response.done")) == SPOKEN_REPLY


async def test_the_second_commit_holds_only_what_came_after_the_first() -> None:
    async with Rig(settings=PUSH_TO_TALK) as rig:
        await rig.listen(spoken())
        first = await commit(rig)
        await rig.listen(SILENCE[:4800])
        second = await commit(rig)
        assert rig.last(TURN[2])["previous_item_id"] == first
        assert (await rig.retrieved(second)).audio == bytes(9600)


@pytest.mark.parametrize("data", [b"", bytes(2 * 2399), bytes(4801)], ids=["nothing", "99 ms", "refused audio"])
async def test_a_commit_of_less_than_100_ms_is_refused(data: bytes) -> None:
    async with Rig(settings=PUSH_TO_TALK) as rig:
        rig.in_step = len(data) % 2 == 0  # the client counts audio that was refused
        for piece in chunks(data, 9600):
            rig.send(events.InputAudioBufferAppend(audio=piece))
        if not rig.in_step:
            await rig.refusal()
        rig.send(events.InputAudioBufferCommit(event_id="c"))
        error = await rig.refusal()
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "c")


async def test_a_commit_in_the_middle_of_a_turn_takes_its_id_and_what_was_heard_so_far(rig: Rig) -> None:
    await rig.listen(spoken(silence_ms=0))
    started = rig.last(TURN[0])
    assert await commit(rig) == started["item_id"]
    await rig.listen(spoken())
    later = {frame["item_id"] for kind in TURN[:2] for frame in rig.of(kind)[kind == TURN[0] :]}
    assert later
    assert started["item_id"] not in later  # that turn is over, whatever is said next is another


async def test_cleared_audio_is_gone_also_in_the_middle_of_a_turn() -> None:
    six = "one two three four five six"
    async with Rig(settings=ONLY_EVENTS) as rig:
        await rig.listen(spoken(six, silence_ms=0)[:24_000])
        assert rig.of(TURN[0])
        rig.send(events.InputAudioBufferClear())
        assert await rig.until("input_audio_buffer.cleared") == ["input_audio_buffer.cleared"]
        await rig.listen(spoken(six, silence_ms=1500)[24_000:])
        first, second = rig.of(TURN[0])
        assert second["audio_start_ms"] >= 1000  # not even its padding reaches behind the clear
        item_id = rig.last(TURN[2])["item_id"]
        assert first["item_id"] != item_id
        length_ms = rig.last(TURN[1])["audio_end_ms"] - second["audio_start_ms"]
        assert len((await rig.retrieved(item_id)).audio) == 48 * length_ms


@pytest.mark.parametrize("media", [PCMU, PCMA], ids=lambda m: m.type)
async def test_g711_in_and_out(media: Any) -> None:
    async with Rig(settings={"input_format": media, "output_format": media}) as rig:
        await rig.listen(spoken(), media.type, size=800)
        if "response.done" not in rig.types:
            await rig.until("response.done")
        start, end = rig.last(TURN[0])["audio_start_ms"], rig.last(TURN[1])["audio_end_ms"]
        assert end % 32 == 0
        assert 1000 < end < 4000
        kept = await rig.retrieved(rig.last(TURN[2])["item_id"])
        assert kept.audio == encoded(spoken(), media.type)[start * 8 : end * 8]
        assert len(rig.sent()) > 8 * 1000


async def test_the_input_format_changes_in_the_middle_of_a_session() -> None:
    async with Rig(settings=ONLY_EVENTS) as rig:
        await rig.listen(spoken(silence_ms=0))  # a turn under way …
        assert rig.of(TURN[0])
        heard_ms = len(spoken(silence_ms=0)) / 24
        await rig.set(input_format=PCMU)
        await rig.listen(SILENCE, "audio/pcmu", size=800)
        assert not rig.of(TURN[1])  # … ends with its format
        await rig.listen(spoken(), "audio/pcmu", size=800)
        (stopped,) = rig.of(TURN[1])
        assert heard_ms + 1000 < stopped["audio_end_ms"] < heard_ms + 1000 + len(spoken()) / 24
        rig.in_step = False  # the client counts the audio of that turn in the new format


async def test_turn_detection_is_switched_off_in_the_middle_of_a_turn(rig: Rig) -> None:
    await rig.listen(spoken(silence_ms=0))
    await rig.set(turn_detection=None)
    assert await rig.listen(SILENCE) == []
    assert await commit(rig) == rig.last(TURN[0])["item_id"]


async def test_a_longer_silence_set_in_the_middle_of_a_pause_holds_at_once() -> None:
    audio = spoken(silence_ms=3000)
    at = len(audio) - 24 * 2900  # 100 ms into the silence
    ends = []
    for silence_ms in (200, 1000):
        async with Rig(settings=ONLY_EVENTS) as rig:
            await rig.listen(audio[:at])
            await rig.set(turn_detection=ServerVad(silence_duration_ms=silence_ms))
            await rig.listen(audio[at:])
            ends.append(rig.of(TURN[1])[0]["audio_end_ms"])
    assert ends[1] - ends[0] == (32 - 7) * 32


# --- the idle timeout -------------------------------------------------------------------------------------------------


async def test_after_the_idle_timeout_the_silence_is_committed_and_answered() -> None:
    async with Rig(settings={"turn_detection": ServerVad(idle_timeout_ms=6000)}) as rig:
        await rig.listen(np.zeros(24_000 * 8, np.float32))
        assert not rig.of("input_audio_buffer.timeout_triggered")  # there was no reply to wait after
        done = await rig.ask("hello", **WRITTEN)
        types = await rig.listen(np.zeros(24 * 6100, np.float32))
        expected = ["input_audio_buffer.timeout_triggered", *TURN[2:4]]
        assert [t for t in types if t != "rate_limits.updated"][:3] == expected
        timeout = rig.last("input_audio_buffer.timeout_triggered")
        assert timeout["audio_end_ms"] - timeout["audio_start_ms"] == 6016
        assert timeout["audio_start_ms"] == 8000
        assert timeout["item_id"] == rig.last(TURN[2])["item_id"]
        if "response.done" not in types:
            await rig.until("response.done")
        assert rig.last("response.done")["response"]["id"] != done["id"]


def test_the_idle_timeout_counts_from_the_end_of_playback() -> None:
    async def talk() -> None:
        async with Rig(settings={"turn_detection": ServerVad(idle_timeout_ms=5000)}) as rig:
            await rig.ask("hello")
            played_ms = len(rig.sent()) / 48
            await rig.listen(np.zeros(24 * int(played_ms + 5000 + 200), np.float32))
            start = rig.last("input_audio_buffer.timeout_triggered")["audio_start_ms"]
            assert played_ms <= start <= played_ms + 32  # sent at once, played in its own time

    run(talk())  # no time passes but what is waited for


async def test_nobody_is_asked_again_while_a_reply_is_on_its_way() -> None:
    shared = world(latency="fast,audio_rate=1,first_delta_ms=30000")
    async with Rig(shared, settings={"turn_detection": ServerVad(idle_timeout_ms=5000)}) as rig:
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


@pytest.mark.parametrize("eagerness, longest", [("low", 8000), ("medium", 4000), ("auto", 4000), ("high", 2000)])
async def test_eagerness_bounds_how_long_the_end_is_waited_for(eagerness: str, longest: int) -> None:
    async with Rig(settings={"turn_detection": SemanticVad(eagerness=eagerness, create_response=False)}) as rig:
        await rig.listen(spoken(silence_ms=longest + 700))
        end = rig.last(TURN[1])["audio_end_ms"]
        ended_ms = len(spoken(silence_ms=0)) / 24
        assert end % 32 == 0
        assert longest / 5 - 200 <= end - ended_ms <= longest + 400


# --- what is understood -----------------------------------------------------------------------------------------------


async def test_unknown_speech_is_not_written_down() -> None:
    async with Rig(settings=ONLY_EVENTS | WRITES_DOWN) as rig:
        await rig.listen(spoken())
        assert await rig.rest() == [f"{TRANSCRIBED}.failed"]
        failed = rig.frames[-1]
        assert failed["item_id"] == rig.last(TURN[2])["item_id"]
        assert "nothing is invented" in failed["error"]["message"]


@both
async def test_known_speech_is_written_down_word_for_word_and_understood(dialect: str) -> None:
    settings = {"turn_detection": ServerVad(silence_duration_ms=600), **WRITES_DOWN}
    async with Rig(knows_a_joke(), dialect=dialect, settings=settings) as rig:
        await rig.listen(spoken(JOKE))
        await rig.rest()
        assert rig.last(f"{TRANSCRIBED}.completed")["transcript"] == JOKE
        assert "buffer overflow" in rig.said()
        assert rig.client.state.conversation[0].content[0].transcript == JOKE  # type: ignore[union-attr,index]


async def test_a_scenario_says_what_was_heard_and_what_is_said() -> None:
    steps = [
        {"hear": "What is the weather in Lund?", "say": "Grey."},
        {"when": {"text": "bye"}, "say": "Bye, then."},
    ]
    async with Rig(world(scenario={"steps": steps}), settings=WRITES_DOWN) as rig:
        await rig.listen(spoken())
        await rig.rest()
        assert rig.last(f"{TRANSCRIBED}.completed")["transcript"] == "What is the weather in Lund?"
        assert rig.said() == "Grey."
        assert await rig.answer("Good bye") == "Bye, then."


@pytest.mark.parametrize(
    "model, deltas, usage",
    [
        ("whisper-1", [JOKE], "duration"),
        ("gpt-4o-transcribe", ["Tell", " me", " a", " joke"], "tokens"),
        ("gpt-transcribe", ["Tell", " me", " a", " joke"], "duration"),
    ],
)
async def test_a_transcription_comes_in_deltas_and_costs_by_its_model(
    model: str, deltas: list[str], usage: str
) -> None:
    asked = {"transcription": Transcription(model=model), "include": ("item.input_audio_transcription.logprobs",)}
    async with Rig(knows_a_joke(), settings=asked) as rig:
        await rig.listen(spoken(JOKE))
        await rig.rest()
        assert [one["delta"] for one in rig.of(f"{TRANSCRIBED}.delta")] == deltas
        completed = rig.last(f"{TRANSCRIBED}.completed")
        assert completed["usage"]["type"] == usage
        if usage == "tokens":
            heard_ms = rig.last(TURN[1])["audio_end_ms"] - rig.last(TURN[0])["audio_start_ms"]
            assert completed["usage"]["input_token_details"]["audio_tokens"] == heard_ms // 100
            assert completed["usage"]["output_tokens"] == 4
            assert [one["token"] for one in completed["logprobs"]] == deltas
            assert all(one["logprob"] <= 0 for one in completed["logprobs"])
        else:
            assert "logprobs" not in completed


async def test_its_own_answer_played_back_to_it_is_understood(rig: Rig) -> None:
    done = await rig.ask(JOKE)
    await rig.retrieved(done["output"][0]["id"])
    wire = rig.last("conversation.item.retrieved")["item"]["content"][0]["audio"]
    await rig.set(turn_detection=None, **WRITES_DOWN)
    await rig.listen(decode_pcm16(base64.b64decode(wire)))
    await commit(rig)
    if not rig.of(f"{TRANSCRIBED}.completed"):
        await rig.until(f"{TRANSCRIBED}.completed")
    assert rig.last(f"{TRANSCRIBED}.completed")["transcript"] == rig.said()
