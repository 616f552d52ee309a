"""Latency, loss and cost of the microphone: ``python -m tests.benchmarks.microphone [seconds]``

Real JupyterLab and Chromium, whose microphone is a file; a session in the notebook's background to a simulator in this
process, which notes when each piece arrives. Per way (the direct socket; widget messages only):

- latency from a frame's last sample in the page to the service, while the kernel is idle, sleeps (``time.sleep``),
  computes (a loop of plain Python) and awaits; number of late and dropped frames;
- over the direct socket, a recording of 60 s (or `seconds`): frames dropped, and its likeness to the file.

Stamps and arrivals share one clock, `time.monotonic`: the page estimates the kernel's.

Then, in the same run, the CPU that Chromium needs to capture and send by either way, and by the peer: the same worklet
with one widget message per 20 ms. With 0 seconds only the latencies are measured.
"""

import asyncio
import json
import os
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import rtnb
from rtnb.audio import read_wav
from rtnb.simulator.session import ServiceSession
from tests.benchmarks.stage import chromium, jupyterlab, open_cells, verdict
from tests.browser.lab import Lab
from tests.widgets.browser.microphone_page import likeness, write_voice
from tests.widgets.listening import run

ROOT = Path(__file__).resolve().parents[2]
CPU_S = 10.0
BUSY_S = 5

SETUP = """
import os, sys, time, asyncio, json; sys.path.insert(0, {root!r}); os.environ["RTNB_CHANNEL"] = {switch!r}
import rtnb
from rtnb._loop import shared_loop
from rtnb.audio import write_wav
async def opened():
    return await rtnb.connect(rtnb.Azure({url!r}, deployment={model!r}, api_key={key!r}), turn_detection=None)
session = shared_loop().run(opened(), 30)
mic = rtnb.Microphone(session, echo_cancellation=False, noise_suppression=False, auto_gain_control=False)
stamps, put = [], mic._sender._put
def noted(send, frames=0, stamp_ms=0.0):
    async def sent():
        await send()
        stamps.append(stamp_ms)
    put(sent, frames, stamp_ms)
mic._sender._put = noted
display(mic, mic.channel)
"""
LINE = (
    "{way:9} {phase:13} p50 {p50:7.1f}  p99 {p99:7.1f}  max {max:7.1f} ms  captured {captured} sent {sent} late {late} "
    "dropped {dropped}"
)
WAYS = {"direct": "", "messages": "messages"}
PHASES = {
    "idle": f"await asyncio.sleep({BUSY_S})",
    "time.sleep": f"time.sleep({BUSY_S})",
    "plain Python": "while time.monotonic() < end: pass",
    "await": f"await asyncio.sleep({BUSY_S})",
}
PHASE = """
before, start = mic.counts, time.monotonic(); end = start + {busy}
{code}
stop = time.monotonic(); stamped = len(stamps)
"""
TELL = "print(json.dumps([start, stop, before, mic.counts]))"

PEER = """
import sys; sys.path.insert(0, {root!r})
import anywidget, traitlets
from rtnb.widgets import Microphone
from rtnb.widgets._base import bundle
class Peer(anywidget.AnyWidget):
    _esm = bundle("microphone_capture.js") + '''
    export default {{ async render({{ model }}) {{
      const processing = {{ echoCancellation: false, noiseSuppression: false, autoGainControl: false }};
      const onFrame = ({{ pcm, index, t }}) => model.send({{ index, t }}, undefined, [pcm.buffer]);
      const capture = new Capture({{ worklet: model.get("worklet"), onFrame, onEnd() {{}} }});
      await capture.open(() => openDevice("", processing));
      window.peer = capture;
    }} }};'''
    worklet = traitlets.Unicode(Microphone.worklet.default_value).tag(sync=True)
peer = Peer(); heard = []
peer.on_msg(lambda widget, content, buffers: heard.append(content["index"]))
peer
"""


class Arrivals:
    """Time of each append at the service."""

    def __init__(self) -> None:
        self.times: list[float] = []
        before = ServiceSession.receive

        async def receive(session: ServiceSession, text: str | bytes) -> None:
            if '"input_audio_buffer.append"' in str(text[:200]):
                self.times.append(time.monotonic())
            await before(session, text)

        ServiceSession.receive = receive  # type: ignore[method-assign]


def quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"p50": float("nan"), "p99": float("nan"), "max": float("nan")}
    return {"p50": float(np.median(values)), "p99": float(np.quantile(values, 0.99)), "max": max(values)}


async def latencies(notebook: Any, arrivals: Arrivals, way: str) -> list[dict[str, Any]]:
    """A row per phase."""
    rows, measured = [], []
    await notebook.page.locator(".rtnb-start").click()
    await notebook.page.locator(".rtnb-microphone[data-state=on]").wait_for()
    await notebook.page.get_by_text(f"channel: {way}").wait_for()
    await notebook.page.wait_for_timeout(3000)
    for name, code in PHASES.items():
        await run(notebook, PHASE.format(busy=BUSY_S, code=code))
        await notebook.page.wait_for_timeout(2500)  # what waited comes now
        measured.append((name, *json.loads(await run(notebook, TELL))))
    await run(notebook, "mic.stop()")
    await notebook.page.wait_for_timeout(1500)  # the last ones arrive
    stamps = json.loads(await run(notebook, "print(json.dumps(stamps))"))
    assert len(stamps) == len(arrivals.times), f"{len(stamps)} sent, {len(arrivals.times)} arrived"
    pairs = [(stamp / 1000, 1000 * at - stamp) for stamp, at in zip(stamps, arrivals.times, strict=True)]
    for name, start, stop, before, after in measured:
        late = [ms for stamp, ms in pairs if start <= stamp <= stop]
        counts = {key: after[key] - before[key] for key in ("captured", "sent", "late", "dropped")}
        rows.append({"way": way, "phase": name, "pieces": len(late), **quantiles(late), **counts})
    return rows


