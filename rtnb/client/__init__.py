"""Client of a realtime service: sessions, responses, playback, tools, and the log of every event.

>>> from rtnb.client import EventLog
>>> len(EventLog())
0
"""

from rtnb.analysis.cost import Budget as Budget
from rtnb.client.log import EventLog as EventLog
from rtnb.client.log import LogRow as LogRow
from rtnb.client.opening import open_session as open_session
from rtnb.client.playback import Playback as Playback
from rtnb.client.response import Delta as Delta
from rtnb.client.response import Response as Response
from rtnb.client.session import Session as Session
from rtnb.client.tools import SessionTools as SessionTools
from rtnb.client.tools import ToolBox as ToolBox
from rtnb.client.tools import tool_schema as tool_schema
