"""`Playground`: everything in one cell. Connect, talk, listen, read, turn knobs, watch the wire."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import ipywidgets
import traitlets
from traitlets import Enum

from rtnb._loop import shared_loop
from rtnb.client import Response, Session
from rtnb.client.settings import ConnectOptions, SessionSettings, check_settings, wanted_settings
from rtnb.errors import ConnectError, RtnbError
from rtnb.protocol import wire
from rtnb.targets import connect, resolve
from rtnb.widgets._steering import nested
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.connection import ConnectionControl
from rtnb.widgets.inspector import EventInspector
from rtnb.widgets.microphone import Microphone
from rtnb.widgets.panel import SettingsPanel
from rtnb.widgets.settings import close_all
from rtnb.widgets.speaker import Speaker
from rtnb.widgets.talk import TalkBar
from rtnb.widgets.transcript import Transcript
from rtnb.widgets.waveform import Waveform
from rtnb.widgets.webrtc import WebRTCPeer

if TYPE_CHECKING:
    import pandas as pd

OPENING_S: Final = 30.0
"""How long `Playground.session` waits for a session that is being opened (chosen)."""

TRANSPORTS: Final = {"websocket": "WebSocket, by the kernel", "webrtc": "WebRTC, from the page"}
"""The ways to a service, and what the page calls them."""

_OPTIONS: Final = ConnectOptions.__optional_keys__ - SessionSettings.__optional_keys__
"""What opening a session takes besides settings."""

_shown: dict[str, Playground] = {}
"""The playground of each cell (or name): running the cell again closes the one before."""


class Playground(ipywidgets.VBox):  # type: ignore[misc]
    """Talk to a service and watch it, in one cell.

    The session lives in the background: a cell that computes stops neither sound nor events, and interrupting the
    kernel leaves the session open.

    Parameters
    ----------
    target : str, Azure, OpenAI, Custom, Simulator, default "sim"
        As `rtnb.connect` takes it.
    transport : {"websocket", "webrtc"}, default "websocket"
        How: through the kernel, or from the page by WebRTC; set it (or choose on the page) to change over. A call that
        uses the microphone begins with a click on Start (or `connect`).
    microphone : optional
        What is heard once Start is pressed: None takes the browser's microphone, False none; anything else is a
        `source` of `Microphone` and stands in for it, over WebSocket only: over WebRTC `say` does.
    name : str, optional
        A playground of the same name is closed. None takes the notebook's cell: running it again starts clean.
    **settings
        What the session starts with, as `rtnb.connect` takes it: `instructions`, `voice`, `turn_detection`, `tools` …

    Examples
    --------
    >>> playground = Playground("sim", instructions="Answer in one sentence.")  # doctest: +SKIP
    >>> playground.turn_detection.silence_duration_ms = 300                     # doctest: +SKIP
    >>> playground.session.log.to_frame()                                       # doctest: +SKIP
    """

    transport = Enum(tuple(TRANSPORTS), "websocket", help="The way to the service.")

    def __init__(
        self,
        target: Any = "sim",
        *,
        transport: str = "websocket",
        microphone: Any = None,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        if transport not in TRANSPORTS:
            raise ValueError(f"transport is {transport!r}; allowed: {', '.join(map(repr, TRANSPORTS))}")
        self._target: Any = resolve(target, dialect=settings.pop("dialect", None), options=settings)
        named = {name: value for name, value in settings.items() if name not in _OPTIONS}
        check_settings(wanted_settings(settings.get("config"), named), dialect=self._target.dialect)
        self.microphone = None if microphone is False else Microphone(source=microphone)
        """The microphone over WebSocket; it is off until somebody starts it."""
        self._name = _this_cell() if name is None else name
        if (before := _shown.pop(self._name, None)) is not None:
            before.close()
        self._settings = settings
        self._session: Session | None = None
        self._opening: Future[Session] = Future()
        self._opening.cancel()
        self._ending = asyncio.Lock()
        self.peer: WebRTCPeer | None = None
        """The call over WebRTC; None before the first."""
        self._asks = microphone is None
        self._build()
        self.transport = transport
        self.observe(self._change_over, "transport")
        _shown[self._name] = self
        self._change_over()

    def _build(self) -> None:
        self.connection = ConnectionControl()
        self.talk = TalkBar()
        self.panel = SettingsPanel(facts=self._target.facts)
        self.instructions = self.panel.instructions
        self.turn_detection = self.panel.turn_detection
        self.answer = self.panel.answer
        self.listening = self.panel.listening
        self.speaker = Speaker()
        self.waveform = Waveform()
        self.transcript = Transcript()
        self.inspector: EventInspector | None = None
        self.connection.describe(self._target.facts)
        takes_key = hasattr(self._target, "api_key")
        self.connection.on_connect(self.connect, self.disconnect, self._use_key if takes_key else None)
        ways = [(words, way) for way, words in TRANSPORTS.items()]
        wide = ipywidgets.Layout(width="auto", margin="0")
        self._way = ipywidgets.Dropdown(options=ways, layout=wide, tooltip="The way to the service")
        self._voice = ipywidgets.HBox([self._way])
        side = ipywidgets.Layout(flex="1 1 340px", min_width="0")
        self._heard = ipywidgets.VBox(layout=side)
        self._turned = ipywidgets.Box([self.panel], layout=side)
        self._middle = ipywidgets.HBox([self._heard, self._turned])
        self._wire = ipywidgets.VBox()
        super().__init__([self.connection, self._voice, self.talk, self._middle, self._wire, shared_channel()])
        for box, look in (
            (self, "playground"),
            (self._voice, "voice"),
            (self._middle, "middle"),
            (self._turned, "turned"),
            (self._heard, "heard"),
        ):
            box.add_class(f"rtnb-{look}")
        traitlets.link((self, "transport"), (self._way, "value"))

    # --- the session --------------------------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The session; waits while it is being opened.

        Raises
        ------
        ConnectError
            There is none: the reason it could not be opened, or that it was disconnected.
        """
        try:
            return self._opening.result(OPENING_S)
        except CancelledError:
            raise _nobody() from None

    def connect(self) -> None:
        """Open a session (again): the settings of the one before are taken along. Returns at once."""
        self._opening.cancel()
        self._opening = shared_loop().submit(self._open())

    def disconnect(self) -> None:
        """Close the session; what it said stays to be read. Returns at once."""
        self._opening.cancel()
        shared_loop().submit(self._end())

    async def _open(self) -> Session:
        self.connection.state, self.connection.message = "connecting", ""
        try:
            await self._end()
            self._show_way()
            self._session = await self._reached()
        except asyncio.CancelledError:
            self.connection.state = "closed"
            raise
        except (RtnbError, OSError, TypeError, ValueError) as error:
            self.connection.failed(error)
            raise
        self._follow(self._session)
        return self._session

    async def _reached(self) -> Session:
        if self.transport == "webrtc":
            assert self.peer is not None  # see _show_way
            return await self.peer.start()
        session: Session = await connect(self._target, **self._wanted())
        return session

    def _change_over(self, _: Any = None) -> None:
        """Go the other way; what asks for the microphone waits for a click."""
        if self.transport == "websocket" or not self._asks:
            return self.connect()
        self._opening.cancel()
        shared_loop().submit(self._leave())
        return None

    async def _leave(self) -> None:
        await self._end()
        self._show_way()
        self.connection.state, self.connection.message = "closed", ""

    def _show_way(self) -> None:
        """The page gets a microphone and a speaker, or a call that has both."""
        if self.transport == "webrtc" and self.peer is None:
            settings = {name: value for name, value in self._settings.items() if name != "reconnect"}  # not for calls
            self.peer = WebRTCPeer(self._target, microphone=self._asks, **settings)
            self.peer.observe(self._called, "state")
        way = self.peer if self.transport == "webrtc" else self.microphone
        voice = tuple(one for one in (self._way, way) if one is not None)
        if self._voice.children != voice:
            self._voice.children = voice
        heard = (self.waveform, self.transcript) if self.transport == "webrtc" else self._spoken
        if self._heard.children != heard:
            self._heard.children = heard

    @property
    def _spoken(self) -> tuple[ipywidgets.Widget, ...]:
        return (self.waveform, self.speaker, self.transcript)

    def _called(self, change: dict[str, Any]) -> None:
        """A call begins, by a click or by `connect`, or is over."""
        assert self.peer is not None
        if change["new"] == "starting":
            self.peer._target = self._target  # a key may have been typed in
            if self.panel.steered:
                wanted = wire.decode_session(nested(self.panel.steered))
                self.peer._config = replace(wanted, tools=self.peer._config.tools)
            if self._opening.done():
                self._opening = shared_loop().submit(self._joined(self.peer))
        elif change["new"] == "closed" and self._opening.done():
            self.connection.state = "closed"

    async def _joined(self, peer: WebRTCPeer) -> Session:
        """Take part in a call that begins on the page, which shows its own troubles."""
        self.connection.state, self.connection.message = "connecting", ""
        try:
            self._session = await peer.start()
        except BaseException:
            self.connection.state = "closed"
            raise
        self._follow(self._session)
        return self._session

    def _wanted(self) -> dict[str, Any]:
        if not self.panel.steered:
            return self._settings
        options = {name: value for name, value in self._settings.items() if name in _OPTIONS}
        return {**options, "config": wire.decode_session(nested(self.panel.steered))}

    def _follow(self, session: Session) -> None:
        self.panel.facts = self._target.facts
        self.panel.steering.attach(session)
        ears = () if self.transport == "webrtc" else (self.speaker, *self._microphones)
        self.talk.ear = None  # over WebRTC no sound passes here
        if self.microphone is not None and self.transport == "websocket":
            self.talk.ear = self.microphone.speech_end
        for view in (self.connection, self.talk, self.waveform, self.transcript, *ears):
            view.session = session
        before, self.inspector = self.inspector, EventInspector(session)
        traitlets.link((self.waveform, "selected_index"), (self.inspector, "selected_index"))  # a moment and its events
        self._wire.children = (self.inspector,)
        if before is not None:
            before.close()

    @property
    def _microphones(self) -> tuple[Microphone, ...]:
        return () if self.microphone is None else (self.microphone,)

    async def _end(self) -> None:
        async with self._ending:  # a new session waits for the end of the old one: they may share a simulator
            session, self._session = self._session, None
            for microphone in self._microphones:
                microphone.stop()
            if self.peer is not None:
                await self.peer.stop()
            if session is not None:
                await session.close()

    def _use_key(self, key: str) -> None:
        """Sign in with a key that was typed in; it lives in the target, wrapped, and nowhere else."""
        keyless = {"credential": None} if hasattr(self._target, "credential") else {}
        self._target = replace(self._target, api_key=key, **keyless)
        self.connect()

    # --- talking ------------------------------------------------------------------------------------------------------

    async def ask(self, text: str) -> Response:
        """Send a text message and return the finished answer."""
        await self._is_open()
        return await self.talk.ask(text)

    async def say(self, audio: Any, **options: Any) -> Response:
        """Send speech and return the finished answer; takes what `Session.say` takes."""
        await self._is_open()
        return await self.talk.say(audio, **options)

    async def interrupt(self) -> None:
        """Stop the answer."""
        await self._is_open()
        await self.talk.interrupt()

    async def apply(self) -> pd.DataFrame:
        """Send what was turned at once; return what became of every wish: requested, effective, verdict, reason."""
        await self._is_open()
        return await self.panel.apply()

    async def _is_open(self) -> None:
        if self._opening.cancelled():
            raise _nobody()
        await asyncio.shield(asyncio.wrap_future(self._opening))

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the session and leave the page; nothing stays behind. Closing twice is fine."""
        if "_opening" not in self.__dict__:
            return  # the constructor refused, or closed already
        self.unobserve_all("transport")
        if _shown.get(self._name) is self:
            del _shown[self._name]
        self.__dict__.pop("_opening").cancel()
        if not shared_loop().inside:
            shared_loop().run(self._end(), OPENING_S)
        views = (self.connection, self.talk, self._way, *self._spoken, *self._microphones)
        calls = () if self.peer is None else (self.peer,)
        wire_views = () if self.inspector is None else (self.inspector.table, self.inspector.pane, self.inspector)
        self.panel.close()
        close_all(
            *views, *calls, *wire_views, self._voice, self._heard, self._turned, self._middle, self._wire, self.layout
        )
        super().close()

    def __repr__(self) -> str:  # notebooks are saved with it
        return f"<Playground: {self._target.facts.service}, {self.connection.state}>"


def _nobody() -> RtnbError:
    return ConnectError("not connected").with_hint("Call connect(), or press Connect (over WebRTC: Start).")


def _this_cell() -> str:
    """The id of the notebook's cell that runs; empty outside of JupyterLab."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    parent = kernel.get_parent() if kernel is not None else {}
    return str(parent.get("metadata", {}).get("cellId", ""))
