"""`microphone.js` in Chromium and `Microphone` in this process, joined as `bridge.py` joins the channel."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import correlate

from rtnb.audio import babble, read_wav, resample, write_wav
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.microphone import Microphone
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
    power = correlate(said**2, np.ones(len(piece)), "valid")
    norms = np.maximum(np.sqrt(np.maximum(power, 0.0)), _QUIET / 2) * np.linalg.norm(piece)
    alike = correlate(said, piece, "valid") / norms
    return int(alike.argmax()), float(alike.max())


@asynccontextmanager
async def shown_in(browser: Any) -> AsyncIterator[Callable[..., Awaitable[Tab]]]:
    """Show each microphone on a new page: ``tab = await show(microphone)``."""
    async with tabs_of(shared_channel(), browser, script=TRACKS) as open_tab:

        async def show(microphone: Microphone, **options: Any) -> Tab:
            tab = await open_tab(**options)
            await tab.show(microphone)
            return tab

        yield show
