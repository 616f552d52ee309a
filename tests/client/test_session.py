"""Asking, updating, iterating, and the end of a session."""

import asyncio

import numpy as np
import pytest

from rtnb.errors import (
    ConnectionClosed,
    LocalProtocolError,
    RateLimited,
    ResponseFailed,
    ServiceError,
)
from rtnb.protocol import PCMU, SemanticVad, SessionConfig, events
from rtnb.protocol.values import ErrorDetail
from tests.client.conftest import Joined
from tests.client.service import EXPIRES_AT


async def test_ask_returns_the_whole_answer(joined: Joined) -> None:
    response = await joined.session.ask("What is a delta?")
    assert response.status == "completed"
    assert response.transcript == "Hello there."
    assert response.audio.dtype == np.float32
    assert response.audio.shape == (7_200,)
    assert np.allclose(response.audio, 0.25, atol=1e-4)
    assert [delta.kind for delta in response.deltas] == ["transcript", "transcript", "audio", "audio", "audio"]
    assert [delta.samples for delta in response.deltas] == [0, 0, 2_400, 2_400, 2_400]
    assert response.usage.total_tokens == 12  # type: ignore[union-attr]
    assert response.items[0].content[0].transcript == "Hello there."  # type: ignore[index, union-attr]
    (asked,) = joined.service.said(events.ConversationItemCreate)
    assert asked.item.role == "user"
    assert asked.item.content[0].text == "What is a delta?"


async def test_every_client_event_has_an_id(joined: Joined) -> None:
    await joined.session.ask("hi")
    await joined.session.send(events.InputAudioBufferClear())
    await joined.session.send_raw({"type": "input_audio_buffer.clear"})
    await joined.service.hears(events.InputAudioBufferClear, times=2)
    ids = [event.event_id for event in joined.service.heard]
    assert all(isinstance(one, str) and one.startswith("client_") for one in ids)
    assert len(set(ids)) == len(ids)


async def test_what_a_session_knows(joined: Joined) -> None:
    session = joined.session
    assert (session.id, session.expires_at) == ("sess_1", EXPIRES_AT)
    assert session.seconds_left == 3_600
    assert session.dialect == joined.service.dialect
    assert repr(session) == f"<Session sess_1 ({session.dialect}) open, 1 events>"
    assert "<table>" in session._repr_html_()


async def test_update_sends_only_what_differs(joined: Joined) -> None:
    session = joined.session
    config = await session.update(voice="alloy", instructions="Be brief.", turn_detection={"silence_duration_ms": 200})
    (update,) = joined.service.said(events.SessionUpdate)
    assert update.session == SessionConfig(instructions="Be brief.", type=update.session.type)
    assert config.instructions == session.config.instructions == "Be brief."
    await session.update(voice="alloy")
    assert len(joined.service.said(events.SessionUpdate)) == 1  # nothing differs: nothing is sent
    await session.update(output_format="g711_ulaw", turn_detection="semantic_vad")
    assert session.config.output_format == PCMU
    assert isinstance(session.config.turn_detection, SemanticVad)
    await session.update(turn_detection=None)
    assert session.config.turn_detection is None


async def test_a_refused_update_raises_and_the_next_one_is_answered(joined: Joined) -> None:
    session = joined.session
    await session.ask("speak")
    outcomes = await asyncio.gather(
        session.update(voice="ash", instructions="lost"), session.update(instructions="kept"), return_exceptions=True
    )
    refused, config = outcomes
    assert isinstance(refused, ServiceError)
    assert refused.code == "cannot_update_voice"
    assert "new session" in refused.__notes__[0]
    assert isinstance(config, SessionConfig)
    assert config.instructions == "kept"
    assert config.voice == "alloy"
    assert session.errors == []


async def test_a_refused_question_raises_although_a_response_came(joined: Joined) -> None:
    detail = ErrorDetail(type="invalid_request_error", code="invalid_value", message="no such words")
    joined.service.refuse = lambda event: detail if isinstance(event, events.ConversationItemCreate) else None
    with pytest.raises(ServiceError, match="no such words"):
        await joined.session.ask("hi")
    assert joined.session.errors == []


