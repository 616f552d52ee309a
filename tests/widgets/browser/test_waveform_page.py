"""`Waveform` on a page: the columns, clicking, keys, zoom, playing from a moment."""

from typing import Any

import numpy as np
import pytest

from rtnb.trace import to_vtt
from rtnb.widgets.transcript import Transcript
from rtnb.widgets.waveform import Waveform
from tests.widgets.bare_page import shown
from tests.widgets.page import eventually
from tests.widgets.scene import Scene, marked

TRAITS = {"selected_ms": None, "height_px": 140}

WAVE = """(seconds) => {
  say("reset", { bin_ms: 2 });
  const bins = Int16Array.from({ length: seconds * 1000 }, (_, i) => (i % 2 ? 1 : -1) * 80 * (i % 100));
  say("bins", { lane: "model", index: 0 }, [bins.buffer]);
  say("bins", { lane: "you", index: 0 }, [bins.slice(0, 5000).buffer]);
  say("marks", { now_ms: seconds * 1000, cursor: null, marks: {
    s0: { start_ms: 1000, stop_ms: 2000, status: "", heard_ms: null, audio_ms: 0 },
    rr1: { start_ms: 2500, stop_ms: 4000, status: "completed", heard_ms: null, audio_ms: 0 },
    rr2: { start_ms: 5500, stop_ms: 6500, status: "cancelled", heard_ms: null, audio_ms: 0 },
    ia: { start_ms: 3000, stop_ms: 5000, status: "", heard_ms: 1000, audio_ms: 2000 } } });
}"""


@pytest.fixture
async def page(browser: Any) -> Any:
    return await shown(browser, "waveform", TRAITS)


@pytest.fixture
async def spoken(page: Any) -> Any:
    """The page after 10 s."""
    await page.evaluate(WAVE, 10)
    return page


LEFT = 54  # px before the axis


async def place(page: Any, ms: float, *, span_ms: float = 30_000) -> tuple[float, float]:
    """Where a moment is on the page, while the axis begins at 0."""
    box = await page.locator("canvas").bounding_box()
    return box["x"] + LEFT + (box["width"] - LEFT) * ms / span_ms, box["y"] + 50


async def test_the_columns_keep_every_peak(page: Any) -> None:
    bins = np.random.default_rng(1).integers(-30_000, 30_000, (5_000, 2))
    bins = np.sort(bins, axis=1)
    script = """([flat, sizes]) => {
      const envelope = new module.Envelope();
      let at = 0;
      for (const size of sizes) envelope.write(at, Int16Array.from(flat.slice(2 * at, 2 * (at += size))));
      return [1, 5, 64, 250].map((width) => {
        const columns = [];
        envelope.columns(0, width, Math.floor(at / width), (column, low, high) => columns.push(low, high));
        return columns;
      });
    }"""
    for sizes in ([5_000], [50] * 100, [1, 3, 7, 989, 4_000]):
        flat = await page.evaluate(script, [bins.ravel().tolist(), sizes])
        for width, columns in zip((1, 5, 64, 250), flat, strict=True):
            shown_bins = np.array(columns).reshape(-1, 2)
            whole = bins[: len(shown_bins) * width].reshape(-1, width, 2)
            low, high = whole[:, :, 0].min(axis=1), whole[:, :, 1].max(axis=1)
            assert np.array_equal(shown_bins, np.stack([low, high], axis=1))


