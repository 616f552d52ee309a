"""Does the waveform get slower as a session grows? ``python -m tests.benchmarks.waveform``

The cost of one 100 ms delta at second 10, minute 10 and minute 60: in the kernel (`Waveform._rows`), and on the page (
the message and the painting after it, in Chromium). Bound: minute 10 costs at most 1.1 times what second 10 costs.
"""

import asyncio
import sys
import time
from typing import Any

import numpy as np

from rtnb._loop import shared_loop
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.widgets.waveform import Waveform
from tests.benchmarks.stage import chromium
from tests.widgets.bare_page import shown

BOUND = 1.1
SECONDS = (10, 600, 3600)
ROUNDS, TURNS = 200, 15  # deltas in a row, and how often each length of session has its turn

# The same work as in a session: a delta every 100 ms, an answer of 5 s every 10 s, and the view that follows.
PAGE = """seconds => {
  const bins = () => Int16Array.from({ length: 100 }, () => 16000 * (Math.random() - 0.5)).buffer;
  const view = document.querySelector("canvas");
  say("reset", { bin_ms: 2 });
  let tenth = 0;
  const delta = () => {
    say("bins", { lane: tenth % 2 ? "you" : "model", index: 50 * tenth }, [bins()]);
    const start_ms = Math.floor(tenth / 100) * 10000;
    const mark = { start_ms, stop_ms: start_ms + 5000, status: "completed", heard_ms: null, audio_ms: 5000 };
    say("marks", { now_ms: 100 * tenth, cursor: null, marks: { [`r${start_ms}`]: mark, [`i${start_ms}`]: mark } });
    tenth += 1;
  };
  while (tenth < 10 * seconds) delta();
  window.measured = rounds => {
    const native = window.requestAnimationFrame;
    let paint = null;
    window.requestAnimationFrame = fn => ((paint = fn), 1);
    const start = performance.now(); // in steps of 0.1 ms: many deltas at once
    for (let i = 0; i < rounds; i++) {
      delta();
      paint?.();
    }
    window.requestAnimationFrame = native;
    return (performance.now() - start) / rounds;
  };
  return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


def in_kernel() -> list[float]:
    """Sessions of all lengths, one after the other has its turn."""
    pcm = np.random.default_rng(0).integers(-9000, 9000, 2400).astype(np.int16).tobytes()
    times: list[list[float]] = [[] for _ in SECONDS]

    async def measure() -> None:
        logs, widgets = [EventLog() for _ in SECONDS], []

        def delta(log: EventLog) -> None:
            number = log.next_number
            event = events.ResponseOutputAudioDelta(response_id="r", item_id=f"item_{number // 100}", delta=pcm)
            log.record("received", event, monotonic_s=number / 10, wall_time=0.0, text="x" * 6400)

        for log, seconds in zip(logs, SECONDS, strict=True):
            widgets.append(Waveform(log))
            await asyncio.sleep(0)
            for _ in range(10 * seconds):
                delta(log)
                widgets[-1].feed._deliver()
            await asyncio.sleep(0)
        for _ in range(ROUNDS):
            for log, widget, own in zip(logs, widgets, times, strict=True):
                start = time.perf_counter()
                delta(log)
                widget.feed._deliver()
                own.append(1000 * (time.perf_counter() - start))
        for widget in widgets:
            widget.close()

    shared_loop().run(measure(), 600)
    # The best tenth: what the work costs, whatever else the machine does.
    return [float(np.quantile(own, 0.1)) for own in times]


async def on_pages() -> list[float]:
    """Sessions of all lengths at once, each in a page of its own, and one after the other has its turn."""
    async with chromium() as browser:
        pages: list[Any] = [await shown(browser, "waveform", {"selected_ms": None, "height_px": 140}) for _ in SECONDS]
        for page, seconds in zip(pages, SECONDS, strict=True):
            await page.evaluate("document.body.style.width = '900px'")
            await page.evaluate(PAGE, seconds)
        times = []
        for _ in range(TURNS):
            times.append([])
            for page in pages:
                await page.bring_to_front()
                times[-1].append(await page.evaluate("rounds => measured(rounds)", ROUNDS))
    return [float(ms) for ms in np.median(times, axis=0)]


def main() -> int:
    found = {"kernel": in_kernel(), "page": asyncio.run(on_pages())}
    print(f"{'ms per delta':14}" + "".join(f"{f'at {seconds} s':>12}" for seconds in SECONDS) + "   600 s / 10 s")
    for name, times in found.items():
        print(f"{name:14}" + "".join(f"{ms:12.3f}" for ms in times) + f"{times[1] / times[0]:14.2f}")
    return 0 if all(times[1] <= BOUND * times[0] for times in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
