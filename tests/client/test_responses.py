"""Responses: queues, races, cancelling, parallel ones, formats, iteration."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb._loop import BackgroundLoop
from rtnb.client import Delta, Response
from rtnb.errors import AudioError, RequestTimeout, ServiceError
from rtnb.protocol import ContentPart, Item, ResponseConfig, events
from rtnb.protocol.values import ErrorDetail
from tests.client.conftest import Joined
from tests.client.peer import Peer, failure
from tests.client.virtual import hold, outcome, said, talking

SOUND = np.zeros(24_000, np.float32)
REPLY = "Hello there."


async def test_a_response_grows_while_it_is_read(joined: Joined) -> None:
    service, clock = joined.service, joined.clock
    service.on_create = None
    creating = asyncio.create_task(joined.session.response.create())
    await service.hears(events.ResponseCreate)
    clock.advance(250)
    response_id = await service.begin()
    response = await creating
    assert (response.id, response.status, response.done) == (response_id, "in_progress", False)
    item_id = await service.item(response_id)
    clock.advance(50)
    await service.audio(response_id, item_id, 100)
    deltas = response.__aiter__()
    first = await anext(deltas)
    assert (first.kind, first.arrived_ms, first.samples, first.audio_ms) == ("audio", pytest.approx(300), 2_400, 100)
    assert len(response.audio) == 2_400
    clock.advance(10)
    await service.words(response_id, item_id, "Hel")
    second = await anext(deltas)
    assert (second.kind, second.text, second.arrived_ms) == ("transcript", "Hel", pytest.approx(310))
    assert response.transcript == "Hel"
    await service.audio(response_id, item_id, 100)
    await service.finish(response_id)
    assert await response is response
    assert [delta.kind async for delta in response] == ["audio", "transcript", "audio"]  # from the first on, again
    assert len(response.audio) == 4_800
    assert response.time_to_first_audio_ms == pytest.approx(300)
    assert repr(response) == f"<Response {response_id} completed, 0.20 s of audio: 'Hel'>"
    assert "0.20 s" in response._repr_html_()


async def test_what_the_service_says_is_escaped_in_html(joined: Joined) -> None:
    joined.service.on_create = lambda config: joined.service.answer(config, text="<script>alert(1)</script>")
    response = await joined.session.ask("hi")
    assert "<script>" not in response._repr_html_()
    assert "<script>" not in joined.session.log._repr_html_()


@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
async def test_telephone_formats_come_out_at_24_khz(joined: Joined, name: str) -> None:
    await joined.session.update(output_format=name)
    response = await joined.session.ask("hi")
    assert response.audio.shape == (7_200,)
    assert np.allclose(response.audio[500:-500], 0.25, atol=0.01)
    delta = next(one for one in response.deltas if one.kind == "audio")
    assert (delta.rate_hz, delta.samples, delta.audio_ms) == (8_000, 800, 100)


async def test_half_samples_meet_again(ga: Joined) -> None:
    async def odd(config: Any) -> None:
        response_id = await ga.service.begin()
        item_id = await ga.service.item(response_id)
        for piece in (b"\x00\x40\x00", b"\x40\x00\x40"):
            await ga.service.piece(events.ResponseOutputAudioDelta, response_id, item_id, delta=piece)
        await ga.service.finish(response_id)

    ga.service.on_create = odd
    response = await ga.session.ask("hi")
    assert response.audio.tolist() == [0.5, 0.5, 0.5]


async def test_no_audio_no_player(joined: Joined) -> None:
    async def text_only(config: Any) -> None:
        response_id = await joined.service.begin()
        item_id = await joined.service.item(response_id)
        await joined.service.piece(events.ResponseOutputTextDelta, response_id, item_id, delta="wri")
        await joined.service.piece(events.ResponseOutputTextDone, response_id, item_id, text="written")
        await joined.service.finish(response_id)

    joined.service.on_create = text_only
    response = await joined.session.ask("hi")
    assert (response.text, response.transcript, len(response.audio)) == ("written", "", 0)
    assert response.time_to_first_audio_ms is None
    with pytest.raises(AudioError, match="no audio"):
        response.play()


# --- the queue --------------------------------------------------------------------------------------------------------


async def test_creates_wait_for_their_turn(joined: Joined) -> None:
    session, service = joined.session, joined.service
    service.on_create = None
    creating = [asyncio.create_task(session.response.create(instructions=str(n))) for n in range(3)]
    for number in range(3):
        asked = await service.hears(events.ResponseCreate, times=number + 1)
        assert asked.response.instructions == str(number)
        await joined.settle()
        assert len(service.said(events.ResponseCreate)) == number + 1  # the others still wait
        response_id = await service.begin(asked.response)
        assert (await creating[number]).id == response_id
        await service.finish(response_id)
    assert session.errors == []


async def test_a_cancelled_create_blocks_no_other(joined: Joined) -> None:
    session, service = joined.session, joined.service
    service.on_create = None
    first, second, third = (asyncio.create_task(session.response.create()) for _ in range(3))
    await service.hears(events.ResponseCreate)
    second.cancel()
    first.cancel()  # the service has its request already: a response comes that no call waits for
    await joined.settle()
    abandoned = await service.begin()
    await service.finish(abandoned)
    await service.hears(events.ResponseCreate, times=2)
    wanted = await service.begin()
    assert (await third).id == wanted
    await service.finish(wanted)
    with pytest.raises(RequestTimeout):
        await session.next_response(timeout_s=0.01)  # the abandoned one is not handed on


async def test_of_responses_that_nobody_asks_for_the_newest_eight_wait(joined: Joined) -> None:
    session, service = joined.session, joined.service
    begun = []
    for _ in range(10):
        begun.append(await service.begin())
        await service.finish(begun[-1])
    await joined.settle()
    assert [(await session.next_response(timeout_s=1)).id for _ in range(8)] == begun[2:]


async def test_a_refused_create_raises_and_the_next_one_goes_on(joined: Joined) -> None:
    session, service = joined.session, joined.service
    refusals = iter([ErrorDetail(type="invalid_request_error", code="invalid_value", message="no")])
    service.refuse = lambda event: next(refusals, None) if isinstance(event, events.ResponseCreate) else None
    outcomes = await asyncio.gather(session.response.create(), session.response.create(), return_exceptions=True)
    assert isinstance(outcomes[0], ServiceError)
    assert outcomes[0].code == "invalid_value"
    assert isinstance(outcomes[1], Response)
    assert session.errors == []


async def test_turn_detection_slips_a_response_in(joined: Joined) -> None:
    """The service answers a turn just when we ask: ours is refused, waits, and goes out again."""
    session, service = joined.session, joined.service
    service.on_create = None
    own = ""

    async def answer_a_turn() -> None:
        nonlocal own
        await service.commit_turn()
        own = await service.begin()

    service.meanwhile = answer_a_turn
    creating = asyncio.create_task(session.response.create(instructions="ours"))
    await service.hears_refused()
    await joined.settle()
    assert not creating.done()
    assert (await session.next_response()).id == own
    await service.finish(own)
    await service.hears(events.ResponseCreate)
    ours = await service.begin()
    assert (await creating).id == ours
    await service.finish(ours)
    assert session.errors == []


async def test_busy_with_nothing_that_ends_is_raised_not_repeated(joined: Joined) -> None:
    busy = ErrorDetail(type="invalid_request_error", code="conversation_already_has_active_response", message="busy")
    joined.service.refuse = lambda event: busy if isinstance(event, events.ResponseCreate) else None
    with pytest.raises(ServiceError, match="busy"):
        await joined.session.response.create()
    assert len(joined.service.said(events.ResponseCreate)) == 1


async def test_responses_outside_the_conversation_run_side_by_side(joined: Joined) -> None:
    session, service = joined.session, joined.service
    service.on_create = None
    main = asyncio.create_task(session.response.create())
    await service.hears(events.ResponseCreate)
    spoken = await service.begin()
    asking = [
        asyncio.create_task(session.response.create(conversation="none", metadata={"n": str(n)}, input=["hi"]))
        for n in range(2)
    ]
    await service.hears(events.ResponseCreate, times=3)
    requests = [event.response for event in service.said(events.ResponseCreate)[1:]]
    second, first = await service.begin(requests[1]), await service.begin(requests[0])  # begun in the other order
    responses = [await one for one in asking]
    assert [response.id for response in responses] == [first, second]
    assert [response.metadata for response in responses] == [{"n": "0"}, {"n": "1"}]
    assert not responses[0].in_conversation
    assert (await main).id == spoken
    for response_id in (first, second, spoken):
        await service.finish(response_id)


async def test_without_an_echo_they_are_matched_in_order(joined: Joined) -> None:
    session, service = joined.session, joined.service
    service.on_create, service.echo_metadata = None, False
    asking = [asyncio.create_task(session.response.create(conversation="none")) for _ in range(2)]
    await service.hears(events.ResponseCreate, times=2)
    begun = [await service.begin(ResponseConfig(conversation="none")) for _ in range(2)]
    assert [(await one).id for one in asking] == begun
    for response_id in begun:
        await service.finish(response_id)


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_cancel_returns_the_cancelled_response(joined: Joined) -> None:
    joined.service.on_create = joined.service.begin
    response = await joined.session.response.create()
    assert await joined.session.response.cancel() is response
    assert response.status == "cancelled"
    (cancel,) = joined.service.said(events.ResponseCancel)
    assert cancel.response_id == response.id


async def test_cancel_with_nothing_active_is_no_error(joined: Joined) -> None:
    assert await joined.session.response.cancel() is None
    assert joined.session.errors == []


async def test_cancel_races_the_end(joined: Joined) -> None:
    """The response ends by itself while our cancel is on its way; no call raises the refusal that follows."""
    session, service = joined.session, joined.service
    service.on_create = service.begin
    response = await session.response.create()
    await service.finish(response.id)  # on its way to us
    assert await session.response.cancel() is None
    assert response.status == "completed"
    await service.hears_refused()
    await joined.settle()
    assert session.errors == []


async def test_items_can_be_created_retrieved_and_deleted(joined: Joined) -> None:
    item = joined.session.conversation.item
    first = await item.create("one")
    second = await item.create({"role": "system", "content": [{"type": "input_text", "text": "zero"}]})
    third = await item.create(
        Item(type="message", role="user", content=(ContentPart(type="input_text", text="between"),)),
        previous_item_id=str(first.id),
    )
    assert [one.id for one in joined.session.conversation.items] == [first.id, third.id, second.id]
    assert (await item.retrieve(str(first.id))).id == first.id
    await item.delete(str(first.id))
    assert [one.id for one in joined.session.conversation.items] == [third.id, second.id]
    with pytest.raises(ServiceError) as caught:
        await item.delete("item_nope")
    assert caught.value.code == "item_not_found"


def test_a_delta_says_what_it_is() -> None:
    from rtnb.protocol import PCM16

    audio = events.ResponseOutputAudioDelta(response_id="r", item_id="i", delta=bytes(4_800))
    words = events.ResponseOutputAudioTranscriptDelta(response_id="r", item_id="i", delta="hi")
    assert repr(Delta("audio", 12.4, audio, PCM16)) == "<Delta audio at 12 ms: 100 ms>"
    assert repr(Delta("transcript", 12.4, words, PCM16)) == "<Delta transcript at 12 ms: 'hi'>"


@pytest.mark.parametrize("action", ["interrupt", "cancel"])
@talking(drop={"response.done": 1})
async def test_interrupt_and_cancel_work_after_a_lost_response_done(
    peer: Peer, session: rtnb.Session, action: str
) -> None:
    await session.response.create()
    await asyncio.sleep(1)
    start_s = asyncio.get_running_loop().time()
    stopped = await outcome(session.interrupt() if action == "interrupt" else session.response.cancel())
    assert not isinstance(stopped, Exception), stopped
    assert await said(session.ask("Hello?")) == REPLY
    assert asyncio.get_running_loop().time() - start_s < 30


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


# --- the response that turn detection began ---------------------------------------------------------------------------

OWN: dict[str, tuple[dict[str, Any], Callable[[rtnb.Session], Awaitable[Any]]]] = {
    "ask": ({"echo_metadata": False}, lambda session: session.ask("Hello?")),
    "say": (
        {"turn_detection": {"type": "server_vad", "silence_duration_ms": 300}},
        lambda session: session.say(SOUND, rate_hz=24_000),
    ),
}


@pytest.mark.parametrize("own", OWN)
def test_a_background_next_response_does_not_take_the_answer_of_a_call(own: str) -> None:
    options, call = OWN[own]

    async def test(peer: Peer, session: rtnb.Session) -> None:
        background = asyncio.create_task(session.next_response())
        await asyncio.sleep(0.1)
        assert await said(call(session)) == "Mine."
        assert not background.done()
        await peer.send(*peer.turn())
        assert await said(await outcome(background)) == REPLY

    hold(test, Peer(outputs=[("Mine.",)], **options))


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
            talking = loop.submit(talk())
            while not talking.done():
                for session in opened:
                    _ = session.conversation.items, session.playback.playing, session.tools.approval_requests
                    for running in tuple(session._dispatcher.responses.live.values()):
                        _ = running.transcript, running.deltas, running.function_calls
            assert talking.result() is None
    finally:
        sys.setswitchinterval(interval_s)
    assert len(opened[0].log.filter("response.done")) == 40
