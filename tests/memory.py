"""Two transports joined in memory: a connection without a network."""

import asyncio
from collections import deque

from rtnb.errors import ConnectionClosed


class MemoryTransport:
    """End of a pair made by `memory_pair`; both ends live on one event loop."""

    def __init__(self) -> None:
        self.peer = self
        self._arrived: deque[str] = deque()
        self._changed = asyncio.Event()
        self._closed: tuple[str, int, str] | None = None

    async def send(self, text: str) -> None:
        """Deliver a text to the other end."""
        if self._closed is not None:
            raise self._error("cannot send: ")
        self.peer._arrived.append(text)
        self.peer._changed.set()

    async def receive(self) -> str:
        """Wait for the next text of the other end."""
        while not self._arrived:
            if self._closed is not None:
                raise self._error()
            self._changed.clear()
            await self._changed.wait()
        return self._arrived.popleft()

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        """Close both ends: the other one still receives what was sent, this one receives nothing more."""
        self._arrived.clear()
        for end, side in ((self, "this side"), (self.peer, "the other side")):
            message = f"{side} closed the connection ({f'{code} {reason}'.strip()})"
            end._closed = end._closed or (message, code, reason)
            end._changed.set()

    def _error(self, prefix: str = "") -> ConnectionClosed:
        assert self._closed is not None
        message, code, reason = self._closed
        return ConnectionClosed(prefix + message, code=code, reason=reason)


def memory_pair() -> tuple[MemoryTransport, MemoryTransport]:
    """Return two joined transports: each receives the texts that the other sends, in order."""
    here, there = MemoryTransport(), MemoryTransport()
    here.peer, there.peer = there, here
    return here, there
