"""Whole experiments against the simulator: graded, resumed after a kill, within a budget, spoken and interrupted."""

import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb import experiments, graders
from rtnb.analysis.cost import PRICES
from rtnb.errors import CaseError
from rtnb.simulator.responder import Call, Say, Turn
from tests.benchmarks.experiment import interruption_ms
from tests.client.peer import Peer
from tests.experiments.chat import chat_service

FAST = {"latency": "fast", "voice": "marin"}
PRICED = {"rtnb-simulator": PRICES["gpt-realtime"]}


class Obeying:
    """Responder that keeps to "one sentence" in a known share of its answers."""

    def __init__(self, share: float) -> None:
        self.share = share

    async def respond(self, turn: Turn) -> AsyncIterator[Say | Call]:
        yield Say("Yes." if random.random() < self.share else "Well, let me explain this at great length, with care.")


async def hold(cases: list[Any], variants: Any = None, **options: Any) -> rtnb.Result:
    """Run an experiment against the simulator, each case once under one variant unless told otherwise."""
    return await rtnb.experiment("sim", cases, variants or {"a": FAST}, **{"repeats": 1, "progress": False, **options})


async def test_a_better_prompt_is_shown_and_its_runs_are_kept(tmp_path: Path) -> None:
    random.seed(4)
    variants = {
        "long": {"instructions": "Explain at length.", "responder": Obeying(0.2), **FAST},
        "short": {"instructions": "Answer in one sentence.", "responder": Obeying(0.9), **FAST},
    }
    result = await hold([f"Question {n}?" for n in range(12)], variants, repeats=3, graders=[graders.max_words(3)])
    assert (len(result.runs), result.n_planned) == (72, 72)
    (row,) = result.comparisons.to_dict("records")
    assert (row["a"], row["b"], row["n_cases"], row["n_runs"]) == ("long", "short", 12, 72)
    assert row["shown"]
    assert row["low"] < 0.7 < row["high"], "the responders differ by 70 points"
    flaky = result.flaky.to_dict("records")
    assert flaky
    assert all(0 < one["n_passed"] < one["n_runs"] == 3 for one in flaky)
    again = rtnb.Result(result.save(tmp_path))
    assert again.comparisons.equals(result.comparisons)
    run = again.runs[0]
    assert run.trace.transcript.splitlines()[0].startswith("You:"), "its conversation can be read"
    assert len(run.trace.model_audio) > 0
    assert "shown" in again._repr_html_()
    assert again.to_frame()["max_words(3)"].dtype == bool


async def test_a_placeholder_text_of_a_stranger_stays_text(tmp_path: Path) -> None:
    cases = [{"id": "x", "user": "<img src=x onerror=alert(1)>"}]
    result = await hold(cases, {"<b>v</b>": {"instructions": "Repeat.", **FAST}}, graders=[graders.n_words])
    page = result.to_html(tmp_path / "page.html")
    assert "<img" not in page
    assert "<b>v" not in page
    assert (tmp_path / "page.html").read_text() == page


async def test_tools_placeholders_and_expectations_reach_the_run() -> None:
    def book_table(people: int) -> str:
        """Book a table."""
        return f"booked for {people}"

    case = {
        "id": "book", "user": ["Please book a table for 4 people.", "What is your name?"], "tools": [book_table],
        "expect": {"contains": "Rosa"}, "values": {"who": "Rosa"},
    }  # fmt: skip
    wanted = [graders.called("book_table", people=4), graders.called("book_table", people=5), graders.contains()]
    result = await hold([case], {"a": {"instructions": "Your name is {who}.", **FAST}}, graders=wanted)
    (run,) = result.runs
    assert run.calls[0]["arguments"] == {"people": 4}
    assert "booked for 4" in run.calls[0]["output"]
    assert [run.grades[graders.name_of(grader)] for grader in wanted] == [True, False, True]


SCRIPT = """
import asyncio, sys, rtnb
from rtnb import graders
prompts = ("Answer in one sentence.", "Explain at length.")
variants = {prompt: {"instructions": prompt, "latency": "fast"} for prompt in prompts}
asyncio.run(rtnb.experiment(
    "sim", [f"Tell me about {word}." for word in ("ducks", "trains", "rain", "tea", "chess", "bees")], variants,
    repeats=2, graders=[graders.max_words(12), graders.n_words], folder=sys.argv[1], progress=False, seed=3))
"""


