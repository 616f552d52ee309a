"""Python functions as tools: their description, and the order in which calls are answered."""

import asyncio
import enum
import sys
from typing import Any, Literal

import pytest

import rtnb
from rtnb.client import ToolBox, tool_schema
from rtnb.errors import ConnectionClosed, RtnbError, ServiceError
from tests.client.peer import Message, Peer, failure
from tests.client.virtual import outcome, said, settle, talking

CITY = ("weather", '{"city":"Oslo"}')


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


def weather(city: str, days: int = 1, unit: Unit = Unit.CELSIUS, mood: Literal["dry", "wet"] | None = None) -> str:
    """Forecast the weather.

    For the next days.

    Parameters
    ----------
    city : str
        Where, with
        its country.
    days : int
        How many.

    Returns
    -------
    str
    """
    return f"{city} {days} {unit.name} {mood}"


async def slow_sum(numbers: list[float], names: dict[str, int]) -> float:
    """Add numbers.

    Args:
        numbers (list): What to add,
            all of it.
        names: Ignored.
    """
    await asyncio.sleep(0)
    return sum(numbers)


def broken() -> None:
    """Fail."""
    raise RuntimeError("no luck with key sk-canary123456")


def leave() -> None:
    """Leave."""
    sys.exit("bye")


async def stop() -> None:
    """Stop."""
    raise asyncio.CancelledError


def test_schema_from_numpydoc() -> None:
    schema = tool_schema(weather)
    assert schema["name"] == "weather"
    assert schema["description"] == "Forecast the weather. For the next days."
    parameters = schema["parameters"]
    assert parameters["required"] == ["city"]
    assert parameters["properties"] == {
        "city": {"type": "string", "description": "Where, with its country."},
        "days": {"type": "integer", "description": "How many."},
        "unit": {"type": "string", "enum": ["c", "f"]},
        "mood": {"anyOf": [{"type": "string", "enum": ["dry", "wet"]}, {"type": "null"}]},
    }


def test_schema_from_google_style() -> None:
    properties = tool_schema(slow_sum)["parameters"]["properties"]
    assert properties["numbers"] == {
        "type": "array",
        "items": {"type": "number"},
        "description": "What to add, all of it.",
    }
    assert properties["names"]["additionalProperties"] == {"type": "integer"}
    assert properties["names"]["description"] == "Ignored."


def no_annotation(x): ...  # type: ignore[no-untyped-def]
def odd_annotation(x: bytes) -> None: ...
def any_number(*x: int) -> None: ...
def by_place(x: int, /) -> None: ...


