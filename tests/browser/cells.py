"""Code in the last cell of a notebook in Chromium, which a test keeps for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.browser.lab import NotebookPage

_PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
_EVENTUALLY = """
import asyncio, time
end = time.monotonic() + 20
while str({expression}) != {expected!r} and time.monotonic() < end:
    await asyncio.sleep(0.02)
print({expression})"""


async def run(notebook: NotebookPage, source: str) -> str:
    """Type code into the last cell, run it as a person would, and return what it shows."""
    page = notebook.page
    cell = page.locator(f"{_PANEL} .jp-CodeCell").last
    await cell.locator(".cm-content").click()
    before = await cell.locator(".jp-InputPrompt").text_content()
    await page.keyboard.press("ControlOrMeta+a")
    await page.keyboard.insert_text(source)
    await page.keyboard.press("Control+Enter")
    await page.wait_for_function(  # else the output of the run before would be taken for this one's
        "([cell, before]) => cell.querySelector('.jp-InputPrompt').textContent !== before",
        arg=[await cell.element_handle(), before],
    )
    await notebook.until_idle()
    output = (await notebook.outputs())[-1]
    assert not output.error, output.error
    return output.text.strip()


async def eventually(notebook: NotebookPage, expression: str, expected: str) -> None:
    """Wait until an expression of Python prints as `expected`.

    What the page has done may get to Python after a cell that was run later: widget messages have a way of their own.
    """
    assert await run(notebook, _EVENTUALLY.format(expression=expression, expected=expected)) == expected
