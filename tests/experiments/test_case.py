"""Cases read from files with errors that name line and field, and the command that runs them."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

import rtnb
from rtnb.cli import main
from rtnb.errors import CaseError
from rtnb.experiments.case import Turn, fill

YAML = """
- id: late_train
  user: My train is late.
  expect: {contains: refund}
  tags: [complaint]
- id: booking
  user:
    - Book a table.
    - {audio: call.wav, after_ms: 300}
    - {say: "No, wait!", interrupt: true, after_ms: 800}
  values: {name: Ada}
"""


def test_the_same_cases_from_yaml_json_and_csv(tmp_path: Path) -> None:
    (tmp_path / "cases.yaml").write_text(YAML)
    late, booking = rtnb.cases(tmp_path / "cases.yaml")
    assert (late.id, late.expect, late.tags) == ("late_train", {"contains": "refund"}, ("complaint",))
    assert booking.user[1] == Turn(audio=str(tmp_path / "call.wav"), after_ms=300), "beside the file"
    assert booking.user[2].interrupt
    data = [{"id": "late_train", "user": "My train is late.", "expect": {"contains": "refund"}, "tags": ["complaint"]}]
    (tmp_path / "cases.json").write_text(json.dumps(data))
    (tmp_path / "cases.csv").write_text("id,user,tags,expect.contains\nlate_train,My train is late.,complaint,refund\n")
    for name in ("cases.json", "cases.csv"):
        (same,) = rtnb.cases(tmp_path / name)
        assert (same.id, same.user, same.expect, tuple(same.tags)) == (late.id, late.user, late.expect, late.tags)


WRONG_FILES = [
        ("a.yaml", "- id: x\n  user: Hi\n- id: y\n  usr: Hi\n", "line 3: unknown field 'usr' in the case; allowed: id"),
        ("a.yaml", "- id: x\n  user: Hi\n- id: x\n  user: Ho\n", "line 3: the id 'x' is there already"),
        ("a.yaml", "- id: x\n  user: [\n", "line 3, column 1"),
        ("a.yaml", "id: x\n", "a list of cases is needed"),
        ("a.yaml", "- id: x\n  user: {sai: Hi}\n", "line 1: unknown field 'sai' in the turn; allowed: text, say"),
        ("a.yaml", "- id: x\n  user: {say: Hi, after_ms: -1}\n", "after_ms is -1; allowed: whole milliseconds"),
        ("a.yaml", "- id: x\n", "line 1: case 'x': user is empty; give at least one turn"),
        ("a.yaml", "- id: a/b\n  user: Hi\n", "id is 'a/b'; allowed: 1 to 80 letters"),
        ("a.json", '[\n {"id": "x", "user": "Hi",}\n]', "line 2 column"),
        ("a.csv", "id,text\nx,Hi\n", "line 2: a turn has no words; give one of text, say and audio"),
        ("a.yaml", "[]", "there are no cases"),
    ]  # fmt: skip


@pytest.mark.parametrize("name, text, message", WRONG_FILES)
def test_a_wrong_file_says_where_and_what_is_allowed(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CaseError) as caught:
        rtnb.cases(tmp_path / name)
    assert message in str(caught.value)
    with pytest.raises(CaseError, match=r"cannot read .*none\.yaml: .*No such file"):
        rtnb.cases(tmp_path / "none.yaml")


def test_placeholders_are_filled_and_other_braces_stay() -> None:
    settings = {"instructions": 'Greet {name}. Answer {"ok": 1} and {{name}}.', "voice": "marin"}
    filled = fill(settings, {"name": "Ada"})
    assert filled == {"instructions": 'Greet Ada. Answer {"ok": 1} and {name}.', "voice": "marin"}
    with pytest.raises(CaseError, match=r"placeholder \{name\}, the case has the values: none"):
        fill(settings, {})


def test_a_grid_has_every_combination() -> None:
    made = rtnb.grid(voice=["marin", "cedar"], instructions=["A", "B"])
    assert list(made.values())[1] == {"voice": "marin", "instructions": "B"}
    assert len(made) == 4
    with pytest.raises(CaseError, match="voice is 'marin'; give a list"):
        rtnb.grid(voice="marin")


# --- the command ------------------------------------------------------------------------------------------------------


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


WRONG_PLANS = [
    ("cases: [Hi]\nvariant: {}\n", "unknown field 'variant' in the experiment; allowed: cases, variants"),
    ("cases: [Hi]\nvariants: {a: {}}\ngraders: [maxwords]\n", "grader 'maxwords' is not known; allowed: contains,"),
    ("cases: [Hi]\nvariants: {a: {}}\nrepeats: 0\n", "repeats is 0; allowed: whole numbers from 1 on"),
    ("- 1\n", "fields are needed: cases, variants"),
]


@pytest.mark.parametrize("text, message", WRONG_PLANS)
def test_a_wrong_file_is_named_and_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(text)
    assert main(["experiment", "run", str(plan)]) == 1
    assert message in capsys.readouterr().err
