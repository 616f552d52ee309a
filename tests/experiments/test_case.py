"""Cases: read from files, with errors that name line and field; placeholders; grids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rtnb
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


@pytest.mark.parametrize(
    "name, text, message",
    [
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
    ],
)  # fmt: skip
def test_a_wrong_file_says_where_and_what_is_allowed(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CaseError) as caught:
        rtnb.cases(tmp_path / name)
    assert message in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
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
