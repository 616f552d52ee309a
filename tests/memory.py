"""Two transports joined in memory: a conversation without a network, with delay and loss given as data."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle

from rtnb.errors import ConnectionClosed

Sleep = Callable[[float], Awaitable[None]]


class _Direction:
    """One way of the line: texts on their way, each with the time it may arrive."""

    def __init__(self, delays_ms: Sequence[float], loss: Sequence[bool], clock: Callable[[], float], sleep: Sleep):
        self._delays_ms = cycle(delays_ms)
        self._loss = cycle(loss) if loss else None
        self._clock = clock
        self._sleep = sleep
        self._on_the_way: deque[tuple[float, str]] = deque()
        self._last_due_s = float("-inf")
        self._changed = asyncio.Event()
        self.closed: ConnectionClosed | None = None

    def put(self, text: str) -> None:
        if self._loss is not None and next(self._loss):
            return
        delay_ms = next(self._delays_ms)
        # Never earlier than the text before: a socket delays but does not reorder.
        self._last_due_s = max(self._last_due_s, self._clock() + delay_ms / 1000) if delay_ms else self._last_due_s
        self._on_the_way.append((self._last_due_s, text))
        self._changed.set()

    def end(self, closed: ConnectionClosed, *, drop: bool = False) -> None:
        self.closed = self.closed or closed
        if drop:
            self._on_the_way.clear()
        self._changed.set()

    async def get(self) -> str:
        while True:
            if self._on_the_way:
                due_s, text = self._on_the_way[0]
                wait_s = due_s - self._clock() if due_s > float("-inf") else 0.0
                if wait_s <= 0:
                    self._on_the_way.popleft()  # only now: a cancelled sleep loses nothing
                    return text
                await self._sleep(wait_s)
            elif self.closed is not None:
                raise ConnectionClosed(str(self.closed), code=self.closed.code, reason=self.closed.reason)
            else:
                self._changed.clear()
                await self._changed.wait()


class MemoryTransport:
    """One end of a pair made by `memory_pair`; both ends live on one event loop."""

    def __init__(self, outgoing: _Direction, incoming: _Direction) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    async def send(self, text: str) -> None:
        """Put `text` on its way; it may be lost, as scripted."""
        if self._outgoing.closed is not None:
            closed = self._outgoing.closed
            raise ConnectionClosed(f"cannot send: {closed}", code=closed.code, reason=closed.reason)
        self._outgoing.put(text)

    async def receive(self) -> str:
        """Wait for the next text of the other end."""
        return await self._incoming.get()

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        """Close both ways: the other end still receives what is on its way, this end receives nothing more."""
        words = f"{code} {reason}".strip()
        self._outgoing.end(
            ConnectionClosed(f"the other side closed the connection ({words})", code=code, reason=reason)
        )
        here = ConnectionClosed(f"this side closed the connection ({words})", code=code, reason=reason)
        self._incoming.end(here, drop=True)


def memory_pair(
    *,
    delay_ms: float | Sequence[float] = 0.0,
    loss: Sequence[bool] = (),
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
) -> tuple[MemoryTransport, MemoryTransport]:
    """Make two joined transports: what one sends, the other receives.

    More delay makes every text arrive later, never out of order; loss drops texts, which a WebSocket never does
    but a bad day of testing should.

    Parameters
    ----------
    delay_ms : float or sequence of float, default 0
        Delay of each text in ms; a sequence is played in a circle, for each direction on its own.
    loss : sequence of bool, default ()
        True drops the text; played in a circle, for each direction on its own, e.g. ``[False, True]`` drops every
        second text. A dropped text takes no delay from `delay_ms`.
    clock : callable, default time.monotonic
        Gives the time in seconds.
    sleep : callable, default asyncio.sleep
        Waits so many seconds; only called for delays above 0. Give both for a test without waiting.

    Returns
    -------
    tuple of two MemoryTransport

    Examples
    --------
    >>> async def one_way() -> str:
    ...     here, there = memory_pair()
    ...     await here.send("hello")
    ...     return await there.receive()
    >>> asyncio.run(one_way())
    'hello'

    References
    ----------
    Loss as data: aiortc's tests (`dummy_ice_transport_pair(loss=...)`).
    """
    delays_ms = [float(delay_ms)] if isinstance(delay_ms, (int, float)) else [float(one) for one in delay_ms]
    if not delays_ms or any(not 0 <= one < float("inf") for one in delays_ms):
        raise ValueError(f"delay_ms is {delay_ms!r}; a number of ms >= 0, or a non-empty sequence of them")
    there, back = (_Direction(delays_ms, loss, clock, sleep) for _ in range(2))
    return MemoryTransport(there, back), MemoryTransport(back, there)
