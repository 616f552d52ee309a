"""The inspector in a real JupyterLab: what a person clicks, types and sees, and what Python says of it."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from rtnb.client.log import EventLog
from tests.benchmarks import inspector as benchmark
from tests.browser.cells import eventually, run
from tests.widgets.page import eventually as until

MANY = """
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.values import ErrorDetail
from rtnb.widgets.inspector import EventInspector, inspect
log = EventLog()
def add(direction, event, at_s):
    log.record(direction, event, monotonic_s=at_s, wall_time=1_700_000_000 + at_s)
def deltas(start, stop):
    ids = dict(response_id="resp_1", item_id="item_1", output_index=0, content_index=0)
    for i in range(start, stop):
        sound = events.ResponseOutputAudioDelta(**ids, delta=bytes(4800), event_id=f"a{i}")
        words = events.ResponseOutputAudioTranscriptDelta(**ids, delta=f"word{i} ", event_id=f"t{i}")
        add("received", words if i % 2 else sound, 1 + i / 100)
refusal = ErrorDetail(type="invalid_request_error", code="input_audio_buffer_commit_empty", message="buffer too small",
                      event_id="mine_1")
add("sent", events.InputAudioBufferCommit(event_id="mine_1"), 0.0)
add("received", events.Error(error=refusal, event_id="s0"), 0.25)
deltas(0, 40)
add("received", events.ResponseOutputAudioDone(response_id="resp_1", item_id="item_1", output_index=0,
                                               content_index=0, event_id="s1"), 1.5)
inspector = inspect(log)
inspector
"""
"""43 events: a refused commit, its error, 20 pieces of audio and 20 of text in turn, and the end of the audio."""

TALK = """
import rtnb
from rtnb.widgets.inspector import inspect
session = await rtnb.connect("sim")
response = await session.ask("What is a delta?")
"""

Opened = Callable[..., Awaitable[Any]]


@pytest.fixture
def inspected(open_notebook: Any) -> Opened:
    """Run the cells of a new notebook and wait for the inspector's rows."""

    async def opened(name: str, *cells: str, **options: Any) -> Any:
        notebook = await open_notebook(name, cells=[*cells, "# more"], **options)
        outputs = await notebook.run_all()
        assert not [output.error for output in outputs if output.error]
        await rows(notebook.page).first.wait_for()
        return notebook

    return opened


def rows(page: Any, text: str = "") -> Any:
    """The rows of the table that are on the page now."""
    return page.locator(".rtnb-ev-space > .rtnb-ev-row:visible", has_text=text)


async def settled(page: Any) -> None:
    """Wait until the table is laid out anew: what a person does by looking."""
    await page.evaluate("async () => { for (let k = 0; k < 10; k++) await new Promise(requestAnimationFrame); }")


async def test_folding_selecting_and_what_belongs_together(inspected: Opened) -> None:
    notebook = await inspected("fold.ipynb", MANY, keep=True)
    page = notebook.page

    await expect(rows(page)).to_have_count(5)  # commit, error, audio ×20, text ×20, done
    sound = rows(page, "×20 response.output_audio.delta")
    await expect(sound).to_contain_text("96,000 bytes, 2,000 ms of audio")
    await expect(rows(page, "transcript.delta")).to_contain_text("word1 word3 word5")
    await expect(page.locator(".rtnb-ev-status")).to_have_text("43 of 43 events")

    error = rows(page, "input_audio_buffer_commit_empty: buffer too small")
    await expect(error).to_have_attribute("data-kind", "trouble")
    await error.click()
    side = page.locator(".rtnb-ev-side")
    await expect(side).to_contain_text("Caused by #0 input_audio_buffer.commit")
    await expect(side).to_contain_text("Something was refused; the session goes on unless the connection closes.")
    await side.get_by_role("button", name="#0").click()
    await expect(side).to_contain_text("Refused by #1 input_audio_buffer_commit_empty: buffer too small")
    await expect(side).to_contain_text("Make the buffered audio (at least 100 ms) a user item")

    await sound.locator("span").nth(4).click()  # unfolds
    await expect(rows(page, "4,800 bytes, 100 ms of audio").first).to_be_visible()
    await notebook.picture("unfolded")


