"""The command `rtnb`: lab, simulate, doctor. It parses, calls and prints; the work is elsewhere.

::

    rtnb lab                      open the notebooks in JupyterLab
    rtnb simulate --port 8765     a realtime service on this machine
    rtnb simulate --class --host 0.0.0.0   the same for a room of students
    rtnb doctor                   what is missing here, and what to do about it
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rtnb
from rtnb.errors import RtnbError

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``rtnb``; the process's own by default.

    Returns
    -------
    int
        The exit code: 0 all is well, 1 it is not (the reason is printed), 130 interrupted.
    """
    begun_s = time.monotonic()
    options = parser().parse_args(argv)
    options.begun_s = begun_s
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except RtnbError as error:
        print(f"rtnb {options.command}: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"  {note}", file=sys.stderr)
        return 1
    return code


def parser() -> argparse.ArgumentParser:
    """All commands and options, with their help."""
    root = argparse.ArgumentParser(prog="rtnb", description="Realtime voice models in Jupyter.")
    root.add_argument("--version", action="version", version=f"rtnb {rtnb.__version__}")
    commands = root.add_subparsers(dest="command", metavar="command", required=True)
    _add_lab(commands)
    _add_simulate(commands)
    _add_doctor(commands)
    return root


def _add_lab(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    lab = commands.add_parser(
        "lab",
        help="open the notebooks in JupyterLab",
        description="Open JupyterLab on your own copy of the notebooks. What you edit there is never overwritten; "
        "notebooks that are new or that you have not touched are brought up to date.",
        epilog="Words after -- go to JupyterLab as they are, e.g.: rtnb lab -- --ServerApp.ip=0.0.0.0",
    )
    lab.add_argument("--port", type=_port, default=8888, help="first port to try; 0: any (default %(default)s)")
    lab.add_argument("--no-browser", action="store_true", help="print the address instead of opening it")
    lab.add_argument("--directory", type=Path, metavar="DIR", help="where your copy is kept (default ~/rtnb-notebooks)")
    lab.add_argument("jupyter", nargs="*", metavar="-- OPTION", help="options for JupyterLab itself")
    lab.set_defaults(run=_lab)


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="a realtime service on this machine",
        description="Serve the realtime protocol on this machine, in both dialects, until interrupted.",
    )
    simulate.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    simulate.add_argument("--port", type=_port, default=0, help="0, the default: any free one")
    simulate.add_argument("--key", help="the key that clients must show (default: a fresh one, printed)")
    simulate.add_argument("--tls", action="store_true", help="wss and https with a self-signed certificate")
    simulate.add_argument("--seed", type=int, help="the same seed gives the same session")
    simulate.add_argument(
        "--latency", help="realistic (default), real_time, fast, or changes such as first_delta_ms=800"
    )
    simulate.add_argument("--voice", choices=("auto", "espeak", "babble"), help="the voice that speaks (default: auto)")
    simulate.add_argument("--scenario", metavar="FILE", help="a JSON file: what to say and do, and what goes wrong")
    simulate.add_argument("--chat-url", metavar="URL", help="ask this chat completions service for the words")
    simulate.add_argument("--json", action="store_true", help="print one JSON line with the addresses, then serve")
    room = simulate.add_argument_group("a class", "one simulator for a room; --scenario is what all of them share")
    room.add_argument(
        "--class", dest="room", action="store_true", help="print a line to join, a key per student, your page"
    )
    room.add_argument("--students", type=int, metavar="N", help="keys to hand out (default: 30)")
    room.add_argument("--sessions-each", type=int, metavar="N", help="sessions one may have open (default: 3)")
    room.add_argument("--sessions-total", type=int, metavar="N", help="sessions of all together (default: 100)")
    simulate.set_defaults(run=_simulate)


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="what is missing here, and what to do about it",
        description="Check Python, packages, kernel, voice, settings and, where one is set up, the service. "
        "Exit code 1 if something must be done. No value of a setting is ever shown.",
    )
    doctor.add_argument("--offline", action="store_true", help="do not connect to the service")
    doctor.set_defaults(run=_doctor)


def _lab(options: argparse.Namespace) -> int:
    from rtnb import _lab as lab

    originals = lab.originals()
    copy = lab.working_copy(originals, options.directory or Path.home() / "rtnb-notebooks")
    print(f"Notebooks: {copy}")
    hub = lab.hub_address(copy, os.environ)
    if hub is not None:
        print(_ON_A_HUB.format(where=hub or f"the folder {copy.path}, once it is inside the one your server shows"))
        return 0
    port = lab.free_port(options.port)
    if options.port not in (0, port):
        print(f"Port {options.port} is taken; using {port}.")
    tunnel = lab.tunnel(port, os.environ)
    if tunnel:
        print(f"This is an SSH session. On your own machine run\n    {tunnel}\nand open the address below there.")
    sys.stdout.flush()
    elsewhere = tunnel is not None and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    begun = options.begun_s

    def ready(url: str) -> None:
        print(f"Serving {url} {time.monotonic() - begun:.1f} s after the command. Ctrl-C stops it.", flush=True)

    return lab.serve(copy, port=port, browser=not (options.no_browser or elsewhere), extra=options.jupyter, ready=ready)


_ON_A_HUB = f"""\
JupyterHub serves JupyterLab already; nothing was started. Open there:
    {{where}}
If its notebooks do not find rtnb, make this environment a kernel of yours and choose it:
    {sys.executable} -m ipykernel install --user --name rtnb"""


def _simulate(options: argparse.Namespace) -> int:
    from rtnb.simulator.serve import serve_forever

    names = ("host", "port", "key", "tls", "seed", "latency", "voice", "scenario", "chat_url")
    asked = {name: getattr(options, name) for name in names}
    return serve_forever(asked, room=_room(options), json_line=options.json)


def _room(options: argparse.Namespace) -> dict[str, int] | None:
    """The class that is asked for; None for none."""
    asked = {name: getattr(options, name) for name in ("students", "sessions_each", "sessions_total")}
    given = {name: value for name, value in asked.items() if value is not None}
    if given and not options.room:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise RtnbError(f"{flags} without --class").with_hint("Add --class to serve a class.")
    return given if options.room else None


def _doctor(options: argparse.Namespace) -> int:
    report = rtnb.doctor(service=not options.offline)
    print(report)
    return 0 if report.ok else 1


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 0 to 65535")
    return int(text)
