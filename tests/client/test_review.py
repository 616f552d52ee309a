"""Edges that a review found: connections that end twice, tools that end the session, events that arrive twice."""

import asyncio
import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb._loop import BackgroundLoop
from rtnb.client.playback import ServicePlayback
from rtnb.client.speech import image_item
from rtnb.client.tools import ToolBox
from rtnb.errors import ConnectionClosed, RequestTimeout, ServiceError
from rtnb.protocol import events
from rtnb.protocol.values import ContentPart
from tests.client.peer import Message, Peer, failure
from tests.client.virtual import outcome, talking, virtual

SOUND = np.zeros(24_000, np.float32)


# --- reconnecting -----------------------------------------------------------------------------------------------------


@talking(reconnect=True, instructions="Be brief.")
async def test_a_connection_that_ends_before_its_session_is_created_does_not_close_the_next_one(
    peer: Peer, session: rtnb.Session
) -> None:
    peer.greeting = []
    await peer.close(1011)
    await asyncio.sleep(1)
    peer.greeting = None
    await peer.close(1011)
    assert (await outcome(session.ask("Hello?"))).transcript == "Hello there."
    connections = len(peer.paths)
    await asyncio.sleep(60)
    assert len(peer.paths) == connections
    assert session.generation == 2


@talking(reconnect=True, instructions="Be brief.")
async def test_a_call_that_waits_for_a_new_connection_survives_the_loss_of_another(
    peer: Peer, session: rtnb.Session
) -> None:
    peer.silent = True
    await peer.close(1011)
    await asyncio.sleep(1)  # the second connection restores nothing
    asking = asyncio.ensure_future(outcome(session.ask("Hello?")))
    updating = asyncio.ensure_future(outcome(session.update(instructions="Be kind.")))
    await asyncio.sleep(1)
    peer.silent = False
    await peer.close(1011)
    assert (await asking).transcript == "Hello there."
    assert (await updating).instructions == "Be kind."


@talking(name_errors=False, reconnect=True, instructions="Be brief.")
async def test_a_refusal_while_restoring_does_not_fail_a_call_that_waits(peer: Peer, session: rtnb.Session) -> None:
    await session.ask("Hello?")
    peer.delay_s = {"session.created": [1.0]}
    peer.refuse = {"conversation.item.create": [failure(None, "No.", kind="server_error")]}
    await peer.close(1011)
    await asyncio.sleep(0.5)
    assert (await outcome(session.ask("And now?"))).transcript == "Hello there."


@talking(turn_detection={"type": "server_vad", "silence_duration_ms": 200}, reconnect=True, instructions="Be brief.")
async def test_say_after_a_reconnect_sends_the_silence_that_ends_its_turn(peer: Peer, session: rtnb.Session) -> None:
    for _ in range(3):
        await session.say(SOUND, rate_hz=24_000)
    await peer.close(1011)
    assert (await outcome(session.say(SOUND, rate_hz=24_000))).transcript == "Hello there."


@talking(turn_detection={"type": "server_vad", "silence_duration_ms": 200}, reconnect=True, instructions="Be brief.")
async def test_a_say_in_flight_fails_when_the_connection_ends(peer: Peer, session: rtnb.Session) -> None:
    for after_s in (0.5, 3.0):  # while it speaks, and while it waits for the answer
        peer.drop = {
            "input_audio_buffer.speech_stopped": 9,
            "input_audio_buffer.committed": 9,
            "response.created": 9,
        }
        saying = asyncio.ensure_future(outcome(session.say(SOUND, rate_hz=24_000)))
        await asyncio.sleep(after_s)
        await peer.close(1011)
        assert isinstance(await saying, ConnectionClosed)
        peer.drop = {}
        assert (await outcome(session.say(SOUND, rate_hz=24_000))).transcript == "Hello there."


# --- refused messages -------------------------------------------------------------------------------------------------


