"""MCP tools: listing, calls, approval, results and failures, against an independent server."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

import rtnb
from rtnb.protocol import events
from rtnb.simulator import mcp
from rtnb.simulator.mcp import McpError, open_server
from tests.simulator.mcp_server import StubServer, mcp_server
from tests.simulator.rig import WRITTEN, Rig, collapse, world
from tests.simulator.test_session import CALLS

LISTED = ["mcp_list_tools.in_progress", "conversation.item.added", "mcp_list_tools.completed", "conversation.item.done"]


def tool(server: StubServer | str, **more: Any) -> dict[str, Any]:
    url = server if isinstance(server, str) else server.url
    return {"type": "mcp", "server_label": "tides", "server_url": url, "require_approval": "never", **more}


async def listed(rig: Rig, *tools: dict[str, Any]) -> list[str]:
    """Set the tools; the events until the list ends, without `session.updated`."""
    await rig.set(tools=list(tools))
    return await rig.until("conversation.item.done")


async def called(rig: Rig, text: str = "How high is the tide in Lund?", **config: Any) -> dict[str, Any]:
    """Ask, and return the response."""
    return await rig.ask(text, **WRITTEN, **config)


def answer(rig: Rig, **more: Any) -> None:
    """Answer the request for approval."""
    added = [one["item"] for one in rig.of("conversation.item.added")]
    (request,) = (item["id"] for item in added if item["type"] == "mcp_approval_request")
    rig.add(type="mcp_approval_response", id=f"answer_{len(rig.frames)}", approval_request_id=request, **more)


@pytest.mark.parametrize("options", [{}, {"stream": True}, {"page": 1}])
async def test_tools_are_listed_and_the_list_is_an_item(options: dict[str, Any]) -> None:
    async with mcp_server(**options) as server, Rig() as rig:
        assert await listed(rig, tool(server, authorization="secret", headers={"X-Key": "k"})) == LISTED
        item = rig.last("conversation.item.done")["item"]
        assert (item["type"], item["server_label"]) == ("mcp_list_tools", "tides")
        assert [one["name"] for one in item["tools"]] == ["tide_at", "open_gate"]
        assert item["tools"][0]["input_schema"]["required"] == ["city"]
        assert server.headers[0]["Authorization"] == "Bearer secret"
        assert server.headers[0]["X-Key"] == "k"
        assert server.sessions == set()  # every session is ended


@pytest.mark.parametrize("allowed", [["tide_at"], {"tool_names": ["tide_at"]}, {"read_only": True}])
async def test_only_allowed_tools_are_listed(allowed: Any) -> None:
    async with mcp_server() as server, Rig() as rig:
        await listed(rig, tool(server, allowed_tools=allowed))
        assert [one["name"] for one in rig.last("conversation.item.done")["item"]["tools"]] == ["tide_at"]


async def test_an_unchanged_server_is_listed_once() -> None:
    async with mcp_server() as server, Rig() as rig:
        await listed(rig, tool(server))
        rig.update(tools=[tool(server)], instructions="Be kind.")
        assert await rig.rest() == ["session.updated"]
        assert await listed(rig, tool(server, allowed_tools=["tide_at"])) == LISTED


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_without_approval_runs_inside_its_response(stream: bool) -> None:
    async with mcp_server(stream=stream) as server, Rig() as rig:
        await listed(rig, tool(server))
        n_before = len(rig.frames)
        response = await called(rig)
        assert collapse([one["type"] for one in rig.frames[n_before:]]) == [
            *CALLS["ga"][:5],
            "response.mcp_call_arguments.delta",
            "response.mcp_call_arguments.done",
            "response.mcp_call.in_progress",
            "response.mcp_call.completed",
            *CALLS["ga"][-3:],
        ]
        [item] = response["output"]
        assert (item["type"], item["name"], item["server_label"]) == ("mcp_call", "tide_at", "tides")
        assert json.loads(item["arguments"]) == {"city": "Lund"}
        assert item["output"].splitlines() == ["1.2 m in Lund", '{"type": "image", "data": "AA=="}']
        deltas = "".join(one["delta"] for one in rig.of("response.mcp_call_arguments.delta"))
        assert deltas == rig.last("response.mcp_call_arguments.done")["arguments"]
        rig.respond(**WRITTEN, tool_choice="none")
        await rig.until("response.done")
        assert "The tool answered: 1.2 m" in rig.last("response.output_text.done")["text"]


async def test_a_call_that_needs_approval_runs_after_its_response() -> None:
    async with mcp_server() as server, Rig() as rig:
        await listed(rig, tool(server, require_approval="always"))
        response = await called(rig)
        [call] = response["output"]
        assert "output" not in call
        assert "tools/call" not in server.methods
        answer(rig, approve=True)
        assert [one for one in await rig.rest() if one != "rate_limits.updated"] == [
            "conversation.item.added",
            "conversation.item.done",
            "response.mcp_call.in_progress",
            "response.mcp_call.completed",
            "conversation.item.done",
        ]
        item = rig.last("conversation.item.done")["item"]
        assert item["id"] == call["id"]
        assert item["output"].startswith("1.2 m in Lund")
        assert item["approval_request_id"] == rig.of("conversation.item.added")[-2]["item"]["id"]


async def test_a_call_that_is_denied_never_runs() -> None:
    async with mcp_server() as server, Rig() as rig:
        await listed(rig, tool(server, require_approval="always"))
        await called(rig)
        answer(rig, approve=False, reason="Too late.")
        assert "response.mcp_call.failed" in await rig.rest()
        assert rig.last("conversation.item.done")["item"]["error"] == {
            "type": "tool_execution_error",
            "message": "The call was not approved. Too late.",
        }
        assert "tools/call" not in server.methods
        answer(rig, approve=True)
        assert (await rig.refusal())["param"] == "item.approval_request_id"


@pytest.mark.parametrize(
    "policy, needed",
    [
        ("always", True),
        (None, True),
        ("never", False),
        ({"never": {"tool_names": ["tide_at"]}}, False),
        ({"never": {"read_only": True}}, False),
        ({"never": {"tool_names": ["open_gate"]}}, True),
        ({"always": {"tool_names": ["tide_at"]}, "never": {"read_only": True}}, True),
    ],
)
async def test_approval_follows_the_policy(policy: Any, needed: bool) -> None:
    async with mcp_server() as server, Rig() as rig:
        await listed(rig, tool(server, require_approval=policy))
        await called(rig)
        assert ("tools/call" not in server.methods) == needed


@pytest.mark.parametrize(
    "options, error",
    [
        ({"page": 10}, None),
        ({"status": 401}, {"type": "http_error", "code": 401}),
        ({"status": 307}, {"type": "http_error", "code": 307}),
        ({"padding": 2**20}, {"type": "protocol_error", "code": -32603}),
        ({"padding": 2**20, "stream": True}, {"type": "protocol_error", "code": -32603}),
        ({"delay_s": 5.0}, {"type": "http_error", "code": 504}),
    ],
)
async def test_a_failed_call_is_an_event_and_an_error_of_its_item(
    options: dict[str, Any], error: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp, "CALL_S", 1.0)
    async with mcp_server() as server, Rig() as rig:
        await listed(rig, tool(server))
        for name, value in options.items():
            setattr(server, name, value)
        text = "How high is the tide in Lund?" if error else "Open the flood gate"
        response = await called(rig, text)
        [item] = response["output"]
        assert len(rig.of("response.mcp_call.failed")) == 1
        expected = error or {"type": "tool_execution_error", "message": "The gate is stuck"}
        assert expected.items() <= item["error"].items()
        assert response["status"] == "completed"  # the model can go on


async def test_a_cancelled_call_fails() -> None:
    async with mcp_server(delay_s=20.0) as server, Rig() as rig:
        await listed(rig, tool(server))
        rig.write("How high is the tide in Lund?")
        rig.respond(**WRITTEN)
        await rig.until("response.mcp_call.in_progress")
        rig.send(events.ResponseCancel())
        assert (await rig.until("response.done"))[0] == "response.mcp_call.failed"
        assert rig.last("response.done")["response"]["output"][0]["error"]["type"] == "tool_execution_error"


@pytest.mark.parametrize(
    "url, status, reason",
    [
        ("http://127.0.0.1:1/mcp", 200, "cannot be reached"),
        ("https://tides.example/mcp", 200, "does not connect to this server"),
        ("not a url", 200, "does not connect to this server"),
        (None, 500, "HTTP 500"),
    ],
)
async def test_a_server_that_cannot_be_listed_fails_and_the_log_says_why(
    url: str | None, status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with mcp_server(status=status) as server, Rig() as rig:
        with caplog.at_level(logging.WARNING, "rtnb.simulator"):
            types = await listed(rig, tool(url or server, authorization="secret-of-a-test"))
        assert types == [one.replace("completed", "failed") for one in LISTED]
        assert reason in caplog.text
        assert "secret-of-a-test" not in caplog.text
        response = await called(rig)
        assert response["output"][0]["type"] == "message"


async def test_a_flood_of_servers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "LIST_S", 0.2)

    class Silent:
        async def list_tools(self) -> list[dict[str, Any]]:
            await asyncio.sleep(60)
            return []

        async def call_tool(self, name: str, arguments: Any) -> str:
            return ""

    silent = Silent()
    async with Rig(world(open_mcp=lambda tool: silent)) as rig:
        for number in range(60):
            rig.update(tools=[tool(f"http://127.0.0.1/{number}", server_label=f"s{number}")])
        await rig.rest()
        assert len(rig.of("mcp_list_tools.failed")) == 60
        assert len(rig.session.mcp._servers) == mcp.MOST_SERVERS


async def test_a_forced_server_and_one_response_alone() -> None:
    async with mcp_server() as server, Rig() as rig:
        await listed(rig, tool(server))
        response = await called(rig, "Hello.", tool_choice={"type": "mcp", "server_label": "tides", "name": "tide_at"})
        assert response["output"][0]["type"] == "mcp_call"
        await rig.set(tools=[])
        rig.respond(tool_choice={"type": "mcp", "server_label": "tides"})
        assert (await rig.refusal())["param"] == "response.tool_choice"
        assert (await called(rig))["output"][0]["type"] == "message"


def test_only_servers_of_this_machine_or_given_ones_are_reached() -> None:
    given = tool("https://tides.example/mcp")
    with pytest.raises(McpError, match="does not connect"):
        open_server(given)
    with pytest.raises(McpError, match="does not connect"):
        open_server(tool("http://127.0.0.1:9/mcp"), local=False)
    with pytest.raises(McpError, match="does not connect"):
        open_server({"type": "mcp", "server_label": "mail", "connector_id": "connector_gmail"})
    found = open_server(given, known={"tides": "http://10.0.0.7/mcp"}, local=False)
    assert repr(found) == "HttpServer(url='http://10.0.0.7/mcp')"
    stub: Any = object()
    assert open_server(given, known={"tides": stub}) is stub


async def test_a_client_approves_a_call_through_the_package() -> None:
    async with mcp_server() as server:
        simulator = rtnb.Simulator(latency="fast", voice="babble", mcp_servers={"tides": server.url})
        async with simulator, rtnb.connect(simulator) as session:
            given = {"type": "mcp", "server_label": "tides", "server_url": "https://tides.example/mcp"}
            await session.update(tools=[given])
            async with asyncio.timeout(20):
                while not session.tools.mcp_tools.get("tides"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await session.ask("How high is the tide in Lund?")
            [request] = session.tools.approval_requests
            await session.tools.approve(request)
            async with asyncio.timeout(20):
                while "tools/call" not in server.methods:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert session.tools.approval_requests == ()