async def test_every_event_comes_once_to_every_iterator(joined: Joined) -> None:
    session = joined.session
    seen: list[list[events.Event]] = [[], []]

    async def follow(number: int) -> None:
        async for event in session:
            seen[number].append(event)

    tasks = [asyncio.create_task(follow(number)) for number in (0, 1)]
    await joined.settle()
    before = len(session.log)
    await session.ask("hi")
    late = session.__aiter__()  # sees only what comes after
    await joined.service.say(events.RateLimitsUpdated(rate_limits=()))
    assert isinstance(await anext(late), events.RateLimitsUpdated)
    await session.close()
    await session.close()  # closing twice is fine
    assert session.closed
    with pytest.raises(StopAsyncIteration):
        await anext(late)
    await asyncio.gather(*tasks)
    expected = [row.event for row in session.log[before:].filter(direction="received")]
    assert seen == [expected, expected]


@pytest.mark.parametrize(
    "code, message, kind, retry_after_ms",
    [
        ("boom", "it broke", ResponseFailed, None),
        ("rate_limit_exceeded", "Rate limit reached. Please try again in 1.2s.", RateLimited, 1_200),
    ],
)
async def test_a_failed_response_raises(
    joined: Joined, code: str, message: str, kind: type[ServiceError], retry_after_ms: int | None
) -> None:
    async def fail(config: object) -> None:
        detail = ErrorDetail(type="server_error", code=code, message=message)
        await joined.service.finish(await joined.service.begin(), status="failed", error=detail)

    joined.service.on_create = fail
    with pytest.raises(kind, match=f"{code}: {message}") as caught:
        await joined.session.ask("hi")
    assert getattr(caught.value, "retry_after_ms", None) == retry_after_ms


@pytest.mark.parametrize("status", ["cancelled", "incomplete"])
async def test_other_ends_do_not_raise(joined: Joined, status: str) -> None:
    async def end(config: object) -> None:
        await joined.service.finish(await joined.service.begin(), status=status, reason="max_output_tokens")

    joined.service.on_create = end
    response = await joined.session.ask("hi")
    assert response.status == status
    assert response.status_details.reason == "max_output_tokens"  # type: ignore[union-attr]


async def test_a_connection_lost_in_the_middle_of_a_response(joined: Joined) -> None:
    session, service = joined.session, joined.service

    async def half(config: object) -> None:
        response_id = await service.begin()
        await service.audio(response_id, await service.item(response_id), 100)

    service.on_create = half
    response = await session.response.create()
    waiters = [
        asyncio.ensure_future(one)
        for one in (response._finished(), session.next_response(), session.response.create(), _drain(session))
    ]
    service.ignored = (events.ConversationItemRetrieve,)
    pending = asyncio.create_task(session.conversation.item.retrieve(session.conversation.items[0].id or ""))
    await joined.settle()
    await service.transport.close(code=1011, reason="boom")
    for waiter in (*waiters, pending):
        with pytest.raises(ConnectionClosed, match="boom"):
            await waiter
    assert response.status == "incomplete"
    assert response.status_details.reason == "connection_closed"  # type: ignore[union-attr]
    assert len(response.audio) == 2_400  # what had arrived is kept
    assert session.closed
    assert (session.ended.code, session.ended.reason) == (1011, "boom")  # type: ignore[union-attr]
    assert session.loop is asyncio.get_running_loop()
    with pytest.raises(ConnectionClosed):
        await session.ask("too late")
    assert "closed (1011)" in repr(session)


async def _drain(session: object) -> None:
    async for _ in session:  # type: ignore[attr-defined]
        pass


async def test_an_unreadable_message_does_not_end_the_session(joined: Joined) -> None:
    await joined.service.say_raw("this is not JSON, sk-canary12345")
    await joined.service.say_raw('{"type":"brand.new","api_key":"topsecret","x":1}')
    response = await joined.session.ask("still there?")
    assert response.status == "completed"
    assert len(joined.session.problems) == 1
    (row,) = joined.session.log.filter("unreadable")
    assert "sk-canary12345" not in str(row)
    (new,) = joined.session.log.filter("brand.new")
    assert "topsecret" not in str(new)
    assert new.event.payload["x"] == 1  # type: ignore[attr-defined]


async def test_an_event_that_cannot_be_sent_leaves_no_trace(joined: Joined) -> None:
    before = len(joined.session.log)
    with pytest.raises(LocalProtocolError):
        await joined.session.send(events.SessionUpdated(session=SessionConfig()))
    with pytest.raises(LocalProtocolError):
        await joined.session.send_raw({"no": "type"})
    assert len(joined.session.log) == before
