"""`Feed`: where the frames of a microphone go. Every frame is accounted for; stale ones do not reach the session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from rtnb._loop import Lock
from rtnb.analysis.latency import SpeechEnd
from rtnb.audio import Audio, Resampler, codec, decode_pcm16
from rtnb.client import Session
from rtnb.errors import RtnbError
from rtnb.widgets._base import format_error
from rtnb.widgets._frames import Delay

RATE_HZ: Final = 24_000
"""Rate of all frames of the page; G.711 sessions get them resampled here."""

FRAME_SAMPLES: Final = 480
"""Samples of one frame: 20 ms."""

LATE_MS: Final = 250.0
"""A frame that took this much longer than the quickest is late, and counted (chosen: a listener notices it)."""

STALE_MS: Final = 1_500.0
"""A frame this late does not reach the session any more (chosen: an answer to it would come into the next sentence)."""


@dataclass
class Counts:
    """What became of the frames of 20 ms; ``captured == sent + dropped + lost + unused + waiting``."""

    captured: int = 0
    """Made by the page."""
    sent: int = 0
    """Reached the session or, without one, a recording."""
    late: int = 0
    """Of those sent: more than `LATE_MS` late."""
    dropped: int = 0
    """Not sent, because they were more than `STALE_MS` late."""
    lost: int = 0
    """Never arrived."""
    unused: int = 0
    """Nobody wanted them: no session and no recording, or the key to talk was up."""
    waiting: int = 0
    """Here, and not yet with the session."""


class Clip:
    """A recording: filled with frames until it is full."""

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[Audio] = loop.create_future()
        self._parts: list[bytes] = []
        self._missing = 2 * n_samples

    def take(self, pcm: bytes) -> None:
        """Add a piece."""
        if not self.begun.done():
            self.begun.set_result(None)
        if self.done.done():
            return
        self._parts.append(pcm[: self._missing])
        self._missing -= len(self._parts[-1])
        if not self._missing:
            self.done.set_result(decode_pcm16(b"".join(self._parts)))

    def fail(self, error: Exception) -> None:
        """End it before it is full."""
        for future in (self.begun, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever awaits it is told; maybe nobody does any more


class Feed:
    """Takes the frames of one capture after another; all methods run on the background loop.

    Parameters
    ----------
    problem : callable
        Told in words what a session did not take.
    clock : callable, default time.time
        Seconds since 1970, the clock of the page's stamps.
    """

    def __init__(self, problem: Callable[[str], object], *, clock: Callable[[], float] = time.time) -> None:
        self.counts = Counts()
        self.clips: set[Clip] = set()
        self.speech_end = SpeechEnd()
        self.arrived = 0
        """How many frames have come: it grows while the line works."""
        self._lock = Lock()
        self._problem = problem
        self._clock = clock
        self._delay = Delay()
        self._expected = 0
        self._session: Session | None = None
        self._queue: asyncio.Queue[tuple[str, int, float, bytes]] = asyncio.Queue()

    def begin(self) -> None:
        """A new capture: its frames count from 0 again."""
        self._expected, self._delay = 0, Delay()

    def sound(self, *, first: int, frames: int, stamp_ms: float, pcm: bytes, talk: bool = True) -> None:
        """Take `frames` frames that follow each other: PCM16 at 24 kHz; the last was whole at `stamp_ms`."""
        counts, gap = self.counts, max(0, first - self._expected)
        self._expected = first + frames
        self.arrived += frames
        for clip in tuple(self.clips):
            clip.take(pcm)
        late_ms = self._delay.late_ms(stamp_ms, self._clock() * 1000)
        if talk:
            self.speech_end.take(decode_pcm16(pcm), rate_hz=RATE_HZ, end_s=time.monotonic() - late_ms / 1000)
        session = self._session
        listens = session is not None and bool(talk or session.config.turn_detection)  # the latter hears silence, too
        with self._lock:
            counts.captured += gap + frames
            counts.lost += gap
            if listens:
                counts.waiting += frames
            elif self.clips:
                counts.sent += frames
                counts.late += frames if late_ms > LATE_MS else 0
            else:
                counts.unused += frames
        if listens:
            self._queue.put_nowait(("sound", frames, stamp_ms, pcm))

    def talk(self, on: bool) -> None:
        """The key to talk went down or up."""
        if self._session is not None and not self._session.config.turn_detection:
            self._queue.put_nowait(("down" if on else "up", 0, 0.0, b""))

    async def send_to(self, session: Session) -> None:
        """Bring what comes to a session until cancelled, in order."""
        self._session, self._queue = session, asyncio.Queue()
        encode = _encoder()
        try:
            while True:
                kind, frames, stamp_ms, pcm = await self._queue.get()
                try:
                    if kind == "sound":
                        await self._send(session, frames, stamp_ms, pcm, encode)
                    else:
                        await _turn(session, kind == "down")
                except RtnbError as error:
                    if session.closed:
                        return  # the widgets that follow its log say so
                    self._problem(format_error(error))
                    self._drop(frames)
        finally:
            if self._session is session:
                self._session = None
            with self._lock:
                self.counts.unused += self.counts.waiting
                self.counts.waiting = 0

    async def _send(
        self, session: Session, frames: int, stamp_ms: float, pcm: bytes, encode: Callable[[str, bytes], bytes]
    ) -> None:
        late_ms = self._delay.late_ms(stamp_ms, self._clock() * 1000)
        data = encode(session.config.input_format.type, pcm)
        stale = late_ms > STALE_MS
        if data and not stale:
            await session.input_audio_buffer.append(data)
        with self._lock:
            self.counts.waiting -= frames
            if stale:
                self.counts.dropped += frames
            else:
                self.counts.sent += frames
                self.counts.late += frames if late_ms > LATE_MS else 0

    def _drop(self, frames: int) -> None:
        """Count frames that the session did not take."""
        with self._lock:
            self.counts.waiting -= frames
            self.counts.dropped += frames

    def fail(self, error: Exception) -> None:
        """End all recordings with an error."""
        for clip in self.clips:
            clip.fail(error)

    def told(self) -> dict[str, int]:
        """The counts as a table, from any thread: every frame stands in it once."""
        with self._lock:
            return asdict(self.counts)


def _encoder() -> Callable[[str, bytes], bytes]:
    """PCM16 at 24 kHz to any format of a session, in pieces."""
    resampler: Resampler | None = None

    def encode(media_type: str, pcm: bytes) -> bytes:
        nonlocal resampler
        wire = codec(media_type)
        if wire.media_type == "audio/pcm":
            return pcm
        if resampler is None:
            resampler = Resampler(from_rate_hz=RATE_HZ, to_rate_hz=wire.rate_hz)
        return wire.encode(resampler.process(decode_pcm16(pcm)))

    return encode


async def _turn(session: Session, down: bool) -> None:
    """Push to talk without turn detection: what was said before is forgotten, what was said is a turn."""
    if not down:
        await session.input_audio_buffer.commit()
        await session.response.create()
    elif session.state.input_audio_buffer.bytes:
        await session.input_audio_buffer.clear()
