"""``rtnb simulate``: the simulator alone in this process, until it is told to stop.

With ``--json`` it prints one line when it is ready::

    {"http": "http://127.0.0.1:8765", "ga": "ws://127.0.0.1:8765/openai/v1", "preview": "ws://127.0.0.1:8765/openai",
     "key": "…"}

`ga` and `preview` are base addresses, as the stock clients take them: `AsyncOpenAI(websocket_base_url=ga)` and
`AsyncAzureOpenAI(websocket_base_url=preview)` put ``/realtime`` and the query behind them, and so does `rtnb.Custom`.
With ``--tls`` the line also has `certificate`: the PEM text that clients should trust. With ``--class`` it has `class`:
`page` (the teacher's, a secret), `join` (what everybody pastes) and `keys` by student.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rtnb.errors import RtnbError
from rtnb.simulator.calls import obstacle
from rtnb.simulator.classroom import Classroom, Room
from rtnb.simulator.running import Options, Running
from rtnb.transport import is_loopback


async def serve(options: Options, *, json_line: bool) -> None:
    """Serve until SIGTERM or SIGINT; prints where, and with `json_line` one JSON line instead."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, stop.set)
        except NotImplementedError:  # Windows: no handlers on its event loop
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(stop.set))
    running = await Running.start(options)
    try:
        print(_announcement(running, json_line=json_line), flush=True)
        await stop.wait()
    finally:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(running.stop(), 5.0)


def _announcement(running: Running, *, json_line: bool) -> str:
    options, key, http = running.options, running.service.keys.key, running.http
    ws = "ws" + http.removeprefix("http")
    problem = obstacle()
    room = running.service if isinstance(running.service, Classroom) else None
    if json_line:
        if problem is not None:
            print(f"Warning: {problem}", file=sys.stderr, flush=True)
        line: dict[str, Any] = {"http": http, "ga": f"{ws}/openai/v1", "preview": f"{ws}/openai", "key": key}
        if running.certificate_pem:
            line["certificate"] = running.certificate_pem
        if room is not None:
            line["class"] = {"page": _page(running, room), "join": _join(running), "keys": room.handed_out}
        return json.dumps(line)
    lines = [
        f"rtnb simulator at {http}  (Ctrl-C stops it)",
        f"  GA       {ws}/openai/v1/realtime?model=…",
        f"  preview  {ws}/openai/realtime?api-version=2025-04-01-preview&deployment=…",
        f"  WebRTC   {f'{http}/openai/v1/realtime/calls' if problem is None else f'no: {problem}'}",
        f"  key      {key if options.key is None else 'as given'}",
        f"  voice    {running.voice.name}",
        f'  rtnb.connect(rtnb.Azure("{http}", deployment="any", api_key=…))',
    ]
    return "\n".join([*lines, *(_class_lines(running, room) if room is not None else ())])


def _class_lines(running: Running, room: Classroom) -> list[str]:
    """What a teacher needs: the page, the line everybody pastes, the keys to hand out."""
    host, size = running.options.host, room.room
    return [
        "",
        f"A class of {size.students}: at most {size.sessions_each} sessions each, {size.sessions_total} together.",
        "Your page (who has its address can read it):",
        f"  {_page(running, room)}",
        *(["Only this machine can join; for others, start it with --host 0.0.0.0"] if is_loopback(host) else []),
        "Everybody pastes this into a notebook and types a key of their own when asked:",
        f"  {_join(running)}",
        "Keys, one per student:",
        *(f"  {name}  {key}" for name, key in room.handed_out.items()),
    ]


def _page(running: Running, room: Classroom) -> str:
    return f"{running.http}/class/{room.token}/"


def _join(running: Running) -> str:
    """A line without a secret: the key is asked for, so that no saved notebook holds it."""
    host = running.options.host
    address = running.http if host not in _EVERYWHERE else running.http.replace("127.0.0.1", _own_address())
    where = f'rtnb.Custom("ws{address.removeprefix("http")}", api_key=getpass.getpass("key: "))'
    return f"import getpass, rtnb; session = await rtnb.connect({where})"


_EVERYWHERE = ("", "0.0.0.0")


def _own_address() -> str:
    """The address others reach this machine at, as far as it knows; nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: nobody; connecting a datagram socket only picks the interface
        except OSError:  # no network at all
            return socket.gethostname()
        return str(probe.getsockname()[0])


def serve_forever(asked: Mapping[str, Any]) -> int:
    """Run ``rtnb simulate``.

    Parameters
    ----------
    asked : mapping
        Options of the command: fields of `Options` and of `Room`, None for the default; `classroom` to serve a class,
        and `json` for one JSON line when ready, instead of words.

    Returns
    -------
    int
        Exit code: 0 after a clean stop, 1 where it could not start (the reason is printed).
    """
    try:
        given = {name: value for name, value in asked.items() if value is not None}
        limits = {field.name: given[field.name] for field in fields(Room) if field.name in given}
        if limits and not given.get("classroom"):
            named = ", ".join(f"--{name.replace('_', '-')}" for name in limits)
            raise RtnbError(f"{named} without --class").with_hint("Add --class to serve a class.")
        settings = {field.name: given[field.name] for field in fields(Options) if field.name in given}
        options = Options(**settings, room=Room(**limits) if given.get("classroom") else None)
        if not is_loopback(options.host):
            warning = f"Warning: {options.host} can be reached by other machines; they need the key. Traffic is "
            print(warning + ("encrypted." if options.tls else "not encrypted (--tls)."), file=sys.stderr, flush=True)
        asyncio.run(serve(options, json_line=given.get("json", False)))
    except (RtnbError, OSError, ValueError) as error:
        print(f"rtnb simulate: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"  {note}", file=sys.stderr)
        return 1
    return 0
