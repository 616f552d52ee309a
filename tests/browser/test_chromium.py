"""Finding a Chromium: a wrong setting is told in words, and nothing is skipped silently."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.chromium import VARIABLE, ChromiumMissing, find_chromium


def test_a_path_that_is_named_is_used(chromium_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, chromium_path)
    assert find_chromium() == chromium_path


@pytest.mark.parametrize(
    "script, problem",
    [
        (None, "no such file"),
        ("#!/bin/sh\necho 'error: libnss3.so is missing' >&2\nexit 127\n", r"libnss3\.so is missing"),
    ],
    ids=["that is not there", "that does not start"],
)
def test_a_named_path_is_told(
    script: str | None, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named = tmp_path / "chromium"
    if script:
        named.write_text(script)
        named.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(named))
    with pytest.raises(ChromiumMissing, match=problem):
        find_chromium()


def test_without_a_browser_the_browser_tests_fail_with_what_to_do(tmp_path: Path) -> None:
    """A run of pytest in which none is found and nothing may be installed: it fails, it does not skip."""
    (tmp_path / "test_page.py").write_text("def test_page(chromium_path): ...\n")
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "conftest.py").write_text("from tests.conftest import chromium_path\n")
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*pytest_here, "-c", str(root / "pyproject.toml"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(root), VARIABLE: str(tmp_path / "nowhere")},
    )
    assert done.returncode == 1
    assert f"{VARIABLE}=" in done.stdout
    assert "skipped" not in done.stdout
