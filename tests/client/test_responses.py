"""Responses: queues, races, cancelling, parallel ones, formats, iteration."""

import asyncio
import base64
import sys
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb._loop import BackgroundLoop
from rtnb.client import Response
from rtnb.errors import AudioError, RequestTimeout, ServiceError
from rtnb.protocol import ContentPart, Item
from tests.client.peer import BUSY, Peer, failure
from tests.client.virtual import now, outcome, said, settle, talking

SOUND = np.zeros(24_000, np.float32)
REPLY = "Hello there."


@talking(by_hand=True)
async def test_a_response_grows_while_it_is_read(peer: Peer, session: rtnb.Session) -> None:
    creating = asyncio.create_task(session.response.create())
    await asyncio.sleep(0.25)
    running = await peer.begin()
    response = await creating
    assert (response.id, response.status, response.done) == (running.id, "in_progress", False)
    await peer.add_item(running)
    await asyncio.sleep(0.05)
    await peer.speak(running, 100)
    deltas = aiter(response)
    first = await anext(deltas)
    assert (first.kind, first.samples, first.audio_ms) == ("audio", 2_400, 100)
    assert first.arrived_ms == pytest.approx(300, abs=0.1)
    assert repr(first) == "<Delta audio at 300 ms: 100 ms>"
    assert len(response.audio) == 2_400
    await asyncio.sleep(0.01)
    await peer.speak(running, 0, "Hel")
    second = await anext(deltas)
    assert (second.kind, second.text, second.arrived_ms) == ("transcript", "Hel", pytest.approx(310, abs=0.1))
    assert repr(second) == "<Delta transcript at 310 ms: 'Hel'>"
    assert response.transcript == "Hel"
    await peer.speak(running, 100)
    await peer.end(running)
    assert await response is response
    assert [delta.kind async for delta in response] == ["audio", "transcript", "audio"]  # from the first on, again
    assert len(response.audio) == 4_800
    assert response.time_to_first_audio_ms == pytest.approx(300, abs=0.1)
    assert repr(response) == f"<Response {running.id} completed, 0.20 s of audio: 'Hel'>"
    assert "0.20 s" in response._repr_html_()


@talking(outputs=[("<script>alert(1)</script>",)])
async def test_what_the_service_says_is_escaped_in_html(peer: Peer, session: rtnb.Session) -> None:
    response = await session.ask("hi")
    assert "<script>" not in response._repr_html_()
    assert "<script>" not in session.log._repr_html_()


@pytest.mark.parametrize("name, loudest", [("audio/pcmu", b"\x80"), ("audio/pcma", b"\xaa")])
@talking(both=True)
async def test_telephone_formats_come_out_at_24_khz(
    peer: Peer, session: rtnb.Session, name: str, loudest: bytes
) -> None:
    peer.chunk = base64.b64encode(800 * loudest).decode()
    await session.update(output_format=name)
    response = await session.ask("hi")
    assert response.audio.shape == (4_800,)
    assert np.allclose(response.audio[500:-500], 0.98, atol=0.01)
    delta = next(one for one in response.deltas if one.kind == "audio")
    assert (delta.rate_hz, delta.samples, delta.audio_ms) == (8_000, 800, 100)


@talking()
async def test_half_samples_meet_again(peer: Peer, session: rtnb.Session) -> None:
    running = await peer.begin()
    await peer.add_item(running)
    for piece in (b"\x00\x40\x00", b"\x40\x00\x40"):
        delta = base64.b64encode(piece).decode()
        await peer.send({"type": "response.output_audio.delta", **running.inside, "delta": delta})
    await peer.end(running)
    response = await (await session.next_response())
    assert response.audio.tolist() == [0.5, 0.5, 0.5]


@talking(both=True)
async def test_a_written_response_has_no_player(peer: Peer, session: rtnb.Session) -> None:
    response = await session.ask("hi", output_modalities=["text"])
    assert (response.text, response.transcript, len(response.audio)) == (REPLY, "", 0)
    assert response.time_to_first_audio_ms is None
    with pytest.raises(AudioError, match="no audio"):
        response.play()


# --- the queue --------------------------------------------------------------------------------------------------------


def create(session: rtnb.Session, count: int, **settings: Any) -> list[asyncio.Task[Response]]:
    """Start so many calls that each request a response; the calls are numbered in its metadata."""
    numbered = [session.response.create(metadata={"n": str(number)}, **settings) for number in range(count)]
    return [asyncio.create_task(call) for call in numbered]


@talking(by_hand=True)
async def test_creates_wait_for_their_turn(peer: Peer, session: rtnb.Session) -> None:
    for number, creating in enumerate(create(session, 3), 1):
        await settle()
        asked = peer.asked("response.create")
        assert len(asked) == number, "the others still wait"
        running = await peer.begin(asked[-1]["response"])
        assert (await creating).id == running.id
        await peer.end(running)
    assert [request["response"]["metadata"]["n"] for request in asked] == ["0", "1", "2"]
    assert not session.errors


