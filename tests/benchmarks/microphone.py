"""Latency, loss and cost of the microphone: ``python -m tests.benchmarks.microphone``

Real JupyterLab and Chromium, whose microphone is a file; a session in the notebook's background to a simulator in this
process, which notes when each piece arrives.

Latency: from a frame's last sample in the page to the service, while the kernel is idle, sleeps (``time.sleep``) and
computes (a loop of plain Python); number of late and dropped frames. Stamps and arrivals share one clock,
`time.monotonic`: the page estimates the kernel's.

CPU: what Chromium needs without the microphone, with it, and for the peer: the same worklet with one widget message per
20 ms.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import rtnb
from rtnb.simulator.session import ServiceSession
from tests.benchmarks.stage import ROOT, chromium, family, judged, jupyterlab, late_ms, open_cells, options, print_table
from tests.browser.lab import Lab
from tests.widgets.browser.microphone_page import write_voice
from tests.widgets.listening import run

SETUP = """
import sys, time, asyncio, json; sys.path.insert(0, {root!r})
import rtnb
from rtnb._loop import shared_loop
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
PHASES = {
    "idle": "await asyncio.sleep({busy_s})",
    "time.sleep": "time.sleep({busy_s})",
    "plain Python": "while time.monotonic() < start + {busy_s}: pass",
}
PHASE = "before, start = mic.counts, time.monotonic()\n{code}\nstop = time.monotonic()"
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


def note_arrivals() -> list[float]:
    """Have the simulator note the time of each append; returns the growing list."""
    times: list[float] = []
    before = ServiceSession.receive

    async def receive(session: ServiceSession, text: str | bytes) -> None:
        if '"input_audio_buffer.append"' in str(text[:200]):
            times.append(time.monotonic())
        await before(session, text)

    ServiceSession.receive = receive  # type: ignore[method-assign]
    return times


async def toggle(notebook: Any, state: str) -> None:
    """Start or stop the microphone as a person does."""
    await notebook.page.locator(".rtnb-start").click()
    await notebook.page.locator(f".rtnb-microphone[data-state={state}]").wait_for()


async def latencies(notebook: Any, arrivals: list[float], busy_s: float) -> dict[str, dict[str, float]]:
    """A row per phase."""
    measured = []
    await toggle(notebook, "on")
    await notebook.page.get_by_text("channel: direct").wait_for()
    await notebook.page.wait_for_timeout(3000)
    for name, code in PHASES.items():
        await run(notebook, PHASE.format(code=code.format(busy_s=busy_s)))
        await notebook.page.wait_for_timeout(2500)  # what waited comes now
        measured.append((name, *json.loads(await run(notebook, TELL))))
    await run(notebook, "mic.stop()")
    await notebook.page.wait_for_timeout(1500)  # the last ones arrive
    stamps = json.loads(await run(notebook, "print(json.dumps(stamps))"))
    assert len(stamps) == len(arrivals), f"{len(stamps)} sent, {len(arrivals)} arrived"
    pairs = [(stamp / 1000, 1000 * at - stamp) for stamp, at in zip(stamps, arrivals, strict=True)]
    return {
        name: late_ms([ms for stamp, ms in pairs if start <= stamp <= stop], "latency")
        | {key: after[key] - before[key] for key in ("captured", "sent", "late", "dropped")}
        for name, start, stop, before, after in measured
    }


async def cpu_percent(seconds: float) -> float:
    """CPU of all Chromium processes beneath this one."""

    def spent_s() -> float:
        return sum(sum(one.cpu_times()[:2]) for one in family() if "chrom" in one.name())

    await asyncio.sleep(3)
    before, start = spent_s(), time.monotonic()
    await asyncio.sleep(seconds)
    return 100 * (spent_s() - before) / (time.monotonic() - start)


async def peer_cpu_percent(lab: Lab, browser: Any, seconds: float) -> float:
    """CPU of Chromium with the peer's way."""
    notebook = await open_cells(lab, browser, "peer.ipynb", [PEER.format(root=str(ROOT)), "0"])
    await notebook.run_all()
    await notebook.page.wait_for_function("window.peer?.node")
    percent = await cpu_percent(seconds)
    assert int(await run(notebook, "print(len(heard))")) > 50 * seconds * 0.9
    return percent


async def main(busy_s: float, cpu_s: float) -> int:
    arrivals, cpu = note_arrivals(), {}
    with jupyterlab() as lab, rtnb.Simulator(latency="fast") as simulator:  # no simulated network on the way
        file = f"--use-file-for-fake-audio-capture={write_voice(Path(lab.home, 'voice.wav'), seconds=75)}"
        facts = {"root": str(ROOT), "url": simulator.url, "model": simulator.model, "key": simulator.key}
        async with chromium(file) as browser:
            notebook = await open_cells(lab, browser, "microphone.ipynb", [SETUP.format(**facts), "0"])
            await notebook.run_all()
            rows = await latencies(notebook, arrivals, busy_s)
            await run(notebook, "mic.session = None")
            cpu["off"] = await cpu_percent(cpu_s)
            await toggle(notebook, "on")
            cpu["on"] = await cpu_percent(cpu_s)
        async with chromium(file) as browser:
            cpu["a widget message per 20 ms"] = await peer_cpu_percent(lab, browser, cpu_s)
    print_table(rows)
    print_table({f"Chromium, microphone {name}": {"cpu_percent": percent} for name, percent in cpu.items()})
    return judged(
        {
            "p99 in a cell that sleeps, ms": (rows["time.sleep"]["latency_p99_ms"], 20),
            "p99 in a cell that computes, ms": (rows["plain Python"]["latency_p99_ms"], 20),
            "frames dropped": (sum(row["dropped"] for row in rows.values()), 0),
            "CPU, share of a widget message per frame": (cpu["on"] / cpu["a widget message per 20 ms"], 0.25),
        }
    )


if __name__ == "__main__":
    chosen = options(__doc__, busy_s=5.0, cpu_s=10.0)
    sys.exit(asyncio.run(main(chosen.busy_s, chosen.cpu_s)))
