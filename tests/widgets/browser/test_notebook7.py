"""The playground with its inspector in Notebook 7, the other front end that people have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.lab import Lab

CELLS = (
    "import rtnb",
    "playground = rtnb.Playground(rtnb.Simulator(latency='fast', voice='babble'))\nplayground",
    "inspector = rtnb.inspect(playground.session)\ninspector",
)


async def _run(page: Page, number: int) -> None:
    """Run a cell as a person does, and wait until it is done."""
    cell = page.locator(".jp-CodeCell").nth(number)
    await cell.locator(".cm-content").click()
    await page.keyboard.press("Control+Enter")
    await expect(cell.locator(".jp-InputPrompt")).to_have_text(f"[{number + 1}]:", timeout=60_000)


def _told(message: Any) -> str:
    return f"{message.text} {message.location.get('url', '')}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Lab]:
    """A server that has served no JupyterLab: one that has confuses files of the same name of the two, and says 403."""
    lab = Lab(tmp_path).start()
    yield lab
    lab.stop()


async def test_a_conversation_and_its_events(server: Lab, browser: Any, pictures: Path) -> None:
    server.write("notebook7.ipynb", CELLS)
    context = await browser.new_context(viewport={"width": 1280, "height": 1000})
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(_told(message)) if message.type == "error" else None)
    await page.goto(f"{server.url}/notebooks/notebook7.ipynb?token={server.token}")
    await expect(page).to_have_title("notebook7", timeout=60_000)
    await expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible(timeout=60_000)
    status = page.locator(".jp-NotebookKernelStatus")  # what is run before the kernel is connected would be lost
    await expect(status).to_have_class(re.compile("fade"))
    await expect(status).to_have_text("", timeout=60_000)
    problems.clear()  # Notebook 7.6.5 itself trips over a setting while it loads, also with an empty notebook
    for number in range(len(CELLS)):
        await _run(page, number)
    play = page.locator(".rtnb-playground")
    await expect(play.locator(".rtnb-connection[data-state=open]")).to_have_count(1, timeout=20_000)

    await play.locator(".rtnb-message-bar textarea").fill("What is a delta?")
    await page.keyboard.press("Enter")
    await expect(play.locator(".rtnb-transcript")).to_contain_text("A delta is", timeout=20_000)
    await play.locator("[role=tab]", has_text="Events").click()
    inspector = page.locator(".jp-CodeCell").nth(2)
    for place in (play, inspector):
        row = place.locator(".rtnb-ev-row", has_text="response.done")
        await expect(row).to_be_visible()
    await inspector.locator(".rtnb-ev-row", has_text="response.done").click()
    await expect(inspector).to_contain_text("completed")
    assert not await page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count()

    for width in (1400, 480):
        await page.set_viewport_size({"width": width, "height": 1400})
        await play.scroll_into_view_if_needed()
        await page.screenshot(path=pictures / f"notebook7-{width}.png")
    assert problems == []
