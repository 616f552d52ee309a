"""Measuring: pure functions on arrays, responses and event logs."""

from rtnb.analysis.plot import plot_arrivals, plot_deltas

__all__ = ["plot_arrivals", "plot_deltas"]
