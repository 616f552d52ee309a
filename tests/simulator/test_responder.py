"""Rules, their instruction effects, scenarios and chat messages: `rtnb.simulator.responder`."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from rtnb.protocol import Item
from rtnb.protocol.values import ContentPart
from rtnb.simulator.responder import (
    Call,
    RulesResponder,
    Say,
    ScenarioResponder,
    Turn,
    chat_messages,
    choose_tool,
    fill_arguments,
)
from rtnb.simulator.scenario import Scenario


def said(text: str, item_id: str = "i") -> Item:
    return Item(type="message", role="user", id=item_id, content=(ContentPart(type="input_text", text=text),))


def turn(*items: Item, **more: Any) -> Turn:
    given = {"instructions": "", "tools": (), "tool_choice": "auto", "heard_ms": 0.0, **more}
    return Turn(items=lambda: iter(items), last=items[-1] if items else None, **given)


SILENT = Item(type="message", role="user", id="1", content=(ContentPart(type="input_audio", transcript=None),))
WHAT = "What else would you like to know[?]"
HERRING, FIRST = "The herring is fresh", "What did I say first?"


def tool(name: str, description: str = "", **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "name": name, "description": description, "parameters": schema}


async def reply(responder: Any, asked: Turn) -> list[Say | Call]:
    return [piece async for piece in responder.respond(asked)]


async def words(responder: Any, asked: Turn) -> str:
    return "".join(piece.text for piece in await reply(responder, asked) if isinstance(piece, Say))


@pytest.mark.parametrize(
    "asked, answer",
    [
        (
            turn(said(HERRING)),
            "^You said: The herring is fresh I am the rtnb simulator: .*, no language model.$",
        ),
        (turn(said(HERRING), instructions="Only whales."), "^You said: .* My instructions are: Only whales.$"),
        (turn(SILENT, heard_ms=2345.0), "^I heard you speak for 2.3 seconds. I cannot tell the words"),
        (turn(), "no language model"),
        (turn(said("Who are you?"), instructions="Your name is Ada."), "My name is Ada."),
        (turn(said("the sea"), instructions="Answer in German."), "^Du hast gesagt: the sea Ich bin der Simulator"),
        (turn(said("the sea"), instructions="Answer in at most 4 words."), "^You said: the sea$"),
        (turn(said("the sea"), instructions="Never say simulator. Be brief."), "^(?!.*simulator)"),
        (turn(said("the sea"), instructions="Always ask a question."), f"{WHAT}$"),
        *(
            (
                turn(said("the sea"), instructions=f"Answer in {one}. Always ask a question."),
                f"^You said: the sea {WHAT}$",
            )
            for one in ("one sentence", "one short sentence", "a single sentence")
        ),
        (turn(SILENT, said(FIRST, "2")), "^Your first message was: speech that I cannot put into text.$"),
        (turn(said("a", "1"), said("My first question is about whales", "2")), "^You said: My first question"),
    ],
    ids=[
        "repeats and says what it is",
        "shows its instructions",
        "measures unknown speech",
        "speaks first",
        "has the name of its persona",
        "answers in a language",
        "keeps to a number of words",
        "avoids a word",
        "asks a question",
        "one sentence and a question",
        "one short sentence and a question",
        "a single sentence and a question",
        "a first message without words is not invented",
        "a sentence about something first is no question for it",
    ],
)
async def test_the_words_of_an_answer(asked: Turn, answer: str) -> None:
    assert re.search(answer, await words(RulesResponder(), asked))


async def test_the_same_seed_chooses_the_same_words() -> None:
    first, second = RulesResponder(seed=1), RulesResponder(seed=1)
    asked = [turn(said("hello"))] * 10
    assert [await words(first, t) for t in asked] == [await words(second, t) for t in asked]


@pytest.mark.parametrize(
    "text, name",
    [("What is the weather in Lund?", "get_weather"), ("Please play some music", "play"), ("Good morning", None)],
)
def test_the_tool_that_fits_is_called(text: str, name: str | None) -> None:
    tools = (tool("get_weather", "The weather in a city"), tool("play", "Start the music"))
    call = choose_tool(text, turn(tools=tools))
    assert (call.name if call else None) == name


@pytest.mark.parametrize(
    "choice, name",
    [
        ("none", None),
        ("required", "first"),
        ({"type": "function", "name": "second"}, "second"),
        ({"type": "function", "function": {"name": "second"}}, "second"),
        ({"type": "function", "name": "third"}, None),
    ],
)
def test_tool_choice_is_obeyed(choice: Any, name: str | None) -> None:
    tools = (tool("first", "herring"), tool("second"))
    call = choose_tool("cod", turn(tools=tools, tool_choice=choice))
    assert (call.name if call else None) == name


async def test_no_tool_is_called_twice_for_its_own_answer() -> None:
    output = Item(type="function_call_output", call_id="c", output="42")
    asked = turn(output, tools=(tool("first"),), tool_choice="required")
    assert await reply(RulesResponder(), asked) == [Say("The tool answered: 42")]


@pytest.mark.parametrize(
    "schema, found",
    [
        ({"city": {"type": "string"}}, {"city": "Lund"}),
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
def test_arguments_are_found_in_the_words(schema: dict[str, Any], found: dict[str, Any]) -> None:
    sentence = "Give 3 values of kelvin, please: in Lund?" if "n" in schema else "kelvin in Lund?"
    assert fill_arguments(sentence, {"properties": schema, "required": list(schema)}) == found


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
def test_strange_schemas_get_no_arguments(schema: dict[str, Any]) -> None:
    assert fill_arguments("anything", schema) == {}


async def test_a_scenario_plays_its_steps_and_leaves_the_rest_to_the_rules() -> None:
    steps = Scenario.from_dict({"steps": [{"say": "One."}, {"call": {"name": "f", "arguments": {"a": 1}}}]})
    play = ScenarioResponder(steps, RulesResponder())
    out = []
    for text in ("a", "b", "c"):
        step = play.next_step(text, speech=False)
        out.append([piece async for piece in play.play(step, turn(said(text)))])
    assert out[:2] == [[Say("One.")], [Call("f", json.dumps({"a": 1}))]]
    assert out[2][0] == Say("You said: c")


def test_items_become_chat_messages() -> None:
    calls = [Item(type="function_call", name=name, call_id=name, arguments="{}") for name in ("f", "g")]
    outputs = [Item(type="function_call_output", call_id=name, output="1") for name in ("f", "g")]
    picture = ContentPart(type="input_image", image_url="data:image/png;base64,AA==")
    shown = Item(type="message", role="user", content=(ContentPart(type="input_text", text="Look"), picture))
    system, user, called, first, second, heard, seen = chat_messages(
        turn(said("hi"), *calls, *outputs, SILENT, shown, instructions="Be kind.")
    )
    assert system == {"role": "system", "content": "Be kind."}
    assert user == {"role": "user", "content": "hi"}
    assert [call["function"]["name"] for call in called["tool_calls"]] == ["f", "g"]  # parallel calls: one message
    assert (first["tool_call_id"], second["tool_call_id"]) == ("f", "g")
    assert "not transcribed" in heard["content"]
    assert [part["type"] for part in seen["content"]] == ["text", "image_url"]


async def test_an_instructed_tool_is_called() -> None:
    tools = (tool("get_weather", city={"type": "string"}), tool("look_up"))
    asked = turn(said("xyzzy"), instructions="Always call look_up first.", tools=tools)
    assert await reply(RulesResponder(), asked) == [Call("look_up", "{}")]


@pytest.mark.parametrize("question", [FIRST, "Repeat my first message.", "Do you remember what I asked first?"])
async def test_it_knows_the_first_message(question: str) -> None:
    greeting = Item(type="message", role="assistant", id="0", content=(ContentPart(type="output_text", text="Hi."),))
    herring, last = said(HERRING, "1"), said(question, "9")
    answer = await words(RulesResponder(), turn(greeting, herring, last))
    assert answer == "Your first message was: The herring is fresh"
    assert await words(RulesResponder(), turn(greeting, last)) == "This is your first message."


def test_a_giant_text_and_many_tools_cost_no_more_than_long_ones() -> None:
    def cost_s(n_words: int) -> float:
        tools = tuple(
            {"type": "function", "name": f"tool_{number}", "description": "what " * n_words} for number in range(20)
        )
        began_s = time.process_time()
        choose_tool("say " * n_words, turn(tools=tools))
        return time.process_time() - began_s

    assert cost_s(400_000) < 20 * cost_s(2_000)  # before the bound it was 200 times as much and more
