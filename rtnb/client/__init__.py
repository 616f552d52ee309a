"""Speaking to a service: sessions, responses, what was heard, tools, and the log of every event."""

from rtnb.client._schema import tool_schema
from rtnb.client.log import EventLog, LogRow
from rtnb.client.opening import open_session
from rtnb.client.playback import Playback
from rtnb.client.response import Delta, Response
from rtnb.client.session import Session
from rtnb.client.tools import SessionTools, ToolBox

__all__ = [
    "Delta",
    "EventLog",
    "LogRow",
    "Playback",
    "Response",
    "Session",
    "SessionTools",
    "ToolBox",
    "open_session",
    "tool_schema",
]
