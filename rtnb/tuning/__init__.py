"""Settings of a live session: outcome of an update, replay with others, calibration, a bench of recordings."""

from rtnb.tuning.calibration import calibrate, probe
from rtnb.tuning.overlap import OverlapSettings
from rtnb.tuning.replaying import replay

__all__ = ["OverlapSettings", "calibrate", "probe", "replay"]
