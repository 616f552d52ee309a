"""Fixtures for all tests: speech, Chromium, JupyterLab, and the check that nothing is left behind."""

import asyncio
import inspect
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from jupyter_client import KernelManager

from tests.browser.chromium import ChromiumMissing, find_chromium, flags, prepare_driver

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("rtnb", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("rtnb"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "rtnb")

_WAITING = ("test_notebooks.py", "test_secrets.py", "test_verify.py", "test_replaying.py", "test_experiment.py")
_GRACE_S = 20.0  # how long a thread or task may take to end after its test; chosen


def _kernels_by_file() -> None:
    """Have kernels that start here listen on sockets in files.

    Ports are chosen before the kernel starts, by a socket that is closed again; while it starts, others of this run
    open many, and may get one of these.
    """
    made = KernelManager.__init__

    def make(self: KernelManager, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.transport, self.ip = "ipc", f"{tempfile.gettempdir()}/rtnb-{secrets.token_hex(8)}"

    KernelManager.__init__ = make  # type: ignore[method-assign]


if os.name == "posix":
    _kernels_by_file()


@pytest.fixture(scope="session")
def speech_folder() -> Path:
    """Recordings of real speech beside the repository, or where RTNB_SPEECH says; skips where there are none."""
    place = Path(os.environ.get("RTNB_SPEECH", ROOT.parent / "shared" / "speech"))
    if not place.is_dir():
        pytest.skip(f"no recordings of speech in {place}; RTNB_SPEECH names their folder")
    return place


@pytest.fixture(scope="session")
def shared_speech(speech_folder: Path) -> Callable[[str], Path]:
    """The path of one recording by name; skips where it is missing."""

    def path_of(name: str) -> Path:
        path = speech_folder / name
        if not path.is_file():
            pytest.skip(f"no recording {name} in {speech_folder}")
        return path

    return path_of


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """A Chromium that starts, installed if need be; otherwise the test fails with what to do."""
    try:
        prepare_driver()
        return find_chromium()
    except ChromiumMissing as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
async def playwright(chromium_path: str) -> AsyncIterator[Any]:
    """What starts browsers."""
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=20_000)  # only a limit: on a busy machine a page is slow now and then
    async with async_playwright() as started:
        yield started


@pytest.fixture
async def launch(playwright: Any, chromium_path: str) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Start a Chromium with more flags, e.g. a file for its microphone: ``await launch("--flag", …)``."""
    started = []

    async def start(*more: str) -> Any:
        browser = await playwright.chromium.launch(executable_path=chromium_path, args=[*flags(), *more])
        started.append(browser)
        return browser

    yield start
    for browser in started:
        await browser.close()


@pytest.fixture(scope="session")
async def chromium(playwright: Any, chromium_path: str) -> AsyncIterator[Any]:
    """One Chromium for the whole run."""
    browser = await playwright.chromium.launch(executable_path=chromium_path, args=flags())
    yield browser
    await browser.close()


@pytest.fixture
async def browser(chromium: Any) -> AsyncIterator[Any]:
    """A Chromium with a fake microphone; what a test opens in it is closed after the test."""
    from tests.browser.desk import KEPT

    yield chromium
    for context in chromium.contexts:
        if context not in KEPT:
            await context.close()


@pytest.fixture(scope="session")
def jupyterlab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One JupyterLab for the whole run, started with `rtnb lab`: a `tests.browser.lab.Lab`."""
    from tests.browser.lab import Lab

    lab = Lab(tmp_path_factory.mktemp("lab")).start()
    yield lab
    code = lab.stop()
    assert code == 0, f"rtnb lab ended with {code}:\n{lab.log()}"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: RTNB_SCREENSHOTS, or pytest's own temporary folder."""
    place = os.environ.get("RTNB_SCREENSHOTS")
    if not place:
        return tmp_path_factory.mktemp("pictures")
    Path(place).mkdir(parents=True, exist_ok=True)
    return Path(place)


@pytest.fixture(scope="session")
def desk(jupyterlab: Any, chromium: Any) -> Any:
    """The page of JupyterLab that tests open their notebooks in, one after the other."""
    from tests.browser.desk import Desk

    return Desk(jupyterlab, chromium)


@pytest.fixture
async def open_notebook(
    request: pytest.FixtureRequest, jupyterlab: Any, browser: Any, desk: Any, pictures: Path
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Open a notebook of the working copy in Chromium: ``await open_notebook("01….ipynb")`` gives a `NotebookPage`.

    With `cells`, it is written first. The first one of a test is opened in a page that is kept; others, those with
    `fresh`, and those with a `script` (which runs before the page's own) in pages of their own. With `keep`, also the
    notebook is kept, for the next test that opens one with the same cells: run them again to start anew.
    """
    from tests.browser.lab import open_notebook as open_in

    opened = False

    async def open_it(
        name: str,
        *,
        cells: Iterable[str] = (),
        theme: str = "JupyterLab Light",
        fresh: bool = False,
        keep: bool = False,
        script: str = "",
    ) -> Any:
        nonlocal opened
        if opened or fresh or script:
            if cells:
                jupyterlab.write(name, cells)
            notebook = await open_in(jupyterlab, browser, name, pictures=pictures, script=script)
        else:
            opened = True
            notebook = await desk.open(name, cells, pictures=pictures, keep=keep)
        await notebook.set_theme(theme)
        return notebook

    failed = request.session.testsfailed
    yield open_it
    if opened and (not desk.keeps or request.session.testsfailed != failed):
        await desk.clear()


@pytest.fixture
def no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host is called ….invalid; the machine's resolver is not asked, whose network may lose the question."""
    ask = socket.getaddrinfo

    def answer(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """No thread of ours outlives the test that started it."""
    before = set(threading.enumerate())
    yield
    if (loop := sys.modules.get("rtnb._loop")) and not any(thread.name == "rtnb-loop" for thread in before):
        loop.shared_loop().stop()  # meant to stay for the life of a kernel; here, for the life of a test
    for thread in threading.enumerate():
        if thread not in before and thread.name.startswith("rtnb"):
            thread.join(_GRACE_S)
            assert not thread.is_alive(), f"thread left behind: {thread.name}"


@pytest.fixture
async def no_tasks_left() -> AsyncIterator[None]:
    """No asyncio task outlives its test; every `async def` test has this fixture, before all others of its own."""
    before = asyncio.all_tasks()
    yield
    pending = asyncio.all_tasks() - before - {asyncio.current_task()}
    if pending:
        _, pending = await asyncio.wait(pending, timeout=_GRACE_S)
    assert not pending, f"tasks left behind: {pending}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share the tests file by file; those in JupyterLab are one worker's, those in bare pages of Chromium another's."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if "browser/" not in file:
                return file
            return "pages" if file.endswith("_page.py") else "lab"

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_turn)
    for item in items:
        if inspect.iscoroutinefunction(getattr(item, "function", None)):
            names: list[str] = item.fixturenames  # type: ignore[attr-defined]
            kept = [name for name in ("playwright", "chromium") if name in names]  # their tasks live on
            names[:0] = [*kept, "no_tasks_left"]


def _turn(item: pytest.Item) -> int:
    """The longest work first: browsers, then files that mostly wait for speech, so that the workers end together."""
    if "browser" in item.path.parts:
        return 0
    return 1 if item.path.suffix == ".ipynb" or item.path.name in _WAITING else 2
