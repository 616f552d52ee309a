"""`Speaker`: plays the audio of the responses on the page and reports to the session what was played.

Audio goes to the page when it arrives. The page buffers a little before it begins: 200 ms, 100 ms after three answers
that arrived at least twice as fast as they play, more where the page is slow. It plays without gaps, and reports the
samples it played of each item. So an interrupted response is cut where the listener heard it end.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from traitlets import Bool, Float, Int, Unicode

from rtnb._loop import shared_loop
from rtnb.audio import Resampler, encode_pcm16
from rtnb.client import EventLog, LogRow, Session
from rtnb.protocol import events
from rtnb.widgets._base import bundle
from rtnb.widgets._session_view import SessionView

RATE_HZ: Final = 24_000
"""Rate of the page's player; G.711 is resampled here."""
STALE_S: Final = 5.0
"""Audio that waited longer for a page is not played any more (chosen: a page needs 1 to 3 s to load)."""
WAITING_BYTES: Final = 4 * 2**20
"""Most audio that waits for a page, 87 s; above it the oldest is dropped (chosen)."""

Packet = tuple[dict[str, Any], list[bytes]]

_END: Final[Packet] = ({"item": "", "end": True}, [b""])


class Speaker(SessionView):
    """Player of a session's responses.

    Parameters
    ----------
    session : Session, optional
        Session to play; it may live on any event loop. A session has one speaker, the newest.
    volume : float, default 1.0
        0 (silent) to 1 (unchanged).
    muted : bool, default False
        Plays on in silence: audio that is played muted counts as played.
    """

    _accepts = (Session,)
    _takes_old_rows = False
    _only = "speaker"

    volume = Float(1.0, min=0.0, max=1.0, help="0 to 1.").tag(sync=True)
    muted = Bool(False, help="Silent, but playing on.").tag(sync=True)
    worklet = Unicode(bundle("speaker_worklet.js")).tag(sync=True)
    state = Unicode("no page", help="no page, starting, idle, playing, blocked, elsewhere, insecure or refused.")
    problem = Unicode("", help="Reason why there is no sound.")
    gaps = Int(0, help="Number of times the page had nothing to play in the middle of a response.")
    buffer_ms = Int(200, help="Audio the page waits for before it plays; it adapts, up to 600 ms.")

    def __init__(self, session: Session | None = None, **traits: Any) -> None:
        self._item = ""  # the item that is resampled now
        self._begun = ""  # the item that the page plays last
        self._resampler = Resampler(from_rate_hz=RATE_HZ, to_rate_hz=RATE_HZ)
        self._waiting: deque[tuple[float, Packet]] = deque()
        self._silent_until = 0
        """Rows of the log before this one are not played."""
        self._end_hook: Callable[[], None] | None = None
        super().__init__(session, **traits)

    def _on_session(self, source: Session | EventLog) -> None:
        assert isinstance(source, Session)  # see _accepts
        log = source.log
        self._silent_until = log.next_number
        self._end_hook = source.playback.on_flush(lambda: shared_loop().call_soon(self._flush, source, log.next_number))
        self._note_page()

    def _unfollow(self) -> None:
        super()._unfollow()
        if self._end_hook is not None:
            self._end_hook()
            self._end_hook = None
            shared_loop().call_if_running(self._left)

    def _left(self) -> None:
        self._send_flush()
        self.feed.report_played(None)

    # --- to the page --------------------------------------------------------------------------------------------------

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        packets = [self._packet(row) for row in rows if row.number >= self._silent_until]
        self._ship([packet for packet in packets if packet is not None])

    def _packet(self, row: LogRow) -> Packet | None:
        event: Any = row.event
        if isinstance(event, events.ResponseDone):
            return _END  # where audio.done was lost
        if not isinstance(event, events.ResponseOutputAudioDelta | events.ResponseOutputAudioDone):
            return None
        assert isinstance(self._session, Session)
        item_id, piece = event.item_id, self.feed.pieces.get(row.number)
        is_cut = self._session.playback.is_cut(item_id)
        if isinstance(event, events.ResponseOutputAudioDone):
            rest = b"" if is_cut or item_id != self._item else encode_pcm16(self._resampler.flush())
            return {"item": item_id, "end": True}, [rest]
        if piece is None or is_cut:
            return None
        if item_id != self._item:
            self._item, self._resampler = item_id, Resampler(from_rate_hz=piece.form.rate_hz, to_rate_hz=RATE_HZ)
        return {"item": item_id}, [encode_pcm16(self._resampler.process(self.feed.timeline.decoded(piece)))]

    def _ship(self, packets: list[Packet]) -> None:
        """Send packets to the page; without one they wait, for `STALE_S` and up to `WAITING_BYTES`."""
        if self._stream.joined:
            for item_id in {header["item"] for header, _ in packets} - {self._begun, ""}:
                self._begun = item_id
                self._report({item_id: 0}, 0.0)  # from now on only what the page reports was played
            for packet in packets:
                self._stream.publish("audio", *packet)
            return
        self._waiting += [(time.monotonic(), packet) for packet in packets]
        self._drop_stale()

    def _drop_stale(self) -> None:
        excess_bytes = sum(len(pcm) for _, (_, (pcm,)) in self._waiting) - WAITING_BYTES
        while self._waiting and (excess_bytes > 0 or self._waiting[0][0] < time.monotonic() - STALE_S):
            excess_bytes -= len(self._waiting.popleft()[1][1][0])

    def _flush(self, session: Session, rows: int) -> None:
        """Take note that the first `rows` rows of the log are not to be played any more."""
        if session is self._session:
            self._silent_until = rows
            self._send_flush()

    def _send_flush(self) -> None:
        self._waiting.clear()
        self._item = ""
        self._stream.publish("flush", {})

    def _on_end(self) -> None:
        self._ship([_END])

    # --- from the page ------------------------------------------------------------------------------------------------

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self._drop_stale()
            waiting, self._waiting = self._waiting, deque()
            self._ship([packet for _, packet in waiting])
        if not self._stream.joined:
            self.state = "no page"
        self._note_page()

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> None:
        if kind == "state":
            self.state, self.problem = header["state"], header["problem"]
            self._note_page()
        elif kind == "flushed":
            self._report(header["items"], 0.0)
        elif kind == "played":
            self.state, self.gaps, self.buffer_ms = header["state"], header["gaps"], round(header["target_ms"])
            self._report(header["items"], header["latency_ms"] / 1000)  # heard only when it leaves the loudspeaker

    def _report(self, items: dict[str, int], later_s: float) -> None:
        """Report samples played per item to the playback, which belongs to the loop of its session."""
        if isinstance(self._session, Session):
            asyncio.get_running_loop().call_later(later_s, self._hand_over, self._session, items)

    def _hand_over(self, session: Session, items: dict[str, int]) -> None:
        def report() -> None:
            for item_id, samples in items.items():
                session.playback.report_played(item_id, 1000 * samples / RATE_HZ)
            shared_loop().call_soon(self._note_page)

        if not session.loop.is_closed():
            session.loop.call_soon_threadsafe(report)

    def _note_page(self) -> None:
        if self._is_fed:
            self.feed.report_played(self.state == "playing" if self._stream.joined else None)
