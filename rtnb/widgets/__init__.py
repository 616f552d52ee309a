"""Widgets: what a session says and does, on the page. Importing this needs no kernel and opens nothing.

>>> from rtnb.widgets import Transcript, Waveform
"""

from rtnb.widgets.code_export import CodeExport
from rtnb.widgets.connection import ConnectionControl
from rtnb.widgets.inspector import EventInspector, inspect
from rtnb.widgets.message_bar import MessageBar
from rtnb.widgets.microphone import Microphone
from rtnb.widgets.panel import Preset, SettingsPanel
from rtnb.widgets.playground import Playground
from rtnb.widgets.prompt_lab import PromptLab
from rtnb.widgets.settings import AnswerControl, InstructionsControl, ListeningControl, TurnDetectionControl
from rtnb.widgets.speaker import Speaker
from rtnb.widgets.trace_player import TracePlayer
from rtnb.widgets.transcript import Transcript
from rtnb.widgets.vad_lab import VadLab
from rtnb.widgets.waveform import Waveform
from rtnb.widgets.webrtc import WebRTCPeer

__all__ = ["AnswerControl", "CodeExport", "ConnectionControl", "EventInspector", "InstructionsControl"]
__all__ += ["ListeningControl", "MessageBar", "Microphone", "Playground", "Preset", "PromptLab", "SettingsPanel"]
__all__ += ["Speaker", "TracePlayer", "Transcript", "TurnDetectionControl", "VadLab", "Waveform", "WebRTCPeer"]
__all__ += ["inspect"]
