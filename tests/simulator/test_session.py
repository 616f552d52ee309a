"""A session's events, their order, and that both sides hold the same state afterwards: `rtnb.simulator.session`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtnb.protocol import Item, events
from rtnb.protocol.values import PCMU, Audio, AudioOutput, ContentPart
from rtnb.simulator import session
from tests.simulator.rig import Rig, at_once, collapse, encoded, spoken, world

SPOKEN_REPLY = [  # protocol reference, GA: a reply with sound
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
PREVIEW_SPOKEN_REPLY = [
    "response.created",
    "response.output_item.added",
    "conversation.item.created",
    "response.content_part.added",
    "response.audio_transcript.delta",
    "response.audio.delta",
    "response.audio.done",
    "response.audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.done",
]
CALL = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


async def test_a_ga_session_begins_with_one_event_and_the_defaults_of_the_service() -> None:
    async with Rig() as rig:
        assert [f["type"] for f in rig.frames] == ["session.created"]
        session = rig.frames[0]["session"]
        assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 200
        assert session["model"] == "test"
        assert await rig.rest() == []
        rig.same()


async def test_a_preview_session_begins_with_two() -> None:
    async with Rig(dialect="preview") as rig:
        assert [f["type"] for f in rig.frames] == ["session.created", "conversation.created"]
        assert rig.frames[0]["session"]["turn_detection"]["silence_duration_ms"] == 200
        assert rig.frames[0]["session"]["modalities"] == ["text", "audio"]
        rig.same()


async def test_a_written_turn_in_ga() -> None:
    async with Rig() as rig:
        rig.write("What is a delta?")
        rig.respond()
        types = await rig.until("rate_limits.updated")
        assert types[:2] == ["conversation.item.added", "conversation.item.done"]
        assert collapse(types[2:]) == [*SPOKEN_REPLY, "rate_limits.updated"]
        done = rig.last("response.done")["response"]
        assert (done["status"], done["status_details"]) == ("completed", None)
        spoken_words = "".join(f["delta"] for f in rig.of("response.output_audio_transcript.delta"))
        assert spoken_words == done["output"][0]["content"][0]["transcript"]
        assert done["output"][0]["content"][0]["type"] == "output_audio"
        assert rig.last("response.content_part.added")["part"] == {"type": "audio", "transcript": ""}
        usage = done["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        rig.same()


async def test_a_written_turn_in_the_preview() -> None:
    async with Rig(dialect="preview") as rig:
        rig.write("What is a delta?")
        rig.respond()
        types = await rig.until("rate_limits.updated")
        assert types[0] == "conversation.item.created"
        assert collapse(types[1:]) == [*PREVIEW_SPOKEN_REPLY, "rate_limits.updated"]
        assert rig.last("response.done")["response"]["output"][0]["content"][0]["type"] == "audio"
        rig.same()


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_an_answer_in_writing(dialect: str) -> None:
    text = "output_text" if dialect == "ga" else "text"
    async with Rig(dialect=dialect) as rig:
        done = await rig.ask("hello", output_modalities=("text",))
        kinds = collapse([f["type"] for f in rig.frames])
        middle = kinds[kinds.index("response.content_part.added") + 1 : kinds.index("response.content_part.done")]
        assert middle == [f"response.{text}.delta", f"response.{text}.done"]
        assert not rig.of("response.output_audio.delta")
        assert not rig.of("response.audio.delta")
        words = done["output"][0]["content"][0]["text"]
        assert words == "".join(f["delta"] for f in rig.of(f"response.{text}.delta"))
        rig.same()


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_a_tool_is_called_answered_and_spoken_about(dialect: str) -> None:
    async with Rig(dialect=dialect) as rig:
        rig.update(tools=[WEATHER])
        assert await rig.until("session.updated") == ["session.updated"]
        n_before = len(rig.frames)
        done = await rig.ask("What is the weather in Lund?")
        types = collapse([f["type"] for f in rig.frames[n_before:]])
        if dialect == "ga":
            assert types == ["conversation.item.added", "conversation.item.done", *CALL]
            assert rig.last("response.function_call_arguments.done")["name"] == "get_weather"
        else:
            preview = [t.replace("item.added", "item.created") if t.startswith("conv") else t for t in CALL]
            preview[1] = "response.output_item.added"
            preview.remove("conversation.item.done")
            assert types == ["conversation.item.created", *preview]
            assert "name" not in rig.last("response.function_call_arguments.done")
        (call,) = done["output"]
        assert json.loads(call["arguments"]) == {"city": "Lund"}
        assert call["arguments"] == "".join(f["delta"] for f in rig.of("response.function_call_arguments.delta"))
        rig.send(
            events.ConversationItemCreate(
                item=Item(type="function_call_output", call_id=call["call_id"], output='{"sky": "grey"}')
            )
        )
        rig.respond()
        await rig.until("response.done")
        said = rig.last("response.done")["response"]["output"][0]["content"][0]["transcript"]
        assert said == 'The tool answered: {"sky": "grey"}'
        rig.same()


async def test_the_preview_names_a_forced_function_one_level_deeper() -> None:
    async with Rig(dialect="preview", strict=False) as rig:  # the beta types say str, the service's documents an object
        choice = {"type": "function", "function": {"name": "get_weather"}}
        rig.update(tools=[WEATHER], tool_choice=choice)
        done = await rig.ask("hello")
        assert done["output"][0]["name"] == "get_weather"


async def test_instructions_of_one_response_are_shown_and_empty_ones_count() -> None:
    async with Rig() as rig:
        rig.update(instructions="Speak of whales.")
        done = await rig.ask("hello", instructions="Speak of herrings.", output_modalities=("text",))
        assert "Speak of herrings." in done["output"][0]["content"][0]["text"]
        done = await rig.ask("hello", output_modalities=("text",))
        assert "Speak of whales." in done["output"][0]["content"][0]["text"]
        done = await rig.ask("hello", instructions="", output_modalities=("text",))
        assert "whales" not in done["output"][0]["content"][0]["text"]


async def test_a_limit_of_tokens_ends_the_response_incomplete() -> None:
    async with Rig() as rig:
        done = await rig.ask("Please say much more than this.", max_output_tokens=5, output_modalities=("text",))
        assert done["status"] == "incomplete"
        assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        assert done["output"][0]["status"] == "incomplete"
        assert done["usage"]["output_tokens"] == 5
        rig.same()


async def test_a_reply_that_just_fits_is_complete() -> None:
    async with Rig() as rig:
        used = (await rig.ask("joke", output_modalities=("text",)))["usage"]["output_tokens"]
        again = await rig.ask("joke", output_modalities=("text",), max_output_tokens=used)
        assert again["status"] == "completed"


async def test_a_call_cut_short_by_the_limit_is_incomplete() -> None:
    async with Rig() as rig:
        rig.update(tools=[WEATHER])
        done = await rig.ask("What is the weather in Llanfairpwllgwyngyllgogerychwyrndrobwll?", max_output_tokens=4)
        assert done["status"] == "incomplete"
        assert done["output"][0]["status"] == "incomplete"
        with pytest.raises(json.JSONDecodeError):
            json.loads(done["output"][0]["arguments"])
        rig.same()


async def test_a_response_is_cancelled_by_hand() -> None:
    async with Rig(world(latency="fast,audio_rate=1")) as rig:
        rig.write("Count to ten")
        rig.respond()
        await rig.until("response.output_audio.delta")
        rig.send(events.ResponseCancel())
        types = await rig.until("response.done")
        ends = [
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        assert types[-6:] == ends
        done = rig.last("response.done")["response"]
        assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert done["output"][0]["status"] == "incomplete"
        await rig.until("rate_limits.updated")
        assert await rig.rest() == []
        rig.same()


async def test_cancelling_nothing_is_an_error_that_names_the_event() -> None:
    async with Rig() as rig:
        rig.send(events.ResponseCancel(event_id="mine"))
        await rig.until("error")
        error = rig.last("error")["error"]
        assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "mine")


async def test_one_response_at_a_time_also_before_it_is_announced() -> None:
    async with Rig(world(latency="fast,response_created_ms=30")) as rig:
        rig.respond()
        rig.respond()
        assert await rig.until("error") == ["error"]
        assert rig.last("error")["error"]["code"] == "conversation_already_has_active_response"
        assert rig.last("error")["error"]["event_id"] == "r"
        await rig.until("response.done")
        assert len(rig.of("response.created")) == 1
        rig.same()


async def test_a_response_that_is_not_announced_yet_can_be_cancelled() -> None:
    async with Rig(world(latency="fast,response_created_ms=10000")) as rig:
        rig.respond()
        rig.send(events.ResponseCancel())
        assert await rig.until("response.done") == ["response.created", "response.done"]
        assert rig.last("response.done")["response"]["status"] == "cancelled"
        rig.same()


async def test_responses_outside_the_conversation_run_side_by_side() -> None:
    async with Rig(world(latency="fast,audio_rate=20,text_token_ms=2")) as rig:
        rig.write("hello")
        rig.respond()
        for topic in ("a", "b"):
            rig.respond(conversation="none", metadata={"topic": topic}, output_modalities=("text",), input=())
        for _ in range(3):
            await rig.until("response.done")
        done = [f["response"] for f in rig.of("response.done")]
        assert sorted((r.get("metadata") or {}).get("topic", "") for r in done) == ["", "a", "b"]
        assert [r["conversation_id"] is None for r in done if r["metadata"]] == [True, True]
        outside = {r["id"] for r in done if r["metadata"]}
        items = {item["id"] for r in done if r["id"] in outside for item in r["output"]}
        in_conversation = {f["item"]["id"] for f in rig.frames if f["type"].startswith("conversation.item.")}
        assert items
        assert not items & in_conversation
        assert not items & set(rig.session.state.order)
        rig.same()


async def test_a_reference_reaches_an_item_and_an_unknown_one_is_an_error() -> None:
    async with Rig() as rig:
        rig.write("Tell me a joke", id="first")
        await rig.until("conversation.item.done")
        rig.write("hello", id="second")
        rig.respond(conversation="none", input=(Item(type="item_reference", id="first"),), output_modalities=("text",))
        await rig.until("response.done")
        assert "buffer overflow" in rig.last("response.done")["response"]["output"][0]["content"][0]["text"]
        rig.respond(conversation="none", input=(Item(type="item_reference", id="nobody"),))
        await rig.until("error")
        assert rig.last("error")["error"]["code"] == "item_not_found"
        rig.same()


async def test_the_voice_is_frozen_once_it_was_heard() -> None:
    async with Rig() as rig:
        rig.update(voice="marin")
        await rig.until("session.updated")
        await rig.ask("hello")
        rig.update(voice="echo", instructions="lost")
        await rig.until("error")
        assert rig.last("error")["error"]["code"] == "cannot_update_voice"
        assert rig.last("error")["error"]["event_id"] == "u"
        rig.update(voice="marin", instructions="kept")
        await rig.until("session.updated")
        assert rig.last("session.updated")["session"]["instructions"] == "kept"
        rig.same()


async def test_an_item_gives_back_the_sound_that_was_sent() -> None:
    async with Rig() as rig:
        done = await rig.ask("hello")
        item_id = done["output"][0]["id"]
        sent = b"".join(e.delta for e in rig.events if isinstance(e, events.ResponseOutputAudioDelta))
        rig.send(events.ConversationItemRetrieve(item_id=item_id))
        await rig.until("conversation.item.retrieved")
        assert rig.events[-1].item.content[0].audio == sent
        mine = encoded(spoken())
        part = ContentPart(type="input_audio", audio=mine)
        rig.write("between")
        first = rig.session.state.order[0]
        rig.send(
            events.ConversationItemCreate(
                item=Item(type="message", role="user", content=(part,)), previous_item_id=first
            )
        )
        rig.send(events.ConversationItemRetrieve(item_id=rig.session.state.order[1]))
        await rig.until("conversation.item.retrieved")
        assert rig.events[-1].item.content[0].audio == mine  # its own, though it is not the last item
        rig.same()


async def test_truncate_and_delete() -> None:
    async with Rig() as rig:
        item_id = (await rig.ask("hello"))["output"][0]["id"]
        rig.send(events.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=500))
        await rig.until("conversation.item.truncated")
        rig.send(events.ConversationItemRetrieve(item_id=item_id))
        await rig.until("conversation.item.retrieved")
        assert len(rig.events[-1].item.content[0].audio) == 500 * 48
        assert not rig.frames[-1]["item"]["content"][0].get("transcript")
        rig.send(events.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=900))
        await rig.until("error")
        assert "already shorter than 900ms" in rig.last("error")["error"]["message"]
        rig.send(events.ConversationItemDelete(item_id=item_id))
        await rig.until("conversation.item.deleted")
        rig.send(events.ConversationItemRetrieve(item_id=item_id))
        await rig.until("error")
        assert rig.last("error")["error"]["code"] == "item_not_found"
        rig.same()


async def test_g711_out() -> None:
    async with Rig() as rig:
        done = await rig.ask("hello", audio=Audio(output=AudioOutput(format=PCMU)))
        data = b"".join(e.delta for e in rig.events if isinstance(e, events.ResponseOutputAudioDelta))
        ms = len(data) / 8
        assert 1000 < ms < 20_000
        assert done["audio"]["output"]["format"] == {"type": "audio/pcmu"}
        rig.send(events.ConversationItemTruncate(item_id=done["output"][0]["id"], content_index=0, audio_end_ms=100))
        await rig.until("conversation.item.truncated")
        rig.same()


async def test_a_behaviour_that_fails_fails_the_response_and_not_the_session() -> None:
    class Broken:
        async def respond(self, turn: Any) -> Any:
            raise RuntimeError("no idea")
            yield

    async with Rig(world(make_responder=lambda number: Broken())) as rig:
        done = await rig.ask("hello")
        assert done["status"] == "failed"
        assert done["status_details"]["error"]["message"] == "no idea"
        rig.write("still here")
        await rig.until("conversation.item.done")
        rig.same()


async def test_what_is_refused_changes_nothing() -> None:
    async with Rig() as rig:
        before = rig.session.state.snapshot()
        for text in ("{", "[]", '{"type": "nope"}', '{"no": "type"}', b"binary", '{"type":"conversation.item.create"}'):
            at_once(rig.session.receive(text))
            await rig.until("error")
        codes = [f["error"]["code"] for f in rig.of("error")]
        assert codes == [
            "invalid_json",
            "invalid_json",
            "invalid_value",
            "invalid_event",
            "invalid_event",
            "missing_required_parameter",
        ]
        assert rig.session.state.snapshot() == before


async def test_half_a_sample_and_broken_base64_are_refused_and_the_session_goes_on() -> None:
    async with Rig() as rig:
        rig.send(events.InputAudioBufferAppend(event_id="half", audio=b"abc"))
        await rig.until("error")
        assert rig.last("error")["error"]["event_id"] == "half"
        at_once(rig.session.receive('{"type": "input_audio_buffer.append", "event_id": "b", "audio": "no base64!"}'))
        await rig.until("error")
        assert rig.last("error")["error"]["param"] == "audio"
        part = ContentPart(type="input_audio", audio=b"abc")
        rig.send(events.ConversationItemCreate(item=Item(type="message", role="user", content=(part,))))
        await rig.until("error")
        assert (await rig.ask("hello"))["status"] == "completed"


async def test_an_append_of_15_mib_is_taken_and_one_above_is_refused() -> None:
    async with Rig() as rig:
        rig.update(turn_detection=None)
        await rig.until("session.updated")
        limit = 15 * 1024 * 1024
        await rig.session.receive(rig.client.send(events.InputAudioBufferAppend(audio=bytes(limit))))
        assert await rig.rest() == []
        assert rig.session.state.input_audio_buffer.bytes == limit
        big = events.InputAudioBufferAppend(event_id="big", audio=bytes(limit + 2))
        await rig.session.receive(rig.client.send(big))
        await rig.until("error")
        assert rig.last("error")["error"]["event_id"] == "big"
        assert rig.session.state.input_audio_buffer.bytes == limit


async def test_a_transcription_session_answers_nothing() -> None:
    async with Rig(transcription=True) as rig:
        assert rig.frames[0]["session"]["type"] == "transcription"
        assert await rig.listen(spoken()) == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
        ]
        assert await rig.rest() == []
        rig.respond()
        await rig.until("error")
        assert rig.last("error")["error"]["event_id"] == "r"
        rig.same()


async def test_the_same_seed_says_the_same() -> None:
    async def talk(number: int) -> list[dict[str, Any]]:
        async with Rig(world(seed=5), number=number) as rig:
            rig.hear(spoken())
            await rig.until("rate_limits.updated")
            await rig.ask("hello")
            return rig.frames

    first, again, other = await talk(1), await talk(1), await talk(2)
    assert first == again
    assert first[0]["session"]["id"] != other[0]["session"]["id"]


async def test_ids_are_short_enough_to_be_sent_back() -> None:
    async with Rig() as rig:
        done = await rig.ask("hello")
        assert len(done["output"][0]["id"]) <= 32


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_a_conversation_restored_item_by_item_is_known(dialect: Any) -> None:
    async with Rig(dialect=dialect) as rig:
        for role, text in (("user", "My boat is green."), ("assistant", "Noted."), ("user", "And fast.")):
            part = ContentPart(type="input_text" if role == "user" else "output_text", text=text)
            rig.send(events.ConversationItemCreate(item=Item(type="message", role=role, content=(part,))))
        done = await rig.ask("What did I say first?", output_modalities=("text",))
        assert done["output"][0]["content"][0]["text"] == "Your first message was: My boat is green."
        rig.same()


async def test_an_answer_reads_no_more_items_in_a_long_conversation() -> None:
    class Counting(dict[str, Any]):
        n_read = 0

        def get(self, *key: Any) -> Any:
            self.n_read += 1
            return super().get(*key)

        def __getitem__(self, key: str) -> Any:
            self.n_read += 1
            return super().__getitem__(key)

    async with Rig() as rig:
        entries = rig.session.state.entries = Counting(rig.session.state.entries)
        n_read = []
        for _ in range(20):
            n_before = entries.n_read
            await rig.ask("hello", output_modalities=("text",))
            n_read.append(entries.n_read - n_before)
        assert max(n_read[1:]) - min(n_read[1:]) <= 3  # the two greetings have different lengths


async def test_the_session_ends_after_its_time() -> None:
    async with Rig(world(session_s=0.01)) as rig:
        assert await rig.until("error") == ["error"]
        assert rig.last("error")["error"]["code"] == "session_expired"
        assert await rig.next() is None
        assert rig.close is not None
        assert rig.close.code == 1001


async def test_backpressure_counts_bytes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb.simulator.delivery.MOST_WAITING_BYTES", 10_000)
    async with Rig() as rig:
        rig.update(instructions="a" * 10_000)
        blocked = rig.session.outgoing.has_room()
        blocked.send(None)
        await rig.until("session.updated")
        with pytest.raises(StopIteration):
            blocked.send(None)
        assert rig.session.outgoing.n_waiting == 0


async def test_a_client_that_does_not_read_is_not_listened_to() -> None:
    rig = Rig()
    waiting = rig.session.outgoing.has_room()
    await waiting
    for _ in range(1100):
        rig.send(events.InputAudioBufferClear())
    blocked = rig.session.outgoing.has_room()
    blocked.send(None)  # it waits now …
    async with rig:
        for _ in range(1100):
            await rig.next()
        with pytest.raises(StopIteration):
            blocked.send(None)  # … and goes on once all was read


async def test_deleted_items_make_room_and_refused_ones_take_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MOST_KEPT", 1000)
    async with Rig() as rig:
        rig.write("a" * 600, id="one")
        rig.write("b" * 600, id="two")
        await rig.until("error")
        assert rig.last("error")["error"]["code"] == "conversation_too_long"
        for _ in range(3):
            rig.send(events.ConversationItemDelete(item_id="one"))
            await rig.until("conversation.item.deleted")
            rig.write("c" * 600, id="one")
            assert (await rig.until("conversation.item.done", "error"))[-1] == "conversation.item.done"
