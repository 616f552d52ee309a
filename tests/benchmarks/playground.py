"""How long does a playground take to open? ``python -m tests.benchmarks.playground [times]``

In a real JupyterLab, from the key that runs its cell to a page that shows its parts, and to one that says it is
connected to a simulator that the cell starts, too; the median of ten notebooks. Beside it the floor: a page with as
many widgets, sliders of ipywidgets. Bound: 1.5 times, for a playground that is not the first one of its kernel: that
one imports the package. Its widgets share layouts and styles, which are models, too, so a second floor has as many
models (a slider has three); it is printed and has no bound.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from ipywidgets import DOMWidget
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


def count() -> tuple[int, int]:
    """Number of widgets of a playground, and of its models: layouts and styles are models, too."""
    import rtnb

    before = set(_instances)
    with rtnb.Simulator(voice="babble") as simulator:
        playground = rtnb.Playground(simulator)
        assert playground.session
        models = [widget for name, widget in _instances.items() if name not in before]
        playground.close()
    return sum(isinstance(one, DOMWidget) for one in models), len(models)


async def opened_ms(lab: Lab, browser: Any, number: int, sliders: Sequence[int]) -> list[float]:
    """Times of the sliders, and of two playgrounds and their connections, in a new notebook with a new kernel."""
    plain = [f"ipywidgets.VBox([ipywidgets.IntSlider(value=k) for k in range({n})])" for n in sliders]
    cells = ("import ipywidgets, rtnb", *plain, PLAYGROUND, PLAYGROUND)
    notebook = await open_cells(lab, browser, f"playground-{number}.ipynb", cells)
    times: list[float] = []
    parts = [(selector, 1) for selector in (*PARTS_AT, OPEN_AT)]
    for cell, shown in enumerate([[], *([(SLIDERS_AT, n)] for n in sliders), parts, parts]):
        await notebook.page.locator(".jp-CodeCell").nth(cell).locator(".cm-content").click()
        if not shown:
            await notebook.page.keyboard.press("Control+Enter")
        else:
            times += (await notebook.page.evaluate(PRESS, [cell, shown]))[-2:]  # the last part, and the connection
        await notebook.until_idle()
    await notebook.page.context.close()
    return times


async def measured(times: int, sliders: Sequence[int]) -> list[list[float]]:
    with jupyterlab() as lab:
        async with chromium() as browser:
            return [await opened_ms(lab, browser, number, sliders) for number in range(times)]


def main(times: int) -> int:
    n_widgets, n_models = count()
    sliders = (n_widgets, round(n_models / 3))
    medians = np.median(asyncio.run(measured(times, sliders)), axis=0).round().tolist()
    plain_ms, models_ms, first_ms, first_open_ms, shown_ms, open_ms = medians
    ratio = shown_ms / plain_ms
    print(f"median of {times}: a playground of {n_widgets} widgets and {n_models} models")
    print(f"shown {shown_ms:.0f} ms, connected to a simulator that its cell starts {open_ms:.0f} ms")
    print(f"as many widgets, {sliders[0]} sliders: {plain_ms:.0f} ms, {ratio:.2f} times (bound {BOUND})")
    print(f"as many models, {sliders[1]} sliders: {models_ms:.0f} ms, {shown_ms / models_ms:.2f} times")
    print(f"the first one of a kernel, which imports the package: {first_ms:.0f} ms, {first_open_ms:.0f} ms")
    return 0 if ratio <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
