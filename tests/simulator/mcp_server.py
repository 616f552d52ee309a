"""An MCP server over streamable HTTP, written from the specification (2025-06-18) with none of the simulator's code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

TOOLS: list[dict[str, Any]] = [
    {
        "name": "tide_at",
        "description": "Tell the height of the tide in a city",
        "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "annotations": {"readOnlyHint": True},
    },
    {"name": "open_gate", "description": "Open the flood gate", "inputSchema": {"type": "object"}},
]


@dataclass
class StubServer:
    """State of the server: what was asked of it, and how it answers."""

    stream: bool = False
    """Answer as an event stream, with a notification before the answer."""
    page: int = 10
    """Tools per page."""
    status: int = 200
    """HTTP status of every answer."""
    padding: int = 0
    """Characters that make the result long."""
    delay_s: float = 0.0
    """Before a result of a tool."""
    methods: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)
    url: str = ""

    async def delete(self, request: web.Request) -> web.Response:
        self.sessions.remove(request.headers["Mcp-Session-Id"])
        return web.Response(status=204)

    async def post(self, request: web.Request) -> web.StreamResponse:
        message = await request.json()
        method = message["method"]
        self.methods.append(method)
        self.headers.append(dict(request.headers))
        if self.status != 200:
            return web.Response(status=self.status, headers={"Location": "http://127.0.0.1:1/"})
        assert "application/json" in request.headers["Accept"]
        assert "text/event-stream" in request.headers["Accept"]
        session = request.headers.get("Mcp-Session-Id", "")
        if method == "initialize":
            session = f"s{len(self.methods)}"
            self.sessions.add(session)
        elif session not in self.sessions or request.headers.get("MCP-Protocol-Version") != "2025-06-18":
            return web.Response(status=400)
        if "id" not in message:
            return web.Response(status=202)
        answer = {"jsonrpc": "2.0", "id": message["id"], **await self.answer(method, message["params"])}
        return await self.reply(request, answer, {"Mcp-Session-Id": session})

    async def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            about = {"name": "stub", "version": "1"}
            return {"result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}}
        if method == "tools/list":
            start = int(params.get("cursor", 0))
            more = {"nextCursor": str(start + self.page)} if start + self.page < len(TOOLS) else {}
            return {"result": {"tools": TOOLS[start : start + self.page], **more}}
        await asyncio.sleep(self.delay_s)
        if method != "tools/call" or params["name"] not in ("tide_at", "open_gate"):
            return {"error": {"code": -32602, "message": "Unknown tool"}}
        if params["name"] == "open_gate":
            return {"result": {"content": [{"type": "text", "text": "The gate is stuck"}], "isError": True}}
        text = f"1.2 m in {params['arguments']['city']}" + "x" * self.padding
        return {"result": {"content": [{"type": "text", "text": text}, {"type": "image", "data": "AA=="}]}}

    async def reply(self, request: web.Request, answer: dict[str, Any], headers: dict[str, str]) -> web.StreamResponse:
        if not self.stream:
            return web.json_response(answer, headers=headers)
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        note = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
        text = f": a comment\n\nevent: message\ndata: {note}\n\n" + f"id: 7\r\ndata: {json.dumps(answer)}\r\n\r\n"
        size = max(11, len(text) // 1000)  # pieces that cut lines and ends of lines
        for start in range(0, len(text), size):
            await response.write(text[start : start + size].encode())
        return response


@asynccontextmanager
async def mcp_server(**options: Any) -> AsyncIterator[StubServer]:
    """Serve on a free port of this machine."""
    stub = StubServer(**options)
    app = web.Application()
    app.router.add_post("/mcp", stub.post)
    app.router.add_delete("/mcp", stub.delete)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    stub.url = str(server.make_url("/mcp"))
    try:
        yield stub
    finally:
        await server.close()