@talking(by_hand=True)
async def test_a_cancelled_create_blocks_no_other(peer: Peer, session: rtnb.Session) -> None:
    first, second, third = create(session, 3)
    await settle()
    second.cancel()
    first.cancel()  # the service has its request already: a response comes that no call waits for
    await settle()
    await peer.end(await peer.begin())
    await settle()
    assert len(peer.asked("response.create")) == 2
    wanted = await peer.begin()
    assert (await third).id == wanted.id
    await peer.end(wanted)
    with pytest.raises(RequestTimeout):
        await session.next_response(timeout_s=0.01)  # the abandoned one is not handed on


@talking()
async def test_of_responses_that_nobody_asks_for_the_newest_eight_wait(peer: Peer, session: rtnb.Session) -> None:
    begun = [await peer.begin() for _ in range(10)]
    for running in begun:
        await peer.end(running)
    await settle()
    assert [(await session.next_response(timeout_s=1)).id for _ in range(8)] == [one.id for one in begun[2:]]


@talking(refuse={"response.create": [failure("invalid_value", "no")]})
async def test_a_refused_create_raises_and_the_next_one_goes_on(peer: Peer, session: rtnb.Session) -> None:
    refused, created = [await outcome(call) for call in create(session, 2)]
    assert isinstance(refused, ServiceError)
    assert refused.code == "invalid_value"
    assert created.metadata["n"] == "1"
    assert not session.errors


@talking(turn_detection={"type": "server_vad"}, pace_s=0.5, refuse={"response.create": [failure(BUSY, "busy")]})
async def test_turn_detection_slips_a_response_in(peer: Peer, session: rtnb.Session) -> None:
    """The service answers a turn just when we ask: ours is refused, waits, and goes out again."""
    peer.outputs = ["a", "b"]
    turns = [peer.turn()]
    peer.script = lambda messages: [*(turns.pop() if turns else ()), *messages]
    creating = asyncio.create_task(session.response.create())
    own = await session.next_response(timeout_s=5)
    await asyncio.sleep(0.8)
    assert not creating.done()
    ours = await (await creating)
    assert (own.transcript, ours.transcript, len(peer.asked("response.create"))) == ("a", "b", 2)
    assert not session.errors


@talking(refuse={"response.create": [failure(BUSY, "busy")] * 2})
async def test_busy_with_nothing_that_ends_is_raised_not_repeated(peer: Peer, session: rtnb.Session) -> None:
    with pytest.raises(ServiceError, match="busy"):
        await session.response.create()
    assert len(peer.asked("response.create")) == 1


@talking(by_hand=True)
async def test_responses_outside_the_conversation_run_side_by_side(peer: Peer, session: rtnb.Session) -> None:
    main = asyncio.create_task(session.response.create())
    await settle()
    begun = [await peer.begin()]
    asking = create(session, 2, conversation="none", input=["hi"])
    await settle()
    for request in reversed(peer.asked("response.create")[1:]):
        begun.append(await peer.begin(request["response"]))
    responses = [await call for call in (main, *reversed(asking))]
    assert [response.id for response in responses] == [running.id for running in begun]
    assert [response.metadata for response in responses[1:]] == [{"n": "1"}, {"n": "0"}]
    assert [response.in_conversation for response in responses] == [True, False, False]
    for running in begun:
        await peer.end(running)


@talking(by_hand=True, echo_metadata=False)
async def test_without_an_echo_they_are_matched_in_order(peer: Peer, session: rtnb.Session) -> None:
    asking = create(session, 2, conversation="none")
    await settle()
    begun = [await peer.begin({"conversation": "none"}) for _ in asking]
    assert [(await one).id for one in asking] == [running.id for running in begun]
    for running in begun:
        await peer.end(running)


# --- cancelling -------------------------------------------------------------------------------------------------------


@talking(both=True, pace_s=1)
async def test_cancel_returns_the_cancelled_response(peer: Peer, session: rtnb.Session) -> None:
    assert await session.response.cancel() is None, "with nothing active it is no error"
    response = await session.response.create()
    assert await session.response.cancel() is response
    assert response.status == "cancelled"
    assert [one.get("response_id") for one in peer.asked("response.cancel")] == [None, response.id]
    assert not session.errors


@talking(by_hand=True)
async def test_a_cancel_races_the_end(peer: Peer, session: rtnb.Session) -> None:
    """The response ends by itself while our cancel is on its way; no call raises the refusal that follows."""
    creating = asyncio.create_task(session.response.create())
    await settle()
    running = await peer.begin()
    response = await creating
    await peer.end(running)  # on its way to us
    assert await session.response.cancel() is None
    assert response.status == "completed"
    await settle()
    assert not session.errors


