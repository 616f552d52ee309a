"""Code in the cells of a notebook in Chromium; tests keep the last cell for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.browser.lab import NotebookPage

_CHOOSE = """(({ content }) => {
    content.activeCellIndex = (content.widgets.length + given.cell) % content.widgets.length;
    if (given.source !== null) content.activeCell.model.sharedModel.setSource(given.source);
    return content.activeCellIndex;
})(panel)"""
_EVENTUALLY = """
import asyncio, time
end = time.monotonic() + 20
while str({expression}) != {expected!r} and time.monotonic() < end:
    await asyncio.sleep(0.02)
print({expression})"""


async def run(notebook: NotebookPage, source: str | None = None, *, cell: int = -1) -> str:
    """Run one cell, with other code in it if need be, and return what it shows."""
    number = await notebook.on_panel(_CHOOSE, {"cell": cell, "source": source})
    await notebook.execute("notebook:run-cell")
    return (await notebook.outputs())[number].strip()


async def eventually(notebook: NotebookPage, expression: str, expected: str) -> None:
    """Wait until an expression of Python prints as `expected`.

    What the page has done may get to Python after a cell that was run later: widget messages have a way of their own.
    """
    assert await run(notebook, _EVENTUALLY.format(expression=expression, expected=expected)) == expected


class Driven:
    """A notebook whose last cell a test drives."""

    def __init__(self, notebook: NotebookPage) -> None:
        self.notebook = notebook
        self.page = notebook.page

    async def python(self, source: str) -> str:
        """Run code in the last cell and return what it shows."""
        return await run(self.notebook, source)

    async def eventually(self, expression: str, expected: str) -> None:
        """Wait until an expression of Python prints as `expected`."""
        await eventually(self.notebook, expression, expected)
