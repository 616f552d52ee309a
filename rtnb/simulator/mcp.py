"""MCP tools of a session: the service lists the tools of a server, asks for approval, and runs the calls.

The order of the events follows the service. A call that needs approval is part of its response, but runs after it, once
the client approves. No response follows a call: the client asks for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp

from rtnb.protocol import Item, events
from rtnb.simulator.conversation import Conversation
from rtnb.transport import is_loopback

_log = logging.getLogger("rtnb.simulator")

LIST_S: Final = 10.0
"""Longest listing of a server's tools. Chosen."""
CALL_S: Final = 30.0
"""Longest call of a tool. Chosen."""
MOST_BYTES: Final = 2**20
"""Bytes of a server's answer. Chosen: a long document."""
MOST_SERVERS: Final = 16
"""Servers of a session, and calls that wait for approval. Chosen."""
MOST_TOOLS: Final = 128
"""Tools of one server. Chosen."""
PROTOCOL: Final = "2025-06-18"
"""Version of MCP that the client asks for; servers may answer with an older one."""

Tool = Mapping[str, Any]
"""Tool as on the wire."""


class McpError(Exception):  # becomes the `error` of an item
    """Failure of an MCP server.

    Parameters
    ----------
    message : str
        Without secrets.
    kind : {"protocol_error", "http_error", "tool_execution_error"}
        Type on the wire.
    code : int, optional
        Of JSON-RPC or HTTP.
    """

    def __init__(self, message: str, kind: str = "tool_execution_error", code: int | None = None) -> None:
        super().__init__(message)
        self.detail = {"type": kind, "message": message, **({} if code is None else {"code": code})}


class ToolServer(Protocol):
    """MCP server as the simulator uses it; an object with these methods can stand for one."""

    async def list_tools(self) -> Sequence[Tool]:
        """Return the tools: `name`, `input_schema`, and perhaps `description` and `annotations`."""

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run a tool; raises `McpError` where it fails."""


_NONE: Final[Mapping[str, str | ToolServer]] = {}
OpenServer = Callable[[Tool], ToolServer]
"""Takes the session's MCP tool, returns its server; raises `McpError`."""


def open_server(tool: Tool, *, known: Mapping[str, str | ToolServer] = _NONE, local: bool = True) -> ToolServer:
    """Return the server of a session's MCP tool.

    Parameters
    ----------
    tool : mapping
        With `server_label` and `server_url`.
    known : mapping, optional
        Address or object by label, given by who runs the simulator.
    local : bool, default True
        Whether clients may name addresses of this machine: no, where clients of other machines are served.

    Raises
    ------
    McpError
        The simulator does not connect to this server.
    """
    label, url = str(tool["server_label"]), tool.get("server_url")
    found = known.get(label, url)
    host = urlsplit(found).hostname or "" if isinstance(found, str) else ""
    if found is None or (label not in known and not (local and is_loopback(host))):
        allowed = "a server_url of this machine, or a label in Simulator(mcp_servers={label: address or object})"
        raise McpError(f"the simulator does not connect to this server; allowed: {allowed}", "http_error", 403)
    if not isinstance(found, str):
        return found
    headers = {str(name): str(value) for name, value in (tool.get("headers") or {}).items()}
    if key := tool.get("authorization"):
        headers["Authorization"] = f"Bearer {key}"
    return HttpServer(found, headers)


@dataclass
class _Server:
    """Server of a session, as far as its tools are known."""

    definition: Tool
    connection: ToolServer | None = None
    tools: tuple[dict[str, Any], ...] = ()


def _fits(rule: Any, tool: Tool) -> bool:
    """Return whether a list of names, or an object with `tool_names` and `read_only`, names a tool."""
    if not isinstance(rule, Mapping):
        return isinstance(rule, Sequence) and tool["name"] in rule
    names, read_only = rule.get("tool_names"), rule.get("read_only")
    named = not isinstance(names, Sequence) or tool["name"] in names
    hint = bool((tool.get("annotations") or {}).get("readOnlyHint"))
    return bool(rule) and named and (not isinstance(read_only, bool) or hint == read_only)


