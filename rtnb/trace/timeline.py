"""Time axis of a session: the audio of both sides, speech, responses and the waveform. Pure: rows in.

Sent audio ends at the moment it was sent. Received audio lies where a speaker plays it: from its arrival on, one piece
after the other. A truncation cuts it to what was played.

A live session forgets its oldest parts: the newest `AUDIO_BYTES` of each side can be played again, and the newest
`MAX_STRETCHES` turns, responses and items are kept. The waveform covers the first `AXIS_MS`: later audio is not drawn.
The audio of a trace stays in its file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from rtnb.audio import RATE_HZ, Audio, Codec, codec, resample
from rtnb.audio.decimate import BinTrack, min_max
from rtnb.audio.formats import to_int16
from rtnb.client.log import Formats, LogRow
from rtnb.protocol import events

Lane = Literal["you", "model"]
ReadAudio = Callable[[Lane, int, int], Any]
"""Bytes of a side, from a place to another."""
K = TypeVar("K")
V = TypeVar("V")

LANES: Final[tuple[Lane, Lane]] = ("you", "model")
CARRIERS: Final[dict[type, tuple[Lane, str]]] = {
    events.InputAudioBufferAppend: ("you", "audio"),
    events.ResponseOutputAudioDelta: ("model", "delta"),
}
"""Side and field of the audio of an event, by its class."""

BIN_MS: Final = 4
"""Duration of one bin of the waveform: 96 samples at 24 kHz, 32 at 8 kHz (chosen)."""
AXIS_MS: Final = 2 * 3_600_000
"""Length of the waveform: 2 hours, 7 MB of bins per side, so that a snapshot fits a page's queue (chosen)."""
AUDIO_BYTES: Final = 45 * 2**20
"""Audio of a side held to be played again, as much as a log keeps: 15 minutes or more (chosen)."""
MAX_STRETCHES: Final = 3_000
"""Speech, responses and items that are kept: hours of conversation (chosen)."""
_JITTER_MS: Final = 250.0
"""A chunk that comes at most so late goes on where the one before it ended (chosen)."""
_DRIFT_MS, _DRIFT_CHUNKS = 40.0, 20
"""Where each of so many chunks comes later than that, the microphone's clock is slow: the audio moves (chosen)."""
_MARGIN: Final = 160
"""Samples at 8 kHz beside a part that is resampled: 20 ms, longer than the filter, so that parts join smoothly."""


class Piece(NamedTuple):
    """Audio on the axis."""

    lane: Lane
    start_ms: float
    samples: range
    """Places of its samples in the bytes of its side; below 0 for audio that is lost.

    ``range(4800, 9600, 2)`` is 2,400 samples of 16 bits.
    """
    form: Codec
    item_id: str = ""
    """Of received audio."""

    @property
    def stop_ms(self) -> float:
        return self.start_ms + 1000 * len(self.samples) / self.form.rate_hz


@dataclass(slots=True)
class Stretch:
    """Part of the axis; `stop_ms` is None while it lasts."""

    start_ms: float
    stop_ms: float | None = None
    status: str = ""
    heard_ms: float | None = None
    """Of an item that was cut: the part that was played."""
    audio_ms: float = 0.0
    """Of an item: the audio that arrived."""


