"""`vad_view.js` on a bare page: the maps and the recording by keyboard, clips, and a layout that stays."""

from typing import Any

import numpy as np

from rtnb.widgets._base import FOLDER
from tests.widgets.bare_page import shown

STATE = {"threshold": 0.5, "silence_duration_ms": 224, "recording": {}, "grid": {}, "figures": {}, "service": []}
THRESHOLDS = np.repeat([0.3, 0.5, 0.7], 4)
SILENCES_MS = np.tile([192, 224, 256, 288], 3)
COLUMNS = [
    ("threshold", "threshold", "", THRESHOLDS),
    ("silence_duration_ms", "silence duration", "ms", SILENCES_MS),
    ("cut_off_rate", "turns cut off", "%", np.tile([0.5, 0.4, 0.3, 0.2], 3)),
    ("delay_p90_ms", "delay, P90", "ms", np.tile([300, 350, 400, 450], 3) + 100 * THRESHOLDS),
    ("self_interruptions_per_min", "self-interruptions", "per min", np.full(12, np.nan)),
]
GRID = [{"name": name, "label": label, "unit": unit} for name, label, unit, _ in COLUMNS]
VALUES = [values.tolist() for *_, values in COLUMNS]
LEVELS = [[k / 100, max(k / 100 - 0.15, 0.01)] for k in range(101)]
SHOW = """([grid, values, levels]) => {
  const view = (numbers) => new DataView(numbers.buffer);
  const columns = grid.map((one, i) => ({ ...one, values: view(Float32Array.from(values[i], (x) => x ?? NaN)) }));
  model.set("grid", { columns, n_silences: 4, front: [[330, 0.5], [480, 0.2]] });
  const marks = [{ threshold: 0.5, silence_duration_ms: 224, delay_p90_ms: 400, cut_off_rate: 0.4 },
    { threshold: 0.5, silence_duration_ms: 192, delay_p90_ms: null, cut_off_rate: 0.5 }];
  model.set("figures", { segments: [[350, 1600], [1300, null]], cut_offs_ms: [1600], marks });
  const peaks = Int16Array.from({ length: 1500 }, (_, i) => (i % 2 ? 9000 : -9000));
  const p = Float32Array.from({ length: 94 }, (_, i) => (i > 20 && i < 40) || (i > 50 && i < 70) ? 0.9 : 0.1);
  model.set("recording", { bin_ms: 4, frame_ms: 32, duration_ms: 3000, levels, turns: [[650, 2250]],
    pauses: [[1300, 1600]], peaks: view(peaks), probabilities: view(p) });
  model.set("service", [[400, 1600]]);
}"""


async def lab_page(browser: Any) -> Any:
    page = await shown(browser, "vad_view", STATE)
    page.set_default_timeout(8_000)
    await page.add_style_tag(content=(FOLDER / "vad_lab.css").read_text(encoding="utf-8"))
    values = [[None if value != value else value for value in column] for column in VALUES]
    await page.evaluate(SHOW, [GRID, values, LEVELS])
    await page.get_by_text("cut off in this recording: 1 of 1").wait_for()
    return page


async def played(page: Any) -> list[float]:
    return [message["play_ms"] for kind, message in await page.evaluate("sent") if kind == "message"]


async def setting(page: Any) -> list[Any]:
    return list(await page.evaluate("[model.traits.threshold, model.traits.silence_duration_ms]"))


async def test_the_map_of_settings_works_by_keyboard(browser: Any) -> None:
    page = await lab_page(browser)
    heat = page.get_by_role("application", name="threshold and silence duration")
    await heat.focus()
    await page.keyboard.press("ArrowRight")  # the cursor appears at the shown setting
    output = page.locator(".rtnb-vad output")
    expected = "threshold 0.50 · silence duration 224 ms · turns cut off 40 % · delay, P90 400 ms"
    assert await output.text_content() == expected
    for key in ("ArrowRight", "ArrowUp", "ArrowUp"):  # the last one ends at the edge
        await page.keyboard.press(key)
    assert (await output.text_content()).startswith("threshold 0.70 · silence duration 256 ms · turns cut off 30 %")
    assert await setting(page) == [0.5, 224]
    await page.keyboard.press("Enter")
    assert await setting(page) == [0.7, 256]
    assert not page.failures


async def test_the_trade_off_map_works_by_keyboard(browser: Any) -> None:
    page = await lab_page(browser)
    await page.get_by_role("application", name="Turns cut off over delay").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):  # the cursor appears at the shown setting
        await page.keyboard.press(key)
    text = await page.locator(".rtnb-vad output").text_content()
    assert text == "threshold 0.30 · silence duration 256 ms · turns cut off 30 % · delay, P90 430 ms"
    await page.keyboard.press("Enter")
    assert await setting(page) == [0.3, 256]


async def test_the_recording_works_by_keyboard(browser: Any) -> None:
    page = await lab_page(browser)
    await page.get_by_role("application", name="Recording over time").focus()
    await page.keyboard.press("ArrowLeft")
    assert await page.locator(".rtnb-vad output").text_content() == "1.44 s · speech probability 0.10"
    await page.keyboard.press("Enter")
    assert await played(page) == [1440]


async def test_a_clip_plays_in_the_view_that_asked_for_it(browser: Any) -> None:
    page = await lab_page(browser)
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


async def test_cut_offs_are_played_one_after_the_other(browser: Any) -> None:
    page = await lab_page(browser)
    await page.evaluate("model.set('figures', { ...model.get('figures'), cut_offs_ms: [1600, 2100] })")
    for _ in range(3):
        await page.get_by_role("button", name="Play next cut-off").click()
    assert await played(page) == [100, 600, 100]


async def test_maps_without_values_are_empty_and_fail_at_nothing(browser: Any) -> None:
    page = await shown(browser, "vad_view", STATE)
    await page.locator("canvas").first.click()
    assert await played(page) == []
    for grid in ({}, GRID):  # before the first recording, and without a turn in it
        if grid:
            await page.evaluate(SHOW, [GRID, [[None] * 12 for _ in GRID], LEVELS])
        for number in (1, 2):
            await page.locator("canvas").nth(number).hover()
            await page.locator("canvas").nth(number).press("ArrowRight")
    assert (await page.locator(".rtnb-vad output").text_content()).startswith("Point at a map")
    assert not page.failures


async def test_another_metric_gives_another_scale(browser: Any) -> None:
    page = await lab_page(browser)
    await page.get_by_text("light 20 %, dark 50 %").wait_for()
    await page.get_by_label("Map of").select_option("delay, P90")
    await page.get_by_text("light 330 ms, dark 520 ms").wait_for()
    await page.get_by_label("Map of").select_option("self-interruptions")
    await page.get_by_text("light –, dark –").wait_for()
    assert not page.failures


async def test_moving_the_threshold_moves_nothing_else(browser: Any) -> None:
    page = await lab_page(browser)
    tops = """[...document.querySelectorAll(".rtnb-vad canvas, .rtnb-vad button")].map((node) => node.offsetTop)"""
    before = await page.evaluate(tops)
    await page.evaluate("model.set('figures', { ...model.get('figures'), cut_offs_ms: [] })")
    await page.get_by_text("cut off in this recording: 0 of 1").wait_for()
    await page.locator("canvas").nth(1).hover()
    assert await page.evaluate(tops) == before


async def test_a_closed_view_leaves_no_listener(browser: Any) -> None:
    page = await lab_page(browser)
    await page.evaluate("unrender()")
    assert await page.evaluate("model.handlers.size") == 0
    assert not page.failures
