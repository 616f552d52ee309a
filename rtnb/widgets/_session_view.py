"""`SessionView`: a widget that follows the log of a session on the background loop, whatever loop the session is on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, ClassVar

from rtnb._loop import shared_loop
from rtnb.client import Session
from rtnb.client.log import EventLog, LogRow
from rtnb.widgets.channel import StreamWidget

_AT_ONCE = 2_000  # rows taken in one go: a long log must not hold up the loop (chosen)


class SessionView(StreamWidget):
    """A widget of one session (or of the log of one); give it another by setting `session`.

    Parameters
    ----------
    session : Session or EventLog, optional
        What to follow; None waits until `session` is set.
    **traits
        Any of its traits.
    """

    _accepts: ClassVar[tuple[type, ...]] = (Session, EventLog)
    _interval_s: ClassVar[float] = 0.1
    """How often the log is looked at."""

    def __init__(self, session: Session | EventLog | None = None, **traits: Any) -> None:
        super().__init__(**traits)
        self._session: Session | EventLog | None = None
        self._following: Future[None] | None = None
        self.open_stream(self._on_message)
        self._stream.on_page(self._on_page)
        self.session = session

    @property
    def session(self) -> Session | EventLog | None:
        """The session (or log) it shows; setting another starts anew."""
        return self._session

    @session.setter
    def session(self, session: Session | EventLog | None) -> None:
        if session is not None and not isinstance(session, self._accepts):
            names = " or ".join(kind.__name__ for kind in self._accepts)
            raise TypeError(f"{type(self).__name__} follows a {names}, got {type(session).__name__}")
        self._unfollow()
        self._session = session
        if session is not None:
            self._following = shared_loop().submit(self._follow(session))
            self._following.add_done_callback(_raise_in_loop)

    def close(self) -> None:
        """Follow no more and leave the page; closing twice is fine."""
        if self._opened:  # None where the constructor refused
            self._unfollow()
        super().close()

    def _unfollow(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None

    async def _follow(self, source: Session | EventLog) -> None:
        log = source.log if isinstance(source, Session) else source
        self._on_session(source)
        index, over = 0, False
        while True:
            closed = isinstance(source, Session) and source.closed
            dropped = log.dropped.events
            index = max(index, dropped)
            rows = _rows_from(log, index - dropped)
            count = len(rows)
            if log.dropped.events != dropped:
                continue  # a full log dropped its oldest rows meanwhile, on another thread: positions have shifted
            if rows:
                self._on_rows([log.redacted(row) for row in rows])
                index += count
            else:
                self._idle()
                if closed and not over:
                    over = True
                    self._on_end()
            await asyncio.sleep(0 if count == _AT_ONCE else 0.1 if over else self._interval_s)

    # --- what a widget fills in; all are called on the background loop ------------------------------------------------

    def _on_session(self, source: Session | EventLog) -> None:
        """Forget everything: another session begins."""

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        """Take new rows of the log."""

    def _idle(self) -> None:
        """There was nothing new."""

    def _on_end(self) -> None:
        """The session is closed, and all its rows were taken."""

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any] | None:
        """The page said something."""

    def _on_page(self, page_id: str, change: str) -> None:
        """A page ``"joined"`` (show it everything) or ``"left"``."""


def _rows_from(log: EventLog, position: int) -> list[LogRow]:
    """Return the next rows, at most `_AT_ONCE`."""
    try:
        return [log[number] for number in range(position, min(len(log), position + _AT_ONCE))]
    except IndexError:  # a session on another thread dropped rows meanwhile: the next look finds the rest
        return []


def _raise_in_loop(future: Future[None]) -> None:
    """A failure must not vanish in a future nobody asks."""
    if not future.cancelled() and (error := future.exception()) is not None:
        context = {"message": "a widget could not follow its session", "exception": error}
        shared_loop().call_soon(lambda: asyncio.get_running_loop().call_exception_handler(context))
