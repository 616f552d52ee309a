"""Widgets that follow a session: `SessionView`, fed by one `SessionFeed` per log.

The feed subscribes to the log, decodes each audio event once and keeps one `Timeline`. A row takes this way:
`EventLog.record` (on the thread of the session) → `SessionFeed` (on the background loop, one callback for all rows that
arrived meanwhile) → `SessionView._on_rows`. The first view makes the feed, the last one ends it. Nothing polls.

A view uses in `_on_rows(rows)`:

- ``self.feed.timeline``: the stretches of speech, responses and items, and the waveform, up to the newest row;
- ``self.feed.timeline.ms(row)``: the time of a row on its axis;
- ``self.feed.pieces.get(row.number)``: the decoded audio of a new row, with its place on the axis.

A view that joins late gets the older rows again, in slices, without `pieces`; the timeline is then ahead of them.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

from rtnb._loop import shared_loop
from rtnb.client import EventLog, LogRow, Session
from rtnb.trace.timeline import Piece, Timeline
from rtnb.widgets._base import format_error
from rtnb.widgets.channel import Answer, StreamWidget

_SLICE_ROWS: Final = 100
"""Most rows of one turn of the loop: rows with audio hold it for some 5 ms (chosen)."""

_CLIP_MS: Final = 60_000
"""Longest clip that a page plays at once: 2.9 MB (chosen)."""

_feeds: dict[EventLog, SessionFeed] = {}
"""The feed of each log that a view follows."""


class SessionFeed:
    """Rows, decoded audio and timeline of one log, pushed to its views; lives on the background loop.

    Parameters
    ----------
    log : EventLog
        The log; it may grow on any thread.
    """

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.timeline = Timeline()
        self.pieces: dict[int, Piece] = {}
        """Row number -> decoded audio, of the rows that are being handed over."""
        self.speaker_plays: bool | None = None
        """True while the page of a `Speaker` plays, False while it does not, None without such a page."""
        self._views: dict[SessionView, int] = {}  # with the number of the next row of each
        self._number = 0
        self._due = False
        self._session: Session | None = None
        self._ended = False
        self._open: set[SessionView] = set()  # views of the session that have not had its end yet
        self._timer: asyncio.TimerHandle | None = None
        self._unsubscribe = log.subscribe(self._wake)
        _feeds[log] = self

    def add(self, view: SessionView, source: Session | EventLog) -> None:
        """Begin to feed a view."""
        for older in [one for one in self._views if one._only and one._only == view._only]:
            older._on_replaced()
        self._views[view] = 0 if view._takes_old_rows else self._number
        if isinstance(source, Session):
            self._open.add(view)
            if self._session is None:
                self._watch_end(source)
        self._call(view, view._on_session, source)
        self._wake()

    def remove(self, view: SessionView) -> None:
        """End a view's part; the last one ends the feed."""
        self._views.pop(view, None)
        self._open.discard(view)
        if self._views or _feeds.get(self.log) is not self:
            return
        del _feeds[self.log]
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
        if self._session is not None:
            reader = self._session._dispatcher._reader
            with suppress(RuntimeError):  # its loop is closed
                self._session.loop.call_soon_threadsafe(reader.remove_done_callback, self._on_reader_done)

    def row_at(self, ms: float) -> LogRow | None:
        """Return the last row at or before a moment of the axis, None before the first one that is held."""
        with suppress(IndexError):  # the log dropped rows meanwhile, on another thread
            position = bisect_right(self.log, ms, key=self.timeline.ms) - 1
            return self.log[position] if position >= 0 else None
        return None

    def row(self, number: int) -> LogRow | None:
        """Return the row of a number, None where the log does not hold it."""
        rows, _ = self._read(number, 1)
        return rows[0] if rows and rows[0].number == number else None

    def report_played(self, plays: bool | None) -> None:
        """Take note that a speaker has played more, plays (no more), or has no page (None)."""
        self.speaker_plays = plays
        for view in tuple(self._views):
            self._call(view, view._on_played)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _wake(self, row: LogRow | None = None) -> None:
        """Have `_deliver` called once, however many rows arrive before; on any thread."""
        if not self._due:
            self._due = True
            shared_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        self._due = False  # before the log is read: a row that arrives from now on wakes again
        first = self._number
        rows, self._number = self._read(first, _SLICE_ROWS)
        self.timeline.touched = {}
        self.pieces = {row.number: piece for row in rows if (piece := self.timeline.add(row)) is not None}
        for view, number in tuple(self._views.items()):
            theirs, after = (rows, self._number) if number == first else self._read(number, _SLICE_ROWS)
            self._views[view] = after
            if theirs:
                self._call(view, view._on_rows, theirs)
        if self.pieces and self.speaker_plays is None and self._session is not None:
            self._expect_end_of_playing()
        if self._views and min(self._number, *self._views.values()) < self.log.next_number:
            self._wake()
        elif self._ended:
            while self._open:
                view = self._open.pop()
                self._call(view, view._on_end)

    def _read(self, number: int, most: int) -> tuple[list[LogRow], int]:
        """Return the next rows from a number on, redacted, and the number after them."""
        log = self.log
        while True:
            newest, dropped = log.next_number, log.dropped.events
            with suppress(IndexError):  # the log dropped its oldest rows meanwhile, on another thread: try again
                start = bisect_left(log, number, key=lambda row: row.number)
                rows = [log.redacted(log[at]) for at in range(start, min(len(log), start + most))]
                if dropped == log.dropped.events:  # else positions have shifted
                    return rows, rows[-1].number + 1 if rows else max(number, newest)

    def _call(self, view: SessionView, hook: Callable[..., object], *arguments: Any) -> None:
        """Call a hook of a view; one that fails is reported, and its view is fed no more."""
        try:
            hook(*arguments)
        except Exception as error:
            message = f"a {type(view).__name__} could not follow its session"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
            self.remove(view)

    # --- the end of the session and of playing ------------------------------------------------------------------------

    def _watch_end(self, session: Session) -> None:
        self._session = session
        self._ended = session.closed or session.loop.is_closed()
        if not self._ended:
            # The reader task ends with the session, whichever side closes it.
            reader = session._dispatcher._reader
            session.loop.call_soon_threadsafe(reader.add_done_callback, self._on_reader_done)

    def _on_reader_done(self, reader: asyncio.Task[None]) -> None:
        self._ended = True
        self._wake()

    def _expect_end_of_playing(self) -> None:
        """Without a speaker, audio plays in real time: its end is a moment that nothing else announces."""
        if self._timer is not None:
            self._timer.cancel()
        left_s = self.timeline.left_s(time.monotonic()) + 0.05
        self._timer = asyncio.get_running_loop().call_later(left_s, lambda: self.report_played(self.speaker_plays))


