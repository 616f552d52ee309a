"""`WebRTCPeer`: talk to a service from the page by WebRTC; its events are an ordinary session here.

The page holds the microphone, the loudspeaker and the peer connection; the kernel asks for the ephemeral key (with the
whole configuration), hands it to the page once, and relays the data channel. The key is in no trait and in no log.

Traits (kernel to page): `state`, `message`, `notices`, `label`, `microphone`, `through_kernel`; both ways: `muted`. On
its channel, page to kernel: ``start`` {page}, ``stop``, and for a call ``step`` {step}, ``key`` (answered {key, url}),
``answered`` {status, headers, body} and ``offer`` {sdp, why} (both answered {sdp}), ``open`` {largest_bytes}, ``event``
[text], ``said`` {id}, ``stats`` {…}, ``ended`` {why, detail}, ``released``. Kernel to page: ``call`` {page}, ``event``
[text], ``speak`` {id} [PCM16, 24 kHz], ``stop``. All carry the number of the ``call``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from traitlets import Bool, List, Unicode

from rtnb._loop import shared_loop
from rtnb.client import Response, Session, ToolBox, open_session
from rtnb.client.log import LogRow
from rtnb.client.settings import ConnectOptions, SessionSettings, check_settings, wanted_settings
from rtnb.errors import ConnectError, RtnbError, WidgetError
from rtnb.protocol import events, wire
from rtnb.protocol.values import SessionConfig
from rtnb.redaction import mask_credentials
from rtnb.targets import Shared, resolve
from rtnb.transport import EphemeralKey
from rtnb.transport.http import offer_facts, post_offer, read_answer
from rtnb.widgets._base import bundle, format_error, styles
from rtnb.widgets._data_channel import Called, DataChannel, Sideband
from rtnb.widgets._session_view import SessionView
from rtnb.widgets._steering import flat, found, same
from rtnb.widgets._webrtc_words import IGNORED, explained

if TYPE_CHECKING:
    import pandas as pd

PAGE_S: Final = 6.0
"""How long `start` waits for a page that shows the widget: it takes 1 to 3 s to appear (chosen)."""

START_S: Final = 60.0
"""How long a call may take to stand; a person may be thinking about the permission (chosen)."""

LABELS: Final = {"openai": "oai-events"}
"""What a service calls its data channel; everybody else's is ``realtime-channel``, as Microsoft documents it."""

_OPTIONS: Final = ConnectOptions.__optional_keys__ - SessionSettings.__optional_keys__ - {"config", "intent"}


