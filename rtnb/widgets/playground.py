"""`Playground`: everything in one cell. Connect, talk, listen, read, turn knobs, watch the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, TypeVar

import ipywidgets
import traitlets

from rtnb._loop import shared_loop
from rtnb.client import Response, Session, open_session
from rtnb.errors import ConnectError, RtnbError
from rtnb.protocol import wire
from rtnb.protocol.values import SessionConfig
from rtnb.targets import connect, resolve
from rtnb.widgets._line import shared_line
from rtnb.widgets._steering import nested
from rtnb.widgets.connection import ConnectionControl
from rtnb.widgets.inspector import EventInspector
from rtnb.widgets.panel import SettingsPanel
from rtnb.widgets.settings import close_all
from rtnb.widgets.speaker import Speaker
from rtnb.widgets.talk import TalkBar
from rtnb.widgets.transcript import Transcript
from rtnb.widgets.waveform import Waveform

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

OPENING_S: Final = 30.0
"""How long `Playground.session` waits for a session that is being opened (chosen)."""

_OPTIONS: Final = frozenset(signature(open_session).parameters) - {"settings"}
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

    def __init__(self, target: Any = "sim", *, name: str | None = None, **settings: Any) -> None:
        self._target: Any = resolve(target, dialect=settings.pop("dialect", None))
        SessionConfig.of(**{name: value for name, value in settings.items() if name not in _OPTIONS})
        self._name = _this_cell() if name is None else name
        if (before := _shown.pop(self._name, None)) is not None:
            before.close()
        self._settings = settings
        self._tools = {"tools": settings["tools"]} if "tools" in settings else {}
        self._session: Session | None = None
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
        side = ipywidgets.Layout(flex="1 1 340px", min_width="0")
        self._heard = ipywidgets.VBox([self.waveform, self.speaker, self.transcript], layout=side)
        self._turned = ipywidgets.Box([self.panel], layout=side)
        self._middle = ipywidgets.HBox([self._heard, self._turned])
        self._wire = ipywidgets.VBox()
        super().__init__([self.connection, self.talk, self._middle, self._wire, shared_line()])
        for box, look in (
            (self, "playground"),
            (self._middle, "middle"),
            (self._turned, "turned"),
            (self._heard, "heard"),
        ):
            box.add_class(f"rtnb-{look}")
        _shown[self._name] = self
        self._ending = asyncio.Lock()
        self.connect()

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
            raise ConnectError("not connected").with_hint("Call connect(), or press Connect.") from None

    def connect(self) -> None:
        """Open a session (again): the settings of the one before are taken along. Returns at once."""
        before = getattr(self, "_opening", None)
        if before is not None:
            before.cancel()
        self._opening: Future[Session] = shared_loop().submit(self._open())

    def disconnect(self) -> None:
        """Close the session; what it said stays to be read. Returns at once."""
        self._opening.cancel()
        shared_loop().submit(self._end())

    async def _open(self) -> Session:
        self.connection.state, self.connection.message = "connecting", ""
        try:
            await self._end()
            self._session = await connect(self._target, **self._wanted())
        except asyncio.CancelledError:
            self.connection.state = "closed"
            raise
        except (RtnbError, OSError, TypeError, ValueError) as error:
            self.connection.failed(error)
            raise
        self._follow(self._session)
        return self._session

    def _wanted(self) -> dict[str, Any]:
        if not self.panel.steered:
            return self._settings
        return {"config": wire.decode_session(nested(self.panel.steered)), **self._tools}

    def _follow(self, session: Session) -> None:
        self.panel.facts = self._target.facts
        self.panel.steering.attach(session)
        for view in (self.connection, self.talk, self.waveform, self.speaker, self.transcript):
            view.session = session
        before, self.inspector = self.inspector, EventInspector(session)
        traitlets.link((self.waveform, "selected_index"), (self.inspector, "selected_index"))  # a moment and its events
        self._wire.children = (self.inspector,)
        if before is not None:
            before.close()

    async def _end(self) -> None:
        async with self._ending:  # a new session waits for the end of the old one: they may share a simulator
            session, self._session = self._session, None
            if session is not None:
                await session.close()

    def _use_key(self, key: str) -> None:
        """Sign in with a key that was typed in; it lives in the target, wrapped, and nowhere else."""
        keyless = {"credential": None} if hasattr(self._target, "credential") else {}
        self._target = replace(self._target, api_key=key, **keyless)
        self.connect()

    # --- talking ------------------------------------------------------------------------------------------------------

    async def ask(self, text: str) -> Response:
        """Say something in writing and return the whole answer."""
        return await self._there(lambda: self.talk.ask(text))

    async def say(self, audio: Any, **options: Any) -> Response:
        """Say something aloud (samples, or the path of a WAV file) and return the whole answer; see `Session.say`."""
        return await self._there(lambda: self.talk.say(audio, **options))

    async def interrupt(self) -> None:
        """Stop the answer."""
        await self._there(self.talk.interrupt)

    async def apply(self) -> pd.DataFrame:
        """Send what was turned at once; return what became of every wish: requested, effective, verdict, reason."""
        await asyncio.wrap_future(self._opening)
        return await self.panel.apply()

    async def _there(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await something on the background loop, once the session is open."""
        await asyncio.shield(asyncio.wrap_future(self._opening))
        return await asyncio.wrap_future(shared_loop().submit(call()))

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the session and leave the page; nothing stays behind. Closing twice is fine."""
        if "_opening" not in self.__dict__:
            return  # the constructor refused, or closed already
        if _shown.get(self._name) is self:
            del _shown[self._name]
        self.__dict__.pop("_opening").cancel()
        if not shared_loop().inside:
            shared_loop().run(self._end(), OPENING_S)
        views = (self.connection, self.talk, self.waveform, self.speaker, self.transcript)
        wire_views = () if self.inspector is None else (self.inspector.table, self.inspector.pane, self.inspector)
        self.panel.close()
        close_all(*views, *wire_views, self._heard, self._turned, self._middle, self._wire, self.layout)
        super().close()

    def __repr__(self) -> str:  # notebooks are saved with it
        return f"<Playground: {self._target.facts.service}, {self.connection.state}>"


def _this_cell() -> str:
    """The id of the notebook's cell that runs; empty outside of JupyterLab."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    parent = kernel.get_parent() if kernel is not None else {}
    return str(parent.get("metadata", {}).get("cellId", ""))
