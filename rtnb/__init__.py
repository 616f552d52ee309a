"""Realtime voice models in Jupyter: talk to them, watch every event, measure, and practise offline.

>>> import rtnb  # loads no other module: each name below is loaded on first use
>>> async def first_words():
...     async with rtnb.connect("sim") as session:
...         return await session.ask("What is a delta?")

Connect, and the targets to connect to
    connect              open a session: "sim", a URL, or one of the targets below
    Azure                Azure OpenAI: endpoint and deployment, with a key or keyless
    OpenAI               OpenAI platform
    Custom               any other server that speaks the realtime protocol
    Simulator            realtime service on this machine; needs no key
    doctor               report of missing packages and settings, with the remedy for each

Session and response
    Session              ask, say, update, interrupt; methods named after wire events
    Response             transcript, audio, usage and timing of one answer
    EventLog             every event sent and received: as a table, saved, loaded

Traces and experiments
    Trace                recorded session: turns, audio, settings and events on one clock
    replay               send the user's side of a recorded session to another target
    compare              two recorded sessions side by side
    experiment           try variants of a prompt on cases, several times each, and compare the grades
    cases                read cases from a file, or make them from texts
    Case                 situation that every variant is tried on
    grid                 a variant for every combination of settings
    graders              ready graders of runs, and how to write one
    Result               runs of an experiment, their grades and comparisons

Settings
    ServerVad            turn detection by silence
    SemanticVad          turn detection by meaning
    Budget               limit of a session in dollars, minutes or seconds of audio

Widgets
    Playground           settings, transcript, waveform and events of one session in one cell
    Microphone           microphone of the page: record a clip or talk to a session
    EventInspector       table of events, with filter, search and audio player
    inspect              show the events of a session, a log or a connection of the `openai` package
    PromptLab            compare two instructions: edit, run, hear, vote, see what is shown
    VadLab               try turn detection settings on recordings
    WebRTCPeer           call over WebRTC from the page

Audio and analysis
    Recording            labelled speech for measuring turn detection
    sweep                outcome of many turn detection settings on recordings
    recommend            turn detection setting that fits recordings
    calibrate            measure the turn detection of a service
    overlap_lab          try turn detection on interruptions, coughs and echo while the assistant speaks
    interaction          responses, interruptions, yields and overlaps of a session
    plot_deltas          waveform of a response, one colour per audio delta
    plot_arrivals        arrival of audio deltas against playback
    plot_turns           turns detected in a recording
    plot_sweep           errors and waiting time of the settings of a sweep
    plot_pareto          settings that no other setting beats
    migrate              preview JSON as GA JSON, with notes

Errors
    RtnbError            base class of all errors of this package
    ServiceError         the service answered with an error event
    ResponseFailed       a response ended with status "failed"
    RateLimited          the quota is used up; retry_after_ms
    RequestTimeout       no reply within the deadline of a request
    BudgetExceeded       the session's budget is used up
    ConnectError         no session could be opened
    AuthenticationError  the service refused the key, token or role
    ConnectionClosed     the connection ended
    AudioError           wrong type, shape or sample rate of audio

Modules
    analysis             plots, recordings, sweeps, latency, cost
    audio                PCM, G.711, WAV, resampling
    client               sessions, responses, playback, tools
    errors               every exception
    protocol             wire events and settings
    simulator            scenarios, faults, classroom
    transport            addresses, keys, sockets
    vad                  voice activity detection
    widgets              all widgets
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and mypy only: with `__all__` at run time help() would print every class in full
    from rtnb import analysis, audio, client, errors, protocol, simulator, transport, vad, widgets
    from rtnb._doctor import doctor
    from rtnb.analysis.migration import migrate
    from rtnb.analysis.overlaps import overlap_lab
    from rtnb.analysis.plots.deltas import plot_arrivals, plot_deltas
    from rtnb.analysis.plots.turn_detection import plot_pareto, plot_sweep, plot_turns
    from rtnb.analysis.recommendation import recommend
    from rtnb.analysis.recordings import Recording
    from rtnb.analysis.sweeping import sweep
    from rtnb.client import Budget, EventLog, Response, Session
    from rtnb.errors import (
        AudioError,
        AuthenticationError,
        BudgetExceeded,
        ConnectError,
        ConnectionClosed,
        RateLimited,
        RequestTimeout,
        ResponseFailed,
        RtnbError,
        ServiceError,
    )
    from rtnb.experiments import Case, Result, cases, experiment, graders, grid
    from rtnb.protocol import SemanticVad, ServerVad
    from rtnb.simulator import Simulator
    from rtnb.targets import connect
    from rtnb.trace import Trace, compare
    from rtnb.trace.trace import interaction
    from rtnb.transport import Azure, Custom, OpenAI
    from rtnb.tuning import calibrate, replay
    from rtnb.widgets import EventInspector, Microphone, Playground, PromptLab, VadLab, WebRTCPeer, inspect

    __all__ = ["AudioError", "AuthenticationError", "Azure", "Budget", "BudgetExceeded", "ConnectError"]
    __all__ += ["ConnectionClosed", "Custom", "EventInspector", "EventLog", "Microphone", "OpenAI", "Playground"]
    __all__ += ["RateLimited", "Recording", "RequestTimeout", "Response", "ResponseFailed", "RtnbError", "SemanticVad"]
    __all__ += ["ServerVad", "ServiceError", "Session", "Simulator", "VadLab", "WebRTCPeer", "analysis", "audio"]
    __all__ += ["Case", "PromptLab", "Result", "Trace", "calibrate"]
    __all__ += ["cases", "client", "compare", "connect", "doctor", "errors", "experiment", "graders", "grid", "inspect"]
    __all__ += ["interaction", "migrate", "overlap_lab", "plot_arrivals", "plot_deltas", "plot_pareto", "plot_sweep"]
    __all__ += ["plot_turns", "protocol", "recommend", "replay", "simulator", "sweep", "transport", "vad", "widgets"]

__version__ = "0.2.0.dev0"

_NAMES = {
    "rtnb": "analysis audio client errors protocol simulator transport vad widgets",
    "rtnb._doctor": "doctor",
    "rtnb.analysis": "Recording migrate overlap_lab plot_arrivals plot_deltas plot_pareto plot_sweep plot_turns "
    "recommend sweep",
    "rtnb.client": "Budget EventLog Response Session",
    "rtnb.experiments": "Case Result cases experiment graders grid",
    "rtnb.errors": "AudioError AuthenticationError BudgetExceeded ConnectError ConnectionClosed "
    "RateLimited RequestTimeout ResponseFailed RtnbError ServiceError",
    "rtnb.protocol": "SemanticVad ServerVad",
    "rtnb.simulator": "Simulator",
    "rtnb.targets": "connect",
    "rtnb.trace": "Trace compare",
    "rtnb.trace.trace": "interaction",
    "rtnb.transport": "Azure Custom OpenAI",
    "rtnb.tuning": "calibrate replay",
    "rtnb.widgets": "EventInspector Microphone Playground PromptLab VadLab WebRTCPeer inspect",
}
"""Public names by the module that holds them; those of "rtnb" are modules."""

_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        value = import_module(f"rtnb.{name}") if home == "rtnb" else getattr(import_module(home), name)
        return globals().setdefault(name, value)
    from difflib import get_close_matches

    spellings = {known.lower(): known for known in __dir__()}
    nearest = get_close_matches(name.lower(), spellings, n=1)
    advice = f"the nearest name is {spellings[nearest[0]]!r}" if nearest else "dir(rtnb) lists the names"
    raise AttributeError(f"module 'rtnb' has no attribute {name!r}; {advice}")


def __dir__() -> list[str]:
    return sorted(["__version__", *_HOMES])
