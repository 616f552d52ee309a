"""`Playground`: one cell to connect, talk, listen, read, change settings and watch every event."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Collection
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from ipywidgets import Box, Dropdown, Layout, Tab, VBox
from traitlets import Enum, link

from rtnb._loop import shared_loop
from rtnb.analysis.latency import LatencyMeter
from rtnb.client import Response, Session
from rtnb.client.settings import ConnectOptions, SessionSettings, check_settings, wanted_settings
from rtnb.errors import ConnectError, RequestTimeout, RtnbError
from rtnb.protocol import wire
from rtnb.targets import connect, resolve
from rtnb.trace import Trace
from rtnb.tuning.updates import nested
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.connection import ConnectionControl
from rtnb.widgets.inspector import EventInspector
from rtnb.widgets.message_bar import MessageBar
from rtnb.widgets.microphone import Microphone
from rtnb.widgets.panel import SettingsPanel
from rtnb.widgets.settings import close_all
from rtnb.widgets.speaker import Speaker
from rtnb.widgets.transcript import Transcript
from rtnb.widgets.waveform import Waveform
from rtnb.widgets.webrtc import WebRTCPeer

if TYPE_CHECKING:
    import pandas as pd

OPENING_S: Final = 30.0
"""Deadline of `Playground.session` for a session that is being opened (chosen)."""

PARTS: Final = ("conversation", "time axis", "settings", "turn detection", "events", "code")
"""Parts that `show` can name; status bar and message bar are always there."""

TRANSPORTS: Final = {"websocket": "WebSocket", "webrtc": "WebRTC"}
"""Transports and their names on the page."""

TRANSCRIBER: Final = "whisper-1"
"""Transcription model with the simulator, the default of the knob *Input transcription*."""

_OPTIONS: Final = ConnectOptions.__optional_keys__ - SessionSettings.__optional_keys__

_NO_SESSION: Final[Future[Session]] = Future()
_NO_SESSION.cancel()

_shown: list[Playground] = []
"""Open playgrounds that a later one may replace."""


class Playground(Box):  # type: ignore[misc]
    """Talk to a service and watch it, in one cell.

    The session lives in the background: a cell that computes stops neither sound nor events, and interrupting the
    kernel leaves the session open.

    Parameters
    ----------
    target : str, Azure, OpenAI, Custom, Simulator, default "sim"
        Service, as for `rtnb.connect`.
    transport : {"websocket", "webrtc"}, default "websocket"
        Through the kernel, or from the page. Set the attribute, or choose on the page, to change it. A WebRTC call that
        uses the microphone begins with a click on Start call (or `connect`).
    microphone : optional
        None takes the browser's microphone, False none. Anything else is a `source` of `Microphone` and is played in
        place of it, over WebSocket only; over WebRTC use `say`.
    show : collection of str, optional
        Parts to show, any of `PARTS`; default all.
    height : int, default 600
        Height in px; a narrow page takes what it needs, up to 900.
    name : str, optional
        A playground of the same name is closed. None takes the notebook's cell: running it again starts clean.
    **settings
        First settings of the session, as for `rtnb.connect`: `instructions`, `voice`, `turn_detection`, `tools` … With
        the simulator, `transcription` is on by default.

    Examples
    --------
    >>> playground = Playground("sim", instructions="Answer in one sentence.")  # doctest: +SKIP
    >>> playground.turn_detection.silence_duration_ms = 300                     # doctest: +SKIP
    >>> playground.session.log.to_frame()                                       # doctest: +SKIP
    """

    transport = Enum(tuple(TRANSPORTS), "websocket", help="Transport of the session.")

    def __init__(
        self,
        target: Any = "sim",
        *,
        transport: str = "websocket",
        microphone: Any = None,
        show: Collection[str] = PARTS,
        height: int = 600,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        shown = {show} if isinstance(show, str) else set(show)
        for what, given, allowed in (("transport", {transport}, TRANSPORTS), ("show", shown, PARTS)):
            if wrong := given.difference(allowed):
                raise ValueError(f"{what} is {wrong.pop()!r}; allowed: {', '.join(map(repr, allowed))}")
        self._target: Any = resolve(target, dialect=settings.pop("dialect", None), options=settings)
        if self._target.facts.service == "simulator" and "config" not in settings:
            settings.setdefault("transcription", TRANSCRIBER)
        named = {name: value for name, value in settings.items() if name not in _OPTIONS}
        check_settings(wanted_settings(settings.get("config"), named), dialect=self._target.dialect)
        self.microphone = None if microphone is False else Microphone(source=microphone)
        """Microphone over WebSocket; off until it is started."""
        self._key, self._run = _this_cell() if name is None else (name, object())
        for before in [one for one in _shown if one._key == self._key and one._run != self._run]:
            before.close()
        self._settings = settings
        self._opening = _NO_SESSION
        self._ending = asyncio.Lock()
        self.peer: WebRTCPeer | None = None
        """Call over WebRTC; None before the first."""
        self._uses_microphone = microphone is None
        self._build(shown, height)
        self._watch_parts()
        self.transport = transport
        self.observe(self._on_transport, "transport")
        if self._key:
            _shown.append(self)
        self._on_transport()

    def _build(self, show: set[str], height: int) -> None:
        facts = self._target.facts
        shown = {"target": facts.url, "noun": facts.noun, "dialect": facts.dialect, "model": facts.model or ""}
        self.connection = ConnectionControl(**shown)
        self.message_bar = MessageBar()
        self.panel = SettingsPanel(facts=facts)
        self.instructions, self.turn_detection, self.answer, self.listening = self.panel.controls
        self.speaker, self.waveform, self.transcript = Speaker(), Waveform(), Transcript()
        self.inspector = EventInspector()
        takes_key = hasattr(self._target, "api_key")
        self.connection.on_connect(self.connect, self.disconnect, self._use_key if takes_key else None)
        self.transcript.on_transcribe(lambda: setattr(self.listening, "transcribe", True))
        for view in (self.transcript, self.inspector):
            link((self.waveform, "selected_index"), (view, "selected_index"))
        self._choice = Dropdown(options=[(words, name) for name, words in TRANSPORTS.items()], description="Connection")
        link((self, "transport"), (self._choice, "value"))
        self.panel.updater.on_reconnect = self.connect
        options = () if self.microphone is None else (self.microphone.options,)
        self._settings_page = VBox([self._choice, self.panel.settings_tab, *options, shared_channel()])
        pages = (self._settings_page, self.panel.turn_detection, self.inspector, self.panel.code)
        tabs = {name: page for name, page in zip(PARTS[2:], pages, strict=True) if name in show}
        self._tabs = Tab([*tabs.values()], titles=[name.capitalize() for name in tabs], selected_index=0)
        self._frame = Box(layout=Layout(height=f"{height}px"))
        left = {"conversation": self.transcript, "time axis": self.waveform}
        self._left = [widget for part, widget in left.items() if part in show]
        super().__init__([self._frame])
        self.add_class("rtnb-playground")
        self._frame.add_class("rtnb-frame")
        present = {"conversation": "conversation" in show, "time": "time axis" in show, "tabs": bool(tabs)}
        for part in [part for part, is_shown in present.items() if not is_shown]:
            self._frame.add_class(f"rtnb-no-{part}")

    # --- the session --------------------------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """Session; waits while it is being opened.

        Raises
        ------
        ConnectError
            There is none: it could not be opened, or it was disconnected.
        RequestTimeout
            It is still being opened after 30 s.
        """
        opening = self._opening
        try:
            return opening.result(OPENING_S)
        except CancelledError:
            raise self._not_connected() from None
        except TimeoutError:
            if opening.done():
                raise
            awaited = f"answer of {self._target.facts.url or self._target.facts.service}"
            raise RequestTimeout("Playground.session", awaited=awaited, timeout_s=OPENING_S) from None

    @property
    def latency(self) -> LatencyMeter:
        """Latency of every turn of the session, step by step."""
        return self.message_bar.latency

    @property
    def trace(self) -> Trace:
        """Everything of the session so far: turns, audio, settings; ``trace=`` of the playground records to a file."""
        folder = TemporaryDirectory(ignore_cleanup_errors=True)
        trace = Trace(self.session.save_trace(f"{folder.name}/session.rtnb"))
        weakref.finalize(trace, folder.cleanup)
        return trace

    def connect(self) -> None:
        """Open a new session with the settings of the one before. Returns at once."""
        if self.comm is None:
            raise self._not_connected()
        self._opening.cancel()
        self._opening = shared_loop().submit(self._open())

    def disconnect(self) -> None:
        """Close the session; its conversation stays on the page. Returns at once."""
        self._opening.cancel()
        shared_loop().submit(self._leave())

    async def _open(self, *, has_begun: bool = False) -> Session:
        """Open a session; a call that has begun on the page is only followed."""
        self.connection.state, self.connection.message = "connecting", ""
        try:
            if not has_begun:
                await self._end()
                self._show_transport()
            if self.transport == "webrtc":
                assert self.peer is not None  # see _show_transport
                session = await self.peer.start()
            else:
                session = await connect(self._target, **self._requested())
        except asyncio.CancelledError:
            self.connection.state = "closed"
            raise
        except (RtnbError, OSError, TypeError, ValueError) as error:
            self.connection.set_error(error)
            raise
        self._follow(session)
        return session

    def _on_transport(self, _: Any = None) -> None:
        """Change the transport; a call that needs the microphone waits for a click."""
        self.connection.transport = TRANSPORTS[self.transport]
        if self.transport == "websocket" or not self._uses_microphone:
            self.connect()
        else:
            self.disconnect()

    async def _leave(self) -> None:
        await self._end()
        self._show_transport()
        self.connection.state, self.connection.message = "closed", ""

    def _show_transport(self) -> None:
        """Show microphone and speaker, or a call, which has both."""
        is_call = self.transport == "webrtc"
        if is_call and self.peer is None:
            settings = {name: value for name, value in self._settings.items() if name != "reconnect"}  # not for calls
            self.peer = WebRTCPeer(self._target, microphone=self._uses_microphone, **settings)
            self.peer.observe(self._on_call, "state")
        tabs = self._tabs if self._tabs.children else None
        voice, speaker = (self.peer, None) if is_call else (self.microphone, self.speaker)
        shown = (self.connection, *self._left, tabs, voice, self.message_bar, speaker)
        self._frame.children = [widget for widget in shown if widget is not None]

    def _on_call(self, change: dict[str, Any]) -> None:
        """Follow a call that begins or ends on the page."""
        assert self.peer is not None
        if change["new"] == "starting":
            self.peer._target = self._target  # a key may have been typed in
            if self.panel.chosen:
                wanted = wire.decode_session(nested(self.panel.chosen))
                self.peer._config = replace(wanted, tools=self.peer._config.tools)
            if self._opening.done():
                self._opening = shared_loop().submit(self._open(has_begun=True))
        elif change["new"] == "closed" and self._opening.done():
            self.connection.state = "closed"

    def _requested(self) -> dict[str, Any]:
        """Return the options of the next session."""
        if not self.panel.chosen:
            return self._settings
        options = {name: value for name, value in self._settings.items() if name in _OPTIONS}
        return {**options, "config": wire.decode_session(nested(self.panel.chosen))}

    def _follow(self, session: Session) -> None:
        self.panel.facts = self._target.facts
        self.panel.updater.attach(session)
        is_call = self.transport == "webrtc"  # its audio does not pass the kernel
        audio = () if is_call else tuple(one for one in (self.speaker, self.microphone) if one is not None)
        self.message_bar.speech_end = None if is_call or self.microphone is None else self.microphone.speech_end
        for view in (self.connection, self.message_bar, self.waveform, self.transcript, *audio):
            view.session = session
        self.inspector.source = session

    async def _end(self) -> None:
        async with self._ending:  # a new session waits for the end of the old one: they may share a simulator
            session = self.connection.session
            if self.microphone is not None:
                self.microphone.stop()
            if self.peer is not None:
                await self.peer.stop()
            if isinstance(session, Session):
                await session.close()

    def _use_key(self, key: str) -> None:
        """Sign in with a key that was typed in; it lives in the target, wrapped, and nowhere else."""
        keyless = {"credential": None} if hasattr(self._target, "credential") else {}
        self._target = replace(self._target, api_key=key, **keyless)
        self.connect()

    # --- the status line and the title of Events ----------------------------------------------------------------------

    def _watch_parts(self) -> None:
        self.connection.observe(lambda change: self._set_status("connection", change["new"]), "message")
        if self.inspector in self._tabs.children:
            self.inspector.observe(self._on_n_events, "n_events")
        self.speaker.observe(lambda change: self._set_status("speaker", change["new"]), "problem")
        if self.microphone is not None:
            self.microphone.observe(self._on_microphone, ["status", "problem"])

    def _set_status(self, source: str, text: str, *, is_problem: bool = True) -> None:
        shared_loop().call_soon(lambda: self.message_bar.set_status(source, text, is_problem=is_problem))

    def _on_microphone(self, _: Any) -> None:
        assert self.microphone is not None
        problem, is_off = self.microphone.problem, self.microphone.state in ("off", "no page")
        self._set_status("microphone", problem or ("" if is_off else self.microphone.status), is_problem=bool(problem))

    def _on_n_events(self, change: dict[str, Any]) -> None:
        title = f"Events {format_count(change['new'])}"
        self._tabs.set_title(self._tabs.children.index(self.inspector), title)

    # --- talking ------------------------------------------------------------------------------------------------------

    async def ask(self, text: str) -> Response:
        """Send a text message and return the finished answer."""
        return await (await self._opened()).ask(text)

    async def say(self, audio: Any, **options: Any) -> Response:
        """Send speech and return the finished answer; takes the arguments of `Session.say`."""
        response: Response = await (await self._opened()).say(audio, **options)
        return response

    async def apply(self) -> pd.DataFrame:
        """Send changed settings at once; return the status of every requested setting."""
        await self._opened()
        return await self.panel.updater.apply()

    async def _opened(self) -> Session:
        if self._opening.cancelled():
            raise self._not_connected()
        return await asyncio.shield(asyncio.wrap_future(self._opening))

    def _not_connected(self) -> RtnbError:
        if self.comm is None:
            return ConnectError("the playground is closed").with_hint("Make a new one: run its cell again.")
        return ConnectError("not connected").with_hint("Call connect(), or press Connect (over WebRTC: Start call).")

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the session and leave the page; nothing stays behind. Closing twice is fine."""
        if self.comm is None:
            return  # the constructor refused, or closed already
        self.unobserve_all("transport")
        if self in _shown:
            _shown.remove(self)
        self._opening.cancel()
        self._opening = _NO_SESSION
        if not shared_loop().inside:
            shared_loop().run(self._end(), OPENING_S)
        views = (self.connection, self.message_bar, self.waveform, self.transcript, self.speaker, self.inspector)
        self.panel.close()
        boxes = (self._choice, self._settings_page, self._tabs, self._frame, self.layout)
        close_all(*views, self.microphone, self.peer, *boxes)
        super().close()

    def __repr__(self) -> str:  # notebooks are saved with it
        return f"<Playground: {self._target.facts.service}, {self.connection.state}>"


def format_count(number: int) -> str:
    """Return a count in at most four characters, so that the tabs stay where they are.

    >>> format_count(999), format_count(1_204), format_count(150_000)
    ('999', '1.2k', '150k')
    """
    thousands = number / 1000
    return str(number) if number < 1000 else f"{thousands:.1f}k" if number < 10_000 else f"{thousands:.0f}k"


def _this_cell() -> tuple[str, str]:
    """Return the ids of the notebook's cell and of its run; the cell's is empty outside of JupyterLab."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    parent = kernel.get_parent() if kernel is not None else {}
    return str(parent.get("metadata", {}).get("cellId", "")), str(parent.get("header", {}).get("msg_id", ""))
