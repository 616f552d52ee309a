"""Events that can be watched per second: ``python -m tests.benchmarks.inspector``

In a real JupyterLab in Chromium: 5,000 events/s for 15 s shown by the inspector (every event a row, the newest
followed) and by `print`, in turn; then a burst of 100,000 events into the inspector. Each event carries the time at
which it was made; every frame the page reads the newest one it shows: that is the lag. None may be lost.

Tasks are watched once the cell runs: JupyterLab itself works 60 to 200 ms on the key that starts a cell. Their time
on the clock includes what the machine did meanwhile for other processes, so the CPU of the burst's longest task on the
page's thread is printed, too. Run it on a quiet machine: Chromium without a graphics card paints in software.
"""

import asyncio
import sys
from typing import Any

from tests.benchmarks.stage import chromium, judged, jupyterlab, open_cells, options, print_table
from tests.browser.lab import Lab, NotebookPage
from tests.widgets.page import eventually

BURST = 100_000
LONGEST_S = 120
"""Longest wait for a condition, s; a slow machine gives bad figures, but it gives them (chosen)."""

SETUP = """
import asyncio, time
from pathlib import Path
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.widgets.inspector import inspect
IDS = dict(response_id="resp_1", item_id="item_1", output_index=0, content_index=0)
def make(i):
    return events.ResponseOutputAudioTranscriptDelta(**IDS, delta=f"@{time.time() * 1000:.0f}@", event_id=f"e{i}")
async def paced(show, rate, seconds):
    start, made = time.monotonic(), 0
    while made < rate * seconds:
        due = min(int((time.monotonic() - start) * rate), rate * seconds)
        for made in range(made + 1, due + 1):
            show(make(made))
        made = max(made, due)
        await asyncio.sleep(0.01)
def fill(made, path):
    for event in made:
        show(event)
    Path(path).write_text(str(time.time()))
log = EventLog(limit_bytes=2**30)
def show(event):
    log.record("received", event, monotonic_s=time.monotonic(), wall_time=time.time(), text="x" * 180)
"""
INSPECT = "inspector = inspect(log)\ninspector"
SHOW = {"inspector": (INSPECT, "show", ".rtnb-ev-space > .rtnb-ev-row:not([hidden])")}
SHOW["print"] = ("", "print", ".jp-OutputArea-output pre")
"""Cell that shows the events, function that takes one, and the nodes of the page that it becomes."""

FILL = """asyncio.get_running_loop().call_later(2, fill, [make(i) for i in range({burst})], "filled")"""
"""Makes a burst after the cell, in the kernel's loop; the file says when the last event was made."""

WATCH = """selector => {
    const watch = window.rtnbWatch = { frames: 0, lags: [], long: [], on: true, start: performance.now() };
    const note = list => watch.long.push(...list.getEntries().map(entry => entry.duration));
    new PerformanceObserver(note).observe({ type: "longtask" });
    const frame = () => {
        if (!watch.on) return;
        watch.frames += 1;
        const nodes = [...document.querySelectorAll(selector)].slice(-60); // none before the first output
        const text = nodes.map(n => n.textContent).join("");
        const newest = Math.max(0, ...[...text.slice(-6000).matchAll(/@(\\d{13})@/g)].map(m => Number(m[1])));
        if (newest) watch.lags.push(Date.now() - newest);
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
}"""
END = """() => {
    const watch = window.rtnbWatch;
    return Object.assign(watch, { on: false, seconds: (performance.now() - watch.start) / 1000 });
}"""
SHOWN = """async ([total, longest_s]) => {
    const start = performance.now();
    while (document.querySelector(".rtnb-ev-status")?.textContent !== `${total} of ${total} events`) {
        await new Promise(requestAnimationFrame);
        if (performance.now() - start > 1000 * longest_s) throw new Error(`${total} events were not shown`);
    }
    return Date.now() / 1000;
}"""
"""Waits until all events are shown; returns when."""
SCROLL = """async () => {
    const grid = document.querySelector(".rtnb-ev-grid"), start = performance.now();
    let frames = 0;
    for (grid.scrollTop = 0; performance.now() - start < 3000; frames += 1) {
        grid.scrollTop = (grid.scrollTop + 1500) % grid.scrollHeight;
        await new Promise(requestAnimationFrame);
    }
    return frames / 3;
}"""


