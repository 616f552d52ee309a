"""``rtnb experiment run FILE``: an experiment from a YAML file, for continuous integration.

::

    cases: cases.yaml            # or the cases themselves
    variants: {short: {instructions: Answer in one sentence.}}
    repeats: 3
    graders: [{max_words: 25}, {never_says: [as an AI]}, n_words]
    thresholds: {max_words(25): 0.9}     # least estimate of every variant; the exit code tells whether all hold
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rtnb.analysis.cost import Budget
from rtnb.errors import CaseError
from rtnb.experiments import graders
from rtnb.experiments.case import check_names, read_data
from rtnb.experiments.result import Result
from rtnb.experiments.schedule import experiment
from rtnb.transport import Azure, OpenAI

_FIELDS = ("cases", "variants", "repeats", "graders", "thresholds", "seed")
_TARGETS = {"azure": Azure.from_env, "openai": OpenAI}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command and its options to the parser of the command."""
    about = "run an experiment; exit code 1: a threshold or the plan was missed"
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    add = actions.add_parser("run", help=about).add_argument
    add("file", metavar="FILE.yaml", help="cases, variants, graders, repeats, thresholds")
    add("--target", default="sim", help=TARGET_HELP)
    add("--budget-usd", type=float, metavar="USD", help="no run begins that would exceed it")
    add("--folder", metavar="DIR", help="keep the runs here, and go on with those that are there")
    add("--junit", metavar="FILE.xml", help="write the thresholds as tests")


TARGET_HELP = '"sim", a ws:// address, "azure" (from the environment), or "openai"'


def target_of(name: str) -> Any:
    """Return the target that an argument names."""
    return _TARGETS[name]() if name in _TARGETS else name  # type: ignore[operator]


def run(options: Any) -> int:
    """Run the command.

    Parameters
    ----------
    options : namespace
        As `add_options` describes them.

    Returns
    -------
    int
        0 where every run of the plan was done and every threshold holds, else 1.

    Raises
    ------
    CaseError
        The file is wrong: names the field and what is allowed.
    """
    path = Path(options.file)
    plan = read_data(path)
    if not isinstance(plan, dict):
        raise CaseError(f"{path}: fields are needed: {', '.join(_FIELDS)}")
    check_names(plan, _FIELDS, "experiment")
    cases, thresholds = plan.pop("cases", ()), plan.pop("thresholds", {})
    plan["graders"] = [_grader(one) for one in plan.get("graders", ())]
    result = asyncio.run(
        experiment(
            target_of(options.target),
            path.parent / cases if isinstance(cases, str) else cases,
            **{"variants": {}, **plan},
            budget=Budget(usd=options.budget_usd),
            folder=options.folder,
        )
    )
    checked = check(result, thresholds)
    failures = [failure for *_, failure in checked if failure]
    print(result, result.table.to_string(index=False), *failures, sep="\n")
    if options.junit:
        write_junit(options.junit, checked)
    return 1 if failures or len(result.runs) < result.n_planned else 0


def check(result: Result, thresholds: dict[str, float]) -> list[tuple[str, str, str]]:
    """Return grader, variant, and why it is below its threshold (empty where it is not), for each threshold."""
    for name in thresholds:
        if name not in result.graders:
            raise CaseError(f"threshold of {name!r}, which is no grader; there are: {', '.join(result.graders)}")
    checked = []
    row: Any
    for row in result.table.itertuples():
        if (least := thresholds.get(row.grader)) is not None:
            missed = f"{row.grader}, {row.variant}: {row.estimate:.3g}, at least {least:g} is needed"
            checked.append((row.grader, row.variant, "" if row.estimate >= least else missed))
    return checked


def write_junit(path: str, checked: Sequence[tuple[str, str, str]]) -> None:
    """Write checked thresholds as tests in JUnit's XML."""
    n_failures = sum(bool(failure) for *_, failure in checked)
    suite = ElementTree.Element("testsuite", name="rtnb experiment", tests=str(len(checked)), failures=str(n_failures))
    for grader, variant, failure in checked:
        test = ElementTree.SubElement(suite, "testcase", classname=variant, name=grader)
        if failure:
            ElementTree.SubElement(test, "failure", message=failure)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _grader(one: Any) -> Any:
    """Make a ready grader from its name, or from its name and arguments."""
    name, given = next(iter(one.items())) if isinstance(one, dict) and len(one) == 1 else (one, [])
    if name not in graders.READY:
        raise CaseError(f"grader {one!r} is not known; allowed: {', '.join(graders.READY)}")
    found: Any = getattr(graders, name)
    if name in graders.MEASURES:
        return found
    return found(**given) if isinstance(given, dict) else found(*(given if isinstance(given, list) else [given]))
