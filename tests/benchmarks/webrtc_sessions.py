"""Number of people that one simulator can talk with over WebRTC at once.

::

    python -m tests.benchmarks.webrtc_sessions              # 1, 10 and 20 calls for 60 s
    python -m tests.benchmarks.webrtc_sessions 20 --seconds 60
    python -m tests.benchmarks.webrtc_sessions 6 --beside ../before    # CPU beside that of another checkout

Every call is duplex and in real time: a packet of 20 ms goes each way 50 times a second without pause. The user says
babbled speech of about 3 s every 14 s; server VAD hears it, and the reply is spoken at real time. The simulator is one
process, ``rtnb simulate``; the callers are aiortc in two others. A gap is the time between two packets of a call at its
caller; the callers' own share is in it.
"""

import asyncio
import random
import sys
import time
from fractions import Fraction
from typing import Any

import aiohttp
import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.opus import OpusEncoder
from aiortc.mediastreams import MediaStreamTrack

from rtnb.audio import babble, encode_pcm16
from tests.benchmarks.sessions import LATENCY, TURN_S
from tests.benchmarks.stage import beside, crowded, judged, late_ms, options, print_row

LONGEST_GAP_MS = 100
WARM_UP_S = 10.0  # calls are set up one after the other, and the first replies are spoken


def cycle() -> list[bytes]:
    """One cycle of a user as Opus packets of 20 ms; encoded once, so that the callers cost little."""
    speech = babble("Could you please tell me what the weather will be like tomorrow?", rate_hz=48_000, seed=1).audio
    audio = np.zeros(int(48_000 * TURN_S), np.float32)
    audio[: len(speech)] = speech
    encoder, packets = OpusEncoder(), []
    for start in range(0, len(audio), 960):
        frame = av.AudioFrame(format="s16", layout="mono", samples=960)
        frame.planes[0].update(encode_pcm16(audio[start : start + 960]))
        frame.sample_rate, frame.pts = 48_000, start
        packets += encoder.encode(frame)[0]
    return packets


class Speaker(MediaStreamTrack):
    """A user who says the same again and again."""

    kind = "audio"

    def __init__(self, packets: list[bytes]) -> None:
        super().__init__()
        self._packets = packets
        self._at = random.randrange(len(packets))
        self._n = 0
        self._began = time.monotonic()

    async def recv(self) -> Any:
        await asyncio.sleep(max(0.0, self._began + self._n * 0.02 - time.monotonic()))
        packet: Any = av.Packet(self._packets[(self._at + self._n) % len(self._packets)])
        packet.pts, packet.time_base = self._n * 960, Fraction(1, 48_000)
        self._n += 1
        return packet


class Arrivals:
    """Arrivals of packets, in the place of a jitter buffer."""

    def __init__(self, begin: float) -> None:
        self.gaps_ms: list[float] = []
        self.lost = self.loud = 0
        self._begin = begin
        self._last: tuple[float, int] | None = None

    def add(self, packet: Any) -> tuple[bool, None]:
        now = time.monotonic()
        if self._last is not None and now >= self._begin:
            self.gaps_ms.append((now - self._last[0]) * 1000)
            self.lost += (packet.sequence_number - self._last[1] - 1) % 65_536
            self.loud += len(packet.payload) > 60  # silence takes 3 to 52 bytes, speech 120
        self._last = now, packet.sequence_number
        return False, None


async def call(
    http: aiohttp.ClientSession, line: dict[str, str], packets: list[bytes], begin: float, end: float
) -> Arrivals:
    """One caller."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    seen = Arrivals(begin)
    transceiver = peer.addTransceiver(Speaker(packets), "sendrecv")
    transceiver.receiver._RTCRtpReceiver__jitter_buffer = seen  # no decoding: what counts is when it comes
    peer.createDataChannel("oai-events")
    base = f"{line['http']}/v1/realtime"
    async with http.post(f"{base}/client_secrets", json={}, headers={"Authorization": f"Bearer {line['key']}"}) as made:
        key = (await made.json())["value"]
    await peer.setLocalDescription(await peer.createOffer())
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/sdp"}
    async with http.post(f"{base}/calls", data=peer.localDescription.sdp, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        await peer.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))
    await asyncio.sleep(end - time.monotonic())
    await peer.close()
    return seen


async def crowd(line: dict[str, str], n_calls: int, seconds: float) -> dict[str, Any]:
    """Some calls in this process."""
    packets = cycle()
    begin = time.monotonic() + WARM_UP_S
    async with aiohttp.ClientSession() as http:

        async def joining(i: int) -> Arrivals:
            await asyncio.sleep(i * (WARM_UP_S - 4) / max(1, n_calls))
            return await call(http, line, packets, begin, begin + seconds)

        seen = await asyncio.gather(*(joining(i) for i in range(n_calls)))
    lost, loud = sum(one.lost for one in seen), sum(one.loud for one in seen)
    return {"gaps_ms": [gap for one in seen for gap in one.gaps_ms], "lost": lost, "loud": loud}


def main() -> int:
    chosen = options(__doc__, calls=[1, 10, 20], seconds=60.0, voice="auto", beside="")
    simulator = ("--voice", chosen.voice, "--latency", LATENCY)
    run: dict[str, Any] = {"seconds": chosen.seconds, "warm_up_s": WARM_UP_S, "simulator": simulator}
    if chosen.beside:
        print({n_calls: beside(chosen.beside, crowd, n_calls, **run) for n_calls in chosen.calls})
        return 0
    row: dict[str, Any] = {}
    for n_calls in chosen.calls:
        outcomes, costs = crowded(crowd, n_calls, **run)
        gaps = [gap for one in outcomes for gap in one["gaps_ms"]]
        lost, loud = (sum(one[name] for one in outcomes) for name in ("lost", "loud"))
        spoken = {"spoken_percent": round(100 * loud / len(gaps), 1)}
        row = {"calls": n_calls, "packets": len(gaps), "lost": lost, **spoken, **late_ms(gaps, "gap"), **costs}
        print_row(row, head=n_calls == chosen.calls[0])
    return judged({"longest gap, ms": (row["gap_max_ms"], LONGEST_GAP_MS), "packets lost": (row["lost"], 0)})


if __name__ == "__main__":
    sys.exit(main())
