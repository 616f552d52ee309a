"""The playground in a real JupyterLab: one cell, what a person does with it, and what Python says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.async_api import Locator, expect

from tests.browser.cells import run as run_last
from tests.widgets.browser.microphone_page import TRACKS
from tests.widgets.browser.stalls import KERNEL
from tests.widgets.listening import TAP

IMPORT = "import rtnb, time"
OPEN = (
    "playground = rtnb.Playground(rtnb.Simulator(latency='fast', voice='babble'), instructions='Be brief.')\nplayground"
)
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

Opened = Callable[..., Awaitable[Any]]


class Shown:
    """A notebook with a playground in it."""

    def __init__(self, notebook: Any) -> None:
        self.notebook = notebook
        self.page = notebook.page

    def find(self, selector: str, **options: Any) -> Locator:
        found: Locator = self.page.locator(f".rtnb-playground {selector}", **options)
        return found

    async def connected(self) -> None:
        await expect(self.find(".rtnb-connection[data-state=open]")).to_have_count(1, timeout=20_000)

    async def ask(self, text: str) -> None:
        await self.find(".rtnb-message-bar textarea").fill(text)
        await self.page.keyboard.press("Enter")

    async def saved(self) -> Any:
        """Save the notebook and read it; a large one is there some time before all of it is written."""
        await self.page.keyboard.press("Control+s")
        await expect(self.page.locator(".jp-mod-current.jp-mod-dirty, .lm-mod-current.jp-mod-dirty")).to_have_count(0)
        return self.notebook.lab.read(self.notebook.name)

    async def python(self, source: str) -> str:
        """Run code in the last cell and return what it prints."""
        return await run_last(self.notebook, source)

    async def busy(self, source: str) -> Locator:
        """Begin code in the last cell that does not end by itself; return the cell once it runs: [*] also waits."""
        cell: Locator = self.page.locator(".jp-CodeCell").last
        await cell.locator(".cm-content").click()
        await self.page.keyboard.press("ControlOrMeta+a")
        await self.page.keyboard.insert_text(f"print('it runs')\n{source}")
        await self.page.keyboard.press("Control+Enter")
        await expect(cell.locator(".jp-OutputArea-output")).to_contain_text("it runs")
        return cell


@pytest.fixture
def shown(open_notebook: Any) -> Opened:
    """Run the playground's cell in a new notebook and wait until it is connected."""

    async def opened(name: str, *, cell: str = OPEN, run: bool = True, **options: Any) -> Shown:
        notebook = await open_notebook(name, cells=[IMPORT, cell, "# more"], **options)
        found = Shown(notebook)
        if run:
            outputs = await notebook.run_all()
            assert not any(output.error for output in outputs), outputs
            await found.connected()
        return found

    return opened


async def test_a_conversation_in_one_cell(shown: Opened) -> None:
    play = await shown("talk.ipynb", keep=True)
    await play.ask("What is a delta?")
    await expect(play.find(".rtnb-transcript")).to_contain_text("A delta is", timeout=20_000)
    await expect(play.find(".rtnb-last-turn .rtnb-popover")).to_contain_text("first audible: ")
    await expect(play.find(".rtnb-last-turn summary")).to_have_text(re.compile(r"request → first audio \d+ ms"))
    await expect(play.find(".rtnb-usage")).to_have_text(re.compile(r"1 turn · \d+ tokens"))

    said = await play.python("print([row.type for row in playground.session.log.filter('response.done')])")
    assert said == "['response.done']"
    assert play.notebook.messages == []


