"""`AudioSender`: the queue of a microphone's frames on their way to a session, with the outcome of each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from rtnb._loop import LoopGone
from rtnb.analysis.latency import SpeechEnd
from rtnb.audio import RATE_HZ, Audio, Resampler, codec
from rtnb.client import Session
from rtnb.errors import RtnbError
from rtnb.widgets._base import format_error
from rtnb.widgets._frames import now_ms

FRAME_MS: Final = 20
FRAME_SAMPLES: Final = 480
"""Samples of one frame at 24 kHz."""

LATE_MS: Final = 250.0
"""Age from which on a frame counts as late (chosen: a listener notices it)."""

STALE_MS: Final = 1_500.0
"""Age from which on a frame is dropped (chosen: the answer to it would come into the next sentence)."""

QUEUE_FRAMES: Final = 250
"""Most frames that wait for a session: 5 s, 240 kB (chosen). `AudioSender` then drops the oldest."""

Send = Callable[[], Coroutine[Any, Any, None]]


class AudioSender:
    """Queue that brings the frames of a microphone to a session, in order, and counts the outcomes.

    All methods run on the background loop. A task sends while the queue holds anything, and ends with it.

    Parameters
    ----------
    on_problem : callable
        Called with the message of an error of the session.
    clock : callable, optional
        Milliseconds on the clock of the frames' stamps; default `now_ms`.
    """

    def __init__(self, on_problem: Callable[[str], object], *, clock: Callable[[], float] = now_ms) -> None:
        self.counts = dict.fromkeys(("captured", "sent", "late", "dropped", "unused", "waiting"), 0)
        """Number of frames by outcome. Each change replaces the whole dictionary, so other threads read a true sum."""
        self.recordings: set[asyncio.Queue[Audio]] = set()
        """Queues that get all audio."""
        self.speech_end = SpeechEnd()
        """Detector of the moment at which the user's speech ended."""
        self._on_problem = on_problem
        self._clock = clock
        self.next = 0
        """Number of the next frame; a new capture sets it to 0."""
        self._session: Session | None = None
        self._queue: deque[tuple[Send, int, float]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._resampler: Resampler | None = None

    def take(
        self, samples: Audio, *, first: int, frames: int, stamp_ms: float, session: Session | None, talking: bool = True
    ) -> None:
        """Take consecutive frames.

        Parameters
        ----------
        samples : ndarray, float32, shape (n_samples,)
            At 24 kHz.
        first, frames : int
            Number of the first frame in its capture, and number of frames; a gap before them counts as dropped.
        stamp_ms : float
            When the last sample was captured, on the kernel's clock.
        session : Session or None
            Receiver.
        talking : bool, default True
            False while the push-to-talk key is up; a session without turn detection then gets nothing.
        """
        if session is not self._session:
            self.clear()
            self._session, self._resampler = session, None
        gap = max(0, first - self.next)
        self.next = first + frames
        for recording in self.recordings:
            recording.put_nowait(samples)
        if talking:
            self.speech_end.take(samples, rate_hz=RATE_HZ, end_s=stamp_ms / 1000)
        self._count(captured=gap + frames, dropped=gap, waiting=frames)
        if session is not None and (talking or session.config.turn_detection):  # turn detection needs silence, too
            self._put(partial(self._append, session, samples), frames, stamp_ms)
        else:
            self._settle("sent" if self.recordings else "unused", frames, self._clock() - stamp_ms)

    def turn(self, session: Session, *, begins: bool) -> None:
        """Begin or end a push-to-talk turn; a session with turn detection decides that itself."""
        if not session.config.turn_detection:
            self._put(partial(_begin_turn if begins else _end_turn, session))

    def clear(self) -> None:
        """Empty the queue and stop sending."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._queue.clear()
        self._settle("unused", self.counts["waiting"])

    def _count(self, **more: int) -> None:
        self.counts = {name: number + more.get(name, 0) for name, number in self.counts.items()}

    def _settle(self, outcome: str, frames: int, age_ms: float = 0.0) -> None:
        late = frames if outcome == "sent" and age_ms > LATE_MS else 0
        self._count(waiting=-frames, late=late, **{outcome: frames})

    def _put(self, send: Send, frames: int = 0, stamp_ms: float = 0.0) -> None:
        self._queue.append((send, frames, stamp_ms))
        while sum(max(1, item[1]) for item in self._queue) > QUEUE_FRAMES:
            self._settle("dropped", self._queue.popleft()[1])
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        while self._queue:
            send, frames, stamp_ms = self._queue.popleft()
            age_ms = self._clock() - stamp_ms if frames else 0.0
            sent = age_ms <= STALE_MS
            try:
                if sent:
                    await send()
            except (RtnbError, LoopGone) as error:
                sent = False
                if self._session is not None and not self._session.closed:  # else other widgets show it
                    self._on_problem(format_error(error))
            self._settle("sent" if sent else "dropped", frames, age_ms)

    async def _append(self, session: Session, samples: Audio) -> None:
        """Append audio at the session's rate; the resampler keeps its state from frame to frame."""
        rate_hz = codec(session.config.input_format.type).rate_hz
        if rate_hz != RATE_HZ:
            self._resampler = self._resampler or Resampler(from_rate_hz=RATE_HZ, to_rate_hz=rate_hz)
            samples = self._resampler.process(samples)
        if len(samples):
            await session.input_audio_buffer.append(samples)


async def _begin_turn(session: Session) -> None:
    if session.state.input_audio_buffer.bytes:
        await session.input_audio_buffer.clear()  # audio from before the key went down is not part of the turn


async def _end_turn(session: Session) -> None:
    await session.input_audio_buffer.commit()
    await session.response.create()
