"""The playground in a real JupyterLab: one cell, what a person does with it, and what Python says of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.async_api import Locator, expect

from rtnb.audio import babble
from tests.browser.cells import Driven, run
from tests.widgets.browser.microphone_page import TRACKS
from tests.widgets.browser.stalls import KERNEL
from tests.widgets.listening import TAP

OPEN = """simulator = rtnb.Simulator(latency={latency!r}, voice='babble')
playground = rtnb.Playground(simulator, instructions='Be brief.')
playground"""
QUESTION = "Count to one hundred, please, slowly, and tell me about your instructions!"
BUSY = """() => {
    window.busy = new Set();
    const note = () => busy.add(document.querySelector(".rtnb-status-line span").textContent);
    const all = { subtree: true, childList: true, characterData: true };
    new MutationObserver(note).observe(document.querySelector(".rtnb-playground"), all);
}"""
AT_REST = """async () => {
    const box = () => JSON.stringify(document.querySelector(".rtnb-playground").getBoundingClientRect());
    for (let [before, same] = ["", 0]; same < 20; ) {
        await new Promise(requestAnimationFrame);
        same = box() === before ? same + 1 : 0;
        before = box();
    }
}"""
"""Wait until the playground has kept its place and size for 20 frames."""


class Shown(Driven):
    """A notebook with a playground in it."""

    def find(self, selector: str, **options: Any) -> Locator:
        found: Locator = self.page.locator(f".rtnb-playground {selector}", **options)
        return found

    async def has(self, selector: str) -> None:
        await expect(self.find(selector)).to_have_count(1, timeout=20_000)

    async def connected(self) -> None:
        await self.has(".rtnb-connection[data-state=open]")

    async def ask(self, text: str, answer: str = "") -> None:
        """Type a message; wait until the conversation holds the answer."""
        await self.find(".rtnb-message-bar textarea").fill(text)
        await self.page.keyboard.press("Enter")
        await expect(self.find(".rtnb-transcript")).to_contain_text(answer, timeout=20_000)

    async def busy(self, source: str) -> asyncio.Task[str]:
        """Begin code in the last cell that does not end by itself; return once it runs: [*] also waits."""
        running = asyncio.create_task(self.python(f"print('it runs')\n{source}"))
        cell = self.page.locator(".jp-CodeCell").last
        await expect(cell.locator(".jp-OutputArea-output")).to_contain_text("it runs")
        return running


@pytest.fixture
def shown(open_notebook: Any) -> Callable[..., Awaitable[Shown]]:
    """Run a playground's cell in a notebook and wait until it is connected."""

    async def opened(
        cell: str, *, name: str = "playground", wait: bool = True, script: str = "", **options: Any
    ) -> Shown:
        notebook = await open_notebook(f"{name}.ipynb", cells=["import rtnb, time", cell, "# more"], **options)
        found = Shown(notebook)
        await notebook.page.evaluate(f"() => {{ {script} }}")
        await notebook.run_all()
        if wait:
            await found.connected()
        return found

    return opened


@pytest.fixture
async def play(shown: Any) -> Any:
    """A new playground in a kernel that tests share."""
    return await shown(OPEN.format(latency="fast"), keep=True)


@pytest.fixture
async def slow(shown: Any) -> Any:
    """The same, with answers that take their time."""
    return await shown(OPEN.format(latency="real_time"), keep=True)


async def test_a_conversation_in_one_cell(play: Shown) -> None:
    await play.ask("What is a delta?", "A delta is")
    await expect(play.find(".rtnb-last-turn .rtnb-popover")).to_contain_text("first audible: ")
    await expect(play.find(".rtnb-last-turn summary")).to_have_text(re.compile(r"request → first audio \d+ ms"))
    await expect(play.find(".rtnb-usage")).to_have_text(re.compile(r"1 turn · \d+ tokens"))
    said = await play.python("print([row.type for row in playground.session.log.filter('response.done')])")
    assert said == "['response.done']"
    assert play.notebook.messages == []


