"""Parts of the simulator: those that its sessions share, and which of the optional ones are available here."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from rtnb.errors import RtnbError
from rtnb.simulator.conversation import Quota
from rtnb.simulator.faults import Fault, LatencyProfile
from rtnb.simulator.mcp import OpenServer, open_server
from rtnb.simulator.recorded import Recording
from rtnb.simulator.responder import MakeResponder
from rtnb.simulator.scenario import Scenario
from rtnb.simulator.transcriber import WEIGHTS_VARIABLE as WHISPER_VARIABLE
from rtnb.simulator.transcriber import ExactTranscriber, Transcriber, find_whisper
from rtnb.simulator.turn_detection import EndOfTurn, FadeDetector, SpeechBatch
from rtnb.simulator.voice import Voice
from rtnb.vad.semantic import WEIGHTS_VARIABLE as TURN_VARIABLE
from rtnb.vad.semantic import find_smart_turn


@dataclass
class World:
    """Parts that all sessions of a simulator share."""

    voice: Voice
    make_responder: MakeResponder
    latency: LatencyProfile
    scenario: Scenario = field(default_factory=Scenario)
    """What to say and do, before a responder is asked."""
    exact: ExactTranscriber = field(default_factory=ExactTranscriber)
    """Words of all speech that the simulator made."""
    transcriber: Transcriber | None = None
    """None takes `exact`."""
    speech: SpeechBatch = field(default_factory=SpeechBatch)
    """Speech probabilities of all sessions."""
    quota: Quota = field(default_factory=Quota)
    end_of_turn: EndOfTurn = field(default_factory=FadeDetector)
    """Judge of pauses for the semantic VAD."""
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    vad_constants: dict[str, Any] = field(default_factory=dict)
    """Of the server VAD; hidden from clients, so that a calibration has something to find."""
    replay: Recording | None = None
    """Recorded conversation that is played instead of all of this."""
    open_mcp: OpenServer = open_server
    """Connects to MCP servers."""
    session_s: float = 3600.0
    """Longest session (documented: 60 minutes)."""


@dataclass(frozen=True)
class Part:
    """Optional part of the simulator."""

    name: str
    found: str
    """Package and version, or path; empty where it is missing."""
    lack: str
    """Consequence, where it is missing."""
    package: str
    """Requirement to install."""
    otherwise: str = ""
    """Another way to get it."""


def available_parts() -> Iterator[Part]:
    """Look for each optional part; nothing is loaded, started or downloaded."""
    local, sim = "rtnb[local]", "rtnb[sim]"
    yield Part("voice espeak", _espeak(), "no espeak: the simulator babbles instead of speaking", sim)
    yield Part("voice neural", _package("hibari-tts", "hibari"), "no hibari-tts: no neural voice", local)
    whisper, turn = _weights(find_whisper), _weights(find_smart_turn)
    lack = "no faster-whisper, or no weights: only speech that the simulator knows is transcribed"
    yield Part("transcriber whisper", whisper, lack, local, f"   (or {WHISPER_VARIABLE}=FOLDER of weights)")
    lack = "no onnxruntime, or no weights: semantic_vad follows a simple rule"
    another = f"   (or {TURN_VARIABLE}=FILE, with rtnb[local])"
    yield Part("turn detector smart-turn", turn, lack, "pipecat-ai", another)
    yield Part("responder chat", _package("openai", "openai"), "no openai: no answers of a chat model", local)
    yield Part("WebRTC", _package("aiortc", "aiortc"), "no aiortc: the simulator serves WebSockets only", sim)


def _package(name: str, module: str) -> str:
    return f"{name} {importlib.metadata.version(name)}" if find_spec(module) else ""


def _espeak() -> str:
    return _package("espeakng-loader", "espeakng_loader") or shutil.which("espeak-ng") or shutil.which("espeak") or ""


def _weights(find: Callable[[], object]) -> str:
    try:
        return str(find())
    except RtnbError:
        return ""
