"""Presets: kept, shared, compared; and the settings as code that runs."""

from __future__ import annotations

import ast
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

import rtnb
from rtnb.errors import RtnbError
from rtnb.protocol.service.schema import check_session
from rtnb.transport import TargetFacts
from rtnb.widgets.code_export import LANGUAGES, CodeExport, code
from rtnb.widgets.panel import SettingsPanel
from rtnb.widgets.presets import Preset
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


async def test_presets_turn_the_knobs_of_a_panel(tmp_path: Path) -> None:
    with rtnb.Simulator(latency="fast", voice="babble") as simulator:
        async with rtnb.connect(simulator) as session:
            panel = SettingsPanel(session)
            await eventually(lambda: panel.answer._confirmed)
            panel.presets._folder = tmp_path
            panel.presets.save("as it was")
            panel.turn_detection.type, panel.instructions.text = "none", "Be slow."
            await panel.apply()
            assert session.config.turn_detection is None

            panel.presets.load("as it was")
            await panel.apply()
            assert session.config.turn_detection.type == "server_vad"  # type: ignore[union-attr]
            panel.presets.use(EAGER.to_json())
            await panel.apply()
            assert session.config.turn_detection.silence_duration_ms == 100  # type: ignore[union-attr]
            assert session.config.instructions == "Be quick."

            panel.presets.text.value = "no preset"
            panel.presets._take.click()
            assert "this is no preset" in panel.presets._said.value
            panel.close()


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


def test_the_json_in_javascript_and_curl_is_what_the_service_accepts() -> None:
    script = code("JavaScript", SETTINGS, AZURE)
    update = json.loads(script.partition("const update = ")[2].partition(";\nsocket.on")[0])
    assert check_session(update["session"], dialect="ga") is None
    assert 'headers = { "api-key": process.env.AZURE_OPENAI_API_KEY }' in script

    command = code("curl", SETTINGS, AZURE)
    body = json.loads(command.partition("<<'JSON'\n")[2].removesuffix("\nJSON"))
    assert body["session"]["instructions"] == HOSTILE
    assert check_session(body["session"], dialect="ga") is None
    assert 'curl -sS "https://res.openai.azure.com/openai/v1/realtime/client_secrets"' in command


def test_code_of_the_preview_speaks_the_preview() -> None:
    facts = TargetFacts("custom", "preview", "ws://localhost:8765/openai/realtime")
    script = code("JavaScript", SETTINGS, facts)
    update = json.loads(script.partition("const update = ")[2].partition(";\nsocket.on")[0])
    assert update["session"]["turn_detection"]["silence_duration_ms"] == 300
    assert "only today's dialect" in code("openai (Python)", SETTINGS, facts)
    assert 'dialect="preview"' in code("rtnb", SETTINGS, facts)


async def run(source: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run code as a notebook cell does."""
    space: dict[str, Any] = dict(names or {})
    exec(f"async def cell():\n{textwrap.indent(source, '    ')}\n    return locals()", space)
    found: dict[str, Any] = await space["cell"]()
    return found


async def test_the_code_runs_and_gives_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {place: value for place, value in SETTINGS.items() if place != "instructions"}
    settings["instructions"] = 'Say "yes".'
    found = await run(code("rtnb", settings, TargetFacts(service="simulator")))
    config = found["session"].config
    assert (config.instructions, config.voice, config.output_modalities) == ('Say "yes".', "cedar", ("text",))
    assert config.turn_detection.silence_duration_ms == 300

    with rtnb.Simulator(latency="fast", voice="babble") as simulator:
        monkeypatch.setenv("API_KEY", simulator.key)
        found = await run(code("openai (Python)", settings, simulator.facts))
        assert found["event"].type == "response.done"
        await found["client"].close()


def test_the_widget_writes_only_the_language_that_is_shown() -> None:
    export = CodeExport()
    assert export.code == "Connect first."
    export.show(SETTINGS, AZURE)
    assert "rtnb.Azure.from_env" in export.code
    for language in LANGUAGES:
        export.language = language
        assert export.code == code(language, SETTINGS, AZURE)
    export.close()
