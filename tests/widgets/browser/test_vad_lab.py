"""The VAD lab in a real JupyterLab: drag, click, apply, compare."""

from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser.cells import eventually, run

LAB = """
import rtnb
from rtnb.analysis.recordings import thinking_aloud
from rtnb.audio import babble
texts = ["one two three", "four and five", "a table for six", "at seven please"]
phrases = [babble(text, seed=k).audio for k, text in enumerate(texts)]
turns = thinking_aloud(phrases, rate_hz=24_000, n_turns=12, seed=1)
playground = rtnb.Playground(rtnb.Simulator(latency="fast", voice="babble"))
lab = rtnb.VadLab(turns, session=playground)
lab
"""

COUNTED = """() => {
  window.n_drawn = 0;
  const next = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => next((at) => { draw(at); n_drawn += 1; });
}"""


OVERLAPS = """
from rtnb.analysis import Overlap
clips = []
for k, phrase in enumerate(phrases * 2):
    clips.append(Overlap(phrase, rate_hz=24_000, kind="interruption", group=str(k)))
    clips.append(Overlap(0.01 * phrase, rate_hz=24_000, kind="turn", group=str(k)))
    clips += Overlap.of_echo(phrase, rate_hz=24_000, levels_db=[-40], group=str(k // 4))
lab.close()
both = rtnb.VadLab(turns, session=playground, overlaps=clips)
both
"""


@pytest.fixture
async def notebook(open_notebook: Any) -> Any:
    """A lab of its own in a kernel that the tests share."""
    notebook = await open_notebook("lab.ipynb", cells=[LAB, "# overlaps", "# more"], keep=True)
    await notebook.run_all()
    await notebook.page.get_by_text("cut off in this recording").first.wait_for(timeout=20_000)
    return notebook


async def test_a_setting_is_dragged_and_seen_on_the_maps(notebook: Any) -> None:
    page = notebook.page
    canvas = page.get_by_role("application", name="Recording over time")
    threshold = page.locator(".rtnb-vad-lab").get_by_role("slider", name="Threshold")
    await expect(threshold).to_have_attribute("aria-valuenow", "0.5")

    # The line is dragged: the page draws at once, kernel and playground follow.
    box = await canvas.bounding_box()
    await page.mouse.move(box["x"] + 200, box["y"] + 74 + 46)
    await page.mouse.down()
    await page.evaluate(COUNTED)
    await page.mouse.move(box["x"] + 210, box["y"] + 74 + 92 * 0.3, steps=30)
    await page.mouse.up()
    assert await page.evaluate("n_drawn") >= 10
    await expect(threshold).to_have_attribute("aria-valuenow", "0.7")
    await eventually(notebook, "(lab.threshold, playground.turn_detection.threshold)", "(0.7, 0.7)")
    await threshold.focus()
    await page.keyboard.press("ArrowDown")
    await eventually(notebook, "lab.threshold", "0.69")
    await threshold.focus()
    await page.keyboard.press("ArrowUp")
    await eventually(notebook, "lab.threshold", "0.7")

    # A number in Python moves the page, the slider and the playground.
    await run(notebook, "lab.silence_duration_ms = 800")
    await eventually(notebook, "playground.turn_detection.silence_duration_ms", "800")
    await page.locator(".rtnb-vad-table td", has_text="%").first.wait_for()

    # The maps are pictures; another metric draws another one.
    await page.get_by_label("Map of").select_option("delay, P90")
    await page.get_by_role("img", name="Map of delay, P90").wait_for()


async def test_a_setting_is_applied_and_compared_with_the_service(notebook: Any) -> None:
    page = notebook.page
    await run(notebook, "lab.silence_duration_ms = 800")
    await page.get_by_role("button", name="Apply to session").click()
    await page.get_by_text("Effective: threshold").wait_for()
    printed = await run(
        notebook, "print(playground.session.config.turn_detection.silence_duration_ms, lab.silence_duration_ms)"
    )
    assert len(set(printed.split())) == 1
    found = await run(
        notebook, "found = await lab.compare(paced=50); print(found['n_service'], found['n_model'], found['n_matched'])"
    )
    service, model, matched = map(int, found.split())
    assert service == model == matched > 0, "the simulator is the local model"
    await page.get_by_text("are within 96 ms of the local model").first.wait_for()
    await notebook.picture("compared")


async def test_overlaps_are_seen_and_their_threshold_is_set_and_applied(notebook: Any) -> None:
    await run(notebook, OVERLAPS, cell=1)
    page = notebook.page
    view = page.locator(".rtnb-overlaps")
    await view.get_by_text("interruption 100 %").wait_for()
    await view.get_by_text("interval not shown; n = 8, 2 groups").wait_for()
    await run(notebook, "both.speaking_threshold = 0.9")
    await view.get_by_text("at 0.90 ●").wait_for()
    await page.get_by_role("slider", name="Threshold ●").focus()
    await page.keyboard.press("ArrowRight")
    await eventually(notebook, "both.speaking_threshold", "0.95")
    await page.get_by_role("button", name="Apply to session").click()
    await page.get_by_text("Effective: threshold").wait_for()
    await notebook.picture("overlaps")
    await run(notebook, "answer = await playground.session.ask('What is a delta?')")
    sent = "'0.95' in str([row.event for row in playground.session.log.filter('session.update')])"
    await eventually(notebook, sent, "True")
    await run(notebook, "both.close()")
