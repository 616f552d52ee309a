"""Calls over WebRTC in a real JupyterLab and Chromium, against the simulator: playback, barge-in, end, refusal."""

import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Locator, expect

from tests.browser.cells import eventually, run
from tests.browser.lab import open_notebook as open_in
from tests.widgets.browser.stalls import KERNEL, PAGE, beats

pytest.importorskip("aiortc", reason="the simulator's WebRTC side needs aiortc (extra sim)")

_KEEP = """
window.held = { tracks: [], peers: [] };
const Peer = window.RTCPeerConnection;
const ask = MediaDevices.prototype.getUserMedia.bind(navigator.mediaDevices);
MediaDevices.prototype.getUserMedia = async (options) => {
  const stream = await ask(options);
  held.tracks.push(...stream.getTracks());
  return stream;
};
window.RTCPeerConnection = class extends Peer {
  constructor(...given) { super(...given); held.peers.push(this); }
};
const over = () => held.peers.every((peer) => peer.connectionState === "closed");
window.ended = () => held.tracks.every((track) => track.readyState === "ended") && over();
"""
"""What the page opens is kept, so that a test can ask what is left of it."""

_LISTEN = """() => {
  const audio = document.querySelector(".rtnb-webrtc audio");
  const context = new AudioContext({ sampleRate: 48000 });
  const analyser = new AnalyserNode(context, { fftSize: 256 });
  context.createMediaStreamSource(audio.srcObject).connect(analyser);
  const samples = new Float32Array(256);
  window.loud = [];
  window.listening = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const peak = samples.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    if (peak > 0.01) loud.push(performance.timeOrigin + performance.now());
  }, 5);
}"""
"""Note when the loudspeaker's stream is louder than −40 dB, in Unix ms: the clock of the log's wall times."""

OPEN = "simulator = rtnb.Simulator(latency={latency!r}, voice='babble')"
SHOW = "peer = rtnb.WebRTCPeer(simulator, {options})\npeer"
LAG = """
import json
waits = peer.statistics["buffer_ms"].dropna()
print(json.dumps([max(heart.stop()), (waits.max() - waits.iloc[0]) if len(waits) else 0.0]))"""


class Called:
    """A notebook with a peer in it."""

    def __init__(self, notebook: Any) -> None:
        self.notebook = notebook
        self.page = notebook.page

    def find(self, selector: str, **options: Any) -> Locator:
        found: Locator = self.page.locator(f".rtnb-webrtc {selector}", **options)
        return found

    async def state(self, name: str) -> None:
        await expect(self.page.locator(f".rtnb-webrtc[data-state={name}]")).to_have_count(1, timeout=20_000)

    async def python(self, source: str) -> str:
        """Run code in the last cell and return what it prints."""
        return await run(self.notebook, source)

    async def eventually(self, expression: str, expected: str) -> None:
        await eventually(self.notebook, expression, expected)

    async def hearts(self) -> None:
        """Start both clocks for `lag`."""
        await self.page.evaluate(PAGE)
        await self.python(KERNEL)

    async def lag(self) -> float:
        """Return the allowed difference of the two clocks in ms: delays of page and kernel, and the jitter buffer."""
        late_ms, buffer_ms = json.loads(await self.python(LAG))
        return float(max(await beats(self.page)) + late_ms + buffer_ms)

    async def has_closed_everything(self) -> None:
        await self.page.wait_for_function("ended()", timeout=20_000)  # a page gives up after 8 s


Call = Callable[..., Awaitable[Called]]


@pytest.fixture
def call(jupyterlab: Any, launch: Any, open_notebook: Any, pictures: Path) -> Call:
    """Show a peer in a new notebook; with flags, in another browser."""

    async def shown(name: str, *flags: str, options: str = "", more: str = "0", start: bool = True) -> Called:
        opened = OPEN.format(latency="real_time" if start else "fast")
        begin = "import rtnb, aiortc"  # which the first call would wait for
        cells = [begin, opened, SHOW.format(options=options), more, "# more"]
        jupyterlab.write(name, cells)
        if flags:
            notebook = await open_in(jupyterlab, await launch(*flags), name, pictures=pictures)
        else:
            notebook = await open_notebook(name)
        await notebook.page.evaluate(_KEEP)
        called = Called(notebook)
        outputs = await notebook.run_all()
        assert not any(output.error for output in outputs), outputs
        if start:
            await called.find("button", has_text="Start call").click()
            await called.state("talking")
        return called

    return shown


