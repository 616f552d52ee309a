"""``rtnb verify``: asks before it spends, runs the probes, prints the table, writes the result."""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

from rtnb.errors import RtnbError
from rtnb.targets import resolve
from rtnb.transport import Azure, Custom, OpenAI
from rtnb.transport.services import OPENAI_MODEL
from rtnb.verify.run import Result, compare, estimated_usd, verify

FREE_AT_ONCE = 4
"""Probes at the same time where they cost nothing. Chosen: services limit sessions and tokens per minute."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    add = parser.add_argument
    add("target", nargs="?", help='"sim", a ws:// address, "azure" (from the environment), or "openai"')
    add("--dialect", choices=("ga", "preview"), help="default: ga")
    add("--model", metavar="NAME", help="model or deployment")
    add("--budget-usd", type=float, default=0.5, metavar="USD", help="stop at this cost (default %(default)s)")
    add("--only", default="", metavar="PREFIX", help="only the probes whose names begin so, e.g. speech")
    add("--out", metavar="FILE", help="write the result as JSON, without keys")
    add("--key-env", dest="key", metavar="NAME", type=_variable, help="environment variable with the address's key")
    add("--yes", action="store_true", help="do not ask before spending")
    add("--compare", nargs=2, metavar=("A.json", "B.json"), help="show where two results differ, and run nothing")


def _variable(name: str) -> str:
    """Return the value of an environment variable: a key is never an argument, which other users could read."""
    if not (value := os.environ.get(name)):
        raise argparse.ArgumentTypeError(f"the environment variable {name} is not set")
    return value


def run(options: Any) -> int:
    """Run the command.

    Parameters
    ----------
    options : namespace
        `target` or `compare` (two paths), `dialect`, `budget_usd`, `model`, `only`, `out`, `yes`,
        `key`.

    Returns
    -------
    int
        0 where everything is as documented (`compare`: the same), 1 where something is different or was not run.

    Raises
    ------
    RtnbError
        The target cannot be reached, or a file cannot be read or written.
    """
    if options.compare:
        return _compare(*options.compare)
    if options.target is None:
        raise RtnbError("no target was named").with_hint('Name one: "sim", a "ws://…" address, "azure", "openai".')
    target = named(options.target, options.dialect, model=options.model, key=options.key)
    usd = estimated_usd(target, only=options.only)
    cost = f"about ${usd:.2f}" if usd else "none"
    print(f"{target}\nEstimated cost: {cost}, at most ${options.budget_usd:.2f}.", flush=True)
    if usd and not options.yes and not _agreed():
        print("Nothing was sent.")
        return 1
    try:
        result = asyncio.run(
            verify(target, budget_usd=options.budget_usd, only=options.only, at_once=1 if usd else FREE_AT_ONCE)
        )
        print(result)
        if options.out:
            result.save(options.out)
            print(f"Written: {options.out}")
    except OSError as error:
        raise RtnbError(f"{error}") from error
    return 1 if result.different else 0


def named(name: str, dialect: Any = None, *, model: str | None = None, key: str | None = None) -> Any:
    """Return the target of a name: ``sim``, ``azure`` and ``openai`` (from the environment), or an address.

    Parameters
    ----------
    name : str
        See above.
    dialect : {"ga", "preview"}, optional
        Default ``ga``.
    model : str, optional
        Model or deployment.
    key : str, optional
        Key for an address.
    """
    dialect = dialect or "ga"
    if name == "azure":
        overrides: dict[str, Any] = {"deployment": model} if model else {}
        return Azure.from_env(dialect=dialect, **overrides)
    if name == "openai":
        return OpenAI(model or OPENAI_MODEL, dialect=dialect)
    if "://" in name:
        return Custom(name, dialect=dialect, model=model, api_key=key)
    return resolve(name, dialect=dialect)


def _compare(first: str, second: str) -> int:
    results = [Result.load(path) for path in (first, second)]
    found = compare(*results)
    for sign, result in zip("AB", results, strict=True):
        print(f"{sign}  {result.target}, {result.dialect}, {result.date}")
    for name, one, other in found:
        print(f"{name}\n    A  {one}\n    B  {other}")
    print(f"{len(found)} of {len(results[0].outcomes)} outcomes differ." if found else "All outcomes are the same.")
    return 1 if found else 0


def _agreed() -> bool:
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # no terminal
        print("(no answer: add --yes to go on without the question)")
        return False
