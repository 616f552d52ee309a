"""Try the playground in every front end: ``python -m tests.compatibility [NAME …] [--folder FOLDER]``.

Each front end gets its own virtual environment with this checkout in it. A notebook with ``rtnb.Playground`` runs
there in a real browser: a typed message is answered, its audio is played, events appear, and a fake microphone reaches
the simulator. The result is a table in Markdown. It needs Chromium, Firefox (Debian: ``firefox-esr``), npm (for
JupyterHub), and the package registries; a run takes some minutes. `--folder` keeps the environments for the next run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from packaging.requirements import Requirement
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page
from websockets.asyncio.client import ClientConnection, connect

from rtnb.audio import babble, write_wav
from tests.benchmarks.stage import ROOT, chromium

INSTALL_S, START_S, OPEN_S, STEP_S = 900, 90, 120, 30
SHOWN = ".rtnb-facts"
FIREFOX = """
user_pref("media.navigator.streams.fake", true);
user_pref("media.navigator.permission.disabled", true);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("focusmanager.testmode", true);
"""
"""Preferences: a microphone that plays a tone and needs no permission, no questions, a focus without a window."""

FIND = """((css, pattern) => {
    for (const node of document.querySelectorAll(css)) {
        if (!new RegExp(pattern).test(node.textContent) || !node.getClientRects().length) continue;
        let box = node.getBoundingClientRect();
        if (box.top < 0 || box.bottom > innerHeight) node.scrollIntoView({ block: "center" });
        box = node.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    }
    return null;
})"""
"""Middle of the first visible element with a text."""

CELL = """
import asyncio, json
import ipywidgets, rtnb
from IPython.display import display
from rtnb.widgets.channel import shared_channel

playground = rtnb.Playground({target})
facts = ipywidgets.HTML()
display(playground, facts)


async def show():
    while True:
        await asyncio.sleep(0.5)
        session = playground.session
        observed = {{
            "channel": shared_channel().status.kind,
            "played_ms": float(session.playback.heard().played_ms.max() or 0),
            "reported": "reported" in repr(session.playback),
            "frames": len(session.log.filter("input_audio_buffer.append")),
            "turns": len(session.log.filter("input_audio_buffer.speech_stopped")),
            "session": session.id,
        }}
        facts.value = f"<pre class='rtnb-facts'>{{json.dumps(observed)}}</pre>"


showing = asyncio.get_running_loop().create_task(show())
"""


@dataclass
class Row:
    """Line of the table."""

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
OPEN = ("--no-browser", "--ServerApp.port={port}", "--ServerApp.token=", "--ServerApp.password=", "--allow-root")


@dataclass(frozen=True)
class FrontEnd:
    """A front end: its packages (the first names it), its server's command, and the page of the notebook."""

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...] = ("jupyter-lab", *OPEN)
    path: str = "/lab/tree/trial.ipynb"
    answers_at: str = "/"
    """What the server serves as soon as it is up."""
    runs: bool = True
    """Whether the menu runs the cells; Voilà runs them unasked."""
    browser: str = "Chromium"
    users: tuple[str, ...] = ("",)
    """Users of a hub, who share one simulator."""
    host: str = "127.0.0.1"
    """Name in the address; another than this machine's stands for a server far away."""
    environment: str = ""
    """Name of a front end whose virtual environment it shares."""


LAB = FrontEnd("lab", ("jupyterlab",))
VOILA = ("voila", "trial.ipynb", "--no-browser", "--port={port}")
HUB = FrontEnd(
    "hub", ("jupyterhub", "jupyterlab"), ("jupyterhub",), "/hub/login?next=/hub/spawn", users=("alice", "bob")
)
FRONT_ENDS = (
    replace(LAB, name="lab42", packages=("jupyterlab==4.2.*",)),
    LAB,
    FrontEnd("notebook", ("notebook>=7",), ("jupyter-notebook", *OPEN), "/notebooks/trial.ipynb"),
    FrontEnd("voila", ("voila",), VOILA, "/", "/voila/static", runs=False),
    HUB,
    replace(HUB, name="hub-far", host="hub.test", environment="hub"),
    replace(HUB, name="hub-proxy", host="hub.test", packages=(*HUB.packages, "jupyter-server-proxy")),
    replace(LAB, name="firefox", browser="Firefox", environment="lab"),
)
"""All trials, in the order of the table."""