@talking(pace_s=0.5)
async def test_a_refused_message_cancels_its_own_answer_and_no_other(peer: Peer, session: rtnb.Session) -> None:
    refusal = failure("invalid_value", "No.", param="item.content")
    peer.refuse = {"conversation.item.create": [refusal]}
    running = await session.response.create()
    error = await outcome(session.ask("Hello?", conversation="none"))
    assert isinstance(error, ServiceError), error
    await running
    assert running.status == "completed"


# --- tools ------------------------------------------------------------------------------------------------------------


def test_a_tool_that_exits_or_is_cancelled_gives_an_error_to_the_model() -> None:
    def leave() -> str:
        """Leave."""
        sys.exit("bye")

    async def stop() -> str:
        """Stop."""
        raise asyncio.CancelledError

    async def run() -> None:
        box = ToolBox([leave, stop])
        assert await box.run("leave", "{}") == "error: SystemExit: bye"
        assert (await box.run("stop", "{}")).startswith("error: CancelledError")

    asyncio.run(run())


def test_arguments_that_are_nested_too_deeply_give_an_error_to_the_model() -> None:
    def add(a: int) -> int:
        """Add."""
        return a

    assert asyncio.run(ToolBox([add]).run("add", "[" * 100_000)).startswith("error: ")


@virtual
async def test_a_tool_can_close_the_session() -> None:
    async with Peer(outputs=[[("hang_up", "{}")]]) as peer:
        session = await rtnb.connect(peer.url, clock=asyncio.get_running_loop().time)

        async def hang_up() -> str:
            """End the call."""
            await session.close()
            return "done"

        await session.tools.register(hang_up)
        assert isinstance(await outcome(session.ask("Bye.")), ConnectionClosed)
        await asyncio.sleep(1)
        assert session.closed


# --- the end ----------------------------------------------------------------------------------------------------------


@virtual
async def test_a_close_that_is_cancelled_goes_on() -> None:
    async with Peer(outputs=[[("linger", "{}")]]) as peer:
        session = await rtnb.connect(peer.url, clock=asyncio.get_running_loop().time)

        async def linger() -> None:
            """Tidy up for a second."""
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(1)

        await session.tools.register(linger)
        asking = asyncio.ensure_future(outcome(session.ask("Hello?")))
        await asyncio.sleep(0.5)
        closing = asyncio.ensure_future(session.close())
        await asyncio.sleep(0.5)
        closing.cancel()
        await asyncio.sleep(1)
        assert session.closed
        assert isinstance(await asking, ConnectionClosed)


@virtual
async def test_a_closed_session_with_a_budget_in_minutes_is_collected() -> None:
    async with Peer() as peer:
        session = await rtnb.connect(peer.url, budget=rtnb.Budget(minutes=60))
        await session.close()
        log = weakref.ref(session.log)
        del session
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()
        assert log() is None


@virtual
async def test_what_belongs_to_a_session_that_ended_is_closed_when_it_is_dropped() -> None:
    closed = []

    async def closer() -> None:
        closed.append(True)

    async with Peer() as peer:
        session = await rtnb.connect(peer.url, clock=asyncio.get_running_loop().time)
        session.on_close(closer)
        await peer.close(1011)
        await asyncio.sleep(1)
        assert session.closed
        del session
        gc.collect()
        await asyncio.sleep(1)
        assert closed


# --- events -----------------------------------------------------------------------------------------------------------


def test_a_service_that_plays_may_announce_everything_twice() -> None:
    now = [0.0]
    playback = ServicePlayback(clock=lambda: now[0])
    part = ContentPart(type="audio", transcript="")
    added = events.ResponseContentPartAdded(response_id="r", item_id="i", output_index=0, content_index=0, part=part)
    playback.observe(added, 0.0)
    playback.observe(events.OutputAudioBufferStarted(response_id="r"), 0.0)
    playback.observe(events.OutputAudioBufferStarted(response_id="r"), 0.25)
    playback.observe(added, 0.0)
    now[0] = 0.5
    assert playback.heard_ms("i") == 500
    playback.observe(events.OutputAudioBufferCleared(response_id="r"), 0.5)
    assert playback.heard_ms("i") == 500


