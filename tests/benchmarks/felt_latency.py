"""How long after the last word is the answer heard? ``python -m tests.benchmarks.felt_latency [turns]``

Real JupyterLab and Chromium, whose microphone is a file: a question, a pause, the question again. Over WebRTC
(`WebRTCPeer`) and over WebSocket (`Microphone`, kernel, `Speaker`), from the acoustic end of speech to the first
audible sample, both seen in the page by one AudioWorklet on one clock (above -40 dB; the loudspeaker's own delay comes
on top). Events count from when they arrived in the kernel.

Taken off is what belongs to the simulator: the time its turn detection takes for this very file (computed here), and
the silence its answer begins with; its other delays are off (``fast``), its audio comes three times as fast as it
plays. Beside it, in the same page and at the same time, the floor: two RTCPeerConnections that send the microphone
round in the page.
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np

from rtnb.audio import babble, write_wav
from rtnb.simulator.voice import open_voice
from rtnb.vad import server_vad_segments, speech_probabilities
from tests.benchmarks.stage import chromium, jupyterlab, open_cells
from tests.browser.lab import Lab
from tests.widgets.listening import run

AUDIBLE = 0.01
RATE_HZ = 24_000
SILENCE_MS = 200
PAUSE_S = 1.8
WEBSOCKET_BOUND_MS, WEBRTC_BOUND_MS = 100.0, 60.0
ANSWER = "Yes, of course."

SETUP = f"""
import rtnb, json, asyncio
from rtnb._loop import shared_loop
scenario = {{"name": "yes", "steps": [{{"when": {{"speech": True}}, "say": {ANSWER!r}}}]}}
simulator = rtnb.Simulator(latency="fast,audio_rate=3", voice="babble", scenario=scenario).start()
detection = {{"type": "server_vad", "silence_duration_ms": {SILENCE_MS}}}
"""
WEBRTC = "peer = rtnb.WebRTCPeer(simulator, turn_detection=detection)\npeer"
WEBSOCKET = """
async def opened(): return await rtnb.connect(simulator, turn_detection=detection)
session = shared_loop().run(opened(), 30)
microphone, speaker = rtnb.widgets.Microphone(session), rtnb.widgets.Speaker(session)
display(microphone, speaker)"""
ROWS = "print(json.dumps([[row.type, 1000 * row.wall_time] for row in {session}.log if 'append' not in row.type]))"

TAP = """
window.mics = []; window.answers = [];
const ask = MediaDevices.prototype.getUserMedia.bind(navigator.mediaDevices);
MediaDevices.prototype.getUserMedia = async (wish) => {
  const stream = await ask(wish);
  mics.push(stream.clone());
  return stream;
};
window.Bare = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Bare {
  constructor(...given) {
    super(...given);
    this.addEventListener("track", ({ track }) => answers.push(new MediaStream([track])));
  }
};
const connect = AudioNode.prototype.connect; // a loudspeaker's sound, on its way out
AudioNode.prototype.connect = function (target, ...more) {
  if (target instanceof AudioDestinationNode) {
    const tap = target.context.createMediaStreamDestination();
    connect.call(this, tap);
    answers.push(tap.stream);
  }
  return connect.call(this, target, ...more);
};
null;
"""

PROBE = """async () => {
  const source = `registerProcessor("peaks", class extends AudioWorkletProcessor {
    process(inputs) {
      this.kept ??= [];
      this.kept.push(currentTime, ...inputs.map(([x]) => (x ? x.reduce((a, b) => Math.max(a, Math.abs(b)), 0) : 0)));
      if (this.kept.length >= 400) this.port.postMessage(this.kept.splice(0));
      return true;
    }
  })`;
  const context = new AudioContext({ sampleRate: 48000 });
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const node = new AudioWorkletNode(context, "peaks", { numberOfInputs: 3 });
  const [a, b] = [new Bare(), new Bare()];
  a.onicecandidate = ({ candidate }) => candidate && b.addIceCandidate(candidate);
  b.onicecandidate = ({ candidate }) => candidate && a.addIceCandidate(candidate);
  const stream = mics.at(-1).clone();
  b.ontrack = ({ track }) => b.addTrack(track);
  const echoed = new Promise((resolve) => (a.ontrack = ({ track }) => resolve(new MediaStream([track]))));
  a.addTrack(stream.getTracks()[0]);
  await a.setLocalDescription(await a.createOffer());
  await b.setRemoteDescription(a.localDescription);
  await b.setLocalDescription(await b.createAnswer());
  await a.setRemoteDescription(b.localDescription);
  const echo = await echoed;
  const sink = Object.assign(new Audio(), { srcObject: echo, muted: true }); // or else WebAudio hears nothing
  await sink.play();
  [mics.at(-1), answers.at(-1), echo].forEach((mediaStream, i) =>
    new MediaStreamAudioSourceNode(context, { mediaStream }).connect(node, 0, i),
  );
  window.heard = [];
  window.ahead = Infinity;
  node.port.onmessage = ({ data }) => {
    ahead = Math.min(ahead, performance.timeOrigin + performance.now() - 1000 * data.at(-4)); // the quickest message
    heard.push(...data);
  };
  window.hush = () => {
    for (const one of [context, a, b]) one.close();
    for (const one of mics.splice(0)) one.getTracks().forEach((track) => track.stop());
  };
}"""


def stretches(at_ms: Any, peaks: Any, *, gap_ms: float = 400.0) -> list[tuple[float, float]]:
    """From when to when something is loud; shorter gaps do not count."""
    loud = at_ms[peaks > AUDIBLE]
    if not len(loud):
        return []
    cuts = np.flatnonzero(np.diff(loud) > gap_ms)
    return list(zip(loud[np.r_[0, cuts + 1]], loud[np.r_[cuts, len(loud) - 1]], strict=True))


async def simulators_own_ms(question: Any) -> tuple[float, float]:
    """What its turn detection takes for this question, and the silence its answer begins with."""
    end_ms = 1000 * np.flatnonzero(np.abs(question) > AUDIBLE)[-1] / RATE_HZ
    heard = speech_probabilities(np.concatenate([question, question]), rate_hz=RATE_HZ)
    (segment, *_) = server_vad_segments(heard, silence_duration_ms=SILENCE_MS)
    assert segment.audio_end_ms is not None
    voice = await open_voice("babble", seed=0)
    try:
        answer = (await voice.speak(ANSWER, voice="alloy", speed=1.0)).audio
    finally:
        await voice.aclose()
    return segment.audio_end_ms - end_ms, 1000 * np.flatnonzero(np.abs(answer) > AUDIBLE)[0] / RATE_HZ


def judged(heard: Any, rows: list[list[Any]], first_audio: str, own_ms: float) -> dict[str, Any]:
    """Per turn: every stage, ms after the acoustic end of speech, and how late the echo is."""
    at_ms, mic, answer, echo = np.asarray(heard).reshape(-1, 4).T
    stages = ("input_audio_buffer.speech_stopped", "response.created", first_audio)
    echoes, answers = stretches(at_ms, echo), stretches(at_ms, answer, gap_ms=250)
    turns, lags = [], []
    for start, end in stretches(at_ms, mic)[1:-1]:
        began = [a for a, _ in answers if end < a < end + 1000 * PAUSE_S]
        came = [
            next((t for kind, t in rows if kind == name and end < t < end + 1000 * PAUSE_S), None) for name in stages
        ]
        lags += [e - start for e, _ in echoes if 0 <= e - start < 1000][:1]
        if began and None not in came:
            turns.append([*(t - end for t in came), began[0] - end, began[0] - end - own_ms])
    return {"turns": turns, "echo": lags}


async def measured(lab: Lab, browser: Any, name: str, cell: str, turns: int, period_s: float) -> tuple[Any, list[Any]]:
    """What the page heard, and what the log says, of so many turns over one transport."""
    notebook = await open_cells(lab, browser, f"{name}.ipynb", [SETUP, cell, "# more"])
    await notebook.page.evaluate(TAP)
    await notebook.run_all()
    await notebook.page.locator(".rtnb-start").first.click()
    await notebook.page.locator("[data-state=talking], .rtnb-microphone[data-state=on]").first.wait_for(timeout=20_000)
    await notebook.page.wait_for_function("mics.length > 0 && answers.length > 0")
    await notebook.page.evaluate(PROBE)
    await notebook.page.wait_for_timeout(1000 * period_s * (turns + 2))
    heard, ahead = await notebook.page.evaluate("[heard, ahead]")
    await notebook.page.evaluate("hush()")
    session = "peer.session" if name == "webrtc" else "session"
    rows = json.loads((await run(notebook, ROWS.format(session=session))).splitlines()[-1])
    await run(notebook, "peer.close()" if name == "webrtc" else "microphone.close(); speaker.close()")
    heard = np.asarray(heard).reshape(-1, 4)
    heard[:, 0] = 1000 * heard[:, 0] + ahead
    await notebook.page.context.close()
    return heard, rows


async def main(turns: int) -> int:
    speech = babble("what is the matter with you", seed=3).audio
    question = np.concatenate([speech, np.zeros(round(PAUSE_S * RATE_HZ), np.float32)])
    vad_ms, lead_ms = await simulators_own_ms(question)
    figures: dict[str, Any] = {"turn_detection_ms": round(vad_ms), "answer_begins_ms": round(lead_ms)}
    with jupyterlab() as lab:
        file = lab.home / "question.wav"
        write_wav(file, question, rate_hz=RATE_HZ)
        async with chromium(f"--use-file-for-fake-audio-capture={file}") as browser:
            for name, cell, first_audio in (
                ("webrtc", WEBRTC, "output_audio_buffer.started"),
                ("websocket", WEBSOCKET, "response.output_audio.delta"),
            ):
                heard, rows = await measured(lab, browser, name, cell, turns, len(question) / RATE_HZ)
                figures[name] = judged(heard, rows, first_audio, vad_ms + lead_ms)
    return report(figures)


def middle(values: Any) -> float:
    """Return the median."""
    return round(float(np.median(values)), 1)


def late(values: Any) -> float:
    """Return the 90th percentile."""
    return round(float(np.quantile(values, 0.9)), 1)


def report(figures: dict[str, Any]) -> int:
    """Print the table; 0 where both bounds hold."""
    print(f"the simulator's own: turn detection {figures['turn_detection_ms']} ms, silence before the answer's first")
    print(f"sound {figures['answer_begins_ms']} ms. ms after the acoustic end of speech, median (90th percentile):")
    heads = ("speech_stopped", "response.created", "first audio", "first audible", "what rtnb adds")
    for name in ("webrtc", "websocket"):
        turns, echo = np.asarray(figures[name]["turns"]), figures[name]["echo"]
        print(f"{name}, {len(turns)} turns")
        for index, head in enumerate(heads):
            print(f"  {head:<18}{middle(turns[:, index]):>8} ({late(turns[:, index])})")
        print(f"  {'bare echo':<18}{middle(echo):>8} ({late(echo)}), {len(echo)} of them")
    webrtc, websocket = (middle([turn[-1] for turn in figures[name]["turns"]]) for name in ("webrtc", "websocket"))
    more = webrtc - middle(figures["webrtc"]["echo"])
    print(f"WebRTC is {more:.0f} ms above the bare echo (bound {WEBRTC_BOUND_MS:.0f});", end=" ")
    print(f"over WebSocket rtnb adds {websocket:.0f} ms (bound {WEBSOCKET_BOUND_MS:.0f})")
    return 0 if more <= WEBRTC_BOUND_MS and websocket <= WEBSOCKET_BOUND_MS else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)))
