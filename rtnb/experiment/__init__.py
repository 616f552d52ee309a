"""Experiments on a service: sessions that measure it, or that repeat a recorded one."""

from rtnb.experiment.calibration import Probe, calibrate, probe
from rtnb.experiment.replaying import replay

__all__ = ["Probe", "calibrate", "probe", "replay"]