async def test_the_keyboard_does_it_all(inspected: Opened) -> None:
    notebook = await inspected("keys.ipynb", MANY, keep=True)
    page = notebook.page
    grid = page.get_by_label("Events", exact=True).and_(page.locator("rtnb-scroller"))
    chosen = page.locator(".rtnb-ev-row[aria-selected=true]")

    await grid.focus()
    await page.keyboard.press("Home")
    await expect(chosen).to_contain_text("input_audio_buffer.commit")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(chosen).to_contain_text("×20 response.output_audio.delta")
    await page.keyboard.press("ArrowRight")  # unfolds
    await expect(chosen).to_contain_text("4,800 bytes, 100 ms of audio")
    assert await grid.get_attribute("aria-activedescendant") == await chosen.get_attribute("id")
    await page.keyboard.press("ArrowLeft")
    await expect(chosen).to_contain_text("×20 response.output_audio.delta")
    await page.keyboard.press("f")
    await page.get_by_role("button", name="Follow", pressed=True).wait_for()
    await page.keyboard.press("/")
    await page.keyboard.type("WORD7 ")
    await expect(page.locator(".rtnb-ev-status")).to_have_text("1 of 43 events")
    await page.keyboard.press("Escape")
    await expect(grid).to_be_focused()
    assert await notebook.page.locator(".jp-Cell").count() == 2  # as before: no key went to the notebook


async def test_filters_count_and_runs_unfold(inspected: Opened) -> None:
    notebook = await inspected("filter.ipynb", MANY, keep=True)
    page = notebook.page
    status = page.locator(".rtnb-ev-status")

    await page.get_by_label("Filter", exact=True).fill("response.*.delta, !*transcript*")
    await expect(status).to_have_text("20 of 43 events")
    await page.get_by_label("Filter", exact=True).fill("")
    await page.get_by_label("Filter", exact=True).fill("sent")
    await expect(status).to_have_text("1 of 43 events")
    await page.get_by_label("Filter", exact=True).fill("")
    await page.get_by_role("button", name="Errors 1").click()
    await expect(status).to_have_text("1 of 43 events")
    await page.get_by_role("button", name="Errors 1").click()
    await page.get_by_label("Filter", exact=True).fill("mine_1")  # only in the JSON: the kernel looks there
    await expect(status).to_have_text("2 of 43 events")
    await page.get_by_label("Filter", exact=True).fill("item_1")
    await expect(status).to_have_text("41 of 43 events")
    await page.get_by_label("Filter", exact=True).fill("")

    await page.get_by_role("button", name="Fold", exact=True).click()
    await expect(rows(page, "word39")).to_be_visible()
    await expect(page.locator(".rtnb-ev-status")).to_have_text("43 of 43 events")


async def test_audio_plays_and_is_never_text(inspected: Opened) -> None:
    notebook = await inspected("play.ipynb", MANY, keep=True)
    page = notebook.page
    await page.evaluate(
        """() => { const { start } = AudioBufferSourceNode.prototype;
            const note = function () { window.played = this.buffer.length; start.call(this); };
            AudioBufferSourceNode.prototype.start = note; }"""
    )

    await rows(page, "×20 response.output_audio.delta").locator("span").nth(6).click()
    await page.get_by_role("button", name="96,000 bytes, 2,000 ms ▶").click()
    await page.wait_for_function("window.played === 48000")
    await rows(page, "×20 response.output_audio.delta").locator("span").nth(4).click()
    await rows(page, "4,800 bytes, 100 ms of audio").first.click()
    await page.locator(".rtnb-ev-side pre").wait_for()
    assert "AAAA" not in await page.locator(".rtnb-ev-side").inner_text()
    await page.locator(".rtnb-ev-side pre").get_by_role("button", name="4,800 bytes, 100 ms ▶").click()
    await page.wait_for_function("window.played === 2400")


async def test_export_and_copy(inspected: Opened, tmp_path: Path) -> None:
    notebook = await inspected("export.ipynb", MANY, keep=True)
    page = notebook.page
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])

    async with page.expect_download() as coming:
        await page.get_by_role("button", name="Export").click()
    await (await coming.value).save_as(tmp_path / "events.jsonl")
    assert [row.type for row in EventLog.load(tmp_path / "events.jsonl")][:2] == ["input_audio_buffer.commit", "error"]
    assert len(EventLog.load(tmp_path / "events.jsonl")) == 43

    await rows(page, "buffer too small").click()
    await page.locator(".rtnb-ev-side").get_by_role("button", name="Copy JSON").click()
    await expect(page.locator(".rtnb-ev-status")).to_contain_text("event 1 copied")
    copied = json.loads(await page.evaluate("navigator.clipboard.readText()"))
    assert copied["error"]["event_id"] == "mine_1"


async def test_running_the_cell_again_starts_clean(inspected: Opened) -> None:
    notebook = await inspected("again.ipynb", MANY, keep=True)
    await notebook.run_all()
    await expect(notebook.page.locator(".rtnb-ev-status")).to_have_text("43 of 43 events")
    assert await notebook.page.locator(".rtnb-ev").count() == 1
    assert not [message for message in notebook.messages if "rtnb" in message]


