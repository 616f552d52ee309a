"""A real JupyterLab, started with `rtnb lab`, and its notebooks in a real browser."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from playwright.async_api import Browser, Locator, Page
from playwright.async_api import TimeoutError as PlaywrightTimeout

_START_S = 90.0  # a cold JupyterLab on two busy cores took 12 s
_STOP_S = 30.0
_RUN_AGAIN_S = 15.0  # cells show [*] well within a second of the menu
_RAISED = re.compile(r"Traceback \(most recent call last\)|^\s*Cell In\[\d+\], line", re.MULTILINE)
_QUIET = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},  # no question over the page
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # cells out of sight are laid out, too
}


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
        self.log_path = home / "lab.log"
        self.token = secrets.token_hex(16)
        self.url = ""
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Lab:
        """Start the server and wait until it answers."""
        (self.home / "settings").mkdir(parents=True, exist_ok=True)
        for name, value in _QUIET.items():
            plugin = self.home / "settings" / (name.replace(":", "/") + ".jupyterlab-settings")
            plugin.parent.mkdir(parents=True, exist_ok=True)
            plugin.write_text(json.dumps(value), encoding="utf-8")
        pages = self.home / "config" / "labconfig" / "page_config.json"  # its sidebar asks for what is not served: 403
        pages.parent.mkdir(parents=True, exist_ok=True)
        pages.write_text(json.dumps({"disabledExtensions": {"ipyparallel-labextension": True}}), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "rtnb",
            "lab",
            "--no-browser",
            "--port",
            "0",
            "--directory",
            str(self.directory),
        ]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments, "--", "--expose-app-in-browser"],
                cwd=self.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_it_answers()
        return self

    def stop(self, *, by: signal.Signals = signal.SIGTERM) -> int:
        """End the server and return its exit code; a server that does not end is killed, and that is an error."""
        process, self._process = self._process, None
        assert process is not None, "not started"
        process.send_signal(by)
        try:
            return process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"rtnb lab did not end within {_STOP_S} s of {by.name}:\n{self.log()}") from None

    def log(self) -> str:
        """What the server has printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def set_theme(self, theme: str) -> None:
        """Choose the theme of the pages that are opened from now on, e.g. ``"JupyterLab Dark"``."""
        self._theme.parent.mkdir(parents=True, exist_ok=True)
        self._theme.write_text(json.dumps({"theme": theme}), encoding="utf-8")

    @property
    def theme(self) -> str:
        """The theme that is chosen."""
        return str(json.loads(self._theme.read_text())["theme"]) if self._theme.exists() else "JupyterLab Light"

    @property
    def _theme(self) -> Path:
        return self.home / "settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"

    def page_url(self, name: str = "") -> str:
        """The address of JupyterLab, showing one notebook; a workspace of its own, so tests do not meet there."""
        workspace = f"{self.url}/lab/workspaces/test-{secrets.token_hex(4)}"
        return f"{workspace}/tree/{quote(name)}?token={self.token}" if name else f"{workspace}?token={self.token}"

    def get(self, path: str) -> Any:
        """The server's REST answer, e.g. to ``api/kernels``."""
        return self._ask(urllib.request.Request(f"{self.url}/{path}"))

    def post(self, path: str, body: Any) -> Any:
        """The server's REST answer to a POST of JSON."""
        return self._ask(urllib.request.Request(f"{self.url}/{path}", data=json.dumps(body).encode(), method="POST"))

    def processes_left(self) -> list[str]:
        """The command lines of processes that belong to this server and still run (Linux; elsewhere none are seen)."""
        mark = f"JUPYTER_TOKEN={self.token}".encode()
        left = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    left.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # ended while we looked, or another user's
        return left

    def write(self, name: str, cells: Iterable[str]) -> None:
        """Put a scratch notebook with these code cells into the working folder."""
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(book, self.directory / name)

    def read(self, name: str) -> nbformat.NotebookNode:
        """A notebook of the working folder as it is on disk."""
        return nbformat.read(self.directory / name, as_version=4)

    def _ask(self, request: urllib.request.Request) -> Any:
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def _environment(self) -> dict[str, str]:
        places = {
            "HOME": self.home,
            "IPYTHONDIR": self.home / "ipython",
            "JUPYTER_CONFIG_DIR": self.home / "config",
            "JUPYTER_DATA_DIR": self.home / "data",
            "JUPYTER_RUNTIME_DIR": self.home / "runtime",
            "JUPYTERLAB_SETTINGS_DIR": self.home / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": self.home / "workspaces",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "OPENAI_"))}
        return {**kept, **{name: str(place) for name, place in places.items()}, "JUPYTER_TOKEN": self.token}

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"rtnb lab ended with {self._process.returncode}:\n{self.log()}")
            self.url = self._address()
            if self.url:
                try:
                    self.get("api/status")
                    return
                except (urllib.error.URLError, ConnectionError, TimeoutError):
                    pass  # listening, not yet serving
            time.sleep(0.1)
        self.stop()
        raise AssertionError(f"rtnb lab did not answer within {_START_S} s:\n{self.log()}")

    def _address(self) -> str:
        assert self._process is not None
        info = self.home / "runtime" / f"jpserver-{self._process.pid}.json"
        try:
            return f"http://127.0.0.1:{json.loads(info.read_text(encoding='utf-8'))['port']}"
        except (FileNotFoundError, ValueError):
            return ""


