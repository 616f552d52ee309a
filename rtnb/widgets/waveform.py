"""`Waveform`: what was sent and what came, on one time axis, while it happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from traitlets import Float, Int, observe

from rtnb.analysis.decimate import BinTrack, min_max
from rtnb.client import Session
from rtnb.client.log import EventLog, LogRow
from rtnb.widgets._base import bundle
from rtnb.widgets._session_view import SessionView
from rtnb.widgets._timeline import Lane, Piece, Stretch, Timeline

BIN_MS: Final = 2
"""What one bin stands for: 48 samples at 24 kHz, 16 at 8 kHz. 3.6 MB per side and hour."""

_LANES: Final[tuple[Lane, Lane]] = ("you", "model")
_CLIP_MS: Final = 60_000  # the most one click plays: 2.9 MB
_AT_ONCE: Final = 500_000  # bins per frame (2 MB) when a page is shown what was before


class Waveform(SessionView):
    """The audio of a session as it grows: both sides, what was taken for speech, the responses, the playback.

    Click selects a moment, double click (or Enter) plays from there, the wheel zooms, dragging moves.

    Parameters
    ----------
    session : Session or EventLog, optional
        What to show; a log that was loaded from a file is shown (and played) like a living session.
    """

    _esm = bundle("waveform.js")

    selected_ms = Float(None, allow_none=True, help="The selected moment, ms since the first event.").tag(sync=True)
    selected_index = Int(None, allow_none=True, help="The last event at or before it: its index in the log.").tag(
        sync=True
    )

    def __init__(self, session: Session | EventLog | None = None, **traits: Any) -> None:
        self._forget()
        super().__init__(session, **traits)

    def _forget(self) -> None:
        self._timeline = Timeline()
        self._bins = {lane: BinTrack() for lane in _LANES}
        self._cursor_ms: float | None = None

    def _on_session(self, source: Session | EventLog) -> None:
        self._forget()
        self._stream.publish("reset", {"bin_ms": BIN_MS})

    # --- to the page --------------------------------------------------------------------------------------------------

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        pieces = [piece for row in rows if (piece := self._timeline.add(row)) is not None and len(piece.samples)]
        if pieces:
            self._stream.publish_batch("bins", [self._drawn(piece) for piece in pieces])
        self._publish_marks(self._timeline.touched)
        self._timeline.touched = {}

    def _idle(self) -> None:
        self._publish_marks({})

    def _drawn(self, piece: Piece) -> tuple[dict[str, Any], list[bytes]]:
        """A piece as bins; the first is shared with the piece before where it does not begin on the grid."""
        index, size = int(piece.start_ms // BIN_MS), piece.rate_hz * BIN_MS // 1000
        first = size - round((piece.start_ms - index * BIN_MS) * piece.rate_hz / 1000) or size
        bins = np.concatenate([min_max(part, samples_per_bin=size) for part in np.split(piece.samples, [first])])
        track = self._bins[piece.lane]
        if first < size and index < len(track):
            before = track.read(index, index + 1)[0]
            bins[0] = min(bins[0, 0], before[0]), max(bins[0, 1], before[1])
        track.write(index, bins)
        return {"lane": piece.lane, "index": index}, [bins.tobytes()]

    def _publish_marks(self, touched: dict[str, Stretch]) -> None:
        """What is not audio; `touched` alone, so that the cost does not grow with the session."""
        cursor_ms = self._playing_at(self._session) if isinstance(self._session, Session) else None
        if touched or cursor_ms != self._cursor_ms:
            self._cursor_ms = cursor_ms
            now_ms = self._timeline.row_ms[-1] if self._timeline.row_ms else 0.0
            marks = {key: dataclasses.asdict(stretch) for key, stretch in touched.items()}
            self._stream.publish("marks", {"marks": marks, "now_ms": now_ms, "cursor_ms": cursor_ms})

    def _playing_at(self, session: Session) -> float | None:
        """Where the playback is on the axis, None while nothing plays."""
        at_ms = None
        for item_id, item in reversed(self._timeline.items.items()):
            if item.audio_ms:
                heard_ms = session.playback.heard_ms(item_id)
                if item.heard_ms is not None or heard_ms >= int(item.audio_ms):
                    break
                at_ms = item.start_ms + heard_ms
        return at_ms

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self._stream.publish("reset", {"bin_ms": BIN_MS})
            for lane, track in self._bins.items():
                for index in range(0, len(track), _AT_ONCE):
                    part = track.read(index, index + _AT_ONCE)
                    self._stream.publish("bins", {"lane": lane, "index": index}, [part.tobytes()])
            self._publish_marks(self._timeline.everything())

    # --- from the page ------------------------------------------------------------------------------------------------

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any] | None:
        if kind == "play":
            clip = self._timeline.clip(header["start_ms"], _CLIP_MS)
            self._stream.publish("clip", {"view": header["view"], "start_ms": header["start_ms"]}, [clip.tobytes()])
        return None

    @observe("selected_ms")
    def _find_index(self, change: Any) -> None:
        rows, index = self._timeline.row_ms, self.selected_index
        if change.new is None:
            self.selected_index = None
        elif index is None or index >= len(rows) or rows[index] != change.new:  # else the index came first
            self.selected_index = self._timeline.index_at(change.new)

    @observe("selected_index")
    def _find_ms(self, change: Any) -> None:
        rows, selected_ms = self._timeline.row_ms, self.selected_ms
        known = change.new is not None and 0 <= change.new < len(rows)
        if known and (selected_ms is None or self._timeline.index_at(selected_ms) != change.new):
            self.selected_ms = rows[change.new]
