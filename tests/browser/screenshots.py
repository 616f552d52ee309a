"""Take the README's pictures anew: ``python -m tests.browser.screenshots``.

A playground in a real JupyterLab after a conversation with the simulator: typed and spoken, one answer interrupted.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Browser, Locator, async_playwright, expect

from tests.browser.cells import run
from tests.browser.chromium import find_chromium, flags, prepare_driver
from tests.browser.lab import Lab, open_notebook

FOLDER = Path(__file__).resolve().parents[2] / ".github"
CELL = """import rtnb
simulator = rtnb.Simulator()
playground = rtnb.Playground(simulator, instructions="Answer in one sentence.")
playground"""
SPEAK = "_ = await playground.say(simulator.speech('What is the capital of France?').audio, rate_hz=24_000)"
PICTURES = {
    "light": ("JupyterLab Light", 1440, "Turn detection"),
    "dark": ("JupyterLab Dark", 1440, "Events"),
    "narrow": ("JupyterLab Light", 900, "Turn detection"),
}


async def until(speaker: Locator, state: str) -> None:
    """Wait until the speaker plays, or is silent."""
    await expect(speaker).to_have_attribute("data-state", state, timeout=60_000)


async def take(lab: Lab, browser: Browser, name: str, folder: Path) -> None:
    """Hold a conversation and take one picture."""
    theme, width, tab = PICTURES[name]
    lab.write(f"{name}.ipynb", [CELL, "# more"])
    notebook = await open_notebook(lab, browser, f"{name}.ipynb", pictures=folder)
    page = notebook.page
    await notebook.set_theme(theme)
    await page.set_viewport_size({"width": width, "height": 900 if width > 1000 else 1100})
    if width < 1000:
        await page.evaluate("jupyterapp.shell.collapseLeft()")
    await notebook.run_all()
    playground = page.locator(".rtnb-playground")
    speaker = playground.locator(".rtnb-speaker")
    await playground.locator(".rtnb-message-bar textarea").fill("What is a delta?")
    await page.keyboard.press("Enter")
    await until(speaker, "playing")
    await until(speaker, "idle")  # all was heard
    await run(notebook, SPEAK)
    await until(speaker, "playing")
    await page.wait_for_timeout(400)  # the answer is short
    await playground.get_by_role("button", name="Interrupt").click()
    await until(speaker, "idle")
    await playground.locator("[role=tab]", has_text=tab).click()
    await playground.locator(".rtnb-transcript article[data-role=assistant]").first.click()
    await page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0")
    await page.wait_for_timeout(1_500)
    await page.screenshot(path=folder / f"playground-{name}.png")
    await page.context.close()


async def main(folder: Path) -> None:
    """Take all pictures."""
    prepare_driver()
    folder.mkdir(exist_ok=True)
    lab = Lab(Path(tempfile.mkdtemp())).start()
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=find_chromium(), args=flags())
            for name in PICTURES:
                await take(lab, browser, name, folder)
            await browser.close()
    finally:
        lab.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
