"""`Microphone`: the page's microphone as the input of a session, or as an array.

The page captures frames of 20 ms in an AudioWorklet and sends them through the channel to the background loop, so a
busy cell delays nothing on a direct channel. The page stops the microphone when its last view is removed, when another
tab starts it, or when the kernel does not answer for 7 s: Jupyter itself never stops it.

Messages, page to kernel: ``state`` {run, state, status, problem, next_step, devices, rate_hz}, ``audio`` {run, first,
frames, t, talking} [PCM16 at rate_hz], ``talk`` {run, on}, ``toggle`` {on}, ``file`` {name}
(`Upload` of a sound file). Kernel to page: ``start`` {settings}, ``stop``, ``shown`` {run, state, status, problem,
dropped}, ``level`` {peak}. A run is one capture; only the newest one counts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Callable, Coroutine
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from ipywidgets import Checkbox, Dropdown, VBox, Widget, widget_serialization
from traitlets import Bool, Enum, Instance, Int, List, Unicode, link

from rtnb._loop import LoopGone, shared_loop
from rtnb.analysis.latency import SpeechEnd
from rtnb.audio import RATE_HZ, Audio, Resampler, as_audio, codec, decode_pcm16, ms_to_samples, resample
from rtnb.audio.wav import read_wav, write_wav
from rtnb.client import EventLog, Response, Session
from rtnb.errors import RtnbError, WidgetError
from rtnb.widgets._base import format_error
from rtnb.widgets._frames import now_ms
from rtnb.widgets._session_view import SessionView
from rtnb.widgets._upload import Upload
from rtnb.widgets.settings import close_all

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


_CAPTURE: Final = ("device", "echo_cancellation", "noise_suppression", "auto_gain_control")
"""Settings of a capture: they go with its start, which overtakes changes of traits on their way to the page."""
_BOXES: Final = ("muted", *_CAPTURE[1:], "keep_on_when_hidden")


class Microphone(SessionView):
    """Microphone of the page.

    Parameters
    ----------
    session : Session or Playground, optional
        Receiver: every frame goes to its input audio buffer, in its own format. Without one, use `record`.
    source : optional
        Source of the audio. None takes the browser's microphone. An ipywebrtc stream (``CameraStream``,
        ``AudioStream`` …) is captured, and muted where it is displayed. A path of a WAV file or an array is played in
        place of a microphone, in real time.
    rate_hz : int, default 24000
        Rate of an array given as `source`.
    **traits
        `mode`, `muted`, `device`, `echo_cancellation` …

    Examples
    --------
    >>> microphone = Microphone(source=[0.0] * 24_000)  # one second of silence
    >>> microphone.mode
    'open'
    >>> microphone.close()
    """

    _accepts = (Session,)
    _only = "microphone"

    mode = Enum(("open", "push to talk"), "open", help="Always on, or while a key or button is held.").tag(sync=True)
    talk_key = Unicode("F8", help="Push-to-talk key, as KeyboardEvent.key.").tag(sync=True)
    muted = Bool(False, help="Mute (send silence)").tag(sync=True)
    device = Unicode("", help="Label of the device; empty: the browser's default. See `devices`.").tag(sync=True)
    echo_cancellation = Bool(True, help="Echo cancellation").tag(sync=True)
    noise_suppression = Bool(True, help="Noise suppression").tag(sync=True)
    auto_gain_control = Bool(True, help="Automatic gain control").tag(sync=True)
    keep_on_when_hidden = Bool(False, help="Keep on while the tab is hidden").tag(sync=True)
    stream = Instance(Widget, allow_none=True, help="Stream of ipywebrtc.").tag(sync=True, **widget_serialization)
    sample = Unicode("", help="Name of the recording that is played in place of a microphone.").tag(sync=True)
    worklet = Unicode(Path(__file__).with_name("microphone_worklet.js").read_text(encoding="utf-8")).tag(sync=True)
    state = Unicode("no page", help="no page, off, starting, on.")
    status = Unicode("", help="One line about the current state, for people.")
    problem = Unicode("", help="Reason why it is off or audio is lost, and the next step.")
    devices: List[str] = List(help="Labels of the devices, once the browser allows the page to read them.")
    device_rate_hz = Int(0, help="Sample rate of the device; frames have 24 kHz.")

    def __init__(self, session: Any = None, *, source: Any = None, rate_hz: int = RATE_HZ, **traits: Any) -> None:
        self._sender = AudioSender(lambda problem: self._set_state(self.state, self._text, problem))
        self.speech_end = self._sender.speech_end
        """Detector of the moment at which the user's speech ended."""
        self._run = ""
        self._start_requested = False
        self._users, self._keep_on = 0, False
        self._ended: asyncio.Future[WidgetError] | None = None
        self._playing: asyncio.Task[None] | None = None
        self._text, self._dropped_before = "", 0
        self._upload = Upload()
        if not isinstance(session, Session | EventLog | None) and hasattr(session, "session"):
            session = session.session  # of a playground: waits until its session is open
        stream, self._audio, sample = _open_source(source, rate_hz)
        super().__init__(session, **{"stream": stream, "sample": sample, **traits})

    # --- public -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the microphone: at once, or as soon as a page shows the widget. Returns at once; see `state`."""
        self._start_requested = True
        shared_loop().call_soon(self._start)

    def stop(self) -> None:
        """Stop the microphone; returns at once."""
        shared_loop().call_soon(self._stop)

    @property
    def counts(self) -> dict[str, int]:
        """Number of frames of 20 ms by outcome: captured = sent + dropped + unused + waiting.

        - captured: recorded by the page;
        - sent: appended to the session or, without one, to a recording;
        - late: of those sent, the ones older than 250 ms;
        - dropped: lost because they were older than 1.5 s, a queue was full, or the session refused them;
        - unused: no session and no recording took them, or the push-to-talk key was up;
        - waiting: in the queue for the session.
        """
        return self._sender.counts

    @cached_property
    def options(self) -> VBox:
        """Device, mode and processing as widgets, to be shown beside the microphone or elsewhere."""
        mode = Dropdown(description="Mode", options=["open", "push to talk"])
        boxes = [Checkbox(description=self.trait_metadata(name, "help"), indent=False) for name in _BOXES]
        for name, widget in zip(("mode", *_BOXES), (mode, *boxes), strict=True):
            link((self, name), (widget, "value"))
        device = Dropdown(description="Device", options=[("", self.device)])
        chosen = link((self, "device"), (device, "value"))

        def list_devices(_: Any = None) -> None:
            chosen.unlink()  # new options reset the value for a moment
            labels = dict.fromkeys(label for label in (*self.devices, self.device) if label)
            device.options = [("Browser's default", ""), *((label, label) for label in labels)]
            chosen.link()

        self.observe(list_devices, ["device", "devices"])
        list_devices()  # links anew: a new device becomes an option before the link chooses it
        return VBox([device, mode, *boxes])

    async def record(
        self, seconds: float, *, path: str | os.PathLike[str] | None = None, timeout_s: float = 20.0
    ) -> Audio:
        """Record audio; show the widget, and start and stop it, where needed.

        Parameters
        ----------
        seconds : float
            Length, up to an hour.
        path : path-like, optional
            Also write a WAV file.
        timeout_s : float, default 20
            Time beyond `seconds` after which it fails: the browser may ask for permission (chosen).

        Returns
        -------
        audio : ndarray, float32, shape (n_samples,)
            At 24 kHz; it includes late frames.

        Raises
        ------
        WidgetError
            No page, no permission, no device, an insecure page, a hidden tab, an unplugged device, or a kernel that
            cannot receive while a cell waits.
        """
        if not 0 < seconds < 3600:
            raise ValueError(f"seconds is {seconds!r}; allowed: more than 0 s and less than an hour")
        n_samples = ms_to_samples(1000 * seconds, rate_hz=RATE_HZ)
        audio: Audio = await self._show_and_await(self._use(self._collect(n_samples), seconds + timeout_s))
        if path is not None:
            write_wav(path, audio, rate_hz=RATE_HZ)
        return audio

    async def turn(self, *, timeout_s: float = 60.0) -> Response:
        """Listen until the user has spoken and the service has answered; return the finished response.

        Parameters
        ----------
        timeout_s : float, default 60
            Deadline for the response.

        Raises
        ------
        WidgetError
            As `record`; or there is no session, or no response in time.
        """
        if not isinstance(self.session, Session):
            raise WidgetError("the microphone has no session").with_hint("Give it one: Microphone(session).")
        response: Response = await self._show_and_await(self._use(_finished_response(self.session), timeout_s))
        return response

    def close(self) -> None:
        """Stop the microphone and remove it from the page; closing twice is fine."""
        if self._opened:
            shared_loop().call_if_running(self._stop, "The microphone was closed.", "Make a new one.")
            shared_loop().call_if_running(self._sender.clear)
        if options := self.__dict__.pop("options", None):
            close_all(*options.children, options)
        super().close()

    # --- waiting, on the background loop ------------------------------------------------------------------------------

    async def _show_and_await(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Show the widget where no page does, and await `work` of the background loop."""
        future = asyncio.wrap_future(shared_loop().submit(work))
        try:
            if self._audio is None and _kernel_major() is not None:
                self.be_shown()
            return await future
        finally:
            future.cancel()  # the cell may have been interrupted

    async def _use(self, work: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Await `work` with the microphone on; stop it afterwards unless it was on before or others still use it."""
        if not self._users:
            self._keep_on = self._start_requested or self.state in ("on", "starting")
        self._users += 1
        if self._ended is None or self._ended.done():
            self._ended = asyncio.get_running_loop().create_future()
        task, ended = asyncio.ensure_future(work), self._ended
        if self.state not in ("on", "starting"):
            self._start_requested = True  # a page may join later
            self._start()
        try:
            await asyncio.wait({task, ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ended.result().again() if ended.done() else self._no_audio_error(timeout_s)
        finally:
            task.cancel()
            self._users -= 1
            if not (self._users or self._keep_on):
                self._stop()

    async def _collect(self, n_samples: int) -> Audio:
        queue: asyncio.Queue[Audio] = asyncio.Queue()
        self._sender.recordings.add(queue)
        parts = []
        try:
            while n_samples > 0:
                parts.append((await queue.get())[:n_samples])
                n_samples -= len(parts[-1])
            return np.concatenate(parts)
        finally:
            self._sender.recordings.discard(queue)

    def _no_audio_error(self, timeout_s: float) -> RtnbError:
        if self._audio is None and self.channel.status.kind in ("messages", "none") and (_kernel_major() or 7) < 7:
            return WidgetError("this kernel receives nothing from the page while a cell waits").with_hint(
                "Use clip = asyncio.ensure_future(microphone.record(5)), and clip.result() in a later cell; or let the "
                "page reach the kernel directly (localhost, jupyter-server-proxy); or update ipykernel."
            )
        if self._audio is None and self.state == "no page":
            problem, step = "no page has shown this microphone", "Show it in a cell: microphone"
        elif self.state != "on":
            problem = "the browser did not start the microphone"
            step = "Look at the widget: the browser may ask for permission or wait for a click."
        else:
            problem = "the service detected no finished turn" if self.counts["captured"] else "no audio arrived"
            step = "Check the level in the widget, and `counts` for the outcome of the frames."
        return WidgetError(f"{problem} within {timeout_s:g} s").with_hint(step)

    # --- start and stop, on the background loop -----------------------------------------------------------------------

    def _start(self) -> None:
        if self._audio is None:
            self._stream.publish("start", {"settings": {name: getattr(self, name) for name in _CAPTURE}})
        elif self._playing is None:
            self._begin("sample")
            self._playing = asyncio.get_running_loop().create_task(play_frames(self._audio, self._on_sample))
            self._set_state("on", f"Playing {self.sample}")

    def _begin(self, run: str) -> None:
        """Begin a capture; frames of the one before are ignored from now on."""
        self._run, self._start_requested, self._dropped_before = run, False, self.counts["dropped"]
        self._sender.next = 0

    def _stop(self, problem: str = "", next_step: str = "") -> None:
        self._start_requested = False
        self._stream.publish("stop", {})
        if self._playing is not None:
            self._playing.cancel()
            self._playing = None
        if self._run or self._users:
            self._set_off(problem, next_step)

    def _set_off(self, problem: str, next_step: str) -> None:
        self._run = ""
        self._set_state("off", problem or "Microphone off", f"{problem} {next_step}".strip())
        if self._ended is not None and not self._ended.done():
            error = WidgetError(problem or "the microphone was stopped")
            self._ended.set_result(error.with_hint(next_step or "Start it again."))

    def _set_state(self, state: str, text: str, problem: str = "") -> None:
        self.state, self._text, self.problem = state, text, problem
        self._publish_state()

    def _publish_state(self) -> None:
        dropped = self.counts["dropped"] - self._dropped_before
        self.status = self._text + (f" · {dropped} frames dropped" if dropped and self.state == "on" else "")
        state = self.state if self.state in ("on", "starting") else "off"
        shown = {"run": self._run, "state": state, "status": self._text, "problem": self.problem, "dropped": dropped}
        self._stream.publish("shown", shown)

    # --- messages of the session and the page, on the background loop -------------------------------------------------

    def _on_replaced(self) -> None:
        self._stop()
        super()._on_replaced()

    def _on_end(self) -> None:
        self._stop("The session is closed.", "Connect again.")

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            if self.state == "no page":
                self.state = "off"
            self._publish_state()
            if self._start_requested and self.state == "off":
                self._start()
        elif self._run.startswith(f"{page_id}-"):
            self._start_requested = False
            self._set_off("The page with the microphone was closed.", "Show the widget again.")
        if not self._stream.joined and self._playing is None:
            self.state = "no page"

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Any:
        current = header.get("run") == self._run
        if kind == "audio" and current:
            samples, stamp_ms = decode_pcm16(buffers[0]), header["t"] or now_ms()  # no stamp before clocks are compared
            self._take(self._resampler.process(samples), header["first"], header["frames"], stamp_ms, header["talking"])
        elif kind == "talk" and current and isinstance(self.session, Session):
            if header["on"]:
                self._set_state(self.state, self._text)  # what was wrong with the last turn is over
            self._sender.turn(self.session, begins=header["on"])
        elif kind == "state":
            self._on_state(header, current=current)
        elif kind == "toggle":
            (self._start if header["on"] else self._stop)()
        elif kind == "file" and (data := self._upload.receive(header, buffers)) is not None:
            return self._play_file(data, str(header["name"]))
        return None

    async def _play_file(self, data: bytes, name: str) -> None:
        """Play a sound file of the page in place of a microphone."""
        samples, rate_hz = await asyncio.to_thread(read_wav, data)
        self._stop()
        _, self._audio, self.sample = _open_source(samples, rate_hz, name)
        self._start()

    def _on_state(self, header: dict[str, Any], *, current: bool) -> None:
        state = header["state"]
        self.devices = header["devices"] or self.devices
        if state == "starting" and not current:
            self._begin(header["run"])
            self._set_state("starting", header["status"])
        elif state == "on" and current:
            if self.state != "on":
                self.device_rate_hz = header["rate_hz"]
                self._resampler = Resampler(from_rate_hz=self.device_rate_hz, to_rate_hz=RATE_HZ)
            self._set_state("on", header["status"], self.problem if self.state == "on" else "")
        elif state == "off" and current and (self._run or header["problem"]):
            self._set_off(header["problem"], header["next_step"])

    def _on_sample(self, number: int, samples: Audio) -> None:
        """Take a frame of the recording that is played in place of a microphone."""
        self._take(samples * (not self.muted), number, 1, now_ms(), True)
        if number % 5 == 0:
            self._stream.publish("level", {"peak": float(abs(samples).max()) * (not self.muted)})

    def _take(self, samples: Audio, first: int, frames: int, stamp_ms: float, talking: bool) -> None:
        session = self.session if isinstance(self.session, Session) else None
        self._sender.take(samples, first=first, frames=frames, stamp_ms=stamp_ms, session=session, talking=talking)
        if first // 25 != (first + frames) // 25:  # twice a second
            self._publish_state()


async def _finished_response(session: Session) -> Response:
    return await (await session.next_response())


def _kernel_major() -> int | None:
    """Return the major version of the running ipykernel; None outside of one."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return None if kernel is None else int(kernel.implementation_version.split(".")[0])


def _open_source(source: Any, rate_hz: int, name: str = "array") -> tuple[Widget | None, Audio | None, str]:
    """Return the ipywebrtc stream, or the recording at 24 kHz and its name."""
    if source is None:
        return None, None, ""
    if isinstance(source, Widget):
        if getattr(source, "_model_module", "") != "jupyter-webrtc" or "Stream" not in source._model_name:
            raise TypeError(f"source is a {type(source).__name__}; allowed: an ipywebrtc stream, a path or an array")
        return source, None, ""
    if isinstance(source, str | os.PathLike):
        (samples, rate_hz), name = read_wav(source), Path(source).name
    else:
        samples = as_audio(source)
    audio = resample(samples, from_rate_hz=rate_hz, to_rate_hz=RATE_HZ)
    return None, audio, f"{name} ({len(audio) / RATE_HZ:.1f} s)"


async def play_frames(
    audio: Audio,
    on_frame: Callable[[int, Audio], object],
    *,
    clock: Callable[[], float] = now_ms,
    sleep: Callable[[float], Coroutine[Any, Any, object]] = asyncio.sleep,
) -> None:
    """Play a recording in real time as frames, then silence, until cancelled.

    Parameters
    ----------
    audio : ndarray, float32, shape (n_samples,)
        At 24 kHz.
    on_frame : callable
        ``on_frame(number, samples)``, called at the end of each frame.
    """
    start_ms = clock()
    for number in itertools.count():
        wait_ms = start_ms + (number + 1) * FRAME_MS - clock()
        if wait_ms > 0:
            await sleep(wait_ms / 1000)
        samples = audio[number * FRAME_SAMPLES : (number + 1) * FRAME_SAMPLES]
        on_frame(number, np.pad(samples, (0, FRAME_SAMPLES - len(samples))))
