"""A caller over real WebRTC: aiortc as the browser, its frames checked as those of a socket are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pydantic
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from rtnb.protocol import Connection, events
from rtnb.simulator import Simulator
from tests.simulator.plain import Answer, fetch
from tests.simulator.rig import PATIENCE_S, union_of

FRAME = 480  # samples in 20 ms at 24 kHz


class Microphone(MediaStreamTrack):
    """Speaks what it is given in real time, else silence."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._audio = np.zeros(0, np.float32)
        self._n = 0
        self._began: float | None = None

    def say(self, audio: np.ndarray[Any, Any]) -> None:
        """Say something now (24 kHz)."""
        self._audio = np.concatenate([self._audio, audio])

    async def recv(self) -> Any:
        if self.readyState != "live":
            raise MediaStreamError
        now = asyncio.get_running_loop().time
        self._began = now() if self._began is None else self._began
        await asyncio.sleep(max(0.0, self._began + self._n * 0.02 - now()))
        piece, self._audio = self._audio[:FRAME], self._audio[FRAME:]
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update((np.pad(piece, (0, FRAME - len(piece))) * 32767).astype("<i2").tobytes())
        frame.sample_rate, frame.pts, frame.time_base = 24_000, self._n * FRAME, Fraction(1, 24_000)
        self._n += 1
        return frame


class Caller:
    """One call: what was said over the channel, and what was heard over the track."""

    def __init__(self, *, dialect: Any = "ga", channel: str | None = "realtime-channel", mic: bool = True) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.dialect = dialect
        self.client = Connection("client", dialect=dialect, webrtc=True)
        self.microphone = Microphone()
        self.channel = self.peer.createDataChannel(channel) if channel else None
        self.types: list[str] = []
        self.events: list[Any] = []
        self.heard: list[np.ndarray[Any, Any]] = []
        """Frames of 20 ms, float32 at 48 kHz, in the order they came."""
        self.heard_at: list[float] = []
        self.pts: list[int] = []
        """Their RTP times."""
        self.call_id = ""
        self.wrong: Exception | None = None
        """What the stock client's types do not understand."""
        self.closed = asyncio.Event()
        self._came = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        if mic:
            self.peer.addTrack(self.microphone)
        else:
            self.peer.addTransceiver("audio", "recvonly")
        self.peer.on("track", self._track)
        if self.channel is not None:
            self.channel.on("message", self._message)
            self.channel.on("close", self.closed.set)

    def _track(self, track: Any) -> None:
        self._listening = asyncio.create_task(self._listen(track))

    async def _listen(self, track: Any) -> None:
        try:
            while True:
                frame = await track.recv()
                self.heard_at.append(asyncio.get_running_loop().time())
                self.pts.append(frame.pts)
                self.heard.append(frame.to_ndarray()[0, :: len(frame.layout.channels)].astype(np.float32) / 32768)
                self._came.set()
        except MediaStreamError:
            return

    def _message(self, text: str) -> None:
        self._came.set()
        try:
            union_of(self.dialect).validate_json(text, strict=True)
        except pydantic.ValidationError as error:
            self.wrong = error
        self.types.append(json.loads(text)["type"])
        self.events.append(self.client.receive(text))

    async def offer(self) -> str:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return self.peer.localDescription.sdp

    async def accept(self, answer: str) -> None:
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def send(self, event: events.Event) -> None:
        assert self.channel is not None
        self.channel.send(self.client.send(event))

    async def until(self, *types: str, after: int = 0) -> Any:
        """Wait for the first of these types (behind the first `after` events); the event."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if self.wrong is not None:
                    raise self.wrong
                for kind, event in zip(self.types[after:], self.events[after:], strict=True):
                    if kind in types:
                        return event
                self._came.clear()
                await self._came.wait()

    def sound(self) -> np.ndarray[Any, Any]:
        """All that was heard, 48 kHz."""
        return np.concatenate(self.heard) if self.heard else np.zeros(0, np.float32)

    async def close(self) -> None:
        await self.peer.close()
        if self._listening is not None:  # a track that never began has no end either
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)


def calls_path(dialect: str) -> str:
    return "/openai/v1/realtime/calls" if dialect == "ga" else "/v1/realtimertc?model=gpt-4o-realtime-preview"


async def post(sim: Simulator, path: str, *, key: str, headers: dict[str, str] | None = None, **request: Any) -> Answer:
    """Post an offer."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/sdp", **(headers or {})}
    return await fetch(sim.url + path, headers={name: value for name, value in headers.items() if value}, **request)


@asynccontextmanager
async def calling(
    sim: Simulator, *, path: str = "", key: str = "", session: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Caller]:
    """A call that has an answer; without a key it takes an ephemeral one, made with `session`."""
    caller = Caller(**options)
    sim.dialect = caller.dialect
    if session is None and caller.dialect == "preview":
        session = {"model": "gpt-4o-realtime-preview"}  # the beta types know a few names only
    try:
        key = key or (await sim.ephemeral_key(session=session)).reveal()
        answer = await post(sim, path or calls_path(caller.dialect), key=key, data=await caller.offer())
        assert answer.status == 201, answer.text
        caller.call_id = answer.headers.get("Location", "").rpartition("/")[2]
        await caller.accept(answer.text)
        yield caller
    finally:
        await caller.close()
