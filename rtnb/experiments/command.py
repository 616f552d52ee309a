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
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rtnb.analysis.cost import Budget
from rtnb.errors import CaseError
from rtnb.experiments import graders
from rtnb.experiments.case import check_names, read_yaml
from rtnb.experiments.result import Result
from rtnb.experiments.schedule import experiment
from rtnb.transport import Azure, OpenAI

_FIELDS = ("cases", "variants", "repeats", "graders", "thresholds", "seed")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command and its options to the parser of the command."""
    action = parser.add_subparsers(dest="action", metavar="action", required=True)
    add = action.add_parser(
        "run", help="run an experiment; exit code 1: a threshold or the plan was missed"
    ).add_argument
    add("file", metavar="FILE.yaml", help="cases, variants, graders, repeats, thresholds")
    add("--target", default="sim", help='"sim", a ws:// address, "azure" (from the environment), or "openai"')
    add("--budget-usd", type=float, metavar="USD", help="no run begins that would exceed it")
    add("--folder", metavar="DIR", help="keep the runs here, and go on with those that are there")
    add("--junit", metavar="FILE.xml", help="write the thresholds as tests")
    add("--html", metavar="FILE.html", help="write the result as a page")


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
    plan = read_yaml(path)
    if not isinstance(plan, dict):
        raise CaseError(f"{path}: fields are needed: {', '.join(_FIELDS)}")
    check_names(plan, _FIELDS, "experiment")
    given = plan.get("cases", ())
    targets: Any = {"azure": Azure.from_env, "openai": OpenAI}
    result = asyncio.run(
        experiment(
            targets[options.target]() if options.target in targets else options.target,
            path.parent / given if isinstance(given, str) else given,
            plan.get("variants", {}),
            repeats=plan.get("repeats", 5),
            graders=[_grader(one) for one in plan.get("graders", ())],
            seed=plan.get("seed", 0),
            budget=None if options.budget_usd is None else Budget(usd=options.budget_usd),
            folder=options.folder,
        )
    )
    failures = missed(result, plan.get("thresholds", {}))
    print(result, result.table.to_string(index=False), *failures, sep="\n")
    if options.html:
        result.to_html(options.html)
    if options.junit:
        write_junit(options.junit, result, plan.get("thresholds", {}))
    return 1 if failures or len(result.runs) < result.n_planned else 0


def missed(result: Result, thresholds: dict[str, float]) -> list[str]:
    """Return a line for every threshold that does not hold."""
    unknown = [name for name in thresholds if name not in result.graders]
    if unknown:
        raise CaseError(f"threshold of {unknown[0]!r}, which is no grader; there are: {', '.join(result.graders)}")
    rows = result.table.to_dict("records")
    return [
        f"{row['grader']}, {row['variant']}: {row['estimate']:.3g}, at least {thresholds[row['grader']]:g} is needed"
        for row in rows
        if row["grader"] in thresholds and not row["estimate"] >= thresholds[row["grader"]]
    ]


def write_junit(path: str, result: Result, thresholds: dict[str, float]) -> None:
    """Write the thresholds as tests in JUnit's XML, one per grader and variant."""
    suite = ElementTree.Element("testsuite", name="rtnb experiment")
    failures = missed(result, thresholds)
    for row in result.table.to_dict("records"):
        if row["grader"] in thresholds:
            test = ElementTree.SubElement(suite, "testcase", classname=str(row["variant"]), name=str(row["grader"]))
            for line in failures:
                if line.startswith(f"{row['grader']}, {row['variant']}: "):
                    ElementTree.SubElement(test, "failure", message=line)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(failures)))
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _grader(one: Any) -> graders.Grader:
    """Make a ready grader from its name, or from its name and arguments."""
    name, arguments = next(iter(one.items())) if isinstance(one, dict) and len(one) == 1 else (one, None)
    found = getattr(graders, str(name), None) if name in graders.READY else None
    if found is None:
        raise CaseError(f"grader {one!r} is not known; allowed: {', '.join(graders.READY)}")
    if name in graders.MEASURES:
        made: graders.Grader = found
    elif isinstance(arguments, dict):
        made = found(**arguments)
    else:
        made = found(*(arguments if isinstance(arguments, list) else [] if arguments is None else [arguments]))
    return made
