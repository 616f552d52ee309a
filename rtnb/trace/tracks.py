"""Audio of a trace on its one clock: `Track`, and `Layout`, which places the audio of the events.

The user's audio ends when it was sent. An answer's audio is played from its arrival on, one piece after the other
(`Timeline`). The track *heard* ends an item where a truncation cut it; the track *model* keeps the rest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np

from rtnb.audio import Audio, codec, resample
from rtnb.client.log import LogRow
from rtnb.errors import TraceError
from rtnb.protocol.values import AudioFormat
from rtnb.trace.file import Lane, TraceFile
from rtnb.trace.timeline import Piece, Timeline

RATE_HZ: Final = 24_000
"""Rate of every track; G.711 is resampled to it."""
LONGEST_MS: Final = 7 * 24 * 3_600_000.0
"""Longest trace that is laid out (chosen: a week; the clock of a damaged file can claim more)."""
_MARGIN: Final = 160
"""Samples at 8 kHz beside a part that is resampled: 20 ms, longer than the filter, so that parts join without a click."""


@dataclass(frozen=True, slots=True)
class Span:
    """Samples in a raw file; it stands for them where `Timeline` wants an array."""

    lane: Lane
    start: int
    """First byte."""
    length: int
    """Samples."""
    form: str
    item_id: str
    lost: bool

    nbytes = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> Span:
        start, stop, _ = part.indices(self.length)
        size = codec(self.form).bytes_per_sample
        return replace(self, start=self.start + start * size, length=max(0, stop - start))

    def goes_on(self, after: Span) -> bool:
        """Return whether `after` holds the samples that follow."""
        stop = self.start + self.length * codec(self.form).bytes_per_sample
        return after == replace(self, start=0 if self.lost else stop, length=after.length)


class Layout(Timeline):
    """Places the audio of a trace; feed it every row with the bytes of its audio."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[Piece] = []
        """Audio of the model with the parts that nobody heard."""
        self.response_of: dict[str, str] = {}
        """Item id -> response id."""
        self._next: tuple[Lane, int, int, bool] = ("user", 0, 0, False)
        self._received_stop: dict[str, float] = {}
        self._odd: dict[str, int] = {}

    def take(self, row: LogRow, span: tuple[Lane, int, int, bool] | None) -> None:
        """Place a row; `span` is the lane, first byte and bytes of its audio, and whether it is lost."""
        if span is not None:
            self._next = span
        self.add(row)
        if self.now_ms > LONGEST_MS:
            hours = self.now_ms / 3_600_000
            raise TraceError(f"event {row.number} lies {hours:,.0f} hours after the first; allowed are 168")
        if response_id := getattr(row.event, "response_id", None):
            item_id = getattr(row.event, "item_id", None) or getattr(getattr(row.event, "item", None), "id", None)
            if item_id:
                self.response_of[item_id] = response_id

    def _decoded(self, data: bytes, form: AudioFormat, stream: str) -> Any:
        lane, start, n_bytes, lost = self._next
        size = codec(form.type).bytes_per_sample
        if (odd := self._odd.pop(stream, None)) is not None and odd == start - 1:  # the other half of a sample
            start, n_bytes = odd, n_bytes + 1
        if n_bytes % size:
            self._odd[stream] = start + n_bytes - 1
        span = Span(lane, 0 if lost else start, n_bytes // size, form.type, stream, lost)
        if lane == "model":
            start_ms = max(self.now_ms, self._received_stop.get(stream, 0.0))
            piece = Piece("model", start_ms, span, form.rate_hz)  # type: ignore[arg-type]
            self._received_stop[stream] = piece.stop_ms
            _join(self.received, piece)
        return span

    def _kept(self, piece: Piece) -> Piece:
        if len(piece.samples):
            _join(self.pieces[piece.lane], replace(piece))
        return piece


def _join(pieces: list[Piece], piece: Piece) -> None:
    """Append a piece, or lengthen the last one where it goes on with it."""
    last = pieces[-1] if pieces else None
    span: Any = last and last.samples
    if last and abs(last.stop_ms - piece.start_ms) < 0.01 and span.goes_on(piece.samples):
        last.samples = replace(span, length=span.length + len(piece.samples))
    else:
        pieces.append(piece)


class Track:
    """Audio of one side on the clock of a trace, read in parts: silence where there is none.

    Examples
    --------
    >>> track = Track(None, [], duration_ms=100.0)
    >>> track, track.read(0, 50).shape, np.asarray(track).shape
    (<Track 0.1 s at 24 kHz, 0.0 s of audio>, (1200,), (2400,))
    """

    rate_hz = RATE_HZ

    def __init__(
        self, file: TraceFile | None, pieces: list[Piece], *, duration_ms: float, zero_ms: float = 0.0
    ) -> None:
        self._file: Any = file
        self._pieces = sorted(pieces, key=lambda piece: piece.start_ms)
        self._starts = [self._begin(piece, zero_ms) for piece in self._pieces]
        self._stops = [b + self._length(p) for b, p in zip(self._starts, self._pieces, strict=True)]
        self._longest = max((self._length(piece) for piece in self._pieces), default=0)
        self._n_samples = round(duration_ms * RATE_HZ / 1000)

    @staticmethod
    def _begin(piece: Piece, zero_ms: float) -> int:
        return round((piece.start_ms - zero_ms) * RATE_HZ / 1000)

    @staticmethod
    def _length(piece: Piece) -> int:
        return len(piece.samples) * RATE_HZ // piece.rate_hz

    def __len__(self) -> int:
        return self._n_samples

    @property
    def duration_ms(self) -> float:
        """Duration of the trace."""
        return 1000 * self._n_samples / RATE_HZ

    @property
    def spans_ms(self) -> list[tuple[float, float]]:
        """Begin and end of each stretch that has audio, ms."""
        return [(1000 * a / RATE_HZ, 1000 * b / RATE_HZ) for a, b in zip(self._starts, self._stops, strict=True)]

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
        first = bisect_right(self._starts, start - self._longest)
        for index in range(first, len(self._starts)):
            begin, end = max(start, self._starts[index]), min(stop, self._stops[index])
            if self._starts[index] >= stop:
                break
            if begin < end:
                origin = self._starts[index]
                audio[begin - start : end - start] += self._samples(self._pieces[index], begin - origin, end - origin)
        return audio[::step]

    def _samples(self, piece: Piece, start: int, stop: int) -> Audio:
        """Return samples of a piece, counted at 24 kHz."""
        span: Any = piece.samples
        if span.lost:
            return np.zeros(stop - start, np.float32)
        form, factor = codec(span.form), RATE_HZ // piece.rate_hz
        margin = _MARGIN if factor > 1 else 0
        first = max(0, start // factor - margin)
        last = min(len(span), -(-stop // factor) + margin)
        size = form.bytes_per_sample
        audio = form.decode(self._file.audio(span.lane, span.start + first * size, span.start + last * size))
        if factor > 1:
            audio = resample(audio, from_rate_hz=piece.rate_hz, to_rate_hz=RATE_HZ)
        return audio[start - first * factor : stop - first * factor]

    def blocks(self, block_ms: float = 60_000.0) -> Iterator[Audio]:
        """Yield the track in parts, for long traces."""
        size = round(block_ms * RATE_HZ / 1000)
        for start in range(0, self._n_samples, size):
            yield self[start : start + size]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self[:].astype(dtype or np.float32, copy=False)

    def window(self, start_ms: float, stop_ms: float) -> Self:
        """Return a part of the track as a track whose clock begins at `start_ms`."""
        track = type(self)(self._file, [], duration_ms=stop_ms - start_ms)
        shift = round(start_ms * RATE_HZ / 1000)
        track._pieces, track._longest = self._pieces, self._longest
        track._starts, track._stops = [s - shift for s in self._starts], [s - shift for s in self._stops]
        return track

    def __repr__(self) -> str:
        audio_s = sum(b - a for a, b in zip(self._starts, self._stops, strict=True)) / RATE_HZ
        return f"<Track {self._n_samples / RATE_HZ:.1f} s at 24 kHz, {audio_s:.1f} s of audio>"


def shifted(pieces: list[Piece], starts_ms: Mapping[str, float]) -> list[Piece]:
    """Return pieces of items that a speaker reported at the times at which it played them.

    Parameters
    ----------
    pieces : list of Piece
        As `Layout` placed them.
    starts_ms : mapping
        Item id -> when the speaker began it.
    """
    first: dict[str, float] = {}
    moved = []
    for piece in pieces:
        span: Any = piece.samples
        first.setdefault(span.item_id, piece.start_ms)
        shift_ms = starts_ms.get(span.item_id, first[span.item_id]) - first[span.item_id]
        moved.append(replace(piece, start_ms=piece.start_ms + shift_ms))
    return moved
