"""Every request ends: errors without an id, lost, late, repeated and malformed replies, cancelled calls."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb.errors import ConnectionClosed, RequestTimeout, ServiceError
from tests.client.peer import CHUNK_MS, Message, Peer, Script, failure
from tests.client.virtual import now, outcome, said, settle, talking, virtual

REPLY = "Hello there."
BAD_VOICE = failure("invalid_value", "Invalid value: 'x'.", param="session.audio.output.voice")
NO_ITEM = failure("item_not_found", "There is no such item.", param="item_id")
TROUBLE = failure(None, "The server had an error while processing your request.", kind="server_error")
SECOND = np.zeros(24_000, np.float32)


async def healthy(session: rtnb.Session) -> None:
    """Check that requests of every kind get their own replies."""
    assert await said(session.ask("Hello?")) == REPLY
    wanted = f"Be brief: {len(session.log)}."
    config = await outcome(session.update(instructions=wanted))
    assert getattr(config, "instructions", config) == wanted
    await outcome(session.input_audio_buffer.clear())


def is_timeout(error: object, request: str, awaited: str) -> None:
    """Check that an outcome is a `RequestTimeout` that names the request and the event."""
    assert isinstance(error, RequestTimeout), f"{request} got a reply: {error!r}"
    assert (error.request, error.awaited) == (request, awaited)
    assert request in str(error)
    assert awaited in str(error)


CALLS: dict[str, Callable[[rtnb.Session], Awaitable[Any]]] = {
    "session.update": lambda s: s.update(instructions=f"Be kind: {len(s.log)}."),
    "response.create": lambda s: s.response.create(),
    "conversation.item.create": lambda s: s.conversation.item.create("Hello."),
    "conversation.item.retrieve": lambda s: s.conversation.item.retrieve("item_1"),
    "conversation.item.truncate": lambda s: s.conversation.item.truncate("item_1", audio_end_ms=5),
    "conversation.item.delete": lambda s: s.conversation.item.delete("item_1"),
    "input_audio_buffer.commit": lambda s: s.input_audio_buffer.commit(),
    "input_audio_buffer.clear": lambda s: s.input_audio_buffer.clear(),
}
ALL_CALLS: dict[str, Callable[[rtnb.Session], Awaitable[Any]]] = {
    **CALLS,
    "ask": lambda s: s.ask("First?"),
    "say": lambda s: s.say(SECOND, rate_hz=24_000),
    "input_audio_buffer.append": lambda s: s.input_audio_buffer.append(SECOND),
    "interrupt": lambda s: s.interrupt(),
}

# --- errors without an event_id ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, call", [*CALLS.items(), ("response.create", ALL_CALLS["ask"])])
@talking(name_errors=False)
async def test_an_unnamed_error_fails_the_only_pending_request(
    peer: Peer, session: rtnb.Session, kind: str, call: Callable[[rtnb.Session], Awaitable[Any]]
) -> None:
    peer.refuse = {kind: [TROUBLE]}
    error = await outcome(call(session))
    assert isinstance(error, ServiceError), error
    assert error.type == "server_error"
    await healthy(session)


@pytest.mark.parametrize(
    "older, fitting, error",
    [
        ("conversation.item.retrieve", "session.update", BAD_VOICE),
        ("session.update", "conversation.item.delete", NO_ITEM),
        ("session.update", "input_audio_buffer.commit", failure("input_audio_buffer_commit_empty", "Too small.")),
        ("session.update", "response.create", failure("invalid_value", "No.", param="response.output_modalities")),
        ("conversation.item.delete", "conversation.item.retrieve", None),  # the error fits nothing: the oldest has it
    ],
)
@talking(name_errors=False)
async def test_an_unnamed_error_fails_the_request_that_it_fits_else_the_oldest(
    peer: Peer, session: rtnb.Session, older: str, fitting: str, error: Message | None
) -> None:
    peer.silent = True
    calls = [older, fitting] if error else [fitting, older]
    tasks = {}
    for kind in calls:
        tasks[kind] = asyncio.create_task(outcome(CALLS[kind](session)))
        await asyncio.sleep(0.1)
    await peer.send(error or TROUBLE)
    refused = await tasks[fitting]
    assert isinstance(refused, ServiceError), refused
    assert not tasks[older].done()
    if error is None:  # the other still gets its own reply
        await peer.send({"type": "conversation.item.deleted", "item_id": "item_1"})
        assert await tasks[older] is None
    tasks[older].cancel()


@talking()
async def test_an_error_that_no_request_waits_for_is_kept_and_logged_as_a_warning(
    peer: Peer, session: rtnb.Session, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="rtnb"):
        await peer.send(TROUBLE)
        await settle()
    assert [type(error) for error in session.errors] == [ServiceError]
    (warning,) = [one for one in caplog.records if one.name == "rtnb" and one.levelname == "WARNING"]
    assert "The server had an error" in warning.getMessage()


# --- lost, repeated and malformed events ------------------------------------------------------------------------------


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
async def test_a_request_without_a_reply_raises_a_timeout_and_works_again(
    peer: Peer, session: rtnb.Session, kind: str, awaited: str
) -> None:
    peer.drop = {awaited: 1, "conversation.item.done": 1}
    outcomes, start_s, ends_s = [], now(), []
    for _ in range(2):
        peer.items["item_1"] = {"id": "item_1", "type": "message", "role": "user", "content": []}
        await session.input_audio_buffer.append(SECOND)
        outcomes.append(await outcome(CALLS[kind](session)))
        ends_s.append(now())
    error, again = outcomes
    is_timeout(error, kind, awaited)
    assert error.timeout_s == 15
    assert ends_s[0] - start_s == pytest.approx(15, abs=0.1)
    assert not isinstance(again, Exception), again
    await healthy(session)


@talking(drop={"response.done": 1})
async def test_a_lost_response_done_costs_only_its_own_ask(peer: Peer, session: rtnb.Session) -> None:
    start_s = now()
    is_timeout(await outcome(session.ask("Hello?")), "response.create", "response.done")
    assert now() - start_s == pytest.approx(60, abs=1)
    await healthy(session)


@talking(pace_s=50, outputs=["a" * 10])
async def test_a_long_response_is_not_timed_out_while_its_events_arrive(peer: Peer, session: rtnb.Session) -> None:
    assert await said(session.ask("Hello?"), within_s=1_000) == "a" * 10


def _twice(kind: str) -> Script:
    return lambda messages: [one for one in messages for _ in range(1 + (one["type"] == kind))]


def _question_lost(messages: list[Message]) -> list[Message]:
    return [one for one in messages if one.get("item", {}).get("role") != "user"]


PIECES = (
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
)
EVENTS = (*PIECES, "conversation.item.added", "conversation.item.done")
REPEATED = [kind for kind in (*EVENTS, "response.done", "session.updated") if not kind.endswith(".delta")]
FAULTS: dict[str, dict[str, Any]] = {
    **{f"{kind} lost": {"drop": {kind: 99}} for kind in EVENTS},
    **{f"{kind} twice": {"script": _twice(kind)} for kind in REPEATED},
    "question not acknowledged": {"script": _question_lost},
    "all but the end lost": {"drop": dict.fromkeys(PIECES, 99)},
}


@pytest.mark.parametrize("fault, options", FAULTS.items(), ids=FAULTS)
@talking()
async def test_an_ask_survives_a_fault_of_its_events(
    peer: Peer, session: rtnb.Session, fault: str, options: Any
) -> None:
    response = await outcome(session.ask("Hello?"))
    assert getattr(response, "transcript", response) == REPLY
    silent = fault in ("response.output_audio.delta lost", "all but the end lost")
    assert response.audio_ms == (0 if silent else 2 * CHUNK_MS)
    await healthy(session)
    await healthy(session)
    peer.script, peer.drop = None, {}
    await healthy(session)


# --- late replies and deadlines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["session.update", "input_audio_buffer.commit", "input_audio_buffer.clear"])
@talking()
async def test_a_late_reply_is_not_given_to_the_next_request(peer: Peer, session: rtnb.Session, kind: str) -> None:
    peer.delay_s = {LOST[kind]: [16, 2]}
    await session.input_audio_buffer.append(SECOND)
    is_timeout(await outcome(CALLS[kind](session)), kind, LOST[kind])
    await session.input_audio_buffer.append(SECOND)
    start_s = now()
    reply = await outcome(CALLS[kind](session))
    assert now() - start_s == pytest.approx(2, abs=0.5)
    if kind == "session.update":
        assert reply.instructions == peer.session["instructions"]
    else:
        assert reply == (list(peer.items)[-1] if kind == "input_audio_buffer.commit" else None)
    await healthy(session)


@talking(outputs=[("Too late.",)], pace_s=0.5)
async def test_a_late_response_is_not_given_to_the_next_ask(peer: Peer, session: rtnb.Session) -> None:
    peer.silent = True
    is_timeout(await outcome(session.response.create()), "response.create", "response.created")
    peer.silent = False
    await peer.send(*peer.respond({}))  # the service was slow, and is busy with the late response now
    assert await said(session.ask("Hello?")) == REPLY


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
        assert isinstance(error, RequestTimeout), error
        assert now() - start_s == pytest.approx(wait_s, abs=4.5)
        assert error.timeout_s == wait_s


@talking(pace_s=2)
async def test_a_response_that_is_given_up_is_cancelled(peer: Peer, session: rtnb.Session) -> None:
    assert isinstance(await outcome(session.ask("Hello?", timeout_s=1)), RequestTimeout)
    assert await said(session.ask("Hello?")) == REPLY
    (cancel,) = peer.asked("response.cancel")
    assert cancel["response_id"]


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
        self.receive, self.close = inner.receive, inner.close
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, text: str) -> None:
        if self._delivers:
            await self._inner.send(text)
        await self.gate.wait()
        if not self._delivers:
            await self._inner.send(text)


async def _cancelled(call: Awaitable[Any]) -> None:
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("delivers", [True, False], ids=["delivered", "lost"])
@pytest.mark.parametrize("kind", ALL_CALLS)
@virtual
async def test_a_call_that_is_cancelled_while_it_sends_leaves_the_session_usable(kind: str, delivers: bool) -> None:
    async with Peer() as peer:
        transport = Narrow(await rtnb.Custom(peer.url).open(), delivers=delivers)
        async with rtnb.connect(transport, clock=now) as session:
            transport.gate.clear()
            await _cancelled(ALL_CALLS[kind](session))
            transport.gate.set()
            await healthy(session)
            await healthy(session)


@talking()
async def test_every_request_to_an_ended_session_raises_a_new_exception(peer: Peer, session: rtnb.Session) -> None:
    await peer.close(1011, "gone")
    await asyncio.sleep(1)
    errors = [await outcome(call(session)) for call in CALLS.values() for _ in range(2)]
    assert all(isinstance(error, ConnectionClosed) and error.code == 1011 for error in errors), errors
    assert len({id(error) for error in errors}) == len(errors)
