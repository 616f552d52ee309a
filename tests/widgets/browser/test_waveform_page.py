"""`Waveform` on a page: the pyramid, clicking, keys, zoom, playing from a moment."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtnb.widgets.waveform import Waveform
from tests.widgets.bare_page import shown

WAVE = """(seconds) => {
  say("reset", { bin_ms: 2 });
  const bins = Int16Array.from({ length: seconds * 1000 }, (_, i) => (i % 2 ? 1 : -1) * 80 * (i % 100));
  say("bins", { lane: "model", index: 0 }, [bins.buffer]);
  say("marks", { now_ms: seconds * 1000, cursor_ms: null, marks: {
    s0: { start_ms: 1000, stop_ms: 2000, status: "", heard_ms: null, audio_ms: 0 },
    rr1: { start_ms: 2500, stop_ms: 4000, status: "completed", heard_ms: null, audio_ms: 0 },
    ia: { start_ms: 3000, stop_ms: 5000, status: "", heard_ms: 1000, audio_ms: 2000 } } });
}"""


async def test_the_pyramid_keeps_every_peak(browser: Any) -> None:
    page = await shown(browser, "waveform", {"selected_ms": None})
    bins = np.random.default_rng(1).integers(-30_000, 30_000, (5_000, 2))
    bins = np.sort(bins, axis=1)
    script = """([flat, sizes]) => {
      const pyramid = new module.Pyramid();
      let at = 0;
      for (const size of sizes) { pyramid.write(at, Int16Array.from(flat.slice(2 * at, 2 * (at + size)))); at += size; }
      return [1, 5, 64, 250].map((width) => [...pyramid.columns(0, width, Math.floor(at / width))]);
    }"""
    for sizes in ([5_000], [50] * 100, [1, 3, 7, 989, 4_000]):
        flat = await page.evaluate(script, [bins.ravel().tolist(), sizes])
        for width, columns in zip((1, 5, 64, 250), flat, strict=True):
            shown_bins = np.array(columns).reshape(-1, 2)
            whole = bins[: len(shown_bins) * width].reshape(-1, width, 2)
            low, high = whole[:, :, 0].min(axis=1), whole[:, :, 1].max(axis=1)
            exact = 4 ** int(np.log(width) / np.log(4) + 1e-9) == width
            if exact:
                assert np.array_equal(shown_bins, np.stack([low, high], axis=1))
            else:  # the columns lie on the grid of their level: a peak may be one column off, never lost
                assert shown_bins[:, 1].max() == high.max()
                assert shown_bins[:, 0].min() == low.min()


async def test_click_selects_keys_move_and_double_click_plays(browser: Any) -> None:
    page = await shown(browser, "waveform", {"selected_ms": None})
    await page.evaluate(WAVE, 10)
    await page.get_by_role("button", name="All", exact=True).click()
    canvas = page.locator("canvas")
    box = await canvas.bounding_box()
    await page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + 50)
    await page.get_by_text("4.50 s · not heard").wait_for()
    await page.mouse.click(box["x"] + box["width"] * 0.35, box["y"] + 50)
    assert abs(await page.evaluate("model.traits.selected_ms") - 3500) < 30
    await page.wait_for_function("document.querySelector('canvas').ariaValueText?.includes('the model speaks')")
    await canvas.focus()
    await canvas.press("ArrowRight")
    assert abs(await page.evaluate("model.traits.selected_ms") - 3600) < 30
    await canvas.press("Home")
    assert await page.evaluate("model.traits.selected_ms") == 0
    await canvas.press("Escape")
    assert await page.evaluate("model.traits.selected_ms") is None
    await page.mouse.dblclick(box["x"] + box["width"] * 0.2, box["y"] + 50)
    (kind, header) = (await page.evaluate("sent"))[-1]
    assert kind == "play"
    assert abs(header["start_ms"] - 2000) < 30
    await page.evaluate("(h) => say('clip', h, [new Int16Array(240000).fill(500).buffer])", header)
    await page.get_by_role("button", name="Stop").click()
    await page.get_by_role("button", name="Play").wait_for()
    await page.evaluate("unrender()")
    assert not await page.evaluate("listening()")
    assert await page.evaluate("model.handlers.size") == 0
    assert not page.failures


async def test_zoom_keeps_the_moment_under_the_pointer(browser: Any) -> None:
    page = await shown(browser, "waveform", {"selected_ms": None})
    zoomed = await page.evaluate("module.zoomed({ start_ms: 1000, span_ms: 8000 }, 3000, 0.5)")
    assert zoomed == {"start_ms": 2000, "span_ms": 4000}
    assert (await page.evaluate("module.zoomed({ start_ms: 0, span_ms: 800 }, 0, 0.1)"))["span_ms"] == 500
    assert await page.evaluate("module.clock(67300)") == "1:07.3"
    assert await page.evaluate("module.tick_ms(30)") == 5000


async def test_every_name_the_page_asks_for_is_a_synced_trait(browser: Any) -> None:
    page = await shown(browser, "waveform", {"selected_ms": None})
    widget = Waveform()
    assert set(await page.evaluate("[...model.asked]")) <= set(widget.keys)
    widget.close()
