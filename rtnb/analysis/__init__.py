"""Measuring: pure functions on arrays, responses, recordings and event logs."""

from rtnb.analysis.conditions import AsRecorded, AssistantEcho, FramePhase, Gain, MuLaw, Noise, RoomEcho
from rtnb.analysis.cost import CostMeter
from rtnb.analysis.labels import read_labels
from rtnb.analysis.latency import LatencyMeter
from rtnb.analysis.plot import plot_arrivals, plot_deltas
from rtnb.analysis.recordings import Recording, Turn, from_segments
from rtnb.analysis.sweep_result import Grid, Sweep
from rtnb.analysis.sweeping import sweep

__all__ = [
    "AsRecorded",
    "AssistantEcho",
    "CostMeter",
    "FramePhase",
    "Gain",
    "Grid",
    "LatencyMeter",
    "MuLaw",
    "Noise",
    "Recording",
    "RoomEcho",
    "Sweep",
    "Turn",
    "from_segments",
    "plot_arrivals",
    "plot_deltas",
    "read_labels",
    "sweep",
]
