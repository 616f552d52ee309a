"""Settings of a live session, and what they do.

Outcome of an update, replay with other settings, calibration, settings while the model speaks, a bench of recordings.
"""

from rtnb.tuning.calibration import calibrate, probe
from rtnb.tuning.overlap import OverlapSettings
from rtnb.tuning.replaying import replay

__all__ = ["OverlapSettings", "calibrate", "probe", "replay"]
