"""Probes of WebRTC calls, with aiortc as the browser; where it is missing or no media path is found: not tested."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import aiohttp
import numpy as np

from rtnb.audio import babble
from rtnb.errors import ConnectError, ConnectionClosed
from rtnb.protocol import ServerVad, events
from rtnb.transport.http import proxy_for
from rtnb.verify.probe import OBSERVED, REFERENCE, NotTested, plain, target_probe
from rtnb.verify.wire import Different, Wire, check

CONNECT_S: Final = 15.0
"""Longest wait for the data channel. Chosen: behind a firewall without UDP it never opens."""
CLOSE_S: Final = 5.0
FRAME: Final = 480
"""Samples of a frame: 20 ms at 24 kHz."""


@dataclass(frozen=True)
class Answered:
    """HTTP answer to an offer."""

    status: int
    location: str
    body: str


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
        self.answered: Answered
        self.loudest = 0.0
        """Largest sample heard on the track so far, full scale 1."""
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._speech: np.ndarray[Any, np.dtype[np.float32]] = np.zeros(0, np.float32)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, *, intent: str | None = None) -> Call:
        """Call, and wait for the data channel."""
        try:
            rtc = importlib.import_module("aiortc")
        except ImportError as error:
            raise NotTested('aiortc is missing: pip install "rtnb[sim]"') from error
        self._peer = rtc.RTCPeerConnection(rtc.RTCConfiguration(iceServers=[]))
        self._peer.addTrack(_microphone(self))
        self._peer.on("track", lambda track: self._tasks.append(asyncio.create_task(self._listen(track))))
        self._channel = self._peer.createDataChannel("realtime-channel")
        self._channel.on("message", self._texts.put_nowait)
        self._channel.on("close", lambda: self._texts.put_nowait(None))
        opened = asyncio.Event()
        self._channel.on("open", opened.set)
        try:
            await self._peer.setLocalDescription(await self._peer.createOffer())
            self.answered = await self._post(self._peer.localDescription.sdp)
            if not 200 <= self.answered.status < 300:
                raise Different(f"HTTP {self.answered.status}: {self.answered.body[:200]}", "HTTP 201")
            await self._peer.setRemoteDescription(rtc.RTCSessionDescription(self.answered.body, "answer"))
            async with asyncio.timeout(CONNECT_S):
                await opened.wait()
        except TimeoutError as error:
            await self.close()
            raise NotTested(f"no media path was found within {CONNECT_S:g} s (ICE)") from error
        except BaseException:
            await self.close()
            raise
        return self

    async def _post(self, sdp: str) -> Answered:
        kind = {} if self.dialect == "preview" else {"type": "realtime"}
        key = await self._target.ephemeral_key(session={"instructions": self._instructions, **kind})
        where = plain(self._target)
        try:
            url = where.calls_url(seen_region=key.region)
        except ConnectError as error:
            raise NotTested(str(error)) from error
        headers = {"Authorization": f"Bearer {key.reveal()}", "Content-Type": "application/sdp"}
        options: Any = {"headers": headers, "proxy": proxy_for(url), "ssl": where.ssl or True}
        async with aiohttp.ClientSession() as http, http.post(url, data=sdp, **options) as answer:
            return Answered(answer.status, answer.headers.get("Location", ""), await answer.text())

    async def _listen(self, track: Any) -> None:
        ended = importlib.import_module("aiortc.mediastreams").MediaStreamError
        try:
            while True:
                samples = (await track.recv()).to_ndarray()
                self.loudest = max(self.loudest, float(np.abs(samples.astype(np.float32)).max(initial=0)) / 32768)
        except ended:
            return

    def say(self, text: str) -> None:
        """Speak into the microphone, in real time from now on."""
        speech = babble(text, rate_hz=24_000, seed=3).audio
        self._speech = np.concatenate([self._speech, np.asarray(speech, np.float32)])

    def next_frame(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        """Return the next 20 ms of the microphone."""
        piece, self._speech = self._speech[:FRAME], self._speech[FRAME:]
        return np.asarray(np.pad(piece, (0, FRAME - len(piece))) * 32767, np.int16)

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


def _microphone(call: Call) -> Any:
    """Return a track that speaks the call's speech in real time, else silence; aiortc is loaded only here."""
    streams, av = importlib.import_module("aiortc.mediastreams"), importlib.import_module("av")

    class Microphone(streams.MediaStreamTrack):  # type: ignore[misc,name-defined]
        kind = "audio"
        began: float | None = None
        n = 0

        async def recv(self) -> Any:
            if self.readyState != "live":
                raise streams.MediaStreamError
            now = asyncio.get_running_loop().time
            self.began = now() if self.began is None else self.began
            await asyncio.sleep(max(0.0, self.began + self.n * 0.02 - now()))
            frame = av.AudioFrame.from_ndarray(call.next_frame()[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 24_000, self.n * FRAME, Fraction(1, 24_000)
            self.n += 1
            return frame

    return Microphone()


@target_probe(REFERENCE)
async def webrtc__answered(target: Any) -> None:
    """An offer is answered with 201, a session description and (GA) a `Location` that ends in the call's id."""
    call = Call(target)
    async with Wire(call):
        if target.dialect == "ga":
            check(call.answered.status, 201, "HTTP status")
            check(call.answered.location.rpartition("/")[2][:4], "rtc_", "beginning of the id in Location")
        check(call.answered.body[:2], "v=", "beginning of the session description")


@target_probe(REFERENCE)
async def webrtc__settings_of_the_key(target: Any) -> None:
    """The data channel begins with `session.created`, with the settings of the ephemeral key."""
    async with Wire(Call(target, instructions="Answer in one word.")) as wire:
        check(wire.kinds()[0], "session.created", "first event")
        check(wire.session.instructions, "Answer in one word.", "instructions")


async def _spoken(wire: Wire, text: str) -> None:
    await wire.write(text)
    await wire.send(events.ResponseCreate())
    await wire.until(events.OutputAudioBufferStarted)


@target_probe(OBSERVED, usd=0.01)
async def webrtc__playout(target: Any) -> None:
    """Speech comes on the track; `output_audio_buffer.started` comes before `response.done`, `stopped` at the end."""
    call = Call(target)
    async with Wire(call) as wire:
        await _spoken(wire, "Say: hello there.")
        check("response.done" in wire.kinds(), False, "response.done before output_audio_buffer.started:")
        await wire.until(events.OutputAudioBufferStopped, timeout_s=60)
        check("response.done" in wire.kinds(), True, "response.done before output_audio_buffer.stopped:")
        check("response.output_audio.delta" in wire.kinds(), False, "audio deltas on the data channel:")
        if call.loudest < 0.01:
            raise Different(f"a track with peaks of {call.loudest:.4f}", "audible speech")


@target_probe(OBSERVED, usd=0.02)
async def webrtc__interrupted(target: Any) -> None:
    """Speech during playback clears the output buffer, and the service truncates the item itself."""
    call = Call(target)
    async with Wire(call) as wire:
        await wire.update(turn_detection=ServerVad(silence_duration_ms=300))
        await _spoken(wire, "Count slowly from one to fifty.")
        call.say("hello there how are you")
        event = await wire.until(events.OutputAudioBufferCleared, events.OutputAudioBufferStopped)
        if isinstance(event, events.OutputAudioBufferStopped):
            raise NotTested("the response was over too soon")
        if "conversation.item.truncated" not in wire.kinds():
            await wire.until(events.ConversationItemTruncated)


@target_probe(REFERENCE, usd=0.02)
async def webrtc__cleared(target: Any) -> None:
    """`output_audio_buffer.clear` ends playback with `output_audio_buffer.cleared`."""
    async with Wire(Call(target)) as wire:
        await _spoken(wire, "Count slowly from one to fifty.")
        await wire.send(events.OutputAudioBufferClear())
        event = await wire.until(events.OutputAudioBufferCleared, events.OutputAudioBufferStopped)
        if isinstance(event, events.OutputAudioBufferStopped):
            raise NotTested("the response was over too soon")
