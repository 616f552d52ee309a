"""Opening a session: settings checked first, refusals at once; and going on after its connection ends."""

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionClosed,
    LocalProtocolError,
    RequestTimeout,
    ServiceError,
)
from rtnb.protocol.events import UnknownEvent
from rtnb.simulator import Simulator
from tests.client.peer import Message, Peer, failure
from tests.client.virtual import now, outcome, said, settle, talking, virtual


def text_of(error: BaseException) -> str:
    """Return the message of an exception and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


async def refused(peer: Peer, **options: Any) -> BaseException:
    """Return the error of an attempt to open a session."""

    async def attempt() -> None:
        async with rtnb.connect(peer.url, clock=now, **options):
            return

    error = await outcome(attempt())
    assert isinstance(error, BaseException), "a session was opened"
    return error


# --- refusals ---------------------------------------------------------------------------------------------------------

WRONG_MODEL = failure("invalid_model", 'Model "peer" is not supported in realtime mode.')
WRONG_KEY = failure("invalid_api_key", "Incorrect API key provided: sk-abc123.")
WRONG_VOICE = failure("invalid_value", "Invalid value: 'x'.", param="session.audio.output.voice")


BAD_KEY, BAD_MODEL = (f"invalid_request_error.invalid_{what}" for what in ("api_key", "model"))
UNNAMED = Peer(refuse={"session.update": [WRONG_VOICE]}, name_errors=False)


@pytest.mark.parametrize(
    "peer, settings, end, kind, words",
    [
        (Peer(greeting=[WRONG_MODEL]), {}, None, ConnectError, "is not supported in realtime mode"),
        (Peer(greeting=[WRONG_KEY]), {}, None, AuthenticationError, "Incorrect API key"),
        (Peer(greeting=[WRONG_KEY]), {}, (3000, BAD_KEY), AuthenticationError, "Incorrect API key"),
        (Peer(greeting=[]), {}, (4000, BAD_MODEL), ConnectError, "model"),
        (UNNAMED, {"voice": "x"}, None, ServiceError, "Invalid value: 'x'."),
        (Peer(dialect="preview"), {}, None, ConnectError, "Next: connect with dialect='preview'."),
    ],
    ids=["model", "key", "key, then closed", "closed without an error", "setting, unnamed", "other dialect"],
)
@virtual
async def test_a_refusal_while_connecting_is_reported_at_once(
    peer: Peer, settings: Any, end: tuple[int, str] | None, kind: type[Exception], words: str
) -> None:
    async with peer:
        start_s = now()
        opening = asyncio.create_task(refused(peer, **settings))
        while not peer.paths:
            await settle()
        await settle()
        if end:
            await peer.close(*end)
        error = await opening
    assert isinstance(error, kind), error
    assert words in text_of(error)
    assert "sk-abc123" not in text_of(error)
    assert now() - start_s < 3
    assert end is None or error.status == end[0]


@virtual
async def test_a_service_that_says_nothing() -> None:
    async with Peer(greeting=[]) as peer:
        error = await refused(peer, timeout_s=5)
        assert isinstance(error, ConnectError)
        assert "no answer within 5 s" in str(error)


# --- settings are checked before a connection is opened ---------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, kind, words",
    [
        ({"instrutions": "Be kind."}, TypeError, "instructions"),
        ({"voise": "alloy"}, TypeError, "voice"),
        ({"turn_detecton": "server_vad"}, TypeError, "turn_detection"),
        ({"output_formt": "audio/pcmu"}, TypeError, "output_format"),
        ({"timeout": 5}, TypeError, "timeout_s"),
        ({"log_pth": "x.jsonl"}, TypeError, "log_path"),
        ({"output_format": "pcm17"}, ValueError, "pcm17"),
        ({"tools": [5]}, TypeError, "5"),
        ({"config": 5}, TypeError, "SessionConfig"),
        ({"temperature": 0.8}, LocalProtocolError, "session.temperature"),
        ({"turn_detection": {"threshold": 2}}, LocalProtocolError, "threshold"),
    ],
    ids=str,
)
@virtual
async def test_a_typo_or_a_wrong_value_raises_before_a_connection_is_opened(
    settings: dict[str, Any], kind: type[Exception], words: str
) -> None:
    async with Peer() as peer:
        error = await refused(peer, **settings)
        assert isinstance(error, kind), error
        assert peer.paths == [], "a connection was opened"
        found = re.search(rf"\b{words}\b", text_of(error))
        assert found, error
        assert found.start() < 120, "the nearest name comes before the list of all names"


@talking()
async def test_a_typo_in_a_call_raises_before_anything_is_sent(peer: Peer, session: rtnb.Session) -> None:
    typo = {"instrutions": "Be kind."}
    for call in (session.update(**typo), session.ask("Hello?", **typo), session.response.create(**typo)):
        error = await outcome(call)
        assert isinstance(error, TypeError), error
        found = re.search(r"\binstructions\b", text_of(error))
        assert found, error
        assert found.start() < 80, "the nearest name comes before the list of all names"
    assert peer.heard == []


# --- nothing is forgotten ---------------------------------------------------------------------------------------------


async def test_a_connect_object_that_is_entered_again_keeps_its_dialect_and_options() -> None:
    connecting = rtnb.connect("sim", dialect="preview", instructions="Be brief.")
    for _ in range(2):
        async with asyncio.timeout(20), connecting as session:
            assert session.dialect == "preview"
            assert session.config.instructions == "Be brief."


@virtual
async def test_a_connect_object_can_be_used_by_two_sessions_at_once() -> None:
    async with Peer() as peer:
        connecting = rtnb.connect(peer.url, clock=now, instructions="Be brief.")
        async with connecting, connecting:
            pass
        assert len(peer.paths) == len(peer.asked("session.update")) == 2


# --- a shared simulator -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
async def test_closing_one_of_several_sessions_on_a_simulator_leaves_the_others_open(first: int) -> None:
    simulator = rtnb.Simulator(latency="fast", voice="babble")
    try:
        sessions = [await rtnb.connect(simulator) for _ in range(2)]
        await sessions[first].close()
        response = await outcome(sessions[1 - first].ask("What is a delta?"), within_s=20)
        assert getattr(response, "status", response) == "completed"
        await sessions[1 - first].close()
    finally:
        await simulator.astop()


async def test_sessions_on_a_simulator_that_was_started_by_hand_do_not_stop_it() -> None:
    async with rtnb.Simulator(latency="fast", voice="babble") as simulator:
        async with asyncio.timeout(20):
            for _ in range(2):
                async with rtnb.connect(simulator) as session:
                    assert (await session.ask("What is a delta?")).status == "completed"
        assert simulator.running


REPLY = "Hello there."
SOUND = np.zeros(24_000, np.float32)
RECONNECT: dict[str, Any] = {"reconnect": True, "instructions": "Be brief."}
TURNS = {"type": "server_vad", "silence_duration_ms": 200}


async def test_a_conversation_goes_on_across_the_session_cap() -> None:
    with Simulator(latency="fast", voice="babble", session_minutes=3 / 60) as simulator:
        options: dict[str, Any] = {"instructions": "Be brief.", "output_modalities": "text", "reconnect": True}
        async with asyncio.timeout(60), rtnb.connect(simulator, **options) as session:
            await session.ask("My name is Ada.")
            async for event in session:  # the cap comes
                if event.type == "rtnb.reconnected":
                    break
            assert event.payload["restored_items"] == 2
            assert "Ada" in (await session.ask("What did I say first?")).text
            assert session.generation == 2
            assert session.config.instructions == "Be brief."


@talking(**RECONNECT)
async def test_a_request_in_flight_fails_and_the_next_one_works(peer: Peer, session: rtnb.Session) -> None:
    assert await said(session.ask("Hello?")) == REPLY
    peer.silent = True
    asking = asyncio.ensure_future(outcome(session.ask("Are you there?")))
    await asyncio.sleep(1)
    peer.silent = False
    await peer.close(1011)
    assert isinstance(await asking, ConnectionClosed)
    assert await said(session.ask("And now?")) == REPLY
    assert session.generation == 2
    assert session.config.instructions == "Be brief."
    texts = [item.content[0].text for item in session.conversation.items if item.role == "user"]
    assert texts == ["Hello?", "And now?"]  # the service never acknowledged the one between


@talking(**RECONNECT)
async def test_without_a_service_the_session_ends_after_the_last_attempt(
    peer: Peer, session: rtnb.Session, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, logger="rtnb"):
        await peer.__aexit__(None, None, None)
        error = await outcome(session.ask("Hello?"))
        assert isinstance(error, RequestTimeout)
        assert error.awaited == "a new connection"
        await asyncio.sleep(60)
        assert isinstance(await outcome(session.ask("Hello?")), ConnectionClosed)
        assert "attempts to reconnect failed" in session.ended.__notes__[-1]


@talking(reconnect=True)
async def test_a_session_that_was_closed_here_does_not_reconnect(peer: Peer, session: rtnb.Session) -> None:
    await session.close()
    await asyncio.sleep(60)
    assert (session.generation, session.closed, len(peer.paths)) == (1, True, 1)


@talking(**RECONNECT)
async def test_a_connection_that_ends_too_early_does_not_close_the_next(peer: Peer, session: rtnb.Session) -> None:
    peer.greeting = []
    await peer.close(1011)
    await asyncio.sleep(1)
    peer.greeting = None
    await peer.close(1011)
    assert await said(session.ask("Hello?")) == REPLY
    connections = len(peer.paths)
    await asyncio.sleep(60)
    assert len(peer.paths) == connections
    assert session.generation == 2


@talking(**RECONNECT)
async def test_a_call_that_waits_for_a_connection_survives_the_loss_of_one(peer: Peer, session: rtnb.Session) -> None:
    peer.silent = True
    await peer.close(1011)
    await asyncio.sleep(1)  # the second connection restores nothing
    asking = asyncio.ensure_future(outcome(session.ask("Hello?")))
    updating = asyncio.ensure_future(outcome(session.update(instructions="Be kind.")))
    await asyncio.sleep(1)
    peer.silent = False
    await peer.close(1011)
    assert await said(asking) == REPLY
    assert (await updating).instructions == "Be kind."


@talking(name_errors=False, **RECONNECT)
async def test_a_refusal_while_restoring_does_not_fail_a_call_that_waits(peer: Peer, session: rtnb.Session) -> None:
    await session.ask("Hello?")
    peer.delay_s = {"session.created": [1.0]}
    peer.refuse = {"conversation.item.create": [failure(None, "No.", kind="server_error")]}
    await peer.close(1011)
    await asyncio.sleep(0.5)
    assert await said(session.ask("And now?")) == REPLY


@talking(turn_detection=TURNS, **RECONNECT)
async def test_say_after_a_reconnect_sends_the_silence_that_ends_its_turn(peer: Peer, session: rtnb.Session) -> None:
    for _ in range(3):
        await session.say(SOUND, rate_hz=24_000)
    await peer.close(1011)
    assert await said(session.say(SOUND, rate_hz=24_000)) == REPLY


@talking(turn_detection=TURNS, **RECONNECT)
async def test_a_say_in_flight_fails_when_the_connection_ends(peer: Peer, session: rtnb.Session) -> None:
    for after_s in (0.5, 3.0):  # while it speaks, and while it waits for the answer
        lost = ("input_audio_buffer.speech_stopped", "input_audio_buffer.committed", "response.created")
        peer.drop = dict.fromkeys(lost, 9)
        saying = asyncio.ensure_future(outcome(session.say(SOUND, rate_hz=24_000)))
        await asyncio.sleep(after_s)
        await peer.close(1011)
        assert isinstance(await saying, ConnectionClosed)
        peer.drop = {}
        assert await said(session.say(SOUND, rate_hz=24_000)) == REPLY


@talking(**RECONNECT)
async def test_a_reconnect_survives_an_unknown_field_that_differs(peer: Peer, session: rtnb.Session) -> None:
    def stamped(messages: list[Message]) -> list[Message]:
        for message in messages:
            if message["type"] == "session.created":
                message["session"]["created_at"] = len(peer.paths)
        return messages

    peer.script = stamped
    peer.refuse = {}
    await peer.close(1011)
    await session.ask("Hello?")
    refusal = failure("unknown_parameter", "Unknown parameter.", param="session.created_at")
    peer.refuse = {"session.update": [refusal]}
    await peer.close(1011)
    assert await said(session.ask("And now?")) == REPLY
    assert not any("created_at" in update["session"] for update in peer.asked("session.update")[-1:])


# --- the restored conversation ----------------------------------------------------------------------------------------


def _user(number: int, transcript: str | None) -> Message:
    content = [{"type": "input_audio", "transcript": transcript}]
    return {"id": f"item_{number}", "type": "message", "role": "user", "content": content}


def _call(number: int, call_id: str) -> Message:
    return {"id": f"item_{number}", "type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}


OUTPUT = {"id": "item_5", "type": "function_call_output", "call_id": "call_4", "output": "3"}
ITEMS = [_user(1, "Good morning."), _user(2, None), _call(3, "call_3"), _call(4, "call_4"), OUTPUT]


@talking(**RECONNECT)
async def test_a_conversation_is_restored_as_text_as_far_as_it_was_played(
    peer: Peer, session: rtnb.Session, tmp_path: Path
) -> None:
    for item in ITEMS:
        await peer.send(*peer.added(item))
    cut = await peer.begin()
    item_id = await peer.add_item(cut)
    await peer.speak(cut, 1_000, "one two three four five six seven eight nine ten")
    await asyncio.sleep(1)
    place = {"item_id": item_id, "content_index": 0, "audio_end_ms": 400}
    await peer.send({"type": "conversation.item.truncated", **place})
    await peer.end(cut)
    playing = await peer.begin()
    await peer.add_item(playing)
    await peer.speak(playing, 1_000, "a b c d")
    await peer.end(playing)
    await asyncio.sleep(0.5)
    peer.heard.clear()
    await peer.close(1011)
    await asyncio.sleep(1)
    restored = [message["item"] for message in peer.asked("conversation.item.create")]
    texts = {item["id"]: (part["type"], part["text"]) for item in restored for part in item.get("content", ())}
    assert texts == {
        "item_1": ("input_text", "Good morning."),
        item_id: ("output_text", "one two three four"),
        playing.items[0]["id"]: ("output_text", "a b"),
    }
    assert [item["type"] for item in restored if "content" not in item] == ["function_call", "function_call_output"]
    session.log.save(tmp_path / "log.jsonl")
    (mark,) = rtnb.EventLog.load(tmp_path / "log.jsonl").filter("rtnb.reconnected")
    assert isinstance(mark.event, UnknownEvent)
    assert mark.event.payload["generation"] == 2
    assert mark.event.payload["omitted_items"] == 2  # audio without a transcript, and a call without an output
