"""`Waveform`: time axis of a session with both waveforms, speech turns, responses and the playback position."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from traitlets import Float, Int, observe

from rtnb.client import EventLog, LogRow, Session
from rtnb.trace.timeline import BIN_MS, LANES, Stretch
from rtnb.widgets._session_view import SessionView


class Waveform(SessionView):
    """Time axis of a session as it grows: both sides, speech turns, responses, and the playback position.

    A click (or an arrow key) selects a moment; a double click (or Enter) plays from there. Dragging moves the axis,
    + and − (or Ctrl and the wheel) zoom.

    Parameters
    ----------
    session : Session or EventLog, optional
        Session to show; a log that was loaded from a file is shown and played like a living session.
    """

    _takes_old_rows = False

    selected_ms = Float(None, allow_none=True, help="Selected moment, ms since the first event.").tag(sync=True)
    selected_index = Int(None, allow_none=True, help="Number of the last event at or before it.").tag(sync=True)
    height_px = Int(140, min=110, help="Height of the whole widget.").tag(sync=True)

    def _on_session(self, source: Session | EventLog) -> None:
        self._cursor: tuple[float, float] | None = None
        self._publish_snapshot()

    # --- to the page --------------------------------------------------------------------------------------------------

    def _publish_snapshot(self, to: str | None = None) -> None:
        """Send everything to one page or to all."""
        timeline = self.feed.timeline
        self._stream.publish("reset", {"bin_ms": BIN_MS}, to=to)
        for lane in LANES:
            if bins := timeline.bins[lane].read().tobytes():  # 7 MB at most, see AXIS_MS: it fits a frame
                self._stream.publish("bins", {"lane": lane, "index": 0}, [bins], to=to)
        self._publish_marks(timeline.stretches, to)

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        for piece in self.feed.pieces.values():
            index, stop = int(piece.start_ms // BIN_MS), int(piece.stop_ms // BIN_MS) + 1
            part = self.feed.timeline.bins[piece.lane].read(index, stop)
            self._stream.publish("bins", {"lane": piece.lane, "index": index}, [part.tobytes()])
        self._publish_marks(self.feed.timeline.touched)

    def _on_played(self) -> None:
        self._publish_marks({})

    def _publish_marks(self, touched: dict[str, Stretch], to: str | None = None) -> None:
        """Send stretches that changed and the playback position; the cost does not grow with the session."""
        cursor = self._playing(self._session) if isinstance(self._session, Session) else None
        if touched or to or cursor != self._cursor:
            if to is None:
                self._cursor = cursor
            marks = {key: dataclasses.asdict(stretch) for key, stretch in touched.items()}
            header = {"marks": marks, "now_ms": self.feed.timeline.now_ms, "cursor": cursor}
            self._stream.publish("marks", header, to=to)

    def _playing(self, session: Session) -> tuple[float, float] | None:
        """Return the position of the playback and the end of its audio, None while nothing plays.

        The page moves its cursor between two messages: a speaker reports 12 times a second, and without one the audio
        plays in real time.
        """
        playing = None
        for key, item in reversed(self.feed.timeline.stretches.items()):
            if key.startswith("i"):
                heard_ms = session.playback.heard_ms(key[1:])
                if item.heard_ms is not None or heard_ms >= int(item.audio_ms):
                    break
                at_ms = item.start_ms + heard_ms
                playing = at_ms, at_ms if self.feed.speaker_plays is False else item.start_ms + item.audio_ms
        return playing

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined" and self._is_fed:
            self._publish_snapshot(page_id)

    # --- from the page ------------------------------------------------------------------------------------------------

    @observe("selected_ms", "selected_index")
    def _link_selection(self, change: Any) -> None:
        """Set the event of a moment, or the moment of an event; the one that was set first stays as it is."""
        if change.new is None or not self._is_fed:
            self.selected_index = self.selected_index if change.name == "selected_index" else None
            return
        row = None if self.selected_index is None else self.feed.row(self.selected_index)
        at = None if self.selected_ms is None else self.feed.row_at(self.selected_ms)
        if change.name == "selected_ms" and (row is None or self.feed.timeline.ms(row) != change.new):
            self.selected_index = None if at is None else at.number
        elif change.name == "selected_index" and row is not None and (at is None or at.number != row.number):
            self.selected_ms = self.feed.timeline.ms(row)
