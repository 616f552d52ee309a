"""Time axis of a session: the audio of both sides, speech, responses and the waveform. Pure: rows in.

Sent audio ends at the moment it was sent. Received audio lies where a speaker plays it: from its arrival on, one piece
after the other. A truncation cuts it to what was played.

A long session forgets its oldest parts: the newest `AUDIO_BYTES` of audio can be played again, and the newest
`MAX_STRETCHES` turns, responses and items are kept. The waveform covers the first `AXIS_MS`: later audio is not drawn.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from rtnb.audio import Codec, codec
from rtnb.audio.decimate import BinTrack, min_max
from rtnb.audio.formats import to_int16
from rtnb.client.log import Formats, LogRow
from rtnb.protocol import events

Lane = Literal["you", "model"]
Samples = npt.NDArray[np.int16]
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
AUDIO_BYTES: Final = 64 * 2**20
"""Audio held to be played again, as much as a log keeps: 15 minutes or more (chosen)."""
MAX_STRETCHES: Final = 3_000
"""Speech, responses and items that are kept: hours of conversation (chosen)."""
_JITTER_MS: Final = 250.0
"""A chunk that comes at most so late goes on where the one before it ended (chosen)."""
_DRIFT_MS, _DRIFT_CHUNKS = 40.0, 20
"""Where each of so many chunks comes later than that, the microphone's clock is slow: the audio moves (chosen)."""


