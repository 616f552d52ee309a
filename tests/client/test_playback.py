"""What was heard, and cutting the conversation to it."""

import asyncio
from typing import Any

import pytest

from rtnb.client import Response
from rtnb.protocol import events
from rtnb.protocol.values import ErrorDetail
from tests.client.conftest import Joined


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


async def test_barge_in_after_the_generation_was_done(joined: Joined) -> None:
    """No cancel comes then: only the truncation is needed."""
    response, item_id = await speak(joined, 1_000)
    await joined.service.audio_done(response.id, item_id)
    await joined.service.finish(response.id)
    joined.clock.advance(999)
    await joined.service.commit_turn(await joined.service.speech_started())
    await joined.settle()
    assert truncations(joined) == [(item_id, 0, 999)]


async def test_what_was_heard_to_its_end_stays_whole(joined: Joined) -> None:
    response, item_id = await speak(joined, 1_000)
    await joined.service.audio_done(response.id, item_id)
    await joined.service.finish(response.id)
    joined.clock.advance(1_000)
    await joined.service.commit_turn(await joined.service.speech_started())
    await joined.settle()
    assert truncations(joined) == []


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


async def test_without_a_listener_everything_counts_as_heard(joined: Joined) -> None:
    joined.session.playback.assume_real_time = False
    response, item_id = await speak(joined, 1_000)
    await joined.service.audio_done(response.id, item_id)
    await joined.service.finish(response.id)
    await joined.service.commit_turn(await joined.service.speech_started())
    await joined.settle()
    assert truncations(joined) == []


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
        await joined.service.say(
            events.ResponseOutputTextDelta(response_id=response_id, item_id=item_id, content_index=0, delta="hi")
        )

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
