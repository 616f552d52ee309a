"""Finding a Chromium: a wrong setting is told in words, and nothing is skipped silently."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.chromium import VARIABLE, ChromiumMissing, find_chromium


def test_a_path_that_is_named_is_used(chromium_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, chromium_path)
    assert find_chromium() == chromium_path


def test_a_named_path_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "chromium"))
    with pytest.raises(ChromiumMissing, match="no such file"):
        find_chromium()


def test_a_named_program_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho 'error: libnss3.so is missing' >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(broken))
    with pytest.raises(ChromiumMissing, match=r"libnss3\.so is missing"):
        find_chromium()


def test_without_a_browser_the_browser_tests_fail_with_what_to_do(tmp_path: Path) -> None:
    """A run of pytest in which none is found and nothing may be installed: it fails, it does not skip."""
    (tmp_path / "test_page.py").write_text("def test_page(chromium_path): ...\n")
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "conftest.py").write_text("from tests.conftest import chromium_path\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            str(root / "pyproject.toml"),
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(root), VARIABLE: str(tmp_path / "nowhere")},
    )
    assert done.returncode == 1
    assert f"{VARIABLE}=" in done.stdout
    assert "skipped" not in done.stdout