@dataclass(slots=True)
class Piece:
    """Audio on the axis."""

    lane: Lane
    start_ms: float
    samples: Any
    """int16, shape (n_samples,); of a trace, the places of its samples in the file."""
    form: Codec
    item_id: str = ""
    """Of received audio."""
    index: int = 0
    """Its first bin."""
    n_bins: int = 0

    @property
    def rate_hz(self) -> int:
        return self.form.rate_hz

    @property
    def stop_ms(self) -> float:
        return self.start_ms + 1000 * len(self.samples) / self.rate_hz


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
    """Rows of a log, laid out; times are ms since its first row."""

    def __init__(self) -> None:
        self.pieces: dict[Lane, list[Piece]] = {"you": [], "model": []}
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
        self._halves: dict[str, bytes] = {}
        """Item id -> odd byte at the end of its audio: half a sample, whose other half is in the next delta."""
        self._audio_bytes = 0
        self._n_speech = 0
        self._late_ms: deque[float] = deque(maxlen=_DRIFT_CHUNKS)
        """Lateness of the newest chunks of sent audio."""
        self._sent: dict[float, float] = {}
        """Runs of sent audio: ms of all audio sent before -> where on the axis it went on."""
        self._sent_ms = 0.0

    def ms(self, row: LogRow) -> float:
        """Return the time of a row on the axis."""
        return 0.0 if self._start_s is None else max(0.0, 1000 * (row.monotonic_s - self._start_s))

    def left_s(self, monotonic_s: float) -> float:
        """Return how long the received audio goes on from now, where it is played in real time."""
        pieces = self.pieces["model"]
        return max(0.0, pieces[-1].stop_ms / 1000 + (self._start_s or 0.0) - monotonic_s) if pieces else 0.0

    def add(self, row: LogRow) -> Piece | None:
        """Lay out one row and return its audio."""
        self._start_s = row.monotonic_s if self._start_s is None else self._start_s
        now_ms = self.now_ms = max(self.now_ms, self.ms(row))
        event: Any = row.event
        if (found := self._formats.of(event)) is not None:
            form = codec(found.type)
            samples = self._samples(row, form)
            if isinstance(event, events.InputAudioBufferAppend):
                return self._sent_piece(samples, form, now_ms)
            return self._received_piece(samples, form, now_ms, event.item_id)
        if isinstance(event, events.InputAudioBufferSpeechStarted):
            self._on_speech_started(event, now_ms)
        elif isinstance(event, events.InputAudioBufferSpeechStopped):
            speech = self._stretch(f"s{self._n_speech - 1}", now_ms) if self._n_speech else None
            if speech is not None and speech.stop_ms is None:
                speech.stop_ms = max(self._axis_ms(event.audio_end_ms, now_ms), speech.start_ms)
        elif isinstance(event, events.ResponseCreated | events.ResponseDone):
            response = self._stretch(f"r{event.response.id}", now_ms)
            response.status = str(event.response.status or "in_progress")
            if isinstance(event, events.ResponseDone):
                response.stop_ms = now_ms
        elif isinstance(event, events.ConversationItemTruncate) and event.item_id in self.items:
            self._cut(event.item_id, event.audio_end_ms)
        return None

    def clip(self, start_ms: float, length_ms: float, *, rate_hz: int = 24_000) -> Samples:
        """Return both sides mixed, as they sounded; the end may be shorter than asked for."""
        mixed = np.zeros(round(length_ms * rate_hz / 1000), np.int32)
        used = 0
        for pieces in self.pieces.values():
            first = max(0, bisect_right(pieces, start_ms, key=lambda piece: piece.start_ms) - 1)
            for piece in pieces[first : bisect_left(pieces, start_ms + length_ms, key=lambda piece: piece.start_ms)]:
                step = rate_hz // piece.rate_hz
                samples = np.repeat(piece.samples, step) if step > 1 else piece.samples  # 8 kHz: good enough to hear
                begin = round((piece.start_ms - start_ms) * rate_hz / 1000)
                samples = samples[max(0, -begin) : max(0, len(mixed) - begin)]
                begin = max(0, begin)
                mixed[begin : begin + len(samples)] += samples
                used = max(used, begin + len(samples))
        return np.clip(mixed[:used], -32_768, 32_767).astype(np.int16)

    def _samples(self, row: LogRow, form: Codec) -> Any:
        """Return the audio of a row, decoded."""
        data, stream = audio_of(row.event), getattr(row.event, "item_id", "")
        if form.bytes_per_sample == 1:
            return to_int16(form.decode(data))
        data = self._halves.pop(stream, b"") + data
        if len(data) % 2:
            put(self._halves, stream, data[-1:])
        return np.frombuffer(data, "<i2", count=len(data) // 2)

    def _stretch(self, key: str, start_ms: float) -> Stretch:
        """Return the stretch of a key, a new one where there is none; it counts as touched."""
        stretch = self.touched[key] = self.stretches.get(key) or put(self.stretches, key, Stretch(start_ms))
        return stretch

    def _kept(self, piece: Piece) -> Piece:
        """Draw a piece and hold its audio; at the bound, the oldest audio goes."""
        if piece.stop_ms < AXIS_MS and len(piece.samples):
            self._draw(piece)
        self.pieces[piece.lane].append(piece)
        self._audio_bytes += 2 * len(piece.samples)
        while self._audio_bytes > AUDIO_BYTES:
            oldest = min((pieces for pieces in self.pieces.values() if pieces), key=lambda pieces: pieces[0].start_ms)
            self._audio_bytes -= 2 * len(oldest[0].samples)
            self.dropped_ms = max(self.dropped_ms, oldest.pop(0).stop_ms)
        return piece

    def _draw(self, piece: Piece) -> None:
        """Write the bins of a piece; its first one is shared with the piece before, unless it begins on the grid.

        At 24 kHz a bin has 96 samples: a piece that begins at 10 ms gives 48 of them to bin 2 and goes on with bin 3.
        """
        index, size = int(piece.start_ms // BIN_MS), piece.rate_hz * BIN_MS // 1000
        first = size - round((piece.start_ms - index * BIN_MS) * piece.rate_hz / 1000) or size
        bins = np.concatenate([min_max(part, samples_per_bin=size) for part in np.split(piece.samples, [first])])
        track = self.bins[piece.lane]
        if first < size and index < len(track):
            before = track.read(index, index + 1)[0]
            bins[0] = min(bins[0, 0], before[0]), max(bins[0, 1], before[1])
        track.write(index, bins)
        piece.index, piece.n_bins = index, len(bins)

    # --- sent audio ---------------------------------------------------------------------------------------------------

    def _sent_piece(self, samples: Samples, form: Codec, now_ms: float) -> Piece:
        """Place sent audio; its network delay varies, so chunks are joined, but lateness that stays is corrected.

        Chunks of 100 ms that come 50 ms late lie 50 ms early on the axis; after 20 of them the next lies 50 ms later.
        """
        pieces, length_ms = self.pieces["you"], 1000 * len(samples) / form.rate_hz
        start_ms = max(0.0, now_ms - length_ms)
        free_ms = pieces[-1].stop_ms if pieces else float("-inf")
        if start_ms - free_ms <= _JITTER_MS:
            self._late_ms.append(start_ms - free_ms)
            least_ms = min(self._late_ms) if len(self._late_ms) == _DRIFT_CHUNKS else 0.0
            start_ms = free_ms + (least_ms if least_ms > _DRIFT_MS else 0.0)
        if start_ms != free_ms:
            self._late_ms.clear()
            put(self._sent, self._sent_ms, start_ms)
        self._sent_ms += length_ms
        return self._kept(Piece("you", start_ms, samples, form))

    def _axis_ms(self, sent_ms: float, now_ms: float) -> float:
        """Return where a moment of the sent audio lies on the axis; without such audio (WebRTC), now."""
        for before_ms, start_ms in reversed(self._sent.items()):
            if before_ms <= sent_ms:
                return start_ms + sent_ms - before_ms
        return now_ms

    def _on_speech_started(self, event: events.InputAudioBufferSpeechStarted, now_ms: float) -> None:
        speech = self._stretch(f"s{self._n_speech}", self._axis_ms(event.audio_start_ms, now_ms))
        self._n_speech += 1
        if event.item_id:
            put(self.items, event.item_id, speech)

    # --- received audio -----------------------------------------------------------------------------------------------

    def _received_piece(self, samples: Samples, form: Codec, now_ms: float, item_id: str) -> Piece | None:
        pieces, item = self.pieces["model"], self.items.get(item_id)
        if item is not None and item.heard_ms is not None:
            return None  # it was cut before: this is not played
        start_ms = now_ms if not pieces else max(now_ms, pieces[-1].stop_ms)
        piece = self._kept(Piece("model", start_ms, samples, form, item_id))
        item = put(self.items, item_id, self._stretch(f"i{item_id}", start_ms))
        item.stop_ms = piece.stop_ms
        item.audio_ms += piece.stop_ms - piece.start_ms
        return piece

    def _cut(self, item_id: str, heard_ms: float) -> None:
        """Take audio that was not played off the axis: what arrives next is played from now on."""
        item = self.items[item_id]
        item.heard_ms = min(heard_ms, item.audio_ms)
        stop_ms = item.stop_ms = item.start_ms + item.heard_ms
        self.touched[f"i{item_id}"] = item
        pieces = self.pieces["model"]
        while pieces and pieces[-1].stop_ms > stop_ms:
            last = pieces.pop()
            heard = last.samples[: max(0, round((stop_ms - last.start_ms) * last.rate_hz / 1000))]
            self._audio_bytes -= 2 * (len(last.samples) - len(heard))
            if len(heard):
                last.samples = heard
                pieces.append(last)
                break


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