@dataclass
class McpTools:
    """MCP servers of one session, and the calls that wait for approval.

    Parameters
    ----------
    conversation : Conversation
        Of the session.
    open_server : callable
        Connects to a server.
    start : callable
        Runs a coroutine beside the session, which ends with it.
    """

    conversation: Conversation
    open_server: OpenServer
    start: Callable[[Coroutine[Any, Any, None]], object]
    _servers: dict[str, _Server] = field(default_factory=dict)
    _waiting: dict[str, tuple[Item, int]] = field(default_factory=dict)
    """Calls by the id of their approval request, each with its index in its response."""
    _n_listing: int = 0

    def follow(self, tools: Iterable[Tool]) -> None:
        """List the tools of servers that are new or have changed."""
        for tool in tools:
            label = str(tool.get("server_label"))
            known = self._servers.get(label)
            if tool.get("type") != "mcp" or (known is not None and known.definition == tool):
                continue
            if known is None and len(self._servers) >= MOST_SERVERS:
                del self._servers[next(iter(self._servers))]
            server = self._servers[label] = _Server(tool)
            item = Item(type="mcp_list_tools", id=self.conversation.make_id("mcpl"), server_label=label, tools=())
            self._n_listing += 1
            self.conversation.emit(events.McpListToolsInProgress(item_id=str(item.id)))
            self.conversation.append(item, done=False)
            self.start(self._list(server, item))

    async def _list(self, server: _Server, item: Item) -> None:
        done: events.Event = events.McpListToolsCompleted(item_id=str(item.id))
        try:
            if self._n_listing > MOST_SERVERS:
                raise McpError(f"more than {MOST_SERVERS} servers are listed at a time")
            connection = self.open_server(server.definition)
            async with asyncio.timeout(LIST_S):
                tools = [_listed(tool) for tool in await connection.list_tools()]
            allowed = server.definition.get("allowed_tools")
            tools = tools if allowed is None else [tool for tool in tools if _fits(allowed, tool)]
            server.connection, server.tools = connection, tuple(tools[:MOST_TOOLS])
        except Exception as error:  # of the server, or of an object that the user gave
            done = events.McpListToolsFailed(item_id=str(item.id))
            reason = _explained(error, LIST_S)["message"]
            _log.warning("the tools of the MCP server %r cannot be listed: %s", item.server_label, reason)
        self._n_listing -= 1
        self.conversation.emit(done)
        self.conversation.end(replace(item, tools=server.tools))

    def offered(self, tools: Sequence[Tool]) -> list[Tool]:
        """Return a session's tools with those of each listed server in place of the server."""
        found: list[Tool] = []
        for tool in tools:
            label = str(tool.get("server_label"))
            if tool.get("type") != "mcp":
                found.append(tool)
            elif label in self._servers:
                for one in self._servers[label].tools:
                    shape = {"type": "function", "name": one["name"], "parameters": one["input_schema"]}
                    found.append({**shape, "description": one.get("description", ""), "server_label": label})
        return found

    def label_of(self, name: str, tools: Sequence[Tool]) -> str | None:
        """Return the label of the server that has a tool; None for a function of the client's."""
        found = next((tool for tool in self.offered(tools) if tool.get("name") == name), {})
        label: str | None = found.get("server_label")
        return label

    def needs_approval(self, call: Item) -> bool:
        """Return whether a call must not run before the client approves: the default, as in the API reference."""
        server = self._servers[str(call.server_label)]
        policy = server.definition.get("require_approval") or "always"
        if isinstance(policy, Mapping):
            tool = next(one for one in server.tools if one["name"] == call.name)
            return not _fits(policy.get("never"), tool) or _fits(policy.get("always"), tool)
        return bool(policy != "never")

    def ask(self, call: Item, index: int) -> None:
        """Ask the client to approve a call; at the bound the oldest question is forgotten."""
        shared: Any = {name: getattr(call, name) for name in ("server_label", "name", "arguments")}
        request = Item(type="mcp_approval_request", id=self.conversation.make_id("mcpr"), **shared)
        if len(self._waiting) >= MOST_SERVERS:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[str(request.id)] = replace(call, approval_request_id=request.id), index
        self.conversation.append(request)

    def is_waiting(self, request_id: Any) -> bool:
        """Return whether a call waits for this approval."""
        return request_id in self._waiting

    def answer(self, response: Item) -> None:
        """Carry out the client's answer to an approval request."""
        call, index = self._waiting.pop(str(response.approval_request_id))

        async def finish() -> None:
            self.conversation.end(await self.run(call, index, approval=response))

        self.start(finish())

    async def run(self, call: Item, index: int, *, approval: Item | None = None) -> Item:
        """Run a call, unless an approval says no, and send its progress; return it with `output` or `error`."""
        place: Any = {"item_id": str(call.id), "output_index": index}
        try:
            if approval is not None and not approval.approve:
                raise McpError(f"The call was not approved. {approval.reason or ''}".strip())
            self.conversation.emit(events.ResponseMcpCallInProgress(**place))
            server = self._servers.get(str(call.server_label))
            if server is None or server.connection is None:
                raise McpError("the server is no longer one of the session's")
            arguments = json.loads(call.arguments or "{}")
            if not isinstance(arguments, dict):
                raise McpError("the arguments are not a JSON object", "protocol_error", -32602)
            async with asyncio.timeout(CALL_S):
                output = await server.connection.call_tool(str(call.name), arguments)
        except Exception as error:  # of the server, or of an object that the user gave
            self.conversation.emit(events.ResponseMcpCallFailed(**place))
            return replace(call, output=None, error=_explained(error, CALL_S))
        self.conversation.emit(events.ResponseMcpCallCompleted(**place))
        return replace(call, output=output, error=None)


def _listed(tool: Any) -> dict[str, Any]:
    """Return a listed tool with the fields of the wire; MCP writes `inputSchema`."""
    if not isinstance(tool, Mapping) or not isinstance(tool.get("name"), str):
        raise McpError("a listed tool has no name", "protocol_error", -32603)
    schema = tool.get("input_schema", tool.get("inputSchema"))
    kept = {name: tool[name] for name in ("description", "annotations") if tool.get(name) is not None}
    return {"name": tool["name"], "input_schema": schema if isinstance(schema, dict) else {}, **kept}