async def test_a_recording_is_said_and_answered(shown: Opened, tmp_path: Path) -> None:
    from rtnb.audio import babble, write_wav

    recording = tmp_path / "hello.wav"
    write_wav(recording, babble("hello there my friend", seed=3).audio, rate_hz=24_000)
    play = await shown("recording.ipynb", keep=True)
    await play.page.evaluate(BUSY)  # it lasts a second: whoever looks now and then may miss it
    await play.find(".rtnb-message-bar input[type=file]").set_input_files(str(recording))
    await expect(play.find(".rtnb-transcript")).to_contain_text("I heard you speak", timeout=30_000)
    assert "Sending the audio file …" in await play.page.evaluate("[...busy]")
    await expect(play.find(".rtnb-last-turn .rtnb-popover")).to_contain_text("end of speech: ")

    soundfile.write(tmp_path / "hello.mp3", babble("hello there my friend", seed=3).audio, 24_000)
    await play.find(".rtnb-message-bar input[type=file]").set_input_files(str(tmp_path / "hello.mp3"))
    await expect(play.find(".rtnb-transcript article[data-role=user]")).to_have_count(2, timeout=30_000)

    (tmp_path / "broken.mp3").write_bytes(b"no sound at all")
    await play.find(".rtnb-message-bar input[type=file]").set_input_files(str(tmp_path / "broken.mp3"))
    await expect(play.find(".rtnb-status-line [role=alert]")).to_contain_text("no sound file that can be read")


async def test_disconnect_and_connect_again(shown: Opened) -> None:
    play = await shown("again.ipynb", keep=True)
    await play.find("button", has_text="Disconnect").click()
    await expect(play.find(".rtnb-connection[data-state=closed]")).to_have_count(1)
    await play.ask("Is anybody there?")
    await expect(play.find(".rtnb-status-line [role=alert]")).to_contain_text("There is no open session")
    await play.find(".rtnb-connect", has_text="Connect").click()
    await play.connected()
    await play.ask("Hello!")
    await expect(play.find(".rtnb-transcript")).to_contain_text("Hello", timeout=20_000)
    assert await play.python("print(playground.session.config.instructions)") == "Be brief."


async def test_running_the_cell_again_starts_clean(shown: Opened) -> None:
    play = await shown("rerun.ipynb", keep=True)
    await play.python("first = playground.session")
    await play.page.locator(".jp-CodeCell").nth(1).locator(".cm-content").click()
    for _ in range(3):
        await play.page.keyboard.press("Control+Enter")
        await play.notebook.until_idle()
    await play.connected()
    assert await play.python("print(first.closed, playground.session.closed)") == "True False"
    await expect(play.page.locator(".rtnb-playground")).to_have_count(1)
    await play.ask("Hello!")
    await expect(play.find(".rtnb-transcript")).to_contain_text("Hello", timeout=20_000)


async def test_two_playgrounds_of_one_cell_live_until_it_runs_again(shown: Opened) -> None:
    play = await shown("two.ipynb", keep=True)
    two = "two = [rtnb.Playground('sim') for _ in range(2)]; sessions = [one.session for one in two]"
    assert await play.python(f"{two}; print([one.closed for one in sessions])") == "[False, False]"
    again = f"before = sessions; {two}; print([one.closed for one in [*before, *sessions, playground.session]])"
    assert await play.python(again) == "[True, True, False, False, False]"
    await play.python("for one in two: one.close()")


async def test_interrupting_the_kernel_leaves_the_session_open(shown: Opened) -> None:
    play = await shown("interrupt.ipynb", keep=True)
    await play.busy("while True: time.sleep(0.1)")
    await play.notebook.choose("Kernel", "Interrupt Kernel")
    await play.notebook.until_idle()
    await play.ask("Hello!")
    await expect(play.find(".rtnb-transcript")).to_contain_text("Hello", timeout=20_000)


async def test_interrupting_works_while_a_cell_computes(shown: Opened) -> None:
    play = await shown("busy.ipynb", cell=OPEN.replace("'fast'", "'real_time'"))
    await play.ask("Count to one hundred, please, slowly, and tell me about your instructions!")
    await expect(play.find(".rtnb-transcript")).to_contain_text("Model", timeout=20_000)
    cell = await play.busy("from pathlib import Path\nwhile not Path('free').exists(): time.sleep(0.02)")
    await play.find("button", has_text="Interrupt").click()
    await expect(play.find(".rtnb-transcript")).to_contain_text("interrupted")
    await expect(cell.locator(".jp-InputPrompt")).to_contain_text("*")
    (play.notebook.lab.directory / "free").touch()
    await play.notebook.until_idle()
    assert "cancelled" in await play.python(
        "print(playground.session.log.filter('response.done')[-1].event.response.status)"
    )


