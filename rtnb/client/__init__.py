"""Client of a realtime service: sessions, responses, playback, tools, and the log of every event."""

from rtnb.analysis.budget import Budget
from rtnb.client.log import EventLog, LogRow
from rtnb.client.opening import open_session
from rtnb.client.playback import Playback
from rtnb.client.response import Delta, Response
from rtnb.client.session import Session
from rtnb.client.tools import SessionTools, ToolBox, tool_schema

__all__ = [
    "Budget",
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