@talking(both=True)
async def test_items_can_be_created_retrieved_and_deleted(peer: Peer, session: rtnb.Session) -> None:
    item = session.conversation.item
    first = await item.create("one")
    second = await item.create({"role": "system", "content": [{"type": "input_text", "text": "zero"}]})
    between = Item(type="message", role="user", content=(ContentPart(type="input_text", text="between"),))
    third = await item.create(between, previous_item_id=str(first.id))
    assert [one.id for one in session.conversation.items] == [first.id, third.id, second.id]
    assert (await item.retrieve(str(first.id))).id == first.id
    await item.delete(str(first.id))
    assert [one.id for one in session.conversation.items] == [third.id, second.id]
    with pytest.raises(ServiceError) as caught:
        await item.delete("item_nope")
    assert caught.value.code == "item_not_found"


@pytest.mark.parametrize("action", ["interrupt", "cancel"])
@talking(drop={"response.done": 1})
async def test_interrupt_and_cancel_work_after_a_lost_response_done(
    peer: Peer, session: rtnb.Session, action: str
) -> None:
    await session.response.create()
    await asyncio.sleep(1)
    start_s = now()
    stopped = await outcome(session.interrupt() if action == "interrupt" else session.response.cancel())
    assert not isinstance(stopped, Exception), stopped
    assert await said(session.ask("Hello?")) == REPLY
    assert now() - start_s < 30


@talking(pace_s=1_000)
async def test_a_cancel_that_the_service_never_answers_ends(peer: Peer, session: rtnb.Session) -> None:
    await session.response.create()
    peer.silent = True
    await outcome(session.response.cancel())
    peer.silent, peer.active, peer.pace_s = False, None, 0.0
    assert await said(session.ask("Hello?")) == REPLY


@talking(pace_s=0.5)
async def test_a_refused_message_cancels_its_own_answer_and_no_other(peer: Peer, session: rtnb.Session) -> None:
    peer.refuse = {"conversation.item.create": [failure("invalid_value", "No.", param="item.content")]}
    running = await session.response.create()
    error = await outcome(session.ask("Hello?", conversation="none"))
    assert isinstance(error, ServiceError), error
    await running
    assert running.status == "completed"
    assert [one["response_id"] != running.id for one in peer.asked("response.cancel")] == [True]
    assert not session.errors


# --- the response that turn detection began ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, options",
    [
        ("ask", {"echo_metadata": False}),
        ("say", {"turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}),
    ],
    ids=["ask", "say"],
)
@talking(outputs=[("Mine.",)])
async def test_a_background_next_response_does_not_take_the_answer_of_a_call(
    peer: Peer, session: rtnb.Session, call: str, options: Any
) -> None:
    background = asyncio.create_task(session.next_response())
    await asyncio.sleep(0.1)
    assert await said(session.ask("Hello?") if call == "ask" else session.say(SOUND, rate_hz=24_000)) == "Mine."
    assert not background.done()
    await peer.send(*peer.turn())
    assert await said(await outcome(background)) == REPLY


@talking()
async def test_several_consumers_of_next_response_get_one_response_each(peer: Peer, session: rtnb.Session) -> None:
    consumers = [asyncio.create_task(session.next_response()) for _ in range(3)]
    await asyncio.sleep(0.1)
    consumers[0].cancel()  # gives up its place
    for _ in range(2):
        await peer.send(*peer.turn())
    first, second = [await outcome(consumer) for consumer in consumers[1:]]
    assert first.id != second.id


@talking(turn_detection={"type": "server_vad"})
async def test_a_response_is_not_lost_with_the_consumer_that_gave_up(peer: Peer, session: rtnb.Session) -> None:
    first = asyncio.ensure_future(session.next_response())
    await asyncio.sleep(0.1)
    ended = session.log.subscribe(lambda row: first.cancel() if row.type == "response.output_item.added" else None)
    await peer.send(*peer.turn())
    assert await said(session.next_response(timeout_s=5)) == REPLY
    ended()


def test_a_thread_can_read_while_events_arrive() -> None:
    """Read everything in a thread while the session's loop writes it."""

    async def talk() -> None:
        peer = Peer(outputs=[["a ", "b ", "c "] * 30 for _ in range(40)])
        async with peer, rtnb.connect(peer.url) as session:
            opened.append(session)
            for _ in range(40):
                await session.ask("Hello?")

    opened: list[rtnb.Session] = []
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with BackgroundLoop() as loop:
            working = loop.submit(talk())
            while not working.done():
                for session in opened:
                    _ = session.conversation.items, session.playback.playing, session.tools.approval_requests
                    for running in tuple(session._dispatcher.responses.live.values()):
                        _ = running.transcript, running.deltas, running.function_calls
            assert working.result() is None
    finally:
        sys.setswitchinterval(interval_s)
    assert len(opened[0].log.filter("response.done")) == 40
