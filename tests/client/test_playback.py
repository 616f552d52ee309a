"""Playback: how much of each item was played, and the cut of the conversation there."""

import asyncio
import math
from typing import Any

import pytest

import rtnb
from rtnb.client import Response
from rtnb.client.playback import ServicePlayback
from rtnb.protocol import events
from rtnb.protocol.values import ContentPart, ErrorDetail
from tests.client.conftest import Joined
from tests.client.peer import CHUNK_MS, Peer
from tests.client.service import Clock
from tests.client.virtual import outcome, talking


async def speak(joined: Joined, *deltas_ms: float) -> tuple[Response, str]:
    """A response in progress with so much audio, all of it arrived just now."""
    joined.service.on_create = None
    creating = asyncio.create_task(joined.session.response.create())
    await joined.service.hears(events.ResponseCreate, times=len(joined.service.said(events.ResponseCreate)) + 1)
    response_id = await joined.service.begin()
    item_id = await joined.service.item(response_id)
    for ms in deltas_ms:
        await joined.service.audio(response_id, item_id, ms)
    response = await creating
    await joined.settle()
    return response, item_id


def truncations(joined: Joined) -> list[tuple[str, int, int]]:
    said = joined.service.said(events.ConversationItemTruncate)
    return [(event.item_id, event.content_index, event.audio_end_ms) for event in said]


async def test_barge_in_cuts_at_what_was_heard(joined: Joined) -> None:
    response, item_id = await speak(joined, 500, 700)
    joined.clock.advance(321.9)
    user_item = await joined.service.speech_started()
    await joined.service.finish(response.id, status="cancelled", reason="turn_detected")
    await joined.settle()
    assert truncations(joined) == [(item_id, 0, 321)]  # rounded down
    assert response.status == "cancelled"
    table = joined.session.playback.heard()
    row = table.loc[item_id]
    assert (row.generated_ms, row.received_ms, row.heard_ms, bool(row.truncated)) == (1_200, 1_200, 321, True)
    joined.service.on_create = None
    await joined.service.commit_turn(user_item)


@pytest.mark.parametrize(
    "heard_ms, real_time, cut_ms",
    [(999, True, [999]), (1_000, True, []), (0, False, [])],
    ids=["before its end", "heard to its end", "without a listener everything counts as heard"],
)
async def test_barge_in_after_the_generation_was_done(
    joined: Joined, heard_ms: int, real_time: bool, cut_ms: list[int]
) -> None:
    """No cancel comes then: only the truncation is needed."""
    joined.session.playback.assume_real_time = real_time
    response, item_id = await speak(joined, 1_000)
    await joined.service.audio_done(response.id, item_id)
    await joined.service.finish(response.id)
    joined.clock.advance(heard_ms)
    await joined.service.commit_turn(await joined.service.speech_started())
    await joined.settle()
    assert truncations(joined) == [(item_id, 0, ms) for ms in cut_ms]


async def test_a_gap_in_the_arrival_is_not_heard(joined: Joined) -> None:
    response, item_id = await speak(joined, 100)
    joined.clock.advance(500)  # the speaker ran dry after 100 ms
    await joined.service.audio(response.id, item_id, 300)
    await joined.settle()
    joined.clock.advance(50)
    assert joined.session.playback.heard_ms(item_id) == 150
    await joined.session.interrupt()
    assert truncations(joined) == [(item_id, 0, 150)]


async def test_an_item_heard_so_far_but_still_growing_is_cut_too(joined: Joined) -> None:
    response, item_id = await speak(joined, 100)
    joined.clock.advance(500)
    await joined.service.speech_started()
    await joined.settle()
    assert truncations(joined) == [(item_id, 0, 100)]
    await joined.service.audio(response.id, item_id, 400)  # was on its way
    await joined.settle()
    row = joined.session.playback.heard().loc[item_id]
    assert (row.generated_ms, row.received_ms, row.heard_ms) == (500, 100, 100)
    assert len(response.audio) == 12_000  # the response keeps what was made


async def test_a_new_item_of_an_interrupted_response_is_not_played(joined: Joined) -> None:
    response, _ = await speak(joined, 100)
    await joined.service.speech_started()
    await joined.settle()
    late = await joined.service.item(response.id)  # was on its way
    await joined.service.audio(response.id, late, 400)
    await joined.settle()
    row = joined.session.playback.heard().loc[late]
    assert (row.generated_ms, row.received_ms, row.heard_ms) == (400, 0, 0)
    assert not joined.session.playback.playing


