"""`DataChannel`: a WebRTC call a page has with a service, as the transport of a session.

The page holds the peer connection; its data channel's texts come and go over the line. Everything here runs on the
background loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rtnb.audio import Audio, encode_pcm16, resample
from rtnb.errors import ConnectionClosed, LocalProtocolError, RtnbError, WidgetError
from rtnb.transport.base import Dialect, Target, TargetFacts, Transport

SPEAK_HZ: Final = 24_000
"""Rate of the audio that is put on the page's track."""

GOODBYE_S: Final = 3.0
"""How long the page may take to let go of microphone and connection (chosen; it takes some 10 ms)."""

Post = Callable[[str, dict[str, Any], Sequence[bytes]], object]
"""post(kind, header, buffers): to the page."""


class DataChannel:
    """One call; a `Transport` whose other end is the service.

    Parameters
    ----------
    number : int
        Names the call between page and kernel.
    page_id : str
        The page that has it.
    post : callable
        Sends a message to the page.
    """

    webrtc = True
    """The service plays the audio: see `rtnb.client.playback.ServicePlayback`."""

    def __init__(self, number: int, page_id: str, post: Post) -> None:
        self.number = number
        self.page_id = page_id
        self.step = "the page to answer"
        """What the page waits for, in words."""
        self.call_id: str | None = None
        """``rtc_…``: the service's name of the call, where it is known."""
        self.largest_bytes = 0
        """Longest text the channel takes, as the browser says; 0 where it does not."""
        self.read = True
        """False where a sideband reads the session instead."""
        self._post = post
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._released: asyncio.Future[None] = loop.create_future()
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._said: dict[int, asyncio.Future[None]] = {}
        self.over: asyncio.Future[ConnectionClosed] = loop.create_future()
        """Why it ended, once it has."""

    # --- a transport --------------------------------------------------------------------------------------------------

    async def send(self, text: str) -> None:
        """Send one text. Raises `ConnectionClosed`, or `LocalProtocolError` where the channel does not take so much."""
        if self.over.done():
            raise self.over.result()
        data = text.encode()
        if 0 < self.largest_bytes < len(data):
            raise LocalProtocolError(
                f"an event of {len(data)} bytes; this data channel takes {self.largest_bytes}"
            ).with_hint("Shorten the instructions or tools; audio goes over the track, not as events.")
        self._post("event", {"call": self.number}, [data])

    async def receive(self) -> str:
        """Wait for the next text; raises `ConnectionClosed` after the last."""
        text = await self._texts.get()
        if text is None:
            self._texts.put_nowait(None)
            raise self.over.result()
        return text

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        """Have the page let go of microphone and connection; closing twice is fine."""
        self.ended(ConnectionClosed("this side ended the call", code=code, reason=reason))
        if not self._released.done():
            self._post("stop", {"call": self.number}, ())
            await asyncio.wait([self._released], timeout=GOODBYE_S)

    async def speak(self, audio: Audio, rate_hz: int) -> None:
        """Put audio on the page's track in place of the microphone; returns once it was said."""
        if rate_hz != SPEAK_HZ:
            audio = resample(audio, from_rate_hz=rate_hz, to_rate_hz=SPEAK_HZ)
        if self.over.done():
            raise self.over.result()
        number = len(self._said) + 1
        said = self._said[number] = asyncio.get_running_loop().create_future()
        self._post("speak", {"call": self.number, "id": number}, [encode_pcm16(audio)])
        await said

    # --- what the page says -------------------------------------------------------------------------------------------

    async def opened(self) -> None:
        """Wait until the call stands; raises why it does not."""
        await self._opened

    def came(self, kind: str, header: dict[str, Any], buffers: Sequence[bytes]) -> None:
        """Take a message of the page about this call."""
        if kind == "event":
            if self.read:
                self._texts.put_nowait(b"".join(buffers).decode())
        elif kind == "step":
            self.step = str(header["step"])
        elif kind == "open":
            self.largest_bytes = int(header["largest_bytes"])
            if not self._opened.done():
                self._opened.set_result(None)
        elif kind == "said" and (said := self._said.get(header["id"])) and not said.done():
            said.set_result(None)
        elif kind == "released" and not self._released.done():
            self._released.set_result(None)

    def ended(self, error: RtnbError) -> None:
        """The call is over, or came to nothing: everybody who waits is told. Only the first reason counts."""
        if self.over.done():
            return
        closed = error if isinstance(error, ConnectionClosed) else ConnectionClosed(str(error), code=1006)
        if closed is not error:
            closed.__notes__ = list(getattr(error, "__notes__", []))
        self.over.set_result(closed)
        self._texts.put_nowait(None)
        for waiting in (self._opened, *self._said.values()):
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # told to whoever waits; where nobody does, nothing is lost

    def page_left(self) -> None:
        """The page is gone, and with it the call."""
        if not self._released.done():
            self._released.set_result(None)
        error = WidgetError("the page that held the call is gone: its last view was removed, or the tab was closed")
        self.ended(error.with_hint("Show the widget again, and start."))

    def __repr__(self) -> str:
        state = "closed" if self.over.done() else "open" if self._opened.done() else f"waits for {self.step}"
        return f"<DataChannel {self.number}: {state}>"


class Sideband:
    """A call whose events go over a WebSocket of their own (`call_id`): the call's end is also the socket's."""

    webrtc = True

    def __init__(self, socket: Transport, call: DataChannel) -> None:
        self.send, self.receive, self.speak = socket.send, socket.receive, call.speak
        self._socket, self._call = socket, call
        self._watching = asyncio.get_running_loop().create_task(self._watch(), name="rtnb-sideband")

    async def _watch(self) -> None:
        await asyncio.shield(self._call.over)
        await self._socket.close()

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        """End the call and close the socket."""
        await self._call.close(code=code, reason=reason)
        await self._watching


@dataclass(frozen=True)
class Called:
    """A target that is open already: `open_session` finds the call where it looks for a connection."""

    target: Target
    transport: Any

    @property
    def dialect(self) -> Dialect:
        return self.target.dialect

    @property
    def model(self) -> str | None:
        return self.target.model

    @property
    def facts(self) -> TargetFacts:
        return self.target.facts

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> Transport:
        transport: Transport = self.transport
        return transport

    async def ephemeral_key(self, **options: Any) -> Any:
        return await self.target.ephemeral_key(**options)