@virtual
async def test_a_stream_with_a_log_of_no_size_yields_the_newest_event() -> None:
    async with (
        Peer() as peer,
        rtnb.connect(peer.url, clock=asyncio.get_running_loop().time, log_limit_bytes=0) as session,
    ):
        stream = aiter(session)
        await session.ask("Hello?")
        assert (await anext(stream)).type == "response.done"


@talking(turn_detection={"type": "server_vad"})
async def test_a_response_is_not_lost_with_the_consumer_that_gave_up(peer: Peer, session: rtnb.Session) -> None:
    first = asyncio.ensure_future(session.next_response())
    await asyncio.sleep(0.1)
    ended = session.log.subscribe(lambda row: first.cancel() if row.type == "response.output_item.added" else None)
    await peer.send(*peer.turn())
    response = await outcome(session.next_response(timeout_s=5))
    ended()
    assert getattr(response, "transcript", response) == "Hello there."


def test_a_thread_can_read_while_events_arrive() -> None:
    """Read everything in a thread while the session's loop writes it."""

    async def ask(session: rtnb.Session) -> None:
        for _ in range(40):
            await session.ask("Hello?")

    def read() -> None:
        while not asking.done():
            _ = session.conversation.items, session.playback.playing, session.tools.approval_requests
            for running in tuple(session._dispatcher.responses.live.values()):
                _ = running.transcript, running.deltas, running.function_calls

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with BackgroundLoop() as loop:
            peer = Peer(outputs=[["a ", "b ", "c "] * 30 for _ in range(40)])
            loop.run(peer.__aenter__())
            session = loop.run(_connected(peer.url))
            asking = loop.submit(ask(session))
            read()
            asking.result()
            loop.run(session.close())
            loop.run(peer.__aexit__())
    finally:
        sys.setswitchinterval(interval_s)


async def _connected(url: str) -> rtnb.Session:
    return await rtnb.connect(url)


@talking(reconnect=True, instructions="Be brief.")
async def test_a_reconnect_survives_an_unknown_field_that_differs_in_each_session(
    peer: Peer, session: rtnb.Session
) -> None:
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
    assert (await outcome(session.ask("And now?"))).transcript == "Hello there."
    assert not any("created_at" in update["session"] for update in peer.asked("session.update")[-1:])


@talking(pace_s=0.2)
async def test_an_interruption_cuts_the_items_although_the_cancel_gets_no_reply(
    peer: Peer, session: rtnb.Session
) -> None:
    await session.response.create()
    await asyncio.sleep(0.5)
    peer.drop = {"response.done": 1}
    await outcome(session.interrupt())
    assert len(peer.asked("conversation.item.truncate")) == 1


def test_a_log_file_that_goes_on_after_a_crash_can_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for end in ('{"direction": "sent", "mono', ""):
        log = rtnb.EventLog(path=path)
        log.record("sent", events.InputAudioBufferClear())
        log.close()
        with path.open("a") as file:
            file.write(end)
    assert len(rtnb.EventLog.load(path)) == 2


@pytest.mark.parametrize("value", [256, -1, np.uint16(65_535), np.nan])
def test_pixels_out_of_range_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="0 to 255"):
        image_item(np.full((2, 2), value), detail="auto")


# --- deadlines --------------------------------------------------------------------------------------------------------


@virtual
async def test_a_response_that_is_given_up_is_cancelled_so_the_next_request_is_answered() -> None:
    async with Peer(pace_s=2) as peer:
        session = await rtnb.connect(peer.url, clock=asyncio.get_running_loop().time)
        first = await outcome(session.ask("Hello?", timeout_s=1))
        assert isinstance(first, RequestTimeout)
        assert (await outcome(session.ask("Hello?"))).transcript == "Hello there."
        (cancel,) = session.log.filter("response.cancel")
        assert cancel.event.response_id
        await session.close()


def test_ending_one_of_two_equal_subscriptions_leaves_the_other() -> None:
    log, rows = rtnb.EventLog(), []
    append = rows.append
    end = log.subscribe(append)
    log.subscribe(append)
    end()
    end()
    log.record("sent", events.InputAudioBufferClear(event_id="e1"))
    assert len(rows) == 1