async def test_a_recording_is_said_and_answered(play: Shown, tmp_path: Path) -> None:
    chooser = play.find(".rtnb-message-bar input[type=file]")
    voice = babble("hello there my friend", seed=3).audio
    await play.page.evaluate(BUSY)  # it lasts a second: whoever looks now and then may miss it
    for number, name in enumerate(("hello.wav", "hello.mp3"), 1):
        soundfile.write(tmp_path / name, voice, 24_000)
        await chooser.set_input_files(tmp_path / name)
        await expect(play.find(".rtnb-transcript article[data-role=user]")).to_have_count(number, timeout=30_000)
    await expect(play.find(".rtnb-transcript")).to_contain_text("I heard you speak", timeout=30_000)
    assert "Sending the audio file …" in await play.page.evaluate("[...busy]")
    await expect(play.find(".rtnb-last-turn .rtnb-popover")).to_contain_text("end of speech: ")

    (tmp_path / "broken.mp3").write_bytes(b"no sound at all")
    await chooser.set_input_files(tmp_path / "broken.mp3")
    await expect(play.find(".rtnb-status-line [role=alert]")).to_contain_text("no sound file that can be read")


async def test_running_the_cell_again_starts_clean(play: Shown) -> None:
    await play.python("first = playground.session")
    for _ in range(3):
        await run(play.notebook, cell=1)
    await play.connected()
    assert await play.python("print(first.closed, playground.session.closed)") == "True False"
    await expect(play.page.locator(".rtnb-playground")).to_have_count(1)
    await play.ask("Hello!", "Hello")


async def test_interrupting_the_kernel_leaves_the_session_open(play: Shown) -> None:
    running = await play.busy("while True: time.sleep(0.1)")
    await play.notebook.execute("kernelmenu:interrupt")
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        await running
    await play.ask("Hello!", "Hello")


async def test_a_refused_voice_reconnects_with_one_click(play: Shown) -> None:
    await play.ask("Hello!")
    await expect(play.find(".rtnb-usage")).to_contain_text("1 turn", timeout=20_000)
    await play.find("[role=tab]", has_text="Settings").click()
    await play.find(".widget-dropdown", has_text="Voice").locator("select").select_option("cedar")
    await play.find("button", has_text="Reconnect with this voice").click()
    await play.connected()
    assert await play.python("print(playground.session.config.voice)") == "cedar"
    await expect(play.find(".rtnb-control", has_text="Voice").first).not_to_contain_text("not sent yet")


KEY = "typed-in-by-hand-0123456789abcdef"
NEEDS_KEY = f"""
simulator = rtnb.Simulator(latency='fast', voice='babble', key={KEY[:16]!r} + {KEY[16:]!r}).start()
playground = rtnb.Playground(rtnb.Custom(simulator.url.replace('http', 'ws')))
playground"""


@pytest.fixture
def all_is_saved(jupyterlab: Any) -> Iterator[None]:
    """JupyterLab saves the state of widgets: the worst case, not its default."""
    setting = jupyterlab.home / "settings/@jupyter-widgets/jupyterlab-manager/plugin.jupyterlab-settings"
    setting.parent.mkdir(parents=True, exist_ok=True)
    setting.write_text('{"saveState": true}', encoding="utf-8")
    yield
    setting.unlink()


@pytest.mark.usefixtures("all_is_saved")
async def test_a_reload_shows_everything_and_a_saved_notebook_neither_a_key_nor_sound(shown: Any) -> None:
    play = await shown(NEEDS_KEY, name="key", wait=False, fresh=True)
    await play.has(".rtnb-connection[data-state=failed]")
    await expect(play.find(".rtnb-connection [role=alert]")).not_to_be_empty()
    await play.find("input[type=password]").fill(KEY)
    await play.page.keyboard.press("Enter")
    await play.connected()
    await play.ask("What is a delta?", "A delta is")
    saved = await play.notebook.save()
    assert KEY not in json.dumps(saved)
    state = json.dumps(saved.metadata.get("widgets", {}))
    assert 10_000 < len(state) < 500_000  # the scripts and styles of all widgets, and no sound

    await play.page.reload()
    await play.notebook.until_idle()
    await play.connected()
    await expect(play.find(".rtnb-transcript")).to_contain_text("A delta is", timeout=20_000)
    await play.ask("Hello!", "Hello")
    assert await play.page.evaluate("key => document.documentElement.outerHTML.includes(key)", KEY) is False


# --- listening --------------------------------------------------------------------------------------------------------

