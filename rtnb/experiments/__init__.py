"""Prompt experiments: cases × variants × repeats against a service, graded, with statistics that respect repeats."""

from rtnb.experiments import graders
from rtnb.experiments.case import Case, Turn, cases, grid
from rtnb.experiments.chat import ChatModel, Judge, Persona
from rtnb.experiments.preference import BlindPairs, Preference
from rtnb.experiments.result import Result
from rtnb.experiments.run import Run
from rtnb.experiments.schedule import experiment

__all__ = ["BlindPairs", "Case", "ChatModel", "Judge", "Persona", "Preference", "Result", "Run", "Turn"]
__all__ += ["cases", "experiment", "graders", "grid"]