@dataclass(frozen=True)
class CellOutput:
    """What one cell shows on the page."""

    text: str
    """All visible text of the cell's output."""
    error: str
    """The traceback's text, empty if there is none."""


class NotebookPage:
    """A notebook open in Chromium."""

    def __init__(self, lab: Lab, page: Page, name: str, pictures: Path) -> None:
        self.lab = lab
        self.page = page
        self.name = name
        self.messages: list[str] = []
        """Errors the page has written to its console or thrown."""
        self._pictures = pictures
        self._listeners = {
            "console": lambda message: self.messages.append(message.text) if message.type == "error" else None,
            "pageerror": lambda error: self.messages.append(str(error)),
        }
        for name, listener in self._listeners.items():
            page.on(name, listener)  # type: ignore[call-overload]

    def deaf(self) -> None:
        """Hear the page's errors no more: what it says now is about another notebook."""
        for name, listener in self._listeners.items():
            self.page.remove_listener(name, listener)

    async def open(self, *, timeout_s: float = 60.0) -> NotebookPage:
        """Load JupyterLab on the notebook and wait until its kernel is idle."""
        await self.page.goto(self.lab.page_url(self.name))
        return await self.until_open(timeout_s=timeout_s)

    async def until_open(self, *, timeout_s: float = 60.0) -> NotebookPage:
        """Wait until the notebook is there and its kernel is idle."""
        await self._panel.locator(".jp-Notebook").wait_for(timeout=timeout_s * 1000)
        code_cells = sum(cell.cell_type == "code" for cell in self.lab.read(self.name).cells)
        await self.page.wait_for_function(  # cells far below are added to the page a little later
            "n => document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell').length >= n",
            arg=code_cells,
            timeout=timeout_s * 1000,
        )
        await self.until_idle(timeout_s=timeout_s)
        return self

    async def run_all(self, *, timeout_s: float = 120.0) -> list[CellOutput]:
        """Choose Run → Run All Cells, wait until no cell runs or waits, and return what each code cell shows."""
        last = await self._last_count()
        deadline = time.monotonic() + timeout_s
        while not await self._started(last):
            if time.monotonic() > deadline:
                raise AssertionError(await self._told(f"{self.name} did not start to run"))
        await self.until_idle(timeout_s=timeout_s)
        return await self.outputs()

    async def _started(self, last: float) -> bool:
        """Choose from the menu, which answers before the cells start; as a person would, again if none does."""
        await self.choose("Run", re.compile("^Run All Cells"))
        patience = time.monotonic() + _RUN_AGAIN_S
        while await self._last_count() <= last:
            if time.monotonic() > patience:
                return False
            await self.page.wait_for_timeout(20)
        return True

    async def choose(self, menu: str, item: str | re.Pattern[str]) -> None:
        """Choose from a menu; again where it is closed by what takes the focus meanwhile: a page may still settle.

        The launcher may have come to the front after the notebook was shown; its menus cannot run cells.
        """
        for patience_ms in (5_000, 5_000, 60_000):
            await self.page.evaluate(
                """() => {
                    const node = document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden)');
                    const panel = [...jupyterapp.shell.widgets('main')].find(widget => widget.node === node);
                    if (panel && jupyterapp.shell.currentWidget !== panel) jupyterapp.shell.activateById(panel.id);
                }"""
            )
            await self.page.get_by_role("menuitem", name=menu, exact=True).click()
            try:
                return await self.page.get_by_role("menuitem", name=item).first.click(timeout=patience_ms)
            except PlaywrightTimeout:
                await self.page.keyboard.press("Escape")
        raise AssertionError(await self._told(f"{item} could not be chosen from {menu}"))

    async def until_idle(self, *, timeout_s: float = 120.0) -> None:
        """Wait until the kernel is connected and idle and no cell of the notebook shows [*]."""
        # The page's indicators say "idle" also before there is a kernel, or still of the notebook before; JupyterLab
        # loses what is run then (measured, on a cold start). The application itself tells these apart.
        await self.page.wait_for_function(
            """() => {
                const node = document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden)');
                const panel = node && [...jupyterapp.shell.widgets('main')].find(widget => widget.node === node);
                const kernel = panel?.sessionContext.session?.kernel;
                const prompts = [...(node?.querySelectorAll('.jp-InputPrompt') ?? [])].map(each => each.textContent);
                return panel?.sessionContext.isReady && kernel?.connectionStatus === 'connected'
                    && kernel.status === 'idle' && !prompts.some(text => text.includes('*'));
            }""",
            timeout=timeout_s * 1000,
        )

    async def set_theme(self, theme: str) -> None:
        """Change the theme of the page, e.g. to ``"JupyterLab Dark"``, as its menu does."""
        await self.page.evaluate(
            """async theme => {
                if (document.body.dataset.jpThemeName !== theme)
                    await jupyterapp.commands.execute('apputils:change-theme', { theme });
            }""",
            theme,
        )

    async def outputs(self) -> list[CellOutput]:
        """What each code cell shows now, top to bottom, scrolled into view or not."""
        shown = await self._panel.evaluate(
            """panel => {
                const text = (cell, selector) =>
                    [...cell.querySelectorAll(selector)].map(output => {
                        const copy = output.cloneNode(true);
                        copy.querySelectorAll('style, script').forEach(node => node.remove());
                        return copy.textContent;
                    }).join('\\n');
                return [...panel.querySelectorAll('.jp-CodeCell')].map(cell => [
                    text(cell, '.jp-OutputArea-output'),
                    text(cell, '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'),
                ]);
            }"""
        )
        # JupyterLab shows a raised error as it shows text on stderr (a progress bar, a warning).
        return [CellOutput(text, red if _RAISED.search(red) else "") for text, red in shown]

    async def save(self) -> nbformat.NotebookNode:
        """Save the notebook as a person would, and return it as it is on disk."""
        path = self.lab.directory / self.name
        before = path.stat().st_mtime_ns
        await self.page.keyboard.press("Control+s")
        deadline = time.monotonic() + 20
        while path.stat().st_mtime_ns == before or not path.read_bytes().endswith(b"}\n"):  # it is written in pieces
            assert time.monotonic() < deadline, f"{self.name} was not saved"
            await self.page.wait_for_timeout(50)
        return self.lab.read(self.name)

    async def picture(self, label: str) -> Path:
        """A PNG of the page, in the folder of pictures."""
        path = self._pictures / f"{Path(self.name).stem}-{label}.png"
        await self.page.screenshot(path=path)
        return path

    async def _told(self, what: str) -> str:
        """A failure with all there is to see: the picture, the page's errors, the server's log."""
        return "\n".join((what, f"picture: {await self.picture('failed')}", *self.messages, self.lab.log()))

    async def _last_count(self) -> float:
        """The highest execution count on the page; infinite while a cell runs or waits."""
        prompts = await self._panel.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        counts = [prompt.strip("[]: ") for prompt in prompts]
        return max((math.inf if count == "*" else int(count) for count in counts if count), default=0)

    @property
    def _panel(self) -> Locator:
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")


VIEWPORT = {"width": 1280, "height": 1000}


async def new_page(browser: Browser) -> Page:
    """A page in a new, empty browser context."""
    return await (await browser.new_context(viewport=VIEWPORT, permissions=["microphone"])).new_page()  # type: ignore[arg-type]


async def open_notebook(lab: Lab, browser: Browser, name: str, *, pictures: Path, script: str = "") -> NotebookPage:
    """Open a notebook of the lab's working folder in a new, empty browser context, where `script` runs first."""
    page = await new_page(browser)
    if script:
        await page.add_init_script(script)
    return await NotebookPage(lab, page, name, pictures).open()
