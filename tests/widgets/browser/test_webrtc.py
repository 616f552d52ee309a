"""Calls over WebRTC in a real JupyterLab and Chromium, against the simulator: playback, barge-in, end, refusal."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Locator, expect

from tests.browser.cells import Driven, run
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

CELLS = [  # the first call would wait for aiortc
    "import rtnb, aiortc\nif 'peer' in globals(): peer.close()",
    "# call",
    "# more",
]
SHOW = """
simulator = rtnb.Simulator(latency={latency!r}, voice="babble")
peer = rtnb.WebRTCPeer(simulator, {options})
{more}display(peer)"""
LAG = """
import json
waits = peer.statistics["buffer_ms"].dropna()
print(json.dumps([max(heart.stop()), (waits.max() - waits.iloc[0]) if len(waits) else 0.0]))"""


class Called(Driven):
    """A notebook with a peer in it."""

    def find(self, selector: str, **options: Any) -> Locator:
        found: Locator = self.page.locator(f".rtnb-webrtc {selector}", **options)
        return found

    async def state(self, name: str) -> None:
        await expect(self.page.locator(f".rtnb-webrtc[data-state={name}]")).to_have_count(1, timeout=20_000)

    async def talk(self) -> None:
        await self.find("button", has_text="Start call").click()
        await self.state("talking")

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
    """Show a peer in a kernel that tests share; with flags, in another browser."""

    async def shown(*flags: str, options: str = "", more: str = "", start: bool = True) -> Called:
        if flags:
            jupyterlab.write("spoken.ipynb", CELLS)
            notebook = await open_in(jupyterlab, await launch(*flags), "spoken.ipynb", pictures=pictures)
        else:
            notebook = await open_notebook("call.ipynb", cells=CELLS, keep=True)
        await notebook.page.evaluate(_KEEP)
        await run(notebook, cell=0)
        await run(notebook, SHOW.format(latency="real_time" if start else "fast", options=options, more=more), cell=1)
        called = Called(notebook)
        if start:
            await called.talk()
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


HEARD = """
import asyncio, json
await peer.session.next_response()
while not peer.session.log.filter("output_audio_buffer.stopped"): await asyncio.sleep(0.05)
rows = {row.type: row.wall_time for row in peer.session.log}
table = peer.session.playback.heard().iloc[-1]
print(json.dumps([rows, table.to_dict()], default=float))"""
INTERRUPTED = """
import asyncio, json
from rtnb.audio import babble
response = await peer.session.response.create(instructions="Count to one hundred.")
while not peer.session.log.filter("output_audio_buffer.started"): await asyncio.sleep(0.01)
await asyncio.sleep(1.0)  # so long into the answer it is interrupted
await peer.session.say(babble("stop please stop", seed=5).audio, rate_hz=24_000, respond=False)
while not peer.session.log.filter("conversation.item.truncated"): await asyncio.sleep(0.02)
log = peer.session.log
names = ("input_audio_buffer.speech_started", "output_audio_buffer.cleared", "conversation.item.truncated")
spoke, cut, item = (log.filter(name)[-1] for name in names)
heard = peer.session.playback.heard().loc[item.event.item_id].to_dict()
print(json.dumps([spoke.wall_time, cut.wall_time, item.event.audio_end_ms, heard], default=float))"""
LEFT = """
import asyncio, threading
from rtnb._loop import shared_loop
async def tasks(): return [t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("rtnb-s")]
def left():
    threads = [thread.name for thread in threading.enumerate() if thread.name == "rtnb-loop"]
    return f"{shared_loop().run(tasks())} {simulator.running} {threads} {peer.state}"
"""


async def test_a_spoken_turn_is_answered_and_heard(call: Call, question: str) -> None:
    one = await call(question, options="instructions='Be brief.', voice='verse', turn_detection={'threshold': 0.4}")
    await one.page.evaluate(_LISTEN)
    await one.hearts()
    rows, table = json.loads(await one.python(HEARD))
    assert not table["truncated"]
    assert table["generated_ms"] == table["received_ms"] == table["played_ms"] > 500
    loud = await one.page.evaluate("loud")
    started, stopped = (1000 * rows[f"output_audio_buffer.{name}"] for name in ("started", "stopped"))
    lag_ms = await one.lag()
    assert started - 20 - lag_ms < loud[0] < started + 300 + lag_ms, f"{lag_ms=}"
    assert stopped - 500 - lag_ms < loud[-1] < stopped + 300 + lag_ms, f"{lag_ms=}"
    await one.python("rtnb.inspect(peer.session)")  # it follows the same log
    await expect(one.page.locator(".rtnb-ev")).to_contain_text("response.output_item.added")


async def test_an_interruption_is_cut_where_it_was_heard(call: Call) -> None:
    one = await call(options="microphone=False")
    await one.page.evaluate(_LISTEN)
    await one.hearts()
    spoke_s, cut_s, kept_ms, table = json.loads(await one.python(INTERRUPTED))
    lag_ms = await one.lag()
    loud = [at for at in await one.page.evaluate("loud") if at < 1000 * cut_s + 1500]
    assert loud[-1] - 1000 * spoke_s < 200 + lag_ms, f"{lag_ms=}"
    assert table["truncated"]
    assert table["heard_ms"] == kept_ms
    assert abs(table["played_ms"] - kept_ms) < 100 + lag_ms, f"{lag_ms=}"


async def test_the_key_is_nowhere_and_the_end_of_a_call_leaves_nothing(call: Call) -> None:
    one = await call()
    keys = await one.python("import json\nprint(json.dumps(list(simulator._started().service.keys._grants)))")
    seen = await one.python(
        "print(repr(peer), repr(peer.get_state()), peer.session.log.to_frame().to_string(), vars(peer))"
    )
    saved = json.dumps(await one.notebook.save()) + await one.page.content() + one.notebook.lab.log()
    (key,) = json.loads(keys)
    assert len(key) > 20
    assert "session.created" in seen
    shown_by_the_test = keys, json.dumps(keys)[1:-1]
    for text in shown_by_the_test:
        saved = saved.replace(text, "")
    assert key not in seen + saved + "".join(one.notebook.messages)
    assert one.notebook.messages == []

    await one.find("button", has_text="End call").click()
    await one.has_closed_everything()
    await one.state("closed")
    await one.python(LEFT)
    await one.eventually("left()", "[] False ['rtnb-loop'] closed")


async def test_a_call_ends_with_its_output_its_kernel_and_its_tab(call: Call) -> None:
    one = await call()
    await one.notebook.on_panel("(panel.content.activeCellIndex = 1)")
    await one.notebook.execute("notebook:clear-cell-output")
    await one.has_closed_everything()
    await one.eventually("'last view of the call was removed' in peer.message", "True")
    await one.python("peer")
    await one.talk()
    assert not await one.page.evaluate("ended()")
    kernel = one.notebook.lab.get("api/kernels")[-1]["id"]
    one.notebook.lab.post(f"api/kernels/{kernel}/restart", {})
    await one.has_closed_everything()
    closed = await call()
    assert not await closed.page.evaluate("ended()")
    await closed.notebook.on_panel("panel.context.model.dirty = false, panel.close()")
    await closed.has_closed_everything()


async def test_the_kernel_posts_the_offer_where_the_page_may_not(call: Call) -> None:
    preview = (
        "other = rtnb.Simulator(latency='fast', voice='babble', dialect='preview')\n"
        "older = rtnb.WebRTCPeer(other, microphone=False, voice='verse')\ndisplay(older)\n"
    )
    options = "microphone=False, sideband=True, instructions='Be brief.'"
    one = await call(options=options, more=preview, start=False)
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
