"""How long does a playground take to open? ``python -m tests.benchmarks.playground [times]``

In a real JupyterLab, from the key that runs its cell to a page that shows its parts, and to one that says it is
connected to a simulator that the cell starts, too; the median of ten notebooks. Beside it the floor: a page with as
many widget models, as sliders of ipywidgets (a slider is three: itself, its layout and its style). Bound: 1.5 times,
for a playground that is not the first one of its kernel: that one imports the package.
"""

import asyncio
import sys
from typing import Any

import numpy as np
from ipywidgets.widgets.widget import _instances

from tests.benchmarks.stage import chromium, jupyterlab, open_cells
from tests.browser.lab import Lab

BOUND = 1.5
"""Largest multiple of the plain widgets' time."""
PLAYGROUND = "rtnb.Playground(rtnb.Simulator(latency='fast', voice='babble'))"
SLIDERS_AT = ".widget-slider"
PARTS_AT = tuple(f".rtnb-playground .rtnb-{part}" for part in ("transcript", "waveform", "control", "message-bar"))
OPEN_AT = ".rtnb-playground .rtnb-connection[data-state=open]"
PRESS = """async ([cell, shown]) => {
    const start = performance.now();
    const root = document.querySelectorAll('.jp-CodeCell')[cell];
    const press = { key: 'Enter', keyCode: 13, ctrlKey: true, bubbles: true };
    root.querySelector('.cm-content').dispatchEvent(new KeyboardEvent('keydown', press));
    const times = [];
    for (const [selector, count] of shown) {
        while (root.querySelectorAll(selector).length < count) {
            await new Promise(requestAnimationFrame);
            if (performance.now() - start > 20000) throw new Error(`${selector} did not come within 20 s`);
        }
        times.push(performance.now() - start);
    }
    return times;
}"""


def count_models() -> int:
    """Number of widget models of a playground; layouts and styles are models, too."""
    import rtnb

    before = len(_instances)
    with rtnb.Simulator(voice="babble") as simulator:
        playground = rtnb.Playground(simulator)
        assert playground.session
        count = len(_instances) - before
        playground.close()
    return count


async def opened_ms(lab: Lab, browser: Any, number: int, n_sliders: int) -> list[float]:
    """Times of the sliders, and of two playgrounds and their connections, in a new notebook with a new kernel."""
    sliders = f"ipywidgets.VBox([ipywidgets.IntSlider(value=k) for k in range({n_sliders})])"
    cells = ("import ipywidgets, rtnb", sliders, PLAYGROUND, PLAYGROUND)
    notebook = await open_cells(lab, browser, f"playground-{number}.ipynb", cells)
    times = []
    for cell, shown in enumerate(((), (SLIDERS_AT,), (*PARTS_AT, OPEN_AT), (*PARTS_AT, OPEN_AT))):
        await notebook.page.locator(".jp-CodeCell").nth(cell).locator(".cm-content").click()
        if not shown:
            await notebook.page.keyboard.press("Control+Enter")
        else:
            counts = [(selector, n_sliders if selector == SLIDERS_AT else 1) for selector in shown]
            times += (await notebook.page.evaluate(PRESS, [cell, counts]))[-2:]  # the last part, and the connection
        await notebook.until_idle()
    await notebook.page.context.close()
    return times


async def measured(times: int, n_sliders: int) -> list[list[float]]:
    with jupyterlab() as lab:
        async with chromium() as browser:
            return [await opened_ms(lab, browser, number, n_sliders) for number in range(times)]


def main(times: int) -> int:
    n_models = count_models()
    medians = np.median(asyncio.run(measured(times, round(n_models / 3))), axis=0)
    plain_ms, first_ms, first_open_ms, shown_ms, open_ms = medians.round().tolist()
    ratio = shown_ms / plain_ms
    print(f"median of {times}: {n_models} models as {round(n_models / 3)} sliders {plain_ms:.0f} ms")
    print(f"a playground of {n_models} models, shown {shown_ms:.0f} ms: {ratio:.2f} times (bound {BOUND})")
    print(f"connected to a simulator that its cell starts {open_ms:.0f} ms")
    print(f"the first one of a kernel, which imports the package: {first_ms:.0f} ms, {first_open_ms:.0f} ms")
    return 0 if ratio <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
