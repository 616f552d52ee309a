"""Audio of a `Microphone` in the kernel: `AudioSender` and `Recording` for its frames, and a recording as its source."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

import ipywidgets

from rtnb._loop import LoopGone
from rtnb.analysis.latency import SpeechEnd
from rtnb.audio import Audio, Resampler, as_audio, codec, decode_pcm16, encode_pcm16, read_wav, resample
from rtnb.client import Session
from rtnb.errors import RtnbError
from rtnb.widgets._base import format_error
from rtnb.widgets._frames import now_ms

RATE_HZ: Final = 24_000
"""Rate of all frames of the page; `AudioSender` resamples them for G.711 sessions."""

FRAME_SAMPLES: Final = 480
"""Samples of one frame: 20 ms."""

FRAME_BYTES: Final = 2 * FRAME_SAMPLES

LATE_MS: Final = 250.0
"""Age from which on a frame counts as late (chosen: a listener notices it)."""

STALE_MS: Final = 1_500.0
"""Age from which on a frame is dropped (chosen: the answer to it would come into the next sentence)."""

QUEUE_BYTES: Final = 250 * FRAME_BYTES
"""Most audio that waits for a session: 5 s (chosen). `AudioSender` then drops the oldest."""

MAX_RECORDING_S: Final = 3_600.0
"""Longest recording (chosen): 173 MB of samples."""

COUNTS: Final = ("captured", "sent", "late", "dropped", "unused", "waiting")


class Recording:
    """Audio of a fixed length, filled frame by frame.

    Parameters
    ----------
    n_samples : int
        Its length, at 24 kHz.
    """

    def __init__(self, n_samples: int) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[Audio] = loop.create_future()
        self._parts: list[bytes] = []
        self._missing_bytes = 2 * n_samples

    def add(self, pcm: bytes) -> None:
        """Add audio; a full recording ignores it."""
        if not self.begun.done():
            self.begun.set_result(None)
        if self.done.done():
            return
        self._parts.append(pcm[: self._missing_bytes])
        self._missing_bytes -= len(self._parts[-1])
        if not self._missing_bytes:
            self.done.set_result(decode_pcm16(b"".join(self._parts)))

    def fail(self, error: Exception) -> None:
        """End it before it is full."""
        for future in (self.begun, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()  # marks it as retrieved: a cancelled caller no longer awaits it


class _Queued(NamedTuple):
    """Audio for a session, or the begin or end of a push-to-talk turn."""

    session: Session
    pcm: bytes = b""
    stamp_ms: float = 0.0
    turn: str = ""

    @property
    def n_frames(self) -> int:
        return len(self.pcm) // FRAME_BYTES

    @property
    def n_bytes(self) -> int:
        return len(self.pcm) or FRAME_BYTES  # a turn counts, too: nothing in the queue is free


class AudioSender:
    """Queue that brings the frames of a microphone to a session, and counts them.

    All methods run on the background loop. A task sends while the queue holds anything, and ends with it.

    Parameters
    ----------
    on_problem : callable
        Called with the message of an error of the session.
    clock : callable, optional
        Milliseconds on the clock of the frames' stamps; default `now_ms`.
    """

    def __init__(self, on_problem: Callable[[str], object], *, clock: Callable[[], float] = now_ms) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        """Number of frames by outcome. Each change replaces the whole dictionary, so other threads read a true sum."""
        self.recordings: set[Recording] = set()
        self.acoustic_end = SpeechEnd()
        """Detector of the moment at which the user's speech ended."""
        self._on_problem = on_problem
        self._clock = clock
        self._next = 0
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._resampler: tuple[Session, Resampler] | None = None

    def begin(self) -> None:
        """Begin a capture: its frames count from 0 again."""
        self._next = 0

    def take(
        self, pcm: bytes, *, first: int, stamp_ms: float, session: Session | None = None, talking: bool = True
    ) -> None:
        """Take consecutive frames.

        Parameters
        ----------
        pcm : bytes
            PCM16 at 24 kHz.
        first : int
            Number of the first frame in its capture; a gap before it counts as dropped.
        stamp_ms : float
            When the last sample was captured, on the kernel's clock.
        session : Session, optional
            Receiver.
        talking : bool, default True
            False while the push-to-talk key is up; a session without turn detection then gets nothing.
        """
        frames, gap = len(pcm) // FRAME_BYTES, max(0, first - self._next)
        self._next = first + frames
        for recording in tuple(self.recordings):
            recording.add(pcm)
        if talking:
            self.acoustic_end.take(decode_pcm16(pcm), rate_hz=RATE_HZ, end_s=stamp_ms / 1000)
        if self._queue and self._queue[0].session is not session:
            self.clear()
        if session is not None and (talking or session.config.turn_detection):  # turn detection needs silence, too
            self._count(captured=gap + frames, dropped=gap, waiting=frames)
            self._put(_Queued(session, pcm, stamp_ms))
        elif self.recordings:
            late = frames if self._age_ms(stamp_ms, frames) > LATE_MS else 0
            self._count(captured=gap + frames, dropped=gap, sent=frames, late=late)
        else:
            self._count(captured=gap + frames, dropped=gap, unused=frames)

    def turn(self, session: Session, *, begins: bool) -> None:
        """Begin or end a push-to-talk turn; a session with turn detection decides that itself."""
        if not session.config.turn_detection:
            self._put(_Queued(session, turn="begin" if begins else "end"))

    def fail_recordings(self, error: Exception) -> None:
        """End all recordings with an error."""
        for recording in self.recordings:
            recording.fail(error)

    def clear(self) -> None:
        """Empty the queue and stop sending."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._queue.clear()
        self._queued_bytes = 0
        self._count(unused=self.counts["waiting"], waiting=-self.counts["waiting"])

    def _count(self, **more: int) -> None:
        self.counts = {name: number + more.get(name, 0) for name, number in self.counts.items()}

    def _age_ms(self, stamp_ms: float, frames: int) -> float:
        """Age of the oldest of some consecutive frames."""
        return self._clock() - stamp_ms + (frames - 1) * 1000 * FRAME_SAMPLES / RATE_HZ

    def _put(self, item: _Queued) -> None:
        self._queue.append(item)
        self._queued_bytes += item.n_bytes
        while self._queued_bytes > QUEUE_BYTES:
            oldest = self._pop()
            self._count(waiting=-oldest.n_frames, dropped=oldest.n_frames)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send_all())

    def _pop(self) -> _Queued:
        item = self._queue.popleft()
        self._queued_bytes -= item.n_bytes
        return item

    async def _send_all(self) -> None:
        while self._queue:
            item = self._pop()
            outcome = "dropped"
            try:
                outcome = await self._send(item)
            except (RtnbError, LoopGone) as error:
                if not item.session.closed:  # else the widgets that follow the session show it
                    self._on_problem(format_error(error))
            late = item.n_frames if outcome == "late" else 0
            self._count(waiting=-item.n_frames, late=late, **{"sent" if late else outcome: item.n_frames})

    async def _send(self, item: _Queued) -> str:
        """Send to the session; return the outcome: sent, late or dropped."""
        buffer = item.session.input_audio_buffer
        if item.turn == "begin":
            if item.session.state.input_audio_buffer.bytes:
                await buffer.clear()  # audio from before the key went down is not part of the turn
        elif item.turn:
            await buffer.commit()
            await item.session.response.create()
        else:
            data, age_ms = self._encode(item), self._age_ms(item.stamp_ms, item.n_frames)
            if age_ms > STALE_MS:
                return "dropped"
            if data:
                await buffer.append(data)
            return "late" if age_ms > LATE_MS else "sent"
        return "sent"

    def _encode(self, item: _Queued) -> bytes:
        """Convert to the session's input format; the resampler keeps its state from frame to frame."""
        wire = codec(item.session.config.input_format.type)
        if wire.media_type == "audio/pcm":
            return item.pcm
        if self._resampler is None or self._resampler[0] is not item.session:
            self._resampler = item.session, Resampler(from_rate_hz=RATE_HZ, to_rate_hz=wire.rate_hz)
        return wire.encode(self._resampler[1].process(decode_pcm16(item.pcm)))


