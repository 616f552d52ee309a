"""A WebRTC call from the service's side: an aiortc peer connection as the `Carrier` of a session.

Opus both ways, without aiortc's own delays: output is encoded at 24 kHz when its 20 ms are due, and input
is decoded as its packet arrives. Importing this module needs aiortc (extra ``sim``); only a call does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from rtnb.audio import Resampler
from rtnb.protocol import wire
from rtnb.simulator.admission import RefusedError
from rtnb.simulator.checks import RefusedEventError
from rtnb.simulator.delivery import PCM, Sound
from rtnb.simulator.faults import Close

_log = logging.getLogger("rtnb.simulator")

FRAME_MS: Final = 20
"""Length of a packet, as browsers send them."""
OPUS_HZ: Final = 48_000
"""Clock of every Opus stream, whatever its bandwidth (RFC 7587)."""
BIT_RATE: Final = 48_000
"""Of the service's voice. Chosen: speech up to 12 kHz without audible loss."""
QUICK: Final = {"application": "lowdelay", "compression_level": "0"}
"""Of the encoder: 2.5 ms of delay instead of 6.5, half the work, and a likeness of .990 to what went in instead of .963
(measured against "voip", level 10)."""
SILENCE_BYTES: Final = 3
"""Longest packet of mere silence (measured): once the encoder gives one, it serves for all silence that follows.
Encoding silence takes twice as long as encoding speech."""
STALLED_S: Final = 0.5
"""Without a packet for so long, the user's track is taken for silent. Chosen: a busy machine stalls for less, and
silence put into the middle of a word would end a turn."""
CONNECT_S: Final = 30.0
"""How long a caller may take to connect after the answer. Chosen."""
GOODBYE_S: Final = 1.0
"""How long the last words may take to arrive. Chosen."""
MOST_INCOMING: Final = 16_384
"""Messages and packets that wait to be taken in; then the call ends. Chosen: five minutes of sound."""
MOST_BUFFERED_BYTES: Final = 1 << 20
"""Text on its way over the data channel; then the session waits. Chosen."""

VISIBLE: Final = frozenset(
    {
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.added",
        "conversation.item.created",
        "response.output_text.delta",
        "response.output_text.done",
        "response.output_audio_transcript.delta",
        "response.output_audio_transcript.done",
    }
)
"""What the channel carries with ``webrtcfilter=on`` (Microsoft's WebRTC how-to); all else is for the sideband."""
_BROKEN: Final = (AssertionError, AttributeError, LookupError, TypeError)
"""Exceptions of aiortc at a bad description, besides those that give the reason."""
_TYPE: Final = re.compile(r'\{"type": ?"([^"]*)"')


def refused_offer(reason: str) -> RefusedError:
    """Return the refusal of an offer that cannot be answered."""
    return RefusedError(400, "invalid_offer", f"The offer is refused: {reason}.")