async def until(what: str, probe: Callable[[], Awaitable[Any]], *, timeout_s: float = STEP_S) -> Any:
    """Wait until a probe of the page finds something; returns it."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        with suppress(PlaywrightError, RuntimeError):  # a page that goes to another address
            if found := await probe():
                return found
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{what}: not within {timeout_s:g} s")


class Screen:
    """Page of a browser, as a person uses it: it is looked at, clicked, and typed into.

    The page of each browser adds `evaluate`, `goto`, `click_at`, `type` and `picture`.
    """

    version = ""
    problems: list[str]

    async def find(self, css: str, pattern: str = "", *, timeout_s: float = STEP_S) -> list[float]:
        """Wait for a visible element whose text matches; returns its middle."""
        expression = f"{FIND}({json.dumps(css)}, {json.dumps(pattern)})"
        found = await until(f"{css} with {pattern!r}", lambda: self.evaluate(expression), timeout_s=timeout_s)
        return list(found)

    async def facts(self, what: str, test: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until the kernel's facts on the page pass a test; returns them."""

        async def probe() -> dict[str, Any] | None:
            facts = json.loads(await self.evaluate(f"document.querySelector({SHOWN!r})?.textContent") or "{}")
            return facts if facts and test(facts) else None

        return dict(await until(what, probe))

    async def click(self, css: str, pattern: str = "", *, timeout_s: float = STEP_S) -> None:
        """Click the first visible element whose text matches."""
        await self.find(css, pattern, timeout_s=timeout_s)
        await asyncio.sleep(0.3)  # a page that still moves
        await self.click_at(*await self.find(css, pattern))


class ChromiumScreen(Screen):
    """Page of Chromium, by Playwright."""

    def __init__(self, version: str, page: Page) -> None:
        self.version, self.problems, self._page = f"Chromium {version.split('.')[0]}", [], page
        page.on("pageerror", lambda error: self.problems.append(str(error).splitlines()[0]))

    async def evaluate(self, expression: str) -> Any:
        return await self._page.evaluate(expression)

    async def goto(self, url: str) -> None:
        await self._page.goto(url, timeout=1000 * START_S)

    async def click_at(self, x: float, y: float) -> None:
        await self._page.mouse.click(x, y)

    async def type(self, text: str) -> None:
        await self._page.keyboard.type(text)

    async def picture(self, path: Path) -> None:
        await self._page.screenshot(path=path, timeout=1000 * STEP_S)


