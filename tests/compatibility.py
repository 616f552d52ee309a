"""Try the playground in every front end: ``python -m tests.compatibility [NAME …] [--folder FOLDER]``.

Each front end gets a virtual environment of its own with this checkout in it. A notebook with ``rtnb.Playground`` runs
there in a real browser: a typed message is answered, its audio is played, events appear, and a fake microphone reaches
the simulator. The result is a table in Markdown. It needs Chromium, Firefox (Debian: ``firefox-esr``), npm (for
JupyterHub), and the package registries; a run takes some minutes. `--folder` keeps the environments for the next run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from playwright.async_api import Browser, BrowserContext, Page, Playwright, async_playwright

from rtnb.audio import babble, write_wav
from tests.browser.chromium import find_chromium, flags, prepare_driver

ROOT = Path(__file__).resolve().parent.parent
INSTALL_S, START_S, OPEN_S, STEP_S = 900, 90, 120, 30
SHOWN = ".rtnb-facts"
FIREFOX = {"media.navigator.streams.fake": True, "media.navigator.permission.disabled": True}
"""Preferences for a microphone that plays a tone and needs no permission."""

CELL = """
import asyncio, html, json
import ipywidgets, rtnb
from IPython.display import display
from rtnb.widgets.channel import shared_channel

playground = rtnb.Playground({target})
facts = ipywidgets.HTML()
display(playground, facts)


def observe():
    session = playground.session
    log = session.log
    heard = session.playback.heard()
    return {{
        "channel": shared_channel().status.kind,
        "status": str(shared_channel().status),
        "events": len(log),
        "played_ms": 0.0 if heard.empty else float(heard.played_ms.max()),
        "playback": repr(session.playback),
        "frames": len(log.filter("input_audio_buffer.append")),
        "turns": len(log.filter("input_audio_buffer.speech_stopped")),
        "session": session.id,
    }}


async def show():
    while True:
        await asyncio.sleep(0.5)
        try:
            observed = observe()
        except Exception as error:
            observed = {{"error": repr(error)}}
        facts.value = f"<pre class='rtnb-facts'>{{html.escape(json.dumps(observed))}}</pre>"


showing = asyncio.get_running_loop().create_task(show())
"""


@dataclass
class Row:
    """One line of the table."""

    front_end: str
    version: str
    browser: str
    conversation: str = "–"
    sound: str = "–"
    microphone: str = "–"
    channel: str = "–"
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        cells = (*list(vars(self).values())[:-1], "; ".join(self.remarks) or "–")
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| front end | version | browser | conversation | sound | microphone | channel | remarks |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class FrontEnd:
    """A front end: its packages, its server's command, and the page of the notebook."""

    name: str
    package: str
    packages: tuple[str, ...]
    command: tuple[str, ...] = ("jupyter-lab", "--ServerApp.token=", "--ServerApp.password=", "--allow-root")
    path: str = "/lab/tree/trial.ipynb"
    runs: bool = True
    """Whether the cells are run by the menu; Voilà runs them by itself."""
    browser: str = "chromium"
    hub: bool = False
    host: str = "127.0.0.1"
    """Name in the address; another than this machine's stands for a server far away."""
    environment: str = ""
    """Name of a front end whose virtual environment it shares."""


LAB = FrontEnd("lab", "jupyterlab", ("jupyterlab",))
HUB = FrontEnd("hub", "jupyterhub", ("jupyterhub", "jupyterlab"), hub=True)
FRONT_ENDS = (
    replace(LAB, name="lab42", packages=("jupyterlab==4.2.*",)),
    LAB,
    FrontEnd(
        "notebook",
        "notebook",
        ("notebook>=7",),
        ("jupyter-notebook", "--ServerApp.token=", "--ServerApp.password=", "--allow-root"),
        "/notebooks/trial.ipynb",
    ),
    FrontEnd("voila", "voila", ("voila",), ("voila", "trial.ipynb"), "/", runs=False),
    HUB,
    replace(HUB, name="hub-far", host="hub.test", environment="hub"),
    replace(HUB, name="hub-proxy", host="hub.test", packages=(*HUB.packages, "jupyter-server-proxy")),
    replace(LAB, name="firefox", browser="firefox", environment="lab"),
)
"""All trials, in the order of the table."""