async def test_nothing_unheard_is_counted_for_a_waiting_item(joined: Joined) -> None:
    """Two items queued in the speaker: the second was not heard at all."""
    response, first = await speak(joined, 300)
    second = await joined.service.item(response.id)
    await joined.service.audio(response.id, second, 300)
    await joined.settle()
    joined.clock.advance(200)
    assert await joined.session.interrupt() == {first: 200, second: 0}
    assert truncations(joined) == [(first, 0, 200), (second, 0, 0)]
    assert response.status == "cancelled"


async def test_a_speaker_knows_better(joined: Joined) -> None:
    _response, item_id = await speak(joined, 1_000)
    flushed: list[bool] = []
    stop = joined.session.playback.on_flush(lambda: flushed.append(True))
    joined.session.playback.report_played(item_id, 120.7)
    joined.session.playback.report_played("item_unknown", 5)
    assert joined.session.playback.heard_ms(item_id) == 120
    joined.clock.advance(900)
    await joined.session.interrupt()
    assert truncations(joined) == [(item_id, 0, 320)]  # it is believed to have gone on, for a while
    assert flushed == [True]
    stop()
    assert "speaker" in repr(joined.session.playback)


async def test_a_speaker_that_fails_does_not_end_the_session(joined: Joined) -> None:
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["message"]))
    joined.session.playback.on_flush(lambda: 1 / 0)
    _, item_id = await speak(joined, 1_000)
    joined.clock.advance(100)
    await joined.service.speech_started()
    await joined.settle()
    assert reports == ["a flush callback of the playback failed"]
    assert truncations(joined) == [(item_id, 0, 100)]
    assert not joined.session.closed


async def test_more_played_than_received_is_clamped(joined: Joined) -> None:
    _, item_id = await speak(joined, 200)
    joined.session.playback.report_played(item_id, 5_000)
    assert joined.session.playback.heard_ms(item_id) == 200


async def test_no_interruption_where_it_is_switched_off(joined: Joined) -> None:
    await joined.session.update(turn_detection={"interrupt_response": False})
    response, _ = await speak(joined, 1_000)
    joined.clock.advance(100)
    await joined.service.speech_started()
    await joined.settle()
    assert truncations(joined) == []
    assert joined.session.playback.playing
    await joined.service.finish(response.id)


async def test_text_is_never_truncated(joined: Joined) -> None:
    async def text_only(config: Any) -> None:
        response_id = await joined.service.begin()
        item_id = await joined.service.item(response_id)
        await joined.service.piece(events.ResponseOutputTextDelta, response_id, item_id, delta="hi")

    joined.service.on_create = text_only
    await joined.session.response.create()
    assert await joined.session.interrupt() == {}
    assert truncations(joined) == []


@pytest.mark.parametrize(
    "message, code, remembered",
    [("Audio content of 90ms is already shorter than 100ms", None, 0), ("boom", "server_error", 1)],
)
async def test_a_truncation_the_service_refuses(
    joined: Joined, message: str, code: str | None, remembered: int
) -> None:
    detail = ErrorDetail(type="invalid_request_error", code=code, message=message)
    joined.service.refuse = lambda event: detail if isinstance(event, events.ConversationItemTruncate) else None
    await speak(joined, 1_000)
    joined.clock.advance(100)
    await joined.service.speech_started()
    await joined.settle()
    assert len(joined.session.errors) == remembered


async def test_g711_milliseconds(joined: Joined) -> None:
    await joined.session.update(output_format="g711_ulaw")
    _, item_id = await speak(joined, 1_000)
    joined.clock.advance(250)
    assert joined.session.playback.heard().loc[item_id].received_ms == 1_000
    assert await joined.session.interrupt() == {item_id: 250}


@talking(pace_s=0.2)
async def test_an_interruption_cuts_the_items_although_the_cancel_gets_no_reply(
    peer: Peer, session: rtnb.Session
) -> None:
    await session.response.create()
    await asyncio.sleep(0.5)
    peer.drop = {"response.done": 1}
    await outcome(session.interrupt())
    assert len(peer.asked("conversation.item.truncate")) == 1


async def _next_answer_is_heard(session: rtnb.Session) -> None:
    """Check that without a speaker an answer counts as heard in real time."""
    response = await outcome(session.ask("Hello?"))
    await asyncio.sleep(5)
    assert session.playback.heard_ms(response.items[0].id) == 2 * CHUNK_MS


