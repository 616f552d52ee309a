"""The course as a whole: short cells, nothing left over, in order, every link leads somewhere, exercises are honest.

That every notebook runs is tested by nbval. As shipped, the check of an exercise says "Not solved yet"; here each is
played once more, on its own: as shipped, and with the solution in place of the exercise.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import ipywidgets
import nbformat
import pytest

import rtnb

FOLDER = Path(__file__).resolve().parent.parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
START, GLOSSARY = "00_start_here.ipynb", "(docs/glossary.md)"

_DRAWS = re.compile(r"\b(plot\w*|hist|imshow|specgram|bar)(\.\w+)?\(")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def cells(path: Path, *, kind: str = "", tag: str = "") -> list[Any]:
    """The cells of a notebook, of one type or with one tag."""
    found = nbformat.read(path, as_version=4).cells
    return [c for c in found if kind in ("", c.cell_type) and (not tag or tag in c.metadata.get("tags", []))]


def anchors(path: Path) -> set[str]:
    """What a link can point to in a notebook: its headings."""
    heads = re.findall(r"^#+ (.+)$", "\n".join(cell.source for cell in cells(path, kind="markdown")), re.MULTILINE)
    return {head.strip().replace(" ", "-") for head in heads}


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """Each notebook in turn."""
    found: Path = request.param
    return found


# --- what a notebook looks like ---------------------------------------------------------------------------------------


def test_cells_are_short(path: Path) -> None:
    lengths = sorted(len(cell.source.splitlines()) for cell in cells(path, kind="code"))
    assert lengths[0] > 0, "an empty cell"
    assert lengths[-1] <= 20
    assert lengths[len(lengths) * 9 // 10] <= 10
    assert lengths[len(lengths) // 2] <= 3
    too_wide = [line for cell in cells(path, kind="code") for line in cell.source.splitlines() if len(line) > 120]
    assert too_wide == [], "JupyterLab does not wrap code"


def test_functions_are_short(path: Path) -> None:
    for cell in cells(path, kind="code"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 10, f"{node.name} belongs into the library"


def test_no_outputs_are_kept_but_those_that_are_compared(path: Path) -> None:
    for cell in cells(path, kind="code"):
        compared = cell.source.startswith("# NBVAL_CHECK_OUTPUT")
        assert bool(cell.outputs) == compared, cell.source
        assert compared or cell.execution_count is None, cell.source


def test_it_names_the_plain_kernel_and_remembers_no_widgets(path: Path) -> None:
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata["kernelspec"]["name"] == "python3"
    assert "widgets" not in metadata


def test_it_begins_with_a_title_what_you_will_do_and_its_import(path: Path) -> None:
    title, imports, *_ = cells(path)
    assert re.match(r"# .+\n\nYou will\n- .+", title.source)
    assert len(re.findall(r"^- ", title.source, re.MULTILINE)) == 3
    assert "import rtnb" in imports.source.splitlines()
    assert not [c for c in cells(path, kind="code")[1:] if re.search(r"^(import|from) ", c.source, re.MULTILINE)]


def test_every_figure_has_a_caption_with_its_number(path: Path) -> None:
    found = cells(path)
    numbers = []
    for cell, below in zip(found, [*found[1:], None], strict=True):
        draws = cell.cell_type == "code" and _DRAWS.search(cell.source)
        if draws and "live" not in cell.metadata.get("tags", []):
            assert below is not None
            caption = re.match(r"\*Figure (\d+)\. .*\*", below.source, re.DOTALL)
            assert caption, f"no caption beneath: {cell.source}"
            numbers.append(int(caption[1]))
    assert numbers == list(range(1, len(numbers) + 1))


# --- the course -------------------------------------------------------------------------------------------------------


def test_the_start_lists_the_whole_course_and_each_notebook_leads_to_the_next() -> None:
    listed = re.findall(r"^\| \d\d \| \[[^]]+\]\(([^)]+)\)", _prose(FOLDER / START), re.MULTILINE)
    assert listed == [path.name for path in PATHS[1:]]
    assert [int(path.name[:2]) for path in PATHS] == list(range(len(PATHS)))
    for path, following in itertools.pairwise(PATHS):
        assert f"Next: [{_title(following)}]({following.name})" in _prose(path), f"{path.name} does not lead on"


def test_every_link_leads_somewhere(path: Path) -> None:
    for _, target in _LINK.findall(_prose(path)):
        name, _, anchor = unquote(target).partition("#")
        if name.startswith("http"):
            assert name.startswith("https://"), target
            continue
        file = FOLDER / name if name else path
        assert file.is_file(), target
        assert not anchor or (file.suffix == ".ipynb" and anchor in anchors(file)), target


def test_it_links_to_the_glossary_once(path: Path) -> None:
    assert _prose(path).count(GLOSSARY) == 1


def _prose(path: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(path, kind="markdown"))


def _title(path: Path) -> str:
    return str(cells(path)[0].source.splitlines()[0].removeprefix("# "))


# --- exercises --------------------------------------------------------------------------------------------------------


def exercises(path: Path) -> Iterator[tuple[list[str], str, str, str]]:
    """Each exercise: the cells before it, the exercise, its check, its solution."""
    before: list[str] = []
    parts: dict[str, str] = {}
    for cell in cells(path):
        tags = {"exercise", "check", "solution"} & set(cell.metadata.get("tags", []))
        if cell.cell_type == "markdown" and re.search(r"^## ", cell.source, re.MULTILINE):
            assert not parts, f"{path.name}: an exercise without { ({'exercise', 'check', 'solution'} - parts.keys()) }"
        for tag in tags:
            parts[tag] = cell.source
        if cell.cell_type == "code" and not tags:
            before.append(cell.source)
        if len(parts) == 3:
            solution = re.search(r"\A<details>.+^```python\n(.+?)^```$", parts["solution"], re.DOTALL | re.MULTILINE)
            assert solution, "a solution is Python in folded text: a cell would run, and take the place of the answer"
            yield before[:], parts["exercise"], parts["check"], solution[1]
            parts = {}


def test_a_lesson_has_minutes_prerequisites_predictions_and_two_exercises(path: Path) -> None:
    wanted = r"^(\d+) minutes\b.*\. You need to know (nothing|.+\(notebooks? \d\d)"
    form = re.search(wanted, cells(path)[0].source, re.MULTILINE)
    assert form, "the first cell ends with the minutes and the notebooks to know"
    assert (10 if path.name == START else 15) <= int(form[1]) <= 40
    needed = re.findall(r"\d\d(?=[^(]*\))", cells(path)[0].source[form.start() :])
    assert all(number < path.name[:2] for number in needed), f"a lesson needs only those before it, not {needed}"
    marks = re.findall(r"^\*\*(Predict|Explain)\*\*", _prose(path), re.MULTILINE)
    assert marks.count("Predict") >= 3
    assert marks.count("Explain") >= 3
    assert len(list(exercises(path))) >= 2


def test_a_prediction_stands_directly_before_the_cell_that_shows_it() -> None:
    for path in PATHS:
        found = cells(path)
        for cell, below in itertools.pairwise(found):
            if cell.cell_type == "markdown" and "**Predict**" in cell.source:
                assert below.cell_type == "code", f"{path.name}: {cell.source}"


CASES = [(path, number) for path in PATHS for number, _ in enumerate(cells(path, tag="check"), start=1)]


@pytest.mark.parametrize("path, number", CASES, ids=lambda value: getattr(value, "stem", str(value)))
async def test_a_check_says_not_solved_until_it_is(path: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    before, exercise, check, solution = list(exercises(path))[number - 1]
    book: dict[str, Any] = {}
    try:
        for source in (*_needed(before, "\n".join((exercise, check, solution))), exercise):
            await _run(source, book)
        capsys.readouterr()
        await _run(check, book)
        unsolved = capsys.readouterr().out
        await _run(solution, book)
        await _run(check, book)
        solved = capsys.readouterr().out
    finally:
        for value in book.values():
            if isinstance(value, rtnb.Session):
                await value.close()
            elif isinstance(value, rtnb.Simulator):
                await value.astop()
            elif isinstance(value, ipywidgets.Widget):
                value.close()
    assert unsolved.startswith("Not solved yet: "), unsolved
    assert solved.endswith("Solved.\n"), solved


def _needed(before: list[str], uses: str) -> list[str]:
    """Return the cells before an exercise that define the names it uses, and the names those cells use."""
    wanted, chosen = _names(uses, ast.Load) - _names(uses, ast.Store), []
    for source in reversed(before):
        if wanted & (made := _names(source, ast.Store)):
            wanted = wanted - made | (_names(source, ast.Load) - made)
            chosen.append(source)
    return chosen[::-1]


def _names(source: str, context: type[ast.expr_context]) -> set[str]:
    """The names a cell reads (`ast.Load`), or those it makes (`ast.Store`)."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, context):
            names.add(node.id)
        elif context is ast.Store and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif context is ast.Store and isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
    return names


async def _run(source: str, book: dict[str, Any]) -> None:
    """Run a cell as a notebook does, but for showing its last value."""
    code = compile(source, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, book)
    if inspect.isawaitable(result):
        await result


# --- costs ------------------------------------------------------------------------------------------------------------


def test_every_cell_for_azure_says_first_what_it_costs() -> None:
    live = cells(FOLDER / "10_your_azure_resource.ipynb", kind="code", tag="live")
    assert len(live) > 5
    for cell in live:
        assert re.match(r"# (costs nothing|about \$\d+\.\d+): .+\n", cell.source), cell.source