class Trials:
    """Environments, servers and browsers of the trials.

    Parameters
    ----------
    folder : Path
        Keeps the virtual environments, the logs and a picture of each page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.microphone = folder / "speech.wav"
        speech = babble("what is a delta", seed=3).audio
        pause = np.zeros(2 * 24_000)
        write_wav(self.microphone, np.concatenate([pause, speech, pause]), rate_hz=24_000)

    # --- environments -------------------------------------------------------------------------------------------------

    def install(self, end: FrontEnd) -> Path:
        """Return the `bin` folder of the front end's virtual environment, with this checkout installed into it."""
        home = self.folder / f"venv-{end.environment or end.name}"
        if not (home / "bin" / "pip").exists():
            self.run(f"{end.name}-venv", [sys.executable, "-m", "venv", str(home)])
            self.run(f"{end.name}-pip", [str(home / "bin" / "pip"), "install", *end.packages, f"{ROOT}[sim]"])
        else:
            again = ["install", "--force-reinstall", "--no-deps", str(ROOT)]
            self.run(f"{end.name}-pip", [str(home / "bin" / "pip"), *again])
        overrides = home / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
        overrides.parent.mkdir(parents=True, exist_ok=True)
        overrides.write_text('{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}')
        return home / "bin"

    def proxy(self) -> Path:
        """Return the command of JupyterHub's proxy, installed by npm."""
        home = self.folder / "proxy"
        command = home / "node_modules" / ".bin" / "configurable-http-proxy"
        if not command.exists():
            self.run("proxy-npm", ["npm", "install", "--prefix", str(home), "configurable-http-proxy"])
        return command

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run a command to its end; its output is kept."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            done = subprocess.run(command, stdout=out, stderr=out, timeout=INSTALL_S, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()[-2_000:]}")

    @contextmanager
    def server(self, name: str, command: Sequence[str], *, folder: Path, url: str, bin_: Path) -> Iterator[None]:
        """Run a server until the block ends; enters once `url` answers."""
        own = {"HOME": str(folder), "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
        kept = {key: os.environ[key] for key in os.environ if not key.startswith(("JUPYTER", "PYTHON", "RTNB"))}
        log = self.folder / f"{name}-server.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=folder, env=kept | own, stdout=out, stderr=out, start_new_session=True
            )
            try:
                end_s = time.monotonic() + START_S
                while not _answers(url):
                    if process.poll() is not None or time.monotonic() > end_s:
                        raise RuntimeError(f"{command[0]} does not answer at {url}:\n{log.read_text()[-2_000:]}")
                    time.sleep(0.3)
                yield
            finally:
                _end(process)

    # --- trials -------------------------------------------------------------------------------------------------------

    async def attempt(self, end: FrontEnd, playwright: Playwright) -> list[Row]:
        """Try one front end; returns a row for each of its users."""
        bin_ = self.install(end)
        folder = self.folder / f"work-{end.name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        version = _version(bin_, end.package)
        port = _free_port()
        browser = await self.launch(end, playwright, f"http://{end.host}:{port}")
        row = Row(end.package, version, f"{end.browser.capitalize()} {browser.version.split('.')[0]}")
        try:
            return await (self.try_hub if end.hub else self.try_one)(end, bin_, folder, browser, row, port)
        finally:
            await browser.close()

    async def launch(self, end: FrontEnd, playwright: Playwright, origin: str) -> Browser:
        """Start the browser with its fake microphone; `origin` counts as secure, as if it were https."""
        if end.browser == "firefox":
            path = shutil.which("firefox-esr") or shutil.which("firefox")
            if path is None:
                raise RuntimeError("no Firefox on PATH; on Debian: apt-get install firefox-esr")
            return await playwright.firefox.launch(  # by WebDriver BiDi: Mozilla's own builds have it, no driver needed
                channel="moz-firefox", executable_path=path, firefox_user_prefs=FIREFOX
            )
        speech = f"--use-file-for-fake-audio-capture={self.microphone}"
        names = [f"--unsafely-treat-insecure-origin-as-secure={origin}", "--host-resolver-rules=MAP *.test 127.0.0.1"]
        return await playwright.chromium.launch(executable_path=find_chromium(), args=[*flags(), speech, *names])

    async def try_one(
        self, end: FrontEnd, bin_: Path, folder: Path, browser: Browser, row: Row, port: int
    ) -> list[Row]:
        """Try a front end of one user, each with a simulator of its own."""
        _write(folder / "trial.ipynb", '"sim"')
        number = f"--port={port}" if end.command[0] == "voila" else f"--ServerApp.port={port}"
        command = [str(bin_ / end.command[0]), *end.command[1:], "--no-browser", number]
        url = f"http://127.0.0.1:{port}"
        with self.server(end.name, command, folder=folder, url=url if end.runs else f"{url}/voila/static", bin_=bin_):
            page = await (await _context(browser, end)).new_page()
            await page.goto(f"http://{end.host}:{port}{end.path}", timeout=1000 * START_S)
            await self.talk(end, page, row, end.name)
        return [row]

    async def try_hub(
        self, end: FrontEnd, bin_: Path, folder: Path, browser: Browser, row: Row, port: int
    ) -> list[Row]:
        """Try two users of a JupyterHub who share one simulator."""
        simulator, users = _free_port(), ("alice", "bob")
        at = f"http://127.0.0.1:{simulator}"
        for user in users:
            (folder / user).mkdir()
            _write(folder / user / "trial.ipynb", f"rtnb.Azure({at!r}, deployment='any', api_key='for-all')")
        config = _HUB.format(hub=port, api=_free_port(), folder=folder, proxy=self.proxy())
        (folder / "jupyterhub_config.py").write_text(config)
        serve = [str(bin_ / "rtnb"), "simulate", "--port", str(simulator), "--key", "for-all"]
        rows = [replace(row, front_end=f"{row.front_end} ({user}, at {end.host})", remarks=[]) for user in users]
        with (
            self.server(f"{end.name}-simulator", serve, folder=folder, url=at, bin_=bin_),
            self.server(end.name, [str(bin_ / "jupyterhub")], folder=folder, url=f"http://127.0.0.1:{port}", bin_=bin_),
        ):
            sessions = await asyncio.gather(
                *(self.hub_user(end, browser, user, port, one) for user, one in zip(users, rows, strict=True))
            )
        if len(set(sessions)) != len(users):
            rows[-1].remarks.append(f"sessions are not separate: {sessions}")
        return rows

    async def hub_user(self, end: FrontEnd, browser: Browser, user: str, port: int, row: Row) -> str:
        page = await (await _context(browser, end)).new_page()
        notebook = f"/hub/user/{user}{end.path}"
        await page.goto(f"http://{end.host}:{port}/hub/login?next={notebook}", timeout=1000 * START_S)
        await page.fill("[name=username]", user)
        await page.fill("[name=password]", "trial")
        await page.click("[type=submit]")
        await page.wait_for_url(f"**/user/{user}/lab/**", timeout=1000 * START_S)
        return await self.talk(end, page, row, f"{end.name}-{user}")

    async def talk(self, end: FrontEnd, page: Page, row: Row, name: str) -> str:
        """Open the playground and use it; fills the row and returns the session's id."""
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error).splitlines()[0]))
        try:
            await _open(page, end)
            session = await self._ask(page, row)
            await self._speak(page, row)
            facts = await _until(page, "facts", lambda facts: "channel" in facts)
            row.channel = facts["channel"]
        except Exception as error:
            traceback.print_exc()
            row.remarks.append(f"failed: {str(error).splitlines()[0][:200]}")
            session = f"none, {name}"
        finally:
            await page.screenshot(path=self.folder / f"{name}.png", timeout=1000 * STEP_S)
        row.remarks += [f"page error: {problem}" for problem in dict.fromkeys(problems)]
        return session

    async def _ask(self, page: Page, row: Row) -> str:
        """Type a message; wait for the transcript, the audio and the events."""
        row.conversation = row.sound = "no"
        await page.get_by_placeholder(re.compile("Type a message|Say it in writing")).fill("What is a delta?")
        await page.keyboard.press("Enter")
        await page.get_by_text(re.compile("A delta is")).first.wait_for(timeout=1000 * STEP_S)
        row.conversation = "yes"
        facts = await _until(page, "played", lambda facts: facts.get("played_ms", 0) > 500)
        row.sound = f"played {facts['played_ms'] / 1000:.1f} s"
        if "reported" not in facts["playback"]:
            row.sound, row.remarks = "no report of the speaker", [*row.remarks, facts["playback"]]
        tab = page.get_by_role("tab", name=re.compile("Events"))
        if await tab.count():
            await tab.first.click()
        await page.locator(".rtnb-ev-row:visible").first.wait_for(timeout=1000 * STEP_S)
        return str(facts["session"])

    async def _speak(self, page: Page, row: Row) -> None:
        """Start the microphone; wait until its audio has reached the simulator."""
        row.microphone = "no"
        if not await page.evaluate("isSecureContext"):
            row.remarks.append("no https: the browser gives no microphone")
        name = re.compile(r"^\W*(Start|Start microphone|Play the sample recording)$")
        button = page.get_by_role("button", name=name)
        label = await button.first.text_content()
        await button.first.click()
        facts = await _until(page, "frames", lambda facts: facts.get("frames", 0) > 50)
        row.microphone = f"{label}: heard"
        try:
            facts = await _until(page, "turn", lambda facts: facts.get("turns", 0) > 0, timeout_s=20)
            row.microphone = "a spoken turn"
        except TimeoutError:
            row.microphone = f"{facts['frames']} frames"


