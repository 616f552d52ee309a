"""One page of JupyterLab for many tests."""

from collections.abc import Iterable
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Page
from playwright.async_api import Error as PlaywrightError

from tests.browser.lab import VIEWPORT, Lab, NotebookPage, new_page

KEPT: set[BrowserContext] = set()
"""What outlives a test."""

_OPEN = """async path => {
    window.known ??= new Set(Object.keys(window));
    const { commands, shell } = jupyterapp;
    shell.expandLeft();
    await commands.execute('docmanager:open', { path, factory: 'Notebook' });
}"""

_AS_WRITTEN = """cells => {
    jupyterapp.shell.expandLeft();
    const { model } = jupyterapp.shell.currentWidget.content;
    if (model.cells.length !== cells.length) throw new Error('a test before left other cells');
    cells.forEach((source, i) => model.cells.get(i).sharedModel.setSource(source));
}"""

_CLEAR = """async () => {
    if (document.querySelector('.jp-Dialog')) throw new Error('a dialog is open');
    for (const widget of [...jupyterapp.shell.widgets('main')]) {
        if (widget.context) {
            widget.context.model.dirty = false; // nobody is to be asked whether to save it
            await widget.context.sessionContext.shutdown();
        }
        widget.close();
    }
    for (const name of Object.keys(window)) if (window.known && !known.has(name)) delete window[name];
}"""


class Desk:
    """One page of JupyterLab that is kept: loading it takes longer than most tests, a notebook in it does not."""

    def __init__(self, lab: Lab, browser: Browser) -> None:
        self._lab = lab
        self._browser = browser
        self._page: Page | None = None
        self._notebook: NotebookPage | None = None
        self._kept: list[str] | None = None

    @property
    def keeps(self) -> bool:
        """Whether what is open is kept for the next test."""
        return self._kept is not None

    async def open(self, name: str, cells: Iterable[str] = (), *, pictures: Path, keep: bool = False) -> NotebookPage:
        """Open a notebook of the working folder, and close the one before.

        With `keep`, one with the same cells that the test before kept is taken as it is, kernel and all; its theme may
        be another.
        """
        wanted = list(cells) if keep else None
        if wanted and wanted == self._kept and self._page is not None and self._notebook is not None:
            self._notebook.deaf()
            self._notebook = NotebookPage(self._lab, self._page, self._notebook.name, pictures)
            await self._page.set_viewport_size(VIEWPORT)  # type: ignore[arg-type]
            await self._notebook.set_theme(self._lab.theme)
            await self._page.evaluate(_AS_WRITTEN, wanted)
            return self._notebook
        await self.clear()
        self._kept = wanted
        try:
            return await self._opened(name, pictures, timeout_s=15.0)
        except PlaywrightError:
            await self._give_up()
            return await self._opened(name, pictures, timeout_s=60.0)

    async def _opened(self, name: str, pictures: Path, *, timeout_s: float) -> NotebookPage:
        if self._page is None:
            self._page = await new_page(self._browser)
            KEPT.add(self._page.context)
            await self._page.goto(self._lab.page_url())
            await self._page.wait_for_function("window.jupyterapp?.restored.then(() => true)", timeout=60_000)
        await self._page.set_viewport_size(VIEWPORT)  # type: ignore[arg-type]
        self._notebook = NotebookPage(self._lab, self._page, name, pictures)
        await self._notebook.set_theme(self._lab.theme)
        await self._page.evaluate(_OPEN, name)
        return await self._notebook.until_open(timeout_s=timeout_s)

    async def clear(self) -> None:
        """Close all that is open, and end its kernels; a page where that fails is given up."""
        self._kept = None
        if self._page is None:
            return
        if self._notebook is not None:
            self._notebook.deaf()
        try:
            await self._page.evaluate(_CLEAR)
        except PlaywrightError:
            await self._give_up()

    async def _give_up(self) -> None:
        """Close the page; the next notebook gets a new one. (JupyterLab has been seen to open a notebook forever.)"""
        page, self._page = self._page, None
        if page is not None:
            KEPT.discard(page.context)
            await page.context.close()
