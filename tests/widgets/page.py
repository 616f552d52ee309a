"""A page written in Python: it sends what `channel.js` sends, over widget messages and a real WebSocket."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect

from rtnb._loop import shared_loop
from rtnb.widgets._frames import Frame, pack, unpack
from rtnb.widgets.channel import Channel

ORIGIN = "http://localhost:8888"


async def eventually(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Wait until `condition()` is true, and the step of the background loop that made it so is done."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not come true"
        await asyncio.sleep(0.005)
    if shared_loop().running:
        await asyncio.wrap_future(shared_loop().submit(asyncio.sleep(0)))
    return value


class Page:
    """One browser page of a channel in this process."""

    def __init__(self, channel: Channel, *, origin: str = ORIGIN) -> None:
        self.id = secrets.token_hex(8)
        self.origin = origin
        self.channel = channel
        self.connection = 0
        self.sent_bytes = 0
        self.by_message: list[Frame] = []
        """Frames that came by widget message."""
        self.numbers: list[tuple[int, int]] = []
        """Connection and number of each widget message."""
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        before = channel.comm.publish_msg

        def publish(kind: str, data: Any = None, metadata: Any = None, buffers: Any = None, **more: Any) -> None:
            content = (data or {}).get("content", {})
            if content.get("rtnb") == "frames" and content["page"] == self.id:
                self.numbers.append((content["connection"], content["number"]))
                for buffer in buffers or ():
                    self._loop.call_soon_threadsafe(self._take, unpack(buffer))
            before(kind, data=data, metadata=metadata, buffers=buffers, **more)

        channel.comm.publish_msg = publish  # the kernel's end of the comm, where there is no kernel

    def _take(self, frame: Frame) -> None:
        self.by_message.append(frame)
        self._frames.put_nowait(frame)

    def send(self, *frames: bytes) -> None:
        """Send frames by one widget message."""
        content = {"rtnb": "frames", "page": self.id, "connection": self.connection, "at": self.sent_bytes}
        self.sent_bytes += sum(map(len, frames))
        self.channel._handle_custom_msg(content, [memoryview(frame) for frame in frames])

    def say(self, kind: str, **header: Any) -> None:
        """Send a message of the channel itself by widget message."""
        self.send(pack("", kind, header))

    async def until(self, kind: str) -> Frame:
        """Return the next frame of this kind that comes by widget message."""
        async with asyncio.timeout(5):
            while (frame := await self._frames.get()).kind != kind:
                pass
        return frame

    async def hello(self) -> dict[str, Any]:
        """Begin a connection; return the kernel's welcome."""
        self.connection += 1
        self.say("hello", origin=self.origin, page_ms=0.0)
        self.sent_bytes = 0
        welcome: dict[str, Any] = (await self.until("welcome")).header
        return welcome

    async def join(self, *names: str) -> None:
        """Begin a connection on widget messages and join streams."""
        await self.hello()
        self.say("join", names=names, all=names)
        await self._joined(names)

    async def _joined(self, names: Sequence[str]) -> None:
        streams = [self.channel.streams[name] for name in names]
        await eventually(lambda: all(self.id in stream.joined for stream in streams))

    async def ask(self, stream: str, kind: str, **header: Any) -> Frame:
        """Return the reply to a request sent by widget message."""
        self.send(pack(stream, kind, header, r=1))
        return await self.until("reply")

    async def open(self, *names: str) -> Socket:
        """Begin a connection, open its socket, and join streams there."""
        welcome = await self.hello()
        socket = await Socket.dial(welcome, self, origin=self.origin)
        await socket.until("open")
        await socket.say("join", names=names, all=names)
        await self._joined(names)
        return socket


class Socket:
    """A page's WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    @classmethod
    async def dial(
        cls, welcome: dict[str, Any], page: Page, *, origin: str | None = ORIGIN, connection: int = 0, **options: Any
    ) -> Socket:
        """Connect as a browser does."""
        shown = {"token": welcome.get("token", ""), "page": page.id, "connection": connection or page.connection}
        url = f"ws://127.0.0.1:{welcome['port']}/?{urlencode({**shown, 'via': 'direct'})}"
        return cls(await connect(url, origin=origin, max_size=None, proxy=None, **options))  # type: ignore[arg-type]

    async def frame(self) -> Frame:
        """Return the next frame."""
        async with asyncio.timeout(5):
            return unpack(await self.connection.recv())

    async def until(self, kind: str) -> Frame:
        """Return the next frame of this kind."""
        while (frame := await self.frame()).kind != kind:
            pass
        return frame

    async def say(self, kind: str, **header: Any) -> None:
        """Send a message of the channel itself."""
        await self.connection.send(pack("", kind, header))

    async def send(
        self, stream: str, kind: str, header: dict[str, Any], buffers: Sequence[bytes] = (), **more: Any
    ) -> None:
        """Send a message of a stream."""
        await self.connection.send(pack(stream, kind, header, buffers, **more))

    async def close_code(self) -> int | None:
        """Return the code with which the kernel closed it."""
        async with asyncio.timeout(8):
            await self.connection.wait_closed()
        return self.connection.close_code