async def test_the_page_comes_back_after_a_reload(shown: Opened) -> None:
    play = await shown("reload.ipynb", fresh=True)
    await play.ask("What is a delta?")
    await expect(play.find(".rtnb-transcript")).to_contain_text("A delta is", timeout=20_000)
    await play.saved()
    await play.page.reload()
    await play.notebook.until_open()
    await play.connected()
    await expect(play.find(".rtnb-transcript")).to_contain_text("A delta is", timeout=20_000)
    await play.ask("Hello!")
    await expect(play.find(".rtnb-transcript")).to_contain_text("Hello", timeout=20_000)


async def test_a_typed_key_and_all_sound_stay_out_of_the_saved_notebook(shown: Opened, jupyterlab: Any) -> None:
    key = "typed-in-by-hand-0123456789abcdef"
    serve = f"simulator = rtnb.Simulator(latency='fast', voice='babble', key={key[:16]!r} + {key[16:]!r}).start()\n"
    cell = serve + "playground = rtnb.Playground(rtnb.Custom(simulator.url.replace('http', 'ws')))\nplayground"
    keep = jupyterlab.home / "settings/@jupyter-widgets/jupyterlab-manager/plugin.jupyterlab-settings"
    keep.parent.mkdir(parents=True, exist_ok=True)
    keep.write_text('{"saveState": true}', encoding="utf-8")  # the worst case: not JupyterLab's default
    play = await shown("key.ipynb", cell=cell, run=False, fresh=True)
    await play.notebook.run_all()
    await expect(play.find(".rtnb-connection[data-state=failed]")).to_have_count(1, timeout=20_000)
    await expect(play.find(".rtnb-connection [role=alert]")).not_to_be_empty()
    await play.find("input[type=password]").fill(key)
    await play.page.keyboard.press("Enter")
    await play.connected()
    await play.ask("What is a delta?")
    await expect(play.find(".rtnb-transcript")).to_contain_text("A delta is", timeout=20_000)
    saved = await play.saved()
    keep.unlink()

    text = json.dumps(saved)
    assert key not in text
    state = json.dumps(saved.metadata.get("widgets", {}))
    assert 10_000 < len(state) < 500_000  # the scripts and styles of all widgets, and no sound
    assert await play.page.evaluate("key => document.documentElement.outerHTML.includes(key)", key) is False


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


async def test_speaking_into_an_answer_stops_it_where_it_was_heard(shown: Opened) -> None:
    play = await shown("barge.ipynb", cell=SPOKEN, run=False)
    await play.page.evaluate(f"() => {{ {TAP} }}")
    await play.notebook.run_all()
    await play.connected()
    await play.page.wait_for_function("window.tapped")
    await expect(play.find(".rtnb-microphone .rtnb-start")).to_contain_text("Play the sample recording")
    await play.page.evaluate(ONCE)
    await play.ask("Count to one hundred, please, slowly, and tell me about your instructions!")
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


async def test_a_call_instead_of_the_socket_and_back(shown: Opened) -> None:
    pytest.importorskip("aiortc", reason="the simulator's WebRTC side needs aiortc (extra sim)")
    play = await shown("change.ipynb", cell=OPEN.replace("'fast'", "'real_time'"), keep=True)
    await play.page.evaluate(TRACKS)
    await play.find("select", has_text="WebRTC").select_option(label="WebRTC")
    await expect(play.find(".rtnb-webrtc[data-state=idle]")).to_have_count(1)
    assert await play.page.evaluate("live()") == 0  # off until a click

    async def call() -> None:
        await play.find(".rtnb-webrtc button", has_text="Start").click()
        await expect(play.find(".rtnb-webrtc[data-state=talking]")).to_have_count(1, timeout=20_000)
        await play.connected()
        assert await play.page.evaluate("live()") > 0

    await call()
    await expect(play.find(".rtnb-speaker")).to_have_count(0)
    await play.ask("Hello!")
    await expect(play.find(".rtnb-transcript")).to_contain_text("Hello", timeout=20_000)
    await play.find("select", has_text="WebRTC").select_option(label="WebSocket")
    await play.page.wait_for_function("live() === 0", timeout=20_000)
    await expect(play.find(".rtnb-microphone")).to_have_count(1)
    await play.connected()
    await play.ask("Hello!")
    await expect(play.find(".rtnb-transcript")).to_contain_text("Hello", timeout=20_000)
    assert await play.python("playground.transport = 'webrtc'; print(playground.peer.state)") == "closed"
    await call()
    await play.page.locator(".jp-CodeCell").nth(1).locator(".cm-content").click()
    await play.page.keyboard.press("Control+Enter")
    await play.page.wait_for_function("live() === 0", timeout=20_000)
    await play.connected()
    await expect(play.find(".rtnb-microphone")).to_have_count(1)
    assert play.notebook.messages == []


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


