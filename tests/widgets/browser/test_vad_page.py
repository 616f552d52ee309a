"""`vad_lab.js` on a bare page: the recording by keyboard, maps, clips, and a layout that stays."""

from typing import Any

import pytest

from tests.widgets.bare_page import shown

STATE = {"threshold": 0.5, "recording": {}, "maps": [], "figures": {}, "service": []}
PICTURE = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='500' height='320'/>"
LEVELS = [[k / 100, max(k / 100 - 0.15, 0.01)] for k in range(101)]
SHOW = """([picture, levels]) => {
  const view = (numbers) => new DataView(numbers.buffer);
  model.set("maps", [{ alt: "Map of turns cut off", src: picture }, { alt: "Turns cut off over delay", src: picture }]);
  const marks = [{ left: "25.0%", bottom: "50.0%" }, null];
  model.set("figures", { segments: [[350, 1600], [1300, null]], cut_offs_ms: [1600], marks });
  const peaks = Int16Array.from({ length: 1500 }, (_, i) => (i % 2 ? 9000 : -9000));
  const p = Float32Array.from({ length: 94 }, (_, i) => (i > 20 && i < 40) || (i > 50 && i < 70) ? 0.9 : 0.1);
  model.set("recording", { bin_ms: 4, frame_ms: 32, duration_ms: 3000, levels, turns: [[650, 2250]],
    pauses: [[1300, 1600]], peaks: view(peaks), probabilities: view(p) });
  model.set("service", [[400, 1600]]);
}"""


@pytest.fixture
async def page(browser: Any) -> Any:
    """A lab with a recording of one turn, which is cut off."""
    page = await shown(browser, "vad_lab", STATE)
    page.set_default_timeout(8_000)
    await page.evaluate(SHOW, [PICTURE, LEVELS])
    await page.get_by_text("cut off in this recording: 1 of 1").wait_for()
    return page


async def played(page: Any) -> list[float]:
    return [message["play_ms"] for kind, message in await page.evaluate("sent") if kind == "message"]


async def test_a_map_is_a_picture_with_a_mark_at_the_shown_setting(page: Any) -> None:
    heat = page.get_by_role("img", name="Map of turns cut off")
    await page.wait_for_function("document.querySelector('.rtnb-vad-maps img').complete")
    box, mark = await heat.bounding_box(), await page.get_by_text("●").first.bounding_box()
    assert abs(mark["x"] + mark["width"] / 2 - box["x"] - 0.25 * box["width"]) < 1
    assert abs(mark["y"] + mark["height"] / 2 - box["y"] - 0.5 * box["height"]) < 1
    assert await page.get_by_text("●").nth(1).is_hidden(), "the setting lies outside of this one"
    assert not page.failures


async def test_the_recording_works_by_keyboard(page: Any) -> None:
    await page.get_by_role("application", name="Recording over time").focus()
    await page.keyboard.press("ArrowLeft")
    assert await page.locator(".rtnb-vad output").text_content() == "1.47 s · speech probability 0.10"
    await page.keyboard.press("Enter")
    assert await played(page) == [1470]


async def test_a_clip_plays_in_the_view_that_asked_for_it(page: Any) -> None:
    await page.get_by_role("button", name="Play next cut-off").click()
    (message,) = [message for kind, message in await page.evaluate("sent") if kind == "message"]
    answer = """(message) => model.handlers.forEach(([on, fn]) =>
        on === "msg:custom" && fn(message, [new DataView(new Int16Array(2400).buffer)]))"""
    started = "window.started = 0; AudioBufferSourceNode.prototype.start = () => { window.started += 1; }; 0"
    await page.evaluate(started)
    await page.evaluate(answer, message | {"view": message["view"] + 1})
    assert await page.evaluate("started") == 0
    await page.evaluate(answer, message)
    assert await page.evaluate("started") == 1
    assert not page.failures


async def test_cut_offs_are_played_one_after_the_other(page: Any) -> None:
    await page.evaluate("model.set('figures', { ...model.get('figures'), cut_offs_ms: [1600, 2100] })")
    for _ in range(3):
        await page.get_by_role("button", name="Play next cut-off").click()
    assert await played(page) == [100, 600, 100]


async def test_a_view_without_a_recording_shows_no_map_and_plays_nothing(browser: Any) -> None:
    page = await shown(browser, "vad_lab", STATE)
    await page.locator("canvas").click()
    assert await played(page) == []
    assert await page.locator("img").first.is_hidden()
    assert not page.failures


async def test_moving_the_threshold_moves_nothing_else(page: Any) -> None:
    tops = """[...document.querySelectorAll(".rtnb-vad :is(canvas, button, img)")].map((node) => node.offsetTop)"""
    before = await page.evaluate(tops)
    await page.evaluate("model.set('figures', { ...model.get('figures'), cut_offs_ms: [] })")
    await page.get_by_text("cut off in this recording: 0 of 1").wait_for()
    await page.locator("canvas").hover()
    assert await page.evaluate(tops) == before


async def test_a_closed_view_leaves_no_listener(page: Any) -> None:
    await page.evaluate("unrender()")
    assert await page.evaluate("model.handlers.size") == 0
    assert not page.failures
