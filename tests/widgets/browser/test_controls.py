"""The knobs in a real JupyterLab: clicking, typing, the keyboard; checked on the page, in Python, and on the wire."""

import json
import re
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from rtnb.widgets._settings_update import DEBOUNCE_S
from tests.browser.cells import eventually, run

SESSION = """
import rtnb
from rtnb.widgets.panel import SettingsPanel
from rtnb.widgets.settings import TurnDetectionControl
from rtnb.widgets.connection import ConnectionControl
simulator = rtnb.Simulator(latency='fast', voice='babble').start()
session = await rtnb.connect(simulator)
"""
PANEL = "panel = SettingsPanel(session, facts=simulator.facts)\npanel"
RECONNECT = """
import asyncio
from rtnb.protocol import wire
from rtnb.tuning.updates import nested
def reconnect():
    asyncio.get_running_loop().create_task(reopen(panel.chosen))
async def reopen(settings):
    panel.updater.attach(await rtnb.connect(simulator, config=wire.decode_session(nested(settings))))
"""
NOTE = """
import json, time
changed = []
knobs.observe(lambda change: changed.append(time.monotonic()), "silence_duration_ms")
"""
TELL = "print(json.dumps([len(session.log.filter('session.update')), changed]))"
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"></textarea><script>document.title='owned'</script> $$x$$ \u202eRTL"
)

Opened = Callable[..., Awaitable[Any]]


class Panel:
    """A notebook with knobs in it."""

    def __init__(self, notebook: Any) -> None:
        self.notebook = notebook
        self.page = notebook.page

    def find(self, selector: str, **options: Any) -> Any:
        return self.page.locator(f".jp-OutputArea {selector}", **options)

    async def fold(self, title: str) -> None:
        await self.find(".lm-AccordionPanel-title, .jupyter-widget-Collapse-header", has_text=title).click()

    async def python(self, source: str) -> str:
        """Run code in the last cell and return what it prints."""
        return await run(self.notebook, source)

    async def eventually(self, expression: str, expected: str) -> None:
        """Wait until an expression of Python has a value."""
        await eventually(self.notebook, expression, expected)


@pytest.fixture
def panel(open_notebook: Any) -> Opened:
    """Run a session's cell and one that shows knobs."""

    async def opened(name: str, *, cell: str = PANEL) -> Panel:
        notebook = await open_notebook(name, cells=[SESSION, cell, "# more"], keep=True)
        outputs = await notebook.run_all()
        assert not any(output.error for output in outputs), outputs
        return Panel(notebook)

    return opened


async def test_a_slider_by_keyboard_and_a_trait_by_code_are_the_same_knob(panel: Opened) -> None:
    knobs = await panel("slider.ipynb", cell="knobs = TurnDetectionControl(session)\nknobs")
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


async def test_choosing_push_to_talk_hides_what_it_has_not(panel: Opened) -> None:
    knobs = await panel("choose.ipynb", cell="knobs = TurnDetectionControl(session)\nknobs")
    choice = knobs.find(".widget-dropdown", has_text="Turn detection").locator("select")
    await choice.select_option("Push to talk (none)")
    await expect(knobs.find(".widget-slider")).to_have_count(0)
    await knobs.eventually("session.config.turn_detection", "None")
    await choice.select_option("Meaning (semantic_vad)")
    await expect(knobs.find(".widget-dropdown", has_text="Eagerness")).to_have_count(1)
    await knobs.eventually("getattr(session.config.turn_detection, 'type', '')", "semantic_vad")
    await knobs.find(".widget-checkbox", has_text="Allow interruptions").locator("input").uncheck()
    await knobs.eventually("session.config.turn_detection.interrupt_response", "False")


async def test_a_preset_of_turn_detection_by_keyboard(panel: Opened) -> None:
    knobs = await panel("turn_presets.ipynb", cell="knobs = TurnDetectionControl(session)\nknobs")
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


async def test_rows_have_their_place_whatever_their_status(panel: Opened) -> None:
    cell = f"{PANEL}.updater.on_reconnect = lambda: None\nimport ipywidgets\n"
    cell += "ipywidgets.VBox([panel.settings_tab, panel.turn_detection], layout={'width': '400px'})"
    knobs = await panel("rows.ipynb", cell=cell)
    await knobs.python("_ = await session.ask('Hello!')")
    before = await knobs.page.evaluate(ROWS)
    assert not any(cut for _, _, cut in before), "a help text is cut"
    heights = [height for _, height, _ in before]
    assert {28, 16} <= set(heights)
    await knobs.python("panel.answer.voice = 'cedar'; await panel.updater.apply()")
    await knobs.python("panel.turn_detection.threshold = 0.7; await panel.updater.apply()")
    note = knobs.find(".rtnb-note[data-status=refused]")
    await expect(note).to_have_text("refused: fixed after the first answer")
    await expect(knobs.find(".rtnb-note-row button")).to_have_text("Reconnect with this voice")
    assert await knobs.page.evaluate(ROWS) == before