def test_after_kill_9_no_run_is_lost_or_done_twice(tmp_path: Path) -> None:
    def kept() -> dict[str, Any]:
        return {file.name: json.loads(file.read_text()) for file in killed.glob("*-*.json")}

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([sys.executable, "-c", SCRIPT, str(whole)], check=True, timeout=120)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(killed)])
    while len(list(killed.glob("*-*.json"))) < 8:
        assert process.poll() is None
    process.kill()
    process.wait()
    before = kept()
    subprocess.run([sys.executable, "-c", SCRIPT, str(killed)], check=True, timeout=120)
    after = kept()
    assert len(after) == 24
    assert all(len(run["grades"]) == 2 for run in after.values())
    for name, run in before.items():  # killed between its end and its grades, a run is graded later and not done again
        graded = {"grades": after[name]["grades"], "evidence": after[name]["evidence"]} if not run["grades"] else {}
        assert {**run, **graded} == after[name], "completed runs are as they were"
    a, b = rtnb.Result(whole), rtnb.Result(killed)
    assert a.table.equals(b.table)
    assert a.comparisons.equals(b.comparisons)


async def test_a_folder_of_another_experiment_is_refused(tmp_path: Path) -> None:
    await hold(["Hi"], folder=tmp_path)
    with pytest.raises(CaseError, match="holds another experiment: its cases differ; choose another folder"):
        await hold(["Ho"], folder=tmp_path)


async def test_the_budget_stops_within_one_run() -> None:
    budget = rtnb.Budget(usd=0.1, prices=PRICED)
    result = await hold([f"Tell me about {n}." for n in range(10)], repeats=5, budget=budget)
    dearest = max(run.usd or 0 for run in result.runs)
    assert len(result.runs) < 50
    assert 0.1 - 2 * dearest <= result.usd <= 0.1, "it stops before the run that could exceed it"
    assert f"{len(result.runs)} of 50 runs" in repr(result)


async def test_a_budget_without_a_price_is_refused() -> None:
    async with Peer() as peer:
        with pytest.raises(CaseError, match=r"price of a run is not known.*Budget\(prices=…\)"):
            await rtnb.experiment(rtnb.Custom(peer.url), ["Hi"], {"a": {}}, budget=rtnb.Budget(usd=1), progress=False)


async def test_the_simulator_costs_nothing_every_run_is_reported_and_can_be_heard_blind() -> None:
    seen: list[Any] = []
    budget = rtnb.Budget(usd=0.01)
    result = await hold(["Hi"], {"secret": FAST}, repeats=2, budget=budget, on_run=seen.append)
    assert [run.usd for run in result.runs] == [0.0, 0.0]
    assert sorted(run.repeat for run in seen) == [0, 1]
    page = result.listen("secret", blind=True)._repr_html_()
    assert page.count("<audio") == 2
    assert "secret" not in page
    with pytest.raises(CaseError, match="'other' is not in this result; there are: secret"):
        result.listen("other")


async def test_a_lost_connection_is_tried_again_and_counted() -> None:
    options: Any = {"repeats": 1, "graders": [graders.n_words], "progress": False}
    result = await rtnb.experiment("ws://127.0.0.1:9", ["Hi"], {"a": {}}, **options)
    (run,) = result.runs
    assert run.retries == 2
    assert "127.0.0.1" in run.error
    assert run.grades == {"n_words": None}, "a run that failed is no evidence"
    assert result.table.note[0] == "1 failed, left out", "and the table says so"


async def test_what_lost_attempts_cost_counts() -> None:
    budget = rtnb.Budget(usd=10, prices=PRICED)
    first_turn = await hold(["Hi"], budget=budget)
    cut = {"a": {**FAST, "faults": ["close=1011@response.done:1"]}}  # in the second turn of every attempt
    lost = await hold([{"id": "two", "user": ["Hi", "Ho"]}], cut, budget=budget)
    assert lost.runs[0].retries == 2
    assert "1011" in lost.runs[0].error
    assert lost.usd == pytest.approx(3 * first_turn.usd, rel=0.3), "the first turn of three attempts"


async def test_conversations_run_in_other_processes() -> None:
    with ProcessPoolExecutor(2) as executor:
        result = await hold(["Hi", "Ho"], graders=[graders.n_words], executor=executor)
    assert [run.grades["n_words"] > 0 for run in result.runs] == [True, True]


