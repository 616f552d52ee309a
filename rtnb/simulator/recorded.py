"""Service of a recorded conversation: `RecordedSession` sends what a service sent then, at the same distances.

Each event of the service waits until the client has sent everything before it in the recording: every request (by type
and number), and before an event of the input buffer as much audio. From there it keeps the recorded distance in time.
The content of requests and audio is not read. Ids that a client chooses are replaced by those of this client.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, Protocol

from rtnb.errors import RemoteProtocolError, RtnbError
from rtnb.protocol import Dialect, events, wire
from rtnb.protocol.events import CLIENT_EVENTS, UnknownEvent
from rtnb.simulator.delivery import MOST_WAITING, Outgoing
from rtnb.simulator.faults import Close, FaultPlan, LatencyProfile

_log = logging.getLogger("rtnb.simulator")

AUDIO_SLACK_S: Final = 0.2
"""A client may have sent this much less audio than the recorded one before an event of the input buffer follows: two
chunks of 100 ms (chosen)."""
QUIET_S: Final = 0.5
"""A client whose next audio is so late sends no more (chosen: five chunks)."""
STEADY_S: Final = 0.015
"""A client that is so late keeps the recorded pace (chosen: jitter of a busy computer)."""

_OPTIONAL: Final = {"conversation.item.truncate", "response.cancel", "output_audio_buffer.clear"}
"""Requests that are not waited for: clients send them by themselves, or not."""
_ID: Final = re.compile(r'"([^"\\]{1,100})"')


class Recording(Protocol):
    """Recorded conversation; `rtnb.Trace` is one."""

    def rows(self) -> Iterable[Any]:
        """Yield both sides' events in order, each with `direction`, `monotonic_s` and `event` (audio included)."""


class RecordedSession:
    """Session of one client with a recording.

    Parameters
    ----------
    recording : Recording
        Read once, while it is played.
    dialect : {"ga", "preview"}
        Of the client.
    plan : FaultPlan
        Faults on top of the recording.
    """

    def __init__(self, recording: Recording, *, dialect: Dialect, plan: FaultPlan) -> None:
        self.latency = replace(LatencyProfile.parse("fast"), answer_ms=0.0)  # the recorded times contain it
        self.outgoing = Outgoing(plan)
        self.n_events, self.idle, self.heard_ms = 0, False, 0.0
        self._recording, self._dialect = recording, dialect
        self._loop = asyncio.get_running_loop()
        self._arrived: dict[tuple[str, int], tuple[float, Any]] = {}
        """Type and number of a request -> when it arrived, and the request."""
        self._counts: Counter[str] = Counter()
        self._ids: dict[str, str] = {}
        """Recorded id of a client -> the same of this client."""
        self._audio: deque[tuple[int, float]] = deque(maxlen=MOST_WAITING)
        """Bytes of audio that have arrived so far, and when; the newest."""
        self._offset_s: float | None = None
        """Add it to a recorded time to get the time of the event loop."""
        self._news = asyncio.Event()
        self._task = self._loop.create_task(self._run(), name="rtnb recorded session")

    # --- in -----------------------------------------------------------------------------------------------------------

    async def receive(self, text: str | bytes) -> None:
        """Take one message of the client."""
        self.n_events += 1
        try:
            event = wire.decode(str(text), dialect=self._dialect, registry=CLIENT_EVENTS)
        except RemoteProtocolError:
            event = UnknownEvent(type="unreadable", payload={})
        now_s = self._loop.time()
        if isinstance(event, events.InputAudioBufferAppend):
            self._audio.append((len(event.audio) + (self._audio[-1][0] if self._audio else 0), now_s))
        elif len(self._arrived) < MOST_WAITING:
            self._counts[event.type] += 1
            self._arrived[event.type, self._counts[event.type]] = now_s, event
        self._news.set()

    async def take_audio(self, data: bytes) -> None:
        """Ignore the track of a call."""

    async def aclose(self) -> None:
        """End it; no task stays behind."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # --- out ----------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._play()
        except RtnbError as error:  # in the recording, which is read as it is played
            _log.error("a recorded session ended: %s", error)
            self.outgoing.put(Close(1011, str(error)))

    async def _play(self) -> None:
        counts: Counter[str] = Counter()
        audio_bytes, audio_s, slack_bytes = 0, None, 0.0
        for row in self._recording.rows():
            event: Any = row.event
            if isinstance(event, events.InputAudioBufferAppend):
                audio_bytes, audio_s = audio_bytes + len(event.audio), row.monotonic_s
            elif row.direction == "sent":
                counts[event.type] += 1
                if event.type not in _OPTIONAL:
                    self._anchor(row.monotonic_s, await self._request((event.type, counts[event.type]), event))
            else:
                if event.type.startswith("input_audio_buffer.") and audio_s is not None:
                    self._anchor(audio_s, await self._enough_audio(audio_bytes, slack_bytes, audio_s))
                    audio_s = None
                if self._offset_s is None:
                    self._anchor(row.monotonic_s, self._loop.time())
                await asyncio.sleep(row.monotonic_s + (self._offset_s or 0.0) - self._loop.time())
                await self.outgoing.has_room()
                self._send(event)
                if isinstance(event, events.SessionCreated | events.SessionUpdated):
                    slack_bytes = 1000 * AUDIO_SLACK_S * event.session.input_format.bytes_per_ms
        self.idle = True

    def _anchor(self, recorded_s: float, here_s: float) -> None:
        """Note when something recorded happened here; what is a little late was delayed and does not move the clock."""
        offset_s = here_s - recorded_s
        if self._offset_s is None or not 0 <= offset_s - self._offset_s <= STEADY_S:
            self._offset_s = offset_s

    async def _request(self, key: tuple[str, int], event: Any) -> float:
        while key not in self._arrived:
            await self._next()
        at_s, asked = self._arrived.pop(key)
        for old, new in ((event, asked), (getattr(event, "item", None), getattr(asked, "item", None))):
            for name in ("id", "event_id"):
                if (before := getattr(old, name, None)) and (now := getattr(new, name, None)):
                    self._ids[before] = now
        return at_s

    async def _enough_audio(self, n_bytes: int, slack_bytes: float, recorded_s: float) -> float:
        """Return when the client had sent as much audio as the recorded one, or nearly as much and then no more."""
        due_s = None if self._offset_s is None else recorded_s + self._offset_s
        while not self._audio or self._audio[-1][0] < n_bytes:
            deadline_s = None
            if self._audio and due_s is not None and self._audio[-1][0] >= n_bytes - slack_bytes:
                deadline_s = max(due_s, self._audio[-1][1]) + QUIET_S
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._next()
            except TimeoutError:
                break
        return next((at_s for total, at_s in self._audio if total >= n_bytes), self._audio[-1][1])

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _send(self, event: events.Event) -> None:
        self.n_events += 1
        text = wire.encode(event, dialect=self._dialect)
        if self._ids and not isinstance(event, events.ResponseOutputAudioDelta):
            text = _ID.sub(lambda found: f'"{self._ids.get(found[1], found[1])}"', text)
        self.outgoing.send(event.type, text)