async def test_hostile_instructions_change_nothing_but_text(panel: Opened) -> None:
    knobs = await panel("hostile.ipynb")
    title = await knobs.page.title()
    editor = knobs.find("textarea").first
    await editor.fill(HOSTILE)
    await expect(knobs.find(".rtnb-note", has_text="Draft: not applied yet")).to_have_count(1)
    await knobs.find("button", has_text="Apply instructions").click()
    await knobs.eventually("session.config.instructions", HOSTILE)
    await knobs.fold("Code")
    await expect(knobs.find(".rtnb-code textarea")).to_have_value(re.compile("<script>document.title"))
    await expect(knobs.find("img, .MathJax, mjx-container")).to_have_count(0)
    assert await editor.input_value() == HOSTILE
    assert await knobs.page.title() == title

    await knobs.fold("Settings")
    await knobs.find("button", has_text="Restore the service's own").click()
    await expect(editor).to_have_value(re.compile("helpful assistant of the rtnb simulator"))


async def test_a_refusal_is_explained_beside_the_knob(panel: Opened, pictures: Path) -> None:
    knobs = await panel("refused.ipynb")
    await knobs.python("_ = await session.ask('Hello!')")
    voice = knobs.find(".widget-dropdown", has_text="Voice").locator("select")
    await voice.select_option("cedar")
    note = knobs.find(".rtnb-note[data-status=refused]")
    await expect(note).to_have_text("refused: fixed after the first answer")
    await expect(note).to_have_attribute("title", re.compile("Requested cedar; refused: cannot_update_voice"))
    await expect(voice).to_have_value(await knobs.python("print(session.config.voice)"))
    limit = knobs.find(".widget-text", has_text="Max output tokens").locator("input")
    await limit.fill("9999999")
    await knobs.page.keyboard.press("Enter")
    await expect(note.last).to_contain_text("integer above maximum value")
    await expect(limit).to_have_value("inf")
    await knobs.notebook.picture("refused")


async def test_a_click_on_reconnect_opens_a_session_with_the_refused_voice(panel: Opened) -> None:
    knobs = await panel("reconnect.ipynb", cell=f"{RECONNECT}{PANEL}")
    await knobs.python("panel.updater.on_reconnect = reconnect; _ = await session.ask('Hello!')")
    await knobs.find(".widget-dropdown", has_text="Voice").locator("select").select_option("cedar")
    await knobs.find("button", has_text="Reconnect with this voice").click()
    await knobs.eventually("panel.updater.session.config.voice", "cedar")
    await expect(knobs.find(".rtnb-note[data-status=refused]")).to_have_count(0)


async def test_presets_and_code_by_clicking(panel: Opened, pictures: Path) -> None:
    knobs = await panel("presets.ipynb")
    await knobs.find("input[placeholder='Type or choose a name']").fill("as it was")
    await knobs.page.keyboard.press("Enter")
    await knobs.find("button", has_text="Save settings").click()
    shared = knobs.find("textarea[placeholder*=JSON]")
    await expect(shared).to_have_value(re.compile("rtnb_preset"))
    assert (knobs.notebook.lab.directory / "presets" / "as it was.json").is_file()
    await knobs.python("panel.turn_detection.threshold = 0.9; await panel.updater.apply()")
    await knobs.find("button", has_text="Use preset").click()
    await knobs.eventually("session.config.turn_detection.threshold", "0.5")
    await shared.fill("nonsense")
    await knobs.find("button", has_text="Use preset").click()
    await expect(knobs.find("[role=alert]")).to_contain_text("not a preset")
    await knobs.notebook.picture("presets")

    await knobs.python("panel.answer.voice = 'sage'; await panel.updater.apply()")
    await knobs.fold("Code")
    code, (language, form) = knobs.find(".rtnb-code textarea"), [knobs.find(".rtnb-code select").nth(i) for i in (0, 1)]
    await expect(code).to_have_value(re.compile("voice='sage'"))
    await form.select_option("script")
    await expect(code).to_have_value(re.compile(r"asyncio\.run\(main\(\)\)"))
    await language.select_option("curl")
    await expect(code).to_have_value(re.compile("client_secrets"))
    await knobs.notebook.picture("code")


async def test_the_connection_counts_down_and_disconnects(panel: Opened) -> None:
    knobs = await panel("connection.ipynb", cell="connection = ConnectionControl(session)\nconnection")
    await expect(knobs.find(".rtnb-connection-target")).to_have_text("rtnb-simulator · GA · WebSocket")
    timer = knobs.find(".rtnb-connection [role=timer]")
    await expect(timer).to_have_text(re.compile("^59:"))
    first = await timer.inner_text()
    await expect(timer).not_to_have_text(first)
    await knobs.find("button", has_text="Disconnect").click()
    await expect(knobs.find(".rtnb-connection[data-state=closed]")).to_have_count(1)
    assert await knobs.python("print(session.closed, connection.state)") == "True closed"
