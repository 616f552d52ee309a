"""A session's events, their order, and that both sides hold the same state afterwards: `rtnb.simulator.session`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtnb.protocol import Item, events
from rtnb.protocol.values import PCMU, Audio, AudioOutput, ContentPart
from rtnb.simulator import session
from tests.simulator.rig import WRITTEN, Rig, collapse, encoded, spoken, world

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
REPLY = {"ga": SPOKEN_REPLY, "preview": PREVIEW_SPOKEN_REPLY}
CALLS = {
    "ga": [
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ],
    "preview": [
        "conversation.item.created",
        "response.created",
        "response.output_item.added",
        "conversation.item.created",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.done",
    ],
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


both = pytest.mark.parametrize("dialect", ["ga", "preview"])


@both
async def test_a_session_begins_with_the_defaults_of_the_service(dialect: str) -> None:
    async with Rig(dialect=dialect) as rig:
        session = rig.frames[0]["session"]
        if dialect == "ga":
            assert rig.types == ["session.created"]
            assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 200
            assert session["model"] == "test"
        else:
            assert rig.types == ["session.created", "conversation.created"]
            assert session["turn_detection"]["silence_duration_ms"] == 200
            assert session["modalities"] == ["text", "audio"]
        assert await rig.rest() == []


@both
async def test_a_written_turn(dialect: str) -> None:
    async with Rig(dialect=dialect) as rig:
        rig.write("What is a delta?")
        rig.respond()
        types = await rig.until("rate_limits.updated")
        created = ["conversation.item.created"] if dialect == "preview" else CALLS["ga"][:2]
        assert collapse(types) == [*created, *REPLY[dialect], "rate_limits.updated"]
        done = rig.last("response.done")["response"]
        assert (done["status"], done["status_details"]) == ("completed", None)
        audio = "audio" if dialect == "preview" else "output_audio"
        assert rig.said() == "".join(f["delta"] for f in rig.of(f"response.{audio}_transcript.delta"))
        assert done["output"][0]["content"][0]["type"] == audio
        assert rig.last("response.content_part.added")["part"] == {"type": "audio", "transcript": ""}
        usage = done["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@both
async def test_an_answer_in_writing(dialect: str) -> None:
    text = "output_text" if dialect == "ga" else "text"
    async with Rig(dialect=dialect) as rig:
        words = await rig.answer("hello", **WRITTEN)
        kinds = collapse(rig.types)
        middle = kinds[kinds.index("response.content_part.added") + 1 : kinds.index("response.content_part.done")]
        assert middle == [f"response.{text}.delta", f"response.{text}.done"]
        assert not [kind for kind in kinds if kind.endswith("audio.delta")]
        assert words == "".join(f["delta"] for f in rig.of(f"response.{text}.delta"))


@both
async def test_a_tool_is_called_answered_and_spoken_about(dialect: str) -> None:
    async with Rig(dialect=dialect, settings={"tools": [WEATHER]}) as rig:
        n_before = len(rig.frames)
        (call,) = (await rig.ask("What is the weather in Lund?"))["output"]
        assert collapse(rig.types[n_before:]) == CALLS[dialect]
        name = "get_weather" if dialect == "ga" else None
        assert rig.last("response.function_call_arguments.done").get("name") == name
        assert json.loads(call["arguments"]) == {"city": "Lund"}
        assert call["arguments"] == "".join(f["delta"] for f in rig.of("response.function_call_arguments.delta"))
        rig.add(type="function_call_output", call_id=call["call_id"], output='{"sky": "grey"}')
        rig.respond()
        await rig.until("response.done")
        assert rig.said() == 'The tool answered: {"sky": "grey"}'


async def test_the_preview_names_a_forced_function_one_level_deeper() -> None:
    async with Rig(dialect="preview", strict=False) as rig:  # the beta types say str, the service's documents an object
        choice = {"type": "function", "function": {"name": "get_weather"}}
        rig.update(tools=[WEATHER], tool_choice=choice)
        done = await rig.ask("hello")
        assert done["output"][0]["name"] == "get_weather"


async def test_instructions_of_one_response_are_shown_and_empty_ones_count(rig: Rig) -> None:
    rig.update(instructions="Speak of whales.", **WRITTEN)
    assert "Speak of herrings." in await rig.answer("hello", instructions="Speak of herrings.")
    assert "Speak of whales." in await rig.answer("hello")
    assert "whales" not in await rig.answer("hello", instructions="")


async def test_a_reply_that_just_fits_is_complete(rig: Rig) -> None:
    used = (await rig.ask("joke", **WRITTEN))["usage"]["output_tokens"]
    assert (await rig.ask("joke", **WRITTEN, max_output_tokens=used))["status"] == "completed"


async def test_a_call_cut_short_by_the_limit_is_incomplete(rig: Rig) -> None:
    rig.update(tools=[WEATHER])
    done = await rig.ask("What is the weather in Llanfairpwllgwyngyllgogerychwyrndrobwll?", max_output_tokens=4)
    assert (done["status"], done["output"][0]["status"]) == ("incomplete", "incomplete")
    with pytest.raises(json.JSONDecodeError):
        json.loads(done["output"][0]["arguments"])


async def test_a_response_is_cancelled_by_hand() -> None:
    async with Rig(world(latency="fast,audio_rate=1")) as rig:
        await rig.begin()
        rig.send(events.ResponseCancel())
        assert (await rig.until("response.done"))[-6:] == SPOKEN_REPLY[6:]
        done = rig.last("response.done")["response"]
        assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert done["output"][0]["status"] == "incomplete"
        await rig.until("rate_limits.updated")
        assert await rig.rest() == []


async def test_cancelling_nothing_is_an_error_that_names_the_event(rig: Rig) -> None:
    rig.send(events.ResponseCancel(event_id="mine"))
    error = await rig.refusal()
    assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "mine")


async def test_cancelling_a_response_that_is_over_does_not_cancel_the_next() -> None:
    async with Rig(world(latency="response_created_ms=60000,answer_ms=0")) as rig:
        rig.respond()
        rig.send(events.ResponseCancel(response_id="resp_old"))
        assert (await rig.refusal())["code"] == "response_cancel_not_active"
        assert not rig.of("response.done")
        rig.send(events.ResponseCancel())  # this one, although it is not announced yet
        assert await rig.until("response.done") == ["response.created", "response.done"]
        assert rig.last("response.done")["response"]["status"] == "cancelled"


async def test_one_response_at_a_time_also_before_it_is_announced() -> None:
    async with Rig(world(latency="fast,response_created_ms=30")) as rig:
        rig.respond()
        rig.respond()
        assert await rig.until("error") == ["error"]
        error = rig.last("error")["error"]
        assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "r")
        await rig.until("response.done")
        assert len(rig.of("response.created")) == 1


async def test_responses_outside_the_conversation_run_side_by_side() -> None:
    async with Rig(world(latency="fast,audio_rate=20,text_token_ms=2")) as rig:
        rig.write("hello")
        rig.respond()
        for topic in ("a", "b"):
            rig.respond(conversation="none", metadata={"topic": topic}, input=(), **WRITTEN)
        for _ in range(3):
            await rig.until("response.done")
        done = [f["response"] for f in rig.of("response.done")]
        assert sorted((r.get("metadata") or {}).get("topic", "") for r in done) == ["", "a", "b"]
        assert [r["conversation_id"] is None for r in done if r["metadata"]] == [True, True]
        items = {item["id"] for r in done if r["metadata"] for item in r["output"]}
        in_conversation = {f["item"]["id"] for f in rig.frames if f["type"].startswith("conversation.item.")}
        assert items
        assert not items & (in_conversation | set(rig.client.state.order))


async def test_a_reference_reaches_an_item_and_an_unknown_one_is_an_error(rig: Rig) -> None:
    rig.write("Tell me a joke", id="first")
    rig.write("hello", id="second")
    rig.respond(conversation="none", input=(Item(type="item_reference", id="first"),), **WRITTEN)
    await rig.until("response.done")
    assert "buffer overflow" in rig.said()
    rig.respond(conversation="none", input=(Item(type="item_reference", id="nobody"),))
    assert (await rig.refusal())["code"] == "item_not_found"


async def test_the_voice_is_frozen_once_it_was_heard(rig: Rig) -> None:
    await rig.set(voice="marin")
    await rig.ask("hello")
    rig.update(voice="echo", instructions="lost")
    error = await rig.refusal()
    assert (error["code"], error["event_id"]) == ("cannot_update_voice", "u")
    await rig.set(voice="marin", instructions="kept")
    assert rig.last("session.updated")["session"]["instructions"] == "kept"


async def test_an_item_gives_back_the_sound_that_was_sent(rig: Rig) -> None:
    done = await rig.ask("hello")
    sent = rig.sent()
    assert (await rig.retrieved(done["output"][0]["id"])).audio == sent
    assert len(done["output"][0]["id"]) <= 32  # the longest that the service takes
    mine = encoded(spoken())
    part = ContentPart(type="input_audio", audio=mine)
    rig.write("between")
    item = Item(type="message", role="user", id="mine", content=(part,))
    rig.send(events.ConversationItemCreate(item=item, previous_item_id=rig.client.state.order[0]))
    assert (await rig.retrieved("mine")).audio == mine  # its own, though it is not the last item
    assert rig.client.state.order[1] == "mine"


async def test_truncate_and_delete(rig: Rig) -> None:
    item_id = (await rig.ask("hello"))["output"][0]["id"]
    rig.send(events.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=500))
    await rig.until("conversation.item.truncated")
    part = await rig.retrieved(item_id)
    assert (len(part.audio), part.transcript or "") == (500 * 48, "")
    rig.send(events.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=900))
    assert "already shorter than 900ms" in (await rig.refusal())["message"]
    rig.send(events.ConversationItemDelete(item_id=item_id))
    await rig.until("conversation.item.deleted")
    rig.send(events.ConversationItemRetrieve(item_id=item_id))
    assert (await rig.refusal())["code"] == "item_not_found"


async def test_an_item_deleted_while_it_is_spoken_stays_deleted() -> None:
    async with Rig(world(latency="realistic,audio_rate=1000,answer_ms=0")) as rig:
        await rig.begin()
        item_id = rig.frames[-1]["item_id"]
        rig.send(events.ConversationItemDelete(item_id=item_id))
        await rig.until("response.done")
        assert item_id not in rig.client.state.order


async def test_a_response_has_a_format_of_its_own(rig: Rig) -> None:
    done = await rig.ask("hello", audio=Audio(output=AudioOutput(format=PCMU)))
    assert 1000 < len(rig.sent()) / 8 < 20_000
    assert done["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    rig.send(events.ConversationItemTruncate(item_id=done["output"][0]["id"], content_index=0, audio_end_ms=100))
    await rig.until("conversation.item.truncated")


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


@pytest.mark.parametrize(
    "text, code",
    [
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        ('{"type": "nope"}', "invalid_value"),
        ('{"no": "type"}', "invalid_event"),
        (b"binary", "invalid_event"),
        ('{"type":"conversation.item.create"}', "missing_required_parameter"),
    ],
)
async def test_what_is_refused_changes_nothing(rig: Rig, text: str | bytes, code: str) -> None:
    before = rig.session.state.snapshot()
    rig.send_raw(text)
    assert (await rig.refusal())["code"] == code
    assert rig.session.state.snapshot() == before


async def test_half_a_sample_and_broken_base64_are_refused_and_the_session_goes_on(rig: Rig) -> None:
    rig.send(events.InputAudioBufferAppend(event_id="half", audio=b"abc"))
    assert (await rig.refusal())["event_id"] == "half"
    rig.send_raw('{"type": "input_audio_buffer.append", "event_id": "b", "audio": "no base64!"}')
    assert (await rig.refusal())["param"] == "audio"
    rig.add(type="message", role="user", content=(ContentPart(type="input_audio", audio=b"abc"),))
    await rig.refusal()
    assert (await rig.ask("hello"))["status"] == "completed"
    rig.in_step = False  # the client counts audio that was refused


async def test_an_append_of_15_mib_is_taken_and_one_above_is_refused(rig: Rig) -> None:
    await rig.set(turn_detection=None)
    limit = 15 * 1024 * 1024
    await rig.session.receive(rig.client.send(events.InputAudioBufferAppend(audio=bytes(limit))))
    assert await rig.rest() == []
    big = events.InputAudioBufferAppend(event_id="big", audio=bytes(limit + 2))
    await rig.session.receive(rig.client.send(big))
    assert (await rig.refusal())["event_id"] == "big"
    assert rig.session.state.input_audio_buffer.bytes == limit
    rig.in_step = False


async def test_a_transcription_session_answers_nothing() -> None:
    async with Rig(transcription=True) as rig:
        assert rig.frames[0]["session"]["type"] == "transcription"
        buffer = [f"input_audio_buffer.{what}" for what in ("speech_started", "speech_stopped", "committed")]
        assert await rig.listen(spoken()) == [*buffer, *CALLS["ga"][:2]]
        assert await rig.rest() == []
        rig.respond()
        assert (await rig.refusal())["event_id"] == "r"


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


@both
async def test_a_conversation_restored_item_by_item_is_known(dialect: Any) -> None:
    async with Rig(dialect=dialect) as rig:
        for role, text in (("user", "My boat is green."), ("assistant", "Noted."), ("user", "And fast.")):
            part = ContentPart(type="input_text" if role == "user" else "output_text", text=text)
            rig.add(type="message", role=role, content=(part,))
        answer = await rig.answer("What did I say first?", **WRITTEN)
        assert answer == "Your first message was: My boat is green."


async def test_an_answer_reads_no_more_items_in_a_long_conversation(rig: Rig) -> None:
    class Counting(dict[str, Any]):
        n_read = 0

        def get(self, *key: Any) -> Any:
            self.n_read += 1
            return super().get(*key)

        def __getitem__(self, key: str) -> Any:
            self.n_read += 1
            return super().__getitem__(key)

    entries = rig.session.state.entries = Counting(rig.session.state.entries)
    n_read = []
    for _ in range(20):
        n_before = entries.n_read
        await rig.ask("hello", **WRITTEN)
        n_read.append(entries.n_read - n_before)
    assert max(n_read[1:]) - min(n_read[1:]) <= 3  # the two greetings have different lengths


@pytest.mark.parametrize("bound", ["messages", "bytes"])
async def test_a_client_that_does_not_read_is_not_listened_to(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bound == "bytes":
        monkeypatch.setattr("rtnb.simulator.delivery.MOST_WAITING_BYTES", 10_000)
    async with Rig() as rig:
        await rig.session.outgoing.has_room()
        if bound == "bytes":
            rig.update(instructions="a" * 10_000)
        for _ in range(1100 if bound == "messages" else 0):
            rig.send(events.InputAudioBufferClear())
        blocked = rig.session.outgoing.has_room()
        blocked.send(None)  # it waits now …
        await rig.catch_up()
        with pytest.raises(StopIteration):
            blocked.send(None)  # … and goes on once all was read


async def test_deleted_items_make_room_and_refused_ones_take_none(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MOST_KEPT", 1000)
    rig.write("a" * 600, id="one")
    rig.write("b" * 600, id="two")
    assert (await rig.refusal())["code"] == "conversation_too_long"
    for _ in range(3):
        rig.send(events.ConversationItemDelete(item_id="one"))
        await rig.until("conversation.item.deleted")
        rig.write("c" * 600, id="one")
        assert (await rig.until("conversation.item.done", "error"))[-1] == "conversation.item.done"
