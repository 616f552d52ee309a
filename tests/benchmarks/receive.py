"""CPU of one received audio delta. ``python -m tests.benchmarks.receive``

From the socket to "decoded, state updated, logged", beside the stock `openai` client and a floor (`websockets` and
`json.loads`), on the same stream in the same run. The service is another process and sends frames made beforehand:
100 ms of PCM16 each, after `session.created`. Rounds of all five take turns, so that a busy machine disturbs all alike;
the table shows medians. Both clients leave audio as base64 text until it is read (ours has checked it); two more rows
read the bytes of every delta.
"""

import asyncio
import base64
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe

from tests.benchmarks.stage import options, served

BOUND_READ = 0.50
"""Largest share of `openai` with the audio of every delta decoded."""

BOUND_UNREAD = 0.40
"""Largest share of `openai` without decoding."""

BOUND_FLOOR = 2.0
"""Largest multiple of `websockets` and `json.loads`."""

CHUNK_BYTES = 4_800  # 100 ms of PCM16 at 24 kHz


def serve(pipe: Pipe, events: int) -> None:
    """Serve `session.created`, `response.created`, then `events` deltas as fast as they are taken."""
    import websockets

    noise = random.Random(0)
    head = [_created(), _response("response.created", "in_progress")]
    deltas = [_delta(number, noise.randbytes(CHUNK_BYTES)) for number in range(events)]
    tail = [_response("response.done", "completed")]

    async def talk(socket: websockets.ServerConnection) -> None:
        for text in head:
            await socket.send(text)
        await socket.recv()  # the client is ready: start its clock first
        for text in deltas + tail:
            await socket.send(text)
        await socket.wait_closed()

    async def run() -> None:
        async with websockets.serve(talk, "127.0.0.1", 0, compression=None, max_size=None) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    asyncio.run(run())


def _dumps(message: dict[str, object]) -> str:
    return json.dumps(message, separators=(",", ":"))  # as services write it


def _created() -> str:
    form = {"type": "audio/pcm", "rate": 24_000}
    audio = {"input": {"format": form, "turn_detection": None}, "output": {"format": form, "voice": "alloy"}}
    session = {"type": "realtime", "object": "realtime.session", "id": "sess_1", "model": "m", "audio": audio}
    return _dumps({"type": "session.created", "event_id": "event_0", "session": session})


def _response(kind: str, status: str) -> str:
    response = {"object": "realtime.response", "id": "resp_1", "status": status, "output": [], "conversation_id": "c"}
    return _dumps({"type": kind, "event_id": "event_1", "response": response})


def _delta(number: int, pcm: bytes) -> str:
    return _dumps(
        {
            "type": "response.output_audio.delta",
            "event_id": f"event_{number + 2}",
            "response_id": "resp_1",
            "item_id": "item_1",
            "output_index": 0,
            "content_index": 0,
            "delta": base64.b64encode(pcm).decode(),
        }
    )


_READY = '{"type":"input_audio_buffer.clear","event_id":"ready"}'


async def ours_read(port: int) -> tuple[float, int]:
    """Measure our session with the bytes of every delta read."""
    return await ours(port, read=True)


async def ours(port: int, *, read: bool = False) -> tuple[float, int]:
    """Measure our session: decoded, state updated, response grown, playback followed, logged."""
    from rtnb.client import open_session
    from rtnb.transport.services import Custom

    async with await open_session(Custom(f"ws://127.0.0.1:{port}/v1/realtime")) as session:
        response = await session.next_response()
        await session.send_raw(json.loads(_READY))
        start_s = time.process_time()
        await response
        if read:
            assert all(len(delta.pcm) == CHUNK_BYTES for delta in response.deltas)
        spent_s = time.process_time() - start_s
        assert session.log[-1].type == "response.done"
        return spent_s, len(response.deltas)


async def stock_decoding(port: int) -> tuple[float, int]:
    """Measure the `openai` client with the audio as bytes: the same work as ours without a log."""
    return await stock(port, decode=base64.b64decode)


async def stock(port: int, *, decode: Callable[[str], object] = str) -> tuple[float, int]:
    """Measure the `openai` client: events as its models."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="none", websocket_base_url=f"ws://127.0.0.1:{port}/v1")
    received = 0
    async with client, client.realtime.connect(model="m") as connection:
        await connection.recv()
        await connection.recv()
        await connection.send(json.loads(_READY))
        start_s = time.process_time()
        while (event := await connection.recv()).type == "response.output_audio.delta":
            decode(event.delta)
            received += 1
        return time.process_time() - start_s, received


async def floor(port: int) -> tuple[float, int]:
    """Measure the library and `json.loads`; nothing is kept."""
    import websockets

    received = 0
    async with websockets.connect(f"ws://127.0.0.1:{port}/v1/realtime", compression=None, max_size=None) as socket:
        await socket.recv()
        await socket.recv()
        await socket.send(_READY)
        start_s = time.process_time()
        while json.loads(await socket.recv())["type"] != "response.done":
            received += 1
        return time.process_time() - start_s, received


CONTESTANTS: dict[str, Callable[[int], Awaitable[tuple[float, int]]]] = {
    "rtnb": ours,
    "openai": stock,
    "rtnb, audio read": ours_read,
    "openai, audio decoded": stock_decoding,
    "websockets + json.loads": floor,
}


def measure(port: int, *, rounds: int, events: int) -> dict[str, float]:
    """Return the median round of each contestant, in µs per event."""
    spent: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, contestant in CONTESTANTS.items():
            spent_s, received = asyncio.run(contestant(port))  # type: ignore[arg-type]
            if received != events:
                raise SystemExit(f"{name} received {received} of {events} events")
            spent[name].append(1e6 * spent_s / events)
    return {name: statistics.median(values) for name, values in spent.items()}


def main() -> int:
    chosen = options(__doc__, events=4_000, rounds=25)
    with served(serve, chosen.events) as pipe:
        median = measure(pipe.recv(), rounds=chosen.rounds, events=chosen.events)
    print(f"{'CPU per received delta of 100 ms':<34}{'µs':>8}")
    for name, value in median.items():
        print(f"{name:<34}{value:>8.1f}")
    ratios = {
        "of openai, all audio decoded": (median["rtnb, audio read"] / median["openai, audio decoded"], BOUND_READ),
        "of openai, no audio decoded": (median["rtnb"] / median["openai"], BOUND_UNREAD),
        "times websockets + json.loads": (median["rtnb"] / median["websockets + json.loads"], BOUND_FLOOR),
    }
    for name, (ratio, bound) in ratios.items():
        print(f"rtnb is {ratio:.2f} {name} (bound {bound:.2f}{'' if ratio <= bound else ': BROKEN'})")
    return 0 if all(ratio <= bound for ratio, bound in ratios.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