class FirefoxScreen(Screen):
    """Page of Firefox, by WebDriver BiDi: a WebSocket of the browser itself; no driver is needed.

    Playwright's own BiDi sends ``emulation.setMediaFeaturesOverride``, which Firefox 153 does not know.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.problems, self._socket, self._number = [], socket, 0

    async def start(self) -> None:
        """Begin a session and open a window."""
        made = await self._command("session.new", capabilities={})
        self.version = f"Firefox {made['capabilities']['browserVersion'].split('.')[0]}"
        made = await self._command("browsingContext.create", type="window")  # the first window never has the focus
        self._context = made["context"]
        viewport = {"width": 1440, "height": 900}
        await self._command("browsingContext.setViewport", context=self._context, viewport=viewport)

    async def _command(self, method: str, **params: Any) -> Any:
        self._number += 1
        await self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        async with asyncio.timeout(START_S):
            while (answer := json.loads(await self._socket.recv())).get("id") != self._number:
                pass  # events
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
        return answer["result"]

    async def evaluate(self, expression: str) -> Any:
        text = f"JSON.stringify({expression}) ?? 'null'"
        target = {"context": self._context}
        done = await self._command("script.evaluate", expression=text, target=target, awaitPromise=True)
        if done["type"] != "success":
            raise RuntimeError(done["exceptionDetails"]["text"])
        return json.loads(done["result"]["value"])

    async def goto(self, url: str) -> None:
        await self._command("browsingContext.navigate", context=self._context, url=url, wait="interactive")

    async def click_at(self, x: float, y: float) -> None:
        steps = [{"type": "pointerMove", "x": round(x), "y": round(y)}]
        steps += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        await self._act({"type": "pointer", "id": "mouse", "actions": steps})

    async def type(self, text: str) -> None:
        keys = [character if character != "\n" else "\ue007" for character in text]
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        await self._act({"type": "key", "id": "keyboard", "actions": steps})

    async def _act(self, source: dict[str, Any]) -> None:
        await self._command("input.performActions", context=self._context, actions=[source])

    async def picture(self, path: Path) -> None:
        shot = await self._command("browsingContext.captureScreenshot", context=self._context)
        path.write_bytes(base64.b64decode(shot["data"]))


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

    async def attempt(self, end: FrontEnd) -> list[Row]:
        """Try one front end; returns a row for each of its users."""
        bin_, folder, port = self.install(end), self.folder / f"work-{end.name}", _free_port()
        package, target, names = Requirement(end.packages[0]).name, '"sim"', {"port": port, "folder": folder}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with ExitStack() as servers:
            if len(end.users) > 1:
                simulator = _free_port()
                url = f"http://127.0.0.1:{simulator}"
                target = f"rtnb.Azure({url!r}, deployment='any', api_key='for-all')"
                serve = [str(bin_ / "rtnb"), "simulate", "--port", str(simulator), "--key", "for-all"]
                (folder / "jupyterhub_config.py").write_text(_HUB.format(**names, api=_free_port(), proxy=self.proxy()))
                servers.enter_context(self.server("simulator", serve, folder=folder, url=url, bin_=bin_))
            for user in end.users:
                _write(folder / user / "trial.ipynb", target)
            command = [str(bin_ / end.command[0]), *(word.format(**names) for word in end.command[1:])]
            url = f"http://127.0.0.1:{port}{end.answers_at}"
            servers.enter_context(self.server(end.name, command, folder=folder, url=url, bin_=bin_))
            version, at = _version(bin_, package), f"http://{end.host}:{port}"
            rows = [Row(f"{package} ({f'{end.name} {user}'.strip()})", version, end.browser) for user in end.users]
            browser = self.firefox if end.browser == "Firefox" else self.chromium
            async with browser(at) as new_screen:
                screens = [await new_screen() for _ in rows]
                talks = zip(screens, rows, end.users, strict=True)
                sessions = await asyncio.gather(*(self.talk(end, at, *one) for one in talks))
        if len(set(sessions)) != len(rows):
            rows[-1].remarks.append(f"sessions are not separate: {sessions}")
        return rows

    @asynccontextmanager
    async def chromium(self, origin: str) -> AsyncIterator[NewScreen]:
        """Start Chromium with its fake microphone; `origin` counts as secure, as if it were https."""
        speech = f"--use-file-for-fake-audio-capture={self.microphone}"
        secure = f"--unsafely-treat-insecure-origin-as-secure={origin}"
        async with chromium(speech, secure, "--host-resolver-rules=MAP *.test 127.0.0.1") as browser:

            async def new() -> Screen:
                size = {"width": 1440, "height": 900}
                context = await browser.new_context(viewport=size, permissions=["microphone"])  # type: ignore[arg-type]
                return ChromiumScreen(browser.version, await context.new_page())

            yield new

    @asynccontextmanager
    async def firefox(self, origin: str) -> AsyncIterator[NewScreen]:
        """Start Firefox with a new profile."""
        path = shutil.which("firefox-esr") or shutil.which("firefox")
        if path is None:
            raise RuntimeError("no Firefox on PATH; on Debian: apt-get install firefox-esr")
        profile, port = self.folder / "profile", _free_port()
        shutil.rmtree(profile, ignore_errors=True)
        profile.mkdir()
        (profile / "user.js").write_text(FIREFOX)
        command = [path, "--headless", "--no-remote", "--profile", str(profile), f"--remote-debugging-port={port}"]
        url = f"http://127.0.0.1:{port}"
        with self.server("firefox", command, folder=profile, url=url, bin_=Path(path).parent):
            async with connect(f"ws://127.0.0.1:{port}/session", max_size=None, proxy=None) as socket:

                async def new() -> Screen:
                    screen = FirefoxScreen(socket)
                    await screen.start()
                    return screen

                yield new

    async def talk(self, end: FrontEnd, at: str, screen: Screen, row: Row, user: str) -> str:
        """Open the playground and use it; fills the row and returns the session's id."""
        row.browser = screen.version
        name = f"{end.name}-{user}".strip("-")
        session = f"none ({name})"
        try:
            await screen.goto(at + end.path)
            for field_, text in (("username", user), ("password", "trial\n")) if user else ():
                await screen.click(f"[name={field_}]")
                await screen.type(text)
            await _open(screen, end)
            session = await self._ask(screen, row)
            await self._speak(screen, row)
        except Exception as error:
            traceback.print_exc()
            row.remarks.append(f"failed: {str(error).splitlines()[0][:200]}")
        with suppress(PlaywrightError, RuntimeError):
            await screen.picture(self.folder / f"{name}.png")
        row.remarks += [f"page error: {problem}" for problem in dict.fromkeys(screen.problems)]
        return session

    async def _ask(self, screen: Screen, row: Row) -> str:
        """Type a message; wait for the transcript, the audio and the events."""
        row.conversation = row.sound = "no"
        await screen.click(".rtnb textarea[placeholder^='Type a message']")
        await screen.type("What is a delta?\n")
        await screen.find(".rtnb-transcript", "A delta is")
        row.conversation = "yes"
        row.channel = (await screen.facts("the way of sound and events", lambda facts: facts["channel"]))["channel"]
        facts = await screen.facts("audio", lambda facts: facts["played_ms"] > 500)
        row.sound = "played" if facts["reported"] else "no report of the speaker"
        await screen.click(".lm-TabBar-tab", "Events")
        await screen.find(".rtnb-ev-row", "session.created|response|conversation")
        row.conversation = "yes, with events"
        return str(facts["session"])

    async def _speak(self, screen: Screen, row: Row) -> None:
        """Start the microphone; wait until its audio has reached the simulator."""
        row.microphone = "no"
        if not await screen.evaluate("isSecureContext"):
            row.remarks.append("no https: the browser gives no microphone")
        await screen.click(".rtnb-microphone button", "Start microphone|Play the sample")
        facts = await screen.facts("audio of the microphone", lambda facts: facts["frames"] > 50)
        row.microphone = f"{facts['frames']} frames"
        if row.browser.startswith("Firefox"):  # its fake microphone plays a tone, which is no speech
            return
        await screen.facts("a spoken turn", lambda facts: facts["turns"] > 0)
        row.microphone = "a spoken turn"


