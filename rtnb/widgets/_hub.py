"""The kernel's end of the line: which pages are there, what each has of each channel, and what it gets next.

Lives on the background loop and knows neither widgets nor sockets: bytes come in by `from_messages` and
`from_socket`, and go out by a function that sends widget messages or by whoever awaits `Page.next_frame`.

The line's own words (frames of channel ""; every one from the kernel names its page in ``p``):

- page → kernel: ``hello`` {origin, channels: {name: {seen, first}}}, ``join`` {name, seen, first}, ``leave`` {name},
  ``pong`` {seen, counts}, ``resend`` {name, first}, ``lost`` {name, last}, ``claim``, ``bye``;
- kernel → page: ``welcome`` {port, token, seen, active}, ``resume`` {seen, active}, ``joined`` {name, next},
  ``ping`` {last, seen, counts, active}, ``resend`` {name, first}, ``lost`` {name, last}, ``active`` {active},
  ``closed`` {name}, ``reply`` {…, id}, ``who`` (I do not know you: say hello).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from typing import Any

from rtnb._loop import shared_loop
from rtnb.errors import RtnbError
from rtnb.widgets._frames import Counts, Frame, Inbox, Prepared, prepare, unpack
from rtnb.widgets._stream import Answer, Page, Stream

PING_S = 2.0
"""How often every page hears from the kernel (chosen; a page gives up after 7 s)."""

TICK_S = 0.02
"""Widget messages leave at most this often: 50 a second, far below the 1,000 at which the server starts to drop."""

TICK_BYTES = 256 * 2**10
"""At most this much in one widget message, if it is more than one frame (chosen: 13 MB/s)."""

_SILENT_S = 15.0  # a page on messages is gone when others are heard this much later; chosen
_GONE_S = 120.0  # and in any case after this; chosen: a blocked kernel hears nobody for long


class Hub:
    """Everything about the pages of one kernel; all methods but `remove` run on the background loop.

    Parameters
    ----------
    send_messages : callable
        Sends frames to all pages in one widget message.
    """

    def __init__(self, send_messages: Callable[[list[bytes]], object]) -> None:
        self.channels: dict[str, Stream] = {}
        self.pages: dict[str, Page] = {}
        self.active = ""
        """The page that may use the microphone and the loudspeaker."""
        self.offer: Callable[[Page], Awaitable[dict[str, Any]]] | None = None
        """Asked what a page may try: port and token."""
        self.invite: Callable[[Callable[[str, str, int], str]], Awaitable[str]] | None = None
        """Makes the address of a page of our own; see `SocketServer.invite`."""
        self.stopped: Callable[[], object] | None = None
        """Called when nothing is left to serve."""
        self._send_messages = send_messages
        self.messages_heard_s = 0.0
        """When the last widget message came."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flushing: asyncio.TimerHandle | None = None
        self._flushed_s = 0.0
        self._pinging: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- in -----------------------------------------------------------------------------------------------------------

    def from_messages(self, page_id: str, frames: list[bytes]) -> None:
        """Accept what came by widget message."""
        self.messages_heard_s = time.monotonic()
        for data in frames:
            frame = unpack(data)
            if not frame.channel and frame.kind == "hello":
                self._hello(page_id, frame.header)
            elif page_id in self.pages:
                self.receive(self.pages[page_id], frame)
            elif self.channels and frame.kind != "bye":
                self._send_messages([prepare("", "who", {}, p=page_id).numbered()])
                return

    def receive(self, page: Page, frame: Frame) -> None:
        """Accept one frame of a page."""
        page.heard_s = time.monotonic()
        if not frame.channel:
            self._word(page, frame.kind, frame.header)
            return
        channel, inbox = self.channels.get(frame.channel), page.inboxes.get(frame.channel)
        if channel is None or inbox is None:
            return
        before = inbox.missing()
        for ready in inbox.take(frame):
            self._deliver(page, channel, ready)
        if (missing := inbox.missing()) and missing != before:
            self._say(page, "resend", {"name": channel.name, "first": missing[0]})

    def _word(self, page: Page, kind: str, header: dict[str, Any]) -> None:
        name = str(header.get("name", ""))
        if kind == "join":
            self._join(page, name, header)
        elif kind == "leave":
            self._leave(page, name)
        elif kind == "pong":
            self._pong(page, header)
        elif kind == "resend" and name in page.cursors:
            page.cursors[name] = min(page.cursors[name], int(header["first"]))
            self._pump(page)
        elif kind == "lost" and name in page.inboxes and name in self.channels:
            for ready in page.inboxes[name].skip(int(header["last"])):
                self._deliver(page, self.channels[name], ready)
        elif kind == "claim":
            self._elect(page.id)
        elif kind == "bye":
            self.drop(page)

    def _hello(self, page_id: str, header: dict[str, Any]) -> None:
        if not self.channels:
            return
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the first page, or the loop was stopped and started again
            self._loop, self._flushing = loop, None
            self.pages.clear()
            self._pinging = loop.call_later(PING_S, self._ping)
        page = self.pages.get(page_id)
        if page is None:
            page = self.pages[page_id] = Page(page_id, str(header["origin"]))
        self.detach(page)
        self._resume(page, header["channels"])
        self.start(self._welcome(page))

    async def _welcome(self, page: Page) -> None:
        offer = await self.offer(page) if self.offer else {}
        self._say(page, "welcome", {**offer, "seen": page.seen(), "active": self.active})

    def attach(self, page: Page, via: str, close: Callable[[], object], channels: dict[str, Any]) -> None:
        """Go on over a socket, where the page says it stands; ``close()`` ends the socket."""
        self.detach(page)
        page.via, page.close_socket = via, close
        self._resume(page, channels)
        self._say(page, "resume", {"seen": page.seen(), "active": self.active})

    def _resume(self, page: Page, channels: dict[str, Any]) -> None:
        page.heard_s = time.monotonic()
        for name, place in channels.items():
            self._join(page, name, place)
        self._elect(self.active)

    def _join(self, page: Page, name: str, place: dict[str, Any]) -> None:
        channel = self.channels.get(name)
        if channel is None:  # the widget was closed; its view is still there
            self._say(page, "closed", {"name": name})
            return
        if name not in page.inboxes:
            page.inboxes[name] = Inbox(page.counts, int(place["first"]))
        new = place["seen"] is None or name not in page.cursors
        if place["seen"] is None:
            page.cursors.setdefault(name, channel.outbox.next)  # a second view shares the page's place
            self._say(page, "joined", {"name": name, "next": page.cursors[name]})
        else:
            page.cursors[name] = int(place["seen"]) + 1
        channel.joined[page.id] = page
        if new:
            self._tell(channel, page, "joined")
        self._pump(page)

    def _leave(self, page: Page, name: str) -> None:
        page.cursors.pop(name, None)
        page.inboxes.pop(name, None)
        channel = self.channels.get(name)
        if channel is not None and channel.joined.pop(page.id, None) is not None:
            self._trim(channel)
            self._tell(channel, page, "left")

    def _pong(self, page: Page, header: dict[str, Any]) -> None:
        page.its_counts = Counts(**{name: int(header["counts"][name]) for name in ("late", "lost", "resent")})
        for name, number in header["seen"].items():
            channel = self.channels.get(name)
            if channel is not None and page.id in channel.joined:
                page.acknowledged[name] = int(number)
                self._trim(channel)

    def _deliver(self, page: Page, channel: Stream, frame: Frame) -> None:
        late_ms = page.late_ms(frame.stamp_ms)
        if frame.stale_ms is not None and late_ms > frame.stale_ms:
            page.counts.late += 1
            return
        for header, buffers in frame.messages():
            try:
                answer = channel.on_message(frame.kind, header, buffers)
            except Exception as error:
                answer = _report(channel, frame.kind, error)
            if inspect.isawaitable(answer):
                self.start(self._answer_later(page, channel, frame, answer))
            elif frame.request is not None:
                self._say(page, "reply", answer or {}, id=frame.request)

    async def _answer_later(self, page: Page, channel: Stream, frame: Frame, answer: Awaitable[Answer]) -> None:
        try:
            result = await answer or {}
        except Exception as error:
            result = _report(channel, frame.kind, error)
        if frame.request is not None:
            self._say(page, "reply", result, id=frame.request)

    def start(self, coro: Coroutine[Any, Any, None]) -> None:
        """Run `coro` in a task that is kept until it ends."""
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- out ----------------------------------------------------------------------------------------------------------

    def send(self, channel: Stream, prepared: Prepared) -> None:
        """Give a frame its number and bring it on its way."""
        if channel.joined:
            channel.outbox.add(prepared)
            for page in channel.joined.values():
                self._pump(page)

    def next_frame(self, page: Page) -> bytes | None:
        """The next frame for a page; None if it has all there is."""
        if page.words:
            return page.words.popleft()
        for name, number in page.cursors.items():
            if (channel := self.channels.get(name)) is None:  # just closed by another thread
                continue
            outbox = channel.outbox
            if number < outbox.first:  # it was too slow, or too long away
                page.cursors[name] = outbox.first
                return prepare("", "lost", {"name": name, "last": outbox.first - 1}, p=page.id).numbered()
            if number < outbox.next:
                page.cursors[name] = number + 1
                return outbox[number]
        return None

    def _say(self, page: Page, kind: str, header: dict[str, Any], **more: Any) -> None:
        page.words.append(prepare("", kind, header, p=page.id, **more).numbered())
        self._pump(page)

    def _pump(self, page: Page) -> None:
        if page.close_socket is not None:
            page.wake.set()
        elif self._flushing is None:
            wait_s = max(0.0, self._flushed_s + TICK_S - time.monotonic())
            self._flushing = asyncio.get_running_loop().call_later(wait_s, self._flush)

    def _flush(self) -> None:
        self._flushing, self._flushed_s = None, time.monotonic()
        frames: dict[bytes, None] = {}  # two pages on messages need the same frame once
        n_bytes = 0
        for page in self.pages.values():
            while page.close_socket is None and n_bytes < TICK_BYTES and (frame := self.next_frame(page)) is not None:
                frames[frame] = None
                n_bytes += len(frame)
        if frames:
            self._send_messages(list(frames))
        if n_bytes >= TICK_BYTES:
            self._flushing = asyncio.get_running_loop().call_later(TICK_S, self._flush)

    def _trim(self, channel: Stream) -> None:
        """Forget what every page of the channel has."""
        seen = [page.acknowledged.get(channel.name, 0) for page in channel.joined.values()]
        channel.outbox.forget(min(seen, default=channel.outbox.next))

    # --- who is there -------------------------------------------------------------------------------------------------

    def detach(self, page: Page) -> None:
        """Bring a page back to widget messages."""
        close, page.close_socket, page.via = page.close_socket, None, "messages"
        if close is not None:
            close()
        page.wake.set()

    def drop(self, page: Page) -> None:
        """Forget a page that is gone."""
        self.pages.pop(page.id, None)
        self.detach(page)
        for name in list(page.cursors):
            self._leave(page, name)
        self._elect(self.active)

    def remove(self, channel: Stream) -> None:
        """Take a channel off the line, from any thread; removing it twice is fine."""
        self.channels.pop(channel.name, None)
        if shared_loop().running:
            shared_loop().call_soon(self.forget, channel)

    def forget(self, channel: Stream) -> None:
        """Forget a channel that was closed; stop when it was the last."""
        for page in list(channel.joined.values()):
            page.cursors.pop(channel.name, None)
            page.inboxes.pop(channel.name, None)
        channel.joined.clear()
        if not self.channels and self._loop is not None:
            for page in list(self.pages.values()):
                self.drop(page)
            for timer in (self._pinging, self._flushing):
                if timer is not None:
                    timer.cancel()
            self._loop = self._pinging = self._flushing = None
            if self.stopped is not None:
                self.stopped()

    def _elect(self, wanted: str) -> None:
        """Make `wanted` the active page; where it is gone, the page that came last."""
        chosen = wanted if wanted in self.pages else next(reversed(self.pages), "")
        if chosen != self.active:
            self.active = chosen
            for page in self.pages.values():
                self._say(page, "active", {"active": chosen})

    def _ping(self) -> None:
        now = time.monotonic()
        for page in list(self.pages.values()):
            silent = page.close_socket is None and self.messages_heard_s - page.heard_s > _SILENT_S
            if silent or now - page.heard_s > _GONE_S:
                self.drop(page)
                continue
            for name, inbox in page.inboxes.items():
                if missing := inbox.missing():
                    self._say(page, "resend", {"name": name, "first": missing[0]})
            sent = {name: number - 1 for name, number in page.cursors.items() if name in self.channels}
            facts = {"last": sent, "seen": page.seen(), "counts": asdict(page.counts), "active": self.active}
            self._say(page, "ping", facts)
        self._pinging = asyncio.get_running_loop().call_later(PING_S, self._ping)

    def _tell(self, channel: Stream, page: Page, what: str) -> None:
        for listener in channel.listeners:
            try:
                listener(page.id, what)
            except Exception as error:
                _report(channel, what, error)


def _report(channel: Stream, what: str, error: Exception) -> dict[str, Any]:
    """Tell of a handler that failed, and return what the page may know: no message but our own is free of secrets."""
    where = f"the handler of channel {channel.name!r} failed on {what!r}"
    asyncio.get_running_loop().call_exception_handler({"message": where, "exception": error})
    return {"error": str(error) if isinstance(error, RtnbError) else type(error).__name__}