def _explained(error: Exception, limit_s: float) -> dict[str, Any]:
    if isinstance(error, McpError):
        return error.detail
    for known, message, kind, code in (
        (json.JSONDecodeError, "no valid JSON", "protocol_error", -32700),
        (TimeoutError, f"no answer within {limit_s:g} s", "http_error", 504),
        ((aiohttp.ClientError, OSError), f"the server cannot be reached ({type(error).__name__})", "http_error", 502),
    ):
        if isinstance(error, known):
            return McpError(message, kind, code).detail
    return McpError(f"{type(error).__name__}: {error}"[:500]).detail


# --- over HTTP --------------------------------------------------------------------------------------------------------


@dataclass
class HttpServer:
    """MCP server over streamable HTTP; each operation opens a session and ends it.

    Parameters
    ----------
    url : str
        Endpoint.
    headers : mapping
        Sent with every request; never shown.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def list_tools(self) -> Sequence[Tool]:
        """Return the tools, page by page."""
        tools: list[Tool] = []
        async with self._session() as request:
            cursor: Any = None
            while len(tools) < MOST_TOOLS:
                page = await request("tools/list", {} if cursor is None else {"cursor": cursor})
                if not isinstance(found := page.get("tools"), list):
                    raise McpError("tools/list was answered without a list", "protocol_error", -32603)
                tools += found
                if not (cursor := page.get("nextCursor")) or not found:
                    break
        return tools

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run a tool; return its texts, and its other content as JSON."""
        async with self._session() as request:
            result = await request("tools/call", {"name": name, "arguments": arguments})
        parts = [part for part in result.get("content") or () if isinstance(part, Mapping)]
        texts = [str(part["text"]) if "text" in part else json.dumps(part) for part in parts]
        text = "\n".join(texts) or json.dumps(result.get("structuredContent", ""))
        if result.get("isError"):
            raise McpError(text[:2000])
        return text

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]]:
        """Begin a session with `initialize`, yield the function that sends a request, end the session with DELETE."""
        headers = {**self.headers, "Accept": "application/json, text/event-stream"}
        options: Any = {"headers": headers, "allow_redirects": False}  # a redirect could lead to another machine
        numbers = itertools.count(1)

        async def post(message: Mapping[str, Any]) -> dict[str, Any]:
            async with http.post(self.url, json=message, **options) as response:
                if not 200 <= response.status < 300:
                    raise McpError(f"the server answered HTTP {response.status}", "http_error", response.status)
                if session := response.headers.get("Mcp-Session-Id"):
                    headers["Mcp-Session-Id"] = session
                return await _answer(response, message["id"]) if "id" in message else {}

        async def request(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
            answer = await post({"jsonrpc": "2.0", "id": next(numbers), "method": method, "params": params})
            if isinstance(failed := answer.get("error"), Mapping):
                code = failed.get("code") if isinstance(failed.get("code"), int) else -32603
                raise McpError(str(failed.get("message"))[:500], "protocol_error", code)
            if not isinstance(result := answer.get("result"), dict):
                raise McpError(f"{method} was answered without a result", "protocol_error", -32603)
            return result

        async with aiohttp.ClientSession() as http:
            try:
                about = {"clientInfo": {"name": "rtnb simulator", "version": "1"}, "capabilities": {}}
                begun = await request("initialize", {"protocolVersion": PROTOCOL, **about})
                headers["MCP-Protocol-Version"] = str(begun.get("protocolVersion", PROTOCOL))
                await post({"jsonrpc": "2.0", "method": "notifications/initialized"})
                yield request
            finally:
                if "Mcp-Session-Id" in headers:
                    # A server may refuse, or not answer: it then ends the session later.
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        await (await http.delete(self.url, timeout=_END, **options)).read()


_END: Final = aiohttp.ClientTimeout(total=1.0)


async def _answer(response: aiohttp.ClientResponse, number: int) -> dict[str, Any]:
    """Return the answer to a request; in a stream of events, the server may send notifications before it."""
    try:
        await response.content.readexactly(MOST_BYTES + 1)
    except asyncio.IncompleteReadError as complete:
        bodies = [complete.partial]
    else:
        raise McpError(f"the answer is longer than {MOST_BYTES} bytes", "protocol_error", -32603)
    if streamed := response.content_type == "text/event-stream":
        lines = [re.findall(rb"^data:(.*)", event, re.MULTILINE) for event in re.split(rb"\r?\n\r?\n", bodies[0])]
        bodies = [b"".join(line) for line in lines if line]
    for body in bodies:
        answer = json.loads(body)
        if not isinstance(answer, dict):
            raise McpError("the answer is not a JSON object", "protocol_error", -32600)
        if answer.get("id") == number or not streamed:
            return answer
    raise McpError("the stream ended before the answer", "protocol_error", -32603)
