"""Scenario files: `rtnb.simulator.scenario`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from rtnb.errors import ScenarioError
from rtnb.simulator.faults import Fault, LatencyProfile
from rtnb.simulator.scenario import Call, Scenario, Step, When

WEATHER: dict[str, Any] = {
    "name": "weather",
    "seed": 7,
    "latency": "fast",
    "faults": ["jitter=40", {"kind": "http", "value": 429, "times": 1}],
    "steps": [
        {"say": "Hello! Ask me about the weather."},
        {
            "when": {"text": "Weather"},
            "hear": "What is the weather in Lund?",
            "call": {"name": "get_weather", "arguments": {"city": "Lund"}},
        },
        {
            "when": {"regex": "bye$", "turn": 3, "speech": False},
            "say": "Goodbye!",
            "timing": {"first_delta_ms": 900},
            "faults": ["close@response.output_audio.delta:3"],
        },
        {"call": [{"name": "a"}, {"name": "b", "arguments": "{not json"}]},
    ],
}


def test_everything_is_read() -> None:
    scenario = Scenario.from_dict(WEATHER)
    assert (scenario.name, scenario.seed, scenario.latency) == ("weather", 7, LatencyProfile.parse("fast"))
    assert scenario.faults == (Fault("jitter", value=40), Fault("http", value=429, times=1))
    assert scenario.steps == (
        Step(say="Hello! Ask me about the weather."),
        Step(When(text="Weather"), "What is the weather in Lund?", calls=(Call("get_weather", '{"city": "Lund"}'),)),
        Step(
            When(regex="bye$", turn=3, speech=False),
            say="Goodbye!",
            timing=LatencyProfile(first_delta_ms=900),
            faults=(Fault("close", at="response.output_audio.delta", after=3),),
        ),
        Step(calls=(Call("a", "{}"), Call("b", "{not json"))),
    )


def test_it_survives_json_and_stays_as_it_is() -> None:
    before = copy.deepcopy(WEATHER)
    scenario = Scenario.from_dict(WEATHER)
    assert before == WEATHER
    assert Scenario.from_dict(json.loads(json.dumps(WEATHER))) == scenario
    assert Scenario.from_dict({"steps": []}) == Scenario(steps=())


def test_a_file_names_its_scenario(tmp_path: Path) -> None:
    file = tmp_path / "greeting.json"
    file.write_text('{"steps": [{"say": "Olá!"}]}', encoding="utf-8")
    assert Scenario.load(file) == Scenario(steps=(Step(say="Olá!"),), name="greeting")


def test_a_broken_file_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text('{"steps": [\n{"say": "x",}]}')
    with pytest.raises(ScenarioError, match=r"broken\.json is not JSON: .* line 2, column"):
        Scenario.load(file)
    file.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(ScenarioError, match="not UTF-8"):
        Scenario.load(file)
    file.write_text("[]")
    with pytest.raises(ScenarioError, match=r"scenario is \[\] \(list\); allowed: an object"):
        Scenario.load(file)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stps": []}, "scenario: field 'stps' is not known, did you mean 'steps'"),
        ({"steps": {}}, "scenario, field 'steps' is {} .dict.; allowed: a list"),
        ({"name": 3}, "scenario, field 'name' is 3 .int.; allowed: a text"),
        ({"seed": True}, "field 'seed' is True .bool."),
        ({"latency": "quick"}, "field 'latency': latency 'quick'"),
        ({"latency": 3}, "field 'latency' is 3"),
        ({"faults": ["dorp@*"]}, "scenario, field 'faults', fault 1: .*did you mean 'drop'"),
        ({"steps": [{"say": "x"}, {"sya": "x"}]}, "step 2: field 'sya' is not known, did you mean 'say'"),
        ({"steps": ["x"]}, "step 1 is 'x' .str.; allowed: an object with when, hear"),
        ({"steps": [{"when": {"turn": 1}}]}, "step 1 does nothing"),
        ({"steps": [{"say": 3}]}, "step 1, field 'say' is 3"),
        ({"steps": [{"say": "x", "when": {}}]}, "step 1, field 'when' is {}.*at least one"),
        ({"steps": [{"say": "x", "when": {"contains": "y"}}]}, "step 1, field 'when': field 'contains'"),
        ({"steps": [{"say": "x", "when": {"regex": "("}}]}, "field 'when', field 'regex' is .* a regular expression"),
        ({"steps": [{"say": "x", "when": {"turn": 0}}]}, "'turn' is 0 .int.; allowed: a whole number from 1"),
        ({"steps": [{"say": "x", "when": {"speech": "yes"}}]}, "'speech' is 'yes'"),
        ({"steps": [{"call": {"arguments": {}}}]}, "step 1, field 'call', call 1, field 'name' is None"),
        ({"steps": [{"call": {"name": "a", "arguments": 3}}]}, "call 1, field 'arguments' is 3"),
        ({"steps": [{"say": "x", "timing": {"first_delta": 3}}]}, "step 1, field 'timing': .*'first_delta_ms'"),
        ({"steps": [{"say": "x", "faults": ["latency"]}]}, "step 1, field 'faults', fault 1: .*value is None"),
    ],
)
def test_what_is_wrong_is_named_with_step_and_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        Scenario.from_dict({"steps": [], **change})


def test_steps_is_required() -> None:
    with pytest.raises(ScenarioError, match="field 'steps' is None"):
        Scenario.from_dict({"name": "nothing"})


@pytest.mark.parametrize(
    "when, text, turn, speech, fits",
    [
        (When(text="weather"), "The WEATHER?", 1, False, True),
        (When(text="weather"), None, 1, True, False),
        (When(regex=r"^\d+$"), "42", 1, False, True),
        (When(regex=r"^\d+$"), "x42", 1, False, False),
        (When(turn=2), "x", 2, False, True),
        (When(turn=2), "x", 3, False, False),
        (When(speech=True), None, 1, True, True),
        (When(speech=False), None, 1, True, False),
        (When(text="a", turn=2), "a", 1, False, False),
    ],
)
def test_when(when: When, text: str | None, turn: int, speech: bool, fits: bool) -> None:
    assert when.matches(text=text, turn=turn, speech=speech) is fits


def test_rules_answer_every_time_and_the_others_once_in_their_order() -> None:
    steps = [{"say": "one"}, {"say": "sunny", "when": {"text": "weather"}}, {"say": "two"}]
    scenario, played = Scenario.from_dict({"steps": steps}), []
    for turn, text in enumerate(("hi", "the weather", "hm", "weather", "more"), start=1):
        chosen = scenario.choose(text=text, turn=turn, speech=False, played=[one for one in played if one is not None])
        played.append(chosen)
    assert played == [0, 1, 2, 1, None]
