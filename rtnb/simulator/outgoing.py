"""Events of a session on their way to its client and its listeners: in order, with faults and delays applied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rtnb.simulator.faults import Close, FaultPlan, Send

MOST_WAITING = 1024
"""Messages that wait for a slow client before its messages are no longer read. Chosen."""
MOST_WAITING_BYTES = 16 * 2**20
"""The same as characters, for a client that asks for long answers and reads none: 1024 audio deltas. Chosen."""

Ear = asyncio.Queue[tuple[float, Send | Close]]
"""Messages that wait for one listener, each with the time at which it was put."""


class Outgoing:
    """The texts of one session.

    Parameters
    ----------
    plan : FaultPlan
        The faults that strike them.
    """

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._client: Ear = asyncio.Queue()
        self._ears = [self._client]
        self._n_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    def say(self, event_type: str, text: str) -> None:
        """Send an event: its type in GA spelling, and its text."""
        for action in self._plan.outgoing(event_type, text):
            self.put(action)

    def put(self, action: Send | Close) -> None:
        """Queue a text or the end of the connection for all listeners."""
        for ear in self._ears:
            self._queue(ear, action)

    def _queue(self, ear: Ear, action: Send | Close) -> None:
        ear.put_nowait((self._loop.time(), action))
        self._n_bytes += _size(action)
        if ear.qsize() > MOST_WAITING or self._n_bytes > MOST_WAITING_BYTES:
            self._room.clear()

    def listen(self, first: str) -> Ear:
        """Add a listener, until `leave`; it receives `first` before all that follows."""
        ear: Ear = asyncio.Queue()
        self._queue(ear, Send(first))
        self._ears.append(ear)
        return ear

    def leave(self, ear: Ear) -> None:
        """Remove a listener."""
        self._ears.remove(ear)
        while not ear.empty():
            self._n_bytes -= _size(ear.get_nowait()[1])
        self._room.set()

    async def texts(self, ear: Ear | None = None) -> AsyncIterator[str | Close]:
        """Yield what to send to the client or to another listener, in order; end after a `Close`."""
        ear = ear or self._client
        while True:
            queued_at, action = await ear.get()
            self._n_bytes -= _size(action)
            if all(one.empty() for one in self._ears):
                self._room.set()
            if isinstance(action, Close):
                yield action
                return
            if action.delay_ms:
                await asyncio.sleep(max(0.0, queued_at + action.delay_ms / 1000 - self._loop.time()))
            yield action.text

    @property
    def n_waiting(self) -> int:
        """Messages that still wait for the client."""
        return self._client.qsize()

    async def has_room(self) -> None:
        """Wait while a listener reads too slowly (backpressure): a client that does not read is not read either."""
        await self._room.wait()


def _size(action: Send | Close) -> int:
    return len(action.text) if isinstance(action, Send) else 0