class SessionView(StreamWidget):
    """Widget of one session (or of the log of one); give it another by setting `session`.

    Parameters
    ----------
    session : Session or EventLog, optional
        Session to follow; None waits until `session` is set.
    **traits
        Any of its traits.
    """

    _accepts: ClassVar[tuple[type, ...]] = (Session, EventLog)
    _takes_old_rows: ClassVar[bool] = True
    """True for a view that needs all rows, False for one that reads the timeline and the new rows only."""

    _only: ClassVar[str] = ""
    """Name of a kind of which a session has one view, the newest: a cell that runs again then does nothing twice."""

    feed: SessionFeed
    """The feed of its session, from `_on_session` on."""

    def __init__(self, session: Session | EventLog | None = None, **traits: Any) -> None:
        super().__init__(**traits)
        self._session: Session | EventLog | None = None
        self.open_stream(self._on_message).on_page = self._on_page
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
            shared_loop().call_soon(self._join, session)

    def close(self) -> None:
        """Stop following and leave the page; closing twice is fine."""
        if self._opened:  # not where the constructor refused
            self._unfollow()
        super().close()

    def _unfollow(self) -> None:
        """Leave the session; on any thread."""
        if self._session is not None:
            shared_loop().call_if_running(self._leave)

    @property
    def _is_fed(self) -> bool:
        """True once it has had a session, and so has a `feed`."""
        return "feed" in self.__dict__

    def _join(self, source: Session | EventLog) -> None:
        if source is self._session:  # not where another was set meanwhile
            log = source.log if isinstance(source, Session) else source
            self.feed = _feeds.get(log) or SessionFeed(log)
            self.feed.add(self, source)

    def _leave(self) -> None:
        if self._is_fed:
            self.feed.remove(self)

    def _format_end(self) -> str:
        """Return why its session ended, with the next step; empty where it was closed as asked."""
        ended = self.session.ended if isinstance(self.session, Session) else None
        return "" if ended is None or ended.code in (1000, 1005) else format_error(ended)

    # --- hooks of a widget; all are called on the background loop -----------------------------------------------------

    def _on_session(self, source: Session | EventLog) -> None:
        """Forget everything: another session begins."""

    def _on_replaced(self) -> None:
        """Leave the session: a newer widget of this kind follows it."""
        self.session = None

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        """Take the next rows of the log, redacted."""

    def _on_played(self) -> None:
        """Take note that `session.playback` has moved on without a new row: a speaker reported, or playing ended."""

    def _on_end(self) -> None:
        """Take note that the session is closed, after all of its rows."""

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Answer:
        """Handle a message of a page; the result is the reply.

        Reply to play {start_ms, length_ms} with {held_from_ms} and the clip, 16-bit at 24 kHz: empty where no audio is
        held.
        """
        if not self._is_fed:
            return {"error": "There is no session yet."}
        timeline, start_ms = self.feed.timeline, float(header["start_ms"])
        length_ms = min(_CLIP_MS, header["length_ms"]) if start_ms >= timeline.dropped_ms else 0
        return {"held_from_ms": timeline.dropped_ms}, [timeline.clip(start_ms, length_ms).tobytes()]

    def _on_page(self, page_id: str, change: str) -> None:
        """Handle a page that ``"joined"`` (show it everything) or ``"left"``."""