async def test_click_selects_keys_move_and_double_click_plays(spoken: Any) -> None:
    page = spoken
    canvas = page.locator("canvas")
    await page.mouse.move(*await place(page, 4500))
    await page.get_by_text("0:04.5", exact=False).get_by_text("not heard").wait_for()
    await page.mouse.click(*await place(page, 3500))
    assert abs(await page.evaluate("model.traits.selected_ms") - 3500) < 40
    await page.wait_for_function("document.querySelector('canvas').ariaValueText?.includes('the model speaks')")
    before = await page.evaluate("model.traits.selected_ms")
    await canvas.focus()
    await canvas.press("ArrowRight")
    assert await page.evaluate("model.traits.selected_ms") == before + 300
    await canvas.press("PageUp")
    assert await page.evaluate("model.traits.selected_ms") == before + 3300
    await canvas.press("Home")
    assert await page.evaluate("model.traits.selected_ms") == 0
    await canvas.press("Escape")
    assert await page.evaluate("model.traits.selected_ms") is None
    clip = "{ held_from_ms: 0, buffers: [new DataView(new Int16Array(240000).fill(500).buffer)] }"
    await page.evaluate(f"answers.play = {clip}")
    await page.mouse.dblclick(*await place(page, 2000))
    (kind, header) = (await page.evaluate("sent"))[-1]
    assert kind == "play"
    assert abs(header["start_ms"] - 2000) < 40
    await page.get_by_role("button", name="Stop").click()
    await page.get_by_role("button", name="Play").wait_for()
    await page.evaluate("unrender()")
    assert not await page.evaluate("listening()")
    assert await page.evaluate("model.handlers.size") == 0
    assert not page.failures


async def test_the_slider_says_what_is_selected(spoken: Any) -> None:
    page = spoken
    canvas = page.get_by_role("slider", name="Moment of the session")
    facts = "(e) => ['valuemin', 'valuemax', 'valuenow', 'valuetext'].map((name) => e.getAttribute(`aria-${name}`))"
    await page.wait_for_function("document.querySelector('canvas').ariaValueMax === '10000'")
    assert await canvas.evaluate(facts) == ["0", "10000", "0", "no moment selected"]
    await page.evaluate("model.set('selected_ms', 1500)")
    await page.wait_for_function("document.querySelector('canvas').ariaValueNow === '1500'")
    assert await canvas.evaluate(facts) == ["0", "10000", "1500", "0:01.50 · you speak"]
    live = page.get_by_role("button", name="Live")
    assert await live.get_attribute("aria-pressed") == "true"
    await live.click()
    await page.wait_for_function("document.querySelector('[aria-pressed]').ariaPressed === 'false'")


async def test_audio_that_is_no_longer_held_is_said(spoken: Any) -> None:
    page = spoken
    clip = "{ held_from_ms: 65000, buffers: [new DataView(new ArrayBuffer(0))] }"
    await page.evaluate(f"answers.play = {clip}")
    await page.locator("canvas").press("Enter")
    await page.get_by_text("The audio before 1:05 is no longer held.").wait_for()
    assert (await page.evaluate("sent"))[-1] == ["play", {"start_ms": 0, "length_ms": 60_000}]
    assert not page.failures


async def test_the_playback_position_moves_between_two_reports(spoken: Any) -> None:
    page = spoken
    shown_text = "document.querySelector('.rtnb-readout').textContent"
    record = f"() => (moments.add({shown_text}), requestAnimationFrame(record))"
    await page.evaluate(f"() => {{ window.moments = new Set(); window.record = {record}; record(); }}")
    await page.evaluate("say('marks', { now_ms: 10000, cursor: [2000, 2400], marks: {} })")
    await page.wait_for_function(f"{shown_text}.startsWith('0:02.40')")  # and stops where the audio ends
    assert await page.evaluate("[...moments].filter((text) => /^0:02[.][0-3]/.test(text)).length") > 3
    await page.evaluate("say('marks', { now_ms: 10000, cursor: null, marks: {} })")
    await page.wait_for_function(f"{shown_text}.startsWith('0:10.00')")
    assert not page.failures


async def test_live_shows_now_and_not_the_end_of_audio_that_is_still_to_be_played(page: Any) -> None:
    await page.evaluate("say('bins', { lane: 'model', index: 0 }, [new Int16Array(60000).buffer])")  # 60 s, all at once
    turn = "{ s0: { start_ms: 1500, stop_ms: null, status: '', heard_ms: null, audio_ms: 0 } }"
    await page.evaluate(f"say('marks', {{ now_ms: 2000, cursor: null, marks: {turn} }})")
    await page.wait_for_function("document.querySelector('canvas').ariaValueMax === '60000'")
    await page.get_by_text("0:02.00 · you speak").wait_for()
    await page.mouse.move(*await place(page, 20_000))  # the axis still begins at 0, and the turn lasts until now
    readout = page.locator(".rtnb-readout")
    await page.wait_for_function("!document.querySelector('.rtnb-readout').textContent.includes('you speak')")
    assert abs(float((await readout.text_content()).removeprefix("0:")) - 20) < 0.1


