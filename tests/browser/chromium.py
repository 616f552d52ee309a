"""Find a Chromium, or install one; browser tests never skip silently.

In this order: the environment variable RTNB_CHROMIUM; a browser on PATH; the one Playwright has installed; Playwright's
download; where that is refused, as root on a Debian-like system, the package `chromium`. Otherwise an error that says
what to do.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "RTNB_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")

FLAGS = (
    "--disable-background-networking",  # no look-ups of update and safe-browsing hosts
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",  # a microphone that beeps; a test may give it a file
    "--use-fake-ui-for-media-stream",  # permission is granted without asking
)
"""How every Chromium of the tests is started."""

_PLAYWRIGHT = [sys.executable, "-m", "playwright"]
_DOWNLOAD_S = 900  # chosen: a slow line still fetches the 200 MB of Playwright's or Debian's Chromium


class ChromiumMissing(Exception):
    """No Chromium, and none could be installed; the message says what was tried and what to do."""


def flags() -> list[str]:
    """The flags for this user: Chromium's sandbox does not work for root."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [*FLAGS, "--no-sandbox"] if root else list(FLAGS)


def prepare_driver() -> None:
    """Make sure that Playwright itself starts: its Node.js needs libatomic, which a minimal Debian lacks (measured).

    Raises
    ------
    ChromiumMissing
        If it does not start and cannot be helped.
    """
    works = [*_PLAYWRIGHT, "--version"]
    if _problem(works):
        _problem(*_debian("libatomic1"))
    if problem := _problem(works):
        raise ChromiumMissing(f"Playwright does not start: {problem}\nInstall what it misses (Debian: libatomic1).")


def find_chromium() -> str:
    """The path of a Chromium that starts.

    Raises
    ------
    ChromiumMissing
        If none is found and none can be installed.
    """
    if named := os.environ.get(VARIABLE):
        if problem := _no_chromium(named):
            raise ChromiumMissing(f"{VARIABLE}={named}: {problem}. Set it to the path of a Chromium that starts.")
        return named
    tried = []
    for story, commands in (
        (f"on PATH, or Playwright's own: none of {', '.join(NAMES)}", []),
        ("Playwright's download", [[*_PLAYWRIGHT, "install", "chromium"]]),
        ("Debian's package", _debian("chromium")),
    ):
        problem = _problem(*commands)
        for path in [] if problem else _installed():
            problem = _no_chromium(path)
            if problem is None:
                return path
        tried.append(f"- {story}: {problem or 'not there'}")
    raise ChromiumMissing(
        "\n".join(
            (
                "The browser tests need a Chromium, and none was found or could be installed:",
                *tried,
                f"Install Chromium or Chrome, or set {VARIABLE} to the path of one, and run the tests again.",
            )
        )
    )


def _installed() -> Iterator[str]:
    yield from filter(None, map(shutil.which, NAMES))
    code = "from playwright.sync_api import sync_playwright as p\nwith p() as q: print(q.chromium.executable_path)"
    # In a process of its own: the synchronous interface must not meet the tests' event loop.
    asked = _run([sys.executable, "-c", code])
    if asked.returncode == 0:
        yield asked.stdout.strip()


def _debian(package: str) -> list[list[str]]:
    return [["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", package]]


def _no_chromium(path: str) -> str | None:
    return _problem([path, "--version"]) if Path(path).is_file() else "no such file"


def _problem(*commands: list[str]) -> str | None:
    """Run commands one after the other; return why one failed, or None."""
    for command in commands:
        done = _run(command)
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
            errors = [line for line in lines if line.lstrip().lower().startswith(("error", "e:"))]
            return (errors or lines)[-1].strip()
    return None


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options: Any = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "env": quiet}
    try:
        return subprocess.run(command, timeout=_DOWNLOAD_S, check=False, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
