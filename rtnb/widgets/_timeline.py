"""One time axis for both sides of a session: where each piece of audio, speech, and response lies. Pure: rows in.

What was sent lies where it was recorded: it ends when it was sent. What came lies where a speaker plays it: from its
arrival on, one piece after the other, until it is cut to what was heard.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from rtnb.audio import codec
from rtnb.audio.pcm import to_int16
from rtnb.client.log import LogRow
from rtnb.protocol import events
from rtnb.protocol.values import PCM16, AudioFormat

Lane = Literal["you", "model"]
Samples = npt.NDArray[np.int16]

_JITTER_MS: Final = 250.0
"""A chunk that ends at most this long after the one before it should have is its continuation (chosen)."""


@dataclass
class Piece:
    """Some audio on the axis."""

    lane: Lane
    start_ms: float
    samples: Samples
    rate_hz: int
    item_id: str = ""

    @property
    def stop_ms(self) -> float:
        return self.start_ms + 1000 * len(self.samples) / self.rate_hz


@dataclass
class Stretch:
    """From when to when; `stop_ms` is None while it lasts."""

    start_ms: float
    stop_ms: float | None = None
    status: str = ""
    heard_ms: float | None = None
    """Of an item that was cut: what was heard of it."""
    audio_ms: float = 0.0
    """Of an item: how much audio came."""


class Decoder:
    """Samples of the audio events carry, in the format the session has at that moment."""

    def __init__(self) -> None:
        self._input = self._output = PCM16
        self._of_response: dict[str, AudioFormat] = {}
        self._halves: dict[str, bytes] = {}
        """The odd byte at the end of a stream: half a sample, its other half is in the next delta."""

    def samples(self, event: Any) -> tuple[Samples, int] | None:
        """Samples and their rate, None for events without audio; formats are followed, so show it every event."""
        if isinstance(event, events.ResponseOutputAudioDelta):
            return self._decoded(event.delta, self._of_response.get(event.response_id, self._output), event.item_id)
        if isinstance(event, events.InputAudioBufferAppend):
            return self._decoded(event.audio, self._input, "")
        if isinstance(event, events.SessionCreated | events.SessionUpdated):
            self._input, self._output = event.session.input_format, event.session.output_format
        elif isinstance(event, events.ResponseCreated):
            output = event.response.audio and event.response.audio.output
            self._of_response[event.response.id] = (output and output.format) or self._output
        return None

    def _decoded(self, data: bytes, form: AudioFormat, stream: str) -> tuple[Samples, int]:
        if form.type != "audio/pcm":
            return to_int16(codec(form.type).decode(data)), form.rate_hz
        if half := self._halves.pop(stream, b""):
            data = half + data
        if len(data) % 2:
            self._halves[stream] = data[-1:]
        return np.frombuffer(data, "<i2", count=len(data) // 2), form.rate_hz


class Timeline:
    """Rows of a log, laid out; times are ms since its first row."""

    def __init__(self) -> None:
        self.pieces: dict[Lane, list[Piece]] = {"you": [], "model": []}
        self.speech: list[Stretch] = []
        """What the service took for speech."""
        self.responses: dict[str, Stretch] = {}
        self.items: dict[str, Stretch] = {}
        """Item id -> its audio (for the user's: what was taken for speech)."""
        self.row_ms: list[float] = []
        """When each row happened."""
        self.touched: dict[str, Stretch] = {}
        """What is new or changed: "s0" (speech), "r…" (response), "i…" (item); whoever shows it empties it."""
        self._start_s: float | None = None
        self._decoder = Decoder()
        self._sent: list[tuple[float, float]] = []
        """Runs of sent audio: ms of all audio sent before, and where on the axis it went on."""
        self._sent_ms = 0.0

    def add(self, row: LogRow) -> Piece | None:
        """Lay out one row; returns the audio it brought."""
        self._start_s = row.monotonic_s if self._start_s is None else self._start_s
        now_ms = max(1000 * (row.monotonic_s - self._start_s), self.row_ms[-1] if self.row_ms else 0.0)
        self.row_ms.append(now_ms)
        event: Any = row.event
        heard = self._decoder.samples(event)
        if heard is not None:
            is_sent = isinstance(event, events.InputAudioBufferAppend)
            return self._sent_piece(*heard, now_ms) if is_sent else self._came_piece(*heard, now_ms, event.item_id)
        if isinstance(event, events.InputAudioBufferSpeechStarted):
            self._speech_started(event, now_ms)
        elif isinstance(event, events.InputAudioBufferSpeechStopped):
            if self.speech and self.speech[-1].stop_ms is None:
                self.speech[-1].stop_ms = max(self._axis_ms(event.audio_end_ms, now_ms), self.speech[-1].start_ms)
                self.touched[f"s{len(self.speech) - 1}"] = self.speech[-1]
        elif isinstance(event, events.ResponseCreated | events.ResponseDone):
            self._response(event, now_ms)
        elif isinstance(event, events.ConversationItemTruncate) and event.item_id in self.items:
            self._cut(event.item_id, self.items[event.item_id], event.audio_end_ms)
        return None

    def index_at(self, ms: float) -> int | None:
        """The index of the last row at or before a moment, None before the first."""
        index = bisect_right(self.row_ms, ms) - 1
        return index if index >= 0 else None

    def everything(self) -> dict[str, Stretch]:
        """All stretches, keyed as in `touched`."""
        speech = {f"s{number}": stretch for number, stretch in enumerate(self.speech)}
        responses = {f"r{key}": stretch for key, stretch in self.responses.items()}
        return speech | responses | {f"i{key}": item for key, item in self.items.items() if item.audio_ms}

    def clip(self, start_ms: float, length_ms: float, *, rate_hz: int = 24_000) -> Samples:
        """Both sides together, as they would have sounded; the end may be shorter than asked for."""
        mixed = np.zeros(round(length_ms * rate_hz / 1000), np.int32)
        used = 0
        for pieces in self.pieces.values():
            first = max(0, bisect_right(pieces, start_ms, key=lambda piece: piece.start_ms) - 1)
            for piece in pieces[first:]:
                if piece.start_ms >= start_ms + length_ms:
                    break
                step = rate_hz // piece.rate_hz
                samples = np.repeat(piece.samples, step) if step > 1 else piece.samples  # 8 kHz: good enough to hear
                begin = round((piece.start_ms - start_ms) * rate_hz / 1000)
                samples = samples[max(0, -begin) : max(0, len(mixed) - begin)]
                begin = max(0, begin)
                mixed[begin : begin + len(samples)] += samples
                used = max(used, begin + len(samples))
        return np.clip(mixed[:used], -32_768, 32_767).astype(np.int16)

    # --- what was sent ------------------------------------------------------------------------------------------------

    def _sent_piece(self, samples: Samples, rate_hz: int, now_ms: float) -> Piece:
        pieces, length_ms = self.pieces["you"], 1000 * len(samples) / rate_hz
        start_ms = max(0.0, now_ms - length_ms)
        free_ms = pieces[-1].stop_ms if pieces else float("-inf")
        if free_ms >= start_ms - _JITTER_MS:
            start_ms = free_ms
        else:
            self._sent.append((self._sent_ms, start_ms))
        self._sent_ms += length_ms
        pieces.append(Piece("you", start_ms, samples, rate_hz))
        return pieces[-1]

    def _axis_ms(self, sent_ms: float, now_ms: float) -> float:
        """Where a moment of the audio sent lies on the axis; without such audio (WebRTC), now."""
        run = bisect_right(self._sent, sent_ms, key=lambda pair: pair[0]) - 1
        if run < 0:
            return now_ms
        before_ms, start_ms = self._sent[run]
        return start_ms + sent_ms - before_ms

    def _speech_started(self, event: events.InputAudioBufferSpeechStarted, now_ms: float) -> None:
        speech = Stretch(self._axis_ms(event.audio_start_ms, now_ms))
        self.speech.append(speech)
        self.touched[f"s{len(self.speech) - 1}"] = speech
        if event.item_id:
            self.items[event.item_id] = speech

    # --- what came ----------------------------------------------------------------------------------------------------

    def _response(self, event: events.ResponseCreated | events.ResponseDone, now_ms: float) -> None:
        response = self.responses.setdefault(event.response.id, Stretch(now_ms))
        response.status = str(event.response.status or "in_progress")
        if isinstance(event, events.ResponseDone):
            response.stop_ms = now_ms
        self.touched[f"r{event.response.id}"] = response

    def _came_piece(self, samples: Samples, rate_hz: int, now_ms: float, item_id: str) -> Piece | None:
        pieces = self.pieces["model"]
        item = self.items.get(item_id)
        if item is not None and item.heard_ms is not None:
            return None  # it was cut: nobody plays what comes late
        start_ms = now_ms if not pieces else max(now_ms, pieces[-1].stop_ms)
        piece = Piece("model", start_ms, samples, rate_hz, item_id)
        pieces.append(piece)
        if item is None:
            item = self.items[item_id] = Stretch(start_ms)
        item.stop_ms = piece.stop_ms
        item.audio_ms += piece.stop_ms - piece.start_ms
        self.touched[f"i{item_id}"] = item
        return piece

    def _cut(self, item_id: str, item: Stretch, heard_ms: float) -> None:
        """What was not heard leaves the axis: what comes next is played from now on."""
        item.heard_ms = min(heard_ms, item.audio_ms)
        item.stop_ms = item.start_ms + item.heard_ms
        self.touched[f"i{item_id}"] = item
        pieces = self.pieces["model"]
        while pieces and pieces[-1].start_ms >= item.stop_ms:
            pieces.pop()
        if pieces and (excess_ms := pieces[-1].stop_ms - item.stop_ms) > 0:
            last = pieces[-1]
            last.samples = last.samples[: max(0, len(last.samples) - round(excess_ms * last.rate_hz / 1000))]
