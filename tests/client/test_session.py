"""Asking, updating, iterating, and the end of a session."""

import asyncio
import base64

import numpy as np
import pytest

import rtnb
from rtnb.errors import ConnectionClosed, LocalProtocolError, RateLimited, ResponseFailed, ServiceError
from rtnb.protocol import SemanticVad, SessionConfig, events
from tests.client.peer import EXPIRES_AT, Peer, failure
from tests.client.virtual import outcome, settle, talking

QUARTER = base64.b64encode(np.full(2_400, 8_192, "<i2").tobytes()).decode()
"""100 ms of the value 0.25."""


@talking(both=True, chunk=QUARTER)
async def test_ask_returns_the_whole_answer(peer: Peer, session: rtnb.Session) -> None:
    response = await session.ask("What is a delta?")
    assert (response.status, response.transcript) == ("completed", "Hello there.")
    assert (response.audio.dtype, response.audio.tolist()) == (np.float32, [0.25] * 4_800)
    assert [(delta.kind, delta.samples) for delta in response.deltas] == [("transcript", 0), ("audio", 2_400)] * 2
    assert response.usage.total_tokens == 12
    assert response.items[0].content[0].transcript == "Hello there."
    (asked,) = peer.asked("conversation.item.create")
    assert (asked["item"]["role"], asked["item"]["content"][0]["text"]) == ("user", "What is a delta?")
    assert [item.id for item in session.conversation.items] == list(peer.items)


@talking()
async def test_every_client_event_has_an_id(peer: Peer, session: rtnb.Session) -> None:
    await session.ask("hi")
    await session.send(events.InputAudioBufferClear())
    await session.send_raw({"type": "input_audio_buffer.clear"})
    await settle()
    ids = [message["event_id"] for message in peer.heard]
    assert len(peer.asked("input_audio_buffer.clear")) == 2
    assert all(one.startswith("client_") for one in ids)
    assert len(set(ids)) == len(ids)


@talking(both=True, wall=lambda: EXPIRES_AT - 3_600.0)
async def test_what_a_session_knows(peer: Peer, session: rtnb.Session) -> None:
    assert (session.id, session.expires_at, session.seconds_left) == (peer.session["id"], EXPIRES_AT, 3_600)
    assert session.dialect == peer.dialect
    assert repr(session) == f"<Session {session.id} ({session.dialect}) open, 1 events>"
    assert "<table>" in session._repr_html_()


@talking(both=True, turn_detection={"type": "server_vad", "threshold": 0.4})
async def test_update_sends_only_what_differs(peer: Peer, session: rtnb.Session) -> None:
    config = await session.update(voice="alloy", instructions="Be brief.", turn_detection={"threshold": 0.4})
    (update,) = peer.asked("session.update")
    assert update["session"] == {"instructions": "Be brief."} | ({"type": "realtime"} if peer.dialect == "ga" else {})
    assert config.instructions == session.config.instructions == "Be brief."
    await session.update(voice="alloy")
    assert len(peer.asked("session.update")) == 1  # nothing differs: nothing is sent
    await session.update(output_format="g711_ulaw", turn_detection="semantic_vad")
    assert session.config.output_format.type == "audio/pcmu"
    assert isinstance(session.config.turn_detection, SemanticVad)
    await session.update(turn_detection=None)
    assert session.config.turn_detection is None


@talking(refuse={"session.update": [failure("cannot_update_voice", "Cannot update a conversation's voice.")]})
async def test_a_refused_update_raises_and_the_next_one_is_answered(peer: Peer, session: rtnb.Session) -> None:
    calls = session.update(voice="ash", instructions="lost"), session.update(instructions="kept")
    refused, config = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(refused, ServiceError)
    assert refused.code == "cannot_update_voice"
    assert "new session" in refused.__notes__[0]
    assert isinstance(config, SessionConfig)
    assert (config.instructions, config.voice) == ("kept", "alloy")
    assert not session.errors


