"""`microphone.js` in Chromium and `Microphone` in this process, joined as `bridge.py` joins the line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rtnb.audio import babble, read_wav, resample, write_wav
from rtnb.widgets._line import shared_line
from rtnb.widgets.microphone import Microphone
from rtnb.widgets.microphone_popout import KNOBS, MODULES
from tests.widgets.browser.bridge import Tab, tabs_of

# Every track the page was given, so that a test can see that all have ended.
TRACKS = """
window.tracks ??= [];
window.live = () => tracks.filter((track) => track.readyState === "live").length;
if (navigator.mediaDevices && !navigator.mediaDevices.noted) {
  const { mediaDevices } = navigator;
  mediaDevices.noted = true;
  const [ask, clone] = [mediaDevices.getUserMedia, MediaStreamTrack.prototype.clone];
  const noted = (track) => ((window.tracks ??= []).push(track), track);
  mediaDevices.getUserMedia = async (constraints) => {
    const stream = await ask.call(mediaDevices, constraints);
    stream.getTracks().forEach(noted);
    return stream;
  };
  MediaStreamTrack.prototype.clone = function () {
    return noted(clone.call(this));
  };
}
0;
"""

_SHOW = """async ([source, traits]) => {
    const handlers = new Set();
    window.model = {
        get: (name) => traits[name],
        set: (name, value) => {
            traits[name] = value;
            handlers.forEach(([on, fn]) => on === `change:${name}` && fn());
        },
        save_changes: () => {},
        on: (name, fn) => handlers.add([name, fn]),
        off: (name, fn) => handlers.forEach((pair) => pair[1] === fn && handlers.delete(pair)),
    };
    const mic = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    window.microphone = mic;
    const host = { getWidget: async () => ({ exports: line }) };
    const end = new AbortController();
    const el = document.body.appendChild(document.createElement("div"));
    const widget = mic.default();
    const cleanup = await widget.render({ model, el, host, signal: end.signal });
    window.unrender = () => { cleanup(); end.abort(); el.remove(); };
}"""


def write_voice(path: Path, *, seconds: int = 8) -> Path:
    """A voice, as the file of Chromium's fake device: 48 kHz. Returns the path."""
    said = babble("One two three four five six seven eight nine ten. " * (seconds // 3 + 1), seed=4).audio
    write_wav(path, resample(said, from_rate_hz=24_000, to_rate_hz=48_000)[: seconds * 48_000], rate_hz=48_000)
    return path


def likeness(heard: np.ndarray, file: Path) -> float:
    """The correlation of a second of what was heard with the file, at the best alignment (the file repeats)."""
    audio, rate_hz = read_wav(file)
    said = np.tile(resample(audio, from_rate_hz=rate_hz, to_rate_hz=24_000), 2)
    size = 1 << int(np.ceil(np.log2(len(said) + len(heard))))
    cross = np.fft.irfft(np.fft.rfft(said, size) * np.conj(np.fft.rfft(heard, size)), size)[: len(said) - len(heard)]
    power = np.cumsum(np.concatenate([[0.0], said.astype(np.float64) ** 2]))
    norms = np.sqrt(power[len(heard) : len(heard) + len(cross)] - power[: len(cross)])
    return float((cross / np.maximum(norms * np.linalg.norm(heard), 1e-9)).max())


def text(*files: Path) -> str:
    """Files, one after the other."""
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@asynccontextmanager
async def shown_in(browser: Any) -> AsyncIterator[Callable[..., Awaitable[Tab]]]:
    """Show microphones on pages of their own: ``tab = await show(microphone)``."""
    async with tabs_of(shared_line(), browser, script=TRACKS) as open_tab:
        yield lambda microphone, **options: _show(open_tab, microphone, **options)


async def _show(open_tab: Callable[..., Awaitable[Tab]], microphone: Microphone, **options: Any) -> Tab:
    tab = await open_tab(**options)
    folder = MODULES[0].parent
    await tab.page.add_style_tag(content=text(folder / "_base.css", folder / "microphone.css"))
    traits = {name: getattr(microphone, name) for name in ("channel", "worklet", "stand_in", *KNOBS)}
    await tab.run(_SHOW, [text(*MODULES), traits])
    return tab
