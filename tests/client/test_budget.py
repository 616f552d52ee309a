"""A budget warns, then refuses new responses and cancels the running one."""

import asyncio
import logging

import pytest

import rtnb
from rtnb.analysis.cost import PRICES
from rtnb.errors import BudgetExceeded, RtnbError
from rtnb.simulator import Simulator
from tests.client.peer import Message, Peer
from tests.client.virtual import outcome, talking

LIMIT_USD = 4.9 * (7 * 4.00 + 5 * 16.00) / 1_000_000
"""Price of 4.9 responses of 7 input and 5 output tokens, as text at the prices of gpt-realtime."""

DETAILS = {"input_token_details": {"text_tokens": 7}, "output_token_details": {"text_tokens": 5}}


def as_text(messages: list[Message]) -> list[Message]:
    """Report the tokens of each response as tokens of text."""
    for message in messages:
        if message["type"] == "response.done":
            message["response"]["usage"] = {**message["response"]["usage"], **DETAILS}
    return messages


@talking(model="m", script=as_text, budget=rtnb.Budget(usd=LIMIT_USD, prices={"m": PRICES["gpt-realtime"]}))
async def test_dollars_are_counted_from_usage_and_refuse_the_next_response(
    peer: Peer, session: rtnb.Session, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="rtnb"):
        for _ in range(4):
            await session.ask("Hello?")
        assert "82 % of the budget: usd" in caplog.text
        await session.ask("Hello?")
    sent = len(session.log.filter("conversation.item.create"))
    for call in (session.ask("More?"), session.response.create()):
        error = await outcome(call)
        assert isinstance(error, BudgetExceeded)
        assert (error.limit, error.allowed) == ("usd", LIMIT_USD)
    assert len(session.log.filter("conversation.item.create")) == sent  # nothing was sent
    await session.update(instructions="All else works.")


@pytest.mark.parametrize(
    "limit, options",
    [
        ("output_audio_s", {"budget": rtnb.Budget(output_audio_s=0.3), "pace_s": 0.1}),
        ("minutes", {"budget": rtnb.Budget(minutes=0.05), "pace_s": 0.5}),
    ],
    ids=["speech", "minutes"],
)
@talking(model="m", outputs=[("a ",) * 200])
async def test_a_limit_cancels_the_running_response(
    peer: Peer, session: rtnb.Session, limit: str, options: object
) -> None:
    response = await session.ask("Talk for long.")
    assert response.status == "cancelled"
    assert 300 <= response.audio_ms <= 700
    error = await outcome(session.ask("More?"))
    assert isinstance(error, BudgetExceeded)
    assert error.limit == limit


@talking(model="m", budget=rtnb.Budget(output_audio_s=0.1))
async def test_a_used_up_budget_cancels_a_response_of_turn_detection(peer: Peer, session: rtnb.Session) -> None:
    await session.ask("Hello?")
    await peer.send(*peer.turn())
    response = await session.next_response()
    await asyncio.sleep(1)
    assert response.status in ("cancelled", "completed")
    assert peer.asked("response.cancel")


async def test_an_unknown_model_needs_prices_before_anything_is_opened() -> None:
    with pytest.raises(RtnbError, match="no price is known for 'my-deployment'") as caught:
        await rtnb.connect("ws://127.0.0.1:9/?model=my-deployment", budget=rtnb.Budget(usd=1))
    assert "prices=" in caught.value.__notes__[0]


async def test_a_simulator_can_be_priced_like_a_model() -> None:
    with Simulator(latency="fast", voice="babble") as simulator:
        budget = rtnb.Budget(usd=1, minutes=1, output_audio_s=60, prices={simulator.model: PRICES["gpt-realtime"]})
        async with rtnb.connect(simulator, budget=budget) as session:
            assert (await session.ask("Hello?")).status == "completed"
