"""Sessions that measure: prompt experiments, replay of recorded sessions, calibration of turn detection."""

from rtnb.experiments import graders
from rtnb.experiments.calibration import calibrate, probe
from rtnb.experiments.case import Case, Turn, cases, grid
from rtnb.experiments.chat import ChatModel, Judge, Persona
from rtnb.experiments.conversation import case_of
from rtnb.experiments.overlap import OverlapSettings
from rtnb.experiments.preference import BlindPairs, Preference
from rtnb.experiments.replaying import replay
from rtnb.experiments.result import Result
from rtnb.experiments.run import Run
from rtnb.experiments.schedule import experiment

__all__ = ["BlindPairs", "Case", "ChatModel", "Judge", "OverlapSettings", "Persona", "Preference", "Result"]
__all__ += ["Run", "Turn", "calibrate", "case_of", "cases", "experiment", "graders", "grid", "probe", "replay"]
