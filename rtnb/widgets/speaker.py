"""`Speaker`: plays what the model says, and tells the session what was heard.

Audio goes out as it arrives, not on a timer. The page keeps a small stock before it begins (200 ms, more where the page
stalls), plays without gaps, and reports the samples it played per item, so that an interrupted answer is cut where the
listener heard it end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from traitlets import Bool, Float, Int, Unicode

from rtnb._loop import shared_loop
from rtnb.audio import Resampler, encode_pcm16
from rtnb.client import Session
from rtnb.client.log import EventLog, LogRow
from rtnb.protocol import events
from rtnb.widgets._base import bundle
from rtnb.widgets._frames import now_ms
from rtnb.widgets._session_view import SessionView
from rtnb.widgets._timeline import Decoder

RATE_HZ: Final = 24_000
"""Rate of the page's player; G.711 is decoded and resampled here."""

STALE_MS: Final = 5_000
"""Audio that waited longer for a page is not played any more (chosen: a page needs 1 to 3 s to load)."""

Packet = tuple[dict[str, Any], list[bytes]]

_speakers: WeakKeyDictionary[Session, Speaker] = WeakKeyDictionary()
"""Who plays a session: the newest speaker, so that running a cell again does not play twice."""


class Speaker(SessionView):
    """Plays what the model says.

    Parameters
    ----------
    session : Session, optional
        Whose audio; it may live on any event loop. A session has one speaker, the newest.
    volume : float, default 1.0
        0 (silent) to 1 (as it came).
    muted : bool, default False
        Plays on in silence: what is played muted counts as played.
    """

    _esm = bundle("speaker.js")
    _accepts = (Session,)
    _interval_s = 0.01  # what a delta waits here at most; looking costs microseconds

    volume = Float(1.0, min=0.0, max=1.0, help="0 to 1.").tag(sync=True)
    muted = Bool(False, help="Silent, but playing on.").tag(sync=True)
    worklet = Unicode(Path(__file__).with_name("speaker_worklet.js").read_text(encoding="utf-8")).tag(sync=True)
    state = Unicode("no page", help="no page, starting, idle, playing, blocked (click!), elsewhere, insecure.")
    gaps = Int(0, help="How often the page had nothing to play in the middle of an answer.")
    buffer_ms = Int(200, help="How much the page waits for before it plays; it adapts, up to 600 ms.")
    lead_ms = Float(0.0, help="How much waits on the page.")

    def __init__(self, session: Session | None = None, **traits: Any) -> None:
        self._decoder = Decoder()
        self._resamplers: dict[str, Resampler] = {}
        self._waiting: list[tuple[float, Packet]] = []
        self._silent_until = self._flushes = 0
        """Rows of the log before this one are not played."""
        self._end_hook: Callable[[], None] | None = None
        super().__init__(session, **traits)

    def _on_session(self, source: Session | EventLog) -> None:
        assert isinstance(source, Session)  # see _accepts
        if (other := _speakers.get(source)) is not None and other is not self:
            other.session = None
        _speakers[source] = self
        self._decoder, self._silent_until = Decoder(), source.log.next_number
        log = source.log
        self._end_hook = source.playback.on_flush(lambda: shared_loop().call_soon(self._flush, source, log.next_number))
        if self._stream.pages:
            self._report({"": 0}, 0.0)

    def _unfollow(self) -> None:
        super()._unfollow()
        if self._end_hook is not None:
            self._end_hook()
            self._end_hook = None
            shared_loop().call_soon(self._send_flush)

    # --- to the page --------------------------------------------------------------------------------------------------

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        all_packets = [(row.number, self._packets(row.event)) for row in rows]
        self._ship([packet for number, packets in all_packets if number >= self._silent_until for packet in packets])

    def _packets(self, event: Any) -> list[Packet]:
        heard = self._decoder.samples(event)
        if isinstance(event, events.ResponseOutputAudioDelta) and heard is not None:
            if self._is_cut(event.item_id):
                return []
            samples, rate_hz = heard
            pcm = samples.tobytes()
            if rate_hz != RATE_HZ:
                new = Resampler(from_rate_hz=rate_hz, to_rate_hz=RATE_HZ)
                pcm = encode_pcm16(self._resamplers.setdefault(event.item_id, new).process(samples))
            return [({"item": event.item_id}, [pcm])]
        if isinstance(event, events.ResponseOutputAudioDone):
            resampler = self._resamplers.pop(event.item_id, None)
            rest = b"" if resampler is None or self._is_cut(event.item_id) else encode_pcm16(resampler.flush())
            return [({"item": event.item_id, "end": True}, [rest])]
        if isinstance(event, events.ResponseDone):
            return [({"item": "", "end": True}, [b""])]  # where audio.done was lost
        return []

    def _is_cut(self, item_id: str) -> bool:
        assert isinstance(self._session, Session)
        return self._session.playback.is_cut(item_id)

    def _ship(self, packets: list[Packet]) -> None:
        if self._stream.pages == 0:
            self._waiting += [(now_ms(), packet) for packet in packets]
            self._waiting = [(at, packet) for at, packet in self._waiting if now_ms() - at < STALE_MS]
        elif packets:
            self._stream.publish_batch("audio", packets)

    def _flush(self, session: Session, rows: int) -> None:
        """The first `rows` rows of the log are not to be played any more."""
        if session is self._session:
            self._silent_until = rows
            self._send_flush()

    def _send_flush(self) -> None:
        self._waiting.clear()
        self._resamplers.clear()
        self._flushes += 1
        if self._stream.pages:
            self._stream.publish("flush", {"id": self._flushes})

    def _on_end(self) -> None:
        self._ship([({"item": "", "end": True}, [b""])])

    # --- from the page ------------------------------------------------------------------------------------------------

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self._report({"": 0}, 0.0)  # from now on only what the page reports was heard
            waiting, self._waiting = self._waiting, []
            self._ship([packet for at, packet in waiting if now_ms() - at < STALE_MS])
        if not self._stream.pages:
            self.state = "no page"

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> None:
        if kind == "state":
            self.state = header["state"]
        elif kind == "flushed":
            self._report(header["items"], 0.0)
        elif kind == "played":
            self._report(header["items"], header["latency_ms"] / 1000)  # heard only when it leaves the loudspeaker
            self.state, self.gaps = header["state"], header["gaps"]
            self.buffer_ms, self.lead_ms = round(header["target_ms"]), header["lead_ms"]

    def _report(self, items: dict[str, int], later_s: float) -> None:
        if isinstance(self._session, Session):
            asyncio.get_running_loop().call_later(later_s, self._hand_over, self._session, items)

    def _hand_over(self, session: Session, items: dict[str, int]) -> None:
        loop = session.loop  # the playback belongs to the loop of its session
        for item_id, samples in items.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(session.playback.report_played, item_id, 1000 * samples / RATE_HZ)
