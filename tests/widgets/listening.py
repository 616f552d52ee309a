"""A notebook with one `Speaker`, and ears on what leaves its worklet; for tests and the benchmark."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.browser.cells import run as run  # for those who listen, too
from tests.browser.lab import NotebookPage

ROOT = Path(__file__).resolve().parents[2]

# Every AudioWorkletNode of the page is also heard by a recorder of ours, quantum by quantum, once it has `tapped` it;
# `sounded` counts what is not zero, `late_ms` is how late a quantum came at most: how long the machine stood still.
TAP = """
Object.assign(window, { heard: [], sounded: 0, late_ms: 0, tapped: false });
const Node = window.AudioWorkletNode.plain ?? window.AudioWorkletNode; // the page may be tapped already
window.AudioWorkletNode = class extends Node {
  constructor(context, name, options) {
    super(context, name, options);
    if (name !== "rtnb-speaker") return;
    const source = `registerProcessor("tap", class extends AudioWorkletProcessor {
      process(inputs) { if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice()); return true; } });`;
    context.audioWorklet.addModule(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))).then(() => {
      const tap = new Node(context, "tap", { numberOfOutputs: 0 });
      let [count, begun] = [0, Infinity];
      tap.port.onmessage = ({ data }) => {
        const [now, played] = [performance.now(), (++count * 128) / 24];
        begun = Math.min(begun, now - played);
        window.late_ms = Math.max(window.late_ms, now - played - begun);
        window.sounded += data.reduce((n, v) => n + (v !== 0), 0);
        window.heard?.push(data);
      };
      this.connect(tap);
      window.tapped = true;
    });
  }
};
window.AudioWorkletNode.plain = Node;
window.takeHeard = () => {
  const all = window.heard.flatMap((part) => [...part]);
  Object.assign(window, { heard: [], sounded: 0 });
  const first = all.findIndex((v) => v !== 0), last = all.findLastIndex((v) => v !== 0);
  return all.slice(first, last + 1).map((v) => v * 32768);
};
"""

SETUP = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from tests.widgets.scene import Scene, marked
from rtnb.widgets.speaker import Speaker
scene = Scene()
speaker = Speaker(scene.session)
speaker
"""


async def opened(
    open_notebook: Callable[..., Awaitable[NotebookPage]], name: str, cells: list[str], **options: Any
) -> NotebookPage:
    """Open a notebook with these cells, tap its page, and run it; `open_notebook` writes and opens."""
    notebook = await open_notebook(name, cells=cells, **options)
    page = notebook.page
    await page.evaluate(f"() => {{ {TAP} }}")
    await notebook.run_all()
    await page.locator(".rtnb-speaker").wait_for(timeout=20_000)
    await page.wait_for_function("window.tapped")
    return notebook


async def heard(page: Any, *, samples: int = 1) -> np.ndarray:
    """What left the worklet since the last time, without the silence around it; waits for its end.

    It is not over before so many `samples` that are not zero were heard: in a gap, the speaker is idle, too.
    """
    await page.wait_for_function("n => window.sounded >= n", arg=samples, timeout=60_000)
    await page.wait_for_selector(".rtnb-speaker[data-state=idle]", timeout=60_000)
    await page.wait_for_function("window.heard.at(-1).every((v) => !v)")  # the tap is behind the worklet by some quanta
    return np.array(await page.evaluate("takeHeard()")).round().astype(int)