class ServiceTrack(MediaStreamTrack):
    """Track of the service: a packet every 20 ms, silence where there is no audio."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.play: Callable[[int], bytes] = bytes
        """Gives so many bytes of sound, PCM16 at 24 kHz."""
        self._now = asyncio.get_running_loop().time
        self._starts_at: float | None = None
        self._n = 0
        self._encoded = bytes(SILENCE_BYTES + 1)
        """The last packet."""
        self._encoder: Any = av.CodecContext.create("libopus", "w")
        self._encoder.format, self._encoder.layout, self._encoder.sample_rate = "s16", "mono", PCM.rate_hz
        self._encoder.bit_rate, self._encoder.options = BIT_RATE, QUICK

    async def recv(self) -> Any:
        """Return the next packet, when it is due."""
        if self.readyState != "live":
            raise MediaStreamError
        if self._starts_at is None:
            self._starts_at = self._now()
        await asyncio.sleep(max(0.0, self._starts_at + self._n * FRAME_MS / 1000 - self._now()))
        n_samples = PCM.rate_hz * FRAME_MS // 1000
        sound = self.play(n_samples * PCM.bytes_per_sample)
        if len(self._encoded) > SILENCE_BYTES or sound != bytes(len(sound)):
            frame: Any = av.AudioFrame(format="s16", layout="mono", samples=n_samples)
            frame.planes[0].update(sound)
            frame.sample_rate, frame.pts = PCM.rate_hz, self._n * n_samples
            self._encoded = bytes(self._encoder.encode(frame)[0])  # one for one: the encoder takes a frame at a time
        packet: Any = av.Packet(self._encoded)
        packet.pts, packet.time_base = self._n * OPUS_HZ * FRAME_MS // 1000, Fraction(1, OPUS_HZ)
        self._n += 1
        return packet


class UserTrack:
    """Track of the user: every packet is decoded when it arrives, missing audio becomes silence.

    It replaces aiortc's jitter buffer, which would hold four packets (80 ms) back and, once one was lost,
    sixteen for ever: the session's input needs no even flow.

    Parameters
    ----------
    sink : callable
        Takes audio, PCM16 at 24 kHz, in pieces of any length.
    """

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._now = asyncio.get_running_loop().time
        self._resampler = Resampler(from_rate_hz=OPUS_HZ, to_rate_hz=PCM.rate_hz)
        self._decoder: Any = av.CodecContext.create("libopus", "r")
        self._decoder.format, self._decoder.layout, self._decoder.sample_rate = "s16", "mono", OPUS_HZ
        self._sequence: int | None = None
        self._due = 0
        """RTP time at which the next packet should begin."""
        self._arrived_at = self._filled_until = 0.0

    def add(self, packet: Any) -> tuple[bool, None]:
        """Take an RTP packet; gives aiortc nothing to do."""
        if self._sequence is not None and (packet.sequence_number - self._sequence) % 65_536 >= 32_768:
            return False, None  # it comes too late: its time was silence
        if self._sequence is not None and (missing := (packet.timestamp - self._due) % 2**32) <= 2 * OPUS_HZ:
            self._take(np.zeros(missing, np.float32))
        self._sequence, self._arrived_at = packet.sequence_number, self._now()
        self._filled_until = self._arrived_at
        self._due = packet.timestamp
        with contextlib.suppress(av.FFmpegError):  # damaged is lost: the next packet finds its time missing
            for frame in self._decoder.decode(av.Packet(packet._data)):
                samples = frame.to_ndarray()[0]
                self._due += len(samples)
                self._take(samples.astype(np.float32) / 32_768)
        return False, None

    def tick(self) -> None:
        """Fill in silence when the track has stalled, so that its time goes on."""
        if self._sequence is not None and (now := self._now()) - self._arrived_at > STALLED_S:
            missing = int((now - self._filled_until) * OPUS_HZ)
            self._filled_until, self._due = now, self._due + missing
            self._take(np.zeros(missing, np.float32))

    def _take(self, audio: Any) -> None:
        if len(sound := self._resampler.process(audio)):
            self._sink(PCM.encode(sound))


class Call:
    """WebRTC call of one client. Made by `answer`; `connect` sets the source of its audio once there is a session.

    Parameters
    ----------
    filtered : bool
        Whether the data channel carries only what is in `VISIBLE`.
    """

    def __init__(self, *, filtered: bool) -> None:
        self._filtered = filtered
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[str | bytes | Sound | None] = asyncio.Queue(MOST_INCOMING)
        self._channel: asyncio.Future[Any] = self._loop.create_future()
        self._changed = asyncio.Event()
        """The channel took something, or closed."""
        self._user = UserTrack(lambda pcm: self._put(Sound(pcm)))
        self._service = ServiceTrack()
        self._peer: Any = RTCPeerConnection(RTCConfiguration(iceServers=[]))  # no STUN server: none learns our address
        self._peer.on("datachannel", self._opened)
        self._peer.on("connectionstatechange", self._state_changed)
        self._patience = self._loop.call_later(CONNECT_S, self._give_up)

    @classmethod
    async def answer(cls, offer: str, *, filtered: bool = False) -> Call:
        """Answer an offer; its answer is `sdp`.

        Raises
        ------
        RefusedError
            It cannot be read, or has no audio for us; status 503 where the offer is not at fault.
        """
        call = cls(filtered=filtered)
        try:
            await call._negotiate(offer)
        except BaseException as problem:
            await call.aclose()
            if isinstance(problem, RefusedError) or not isinstance(problem, Exception):
                raise
            broken = isinstance(problem, _BROKEN) or not str(problem)
            why = "a line of it is missing or broken" if broken else str(problem)
            raise refused_offer(f"it cannot be read ({why})") from problem
        return call

    async def _negotiate(self, offer: str) -> None:
        # A name under .local is a browser's alias of its address: asking for it takes a second, and it finds us anyway.
        lines = [line for line in offer.splitlines() if not (line.startswith("a=candidate:") and ".local " in line)]
        transceiver = self._peer.addTransceiver(self._service, "sendrecv")
        codecs = RTCRtpSender.getCapabilities("audio").codecs
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType.lower() == "audio/opus"])
        self._let_through(transceiver.receiver)
        description = RTCSessionDescription("\r\n".join([*lines, ""]), "offer")
        await self._peer.setRemoteDescription(description)
        if transceiver.mid is None:
            raise refused_offer("it has no audio section (m=audio); add a transceiver or a track before createOffer")
        if self._peer.sctp is None:
            self._channel.set_result(None)  # a caller without a data channel
        await self._peer.setLocalDescription(await self._peer.createAnswer())
        if transceiver.currentDirection not in ("sendrecv", "sendonly"):
            raise refused_offer("it takes no audio (a=sendonly or a=inactive); allowed: a=sendrecv, a=recvonly")

    def _let_through(self, receiver: Any) -> None:
        name = "_RTCRtpReceiver__jitter_buffer"
        if not hasattr(receiver, name):
            message = "WebRTC does not work: this aiortc keeps its jitter buffer elsewhere than 1.16 does. "
            message += 'Next: python -m pip install "aiortc==1.16.*"'
            raise RefusedError(503, "webrtc_not_available", message)
        setattr(receiver, name, self._user)

    @property
    def sdp(self) -> str:
        """The answer."""
        return str(self._peer.localDescription.sdp)

    def connect(self, play: Callable[[int], bytes]) -> None:
        """Play the audio that `play` returns to the caller from now on."""

        def next_sound(n_bytes: int) -> bytes:
            self._user.tick()
            return play(n_bytes)

        self._service.play = next_sound

    # --- what happens -------------------------------------------------------------------------------------------------

    def _opened(self, channel: Any) -> None:
        if self._channel.done():
            return  # the first one is the session's
        channel.bufferedAmountLowThreshold = MOST_BUFFERED_BYTES // 2
        channel.on("message", self._put)
        channel.on("bufferedamountlow", self._changed.set)
        channel.on("close", self._closed)
        self._channel.set_result(channel)

    def _closed(self) -> None:
        self._changed.set()
        self._put(None)

    def _state_changed(self) -> None:
        state = self._peer.connectionState
        if state == "connected":
            self._patience.cancel()
        elif state in ("failed", "closed"):
            self._closed()

    def _give_up(self) -> None:
        _log.warning("a caller did not connect within %g s of our answer", CONNECT_S)
        self._put(None)

    def _put(self, message: str | bytes | Sound | None) -> None:
        """Queue a message or audio; None ends the call."""
        if self._inbox.full():
            self._inbox.get_nowait()
            message = None
        self._inbox.put_nowait(message)

    # --- a carrier ----------------------------------------------------------------------------------------------------

    async def incoming(self) -> AsyncIterator[str | bytes | Sound]:
        """Yield the caller's messages and audio, from channel and track."""
        while (message := await self._inbox.get()) is not None:
            yield message

    async def send(self, text: str) -> None:
        """Send a text over the channel, once the caller has opened it."""
        named = _TYPE.match(text)
        if self._filtered and (named is None or named[1] not in VISIBLE):
            return
        channel = await asyncio.shield(self._channel)
        if channel is None:
            return
        while channel.readyState == "open" and channel.bufferedAmount > MOST_BUFFERED_BYTES:
            self._changed.clear()
            await self._changed.wait()
        if channel.readyState != "open":
            raise ConnectionResetError("the data channel is closed")
        try:
            channel.send(text)
        except ValueError as problem:  # longer than the other side takes in one message
            message = f"{named[1] if named else 'An event'}: {problem}"
            channel.send(wire.encode(RefusedEventError("message_too_long", message).event()))

    async def hang_up(self, close: Close) -> None:
        """End the call, once all sent messages have arrived (1006: at once)."""
        channel: Any = self._channel.result() if self._channel.done() else None
        there = self._peer.connectionState == "connected" and channel and channel.readyState == "open"
        if there and close.code != 1006:
            self._changed.clear()
            channel.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), GOODBYE_S)
        await self.aclose()

    async def aclose(self) -> None:
        """Close the peer connection and all that belongs to it."""
        self._patience.cancel()
        self._channel.cancel()
        self._service.stop()
        try:
            await self._peer.close()
        except AttributeError as problem:  # aiortc 1.16 cannot close what was negotiated by half; it opened nothing
            _log.debug("a refused offer's peer connection: %s", problem)
