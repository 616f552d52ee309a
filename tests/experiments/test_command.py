"""The command `rtnb experiment run`: exit codes, JUnit, errors."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from rtnb.cli import main

PLAN = """
cases: [Hello!, Count to five!]
variants: {short: {instructions: Answer in one sentence., latency: fast}}
repeats: 1
graders: [{max_words: 3}, n_words]
thresholds: {n_words: 1, max_words(3): LEAST}
"""


def test_thresholds_decide_the_exit_code_and_are_tests_of_junit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, xml = tmp_path / "plan.yaml", tmp_path / "out.xml"
    plan.write_text(PLAN.replace("LEAST", "0"))
    assert main(["experiment", "run", str(plan), "--folder", str(tmp_path / "runs"), "--junit", str(xml)]) == 0
    plan.write_text(PLAN.replace("LEAST", "1"))
    assert main(["experiment", "run", str(plan), "--folder", str(tmp_path / "runs"), "--junit", str(xml)]) == 1
    said = capsys.readouterr().out
    assert "max_words(3), short: 0.5, at least 1 is needed" in said
    suite = ElementTree.parse(xml).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [len(test) for test in suite] == [1, 0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("cases: [Hi]\nvariant: {}\n", "unknown field 'variant' in the experiment; allowed: cases, variants"),
        ("cases: [Hi]\nvariants: {a: {}}\ngraders: [maxwords]\n", "grader 'maxwords' is not known; allowed: contains,"),
        ("cases: [Hi]\nvariants: {a: {}}\nrepeats: 0\n", "repeats is 0; allowed: whole numbers from 1 on"),
        ("- 1\n", "fields are needed: cases, variants"),
    ],
)
def test_a_wrong_file_is_named_and_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(text)
    assert main(["experiment", "run", str(plan)]) == 1
    assert message in capsys.readouterr().err