# --- a recording as the source ----------------------------------------------------------------------------------------


def open_source(source: Any, rate_hz: int) -> tuple[ipywidgets.Widget | None, Audio | None, str]:
    """Read the `source` of a `Microphone`.

    Returns
    -------
    stream : Widget or None
        An ipywebrtc stream.
    audio : ndarray, float32, shape (n_samples,) or None
        A recording, at 24 kHz.
    name : str
        Name of the recording.

    Raises
    ------
    TypeError
        It is another widget.
    AudioError
        It is no audio.
    """
    if source is None:
        return None, None, ""
    if isinstance(source, ipywidgets.Widget):
        if getattr(source, "_model_module", "") != "jupyter-webrtc" or "Stream" not in source._model_name:
            raise TypeError(f"source is a {type(source).__name__}; allowed: an ipywebrtc stream, a path or an array")
        return source, None, ""
    if isinstance(source, str | os.PathLike):
        samples, rate_hz = read_wav(source)
        name = Path(source).name
    else:
        samples, name = as_audio(source), "array"
    audio = resample(samples, from_rate_hz=rate_hz, to_rate_hz=RATE_HZ)
    return None, audio, format_sample(name, audio)


def format_sample(name: str, audio: Audio) -> str:
    """Format the name of a recording for the page.

    >>> import numpy as np
    >>> format_sample("voice.wav", np.zeros(36_000, np.float32))
    'voice.wav (1.5 s)'
    """
    return f"{name} ({len(audio) / RATE_HZ:.1f} s)"


def frame_level(pcm: bytes) -> dict[str, float]:
    """Measure a frame for the level meter of the page."""
    samples = decode_pcm16(pcm)
    peak = float(abs(samples).max())
    return {"peak": peak, "power": float((samples**2).mean()), "clipped": int(peak > 0.999)}


async def play_frames(
    audio: Audio,
    on_frame: Callable[[int, bytes], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Coroutine[Any, Any, object]] = asyncio.sleep,
) -> None:
    """Play a recording in real time as frames, then silence, until cancelled.

    Parameters
    ----------
    audio : ndarray, float32, shape (n_samples,)
        At 24 kHz.
    on_frame : callable
        ``on_frame(number, pcm)``, called at the end of each frame.
    """
    pcm = encode_pcm16(audio)
    start_s, number = clock(), 0
    while True:
        wait_s = start_s + (number + 1) * FRAME_SAMPLES / RATE_HZ - clock()
        if wait_s > 0:
            await sleep(wait_s)
        on_frame(number, pcm[number * FRAME_BYTES : (number + 1) * FRAME_BYTES].ljust(FRAME_BYTES, b"\0"))
        number += 1
