"""The prompt lab without a page: no key on the page, files that are closed, and code that runs."""

import ast
from typing import Any

import pytest

import rtnb
from rtnb import graders
from rtnb.errors import CaseError

KEY = "canary-0123456789"
FAST = {"latency": "fast", "voice": "babble"}
VARIANTS: Any = {"a": {"instructions": "x", **FAST}, "b": {"instructions": "y", **FAST}}


def test_no_key_of_a_variant_or_of_a_tool_is_on_the_page() -> None:
    tool = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example", "authorization": KEY}
    variants = {
        "a": {"instructions": "x", "chat_url": "http://127.0.0.1:9/v1", "chat_key": KEY},
        "b": {"instructions": "y", "tools": [tool]},
    }
    cases = [{"id": "one", "user": "Hi", "tools": [tool]}, rtnb.Case("two", user="Hi", tools=[tool])]
    lab = rtnb.PromptLab(cases=cases, variants=variants)
    assert "chat_key" in lab.code
    assert KEY not in lab.code
    assert KEY not in str(lab.form.get_state()) + str(lab.outcome.get_state()) + repr(lab)
    assert lab.variants["a"]["chat_key"] == KEY, "the run needs it"


def test_the_code_is_python_and_names_only_what_was_set() -> None:
    variants = {"a": {"instructions": "x", "turn_detection": rtnb.ServerVad(threshold=0.6)}, "b": "y"}
    lab = rtnb.PromptLab(cases=[rtnb.Case("one", user="Hi")], variants=variants, graders=[graders.max_words(9)])
    compile(lab.code, "lab", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert "'turn_detection': {'type': 'server_vad', 'threshold': 0.6}" in " ".join(lab.code.split())
    assert "rtnb.graders.max_words(9)" in lab.code
    assert "'user': [{'text': 'Hi', 'kind': 'speech'}]" in lab.code


async def test_fewer_repeats_than_before_show_only_those() -> None:
    lab = rtnb.PromptLab(cases=["Hi"], variants=VARIANTS, repeats=2)
    assert len((await lab.run()).runs) == 4
    lab.form.repeats = 1
    result = await lab.run()
    assert (len(result.runs), lab.form.status.split(" runs")[0]) == (2, "2 of 2")
    lab.form.repeats = 2
    assert len((await lab.run()).runs) == 4, "the others are still there"


async def test_only_the_shown_run_is_open() -> None:
    lab = rtnb.PromptLab(cases=["Hi"], variants=VARIANTS, repeats=1)
    await lab.run()
    lab.show_run("1", "a", 0)
    first = lab.children[1].trace
    lab.show_run("1", "b", 0)
    with pytest.raises(ValueError, match="closed"):
        list(first.rows())
    assert len(lab.children[1].trace.model_audio) > 0
    lab.close()
    with pytest.raises(CaseError, match="no run of case '2', variant 'a', repeat 0"):
        lab.show_run("2", "a", 0)
