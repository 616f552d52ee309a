"""`microphone.js` in Chromium and `Microphone` in this process, joined as `bridge.py` joins the channel."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rtnb.audio import babble, read_wav, resample, write_wav
from rtnb.widgets._base import bundle, styles
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.microphone import _BOXES, Microphone
from tests.widgets.browser.bridge import Tab, tabs_of

# Every track the page was given, so that a test can see that all have ended.
TRACKS = """
window.tracks ??= [];
window.live = () => tracks.filter((track) => track.readyState === "live").length;
if (navigator.mediaDevices && !navigator.mediaDevices.noted) {
  const { mediaDevices } = navigator;
  mediaDevices.noted = true;
  const { clone } = MediaStreamTrack.prototype;
  const noted = (track) => ((window.tracks ??= []).push(track), track);
  const replaced = Object.hasOwn(mediaDevices, "getUserMedia"); // by ipywebrtc
  for (const owner of replaced ? [MediaDevices.prototype, mediaDevices] : [MediaDevices.prototype]) {
    const ask = owner.getUserMedia;
    owner.getUserMedia = async (constraints) => {
      const stream = await ask.call(mediaDevices, constraints);
      stream.getTracks().forEach(noted);
      return stream;
    };
  }
  MediaStreamTrack.prototype.clone = function () {
    return noted(clone.call(this));
  };
}
0;
"""

_FINE_HZ = 48_000  # finer than the recording, which may begin between two samples of the file
_PIECE = _FINE_HZ // 4
_SHIFT = _FINE_HZ // 10
_QUIET = 0.01 * np.sqrt(_PIECE)  # a piece at -40 dB

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
    const host = { getWidget: async () => ({ exports: channel }) };
    const end = new AbortController();
    const el = document.body.appendChild(document.createElement("div"));
    const widget = mic.default();
    widget.initialize({ model });
    await widget.render({ model, el, host, signal: end.signal });
    window.unrender = () => { end.abort(); el.remove(); };
}"""


def write_voice(path: Path, *, seconds: int = 8, end: str = ".") -> Path:
    """A voice, as the file of Chromium's fake device: 48 kHz; it pauses where a sentence ends. Returns the path."""
    said = babble(f"One two three four five six seven eight nine ten{end} " * (seconds // 3 + 1), seed=4).audio
    write_wav(path, resample(said, from_rate_hz=24_000, to_rate_hz=48_000)[: seconds * 48_000], rate_hz=48_000)
    return path


def likeness(heard: np.ndarray, file: Path) -> float:
    """Likeness of a recording (24 kHz) to a file that repeats: the median correlation of its quarter seconds.

    Each of these is aligned anew, within 0.1 s of where the one before ended: where a machine falls behind, Chromium
    leaves out or inserts some samples, and what follows is shifted. 0.0 where hardly anything was heard.
    """
    audio, rate_hz = read_wav(file)
    said = resample(audio, from_rate_hz=rate_hz, to_rate_hz=_FINE_HZ).astype(np.float64)
    fine = resample(heard, from_rate_hz=24_000, to_rate_hz=_FINE_HZ).astype(np.float64)
    length, window = len(said), _PIECE + 2 * _SHIFT
    said = np.tile(said, 2 + window // length)
    found: list[float] = []
    follows = 0
    for piece in (fine[at : at + _PIECE] for at in range(0, len(fine) - _PIECE + 1, _PIECE)):
        start = (follows - _SHIFT) % length
        follows += _PIECE
        if np.linalg.norm(piece) < _QUIET:
            continue  # nearly silent: like much else
        place, like = _best(piece, said[start : start + window]) if found else (0, 0.0)
        if like < 0.9:  # the first one, or lost: where is it?
            start = 0
            place, anywhere = _best(piece, said[: length + _PIECE])
            like = like if found else anywhere
        follows = start + place + _PIECE
        found.append(like)
    return float(np.median(found)) if len(found) >= 3 else 0.0


def _best(piece: np.ndarray, said: np.ndarray) -> tuple[int, float]:
    """Place in `said` of the best correlation with `piece`, and the correlation."""
    n = len(said) - len(piece)
    size = 1 << int(np.ceil(np.log2(len(said))))
    cross = np.fft.irfft(np.fft.rfft(said, size) * np.conj(np.fft.rfft(piece, size)), size)[:n]
    power = np.cumsum(np.concatenate([[0.0], said**2]))
    norms = np.sqrt(np.maximum(power[len(piece) : len(piece) + n] - power[:n], 0.0))
    alike = cross / np.maximum(norms, _QUIET / 2) / np.linalg.norm(piece)
    return int(alike.argmax()), float(alike.max())


def text(*files: Path) -> str:
    """Files, one after the other."""
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@asynccontextmanager
async def shown_in(browser: Any) -> AsyncIterator[Callable[..., Awaitable[Tab]]]:
    """Show each microphone on a new page: ``tab = await show(microphone)``."""
    async with tabs_of(shared_channel(), browser, script=TRACKS) as open_tab:
        yield lambda microphone, **options: _show(open_tab, microphone, **options)


async def _show(open_tab: Callable[..., Awaitable[Tab]], microphone: Microphone, **options: Any) -> Tab:
    tab = await open_tab(**options)
    await tab.page.add_style_tag(content=styles("microphone.css"))
    names = ("stream_name", "worklet", "sample", "mode", "talk_key", "device", *_BOXES)
    traits = {name: getattr(microphone, name) for name in names}
    await tab.run(_SHOW, [bundle("microphone.js"), traits])
    return tab
