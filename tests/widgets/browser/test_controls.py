"""The knobs in a real JupyterLab: clicking, typing, the keyboard; checked on the page, in Python, and on the wire."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from rtnb.widgets._settings_update import DEBOUNCE_S
from tests.browser.cells import Driven

CELLS = [
    """
import rtnb
from rtnb.widgets.panel import SettingsPanel
simulator = rtnb.Simulator(latency='fast', voice='babble').start()
session = await rtnb.connect(simulator)
""",
    "panel = SettingsPanel(session, facts=simulator.facts)\nknobs = panel.turn_detection\npanel",
    "# more",
]
NOTE = """
import json, time
changed = []
knobs.observe(lambda change: changed.append(time.monotonic()), "silence_duration_ms")
"""
TELL = "print(json.dumps([len(session.log.filter('session.update')), changed]))"
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"></textarea><script>document.title='owned'</script> $$x$$ \u202eRTL"
)


class Panel(Driven):
    """A notebook with knobs in it."""

    def find(self, selector: str, **options: Any) -> Any:
        return self.page.locator(f".jp-OutputArea {selector}", **options)

    async def fold(self, title: str) -> None:
        await self.find(".lm-AccordionPanel-title, .jupyter-widget-Collapse-header", has_text=title).click()


@pytest.fixture
async def panel(open_notebook: Any) -> Panel:
    """A new session and its knobs."""
    notebook = await open_notebook("controls.ipynb", cells=CELLS, keep=True)
    await notebook.run_all()
    return Panel(notebook)


@pytest.fixture
async def knobs(panel: Panel) -> Panel:
    """The knobs of turn detection."""
    await panel.fold("Turn detection")
    return panel


async def test_a_slider_by_keyboard_and_a_trait_by_code_are_the_same_knob(knobs: Panel) -> None:
    slider = knobs.find(".widget-slider", has_text="Silence duration (ms)")
    await expect(slider.locator(".widget-readout")).to_have_text("200")
    await knobs.python(NOTE)
    handle = slider.locator(".noUi-handle")
    await expect(handle).to_have_attribute("aria-label", "Silence duration (ms)")
    await handle.focus()
    for _ in range(3):
        await knobs.page.keyboard.press("ArrowRight")
    await expect(slider.locator(".widget-readout")).to_have_text("230")
    await knobs.eventually("session.config.turn_detection.silence_duration_ms", "230")
    updates, changes_s = json.loads(await knobs.python(TELL))
    pauses = sum(later - earlier >= DEBOUNCE_S for earlier, later in pairwise(changes_s))
    assert 1 <= updates <= 1 + pauses, "what changes in quick succession goes out once"

    await knobs.python("knobs.silence_duration_ms = 900")
    await expect(slider.locator(".widget-readout")).to_have_text("900")
    await knobs.eventually("session.config.turn_detection.silence_duration_ms", "900")
    assert knobs.notebook.messages == []


async def test_choosing_push_to_talk_hides_what_it_has_not(knobs: Panel) -> None:
    choice = knobs.find(".widget-dropdown", has_text="Turn detection").locator("select")
    await choice.select_option("Push to talk (none)")
    await expect(knobs.find(".widget-slider:visible")).to_have_count(0)
    await knobs.eventually("session.config.turn_detection", "None")
    await choice.select_option("Meaning (semantic_vad)")
    await expect(knobs.find(".widget-dropdown", has_text="Eagerness")).to_have_count(1)
    await knobs.eventually("getattr(session.config.turn_detection, 'type', '')", "semantic_vad")
    await knobs.find(".widget-checkbox", has_text="Allow interruptions").locator("input").uncheck()
    await knobs.eventually("session.config.turn_detection.interrupt_response", "False")


async def test_a_preset_of_turn_detection_by_keyboard(knobs: Panel) -> None:
    quick, patient = (knobs.find(".rtnb-turn-presets button", has_text=name) for name in ("Quick", "Patient"))
    await expect(quick).to_have_attribute("aria-pressed", "true")  # the simulator's own values
    await patient.focus()
    await knobs.page.keyboard.press("Enter")
    await expect(patient).to_have_attribute("aria-pressed", "true")
    await expect(quick).to_have_attribute("aria-pressed", "false")
    await knobs.eventually("session.config.turn_detection.silence_duration_ms", "1000")
    await knobs.python("knobs.threshold = 0.7")
    await expect(patient).to_have_attribute("aria-pressed", "false")


ROWS = """() => [...document.querySelectorAll(".rtnb-control > *")].map((node) => {
  const note = node.querySelector(".rtnb-note");
  return [node.getBoundingClientRect().y - node.parentElement.getBoundingClientRect().y, node.offsetHeight,
    note !== null && note.scrollWidth > note.clientWidth];
})"""


async def test_a_refusal_is_explained_and_moves_nothing(panel: Panel, pictures: Path) -> None:
    await panel.python("panel.layout.width = '400px'; panel.updater.on_reconnect = lambda: None")
    await panel.python("_ = await session.ask('Hello!')")
    voice = panel.find(".widget-dropdown", has_text="Voice").locator("select")
    before = await panel.page.evaluate(ROWS)
    assert not any(cut for _, _, cut in before), "a help text is cut"
    assert {28, 16} <= {height for _, height, _ in before}
    await voice.select_option("cedar")
    note = panel.find(".rtnb-note[data-status=refused]")
    await expect(note).to_have_text("refused: fixed after the first answer")
    await expect(note).to_have_attribute("title", re.compile("Requested cedar; refused: cannot_update_voice"))
    await expect(voice).to_have_value(await panel.python("print(session.config.voice)"))
    await expect(panel.find(".rtnb-note-row button")).to_have_text("Reconnect with this voice")
    assert await panel.page.evaluate(ROWS) == before

    limit = panel.find(".widget-text", has_text="Max output tokens").locator("input")
    await limit.fill("9999999")
    await panel.page.keyboard.press("Enter")
    await expect(note.last).to_contain_text("integer above maximum value")
    await expect(limit).to_have_value("inf")
    await panel.notebook.picture("refused")


async def test_hostile_instructions_change_nothing_but_text(panel: Panel) -> None:
    title = await panel.page.title()
    editor = panel.find("textarea").first
    await editor.fill(HOSTILE)
    await expect(panel.find(".rtnb-note", has_text="Draft: not applied yet")).to_have_count(1)
    await panel.find("button", has_text="Apply instructions").click()
    await panel.eventually("session.config.instructions", HOSTILE)
    await panel.fold("Code")
    await expect(panel.find(".rtnb-code textarea")).to_have_value(re.compile("<script>document.title"))
    await expect(panel.find("img, .MathJax, mjx-container")).to_have_count(0)
    assert await editor.input_value() == HOSTILE
    assert await panel.page.title() == title

    await panel.fold("Settings")
    await panel.find("button", has_text="Restore the service's own").click()
    await expect(editor).to_have_value(re.compile("helpful assistant of the rtnb simulator"))


async def test_a_preset_is_saved_used_and_refused_by_clicking(panel: Panel) -> None:
    await panel.find("input[placeholder='Type or choose a name']").fill("as it was")
    await panel.page.keyboard.press("Enter")
    await panel.find("button", has_text="Save settings").click()
    shared = panel.find("textarea[placeholder*=JSON]")
    await expect(shared).to_have_value(re.compile("rtnb_preset"))
    assert (panel.notebook.lab.directory / "presets" / "as it was.json").is_file()
    await panel.python("panel.turn_detection.threshold = 0.9; await panel.updater.apply()")
    await panel.find("button", has_text="Use preset").click()
    await panel.eventually("session.config.turn_detection.threshold", "0.5")
    await shared.fill("nonsense")
    await panel.find("button", has_text="Use preset").click()
    await expect(panel.find("[role=alert]")).to_contain_text("not a preset")
    await panel.notebook.picture("presets")


async def test_the_code_is_that_of_the_settings_in_each_language(panel: Panel) -> None:
    await panel.python("panel.answer.voice = 'sage'; await panel.updater.apply()")
    await panel.fold("Code")
    code, (language, form) = panel.find(".rtnb-code textarea"), [panel.find(".rtnb-code select").nth(i) for i in (0, 1)]
    await expect(code).to_have_value(re.compile("voice='sage'"))
    await form.select_option("script")
    await expect(code).to_have_value(re.compile(r"asyncio\.run\(main\(\)\)"))
    await language.select_option("curl")
    await expect(code).to_have_value(re.compile("client_secrets"))
    await panel.notebook.picture("code")
