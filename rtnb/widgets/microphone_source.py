"""What a `Microphone` hears: an ipywebrtc stream, or a recording that stands in; and why it hears nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

import ipywidgets

from rtnb._loop import shared_loop
from rtnb.audio import Audio, as_audio, decode_pcm16, encode_pcm16, read_wav, resample
from rtnb.errors import RtnbError, WidgetError
from rtnb.widgets.microphone_feed import FRAME_SAMPLES, RATE_HZ

T = TypeVar("T")

STALL_S: Final = 8.0
"""A cell that awaits, and hears nothing of the page for so long, is told why not (chosen)."""


def opened(source: Any, rate_hz: int) -> tuple[ipywidgets.Widget | None, Audio | None, str]:
    """The stream, or the samples at 24 kHz, and what they are called.

    Raises
    ------
    TypeError
        Another widget.
    AudioError
        No audio.
    """
    if source is None:
        return None, None, ""
    if isinstance(source, ipywidgets.Widget):
        if getattr(source, "_model_module", "") != "jupyter-webrtc" or "Stream" not in source._model_name:
            raise TypeError(f"source is a {type(source).__name__}: no ipywebrtc stream, path or array")
        return source, None, ""
    if isinstance(source, str | os.PathLike):
        samples, rate_hz = read_wav(source)
        name = Path(source).name
    else:
        samples, name = as_audio(source), "an array"
    audio = resample(samples, from_rate_hz=rate_hz, to_rate_hz=RATE_HZ)
    return None, audio, called(name, audio)


def called(name: str, audio: Audio) -> str:
    """The name of a stand-in, for the page.

    >>> import numpy as np
    >>> called("voice.wav", np.zeros(36_000, np.float32))
    'voice.wav (1.5 s)'
    """
    return f"{name} ({len(audio) / RATE_HZ:.1f} s)"


def kernel_major() -> int | None:
    """The major version of the kernel this runs in; None outside of one."""
    from IPython import get_ipython

    if getattr(get_ipython(), "kernel", None) is None:
        return None
    return int(version("ipykernel").split(".")[0])


async def from_a_cell(
    work: Coroutine[Any, Any, T],
    *,
    show: Callable[[], Coroutine[Any, Any, None]] | None,
    news: Callable[[], object],
    by_message: Callable[[], bool],
) -> T:
    """Await something of the background loop; the loop here turns, so what the page sends should come.

    Parameters
    ----------
    work : coroutine
        What to wait for.
    show : callable, optional
        Shows the widget in the cell, if nothing does.
    news : callable
        Gives something else whenever the page was heard.
    by_message : callable
        Whether the page can only be heard through the kernel.
    """
    future = asyncio.wrap_future(shared_loop().submit(work))
    try:
        if show is not None and kernel_major() is not None:
            await show()
        while not future.done():
            before = news()
            await asyncio.wait({future}, timeout=STALL_S)
            hears = shared_loop().inside or (kernel_major() or 7) >= 7 or not by_message()
            if not (future.done() or hears) and news() == before:
                raise deaf()
        return await future
    finally:
        future.cancel()  # where the cell was interrupted, nobody listens any more


def deaf() -> RtnbError:
    """Why a cell cannot wait here."""
    return WidgetError("this kernel hears no page while a cell waits, so this would wait for ever").with_hint(
        "Begin it, clip = asyncio.ensure_future(microphone.record(5)), and read clip.result() in a later cell; or let "
        "the page reach the kernel directly (on localhost, by jupyter-server-proxy); or update ipykernel."
    )


def nobody(state: str, *, heard: bool, timeout_s: float) -> RtnbError:
    """Why nothing was recorded, or answered."""
    if state == "no page":
        error = WidgetError(f"no page has shown this microphone within {timeout_s:g} s")
        return error.with_hint("Show it in a cell: microphone")
    if state != "on":
        return WidgetError(f"the browser did not start the microphone within {timeout_s:g} s").with_hint(
            "Look at the widget: it may ask for permission, or for a click."
        )
    what = "nobody was heard to finish a turn" if heard else "nothing of what was said has come"
    return WidgetError(f"no answer within {timeout_s:g} s: {what}").with_hint(
        "Look at the level in the widget; `counts` tells what became of the frames."
    )


def level(pcm: bytes) -> dict[str, float]:
    """Of a frame, for the meter on the page."""
    samples = decode_pcm16(pcm)
    peak = float(abs(samples).max())
    return {"peak": peak, "power": float((samples**2).mean()), "clipped": int(peak > 0.999)}


async def speak(
    samples: Audio,
    take: Callable[[int, bytes], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Coroutine[Any, Any, object]] = asyncio.sleep,
) -> None:
    """Give a recording in frames as if somebody spoke it, then silence, until cancelled.

    Parameters
    ----------
    samples : ndarray, float32, shape (n_samples,)
        At 24 kHz.
    take : callable
        ``take(index, pcm)`` gets each frame when it would be whole.
    """
    pcm = encode_pcm16(samples)
    size, start_s, index = 2 * FRAME_SAMPLES, clock(), 0
    while True:
        wait_s = start_s + (index + 1) * FRAME_SAMPLES / RATE_HZ - clock()
        if wait_s > 0:
            await sleep(wait_s)
        take(index, pcm[index * size : (index + 1) * size].ljust(size, b"\0"))
        index += 1
