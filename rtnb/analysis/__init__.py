"""Measuring: pure functions on arrays, responses and event logs."""

from rtnb.analysis.cost import CostMeter
from rtnb.analysis.latency import LatencyMeter
from rtnb.analysis.plot import plot_arrivals, plot_deltas

__all__ = ["CostMeter", "LatencyMeter", "plot_arrivals", "plot_deltas"]
