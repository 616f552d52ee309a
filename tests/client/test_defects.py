"""Every request ends: errors without an id, lost, late, repeated and malformed replies, cancelled calls."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb.errors import ConnectionClosed, RtnbError, ServiceError
from tests.client.peer import CHUNK_MS, Message, Peer, failure
from tests.client.virtual import hold, outcome, talking, virtual

REPLY = "Hello there."
BAD_VOICE = failure("invalid_value", "Invalid value: 'x'.", param="session.audio.output.voice")
NO_ITEM = failure("item_not_found", "There is no such item.", param="item_id")
TROUBLE = failure(None, "The server had an error while processing your request.", kind="server_error")
SECOND = np.zeros(24_000, np.float32)

Test = Callable[[Peer, rtnb.Session], Awaitable[None]]


def now() -> float:
    """Return the virtual time in seconds."""
    return asyncio.get_running_loop().time()


async def settle(seconds: float = 1.0) -> None:
    """Let everything arrive that is on its way."""
    await asyncio.sleep(seconds)


async def healthy(session: rtnb.Session) -> None:
    """Check that requests of every kind get their own replies again."""
    response = await outcome(session.ask("Hello?"))
    assert getattr(response, "transcript", response) == REPLY
    config = await outcome(session.update(instructions="Be brief."))
    assert getattr(config, "instructions", config) == "Be brief."
    await outcome(session.input_audio_buffer.clear())


def is_timeout(error: object, request: str, awaited: str) -> None:
    """Check that an outcome is a `RequestTimeout` that names the request and the event."""
    assert isinstance(error, RtnbError), f"{request} got a reply: {error!r}"
    assert isinstance(error, rtnb.errors.RequestTimeout), error
    assert (error.request, error.awaited) == (request, awaited)
    assert request in str(error)
    assert awaited in str(error)


# --- errors without an event_id ---------------------------------------------------------------------------------------


CALLS: dict[str, Callable[[rtnb.Session], Awaitable[Any]]] = {
    "session.update": lambda s: s.update(instructions="Be kind."),
    "response.create": lambda s: s.response.create(),
    "conversation.item.create": lambda s: s.conversation.item.create("Hello."),
    "conversation.item.retrieve": lambda s: s.conversation.item.retrieve("item_1"),
    "conversation.item.truncate": lambda s: s.conversation.item.truncate("item_1", audio_end_ms=5),
    "conversation.item.delete": lambda s: s.conversation.item.delete("item_1"),
    "input_audio_buffer.commit": lambda s: s.input_audio_buffer.commit(),
    "input_audio_buffer.clear": lambda s: s.input_audio_buffer.clear(),
}


@pytest.mark.parametrize("kind", CALLS)
@talking(name_errors=False)
async def test_an_unnamed_error_fails_the_only_pending_request(peer: Peer, session: rtnb.Session, kind: str) -> None:
    peer.refuse = {kind: [TROUBLE]}
    error = await outcome(CALLS[kind](session))
    assert isinstance(error, ServiceError), error
    assert error.type == "server_error"
    await healthy(session)


@talking(name_errors=False, refuse={"response.create": [TROUBLE]})
async def test_an_unnamed_error_fails_an_ask(peer: Peer, session: rtnb.Session) -> None:
    assert isinstance(await outcome(session.ask("Hello?")), ServiceError)
    await healthy(session)


@pytest.mark.parametrize(
    "older, fitting, error",
    [
        ("conversation.item.retrieve", "session.update", BAD_VOICE),
        ("session.update", "conversation.item.delete", NO_ITEM),
        ("session.update", "input_audio_buffer.commit", failure("input_audio_buffer_commit_empty", "Too small.")),
        ("session.update", "response.create", failure("invalid_value", "No.", param="response.output_modalities")),
    ],
)
@talking(name_errors=False)
async def test_an_unnamed_error_fails_the_request_that_it_fits(
    peer: Peer, session: rtnb.Session, older: str, fitting: str, error: Message
) -> None:
    peer.silent = True
    first = asyncio.create_task(CALLS[older](session))
    await settle(0.1)
    second = asyncio.create_task(outcome(CALLS[fitting](session)))
    await settle(0.1)
    await peer.send(error)
    refused = await second
    assert isinstance(refused, ServiceError), refused
    assert not first.done()
    first.cancel()


@talking(name_errors=False)
async def test_an_unnamed_error_that_fits_nothing_fails_the_oldest_request(peer: Peer, session: rtnb.Session) -> None:
    peer.silent = True
    first = asyncio.create_task(outcome(session.conversation.item.retrieve("item_1")))
    await settle(0.1)
    second = asyncio.create_task(outcome(session.conversation.item.delete("item_2")))
    await settle(0.1)
    await peer.send(TROUBLE)
    await peer.send({"type": "conversation.item.deleted", "item_id": "item_2"})
    assert isinstance(await first, ServiceError)
    assert await second is None


def test_an_error_that_no_request_waits_for_is_kept_and_logged_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
        await peer.send(TROUBLE)
        await settle()
        (error,) = session.errors
        assert isinstance(error, ServiceError)

    with caplog.at_level("WARNING", logger="rtnb"):
        hold(test, Peer())
    warnings = [one for one in caplog.records if one.name == "rtnb" and one.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "The server had an error" in warnings[0].getMessage()


# --- lost replies -----------------------------------------------------------------------------------------------------


LOST = {
    "session.update": "session.updated",
    "conversation.item.create": "conversation.item.added",
    "conversation.item.retrieve": "conversation.item.retrieved",
    "conversation.item.truncate": "conversation.item.truncated",
    "conversation.item.delete": "conversation.item.deleted",
    "input_audio_buffer.commit": "input_audio_buffer.committed",
    "input_audio_buffer.clear": "input_audio_buffer.cleared",
}


@pytest.mark.parametrize("kind, awaited", LOST.items())
@talking()
async def test_a_request_without_a_reply_raises_a_timeout_and_the_same_request_works_again(
    peer: Peer, session: rtnb.Session, kind: str, awaited: str
) -> None:
    peer.drop = {awaited: 1, "conversation.item.done": 1}
    peer.items["item_1"] = {"id": "item_1", "type": "message", "role": "user", "content": []}
    await session.input_audio_buffer.append(SECOND)
    start_s = now()
    error = await outcome(CALLS[kind](session))
    is_timeout(error, kind, awaited)
    assert error.timeout_s == 15
    assert now() - start_s == pytest.approx(15, abs=0.1)
    peer.items["item_1"] = {"id": "item_1", "type": "message", "role": "user", "content": []}
    await session.input_audio_buffer.append(SECOND)
    again = await outcome(CALLS[kind](session))
    assert not isinstance(again, Exception), again
    await healthy(session)


@talking()
async def test_an_item_that_is_never_acknowledged_does_not_block_the_ask(peer: Peer, session: rtnb.Session) -> None:
    def lose_the_question(messages: list[Message]) -> list[Message]:
        return [one for one in messages if one.get("item", {}).get("role") != "user"]

    peer.script = lose_the_question
    response = await outcome(session.ask("Hello?"))
    assert getattr(response, "transcript", response) == REPLY
    await healthy(session)


@talking(drop={"response.done": 1})
async def test_a_lost_response_done_costs_only_its_own_ask(peer: Peer, session: rtnb.Session) -> None:
    start_s = now()
    error = await outcome(session.ask("Hello?"))
    is_timeout(error, "response.create", "response.done")
    assert now() - start_s == pytest.approx(60, abs=1)
    await healthy(session)


@talking(pace_s=50, outputs=["a" * 10])
async def test_a_long_response_is_not_timed_out_while_its_events_arrive(peer: Peer, session: rtnb.Session) -> None:
    response = await outcome(session.ask("Hello?"), within_s=1_000)
    assert getattr(response, "transcript", response) == "a" * 10


@talking(drop={"response.created": 1})
async def test_a_lost_response_created_still_gives_the_full_transcript(peer: Peer, session: rtnb.Session) -> None:
    response = await outcome(session.ask("Hello?"))
    assert getattr(response, "transcript", response) == REPLY
    assert response.audio_ms == 2 * CHUNK_MS
    await healthy(session)


@talking()
async def test_a_response_of_which_only_the_end_arrives_has_its_transcript(peer: Peer, session: rtnb.Session) -> None:
    def only_the_end(messages: list[Message]) -> list[Message]:
        return [one for one in messages if not one["type"].startswith("response.") or one["type"] == "response.done"]

    peer.script = only_the_end
    response = await outcome(session.ask("Hello?"))
    assert getattr(response, "transcript", response) == REPLY
    peer.script = None
    await healthy(session)


RESPONSE_EVENTS = (
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
)


@pytest.mark.parametrize("kind", RESPONSE_EVENTS)
@talking()
async def test_an_ask_survives_the_loss_of_any_one_kind_of_event(peer: Peer, session: rtnb.Session, kind: str) -> None:
    peer.drop = {kind: 100}
    response = await outcome(session.ask("Hello?"))
    assert getattr(response, "transcript", response) == REPLY
    peer.drop.clear()
    await healthy(session)


REPEATED = [kind for kind in (*RESPONSE_EVENTS, "response.done", "session.updated") if not kind.endswith(".delta")]


@pytest.mark.parametrize("kind", REPEATED)
@talking()
async def test_events_that_arrive_twice_change_nothing(peer: Peer, session: rtnb.Session, kind: str) -> None:
    peer.duplicate = {kind: 100}
    for _ in range(2):
        response = await outcome(session.ask("Hello?"))
        assert getattr(response, "transcript", response) == REPLY
    config = await outcome(session.update(instructions="Be kind."))
    assert config.instructions == "Be kind."
    assert (await outcome(session.update(instructions="Be brief."))).instructions == "Be brief."


@pytest.mark.parametrize("kind", ["session.updated", "conversation.item.added", "response.created", "response.done"])
@pytest.mark.parametrize("body", [{}, {"session": 5, "item": 5, "response": 5}, {"session": {}, "response": {}}])
@talking()
async def test_a_malformed_reply_costs_at_most_its_own_request(
    peer: Peer, session: rtnb.Session, kind: str, body: Message
) -> None:
    broken: list[Message] = []

    def break_the_first(messages: list[Message]) -> list[Message]:
        for position, one in enumerate(messages):
            if one["type"] == kind and not broken:
                broken.append(one)
                messages[position] = {"type": kind, **body}
        return messages

    peer.script = break_the_first
    await outcome(session.update(instructions="Be kind."))
    await outcome(session.ask("Hello?"))
    assert broken
    await healthy(session)


# --- late replies -----------------------------------------------------------------------------------------------------


@talking(delay_s={"session.updated": [16, 2]})
async def test_a_late_session_updated_is_not_given_to_the_next_update(peer: Peer, session: rtnb.Session) -> None:
    is_timeout(await outcome(session.update(voice="alloy")), "session.update", "session.updated")
    start_s = now()
    config = await outcome(session.update(instructions="Be kind."))
    assert getattr(config, "instructions", config) == "Be kind."
    assert now() - start_s == pytest.approx(2, abs=0.5)
    await healthy(session)


@pytest.mark.parametrize("kind", ["input_audio_buffer.commit", "input_audio_buffer.clear"])
@talking()
async def test_a_late_reply_is_not_given_to_the_next_request(peer: Peer, session: rtnb.Session, kind: str) -> None:
    peer.delay_s = {LOST[kind]: [16, 2]}
    await session.input_audio_buffer.append(SECOND)
    is_timeout(await outcome(CALLS[kind](session)), kind, LOST[kind])
    await session.input_audio_buffer.append(SECOND)
    start_s = now()
    reply = await outcome(CALLS[kind](session))
    assert now() - start_s == pytest.approx(2, abs=0.5)
    assert reply == (list(peer.items)[-1] if kind == "input_audio_buffer.commit" else None)
    await healthy(session)


@talking(outputs=[("Too late.",)], pace_s=0.5)
async def test_a_late_response_is_not_given_to_the_next_ask(peer: Peer, session: rtnb.Session) -> None:
    peer.silent = True
    is_timeout(await outcome(session.response.create()), "response.create", "response.created")
    peer.silent = False
    await peer.send(*peer.respond({}))  # the service was slow, and is busy with the late response now
    response = await outcome(session.ask("Hello?"))
    assert getattr(response, "transcript", response) == REPLY


@talking(request_timeout_s=4, response_timeout_s=20)
async def test_the_deadline_can_be_chosen_per_session_and_per_call(peer: Peer, session: rtnb.Session) -> None:
    assert (session.request_timeout_s, session.response_timeout_s) == (4, 20)
    peer.silent = True
    for call, wait_s in (
        (session.update(instructions="Be kind."), 4),
        (session.update(instructions="Be kind.", timeout_s=2), 2),
        (session.conversation.item.delete("item_1", timeout_s=3), 3),
        (session.ask("Hello?", timeout_s=7), 7),
        (session.ask("Hello?"), 20),
    ):
        start_s = now()
        error = await outcome(call)
        assert isinstance(error, rtnb.errors.RequestTimeout), error
        assert now() - start_s == pytest.approx(wait_s, abs=4.5)
        assert error.timeout_s == wait_s


# --- responses --------------------------------------------------------------------------------------------------------


def test_a_second_response_done_runs_no_tool_again() -> None:
    runs = []

    def note(word: str) -> str:
        """Note a word."""
        runs.append(word)
        return "noted"

    async def test(peer: Peer, session: rtnb.Session) -> None:
        response = await outcome(session.ask("Note it."))
        assert getattr(response, "transcript", response) == REPLY
        await settle(5)
        assert runs == ["hello"]
        assert len(peer.asked("response.create")) == 2

    hold(test, Peer(outputs=[[("note", '{"word": "hello"}')]], duplicate={"response.done": 1}), tools=[note])


@pytest.mark.parametrize("action", ["interrupt", "cancel"])
@talking(drop={"response.done": 1})
async def test_interrupt_and_cancel_work_after_a_lost_response_done(
    peer: Peer, session: rtnb.Session, action: str
) -> None:
    await session.response.create()
    await settle()
    start_s = now()
    stopped = await outcome(session.interrupt() if action == "interrupt" else session.response.cancel())
    assert not isinstance(stopped, Exception), stopped
    response = await outcome(session.ask("Hello?"))
    assert getattr(response, "transcript", response) == REPLY
    assert now() - start_s < 30


@talking(pace_s=1_000)
async def test_a_cancel_that_the_service_never_answers_ends(peer: Peer, session: rtnb.Session) -> None:
    await session.response.create()
    peer.silent = True
    await outcome(session.response.cancel())
    peer.silent, peer.active = False, None
    peer.pace_s = 0.0
    await healthy(session)


TURNS = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 300}


@talking(turn_detection=TURNS, outputs=[("Said.",)])
async def test_a_background_next_response_does_not_take_the_answer_of_a_say(peer: Peer, session: rtnb.Session) -> None:
    background = asyncio.create_task(session.next_response())
    await settle(0.1)
    response = await outcome(session.say(SECOND, rate_hz=24_000))
    assert getattr(response, "transcript", response) == "Said."
    assert not background.done()
    await peer.send(*peer.turn())
    following = await outcome(background)
    assert (await outcome(following)).transcript == REPLY


@talking(outputs=[("Asked.",)], echo_metadata=False)
async def test_a_background_next_response_does_not_take_the_answer_of_an_ask(peer: Peer, session: rtnb.Session) -> None:
    background = asyncio.create_task(session.next_response())
    await settle(0.1)
    response = await outcome(session.ask("Hello?"))
    assert getattr(response, "transcript", response) == "Asked."
    assert not background.done()
    await peer.send(*peer.turn())
    assert (await outcome(await outcome(background))).transcript == REPLY


@talking()
async def test_several_consumers_of_next_response_get_one_response_each(peer: Peer, session: rtnb.Session) -> None:
    consumers = [asyncio.create_task(session.next_response()) for _ in range(3)]
    await settle(0.1)
    consumers[0].cancel()  # gives up its place
    for _ in range(2):
        await peer.send(*peer.turn())
    first, second = [await outcome(consumer) for consumer in consumers[1:]]
    assert first.id != second.id


@talking(floats=True, turn_detection=TURNS)
async def test_numbers_may_come_as_floats(peer: Peer, session: rtnb.Session) -> None:
    response = await outcome(session.say(SECOND, rate_hz=24_000))
    response = await outcome(response)
    assert getattr(response, "transcript", response) == REPLY
    assert len(response.audio) == 4_800
    assert response.usage.total_tokens == 12
    assert session.config.output_format.rate_hz == 24_000
    assert session.expires_at == 1_800_003_600
    problems = [row for row in session.log if getattr(row.event, "problem", None)]
    assert problems == []
    await peer.send(*(one for one in peer.turn() if one["type"].startswith("input_audio")))
    assert await outcome(session.conversation.item.truncate(next(iter(peer.items)), audio_end_ms=5)) is None
    assert not [row for row in session.log if getattr(row.event, "problem", None)]


# --- playback ---------------------------------------------------------------------------------------------------------


async def _heard_ms(session: rtnb.Session, *, after_s: float) -> int:
    response = await outcome(session.ask("Hello?"))
    await asyncio.sleep(after_s)
    return session.playback.heard_ms(response.items[0].id)


@talking()
async def test_answers_count_as_heard_again_after_a_speaker_went_away(peer: Peer, session: rtnb.Session) -> None:
    response = await outcome(session.ask("Hello?"))
    session.playback.report_played(response.items[0].id, 100)
    await asyncio.sleep(60)
    assert await _heard_ms(session, after_s=5) == 2 * CHUNK_MS


@talking(pace_s=0.1, outputs=["a" * 50])
async def test_answers_count_as_heard_again_after_an_interrupted_playback(peer: Peer, session: rtnb.Session) -> None:
    growing = await session.response.create()
    await settle(0.25)
    assert await outcome(session.interrupt()) == {next(iter(peer.items)): 150}
    assert growing.status == "cancelled"
    assert await _heard_ms(session, after_s=5) == 2 * CHUNK_MS


@talking(pace_s=0.1, outputs=["a" * 50])
async def test_answers_count_as_heard_again_after_a_speaker_was_interrupted_and_went_away(
    peer: Peer, session: rtnb.Session
) -> None:
    await session.response.create()
    await settle(0.25)
    item_id = next(iter(peer.items))
    session.playback.report_played(item_id, 50)
    assert (await outcome(session.interrupt()))[item_id] in range(50, 200)
    await asyncio.sleep(60)
    assert await _heard_ms(session, after_s=5) == 2 * CHUNK_MS


# --- calls that are cancelled -----------------------------------------------------------------------------------------


class Narrow:
    """Transport whose `send` waits while the gate is closed, like a socket whose buffer is full.

    Parameters
    ----------
    inner : Transport
        The real connection.
    delivers : bool
        A cancelled send has put its text on the way (as a socket does), or has not.
    """

    def __init__(self, inner: Any, *, delivers: bool) -> None:
        self._inner = inner
        self._delivers = delivers
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, text: str) -> None:
        if self._delivers:
            await self._inner.send(text)
        await self.gate.wait()
        if not self._delivers:
            await self._inner.send(text)

    async def receive(self) -> str:
        text: str = await self._inner.receive()
        return text

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        await self._inner.close(code=code, reason=reason)


CANCELLED: dict[str, Callable[[rtnb.Session], Awaitable[Any]]] = {
    **CALLS,
    "ask": lambda s: s.ask("First?"),
    "say": lambda s: s.say(SECOND, rate_hz=24_000),
    "input_audio_buffer.append": lambda s: s.input_audio_buffer.append(SECOND),
    "interrupt": lambda s: s.interrupt(),
}


@pytest.mark.parametrize("delivers", [True, False], ids=["delivered", "lost"])
@pytest.mark.parametrize("kind", CANCELLED)
@virtual
async def test_a_call_that_is_cancelled_while_it_sends_leaves_the_session_usable(kind: str, delivers: bool) -> None:
    async with Peer() as peer:
        transport = Narrow(await rtnb.Custom(peer.url).open(), delivers=delivers)
        async with rtnb.connect(transport, clock=asyncio.get_running_loop().time) as session:
            transport.gate.clear()
            call = asyncio.ensure_future(CANCELLED[kind](session))
            await settle(0.1)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            transport.gate.set()
            await healthy(session)
            await healthy(session)


@pytest.mark.parametrize("kind", CANCELLED)
@talking()
async def test_a_call_that_is_cancelled_while_it_waits_leaves_the_session_usable(
    peer: Peer, session: rtnb.Session, kind: str
) -> None:
    peer.silent = True
    call = asyncio.ensure_future(CANCELLED[kind](session))
    await settle(0.1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    peer.silent = False
    await healthy(session)


# --- exceptions -------------------------------------------------------------------------------------------------------


@talking()
async def test_every_request_to_an_ended_session_raises_a_new_exception(peer: Peer, session: rtnb.Session) -> None:
    await peer.close(1011, "gone")
    await settle()
    errors = [await outcome(call(session)) for call in CALLS.values() for _ in range(2)]
    errors += [await outcome(session.next_response()), await outcome(session.send_raw({"type": "x"}))]
    assert all(isinstance(error, ConnectionClosed) and error.code == 1011 for error in errors)
    assert len({id(error) for error in errors}) == len(errors)


@talking()
async def test_requests_that_a_closed_connection_ends_raise_different_exceptions(
    peer: Peer, session: rtnb.Session
) -> None:
    peer.silent = True
    calls = [asyncio.create_task(outcome(CALLS[kind](session))) for kind in ("session.update", "response.create")]
    calls += [asyncio.create_task(outcome(session.next_response())) for _ in range(2)]
    await settle(0.1)
    await peer.close(1011)
    errors = [await call for call in calls]
    assert all(isinstance(error, ConnectionClosed) for error in errors)
    assert len({id(error) for error in errors}) == len(errors)


@talking(pace_s=1)
async def test_every_await_of_a_response_that_was_cut_off_raises_a_new_exception(
    peer: Peer, session: rtnb.Session
) -> None:
    response = await session.response.create()
    await settle(0.1)
    await peer.close(1011)
    first, second = [await outcome(response) for _ in range(2)]
    assert isinstance(first, ConnectionClosed)
    assert isinstance(second, ConnectionClosed)
    assert first is not second
