"""`vad_view.js` on a bare page: the maps and the recording by keyboard, the buttons, and a layout that stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtnb.widgets._base import FOLDER
from tests.widgets.bare_page import shown

ALL = ["use", "apply", "compare", "record_room_tone", "record_turn"]
STATE = {
    "threshold": 0.5,
    "silence_duration_ms": 224,
    "prefix_padding_ms": 300,
    "metric": "cut_off_rate",
    "enabled": ALL,
    "status": {"text": "", "problem": False},
}
THRESHOLDS = [0.3, 0.5, 0.7]
SILENCES_MS = [192, 224, 256, 288]
AXES = [np.tile([0.125, 0.375, 0.625, 0.875], 3), np.repeat([1 / 6, 0.5, 5 / 6], 4)]
TRADE_OFF = [np.tile([0.2, 0.4, 0.6, 0.8], 3), np.tile([0.8, 0.6, 0.4, 0.2], 3)]
GRID = {
    "metrics": [
        {"name": "cut_off_rate", "label": "turns cut off", "unit": ""},
        {"name": "delay_p90_ms", "label": "delay, P90", "unit": "ms"},
    ],
    "thresholds": THRESHOLDS,
    "silences_ms": SILENCES_MS,
    "n_turns": 8,
    "marks": {"■": 5},
    "maps": [
        {"x_ticks": [["192 ms", 0.125]], "y_ticks": [["0.3", 1 / 6]], "stops": list(range(12)), "columns": 4},
        {"x_ticks": [["500 ms", 0.5]], "y_ticks": [["50 %", 1.0]], "stops": [0, 1, 2, 3], "columns": -1},
    ],
}
VALUES = [np.tile([0.5, 0.4, 0.3, 0.2], 3), np.tile([300, 350, 400, 450], 3), *AXES, *TRADE_OFF]
LEVELS = [[k / 100, max(k / 100 - 0.15, 0.01)] for k in range(101)]
SHOW = """([grid, values, levels]) => {
  const figures = { index: 0, position: 5, segments: [[350, 1600], [1300, null]], cut_offs: [[0, 1600]],
    rows: [["8 turns", "this setting", "default"], ["turns cut off", "1 %", "2 %"]],
    recommendation: ["Not identifiable: 8 turns cannot show it."] };
  window.answers.figures = figures;
  window.answers.action = {};
  say("grid", grid, values.map((one) => Float32Array.from(one).buffer));
  const peaks = Int16Array.from({ length: 1500 }, (_, i) => (i % 2 ? 9000 : -9000));
  const p = Float32Array.from({ length: 94 }, (_, i) => (i > 20 && i < 40) || (i > 50 && i < 70) ? 0.9 : 0.1);
  say("recording", { index: 0, names: ["first", "second"], bin_ms: 4, frame_ms: 32, duration_ms: 3000, levels,
    turns: [[650, 2250]], pauses: [[1300, 1600]] }, [peaks.buffer, p.buffer]);
  say("service", { segments: [[400, 1600]] });
}"""

CLIP = "answers.play = { buffers: [new DataView(new Int16Array(2400).buffer)] }"


async def lab_page(browser: Any, **traits: Any) -> Any:
    page = await shown(browser, "vad_view", {**STATE, **traits})
    page.failures.clear()  # of the first request, which has no answer yet
    page.set_default_timeout(8_000)
    await page.add_style_tag(content=(FOLDER / "vad_lab.css").read_text(encoding="utf-8"))
    await page.evaluate(SHOW, [GRID, [one.tolist() for one in VALUES], LEVELS])
    await page.locator(".rtnb-vad td").first.wait_for()
    return page


async def setting(page: Any) -> list[Any]:
    return list(await page.evaluate("[model.traits.threshold, model.traits.silence_duration_ms]"))


async def test_the_map_of_settings_works_by_keyboard(browser: Any) -> None:
    page = await lab_page(browser)
    heat = page.get_by_role("application", name="threshold and silence duration")
    await heat.focus()
    await page.keyboard.press("ArrowRight")  # the cursor appears at the shown setting
    output = page.locator(".rtnb-vad output")
    assert await output.text_content() == ("threshold 0.50 · silence duration 224 ms · turns cut off 40.0 % (8 turns)")
    for key in ("ArrowRight", "ArrowUp", "ArrowUp"):  # the last one ends at the edge
        await page.keyboard.press(key)
    assert (await output.text_content()).startswith("threshold 0.70 · silence duration 256 ms · turns cut off 30.0 %")
    assert await setting(page) == [0.5, 224]
    await page.keyboard.press("Enter")
    assert await setting(page) == [0.7, 256]
    assert not page.failures


async def test_the_trade_off_map_goes_along_the_best_settings_by_keyboard(browser: Any) -> None:
    page = await lab_page(browser)
    await page.get_by_role("application", name="Turns cut off over delay").focus()
    for _ in range(4):  # the cursor appears at the shown setting, then goes to the first of the best
        await page.keyboard.press("ArrowRight")
    text = await page.locator(".rtnb-vad output").text_content()
    assert text == ("threshold 0.30 · silence duration 256 ms · turns cut off 30.0 % · delay, P90 400 ms (8 turns)")
    await page.keyboard.press("Enter")
    assert await setting(page) == [0.3, 256]


async def test_the_recording_works_by_keyboard(browser: Any) -> None:
    page = await lab_page(browser)
    await page.get_by_role("application", name="Recording over time").focus()
    await page.keyboard.press("ArrowUp")
    assert await setting(page) == [0.51, 224]
    await page.keyboard.press("ArrowLeft")
    assert await page.locator(".rtnb-vad output").text_content() == "1.44 s · speech probability 0.10"
    await page.evaluate(CLIP)
    await page.keyboard.press("Enter")
    plays = [header for kind, header in await page.evaluate("sent") if kind == "play"]
    assert [(one["start_ms"], one["span_ms"]) for one in plays] == [(1440, 3000)]


async def test_cut_offs_are_played_one_after_the_other(browser: Any) -> None:
    page = await lab_page(browser)
    await page.evaluate("answers.figures.cut_offs = [[0, 1600], [1, 2100]]; model.set('threshold', 0.6)")
    await page.get_by_text("cut off in this recording: 2 of 1").wait_for()
    await page.evaluate(CLIP)
    for _ in range(3):
        await page.get_by_role("button", name="Play next cut-off").click()
    plays = [header["start_ms"] for kind, header in await page.evaluate("sent") if kind == "play"]
    assert plays == [100, 600, 100]


@pytest.mark.parametrize("kind", ["range", "number"])
async def test_the_knobs_have_names_and_follow_the_setting(browser: Any, kind: str) -> None:
    page = await lab_page(browser)
    role = {"range": "slider", "number": "spinbutton"}[kind]
    silence = page.get_by_role(role, name="Silence duration (ms)")
    assert await silence.input_value() == "224"
    await silence.focus()
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("Tab")
    assert (await setting(page))[1] == 228
    await page.evaluate("model.set('silence_duration_ms', 900)")
    assert await silence.input_value() == "900"
    assert await page.get_by_role(role, name="Threshold").input_value() == "0.5"
    assert await page.get_by_role(role, name="Prefix padding (ms)").input_value() == "300"


async def test_a_button_sends_its_action_and_the_status_says_what_happened(browser: Any) -> None:
    page = await lab_page(browser)
    await page.get_by_role("button", name="Apply to session").click()
    assert ["action", {"name": "apply"}] in await page.evaluate("sent")
    await page.evaluate("model.set('enabled', [])")
    assert await page.get_by_role("button", name="Compare with the service").is_disabled()
    await page.evaluate("model.set('status', { text: 'the session is closed', problem: true })")
    assert await page.get_by_role("status").last.text_content() == "the session is closed"


async def test_moving_the_threshold_moves_nothing_else(browser: Any) -> None:
    page = await lab_page(browser)
    tops = """[...document.querySelectorAll(".rtnb-vad canvas, .rtnb-vad table, .rtnb-vad button[name]")]
        .map((node) => node.offsetTop)"""
    before = await page.evaluate(tops)
    await page.get_by_text("cut off in this recording: 1 of 1").wait_for()
    await page.evaluate("answers.figures.cut_offs = []; model.set('silence_duration_ms', 1600)")
    await page.get_by_text("cut off in this recording: 0 of 1").wait_for()
    await page.locator("canvas").nth(1).hover()
    assert await page.evaluate(tops) == before


async def test_a_closed_view_leaves_no_listener(browser: Any) -> None:
    page = await lab_page(browser)
    await page.evaluate("unrender()")
    assert await page.evaluate("model.handlers.size") == 0
    assert not await page.evaluate("listening()")
    assert not page.failures
