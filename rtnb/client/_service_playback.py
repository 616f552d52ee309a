"""What was heard where the service plays (WebRTC): its own events say when it played, and where it cut an item."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rtnb.client.playback import Playback, _Track


class ServicePlayback(Playback):
    """How much of each item was heard, over WebRTC.

    No piece of audio passes this side: it goes over the track in real time. So, per item:

    - *received* and *played* are the time from `output_audio_buffer.started` to ``stopped`` or ``cleared`` (or now), by
      this computer's clock; the page's jitter buffer, some 50 ms, is behind that, and what it has is played on;
    - *heard* is the same, or what the service says it kept (`conversation.item.truncated`): that is what the model
      remembers;
    - *generated* is known once the item was played to its end, and is not a number where it was cut: the service does
      not say how much more it had.
    """

    def part_added(self, event: Any, arrived_s: float) -> None:
        """A response begins to speak: from here on it is known which item its sound belongs to."""
        if event.part.type == "audio":
            self._tracks[event.item_id] = _Track(event.item_id, event.response_id, event.content_index or 0)
            self._tracks[event.item_id].generated_ms = math.nan

    def started(self, response_id: str, at_s: float) -> None:
        """The service began to play a response."""
        if (track := self._of(response_id)) is not None:
            track.spans.append([at_s, math.inf])

    def stopped(self, response_id: str, at_s: float, *, cleared: bool = False) -> None:
        """All of a response was played, or (`cleared`) the rest was thrown away."""
        track = self._of(response_id)
        if track is None or not self._unheard(track):
            return
        track.spans[-1][1] = at_s
        track.received_ms = round(1000 * sum(stop_s - start_s for start_s, stop_s in track.spans), 3)
        track.complete = True
        if not cleared:
            track.generated_ms = track.received_ms
        elif track.flushed is None:
            track.flushed = int(track.received_ms)

    def truncated(self, item_id: str, audio_end_ms: int) -> None:
        """The service cut an item to what it knows was heard."""
        if (track := self._tracks.get(item_id)) is not None:
            track.flushed = audio_end_ms

    def flush(self, *, growing: Iterable[str] = ()) -> list[tuple[str, int, int]]:
        """Say which items play now, and how much of each was heard; it is the service that stops them."""
        playing = [track for track in self._tracks.values() if self._unheard(track)]
        return [(track.item_id, track.content_index, self._heard_ms(track)) for track in playing]

    def _of(self, response_id: str) -> _Track | None:
        """The item of a response that speaks; where it has several, the last one announced."""
        return next((t for t in reversed(self._tracks.values()) if t.response_id == response_id), None)

    def _unheard(self, track: _Track) -> bool:
        return bool(track.spans) and track.spans[-1][1] == math.inf

    def _heard_ms(self, track: _Track) -> int:
        return int(self._played_ms(track)) if track.flushed is None else track.flushed

    def _shown_ms(self, track: _Track) -> float:
        return self._played_ms(track)

    def _arrived_ms(self, track: _Track) -> float:
        return self._played_ms(track)

    def __repr__(self) -> str:
        return f"<Playback: {len(self._tracks)} items, played by the service>"
