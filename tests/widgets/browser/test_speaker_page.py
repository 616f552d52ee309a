"""`Speaker` on a page: the samples that leave the worklet, and the reports to the session."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtnb._loop import shared_loop
from rtnb.audio import codec
from rtnb.client.playback import AHEAD_MS
from rtnb.widgets.speaker import Speaker
from tests.widgets.bare_page import shown
from tests.widgets.browser.bridge import Tab
from tests.widgets.listening import TAP, heard
from tests.widgets.page import eventually
from tests.widgets.scene import Scene, marked

# Playwright's `evaluate` counts as a click, so Chromium's own rule never shows in a test: a context that begins as it
# does before the first click stands for it.
SUSPENDED = """
const Context = window.AudioContext;
window.AudioContext = class extends Context {
  constructor(options) { super(options); this.suspend(); window.context = this; }
};
"""


REFUSED = {
    "state": "refused",
    "problem": "No sound: the security policy of this page does not allow an audio worklet.",
}


def sounded(left: np.ndarray) -> np.ndarray:
    """Return the sound without the gaps in it: no sample of `marked` is zero."""
    return left[left != 0]


TRAITS = {"volume": 1.0, "muted": False, "worklet": Speaker.worklet.default_value}

# A policy that begins after the widget's own module was imported.
POLICY = """
const policy = document.createElement("meta");
Object.assign(policy, { httpEquiv: "Content-Security-Policy", content: "script-src 'unsafe-eval'" });
document.head.append(policy);
"""


async def test_a_policy_that_refuses_the_worklet_is_said(browser: Any) -> None:
    page = await shown(browser, "speaker", TRAITS, script=POLICY + SUSPENDED)
    await page.locator(".rtnb-speaker[data-state=refused]").wait_for()
    status = page.get_by_role("status")
    assert await status.text_content() == "No sound: the security policy of this page does not allow an audio worklet."
    assert ["state", REFUSED] in await page.evaluate("sent")
    await page.evaluate("say('audio', { item: 'a' }, [new ArrayBuffer(480)])")
    await page.mouse.click(5, 5)  # resumes the context, which changes nothing
    await page.wait_for_function("context.state === 'running'")
    await page.evaluate("new Promise(requestAnimationFrame)")
    assert await page.locator(".rtnb-speaker").get_attribute("data-state") == "refused"
    assert await page.evaluate("sent.filter(([kind]) => kind === 'state').at(-1)") == ["state", REFUSED]
    assert not page.failures


@pytest.fixture
async def page(browser: Any) -> Any:
    return await shown(browser, "speaker", TRAITS)


async def test_the_row_is_28_px_high_and_its_parts_stay_where_they_are(page: Any) -> None:
    await page.add_style_tag(content="body > div { width: 376px }")  # as in the playground
    await page.locator(".rtnb-speaker[data-state=idle]").wait_for()
    boxes = """() => [...document.querySelectorAll(".rtnb-speaker, .rtnb-speaker > *:not([hidden])")].map((e) => {
      const { x, y, height } = e.getBoundingClientRect();
      return [x, y, height];
    })"""
    before = await page.evaluate(boxes)
    assert before[0][2] == 28
    for name, value in {"volume": 0.05, "muted": True}.items():
        await page.evaluate("([name, value]) => model.set(name, value)", [name, value])
        assert await page.evaluate(boxes) == before, name
    samples = "Int16Array.from({ length: 48000 }, () => 1000).buffer"
    await page.evaluate(f"say('audio', {{ item: 'a', end: true }}, [{samples}])")
    await page.locator(".rtnb-speaker[data-state=playing]").wait_for()
    await page.get_by_text("s buffered").wait_for()
    await page.evaluate("for (const end = performance.now() + 400; performance.now() < end; );")
    await page.get_by_text("(this page is slow)").wait_for()
    after = await page.evaluate(boxes)
    assert after[:5] == before[:5]
    await page.locator(".rtnb-speaker[data-state=idle]").wait_for()
    reports = [header["items"] for kind, header in await page.evaluate("sent") if kind == "played"]
    played = [items["a"] for items in reports if items]
    assert played[-1] == 48_000
    assert played == sorted(played)
    await page.evaluate("unrender()")
    assert not await page.evaluate("listening()")
    assert await page.evaluate("model.handlers.size") == 0
    assert (await page.evaluate("sent"))[-1] == ["state", {"state": "no page", "problem": ""}]


async def test_after_three_quick_answers_the_first_piece_plays_at_once(browser: Any) -> None:
    page = await shown(browser, "speaker", TRAITS, script="performance.now = () => 0;")  # answers come at once
    await page.locator(".rtnb-speaker[data-state=idle]").wait_for()
    await page.evaluate("window.piece = (ms) => Int16Array.from({ length: 24 * ms }, () => 1000).buffer")
    for item in "abc":  # 200 ms of audio, all at once
        for end in ("false", "true"):
            await page.evaluate(f"say('audio', {{ item: '{item}', end: {end} }}, [piece(100)])")
    await page.wait_for_function("sent.some(([kind, { items }]) => kind === 'played' && items.c === 4800)")
    await page.locator(".rtnb-speaker[data-state=idle]").wait_for()
    await page.evaluate("say('audio', { item: 'd' }, [piece(100)])")
    await page.wait_for_function("sent.some(([kind, { items }]) => kind === 'played' && items.d === 2400)")


async def test_what_the_status_says(page: Any) -> None:
    say = "(facts) => module.figures({ state: 'playing', lead_ms: 180, target_ms: 200, gaps: 0, ...facts })"
    assert await page.evaluate(say, {}) == "180 ms buffered"
    slow = {"lead_ms": 1234, "target_ms": 350, "gaps": 1}
    assert await page.evaluate(say, slow) == "buffering 350 ms (this page is slow) · 1.2 s buffered · 1 gap"
    assert await page.evaluate(say, {"state": "idle"}) == ""


class Heard:
    """A speaker of this process, and what leaves its worklet on a page."""

    def __init__(self, scene: Scene, tab: Tab) -> None:
        self.scene = scene
        self.page = tab.page
        self.speaker = Speaker(scene.session)

    async def answer(self, ms: float, *, seed: int = 0, speed: float | None = None) -> str:
        """Stream a whole answer and return its item's id."""
        return str(await asyncio.wrap_future(self.scene.start(marked(ms, seed=seed), speed=speed)))

    async def left(self, *, ms: float = 0.0) -> np.ndarray:
        return await heard(self.page, samples=max(1, int(24 * ms)))

    def table(self, column: str) -> list[float]:
        return list(self.scene.session.playback.heard()[column])


