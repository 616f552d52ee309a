"""Experiments on a service: sessions that measure it."""

from rtnb.experiment.calibration import Probe, calibrate, probe
from rtnb.experiment.overlap import OverlapSettings

__all__ = ["OverlapSettings", "Probe", "calibrate", "probe"]
