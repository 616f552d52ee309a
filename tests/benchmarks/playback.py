"""Does what is streamed leave the loudspeaker? ``python -m tests.benchmarks.playback``

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

from tests.benchmarks.stage import chromium, jupyterlab, open_cells
from tests.widgets.listening import SETUP, heard, opened, run
from tests.widgets.scene import marked

SECONDS = 8
STALL = "setInterval(() => { const end = performance.now() + 300; while (performance.now() < end); }, 1000)"

MEASURE = """
import asyncio, json, time
from rtnb._loop import shared_loop
async def once(n):
    # kernel -> first report that samples were played; and a bare round trip on the same channel
    start = time.perf_counter(); seen = []
    said = speaker._stream.on_message
    def listen(kind, header, buffers):
        if kind in ("played", "flushed"): seen.append((kind, time.perf_counter(), header))
        return said(kind, header, buffers)
    speaker._stream.on_message = listen
    async def until(kind):
        while not any(k == kind and (k != "played" or h["items"]) for k, _, h in seen): await asyncio.sleep(0)
        return next(t for k, t, h in seen if k == kind and (k != "played" or h["items"]))
    start = time.perf_counter()
    task = asyncio.ensure_future(scene.answer(marked(3000, seed=50 + n), speed=None))
    first = (await until("played")) - start
    item = await task
    await asyncio.sleep(0.3); seen.clear()
    start = time.perf_counter()
    scene.session.playback.flush()
    flush = (await until("flushed")) - start
    seen.clear(); start = time.perf_counter()
    speaker._stream.publish("flush", {"id": 0})  # nothing plays: the way there and back, and nothing else
    floor = (await until("flushed")) - start
    speaker._stream.on_message = said
    await asyncio.sleep(0.1)
    return [1000 * first, 1000 * flush, 1000 * floor]
print(json.dumps([shared_loop().run(once(n)) for n in range(10)]))
"""


async def streams(notebook: Any) -> list[dict[str, Any]]:
    page, rows = notebook.page, []

    async def row(name: str, code: str, seed: int) -> None:
        gaps = int(await run(notebook, "print(speaker.gaps)"))
        await run(notebook, code)
        got, sent = await heard(page), marked(SECONDS * 1000, seed=seed)
        after = await run(notebook, "print(speaker.gaps, speaker.buffer_ms, speaker.channel.status.kind)")
        now, buffer_ms, kind = after.split()
        exact = bool(np.array_equal(got, sent))
        rows.append(
            {"stream": name, "bit_exact": exact, "gaps": int(now) - gaps, "buffer_ms": int(buffer_ms), "channel": kind}
        )

    # Opening JupyterLab stalls the page, and it buffers more for 10 s after that; wait for an ordinary page.
    await page.wait_for_function(
        "!document.querySelector('.rtnb-speaker').textContent.includes('slow')", timeout=60_000
    )
    stream = "_ = scene.answer_now(marked({ms}, seed={seed}), speed={speed})"
    for seed, (name, speed) in enumerate((("1x", 1.0), ("10x", 10.0), ("at once", None))):
        await row(name, stream.format(ms=SECONDS * 1000, seed=seed, speed=speed), seed)
    begin = f"f = scene.start(marked({SECONDS * 1000}, seed=3), speed=1.0)\n"
    await row(
        "1x, kernel blocked by a cell",
        f"import time\nend = time.time() + {SECONDS + 1}\n" + begin + "while time.time() < end: pass\nf.result()",
        3,
    )
    timer = await page.evaluate(STALL)
    await page.wait_for_timeout(2500)  # the page stalls before the answer begins, as it does for a person
    await row("1x, page stalls 300 ms/s", stream.format(ms=SECONDS * 1000, seed=4, speed=1.0), 4)
    await page.evaluate(f"clearInterval({timer})")
    return rows


async def main() -> int:
    with jupyterlab() as lab:
        async with chromium() as browser:
            notebook = await opened(partial(open_cells, lab, browser), "playback.ipynb", [SETUP, "0"])
            rows = await streams(notebook)
            times = np.array(json.loads(await run(notebook, MEASURE)))
    for row in rows:
        print(
            "{stream:30} bit-exact {bit_exact!s:5}  gaps {gaps}  buffer {buffer_ms} ms  channel {channel}".format(**row)
        )
    names = ("kernel -> first sample", "flush -> silence", "floor: bare round trip")
    middle, worst = np.median(times, axis=0), times.max(axis=0)
    for name, half, most in zip(names, middle, worst, strict=True):
        print(f"{name:30} median {half:6.1f} ms  worst {most:6.1f} ms  (n={len(times)})")
    return 0 if all(row["bit_exact"] and not row["gaps"] for row in rows) and worst[1] <= 50 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