# --- pages ------------------------------------------------------------------------------------------------------------


async def _context(browser: Browser, end: FrontEnd) -> BrowserContext:
    permissions = {"permissions": ["microphone"]} if end.browser == "chromium" else {}
    return await browser.new_context(viewport={"width": 1440, "height": 900}, **permissions)  # type: ignore[arg-type]


async def _open(page: Page, end: FrontEnd) -> None:
    """Run the notebook until the playground and its facts are there."""
    end_s = time.monotonic() + OPEN_S
    while not await page.locator(SHOWN).count():
        if time.monotonic() > end_s:
            raise TimeoutError(f"the notebook shows no playground within {OPEN_S} s")
        if end.runs:  # a page loses a run that is chosen before its kernel is connected: choose it again
            try:
                await page.get_by_role("menuitem", name="Run", exact=True).click(timeout=1000 * START_S)
                await page.get_by_role("menuitem", name=re.compile("^Run All Cells")).first.click(timeout=5_000)
            except Exception:
                await page.keyboard.press("Escape")
        try:
            await page.locator(SHOWN).wait_for(timeout=20_000)
        except Exception:
            continue


async def _until(page: Page, name: str, test: Any, *, timeout_s: float = STEP_S) -> dict[str, Any]:
    """Wait until the kernel's facts on the page pass a test; returns them."""
    end_s = time.monotonic() + timeout_s
    facts: dict[str, Any] = {}
    while time.monotonic() < end_s:
        facts = json.loads(await page.locator(SHOWN).last.text_content() or "{}")
        if test(facts):
            return facts
        await asyncio.sleep(0.3)
    raise TimeoutError(f"{name}: not within {timeout_s:g} s; {facts}")


