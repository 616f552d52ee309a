"""The channel in real JupyterLab: a busy cell, uploads, two tabs, a reload, a second run, a restart."""

import asyncio
import re
import statistics
import sys
from typing import Any

import pytest
from playwright.async_api import expect

from tests.widgets.browser.echo import ECHO
from tests.widgets.page import eventually

BUSY = """
from pathlib import Path
while not Path("{end}").exists(): time.sleep(0.02)
"""
"""A cell that blocks the kernel's main thread until a file exists."""
COUNT = (
    """
import threading
def count():
    for first in range(0, 300, 3):
        echo._stream.publish("numbers", {{"first": first, "n": 3}})
        time.sleep(0.01)
threading.Thread(target=count).start()
"""
    + BUSY
)
STATUS = "print(tuple(shared_channel().status), len(echo._stream.joined), echo.changes, len(echo.received))"
MESSAGES = "import os; os.environ['RTNB_CHANNEL'] = 'messages'\n"


def report(figure: str) -> None:
    """Print a figure; seen with ``pytest -rP``."""
    sys.stdout.write(figure + "\n")


async def save(notebook: Any) -> None:
    """Save the notebook with its outputs, and wait until it is on disk as a whole."""
    path = notebook.lab.directory / notebook.name
    path.unlink()
    await notebook.page.keyboard.press("Control+s")
    await eventually(lambda: path.exists() and path.read_text(encoding="utf-8").endswith("}\n"), timeout_s=20)


async def run_cell(notebook: Any, index: int, *, wait: bool = True) -> str:
    """Run one cell as a person would; return what it shows."""
    cell = notebook.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").nth(index)
    await cell.locator(".cm-content").click()
    # No number is left of the run before: a kernel that was restarted counts from 1 again.
    await notebook.page.evaluate(
        "() => { jupyterapp.shell.currentWidget.content.activeCell.model.executionCount = null }"
    )
    await expect(cell.locator(".jp-InputPrompt")).to_have_text("[ ]:")
    await notebook.page.keyboard.press("Control+Enter")
    await expect(cell.locator(".jp-InputPrompt")).not_to_have_text("[ ]:")
    if wait:
        await notebook.until_idle()
    return str((await notebook.outputs())[index].text)


async def until_kind(notebook: Any, kind: str, timeout_s: float = 20.0) -> None:
    await notebook.page.wait_for_function(
        "kind => window.echo?.channel.kind === kind", arg=kind, timeout=1000 * timeout_s
    )


async def end_cell(notebook: Any, name: str) -> None:
    """End the busy cell, which must still be busy."""
    assert await notebook.page.locator(".jp-InputPrompt", has_text="*").count() == 1, "the cell has ended too early"
    (notebook.lab.directory / name).touch()
    await notebook.until_idle()


@pytest.fixture
def write(jupyterlab: Any) -> Any:
    return jupyterlab.write


async def test_a_busy_cell_delays_nothing(write: Any, open_notebook: Any) -> None:
    write("channel-busy.ipynb", [ECHO, BUSY.format(end="end-direct")])
    notebook = await open_notebook("channel-busy.ipynb")
    await run_cell(notebook, 0)
    await until_kind(notebook, "direct")
    await run_cell(notebook, 1, wait=False)
    trips_ms = await notebook.page.evaluate("window.echo.trips(500)")
    await end_cell(notebook, "end-direct")
    median_ms = statistics.median(trips_ms)
    report(f"round trip, direct, during time.sleep: p50 {median_ms:.1f} ms, max {max(trips_ms):.1f} ms")
    assert median_ms < 100  # the slow ones are the business of tests/benchmarks/microphone.py
    await notebook.page.get_by_text(re.compile("^channel: direct")).wait_for()
    await notebook.picture("direct")
    assert not notebook.messages


async def test_without_a_socket_a_busy_cell_does_not_stop_the_kernels_messages(write: Any, open_notebook: Any) -> None:
    write("channel-messages.ipynb", [MESSAGES + ECHO, COUNT.format(end="end-messages"), STATUS])
    notebook = await open_notebook("channel-messages.ipynb")
    await run_cell(notebook, 0)
    await until_kind(notebook, "messages")
    await notebook.page.get_by_text(re.compile("^channel: messages")).wait_for()
    trips_ms = await notebook.page.evaluate("window.echo.trips(20)")
    report(f"round trip, messages: p50 {statistics.median(trips_ms):.1f} ms, max {max(trips_ms):.1f} ms")
    await run_cell(notebook, 1, wait=False)
    await notebook.page.wait_for_function("window.echo.numbers.length >= 300")
    assert await notebook.page.evaluate("window.echo.numbers") == list(range(300))
    answer = asyncio.create_task(notebook.page.evaluate("window.echo.trips(1)"))
    await end_cell(notebook, "end-messages")
    assert len(await answer) == 1
    assert (await run_cell(notebook, 2)).startswith("('messages', 1) 1 ['joined'] 21")
    await notebook.picture("messages")
    assert not notebook.messages


