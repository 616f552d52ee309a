"""Scenario files: what they play, and what is wrong in them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from rtnb.errors import ScenarioError
from rtnb.simulator import Fault, LatencyProfile, Scenario
from tests.simulator.rig import WRITTEN, Rig, world
from tests.simulator.test_session_timing import TimedRig, run

WEATHER: dict[str, Any] = {
    "name": "weather",
    "seed": 7,
    "latency": "fast",
    "faults": ["jitter=40", {"kind": "http", "value": 429, "times": 1}],
    "steps": [
        {"say": "Hello! Ask me about the weather."},
        {"when": {"text": "Weather"}, "call": {"name": "get_weather", "arguments": {"city": "Lund"}}},
        {"call": [{"name": "a"}, {"name": "b", "arguments": "{not json"}]},
    ],
}
DELTA = "response.output_audio.delta"


async def test_steps_are_played_in_order_and_calls_carry_their_arguments() -> None:
    async with Rig(world(scenario=WEATHER)) as rig:
        assert await rig.answer("hi") == "Hello! Ask me about the weather."
        found = [
            [(item["name"], item["arguments"]) for item in (await rig.ask(text))["output"]]
            for text in ("The WEATHER?", "more")
        ]
        assert found == [[("get_weather", '{"city": "Lund"}')], [("a", "{}"), ("b", "{not json")]]
        assert "You said: that is all" in await rig.answer("that is all")  # the rules have the rest


def test_it_survives_json_and_stays_as_it_is() -> None:
    before = copy.deepcopy(WEATHER)
    scenario = Scenario.from_dict(WEATHER)
    assert before == WEATHER
    assert Scenario.from_dict(json.loads(json.dumps(WEATHER))) == scenario
    assert (scenario.name, scenario.seed, scenario.latency) == ("weather", 7, LatencyProfile.parse("fast"))
    assert scenario.faults == (Fault("jitter", value=40), Fault("http", value=429, times=1))


@pytest.mark.parametrize(
    "latency, step",
    [(None, {"timing": {"first_delta_ms": 900, "jitter_ms": 0}}), ("first_delta_ms=900,jitter_ms=0", {})],
    ids=["of a step", "of the scenario"],
)
def test_a_scenario_and_each_step_may_have_their_own_timing(latency: str | None, step: dict[str, Any]) -> None:
    async def talk() -> TimedRig:
        scenario = {"steps": [{"say": "Hm.", **step}], **({"latency": latency} if latency else {})}
        async with TimedRig(world(latency="fast", scenario=scenario)) as rig:
            await rig.ask("hello")
            return rig

    rig = run(talk())
    assert rig.when(DELTA)[0] - rig.when("response.created")[0] == pytest.approx(900 - 280, abs=1)  # sent 280 ms ago


@pytest.mark.parametrize(
    "when, asked, played",
    [
        ({"text": "weather"}, ("hi", "The WEATHER?", "weather"), [1, 2]),
        ({"regex": r"^\d+$"}, ("x42", "42"), [1]),
        ({"turn": 2}, ("x", "x", "x"), [1]),
        ({"text": "a", "turn": 2}, ("a", "b", "a"), []),
        ({"speech": True}, ("x",), []),
        ({"speech": False}, ("x", "x"), [0, 1]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
async def test_a_condition_decides_where_its_step_is_played(
    when: dict[str, Any], asked: tuple[str, ...], played: list[int]
) -> None:
    async with Rig(world(scenario={"steps": [{"say": "This.", "when": when}]})) as rig:
        said = [await rig.answer(text, **WRITTEN) for text in asked]
        assert [place for place, text in enumerate(said) if text == "This."] == played


async def test_rules_wait_for_their_turn_and_the_others_keep_their_order() -> None:
    steps = [{"say": "one"}, {"say": "sunny", "when": {"text": "weather"}}, {"say": "two"}]
    async with Rig(world(scenario={"steps": steps})) as rig:
        asked = ("hi", "the weather", "hm", "weather")
        assert [await rig.answer(text, **WRITTEN) for text in asked] == ["one", "sunny", "two", "sunny"]
        assert "You said: more" in await rig.answer("more", **WRITTEN)


# --- files and mistakes -----------------------------------------------------------------------------------------------


def test_a_file_names_its_scenario(tmp_path: Path) -> None:
    file = tmp_path / "greeting.json"
    file.write_text('{"steps": [{"say": "Olá!"}]}', encoding="utf-8")
    loaded = Scenario.load(file)
    assert (loaded.name, loaded.steps) == ("greeting", Scenario.from_dict({"steps": [{"say": "Olá!"}]}).steps)


@pytest.mark.parametrize(
    "data, message",
    [
        (b'{"steps": [\n{"say": "x",}]}', r"broken\.json is not JSON: .* line 2, column"),
        (b'{"name": "\xff"}', "not UTF-8"),
        (b"[]", r"scenario is \[\] \(list\); allowed: an object"),
        (b'{"name": "nothing"}', "field 'steps' is None"),
    ],
)
def test_a_broken_file_is_explained(data: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(data)
    with pytest.raises(ScenarioError, match=message):
        Scenario.load(file)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"stps": []}, "scenario: field 'stps' is not known, did you mean 'steps'"),
    ({"steps": {}}, "scenario, field 'steps' is {} .dict.; allowed: a list"),
    ({"name": 3}, "scenario, field 'name' is 3 .int.; allowed: a text"),
    ({"seed": True}, "field 'seed' is True .bool."),
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
]
WRONG_FAULTS: list[tuple[object, str]] = [
    ("latncy=3", "did you mean 'latency'"),
    ("latency", "value is None; allowed: ms"),
    ("latency=soon", "value is 'soon'; allowed: ms"),
    ("latency=-1", "allowed: ms, 0"),
    ("latency=nan", "allowed: ms, 0"),
    ("drop", "at is None; allowed: a server event type"),
    ("drop@response.output_audio.dleta", f"did you mean '{DELTA}'"),
    ("drop=2@response.done", "probability"),
    ("close=99@response.done", "1000 to 4999"),
    ("close=1000.5@response.done", "1000 to 4999"),
    ("http=200", "400 to 599"),
    ("http=401@response.done", '"connect"'),
    ("malformed=1@response.done", "no value"),
    ("drop@0", "from 1"),
    ("drop@response.done:0x0", "times is 0"),
    ("incomplete=tired", "content_filter or max_output_tokens"),
    ("failed@response.done", "the number of a turn"),
    ("?", "KIND=VALUE@AT"),
    (3, "a text or an object"),
    ({"kind": "drop", "att": "*"}, "did you mean 'at'"),
    ({"at": "*"}, "no kind"),
    ({"kind": "drop", "at": "*", "after": True}, "a whole number from 0"),
    ({"kind": "drop", "at": ["*"]}, "a server event type"),
    ({"kind": ["drop"]}, "fault kind"),
]
WRONG_LATENCIES = [
    ("realstic", "did you mean 'realistic'"),
    ("", "allowed: realistic, real_time, fast"),
    ("first_delta=300", "did you mean 'first_delta_ms'"),
    ("first_delta_ms=soon", "'soon'; allowed: a number"),
    ("jitter_ms=-1", "allowed: a number, 0 ms or more"),
    ("jitter_ms=inf", "allowed: a number, 0 ms or more"),
    ("jitter_ms=nan", "allowed: a number"),
    ("audio_rate=0", "above 0"),
    ("audio_rate=2,fast", "'fast' is not known"),
]


@pytest.mark.parametrize(
    "change, message",
    [
        *WRONG,
        *(({"faults": [fault]}, message) for fault, message in WRONG_FAULTS),
        *(({"latency": text}, f"field 'latency': .*{message}") for text, message in WRONG_LATENCIES),
    ],
)
def test_what_is_wrong_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        Scenario.from_dict({"steps": [], **change})


def test_a_latency_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ValueError, match="allowed: a number"):
        LatencyProfile(jitter_ms="soon")  # type: ignore[arg-type]
