"""Measuring what was said: pure functions on arrays and event logs."""

from __future__ import annotations

from rtnb.analysis.cost import CostMeter
from rtnb.analysis.latency import LatencyMeter

__all__ = ["CostMeter", "LatencyMeter"]