async def test_all_of_it_is_on_one_screen(shown: Opened, pictures: Path) -> None:
    play = await shown("screen.ipynb", keep=True)
    await play.ask("What is a delta?")
    await expect(play.find(".rtnb-transcript")).to_contain_text("A delta is", timeout=20_000)
    await to_top(play, 1440, 900)
    for tab in ("Settings", "Turn detection", "Events", "Code"):
        await play.find("[role=tab]", has_text=tab).click()
        places = await boxes(play)
        for name, box in places.items():
            assert 0 <= box["x"] <= 1440 - box["width"], (tab, name, box)
            assert 0 <= box["y"] <= 900 - box["height"], (tab, name, box)
        names = list(places)
        assert [
            (one, other)
            for number, one in enumerate(names)
            for other in names[number + 1 :]
            if overlaps(places[one], places[other])
        ] == []
        assert await play.page.evaluate(CLIPPED) == [], tab
    frame = await play.find(".rtnb-frame").bounding_box()
    assert frame is not None
    assert frame["height"] == 600
    await play.page.screenshot(path=pictures / "playground-1440.png")


async def test_a_narrow_page_has_all_of_it_below_900_px(shown: Opened, pictures: Path) -> None:
    play = await shown("screen.ipynb", keep=True)
    await to_top(play, 900, 1100)
    frame = await play.find(".rtnb-frame").bounding_box()
    assert frame is not None
    assert frame["height"] <= 900
    places = await boxes(play)
    assert places["time axis"]["y"] < places["tabs"]["y"] < places["message box"]["y"] < places["status line"]["y"]
    assert await play.page.evaluate(CLIPPED) == []
    await play.page.screenshot(path=pictures / "playground-900.png")


async def test_nothing_moves_while_audio_streams(shown: Opened) -> None:
    play = await shown("calm.ipynb", cell=OPEN.replace("'fast'", "'real_time'"))
    await to_top(play, 1440, 900)
    await play.ask("Count to one hundred, please, slowly, and tell me about your instructions!")
    await expect(play.find(".rtnb-speaker[data-state=playing]")).to_have_count(1, timeout=20_000)
    await play.page.evaluate(SHIFT)
    await play.page.wait_for_timeout(10_000)
    assert await play.page.evaluate("shifts") == []


async def test_one_selection_in_conversation_time_axis_and_events(shown: Opened) -> None:
    play = await shown("select.ipynb", keep=True)
    await play.ask("What is a delta?")
    await expect(play.find(".rtnb-transcript")).to_contain_text("A delta is", timeout=20_000)
    await play.find("[role=tab]", has_text="Events").click()
    await play.find(".rtnb-transcript article[data-role=assistant]").last.click()
    same = "p = playground; print({p.transcript.selected_index, p.waveform.selected_index, p.inspector.selected_index})"
    first = await play.python(same)
    assert first.count(",") == 0, first
    assert "None" not in first
    await play.page.locator(".rtnb-transcript article[aria-current=true]").focus()
    await play.page.keyboard.press("ArrowUp")
    second = await play.python(same)
    assert second != first
    assert second.count(",") == 0, second


async def test_a_refused_voice_reconnects_with_one_click(shown: Opened) -> None:
    play = await shown("voice.ipynb", keep=True)
    await play.ask("Hello!")
    await expect(play.find(".rtnb-usage")).to_contain_text("1 turn", timeout=20_000)
    await play.find("[role=tab]", has_text="Settings").click()
    await play.find(".widget-dropdown", has_text="Voice").locator("select").select_option("cedar")
    await play.find("button", has_text="Reconnect with this voice").click()
    await play.connected()
    assert await play.python("print(playground.session.config.voice)") == "cedar"
    await expect(play.find(".rtnb-control", has_text="Voice").first).not_to_contain_text("not sent yet")


