"""Optional parts of the simulator: which are available in this environment, and how to get the others."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from rtnb.errors import RtnbError
from rtnb.simulator.transcriber import WEIGHTS_VARIABLE as WHISPER_VARIABLE
from rtnb.simulator.transcriber import find_whisper
from rtnb.vad.semantic import WEIGHTS_VARIABLE as TURN_VARIABLE
from rtnb.vad.semantic import find_smart_turn


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
