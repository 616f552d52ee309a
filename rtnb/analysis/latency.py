"""Latency of each turn, split into its steps, from an event log.

The points of a turn, in their order; each is when the event passed this computer:

- *acoustic end*: the last loud sample reached the microphone, where it is one of the notebook (`SpeechEnd`);
- *end of speech*: the last loud sample was sent, before the silence that the server VAD waited for; found in the audio
  that was sent, so also with semantic VAD and push to talk. Where nothing loud was sent it is the commit, with typed
  text the request. A turn counts from here where its acoustic end is not known;
- *commit*: the service made the user's turn an item;
- *created*: it began the response;
- *first token*: the first piece of the answer, whatever it is;
- *first audio*: the first piece of audio;
- *first audible*: the first sample of that sound above −50 dB full scale, played from its arrival on. A loudspeaker's
  own buffer comes on top.

Over WebRTC no sound passes here: both are when the service began to play, and the end of speech is when its event came,
less the silence that the service waited for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from rtnb.audio import Audio, Codec, codec
from rtnb.protocol import events
from rtnb.protocol.values import ServerVad, SessionConfig

if TYPE_CHECKING:
    import pandas as pd

AUDIBLE: Final = 10 ** (-50 / 20)
"""Amplitude from which on a sample counts as audible: −50 dB full scale (chosen)."""

POINTS: Final = ("commit", "created", "first token", "first audio", "first audible")
"""What happens after the start of a turn, in order."""


class SpeechEnd:
    """Detector of the end of speech, by the level of the audio.

    A block of 10 ms is loud above −50 dB full scale and 12 dB above the noise, which is the lowest level lately (it
    rises by 3 dB per second); a single loud block is a click (all chosen). The end is that of the last loud sample, in
    simulation within 10 ms of the true end on average, at 30 dB of contrast. The microphone's hardware and the way to
    this computer take some 10 ms, which are not counted; noise as loud as speech moves the end.

    Examples
    --------
    >>> import numpy as np
    >>> ear = SpeechEnd()
    >>> ear.take(np.repeat([0, 0.1, 0], 2400), rate_hz=24_000, end_s=7.0)
    >>> round(ear.before(7.0), 3)
    6.9
    """

    def __init__(self) -> None:
        self._noise = 1.0
        self._runs: deque[list[float]] = deque(maxlen=256)
        """Where it was loud: [start_s, stop_s]."""

    def take(self, samples: Audio, *, rate_hz: int, end_s: float) -> None:
        """Take the next audio; its last sample was captured at `end_s`, on the clock of the event log."""
        size = rate_hz // 100
        for number, block in enumerate(samples[: len(samples) // size * size].reshape(-1, size)):
            level = float(np.sqrt(np.mean(block**2)))
            self._noise = max(min(level, self._noise * 10 ** (0.03 / 20)), AUDIBLE / 8)
            if level > max(AUDIBLE, 4 * self._noise):
                last = int(np.flatnonzero(np.abs(block) > max(AUDIBLE, 2 * self._noise))[-1]) + 1  # not the block's end
                stop_s = end_s - (len(samples) - number * size - last) / rate_hz
                if self._runs and stop_s - self._runs[-1][1] < 0.025:
                    self._runs[-1][1] = stop_s
                else:
                    self._runs.append([stop_s - last / rate_hz, stop_s])

    def before(self, at_s: float) -> float | None:
        """Return the time of the last loud sample before then; None without any."""
        for start_s, stop_s in reversed(self._runs):
            if stop_s - start_s > 0.015 and start_s < at_s:
                return min(stop_s, at_s)
        return None


def _samples(data: bytes, form: Codec) -> tuple[Audio, bytes]:
    """Decode the whole samples; return them and the byte that may be left over."""
    stop = len(data) // form.bytes_per_sample * form.bytes_per_sample
    return form.decode(data[:stop]), data[stop:]


@dataclass
class TurnLatency:
    """Times of the points of one turn, on the log's monotonic clock; None where one was not reached."""

    kind: Literal["speech", "push to talk", "text", "service"]
    """How it began: by voice, by voice with push to talk, typed, or by the service itself."""
    start_s: float
    """End of speech as it was sent (or the commit, or the request)."""
    acoustic_s: float | None = None
    """Acoustic end of speech; None where no microphone of the notebook heard it."""
    commit_s: float | None = None
    created_s: float | None = None
    first_token_s: float | None = None
    first_audio_s: float | None = None
    first_audible_s: float | None = None
    done_s: float | None = None
    response_id: str = ""
    found: bool = False
    """Whether the end of speech was found in the audio that was sent."""
    _plays_s: float = 0.0
    """When the next piece of its sound would be played."""
    _half: bytes = b""
    """The first half of a sample; the other comes with the next delta."""

    @property
    def start(self) -> str:
        """Name of the point that the milliseconds count from."""
        if self.acoustic_s is not None:
            return "acoustic end"
        if self.found:
            return "end of speech"
        return {"speech": "end of speech", "push to talk": "commit sent", "text": "request"}.get(self.kind, "start")

    def ms(self, point: str) -> float | None:
        """Milliseconds from `start` to one of `POINTS` or ``"done"``; None where it was not reached."""
        at_s = getattr(self, f"{point.replace(' ', '_')}_s")
        start_s = self.start_s if self.acoustic_s is None else self.acoustic_s
        return None if at_s is None else 1000 * (at_s - start_s)

    @property
    def answer_ms(self) -> float | None:
        """Milliseconds to the first sound or, without sound, to the first token."""
        return self.ms("first audible") or self.ms("first token")

    @property
    def steps_ms(self) -> dict[str, float]:
        """Duration of each step between reached points, ms; they add up to the last point."""
        steps, before_ms = {}, 0.0
        for point in POINTS:
            if (ms := self.ms(point)) is not None:
                steps[point] = ms - before_ms
                before_ms = ms
        return steps

    def __repr__(self) -> str:
        steps = " → ".join(f"{point} {ms:.0f} ms" for point, ms in self.steps_ms.items())
        return f"<TurnLatency {self.kind}: {steps or 'nothing yet'}>"


