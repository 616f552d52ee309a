"""``rtnb simulate``: the simulator alone in this process, until a signal stops it.

With ``--json`` it prints one line when it is ready::

    {"http": "http://127.0.0.1:8765", "ga": "ws://127.0.0.1:8765/openai/v1", "preview": "ws://127.0.0.1:8765/openai",
     "key": "…"}

`ga` and `preview` are base addresses, as the stock clients take them: `AsyncOpenAI(websocket_base_url=ga)` and
`AsyncAzureOpenAI(websocket_base_url=preview)` put ``/realtime`` and the query behind them, and so does `rtnb.Custom`.
With ``--tls`` the line also has `certificate`: the PEM text that clients should trust. With ``--class`` it has `class`:
`page` (the teacher's, a secret), `join` (the line that students paste) and `keys` by student.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import multiprocessing
import os
import platform
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from multiprocessing.connection import wait
from multiprocessing.managers import SyncManager
from typing import Any, Final

from rtnb.errors import RtnbError
from rtnb.simulator.classroom import Classroom, Room
from rtnb.simulator.host import Options, Running, SelfSigned, Worker, listen
from rtnb.simulator.service import obstacle
from rtnb.transport import is_loopback

START_S: Final = 30.0
"""Longest time until all workers listen. Chosen."""


def _return_memory() -> None:
    """Give blocks of over 1 MiB back to the system when they are free (glibc, which keeps up to 32 MiB otherwise)."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


_M_MMAP_THRESHOLD: Final = -3
"""Of malloc.h; see mallopt(3)."""


async def serve(options: Options, *, json_line: bool, worker: Worker | None = None) -> None:
    """Serve until SIGTERM or SIGINT; print where, once it listens."""
    _return_memory()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, stop.set)
        except NotImplementedError:  # Windows: no handlers on its event loop
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(stop.set))
    running = await Running.start(options, worker)
    try:
        if worker is not None:
            await asyncio.to_thread(worker.all_listen.wait, START_S)
        if worker is None or worker.index == 0:
            print(_announcement(running, json_line=json_line), flush=True)
        parent = multiprocessing.parent_process()
        while not stop.is_set() and (parent is None or parent.is_alive()):  # a killed parent stops no worker
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.0)
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(running.stop(), 5.0)


