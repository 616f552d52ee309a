"""Time that a playground takes to open, and what a closed one leaves.

``python -m tests.benchmarks.playground``

In a real JupyterLab. Opening: from the key that runs its cell to a page that shows its parts, and to one that says it
is connected to a simulator that the cell starts, too; the median of ten notebooks. The floor is a page with as many
widgets, sliders of ipywidgets. The bound is for a playground that is not the first one of its kernel: that one imports
the package.

Leaving: 20 playgrounds are opened and closed, one after the other; then, in another notebook, as many boxes of sliders,
because JupyterLab and ipywidgets keep something, too. Printed: kernel (tasks of the shared loop, widgets, open files
and sockets, resident memory) and page (listeners, nodes, heap after garbage collection, open WebSockets) after the
first one and after the last one, and the difference for each.
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np

from tests.benchmarks.stage import chromium, judged, jupyterlab, open_cells, options, print_table
from tests.browser.cells import run
from tests.browser.lab import Lab

BOUND = 1.5
"""Largest multiple of the plain widgets' time."""
PARTS_AT = [f".rtnb-playground .rtnb-{part}" for part in ("transcript", "waveform", "control", "message-bar")]
OPEN_AT = ".rtnb-playground .rtnb-connection[data-state=open]"
SLIDERS_AT = ".widget-slider"
NEW = "rtnb.Playground(rtnb.Simulator(latency='fast', voice='babble'))"
SLIDERS = "ipywidgets.VBox([ipywidgets.IntSlider(value=k) for k in range({n})])"
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

SETUP = """
import asyncio, gc, json, ipywidgets, psutil, rtnb
from ipywidgets.widgets.widget import _instances
from rtnb._loop import shared_loop
simulator = rtnb.Simulator(latency="fast", voice="babble")

async def tasks():
    return len(asyncio.all_tasks()) - 1

def kernel():
    gc.collect()
    process = psutil.Process()
    return {"tasks": shared_loop().run(tasks()), "widgets": len(_instances), "files and sockets": process.num_fds(),
            "memory (MB)": process.memory_info().rss / 2**20}
"""
CLOSED = {
    "playground": (f"shown = {NEW}\nshown", OPEN_AT, "shown.close(); del shown; await asyncio.sleep(1)"),
    "sliders": (
        f"shown = {SLIDERS}\nshown",
        SLIDERS_AT,
        "ipywidgets.Widget.close_all(); del shown; await asyncio.sleep(1)",
    ),
}
"""Code that opens, what the page then shows, code that closes."""
SOCKETS = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
    constructor(...what) { super(...what); sockets.push(new WeakRef(this)); }
};
"""
OPEN_SOCKETS = "sockets.filter((one) => one.deref()?.readyState === WebSocket.OPEN).length"


async def n_widgets(lab: Lab, browser: Any) -> int:
    """Number of visible widgets of a playground."""
    notebook = await open_cells(lab, browser, "count.ipynb", ["0"])
    await run(notebook, f"{SETUP}before, shown = set(_instances), {NEW}\nshown.session")
    new = "[one for name, one in _instances.items() if name not in before]"
    found = int(await run(notebook, f"print(sum(isinstance(one, ipywidgets.DOMWidget) for one in {new}))"))
    await notebook.page.context.close()
    return found


async def opened_ms(lab: Lab, browser: Any, number: int, n: int) -> list[float]:
    """Times of the sliders, and of two playgrounds and their connections, in a new notebook with a new kernel."""
    cells = ("import ipywidgets, rtnb", SLIDERS.format(n=n), NEW, NEW)
    notebook = await open_cells(lab, browser, f"playground-{number}.ipynb", cells)
    times: list[float] = []
    parts = [(selector, 1) for selector in (*PARTS_AT, OPEN_AT)]
    for cell, shown in enumerate(([], [(SLIDERS_AT, n)], parts, parts)):
        await notebook.page.locator(".jp-CodeCell").nth(cell).locator(".cm-content").click()
        times += (await notebook.page.evaluate(PRESS, [cell, shown]))[-2:]  # the last part, and the connection
        await notebook.until_idle()
    await notebook.page.context.close()
    return times


async def left(notebook: Any, devtools: Any) -> dict[str, float]:
    """Measure kernel and page."""
    found: dict[str, float] = json.loads(await run(notebook, "print(json.dumps(kernel()))"))
    for _ in range(2):  # the first one finds objects whose finalizers keep others
        await devtools.send("HeapProfiler.collectGarbage")
    metrics = {one["name"]: one["value"] for one in (await devtools.send("Performance.getMetrics"))["metrics"]}
    page = {"listeners": metrics["JSEventListeners"], "nodes": metrics["Nodes"]}
    heap = {"heap (MB)": metrics["JSHeapUsedSize"] / 2**20}
    return found | page | heap | {"WebSockets": await notebook.page.evaluate(OPEN_SOCKETS)}


async def closed(lab: Lab, browser: Any, name: str, n: int, times: int) -> dict[str, dict[str, float]]:
    """Open and close one thing again and again; what is there after the first and after the last."""
    notebook = await open_cells(lab, browser, f"{name}.ipynb", ["0"], script=SOCKETS)
    devtools = await notebook.page.context.new_cdp_session(notebook.page)
    await devtools.send("Performance.enable")
    await run(notebook, SETUP)
    opening, shown, closing = CLOSED[name]
    rows = []
    for number in range(times + 1):  # the first one loads what stays
        await run(notebook, opening.format(n=n))
        await notebook.page.locator(shown).first.wait_for(timeout=60_000)
        await run(notebook, closing)
        if number in (0, times):
            rows.append(await left(notebook, devtools))
    await notebook.page.context.close()
    after, last = rows
    return {what: {"after 1": after[what], f"after {times + 1}": last[what], "each": (last[what] - after[what]) / times}
            for what in after}  # fmt: skip


async def main(notebooks: int, closings: int) -> int:
    with jupyterlab() as lab:
        async with chromium() as browser:
            n = await n_widgets(lab, browser)
            times = [await opened_ms(lab, browser, number, n) for number in range(notebooks)]
            for name in CLOSED if closings else ():
                print(f"{name}, closed")
                print_table(await closed(lab, browser, name, n, closings), digits=2)
    plain_ms, first_ms, first_open_ms, shown_ms, open_ms = np.median(times, axis=0)
    print(f"median of {notebooks} notebooks, ms until it is shown, and until it is connected")
    rows = {"playground": (shown_ms, open_ms), "first one of a kernel": (first_ms, first_open_ms)}
    named = {name: {"shown": shown, "connected": connected} for name, (shown, connected) in rows.items()}
    print_table(named | {f"{n} sliders": {"shown": plain_ms}}, digits=0)
    return judged({f"a playground of {n} widgets, times as many sliders": (shown_ms / plain_ms, BOUND)})


if __name__ == "__main__":
    chosen = options(__doc__, notebooks=10, closings=20)
    sys.exit(asyncio.run(main(chosen.notebooks, chosen.closings)))
