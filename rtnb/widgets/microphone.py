"""`Microphone`: from the page's microphone to a session, or into an array.

The page captures in an AudioWorklet at the device's rate and sends frames of 20 ms at 24 kHz over the line: straight to
the background loop, so that a cell that computes holds up nothing, or as widget messages where it must. It stops when
its last view is gone, another tab takes over, or the kernel does not answer for 7 s: Jupyter itself never stops it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import ipywidgets
from traitlets import Bool, Enum, Instance, Int, List, Unicode

from rtnb._loop import shared_loop
from rtnb.audio import Audio, decode_pcm16, ms_to_samples, write_wav
from rtnb.client import EventLog, Response, Session
from rtnb.errors import RtnbError, WidgetError
from rtnb.widgets import microphone_source as sources
from rtnb.widgets._base import bundle, styles
from rtnb.widgets._session_view import SessionView, _raise_in_loop
from rtnb.widgets.microphone_feed import RATE_HZ, Clip, Feed
from rtnb.widgets.microphone_popout import KNOBS, page

T = TypeVar("T")

_listeners: WeakKeyDictionary[Session, Microphone] = WeakKeyDictionary()
"""What a session hears: the newest microphone, so that running a cell again does not speak twice."""


class Microphone(SessionView):
    """Hears who sits before the page.

    Parameters
    ----------
    session : Session or Playground, optional
        Who listens: every frame goes to its input audio buffer, in its own format. Without one, `record`.
    source : optional
        What to hear: None takes the browser's microphone; an ipywebrtc stream (``CameraStream``, ``AudioStream`` …)
        takes its sound, and mutes where it is displayed; a path of a WAV file or an array stands in for a microphone
        and is played as if spoken (and the widget says so).
    rate_hz : int, default 24000
        Rate of an array given as `source`.
    **traits
        `mode`, `muted`, `device`, `echo_cancellation` …

    Examples
    --------
    >>> microphone = Microphone(source=[0.0] * 24_000)  # a second of silence stands in
    >>> microphone.mode
    'open'
    >>> microphone.close()
    """

    _esm = bundle("microphone.js")
    _css = styles("microphone.css")
    _accepts = (Session,)

    mode = Enum(("open", "push to talk"), "open", help="Always, or while a key or button is held.").tag(sync=True)
    talk_key = Unicode("F8", help="The key to hold, as the browser calls it.").tag(sync=True)
    muted = Bool(False, help="Silence leaves the page.").tag(sync=True)
    device = Unicode("", help="Label of the device; empty: the browser's choice. See `devices`.").tag(sync=True)
    echo_cancellation = Bool(True, help="Take the loudspeaker's sound out.").tag(sync=True)
    noise_suppression = Bool(True, help="Take steady noise out.").tag(sync=True)
    auto_gain_control = Bool(True, help="Keep the level even.").tag(sync=True)
    keep_on_when_hidden = Bool(False, help="Go on listening while the tab is hidden.").tag(sync=True)
    stream = Instance(ipywidgets.Widget, allow_none=True, help="An ipywebrtc stream to hear instead.").tag(
        sync=True, **ipywidgets.widget_serialization
    )
    stand_in = Unicode("", help="What is played in place of a microphone.").tag(sync=True)
    worklet = Unicode(Path(__file__).with_name("microphone_worklet.js").read_text(encoding="utf-8")).tag(sync=True)
    state = Unicode("no page", help="no page, off, starting, on.")
    problem = Unicode("", help="Why it is off, in words.")
    hint = Unicode("", help='"clipping", "too quiet", or nothing.')
    devices: List[str] = List(help="Labels of the devices there are, once the browser allows to name them.")
    device_rate_hz = Int(0, help="Rate at which the device is read; frames have 24 kHz.")

    def __init__(self, session: Any = None, *, source: Any = None, rate_hz: int = RATE_HZ, **traits: Any) -> None:
        self._feed = Feed(self._note)
        self.speech_end = self._feed.speech_end
        """When it was last loud: where speech ended, for the latency of a turn."""
        self._run = ""
        """Which capture counts: the one that began last."""
        self._wanted = False
        self._awaited, self._keep_on = 0, False
        self._ending: asyncio.Future[None] | None = None
        self._playing: Future[None] | None = None
        self._sending: Future[None] | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._trouble: set[asyncio.Future[None]] = set()
        self._upload = bytearray()
        self._audio: Audio | None = None
        if not isinstance(session, Session | EventLog | None) and hasattr(session, "session"):
            session = session.session  # a playground: waits until its session is open
        stream, self._audio, name = sources.opened(source, rate_hz)
        super().__init__(session, **{"stream": stream, "stand_in": name, **traits})
        self.observe(lambda change: self._stream.publish("knobs", {change["name"]: change["new"]}), KNOBS)

    # --- for who types ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen: at once, or as soon as a page shows the widget. Returns at once; `state` tells."""
        self._wanted = True
        shared_loop().call_soon(self._start)

    def stop(self) -> None:
        """Stop listening; returns at once."""
        self._wanted = False
        shared_loop().call_soon(self._stop)

    @property
    def counts(self) -> dict[str, int]:
        """What became of the frames of 20 ms: `rtnb.widgets.microphone_feed.Counts`."""
        return self._feed.told()

    async def record(
        self, seconds: float, *, path: str | os.PathLike[str] | None = None, timeout_s: float = 20.0
    ) -> Audio:
        """Record a clip; shows the widget, starts and stops it where that is still to do.

        Parameters
        ----------
        seconds : float
            How long.
        path : path-like, optional
            Also write it there, as a WAV file.
        timeout_s : float, default 20
            How long to wait for the first frame: the browser may ask a person for permission (chosen).

        Returns
        -------
        audio : ndarray, float32, shape (n_samples,)
            At 24 kHz; late frames are in it, too.

        Raises
        ------
        WidgetError
            No page, no permission, no device, an insecure page, a hidden tab, an unplugged device, or a kernel that
            cannot hear the page while a cell waits.
        """
        if not 0 < seconds < 3600:
            raise ValueError(f"seconds is {seconds!r}: a clip lasts more than 0 s and less than an hour")
        audio = await self._from_a_cell(self._record(ms_to_samples(1000 * seconds, rate_hz=RATE_HZ), timeout_s))
        if path is not None:
            write_wav(path, audio, rate_hz=RATE_HZ)
        return audio

    async def turn(self, *, timeout_s: float = 60.0) -> Response:
        """Listen until somebody has spoken and the service has answered; return the whole answer.

        Parameters
        ----------
        timeout_s : float, default 60
            How long to wait for the answer to begin.

        Raises
        ------
        WidgetError
            As `record`; or there is no session, or nobody spoke.
        """
        if not isinstance(self.session, Session):
            raise WidgetError("there is nobody to answer").with_hint("Give a session: Microphone(session).")
        return await self._from_a_cell(self._turn(self.session, timeout_s))

    def close(self) -> None:
        """Stop listening and leave the page; closing twice is fine."""
        if self._opened and shared_loop().running:
            shared_loop().call_soon(self._closed)
        super().close()

    # --- waiting, on the background loop ------------------------------------------------------------------------------

    async def _from_a_cell(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something of the background loop; the loop here turns, so what the page sends should come."""
        stands_in = self._audio is not None
        return await sources.from_a_cell(
            work,
            show=None if stands_in else self.be_shown,
            news=lambda: (self._feed.arrived, self.channel.last_message_s),
            by_message=lambda: not stands_in and self.channel.status.kind in ("messages", "none"),
        )

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        """Listen; off again where nobody else awaits it and nobody had switched it on."""
        if self._ending is not None:  # it was stopped just now: those last frames are nobody's
            await asyncio.wait({self._ending}, timeout=sources.STALL_S)
        if not self._awaited:
            self._keep_on = self._wanted or self.state in ("on", "starting")
        self._awaited += 1
        if self.state not in ("on", "starting"):
            self._wanted = True  # a page may join later
            self._start()
        try:
            yield
        finally:
            self._awaited -= 1
            if not (self._awaited or self._keep_on):
                self._stop()

    async def _record(self, n_samples: int, timeout_s: float) -> Audio:
        clip = Clip(n_samples)
        async with self._listening():
            self._feed.clips.add(clip)
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(clip.begun)
                return await clip.done
            except TimeoutError:
                raise self._nobody(timeout_s) from None
            finally:
                self._feed.clips.discard(clip)

    async def _turn(self, session: Session, timeout_s: float) -> Response:
        async def whole() -> Response:
            return await (await session.next_response())

        trouble = asyncio.get_running_loop().create_future()
        self._trouble.add(trouble)
        answer = asyncio.ensure_future(whole())
        try:
            async with self._listening():
                await asyncio.wait({trouble, answer}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if trouble.done():
                    trouble.result()
                if not answer.done():
                    raise self._nobody(timeout_s)
                return answer.result()
        finally:
            self._trouble.discard(trouble)
            for future in (trouble, answer):
                future.cancel()

    def _nobody(self, timeout_s: float) -> RtnbError:
        state = "off" if self.state == "no page" and self._audio is not None else self.state
        return sources.nobody(state, heard=bool(self._feed.arrived), timeout_s=timeout_s)

    def _fail(self, error: Exception) -> None:
        self._feed.fail(error)
        for future in (one for one in self._trouble if not one.done()):
            future.set_exception(error)

    def _note(self, problem: str) -> None:
        """The session did not take something: the microphone goes on, and says so."""
        self.problem = problem
        self._show(text=problem)

    # --- starting and stopping ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._audio is None:
            self._stream.publish("start", {})
        elif self._playing is None:
            self._run = "stand-in"
            self._feed.begin()
            self.state, self.problem = "on", ""
            self._playing = shared_loop().submit(sources.speak(self._audio, self._stood_in))
            self._playing.add_done_callback(_raise_in_loop)
            self._show(text=f"{self.stand_in} is played as if spoken")
            self._tell()

    def _stop(self) -> None:
        self._wanted = False
        self._stream.publish("stop", {})
        if self._playing is not None:
            self._playing.cancel()
            self._playing = None
            self._off("", "")
        elif self._run and self._ending is None:  # until the page says that it is off
            self._ending = asyncio.get_running_loop().create_future()

    def _stood_in(self, index: int, pcm: bytes) -> None:
        if self.muted:
            pcm = bytes(len(pcm))
        self._feed.sound(first=index, frames=1, stamp_ms=time.time() * 1000, pcm=pcm)
        if index % 5 == 0 and self._stream.pages:
            self._stream.publish("level", sources.level(pcm))

    def _off(self, text: str, hint: str) -> None:
        """It does not listen any more, for a reason or at will."""
        self.state, self.problem, self.hint, self._run = "off", text, "", ""
        self._show()
        self._fail(WidgetError(text or "the microphone was stopped").with_hint(hint))
        self._ended()

    def _ended(self) -> None:
        if self._ending is not None:
            self._ending.set_result(None)
            self._ending = None

    def _show(self, text: str = "") -> None:
        """Tell the pages that do not capture how it stands."""
        on = self.state == "on"
        self._stream.publish("shown", {"run": self._run, "state": "on" if on else "off", "text": text, "hint": ""})

    def _tell(self) -> None:
        """Show the counts now, and while it listens twice a second."""
        if self._opened and self._stream.pages:
            self._stream.publish("counts", self.counts)
        if self._telling is not None:
            self._telling.cancel()
        self._telling = asyncio.get_running_loop().call_later(0.5, self._tell) if self.state == "on" else None

    # --- what the session and the page say; all on the background loop ------------------------------------------------

    def _on_session(self, source: Session | EventLog) -> None:
        assert isinstance(source, Session)  # see _accepts
        if (other := _listeners.get(source)) is not None and other is not self:
            other.stop()
            other.session = None
        _listeners[source] = self
        self._sending = shared_loop().submit(self._feed.send_to(source))
        self._sending.add_done_callback(_raise_in_loop)

    def _unfollow(self) -> None:
        super()._unfollow()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _on_end(self) -> None:
        self._fail(WidgetError("the session is over, and with it the microphone is off"))
        self._stop()

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            if self.state == "no page":
                self.state = "off"
            self._show(text=f"{self.stand_in} is played as if spoken" if self._playing else "")
            self._tell()
            if self._wanted and self.state == "off":
                self._start()
        elif self._run.startswith(f"{page_id}-"):
            self._wanted = False
            self._off("The page that listened is gone.", "Show the widget again.")
        if not self._stream.pages and self._playing is None:
            self.state = "no page"

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Any:
        if kind == "sound" and header["run"] == self._run:
            self.hint = header["hint"]
            facts = {"first": header["first"], "frames": header["frames"], "stamp_ms": header["t"]}
            self._feed.sound(**facts, pcm=buffers[0], talk=header["talk"])
        elif kind == "talk" and header["run"] == self._run:
            self._feed.talk(header["on"])
        elif kind == "state":
            self._changed(header)
        elif kind == "want":
            (self._start if header["on"] else self._stop)()
        elif kind == "set":
            for name in KNOBS:
                if name in header:
                    setattr(self, name, header[name])
        elif kind == "file":
            self._file(header, buffers[0])
        elif kind == "popout":
            return self._popout()
        return None

    def _changed(self, header: dict[str, Any]) -> None:
        state, run = header["state"], header["run"]
        self.devices = header["devices"] or self.devices
        if state == "starting":
            self._run, self._wanted, self.state, self.problem = run, False, "starting", ""
            self._feed.begin()
            self._ended()
        elif run == self._run and state == "on":
            self.state, self.device_rate_hz = "on", header["rate_hz"]
            self._show(text="Listening on another page")
            self._tell()
        elif state == "off" and run == self._run:
            self._off(header["text"], header["hint"])
            self._tell()

    def _file(self, header: dict[str, Any], piece: bytes) -> None:
        """A file to say, where there is no microphone: PCM16 at 24 kHz in pieces."""
        if header["first"]:
            self._upload.clear()
        self._upload += piece
        if not header["more"]:
            self._stop()
            self._audio = decode_pcm16(bytes(self._upload))
            self.stand_in = sources.called(str(header["name"]), self._audio)
            self._start()

    async def _popout(self) -> dict[str, str]:
        return {"url": await self.channel.invite(lambda *facts: page(self, *facts))}

    def _closed(self) -> None:
        self._stop()
        self._fail(WidgetError("the microphone was closed"))
