"""A chat service for the tests: it answers with what a function makes of the messages; shares no code with rtnb."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


@asynccontextmanager
async def chat_service(
    answer: Callable[[list[dict[str, str]]], str | tuple[int, str]],
) -> AsyncIterator[tuple[str, list[Any]]]:
    """Serve /chat/completions on a free port; yields its base address and the requests so far."""
    requests: list[Any] = []

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        requests.append({"headers": dict(request.headers), **body})
        said = answer(body["messages"])
        if isinstance(said, tuple):
            return web.Response(status=said[0], text=said[1])
        message = {"role": "assistant", "content": said}
        return web.Response(text=json.dumps({"choices": [{"message": message}]}), content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", requests
    finally:
        await runner.cleanup()
