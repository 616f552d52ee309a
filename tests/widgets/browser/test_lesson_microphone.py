"""Lesson 04 in JupyterLab with a microphone: what is recorded, and what the browser's echo cancellation does to it.

Chromium's fake microphone plays a file and does not hear the loudspeaker. So the file holds the echo of a simulated
room, and the page plays the voice itself when the microphone opens. By default Chromium cancels what it sends to the
output device, and where there is no such device, as here, it cancels nothing (measured: 0.3 dB). Without its feature
"ChromeWideEchoCancellation" it cancels the page's WebRTC audio. So the voice is played through a local WebRTC
connection, as the assistant's is in a call.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from rtnb.audio import babble, read_wav, resample, write_wav
from tests.browser.lab import open_notebook as open_in
from tests.widgets.browser.microphone_page import likeness

LESSON = Path(__file__).resolve().parents[3] / "notebooks" / "04_microphone.ipynb"
FLAGS = ("--disable-features=ChromeWideEchoCancellation", "--autoplay-policy=no-user-gesture-required")

PLAY = """
const ask = MediaDevices.prototype.getUserMedia.bind(navigator.mediaDevices);
let loudspeaker; // an AudioContext and a node, whose sound goes through a WebRTC connection
async function connect() {
  const context = new AudioContext();
  const node = context.createMediaStreamDestination();
  const [here, there] = [new RTCPeerConnection(), new RTCPeerConnection()];
  here.onicecandidate = ({ candidate }) => there.addIceCandidate(candidate);
  there.onicecandidate = ({ candidate }) => here.addIceCandidate(candidate);
  const playing = new Promise((resolve) => {
    there.ontrack = ({ streams }) => {
      const element = Object.assign(document.createElement("audio"), { autoplay: true, srcObject: streams[0] });
      element.onplaying = resolve;
    };
  });
  here.addTrack(node.stream.getAudioTracks()[0], node.stream);
  await here.setLocalDescription(await here.createOffer());
  await there.setRemoteDescription(here.localDescription);
  await there.setLocalDescription(await there.createAnswer());
  await here.setRemoteDescription(there.localDescription);
  await playing;
  return { context, node };
}
MediaDevices.prototype.getUserMedia = async (constraints) => {
  loudspeaker ??= await connect();
  const { context, node } = loudspeaker;
  const bytes = Uint8Array.from(atob("VOICE"), (letter) => letter.charCodeAt(0));
  const source = new AudioBufferSourceNode(context, { buffer: await context.decodeAudioData(bytes.buffer) });
  source.connect(node);
  const stream = await ask(constraints);
  source.start();
  return stream;
};
"""


def write_echo(voice: np.ndarray, path: Path) -> Path:
    """Write the echo of a voice (48 kHz) in a room, 0.4 s late and 10 dB softer: Chromium plays late itself."""
    rng = np.random.default_rng(0)
    room = 0.3 * rng.standard_normal(4_800) * np.exp(-np.arange(4_800) / 800)
    room[0] = 1.0
    write_wav(path, np.concatenate([np.zeros(19_200), 0.3 * np.convolve(voice, room)[: len(voice)]]), rate_hz=48_000)
    return path


async def test_the_lesson_records_and_shows_the_effect_of_echo_cancellation(
    jupyterlab: Any, launch: Any, pictures: Path, tmp_path: Path
) -> None:
    voice = babble("One two three four five six seven eight nine ten " * 3, seed=4).audio[: 6 * 24_000]
    write_wav(tmp_path / "voice.wav", 0.5 * voice / abs(voice).max(), rate_hz=24_000)
    loud, _ = read_wav(tmp_path / "voice.wav")
    echo = write_echo(resample(loud, from_rate_hz=24_000, to_rate_hz=48_000), tmp_path / "echo.wav")
    browser = await launch(f"--use-file-for-fake-audio-capture={echo}", *FLAGS)
    tagged = [one for one in nbformat.read(LESSON, as_version=4).cells if "microphone" in one.metadata.get("tags", [])]
    sources = [one.source.replace("microphone, 3", "microphone, 2") for one in tagged]  # seconds
    jupyterlab.write("lesson-04.ipynb", [*sources, "print(folder)"])
    script = PLAY.replace("VOICE", base64.b64encode((tmp_path / "voice.wav").read_bytes()).decode())
    notebook = await open_in(jupyterlab, browser, "lesson-04.ipynb", pictures=pictures, script=script)
    *shown, folder = await notebook.run_all()
    assert sum(text.count("Your microphone") for text in shown) == 3, shown
    assert likeness(read_wav(Path(folder.strip()) / "raw.wav")[0][12_000:], echo) > 0.95
    softer = re.search(r"(-?\d+) dB softer", shown[-1])
    assert softer, shown[-1]
    assert int(softer[1]) >= 6, (
        "67 dB on a quiet machine; where it falls behind, samples slip and the canceller learns anew"
    )