async def test_an_interrupting_caller_speaks_when_it_should() -> None:
    at_ms = 1500
    stop = {"say": "No, stop.", "interrupt": True, "after_ms": at_ms}
    case = rtnb.Case("stop", user=[{"say": "Tell me a story."}, stop])
    detection = {"type": "server_vad", "silence_duration_ms": 200}
    one = {"a": {"turn_detection": detection, "instructions": "Explain at length.", "latency": "fast"}}
    result = await hold([case], one, repeats=4, graders=[graders.n_interrupted], voice="babble", concurrency=2)
    late = []
    for run in result.runs:
        assert [answer["interrupted"] for answer in run.answers] == [True, False]
        late.append(interruption_ms(run) - at_ms)
        talk = rtnb.interaction(run.trace, tick_s=0.05)  # the simulator yields within one tick of 0.2 s
        answered = [("response", "response")] * 2
        assert [(one.kind, one.outcome) for one in talk.events] == [*answered, ("interruption", "yield")]
    assert min(late) >= -20
    assert np.median(late) <= 60


async def test_a_persona_reaches_its_goal_and_hangs_up() -> None:
    said = iter(["I want a refund for my ticket.", "Thank you, my name is Ada.", "[hang up]"])
    async with chat_service(lambda messages: next(said)) as (url, requests):
        chat = experiments.ChatModel(url, "any", key="sk-canary-123456789", seed=7)
        caller = experiments.Persona(chat, goal="Get a refund.", facts="Name: Ada.", style="Hurried.", speak=False)
        result = await hold([rtnb.Case("refund", user=caller)])
    (run,) = result.runs
    assert run.user == ["I want a refund for my ticket.", "Thank you, my name is Ada."]
    assert len(run.answers) == 2
    assert "Get a refund." in requests[0]["messages"][0]["content"]
    assert requests[1]["messages"][-1] == {"role": "user", "content": run.answers[0]["text"]}, "it hears the answers"
    assert requests[0]["seed"] == 7
    kept = b"".join(file.read_bytes() for file in result.path.iterdir())
    assert b"Get a refund." in kept, "its prompt is kept"
    assert b"canary" not in kept


async def test_a_key_in_a_variant_is_in_no_file(tmp_path: Path) -> None:
    canary = "canary horse battery"  # no shape of a key
    mcp = {"type": "mcp", "server_label": "shop", "server_url": "https://example.org", "authorization": canary}
    async with chat_service(lambda messages: "Hello.") as (url, _):
        chat = {"chat_url": url, "chat_model": "m", "chat_key": canary}
        await hold(["Hi"], {"a": FAST | {"tools": [mcp]}, "b": FAST | chat}, folder=tmp_path)
    assert canary.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


async def test_a_grader_that_fails_loses_no_run_and_grades_later(tmp_path: Path) -> None:
    broken = [True]

    def strict(run: Any) -> bool:
        if broken[0]:
            raise IndexError("a mistake in a grader")
        return True

    options: dict[str, Any] = {"repeats": 2, "folder": tmp_path, "concurrency": 1}
    with pytest.raises(IndexError):
        await hold(["Hi"], graders=[strict], **options)
    (kept,) = tmp_path.glob("1-*.rtnb")
    before = kept.read_bytes()
    broken[0] = False
    result = await hold(["Hi"], graders=[strict, graders.n_words], **options)
    assert kept.read_bytes() == before, "it was not held again"
    assert [run.grades["strict"] for run in result.runs] == [True, True]
    assert all(run.grades["n_words"] > 0 for run in result.runs)


async def test_a_word_that_is_not_said_is_an_error_of_its_run_alone() -> None:
    turns = [{"say": "Hello!"}, {"say": "No.", "interrupt": True, "at_word": "zebra"}]
    result = await hold([rtnb.Case("word", user=turns), rtnb.Case("plain", user="Hi")], voice="babble")
    errors = {run.case.id: run.error for run in result.runs}
    assert errors["plain"] == ""
    assert "the answer has no word 'zebra'" in errors["word"]


async def test_what_can_be_known_before_is_refused_before(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="turn 1 interrupts, but there is no answer yet"):
        rtnb.Case("x", user=[{"say": "No.", "interrupt": True}])
    with pytest.raises(CaseError, match=r"case 'x': there is no file .*none\.wav"):
        await hold([rtnb.Case("x", user={"audio": str(tmp_path / "none.wav")})])


async def test_the_length_of_an_answer_does_not_depend_on_its_format() -> None:
    result = await hold(["Hello!"], {"pcm": FAST, "g711": {**FAST, "output_format": "g711_ulaw"}})
    lengths = {run.variant: run.answers[0]["audio_ms"] for run in result.runs}
    assert lengths["g711"] == pytest.approx(lengths["pcm"], rel=0.5)
