"""The wheel, the environment of Binder, and the package without its checkout."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as `python -m build` does: first the source archive, then the wheel from it."""
    place = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = place.glob("*.whl")
    return built


def _shipped(folder: str) -> set[str]:
    """Return the files of a folder of the checkout, without the caches of Python and Jupyter."""
    hidden = {"__pycache__", ".ipynb_checkpoints"}
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and not hidden & set(path.parts))
    return {path.relative_to(ROOT).as_posix() for path in paths}


def test_the_wheel_holds_the_package_the_course_and_the_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith(".dist-info/METADATA")).removesuffix("METADATA")
        metadata = archive.read(f"{info}METADATA").decode()
        entry = archive.read(f"{info}entry_points.txt").decode()
    course = {name.replace("notebooks/", "rtnb/_notebooks/", 1) for name in _shipped("notebooks")}
    assert {name for name in names if not name.startswith(info)} == _shipped("rtnb") | course
    assert {Path(name).suffix for name in names} >= {".js", ".css", ".html", ".npz", ".ipynb", ".typed"}
    licences = {name.removeprefix(info) for name in names if "/licenses/" in name}
    assert {"licenses/rtnb/LICENSE", "licenses/rtnb/vad/SILERO_LICENSE.txt"} <= licences
    assert "License-Expression: MIT" in metadata
    assert "rtnb = rtnb.cli:main" in entry


def test_an_unpacked_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Run with the packages of this environment; tests/benchmarks/first_run.py does so in an empty one."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = """
import asyncio, pathlib, sys
import rtnb, rtnb.widgets
from rtnb._lab import originals, working_copy
site = pathlib.Path(rtnb.__file__).parent.parent
async def talk():
    async with rtnb.connect(rtnb.Simulator(latency="fast", voice="babble")) as session:
        return await session.ask("What is a delta?")
response = asyncio.run(talk())
copy = working_copy(originals(), pathlib.Path("copy"))
sys.path.insert(0, str(copy.path))  # as the kernel of a notebook there does
import course
assert pathlib.Path(course.__file__).parent == copy.path
print(site, len(response.audio) > 24_000, originals().relative_to(site), len(copy.added))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = [str(tmp_path / "site"), "True", "rtnb/_notebooks", str(len(_shipped("notebooks")))]
    assert done.stdout.split() == expected


def test_the_environment_of_binder_is_the_installation_of_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (lab,) = re.findall(r"^<!-- command: lab -->\n```bash\n(.+?)\n```$", (ROOT / "README.md").read_text(), re.M | re.S)
    (installed,) = re.findall(r'--editable "(\.\[[\w,]+\])"', lab)
    pinned: dict[str, Any] = {}
    for one in environment["dependencies"]:
        pinned |= one if isinstance(one, dict) else {one.partition("=")[0]: one.partition("=")[2]}
    assert set(pinned) == {"python", "pip"}
    assert pinned["pip"] == [f"-e {installed}"]
    assert pinned["python"] in SpecifierSet(project["requires-python"])
    assert f"Programming Language :: Python :: {pinned['python']}" in project["classifiers"]
    assert environment["name"] == project["name"]
