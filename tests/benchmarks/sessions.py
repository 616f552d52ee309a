"""How many people one simulator can talk with at once.

::

    python -m tests.benchmarks.sessions            # 1, 10, 50, 100, 150 sessions
    python -m tests.benchmarks.sessions 100 --repeat 5
    python -m tests.benchmarks.sessions 250 --workers 2 --voice babble --chunk-ms 20
    python -m tests.benchmarks.sessions 100 --beside ../before    # CPU beside that of another checkout, both at once

Every session is duplex and in real time: a client appends 100 ms of audio 10 times a second without pause (babbled
speech of about 3 s, then silence), server VAD hears it, and the reply comes paced at real time. The simulator is one
process, ``rtnb simulate``; the clients are two others. The schedule of a reply is the length of the audio before each
of its deltas, laid so that its most punctual delta is on time; all others are so much late. The network's and the
clients' share is in it.
"""

import asyncio
import base64
import random
import re
import statistics
import time
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from rtnb.audio import babble, encode_pcm16
from tests.benchmarks.stage import beside, crowded, late_ms, options, print_row

TURN_S = 14.0  # a user speaks that often; a reply takes about 8 s
WARM_UP_S = 5.0  # the first second of everything is left out
LATENCY = "real_time,jitter_ms=0,answer_ms=0,response_created_ms=0,first_delta_ms=100"
FINAL, TEXT, PING, PONG = 128, 1, 9, 10
_DELTA = b'{"type":"response.output_audio.delta"'
_RESPONSE = re.compile(rb'"response_id":"([^"]+)"')


def frame(payload: bytes, opcode: int) -> bytes:
    """Return a client's WebSocket frame (RFC 6455), its mask zero."""
    length = len(payload)
    size = bytes([128 | length]) if length < 126 else bytes([254]) + length.to_bytes(2, "big")
    return bytes([128 | opcode]) + size + bytes(4) + payload


def messages(chunk_ms: int) -> list[bytes]:
    """One cycle of a user: the frames to send, one every `chunk_ms`."""
    speech = babble("Could you please tell me what the weather will be like tomorrow?", rate_hz=24_000, seed=1).audio
    cycle = np.zeros(int(24_000 * TURN_S), np.float32)
    cycle[: len(speech)] = speech
    pcm = encode_pcm16(cycle)
    size = 48 * chunk_ms
    texts = (
        b'{"type":"input_audio_buffer.append","audio":"%b"}' % base64.b64encode(pcm[i : i + size])
        for i in range(0, len(pcm), size)
    )
    return [frame(text, TEXT) for text in texts]


class User(asyncio.Protocol):
    """A client that costs little: its frames are made once, and of an answer only what is measured is read."""

    def __init__(self, line: dict[str, str], begin: float) -> None:
        address = urlsplit(line["ga"])
        self.host, self.port = address.hostname, address.port
        self.client_late_ms: list[float] = []
        self.n_done = 0
        self.opened = asyncio.get_running_loop().create_future()
        self._request = (
            f"GET {address.path}/realtime?model=bench HTTP/1.1\r\nHost: {address.netloc}\r\napi-key: {line['key']}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(random.randbytes(16)).decode()}\r\n\r\n"
        )
        self._begin, self._received = begin, bytearray()
        self._sent_ms: dict[bytes, float] = {}
        self._offsets_ms: dict[bytes, list[float]] = {}

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request.encode())

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.opened.done():
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._received = rest
            self.opened.set_result(None)
        while size := self._take():
            del self._received[:size]

    def _take(self) -> int:
        """Read the frame at the front and return its size, 0 where it is not complete."""
        data = self._received
        start = {126: 4, 127: 10}.get(data[1], 2) if len(data) > 1 else 2
        if len(data) < start:
            return 0
        stop = start + (int.from_bytes(data[2:start], "big") if start > 2 else data[1])
        if len(data) < stop:
            return 0
        if data[0] == FINAL | PING:
            self.transport.write(frame(bytes(data[start:stop]), PONG))
        elif data.startswith(_DELTA, start) and (now := time.monotonic()) >= self._begin:
            self._delta(bytes(data[start:stop]), now)
        elif data.startswith(b'{"type":"response.done"', start):
            self.n_done += 1
        return stop

    def _delta(self, text: bytes, now: float) -> None:
        """Take an audio delta: when it came against when it should have."""
        found = _RESPONSE.search(text)
        assert found is not None
        start = text.index(b'"delta":"') + 9
        length_ms = (text.index(b'"', start) - start) * 3 / 4 / 48
        due_ms = self._sent_ms.get(found[1], 0.0)
        self._offsets_ms.setdefault(found[1], []).append(now * 1000 - due_ms)
        self._sent_ms[found[1]] = due_ms + length_ms

    @property
    def late_ms(self) -> list[float]:
        """Lateness of every delta."""
        return [offset - min(reply) for reply in self._offsets_ms.values() for offset in reply]


