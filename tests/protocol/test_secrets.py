"""Law 7 in the protocol: reprs hide credentials, and the values themselves stay as they arrived."""

import json
from typing import Any

import pytest

from rtnb.protocol import Connection, SessionConfig, events
from rtnb.protocol.events import UnknownEvent
from rtnb.protocol.service.schema import check_event
from rtnb.protocol.values import ResponseConfig, Tool, mask_credentials

SECRET = "do-not-show"
MCP = {
    "type": "mcp",
    "server_label": "tides",
    "server_url": "https://tides.example/mcp",
    "authorization": SECRET,
    "headers": {"X-Key": SECRET},
}
METADATA = {"token": "shown", "authorization": "shown too"}


def test_the_state_keeps_what_arrived_and_its_repr_hides_it() -> None:
    side = Connection("client")
    session = {"type": "realtime", "tools": [MCP], "client_secret": {"value": SECRET, "expires_at": 1}}
    side.receive(json.dumps({"type": "session.created", "session": session}))
    kept = side.state.session
    assert kept is not None
    assert kept.tools == (MCP,)
    assert kept.extra["client_secret"]["value"] == SECRET
    for shown in (repr(kept), repr(side.state.snapshot()), str(kept.tools), repr([*kept.tools])):
        assert SECRET not in shown
        assert "****" in shown
    assert "tides.example" in repr(kept)


@pytest.mark.parametrize("make", [SessionConfig, SessionConfig.of, ResponseConfig, ResponseConfig.of])
def test_settings_hide_the_credentials_of_their_tools(make: Any) -> None:
    config = make(tools=(MCP, {"type": "function", "name": "f"}))
    assert SECRET not in repr(config)
    assert "'name': 'f'" in repr(config)
    assert config.tools[0] == MCP


@pytest.mark.parametrize("dialect", ["ga", "preview"])
def test_events_hide_credentials_and_show_metadata(dialect: Any) -> None:
    config = ResponseConfig(metadata=METADATA, tools=(MCP,), extra={"tools": [MCP]})
    event = events.ResponseCreate(response=config)
    assert SECRET not in repr(event)
    assert "'token': 'shown', 'authorization': 'shown too'" in repr(event)
    assert SECRET in Connection("client", dialect=dialect).send(event)  # the wire carries it


def test_unknown_events_hide_credentials() -> None:
    text = json.dumps({"type": "brand.new", "session": {"tools": [MCP], "client_secret": SECRET}, "n": 1})
    event = Connection("client").receive(text)
    assert isinstance(event, UnknownEvent)
    assert SECRET not in repr(event)
    assert event.payload["session"]["client_secret"] == SECRET


def test_a_tool_is_a_dict() -> None:
    tool = Tool(MCP)
    assert tool == MCP
    assert json.loads(json.dumps(tool)) == MCP
    assert tool | {"server_label": "x"} == {**MCP, "server_label": "x"}
    config = SessionConfig.of(tools=[MCP])
    assert SessionConfig.of(tools=[*config.tools, {"type": "function", "name": "f"}]).tools[0] == MCP


def test_data_without_credentials_stays_the_same_object() -> None:
    for data in (METADATA, [1, METADATA], "text", None, {"client_secret": {"expires_at": 1}}, {"headers": {"a": "b"}}):
        assert mask_credentials(data) is data
    masked = mask_credentials({"a": [MCP], "client_secret": SECRET})
    assert SECRET not in str(masked)
    assert masked["a"][0]["headers"] == {"X-Key": "****"}


def test_refusals_hide_the_credentials_of_a_wrong_value() -> None:
    refusal = check_event({"type": "session.update", "session": {"type": "realtime", "tools": MCP}}, dialect="ga")
    assert refusal
    assert SECRET not in refusal.explanation
