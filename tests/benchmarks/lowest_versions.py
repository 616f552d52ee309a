"""Unit and loopback tests with the lowest declared versions: ``python -m tests.benchmarks.lowest_versions``

A new virtual environment gets rtnb with the lowest version of each direct dependency that `pyproject.toml` allows, and
the newest test tools that fit them (from the network). All tests run there, except notebooks and tests with a browser.
Arguments after ``--`` go to pytest. Exit code 1 if a test fails, or if another package needs more than a bound.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tests.benchmarks.stage import options

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = {"import-linter", "mypy", "notebook", "pandas-stubs", "ruff", "types-tqdm"}
"""Linters, and a front end that needs the newest JupyterLab."""

TESTS = ("tests", "rtnb", "--ignore-glob=*/browser/*", "--ignore=tests/notebooks")
OLD_WARNINGS = ("-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning")
"""An old package may use what a newer one below it has deprecated; a newer rtnb cannot change that."""


def lowest(requirement: Requirement) -> str | None:
    """Return the lower bound of a requirement."""
    return next((bound.version for bound in requirement.specifier if bound.operator == ">="), None)


def install(python: Path, project: dict[str, dict[str, list[str]]]) -> bool:
    """Install the lowest versions and the test tools; return whether every bound is met exactly."""
    uv = [str(python), "-m", "uv", "pip"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)
    subprocess.run([*uv, "install", "--quiet", "--resolution", "lowest-direct", "-e", f"{ROOT}[sim]"], check=True)
    frozen = subprocess.run([*uv, "freeze"], check=True, capture_output=True, text=True).stdout.splitlines()
    installed = dict(line.split("==") for line in frozen if "==" in line)
    extras = project["optional-dependencies"]
    exact, pins = True, []
    for requirement in map(Requirement, [*project["dependencies"], *extras["sim"]]):
        bound, found = lowest(requirement), installed[requirement.name]
        raised = bound is None or Version(bound) != Version(found)
        exact &= not raised
        pins.append(f"{requirement.name}=={found}")
        print(
            f"{requirement.name:18} {found:10}{f' another package needs more than {bound}' if raised else ''}",
            flush=True,
        )
    constraints = python.parents[1] / "lowest.txt"
    constraints.write_text("\n".join(pins))
    tools = [tool for tool in extras["test"] if Requirement(tool).name not in NOT_NEEDED]
    subprocess.run([*uv, "install", "--quiet", "--constraint", constraints, *tools], check=True)
    return exact


def main() -> int:
    chosen = options(__doc__, python=shutil.which("python3.11") or sys.executable, pytest=["-q"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([chosen.python, "-m", "venv", folder], check=True)
        python = Path(folder, "Scripts" if os.name == "nt" else "bin", "python")
        exact = install(python, project)
        tests = subprocess.run([python, "-m", "pytest", *TESTS, *OLD_WARNINGS, *chosen.pytest], cwd=ROOT, check=False)
    print("lowest versions:", "passed" if exact and tests.returncode == 0 else "failed")
    return 0 if exact and tests.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