@pytest.mark.parametrize(
    "function, words",
    [
        (no_annotation, "no annotation"),
        (odd_annotation, "cannot be described"),
        (any_number, "by name"),
        (by_place, "by name"),
        (lambda: None, "needs a name"),
    ],
)
def test_what_a_model_cannot_call(function: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        tool_schema(function)


@pytest.mark.parametrize(
    "arguments, output",
    [
        ('{"city":"Oslo","unit":"f","mood":"wet"}', "Oslo 1 FAHRENHEIT wet"),
        ('{"city":"Oslo"', "error: the arguments of weather are not JSON"),
        ('["Oslo"]', "error: the arguments of weather must be a JSON object"),
        ("{}", "error: weather() misses the argument 'city'"),
        ('{"city":"Oslo","unit":"k"}', "error: unit is 'k'; allowed are 'c', 'f'"),
        ("[" * 100_000, "error: "),
    ],
    ids=lambda value: value[:40],
)
async def test_arguments_can_be_wrong_in_every_way(arguments: str, output: str) -> None:
    assert (await ToolBox([weather]).run("weather", arguments)).startswith(output)


async def test_errors_become_text_without_keys() -> None:
    box = ToolBox([broken, leave, stop])
    text = await box.run("broken", "")
    assert text.startswith("error: RuntimeError: no luck")
    assert "canary" not in text
    assert await box.run("leave", "") == "error: SystemExit: bye"
    assert (await box.run("stop", "")).startswith("error: CancelledError")
    assert await box.run("nope", "{}") == "error: there is no tool 'nope'; the tools are: broken, leave, stop"


# --- in a session -----------------------------------------------------------------------------------------------------


def tool_outputs(peer: Peer) -> list[Message]:
    """Return the items that answered calls."""
    items = [message["item"] for message in peer.asked("conversation.item.create")]
    return [item for item in items if item["type"] == "function_call_output"]


SUM = ("slow_sum", '{"numbers":[1,2.5],"names":{}}')


@talking(both=True, tools=[weather, slow_sum], outputs=[[CITY, SUM], ["It is dry."]])
async def test_two_calls_are_answered_in_order_then_one_create(peer: Peer, session: rtnb.Session) -> None:
    peer.heard.clear()
    response = await session.ask("What is the weather?")
    assert (response.transcript, response.tool_round) == ("It is dry.", 1)
    item, create = "conversation.item.create", "response.create"
    assert [message["type"] for message in peer.heard] == [item, create, item, item, create]
    assert [output["output"] for output in tool_outputs(peer)] == ["Oslo 1 CELSIUS None", "3.5"]
    called = [item.call_id for item in session.conversation.items if item.type == "function_call"]
    assert [output["call_id"] for output in tool_outputs(peer)] == called
    done = session.log.filter("response.done")[0].number
    assert session.log.filter(item)[1].number > done  # never before the response that called was done


@pytest.mark.parametrize("item_status", ["incomplete", "completed"])
@talking(outputs=[[CITY]])
async def test_calls_of_a_response_that_did_not_complete_are_not_run(
    peer: Peer, session: rtnb.Session, item_status: str
) -> None:
    def incomplete(messages: list[Message]) -> list[Message]:
        for message in messages:
            if message["type"] == "response.output_item.done":
                message["item"]["status"] = item_status
            if message["type"] == "response.done":
                message["response"] |= {"status": "incomplete", "output": []}
        return messages

    await session.tools.register(weather)
    peer.script = incomplete
    response = await session.ask("go")
    await settle()
    assert response.status == "incomplete"
    assert tool_outputs(peer) == []
    assert len(response.function_calls) == (item_status == "completed")


MINE = {"type": "function", "name": "mine", "description": "", "parameters": {"type": "object"}}


@talking(tools=[weather, MINE], outputs=[[("mine", "{}"), CITY]])
async def test_tools_without_a_function_are_left_to_their_owner(peer: Peer, session: rtnb.Session) -> None:
    response = await session.ask("go")
    assert [call.name for call in response.function_calls] == ["mine", "weather"]
    assert [output["call_id"] for output in tool_outputs(peer)] == [response.function_calls[1].call_id]
    assert len(peer.asked("response.create")) == 1


@talking(tools=[weather], outputs=[[CITY], ["Dry."]])
async def test_follow_tools_false_returns_the_response_that_calls(peer: Peer, session: rtnb.Session) -> None:
    response = await session.ask("go", follow_tools=False)
    assert [call.name for call in response.function_calls] == ["weather"]
    assert await said(session.follow(response)) == "Dry."


@talking(tools=[weather], outputs=[[CITY]] * 3)
async def test_a_loop_of_tools_ends(peer: Peer, session: rtnb.Session) -> None:
    session.tools.max_rounds = 2
    with pytest.raises(RtnbError, match="2 responses in a row"):
        await session.ask("go")
    assert len(session.errors) == 1


@pytest.mark.parametrize("by_session", [False, True], ids=["by the response", "by the session"])
@talking(tools=[weather], outputs=[[CITY], ["Dry."]])
async def test_a_forced_tool_is_forced_once_per_question(peer: Peer, session: rtnb.Session, by_session: bool) -> None:
    forced = {"tool_choice": "required"}
    if by_session:
        await session.update(**forced)
    await session.ask("go", instructions="Short.", **({} if by_session else forced))
    followed = peer.asked("response.create")[1]["response"]
    assert (followed["tool_choice"], followed["instructions"]) == ("auto", "Short.")


@talking(tools=[weather])
async def test_register_and_unregister_update_the_session(peer: Peer, session: rtnb.Session) -> None:
    def names() -> list[str]:
        return [tool["name"] for tool in session.config.tools or ()]

    await session.tools.register(slow_sum)
    assert names() == list(session.tools) == ["weather", "slow_sum"]
    await session.tools.unregister("weather")
    assert names() == list(session.tools) == ["slow_sum"]
    with pytest.raises(KeyError, match="weather"):
        await session.tools.unregister("weather")
    peer.refuse = {"session.update": [failure("invalid_value", "No such type.")]}
    with pytest.raises(ServiceError):
        await session.tools.register(weather, {"type": "nonsense"})
    assert list(session.tools) == ["slow_sum"]


@talking(tools=[weather], outputs=[[CITY]])
async def test_a_second_response_done_runs_no_tool_again(peer: Peer, session: rtnb.Session) -> None:
    peer.script = lambda messages: [one for one in messages for _ in range(1 + (one["type"] == "response.done"))]
    assert await said(session.ask("go")) == "Hello there."
    await asyncio.sleep(5)
    assert (len(tool_outputs(peer)), len(peer.asked("response.create"))) == (1, 2)


@talking(outputs=[[("hang_up", "{}")]])
async def test_a_tool_can_close_the_session(peer: Peer, session: rtnb.Session) -> None:
    async def hang_up() -> str:
        """End the call."""
        await session.close()
        return "done"

    await session.tools.register(hang_up)
    assert isinstance(await outcome(session.ask("Bye.")), ConnectionClosed)
    await asyncio.sleep(1)
    assert session.closed


@talking(outputs=[[("linger", "{}")]])
async def test_a_close_that_is_cancelled_goes_on(peer: Peer, session: rtnb.Session) -> None:
    async def linger() -> None:
        """Tidy up for a second."""
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(1)

    await session.tools.register(linger)
    asking = asyncio.ensure_future(outcome(session.ask("Hello?")))
    await asyncio.sleep(0.5)
    closing = asyncio.ensure_future(session.close())
    await asyncio.sleep(0.5)
    closing.cancel()  # while the tool tidies up
    await asyncio.sleep(1)
    assert session.closed
    assert isinstance(await asking, ConnectionClosed)
