"""Command `rtnb doctor`: missing packages and settings, the next steps, and no value of a setting."""

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from rtnb._doctor import SETTINGS, Check, Report, doctor
from rtnb.cli import main
from rtnb.simulator import parts, transcriber
from rtnb.transport.services import AZURE_VARIABLES
from rtnb.vad import semantic

KEY = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings, and a working folder without a .env."""
    for name in {*SETTINGS, *(name for names in AZURE_VARIABLES.values() for name in names)}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def _row(report: Report, what: str) -> Check:
    (check,) = [check for check in report.checks if check.what == what]
    return check


def test_a_working_installation_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--offline"]) == 0
    assert capsys.readouterr().out.endswith("All is well.\n")


def test_it_checks_everything_that_can_be_missing() -> None:
    report = doctor()
    checked = {check.what for check in report.checks}
    assert {"Python", "rtnb", "ipykernel", "numpy", "kernel", "voice espeak", "WebRTC", "service", *SETTINGS} <= checked
    assert _row(report, "service").standing == "note"
    assert [check for check in report.checks if check.standing != "ok" and not check.advice] == []


def _configure(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", endpoint)
    monkeypatch.setenv("AZURE_OPENAI_DEPLOYMENT_NAME", "voice")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)


def test_a_deployment_is_needed_with_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://example.openai.azure.com")
    report = doctor(service=False)
    assert not report.ok
    assert _row(report, "AZURE_OPENAI_DEPLOYMENT_NAME").standing == "do"
    assert _row(report, "AZURE_OPENAI_API_KEY").standing == "note"  # Entra ID needs none


def test_no_value_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {name: f"value-of-{name.lower()}.example" for name in SETTINGS}
    for name in list(SETTINGS)[:3]:
        monkeypatch.setenv(name, values[name])
    (tmp_path / ".env").write_text("\n".join(f"{name}={values[name]}" for name in list(SETTINGS)[3:]))

    report = doctor(service=False)

    assert [_row(report, name).found for name in SETTINGS] == ["set"] * 3 + ["set in .env"] * 2
    shown = f"{report}{report!r}{report._repr_html_()}{report.checks!r}"
    assert not any(value in shown for value in values.values())


def test_older_names_of_settings_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://example.openai.azure.com")
    monkeypatch.setenv("AZURE_OPENAI_DEPLOYMENT", "voice")
    report = doctor(service=False)
    assert report.ok
    assert _row(report, "AZURE_OPENAI_DEPLOYMENT_NAME").found == "set as AZURE_OPENAI_DEPLOYMENT"


@pytest.mark.parametrize("endpoint", ["my-resource", "https://my-resource/", " my-resource"])
@pytest.mark.parametrize("in_file", [False, True])
def test_the_name_of_a_resource_is_refused_as_an_endpoint_before_connecting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endpoint: str, in_file: bool
) -> None:
    _configure(monkeypatch, "" if in_file else endpoint)
    if in_file:
        (tmp_path / ".env").write_text(f'AZURE_OPENAI_ENDPOINT="{endpoint}"')
    report = doctor()
    row, service = _row(report, "AZURE_OPENAI_ENDPOINT"), _row(report, "service")
    assert (row.standing, service.standing) == ("do", "do")
    assert row.found == f"set{' in .env' * in_file}, but to a name without a domain"
    assert "https://NAME.openai.azure.com" in row.advice
    assert service.found.startswith("not tried")
    assert "my-resource" not in str(report)


@pytest.mark.parametrize(
    "first_event, standing, found",
    [
        ('{"type": "session.created", "session": {}}', "ok", "opened a session"),
        ('{"type": "error", "error": {"code": "DeploymentNotFound"}}', "do", "DeploymentNotFound"),
    ],
)
async def test_a_service_is_judged_by_its_first_event(
    monkeypatch: pytest.MonkeyPatch, first_event: str, standing: str, found: str
) -> None:
    async def greet(connection: ServerConnection) -> None:
        await connection.send(first_event)
        await connection.wait_closed()

    async with serve(greet, "127.0.0.1", 0) as server:
        _configure(monkeypatch, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        check = _row(await asyncio.to_thread(doctor), "service")
    assert check.standing == standing
    assert found in check.found
    assert KEY not in check.found


async def test_a_service_that_does_not_listen_is_reported_with_advice(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    _configure(monkeypatch, f"http://127.0.0.1:{unused_tcp_port}")
    check = _row(await asyncio.to_thread(doctor), "service")
    assert check.standing == "do"
    assert "ConnectError" in check.found
    assert check.advice


def test_an_outdated_package_and_a_missing_one_are_named() -> None:
    """Run the command with the metadata of an old ipykernel and without those of anywidget."""
    code = """
