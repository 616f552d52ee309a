"""A chat service for the tests: it answers with what a function makes of the messages; shares no code with rtnb."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


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
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": said}}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    async with TestServer(app) as server:
        yield str(server.make_url("/v1")), requests