class Timeline:
    """Rows of a log, laid out; times are ms since its first row.

    Parameters
    ----------
    most_bytes : float, optional
        Most audio of a side that is held; 0 holds and draws none. Default: `AUDIO_BYTES`.
    """

    def __init__(self, most_bytes: float | None = None) -> None:
        self.pieces: dict[str, list[Piece]] = {"you": [], "model": [], "unheard": []}
        """Audio as it was sent and played, and the parts of answers that were not played."""
        self.bins: dict[Lane, BinTrack] = {"you": BinTrack(), "model": BinTrack()}
        """The waveform of each side, in bins of `BIN_MS`."""
        self.stretches: dict[str, Stretch] = {}
        """"s0", "s1" … (speech the service found), "r…" (a response by its id), "i…" (an item with received audio)."""
        self.items: dict[str, Stretch] = {}
        """Item id -> its audio (for the user's: the speech that the service found)."""
        self.touched: dict[str, Stretch] = {}
        """Stretches that are new or changed; the feed empties it before the next rows."""
        self.now_ms = 0.0
        """Time of the newest row."""
        self.dropped_ms = 0.0
        """Audio before this moment is no longer held (its waveform is)."""
        self._start_s: float | None = None
        self._formats = Formats()
        self._most_bytes = AUDIO_BYTES if most_bytes is None else most_bytes
        self._held: dict[Lane, bytearray] = {"you": bytearray(), "model": bytearray()}
        """Newest bytes of each side."""
        self._ends: dict[Lane, int] = {"you": 0, "model": 0}
        """Bytes of each side so far."""
        self._last: dict[Lane, tuple[str, int]] = {}
        """Item of the newest audio, and the place after its last whole sample."""
        self._n_speech = 0
        self._late_ms: deque[float] = deque(maxlen=_DRIFT_CHUNKS)
        """Lateness of the newest chunks of sent audio."""
        self._sent: dict[float, float] = {}
        """Runs of sent audio: ms of all audio sent before -> where on the axis it went on."""
        self._sent_ms = 0.0

    @property
    def stop_ms(self) -> float:
        """Time of the newest row, or the end of the audio, if that is later."""
        return max([self.now_ms, *(pieces[-1].stop_ms for pieces in self.pieces.values() if pieces)])

    def ms(self, row: LogRow) -> float:
        """Return the time of a row on the axis."""
        return 0.0 if self._start_s is None else max(0.0, 1000 * (row.monotonic_s - self._start_s))

    def left_s(self, monotonic_s: float) -> float:
        """Return how long the received audio goes on from now, where it is played in real time."""
        pieces = self.pieces["model"]
        return max(0.0, pieces[-1].stop_ms / 1000 + (self._start_s or 0.0) - monotonic_s) if pieces else 0.0

    def add(self, row: LogRow) -> Piece | None:
        """Lay out one row and return its audio; None also where that is not played."""
        self._start_s = row.monotonic_s if self._start_s is None else self._start_s
        now_ms = self.now_ms = max(self.now_ms, self.ms(row))
        event: Any = row.event
        if (found := self._formats.of(event)) is not None:
            return self._add_audio(row, codec(found.type), now_ms)
        match event:
            case events.InputAudioBufferSpeechStarted():
                speech = self._stretch(f"s{self._n_speech}", self._axis_ms(event.audio_start_ms, now_ms))
                self._n_speech += 1
                if event.item_id:
                    put(self.items, event.item_id, speech)
            case events.InputAudioBufferSpeechStopped() if self._n_speech:
                speech = self._stretch(f"s{self._n_speech - 1}", now_ms)
                if speech.stop_ms is None:
                    speech.stop_ms = max(self._axis_ms(event.audio_end_ms, now_ms), speech.start_ms)
            case events.ResponseCreated() | events.ResponseDone():
                response = self._stretch(f"r{event.response.id}", now_ms)
                response.status = str(event.response.status or "in_progress")
                response.stop_ms = now_ms if isinstance(event, events.ResponseDone) else response.stop_ms
            case events.ConversationItemTruncate() if event.item_id in self.items:
                self._cut(event.item_id, event.audio_end_ms)
        return None

    def _stretch(self, key: str, start_ms: float) -> Stretch:
        """Return the stretch of a key, a new one where there is none; it counts as touched."""
        stretch = self.touched[key] = self.stretches.get(key) or put(self.stretches, key, Stretch(start_ms))
        return stretch

    def _axis_ms(self, sent_ms: float, now_ms: float) -> float:
        """Return where a moment of the sent audio lies on the axis; without such audio (WebRTC), now."""
        runs = ((start_ms, before_ms) for before_ms, start_ms in reversed(self._sent.items()))
        return next((start_ms + sent_ms - before_ms for start_ms, before_ms in runs if before_ms <= sent_ms), now_ms)

    # --- audio --------------------------------------------------------------------------------------------------------

    def audio(self, lane: Lane, start: int, stop: int) -> bytes:
        """Return bytes of a side that are held, by their places."""
        first = self._ends[lane] - len(self._held[lane])
        return bytes(self._held[lane][max(0, start - first) : max(0, stop - first)])

    def decoded(self, piece: Piece) -> Audio:
        """Return the samples of a piece that is held."""
        return piece.form.decode(self.audio(piece.lane, piece.samples.start, piece.samples.stop))

    def clip(self, start_ms: float, length_ms: float) -> npt.NDArray[np.int16]:
        """Return both sides mixed, as they sounded, at 24 kHz, without silence at the end."""
        sides = [side.read(start_ms, start_ms + length_ms) for lane in LANES if (side := self.track(lane))]
        return np.trim_zeros(to_int16(sum(sides, np.zeros(1))), "b")

    def track(self, *names: str, audio: ReadAudio | None = None, **times: Any) -> Track | None:
        """Return pieces by their names as a track, None where there are none; `times` are those of `Track`."""
        pieces = [piece for name in names for piece in self.pieces[name]]
        times = {"duration_ms": self.stop_ms} | times
        return Track(audio or self.audio, pieces, **times) if pieces else None

    def _add_audio(self, row: LogRow, form: Codec, now_ms: float) -> Piece | None:
        lane, _ = CARRIERS[type(row.event)]
        samples, item_id = self._place(row, lane, form), getattr(row.event, "item_id", "")
        item = self.items.get(item_id)
        name = lane if item is None or item.heard_ms is None else "unheard"  # it was cut before
        if lane == "you":
            start_ms = self._sent_start_ms(1000 * len(samples) / form.rate_hz, now_ms)
        else:
            last = [one for one in self.pieces[name][-1:] if name == lane or one.item_id == item_id]
            start_ms = max([now_ms, *(one.stop_ms for one in last)])
        piece = Piece(lane, start_ms, samples, form, item_id)
        _join(self.pieces[name], piece)
        if name == "unheard":
            return None
        if lane == "model":
            item = put(self.items, item_id, self._stretch(f"i{item_id}", start_ms))
            item.stop_ms = piece.stop_ms
            item.audio_ms += piece.stop_ms - start_ms
        if self._most_bytes:
            self._draw(piece)
            self._forget(lane)
        return piece

    def _place(self, row: LogRow, lane: Lane, form: Codec) -> range:
        """Return the places of a row's samples.

        Half a sample at the end of a delta waits for the next one; at the end of sent audio it is lost or refused.
        """
        data, item_id, size = audio_of(row.event), getattr(row.event, "item_id", ""), form.bytes_per_sample
        if row.audio_dropped_bytes:
            return range(-row.audio_dropped_bytes - 2, -2, size)
        start, stop = self._ends[lane], self._ends[lane] + len(data)
        self._held[lane] += data if self._most_bytes else b""
        self._ends[lane] = stop
        if lane == "model" and self._last.get(lane) == (item_id, start - 1):
            start -= 1
        stop -= (stop - start) % size
        self._last[lane] = item_id, stop
        return range(start, stop, size)

    def _sent_start_ms(self, length_ms: float, now_ms: float) -> float:
        """Place sent audio; its network delay varies, so chunks are joined, but lateness that stays is corrected.

        Chunks of 100 ms that come 50 ms late lie 50 ms early on the axis; after 20 of them the next lies 50 ms later.
        """
        start_ms, pieces = max(0.0, now_ms - length_ms), self.pieces["you"]
        free_ms = pieces[-1].stop_ms if pieces else float("-inf")
        if start_ms - free_ms <= _JITTER_MS:
            self._late_ms.append(start_ms - free_ms)
            least_ms = min(self._late_ms) if len(self._late_ms) == _DRIFT_CHUNKS else 0.0
            start_ms = free_ms + (least_ms if least_ms > _DRIFT_MS else 0.0)
        if start_ms != free_ms:
            self._late_ms.clear()
            put(self._sent, self._sent_ms, start_ms)
        self._sent_ms += length_ms
        return start_ms

    def _cut(self, item_id: str, heard_ms: float) -> None:
        """Take audio that was not played off the axis: what arrives next is played from now on."""
        item = self.touched[f"i{item_id}"] = self.items[item_id]
        item.heard_ms = min(heard_ms, item.audio_ms)
        stop_ms = item.stop_ms = item.start_ms + item.heard_ms
        pieces, unheard = self.pieces["model"], []
        while pieces and pieces[-1].stop_ms > stop_ms:
            last = pieces.pop()
            n_heard = max(0, round((stop_ms - last.start_ms) * last.form.rate_hz / 1000))
            if n_heard:
                pieces.append(last._replace(samples=last.samples[:n_heard]))
            rest_ms = last.start_ms + 1000 * n_heard / last.form.rate_hz
            unheard.append(last._replace(start_ms=rest_ms, samples=last.samples[n_heard:]))
            if n_heard:
                break
        self.pieces["unheard"] += reversed(unheard)

    def _draw(self, piece: Piece) -> None:
        """Write the bins of a piece; its first one is shared with the piece before, unless it begins on the grid.

        At 24 kHz a bin has 96 samples: a piece that begins at 10 ms gives 48 of them to bin 2 and goes on with bin 3.
        """
        samples = to_int16(self.decoded(piece))
        if piece.stop_ms > AXIS_MS or not len(samples):
            return
        size, track = piece.form.rate_hz * BIN_MS // 1000, self.bins[piece.lane]
        index, offset = divmod(round(piece.start_ms * piece.form.rate_hz / 1000), size)
        bins = min_max(np.pad(samples, (offset, 0), "edge"), samples_per_bin=size)
        if offset and index < len(track):
            before = track.read(index, index + 1)[0]
            bins[0] = min(bins[0, 0], before[0]), max(bins[0, 1], before[1])
        track.write(index, bins)

    def _forget(self, lane: Lane) -> None:
        """Drop the oldest bytes of a side at the bound, and take them off the axis."""
        held = self._held[lane]
        if len(held) <= self._most_bytes:
            return
        del held[: len(held) - int(self._most_bytes)]
        first = self._ends[lane] - len(held)
        for name in (lane, "unheard"):
            pieces = self.pieces[name]
            while pieces and pieces[0].lane == lane and pieces[0].samples.start < first:
                oldest = pieces.pop(0)
                n_lost = min(len(oldest.samples), -(-(first - oldest.samples.start) // oldest.form.bytes_per_sample))
                start_ms = oldest.start_ms + 1000 * n_lost / oldest.form.rate_hz
                self.dropped_ms = max(self.dropped_ms, start_ms)
                if kept := oldest.samples[n_lost:]:
                    pieces.insert(0, oldest._replace(start_ms=start_ms, samples=kept))


def _join(pieces: list[Piece], piece: Piece) -> None:
    """Append a piece, or lengthen the last one where it goes on with it."""
    last, samples = pieces[-1] if pieces else piece, piece.samples
    same = last.form is piece.form and last.item_id == piece.item_id and last.samples.stop == samples.start
    if pieces and same and abs(last.stop_ms - piece.start_ms) < 0.01:
        pieces[-1] = last._replace(samples=range(last.samples.start, samples.stop, samples.step))
    else:
        pieces.append(piece)


def audio_of(event: Any) -> bytes:
    """Return the audio of an event of `CARRIERS`, as on the wire."""
    audio: bytes = getattr(event, CARRIERS[type(event)][1])
    return audio


def put(table: dict[K, V], key: K, value: V) -> V:
    """Set an entry of a table that keeps its newest `MAX_STRETCHES`."""
    table[key] = value
    while len(table) > MAX_STRETCHES:
        del table[next(iter(table))]
    return value


class Track:
    """Audio of one side on the clock of a trace, read in parts; silence where there is none.

    ``track.read(1000, 2000)`` is the second second; ``track[a:b]`` counts samples; ``np.asarray(track)`` is all of it.

    Examples
    --------
    >>> track = Track(Timeline().audio, (), duration_ms=100.0)
    >>> track, track.read(0, 50).shape, np.asarray(track).shape
    (<Track 0.1 s at 24 kHz, 0.0 s of audio>, (1200,), (2400,))
    """

    rate_hz = RATE_HZ

    def __init__(
        self,
        audio: ReadAudio,
        pieces: Iterable[Piece],
        *,
        duration_ms: float,
        zero_ms: float = 0.0,
        starts_ms: Mapping[str, float] | None = None,
    ) -> None:
        self._audio = audio
        self._n_samples = round(duration_ms * RATE_HZ / 1000)
        self._pieces, starts, late_ms = list(pieces), [], dict[str, float]()
        for piece in self._pieces:
            if starts_ms and piece.item_id in starts_ms:  # a speaker reported when it began to play this item
                late_ms.setdefault(piece.item_id, starts_ms[piece.item_id] - piece.start_ms)
            starts.append(piece.start_ms + late_ms.get(piece.item_id, 0.0) - zero_ms)
        lengths = [len(piece.samples) * RATE_HZ // piece.form.rate_hz for piece in self._pieces]
        self._starts = np.round(np.array(starts) * RATE_HZ / 1000).astype(int)
        self._stops = self._starts + np.array(lengths, int)

    def __len__(self) -> int:
        return self._n_samples

    @property
    def spans_ms(self) -> list[tuple[float, float]]:
        """Start and stop of each stretch that has audio, ms."""
        ends = zip(self._starts.tolist(), self._stops.tolist(), strict=True)
        return [(1000 * start / RATE_HZ, 1000 * stop / RATE_HZ) for start, stop in ends]

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
        for index in np.flatnonzero((self._starts < stop) & (self._stops > start)).tolist():
            piece, begin, end = self._pieces[index], int(self._starts[index]), int(self._stops[index])
            a, b = max(start, begin), min(stop, end)
            if piece.samples.start >= 0:
                audio[a - start : b - start] += self._samples(piece, a - begin, b - begin)
        return audio[::step]

    def _samples(self, piece: Piece, start: int, stop: int) -> Audio:
        """Return samples of a piece, counted at 24 kHz."""
        factor = RATE_HZ // piece.form.rate_hz
        margin = _MARGIN if factor > 1 else 0
        first = max(0, start // factor - margin)
        place = piece.samples[first : -(-stop // factor) + margin]
        audio = piece.form.decode(self._audio(piece.lane, place.start, place.stop))
        if factor > 1:
            audio = resample(audio, from_rate_hz=piece.form.rate_hz, to_rate_hz=RATE_HZ)
        return audio[start - first * factor : stop - first * factor]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self[:].astype(dtype or np.float32, copy=False)

    def __repr__(self) -> str:
        audio_s = sum(stop - start for start, stop in self.spans_ms) / 1000
        return f"<Track {self._n_samples / RATE_HZ:.1f} s at 24 kHz, {audio_s:.1f} s of audio>"
