"""One page of JupyterLab for many tests."""

from collections.abc import Iterable
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Page
from playwright.async_api import Error as PlaywrightError

from tests.browser.lab import VIEWPORT, Lab, NotebookPage, new_page

KEPT: set[BrowserContext] = set()
"""What outlives a test."""

_OPEN = """async (path) => {
    window.known ??= new Set(Object.keys(window));
    await jupyterapp.commands.execute("docmanager:open", { path, factory: "Notebook" });
}"""
_AS_WRITTEN = """given.forEach((source, i) => panel.content.model.cells.get(i).sharedModel.setSource(source))"""
_CLEAR = """async () => {
    if (document.querySelector(".jp-Dialog")) throw new Error("a dialog is open");
    for (const widget of [...jupyterapp.shell.widgets("main")]) {
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
        self._kept: tuple[str, list[str]] | None = None

    @property
    def keeps(self) -> bool:
        """Whether what is open is kept for the next test."""
        return self._kept is not None

    async def open(self, name: str, cells: Iterable[str] = (), *, pictures: Path, keep: bool = False) -> NotebookPage:
        """Open a notebook of the working folder, with `cells` a new one, and close the one before.

        With `keep`, one with the same cells that the test before kept is taken as it is, kernel and all.
        """
        cells = list(cells)
        if keep and self._page and self._kept and self._kept[1] == cells:
            notebook = NotebookPage(self._lab, self._page, self._kept[0], pictures)
        else:
            await self.clear()
            if cells:
                self._lab.write(name, cells)
            try:
                notebook = await self._open(name, pictures, timeout_s=15.0)
            except PlaywrightError:
                await self._give_up()
                notebook = await self._open(name, pictures, timeout_s=60.0)
            self._kept = (name, cells) if keep else None
        await notebook.page.set_viewport_size(VIEWPORT)
        await notebook.page.evaluate("jupyterapp.shell.expandLeft()")
        await notebook.on_panel(_AS_WRITTEN, cells)
        return notebook

    async def _open(self, name: str, pictures: Path, *, timeout_s: float) -> NotebookPage:
        if self._page is None:
            self._page = await new_page(self._browser)
            KEPT.add(self._page.context)
            await self._page.goto(self._lab.page_url())
            await self._page.wait_for_function("window.jupyterapp?.restored.then(() => true)", timeout=60_000)
        notebook = NotebookPage(self._lab, self._page, name, pictures)
        await self._page.evaluate(_OPEN, name)
        await notebook.until_idle(timeout_s=timeout_s)
        return notebook

    async def clear(self) -> None:
        """Close all that is open, and end its kernels; a page where that fails is given up."""
        self._kept = None
        try:
            if self._page is not None:
                await self._page.evaluate(_CLEAR)
        except PlaywrightError:
            await self._give_up()

    async def _give_up(self) -> None:
        """Close the page; the next notebook gets a new one. (JupyterLab has been seen to open a notebook forever.)"""
        page, self._page = self._page, None
        if page is not None:
            KEPT.discard(page.context)
            await page.context.close()
