"""Where the time between a question and its answer goes, turn by turn, from an event log.

The points of a turn, in their order; each is when the event passed this computer:

- *end of speech*: the last sample that was speech was sent (server VAD tells how long it waited; with push to talk it
  is the commit, with typed text the request);
- *commit*: the service made the user's turn an item;
- *created*: it began the response;
- *first token*: the first piece of the answer, whatever it is;
- *first audio*: the first piece of sound;
- *first audible*: the first sample of that sound above −50 dB full scale, played from its arrival on. A loudspeaker's
  own buffer comes on top.

Over WebRTC no sound passes here: both are when the service began to play, and the end of speech is when it told of it,
less the silence it waited for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from rtnb.audio import codec
from rtnb.protocol import events
from rtnb.protocol.values import ServerVad, SessionConfig

if TYPE_CHECKING:
    import pandas as pd

AUDIBLE: Final = 10 ** (-50 / 20)
"""Amplitude from which on a sample counts as audible: −50 dB full scale (chosen)."""

POINTS: Final = ("commit", "created", "first token", "first audio", "first audible")
"""What happens after the start of a turn, in order."""

_DELTAS = (
    events.ResponseOutputAudioDelta,
    events.ResponseOutputAudioTranscriptDelta,
    events.ResponseOutputTextDelta,
    events.ResponseFunctionCallArgumentsDelta,
)


@dataclass
class TurnLatency:
    """When each point of one turn was reached, on the log's monotonic clock; None where it was not."""

    kind: Literal["speech", "push to talk", "text", "service"]
    """How it began: by voice, by voice with push to talk, typed, or by the service itself."""
    start_s: float
    """End of speech; what everything is counted from."""
    commit_s: float | None = None
    created_s: float | None = None
    first_token_s: float | None = None
    first_audio_s: float | None = None
    first_audible_s: float | None = None
    done_s: float | None = None
    response_id: str = ""
    _plays_s: float = 0.0
    """When the next piece of its sound would be played."""

    def ms(self, point: str) -> float | None:
        """Milliseconds from the start to one of `POINTS` or ``"done"``; None where it was not reached."""
        at_s = getattr(self, f"{point.replace(' ', '_')}_s")
        return None if at_s is None else 1000 * (at_s - self.start_s)

    @property
    def steps_ms(self) -> dict[str, float]:
        """How long each step took, from one reached point to the next, ms; they add up to the last point."""
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

    Examples
    --------
    >>> LatencyMeter()
    <LatencyMeter: 0 turns>
    """

    def __init__(self) -> None:
        self.turns: list[TurnLatency] = []
        """One per response, in the order they began; the last may still grow."""
        self._config = SessionConfig()
        self._sent_ms: list[float] = []
        self._sent_s: list[float] = []
        self._waiting: TurnLatency | None = None
        self._growing: dict[str, TurnLatency] = {}

    def feed(self, rows: Iterable[Any]) -> None:
        """Take in the next rows of an `EventLog`."""
        for row in rows:
            self._take(row.event, row.monotonic_s)

    def _take(self, event: Any, at_s: float) -> None:
        match event:
            case events.InputAudioBufferAppend():
                before_ms = self._sent_ms[-1] if self._sent_ms else 0.0
                self._sent_ms.append(before_ms + len(event.audio) / self._config.input_format.bytes_per_ms)
                self._sent_s.append(at_s)
            case events.SessionCreated() | events.SessionUpdated():
                self._config = event.session
            case events.InputAudioBufferSpeechStopped():
                self._waiting = TurnLatency("speech", self._end_of_speech_s(event.audio_end_ms, at_s))
            case events.InputAudioBufferCommit():
                self._waiting = TurnLatency("push to talk", at_s)
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
            case _ if isinstance(event, _DELTAS):
                if growing := self._growing.get(event.response_id):
                    self._delta(growing, event, at_s)

    def _end_of_speech_s(self, audio_end_ms: float, now_s: float) -> float:
        """When the last sample of speech was sent: the service counts the silence it waited for as speech."""
        detection = self._config.turn_detection
        waited_ms = (detection.silence_duration_ms or 0) if isinstance(detection, ServerVad) else 0
        if not self._sent_ms:
            return now_s - waited_ms / 1000  # WebRTC: sound goes past the log, and this is told as soon as it is known
        position_ms = audio_end_ms - waited_ms
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
        loud = np.flatnonzero(np.abs(codec(form.type).decode(event.delta)) > AUDIBLE)
        turn._plays_s = max(turn._plays_s, at_s)
        if len(loud):
            turn.first_audible_s = turn._plays_s + loud[0] / form.rate_hz
        turn._plays_s += event.audio_bytes / form.bytes_per_ms / 1000

    def to_frame(self) -> pd.DataFrame:
        """Return one row per turn.

        Returns
        -------
        pandas.DataFrame
            kind, then ms from the end of speech to each of `POINTS` and to ``done`` (NaN where not reached);
            indexed by response_id.
        """
        import pandas as pd

        points = [*POINTS, "done"]
        rows = [[turn.kind, *(turn.ms(point) for point in points)] for turn in self.turns]
        index = pd.Index([turn.response_id for turn in self.turns], name="response_id")
        frame = pd.DataFrame(rows, columns=["kind", *points], index=index)
        return frame.astype(dict.fromkeys(points, float))

    def summary(self) -> pd.DataFrame:
        """Return n, median and 95th percentile of each point, ms; a number without its n says nothing."""
        import pandas as pd

        frame = self.to_frame().drop(columns="kind")
        return pd.DataFrame({"n": frame.count(), "p50": frame.median(), "p95": frame.quantile(0.95)})

    def __repr__(self) -> str:
        return f"<LatencyMeter: {len(self.turns)} turn{'' if len(self.turns) == 1 else 's'}>"
