"""Measuring: pure functions on arrays, responses, recordings and event logs.

>>> from rtnb.analysis import CostMeter
>>> CostMeter().tokens
0
"""

from rtnb.analysis.calibration import Calibration
from rtnb.analysis.conditions import FRAME_PHASES, FramePhase, Gain, MuLaw, Noise
from rtnb.analysis.cost import CostMeter
from rtnb.analysis.detectors import compare_detectors
from rtnb.analysis.frame_metrics import FrameMetrics, frame_metrics
from rtnb.analysis.interaction import tick_metrics
from rtnb.analysis.latency import LatencyMeter
from rtnb.analysis.migration import Migration, migrate
from rtnb.analysis.overlaps import Overlap, overlap_lab
from rtnb.analysis.plots.deltas import plot_arrivals, plot_deltas
from rtnb.analysis.plots.interaction import plot_detectors, plot_overlaps
from rtnb.analysis.plots.turn_detection import plot_pareto, plot_sweep, plot_turns
from rtnb.analysis.recommendation import Candidate, Recommendation, recommend
from rtnb.analysis.recordings import Recording, Turn, from_segments, read_labels
from rtnb.analysis.sweeping import Sweep, sweep

__all__ = ["FRAME_PHASES", "Calibration", "Candidate", "CostMeter", "FrameMetrics", "FramePhase"]
__all__ += ["Gain", "LatencyMeter", "Migration", "MuLaw", "Noise", "Overlap", "Recommendation", "Recording"]
__all__ += ["Sweep", "Turn", "compare_detectors", "frame_metrics", "from_segments", "migrate"]
__all__ += ["overlap_lab", "plot_arrivals", "plot_deltas", "plot_detectors", "plot_overlaps", "plot_pareto"]
__all__ += ["plot_sweep", "plot_turns", "read_labels", "recommend", "sweep", "tick_metrics"]
