"""Python functions as tools: their description, and the order in which calls are answered."""

import asyncio
import enum
import sys
from typing import Any, Literal

import pytest

import rtnb
from rtnb.client import ToolBox, open_session, tool_schema
from rtnb.errors import ConnectionClosed, RtnbError, ServiceError
from rtnb.protocol import events
from tests.client.conftest import Joined
from tests.client.peer import Peer
from tests.client.service import ScriptedTarget
from tests.client.virtual import hold, outcome, said, talking


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
    assert (await box.run("nope", "{}")) == "error: there is no tool 'nope'; the tools are: broken, leave, stop"


# --- in a session -----------------------------------------------------------------------------------------------------


def script(joined: Joined, *steps: tuple[tuple[str, str], ...] | str) -> None:
    """Answer each `response.create` with the next step: calls, or words."""
    rest = iter(steps)

    async def answer(config: Any) -> None:
        step = next(rest)
        if isinstance(step, str):
            await joined.service.answer(config, text=step)
        else:
            await joined.service.call(config, *step)

    joined.service.on_create = answer


async def test_two_calls_are_answered_in_order_then_one_create(joined: Joined) -> None:
    await joined.session.tools.register(weather, slow_sum)
    calls = (("weather", '{"city":"Oslo"}'), ("slow_sum", '{"numbers":[1,2.5],"names":{}}'))
    script(joined, calls, "It is dry.")
    joined.service.heard.clear()
    response = await joined.session.ask("What is the weather?")
    assert response.transcript == "It is dry."
    assert response.tool_round == 1
    sent = [event for event in joined.service.heard if not isinstance(event, events.SessionUpdate)]
    item, create = events.ConversationItemCreate, events.ResponseCreate
    assert [type(event) for event in sent] == [item, create, item, item, create]
    outputs = [sent[2].item, sent[3].item]  # type: ignore[attr-defined]
    assert [item.output for item in outputs] == ["Oslo 1 CELSIUS None", "3.5"]
    called = [item.call_id for item in joined.session.conversation.items if item.type == "function_call"]
    assert [item.call_id for item in outputs] == called
    done = next(row.number for row in joined.session.log.filter("response.done"))
    first_output = joined.session.log.filter("conversation.item.create")[1].number
    assert first_output > done  # never before the response that called was done


@pytest.mark.parametrize("item_status", ["incomplete", "completed"])
async def test_calls_of_a_response_that_did_not_complete_are_not_run(joined: Joined, item_status: str) -> None:
    ran: list[str] = []

    def note(text: str) -> str:
        """Note."""
        ran.append(text)
        return "ok"

    await joined.session.tools.register(note)
    joined.service.on_create = lambda config: joined.service.call(
        config, ("note", '{"text":"half"}'), status="incomplete", item_status=item_status
    )
    response = await joined.session.ask("go")
    assert response.status == "incomplete"
    await joined.settle()
    assert ran == []
    assert len(response.function_calls) == (item_status == "completed")


async def test_a_failing_tool_is_told_to_the_model(joined: Joined) -> None:
    await joined.session.tools.register(broken)
    script(joined, (("broken", ""),), "Sorry.")
    assert (await joined.session.ask("go")).transcript == "Sorry."
    output = joined.service.said(events.ConversationItemCreate)[-1].item.output
    assert output.startswith("error: RuntimeError")


async def test_tools_without_a_function_are_left_to_their_owner(joined: Joined) -> None:
    definition = {"type": "function", "name": "mine", "description": "", "parameters": {"type": "object"}}
    await joined.session.tools.register(weather, definition)
    script(joined, (("mine", "{}"), ("weather", '{"city":"Oslo"}')))
    response = await joined.session.ask("go")
    assert [call.name for call in response.function_calls] == ["mine", "weather"]
    outputs = [e.item.call_id for e in joined.service.said(events.ConversationItemCreate) if e.item.output]
    assert outputs == [response.function_calls[1].call_id]
    assert len(joined.service.said(events.ResponseCreate)) == 1


async def test_follow_tools_false_returns_the_response_that_calls(joined: Joined) -> None:
    await joined.session.tools.register(weather)
    script(joined, (("weather", '{"city":"Oslo"}'),), "Dry.")
    response = await joined.session.ask("go", follow_tools=False)
    assert [call.name for call in response.function_calls] == ["weather"]
    assert (await joined.session.follow(response)).transcript == "Dry."


async def test_a_loop_of_tools_ends(joined: Joined) -> None:
    await joined.session.tools.register(weather)
    joined.session.tools.max_rounds = 2
    script(joined, *[(("weather", '{"city":"Oslo"}'),)] * 3)
    with pytest.raises(RtnbError, match="2 responses in a row"):
        await joined.session.ask("go")
    assert len(joined.session.errors) == 1


@pytest.mark.parametrize("by_session", [False, True], ids=["by the response", "by the session"])
async def test_a_forced_tool_is_forced_once_per_question(joined: Joined, by_session: bool) -> None:
    await joined.session.tools.register(weather)
    script(joined, (("weather", '{"city":"Oslo"}'),), "Dry.")
    if by_session:
        await joined.session.update(tool_choice="required")
        await joined.session.ask("go", instructions="Short.")
    else:
        await joined.session.ask("go", tool_choice="required", instructions="Short.")
    followed = joined.service.said(events.ResponseCreate)[1].response
    assert (followed.tool_choice, followed.instructions) == ("auto", "Short.")


async def test_register_and_unregister_update_the_session(joined: Joined) -> None:
    session = joined.session
    await session.tools.register(weather)
    await session.tools.register(slow_sum)
    assert [tool["name"] for tool in session.config.tools or ()] == ["weather", "slow_sum"]
    await session.tools.unregister("weather")
    assert [tool["name"] for tool in session.config.tools or ()] == ["slow_sum"]
    assert list(session.tools) == ["slow_sum"]
    with pytest.raises(KeyError, match="weather"):
        await session.tools.unregister("weather")


async def test_closing_while_a_tool_runs(joined: Joined) -> None:
    started = asyncio.Event()

    async def endless() -> str:
        """Never end."""
        started.set()
        await asyncio.Event().wait()
        return ""

    await joined.session.tools.register(endless)
    script(joined, (("endless", "{}"),))
    asking = asyncio.create_task(joined.session.ask("go"))
    await started.wait()
    await joined.session.close()
    with pytest.raises(ConnectionClosed):
        await asking


async def test_tools_at_connect() -> None:
    target = ScriptedTarget()
    running = asyncio.create_task(target.service.run())
    await target.service.open()
    async with await open_session(target, tools=[weather]) as session:
        assert "weather" in session.tools
    await running


async def test_refused_tools_are_not_registered(joined: Joined) -> None:
    with pytest.raises(ServiceError):
        await joined.session.tools.register(weather, {"type": "nonsense"})
    assert list(joined.session.tools) == []


def test_a_second_response_done_runs_no_tool_again() -> None:
    runs = []

    def note(word: str) -> str:
        """Note a word."""
        runs.append(word)
        return "noted"

    async def test(peer: Peer, session: rtnb.Session) -> None:
        assert await said(session.ask("Note it.")) == "Hello there."
        await asyncio.sleep(5)
        assert runs == ["hello"]
        assert len(peer.asked("response.create")) == 2

    hold(test, Peer(outputs=[[("note", '{"word": "hello"}')]], duplicate={"response.done": 1}), tools=[note])


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
    closing.cancel()
    await asyncio.sleep(1)
    assert session.closed
    assert isinstance(await asking, ConnectionClosed)
