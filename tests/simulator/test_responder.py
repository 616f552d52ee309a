"""The rules of the offline responder and their instruction effects, as a session answers with them."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from rtnb.protocol.values import ContentPart
from rtnb.simulator.responder import Turn, choose_tool
from tests.simulator.rig import WRITTEN, Rig, encoded, spoken, world

WHAT = "What else would you like to know[?]"
HERRING, FIRST = "The herring is fresh", "What did I say first?"
SEA = "^You said: the sea"


def tool(name: str, description: str = "", **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "name": name, "description": description, "parameters": schema}


@pytest.mark.parametrize(
    "text, instructions, answer",
    [
        (HERRING, "", "^You said: The herring is fresh I am the rtnb simulator: .*, no language model.$"),
        (HERRING, "Only whales.", "^You said: .* My instructions are: Only whales.$"),
        (None, "", "no language model"),
        ("Who are you?", "Your name is Ada.", "My name is Ada."),
        ("the sea", "Answer in German.", "^Du hast gesagt: the sea Ich bin der Simulator"),
        ("the sea", "Answer in at most 4 words.", f"{SEA}$"),
        ("the sea", "Never say simulator. Be brief.", "^(?!.*simulator)"),
        ("the sea", "Always ask a question.", f"{WHAT}$"),
        ("the sea", "Answer in one sentence. Always ask a question.", f"{SEA} {WHAT}$"),
        ("the sea", "Answer in one short sentence. Always ask a question.", f"{SEA} {WHAT}$"),
        ("the sea", "Answer in a single sentence. Always ask a question.", f"{SEA} {WHAT}$"),
        (FIRST, "", "^This is your first message.$"),
    ],
)
async def test_the_words_of_an_answer(rig: Rig, text: str | None, instructions: str, answer: str) -> None:
    await rig.set(instructions=instructions)
    if text is None:  # it speaks first
        rig.respond(**WRITTEN)
        await rig.until("response.done")
    else:
        await rig.ask(text, **WRITTEN)
    assert re.search(answer, rig.said())


@pytest.mark.parametrize(
    "question, answer",
    [
        (FIRST, f"^Your first message was: {HERRING}$"),
        ("Repeat my first message.", f"^Your first message was: {HERRING}$"),
        ("Do you remember what I asked first?", f"^Your first message was: {HERRING}$"),
        ("My first question is about whales", "^You said: My first question"),
    ],
)
async def test_it_knows_the_first_message(rig: Rig, question: str, answer: str) -> None:
    rig.add(type="message", role="assistant", content=(ContentPart(type="output_text", text="Hi."),))
    rig.write(HERRING)
    assert re.search(answer, await rig.answer(question, **WRITTEN))


async def test_a_first_message_without_words_is_not_invented(rig: Rig) -> None:
    rig.add(type="message", role="user", content=(ContentPart(type="input_audio", audio=encoded(spoken())),))
    assert await rig.answer(FIRST, **WRITTEN) == "Your first message was: speech that I cannot put into text."


async def test_the_same_seed_chooses_the_same_words() -> None:
    async def talk() -> list[str]:
        async with Rig(world()) as rig:
            return [await rig.answer("hello", **WRITTEN) for _ in range(10)]

    assert await talk() == await talk()


CITY, LOOK_UP = {"city": {"type": "string"}}, tool("look_up")


@pytest.mark.parametrize(
    "text, tools, config, name",
    [
        ("Please play some music", (tool("get_weather", "The weather"), tool("play", "Start the music")), {}, "play"),
        (
            "What is the weather in Lund?",
            (tool("get_weather", "The weather in a city"), tool("play")),
            {},
            "get_weather",
        ),
        ("Good morning", (tool("get_weather", "The weather in a city"), tool("play", "Start the music")), {}, None),
        ("cod", (tool("first", "herring"), LOOK_UP), {"tool_choice": "none"}, None),
        ("cod", (tool("first", "herring"), LOOK_UP), {"tool_choice": "required"}, "first"),
        ("cod", (tool("first"), LOOK_UP), {"tool_choice": {"type": "function", "name": "look_up"}}, "look_up"),
        ("xyzzy", (tool("get_weather", **CITY), LOOK_UP), {"instructions": "Always call look_up first."}, "look_up"),
    ],
)
async def test_the_tool_that_fits_is_called(
    rig: Rig, text: str, tools: tuple[Any, ...], config: dict[str, Any], name: str | None
) -> None:
    (item,) = (await rig.ask(text, tools=tools, **WRITTEN, **config))["output"]
    assert item.get("name") == name


async def test_no_tool_is_called_twice_for_its_own_answer(rig: Rig) -> None:
    (call,) = (await rig.ask("cod", tools=(LOOK_UP,), tool_choice="required"))["output"]
    rig.add(type="function_call_output", call_id=call["call_id"], output="42")
    rig.respond(tools=(LOOK_UP,), tool_choice="required")
    await rig.until("response.done")
    assert rig.said() == "The tool answered: 42"


@pytest.mark.parametrize(
    "schema, found",
    [
        (CITY, {"city": "Lund"}),
        ({"n": {"type": "integer"}}, {"n": 3}),
        ({"n": {"type": "number"}}, {"n": 3.0}),
        ({"unit": {"enum": ["celsius", "kelvin"]}}, {"unit": "kelvin"}),
        ({"unit": {"enum": ["miles"]}}, {"unit": "miles"}),
        (
            {"exact": {"type": "boolean"}, "list": {"type": "array"}, "more": {"type": "object"}},
            {"exact": True, "list": [], "more": {}},
        ),
        ({"any": True}, {"any": "Lund"}),
        ({"x": {"type": ["string", "null"]}, "y": {"enum": []}}, {"x": "Lund", "y": "Lund"}),
    ],
)
async def test_arguments_are_found_in_the_words(rig: Rig, schema: dict[str, Any], found: dict[str, Any]) -> None:
    sentence = "Give 3 values of kelvin, please: in Lund?" if "n" in schema else "kelvin in Lund?"
    (call,) = (await rig.ask(sentence, tools=(tool("f", **schema),), tool_choice="required"))["output"]
    assert json.loads(call["arguments"]) == found


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": None},
        {"properties": []},
        {"required": None},
        {"type": "object"},
        {"properties": {"a": {"type": "string"}, "b": {"type": "number"}}},  # neither required nor said
    ],
)
async def test_strange_schemas_get_no_arguments(rig: Rig, schema: dict[str, Any]) -> None:
    strange = {"type": "function", "name": "f", "parameters": {"type": "object", **schema}}
    (call,) = (await rig.ask("anything", tools=(strange,), tool_choice="required"))["output"]
    assert json.loads(call["arguments"]) == {}


def test_a_giant_text_and_many_tools_cost_no_more_than_long_ones() -> None:
    def cost_s(n_words: int) -> float:
        tools = tuple(tool(f"tool_{number}", "what " * n_words) for number in range(20))
        nothing = Turn(
            items=lambda: iter(()), last=None, instructions="", tools=tools, tool_choice="auto", heard_ms=0.0
        )
        began_s = time.process_time()
        choose_tool("say " * n_words, nothing)
        return time.process_time() - began_s

    assert cost_s(400_000) < 20 * cost_s(2_000)  # before the bound it was 200 times as much and more