@talking(pace_s=0.1)
async def test_every_event_comes_once_to_every_iterator(peer: Peer, session: rtnb.Session) -> None:
    async def follow() -> list[events.Event]:
        return [event async for event in session]

    tasks = [asyncio.create_task(follow()) for _ in range(2)]
    await settle()
    await session.ask("hi")
    late = session.__aiter__()  # sees only what comes after
    await peer.send({"type": "rate_limits.updated", "rate_limits": []})
    assert isinstance(await anext(late), events.RateLimitsUpdated)
    async with session:
        pass
    await session.close()  # closing twice is fine
    assert session.closed
    with pytest.raises(StopAsyncIteration):
        await anext(late)
    expected = [row.event for row in session.log[1:].filter(direction="received")]  # after session.created
    assert [await task for task in tasks] == [expected, expected]


LIMITED = "Rate limit reached. Please try again in 1.2s."


@pytest.mark.parametrize(
    "code, message, kind, retry_after_ms",
    [("boom", "it broke", ResponseFailed, None), ("rate_limit_exceeded", LIMITED, RateLimited, 1_200)],
)
@talking(both=True, by_hand=True)
async def test_a_failed_response_raises(
    peer: Peer, session: rtnb.Session, code: str, message: str, kind: type[ServiceError], retry_after_ms: int | None
) -> None:
    asking = asyncio.create_task(outcome(session.ask("hi")))
    await settle()
    detail = {"type": "server_error", "code": code, "message": message}
    await peer.end(await peer.begin(), status="failed", error=detail)
    error = await asking
    assert type(error) is kind
    assert f"{code}: {message}" in str(error)
    assert getattr(error, "retry_after_ms", None) == retry_after_ms


@talking(by_hand=True)
async def test_other_ends_do_not_raise(peer: Peer, session: rtnb.Session) -> None:
    for status in ("cancelled", "incomplete"):
        asking = asyncio.create_task(session.ask("hi"))
        await settle()
        await peer.end(await peer.begin(), status=status, reason="max_output_tokens")
        response = await asking
        assert (response.status, response.status_details.reason) == (status, "max_output_tokens")


@talking(pace_s=0.1, outputs=["abc"])
async def test_a_connection_lost_in_the_middle_of_a_response(peer: Peer, session: rtnb.Session) -> None:
    response = await session.response.create()
    await asyncio.sleep(0.15)
    peer.silent = True
    item = session.conversation.item.retrieve(next(iter(peer.items)))
    waiting = [session.update(instructions="Be kind."), session.next_response(), session.response.create(), item]
    waiting += [session.next_response(), _drain(session)]
    calls = [asyncio.create_task(outcome(call)) for call in waiting]
    await settle()
    await peer.close(1011, "boom")
    errors = [await call for call in calls] + [await outcome(response), await outcome(response)]
    errors += [await outcome(session.ask("too late")), await outcome(session.send_raw({"type": "x"}))]
    for error in errors:
        assert isinstance(error, ConnectionClosed)
        assert (error.code, error.reason) == (1011, "boom")
    assert len({id(error) for error in errors}) == len(errors), "each call raises an exception of its own"
    assert (response.status, response.status_details.reason) == ("incomplete", "connection_closed")
    assert len(response.audio) == 2_400  # what had arrived is kept
    assert session.closed
    assert (session.ended.code, session.ended.reason) == (1011, "boom")
    assert session.loop is asyncio.get_running_loop()
    assert "closed (1011)" in repr(session)


async def _drain(session: rtnb.Session) -> None:
    async for _ in session:
        pass


@talking()
async def test_an_unreadable_message_does_not_end_the_session(peer: Peer, session: rtnb.Session) -> None:
    await peer.write("this is not JSON")
    await peer.send({"type": "brand.new", "x": 1})
    assert (await session.ask("still there?")).status == "completed"
    assert len(session.problems) == len(session.log.filter("unreadable")) == 1
    (row,) = session.log.filter("brand.new")
    assert row.event.payload["x"] == 1


@talking()
async def test_an_event_that_cannot_be_sent_leaves_no_trace(peer: Peer, session: rtnb.Session) -> None:
    before = len(session.log)
    with pytest.raises(LocalProtocolError):
        await session.send(events.SessionUpdated(session=SessionConfig()))
    with pytest.raises(LocalProtocolError):
        await session.send_raw({"no": "type"})
    assert len(session.log) == before