SPOKEN = f"""{KERNEL}
from rtnb.audio import babble
simulator = rtnb.Simulator(latency="real_time", voice="babble")
playground = rtnb.Playground(simulator, microphone=babble("stop please stop now", seed=5).audio,
                             turn_detection={{"silence_duration_ms": 300}})
playground
"""
ONCE = """() => {
  let [count, begun, loudest] = [0, Infinity, 0];
  Object.assign(window, { late: 0, over: false, interrupting: false });
  window.heard.push = function (part) {
    if (window.over) return 0;
    const [now, played] = [performance.timeOrigin + performance.now(), (++count * 128) / 24];
    begun = Math.min(begun, now - played);
    if (part.some((v) => v)) loudest = count;
    window.lastLoud = begun + (loudest * 128) / 24;
    if (window.interrupting && loudest === count) window.late = Math.max(window.late, now - begun - played);
    const silent = window.interrupting && (count - loudest) * 128 > 300 * 24; // or starved
    window.over = silent && document.querySelector(".rtnb-transcript").textContent.includes("interrupted");
    return Array.prototype.push.call(this, part);
  };
}"""
"""Note when something but silence left the worklet last before it fell silent for 300 ms, after `interrupting` is set;
in Unix ms, the clock of the log's wall times, by counting quanta. And how late they came: how long the page stood still
(a page that has its computer for itself does not)."""

CUT = """
import asyncio, json
from pathlib import Path
log = playground.session.log
while not log.filter("conversation.item.truncated"): await asyncio.sleep(0.02)
spoke, item = log.filter("input_audio_buffer.speech_started")[0], log.filter("conversation.item.truncated")[0].event
rows = log.filter("response.output_audio.delta")
said = b"".join(row.event.delta for row in rows if row.event.item_id == item.item_id)
Path("said.pcm").write_bytes(said)
heard = playground.session.playback.heard().loc[item.item_id].to_dict()
print(json.dumps([spoke.wall_time, item.audio_end_ms, heard, max(heart.stop(since_s=spoke.wall_time))], default=float))
"""
SPLIT = """
while not [turn for turn in playground.latency.turns if turn.kind == "speech" and turn.first_audible_s]:
    await asyncio.sleep(0.05)
playground.microphone.stop()
"""
LEFT = """
from rtnb._loop import shared_loop
playground.close()
async def tasks(): return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("rtnb-s")]
print(shared_loop().run(tasks()), simulator.running, playground.microphone.state)
"""


