"""Two turn detections of one session: one while the assistant listens, another while it speaks."""

from __future__ import annotations

import asyncio
import logging
import weakref
from typing import Final

from rtnb.client.log import LogRow
from rtnb.client.session import Session
from rtnb.errors import ConnectionClosed, LocalProtocolError, RtnbError
from rtnb.protocol import events
from rtnb.protocol.values import SemanticVad, ServerVad

CHECK_S: Final = 0.05
"""Time between two looks at the playback while the assistant speaks (chosen)."""
Detection = ServerVad | SemanticVad
_log = logging.getLogger("rtnb")
_switches: weakref.WeakKeyDictionary[Session, weakref.ref[OverlapSettings]] = weakref.WeakKeyDictionary()
"""The newest switch of each session: two would work against each other."""


class OverlapSettings:
    """Switch of a session's turn detection at the begin and the end of the assistant's speech.

    Each spoken response takes two updates, both in the log: `speaking` with its first audio, `listening` once it was
    played or cut off by an interruption. Do not set `turn_detection` meanwhile: the next switch replaces it. A new
    object for the same session ends the former one.

    Parameters
    ----------
    session : Session
        Open; the switch ends with it.
    listening, speaking : ServerVad or SemanticVad
        Turn detection while the assistant is silent, and while it speaks.

    Raises
    ------
    LocalProtocolError
        A transcription session: there the assistant never speaks.

    Examples
    --------
    >>> import rtnb
    >>> async def talk():
    ...     async with rtnb.connect("sim", latency="fast") as session:
    ...         switch = session.overlap_settings(
    ...             listening=rtnb.ServerVad(threshold=0.4), speaking=rtnb.ServerVad(threshold=0.9)
    ...         )
    ...         await session.ask("What is a delta?")
    ...         await switch.aclose()
    ...         return [row.event.session.turn_detection.threshold for row in session.log.filter("session.update")]
    >>> import asyncio
    >>> asyncio.run(talk())[-3:]
    [0.4, 0.9, 0.4]
    """

    def __init__(self, session: Session, *, listening: Detection, speaking: Detection) -> None:
        if session.config.type == "transcription":
            raise LocalProtocolError("in a transcription session the assistant never speaks")
        self.session = session
        self.listening, self.speaking = listening, speaking
        self.problem: RtnbError | None = None
        """Error that ended the switch, e.g. a refused setting; None while all is well."""
        self._audio = asyncio.Event()
        """Set while the assistant speaks, and at the end."""
        self._ended = False
        former = _switches.get(session, lambda: None)()
        if former is not None:
            former.stop()
        _switches[session] = weakref.ref(self)
        self._end_subscription = session.log.subscribe(self._on_row)
        self._work = asyncio.run_coroutine_threadsafe(self._run(former), session.loop)
        session.on_close(self._on_close)

    def stop(self) -> None:
        """End the switch and leave the settings as they are; works from any thread, twice is fine."""
        self._ended = True
        self._end_subscription()
        if not self.session.loop.is_closed():
            self.session.loop.call_soon_threadsafe(self._audio.set)

    async def aclose(self) -> None:
        """End the switch and leave `listening` in force; closing twice is fine."""
        self.stop()
        await self._finished()
        if not self.session.closed:
            await self.session.update(turn_detection=self.listening)

    async def _finished(self) -> None:
        """Wait for the update that is under way: only after its reply the settings in force are known."""
        await asyncio.wait([asyncio.wrap_future(self._work)])

    async def _on_close(self) -> None:
        self.stop()

    def _on_row(self, row: LogRow) -> None:
        if isinstance(row.event, events.ResponseOutputAudioDelta | events.OutputAudioBufferStarted):
            self._audio.set()

    def _speaks(self) -> bool:
        in_progress = any(not one.done for one in self.session.state.responses.values())
        return in_progress or self.session.playback.playing

    async def _run(self, former: OverlapSettings | None) -> None:
        try:
            if former is not None:
                await former._finished()
            while not self._ended:
                await self.session.update(turn_detection=self.listening)
                await self._audio.wait()
                if not self._ended:
                    await self.session.update(turn_detection=self.speaking)
                while not self._ended and self._speaks():  # noqa: ASYNC110
                    await asyncio.sleep(CHECK_S)  # the playback does not announce its end
                self._audio.clear()
        except RtnbError as error:
            self._ended = True
            self._end_subscription()
            if not isinstance(error, ConnectionClosed):
                self.problem = error
                _log.error("overlap settings ended: %s", error)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "speaking" if self._audio.is_set() else "listening"
        return f"<OverlapSettings: {state}>"