class WebRTCPeer(SessionView):
    """Talk to a service from the page, by WebRTC.

    Parameters
    ----------
    target : str, Azure, OpenAI, Custom, Simulator, default "sim"
        As `rtnb.connect` takes it.
    microphone : bool, default True
        False asks for no microphone: what is said goes through `say`, and the widget says so.
    muted : bool, default False
        The microphone is open, but only silence leaves the page.
    sideband : bool, default False
        Events and settings go over a WebSocket of the kernel (by ``call_id``) instead of the page's data channel.
    webrtc_filter : bool, default False
        Azure GA: the page gets few events (no errors, no usage); implies `sideband`.
    dialect : {"ga", "preview"}, optional
        Only where `target` is a text.
    **settings
        What the session starts with, as `rtnb.connect` takes it: `instructions`, `voice`, `turn_detection`, `tools` …
        All of it goes into the key: over WebRTC a model may speak before the first `session.update` arrives.

    Examples
    --------
    >>> peer = WebRTCPeer("sim", microphone=False)        # doctest: +SKIP
    >>> await peer.start()                                # doctest: +SKIP
    """

    _esm = bundle("webrtc.js")
    _css = styles("webrtc.css")
    _accepts = (Session,)

    state = Unicode("idle", help="idle, starting, open, closed or failed.").tag(sync=True)
    message = Unicode("", help="What went wrong last, in words, and what to do.").tag(sync=True)
    notices: List[str] = List(help="What is good to know about this call.").tag(sync=True)
    label = Unicode("realtime-channel", help="Name of the data channel.").tag(sync=True)
    microphone = Bool(True, help="Whether the microphone is asked for.").tag(sync=True)
    through_kernel = Bool(False, help="Whether the kernel posts the offer.").tag(sync=True)
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
            raise ConnectError("reconnect=True is for sessions over WebSocket; a call over WebRTC ends").with_hint(
                "Leave it out, and start the call again."
            )
        self._options = {name: settings.pop(name) for name in list(settings) if name in _OPTIONS}
        tools = tuple(self._options.get("tools", ()))
        functions = ToolBox(one for one in tools if callable(one)).schemas
        schemas = {"tools": (*functions, *(one for one in tools if not callable(one)))} if tools else {}
        self._config = wanted_settings(None, {**settings, **schemas})
        check_settings(self._config, dialect=self._target.dialect)
        self._filter, self._sideband = webrtc_filter, sideband or webrtc_filter
        self._call: DataChannel | None = None
        self._calls = 0
        self._opening: Future[Session] | None = None
        self._opener: asyncio.Task[Any] | None = None
        self._came = asyncio.Event()
        self._asked: deque[tuple[str, SessionConfig]] = deque()
        self._figures: deque[dict[str, Any]] = deque(maxlen=3600)
        super().__init__(microphone=microphone, muted=muted)
        self.label = LABELS.get(self._target.facts.service, "realtime-channel")
        self.through_kernel = self._sideband

    # --- for whoever writes code; on any loop -------------------------------------------------------------------------

    async def start(self) -> Session:
        """Begin a call, and return its session once it is open; where one is open already, return that.

        Raises
        ------
        WidgetError
            No page shows the widget, or the browser refuses: permission, device, insecure page.
        ConnectError
            The service refuses, or there is no way to it; the message says which, and what to do.
        """
        opening = self._starting("")
        try:
            return await asyncio.shield(asyncio.wrap_future(opening))
        except asyncio.CancelledError:
            if opening.cancelled():  # by stop(), not by who waits here
                raise ConnectError("the call was stopped before it stood") from None
            raise

    async def stop(self) -> None:
        """End the call: the page lets go of microphone and connection. Stopping twice is fine."""
        await asyncio.wrap_future(shared_loop().submit(self._end()))

    async def ask(self, text: str) -> Response:
        """Send a text message and return the finished answer, which the page plays."""
        return await self._open_session().ask(text)

    async def say(self, audio: Any, **options: Any) -> Response:
        """Send speech over the page's track and return the finished answer; takes what `Session.say` takes."""
        response: Response = await self._open_session().say(audio, **options)
        return response

    async def interrupt(self) -> dict[str, int]:
        """Stop the answer; item_id -> heard ms of what was cut."""
        return await self._open_session().interrupt()

    async def update(self, **settings: Any) -> SessionConfig:
        """Change settings of the session, as `Session.update` does; `notices` says what the service ignored."""
        return await self._open_session().update(**settings)

    def _open_session(self) -> Session:
        session = self.session
        if not isinstance(session, Session) or session.closed:
            raise ConnectError("there is no call").with_hint("await peer.start(), or press Start.")
        return session

    @property
    def call_id(self) -> str | None:
        """The service's name of the call (``rtc_…``); None where it is not known."""
        return self._call.call_id if self._call is not None else None

    @property
    def statistics(self) -> pd.DataFrame:
        """What the browser measured, one row per second of the last call (an hour of them at most).

        Returns
        -------
        pandas.DataFrame
            round_trip_ms, jitter_ms, buffer_ms (how long sound waits in the jitter buffer), received, lost, sent
            (packets), lost_there (at the service), concealed_ms (sound the browser made up), bytes_received,
            bytes_sent, path (candidate types); indexed by time_s since the call began.
        """
        import pandas as pd

        return pd.DataFrame(list(self._figures)).set_index("time_s") if self._figures else pd.DataFrame()

    def close(self) -> None:
        """End the call and leave the page; closing twice is fine."""
        if self._opened and self.comm is not None and shared_loop().running and not shared_loop().inside:
            shared_loop().run(self._end(), START_S)
        super().close()

    # --- on the background loop ---------------------------------------------------------------------------------------

    def _starting(self, page_id: str) -> Future[Session]:
        session = self.session
        running = self._opening is not None and not self._opening.done()
        if not running and not (self._opening is not None and isinstance(session, Session) and not session.closed):
            self._opening = shared_loop().submit(self._open(page_id))
        assert self._opening is not None
        return self._opening

    async def _open(self, page_id: str) -> Session:
        before, self._opener = self._opener, asyncio.current_task()
        if before is not None and not before.done():  # it was stopped, and still gives its target back
            await asyncio.wait([before])
        self.message, self.notices = "", []
        self.state = "starting"
        try:
            session = await self._open_call(page_id)
        except BaseException as error:
            self.message = format_error(error) if isinstance(error, RtnbError | OSError) else ""
            self.state = "failed" if self.message else "closed"
            raise
        self.state = "open"
        return session

    async def _open_call(self, page_id: str) -> Session:
        page_id = page_id or await self._page_to_use()
        self._calls += 1
        self._figures.clear()
        release = await self._acquired()
        call = self._call = DataChannel(self._calls, page_id, self._stream.publish)
        try:
            if not self.microphone:
                self._notice("No microphone is in use: what is said comes from say().")
            self._stream.publish("call", {"call": call.number, "page": page_id})
            try:
                async with asyncio.timeout(START_S):
                    await call.opened()
            except TimeoutError:
                raise WidgetError(f"no call within {START_S:g} s: it still waits for {call.step}") from None
            session = await open_session(
                Called(self._target, await self._transport(call)), config=self._config, **self._options
            )
        except BaseException:
            await call.close()
            await release()
            raise
        session.on_close(release)
        self.session = session
        return session

    async def _acquired(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """Start a target that runs only while it is used; return what gives it back."""
        target = self._target  # another one may be set while the call is open

        async def release() -> None:
            if isinstance(target, Shared):
                await target.release()

        if isinstance(target, Shared):
            await target.acquire()
        return release

    async def _transport(self, call: DataChannel) -> Any:
        if not self._sideband:
            return call
        call.read = False
        if call.call_id is None:
            raise ConnectError("the service did not name the call, so there is no sideband").with_hint(
                "Only the GA dialect has it; leave sideband and webrtc_filter out."
            )
        self._notice(f"Events go over the kernel's WebSocket by the call's id, {call.call_id}.")
        return Sideband(await self._target.open(call_id=call.call_id), call)

    async def _page_to_use(self) -> str:
        """The active page if it shows the widget, else the newest that does."""
        self._came.clear()
        if not self._stream.joined:
            try:
                await asyncio.wait_for(self._came.wait(), PAGE_S)
            except TimeoutError:
                raise explained("no-page") from None
        active = str(self.channel._hub.active)
        return active if active in self._stream.joined else next(reversed(self._stream.joined))

    async def _end(self) -> None:
        opening, opener = self._opening, self._opener
        if opening is not None and not opening.done():
            opening.cancel()
        session, call = self.session, self._call
        if isinstance(session, Session) and not session.closed:
            await session.close()
            self._on_end()  # whoever waits for the end sees it
        elif call is not None:
            await call.close()
        if opener is not None and not opener.done():  # a call that was stopped while it began gives its target back
            await asyncio.wait([opener])

    # --- what the page says -------------------------------------------------------------------------------------------

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Any:
        call = self._call
        if kind == "start":
            self._starting(str(header["page"]))
        elif kind == "stop":
            return self._end()
        elif call is None or header.get("call") != call.number:
            return None
        elif kind == "key":
            return self._answering(call, self._key())
        elif kind == "answered":
            return self._answering(call, self._answered(call, header))
        elif kind == "offer":
            return self._answering(call, self._offered(call, header))
        elif kind == "stats":
            self._figures.append(header["figures"])
        elif kind == "ended":
            call.ended(explained(str(header["why"]), str(header.get("detail", ""))))
        else:
            call.came(kind, header, buffers)
        return None

    async def _answering(self, call: DataChannel, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        """What fails here ends the call with its reason, and the page learns only that it failed."""
        try:
            return await work
        except (RtnbError, OSError) as error:
            call.ended(error if isinstance(error, RtnbError) else ConnectError(str(error)))
            return {"failed": True}

    async def _key(self) -> dict[str, Any]:
        key, url = await self._mint()
        return {"key": key.reveal(), "url": url}

    @property
    def _service(self) -> Any:
        """The target that knows the addresses; a running simulator is reached like Azure."""
        return getattr(self._target, "target", self._target)

    async def _mint(self) -> tuple[EphemeralKey, str]:
        """A key with everything this session is to be, and where its offer goes."""
        self._asked.clear()
        self._asked.append(("", self._config))
        session = wire.encode_session(self._config, dialect=self._target.dialect)
        key: EphemeralKey = await self._target.ephemeral_key(session=session)
        return key, self._service.calls_url(webrtc_filter=self._filter, seen_region=key.region)

    async def _answered(self, call: DataChannel, header: dict[str, Any]) -> dict[str, Any]:
        facts = offer_facts(self._target.facts, str(header["url"]))
        answer = read_answer(int(header["status"]), headers=header["headers"], body=str(header["body"]), facts=facts)
        call.call_id = answer.call_id
        return {"sdp": answer.sdp}

    async def _offered(self, call: DataChannel, header: dict[str, Any]) -> dict[str, Any]:
        self._notice(str(explained(str(header["why"]))))
        key, url = await self._mint()
        facts, trust = self._target.facts, self._service.ssl
        answer = await post_offer(url, key=key, sdp=str(header["sdp"]), facts=facts, ssl=trust)
        call.call_id = answer.call_id
        return {"sdp": answer.sdp}

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self._came.set()
        elif self._call is not None and self._call.page_id == page_id:
            self._call.page_left()

    # --- following the session ----------------------------------------------------------------------------------------

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        """Read back what took effect."""
        for row in rows:
            event = row.event
            if isinstance(event, events.SessionUpdate):
                self._asked.append((event.event_id or "", event.session))
            elif isinstance(event, events.Error):
                refused = event.error.event_id
                self._asked = deque(one for one in self._asked if not refused or one[0] != refused)
            elif isinstance(event, events.SessionCreated | events.SessionUpdated) and self._asked:
                self._compare(event, self._asked.popleft()[1])

    def _compare(self, event: events.SessionCreated | events.SessionUpdated, asked: SessionConfig) -> None:
        effective = flat(event.session)
        wishes = flat(event.session.changes_to(asked) or SessionConfig())
        masked = mask_credentials(wishes)  # as in the event
        names = ", ".join(name for name, wish in masked.items() if not same(wish, found(effective, name)))
        if not names:
            return
        if isinstance(event, events.SessionCreated):
            self._notice(f"The session did not begin with what the key asked for: {names}. It is asked for again.")
        else:
            self._notice(IGNORED.format(names=names))

    def _notice(self, words: str) -> None:
        self.notices = [*self.notices, words]

    def _on_end(self) -> None:
        session, call = self.session, self._call
        if self._opening is not None and not self._opening.done():
            return  # the next call has begun
        ended = session.ended if isinstance(session, Session) else None
        self.state = "closed"
        if ended is not None and ended.code not in (1000, 1005):
            self.message = format_error(ended)
        if call is not None and not call.over.done():  # the sideband broke: no page may go on listening
            self._hanging_up = asyncio.get_running_loop().create_task(call.close())
