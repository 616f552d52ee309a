"""``rtnb trace``: shows, exports, replays and compares recorded sessions."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from rtnb.errors import RtnbError
from rtnb.experiments.command import TARGET_HELP, target_of
from rtnb.experiments.run import json_or_text
from rtnb.trace import Trace
from rtnb.trace.comparison import compare
from rtnb.tuning.replaying import replay


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their options to the parser of the command."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)

    formats = ".txt (Audacity), .TextGrid, .srt, .vtt, .wav, .flac, .csv, .parquet, .json (OpenTelemetry), .html"
    for name, about, *arguments in (
        ("show", "print the conversation, its latency and findings"),
        ("html", "write a page beside the trace that plays the session"),
        ("export", "write a file of another program", ("out", formats)),
        ("replay", "send the user's side to a service again", ("target", TARGET_HELP), ("out", "the new recording")),
        ("compare", "show two traces side by side", ("other", "a trace")),
    ):
        action = actions.add_parser(name, help=about)
        for argument, text in (("file", "a trace"), *arguments):
            action.add_argument(argument, metavar=argument.upper(), help=text)
    replaying = actions.choices["replay"]
    replaying.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="another value of a setting")
    replaying.add_argument("--reacting", action="store_true", help="wait for each answer before the next turn")


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
            print(_output(trace, options))
    except OSError as error:
        raise RtnbError(f"{error}") from error
    return 0


def _output(trace: Trace, options: Any) -> str:
    match options.action:
        case "show":
            parts = [repr(trace), "", trace.transcript, trace.latency.summary(), "", trace.cost, repr(trace.findings())]
            return "\n".join(map(str, parts))
        case "html":
            return f"Written: {trace.export(Path(options.file).with_suffix('.html'))}"
        case "export":
            return f"Written: {trace.export(options.out)}"
        case "replay":
            settings = {name: json_or_text(text) for name, _, text in (entry.partition("=") for entry in options.set)}
            mode: Any = "reacting" if options.reacting else "same timing"
            work = replay(trace, target_of(options.target), settings=settings, mode=mode, path=options.out)
            with asyncio.run(work) as made:
                return f"Written: {options.out}\n{compare(trace, made).measures.to_string()}"
    with Trace(options.other) as other:
        found = compare(trace, other)
        return "\n\n".join(table.to_string() for table in (found.measures, found.settings, found.to_frame()))