NewScreen = Callable[[], Awaitable[Screen]]
"""``await new_screen()`` opens a page that shares nothing with the others."""


# --- pages ------------------------------------------------------------------------------------------------------------


async def _open(screen: Screen, end: FrontEnd) -> None:
    """Run the notebook until the playground and its facts are there."""
    end_s = time.monotonic() + OPEN_S
    if end.runs:
        await screen.find(".lm-MenuBar-item", "^Run$", timeout_s=START_S)
    while time.monotonic() < end_s:
        with suppress(TimeoutError):
            if end.runs:  # a page loses a run that is chosen before its kernel is connected: choose it again
                await screen.click(".jp-CodeCell .cm-content", timeout_s=START_S)
                await screen.click(".lm-MenuBar-item", "^Run$")
                await screen.click(".lm-Menu-item", "^Run All Cells", timeout_s=5)
            await screen.find(SHOWN, timeout_s=20)
            return
    raise TimeoutError(f"the notebook shows no playground within {OPEN_S} s")


# --- servers ----------------------------------------------------------------------------------------------------------

_HUB = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {api}
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "trial"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "jupyterhub.spawner.SimpleLocalProcessSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/{{username}}"
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/lab/tree/trial.ipynb"
c.ConfigurableHTTPProxy.command = ["{proxy}"]
"""


def _write(path: Path, target: str) -> None:
    path.parent.mkdir(exist_ok=True)
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
    """End a server, and then what it leaves behind: a hub needs its proxy to stop the servers of its users."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


async def main(names: Sequence[str], folder: Path) -> None:
    """Try the front ends and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    trials = Trials(folder)
    rows: list[Row] = []
    for end in FRONT_ENDS:
        if names and end.name not in names:
            continue
        try:
            rows += await trials.attempt(end)
        except Exception as error:
            traceback.print_exc()
            failed = f"not tried: {str(error).splitlines()[0][:200]}"
            rows.append(Row(end.name, "?", end.browser, remarks=[failed]))
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