import importlib.metadata as metadata
import sys
real = metadata.version
def version(name):
    if name == "anywidget":
        raise metadata.PackageNotFoundError(name)
    return "7.0.1" if name == "ipykernel" else real(name)
metadata.version = version
from rtnb.cli import main
from rtnb.transport.services import AZURE_VARIABLES
sys.exit(main(["doctor", "--offline"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "7.0.1, needed: " in done.stdout
    assert 'python -m pip install --upgrade "anywidget>=' in done.stdout
    assert done.stdout.endswith("2 things to do.\n")


@pytest.mark.parametrize("variable, standing", [("", "ok"), ("VSCODE_PID", "note"), ("COLAB_RELEASE_TAG", "note")])
def test_a_page_without_a_microphone_has_another_way(
    monkeypatch: pytest.MonkeyPatch, variable: str, standing: str
) -> None:
    for name in ("VSCODE_PID", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    (row,) = (check for check in doctor(service=False).checks if check.what == "microphone")
    assert (row.standing, "rtnb.Microphone" in row.advice) == (standing, standing == "note")


def test_html_is_escaped() -> None:
    report = Report((Check("<b>what</b>", "do", "<script>found</script>", "a & b"),))
    html = report._repr_html_()
    assert "<b>" not in html
    assert "<script>" not in html
    assert "a &amp; b" in html


def test_in_a_notebook_actions_come_first_and_the_rest_is_folded_away() -> None:
    rows = [("well", "ok", ""), ("voice", "note", "python -m pip install x"), ("key", "do", "Set it.")]
    html = Report(tuple(Check(what, standing, "", advice) for what, standing, advice in rows))._repr_html_()  # type: ignore[arg-type]
    places = [html.index(text) for text in ("1 thing to do.", "key", "voice", "<details", "well<")]
    assert places == sorted(places)
    assert "Set it." in html
    assert "%pip install x   (in a cell, then restart the kernel)" in html


def test_the_table_lines_up() -> None:
    report = Report((Check("a", "ok", "1"), Check("longer", "note", "2", "do this")))
    assert str(report) == "ok    a       1\nnote  longer  2\n              → do this\n\nAll is well."


def test_the_parts_of_the_simulator_are_listed_with_the_way_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ["voice espeak", "voice neural", "transcriber whisper", "turn detector smart-turn"]
    names += ["responder chat", "WebRTC"]
    modules = ("espeakng_loader", "hibari", "faster_whisper", "onnxruntime", "openai", "aiortc")
    real = importlib.util.find_spec
    for module in (parts, transcriber, semantic):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name in modules else real(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    report = doctor(service=False)
    rows = [_row(report, name) for name in names]
    assert [row.standing for row in rows] == ["note"] * 6
    extras = [row.advice.split('"')[1] for row in rows]
    assert extras == ["rtnb[sim]", "rtnb[local]", "rtnb[local]", "pipecat-ai", "rtnb[local]", "rtnb[sim]"]
    assert "RTNB_WHISPER=FOLDER" in rows[2].advice
    assert "RTNB_SMART_TURN=FILE" in rows[3].advice


def test_weights_named_by_a_variable_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    monkeypatch.setenv("RTNB_SMART_TURN", str(tmp_path / "model.onnx"))
    row = _row(doctor(service=False), "turn detector smart-turn")
    assert (row.standing, row.found) == ("ok", str(tmp_path / "model.onnx"))