@pytest.fixture
async def show(open_tab: Any) -> AsyncIterator[Callable[..., Awaitable[Heard]]]:
    """Show a speaker on a tapped page, where `script` runs first: ``one = await show(scene)``."""
    shown_speakers = []

    async def show(scene: Scene, script: str = "") -> Heard:
        tab = await open_tab()
        await tab.run(f"() => {{ {script} {TAP} }}")
        one = Heard(scene, tab)
        shown_speakers.append(one.speaker)
        await tab.show(one.speaker)
        await tab.until("window.tapped")
        return one

    yield show
    for speaker in shown_speakers:
        speaker.close()


async def test_the_browser_wants_a_click_first(show: Any, scene: Scene, pictures: Path) -> None:
    one = await show(scene, SUSPENDED)
    hint = one.page.get_by_role("button", name="Enable sound")
    await hint.wait_for()
    await one.page.wait_for_selector(".rtnb-speaker[data-state=blocked]")
    await one.page.screenshot(path=pictures / "speaker-hint.png")
    await hint.click()
    await one.page.wait_for_selector(".rtnb-speaker[data-state=idle]")
    await hint.wait_for(state="hidden")
    await one.answer(500)
    assert np.array_equal(sounded(await one.left(ms=500)), marked(500))


async def test_g711_is_decoded_before_it_gets_to_the_page(show: Any) -> None:
    scene = Scene(output_format="audio/pcmu")
    one = await show(scene)
    tone = (0.3 * np.sin(np.arange(8000) / 8000 * 2 * np.pi * 440)).astype(np.float32)
    coded = scene.answer(
        np.zeros(24_000, np.int16), speed=None, chunk_ms=1000, encode=lambda part: codec("audio/pcmu").encode(tone)
    )
    shared_loop().run(coded)
    left = await one.left(ms=950)
    assert abs(len(left) - 24_000) < 20
    assert np.argmax(np.abs(np.fft.rfft(left[: 24_000 // 2]))) * 2 == 440
    await eventually(lambda: one.table("heard_ms") == [1000])
    scene.close()


async def test_what_is_streamed_leaves_the_worklet_bit_by_bit(show: Any, scene: Scene) -> None:
    one = await show(scene)
    gaps = 0
    for seed, speed in enumerate((None, 10.0, 1.0)):
        await one.answer(2000, seed=seed, speed=speed)
        left = await one.left(ms=2000)
        assert np.array_equal(sounded(left), marked(2000, seed=seed)), speed
        gaps += int(np.count_nonzero(np.diff(left == 0))) // 2
    # A machine that stands still makes gaps; they are counted, and nothing is lost in them.
    await eventually(lambda: (one.speaker.gaps, one.table("heard_ms")) == (gaps, [2000] * 3))


async def test_a_barge_in_cuts_where_the_listener_stopped_hearing(show: Any, scene: Scene) -> None:
    one = await show(scene)
    item = await one.answer(20_000)
    await one.page.wait_for_function("window.sounded > 0.8 * 24_000")
    await asyncio.to_thread(scene.barge_in)
    cut_ms = scene.session.playback.heard_ms(item)
    left = sounded(await one.left())
    assert len(left) < 20 * 24_000 * 0.9
    assert np.array_equal(left[:-128], marked(20_000)[: len(left) - 128])  # the last quantum fades out
    played_to_ms = len(left) / 24
    await eventually(lambda: abs(one.table("played_ms")[0] - played_to_ms) <= 128 / 24)  # a fade's end rounds to zero
    # The truncation is sent at once: from the last report, and what was played since (AHEAD_MS at most), on a page that
    # plays on; what it stands still it may be before or behind.
    late_ms = await one.page.evaluate("window.late_ms")
    assert -min(AHEAD_MS, late_ms) <= one.table("played_ms")[0] - cut_ms < 400 + late_ms, f"{late_ms=}"
    # What comes late of it is not played; the next answer is, from its first sample.
    await one.answer(500, seed=9)
    assert np.array_equal(sounded(await one.left(ms=500)), marked(500, seed=9))


async def test_volume_mute_and_keyboard(show: Any, scene: Scene) -> None:
    one = await show(scene)
    slider = one.page.get_by_role("slider", name="Volume")
    await slider.focus()
    await slider.press("ArrowLeft")
    await one.page.get_by_text("95 %").wait_for()
    mute = one.page.get_by_role("button", name="Mute")
    await mute.focus()
    await mute.press("Space")
    await one.page.get_by_text("muted", exact=True).wait_for()
    assert await mute.get_attribute("aria-pressed") == "true"
    await eventually(lambda: (one.speaker.volume, one.speaker.muted) == (0.95, True))
    one.speaker.muted, one.speaker.volume = False, 0.25
    await one.page.get_by_text("25 %").wait_for()
    assert await mute.get_attribute("aria-pressed") == "false"


async def test_of_two_tabs_only_one_plays(show: Any, scene: Scene, open_tab: Any) -> None:
    one = await show(scene)
    later = await open_tab()
    await later.show(one.speaker)
    await later.page.get_by_text("Sound plays in another tab of this notebook.").wait_for()
    await later.run("channel.claimActivePage()")
    await one.page.get_by_text("Sound plays in another tab of this notebook.").wait_for()
    await later.page.get_by_text("another tab").wait_for(state="hidden")