# --- servers ----------------------------------------------------------------------------------------------------------

_HUB = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{hub}"
c.JupyterHub.hub_port = {api}
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "trial"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "jupyterhub.spawner.SimpleLocalProcessSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/{{username}}"
c.Spawner.args = ["--allow-root"]
c.ConfigurableHTTPProxy.command = ["{proxy}"]
"""


def _write(path: Path, target: str) -> None:
    cells = [nbformat.v4.new_code_cell(CELL.format(target=target))]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}  # else the page asks
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def _version(bin_: Path, package: str) -> str:
    asked = [str(bin_ / "python"), "-c", f"import importlib.metadata as m; print(m.version({package!r}))"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5)
    except urllib.error.HTTPError:
        return True
    except (OSError, TimeoutError):
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue
        time.sleep(0.5)  # its children end a moment later


async def main(names: Sequence[str], folder: Path) -> None:
    """Try the front ends and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare_driver()
    trials = Trials(folder)
    rows: list[Row] = []
    async with async_playwright() as playwright:
        for end in FRONT_ENDS:
            if names and end.name not in names:
                continue
            try:
                rows += await trials.attempt(end, playwright)
            except Exception as error:
                traceback.print_exc()
                failed = f"not tried: {str(error).splitlines()[0][:200]}"
                rows.append(Row(end.package, "?", end.browser.capitalize(), remarks=[failed]))
            sys.stderr.write(f"{rows[-1]}\n")
    sys.stdout.write("\n".join([HEAD, *map(str, rows), ""]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(end.name for end in FRONT_ENDS)}; default: all")
    parser.add_argument("--folder", type=Path, help="keep everything there")
    given = parser.parse_args()
    if given.folder:
        asyncio.run(main(given.names, given.folder.resolve()))
    else:
        with tempfile.TemporaryDirectory(prefix="rtnb-compatibility-") as made:
            asyncio.run(main(given.names, Path(made)))
