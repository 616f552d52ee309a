"""A plain HTTP and WebSocket client: status, body and headers, and when the service has noticed that it went."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import aiohttp

from rtnb.simulator import Simulator

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    text: str
    headers: Any

    @property
    def body(self) -> Any:
        return json.loads(self.text)


async def fetch(url: str, method: str = "POST", **request: Any) -> Answer:
    """Send one request."""
    async with aiohttp.ClientSession() as http, http.request(method, url, **request) as answer:
        return Answer(answer.status, await answer.text(), answer.headers)


async def gone(sim: Simulator) -> None:
    """Wait until no session is left; the service lives in another thread, so there is nothing to wait on."""
    async with asyncio.timeout(10):
        while sim.n_sessions:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