class LatencyMeter:
    """Follows an event log and splits the latency of each turn.

    Parameters
    ----------
    ear : SpeechEnd, optional
        Who knows the acoustic end of speech.

    Examples
    --------
    >>> LatencyMeter()
    <LatencyMeter: 0 turns>
    """

    def __init__(self, ear: SpeechEnd | None = None) -> None:
        self._ear = ear
        self._ended_s = float("-inf")
        """When the speech before was known to be over: a later turn has a later end."""
        self.turns: list[TurnLatency] = []
        """One per response, in the order they began; the last may still grow."""
        self._config = SessionConfig()
        self._sent_ms: list[float] = []
        self._sent_s: list[float] = []
        self._sound = SpeechEnd()
        """Of the audio that was sent, on its own clock."""
        self._taken_ms = 0.0
        """The part of it that belongs to earlier turns."""
        self._waiting: TurnLatency | None = None
        self._growing: dict[str, TurnLatency] = {}

    def feed(self, rows: Iterable[Any]) -> None:
        """Take in the next rows of an `EventLog`."""
        for row in rows:
            self._take(row.event, row.monotonic_s)

    def _take(self, event: Any, at_s: float) -> None:
        match event:
            case events.InputAudioBufferAppend():
                form = self._config.input_format
                before_ms = self._sent_ms[-1] if self._sent_ms else 0.0
                self._sent_ms.append(before_ms + len(event.audio) / form.bytes_per_ms)
                self._sent_s.append(at_s)
                samples, _ = _samples(event.audio, codec(form.type))  # half a sample is refused, or lost
                self._sound.take(samples, rate_hz=form.rate_hz, end_s=self._sent_ms[-1] / 1000)
            case events.SessionCreated() | events.SessionUpdated():
                self._config = event.session
                if isinstance(event, events.SessionCreated):
                    self._ended_s = at_s  # what was heard before is of another session
            case events.InputAudioBufferSpeechStopped():
                self._waiting = self._spoken("speech", event.audio_end_ms, at_s)
            case events.InputAudioBufferCommit():
                self._waiting = self._spoken("push to talk", self._sent_ms[-1] if self._sent_ms else 0.0, at_s)
            case events.InputAudioBufferCommitted():
                self._waiting = self._waiting or TurnLatency("service", at_s)
                self._waiting.commit_s = at_s
            case events.ResponseCreate():
                self._waiting = self._waiting or TurnLatency("text", at_s)
            case events.ResponseCreated():
                turn, self._waiting = self._waiting or TurnLatency("service", at_s), None
                turn.created_s, turn.response_id = at_s, event.response.id
                self._growing[event.response.id] = turn
                self.turns.append(turn)
            case events.ResponseDone():
                if finished := self._growing.pop(event.response.id, None):
                    finished.done_s = at_s
            case events.OutputAudioBufferStarted():
                for turn in self.turns:
                    if turn.response_id == event.response_id:  # WebRTC: no sound passes here, the service plays it
                        turn.first_audio_s = turn.first_audible_s = at_s
            case (
                events.ResponseOutputAudioDelta()
                | events.ResponseOutputAudioTranscriptDelta()
                | events.ResponseOutputTextDelta()
                | events.ResponseFunctionCallArgumentsDelta()
            ):
                if growing := self._growing.get(event.response_id):
                    self._delta(growing, event, at_s)

    def _spoken(self, kind: Literal["speech", "push to talk"], end_ms: float, now_s: float) -> TurnLatency:
        """Return a turn whose audio ends at `end_ms`; the service counts the silence it waited for as part of it."""
        detection = self._config.turn_detection
        waited_ms = (detection.silence_duration_ms or 0) if kind == "speech" and isinstance(detection, ServerVad) else 0
        loud_s = self._sound.before((end_ms - waited_ms) / 1000)
        found = loud_s is not None and loud_s * 1000 > self._taken_ms
        self._taken_ms = max(self._taken_ms, end_ms)
        if found and loud_s is not None:
            start_s = self._sent_at_s(1000 * loud_s, now_s)
        elif kind == "push to talk":
            start_s = now_s
        elif not self._sent_ms:
            start_s = now_s - waited_ms / 1000  # WebRTC: sound goes past the log, and the event comes at once
        else:
            start_s = self._sent_at_s(end_ms - waited_ms, now_s)
        heard_s = None if self._ear is None else self._ear.before(now_s)
        before_s, self._ended_s = self._ended_s, now_s
        acoustic_s = heard_s if heard_s is not None and heard_s > before_s else None  # later than the turn before
        return TurnLatency(kind, start_s, acoustic_s, found=found)

    def _sent_at_s(self, position_ms: float, now_s: float) -> float:
        """Return when a sample of the sent audio was captured: sent in real time, a chunk ends as it is sent."""
        index = bisect_left(self._sent_ms, position_ms)
        if index >= len(self._sent_ms):
            return now_s
        spoken_s = self._sent_s[index] - (self._sent_ms[index] - position_ms) / 1000
        return max(spoken_s, self._sent_s[index - 1]) if index else spoken_s

    def _delta(self, turn: TurnLatency, event: Any, at_s: float) -> None:
        if turn.first_token_s is None:
            turn.first_token_s = at_s
        if turn.first_audible_s is not None or not isinstance(event, events.ResponseOutputAudioDelta):
            return
        if turn.first_audio_s is None:
            turn.first_audio_s = at_s
        form = self._config.output_format
        samples, turn._half = _samples(turn._half + event.delta, codec(form.type))
        loud = np.flatnonzero(np.abs(samples) > AUDIBLE)
        turn._plays_s = max(turn._plays_s, at_s)
        if len(loud):
            turn.first_audible_s = turn._plays_s + loud[0] / form.rate_hz
        turn._plays_s += event.audio_bytes / form.bytes_per_ms / 1000

    def to_frame(self) -> pd.DataFrame:
        """Return one row per turn.

        Returns
        -------
        pandas.DataFrame
            kind, start (what the turn counts from), then ms to each of `POINTS` and to ``done`` (NaN where not
            reached); indexed by response_id.
        """
        import pandas as pd

        points = [*POINTS, "done"]
        rows = [(one.response_id, one.kind, one.start, *(one.ms(point) for point in points)) for one in self.turns]
        frame = pd.DataFrame(rows, columns=["response_id", "kind", "start", *points]).set_index("response_id")
        return frame.astype(dict.fromkeys(points, float))

    def summary(self) -> pd.DataFrame:
        """Return n, median and 95th percentile of each point, ms; a number without its n says nothing."""
        import pandas as pd

        frame = self.to_frame().drop(columns=["kind", "start"])
        return pd.DataFrame({"n": frame.count(), "p50": frame.median(), "p95": frame.quantile(0.95)})

    def __repr__(self) -> str:
        return f"<LatencyMeter: {len(self.turns)} turn{'' if len(self.turns) == 1 else 's'}>"
