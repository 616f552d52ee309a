"""Audio of a trace on its one clock: `Track`, and `Layout`, which places the audio of the events.

The user's audio ends when it was sent. An answer's audio is played from its arrival on, one piece after the other
(`Timeline`). The track *heard* ends an item where a truncation cut it; the track *model* keeps the rest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from rtnb.audio import Audio, Codec, codec, resample
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
"""Samples at 8 kHz beside a part that is resampled: 20 ms, longer than the filter, so that parts join smoothly."""


@dataclass(slots=True)
class Span:
    """Audio in a raw file; it stands for samples where `Timeline` wants an array."""

    lane: Lane
    start: int
    """First byte; -1 where the file does not have the audio."""
    length: int
    """Samples."""
    form: Codec
    item_id: str

    nbytes = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> Span:
        start, stop, _ = part.indices(self.length)
        return replace(self, start=self.byte(start), length=max(0, stop - start))

    def byte(self, sample: int) -> int:
        """Return where a sample lies in the file."""
        return -1 if self.start < 0 else self.start + sample * self.form.bytes_per_sample


class Layout(Timeline):
    """Places the audio of a trace; feed it every row."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[Piece] = []
        """Audio of the model with the parts that were not heard."""
        self._span: tuple[Lane, int, int] = ("user", 0, 0)
        self._received_stop: dict[str, float] = {}
        self._odd: dict[str, int] = {}
        """Item id -> place of half a sample at the end of its audio."""

    def take(self, row: LogRow, span: tuple[Lane, int, int] | None) -> Piece | None:
        """Place a row and return its audio; `span` is the lane, the first byte (-1: lost) and the number of bytes."""
        self._span = span or self._span
        piece = self.add(row)
        if self.now_ms > LONGEST_MS:
            hours = self.now_ms / 3_600_000
            raise TraceError(f"event {row.number} lies {hours:,.0f} hours after the first; allowed are 168")
        return piece

    def _decoded(self, data: bytes, form: AudioFormat, stream: str) -> Any:
        (lane, start, n_bytes), held = self._span, codec(form.type)
        if (odd := self._odd.pop(stream, None)) is not None and odd == start - 1:  # the other half of a sample
            start, n_bytes = odd, n_bytes + 1
        if n_bytes % held.bytes_per_sample:
            self._odd[stream] = start + n_bytes - 1
        length = n_bytes // held.bytes_per_sample
        if lane == "model":
            start_ms = max(self.now_ms, self._received_stop.get(stream, 0.0))
            self._received_stop[stream] = start_ms + 1000 * length / held.rate_hz
            other: Any = Span(lane, start, length, held, stream)  # the two tracks lengthen their own
            _join(self.received, Piece("model", start_ms, other, held.rate_hz))
        return Span(lane, start, length, held, stream)

    def _kept(self, piece: Piece) -> Piece:
        _join(self.pieces[piece.lane], piece)
        return piece


def _join(pieces: list[Piece], piece: Piece) -> None:
    """Append a piece, or lengthen the last one where it goes on with it."""
    span: Any = piece.samples
    if pieces and abs(pieces[-1].stop_ms - piece.start_ms) < 0.01:
        before: Any = pieces[-1].samples
        goes_on = before.byte(before.length) == span.start
        if goes_on and before.form is span.form and before.item_id == span.item_id:
            before.length += span.length
            return
    if span.length:
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
        begun: dict[str, float] = {}
        placed = []
        for piece in pieces:
            span: Any = piece.samples
            late_ms = 0.0
            if starts_ms and span.item_id in starts_ms:  # a speaker reported when it began to play this item
                late_ms = starts_ms[span.item_id] - begun.setdefault(span.item_id, piece.start_ms)
            start = round((piece.start_ms + late_ms - zero_ms) * RATE_HZ / 1000)
            placed.append((start, start + len(span) * RATE_HZ // piece.rate_hz, span))
        self._placed = sorted(placed, key=lambda one: one[0])
        self._longest = max((stop - start for start, stop, _ in placed), default=0)

    def __len__(self) -> int:
        return self._n_samples

    @property
    def duration_ms(self) -> float:
        """Duration of the trace."""
        return 1000 * self._n_samples / RATE_HZ

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
        first = bisect_right(self._placed, start - self._longest - 1, key=lambda one: one[0])
        for begin, end, span in self._placed[first:]:
            if begin >= stop:
                break
            a, b = max(start, begin), min(stop, end)
            if a < b and span.start >= 0:
                audio[a - start : b - start] += self._samples(span, a - begin, b - begin)
        return audio[::step]

    def _samples(self, span: Span, start: int, stop: int) -> Audio:
        """Return samples of a span, counted at 24 kHz."""
        form = span.form
        factor = RATE_HZ // form.rate_hz
        margin = _MARGIN if factor > 1 else 0
        first, last = max(0, start // factor - margin), min(len(span), -(-stop // factor) + margin)
        audio = form.decode(self._file.audio(span.lane, span.byte(first), span.byte(last)))
        if factor > 1:
            audio = resample(audio, from_rate_hz=form.rate_hz, to_rate_hz=RATE_HZ)
        return audio[start - first * factor : stop - first * factor]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self[:].astype(dtype or np.float32, copy=False)

    def __repr__(self) -> str:
        audio_s = sum(stop - start for start, stop, _ in self._placed) / RATE_HZ
        return f"<Track {self._n_samples / RATE_HZ:.1f} s at 24 kHz, {audio_s:.1f} s of audio>"
