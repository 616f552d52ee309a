"""What a session says, on its way to everybody who listens: in order, with faults and delays applied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rtnb.simulator.faults import Close, FaultPlan, Send

MOST_WAITING = 1024
"""Messages that wait for a slow client before we stop listening to it; 1024 audio deltas are 16 MB. Chosen."""

Ear = asyncio.Queue[tuple[float, Send | Close]]
"""What one listener has still to hear: when it was said, and what."""


class Outgoing:
    """The texts of one session.

    Parameters
    ----------
    plan : FaultPlan
        What goes wrong with them.
    """

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._client: Ear = asyncio.Queue()
        self._ears = [self._client]
        self._room = asyncio.Event()
        self._room.set()

    def say(self, event_type: str, text: str) -> None:
        """Say an event: its type in GA spelling, and its text."""
        for action in self._plan.outgoing(event_type, text):
            self.put(action)

    def put(self, action: Send | Close) -> None:
        """Say a text, or good-bye, to all who listen."""
        for ear in self._ears:
            ear.put_nowait((self._loop.time(), action))
            if ear.qsize() > MOST_WAITING:
                self._room.clear()

    def listen(self, first: str) -> Ear:
        """Somebody else listens from now on (`leave` ends it); hears `first` before what comes."""
        ear: Ear = asyncio.Queue()
        ear.put_nowait((self._loop.time(), Send(first)))
        self._ears.append(ear)
        return ear

    def leave(self, ear: Ear) -> None:
        """A listener of `listen` is gone."""
        self._ears.remove(ear)
        self._room.set()

    async def texts(self, ear: Ear | None = None) -> AsyncIterator[str | Close]:
        """What to send to the client or to another listener, in order; ends after a `Close`."""
        ear = ear or self._client
        while True:
            queued_at, action = await ear.get()
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
        """Messages that were not handed out to the client yet."""
        return self._client.qsize()

    async def has_room(self) -> None:
        """Wait while somebody reads too slowly: who does not listen is not listened to, and memory stays bounded."""
        await self._room.wait()
