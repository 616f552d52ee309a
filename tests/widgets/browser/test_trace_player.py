"""Player of a trace: the page from a disk without a network, and the widget in JupyterLab."""

import asyncio
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import expect

from rtnb.simulator.transcriber import ExactTranscriber
from rtnb.trace import Trace, save_trace
from tests.browser.axe import violations
from tests.client.virtual import run_virtual
from tests.simulator.rig import spoken
from tests.trace.talk import near_session

EVIL = "<img src=x onerror=\"window.hacked = 1\"></script><script>window.hacked = 1</script> 'end'"
LISTEN = """
window.levels = [];
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...rest) {
  if (to === this.context.destination) {
    const meter = new AnalyserNode(this.context, { fftSize: 2048 });
    connect.call(this, meter);
    window.levels.push(() => {
      const wave = new Float32Array(2048);
      meter.getFloatTimeDomainData(wave);
      return Math.max(...wave);
    });
  }
  return connect.call(this, to, ...rest);
};
window.loudest = async (enough) => {
  for (const found = [0, 0]; ; await new Promise((go) => setTimeout(go, 20))) {
    window.levels.forEach((level, lane) => { found[lane] = Math.max(found[lane], level()); });
    if (enough(found, document.querySelector("output").textContent)) return found;
  }
};
"""


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spoken turn with an answer in audio, then a typed one, whose texts try to be markup."""
    path = tmp_path_factory.mktemp("player") / "talk.rtnb"

    async def speak() -> None:
        exact = ExactTranscriber()
        exact.learn("hello", spoken("hello you there"))
        settings = {"transcription": "whisper-1"}
        steps = [{"when": {"speech": True}, "say": EVIL}]
        async with near_session(settings, latency="fast", transcriber=exact, scenario={"steps": steps}) as session:
            await session.say(spoken("hello you there"), rate_hz=24_000)
            await asyncio.sleep(5)
            await session.ask("And now?")
            save_trace(session, path)

    run_virtual(speak())
    return path


@pytest.fixture
async def page(browser: Any, talk: Path) -> Any:
    """The page of the trace, opened from the disk in a browser without a network."""
    with Trace(talk) as trace:
        trace.to_html(talk.with_suffix(".html"))
    context = await browser.new_context(viewport={"width": 1000, "height": 700}, offline=True)
    await context.add_init_script(LISTEN)
    page = await context.new_page()
    page.failures = []
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.failures.append(message.text))
    page.on("request", lambda request: page.failures.append(request.url) if "file:" not in request.url else None)
    await page.goto(talk.with_suffix(".html").as_uri())
    await page.locator("canvas").wait_for()
    return page


BOTH = "(found) => Math.min(...found) > 0.05"


async def heard(page: Any, button: Any, *, until: str = BOTH) -> list[float]:
    """Click, and return the highest level of each side from before the click on until they or the position suffice."""
    await page.evaluate(f"() => {{ window.found = loudest({until}); }}")
    await button.click()
    async with asyncio.timeout(20):
        levels: list[float] = await page.evaluate("found")
    return levels


async def test_both_tracks_are_heard_and_can_be_muted(page: Any) -> None:
    await heard(page, page.get_by_role("button", name="Play"))
    await expect(page.locator("output")).to_have_text(re.compile("^0:0[4-9]"))
    await page.get_by_role("button", name="Pause").click()
    await page.get_by_label("Model").uncheck()
    await page.wait_for_function("levels.every((level) => level() === 0)")  # the meters hold what was last heard
    question = page.get_by_label("Transcript").get_by_text("hello", exact=True)
    user, model = await heard(page, question, until="(found, position) => position > '0:06'")  # past the answer's start
    assert user > 0.05
    assert model == 0
    assert page.failures == []


async def test_a_click_on_the_axis_plays_from_there_and_keys_move(page: Any, talk: Path) -> None:
    with Trace(talk) as trace:
        duration_s = trace.duration_ms / 1000
    box = await page.locator("canvas").bounding_box()
    await page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 60)
    await page.get_by_role("button", name="Pause").wait_for()
    at = float(await page.locator("canvas").get_attribute("aria-valuenow"))
    assert abs(at - duration_s / 2) <= 1.5
    await page.locator("canvas").focus()
    await page.keyboard.press("Home")
    # Not `wait_for_function`: the page's policy refuses it where the condition is not met at once.
    await expect(page.locator("canvas")).to_have_attribute("aria-valuenow", re.compile("^[01]$"))
    await page.keyboard.press(" ")
    await page.get_by_role("button", name="Play").wait_for()
    events = page.get_by_label("Events in view").get_by_role("button")
    whole = await events.count()
    await page.get_by_label("Zoom in").click()
    assert 0 < await events.count() < whole
    await page.get_by_label("Zoom out").click()
    await page.get_by_label("Filter events").fill("session.created")
    assert await events.count() == 1
    assert page.failures == []


async def test_text_of_the_service_stays_text_and_nothing_of_a_stranger_runs(page: Any) -> None:
    shown = page.get_by_label("Transcript").get_by_text("onerror=")
    assert "<img src=x onerror=" in await shown.text_content()
    assert await page.locator("img").count() == 0
    assert await page.evaluate("window.hacked") is None
    # The policy refuses even what a mistake in the page would let in.
    await page.evaluate("""() => {
        document.body.append(Object.assign(document.createElement("script"), { textContent: "window.hacked = 2" }));
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked = 3'>");
    }""")
    assert await page.evaluate("window.hacked") is None
    assert await page.evaluate("fetch('data:text/plain,x').then(() => 'sent', () => 'refused')") == "refused"


async def test_a_page_names_the_time_from_which_on_it_has_no_sound(browser: Any, talk: Path, tmp_path: Path) -> None:
    with Trace(talk) as trace:
        trace.to_html(tmp_path / "short.html", max_clips=1)
    page = await (await browser.new_context(offline=True)).new_page()
    await page.add_init_script(LISTEN)
    await page.goto((tmp_path / "short.html").as_uri())
    await page.get_by_text(re.compile(r"Sound from \d+ s on is not in this page")).wait_for()


COLOURS = """(canvas) =>
    new Set(new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, 120).data.buffer)).size"""


async def test_a_trace_in_a_cell_is_a_player(open_notebook: Any, talk: Path) -> None:
    cell = f"import rtnb\ntrace = rtnb.Trace({str(talk)!r})\ntrace"
    notebook = await open_notebook("trace.ipynb", cells=[cell, "0"])
    await notebook.page.evaluate(f"() => {{ {LISTEN} }}")
    await notebook.run_all()
    player = notebook.page.locator(".rtnb-trace")
    await player.get_by_text("onerror=").first.wait_for()
    await player.get_by_label("Findings").get_by_text("none").wait_for()
    await heard(notebook.page, player.get_by_role("button", name="Play"))
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        await notebook.set_theme(theme)
        assert await player.locator("canvas").evaluate(COLOURS) > 3, "the waveform of the user is drawn"
        assert await player.evaluate("(e) => e.scrollWidth <= e.clientWidth"), "nothing sticks out"
        colour = await player.evaluate("(e) => getComputedStyle(e).backgroundColor")
        dark = np.mean([float(x) for x in re.findall(r"\d+", colour)[:3]])
        assert (dark < 100) == ("Dark" in theme)
        await notebook.picture(f"player-{theme}")
        assert await violations(notebook.page, ".rtnb-trace") == []
    saved = await notebook.save()
    assert "onerror" not in str(saved.cells[0].outputs)