def serve_workers(options: Options, count: int, *, json_line: bool) -> int:
    """Serve one port with several processes until SIGTERM or SIGINT; a session stays with its process.

    Where the system spreads connections over several sockets of a port (Linux), each worker has its own; elsewhere they
    share one. Ephemeral keys are shared. Quota, faults of connections and learned speech are each worker's own.
    """
    context = multiprocessing.get_context("spawn")
    options.world(None)  # what cannot be read is an error here, not one of each worker
    sockets = listen(options, count)
    options = replace(options, port=sockets[0].getsockname()[1], key=options.key or secrets.token_hex(16))
    previous = {name: signal.signal(name, _interrupt) for name in (signal.SIGTERM, signal.SIGINT)}
    store, processes, code = SyncManager(ctx=context), [], 1
    try:
        store.start(_leave_with_parent, (os.getpid(),))
        shared: Any = {"count": count, "all_listen": context.Barrier(count), "signed": SelfSigned.of(options)}
        shared["grants"] = store.dict()
        for index, own in enumerate(sockets):
            worker = Worker(index=index, socket=own, **shared)
            process = context.Process(target=_work, args=(options, worker, json_line), name=f"rtnb worker {index}")
            process.start()
            processes.append(process)
        for own in sockets:
            own.close()
        wait([process.sentinel for process in processes])
        print("rtnb simulate: a worker exited unexpectedly", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        code = 0
    finally:
        for name in previous:  # a second signal must not interrupt the end
            signal.signal(name, signal.SIG_IGN)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(8.0)
            process.kill()
        store.shutdown()
        for name, handler in previous.items():
            signal.signal(name, handler)
    return code


def _leave_with_parent(parent: int) -> None:
    """Make the store's process end with its parent."""
    if hasattr(signal, "setitimer"):  # Unix; a killed parent leaves its children running
        signal.signal(signal.SIGALRM, lambda *_: None if os.getppid() == parent else os._exit(0))
        signal.setitimer(signal.ITIMER_REAL, 2.0, 2.0)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _work(options: Options, worker: Worker, json_line: bool) -> None:
    """Run one worker; where it fails, the others end too."""
    try:
        asyncio.run(serve(options, json_line=json_line, worker=worker))
    except (RtnbError, OSError, ValueError, RuntimeError) as error:
        if not worker.all_listen.broken:  # else another worker has failed, and says why
            worker.all_listen.abort()
            _print_failure(error)
        sys.exit(1)


def _print_failure(error: Exception) -> None:
    print("\n  ".join([f"rtnb simulate: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr, flush=True)


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
    """Return the lines for a teacher: the page, the line that students paste, the students' keys."""
    host, size = running.options.host, room.room
    return [
        "",
        f"A class of {size.students}: at most {size.sessions_each} sessions each, {size.sessions_total} together.",
        "Your page (who has its address can read it):",
        f"  {_page(running, room)}",
        *(["Only this machine can join; for others, start it with --host 0.0.0.0"] if is_loopback(host) else []),
        "Each student pastes this into a notebook and enters a key when asked:",
        f"  {_join(running)}",
        "Keys, one per student:",
        *(f"  {name}  {key}" for name, key in room.handed_out.items()),
    ]


def _page(running: Running, room: Classroom) -> str:
    return f"{running.http}/class/{room.token}/"


def _join(running: Running) -> str:
    """Return a line without a secret: it asks for the key, so that no saved notebook holds it."""
    host = running.options.host
    address = running.http if host not in _EVERYWHERE else running.http.replace("127.0.0.1", _own_address())
    where = f'rtnb.Custom("ws{address.removeprefix("http")}", api_key=getpass.getpass("key: "))'
    return f"import getpass, rtnb; session = await rtnb.connect({where})"


_EVERYWHERE = ("", "0.0.0.0")


def _own_address() -> str:
    """Return the address at which others reach this machine, as far as it knows; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: no host; connecting a datagram socket only picks the interface
        except OSError:  # no network at all
            return socket.gethostname()
        return str(probe.getsockname()[0])


def serve_forever(arguments: Mapping[str, Any]) -> int:
    """Run ``rtnb simulate``.

    Parameters
    ----------
    arguments : mapping
        Options of the command: fields of `Options` and of `Room`, None for the default; `classroom` to serve a class,
        `workers` for the number of processes that share the port, and `json` for one JSON line when ready, instead of
        words.

    Returns
    -------
    int
        Exit code: 0 after a clean stop, 1 where it could not start (the reason is printed).
    """
    try:
        given = {name: value for name, value in arguments.items() if value is not None}
        limits = {field.name: given[field.name] for field in fields(Room) if field.name in given}
        classroom, json_line = bool(given.get("classroom")), bool(given.get("json"))
        if limits and not classroom:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in limits)
            raise RtnbError(f"{named} without --class").with_hint("Add --class to serve a class.")
        workers = _worker_count(given.get("workers", 1), classroom=classroom)
        settings = {field.name: given[field.name] for field in fields(Options) if field.name in given}
        options = Options(**settings, room=Room(**limits) if classroom else None)
        if not is_loopback(options.host):
            warning = f"Warning: {options.host} can be reached by other machines; they need the key. Traffic is "
            print(warning + ("encrypted." if options.tls else "not encrypted (--tls)."), file=sys.stderr, flush=True)
        if workers > 1:
            return serve_workers(options, workers, json_line=json_line)
        asyncio.run(serve(options, json_line=json_line))
    except (RtnbError, OSError, ValueError) as error:
        _print_failure(error)
        return 1
    return 0


def _worker_count(count: int, *, classroom: bool) -> int:
    if not 1 <= count <= 64:
        raise ValueError(f"--workers is {count}; allowed is 1 to 64")
    if count > 1 and classroom:
        raise ValueError(
            "--class works with one worker: its page and its limits count the sessions of one process. "
            "Leave --workers out; one process serves a class of 30 (100 sessions)."
        )
    return count
