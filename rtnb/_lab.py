"""JupyterLab on a working copy of the notebooks, for `rtnb lab`.

The originals (of a checkout, or those shipped in the package) are never written. The working copy belongs to its user:
a file with edits is kept. A manifest in the copy holds the digest of every copied file, so that a file without edits
can follow its original.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rtnb.errors import RtnbError

_PACKAGE = Path(__file__).resolve().parent
_MANIFEST = ".rtnb-originals.json"
_START = "00_start_here.ipynb"


@dataclass(frozen=True, slots=True)
class WorkingCopy:
    """A folder of notebooks and the outcome of its last update; names are relative to the folder."""

    path: Path
    """The folder."""
    added: tuple[str, ...] = ()
    """Files that were missing."""
    updated: tuple[str, ...] = ()
    """Files without edits, replaced by a newer original."""
    kept: tuple[str, ...] = ()
    """Files with edits, which differ from their original and were left unchanged."""

    @property
    def start(self) -> str:
        """The notebook to open: ``00_start_here.ipynb``, else the first one; "" without notebooks."""
        names = sorted(path.name for path in self.path.glob("*.ipynb"))
        return _START if _START in names else next(iter(names), "")

    def __str__(self) -> str:
        counts = ((self.added, "added"), (self.updated, "updated"), (self.kept, "of yours kept"))
        done = ", ".join(f"{len(names)} {outcome}" for names, outcome in counts if names)
        return f"{self.path}{done and f' ({done})'}"


def originals() -> Path:
    """Return the folder of original notebooks: the checkout's, otherwise the installed package's.

    Raises
    ------
    RtnbError
        This installation holds neither.
    """
    checkout, packaged = _PACKAGE.parent / "notebooks", _PACKAGE / "_notebooks"
    if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    if packaged.is_dir():
        return packaged
    error = RtnbError(f"no notebooks found: neither {checkout} nor {packaged} exists")
    raise error.with_hint("Install rtnb again, or run this command from a checkout.")


def working_copy(source: Path, place: Path) -> WorkingCopy:
    """Update a user's copy of the notebooks, and leave every file with edits unchanged.

    Parameters
    ----------
    source : Path
        Folder of the originals; hidden files are not copied.
    place : Path
        Folder of the copy; made if missing.

    Returns
    -------
    WorkingCopy
        The names of the added, updated and kept files.

    Raises
    ------
    RtnbError
        `place` is a file.
    """
    place = place.expanduser().resolve()
    if place.exists() and not place.is_dir():
        raise RtnbError(f"{place} is a file, not a folder").with_hint("Choose another folder with --directory.")
    copied = _read_manifest(place)
    added, updated, kept = list[str](), list[str](), list[str]()
    for original in sorted(source.rglob("*")):
        relative = original.relative_to(source)
        if not original.is_file() or any(part.startswith((".", "__")) for part in relative.parts):
            continue
        name, data = relative.as_posix(), original.read_bytes()
        target, wanted = place / name, _digest(data)
        found = _digest(target.read_bytes()) if target.is_file() else ""
        if target.exists() and found not in (wanted, copied.get(name)):
            kept.append(name)
            continue
        if found != wanted:
            (updated if target.exists() else added).append(name)
            _write(target, data)
        copied[name] = wanted
    _write(place / _MANIFEST, json.dumps(copied, indent=1, sort_keys=True).encode())
    return WorkingCopy(place, tuple(added), tuple(updated), tuple(kept))


def hub_address(copy: WorkingCopy, environ: Mapping[str, str]) -> str | None:
    """Return the address of the copy on the JupyterHub that runs this process, as a URL or a path on the hub.

    None outside JupyterHub; "" if the hub's server cannot see the folder. The server's folder is `JUPYTERHUB_ROOT_DIR`,
    or the home folder if that is not set.
    """
    if not (base := environ.get("JUPYTERHUB_PUBLIC_URL") or environ.get("JUPYTERHUB_SERVICE_PREFIX")):
        return None
    root = Path(environ.get("JUPYTERHUB_ROOT_DIR") or Path.home()).expanduser().resolve()
    if not copy.path.is_relative_to(root):
        return ""
    return f"{base.rstrip('/')}/lab/tree/{quote((copy.path / copy.start).relative_to(root).as_posix())}"


def tunnel(port: int, environ: Mapping[str, str]) -> str | None:
    """Return the command that forwards `port` to the client of this SSH session; None outside SSH."""
    ends = environ.get("SSH_CONNECTION", "").split()  # client's address and port, then the server's
    if len(ends) != 4:
        return None
    other = "" if ends[3] == "22" else f" -p {ends[3]}"
    return f"ssh -N -L {port}:localhost:{port}{other} {environ.get('USER') or 'YOU'}@{ends[2]}"


def serve(
    copy: WorkingCopy, *, port: int, browser: bool, extra: Sequence[str], ready: Callable[[str, int], None]
) -> int:
    """Run JupyterLab in this process until SIGINT (Ctrl-C) or SIGTERM; its kernels stop with it.

    Parameters
    ----------
    copy : WorkingCopy
        The folder to open, at its start.
    port : int
        First port to try; JupyterLab takes another one if it is taken. 0 takes any.
    browser : bool
        Open the page; otherwise JupyterLab prints the address.
    extra : sequence of str
        More of JupyterLab's options; they override ours.
    ready : callable
        Called with the address (without the token) and the port once the server answers.

    Returns
    -------
    int
        JupyterLab's exit code.
    """
    # Run kernels in this environment, even if the user has installed a `python3` kernel of another Python.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    from jupyterlab.labapp import LabApp

    arguments = [
        f"--ServerApp.root_dir={copy.path}",
        f"--ServerApp.port={port}",
        "--ServerApp.answer_yes=True",  # one Ctrl-C ends it
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",  # works offline and asks nothing
        "--log-level=WARN",
        *([f"--LabApp.default_url=/lab/tree/{quote(copy.start)}"] if copy.start else []),
        *([] if browser else ["--no-browser"]),
        # For containers; the server listens on loopback and requires its token.
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]
    # Without a terminal JupyterLab does not handle SIGINT: the loop would break and its kernels live on (measured).
    signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        server = LabApp.initialize_server([*arguments, *extra])
        address = f"http://localhost:{server.port}{server.base_url}lab"
        server.io_loop.add_callback(lambda: ready(address, server.port))
        server.start()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}.half")  # if this process is stopped here, no notebook is torn
    half.write_bytes(data)
    half.replace(target)


def _read_manifest(place: Path) -> dict[str, str]:
    try:
        copied = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # without a readable manifest every file counts as the user's
    return copied if isinstance(copied, dict) else {}
