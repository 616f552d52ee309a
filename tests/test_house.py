"""Rules of this repository that no other tool checks."""

import ast
import os
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rtnb

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"README.md", "environment.yml", "notebooks", "pyproject.toml", "rtnb", "tests"}

MODULES = sorted((ROOT / "rtnb").rglob("*.py"))
SCRIPTS = sorted((ROOT / "rtnb").rglob("*.js"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- the layout -------------------------------------------------------------------------------------------------------


def test_the_top_level_holds_exactly_six_entries() -> None:
    if (ROOT / ".git").exists():  # files that are or would be committed: no caches, no virtual environment
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        names = {line.strip('"').split("/")[0] for line in listed if (ROOT / line.strip('"')).exists()}
    else:
        names = {path.name for path in ROOT.iterdir()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_has_at_most_700_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 700


def test_a_script_has_at_most_700_lines() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SCRIPTS}
    assert {name: length for name, length in lengths.items() if length > 700} == {}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_function_has_at_most_50_lines_without_its_docstring(path: Path) -> None:
    too_long = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and ast.get_docstring(node, clean=False) is not None
            docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            length = (node.end_lineno or 0) - node.lineno + 1 - docstring
            if length > 50:
                too_long[node.name] = length
    assert too_long == {}


# --- the front door ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(rtnb._HOMES))
def test_a_front_door_name_exists(name: str) -> None:
    assert hasattr(rtnb, name)
    assert isinstance(getattr(rtnb, name), ModuleType) == (rtnb._HOMES[name] == "rtnb" or name == "graders")


def test_the_docstring_dir_the_lazy_table_and_the_names_for_editors_agree() -> None:
    described = re.findall(r"^    (\w+)  ", rtnb.__doc__ or "", re.MULTILINE)
    assert len(described) == len(set(described)) <= 60
    assert set(described) == set(dir(rtnb)) - {"__version__"} == rtnb._HOMES.keys()
    assert _names_for_editors() == (rtnb._HOMES.keys(), rtnb._HOMES.keys())


def test_help_is_the_table_of_names_in_under_300_lines() -> None:
    text = pydoc.render_doc(rtnb, renderer=pydoc.plaintext)
    assert len(text.splitlines()) < 300
    title, *lines = (rtnb.__doc__ or "").splitlines()
    assert f"rtnb - {title.rstrip('.')}" in text
    assert all(f"    {line}" in text for line in lines if line)
    assert "CLASSES" not in text


def test_no_front_door_name_is_the_name_of_another_module() -> None:
    names = {name for name, home in rtnb._HOMES.items() if home != "rtnb"}
    names -= {"interaction"}  # rtnb.interaction() returns the object of rtnb.analysis.interaction
    names -= {"graders"}  # a module itself
    assert {path.stem for path in MODULES} & names == set()


@pytest.mark.parametrize(
    "name, advice",
    [
        ("conect", "the nearest name is 'connect'"),
        ("session", "the nearest name is 'Session'"),
        ("widget", "the nearest name is 'widgets'"),
        ("xyz", r"dir\(rtnb\) lists the names"),
    ],
)
def test_an_unknown_name_is_an_attribute_error_with_the_nearest_name(name: str, advice: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; {advice}"):
        getattr(rtnb, name)


def test_importing_rtnb_loads_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import rtnb; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "ipywidgets", "aiohttp", "websockets", "asyncio", "pandas", "matplotlib", "anywidget", "azure"}
    assert heavy & {name.split(".")[0] for name in loaded} == set()
    assert [name for name in loaded if name.startswith("rtnb.")] == []


def _names_for_editors() -> tuple[set[str], set[str]]:
    """Return the names that type checkers see: the imports, and `__all__`."""
    tree = ast.parse((ROOT / "rtnb" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    lists = [node.value for node in block.body if isinstance(node, ast.Assign | ast.AugAssign)]
    return imports, {name for one in lists for name in ast.literal_eval(one)}


# --- the two commands -------------------------------------------------------------------------------------------------


def test_the_readme_has_exactly_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^<!-- command: (\w+) -->\n```bash\n(.+?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in commands] == ["lab", "test"]
    assert len(re.findall(r"^```(?:bash|sh|shell|console)$", text, re.MULTILINE)) == 2
    lab, test = (command for _, command in commands)
    assert lab.endswith("rtnb lab")
    assert test.endswith("python -m pytest")
    assert all(command.startswith("python3 -m venv .venv") and "\n" not in command for command in (lab, test))


def test_ci_runs_the_readmes_command_and_not_a_copy() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pytest" not in "\n".join(line for line in script.splitlines() if not line.startswith("#"))
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_nothing_shipped_holds_something_that_looks_like_a_key() -> None:
    looks = re.compile(r"\bsk-(?:proj-)?[A-Za-z0-9_-]{24,}|\bek_[0-9a-f]{32,}\b|\b[0-9a-f]{64}\b")
    suffixes = {".py", ".js", ".ipynb", ".md", ".toml", ".yml", ".json", ".txt"}
    places = (path for folder in ("rtnb", "notebooks") for path in (ROOT / folder).rglob("*"))
    found = [
        _name(path) for path in places if path.suffix in suffixes and looks.search(path.read_text(errors="replace"))
    ]
    assert found == []