def place_ms(left: np.ndarray, said: bytes) -> float:
    """Where in the answer the worklet was, whatever gaps it made: by 20 ms of sound before its end, which fades."""
    for back in range(720, 24_000, 240):
        piece = left[-480 - back : -back]
        if np.count_nonzero(piece) > 240 and (at := said.find(piece.tobytes())) >= 0:
            return (at // 2 + 480 + back) / 24
    raise AssertionError("nothing of the answer was heard")


@pytest.fixture
async def spoken(shown: Any) -> Any:
    """A playground with a recording as its microphone, whose sound is noted."""
    play = await shown(SPOKEN, script=TAP)
    await play.page.wait_for_function("window.tapped")
    return play


async def test_speaking_into_an_answer_stops_it_where_it_was_heard(spoken: Shown) -> None:
    play = spoken
    await expect(play.find(".rtnb-microphone .rtnb-start")).to_contain_text("Play the sample recording")
    await play.page.evaluate(ONCE)
    await play.ask(QUESTION)
    await play.page.wait_for_function("window.heard.filter((part) => part.some((v) => v)).length > 150")
    await play.page.evaluate("window.interrupting = true")
    await play.find(".rtnb-microphone .rtnb-start").click()
    await play.page.wait_for_function("window.over")
    spoke_s, kept_ms, row, kernel_late_ms = json.loads(await play.python(CUT))
    loud_ms, late_ms = await play.page.evaluate("[lastLoud, late]")
    late_ms = max(late_ms, kernel_late_ms)
    left = np.array(await play.page.evaluate("takeHeard()")).round().astype(np.int16)
    left_ms = place_ms(left, (play.notebook.lab.directory / "said.pcm").read_bytes())
    stop_ms = loud_ms - 1000 * spoke_s
    assert stop_ms < 200 + late_ms, f"{late_ms=}"
    # The cut is told at once: it is where the listener was when the speech was noticed.
    assert abs(kept_ms - (left_ms - max(0, stop_ms))) < 100 + late_ms, f"{late_ms=} {stop_ms=}"
    assert row["truncated"]
    assert row["heard_ms"] == kept_ms
    await expect(play.find(".rtnb-transcript")).to_contain_text("interrupted")

    await play.python(SPLIT)
    await play.find(".rtnb-last-turn summary").click()
    await expect(play.find(".rtnb-last-turn .rtnb-popover")).to_contain_text("acoustic end: 0 ms")
    await expect(play.find(".rtnb-microphone[data-state=off]")).to_have_count(1)
    assert await play.python(LEFT) == "[] False off"
    assert play.notebook.messages == []


async def test_a_call_instead_of_the_socket_and_back(slow: Shown) -> None:
    pytest.importorskip("aiortc", reason="the simulator's WebRTC side needs aiortc (extra sim)")
    play = slow
    await play.page.evaluate(TRACKS)
    transport = play.find("select", has_text="WebRTC")
    await transport.select_option(label="WebRTC")
    await play.has(".rtnb-webrtc[data-state=idle]")
    assert await play.page.evaluate("live()") == 0  # off until a click

    async def call() -> None:
        await play.find(".rtnb-webrtc button", has_text="Start").click()
        await play.has(".rtnb-webrtc[data-state=talking]")
        await play.connected()
        assert await play.page.evaluate("live()") > 0

    await call()
    await expect(play.find(".rtnb-speaker")).to_have_count(0)
    await play.ask("Hello!", "Hello")
    await transport.select_option(label="WebSocket")
    await play.page.wait_for_function("live() === 0", timeout=20_000)
    await play.has(".rtnb-microphone")
    await play.connected()
    await play.ask("What is a delta?", "A delta is")
    assert await play.python("playground.transport = 'webrtc'; print(playground.peer.state)") == "closed"
    await call()
    await run(play.notebook, cell=1)
    await play.page.wait_for_function("live() === 0", timeout=20_000)
    await play.connected()
    await play.has(".rtnb-microphone")
    assert play.notebook.messages == []


async def test_interrupting_works_while_a_cell_computes(slow: Shown) -> None:
    await slow.ask(QUESTION, "Model")
    running = await slow.busy("from pathlib import Path\nwhile not Path('free').exists(): time.sleep(0.02)")
    await slow.find("button", has_text="Interrupt").click()
    await expect(slow.find(".rtnb-transcript")).to_contain_text("interrupted")
    assert not running.done()
    (slow.notebook.lab.directory / "free").touch()
    await running
    answer = "playground.session.log.filter('response.done')[-1].event.response"
    assert await slow.python(f"print({answer}.status)") == "cancelled"


# --- the keyboard -----------------------------------------------------------------------------------------------------


async def tab_to(play: Shown, words: str, *, most: int = 80) -> None:
    """Press Tab until a control of this name or class has the focus."""
    focused = "(({ textContent, ariaLabel, className }) => [textContent, ariaLabel, className].join())"
    for _ in range(most):
        await play.page.keyboard.press("Tab")
        if words in await play.page.evaluate(f"{focused}(document.activeElement)"):
            return
    raise AssertionError(f"Tab does not reach {words!r}")


async def test_a_person_talks_types_and_interrupts_by_keyboard(slow: Shown) -> None:
    keyboard = slow.page.keyboard
    await slow.find(".rtnb-connect").focus()
    await tab_to(slow, "Start microphone")
    for state in ("on", "off"):
        await keyboard.press("Enter")
        await slow.has(f".rtnb-microphone[data-state={state}]")
    await tab_to(slow, "Message")
    await keyboard.type(QUESTION)
    await keyboard.press("Enter")
    await slow.has(".rtnb-speaker[data-state=playing]")
    await tab_to(slow, "Interrupt", most=5)
    await keyboard.press("Enter")
    await expect(slow.find(".rtnb-transcript")).to_contain_text("interrupted", timeout=20_000)


async def test_settings_and_events_by_keyboard(slow: Shown) -> None:
    keyboard = slow.page.keyboard
    await slow.ask("Hello!", "Hello")
    await slow.find(".rtnb-connect").focus()
    await tab_to(slow, "Settings")
    await keyboard.press("ArrowRight")
    await keyboard.press("Enter")
    slider = slow.find(".noUi-handle:visible").first
    before = await slider.get_attribute("aria-valuetext")
    await tab_to(slow, "noUi-handle", most=20)
    await keyboard.press("ArrowRight")
    await expect(slider).not_to_have_attribute("aria-valuetext", str(before))

    await slow.find(".rtnb-connect").focus()
    await tab_to(slow, "Turn detection")
    await keyboard.press("ArrowRight")
    await keyboard.press("Enter")
    await tab_to(slow, "rtnb-ev-grid", most=30)
    await keyboard.press("ArrowDown")
    await keyboard.press("End")
    await slow.has(".rtnb-ev-grid[aria-activedescendant]")
    await slow.has(".rtnb-transcript article[aria-current=true]")
    one = "p = playground; print({p.transcript.selected_index, p.waveform.selected_index, p.inspector.selected_index})"
    assert re.fullmatch(r"\{\d+\}", await slow.python(one)), "one selection"


async def test_disconnecting_and_connecting_by_keyboard(slow: Shown) -> None:
    for state in ("closed", "open"):
        await slow.find(".rtnb-connect").focus()
        await slow.page.keyboard.press("Enter")
        await slow.has(f".rtnb-connection[data-state={state}]")
    await slow.ask("Hello!", "Hello")
    assert await slow.python("print(playground.session.config.instructions)") == "Be brief."


# --- the layout -------------------------------------------------------------------------------------------------------

PLACES = {
    "status bar": ".rtnb-connection",
    "conversation": ".rtnb-transcript",
    "time axis": ".rtnb-waveform",
    "tabs": ".widget-tab",
    "start button": ".rtnb-microphone .rtnb-start",
    "message box": ".rtnb-message-bar textarea",
    "send button": ".rtnb-message-bar .rtnb-primary",
    "audio file button": ".rtnb-message-bar .rtnb-choose",
    "speaker": ".rtnb-speaker",
    "status line": ".rtnb-status-line",
}
CLIPPED = """() => [...document.querySelectorAll(
        ".rtnb-playground :is(button, label, summary, [role=tab], .lm-TabBar-tabLabel, .widget-label, .rtnb-usage)")]
    .filter((one) => one.checkVisibility() && one.clientWidth && one.scrollWidth > one.clientWidth + 1)
    .map((one) => one.textContent)"""
SHIFT = """() => {
    window.shifts = [];
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => shifts.push([entry.value,
        entry.sources.map(({ node }) => (node?.nodeType === 3 ? node.parentElement : node)?.className)])))
        .observe({ type: "layout-shift" });
}"""

Box = dict[str, float]


async def boxes(play: Shown) -> dict[str, Box]:
    found = {}
    for name, selector in PLACES.items():
        box = await play.find(selector).first.bounding_box()
        assert box is not None, name
        found[name] = box
    return found


def overlaps(one: Box, other: Box) -> bool:
    return all(
        one[start] + 1 < other[start] + other[size] and other[start] + 1 < one[start] + one[size]
        for start, size in (("x", "width"), ("y", "height"))
    )


async def to_top(play: Shown, width: int, height: int) -> None:
    await play.page.set_viewport_size({"width": width, "height": height})
    await play.page.evaluate("document.querySelector('.rtnb-playground').scrollIntoView({ block: 'end' })")
    await play.page.evaluate(AT_REST)  # the page is laid out anew


async def test_nothing_moves_while_audio_streams(slow: Shown) -> None:
    await to_top(slow, 1440, 900)
    await slow.ask(QUESTION)
    await slow.has(".rtnb-speaker[data-state=playing]")
    await slow.page.evaluate(SHIFT)
    await slow.has(".rtnb-speaker[data-state=idle]")  # all of the answer was played
    assert await slow.page.evaluate("shifts") == []


async def test_all_of_it_is_on_one_screen(play: Shown, pictures: Path) -> None:
    await play.ask("What is a delta?", "A delta is")
    await to_top(play, 1440, 900)
    for tab in ("Settings", "Turn detection", "Events", "Code"):
        await play.find("[role=tab]", has_text=tab).click()
        places = await boxes(play)
        for name, box in places.items():
            assert 0 <= box["x"] <= 1440 - box["width"], (tab, name, box)
            assert 0 <= box["y"] <= 900 - box["height"], (tab, name, box)
        pairs = combinations(places, 2)
        assert [pair for pair in pairs if overlaps(*(places[name] for name in pair))] == []
        assert await play.page.evaluate(CLIPPED) == [], tab
    frame = await play.find(".rtnb-frame").bounding_box()
    assert frame is not None
    assert frame["height"] == 600
    await play.page.screenshot(path=pictures / "playground-1440.png")


async def test_a_narrow_page_has_all_of_it_below_900_px(play: Shown, pictures: Path) -> None:
    await to_top(play, 900, 1100)
    frame = await play.find(".rtnb-frame").bounding_box()
    assert frame is not None
    assert frame["height"] <= 900
    places = await boxes(play)
    assert places["time axis"]["y"] < places["tabs"]["y"] < places["message box"]["y"] < places["status line"]["y"]
    assert await play.page.evaluate(CLIPPED) == []
    await play.page.screenshot(path=pictures / "playground-900.png")
