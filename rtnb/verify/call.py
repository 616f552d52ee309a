"""One WebRTC call, with aiortc as the browser. Importing this module needs aiortc (extra ``sim``)."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError

from rtnb.audio import babble, encode_pcm16
from rtnb.errors import ConnectError, ConnectionClosed
from rtnb.verify.probe import plain, post
from rtnb.verify.wire import SPOKEN, NotTested, require

CONNECT_S: Final = 15.0
"""Longest wait for the data channel. Chosen: behind a firewall without UDP it never opens."""
CLOSE_S: Final = 5.0


class Microphone(AudioStreamTrack):
    """Track that speaks in real time, else is silent."""

    def __init__(self) -> None:
        super().__init__()
        self._pcm = b""

    def speak(self) -> None:
        """Speak from now on."""
        self._pcm += encode_pcm16(babble(SPOKEN, rate_hz=8_000, seed=3).audio)

    async def recv(self) -> Any:
        frame: Any = await super().recv()  # 20 ms of silence at 8 kHz, when they are due
        size = 2 * frame.samples
        piece, self._pcm = self._pcm[:size], self._pcm[size:]
        frame.planes[0].update(piece.ljust(size, b"\0"))
        return frame


class Call:
    """Target whose session is one WebRTC call, and the `Transport` over its data channel.

    Parameters
    ----------
    target : Target
        Service to call.
    instructions : str
        Setting that goes into the ephemeral key.
    """

    def __init__(self, target: Any, *, instructions: str = "Be kind.") -> None:
        self.dialect, self._target, self._instructions = target.dialect, target, instructions
        self.microphone = Microphone()
        self.status = 0
        """HTTP status of the answer to the offer."""
        self.location = self.body = ""
        self.loudest = 0.0
        """Largest sample heard on the track so far, full scale 1."""
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, *, intent: str | None = None) -> Call:
        """Call, and wait for the data channel."""
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peer.addTrack(self.microphone)
        self._peer.on("track", lambda track: self._tasks.append(asyncio.create_task(self._listen(track))))
        self._channel = self._peer.createDataChannel("realtime-channel")
        self._channel.on("message", self._texts.put_nowait)
        self._channel.on("close", lambda: self._texts.put_nowait(None))
        opened = asyncio.Event()
        self._channel.on("open", opened.set)
        try:
            await self._peer.setLocalDescription(await self._peer.createOffer())
            await self._offer(self._peer.localDescription.sdp)
            await self._peer.setRemoteDescription(RTCSessionDescription(self.body, "answer"))
            async with asyncio.timeout(CONNECT_S):
                await opened.wait()
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise NotTested(f"no media path was found within {CONNECT_S:g} s (ICE)") from error
            raise
        return self

    async def _offer(self, sdp: str) -> None:
        kind = {} if self.dialect == "preview" else {"type": "realtime"}
        key = await self._target.ephemeral_key(session={"instructions": self._instructions, **kind})
        where = plain(self._target)
        try:
            url = where.calls_url(seen_region=key.region)
        except ConnectError as error:
            raise NotTested(str(error)) from error
        headers = {"Authorization": f"Bearer {key.reveal()}", "Content-Type": "application/sdp"}
        self.status, answered, self.body = await post(where, url, headers, data=sdp)
        self.location = answered.get("Location", "")
        require(200 <= self.status < 300, f"HTTP {self.status}: {self.body[:200]}", "HTTP 201")

    async def _listen(self, track: Any) -> None:
        try:
            while True:
                samples = (await track.recv()).to_ndarray()
                self.loudest = max(self.loudest, float(np.abs(samples.astype(np.float32)).max(initial=0)) / 32768)
        except MediaStreamError:
            return

    async def send(self, text: str) -> None:
        self._channel.send(text)

    async def receive(self) -> str:
        text = await self._texts.get()
        if text is None:
            raise ConnectionClosed("the data channel was closed")
        return text

    async def close(self, *, code: int = 1000, reason: str = "") -> None:
        async with asyncio.timeout(CLOSE_S):
            await self._peer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
