"""``rtnb trace``: shows, exports, replays and compares recorded sessions."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any

from rtnb.errors import RtnbError
from rtnb.experiments.replaying import replay
from rtnb.trace import Trace
from rtnb.trace.comparison import compare
from rtnb.transport import Azure, Custom, OpenAI


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their options to the parser of the command."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)

    def add(name: str, about: str) -> Any:
        action = actions.add_parser(name, help=about)
        action.add_argument("file", metavar="FILE", help="a trace")
        return action.add_argument

    add("show", "print the conversation, its latency and findings")
    add("html", "write a page that plays the session")("--out", metavar="FILE", help="default: beside the trace")
    formats = ".txt (Audacity), .TextGrid, .srt, .vtt, .wav, .flac, .csv, .parquet, .json (OpenTelemetry), .html"
    add("export", "write a file of another program")("out", metavar="OUT", help=formats)
    replay = add("replay", "send the user's side to a service again")
    replay("target", help='"sim", a ws:// address, "azure" (from the environment), or "openai"')
    replay("out", metavar="OUT", help="the recording of the new session")
    replay("--set", action="append", default=[], metavar="NAME=JSON", help="another value of a setting")
    replay("--reacting", action="store_true", help="wait for each answer before the next turn")
    replay("--key-env", metavar="NAME", help="environment variable with the address's key")
    add("compare", "show two traces side by side")("other", metavar="OTHER", help="a trace")


def run(options: Any) -> int:
    """Run the command.

    Parameters
    ----------
    options : namespace
        As `add_options` describes them.

    Returns
    -------
    int
        0.

    Raises
    ------
    RtnbError
        A file cannot be read or written, or the service refuses.
    """
    try:
        with Trace(options.file) as trace:
            print(_ACTIONS[options.action](trace, options))
    except OSError as error:
        raise RtnbError(f"{error}") from error
    return 0


def _show(trace: Trace, options: Any) -> str:
    return f"{trace!r}\n\n{trace.transcript}\n{trace.latency.summary()}\n\n{trace.cost!r}\n{trace.findings()!r}"


def _html(trace: Trace, options: Any) -> str:
    out = Path(options.out or Path(options.file).with_suffix(".html"))
    trace.to_html(out)
    return f"Written: {out}, {out.stat().st_size / 1e6:.1f} MB"


def _replay(trace: Trace, options: Any) -> str:
    targets: Any = {"azure": Azure.from_env, "openai": OpenAI}
    target = targets[options.target]() if options.target in targets else options.target
    if options.key_env:
        if not (key := os.environ.get(options.key_env)):
            raise RtnbError(f"the environment variable {options.key_env} is not set")
        target = Custom(options.target, api_key=key)
    settings = {name: _value(text) for name, _, text in (entry.partition("=") for entry in options.set)}
    mode: Any = "reacting" if options.reacting else "same timing"
    with asyncio.run(replay(trace, target, settings=settings, mode=mode, path=options.out)) as made:
        return f"Written: {options.out}\n{compare(trace, made).measures.to_string()}"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _compare(trace: Trace, options: Any) -> str:
    with Trace(options.other) as other:
        found = compare(trace, other)
        return "\n\n".join(table.to_string() for table in (found.measures, found.settings, found.to_frame()))


_ACTIONS = {
    "show": _show,
    "html": _html,
    "export": lambda trace, options: f"Written: {trace.export(options.out)}",
    "replay": _replay,
    "compare": _compare,
}