async def test_everything_by_keyboard(shown: Opened) -> None:
    cell = OPEN.replace("'fast'", "'real_time'")
    play = await shown("keys.ipynb", cell=cell)
    page = play.page
    focused = "document.activeElement.textContent.trim() || document.activeElement.ariaLabel || ''"

    async def tab_to(words: str, *, most: int = 80) -> None:
        for _ in range(most):
            await page.keyboard.press("Tab")
            if words in await page.evaluate(focused):
                return
        raise AssertionError(f"Tab does not reach {words!r}")

    await play.find(".rtnb-connect").focus()
    await tab_to("Start microphone")
    await page.keyboard.press("Enter")
    await expect(play.find(".rtnb-microphone[data-state=on]")).to_have_count(1, timeout=20_000)
    await page.keyboard.press("Enter")
    await expect(play.find(".rtnb-microphone[data-state=off]")).to_have_count(1, timeout=20_000)
    await tab_to("Message")
    await page.keyboard.type("Count to one hundred, please, slowly, and tell me about your instructions!")
    await page.keyboard.press("Enter")
    await expect(play.find(".rtnb-speaker[data-state=playing]")).to_have_count(1, timeout=20_000)
    await tab_to("Interrupt", most=5)
    await page.keyboard.press("Enter")
    await expect(play.find(".rtnb-transcript")).to_contain_text("interrupted", timeout=20_000)

    await play.find(".rtnb-connect").focus()
    await tab_to("Settings")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Enter")
    slider = play.find(".noUi-handle:visible").first
    before = await slider.get_attribute("aria-valuetext")
    for _ in range(20):
        await page.keyboard.press("Tab")
        if "noUi-handle" in await page.evaluate("document.activeElement.className"):
            break
    await page.keyboard.press("ArrowRight")
    await expect(slider).not_to_have_attribute("aria-valuetext", str(before))

    await play.find(".rtnb-connect").focus()
    await tab_to("Turn detection")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Enter")
    for _ in range(30):
        await page.keyboard.press("Tab")
        if "rtnb-ev-grid" in await page.evaluate("document.activeElement.className"):
            break
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("End")
    await expect(play.find(".rtnb-ev-grid[aria-activedescendant]")).to_have_count(1)
    await expect(play.find(".rtnb-transcript article[aria-current=true]")).to_have_count(1)
    await play.find(".rtnb-transcript [role=log]").focus()
    await page.keyboard.press("Shift+Tab")
    await play.find(".rtnb-connect").focus()
    await page.keyboard.press("Enter")
    await expect(play.find(".rtnb-connection[data-state=closed]")).to_have_count(1, timeout=20_000)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
async def test_it_can_be_looked_at(shown: Opened, pictures: Path, theme: str) -> None:
    play = await shown(f"look-{theme}.ipynb", theme=f"JupyterLab {theme}", keep=True)
    await play.ask("What is a delta?")
    await expect(play.find(".rtnb-transcript")).to_contain_text("A delta is", timeout=20_000)
    await play.python("playground.turn_detection.threshold = 0.7; await playground.apply()")
    await play.page.keyboard.press("Control+b")  # the side bar takes what little room there is
    for width, height in ((1400, 1400), (480, 2600)):
        await play.page.set_viewport_size({"width": width, "height": height})
        await play.find(".rtnb-connection").scroll_into_view_if_needed()
        await play.page.screenshot(path=pictures / f"playground-{theme}-{width}.png")
        assert await play.page.evaluate(OUTSIDE) == []


OUTSIDE = """() => {
    const right = document.querySelector('.rtnb-playground').getBoundingClientRect().right + 1;
    const knobs = document.querySelectorAll('.rtnb-playground :is(button, input, select, textarea)');
    return [...knobs].filter(one => one.checkVisibility() && one.getBoundingClientRect().right > right)
                     .map(one => one.textContent || one.type);
}"""