@pytest.fixture
def question(tmp_path: Path) -> str:
    """The flag of a microphone that hears one question, and then nothing.

    It runs from the permission on, so the question comes late enough for a slow machine to have the call up by then.
    """
    from rtnb.audio import babble, write_wav

    audio = np.concatenate([np.zeros(5 * 24_000), babble("what is a delta", seed=3).audio, np.zeros(20 * 24_000)])
    write_wav(tmp_path / "question.wav", audio, rate_hz=24_000)
    return f"--use-file-for-fake-audio-capture={tmp_path / 'question.wav'}%noloop"


async def test_a_spoken_turn_an_interruption_and_every_end(call: Call, question: str) -> None:
    one = await call(
        "call.ipynb", question, options="instructions='Be brief.', voice='verse', turn_detection={'threshold': 0.4}"
    )
    await one.page.evaluate(_LISTEN)
    await one.hearts()
    answered = "await peer.session.next_response(); rtnb.inspect(peer.session)"
    shown = await one.python(answered)
    assert "events" in shown  # the inspector follows the same log
    await expect(one.page.locator(".rtnb-ev")).to_contain_text("response.output_item.added")
    heard = """
import asyncio, json
while not peer.session.log.filter("output_audio_buffer.stopped"): await asyncio.sleep(0.05)
rows = {row.type: row.wall_time for row in peer.session.log}
table = peer.session.playback.heard().iloc[-1]
print(json.dumps([rows, table.to_dict()], default=float))"""
    rows, table = json.loads(await one.python(heard))
    assert not table["truncated"]
    assert table["generated_ms"] == table["received_ms"] == table["played_ms"] > 500
    loud = await one.page.evaluate("loud")
    started, stopped = (1000 * rows[f"output_audio_buffer.{name}"] for name in ("started", "stopped"))
    lag_ms = await one.lag()
    assert started - 20 - lag_ms < loud[0] < started + 300 + lag_ms, f"{lag_ms=}"
    assert stopped - 500 - lag_ms < loud[-1] < stopped + 300 + lag_ms, f"{lag_ms=}"

    # --- barge-in
    barge = """
from rtnb.audio import babble
response = await peer.session.response.create(instructions="Count to one hundred.")
while len(peer.session.log.filter("output_audio_buffer.started")) < 2: await asyncio.sleep(0.01)
await asyncio.sleep(1.0)  # so long into the answer it is interrupted
await peer.session.say(babble("stop please stop", seed=5).audio, rate_hz=24_000, respond=False)
while not peer.session.log.filter("conversation.item.truncated"): await asyncio.sleep(0.02)
log = peer.session.log
names = ("input_audio_buffer.speech_started", "output_audio_buffer.cleared", "conversation.item.truncated")
spoke, cut, item = (log.filter(name)[-1] for name in names)
heard = peer.session.playback.heard().loc[item.event.item_id].to_dict()
print(json.dumps([spoke.wall_time, cut.wall_time, item.event.audio_end_ms, heard], default=float))"""
    await one.hearts()
    spoke_s, cut_s, kept_ms, table = json.loads(await one.python(barge))
    lag_ms = await one.lag()
    loud = [at for at in await one.page.evaluate("loud") if at < 1000 * cut_s + 1500]
    assert loud[-1] - 1000 * spoke_s < 200 + lag_ms, f"{lag_ms=}"
    assert table["truncated"]
    assert table["heard_ms"] == kept_ms
    assert abs(table["played_ms"] - kept_ms) < 100 + lag_ms, f"{lag_ms=}"

    # --- the key, and what stays
    keys = await one.python("print(json.dumps(list(simulator._started().service.keys._grants)))")
    seen = await one.python(
        "print(repr(peer), repr(peer.get_state()), peer.session.log.to_frame().to_string(), vars(peer))"
    )
    saved = json.dumps(await one.notebook.save()) + await one.page.content() + one.notebook.lab.log()
    (key,) = json.loads(keys)
    (one.notebook.lab.directory / one.notebook.name).write_text("{}")
    assert len(key) > 20
    assert "session.created" in seen
    assert key not in seen + saved.replace(keys, "").replace(json.dumps(keys)[1:-1], "") + "".join(
        one.notebook.messages
    )
    assert one.notebook.messages == []

    await one.find("button", has_text="End call").click()
    await one.has_closed_everything()
    await one.state("closed")
    left = """
import threading
from rtnb._loop import shared_loop
async def tasks(): return [t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("rtnb-s")]
def left():
    threads = [thread.name for thread in threading.enumerate() if thread.name == "rtnb-loop"]
    return f"{shared_loop().run(tasks())} {simulator.running} {threads} {peer.state}"
"""
    await one.python(left)
    await one.eventually("left()", "[] False ['rtnb-loop'] closed")

    # --- what Jupyter leaves on
    await one.find("button", has_text="Start call").click()
    await one.state("talking")
    await one.page.locator(".jp-CodeCell").nth(2).locator(".jp-InputPrompt").click()
    await one.notebook.choose("Edit", "Clear Cell Output")
    await one.has_closed_everything()
    await one.eventually("'last view of the call was removed' in peer.message", "True")
    await one.python("peer")
    await one.find("button", has_text="Start call").click()
    await one.state("talking")
    assert not await one.page.evaluate("ended()")
    kernel = one.notebook.lab.get("api/kernels")[-1]["id"]
    one.notebook.lab.post(f"api/kernels/{kernel}/restart", {})
    await one.has_closed_everything()