@pytest.mark.parametrize("how", ["direct", "messages"])
async def test_an_upload_of_70_mb_arrives_whole_past_a_busy_cell(write: Any, open_notebook: Any, how: str) -> None:
    name, size = f"channel-upload-{how}.ipynb", 70_000_000
    write(name, [(MESSAGES if how == "messages" else "") + ECHO, "time.sleep(3)"])
    notebook = await open_notebook(name)
    await run_cell(notebook, 0)
    await until_kind(notebook, how)
    uploading = asyncio.create_task(notebook.page.evaluate("size => window.echo.upload(size)", size))
    await notebook.page.wait_for_function("window.echo.sent > 5e6")
    await run_cell(notebook, 1)
    assert how == "direct" or not uploading.done()
    digest, reply = await uploading
    assert reply == {"size": size, "sha256": digest, "buffers": []}
    assert not notebook.messages


@pytest.mark.parametrize("how", ["direct", "messages"])
async def test_reload_second_run_and_second_tab(write: Any, open_notebook: Any, how: str) -> None:
    name = f"channel-pages-{how}.ipynb"
    write(name, [(MESSAGES if how == "messages" else "") + ECHO, STATUS])
    notebook = await open_notebook(name, fresh=True)  # it is reloaded
    await run_cell(notebook, 0)
    await until_kind(notebook, how)
    await save(notebook)

    await notebook.page.reload()
    await until_kind(notebook, how, 60)
    await notebook.page.get_by_text(re.compile("^state [23]")).wait_for()
    await notebook.until_idle()
    printed = await run_cell(notebook, 1)
    assert printed.startswith(f"('{how}', 1) 1 ['joined', 'left', 'joined']"), printed

    await run_cell(notebook, 0)
    await notebook.page.get_by_text("state 1").wait_for()
    await until_kind(notebook, how)
    printed = await run_cell(notebook, 1)
    assert printed.startswith(f"('{how}', 1) 1 ['joined'] 0"), printed

    await save(notebook)
    second = await open_notebook(name)
    await until_kind(second, how)
    await second.page.get_by_text("state 2").wait_for()
    await notebook.page.get_by_text("state 2").wait_for()
    active = [await one.page.evaluate("window.echo.channel.isActivePage()") for one in (notebook, second)]
    assert active == [True, False]
    await notebook.page.context.close()
    if how == "direct":
        await second.page.wait_for_function("window.echo.channel.isActivePage()")
    else:  # a closing page may not send its last message; a click in the second tab claims it
        await second.page.evaluate("window.echo.channel.claimActivePage()")
        await second.page.wait_for_function("window.echo.channel.isActivePage()")


async def test_a_restarted_kernel_is_noticed_and_opens_a_new_channel(jupyterlab: Any, open_notebook: Any) -> None:
    jupyterlab.write("channel-restart.ipynb", [ECHO])
    notebook = await open_notebook("channel-restart.ipynb")
    await run_cell(notebook, 0)
    await until_kind(notebook, "direct")
    (session,) = (one for one in jupyterlab.get("api/sessions") if one["path"] == "channel-restart.ipynb")
    jupyterlab.post(f"api/kernels/{session['kernel']['id']}/restart", {})
    await until_kind(notebook, "none")
    assert not await notebook.page.evaluate("window.echo.channel.isActivePage()")
    await notebook.until_idle()
    await run_cell(notebook, 0)
    await until_kind(notebook, "direct")
    assert len(await notebook.page.evaluate("window.echo.trips(3)")) == 3
    assert [text for text in notebook.messages if "rtnb" in text or "Uncaught" in text] == []


async def test_a_busy_cell_delays_nothing_through_the_servers_proxy(write: Any, open_notebook: Any) -> None:
    pytest.importorskip("jupyter_server_proxy", reason="jupyter-server-proxy is not installed", exc_type=ImportError)
    write(
        "channel-proxy.ipynb",
        ["import os; os.environ['RTNB_CHANNEL'] = 'proxy'\n" + ECHO, BUSY.format(end="end-proxy")],
    )
    notebook = await open_notebook("channel-proxy.ipynb")
    await run_cell(notebook, 0)
    await until_kind(notebook, "proxy")
    await run_cell(notebook, 1, wait=False)
    trips_ms = await notebook.page.evaluate("window.echo.trips(300)")
    await end_cell(notebook, "end-proxy")
    median_ms = statistics.median(trips_ms)
    report(f"round trip, proxy, during time.sleep: p50 {median_ms:.1f} ms, max {max(trips_ms):.1f} ms")
    assert median_ms < 200
    assert not notebook.messages
