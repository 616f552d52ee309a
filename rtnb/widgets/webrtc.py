"""Call over WebRTC between the page and a service: `WebRTCPeer`.

The page holds the microphone, the loudspeaker and the peer connection. The kernel gets an ephemeral key with the whole
configuration, hands it to the page once, and relays the events of the data channel: they are an ordinary session. The
key is in no trait and in no log.

Messages of its stream; all but ``start`` and the page's ``stop`` carry the number of the call:

- page to kernel: ``start`` {page}, ``stop``, ``step`` {step}, ``key`` (reply {key, url}, or {} where the kernel is to
  post the offer), ``answered`` {url, status, headers, body} and ``offer`` {sdp} (both with the reply {sdp}), ``open``
  {largest_bytes}, ``event`` [text], ``played`` {id}, ``figures`` {…}, ``ended`` {why}, or with {problem, next_step} in
  the words of the page, ``released``;
- kernel to page: ``call`` {page}, ``event`` [text], ``play`` {id} [PCM16, 24 kHz], ``stop``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from traitlets import Bool, List, Unicode

from rtnb._loop import shared_loop
from rtnb.audio import Audio, encode_pcm16, resample
from rtnb.client import LogRow, Session, ToolBox, open_session
from rtnb.client.settings import ConnectOptions, SessionSettings, check_settings, wanted_settings
from rtnb.errors import ConnectError, ConnectionClosed, LocalProtocolError, RequestTimeout, RtnbError, WidgetError
from rtnb.protocol import wire
from rtnb.redaction import redact
from rtnb.targets import Shared, resolve
from rtnb.trace import findings, keep
from rtnb.transport.base import TargetFacts, Transport
from rtnb.transport.http import offer_facts, post_offer, read_answer
from rtnb.widgets._base import format_error
from rtnb.widgets._session_view import SessionView

if TYPE_CHECKING:
    import pandas as pd

PAGE_S: Final = 6.0
"""Time for a page to show the widget: it takes 1 to 3 s (measured)."""

START_S: Final = 60.0
"""Time for a call to open; a person may be reading the browser's question (chosen)."""

RELEASE_S: Final = 3.0
"""Time for the page to close microphone and connection; it takes some 10 ms (chosen)."""

PLAY_S: Final = 15.0
"""Time for the page to play audio, beyond its duration (chosen)."""

PLAY_HZ: Final = 24_000
"""Rate of the audio for the page's track."""

UNREAD_BYTES: Final = 8 * 2**20
"""Most text of the service that waits to be read; beyond it the call ends (chosen: an hour of talk is about 2 MiB)."""

FAILURES: Final = {
    "no-page": "No page shows this widget, and only a page can make a WebRTC call",
    "no-webrtc": "This browser or front end has no WebRTC",
    "unseen": "The last view of the call was removed: its output was cleared, or its tab was closed",
    "backlog": "Events came faster than page and kernel could pass them on",
    "no-path": "No network path was found (ICE failed)",
    "ice": "The network path to the service was lost (ICE failed)",
    "channel": "The service ended the call",
}
"""Reasons for the end of a call, beside those that the page words. They are `WidgetError`, unless listed."""

_ERRORS: Final = {"no-path": ConnectError} | dict.fromkeys(("backlog", "ice", "channel"), ConnectionClosed)

NEXT_STEPS: Final = {
    "no-page": "show it in JupyterLab (its name as a cell's last line), or use rtnb.connect (WebSocket).",
    "no-webrtc": "use another browser, or rtnb.connect (WebSocket).",
    "no-path": "a firewall may block UDP: use rtnb.connect (WebSocket) there.",
}
"""Next steps; for all other reasons it is that of the page, or to start the call again."""

CORS: Final = "This page may not post to the service (CORS, or no network path): the kernel posted the offer."
IN_THE_KEY: Final = "Azure is known to ignore changes of turn detection over WebRTC: pass them to WebRTCPeer(…)."
"""Seen in calls at Azure: session.updated arrives with the old turn detection. Settings in the key take effect."""
RECENT: Final = 500
"""Newest events in which ignored settings are looked for, so that a long call does not cost more (chosen)."""
SIDEBAND: Final = "Events go over the kernel's WebSocket. The kernel posted the offer: the reply names the call."