async def test_the_kernel_posts_the_offer_where_the_page_may_not(call: Call) -> None:
    preview = (
        "other = rtnb.Simulator(latency='fast', voice='babble', dialect='preview')\n"
        "older = rtnb.WebRTCPeer(other, microphone=False, voice='verse')\nolder"
    )
    options = "microphone=False, sideband=True, instructions='Be brief.'"
    one = await call("kernel.ipynb", options=options, more=preview, start=False)
    said = await one.python(
        "session = await peer.start(); answer = await session.ask('What is a delta?')\n"
        "print(answer.transcript, list(peer.notices), peer.call_id)"
    )
    assert "A delta is" in said
    assert "The kernel posted the offer" in said
    assert "No microphone is in use" in said
    await one.page.route("**/realtimertc?*", lambda route: route.abort())  # as where CORS forbids it
    said = await one.python(
        "peer.close(); session = await older.start(); answer = await session.ask('What is a delta?')\n"
        "print(answer.transcript, list(older.notices), older.session.config.voice, older.session.dialect)\n"
        "import asyncio\nwhile len(older.statistics) < 3: await asyncio.sleep(0.1)\n"
        "await older.stop(); print('at once', older.state)"
    )
    assert "A delta is" in said
    assert "at once closed" in said
    assert "This page may not post to the service" in said
    assert "verse preview" in said
    figures = json.loads(await one.python("print(older.statistics.iloc[-1].to_json())"))
    assert figures["lost"] == 0
    assert figures["sent"] > 20  # silence is sent, too: a service that heard nothing would wait for ever
    assert figures["bytes_received"] > 1_000
    await one.has_closed_everything()
    await one.page.unroute("**/realtimertc?*")


async def test_a_denied_microphone_is_shown_and_raised(call: Call) -> None:
    one = await call("denied.ipynb", "--use-fake-ui-for-media-stream=deny", start=False)
    message = "The browser does not allow the microphone."
    raised = await one.python(
        "try: await peer.start()\nexcept rtnb.errors.WidgetError as error: print(error, error.__notes__)"
    )
    assert message in raised
    await expect(one.find("[role=status]")).to_contain_text(message)
    await one.has_closed_everything()


async def test_a_call_ends_with_its_tab_and_with_its_kernel(call: Call, jupyterlab: Any) -> None:
    closed = await call("closed.ipynb")
    assert not await closed.page.evaluate("ended()")
    await closed.page.evaluate(
        "() => { const tab = jupyterapp.shell.currentWidget; tab.context.model.dirty = false; tab.close() }"
    )
    await closed.has_closed_everything()
    killed = await call("killed.ipynb", more="import os; print(os.getpid())")
    pid = int((await killed.notebook.outputs())[3].text)
    assert not await killed.page.evaluate("ended()")
    os.kill(pid, signal.SIGKILL)
    await killed.has_closed_everything()