async def test_nothing_moves_while_audio_arrives(page: Any) -> None:
    boxes = """() => [...document.querySelectorAll(".rtnb-waveform, .rtnb-waveform *")].map((e) => {
      const { x, y, width, height } = e.getBoundingClientRect();
      return [x, y, width, height].join();
    })"""
    before = await page.evaluate(boxes)
    assert (await page.locator(".rtnb-waveform").bounding_box())["height"] == 140
    await page.evaluate(WAVE, 3700)
    await page.evaluate("say('marks', { now_ms: 3700000, cursor: [3650000, 3700000], marks: {} })")
    await page.mouse.move(*await place(page, 4500))
    await page.wait_for_function("document.querySelector('.rtnb-readout').textContent.startsWith('1:0')")
    assert await page.evaluate(boxes) == before


async def test_zoom_keeps_the_moment_under_the_pointer(page: Any) -> None:
    script = """([start_ms, span_ms, factor, at_ms]) => {
      const canvas = new module.TimeCanvas(document.body, 100, "time", new AbortController().signal);
      canvas.look(start_ms, span_ms);
      canvas.zoom(factor, at_ms);
      return [canvas.start_ms, canvas.span_ms];
    }"""
    assert await page.evaluate(script, [1000, 8000, 0.5, 3000]) == [2000, 4000]
    assert await page.evaluate(script, [0, 800, 0.1, 0]) == [0, 500]


async def test_an_answer_is_seen_is_selected_both_ways_and_fits(open_tab: Any, scene: Scene) -> None:
    waveform, transcript = Waveform(scene.session), Transcript(scene.session)
    tab = await open_tab()
    for widget in (waveform, transcript):
        await tab.show(widget)
    scene.answer_now(marked(1500), text="One two three.")
    await tab.page.locator("article[data-status=complete]", has_text="One two three.").wait_for()
    # The transcript comes first: a click before the axis has grown would select its only moment, 0 ms.
    await tab.until("+document.querySelector('.rtnb-waveform canvas').ariaValueMax > 1000", timeout_s=60)
    box = await tab.page.locator(".rtnb-waveform canvas").bounding_box()
    await tab.page.mouse.click(box["x"] + 100, box["y"] + 100)
    await eventually(lambda: (waveform.selected_ms or 0) > 0 and waveform.selected_index is not None)
    assert scene.session.log[waveform.selected_index].type
    waveform.selected_index = 0
    await tab.until("document.querySelector('.rtnb-waveform canvas').ariaValueNow === '0'")
    assert "One two three." in to_vtt(transcript.entries)
    for width in (1400, 480):
        await tab.page.set_viewport_size({"width": width, "height": 900})
        root = tab.page.locator(".rtnb-waveform")
        assert await root.evaluate("(e) => e.scrollWidth <= e.clientWidth"), "nothing sticks out"

    later = await open_tab()  # a page that comes later, or again
    for widget in (waveform, transcript):
        await later.show(widget)
    await later.page.locator(".rtnb-transcript p", has_text="One two three.").wait_for()
    await later.until("+document.querySelector('.rtnb-waveform canvas')?.ariaValueMax > 1000", timeout_s=60)
    waveform.close()
    transcript.close()


async def test_a_moment_is_rounded_before_it_is_split(page: Any) -> None:
    moments = [[59_900, 0], [59_949, 1], [59_996, 2], [3_599_999, 0], [119_990, 2], [-5, 0]]
    texts = await page.evaluate("(moments) => moments.map(([ms, digits]) => module.clock(ms, digits))", moments)
    assert texts == ["1:00", "0:59.9", "1:00.00", "1:00:00", "1:59.99", "0:00"]
