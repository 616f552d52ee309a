"""A page written in Python: it says what `channel.js` says, over widget messages and a real WebSocket."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from rtnb._loop import shared_loop
from rtnb.widgets._frames import Frame, prepare, unpack
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
    """One browser page of a line in this process."""

    def __init__(self, line: Channel, *, origin: str = ORIGIN) -> None:
        self.id = secrets.token_hex(8)
        self.origin = origin
        self.line = line
        self.by_message: list[Frame] = []
        """What came by widget message."""
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        before = line.comm.publish_msg

        def publish(kind: str, data: Any = None, metadata: Any = None, buffers: Any = None, **more: Any) -> None:
            if data and data.get("content", {}).get("rtnb") == "frames":
                for buffer in buffers:
                    if (frame := unpack(buffer)).channel or f'"p":"{self.id}"'.encode() in buffer:
                        self._loop.call_soon_threadsafe(self._take, frame)
            before(kind, data=data, metadata=metadata, buffers=buffers, **more)

        line.comm.publish_msg = publish  # the kernel's end of the comm, where there is no kernel

    def _take(self, frame: Frame) -> None:
        self.by_message.append(frame)
        self._frames.put_nowait(frame)

    def send(self, *frames: bytes) -> None:
        """Send frames by widget message."""
        self.line._handle_custom_msg({"rtnb": "frames", "page": self.id}, [memoryview(frame) for frame in frames])

    def say(self, kind: str, **header: Any) -> None:
        """Send one of the line's own words by widget message."""
        self.send(word(kind, **header))

    async def until(self, kind: str) -> Frame:
        """The next frame of this kind that comes by widget message."""
        async with asyncio.timeout(5):
            while (frame := await self._frames.get()).kind != kind:
                pass
        return frame

    async def hello(self, channels: dict[str, Any] | None = None) -> dict[str, Any]:
        """Say hello; return what the kernel answers."""
        self.say("hello", origin=self.origin, channels=channels or {})
        welcome: dict[str, Any] = (await self.until("welcome")).header
        return welcome

    async def open(self, *names: str, seen: int | None = None) -> Socket:
        """Say hello, open the socket, and join channels there."""
        offer = await self.hello()
        socket = await Socket.dial(offer, origin=self.origin)
        await socket.show(offer["token"], self.id, {name: {"seen": seen, "first": 1} for name in names})
        await socket.until("resume")
        return socket


def word(kind: str, **header: Any) -> bytes:
    """One of the line's own words."""
    return prepare("", kind, header).numbered()


class Socket:
    """A page's WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    @classmethod
    async def dial(cls, offer: dict[str, Any], *, origin: str | None = ORIGIN, **options: Any) -> Socket:
        """Connect, as a browser would."""
        url = f"ws://127.0.0.1:{offer['port']}/"
        return cls(await connect(url, origin=origin, max_size=None, proxy=None, **options))  # type: ignore[arg-type]

    async def show(self, token: str, page_id: str, channels: dict[str, Any] | None = None) -> None:
        """Send the first message."""
        first = {"token": token, "page": page_id, "via": "direct", "channels": channels or {}}
        await self.connection.send(json.dumps(first))

    async def frame(self) -> Frame:
        """The next frame."""
        async with asyncio.timeout(5):
            data = await self.connection.recv()
        assert isinstance(data, bytes)
        return unpack(data)

    async def until(self, kind: str) -> Frame:
        """The next frame of this kind."""
        while (frame := await self.frame()).kind != kind:
            pass
        return frame

    async def say(self, kind: str, **header: Any) -> None:
        """Send one of the line's own words."""
        await self.connection.send(word(kind, **header))

    async def send(
        self, channel: str, number: int, kind: str, header: dict[str, Any], buffers: Sequence[bytes] = (), **more: Any
    ) -> None:
        """Send a numbered frame."""
        await self.connection.send(prepare(channel, kind, header, buffers, **more).numbered(number))

    async def close_code(self) -> int | None:
        """How the kernel closed it."""
        async with asyncio.timeout(8):
            await self.connection.wait_closed()
        return self.connection.close_code