async def test_the_chosen_event_is_shared_with_python_and_the_waveform(inspected: Opened) -> None:
    linked = """
import traitlets
from rtnb.widgets import Waveform
waveform = Waveform(log)
_ = traitlets.link((waveform, "selected_index"), (inspector, "selected_index"))
"""
    notebook = await inspected("chosen.ipynb", MANY, linked)
    chosen = notebook.page.locator(".rtnb-ev-row[aria-selected=true]")
    await rows(notebook.page, "input_audio_buffer_commit_empty").click()
    seen = "(inspector.selected_index, waveform.selected_index, waveform.selected_ms)"
    await eventually(notebook, seen, "(1, 1, 250.0)")
    await run(notebook, "waveform.selected_ms = 1500.0")
    await expect(chosen).to_contain_text("response.output_audio.done")
    await run(notebook, "inspector.selected_index = 4")  # a piece of a folded run: the run that holds it
    await expect(chosen).to_contain_text("×20 response.output_audio.delta")
    assert await run(notebook, "print(inspector.selected_index, waveform.selected_index)") == "4 4"


async def test_the_newest_is_followed_and_a_later_page_shows_all(inspected: Opened) -> None:
    notebook = await inspected("follow.ipynb", MANY, fresh=True)  # it is reloaded
    page = notebook.page
    status = page.locator(".rtnb-ev-status")

    await run(notebook, "deltas(40, 540); print(len(inspector.event_log))")
    await expect(status).to_have_text("543 of 543 events")
    await page.get_by_role("button", name="Fold", exact=True).click()
    await expect(rows(page, "word539")).to_be_visible()  # the last one
    await run(notebook, "deltas(540, 600); print('more')")
    await expect(rows(page, "word599")).to_be_visible()

    await page.keyboard.press("Control+s")
    await page.wait_for_function("!document.querySelector('.jp-mod-current.jp-mod-dirty')")
    await page.reload()  # a page that comes later is shown everything
    await rows(page).first.wait_for(timeout=60_000)
    await expect(status).to_have_text("603 of 603 events")


