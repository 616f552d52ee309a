"""A real JupyterLab, started with `rtnb lab`, and its notebooks in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import psutil
from playwright.async_api import Browser, Page

VIEWPORT: Any = {"width": 1280, "height": 1000}

_START_S = 90.0  # a cold JupyterLab on two busy cores took 12 s
_STOP_S = 30.0
_CONFIGURATION = {
    # no question over the page
    "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
    # cells out of sight are laid out, too
    "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    # its sidebar asks for what is not served: 403
    "config/labconfig/page_config.json": {"disabledExtensions": {"ipyparallel-labextension": True}},
}
_ON_PANEL = """([path, given]) => {
    const widgets = window.jupyterapp?.shell.widgets("main") ?? [];
    const panel = [...widgets].find((widget) => widget.context?.path === path);
    return %s;
}"""
# The page's indicators say "idle" also before there is a kernel; JupyterLab loses what is run then (measured, on a cold
# start). Cells far below are added to the page a little later.
_IDLE = """panel?.isVisible && panel.context.isReady && panel.sessionContext.isReady
    && panel.sessionContext.session?.kernel?.connectionStatus === "connected"
    && panel.sessionContext.session.kernel.status === "idle"
    && panel.node.querySelectorAll(".jp-Cell").length >= panel.content.model.cells.length
    && ![...panel.node.querySelectorAll(".jp-InputPrompt")].some((prompt) => prompt.textContent.includes("*"))"""
_EXECUTE = """(() => {
    if (jupyterapp.shell.currentWidget !== panel) jupyterapp.shell.activateById(panel.id); // the launcher may come late
    return jupyterapp.commands.execute(given);
})()"""
_OUTPUTS = """(() => {
    const shown = ({ text, data }) => {
        if (!data?.["text/html"]) return text ?? data?.["text/plain"] ?? "";
        const page = new DOMParser().parseFromString(data["text/html"], "text/html");
        page.querySelectorAll("style, script").forEach((node) => node.remove());
        return page.body.textContent;
    };
    const cells = panel.content.widgets.filter((cell) => cell.model.type === "code");
    const outputs = cells.map((cell) => cell.model.outputs.toJSON());
    const tracebacks = outputs.flat().flatMap(({ traceback }) => traceback ?? []);
    return [outputs.map((some) => some.flatMap(shown).join("\\n")), tracebacks];
})()"""


class Lab:
    """`rtnb lab --no-browser` in a process of its own, with settings and kernels of its own.

    Parameters
    ----------
    home : Path
        An empty folder: the process's home, configuration, and (in `home/"work"`) the working copy of the notebooks.
    arguments : iterable of str, optional
        More options of `rtnb lab`.
    """

    def __init__(self, home: Path, *, arguments: Iterable[str] = ()) -> None:
        self.home = home
        self.directory = home / "work"
        self.token = secrets.token_hex(16)
        self.url = ""
        self._arguments = arguments
        self._process: subprocess.Popen[bytes]

    def start(self) -> Lab:
        """Start the server and wait until it serves."""
        for name, value in _CONFIGURATION.items():
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            (self.home / name).write_text(json.dumps(value), encoding="utf-8")
        rtnb_lab = [sys.executable, "-m", "rtnb", "lab", "--no-browser", "--port", "0"]
        with (self.home / "lab.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*rtnb_lab, "--directory", str(self.directory), *self._arguments, "--", "--expose-app-in-browser"],
                cwd=self.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_S
        while not (serving := re.search(r"^Serving http://localhost:(\d+)", self.log(), re.MULTILINE)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise AssertionError(f"rtnb lab does not serve:\n{self.log()}")
            time.sleep(0.1)
        self.url = f"http://127.0.0.1:{serving[1]}"
        return self

    def stop(self, *, by: signal.Signals = signal.SIGTERM) -> int:
        """End the server and return its exit code; a server that does not end is killed, and that is an error."""
        self._process.send_signal(by)
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"rtnb lab did not end within {_STOP_S} s of {by.name}:\n{self.log()}") from None

    def log(self) -> str:
        """What the server has printed so far."""
        return (self.home / "lab.log").read_text(encoding="utf-8", errors="replace")

    def page_url(self, name: str = "") -> str:
        """The address of JupyterLab, showing one notebook; a workspace of its own, so tests do not meet there."""
        workspace = f"{self.url}/lab/workspaces/test-{secrets.token_hex(4)}"
        return f"{workspace}/tree/{quote(name)}?token={self.token}" if name else f"{workspace}?token={self.token}"

    def get(self, path: str) -> Any:
        """The server's REST answer, e.g. to ``api/kernels``."""
        return self._ask(path, None)

    def post(self, path: str, body: Any) -> Any:
        """The server's REST answer to a POST of JSON."""
        return self._ask(path, json.dumps(body).encode())

    def processes_left(self) -> list[str]:
        """The command lines of processes that belong to this server and still run."""
        running = psutil.process_iter(["cmdline", "environ"])
        return [str(one.info["cmdline"]) for one in running if (one.info["environ"] or {}).get(_TOKEN) == self.token]

    def write(self, name: str, cells: Iterable[str]) -> None:
        """Put a scratch notebook with these code cells into the working folder."""
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(book, self.directory / name)

    def _ask(self, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(f"{self.url}/{path}", body, {"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def _environment(self) -> dict[str, str]:
        places = {
            "HOME": "",
            "IPYTHONDIR": "ipython",
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "OPENAI_"))}
        return {**kept, **{name: str(self.home / place) for name, place in places.items()}, _TOKEN: self.token}


_TOKEN = "JUPYTER_TOKEN"


class NotebookPage:
    """A notebook open in Chromium."""

    def __init__(self, lab: Lab, page: Page, name: str, pictures: Path) -> None:
        self.lab = lab
        self.page = page
        self.name = name
        self.messages: list[str] = []
        """Errors the page has written to its console or thrown."""
        self._pictures = pictures
        page.on("console", lambda message: self.messages.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.messages.append(str(error)))

    async def on_panel(self, expression: str, given: Any = None, *, timeout_s: float = 120.0) -> Any:
        """Evaluate JavaScript with `panel`, this notebook in JupyterLab, and `given`; a promise is awaited."""
        async with asyncio.timeout(timeout_s):
            return await self.page.evaluate(_ON_PANEL % expression, [self.name, given])

    async def execute(self, command: str, *, timeout_s: float = 120.0) -> None:
        """Execute a command of JupyterLab's menus on this notebook and wait for its end."""
        await self.on_panel(_EXECUTE, command, timeout_s=timeout_s)

    async def run_all(self, *, timeout_s: float = 120.0) -> list[str]:
        """Run all cells and return what each shows, as `outputs` does."""
        await self.execute("notebook:run-all-cells", timeout_s=timeout_s)
        return await self.outputs()

    async def until_idle(self, *, timeout_s: float = 120.0) -> None:
        """Wait until the notebook is open, its kernel connected and idle, and no cell shows [*]."""
        await self.page.wait_for_function(_ON_PANEL % _IDLE, arg=[self.name, None], timeout=timeout_s * 1000)

    async def set_theme(self, theme: str) -> None:
        """Change the theme of the page, e.g. to ``"JupyterLab Dark"``, as its menu does."""
        await self.page.evaluate(
            """async theme => {
                if (document.body.dataset.jpThemeName !== theme)
                    await jupyterapp.commands.execute('apputils:change-theme', { theme });
            }""",
            theme,
        )

    async def outputs(self) -> list[str]:
        """What each code cell shows now, top to bottom; a traceback among them is an AssertionError."""
        texts, tracebacks = await self.on_panel(_OUTPUTS)
        assert not tracebacks, "\n".join(tracebacks)
        return [str(text) for text in texts]

    async def save(self) -> nbformat.NotebookNode:
        """Save the notebook and return it as it is on disk."""
        await self.on_panel("panel.context.save()")
        return nbformat.read(self.lab.directory / self.name, as_version=4)

    async def picture(self, label: str) -> Path:
        """A PNG of the page, in the folder of pictures."""
        path = self._pictures / f"{Path(self.name).stem}-{label}.png"
        await self.page.screenshot(path=path)
        return path


async def new_page(browser: Browser) -> Page:
    """A page in a new, empty browser context."""
    return await (await browser.new_context(viewport=VIEWPORT, permissions=["microphone"])).new_page()


async def open_notebook(lab: Lab, browser: Browser, name: str, *, pictures: Path, script: str = "") -> NotebookPage:
    """Open a notebook of the lab's working folder in a new, empty browser context, where `script` runs first."""
    page = await new_page(browser)
    await page.add_init_script(script)
    notebook = NotebookPage(lab, page, name, pictures)
    await page.goto(lab.page_url(name))
    await notebook.until_idle(timeout_s=60.0)
    return notebook