_OPTIONS: Final = ConnectOptions.__optional_keys__ - SessionSettings.__optional_keys__ - {"config", "intent"}


def failure(why: str, problem: str = "", next_step: str = "") -> RtnbError:
    """Return the error for a reason: one of `FAILURES`, or a problem and its next step in the words of the page."""
    step = NEXT_STEPS.get(why) or next_step or "start the call again."
    return _ERRORS.get(why, WidgetError)(FAILURES.get(why, problem)).with_hint(f"Next: {step}")


class WebRTCPeer(SessionView):
    """Talk to a service from the page, by WebRTC.

    Parameters
    ----------
    target : str, Azure, OpenAI, Custom, Simulator, default "sim"
        Taken as by `rtnb.connect`.
    microphone : bool, default True
        False opens no microphone: audio comes from `say`, which a notice states.
    muted : bool, default False
        The microphone is open, but only silence leaves the page.
    sideband : bool, default False
        Events and settings go over a WebSocket of the kernel (by ``call_id``) instead of the page's data channel.
    webrtc_filter : bool, default False
        Azure GA: the page gets few events (no errors, no usage); implies `sideband`.
    dialect : {"ga", "preview"}, optional
        Only where `target` is a text.
    **settings
        First settings of the session, as for `rtnb.connect`: `instructions`, `voice`, `turn_detection`, `tools` …
        All of it goes into the key: over WebRTC a model may speak before the first `session.update` arrives.

    Examples
    --------
    >>> peer = WebRTCPeer("sim", microphone=False)        # doctest: +SKIP
    >>> session = await peer.start()                      # doctest: +SKIP
    >>> response = await session.ask("What is a delta?")  # doctest: +SKIP
    """

    _accepts = (Session,)

    state = Unicode("idle", help="idle, starting, open, closed or failed.").tag(sync=True)
    message = Unicode("", help="Last failure and the next step.").tag(sync=True)
    notices: List[str] = List(help="Facts about this call that a user should know, at most 20.").tag(sync=True)
    label = Unicode("realtime-channel", help="Name of the data channel.").tag(sync=True)
    microphone = Bool(True, help="Whether the microphone is opened.").tag(sync=True)
    muted = Bool(False, help="Whether only silence leaves the page.").tag(sync=True)

    def __init__(
        self,
        target: Any = "sim",
        *,
        microphone: bool = True,
        muted: bool = False,
        sideband: bool = False,
        webrtc_filter: bool = False,
        dialect: Any = None,
        **settings: Any,
    ) -> None:
        self._target: Any = resolve(target, dialect=dialect, options=settings)
        if webrtc_filter and self._target.dialect == "preview":
            raise ConnectError("webrtc_filter is of the GA dialect").with_hint("Leave it out, or use dialect='ga'.")
        if settings.pop("reconnect", False):
            raise ConnectError("reconnect=True is for sessions over WebSocket: start an ended call again")
        self._options = {name: settings.pop(name) for name in list(settings) if name in _OPTIONS}
        tools = tuple(self._options.get("tools", ()))
        functions = ToolBox(one for one in tools if callable(one)).schemas
        schemas = {"tools": (*functions, *(one for one in tools if not callable(one)))} if tools else {}
        self._config = wanted_settings(None, {**settings, **schemas})
        check_settings(self._config, dialect=self._target.dialect)
        self._filter, self._sideband = webrtc_filter, sideband or webrtc_filter
        self._call: Call | None = None
        self._calls = 0
        self._opening: Future[Session] | None = None
        self._opener: asyncio.Task[Any] | None = None
        self._joined = asyncio.Event()
        self._figures: deque[dict[str, Any]] = deque(maxlen=3600)
        super().__init__(microphone=microphone, muted=muted)
        # The name of the data channel is in OpenAI's documents and in Microsoft's; other services take the latter.
        self.label = "oai-events" if self._target.facts.service == "openai" else "realtime-channel"

    # --- public methods; on any loop ----------------------------------------------------------------------------------

    async def start(self) -> Session:
        """Start a call and return its session once it is open; an open call returns its own.

        Raises
        ------
        WidgetError
            No page shows the widget, or the browser refuses: permission, device, insecure page.
        ConnectError
            The service refuses, or no network path leads to it; the message names the reason and the next step.
        """
        return await asyncio.shield(asyncio.wrap_future(self._start("")))

    async def stop(self) -> None:
        """End the call: the page closes microphone and connection. Stopping twice is fine."""
        await asyncio.wrap_future(shared_loop().submit(self._end()))

    @property
    def call_id(self) -> str | None:
        """Name that the service gave the call (``rtc_…``); None where it is not known."""
        return self._call.call_id if self._call is not None else None

    @property
    def statistics(self) -> pd.DataFrame:
        """Measurements of the browser, one row per second of the last call (at most an hour).

        Returns
        -------
        pandas.DataFrame
            round_trip_ms, jitter_ms, buffer_ms (time that sound spends in the jitter buffer), received, lost, sent
            (packets), lost_there (at the service), concealed_ms (sound the browser made up), bytes_received,
            bytes_sent, path (candidate types), level_here, level_there (0 to 1); indexed by time_s since the call
            began.
        """
        import pandas as pd

        return pd.DataFrame(list(self._figures)).set_index("time_s") if self._figures else pd.DataFrame()

    def close(self) -> None:
        """End the call and leave the page; closing twice is fine."""
        if self._opened and self.comm is not None and shared_loop().running and not shared_loop().inside:
            shared_loop().run(self._end(), START_S)
        super().close()

    # --- opening and ending; on the background loop -------------------------------------------------------------------

    def _start(self, page_id: str) -> Future[Session]:
        opening, session = self._opening, self.session
        is_open = isinstance(session, Session) and not session.closed
        if opening is None or (opening.done() and not is_open):
            opening = self._opening = shared_loop().submit(self._open(page_id))
        return opening

    async def _open(self, page_id: str) -> Session:
        before, self._opener = self._opener, asyncio.current_task()
        if before is not None and not before.done():  # a stopped call still releases its target
            await asyncio.wait([before])
        self.message, self.notices, self.state = "", [], "starting"
        try:
            session = await self._open_call(page_id or await self._choose_page())
        except asyncio.CancelledError:  # by stop(): a caller of start() waits behind a shield
            self.state = "closed"
            raise ConnectError("the call was stopped before it was open") from None
        except Exception as error:
            self.message = format_error(error)
            self.state = "failed"
            raise
        self.state = "open"
        return session

    async def _choose_page(self) -> str:
        """Return the active page if it shows the widget, else the newest that does."""
        self._joined.clear()
        if not self._stream.joined:
            try:
                await asyncio.wait_for(self._joined.wait(), PAGE_S)
            except TimeoutError:
                raise failure("no-page") from None
        active = str(self.channel.active_page)
        return active if active in self._stream.joined else next(reversed(self._stream.joined))

    async def _open_call(self, page_id: str) -> Session:
        self._calls += 1
        self._figures.clear()
        target = self._target  # another one may be set while the call is open
        async with AsyncExitStack() as on_failure:
            if isinstance(target, Shared):
                await target.acquire()
                on_failure.push_async_callback(target.release)
            call = self._call = Call(self._calls, page_id, self._stream.publish, target.facts)
            on_failure.push_async_callback(call.close)
            await self._connect(call)
            options: dict[str, Any] = dict(self._options)
            recording = options.pop("trace", None), options.pop("trace_max_bytes", None)
            opened = await open_session(call, config=self._config, **options)  # type: ignore[arg-type]
            session = await keep(opened, *recording)
            on_failure.pop_all()
        if isinstance(target, Shared):
            session.on_close(target.release)
        self.session = session
        return session

    async def _connect(self, call: Call) -> None:
        if not self.microphone:
            self._notice("No microphone is in use: audio comes from say().")
        self._stream.publish("call", {"call": call.number, "page": call.page_id})
        await asyncio.wait([call.opened], timeout=START_S)
        if not call.opened.done():
            raise WidgetError(f"no call within {START_S:g} s; it was waiting for {call.step}")
        await call.opened
        if self._sideband:
            if call.call_id is None:
                raise ConnectError("the service did not name the call, so there is no sideband (GA only)")
            call.sideband = await self._target.open(call_id=call.call_id)

    async def _end(self) -> None:
        opener = self._opener
        if opener is not None and not opener.done():
            opener.cancel()
            await asyncio.wait([opener])
        session, call = self.session, self._call
        if isinstance(session, Session) and not session.closed:
            await session.close()
            self._on_end()  # the caller of stop() sees the state
        elif call is not None:
            await call.close()

    # --- messages of the page -----------------------------------------------------------------------------------------

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Any:
        call = self._call
        if kind == "start":
            self._start(str(header["page"]))
        elif kind == "stop":
            return self._end()
        elif call is None or header.get("call") != call.number:
            return None
        elif kind in ("key", "answered", "offer"):
            return self._on_request(call, kind, header)
        elif kind == "figures":
            self._figures.append(header["figures"])
        else:
            call.on_message(kind, header, buffers)
        return None

    async def _on_request(self, call: Call, kind: str, header: dict[str, Any]) -> dict[str, Any]:
        """Return the reply. A failure ends the call with its reason; the page learns only that it failed."""
        target, facts = self._target, self._target.facts
        service = getattr(target, "target", target)  # knows the addresses; a running simulator is reached like Azure
        try:
            if kind == "answered":
                facts, body = offer_facts(facts, str(header["url"])), str(header["body"])
                answer = read_answer(int(header["status"]), headers=header["headers"], body=body, facts=facts)
            elif kind == "key" and self._sideband:
                return {}  # the page leaves the offer to the kernel
            else:
                key = await target.ephemeral_key(session=wire.encode_session(self._config, dialect=target.dialect))
                url = service.calls_url(webrtc_filter=self._filter, seen_region=key.region)
                if kind == "key":
                    return {"key": key.reveal(), "url": url}
                self._notice(SIDEBAND if self._sideband else CORS)
                answer = await post_offer(url, key=key, sdp=str(header["sdp"]), facts=facts, ssl=service.ssl)
        except (RtnbError, OSError) as error:
            call.end(error if isinstance(error, RtnbError) else ConnectError(str(error)))
            return {"failed": True}
        call.call_id = answer.call_id
        return {"sdp": answer.sdp}

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self._joined.set()
        elif self._call is not None and self._call.page_id == page_id:
            self._call.on_message("released", {}, ())
            self._call.end(failure("unseen"))

    # --- events of the session ----------------------------------------------------------------------------------------

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        if any(row.type == "session.updated" for row in rows):
            for one in findings(self.feed.log[-RECENT:]):
                if one.rule == "update-ignored":
                    step = IN_THE_KEY if "turn_detection" in one.text else one.next_step
                    self._notice(redact(f"{one.text} {step}"))

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices = [*self.notices, text][-20:]

    def _on_end(self) -> None:
        if self._opening is not None and not self._opening.done():
            return  # the next call has begun
        self.state, self.message = "closed", self._format_end() or self.message
        if self._call is not None:  # where the kernel's side ended, the page's microphone must not stay open
            self._closing = asyncio.get_running_loop().create_task(self._call.close())


