"""A budget warns, then refuses new responses and cancels the running one."""

import asyncio
import logging
from typing import Any

import pytest

import rtnb
from rtnb.analysis.cost import PRICES
from rtnb.errors import BudgetExceeded, RtnbError
from rtnb.simulator import Simulator
from tests.client.peer import Peer
from tests.client.virtual import outcome, run_virtual


def spending(test: Any, budget: rtnb.Budget, **peer_options: Any) -> None:
    """Run a test with a session that has a budget, against a peer whose model is priced."""

    async def run() -> None:
        async with Peer(**peer_options) as peer:
            clock = asyncio.get_running_loop().time
            async with rtnb.connect(rtnb.Custom(peer.url, model="m"), budget=budget, clock=clock) as session:
                await test(peer, session)

    run_virtual(run())


MANY = 1_000_000
USD_PER_ASK = (7 * 4.00 + 5 * 16.00) / MANY
"""The peer reports 7 input and 5 output tokens per response, as text at the prices of gpt-realtime."""


def test_dollars_are_counted_from_usage_and_refuse_the_next_response(caplog: pytest.LogCaptureFixture) -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
        for _ in range(4):
            await session.ask("Hello?")
        assert "82 % of the budget: usd" in caplog.text
        await session.ask("Hello?")
        sent = len(session.log.filter("conversation.item.create"))
        for call in (session.ask("More?"), session.response.create()):
            error = await outcome(call)
            assert isinstance(error, BudgetExceeded)
            assert (error.limit, error.allowed) == ("usd", 4.9 * USD_PER_ASK)
        assert len(session.log.filter("conversation.item.create")) == sent  # nothing was sent
        await session.update(instructions="All else works.")

    usage = {
        "total_tokens": 12,
        "input_tokens": 7,
        "output_tokens": 5,
        "input_token_details": {"text_tokens": 7},
        "output_token_details": {"text_tokens": 5},
    }

    def priced(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for message in messages:
            if message["type"] == "response.done":
                message["response"]["usage"] = usage
        return messages

    budget = rtnb.Budget(usd=4.9 * USD_PER_ASK, prices={"m": PRICES["gpt-realtime"]})
    with caplog.at_level(logging.WARNING, logger="rtnb"):
        spending(test, budget, script=priced)


def test_speech_over_the_limit_cancels_the_running_response() -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
        response = await session.ask("Talk for long.")
        assert response.status == "cancelled"
        assert 300 <= response.audio_ms <= 500
        assert isinstance(await outcome(session.ask("More?")), BudgetExceeded)

    spending(test, rtnb.Budget(output_audio_s=0.3), outputs=[("a ",) * 20], pace_s=0.1)


def test_minutes_over_the_limit_cancel_the_running_response() -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
        response = await session.ask("Talk for long.")
        assert response.status == "cancelled"
        error = await outcome(session.ask("More?"))
        assert isinstance(error, BudgetExceeded)
        assert error.limit == "minutes"

    spending(test, rtnb.Budget(minutes=0.05), outputs=[("a ",) * 200], pace_s=0.5)


def test_a_response_of_turn_detection_is_cancelled_when_the_budget_is_used_up() -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
        await session.ask("Hello?")
        await peer.send(*peer.turn())
        response = await session.next_response()
        await asyncio.sleep(1)
        assert response.status in ("cancelled", "completed")
        assert peer.asked("response.cancel")

    spending(test, rtnb.Budget(output_audio_s=0.1))


async def test_an_unknown_model_needs_prices_before_anything_is_opened() -> None:
    with pytest.raises(RtnbError, match="no price is known for 'my-deployment'") as caught:
        await rtnb.connect("ws://127.0.0.1:9/?model=my-deployment", budget=rtnb.Budget(usd=1))
    assert "prices=" in caught.value.__notes__[0]


async def test_a_simulator_can_be_priced_like_a_model() -> None:
    with Simulator(latency="fast", voice="babble") as simulator:
        budget = rtnb.Budget(usd=1, minutes=1, output_audio_s=60, prices={simulator.model: PRICES["gpt-realtime"]})
        async with rtnb.connect(simulator, budget=budget) as session:
            assert (await session.ask("Hello?")).status == "completed"
