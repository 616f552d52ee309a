"""Does a closed playground leave anything behind? ``python -m tests.benchmarks.leaks [times]``

In a real JupyterLab, 20 playgrounds are opened and closed, one after the other; then, in another notebook, as many
boxes of plain ipywidgets, because JupyterLab and ipywidgets keep something, too. Printed: kernel (tasks of the shared
loop, widgets, open files and sockets, resident memory) and page (listeners, nodes, heap after garbage collection, open
WebSockets) after the first one and after the last one, and the difference for each.
"""

import asyncio
import json
import sys
from typing import Any

from tests.benchmarks.stage import chromium, jupyterlab, open_cells
from tests.browser.cells import run

SETUP = """
import asyncio, gc, json, os
import ipywidgets, rtnb
from ipywidgets.widgets.widget import _instances
from rtnb._loop import shared_loop
simulator = rtnb.Simulator(latency="fast", voice="babble")

async def tasks():
    return len(asyncio.all_tasks()) - 1

def kernel():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    return {"tasks": shared_loop().run(tasks()), "widgets": len(_instances),
            "files and sockets": len(os.listdir("/proc/self/fd")), "memory (MB)": round(pages * 4096 / 2**20, 1)}
"""
PLAYGROUND = (
    "playground = rtnb.Playground(simulator)\nplayground",
    ".rtnb-playground .rtnb-connection[data-state=open]",
    "playground.close(); del playground; await asyncio.sleep(1)",
)
"""Code that opens, what the page then shows, code that closes."""
PLAIN = (
    "box = ipywidgets.VBox([ipywidgets.IntSlider() for _ in range(60)])\nbox",
    ".widget-slider",
    "ipywidgets.Widget.close_all(); del box; await asyncio.sleep(1)",
)
"""The peer: sliders, about as many as a playground has widgets."""
SOCKETS = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
    constructor(...what) { super(...what); sockets.push(new WeakRef(this)); }
};
"""
OPEN_SOCKETS = "sockets.filter((one) => one.deref()?.readyState === WebSocket.OPEN).length"
METRICS = {"JSEventListeners": "listeners", "Nodes": "nodes", "JSHeapUsedSize": "heap (MB)"}


async def measure(notebook: Any, devtools: Any) -> dict[str, float]:
    """Measure kernel and page."""
    found: dict[str, float] = json.loads(await run(notebook, "print(json.dumps(kernel()))"))
    for _ in range(2):  # the first one finds objects whose finalizers keep others
        await devtools.send("HeapProfiler.collectGarbage")
    metrics = {one["name"]: one["value"] for one in (await devtools.send("Performance.getMetrics"))["metrics"]}
    for name, label in METRICS.items():
        found[label] = round(metrics[name] / 2**20, 1) if name == "JSHeapUsedSize" else metrics[name]
    found["WebSockets"] = await notebook.page.evaluate(OPEN_SOCKETS)
    return found


async def benchmark(times: int) -> None:
    """Open and close playgrounds, and as many boxes of plain ipywidgets; print what was there before and after."""
    tables = {}
    with jupyterlab() as lab:
        async with chromium() as browser:
            for name, cells in {"playground": PLAYGROUND, "plain ipywidgets": PLAIN}.items():
                notebook = await open_cells(lab, browser, f"{name}.ipynb", ["0"], script=SOCKETS)
                tables[name] = await repeat(notebook, times, *cells)
                await notebook.page.close()
    print(f"{'':20}" + "".join(f"{name + ', after 1':>27}{f'after {times + 1}':>10}{'each':>9}" for name in tables))
    for label in tables["playground"][0]:
        ends = [(before[label], after[label]) for before, after in tables.values()]
        print(f"{label:20}" + "".join(f"{a:27g}{b:10g}{(b - a) / times:9.2f}" for a, b in ends))


async def repeat(notebook: Any, times: int, opening: str, shown: str, closing: str) -> list[dict[str, float]]:
    """Open and close one thing again and again; what is there after the first and after the last."""
    devtools = await notebook.page.context.new_cdp_session(notebook.page)
    await devtools.send("Performance.enable")
    await run(notebook, SETUP)
    rows = []
    for number in range(times + 1):  # the first one loads what stays
        await run(notebook, opening)
        await notebook.page.locator(shown).first.wait_for(timeout=60_000)
        await run(notebook, closing)
        if number in (0, times):
            rows.append(await measure(notebook, devtools))
    return rows


if __name__ == "__main__":
    asyncio.run(benchmark(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
