"""Take the README's picture anew: ``python -m tests.browser.picture``.

A playground in a real JupyterLab, after two questions, with an event selected.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright, expect

from tests.browser.chromium import find_chromium, flags, prepare_driver
from tests.browser.lab import Lab, open_notebook

PICTURE = Path(__file__).resolve().parents[2] / ".github" / "playground.png"
CELLS = ["import rtnb\n\nplayground = rtnb.Playground('sim', instructions='Answer in one sentence.')\nplayground"]
QUESTIONS = ("What is a delta?", "What is the capital of France?")


async def main() -> None:
    prepare_driver()
    PICTURE.parent.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp())
    lab = Lab(home).start()
    lab.write("playground.ipynb", CELLS)
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=find_chromium(), args=flags())
            notebook = await open_notebook(lab, browser, "playground.ipynb", pictures=home)
            await notebook.page.set_viewport_size({"width": 1360, "height": 1800})
            await notebook.page.evaluate("jupyterapp.shell.collapseLeft()")
            await notebook.run_all()
            playground = notebook.page.locator(".rtnb-playground")
            speaker = playground.locator(".rtnb-speaker")
            for question in QUESTIONS:
                await playground.locator(".rtnb-talk textarea").fill(question)
                await notebook.page.keyboard.press("Enter")
                await expect(speaker).to_have_attribute("data-state", "playing", timeout=20_000)
                await expect(speaker).to_have_attribute("data-state", "idle", timeout=60_000)  # all was heard
            await playground.locator(".rtnb-ev-row", has_text="response.done").last.click()
            await notebook.page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0")
            await notebook.page.wait_for_timeout(1_000)
            await notebook.page.screenshot(path=PICTURE)
            await browser.close()
    finally:
        lab.stop()


if __name__ == "__main__":
    asyncio.run(main())
