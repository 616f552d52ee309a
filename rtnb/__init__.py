"""Realtime voice models in Jupyter: talk to them, watch every event, measure, and practise offline.

>>> import rtnb                                           # fast: nothing below is loaded before its first use
>>> async def first_words():
...     async with rtnb.connect("sim") as session:
...         return await session.ask("What is a delta?")

`rtnb.connect` opens a session with a service (`Azure`, `OpenAI`, `Custom`) or with the `Simulator`; `Session` and
`Response` are what comes back; `EventLog` keeps what was said; `plot_deltas` draws it; `doctor` says what is missing.
`Playground` is all of it in one cell; `Microphone` hears you; `inspect` shows the events of a session, of a log or of
an `openai` connection.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in _HOMES, for editors and mypy
    from rtnb import analysis, audio, errors, protocol, vad, widgets
    from rtnb._doctor import doctor
    from rtnb.analysis.choosing import recommend
    from rtnb.analysis.plot import plot_arrivals, plot_deltas
    from rtnb.analysis.recordings import Recording
    from rtnb.analysis.sweeping import sweep
    from rtnb.analysis.vad_plots import plot_pareto, plot_sweep, plot_turns
    from rtnb.client import Response, Session
    from rtnb.client.calibration import calibrate
    from rtnb.client.log import EventLog
    from rtnb.errors import (
        AudioError,
        AuthenticationError,
        ConnectError,
        ConnectionClosed,
        RtnbError,
        ServiceError,
    )
    from rtnb.protocol import SemanticVad, ServerVad
    from rtnb.simulator import Simulator
    from rtnb.targets import connect
    from rtnb.transport.services import Azure, Custom, OpenAI
    from rtnb.widgets import EventInspector, Microphone, Playground, VadLab, WebRTCPeer, inspect

__version__ = "0.1.0.dev0"

__all__ = [
    "AudioError",
    "AuthenticationError",
    "Azure",
    "ConnectError",
    "ConnectionClosed",
    "Custom",
    "EventInspector",
    "EventLog",
    "Microphone",
    "OpenAI",
    "Playground",
    "Recording",
    "Response",
    "RtnbError",
    "SemanticVad",
    "ServerVad",
    "ServiceError",
    "Session",
    "Simulator",
    "VadLab",
    "WebRTCPeer",
    "analysis",
    "audio",
    "calibrate",
    "connect",
    "doctor",
    "errors",
    "inspect",
    "plot_arrivals",
    "plot_deltas",
    "plot_pareto",
    "plot_sweep",
    "plot_turns",
    "protocol",
    "recommend",
    "sweep",
    "vad",
    "widgets",
]

_HOMES = {
    "connect": "rtnb.targets",
    "Azure": "rtnb.transport.services",
    "OpenAI": "rtnb.transport.services",
    "Custom": "rtnb.transport.services",
    "Simulator": "rtnb.simulator",
    "Session": "rtnb.client",
    "Response": "rtnb.client",
    "EventLog": "rtnb.client.log",
    "ServerVad": "rtnb.protocol",
    "SemanticVad": "rtnb.protocol",
    "plot_deltas": "rtnb.analysis.plot",
    "plot_arrivals": "rtnb.analysis.plot",
    "Recording": "rtnb.analysis.recordings",
    "sweep": "rtnb.analysis.sweeping",
    "recommend": "rtnb.analysis.choosing",
    "calibrate": "rtnb.client.calibration",
    "plot_turns": "rtnb.analysis.vad_plots",
    "plot_sweep": "rtnb.analysis.vad_plots",
    "plot_pareto": "rtnb.analysis.vad_plots",
    "Playground": "rtnb.widgets",
    "Microphone": "rtnb.widgets",
    "EventInspector": "rtnb.widgets",
    "VadLab": "rtnb.widgets",
    "WebRTCPeer": "rtnb.widgets",
    "inspect": "rtnb.widgets",
    "doctor": "rtnb._doctor",
    "RtnbError": "rtnb.errors",
    "ServiceError": "rtnb.errors",
    "ConnectError": "rtnb.errors",
    "AuthenticationError": "rtnb.errors",
    "ConnectionClosed": "rtnb.errors",
    "AudioError": "rtnb.errors",
}
"""Where each front-door name lives; it is loaded from there on first use."""

_ROOMS = ("analysis", "audio", "errors", "protocol", "vad", "widgets")
"""Modules reachable as attributes after a plain `import rtnb`."""


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"rtnb.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'rtnb' has no attribute {name!r}; it has: {', '.join(__dir__())}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(["__version__", *_HOMES, *_ROOMS])
