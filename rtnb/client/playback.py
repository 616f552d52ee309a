"""What was heard: how much of each item was generated, arrived, and left the loudspeaker.

When the user speaks into an answer, the model must forget the words nobody heard: the client sends
`conversation.item.truncate` with the milliseconds that were played. Who plays decides how many those are:

- A speaker reports them (`Playback.report_played`); from the first report on, only reports count, and at the moment
  of a cut what it has gone on to play since the last one.
- Without a speaker, a virtual one is assumed: it plays every delta from its arrival on, one after the other, in real
  time. Set `assume_real_time` to False where nobody listens (batch work): then all that arrived counts as heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from rtnb.client.response import Delta

if TYPE_CHECKING:
    import pandas as pd

AHEAD_MS: Final = 200.0
"""How much a speaker is believed to have played since its last report (chosen: it reports every 40 to 100 ms)."""


class _Track:
    """The playback of one item."""

    __slots__ = (
        "complete",
        "content_index",
        "flushed",
        "generated_ms",
        "item_id",
        "played_ms",
        "received_ms",
        "response_id",
        "spans",
    )

    def __init__(self, item_id: str, response_id: str, content_index: int) -> None:
        self.item_id = item_id
        self.response_id = response_id
        self.content_index = content_index
        self.generated_ms = 0.0
        self.received_ms = 0.0
        self.played_ms = 0.0
        self.spans: list[list[float]] = []
        """When the virtual speaker plays it: [start_s, stop_s]."""
        self.complete = False
        """Whether the service said that no more audio comes."""
        self.flushed: int | None = None
        """What was heard when it was cut, in ms; None while it is whole."""


class Playback:
    """How much of each item was heard.

    Parameters
    ----------
    clock : callable
        Monotonic time in seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.assume_real_time = True
        """Without a speaker: True plays on a virtual one in real time, False counts all that arrived as heard."""
        self._clock = clock
        self._tracks: dict[str, _Track] = {}
        self._reported = False
        self._newest: tuple[_Track, float] | None = None
        """What a speaker plays now, and when it said so."""
        self._free_s = float("-inf")
        self._cut_responses: set[str] = set()
        self._flushers: list[Callable[[], object]] = []

    # --- what arrives and what is played ------------------------------------------------------------------------------

    def received(self, delta: Delta, audio_ms: float, arrived_s: float, response_id: str) -> None:
        """So much audio of an item arrived. What comes after the item was cut is not played."""
        track = self._tracks.get(delta.item_id)
        if track is None:
            track = self._tracks[delta.item_id] = _Track(delta.item_id, response_id, delta.content_index)
            track.flushed = 0 if response_id in self._cut_responses else None
        track.generated_ms += audio_ms
        if track.flushed is not None:
            return
        track.received_ms += audio_ms
        start_s = self._free_s if self._free_s > arrived_s else arrived_s
        self._free_s = start_s + audio_ms / 1000
        if track.spans and track.spans[-1][1] >= start_s:
            track.spans[-1][1] = self._free_s
        else:
            track.spans.append([start_s, self._free_s])

    def complete(self, item_id: str) -> None:
        """No more audio of an item will come."""
        track = self._tracks.get(item_id)
        if track is not None:
            track.complete = True

    def report_played(self, item_id: str, played_ms: float) -> None:
        """A speaker says how much of an item left the loudspeaker so far; unknown items are ignored."""
        self._reported = True
        track = self._tracks.get(item_id)
        if track is not None:
            if played_ms > track.played_ms:
                self._newest = track, self._clock()
            track.played_ms = max(track.played_ms, float(played_ms))

    def on_flush(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` whenever what is not played yet must be thrown away.

        Returns
        -------
        callable
            Ends it.
        """
        self._flushers.append(callback)
        return lambda: self._flushers.remove(callback)

    # --- what was heard -----------------------------------------------------------------------------------------------

    def _heard_ms(self, track: _Track) -> int:
        if track.flushed is not None:
            return track.flushed
        return int(min(self._played_ms(track), track.received_ms))

    def _played_ms(self, track: _Track) -> float:
        if self._reported:
            return track.played_ms
        if not self.assume_real_time:
            return track.received_ms
        now_s = self._clock()
        if track.spans and now_s >= track.spans[-1][1]:
            return track.received_ms  # the sum of the spans, without its rounding
        # Rounded to a microsecond: 0.3 s of playing is 300 ms, whatever binary fractions say.
        return round(1000 * sum(max(0.0, min(now_s, stop_s) - start_s) for start_s, stop_s in track.spans), 3)

    def _heard_by_now_ms(self, track: _Track) -> int:
        """What was heard, with what a speaker has gone on to play since its last report."""
        if self._newest is None or self._newest[0] is not track:
            return self._heard_ms(track)
        since_ms = min(1000 * (self._clock() - self._newest[1]), AHEAD_MS)
        return int(min(track.played_ms + since_ms, track.received_ms))

    def heard_ms(self, item_id: str) -> int:
        """How much of an item was heard: ``min(played, received)`` in whole ms, rounded down; 0 for unknown items."""
        track = self._tracks.get(item_id)
        return 0 if track is None else self._heard_ms(track)

    def is_cut(self, item_id: str) -> bool:
        """Whether what was not played of an item was thrown away: nothing more of it is to be played."""
        track = self._tracks.get(item_id)
        return track is not None and track.flushed is not None

    @property
    def playing(self) -> bool:
        """Whether audio that arrived is not played to its end yet."""
        return any(track.flushed is None and self._unheard(track) for track in self._tracks.values())

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
            Where each item that loses audio ends now: to be truncated. An item heard to its end is not among them.
        """
        self._cut_responses.update(growing)
        cut = []
        for track in self._tracks.values():
            if track.flushed is not None:
                continue
            more_comes = not track.complete and track.response_id in self._cut_responses
            if more_comes or self._unheard(track):
                track.flushed = self._heard_by_now_ms(track)
                cut.append((track.item_id, track.content_index, track.flushed))
        self._free_s = min(self._free_s, self._clock())
        for callback in tuple(self._flushers) if cut else ():
            try:
                callback()
            except Exception as error:  # a speaker's mistake must not end the session
                report = {"message": "a flush callback of the playback failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(report)
        return cut

    def rows(self) -> list[tuple[str, str, float, float, float, int, bool]]:
        """The rows of `heard`, each with its item_id before it."""
        return [
            (
                t.item_id,
                t.response_id,
                t.generated_ms,
                self._arrived_ms(t),
                self._shown_ms(t),
                self._heard_ms(t),
                t.flushed is not None,
            )
            for t in tuple(self._tracks.values())
        ]

    def heard(self) -> pd.DataFrame:
        """Return what became of each item's audio.

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
        return float(track.flushed) if track.flushed is not None and not self._reported else self._played_ms(track)

    def __repr__(self) -> str:
        how = "reported by a speaker" if self._reported else "in real time" if self.assume_real_time else "at once"
        return f"<Playback: {len(self._tracks)} items, played {how}>"
