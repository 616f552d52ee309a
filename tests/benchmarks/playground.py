"""How long does a playground take to open? ``python -m tests.benchmarks.playground [times]``

In a real JupyterLab, from the key that runs its cell (a simulator included) to a page that says it is connected; the
median of ten notebooks. Beside it the floor: the same for a cell that shows a slider of ipywidgets. Bound: 2 s.
"""

import asyncio
import sys
from typing import Any

import numpy as np

from tests.benchmarks.stage import chromium, jupyterlab, open_cells
from tests.browser.lab import Lab

BOUND_MS = 2_000.0
CELLS = (
    "import ipywidgets, rtnb",
    "ipywidgets.IntSlider()",
    "playground = rtnb.Playground(rtnb.Simulator(latency='fast', voice='babble'))\nplayground",
)
SHOWN = (".widget-slider", ".rtnb-playground .rtnb-connection[data-state=open]")
PRESS = """async ([cell, shown]) => {
    const start = performance.now();
    const press = { key: 'Enter', keyCode: 13, ctrlKey: true, bubbles: true };
    document.querySelectorAll('.jp-CodeCell')[cell].querySelector('.cm-content')
        .dispatchEvent(new KeyboardEvent('keydown', press));
    while (!document.querySelector(shown)) {
        await new Promise(requestAnimationFrame);
        if (performance.now() - start > 20000) throw new Error(`${shown} did not come within 20 s`);
    }
    return performance.now() - start;
}"""


async def opened_ms(lab: Lab, browser: Any, number: int) -> list[float]:
    """The slider's time and the playground's, in a new notebook with a new kernel."""
    notebook = await open_cells(lab, browser, f"playground-{number}.ipynb", CELLS)
    times = []
    for cell, shown in enumerate((None, *SHOWN)):
        await notebook.page.locator(".jp-CodeCell").nth(cell).locator(".cm-content").click()
        if shown is None:
            await notebook.page.keyboard.press("Control+Enter")
        else:
            times.append(await notebook.page.evaluate(PRESS, [cell, shown]))
        await notebook.until_idle()
    await notebook.page.context.close()
    return times


async def measured(times: int) -> list[list[float]]:
    with jupyterlab() as lab:
        async with chromium() as browser:
            return [await opened_ms(lab, browser, number) for number in range(times)]


def main(times: int) -> int:
    slider_ms, playground_ms = np.median(asyncio.run(measured(times)), axis=0).round().tolist()
    print(f"median of {times}: a slider {slider_ms:.0f} ms, a playground, connected {playground_ms:.0f} ms")
    return 0 if playground_ms <= BOUND_MS else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
