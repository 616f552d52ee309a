"""CPU of one received audio delta. ``python -m tests.benchmarks.receive``

From the socket to "decoded, state updated, logged", beside the stock `openai` client and a floor (`websockets` and
`json.loads`), on the same stream in the same run. The service is another process and sends 100 ms of PCM16 in each
delta. Rounds of all five take turns, so that a busy machine disturbs all alike; the table shows medians. Both clients
leave audio as base64 text until it is read (ours has checked it); two more rows read the bytes of every delta.
"""

import asyncio
import base64
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable

import rtnb
from tests.benchmarks.stage import in_turns, judged, options, print_table, serve
from tests.client.peer import Message, Peer

BOUND_READ, BOUND_UNREAD, BOUND_FLOOR = 0.50, 0.40, 2.0
"""Largest share of `openai` with and without the audio decoded, and largest multiple of `websockets` and `json.loads`.
"""

CHUNK_BYTES = 4_800  # 100 ms of PCM16 at 24 kHz
READY = {"type": "input_audio_buffer.clear", "event_id": "ready"}
"""The client's sign that its clock runs: the deltas follow."""


def service(events: int) -> Peer:
    """Return a service that sends `session.created`, `response.created`, then the deltas as fast as they are taken."""
    noise = random.Random(0)
    response = {"object": "realtime.response", "id": "resp_1", "output": [], "conversation_id": "c"}
    ids = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    created = {"type": "response.created", "response": {**response, "status": "in_progress"}}
    stream = [
        {"type": "response.output_audio.delta", **ids, "delta": base64.b64encode(noise.randbytes(CHUNK_BYTES)).decode()}
        for _ in range(events)
    ]
    stream.append({"type": "response.done", "response": {**response, "status": "completed"}})

    def script(messages: list[Message]) -> list[Message]:
        return [*messages, created] if messages[0]["type"] == "session.created" else stream

    return Peer(script=script)


async def ours_read(url: str) -> tuple[float, int]:
    """Measure our session with the bytes of every delta read."""
    return await ours(url, read=True)


async def ours(url: str, *, read: bool = False) -> tuple[float, int]:
    """Measure our session: decoded, state updated, response grown, playback followed, logged."""
    async with rtnb.connect(rtnb.Custom(url)) as session:
        response = await session.next_response()
        await session.send_raw(READY)
        start_s = time.process_time()
        await response
        if read:
            assert all(len(delta.pcm) == CHUNK_BYTES for delta in response.deltas)
        spent_s = time.process_time() - start_s
        assert session.log[-1].type == "response.done"
        return spent_s, len(response.deltas)


async def stock_decoding(url: str) -> tuple[float, int]:
    """Measure the `openai` client with the audio as bytes: the same work as ours without a log."""
    return await stock(url, decode=base64.b64decode)


async def stock(url: str, *, decode: Callable[[str], object] = str) -> tuple[float, int]:
    """Measure the `openai` client: events as its models."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="none", websocket_base_url=url.removesuffix("/realtime"))
    received = 0
    async with client, client.realtime.connect(model="m") as connection:
        await connection.recv()
        await connection.recv()
        await connection.send(READY)  # type: ignore[arg-type]
        start_s = time.process_time()
        while (event := await connection.recv()).type == "response.output_audio.delta":
            decode(event.delta)
            received += 1
        return time.process_time() - start_s, received


async def floor(url: str) -> tuple[float, int]:
    """Measure the library and `json.loads`; nothing is kept."""
    import websockets

    received = 0
    async with websockets.connect(url, compression=None, max_size=None) as socket:
        await socket.recv()
        await socket.recv()
        await socket.send(json.dumps(READY))
        start_s = time.process_time()
        while json.loads(await socket.recv())["type"] != "response.done":
            received += 1
        return time.process_time() - start_s, received


CONTESTANTS: dict[str, Callable[[str], Awaitable[tuple[float, int]]]] = {
    "rtnb": ours,
    "openai": stock,
    "rtnb, audio read": ours_read,
    "openai, audio decoded": stock_decoding,
    "websockets + json.loads": floor,
}


def main() -> int:
    chosen = options(__doc__, events=4_000, rounds=25)

    def spent_us(contestant: Callable[[str], Awaitable[tuple[float, int]]]) -> float:
        spent_s, received = asyncio.run(contestant(url))  # type: ignore[arg-type]
        assert received == chosen.events, f"{received} of {chosen.events} events"
        return 1e6 * spent_s / received

    with serve(service, chosen.events) as url:
        us = in_turns({name: lambda one=one: spent_us(one) for name, one in CONTESTANTS.items()}, chosen.rounds)
    print_table({name: {"µs per delta of 100 ms": value} for name, value in us.items()})
    ratios = {
        "of openai, all audio decoded": (us["rtnb, audio read"] / us["openai, audio decoded"], BOUND_READ),
        "of openai, no audio decoded": (us["rtnb"] / us["openai"], BOUND_UNREAD),
        "times websockets + json.loads": (us["rtnb"] / us["websockets + json.loads"], BOUND_FLOOR),
    }
    return judged(ratios)


if __name__ == "__main__":
    sys.exit(main())
