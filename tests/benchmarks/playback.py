"""Check of what leaves the loudspeaker: ``python -m tests.benchmarks.playback``

Real JupyterLab and Chromium. Audio of which every sample is known is streamed at 1×, at 10× and all at once; a tap
behind the `Speaker`'s worklet records every quantum: it must be the same bits, without a gap. Then 1× with a page that
stalls 300 ms every second, and with a cell that blocks the kernel; then flush, and the time from the kernel to the
first sample, beside the floor of a bare round trip on the same channel. All times end when the page's report is back.
"""

import asyncio
import json
import sys
from functools import partial
from typing import Any

import numpy as np

from tests.benchmarks.stage import chromium, judged, jupyterlab, open_cells, options, print_table
from tests.widgets.listening import SETUP, heard, opened, run
from tests.widgets.scene import marked

STALL = "setInterval(() => { const end = performance.now() + 300; while (performance.now() < end); }, 1000)"
STREAM = "_ = scene.answer_now(marked({ms}, seed={seed}), speed={speed})"
BLOCKED = """
import time
end, answer = time.time() + {ms} / 1000 + 1, scene.start(marked({ms}, seed={seed}), speed=1.0)
while time.time() < end: pass
answer.result()
"""
WAYS = {
    "1x": STREAM.replace("{speed}", "1.0"),
    "10x": STREAM.replace("{speed}", "10.0"),
    "at once": STREAM.replace("{speed}", "None"),
    "1x, kernel blocked by a cell": BLOCKED,
    "1x, page stalls 300 ms/s": STREAM.replace("{speed}", "1.0"),
}

MEASURE = """
import asyncio, json, time
from rtnb._loop import shared_loop
async def once(n):
    # kernel -> first report that samples were played; and a bare round trip on the same channel
    seen, before = [], speaker._stream.on_message
    def listen(kind, header, buffers):
        if kind == "flushed" or kind == "played" and header["items"]: seen.append((kind, time.perf_counter()))
        return before(kind, header, buffers)
    speaker._stream.on_message = listen
    async def ms_until(kind, start):
        while not any(k == kind for k, _ in seen): await asyncio.sleep(0)
        return 1000 * (next(t for k, t in seen if k == kind) - start)
    start = time.perf_counter()
    task = asyncio.ensure_future(scene.answer(marked(3000, seed=50 + n), speed=None))
    first = await ms_until("played", start)
    await task
    await asyncio.sleep(0.3); seen.clear()
    start = time.perf_counter()
    scene.session.playback.flush()
    flush = await ms_until("flushed", start)
    seen.clear(); start = time.perf_counter()
    speaker._stream.publish("flush", {"id": 0})  # nothing plays: the way there and back, and nothing else
    floor = await ms_until("flushed", start)
    speaker._stream.on_message = before
    await asyncio.sleep(0.1)
    return first, flush, floor
print(json.dumps([shared_loop().run(once(n)) for n in range(10)]))
"""


async def streams(notebook: Any, ms: int) -> dict[str, dict[str, Any]]:
    """Stream in every way; whether it left the worklet as it was, its gaps, and what the speaker says of itself."""
    page, rows = notebook.page, {}
    # Opening JupyterLab stalls the page, and it buffers more for 10 s after that; wait for an ordinary page.
    ordinary = "!document.querySelector('.rtnb-speaker').textContent.includes('slow')"
    await page.wait_for_function(ordinary, timeout=60_000)
    await heard(page)  # the sound of the measurement
    for seed, (name, code) in enumerate(WAYS.items()):
        if "stalls" in name:
            await page.evaluate(STALL)
            await page.wait_for_timeout(2500)  # the page stalls before the answer begins, as it does for a person
        before = int(await run(notebook, "print(speaker.gaps)"))
        await run(notebook, code.format(ms=ms, seed=seed))
        exact = np.array_equal(await heard(page), marked(ms, seed=seed))
        gaps, buffer_ms, channel = (
            await run(notebook, "print(speaker.gaps, speaker.buffer_ms, speaker.channel.status.kind)")
        ).split()
        rows[name] = {"exact": exact, "gaps": int(gaps) - before, "buffer_ms": buffer_ms, "channel": channel}
    return rows


async def main(seconds: float) -> int:
    with jupyterlab() as lab:
        async with chromium() as browser:
            notebook = await opened(partial(open_cells, lab, browser), "playback.ipynb", [SETUP, "0"])
            times = np.array(json.loads(await run(notebook, MEASURE)))
            rows = await streams(notebook, round(1000 * seconds))
    names = ("kernel -> first sample", "flush -> silence", "floor: bare round trip")
    print_table(rows)
    print_table({name: {"p50_ms": np.median(ms), "max_ms": ms.max()} for name, ms in zip(names, times.T, strict=True)})
    return judged(
        {
            "streams that were not bit by bit the same": (sum(not row["exact"] for row in rows.values()), 0),
            "gaps": (sum(row["gaps"] for row in rows.values()), 0),
            "flush -> silence, longest, ms": (times[:, 1].max(), 50),
        }
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main(options(__doc__, seconds=8.0).seconds)))
