"""Time to the first audio on a machine without rtnb.

``python -m tests.benchmarks.first_run``: a fresh clone of this repository's last commit, an empty home folder, and the
README's first command word for word. ``python -m tests.benchmarks.first_run python3.11 python3.12 python3.13``: instead
of the clone an empty folder and, for each of these, the wheel in a new virtual environment, and `rtnb doctor`.

The browser that the command opens is a headless Chromium, where Run All Cells is chosen. Prints when the server
answered, when the notebook was there, and when it held the first spoken answer; packages come from wherever pip gets
them, and the time that takes is that of the connection.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.benchmarks.stage import ROOT, chromium, options

COMMAND = re.compile(r"<!-- command: lab -->\n```bash\n(.+?)\n```", re.DOTALL)
INSTALLED_S, SHOWN_S = 600.0, 120.0
ANSWER = re.compile(r"A delta is .+\(\d+\.\d s, there after")


def opened_address(note: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the address that the command opens in a browser, once it does."""
    deadline = time.monotonic() + INSTALLED_S
    while not (note.exists() and note.read_text().strip()):
        assert process.poll() is None, f"the command ended with {process.returncode}"
        assert time.monotonic() < deadline, f"nothing was opened within {INSTALLED_S:.0f} s"
        time.sleep(0.05)
    return note.read_text().strip()


def outside() -> dict[str, str]:
    """Return the environment without the virtual environment this runs in."""
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    mine = str(Path(sys.executable).parent)
    return kept | {"PATH": os.pathsep.join(place for place in kept["PATH"].split(os.pathsep) if place != mine)}


async def on_page(address: str, passed: Callable[[str], None]) -> None:
    """Run all cells, as a person would, until there is something to hear."""
    async with chromium() as browser:
        page = await browser.new_page()
        page.set_default_timeout(1000 * SHOWN_S)
        await page.goto(address)
        await page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
        passed("the first notebook is there, and its kernel")
        await page.get_by_role("menuitem", name="Run", exact=True).click()
        await page.get_by_role("menuitem", name=re.compile("^Run All Cells")).first.click()
        await page.locator(".jp-OutputArea-output", has_text=ANSWER).first.wait_for()
        passed("the first spoken answer is in the kernel")
        await page.locator(".jp-OutputArea-output audio").first.wait_for()
        passed("it can be heard")


def try_command(command: str, folder: Path) -> None:
    """Run a command that opens the course, in the subfolder ``start``, and the first notebook there."""
    (folder / "home").mkdir()
    note, open_it = folder / "opened", folder / "open_it"
    open_it.write_text(f'#!/bin/sh\necho "$1" > {note}\n')
    open_it.chmod(0o755)
    environment = outside() | {"HOME": str(folder / "home"), "BROWSER": f"{open_it} %s"}
    start = time.monotonic()

    def passed(what: str) -> None:
        print(f"{time.monotonic() - start:7.1f} s  {what}", flush=True)

    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder / "start",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = opened_address(note, process)
        passed("the browser is opened")
        asyncio.run(on_page(address, passed))
    except BaseException:
        print((folder / "log").read_text(encoding="utf-8", errors="replace"))
        raise
    finally:
        with suppress(ProcessLookupError):  # a command that failed has ended
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def main() -> None:
    pythons = options(__doc__, pythons=[""]).pythons
    command = COMMAND.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert command, "README.md holds no command after <!-- command: lab -->"
    for python in pythons:
        with tempfile.TemporaryDirectory(prefix="rtnb-first-run-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            if not python:
                subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "start")], check=True)
                try_command(command[1], folder)
                continue
            (folder / "start").mkdir()
            build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
            (wheel,) = folder.glob("*.whl")
            print(python)
            install = f"{python} -m venv .venv && .venv/bin/pip install --quiet '{wheel}[sim]'"
            try_command(f"{install} && .venv/bin/rtnb doctor --offline && .venv/bin/rtnb lab", folder)


if __name__ == "__main__":
    main()
