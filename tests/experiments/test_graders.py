"""Graders on made runs, and a judge against planted labels."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import rtnb
from rtnb import experiments, graders
from rtnb.errors import CaseError
from rtnb.experiments.chat import kappa
from tests.experiments.chat import chat_service


def run(*texts: str, calls: Any = (), expect: Any = None, **more: Any) -> experiments.Run:
    answers = [{"text": text, "status": "completed", "first_audio_ms": 300.0, "audio_ms": 900.0} for text in texts]
    case = rtnb.Case("c", user="Hi", expect=expect or {})
    return experiments.Run(case, "v", 0, Path(), answers=answers, user=["Hi"], calls=list(calls), **more)


async def grade(one: experiments.Run, grader: Any) -> Any:
    grades, _ = await graders.grade(one, [grader])
    return grades[graders.name_of(grader)]


VERDICTS = [
    (graders.contains("refund"), "You get a Refund.", "Sorry."),
    (graders.matches(r"\d+ minutes"), "In 5 minutes.", "Soon."),
    (graders.never_says("as an AI"), "Hello.", "As an AI, I …"),
    (graders.max_words(3), "It is late.", "It is very late."),
    (graders.language("de"), "Das ist nicht der Zug, den Sie suchen.", "That is not the train you want, is it."),
    (graders.json_schema({"type": "object", "required": ["n"]}), '{"n": 1}', '{"m": 1}'),
    (graders.json_schema({"type": "object"}), "{}", "no JSON"),
]


@pytest.mark.parametrize("grader, good, bad", VERDICTS)
async def test_ready_graders_tell_good_from_bad(grader: Any, good: str, bad: str) -> None:
    assert await grade(run(good), grader) is True
    assert await grade(run(bad), grader) is False


BOOKED = run("Done.", calls=[{"name": "book", "arguments": {"people": 4, "at": "19:00"}, "output": "ok"}])


def in_the_evening(text: str) -> bool:
    return text.startswith("19")


GRADES = [
    (BOOKED, graders.called("book"), True),
    (BOOKED, graders.called("book", people=4, at=in_the_evening), True),
    (BOOKED, graders.called("book", people=5), False),
    (BOOKED, graders.called("cancel"), False),
    (run("One two.", "Three four five six."), graders.n_words, 3),
    (run("Hi"), graders.first_audio_ms, 300),
    (run("Hi"), graders.faster_than(299), False),
    (run("Hi"), graders.contains(), None),  # nothing is expected
    (run("Hm"), graders.language("en"), None),
    (run(error="ConnectionClosed: gone"), graders.max_words(3), None),  # a failure is no evidence
]


@pytest.mark.parametrize("one, grader, expected", GRADES)
async def test_calls_measurements_and_what_does_not_apply(one: experiments.Run, grader: Any, expected: Any) -> None:
    assert await grade(one, grader) == expected


async def test_own_graders_sync_async_and_wrong() -> None:
    async def slow(one: Any) -> dict[str, Any]:
        return {"grade": len(one.text) / 2, "evidence": one.text}

    grades, evidence = await graders.grade(run("Hi"), [slow])
    assert (grades, evidence) == ({"slow": 1.0}, {"slow": "Hi"})

    def wrong(one: Any) -> Any:
        return "good"

    with pytest.raises(CaseError, match="grader wrong returned 'good'; allowed: bool, number, None"):
        await graders.grade(run("Hi"), [wrong])
    with pytest.raises(CaseError, match="a lambda has no name"):
        await graders.grade(run("Hi"), [lambda one: True])


async def test_a_judge_that_cannot_be_reached_leaves_a_run_ungraded() -> None:
    judge = experiments.Judge("Good?", experiments.ChatModel("http://127.0.0.1:9/v1", "m"))
    options: Any = {"repeats": 1, "graders": [judge, graders.n_words], "progress": False}
    result = await rtnb.experiment("sim", ["Hi"], {"a": {"latency": "fast"}}, **options)
    (one,) = result.runs
    assert list(one.grades) == ["n_words"], "it is graded when the experiment goes on"
    assert one.evidence["judge"].startswith("not graded: the chat model at http://127.0.0.1:9")


async def test_a_judge_needs_a_real_quote_and_keeps_its_key(tmp_path: Path) -> None:
    wrong = ['{"evidence": "", "pass": true}', 'Sure! {"evidence": "never said", "pass": true}', "no idea"]
    answers = iter(['{"evidence": "happy to help", "pass": true}', *wrong])
    async with chat_service(lambda messages: next(answers)) as (url, requests):
        judge = experiments.Judge("Is it friendly?", experiments.ChatModel(url, "m", key="sk-canary-1234567"))
        one = "You: Hi\n\nModel: I am happy to help!"
        assert await judge(one) == {"grade": True, "evidence": "happy to help"}
        for _ in wrong:
            assert (await judge(one))["grade"] is None
    assert requests[0]["headers"]["Authorization"] == "Bearer sk-canary-1234567"
    assert "canary" not in repr(judge)
    assert judge.note == "not validated"


async def test_a_judge_of_known_agreement_is_measured_within_its_interval() -> None:
    rng = random.Random(3)
    labels = [rng.random() < 0.5 for _ in range(120)]
    texts = [f"USER: Hi\nASSISTANT: answer {n} of many" for n in range(120)]
    verdicts = {n: label if rng.random() < 0.8 else not label for n, label in enumerate(labels)}

    def answer(messages: list[dict[str, str]]) -> str:
        number = int(messages[1]["content"].split("answer ")[1].split()[0])
        return json.dumps({"evidence": f"answer {number}", "pass": verdicts[number]})

    async with chat_service(answer) as (url, _):
        judge = experiments.Judge("Good?", experiments.ChatModel(url, "m"))
        found = await judge.validate(zip(texts, labels, strict=True))
    assert found.n == 120
    assert found.agreement_interval[0] <= 0.8 <= found.agreement_interval[1]
    assert found.kappa_interval[0] <= 0.6 <= found.kappa_interval[1], "agreement 0.8 on balanced labels is κ 0.6"
    assert "κ" in judge.note


async def test_a_chat_model_that_refuses_or_is_not_there_says_so_without_the_key() -> None:
    async with chat_service(lambda messages: (401, "bad key sk-canary-1234567")) as (url, _):
        with pytest.raises(rtnb.ServiceError, match="the chat model answered 401") as caught:
            await experiments.ChatModel(url, "m", key="sk-canary-1234567").answer([])
        assert "canary" not in str(caught.value)
    with pytest.raises(rtnb.errors.TransportError, match="cannot be reached"):
        await experiments.ChatModel("http://127.0.0.1:9/v1", "m").answer([])


def test_kappa_of_equal_labels_is_undefined_and_of_opposites_minus_one() -> None:
    assert kappa([1, 1], [1, 1]) != kappa([1, 1], [1, 1])
    assert kappa([1, 0], [0, 1]) == -1
