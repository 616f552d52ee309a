"""Find a Chromium, or install one; browser tests never skip silently.

In this order: the environment variable RTNB_CHROMIUM; a browser on PATH; the one Playwright has installed; Playwright's
download; where that is refused, as root on a Debian-like system, the package `chromium`. Otherwise an error that says
what to do.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
    command = [sys.executable, "-m", "playwright", "--version"]
    done = _run(command)
    if done.returncode and _may_use_apt():
        for help_it in (
            ["apt-get", "update"],
            ["apt-get", "install", "--yes", "--no-install-recommends", "libatomic1"],
        ):
            _run(help_it)
        done = _run(command)
    if done.returncode:
        story = _last_line(done)
        raise ChromiumMissing(f"Playwright does not start: {story}\nInstall what it misses (Debian: libatomic1).")


def find_chromium() -> str:
    """The path of a Chromium that starts.

    Raises
    ------
    ChromiumMissing
        If none is found and none can be installed.
    """
    if named := os.environ.get(VARIABLE):
        if problem := _problem(named):
            raise ChromiumMissing(f"{VARIABLE}={named}: {problem}. Set it to the path of a Chromium that starts.")
        return named
    tried = []
    for find in (_on_path, _playwrights_own, _download, _debian_package):
        path, story = find()
        if path:
            return path
        tried.append(f"- {story}")
    raise ChromiumMissing(
        "\n".join(
            (
                "The browser tests need a Chromium, and none was found or could be installed:",
                *tried,
                f"Install Chromium or Chrome, or set {VARIABLE} to the path of one, and run the tests again.",
            )
        )
    )


def _on_path() -> tuple[str | None, str]:
    for name in NAMES:
        path = shutil.which(name)
        if path and not _problem(path):
            return path, ""
    return None, f"on PATH: none of {', '.join(NAMES)}"


def _playwrights_own() -> tuple[str | None, str]:
    code = "from playwright.sync_api import sync_playwright as p\nwith p() as q: print(q.chromium.executable_path)"
    # In a process of its own: the synchronous interface must not meet the tests' event loop.
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    path = asked.stdout.strip()
    if asked.returncode or not path:
        return None, f"Playwright's own: {_last_line(asked)}"
    problem = _problem(path)
    return (None, f"Playwright's own: {problem}") if problem else (path, "")


def _download() -> tuple[str | None, str]:
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    done = _run(command)
    if done.returncode:
        return None, f"Playwright's download: refused ({_last_line(done)})"
    return _playwrights_own()


def _debian_package() -> tuple[str | None, str]:
    if not _may_use_apt():
        return None, "Debian's package: needs apt-get and root"
    for command in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]):
        done = _run(command)
        if done.returncode:
            return None, f"Debian's package: {' '.join(command)}: {_last_line(done)}"
    return _on_path()


def _may_use_apt() -> bool:
    return shutil.which("apt-get") is not None and hasattr(os, "geteuid") and os.geteuid() == 0


def _problem(path: str) -> str | None:
    """Why this is not a Chromium that starts; None if it is."""
    if not Path(path).is_file():
        return "no such file"
    try:
        asked = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if asked.returncode == 0 else _last_line(asked)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_S,
            check=False,
            env=quiet,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no end after {_DOWNLOAD_S} s")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    errors = [line for line in lines if line.lstrip().lower().startswith(("error", "e:"))]
    return (errors or lines or [f"exit code {done.returncode}"])[-1].strip()