async def user(
    line: dict[str, str],
    frames: list[bytes],
    chunk_ms: int,
    stop_at: float,
    begin: float,
    *,
    stop: asyncio.Event | None = None,
) -> User:
    """One session until `stop_at`, or until `stop` is set; what it saw after `begin`."""
    clock, seen = time.monotonic, User(line, begin)
    await asyncio.get_running_loop().create_connection(lambda: seen, seen.host, seen.port)
    await seen.opened
    at = random.randrange(len(frames))
    started, n_sent = clock(), 0
    while (now := clock()) < stop_at and not (stop is not None and stop.is_set()):
        due = started + n_sent * chunk_ms / 1000
        if due > now:
            await asyncio.sleep(due - now)
            if now >= begin:
                seen.client_late_ms.append((clock() - due) * 1000)
        seen.transport.write(frames[(at + n_sent) % len(frames)])
        n_sent += 1
    seen.transport.close()
    return seen


async def crowd(line: dict[str, str], n_sessions: int, seconds: float, chunk_ms: int) -> dict[str, Any]:
    """Some sessions in this process."""
    frames = messages(chunk_ms)
    stop_at = time.monotonic() + seconds + WARM_UP_S
    begin = stop_at - seconds

    async def joining(i: int) -> User:
        await asyncio.sleep(i * (WARM_UP_S - 2) / max(1, n_sessions))  # people do not come all at once
        return await user(line, frames, chunk_ms, stop_at, begin)

    seen = await asyncio.gather(*(joining(i) for i in range(n_sessions)))
    return {
        "late_ms": [late for one in seen for late in one.late_ms],
        "client_late_ms": [late for one in seen for late in one.client_late_ms],
        "n_done": sum(one.n_done for one in seen),
    }


def measure(
    n_sessions: int, *, seconds: float, chunk_ms: int, voice: str, workers: int, other: str
) -> dict[str, float]:
    """One run."""
    simulator = ["--voice", voice, "--latency", LATENCY, *(["--workers", str(workers)] if workers > 1 else [])]
    run: dict[str, Any] = {"seconds": seconds, "warm_up_s": WARM_UP_S, "simulator": simulator, "given": [chunk_ms]}
    if other:
        return {"sessions": n_sessions, "cpu_ratio": beside(other, crowd, n_sessions, **run)}
    outcomes, costs = crowded(crowd, n_sessions, **run)
    late = [late for one in outcomes for late in one["late_ms"]]
    client = [late for one in outcomes for late in one["client_late_ms"]]
    return {
        "sessions": n_sessions,
        "deltas": len(late),
        "replies": sum(one["n_done"] for one in outcomes),
        **late_ms(late, "late"),
        **costs,
        "clients_late_p99_ms": late_ms(client, "clients")["clients_p99_ms"],
    }


def main() -> None:
    chosen = options(
        __doc__,
        sessions=[1, 10, 50, 100, 150],
        seconds=20.0,
        repeat=1,
        chunk_ms=100,
        voice="auto",
        workers=1,
        beside="",
    )
    settings = {name: getattr(chosen, name) for name in ("seconds", "chunk_ms", "voice", "workers")}
    for n_sessions in chosen.sessions:
        runs = [measure(n_sessions, **settings, other=chosen.beside) for _ in range(chosen.repeat)]
        row = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        if chosen.beside:
            print(row)
            continue
        row["late_p99_runs_ms"] = [run["late_p99_ms"] for run in runs]  # type: ignore[assignment]
        print_row(row, head=n_sessions == chosen.sessions[0])
        if n_sessions == 100:
            print(f"100 sessions: p99 {row['late_p99_ms']} ms late (at most 30 wanted)")


if __name__ == "__main__":
    main()
