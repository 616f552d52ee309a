"""Turn detection of a live session: replay with other settings, calibration, settings while the model speaks."""

from rtnb.tuning.calibration import calibrate, probe
from rtnb.tuning.overlap import OverlapSettings
from rtnb.tuning.replaying import replay

__all__ = ["OverlapSettings", "calibrate", "probe", "replay"]
