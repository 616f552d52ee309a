"""`rtnb lab`: JupyterLab on a working copy of the notebooks.

The originals (of a checkout, or those shipped in the package) are never edited. The working copy belongs to its user:
a file that differs from what was laid there is kept as it is. A small manifest remembers what was laid, so that a
notebook nobody touched can follow its original.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rtnb.errors import RtnbError

_PACKAGE = Path(__file__).resolve().parent
_MANIFEST = ".rtnb-originals.json"
_START = "00_start_here.ipynb"
_TRIES = 100  # ports tried after the one asked for; chosen


@dataclass(frozen=True, slots=True)
class WorkingCopy:
    """A folder of notebooks and what was just done to it."""

    path: Path
    """The folder."""
    added: tuple[str, ...] = ()
    """Files that were not there."""
    updated: tuple[str, ...] = ()
    """Files nobody had edited, replaced by a newer original."""
    kept: tuple[str, ...] = ()
    """Files that were edited and differ from their original: left alone."""

    @property
    def start(self) -> str:
        """The notebook to open: ``00_start_here.ipynb``, else the first there is; "" for none."""
        names = sorted(path.name for path in self.path.glob("*.ipynb"))
        return _START if _START in names else next(iter(names), "")

    def __str__(self) -> str:
        done = [
            f"{len(names)} {what}"
            for names, what in ((self.added, "added"), (self.updated, "updated"), (self.kept, "of yours kept"))
            if names
        ]
        return f"{self.path}" + (f" ({', '.join(done)})" if done else "")


def originals() -> Path:
    """The folder of original notebooks: of the checkout where there is one, otherwise of the installed package.

    Raises
    ------
    RtnbError
        If this installation holds neither.
    """
    checkout = _PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "notebooks").is_dir():
        return checkout / "notebooks"
    if (_PACKAGE / "_notebooks").is_dir():
        return _PACKAGE / "_notebooks"
    raise RtnbError(f"no notebooks: neither {checkout / 'notebooks'} nor {_PACKAGE / '_notebooks'} exists").with_hint(
        "Install rtnb again, or run this from a checkout."
    )


def working_copy(source: Path, place: Path) -> WorkingCopy:
    """Bring a user's copy of the notebooks up to date without touching what the user edited.

    Parameters
    ----------
    source : Path
        The originals.
    place : Path
        The copy; made if missing.

    Returns
    -------
    WorkingCopy
        Names, relative to `place`, of what was added, updated and kept.
    """
    place = place.expanduser().resolve()
    if place.exists() and not place.is_dir():
        raise RtnbError(f"{place} is a file, not a folder").with_hint("Choose another folder with --directory.")
    place.mkdir(parents=True, exist_ok=True)
    laid = _read_manifest(place)
    added, updated, kept = [], [], []
    for original in _files(source):
        name = original.relative_to(source).as_posix()
        target = place / name
        wanted = _digest(original)
        if not target.exists():
            added.append(name)
        elif not target.is_file() or (found := _digest(target)) not in (wanted, laid.get(name)):
            kept.append(name)
            continue
        elif found != wanted:
            updated.append(name)
        if name in added or name in updated:
            _copy(original, target)
        laid[name] = wanted
    _write_manifest(place, laid)
    return WorkingCopy(place, tuple(added), tuple(updated), tuple(kept))


def free_port(first: int) -> int:
    """The first free port of this machine's loopback address, from `first` upward; any free one for 0.

    Raises
    ------
    RtnbError
        If none of the next hundred is free.
    """
    for port in (0,) if first == 0 else range(first, min(first + _TRIES, 65_536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            if os.name == "posix":  # there it only forgives connections that are still closing
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
                listener.listen()
            except OSError:
                continue
            return int(listener.getsockname()[1])
    raise RtnbError(f"no free port from {first} upward").with_hint("Let the system choose one: rtnb lab --port 0")


def hub_address(copy: WorkingCopy, environ: Mapping[str, str]) -> str | None:
    """Where a JupyterHub that runs this process already serves the copy: an address, or a path of the hub's.

    None outside JupyterHub; "" where its server cannot see the folder. The server's own folder is taken to be the home
    folder where the hub does not say (`JUPYTERHUB_ROOT_DIR`).
    """
    base = environ.get("JUPYTERHUB_PUBLIC_URL") or environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if not base:
        return None
    root = Path(environ.get("JUPYTERHUB_ROOT_DIR") or Path.home()).expanduser().resolve()
    if not copy.path.is_relative_to(root):
        return ""
    place = (copy.path / copy.start).relative_to(root).as_posix()
    return f"{base.rstrip('/')}/lab/tree/{quote(place)}"


def tunnel(port: int, environ: Mapping[str, str]) -> str | None:
    """The command that brings this port to the machine an SSH session comes from; None outside SSH."""
    ends = environ.get("SSH_CONNECTION", "").split()  # client's address and port, ours
    if len(ends) != 4:
        return None
    host, ssh_port = ends[2:]
    other = f" -p {ssh_port}" if ssh_port != "22" else ""
    return f"ssh -N -L {port}:localhost:{port}{other} {environ.get('USER') or 'YOU'}@{host}"


def serve(
    copy: WorkingCopy,
    *,
    port: int,
    browser: bool = True,
    extra: Sequence[str] = (),
    ready: Callable[[str], None] = lambda url: None,
) -> int:
    """Run JupyterLab in this process until SIGINT (Ctrl-C) or SIGTERM; kernels are stopped with it.

    Parameters
    ----------
    copy : WorkingCopy
        The folder to open, on its start.
    port : int
        A free port.
    browser : bool, default True
        Open the page; otherwise the address is printed.
    extra : sequence of str
        More of JupyterLab's own options; they win over ours.
    ready : callable
        Is told the address, without the token, once it answers.

    Returns
    -------
    int
        JupyterLab's exit code.
    """
    # A kernel of this environment, even where the user has installed a `python3` kernel of another Python.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    from jupyterlab.labapp import LabApp

    arguments = [
        f"--ServerApp.root_dir={copy.path}",
        f"--ServerApp.port={port}",
        "--ServerApp.answer_yes=True",  # one Ctrl-C ends it
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",  # works offline, and asks nothing
        "--log-level=WARN",
    ]
    if copy.start:
        arguments.append(f"--LabApp.default_url=/lab/tree/{quote(copy.start)}")
    if not browser:
        arguments.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--allow-root")  # containers; the server listens on loopback and asks for its token
    # Away from a terminal JupyterLab leaves SIGINT alone: the loop would break and its kernels live on (measured).
    signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        server = LabApp.initialize_server([*arguments, *extra])
        server.io_loop.add_callback(lambda: ready(f"http://localhost:{server.port}{server.base_url}lab"))
        server.start()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _copy(original: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}.half")  # never a torn notebook, even if we are stopped here
    shutil.copyfile(original, half)
    half.replace(target)


def _read_manifest(place: Path) -> dict[str, str]:
    try:
        laid = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # nothing is known about the files there: all of them count as the user's
    return laid if isinstance(laid, dict) else {}


def _write_manifest(place: Path, laid: dict[str, str]) -> None:
    half = place / f"{_MANIFEST}.half"
    half.write_text(json.dumps(laid, indent=1, sort_keys=True), encoding="utf-8")
    half.replace(place / _MANIFEST)