async def test_an_event_is_checked_and_sent(inspected: Opened) -> None:
    notebook = await inspected("send.ipynb", TALK, "inspector = inspect(session)\ninspector")
    page = notebook.page
    side = page.locator(".rtnb-ev-side")

    await page.get_by_role("button", name="Send event…").click()
    await expect(side).to_contain_text("The service would accept this event now.")
    body = side.get_by_label("Event as JSON")
    await body.fill('{"type": "response.create"')
    await expect(side).to_contain_text("This is not JSON")
    await expect(side.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    await body.fill('{"type": "input_audio_buffer.commit"}')
    await expect(side).to_contain_text("The service would refuse this event (input_audio_buffer_commit_empty)")
    await notebook.picture("refused")
    await side.get_by_role("button", name="Send anyway").click()
    await expect(side).to_contain_text("Sent.")
    await expect(rows(page, "input_audio_buffer_commit_empty: ")).to_have_attribute("data-kind", "trouble")
    types = await run(notebook, "print([row.type for row in session.log][-2:])")
    assert types == "['input_audio_buffer.commit', 'error']"


HOSTILE = r"""
bad = ["<img src=x onerror='window.hacked=1'>", "<script>window.hacked=1</script>", "\u202egnirts\u202c", "</td><b>x",
       "x" * 1_000_000, "\ud800", "javascript:window.hacked=1"]
for number, text in enumerate(bad):
    ids = dict(response_id=text[:64], item_id=text[:64], output_index=0, content_index=0)
    add("received", events.ResponseOutputAudioTranscriptDone(**ids, transcript=text, event_id=text[:500]), 2 + number)
    add("received", events.Error(error=ErrorDetail(type="server_error", code=text[:80], message=text)), 2.5 + number)
    add("received", events.UnknownEvent(type=text[:80], payload={"type": text[:80], text[:90]: [text]}), 2.7 + number)
    update = events.SessionUpdate(session=rtnb.protocol.SessionConfig.of(instructions=text))
    add("sent", update, 2.8 + number)
print(len(log))
"""


SELECTED = """async () => {
    await new Promise(requestAnimationFrame); // the key was heard; it is painted with the next frame
    const row = document.querySelector(".rtnb-ev-row[aria-selected=true]:not([hidden])");
    return [Number(row.dataset.index), row.children[4].textContent.startsWith("×")];
}"""
"""The first event of the selected row, and whether it stands for more than this one."""


async def test_hostile_text_stays_text(inspected: Opened) -> None:
    notebook = await inspected("hostile.ipynb", "import rtnb, rtnb.protocol", MANY)
    page = notebook.page
    total = int(await run(notebook, HOSTILE))
    await expect(page.locator(".rtnb-ev-status")).to_have_text(f"{total} of {total} events")

    await page.get_by_role("grid", name="Events").focus()
    await page.keyboard.press("Home")
    seen = ""
    for folded in (True, False):
        if not folded:
            await page.get_by_role("button", name="Fold", exact=True).click()
        await page.get_by_role("grid", name="Events").focus()
        await page.keyboard.press("Home")
        for _ in range(total):
            at, many = await page.evaluate(SELECTED)
            if at >= 43:
                side = page.locator(".rtnb-ev-side")
                await (
                    expect(side.locator("strong")).to_be_visible() if many else expect(side).to_contain_text(f"#{at} ·")
                )
                seen += await side.inner_text()
            await page.keyboard.press("ArrowDown")
    await notebook.picture("hostile")
    assert await page.evaluate("window.hacked") is None
    assert await page.locator(".rtnb-ev :is(img, script, b, iframe)").count() == 0
    assert "<script>window.hacked=1</script>" in seen
    assert "\u202e" not in seen
    assert "1,000,000 characters" in seen


async def test_a_saved_notebook_is_small_and_readable_without_a_kernel(inspected: Opened, jupyterlab: Any) -> None:
    secret = "sk-" + "Z9" * 24
    leak = f'''
from rtnb.protocol.values import SessionConfig
tool = {{"type": "mcp", "server_label": "x", "authorization": "{secret}"}}
add("sent", events.SessionUpdate(session=SessionConfig(tools=(tool,))), 3)
deltas(40, 400)
inspector = inspect(list(log))'''
    listed = MANY.replace("inspector = inspect(log)", leak)
    notebook = await inspected("saved.ipynb", listed, fresh=True)
    page = notebook.page
    await page.wait_for_function("document.querySelector('[data-rtnb-static]')?.textContent.includes('404 events')")
    assert not await page.locator("[data-rtnb-static]").is_visible()
    await page.keyboard.press("Control+s")
    await page.wait_for_function("!document.querySelector('.jp-mod-current.jp-mod-dirty')")
    book = jupyterlab.read("saved.ipynb")
    outputs = json.dumps([cell.outputs for cell in book.cells])
    assert secret not in outputs + json.dumps(book.metadata)  # it is in the cell that wrote it, and nowhere else
    assert not re.search(r"A{40}", outputs)  # the audio is zeros: As in base64
    assert len(outputs) + len(json.dumps(book.metadata.get("widgets", {}))) < 200_000
    assert "word399" in outputs

    await notebook.choose("Kernel", re.compile("^Shut Down Kernel"))
    await until(lambda: all(one["path"] != "saved.ipynb" for one in jupyterlab.get("api/sessions")))
    await page.reload()
    still = page.locator("[data-rtnb-static] summary")
    await still.wait_for(timeout=60_000)
    await expect(page.locator("[data-rtnb-static] table")).to_contain_text("word399")
    await notebook.picture("without-kernel")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
async def test_it_looks_right(inspected: Opened, theme: str) -> None:
    name = f"looks-{theme[11:].lower()}.ipynb"
    refused = "await session.send_raw({'type': 'input_audio_buffer.commit'})"
    notebook = await inspected(name, TALK, refused, "inspect(session)", theme=theme, keep=True)
    page = notebook.page
    too_wide = """selector => [...document.querySelectorAll(selector)]
        .filter(node => node.scrollWidth > node.clientWidth + 1).map(node => node.textContent)"""
    for width, shown in ((1400, 1400), (480, 780)):  # the side bar has 300
        await page.set_viewport_size({"width": shown, "height": 1000})
        await settled(page)
        await rows(page, "input_audio_buffer_commit_empty").click()
        await page.locator(".rtnb-ev-side pre").wait_for()
        await page.locator(".rtnb-ev").scroll_into_view_if_needed()
        await notebook.picture(f"inspector-{width}")
        assert await page.evaluate(too_wide, ".rtnb-ev, .rtnb-ev-bar > :is(button, details)") == []


# --- the benchmark ----------------------------------------------------------------------------------------------------

LATE = """
const plain = URL.createObjectURL;
URL.createObjectURL = (blob) => {
  const url = plain(blob);
  if (blob.type !== "text/javascript") return url;
  const late = `
    import widget from "${url}";
    const made = typeof widget === "function" ? await widget() : widget;
    const shown = new Promise((done) => setTimeout(done, 1500));
    export default { ...made, render: async (props) => (await shown, made.render(props)) };`;
  return plain(new Blob([late], { type: blob.type }));
};
"""
"""Each widget is rendered 1.5 s after its module was loaded: the kernel is idle long before."""


class SlowBrowser:
    """Browser whose pages show widgets late, as on a slow machine."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    async def new_context(self, **options: Any) -> Any:
        context = await self._browser.new_context(**options)
        await context.add_init_script(LATE)
        return context


async def test_the_benchmark_waits_for_a_widget_that_comes_late(
    jupyterlab: Any, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "BURST", 2_000)
    figures = await benchmark.burst(jupyterlab, SlowBrowser(browser))
    assert figures["burst_s"] > 0
    assert figures["scroll_frames_per_s"] > 0