async def steady(lab: Lab, browser: Any, who: str, *, rate: int, seconds: int) -> dict[str, float]:
    """Frames, long tasks and lag while events come at `rate` per second."""
    cell, take, selector = SHOW[who]
    go = f"await paced({take}, {rate}, {seconds})"
    page = (await _opened(lab, browser, who, [cell, go])).page
    if who == "inspector":  # a row for each event
        await page.get_by_role("button", name="Fold", exact=True).click()
        await page.locator(".jp-CodeCell .cm-content").nth(2).click()
    await page.keyboard.press("Shift+Enter")
    await page.locator(".jp-CodeCell").nth(2).get_by_text("[*]:").wait_for()
    await page.evaluate(WATCH, selector)
    if who == "inspector":
        await page.evaluate(SHOWN, [f"{rate * seconds:,}", LONGEST_S])
    else:
        await page.wait_for_timeout(seconds * 1000)  # the peer may never show everything
    watch = await page.evaluate(END)
    await page.context.close()
    lags = sorted(watch["lags"]) or [float("inf")]
    return {
        "frames_per_s": watch["frames"] / watch["seconds"],
        "long_tasks": len(watch["long"]),
        "longest_ms": max(watch["long"], default=0.0),
        "lag_p50_s": lags[len(lags) // 2] / 1000,
        "lag_p95_s": lags[len(lags) * 95 // 100] / 1000,
    }


async def burst(lab: Lab, browser: Any, *, script: str = "") -> dict[str, float]:
    """100,000 events at once: until they are shown, the longest task meanwhile, and how they scroll."""
    notebook = await _opened(lab, browser, "burst", [INSPECT, FILL.format(burst=BURST)], script=script)
    page, session = notebook.page, await notebook.page.context.new_cdp_session(notebook.page)
    await page.keyboard.press("Shift+Enter")
    await notebook.until_idle()
    await page.evaluate(WATCH, SHOW["inspector"][2])
    tracing = {"transferMode": "ReportEvents", "traceConfig": {"includedCategories": ["toplevel"]}}
    await session.send("Tracing.start", tracing)
    shown_s = await page.evaluate(SHOWN, [f"{BURST:,}", LONGEST_S])
    path = lab.directory / "filled"
    await eventually(lambda: path.exists() and path.read_text(), timeout_s=LONGEST_S)
    longest_ms = max((await page.evaluate(END))["long"], default=0.0)
    figures = {"burst_s": shown_s - float(path.read_text()), "longest_ms": longest_ms}
    figures["longest_cpu_ms"] = await _longest_cpu_ms(session)
    figures["scroll_frames_per_s"] = await page.evaluate(SCROLL)
    await page.context.close()
    return figures


async def _opened(lab: Lab, browser: Any, name: str, cells: list[str], *, script: str = "") -> NotebookPage:
    """Open a notebook and run its first two cells."""
    notebook = await open_cells(lab, browser, f"{name}.ipynb", [SETUP, *cells], script=script)
    page = notebook.page
    await page.locator(".jp-CodeCell .cm-content").first.click()
    for _ in range(2):
        await page.keyboard.press("Shift+Enter")
    await notebook.until_idle()
    if INSPECT in cells:
        await page.locator(".rtnb-ev").wait_for()
    return notebook


async def _longest_cpu_ms(session: Any) -> float:
    """End the tracing; return the CPU time of the longest task on the page's thread."""
    events: list[dict[str, Any]] = []
    done = asyncio.get_running_loop().create_future()
    session.on("Tracing.dataCollected", lambda data: events.extend(data["value"]))
    session.once("Tracing.tracingComplete", lambda _: done.set_result(None))
    await session.send("Tracing.end")
    await asyncio.wait_for(done, LONGEST_S)
    names = [one for one in events if one["name"] == "thread_name" and one["args"]["name"] == "CrRendererMain"]
    pages = {(one["pid"], one["tid"]) for one in names}
    tasks = [one for one in events if one["name"].endswith("RunTask") and (one["pid"], one["tid"]) in pages]
    return max((one.get("tdur", 0) for one in tasks), default=0) / 1000


async def measure(rate: int, seconds: int) -> int:
    """Run all, print the tables, return the exit code."""
    with jupyterlab() as lab:
        async with chromium() as browser:
            flow = {who: await steady(lab, browser, who, rate=rate, seconds=seconds) for who in SHOW}
            once = await burst(lab, browser)
    print_table(flow, digits=2)
    print_table({f"burst of {BURST:,}": once}, digits=2)
    mine = flow["inspector"]
    return judged(
        {
            "lag, 95th percentile, s": (mine["lag_p95_s"], 0.2),
            "longest task, ms": (mine["longest_ms"], 50),
            "time of a frame, ms": (1000 / mine["frames_per_s"], 18.2),
            "burst shown after, s": (once["burst_s"], 1.5),
            "longest task of the burst, ms": (once["longest_ms"], 50),
            "time of a frame while scrolling, ms": (1000 / once["scroll_frames_per_s"], 18.2),
        }
    )


if __name__ == "__main__":
    chosen = options(__doc__, rate=5_000, seconds=15)
    sys.exit(asyncio.run(measure(chosen.rate, chosen.seconds)))
