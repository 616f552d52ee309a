"""Widgets: what a session says and does, on the page. Importing this needs no kernel and opens nothing.

>>> from rtnb.widgets import Transcript, Waveform
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in _HOMES, for editors and mypy
    from rtnb.widgets.code_export import CodeExport
    from rtnb.widgets.connection import ConnectionControl
    from rtnb.widgets.inspector import EventInspector, inspect
    from rtnb.widgets.message_bar import MessageBar
    from rtnb.widgets.microphone import Microphone
    from rtnb.widgets.panel import SettingsPanel
    from rtnb.widgets.playground import Playground
    from rtnb.widgets.presets import Preset
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
__all__ += [
    "Speaker",
    "TracePlayer",
    "Transcript",
    "TurnDetectionControl",
    "VadLab",
    "Waveform",
    "WebRTCPeer",
    "inspect",
]

_HOMES = {
    "code_export": "CodeExport",
    "connection": "ConnectionControl",
    "inspector": "EventInspector inspect",
    "message_bar": "MessageBar",
    "microphone": "Microphone",
    "panel": "SettingsPanel",
    "playground": "Playground",
    "presets": "Preset",
    "prompt_lab": "PromptLab",
    "settings": "AnswerControl InstructionsControl ListeningControl TurnDetectionControl",
    "speaker": "Speaker",
    "trace_player": "TracePlayer",
    "transcript": "Transcript",
    "vad_lab": "VadLab",
    "waveform": "Waveform",
    "webrtc": "WebRTCPeer",
}
"""Public names by the module that holds them; it is loaded on first use."""


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names.split()), None)
    if home is None:
        raise AttributeError(f"module 'rtnb.widgets' has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(import_module(f"rtnb.widgets.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
