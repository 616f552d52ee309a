"""How long the machine stood still during a test: what a bound in ms may be exceeded by, measured in the same run.

A heart beats every 20 ms on the page and one on the shared loop (of this process or of a kernel); what counts is by how
much each beat is late.
"""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rtnb._loop import shared_loop

_BEAT_MS = 20
_SMALL_MS = 100.0  # chosen: a machine at rest is not so late, and two such stalls in a row make no frame late (250 ms)

PAGE = f"""() => {{
  clearInterval(window.heart);
  const late = [];
  let last = performance.now();
  const beat = () => {{
    const now = performance.now();
    late.push(now - last - {_BEAT_MS});
    last = now;
  }};
  window.heart = setInterval(beat, {_BEAT_MS});
  window.beats = () => (beat(), late); // a stall that has just ended has not had its beat yet
}}"""
"""Start the page's heart; `beats()` there tells how late each beat was, in ms."""

KERNEL = f"""
import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})
from tests.widgets.browser.stalls import Heart
heart = Heart()
"""
"""Start a heart in a kernel: `heart.beats()`."""


class Heart:
    """The heart of this process's shared loop; it stops with the loop."""

    def __init__(self) -> None:
        self._beats: list[tuple[float, float]] = []
        self._last_s = time.monotonic()
        self._future = shared_loop().submit(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_MS / 1000)
            self._beat()

    def _beat(self) -> None:
        now_s = time.monotonic()
        self._beats.append((time.time(), 1000 * (now_s - self._last_s) - _BEAT_MS))
        self._last_s = now_s

    def beats(self, *, since_s: float = 0.0) -> list[float]:
        """How late each beat was, in ms; also only those since a moment of Unix time."""
        self._beat()
        return [late_ms for at_s, late_ms in self._beats if at_s >= since_s]

    def stop(self, *, since_s: float = 0.0) -> list[float]:
        """Beat no more; `beats`."""
        self._future.cancel()
        return self.beats(since_s=since_s)


async def beats(page: Any) -> list[float]:
    """How late each beat of a page was, in ms."""
    late_ms: list[float] = await page.evaluate("beats()")
    return late_ms


def stalled_ms(*hearts: Iterable[float]) -> float:
    """For how long these stood still in all; what every machine is late by does not count."""
    return sum(max(0.0, late_ms - _SMALL_MS) for heart in hearts for late_ms in heart)
