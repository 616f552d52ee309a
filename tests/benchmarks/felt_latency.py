"""Time from the last word to the answer in the loudspeaker. ``python -m tests.benchmarks.felt_latency``

Real JupyterLab and Chromium, whose microphone is a file: a question, a pause, the question again. Over WebRTC
(`WebRTCPeer`) and over WebSocket (`Microphone`, kernel, `Speaker`), from the acoustic end of speech to the first
audible sample, both seen in the page by one AudioWorklet on one clock (above -40 dB; the loudspeaker's own delay comes
on top).

Taken off is what belongs to the simulator: the time its turn detection takes for this very file (computed here), and
the silence its answer begins with; its other delays are off (``fast``), its audio comes three times as fast as it
plays. Beside it, in the same page and at the same time, the floor: two RTCPeerConnections that send the microphone
round in the page.
"""

import asyncio
import sys
from typing import Any

import numpy as np

from rtnb.audio import babble, write_wav
from rtnb.simulator.voice import open_voice
from rtnb.vad import server_vad_segments, speech_probabilities
from tests.benchmarks.stage import chromium, judged, jupyterlab, open_cells, options, print_table
from tests.browser.lab import Lab

AUDIBLE = 0.01
RATE_HZ = 24_000
SILENCE_MS = 200
PAUSE_S = 1.8
WEBSOCKET_BOUND_MS, WEBRTC_BOUND_MS = 100.0, 60.0
"""What rtnb adds at most; over WebRTC above the bare echo."""
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
CELLS = {"webrtc": WEBRTC, "websocket": WEBSOCKET}

TAP = """
window.mics = []; window.answers = [];
const ask = MediaDevices.prototype.getUserMedia.bind(navigator.mediaDevices);
MediaDevices.prototype.getUserMedia = async (constraints) => {
  const stream = await ask(constraints);
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
  node.port.onmessage = ({ data }) => heard.push(...data);
}"""


def stretches(at_ms: Any, peaks: Any, *, gap_ms: float = 400.0) -> list[tuple[float, float]]:
    """Return start and end of each loud stretch; shorter gaps do not count."""
    loud = at_ms[peaks > AUDIBLE]
    if not len(loud):
        return []
    cuts = np.flatnonzero(np.diff(loud) > gap_ms)
    return list(zip(loud[np.r_[0, cuts + 1]], loud[np.r_[cuts, len(loud) - 1]], strict=True))


async def simulators_own_ms(question: Any) -> tuple[float, float]:
    """Return what turn detection takes for this question, and the silence its answer begins with."""
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


async def heard_on_page(lab: Lab, browser: Any, name: str, seconds: float) -> Any:
    """Return time (ms) and peaks of microphone, answer and echo while one transport is in use, shape (n, 4)."""
    notebook = await open_cells(lab, browser, f"{name}.ipynb", [SETUP, CELLS[name]])
    page = notebook.page
    await page.evaluate(TAP)
    outputs = await notebook.run_all()
    assert not any(output.error for output in outputs), outputs
    await page.locator(".rtnb-start").first.click()
    await page.locator("[data-state=talking], .rtnb-microphone[data-state=on]").first.wait_for(timeout=20_000)
    await page.wait_for_function("mics.length > 0 && answers.length > 0")
    await page.evaluate(PROBE)
    await page.wait_for_timeout(1000 * seconds)
    heard = np.asarray(await page.evaluate("heard")).reshape(-1, 4)
    await page.context.close()
    return heard * [1000, 1, 1, 1]


def waits_ms(heard: Any) -> tuple[list[float], list[float]]:
    """Return how long after each end of speech the answer is heard, and how late the echo is, ms."""
    at_ms, mic, answer, echo = heard.T
    answers, echoes = [start for start, _ in stretches(at_ms, answer, gap_ms=250)], stretches(at_ms, echo)
    waits, lags = [], []
    for start, end in stretches(at_ms, mic)[1:-1]:
        waits += [began - end for began in answers if end < began < end + 1000 * PAUSE_S][:1]
        lags += [began - start for began, _ in echoes if 0 <= began - start < 1000][:1]
    return waits, lags


async def main(turns: int) -> int:
    speech = babble("what is the matter with you", seed=3).audio
    question = np.concatenate([speech, np.zeros(round(PAUSE_S * RATE_HZ), np.float32)])
    vad_ms, lead_ms = await simulators_own_ms(question)
    rows: dict[str, dict[str, float]] = {}
    with jupyterlab() as lab:
        file = lab.home / "question.wav"
        write_wav(file, question, rate_hz=RATE_HZ)
        async with chromium(f"--use-file-for-fake-audio-capture={file}") as browser:
            for name in CELLS:
                seconds = len(question) / RATE_HZ * (turns + 2)
                waits, lags = waits_ms(await heard_on_page(lab, browser, name, seconds))
                added = np.asarray(waits) - vad_ms - lead_ms
                rows |= {
                    f"{name}: {what}": {"turns": len(ms), "p50_ms": np.median(ms), "p90_ms": np.quantile(ms, 0.9)}
                    for what, ms in {"first audible": waits, "what rtnb adds": added, "bare echo": lags}.items()
                }
    print(f"the simulator's own: turn detection {vad_ms:.0f} ms, silence before the answer's first sound {lead_ms:.0f}")
    print_table(rows)
    above_echo_ms = rows["webrtc: what rtnb adds"]["p50_ms"] - rows["webrtc: bare echo"]["p50_ms"]
    return judged(
        {
            "WebRTC, ms above the bare echo": (above_echo_ms, WEBRTC_BOUND_MS),
            "WebSocket, ms that rtnb adds": (rows["websocket: what rtnb adds"]["p50_ms"], WEBSOCKET_BOUND_MS),
        }
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main(options(__doc__, turns=21).turns)))
