"""Command `rtnb lab`: a working copy that keeps edits, a free port, a clean end."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rtnb._lab import WorkingCopy, hub_address, originals, tunnel, working_copy
from rtnb.cli import main, parser


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "originals"
    (folder / "sound").mkdir(parents=True)
    (folder / "01-first.ipynb").write_text("first, as shipped")
    (folder / "sound" / "hello.wav").write_bytes(b"RIFF")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "01-first.ipynb").write_text("not copied")
    return folder


def _contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_first_copy_holds_every_file_but_hidden_ones_and_a_second_changes_nothing(
    source: Path, tmp_path: Path
) -> None:
    copy = working_copy(source, tmp_path / "new" / "work")
    assert copy.added == ("01-first.ipynb", "sound/hello.wav")
    assert _contents(copy.path) == {"01-first.ipynb": "first, as shipped", "sound/hello.wav": "RIFF"}
    assert working_copy(source, copy.path) == WorkingCopy(copy.path)


def test_edits_are_kept_new_notebooks_are_added_others_are_updated(source: Path, tmp_path: Path) -> None:
    work = working_copy(source, tmp_path / "work").path
    (work / "01-first.ipynb").write_text("mine")
    (work / "own.ipynb").write_text("mine too")
    (source / "01-first.ipynb").write_text("first, second edition")
    (source / "02-second.ipynb").write_text("second")
    (source / "sound" / "hello.wav").write_bytes(b"RIFX")

    copy = working_copy(source, work)

    assert (copy.added, copy.updated, copy.kept) == (("02-second.ipynb",), ("sound/hello.wav",), ("01-first.ipynb",))
    assert _contents(work) == {
        "01-first.ipynb": "mine",
        "02-second.ipynb": "second",
        "own.ipynb": "mine too",
        "sound/hello.wav": "RIFX",
    }
    assert str(copy) == f"{work} (1 added, 1 updated, 1 of yours kept)"


def test_a_kept_notebook_stays_kept_however_often_the_original_changes(source: Path, tmp_path: Path) -> None:
    before = _contents(source)
    work = working_copy(source, tmp_path / "work").path
    (work / "01-first.ipynb").write_text("mine")
    working_copy(source, work)
    assert _contents(source) == before, "the originals are never written"
    for edition in ("second", "third"):
        (source / "01-first.ipynb").write_text(edition)
        assert working_copy(source, work).kept == ("01-first.ipynb",)
    assert (work / "01-first.ipynb").read_text() == "mine"


def test_without_a_readable_manifest_every_file_counts_as_the_users(source: Path, tmp_path: Path) -> None:
    work = working_copy(source, tmp_path / "work").path
    (work / ".rtnb-originals.json").write_text("{torn")
    (source / "01-first.ipynb").write_text("second edition")

    assert working_copy(source, work).kept == ("01-first.ipynb",)


def test_from_a_checkout_the_originals_are_its_notebooks() -> None:
    assert originals() == Path(__file__).resolve().parent.parent / "notebooks"


def test_a_port_must_be_a_port(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["lab", "--port", "70000"])
    assert "0 to 65535" in capsys.readouterr().err


def test_options_after_a_double_dash_go_to_jupyterlab() -> None:
    options = parser().parse_args(["lab", "--no-browser", "--", "--ServerApp.ip=0.0.0.0"])
    assert options.jupyter == ["--ServerApp.ip=0.0.0.0"]
    assert options.no_browser


def test_it_opens_the_start_notebook_else_the_first(source: Path, tmp_path: Path) -> None:
    assert WorkingCopy(tmp_path).start == ""
    assert working_copy(source, tmp_path / "work").start == "01-first.ipynb"
    (source / "00_start_here.ipynb").write_text("start")
    (source / "00_a_note.ipynb").write_text("not the start")
    assert working_copy(source, tmp_path / "work").start == "00_start_here.ipynb"


def test_on_a_jupyterhub_it_starts_no_server_and_prints_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    monkeypatch.setenv("JUPYTERHUB_ROOT_DIR", str(tmp_path))
    monkeypatch.delenv("JUPYTERHUB_PUBLIC_URL", raising=False)
    assert main(["lab", "--directory", str(tmp_path / "my work")]) == 0
    printed = capsys.readouterr().out
    assert "/user/ada/lab/tree/my%20work/0" in printed
    assert "-m ipykernel install --user" in printed
    assert any((tmp_path / "my work").glob("*.ipynb"))


def test_the_address_on_a_jupyterhub_depends_on_the_servers_folder(tmp_path: Path) -> None:
    copy = WorkingCopy(tmp_path.resolve())
    root = {"JUPYTERHUB_ROOT_DIR": str(tmp_path)}
    public = {"JUPYTERHUB_PUBLIC_URL": "https://hub.test/u/a/", **root}
    assert hub_address(copy, public) == "https://hub.test/u/a/lab/tree/."
    elsewhere = {"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/", "JUPYTERHUB_ROOT_DIR": str(tmp_path / "other")}
    assert hub_address(copy, elsewhere) == ""
    assert hub_address(copy, root) is None


def test_over_ssh_it_prints_the_forwarding_command() -> None:
    assert tunnel(8888, {}) is None
    assert tunnel(8888, {"SSH_CONNECTION": "10.0.0.1 4000 10.0.0.2 22", "USER": "ada"}) == (
        "ssh -N -L 8888:localhost:8888 ada@10.0.0.2"
    )
    assert tunnel(80, {"SSH_CONNECTION": "::1 4000 ::2 2222"}) == "ssh -N -L 80:localhost:80 -p 2222 YOU@::2"


def test_an_error_is_printed_with_the_next_step_and_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["lab", "--directory", str(tmp_path / "file")]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("rtnb lab: ")
    assert "is a file, not a folder" in printed
    assert printed.endswith("\n  Choose another folder with --directory.\n")


def test_help_names_every_command() -> None:
    done = subprocess.run([sys.executable, "-m", "rtnb", "--help"], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in ("lab", "simulate", "doctor"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_stops_the_server_and_its_kernels(name: str, tmp_path: Path) -> None:
    from tests.browser.lab import Lab

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lab = Lab(tmp_path, arguments=["--port", str(port)]).start()
        kernel: Any = lab.post("api/kernels", {"name": "python3"})
        assert lab.stop(by=signal.Signals[name]) == 0

    assert f"Port {port} is taken; using " in lab.log()
    assert re.search(r"Serving http://localhost:\d+/lab \d+\.\d s after the command", lab.log())
    assert not list((tmp_path / "runtime").glob(f"kernel-{kernel['id']}.json"))
    assert not lab.processes_left()