@talking()
async def test_answers_count_as_heard_again_after_a_speaker_went_away(peer: Peer, session: rtnb.Session) -> None:
    response = await outcome(session.ask("Hello?"))
    session.playback.report_played(response.items[0].id, 100)
    await asyncio.sleep(60)
    await _next_answer_is_heard(session)


@pytest.mark.parametrize("reported_ms", [None, 50], ids=["no speaker", "a speaker that goes away"])
@talking(pace_s=0.1, outputs=["a" * 50])
async def test_answers_count_as_heard_again_after_an_interruption(
    peer: Peer, session: rtnb.Session, reported_ms: int | None
) -> None:
    growing = await session.response.create()
    await asyncio.sleep(0.25)
    item_id = next(iter(peer.items))
    if reported_ms is not None:
        session.playback.report_played(item_id, reported_ms)
    cut = await outcome(session.interrupt())
    assert cut == {item_id: 150} if reported_ms is None else cut[item_id] in range(50, 200)
    assert growing.status == "cancelled"
    await asyncio.sleep(60)
    await _next_answer_is_heard(session)


# --- where the service plays ------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def playback(clock: Clock) -> ServicePlayback:
    playback = ServicePlayback(clock=clock)
    for number in (1, 2):
        playback.observe(announced(number), 0.0)
    return playback


def announced(number: int) -> events.ResponseContentPartAdded:
    ids: Any = {"response_id": f"resp_{number}", "item_id": f"item_{number}", "output_index": 0, "content_index": 0}
    return events.ResponseContentPartAdded(**ids, part=ContentPart(type="audio", transcript=""))


def truncated(item_id: str, audio_end_ms: int) -> events.ConversationItemTruncated:
    return events.ConversationItemTruncated(item_id=item_id, content_index=0, audio_end_ms=audio_end_ms)


def test_an_answer_played_to_its_end(playback: ServicePlayback, clock: Clock) -> None:
    assert not playback.playing
    playback.observe(events.OutputAudioBufferStarted(response_id="resp_1"), clock())
    clock.advance(400)
    assert playback.playing
    assert playback.heard_ms("item_1") == 400
    clock.advance(600)
    playback.observe(events.OutputAudioBufferStopped(response_id="resp_1"), clock())
    clock.advance(5_000)
    row = playback.heard().loc["item_1"]
    assert (row.generated_ms, row.received_ms, row.played_ms) == (1_000, 1_000, 1_000)
    assert (row.heard_ms, row.truncated) == (1_000, False)
    assert not playback.playing
    assert math.isnan(playback.heard().loc["item_2"].generated_ms)


def test_a_cut_answer_ends_where_the_service_says(playback: ServicePlayback, clock: Clock) -> None:
    playback.observe(events.OutputAudioBufferStarted(response_id="resp_2"), clock())
    clock.advance(732.9)
    assert playback.flush() == [("item_2", 0, 732)]
    playback.observe(events.OutputAudioBufferCleared(response_id="resp_2"), clock())
    assert playback.heard_ms("item_2") == 732
    playback.observe(truncated("item_2", 720), clock())
    row = playback.heard().loc["item_2"]
    assert math.isnan(row.generated_ms)
    assert (row.played_ms, row.heard_ms, row.truncated) == (732.9, 720, True)
    assert playback.flush() == []


def test_responses_nobody_announced_are_ignored(playback: ServicePlayback, clock: Clock) -> None:
    playback.observe(events.OutputAudioBufferStarted(response_id="resp_9"), clock())
    playback.observe(events.OutputAudioBufferStopped(response_id="resp_9"), clock())
    playback.observe(events.OutputAudioBufferStopped(response_id="resp_1"), clock())
    playback.observe(truncated("item_9", 1), clock())
    assert list(playback.heard().heard_ms) == [0, 0]


def test_a_service_that_plays_may_announce_everything_twice(playback: ServicePlayback, clock: Clock) -> None:
    start_s = clock()
    for event, after_s in (
        (events.OutputAudioBufferStarted(response_id="resp_1"), 0.0),
        (events.OutputAudioBufferStarted(response_id="resp_1"), 0.25),
        (announced(1), 0.0),
    ):
        playback.observe(event, start_s + after_s)
    clock.advance(500)
    assert playback.heard_ms("item_1") == 500
    playback.observe(events.OutputAudioBufferCleared(response_id="resp_1"), clock())
    assert playback.heard_ms("item_1") == 500
