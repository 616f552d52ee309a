"""Audio of a trace on its one clock: `Track`, and `Layout`, which places the audio of the events.

The user's audio ends when it was sent. An answer's audio is played from its arrival on, one piece after the other
(`Timeline`). The track *heard* ends an item where a truncation cut it; the track *model* keeps the rest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from rtnb.audio import RATE_HZ, Audio, Codec, resample
from rtnb.client.log import LogRow
from rtnb.errors import TraceError
from rtnb.trace.file import TraceFile
from rtnb.trace.timeline import CARRIERS, Lane, Piece, Timeline, audio_of

LONGEST_MS: Final = 7 * 24 * 3_600_000.0
"""Longest trace that is laid out (chosen: a week; the clock of a damaged file can claim more)."""
_MARGIN: Final = 160
"""Samples at 8 kHz beside a part that is resampled: 20 ms, longer than the filter, so that parts join smoothly."""


class Layout(Timeline):
    """Places the audio of a trace; feed it every row. The samples of its pieces are the places of their bytes.

    Each place is a range: ``range(4800, 9600, 2)`` is 2,400 samples of 16 bits. It is negative for audio that is lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.received: list[Piece] = []
        """Audio of the model with the parts that were not heard."""
        self._ends: dict[Lane, int] = {"you": 0, "model": 0}
        """Bytes of each side so far."""

    def add(self, row: LogRow) -> Piece | None:
        """Lay out one row and return its audio."""
        piece = super().add(row)
        if self.now_ms > LONGEST_MS:
            hours = self.now_ms / 3_600_000
            raise TraceError(f"event {row.number} lies {hours:,.0f} hours after the first; allowed are 168")
        return piece

    def _samples(self, row: LogRow, form: Codec) -> range:
        lane, _ = CARRIERS[type(row.event)]
        item_id, size = getattr(row.event, "item_id", ""), form.bytes_per_sample
        n_bytes = row.audio_dropped_bytes or len(audio_of(row.event))
        start = -n_bytes - 2 if row.audio_dropped_bytes else self._ends[lane]
        stop = start + n_bytes
        self._ends[lane] = max(self._ends[lane], stop)
        before = (self.received if lane == "model" else self.pieces[lane])[-1:]
        goes_on = bool(before) and before[0].item_id == item_id
        if goes_on and before[0].samples.stop == start - 1:  # the other half of a sample
            start -= 1
        samples = range(start, stop - (stop - start) % size, size)
        if lane == "model":
            start_ms = max(self.now_ms, before[0].stop_ms) if goes_on else self.now_ms
            _join(self.received, Piece("model", start_ms, samples, form, item_id))
        return samples

    def _kept(self, piece: Piece) -> Piece:
        _join(self.pieces[piece.lane], piece)
        return piece


def _join(pieces: list[Piece], piece: Piece) -> None:
    """Append a piece, or lengthen the last one where it goes on with it."""
    last, samples = pieces[-1] if pieces else piece, piece.samples
    same = last.form is piece.form and last.item_id == piece.item_id and last.samples.stop == samples.start
    if pieces and same and abs(last.stop_ms - piece.start_ms) < 0.01:
        last.samples = range(last.samples.start, samples.stop, samples.step)
    else:
        pieces.append(piece)


class Track:
    """Audio of one side on the clock of a trace, read in parts; silence where there is none.

    ``track.read(1000, 2000)`` is the second second; ``track[a:b]`` counts samples; ``np.asarray(track)`` is all of it.

    Examples
    --------
    >>> track = Track(None, (), duration_ms=100.0)
    >>> track, track.read(0, 50).shape, np.asarray(track).shape
    (<Track 0.1 s at 24 kHz, 0.0 s of audio>, (1200,), (2400,))
    """

    rate_hz = RATE_HZ

    def __init__(
        self,
        file: TraceFile | None,
        pieces: Sequence[Piece],
        *,
        duration_ms: float,
        zero_ms: float = 0.0,
        starts_ms: Mapping[str, float] | None = None,
    ) -> None:
        self._file: Any = file
        self._n_samples = round(duration_ms * RATE_HZ / 1000)
        self._placed: list[tuple[int, int, Piece]] = []
        """First sample, the one after the last, and the piece, in order."""
        late_ms: dict[str, float] = {}
        for piece in pieces:
            if starts_ms and piece.item_id in starts_ms:  # a speaker reported when it began to play this item
                late_ms.setdefault(piece.item_id, starts_ms[piece.item_id] - piece.start_ms)
            start = round((piece.start_ms + late_ms.get(piece.item_id, 0.0) - zero_ms) * RATE_HZ / 1000)
            self._placed.append((start, start + len(piece.samples) * RATE_HZ // piece.rate_hz, piece))
        self._placed.sort(key=lambda one: one[0])
        self._longest = max((stop - start for start, stop, _ in self._placed), default=0)

    def __len__(self) -> int:
        return self._n_samples

    @property
    def spans_ms(self) -> list[tuple[float, float]]:
        """Start and stop of each stretch that has audio, ms."""
        return [(1000 * start / RATE_HZ, 1000 * stop / RATE_HZ) for start, stop, _ in self._placed]

    def read(self, start_ms: float = 0.0, stop_ms: float | None = None) -> Audio:
        """Return a part of the track.

        Parameters
        ----------
        start_ms, stop_ms : float
            On the clock of the trace; None reads to the end.

        Returns
        -------
        audio : ndarray, float32, shape (n_samples,)
            24 kHz.
        """
        stop = None if stop_ms is None else round(stop_ms * RATE_HZ / 1000)
        return self[round(start_ms * RATE_HZ / 1000) : stop]

    def __getitem__(self, part: slice) -> Audio:
        start, stop, step = part.indices(self._n_samples)
        audio = np.zeros(max(0, stop - start), np.float32)
        if self._file is not None:
            self._file.check()
        first = bisect_right(self._placed, start - self._longest - 1, key=lambda one: one[0])
        for begin, end, piece in self._placed[first:]:
            if begin >= stop:
                break
            a, b = max(start, begin), min(stop, end)
            if a < b and piece.samples.start >= 0:
                audio[a - start : b - start] += self._samples(piece, a - begin, b - begin)
        if self._file is not None:
            self._file.release()
        return audio[::step]

    def _samples(self, piece: Piece, start: int, stop: int) -> Audio:
        """Return samples of a piece, counted at 24 kHz."""
        factor = RATE_HZ // piece.rate_hz
        margin = _MARGIN if factor > 1 else 0
        first = max(0, start // factor - margin)
        place = piece.samples[first : -(-stop // factor) + margin]
        audio = piece.form.decode(self._file.audio[piece.lane][place.start : place.stop])
        if factor > 1:
            audio = resample(audio, from_rate_hz=piece.rate_hz, to_rate_hz=RATE_HZ)
        return audio[start - first * factor : stop - first * factor]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self[:].astype(dtype or np.float32, copy=False)

    def __repr__(self) -> str:
        audio_s = sum(stop - start for start, stop, _ in self._placed) / RATE_HZ
        return f"<Track {self._n_samples / RATE_HZ:.1f} s at 24 kHz, {audio_s:.1f} s of audio>"
