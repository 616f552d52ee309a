"""`Page` and `Channel`: who is at the other end of the line, and what is said to whom."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rtnb._loop import shared_loop
from rtnb.widgets._frames import Counts, Delay, Inbox, Outbox, Prepared, now_ms, prepare

Answer = dict[str, Any] | None
OnMessage = Callable[[str, dict[str, Any], list[bytes]], Answer | Awaitable[Answer]]
OnPage = Callable[[str, str], object]


class Page:
    """One browser tab (or one reload of it) as the kernel knows it."""

    def __init__(self, id: str, origin: str) -> None:
        self.id = id
        self.origin = origin
        self.via = "messages"
        """``"direct"``, ``"proxy"`` or ``"messages"``."""
        self.heard_s = time.monotonic()
        self.cursors: dict[str, int] = {}
        """For each joined channel, the number of the next frame to send."""
        self.acknowledged: dict[str, int] = {}
        """For each channel, the last number the page has said it has."""
        self.inboxes: dict[str, Inbox] = {}
        self.counts = Counts()
        """Of frames from the page."""
        self.its_counts = Counts()
        """Of frames to the page, as it last said."""
        self.wake = asyncio.Event()
        """Set when there may be something for its socket's writer."""
        self.close_socket: Callable[[], object] | None = None
        """Ends its socket; None while it is on widget messages."""
        self.words: deque[bytes] = deque(maxlen=256)
        self._delay = Delay()

    def late_ms(self, stamp_ms: float) -> float:
        """How much longer than the quickest frame this one took; the two clocks need not agree."""
        return self._delay.late_ms(stamp_ms, now_ms())

    def seen(self) -> dict[str, int]:
        """The last number received in each channel."""
        return {name: inbox.expected - 1 for name, inbox in self.inboxes.items()}


class Stream:
    """One widget's part of the line; made by `Line.channel`.

    Parameters
    ----------
    name : str
        Its name, the same on the page.
    on_message : callable
        ``on_message(kind, header, buffers)``, called on the background loop for each message of a page. Where the page
        waits for a reply, what it returns or, awaited, results in is the reply.
    send : callable
        ``send(channel, prepared)``, called on the background loop, sends to its pages.
    remove : callable
        ``remove(channel)`` takes it off the line; from any thread.
    """

    def __init__(
        self,
        name: str,
        on_message: OnMessage,
        *,
        send: Callable[[Stream, Prepared], object],
        remove: Callable[[Stream], object],
    ) -> None:
        self.name = name
        self.on_message = on_message
        self.outbox = Outbox()
        self.joined: dict[str, Page] = {}
        self.listeners: list[OnPage] = []
        self._send, self._remove = send, remove

    @property
    def pages(self) -> int:
        """How many pages show it."""
        return len(self.joined)

    def on_page(self, callback: OnPage) -> None:
        """Have ``callback(page_id, "joined" | "left")`` called on the background loop.

        A page joins when a view of the widget appears, also after a reload: the time to publish the state. A page with
        two views joins twice.
        """
        self.listeners.append(callback)

    def publish(
        self, kind: str, header: dict[str, Any], buffers: Sequence[bytes] = (), *, stale_ms: float | None = None
    ) -> None:
        """Send one message to all pages that show the widget; from any thread, returns at once.

        Nothing is kept for pages that come later. Many small messages go better in `publish_batch`.

        Parameters
        ----------
        kind, header, buffers
            As ``onMessage(kind, header, buffers)`` gets them on the page. The header is JSON.
        stale_ms : float, optional
            The page drops and counts it where it comes this much later than the quickest.

        Raises
        ------
        TypeError, ValueError
            The header is no JSON, or all is too large.
        """
        if self.joined:
            more = {} if stale_ms is None else {"d": stale_ms}
            shared_loop().call_soon(self._send, self, prepare(self.name, kind, header, buffers, **more))

    def publish_batch(self, kind: str, messages: Sequence[tuple[dict[str, Any], Sequence[bytes]]]) -> None:
        """Send many messages of one kind in as few frames as possible; the page gets them one by one."""
        if not self.joined:
            return
        for batch in _in_pieces(messages):
            buffers = [buffer for _, own in batch for buffer in own]
            counts = [len(own) for _, own in batch]
            frame = prepare(self.name, kind, [header for header, _ in batch], buffers, m=counts)
            shared_loop().call_soon(self._send, self, frame)

    def close(self) -> None:
        """Take it off the line; with the last channel the line's socket closes. Closing twice is fine."""
        self._remove(self)

    def __repr__(self) -> str:
        return f"Stream({self.name!r}, pages={self.pages})"


def _in_pieces(
    messages: Sequence[tuple[dict[str, Any], Sequence[bytes]]], size: int = 1000
) -> list[Sequence[tuple[dict[str, Any], Sequence[bytes]]]]:
    """Batches of at most `size` messages and about 1 MiB of buffers."""
    pieces: list[Sequence[tuple[dict[str, Any], Sequence[bytes]]]] = []
    start = n_bytes = 0
    for index, (_, buffers) in enumerate(messages):
        n_bytes += sum(len(buffer) for buffer in buffers)
        if index + 1 - start >= size or n_bytes >= 2**20 or index + 1 == len(messages):
            pieces.append(messages[start : index + 1])
            start, n_bytes = index + 1, 0
    return pieces