# --- the call ---------------------------------------------------------------------------------------------------------


class Call:
    """WebRTC call of a page, as the transport of a session; lives on the background loop.

    Parameters
    ----------
    number : int
        Name of the call between page and kernel.
    page_id : str
        Page of the call.
    post : callable
        ``post(kind, header, buffers)`` sends a message to the page.
    facts : TargetFacts
        Facts about the service. For `open_session` the call is also the target, which is open already.
    """

    webrtc = True
    """The service plays the audio: see `rtnb.client.playback.ServicePlayback`."""

    def __init__(
        self, number: int, page_id: str, post: Callable[[str, dict[str, Any], Sequence[bytes]], Any], facts: TargetFacts
    ) -> None:
        self.number, self.page_id, self._post = number, page_id, post
        self.facts, self.dialect, self.model = facts, facts.dialect, facts.model
        self.step = "the page to reply"
        """Next event that the page waits for."""
        self.call_id: str | None = None
        """Name that the service gave the call (``rtc_…``), where it is known."""
        self.largest_bytes = 0
        """Longest text of the data channel, from the browser; 0 where it names none."""
        self.sideband: Transport | None = None
        """WebSocket with the events of the call, in place of the data channel; each ends with the other."""
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        """Done once the data channel is open; raises the reason where it does not open."""
        self.over: asyncio.Future[ConnectionClosed] = loop.create_future()
        """Reason of the end, once it has ended."""
        self._released: asyncio.Future[None] = loop.create_future()
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._unread_bytes = 0
        self._plays = 0
        self._playing: dict[int, asyncio.Future[None]] = {}

    # --- transport ----------------------------------------------------------------------------------------------------

    async def open(self, **options: Any) -> Call:
        """Return itself, as the open transport."""
        return self

    async def send(self, text: str) -> None:
        """Send one text. Raises `ConnectionClosed`, or `LocalProtocolError` for a text too long for the channel."""
        if self.over.done():
            raise self.over.result().again()
        data = text.encode()
        if self.sideband is not None:
            await self.sideband.send(text)
        elif 0 < self.largest_bytes < len(data):
            error = LocalProtocolError(f"an event of {len(data)} bytes; this data channel takes {self.largest_bytes}")
            raise error.with_hint("Shorten the instructions or tools; audio goes over the track, not as events.")
        else:
            self._post("event", {"call": self.number}, [data])

    async def receive(self) -> str:
        """Wait for the next text; raises `ConnectionClosed` after the last."""
        if self.sideband is not None:
            return await self.sideband.receive()
        text = await self._texts.get()
        if text is None:
            self._texts.put_nowait(None)
            raise self.over.result().again()
        self._unread_bytes -= len(text)
        return text

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        """Have the page close microphone and connection; closing twice is fine."""
        self.end(ConnectionClosed("this side ended the call", code=code, reason=reason))
        if not self._released.done():
            self._post("stop", {"call": self.number}, ())
            await asyncio.wait([self._released], timeout=RELEASE_S)
        if self.sideband is not None:
            await self.sideband.close()

    async def speak(self, audio: Audio, rate_hz: int) -> None:
        """Play audio on the page's track in place of the microphone; returns once it was played.

        Raises
        ------
        RequestTimeout
            The page did not play it; a browser may wait for a click before it lets sound through.
        """
        if self.over.done():
            raise self.over.result().again()
        audio = resample(audio, from_rate_hz=rate_hz, to_rate_hz=PLAY_HZ)
        self._plays += 1
        number, timeout_s = self._plays, len(audio) / PLAY_HZ + PLAY_S
        played = self._playing[number] = asyncio.get_running_loop().create_future()
        self._post("play", {"call": self.number, "id": number}, [encode_pcm16(audio)])
        try:
            async with asyncio.timeout(timeout_s):
                await played
        except TimeoutError:
            error = RequestTimeout("play", awaited="played from the page", timeout_s=timeout_s)
            raise error.with_hint("Next: press Enable sound, or click anywhere in the page.") from None
        finally:
            del self._playing[number]

    # --- messages of the page -----------------------------------------------------------------------------------------

    def on_message(self, kind: str, header: dict[str, Any], buffers: Sequence[bytes]) -> None:
        """Take a message about this call."""
        if kind == "event" and self.sideband is None:
            text = b"".join(buffers).decode()
            self._unread_bytes += len(text)
            if self._unread_bytes > UNREAD_BYTES:
                self.end(failure("backlog"))
            else:
                self._texts.put_nowait(text)
        elif kind == "step":
            self.step = str(header["step"])
        elif kind == "open" and not self.opened.done():
            self.largest_bytes = int(header["largest_bytes"])
            self.opened.set_result(None)
        elif kind == "played" and (played := self._playing.get(header["id"])) and not played.done():
            played.set_result(None)
        elif kind == "ended":
            self.end(failure(header["why"], header.get("problem", ""), header.get("next_step", "")))
        elif kind == "released" and not self._released.done():
            self._released.set_result(None)

    def end(self, error: RtnbError) -> None:
        """End the call with a reason, which all pending calls raise; only the first reason counts."""
        if self.over.done():
            return
        notes = "\n".join(getattr(error, "__notes__", []))
        closed = error if isinstance(error, ConnectionClosed) else None
        self.over.set_result(closed or ConnectionClosed(str(error), code=1006).with_hint(notes))
        self._texts.put_nowait(None)
        if self.sideband is not None:
            self._closing = asyncio.get_running_loop().create_task(self.sideband.close())
        for pending in (self.opened, *self._playing.values()):
            if not pending.done():
                pending.set_exception(error.again())
                pending.exception()  # marks it as retrieved: nothing may be awaiting it
