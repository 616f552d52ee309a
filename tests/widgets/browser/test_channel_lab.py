"""The channel in real JupyterLab: a busy cell, uploads, two tabs, a reload, a second run, a restart."""

import asyncio
import re
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.browser.cells import run
from tests.widgets.browser.echo import ECHO

WAIT = "from pathlib import Path\nwhile not Path('end').exists(): time.sleep(0.02)"
COUNT = f"""
import threading
def count():
    for first in range(0, 300, 3):
        echo._stream.publish("numbers", {{"first": first, "n": 3}})
        time.sleep(0.01)
threading.Thread(target=count).start()
{WAIT}
"""
STATUS = "print(tuple(shared_channel().status), len(echo._stream.joined), echo.changes, len(echo.received))"

Opened = Callable[..., Awaitable[Any]]


@pytest.fixture
def echo(open_notebook: Any) -> Opened:
    """Open a notebook with an echo whose channel goes one way; the first cell makes it anew."""

    async def opened(kind: str, *, fresh: bool = False) -> Any:
        switch = f"import os; os.environ['RTNB_CHANNEL'] = {kind!r}\n"
        name, cells = f"channel-{kind}{'-fresh' * fresh}.ipynb", [switch + ECHO, "# more"]
        notebook = await open_notebook(name, cells=cells, keep=not fresh, fresh=fresh)
        await run(notebook, cell=0)
        await until_kind(notebook, kind)
        return notebook

    return opened


async def until_kind(notebook: Any, kind: str, timeout_s: float = 20.0) -> None:
    await notebook.page.wait_for_function(
        "kind => window.echo?.channel.kind === kind", arg=kind, timeout=1000 * timeout_s
    )


@asynccontextmanager
async def busy(notebook: Any, source: str = WAIT) -> AsyncIterator[None]:
    """Block the kernel's main thread with a cell until the block ends."""
    end = notebook.lab.directory / "end"
    end.unlink(missing_ok=True)
    running = asyncio.create_task(run(notebook, source))
    await notebook.page.locator(".jp-InputPrompt", has_text="*").wait_for()
    yield
    assert not running.done(), "the cell has ended too early"
    end.touch()
    await running


@pytest.mark.parametrize("kind, most_ms", [("proxy", 200), ("direct", 100)])
async def test_a_busy_cell_delays_nothing(echo: Opened, kind: str, most_ms: float) -> None:
    if kind == "proxy":
        pytest.importorskip(
            "jupyter_server_proxy", reason="jupyter-server-proxy is not installed", exc_type=ImportError
        )
    notebook = await echo(kind)
    async with busy(notebook):
        trips_ms = await notebook.page.evaluate("window.echo.trips(300)")
    median_ms = statistics.median(trips_ms)
    sys.stdout.write(f"round trip, {kind}, during time.sleep: p50 {median_ms:.1f} ms, max {max(trips_ms):.1f} ms\n")
    assert median_ms < most_ms  # the slow ones are the business of tests/benchmarks/microphone.py
    await notebook.page.get_by_text(re.compile(f"^channel: {kind}")).wait_for()
    assert not notebook.messages


@pytest.mark.parametrize("kind", ["direct", "messages"])
async def test_an_upload_of_70_mb_arrives_whole_past_a_busy_cell(echo: Opened, kind: str) -> None:
    notebook, size = await echo(kind), 70_000_000
    uploading = asyncio.create_task(notebook.page.evaluate("size => window.echo.upload(size)", size))
    await notebook.page.wait_for_function("window.echo.sent > 5e6")
    async with busy(notebook):
        if kind == "direct":
            await uploading
    digest, reply = await uploading
    assert reply == {"size": size, "sha256": digest, "buffers": []}
    assert not notebook.messages


async def test_without_a_socket_a_busy_cell_does_not_stop_the_kernels_messages(echo: Opened) -> None:
    notebook = await echo("messages")
    await notebook.page.get_by_text(re.compile("^channel: messages")).wait_for()
    await notebook.page.evaluate("window.echo.trips(20)")
    async with busy(notebook, COUNT):
        await notebook.page.wait_for_function("window.echo.numbers.length >= 300")
        assert await notebook.page.evaluate("window.echo.numbers") == list(range(300))
        answer = asyncio.create_task(notebook.page.evaluate("window.echo.trips(1)"))
    assert len(await answer) == 1
    assert await run(notebook, STATUS) == "('messages', 1) 1 ['joined'] 21"
    assert not notebook.messages


async def test_of_two_tabs_the_first_is_active_until_the_second_claims_it(echo: Opened, open_notebook: Any) -> None:
    notebook = await echo("messages")
    await notebook.save()
    second = await open_notebook(notebook.name, fresh=True)
    await until_kind(second, "messages")
    for one in (notebook, second):
        await one.page.get_by_text("state 2").wait_for()
    active = [await one.page.evaluate("window.echo.channel.isActivePage()") for one in (notebook, second)]
    assert active == [True, False]
    await second.page.evaluate("window.echo.channel.claimActivePage()")
    await second.page.wait_for_function("window.echo.channel.isActivePage()")
    await notebook.page.wait_for_function("!window.echo.channel.isActivePage()")


async def test_a_restarted_kernel_is_noticed_and_opens_a_new_channel(echo: Opened) -> None:
    notebook = await echo("direct")
    lab = notebook.lab
    (session,) = (one for one in lab.get("api/sessions") if one["path"] == notebook.name)
    lab.post(f"api/kernels/{session['kernel']['id']}/restart", {})
    await until_kind(notebook, "none")
    assert not await notebook.page.evaluate("window.echo.channel.isActivePage()")
    await notebook.until_idle()
    await run(notebook, cell=0)
    await until_kind(notebook, "direct")
    assert len(await notebook.page.evaluate("window.echo.trips(3)")) == 3
    assert [text for text in notebook.messages if "rtnb" in text or "Uncaught" in text] == []


async def test_a_reload_and_a_second_run_begin_a_new_connection(echo: Opened) -> None:
    notebook = await echo("direct", fresh=True)  # it is reloaded
    await notebook.save()
    await notebook.page.reload()
    await until_kind(notebook, "direct", 60)
    await notebook.page.get_by_text(re.compile("^state [23]")).wait_for()
    await notebook.until_idle()
    assert (await run(notebook, STATUS)).startswith("('direct', 1) 1 ['joined', 'left', 'joined']")
    await run(notebook, cell=0)
    await notebook.page.get_by_text("state 1").wait_for()
    await until_kind(notebook, "direct")
    assert await run(notebook, STATUS) == "('direct', 1) 1 ['joined'] 0"
