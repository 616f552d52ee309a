"""Experiments on a service: sessions that measure it."""

from rtnb.experiment.calibration import Probe, calibrate, probe

__all__ = ["Probe", "calibrate", "probe"]
