"""Presets: saved, shared, compared; and the settings as code that runs."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

import rtnb
from rtnb.errors import RtnbError
from rtnb.protocol.service.schema import check_session
from rtnb.transport import TargetFacts
from rtnb.widgets.code_export import LANGUAGES, CodeExport, code
from rtnb.widgets.panel import Preset, SettingsPanel
from tests.widgets.page import eventually

EAGER = Preset("eager", {"instructions": "Be quick.", "audio.input.turn_detection.silence_duration_ms": 100})
HOSTILE = "It's \"quoted\"\nJSON\n'''\\ $(rm -rf ~) `x` ${y} </script> \u2028"

SETTINGS = {
    "instructions": HOSTILE,
    "output_modalities": ["text"],
    "audio.output.voice": "cedar",
    "audio.input.turn_detection.type": "server_vad",
    "audio.input.turn_detection.silence_duration_ms": 300,
    "audio.input.transcription.model": "whisper-1",
    "audio.input.noise_reduction": {"type": "near_field"},
}


def test_a_preset_is_a_file_that_can_be_shared(tmp_path: Path) -> None:
    path = Preset("../../very: eager", EAGER.settings).save(tmp_path / "presets")
    assert path.parent == tmp_path / "presets"
    assert Preset.load(path).settings == EAGER.settings
    assert json.loads(path.read_text())["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 100


def test_two_presets_are_compared_setting_by_setting() -> None:
    other = Preset("patient", {"instructions": "Be quick.", "audio.input.turn_detection.silence_duration_ms": 900})
    table = EAGER.diff(other)
    assert list(table.columns) == ["eager", "patient"]
    assert table.loc["audio.input.turn_detection.silence_duration_ms"].tolist() == [100, 900]
    assert len(table) == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rtnb_preset": 9, "name": "x", "session": {}}', '{"rtnb_preset": 1}']
)
def test_what_is_no_preset_is_refused_in_words(text: str) -> None:
    with pytest.raises(RtnbError, match="preset"):
        Preset.from_json(text)


@pytest.fixture
async def panel(session: rtnb.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SettingsPanel:
    """A panel of a session, with its presets in an empty folder."""
    monkeypatch.chdir(tmp_path)
    panel = SettingsPanel(session)
    await eventually(lambda: panel.updater.effective)
    return panel


def click(panel: SettingsPanel, text: str) -> None:
    """Click a button of the presets."""
    (row,) = [child for child in panel.presets.children if isinstance(child, ipywidgets.HBox)]
    next(button for button in row.children if button.description == text).click()


async def test_presets_set_the_knobs_of_a_panel(session: rtnb.Session, panel: SettingsPanel) -> None:
    panel.presets.name.value = "as it was"
    click(panel, "Save settings")
    assert Path("presets/as it was.json").is_file()
    panel.turn_detection.type, panel.instructions.text = "none", "Be slow."
    await panel.updater.apply()
    assert session.config.turn_detection is None

    panel.presets.text.value = Path("presets/as it was.json").read_text()
    click(panel, "Use preset")
    await panel.updater.apply()
    assert isinstance(session.config.turn_detection, rtnb.ServerVad)
    panel.presets.text.value = EAGER.to_json()
    assert "silence_duration_ms" in panel.presets._message.value
    click(panel, "Use preset")
    await panel.updater.apply()
    assert session.config.turn_detection.silence_duration_ms == 100
    assert session.config.instructions == "Be quick."


async def test_a_chosen_preset_and_its_difference_are_shown_as_text(panel: SettingsPanel) -> None:
    strange = Preset("of somebody else", {"instructions": "<img src=x onerror=alert(1)>"})
    strange.save("presets")
    panel.presets._list()
    panel.presets.name.value = strange.name
    assert Preset.from_json(panel.presets.text.value) == strange
    assert "<img" not in panel.presets._message.value
    assert "&lt;img" in panel.presets._message.value


@pytest.mark.parametrize(
    "text, error",
    [("nonsense", "not a preset"), (Preset("x", {"audio.output.speed": "fast"}).to_json(), "Speed cannot be fast")],
)
async def test_a_preset_that_cannot_be_used_shows_the_reason(panel: SettingsPanel, text: str, error: str) -> None:
    panel.presets.text.value = text
    click(panel, "Use preset")
    assert error in panel.presets._message.value
    assert 'role="alert"' in panel.presets._message.value


# --- code -------------------------------------------------------------------------------------------------------------

AZURE = TargetFacts(
    "azure", "ga", "wss://res.openai.azure.com/openai/v1/realtime?model=my-voice", "my-voice", "api-key"
)
OPENAI = TargetFacts("openai", "ga", "wss://api.openai.com/v1/realtime?model=gpt-realtime", "gpt-realtime")


@pytest.mark.parametrize("facts", [AZURE, OPENAI, TargetFacts(service="simulator", url="ws://127.0.0.1:1/v1/realtime")])
@pytest.mark.parametrize("language", ["rtnb", "openai (Python)"])
def test_python_code_compiles_whatever_the_instructions_say(language: str, facts: TargetFacts) -> None:
    source = code(language, SETTINGS, facts)
    compile(source, "<code>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert repr(HOSTILE)[1:12] in source


def update_in(script: str) -> Any:
    """The update that a JavaScript program sends."""
    return json.loads(script.partition("const update = ")[2].partition(";\nsocket.on")[0])


def test_the_json_in_javascript_and_curl_is_what_the_service_accepts() -> None:
    script = code("JavaScript", SETTINGS, AZURE)
    assert check_session(update_in(script)["session"], dialect="ga") is None
    assert 'headers = { "api-key": process.env.AZURE_OPENAI_API_KEY }' in script

    command = code("curl", SETTINGS, AZURE)
    body = json.loads(command.partition("<<'JSON'\n")[2].removesuffix("\nJSON"))
    assert body["session"]["instructions"] == HOSTILE
    assert check_session(body["session"], dialect="ga") is None
    assert 'curl -sS "https://res.openai.azure.com/openai/v1/realtime/client_secrets"' in command


def test_code_of_the_preview_speaks_the_preview() -> None:
    facts = TargetFacts("custom", "preview", "ws://localhost:8765/openai/realtime")
    update = update_in(code("JavaScript", SETTINGS, facts))
    assert update["session"]["turn_detection"]["silence_duration_ms"] == 300
    assert "only the GA dialect" in code("openai (Python)", SETTINGS, facts)
    assert 'dialect="preview"' in code("rtnb", SETTINGS, facts)


async def run_cell(source: str) -> dict[str, Any]:
    """Run code as a notebook cell does."""
    names: dict[str, Any] = {}
    await eval(compile(source, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    return names


def run_script(source: str, path: Path, **environment: str) -> str:
    """Run code as ``python FILE`` does, and return what it prints."""
    path.write_text(source, encoding="utf-8")
    options: Any = {"env": os.environ | environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([sys.executable, path], text=True, timeout=120, check=False, **options)
    assert done.returncode == 0, done.stdout
    return done.stdout


RUN = SETTINGS | {"instructions": 'Say "yes".'}


async def test_code_for_a_notebook_runs_as_it_is_and_gives_the_same_settings(
    simulator: rtnb.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (await run_cell(code("rtnb", RUN, TargetFacts(service="simulator"))))["session"].config
    assert (config.instructions, config.voice, config.output_modalities) == ('Say "yes".', "cedar", ("text",))
    assert config.turn_detection.silence_duration_ms == 300
    assert config.audio.input.transcription.model == "whisper-1"
    assert config.audio.input.noise_reduction.type == "near_field"

    monkeypatch.setenv("API_KEY", simulator.key)
    names = await run_cell(code("openai (Python)", RUN, simulator.facts))
    assert names["event"].type == "response.done"
    await names["client"].close()


def test_code_for_a_script_runs_as_it_is(simulator: rtnb.Simulator, tmp_path: Path) -> None:
    program = code("rtnb", RUN, TargetFacts(service="simulator"), "script")
    assert run_script(program, tmp_path / "talk.py").strip()
    program = code("openai (Python)", RUN, simulator.facts, "script")
    printed = run_script(program, tmp_path / "openai_talk.py", API_KEY=simulator.key)
    assert printed.split()[-1] == "response.done"


async def test_code_has_a_chosen_value_also_where_it_is_the_services_own(panel: SettingsPanel) -> None:
    await panel.updater.apply()
    assert "voice" not in panel.code.code
    own = panel.answer.voice
    panel.answer.voice, panel.turn_detection.create_response = own, False
    await panel.updater.apply()
    assert f"voice={own!r}" in panel.code.code
    assert "ServerVad(create_response=False)" in panel.code.code


def test_the_widget_writes_only_the_language_that_is_shown() -> None:
    export = CodeExport()
    assert export.code.startswith("Connect first")
    export.show(SETTINGS, AZURE)
    assert "rtnb.Azure.from_env" in export.code
    for language in LANGUAGES:
        export.language = language
        assert export.code == code(language, SETTINGS, AZURE)
        export.form = "script"
        assert export.code == code(language, SETTINGS, AZURE, "script")
        export.form = "notebook"
