"""A proxy in front of a service that changes ten things, each in one place; it knows nothing of `rtnb.verify`."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

Message = dict[str, Any]


class Deviations:
    """The changes of one session: `sent` sees the client's messages, `changed` gives the service's as they go on."""

    def __init__(self) -> None:
        self.last_update: Message = {}
        self.voice: Any = None

    def sent(self, message: Message) -> None:
        if message.get("type") == "session.update":
            self.last_update = message.get("session") or {}

    def changed(self, message: Message) -> Message | None:
        """Return the message with its deviation; None drops it."""
        change = getattr(self, "on_" + message["type"].replace(".", "_"), None)
        return change(message) if change is not None else message

    def on_response_content_part_done(self, message: Message) -> Message | None:
        """1: the end of a part with text is missing."""
        return None if message["part"]["type"] == "text" else message

    def on_error(self, message: Message) -> Message:
        """2: another code."""
        if message["error"].get("code") == "invalid_json":
            message["error"]["code"] = "bad_json"
        return message

    def on_response_output_audio_delta(self, message: Message) -> Message:
        """3: half a sample is missing."""
        message["delta"] = base64.b64encode(base64.b64decode(message["delta"])[:-1]).decode()
        return message

    def on_response_done(self, message: Message) -> Message:
        """4: the total is one too high; 9: a cancelled response has another reason."""
        response = message["response"]
        if response.get("usage"):
            response["usage"]["total_tokens"] += 1
        details = response.get("status_details") or {}
        if details.get("reason") == "client_cancelled":
            details["reason"] = "user_asked"
        return message

    def on_rate_limits_updated(self, message: Message) -> Message:
        """5: an event without an id."""
        return {name: value for name, value in message.items() if name != "event_id"}

    def on_session_updated(self, message: Message) -> Message:
        """6: a silence alone changes the threshold; 7: instructions alone change the voice."""
        audio = message["session"].get("audio", {})
        asked = ((self.last_update.get("audio") or {}).get("input") or {}).get("turn_detection") or {}
        if asked.get("silence_duration_ms") == 640:
            audio["input"]["turn_detection"]["threshold"] = 0.9
        if self.last_update.keys() == {"type", "instructions"}:
            audio["output"]["voice"] = "echo"
        return message

    def on_input_audio_buffer_speech_stopped(self, message: Message) -> Message:
        """8: the end is not the end of a frame of 32 ms."""
        return {**message, "audio_end_ms": message["audio_end_ms"] + 7}

    def on_conversation_item_input_audio_transcription_completed(self, message: Message) -> Message:
        """10: another kind of usage."""
        return {**message, "usage": {"type": "tokens", "input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}


@asynccontextmanager
async def proxy(upstream: str, deviations: Callable[[], Any] = Deviations) -> AsyncIterator[str]:
    """Serve ``http://…`` in front of `upstream`, with new deviations for each WebSocket; plain requests pass."""
    client = aiohttp.ClientSession()

    async def handle(request: web.Request) -> web.StreamResponse:
        hop = ("host", "connection", "upgrade", "content-length", "transfer-encoding")
        dropped = (*hop, "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
        url = upstream + str(request.rel_url)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            async with client.request(request.method, url, headers=headers, data=await request.read()) as answer:
                passed = {name: value for name, value in answer.headers.items() if name in ("Location", "Content-Type")}
                return web.Response(status=answer.status, body=await answer.read(), headers=passed)
        try:
            service = await client.ws_connect(url, headers=headers, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            return web.Response(status=error.status)
        here = web.WebSocketResponse(max_msg_size=0)
        await here.prepare(request)
        await _between(here, service, deviations())
        return here

    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{rest:.*}", handle)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=1.0)
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()
        await client.close()


async def _between(here: Any, service: Any, deviations: Any) -> None:
    async def up() -> None:
        async for frame in here:
            with suppress(ValueError):
                deviations.sent(json.loads(frame.data))
            await service.send_str(frame.data)
        await service.close()

    async def down() -> None:
        async for frame in service:
            if (message := deviations.changed(json.loads(frame.data))) is not None:
                await here.send_str(json.dumps(message))
        await here.close()

    await asyncio.gather(up(), down(), return_exceptions=True)
