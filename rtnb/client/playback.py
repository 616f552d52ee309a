"""Playback bookkeeping: how much of each assistant item was generated, received, and played.

When the user interrupts an answer, the model must forget the words that were not played: the client sends
`conversation.item.truncate` with the milliseconds that were. The source of that number depends on who plays:

- A speaker widget reports it (`Playback.report_played`), per item. At the moment of a cut, the audio that it has played
  since its last report is added.
- An item that no speaker reports is played by a virtual speaker: every delta from its arrival on, one after the other,
  in real time. Set `assume_real_time` to False in batch work without a listener: then all that arrived counts.
- Over WebRTC the service plays, and its own events carry the times (`ServicePlayback`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rtnb.protocol import events

if TYPE_CHECKING:
    import pandas as pd

AHEAD_MS: Final = 200.0
"""Most audio that a speaker is taken to have played since its last report (chosen: it reports every 40 to 100 ms)."""

MAX_ITEMS: Final = 1_000
"""Items whose playback is kept; the oldest are forgotten first (chosen: hours of conversation)."""


@dataclass(eq=False, slots=True)
class _Track:
    """The playback of one item; times in ms of its audio."""

    item_id: str
    response_id: str
    content_index: int
    generated_ms: float = 0.0
    received_ms: float = 0.0
    reported_ms: float | None = None
    """The newest report of a speaker; None without one."""
    spans: list[list[float]] = field(default_factory=list)
    """When the virtual speaker plays it: [start_s, stop_s]."""
    complete: bool = False
    """Whether the service announced the end of its audio."""
    cut_ms: int | None = None
    """Where it was cut; None while it is whole."""


class Playback:
    """Playback of each item over WebSocket.

    Parameters
    ----------
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.assume_real_time = True
        """Without a speaker: True plays in real time, False counts all that arrived as played."""
        self._clock = clock
        self._tracks: dict[str, _Track] = {}
        self.newest: tuple[_Track, float] | None = None
        """The item that a speaker plays now, and the time of its report."""
        self._free_s = float("-inf")
        self._cut_responses: set[str] = set()
        self._flushers: list[Callable[[], object]] = []

    # --- what arrives and what is played ------------------------------------------------------------------------------

    def received(self, delta: events.ResponseOutputAudioDelta, audio_ms: float, arrived_s: float) -> None:
        """Add received audio. What arrives after the item was cut is not played."""
        track = self._tracks.get(delta.item_id)
        if track is None:
            track = _Track(delta.item_id, delta.response_id, delta.content_index or 0)
            track.cut_ms = 0 if delta.response_id in self._cut_responses else None
            self._add(track)
        track.generated_ms += audio_ms
        if track.cut_ms is not None:
            return
        track.received_ms += audio_ms
        start_s = self._free_s if self._free_s > arrived_s else arrived_s
        self._free_s = start_s + audio_ms / 1000
        if track.spans and track.spans[-1][1] >= start_s:
            track.spans[-1][1] = self._free_s
        else:
            track.spans.append([start_s, self._free_s])

    def _add(self, track: _Track) -> None:
        while len(self._tracks) >= MAX_ITEMS:
            del self._tracks[next(iter(self._tracks))]
        self._tracks[track.item_id] = track

    def complete(self, item_id: str) -> None:
        """Note that no more audio of an item will arrive."""
        if (track := self._tracks.get(item_id)) is not None:
            track.complete = True

    def observe(self, event: Any, at_s: float) -> None:
        """Take an event about the service's own playback: there is none over WebSocket."""

    def report_played(self, item_id: str, played_ms: float) -> None:
        """Take a speaker's report: how much of an item it has played. Unknown items are ignored."""
        track = self._tracks.get(item_id)
        if track is not None and (track.reported_ms is None or played_ms > track.reported_ms):
            self.newest = track, self._clock()
            track.reported_ms = float(played_ms)

    def on_flush(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` whenever audio that is not played yet must be thrown away.

        Returns
        -------
        callable
            Removes the callback.
        """
        self._flushers.append(callback)
        return lambda: self._flushers.remove(callback)

    # --- what was played ----------------------------------------------------------------------------------------------

    def _played_ms(self, track: _Track) -> float:
        if track.reported_ms is not None:
            return track.reported_ms
        if not self.assume_real_time:
            return track.received_ms
        now_s = self._clock()
        if track.spans and now_s >= track.spans[-1][1]:
            return track.received_ms  # the sum of the spans, without its rounding
        # Rounded to a microsecond: 0.3 s of playing is 300 ms in spite of binary fractions.
        return round(1000 * sum(max(0.0, min(now_s, stop_s) - start_s) for start_s, stop_s in track.spans), 3)

    def _heard_ms(self, track: _Track) -> int:
        if track.cut_ms is not None:
            return track.cut_ms
        return int(min(self._played_ms(track), track.received_ms))

    def _heard_by_now_ms(self, track: _Track) -> int:
        """Return what was played, with the audio that a speaker has played since its last report."""
        if self.newest is None or self.newest[0] is not track:
            return self._heard_ms(track)
        since_ms = min(1000 * (self._clock() - self.newest[1]), AHEAD_MS)
        return int(min((track.reported_ms or 0.0) + since_ms, track.received_ms))

    def heard_ms(self, item_id: str) -> int:
        """Return how much of an item was played: ``min(played, received)``, whole ms, rounded down; 0 if unknown."""
        track = self._tracks.get(item_id)
        return 0 if track is None else self._heard_ms(track)

    def unplayed_ms(self, item_id: str) -> float:
        """Return how much received audio of an item is still to be played; 0 for unknown items."""
        track = self._tracks.get(item_id)
        return 0.0 if track is None else max(0.0, track.received_ms - self._played_ms(track))

    def is_cut(self, item_id: str) -> bool:
        """Return whether the rest of an item was thrown away: no more of it is to be played."""
        track = self._tracks.get(item_id)
        return track is not None and track.cut_ms is not None

    @property
    def playing(self) -> bool:
        """True while received audio is being played."""
        return any(track.cut_ms is None and self._unheard(track) for track in tuple(self._tracks.values()))

    def _unheard(self, track: _Track) -> bool:
        return self._played_ms(track) < track.received_ms

    def flush(self, *, growing: Iterable[str] = ()) -> list[tuple[str, int, int]]:
        """Throw away what is not played yet.

        Parameters
        ----------
        growing : iterable of str, default ()
            Ids of responses in progress: what still arrives of them is thrown away too.

        Returns
        -------
        list of (item_id, content_index, heard_ms)
            The new end of each item that loses audio: to be truncated. A fully played item is not among them.
        """
        self._cut_responses = set(growing)  # earlier ones have ended: nothing arrives of them any more
        cut = []
        for track in self._tracks.values():
            if track.cut_ms is not None:
                continue
            more_comes = not track.complete and track.response_id in self._cut_responses
            if more_comes or self._unheard(track):
                track.cut_ms = self._heard_by_now_ms(track)
                cut.append((track.item_id, track.content_index, track.cut_ms))
        self._free_s = min(self._free_s, self._clock())
        for callback in tuple(self._flushers) if cut else ():
            try:
                callback()
            except Exception as error:  # a speaker's mistake must not end the session
                report = {"message": "a flush callback of the playback failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(report)
        return cut

    # --- display ------------------------------------------------------------------------------------------------------

    def rows(self) -> list[tuple[str, str, float, float, float, int, bool]]:
        """Return the rows of `heard`, each with its item_id first."""
        tracks = tuple(self._tracks.values())
        ends = [(self._arrived_ms(t), self._shown_ms(t), self._heard_ms(t), t.cut_ms is not None) for t in tracks]
        return [(t.item_id, t.response_id, t.generated_ms, *end) for t, end in zip(tracks, ends, strict=True)]

    def heard(self) -> pd.DataFrame:
        """Return the playback of each item as a table.

        Returns
        -------
        pandas.DataFrame
            One row per assistant item with audio: response_id, generated_ms (the service sent), received_ms (taken
            for playing), played_ms (left the loudspeaker), heard_ms (counts for truncation), truncated (bool).
        """
        import pandas as pd

        columns = ["item_id", "response_id", "generated_ms", "received_ms", "played_ms", "heard_ms", "truncated"]
        return pd.DataFrame(self.rows(), columns=columns).set_index("item_id")

    def _arrived_ms(self, track: _Track) -> float:
        return track.received_ms

    def _shown_ms(self, track: _Track) -> float:
        if track.reported_ms is None and track.cut_ms is not None:
            return float(track.cut_ms)
        return self._played_ms(track)

    def __repr__(self) -> str:
        reported = any(track.reported_ms is not None for track in tuple(self._tracks.values()))
        how = "reported by a speaker" if reported else "in real time" if self.assume_real_time else "at once"
        return f"<Playback: {len(self._tracks)} items, played {how}>"


class ServicePlayback(Playback):
    """Playback of each item over WebRTC, where the service plays.

    The audio goes over the media track in real time, so per item:

    - *received* and *played* are the time from `output_audio_buffer.started` to ``stopped`` or ``cleared`` (or now) on
      this computer's clock. The page's jitter buffer, some 50 ms, comes after that.
    - *heard* is the same, or what the service kept (`conversation.item.truncated`): the model remembers that.
    - *generated* is known once the item was played to its end. It is NaN where it was cut: the service does not report
      how much more it had.
    """

    def observe(self, event: Any, at_s: float) -> None:
        """Follow the service: it announces the audio of an item, plays it, stops or clears it, and cuts the item."""
        if isinstance(event, events.ResponseContentPartAdded):
            if event.part.type == "audio" and event.item_id not in self._tracks:
                added = _Track(event.item_id, event.response_id, event.content_index or 0, generated_ms=math.nan)
                self._add(added)
        elif isinstance(event, events.ConversationItemTruncated):
            if event.item_id in self._tracks:
                self._tracks[event.item_id].cut_ms = event.audio_end_ms
        elif (track := self._of(event.response_id)) is not None:
            playing = self._unheard(track)
            if playing and not isinstance(event, events.OutputAudioBufferStarted):
                self._stop(track, at_s, cleared=isinstance(event, events.OutputAudioBufferCleared))
            elif not playing and isinstance(event, events.OutputAudioBufferStarted):
                track.spans.append([at_s, math.inf])

    def _stop(self, track: _Track, at_s: float, *, cleared: bool) -> None:
        track.spans[-1][1] = at_s
        track.received_ms = round(1000 * sum(stop_s - start_s for start_s, stop_s in track.spans), 3)
        track.complete = True
        if not cleared:
            track.generated_ms = track.received_ms
        elif track.cut_ms is None:
            track.cut_ms = int(track.received_ms)

    def flush(self, *, growing: Iterable[str] = ()) -> list[tuple[str, int, int]]:
        """Return the items that play now, and how much of each was played; the service stops them."""
        playing = [track for track in self._tracks.values() if self._unheard(track)]
        return [(track.item_id, track.content_index, self._heard_ms(track)) for track in playing]

    def _of(self, response_id: str) -> _Track | None:
        """Return the item of a response that plays; of several, the one announced last."""
        return next((t for t in reversed(self._tracks.values()) if t.response_id == response_id), None)

    def _unheard(self, track: _Track) -> bool:
        return bool(track.spans) and track.spans[-1][1] == math.inf

    def _heard_ms(self, track: _Track) -> int:
        return int(self._played_ms(track)) if track.cut_ms is None else track.cut_ms

    _shown_ms = _arrived_ms = Playback._played_ms

    def __repr__(self) -> str:
        return f"<Playback: {len(self._tracks)} items, played by the service>"