async def clip(notebook: Any, file: Path, seconds: int) -> dict[str, Any]:
    """Frames dropped from a long recording, and its likeness to the file, in windows of 1 s."""
    path = notebook.lab.directory / "clip.wav"
    code = f"before = mic.counts; _ = await mic.record({seconds}, path={str(path)!r})\n"
    code += "print(json.dumps([before, mic.counts]))"
    before, after = json.loads((await run(notebook, code)).splitlines()[-1])
    heard, _ = read_wav(path)
    return {"seconds": len(heard) / 24_000, "dropped": after["dropped"] - before["dropped"], **aligned(heard, file)}


def aligned(heard: Any, file: Path) -> dict[str, float]:
    """The likeness of a second in the middle, and of the whole without its first second (filters settle)."""
    middle = len(heard) // 2
    return {
        "likeness_1s": likeness(heard[middle : middle + 24_000], file),
        "likeness_all": likeness(heard[24_000:], file),
    }


def chromium_cpu_s() -> float:
    """CPU seconds of all Chromium processes beneath this one (Linux)."""
    parents, spent = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, rest = (folder / "stat").read_text().rsplit(")", 1)
        except OSError:
            continue
        fields = rest.split()
        pid = int(folder.name)
        parents[pid] = int(fields[1])
        if "chrom" in name:
            spent[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ours(pid: int) -> bool:
        while pid > 1:
            if pid == os.getpid():
                return True
            pid = parents.get(pid, 0)
        return False

    return sum(seconds for pid, seconds in spent.items() if ours(pid))


async def cpu_percent() -> float:
    await asyncio.sleep(3)
    before, start = chromium_cpu_s(), time.monotonic()
    await asyncio.sleep(CPU_S)
    return 100 * (chromium_cpu_s() - before) / (time.monotonic() - start)


async def measured(lab: Lab, launch: Any, file: Path, seconds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"ipykernel": version("ipykernel"), "rows": [], "clips": {}, "cpu": {}}
    arrivals = Arrivals()
    print(f"ipykernel {found['ipykernel']}; from a frame's last sample to the service; counts of 20 ms frames")
    with rtnb.Simulator(latency="fast") as simulator:  # no simulated network on the way
        facts = {"root": str(ROOT), "url": simulator.url, "model": simulator.model, "key": simulator.key}
        for way, switch in WAYS.items():
            arrivals.times.clear()
            async with launch() as browser:
                notebook = await open_cells(lab, browser, f"{way}.ipynb", [SETUP.format(switch=switch, **facts), "0"])
                await notebook.run_all()
                for row in await latencies(notebook, arrivals, way):
                    found["rows"].append(row)
                    print(LINE.format(**row), flush=True)
                if seconds:
                    await run(notebook, "mic.session = None")
                    found["cpu"][f"{way}, off"] = await cpu_percent()
                    await notebook.page.locator(".rtnb-start").click()
                    await notebook.page.locator(".rtnb-microphone[data-state=on]").wait_for()
                    found["cpu"][way] = await cpu_percent()
                    await notebook.page.locator(".rtnb-start").click()
                if seconds and way == "direct":
                    await notebook.page.wait_for_timeout(1000)
                    found["clips"][way] = await clip(notebook, file, seconds)
    if seconds:
        async with launch() as browser:
            found["cpu"]["a message per 20 ms"] = await peer_cpu_percent(lab, browser)
    return found


async def peer_cpu_percent(lab: Lab, browser: Any) -> float:
    """CPU of Chromium with the peer's way."""
    notebook = await open_cells(lab, browser, "peer.ipynb", [PEER.format(root=str(ROOT)), "0"])
    await notebook.run_all()
    await notebook.page.wait_for_function("window.peer?.node")
    percent = await cpu_percent()
    assert int(await run(notebook, "print(len(heard))")) > 50 * CPU_S * 0.9
    return percent


async def main(seconds: int) -> int:
    with jupyterlab() as lab:
        file = lab.home / "voice.wav"
        write_voice(file, seconds=75)
        launch = partial(chromium, f"--use-file-for-fake-audio-capture={file}")
        found = await measured(lab, launch, file, seconds)
    for way, row in found["clips"].items():
        print(f"{way:9} clip of {row['seconds']:g} s: dropped {row['dropped']}, likeness {row['likeness_all']:.4f}")
    for what, percent in found["cpu"].items():
        print(f"{what:22} Chromium {percent:5.1f} % CPU")
    direct = [row for row in found["rows"] if row["way"] == "direct"]
    blocked = [row for row in direct if row["phase"] != "plain Python"]
    good = {
        "direct p99 <= 20 ms": all(row["p99"] <= 20 for row in blocked),
        "direct: nothing dropped": not any(row["dropped"] for row in (*direct, *found["clips"].values())),
        "clips like the file": all(row["likeness_1s"] >= 0.95 for row in found["clips"].values()),
    }
    if found["cpu"]:
        good["a quarter of the CPU"] = found["cpu"]["direct"] <= found["cpu"]["a message per 20 ms"] / 4
    return verdict(good)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)))
