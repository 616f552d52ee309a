"""Command `rtnb`: parses options, calls the library and prints.

::

    rtnb lab                      open the notebooks in JupyterLab
    rtnb simulate --port 8765     serve the realtime protocol on this machine
    rtnb simulate --class --host 0.0.0.0   the same for a class of students
    rtnb doctor                   check this installation and its settings
    rtnb verify sim               check a service against the documented protocol
    rtnb experiment run FILE      compare variants of a prompt on cases
    rtnb trace show talk.rtnb     show, export, replay or compare recorded sessions
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import rtnb
from rtnb.errors import RtnbError

_ELSEWHERE = {
    "verify": ("rtnb.verify.command", "check a service against the documented protocol"),
    "experiment": ("rtnb.experiments.command", "compare variants of a prompt on cases, from a file"),
    "trace": ("rtnb.tuning.trace_command", "show, export, replay or compare recorded sessions"),
}
"""Commands whose options and work are in a module that is loaded only for them: the module and the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after ``rtnb``; by default those of the process.

    Returns
    -------
    int
        The exit code: 0 success, 1 failure (the reason is printed), 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    options = parser(argv).parse_args(argv, argparse.Namespace(begun_s=time.monotonic()))
    try:
        if options.command in _ELSEWHERE:
            return int(import_module(_ELSEWHERE[options.command][0]).run(options))
        return {"lab": _lab, "simulate": _simulate, "doctor": _doctor}[options.command](options)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it
    except RtnbError as error:
        print(f"rtnb {options.command}: {error}", *getattr(error, "__notes__", ()), sep="\n  ", file=sys.stderr)
        return 1


def parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of all commands and options, with their help; of those in `_ELSEWHERE`, the one in `argv`."""
    root = argparse.ArgumentParser(prog="rtnb", description="Realtime voice models in Jupyter.")
    root.add_argument("--version", action="version", version=f"rtnb {rtnb.__version__}")
    commands = root.add_subparsers(dest="command", metavar="command", required=True)
    about = "Open JupyterLab on your copy of the notebooks: new and changed ones are copied, your edits stay."
    after = "Options after -- go to JupyterLab unchanged, e.g.: rtnb lab -- --ServerApp.ip=0.0.0.0"
    lab = commands.add_parser("lab", help="open the notebooks in JupyterLab", description=about, epilog=after)
    lab.add_argument("--port", type=_port, default=8888, help="first port to try; 0: any (default %(default)s)")
    lab.add_argument("--no-browser", action="store_true", help="print the address instead of opening it")
    lab.add_argument("--directory", type=Path, metavar="DIR", help="folder of your copy (default ~/rtnb-notebooks)")
    lab.add_argument("jupyter", nargs="*", metavar="-- OPTION", help="options of JupyterLab")
    _add_simulate(commands)
    about = "Check Python, packages, kernel, voice, settings and service; shows no value. Exit code 1: act on a row."
    doctor = commands.add_parser("doctor", help="check this installation and its settings", description=about)
    doctor.add_argument("--offline", action="store_true", help="do not connect to the service")
    for name, (module, about) in _ELSEWHERE.items():
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        if name in argv[:1]:
            import_module(module).add_options(command)
    return root


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Serve the realtime protocol on this machine, in both dialects, until interrupted."
    simulate = commands.add_parser("simulate", help="serve the realtime protocol on this machine", description=about)
    add = simulate.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--port", type=_port, default=0, help="0, the default: any free one")
    add("--key", help="the key that clients must send (default: a new one, printed)")
    add("--tls", action="store_true", help="wss and https with a self-signed certificate")
    add("--seed", type=int, help="the same seed gives the same session")
    add("--latency", help="realistic (default), real_time, fast, or changes such as first_delta_ms=800")
    add("--voice", choices=("auto", "neural", "espeak", "babble"), help="speech synthesiser (default: auto)")
    add("--transcriber", metavar="KIND", help="auto (default), exact, whisper, or the URL of a transcription service")
    add("--turn-detector", metavar="KIND", help="for semantic_vad: auto (default), smart-turn, fade, or an ONNX file")
    add("--scenario", metavar="FILE", help="a JSON file with answers, actions and faults")
    add("--chat-url", metavar="URL", help="take the answers from this chat completions service")
    add("--chat-model", metavar="NAME", help="the model to ask there")
    add("--chat-key-env", dest="chat_key", metavar="NAME", type=_variable, help="environment variable with its key")
    add("--workers", type=int, default=1, metavar="N", help="processes that share the port (default: 1)")
    add("--json", action="store_true", help="print one JSON line with the addresses, then serve")
    room = simulate.add_argument_group("a class", "one simulator for a class; every student gets the same --scenario")
    room.add_argument("--class", dest="classroom", action="store_true", help="print join line, keys and your page")
    room.add_argument("--students", type=int, metavar="N", help="number of keys (default: 30)")
    room.add_argument("--sessions-each", type=int, metavar="N", help="open sessions per student (default: 3)")
    room.add_argument("--sessions-total", type=int, metavar="N", help="open sessions of the class (default: 100)")


def _lab(options: argparse.Namespace) -> int:
    from rtnb import _lab as lab

    copy = lab.working_copy(lab.originals(), options.directory or Path.home() / "rtnb-notebooks")
    print(f"Notebooks: {copy}", flush=True)
    if (hub := lab.hub_address(copy, os.environ)) is not None:
        print(_ON_A_HUB.format(where=hub or f"the folder {copy.path}, after moving it into your server's folder"))
        return 0

    def ready(url: str, port: int) -> None:
        if options.port not in (0, port):
            print(f"Port {options.port} is taken; using {port}.")
        if command := lab.tunnel(port, os.environ):
            print(f"This is an SSH session. On your machine run\n    {command}\nand open JupyterLab's address there.")
        elapsed_s = time.monotonic() - options.begun_s
        print(f"Serving {url} {elapsed_s:.1f} s after the command. Ctrl-C stops it.", flush=True)

    screen = not lab.tunnel(0, os.environ) or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    browser = screen and not options.no_browser
    return lab.serve(copy, port=options.port, browser=browser, extra=options.jupyter, ready=ready)


_ON_A_HUB = f"""\
JupyterHub already serves JupyterLab, so no second server was started. Open there:
    {{where}}
If its notebooks do not find rtnb, register this environment as a kernel and choose it:
    {sys.executable} -m ipykernel install --user --name rtnb"""


def _simulate(options: argparse.Namespace) -> int:
    from rtnb.simulator.serve import serve_forever

    return serve_forever(vars(options))


def _doctor(options: argparse.Namespace) -> int:
    print(report := rtnb.doctor(service=not options.offline))
    return 0 if report.ok else 1


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: allowed is a number from 0 to 65535")
    return int(text)


def _variable(name: str) -> str:
    """Return the value of an environment variable: a key is never an argument, which other users could read."""
    if not (value := os.environ.get(name)):
        raise argparse.ArgumentTypeError(f"the environment variable {name} is not set")
    return value
