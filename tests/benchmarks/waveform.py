"""Cost of the waveform as a session grows: ``python -m tests.benchmarks.waveform``

The cost of one 100 ms delta at second 10, minute 10 and minute 60: in the kernel (`Waveform._rows`), and on the page (
the message and the painting after it, in Chromium). Bound: minute 10 costs at most 1.1 times what second 10 costs.
"""

import asyncio
import sys
from functools import partial
from typing import Any

import numpy as np

from rtnb._loop import shared_loop
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.widgets.waveform import Waveform
from tests.benchmarks.stage import best_s, chromium, judged, print_table
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

    def delta(log: EventLog, widget: Waveform) -> None:
        number = log.next_number
        event = events.ResponseOutputAudioDelta(response_id="r", item_id=f"item_{number // 100}", delta=pcm)
        log.record("received", event, monotonic_s=number / 10, wall_time=0.0, text="x" * 6400)
        widget.feed._deliver()

    async def measure() -> list[float]:
        shown = []
        for seconds in SECONDS:
            log = EventLog()
            shown.append((log, Waveform(log)))
            await asyncio.sleep(0)
            for _ in range(10 * seconds):
                delta(*shown[-1])
            await asyncio.sleep(0)
        times = [[best_s(partial(delta, *one), times=1) for one in shown] for _ in range(ROUNDS)]
        for _, widget in shown:
            widget.close()
        # The best tenth: what the work costs, whatever else the machine does.
        return [1000 * float(cost) for cost in np.quantile(times, 0.1, axis=0)]

    found: list[float] = shared_loop().run(measure(), 600)
    return found


async def on_pages() -> list[float]:
    """Sessions of all lengths at once, each in a page of its own, and one after the other has its turn."""
    async with chromium() as browser:
        pages: list[Any] = [await shown(browser, "waveform", {"selected_ms": None, "height_px": 140}) for _ in SECONDS]
        for page, seconds in zip(pages, SECONDS, strict=True):
            await page.evaluate("document.body.style.width = '900px'")
            await page.evaluate(PAGE, seconds)
        times = []
        for _ in range(TURNS):
            for page in pages:
                await page.bring_to_front()
                times.append(await page.evaluate("rounds => measured(rounds)", ROUNDS))
    return [float(ms) for ms in np.median(np.reshape(times, (TURNS, -1)), axis=0)]


def main() -> int:
    found = {"kernel": in_kernel(), "page": asyncio.run(on_pages())}
    names = [f"ms at {seconds} s" for seconds in SECONDS]
    print_table({where: dict(zip(names, times, strict=True)) for where, times in found.items()}, digits=3)
    return judged({f"{where}: 600 s, times 10 s": (times[1] / times[0], BOUND) for where, times in found.items()})


if __name__ == "__main__":
    sys.exit(main())
