"""Measuring: pure functions on arrays, responses, recordings and event logs."""

from rtnb.analysis.calibrated import Calibration
from rtnb.analysis.choosing import recommend
from rtnb.analysis.conditions import AsRecorded, AssistantEcho, Gain, MuLaw, Noise, RoomEcho
from rtnb.analysis.cost import CostMeter
from rtnb.analysis.detectors import compare_detectors
from rtnb.analysis.frame_metrics import FrameMetrics, frame_metrics
from rtnb.analysis.interaction import tick_metrics
from rtnb.analysis.interaction_plots import plot_detectors, plot_overlaps
from rtnb.analysis.labels import read_labels
from rtnb.analysis.latency import LatencyMeter
from rtnb.analysis.migration import Migration, migrate
from rtnb.analysis.overlaps import Overlap, overlap_lab
from rtnb.analysis.phases import FRAME_PHASES, FramePhase
from rtnb.analysis.plot import plot_arrivals, plot_deltas
from rtnb.analysis.recommendation import Candidate, Recommendation
from rtnb.analysis.recordings import Recording, Turn, from_segments
from rtnb.analysis.sweep_result import Grid, Sweep
from rtnb.analysis.sweeping import sweep
from rtnb.analysis.vad_plots import plot_pareto, plot_sweep, plot_turns

__all__ = [
    "FRAME_PHASES",
    "AsRecorded",
    "AssistantEcho",
    "Calibration",
    "Candidate",
    "CostMeter",
    "FrameMetrics",
    "FramePhase",
    "Gain",
    "Grid",
    "LatencyMeter",
    "Migration",
    "MuLaw",
    "Noise",
    "Overlap",
    "Recommendation",
    "Recording",
    "RoomEcho",
    "Sweep",
    "Turn",
    "compare_detectors",
    "frame_metrics",
    "from_segments",
    "migrate",
    "overlap_lab",
    "plot_arrivals",
    "plot_deltas",
    "plot_detectors",
    "plot_overlaps",
    "plot_pareto",
    "plot_sweep",
    "plot_turns",
    "read_labels",
    "recommend",
    "sweep",
    "tick_metrics",
]
