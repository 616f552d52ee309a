"""Random calls, cancellations and misbehaviours of the service: every call ends, and the session stays usable."""

import asyncio
import contextlib
import gc
import random
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import rtnb
from rtnb.errors import RtnbError
from tests.client.peer import Message, Peer, Script, failure
from tests.client.test_requests import ALL_CALLS, LOST, SECOND
from tests.client.virtual import VirtualLoop, now, run_virtual

ACKNOWLEDGED_S = 15
SILENT_S = 60
LATE_S = 20.0
NEXT_S = 10.0
"""How long a `next_response` of these tests waits."""

# --- calls ------------------------------------------------------------------------------------------------------------


async def _next(session: rtnb.Session) -> None:
    async with asyncio.timeout(NEXT_S):
        await session.next_response()


async def _whole(session: rtnb.Session) -> None:
    await (await session.response.create())


async def _commit(session: rtnb.Session) -> None:
    await session.input_audio_buffer.append(SECOND)
    await session.input_audio_buffer.commit()


def _item(session: rtnb.Session) -> str:
    items = session.conversation.items
    return (items[len(items) // 2].id or "item_x") if items else "item_x"


CALLS: dict[str, Callable[[rtnb.Session], Awaitable[Any]]] = {
    **ALL_CALLS,
    "create and wait": _whole,
    "outside": lambda s: s.response.create(conversation="none", output_modalities=["text"]),
    "cancel": lambda s: s.response.cancel(),
    "conversation.item.retrieve": lambda s: s.conversation.item.retrieve(_item(s)),
    "conversation.item.truncate": lambda s: s.conversation.item.truncate(_item(s), audio_end_ms=50),
    "conversation.item.delete": lambda s: s.conversation.item.delete(_item(s)),
    "input_audio_buffer.commit": _commit,
    "next": _next,
}

LIMITS_S = {**dict.fromkeys((*LOST, "cancel"), ACKNOWLEDGED_S), "input_audio_buffer.append": 0, "next": NEXT_S}
"""Seconds that a call may take which neither begins a response nor waits for one."""


# --- misbehaviours ----------------------------------------------------------------------------------------------------


BODIES = ({}, {"session": 5, "item": 5, "response": 5}, {"session": {}, "response": {}}, {"response": {"id": 5}})
"""Bodies of malformed events."""


def misbehave(peer: Peer, fault: str, seed: int) -> Script | None:
    """Return the script of a fault; flags are set on the peer."""
    chance = random.Random(seed)
    peer.silent, peer.floats = fault == "silence", fault == "floats"

    def late(messages: list[Message]) -> list[Message]:
        for message in messages:
            peer.delay_s.setdefault(message["type"], []).append(LATE_S * chance.random())
        return messages

    turns = [1]

    def own(messages: list[Message]) -> list[Message]:
        if peer.active is None and turns:
            messages += peer.turn() * turns.pop()
        return messages

    scripts: dict[str, Script] = {
        "lost": lambda messages: [one for one in messages if chance.random() < 0.6],
        "twice": lambda messages: [one for one in messages for _ in range(2)],
        "late": late,
        "reordered": lambda messages: chance.sample(messages, len(messages)),
        "unnamed": lambda messages: [failure(None, "The server had an error.", kind="server_error")],
        "malformed": lambda messages: [{"type": one["type"], **chance.choice(BODIES)} for one in messages],
        "own": own,
    }
    return scripts.get(fault)


FAULTS = ("none", "silence", "floats", "lost", "twice", "late", "reordered", "unnamed", "malformed", "own")


# --- sequences --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Call, the fault of the service meanwhile, and the moment at which the caller gives up."""

    call: str
    fault: str
    seed: int
    turns: int | None
    """Turns of the loop after which the caller cancels; None waits."""
    after_s: float
    """Time that passes before the caller cancels, or before the next call starts."""
    alone: bool
    """Whether the next call waits for the end of this one."""


STEPS = st.lists(
    st.builds(
        Step,
        call=st.sampled_from(list(CALLS)),
        fault=st.sampled_from(FAULTS),
        seed=st.integers(0, 1_000),
        turns=st.none() | st.integers(0, 12),
        after_s=st.sampled_from([0.0, 0.05, 0.25, 3.0]),
        alone=st.booleans(),
    ),
    min_size=1,
    max_size=10,
)


async def ended(tasks: dict[asyncio.Task[float], Step]) -> None:
    """Check that every call ends in a result or an error of ours, within its deadlines and those before it."""
    limit_s = NEXT_S + sum(3 * ACKNOWLEDGED_S + SILENT_S for _ in tasks) + SILENT_S
    if tasks:
        await asyncio.wait(tasks, timeout=limit_s)
    waiting = [step for task, step in tasks.items() if not task.done()]
    assert not waiting, f"still waiting after {limit_s} s: {waiting}"
    for task, step in tasks.items():
        if not task.cancelled():
            assert task.result() <= LIMITS_S.get(step.call, limit_s) + 0.1, step
    tasks.clear()


async def play(peer: Peer, session: rtnb.Session, steps: list[Step]) -> None:
    """Make the calls, each with its fault."""
    tasks: dict[asyncio.Task[float], Step] = {}
    for step in steps:
        peer.script = misbehave(peer, step.fault, step.seed)
        task = asyncio.create_task(_called(CALLS[step.call], session))
        tasks[task] = step
        for _ in range(step.turns or 0):
            await asyncio.sleep(0)
        await asyncio.sleep(step.after_s)
        if step.turns is not None:
            task.cancel()
        if step.alone:
            await ended(tasks)
    await ended(tasks)


async def _called(call: Callable[[rtnb.Session], Awaitable[Any]], session: rtnb.Session) -> float:
    """Make a call and return how many seconds it took; only errors of rtnb (and the limit of `_next`) are expected."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    with contextlib.suppress(RtnbError, TimeoutError):
        await call(session)
    return loop.time() - start_s


async def recover(peer: Peer, session: rtnb.Session) -> None:
    """Check that a healthy service is understood again, on the same session."""
    peer.script = misbehave(peer, "none", 0)
    await asyncio.sleep(LATE_S + 1)  # what was late arrives
    peer.delay_s.clear()
    peer.finish()
    response = await asyncio.wait_for(session.ask("Hello?"), 2 * SILENT_S)
    assert (response.status, response.transcript) == ("completed", "Hello there.")
    config = await asyncio.wait_for(session.update(instructions="Be kind."), ACKNOWLEDGED_S + 1)
    assert config.instructions == "Be kind."


def pending_futures() -> list[asyncio.Future[Any]]:
    """Return the futures that still wait on a virtual loop."""
    gc.collect()
    found = [one for one in gc.get_objects() if isinstance(one, asyncio.Future) and not one.done()]
    return [one for one in found if isinstance(one.get_loop(), VirtualLoop) and one is not asyncio.current_task()]


async def one_session(steps: list[Step], pace_s: float) -> None:
    """Play the steps, recover, close, and check that nothing is left."""
    async with Peer(pace_s=pace_s) as peer:
        session = await rtnb.connect(peer.url, clock=now)
        try:
            await play(peer, session, steps)
            await recover(peer, session)
        finally:
            await session.close()
    log, closed = session.log, weakref.ref(session)
    del session
    assert pending_futures() == []
    assert closed() is None, "the session is still referred to, by a task or as a subscriber of its log"
    assert len(log) > 2


@settings(max_examples=200, derandomize=True, deadline=None)
@given(steps=STEPS, pace_s=st.sampled_from([0.0, 0.1]))
def test_every_call_ends_and_the_session_stays_usable(steps: list[Step], pace_s: float) -> None:
    gc.freeze()  # what was there before cannot have been left by this session
    try:
        run_virtual(one_session(steps, pace_s))
    finally:
        gc.unfreeze()


@settings(max_examples=60, derandomize=True, deadline=None)
@given(steps=STEPS)
def test_every_call_ends_when_the_connection_is_lost(steps: list[Step]) -> None:
    async def run() -> None:
        async with Peer(pace_s=0.1) as peer:
            session = await rtnb.connect(peer.url, clock=now)
            playing = asyncio.ensure_future(play(peer, session, steps))
            await asyncio.sleep(0.2)
            await peer.close(1011)
            await playing
            await session.close()

    run_virtual(run())
