"""Prompt experiments: cases, variants, graders, runs, and what they show."""

from rtnb.experiments import graders
from rtnb.experiments.callers import Persona
from rtnb.experiments.case import Case, Turn, cases, grid
from rtnb.experiments.chat import ChatModel
from rtnb.experiments.judge import Judge
from rtnb.experiments.result import Result
from rtnb.experiments.run import Run
from rtnb.experiments.schedule import experiment

__all__ = ["Case", "ChatModel", "Judge", "Persona", "Result", "Run", "Turn", "cases", "experiment", "graders", "grid"]
