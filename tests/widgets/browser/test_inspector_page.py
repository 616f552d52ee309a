"""The inspector on a page: filters, folding, bounds, columns and layout; with its kernel, all that a person does."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import traitlets
from playwright.async_api import expect

import rtnb
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.values import ErrorDetail, SessionConfig
from rtnb.widgets import Waveform
from rtnb.widgets._base import FOLDER
from rtnb.widgets.inspector import EventInspector
from tests.widgets.bare_page import shown
from tests.widgets.page import eventually

TRAITS = {"static_id": "still", "can_send": True, "height_px": 430, "selected_index": None}

ROWS = """
// Rows by hand: [flags, time, type, size, bytes, ms, item, response, call, content, cause, text]
window.delta = (t) => [1 | 4, t, "response.output_audio.delta", 6500, 4800, 1000, "item_1", "resp_1", "", 1, -1, ""];
window.error = (t, cause = -1) => [1 | 2, t, "error", 200, 0, 0, "", "", "", 0, cause, "commit_empty: too small"];
window.done = (t) => [1, t, "response.done", 900, 0, 0, "", "resp_1", "", 0, -1, `row at ${t}`];
window.commit = (t) => [0, t, "input_audio_buffer.commit", 60, 0, 0, "", "", "", 0, -1, ""];
window.push = (start, list, more = {}) => say("rows",
  { start, count: list.length, base: 0, total: start + list.length, source: 1, waiting: false, ...more },
  [new TextEncoder().encode(JSON.stringify(list)).buffer]);
window.many = (start, count, tenths = 164) => Array.from({ length: count }, (_, k) => done((start + k) * tenths));
window.settled = async () => { for (let k = 0; k < 5; k++) await new Promise(requestAnimationFrame); };
window.seen = () => { // numbers of the rows that a person sees, from top to bottom
  const grid = document.querySelector(".rtnb-ev-grid"), { left, top, bottom } = grid.getBoundingClientRect();
  const at = (y) => document.elementFromPoint(left + 100, y)?.closest(".rtnb-ev-space > .rtnb-ev-row")?.dataset.index;
  return Array.from({ length: Math.floor((bottom - top - 44) / 22) }, (_, k) => Number(at(top + 33 + 22 * k)));
};
"""


async def inspector(browser: Any, rows: str = "0", *, width: int = 900, dark: bool = False, **traits: Any) -> Any:
    """Open a page that shows an inspector of this width, once the rows that a script pushes are laid out."""
    page = await shown(browser, "inspector", {**TRAITS, **traits})
    await page.add_style_tag(content=(FOLDER / "inspector.css").read_text(encoding="utf-8"))
    scheme = "dark" if dark else "light"
    await page.emulate_media(color_scheme=scheme)
    await page.add_style_tag(content=f":root {{ color-scheme: {scheme} }} body > div {{ width: {width}px }}")
    await page.add_script_tag(content=ROWS)
    await page.evaluate(rows)
    await text_of(page)
    return page


def status(page: Any) -> Any:
    return page.locator(".rtnb-ev-status")


async def text_of(page: Any) -> str:
    """Return the status line, once the rows are laid out."""
    await page.evaluate("settled()")
    await page.wait_for_function("!document.querySelector('.rtnb-ev-status').textContent.includes('…')")
    return str(await status(page).text_content())


async def test_filter_terms(browser: Any) -> None:
    page = await inspector(browser)
    fits = """([filter, type]) => {
      const view = new module.View(), row = done(0);
      row[module.TYPE] = type;
      view.add(0, [row]);
      view.settings.filter = filter;
      view.rebuild();
      return view.fits(0);
    }"""
    for pattern, kind, expected in [
        ("*.delta", "response.output_audio.delta", True),
        ("*.delta", "response.delta.done", False),
        ("audio", "response.output_audio.delta", True),
        ("!*.delta", "response.output_audio.delta", False),
        ("error, *.done", "response.done", True),
        ("RESP_1", "response.done", True),  # an id
        ("row at", "response.done", True),  # the text
        ("row at*", "response.done", False),  # the whole type or id
        (".", "error", False),  # no regular expression of the user's
        ("!", "error", True),
        ("received", "error", True),  # a direction
        ("sent", "error", False),
        ("!sent", "error", True),
        ("", "error", True),
    ]:
        assert await page.evaluate(fits, [pattern, kind]) is expected, (pattern, kind)


async def test_messages_may_overlap_but_a_gap_is_asked_for(browser: Any) -> None:
    page = await inspector(
        browser, "push(0, [error(0), delta(10)]); push(1, [delta(10), done(20)]); push(7, [done(30)])"
    )
    assert await text_of(page) == "3 of 3 events"
    assert await page.evaluate("sent.filter(([kind]) => kind === 'from').map(([, { start }]) => start)") == [0, 3]


async def test_runs_fold_and_unfold(browser: Any) -> None:
    page = await inspector(browser, "push(0, [error(0), delta(10), delta(20), delta(30), done(40), delta(50)])")
    shown_rows = "document.querySelectorAll('.rtnb-ev-space > .rtnb-ev-row:not([hidden])')"
    names = f"[...{shown_rows}].map((row) => row.children[4].textContent)"
    delta = "response.output_audio.delta"
    folded = ["error", f"×3 {delta}", "response.done", delta]
    assert await page.evaluate(names) == folded
    run = page.locator(".rtnb-ev-row", has_text="×3")
    assert "14,400 bytes, 300 ms of audio" in str(await run.text_content())
    grid = page.get_by_role("grid", name="Events")
    assert await grid.get_attribute("aria-rowcount") == "5"
    await page.get_by_role("button", name="Fold", pressed=True).click()
    await text_of(page)
    assert await page.evaluate(names) == ["error", delta, delta, delta, "response.done", delta]
    assert await grid.get_attribute("aria-rowcount") == "7"
    await page.get_by_role("button", name="Fold", pressed=False).click()
    await text_of(page)
    assert await page.evaluate(names) == folded


async def test_a_finding_is_an_icon_with_its_text(browser: Any) -> None:
    page = await inspector(browser, "push(0, [commit(1), error(2, 0), done(3)])", marks={})
    await page.evaluate("model.set('marks', { 1: 'error: The service reports an error.' })")
    row = page.locator(".rtnb-ev-row[data-finding]")
    await row.wait_for()
    assert await row.get_attribute("data-index") == "1"
    assert await row.get_attribute("title") == "error: The service reports an error."
    icon = "(e) => getComputedStyle(e.children[6], '::before').content"
    assert await row.evaluate(icon) == '"⚠ "'
    await page.evaluate("model.set('marks', {})")
    await page.wait_for_function("!document.querySelector('[data-finding]')")


async def test_toggles_say_whether_they_are_pressed(browser: Any) -> None:
    page = await inspector(browser, "push(0, [error(0), done(10)])")
    assert await text_of(page) == "2 of 2 events"
    for name, before in (("Errors 1", False), ("Fold", True), ("Follow", True)):
        button = page.get_by_role("button", name=name, pressed=before)
        await button.click()
        await page.get_by_role("button", name=name, pressed=not before).wait_for()
    assert await text_of(page) == "1 of 2 events"


async def test_without_follow_the_table_stands_still_and_loses_nothing(browser: Any) -> None:
    page = await inspector(browser, "push(0, many(0, 100))")
    before = await page.evaluate("seen()")
    await page.get_by_role("button", name="Follow").click()
    await page.evaluate("push(100, many(100, 500))")
    assert await text_of(page) == "600 of 600 events"
    assert await page.evaluate("seen()") == before


async def test_older_rows_are_forgotten_and_counted(browser: Any) -> None:
    page = await inspector(
        browser, "for (let s = 0; s < 226000; s += 2000) push(s, s ? many(s, 2000) : [error(0), ...many(1, 1999)])"
    )
    text = await text_of(page)
    assert text.startswith(("200,", "201,", "202,"))
    assert text.endswith(" older events are not shown")
    assert await page.get_by_role("button", name="Errors 0").count() == 1
    assert (await page.evaluate("seen()"))[-1] > 225_000  # and the newest are in view


async def test_numbers_and_times_of_a_long_session_are_whole(browser: Any) -> None:
    page = await inspector(browser)
    await page.evaluate("for (let s = 0; s < 150000; s += 2000) push(s, many(s, 2000))")
    await page.evaluate("push(150000, [[1, 24601230 * 2, 'response.done', 12345678, 0, 0, '', '', '', 0, -1, 'last']])")
    await text_of(page)
    row = page.locator(".rtnb-ev-row", has_text="last")
    assert [await row.locator("span").nth(c).inner_text() for c in (0, 1, 2, 5)] == [
        "150000",
        "4920.246",
        "+2460.262",
        "12,345,678",
    ]
    cut = """() => [...document.querySelectorAll('.rtnb-ev-row:not([hidden]) > span')]
      .filter((cell) => cell.matches(':nth-child(-n+3), :nth-child(6)') && cell.scrollWidth > cell.clientWidth)
      .map((cell) => cell.textContent)"""
    assert await page.evaluate(cut) == []


@pytest.mark.parametrize("dark", [False, True])
async def test_the_list_is_not_blank_after_it_was_moved(browser: Any, dark: bool) -> None:
    # JupyterLab detaches an output that is scrolled out of view; a browser then resets the scroll position in silence.
    page = await inspector(browser, "push(0, many(0, 2000))", dark=dark)
    await page.evaluate("document.querySelector('.rtnb-ev-grid').scrollTop = 11000")
    await page.evaluate("settled()")
    before = await page.evaluate("seen()")
    await page.evaluate(
        "const el = document.querySelector('.rtnb-ev').parentElement; el.remove(); document.body.append(el)"
    )
    await page.evaluate("settled()")
    assert before[0] > 480
    assert await page.evaluate("seen()") == before


async def test_scrolling_up_ends_following(browser: Any) -> None:
    page = await inspector(browser, "push(0, many(0, 500))")
    await page.evaluate("document.querySelector('.rtnb-ev-grid').scrollTop -= 300")  # as the scroll bar does
    await page.evaluate("settled()")
    before = await page.evaluate("seen()")
    await page.evaluate("push(500, many(500, 100))")
    await text_of(page)
    assert await page.evaluate("seen()") == before
    assert await page.get_by_role("button", name="Follow", pressed=False).count() == 1


async def test_another_source_starts_the_table_anew(browser: Any) -> None:
    page = await inspector(
        browser, "answers.event = { meaning: 'The end.', parts: ['{}'] }; push(0, [], { waiting: true })"
    )
    assert await text_of(page) == "Waiting for a session"
    await page.evaluate("push(0, many(0, 40), { source: 2 })")
    assert await text_of(page) == "40 of 40 events"
    await page.locator(".rtnb-ev-row", has_text="row at 6396").click()
    await page.evaluate("push(0, [error(5)], { source: 3 })")
    assert await text_of(page) == "1 of 1 events"
    assert await page.evaluate("model.get('selected_index')") is None


async def test_an_index_set_before_the_rows_arrive_is_selected(browser: Any) -> None:
    page = await inspector(
        browser, "answers.event = { meaning: 'The end.', parts: ['{}'] }; push(0, many(0, 500))", selected_index=7
    )
    assert await page.locator(".rtnb-ev-row[aria-selected=true]").get_attribute("data-index") == "7"
    assert await page.locator(".rtnb-ev-side").get_attribute("data-open") is not None
    active = await page.get_by_role("grid", name="Events").get_attribute("aria-activedescendant")
    assert await page.locator(f"#{active}").get_attribute("data-index") == "7"
    await page.evaluate("model.set('selected_index', null); settled()")
    assert await page.locator(".rtnb-ev-row[aria-selected=true]:visible").count() == 0


async def test_nothing_is_left_after_closing(browser: Any) -> None:
    page = await inspector(browser)
    await page.evaluate("push(0, many(0, 500)); settled()")
    await page.evaluate("unrender()")
    assert await page.evaluate("[listening(), model.handlers.size]") == [False, 0]
    frames = """new Promise((done) => {
      const ask = requestAnimationFrame, asked = [];
      window.requestAnimationFrame = (act) => { asked.push(act); return ask(act); };
      let left = 10;
      const next = () => (left-- ? ask(next) : done(asked.length));
      next();
    })"""
    assert await page.evaluate(frames) == 0
    assert page.failures == []


@pytest.mark.parametrize("dark", [False, True])
async def test_the_narrow_form_fits_beside_a_conversation(browser: Any, dark: bool, pictures: Path) -> None:
    page = await inspector(browser, width=420, dark=dark)
    detail = {"meaning": "Something was refused.", "wall_time": 0, "parts": ['{\n  "type": "error"\n}']}
    await page.evaluate("reply => { answers.event = reply; }", detail)
    await page.evaluate("push(0, [commit(0), error(25, 0), ...many(2, 60, 9000), delta(500000), delta(510000)])")
    await text_of(page)
    theme, whole_widget = "dark" if dark else "light", page.locator(".rtnb-ev")
    await whole_widget.screenshot(path=pictures / f"inspector-narrow-{theme}.png")
    await page.get_by_role("button", name="Errors 1").click()
    await page.locator(".rtnb-ev-row", has_text="commit_empty").click()
    await page.locator(".rtnb-ev-side pre").wait_for()
    await page.locator(".rtnb-ev").screenshot(
        path=pictures / f"inspector-narrow-open-{'dark' if dark else 'light'}.png"
    )
    box = """(selector) => {
      const { x, y, right, bottom } = document.querySelector(selector).getBoundingClientRect();
      return [x, y, right, bottom].map(Math.round);
    }"""
    whole, bar, grid, side = [await page.evaluate(box, f".rtnb-ev{part}") for part in ("", "-bar", "-grid", "-side")]
    assert whole[2] - whole[0] == 420
    assert whole[3] - whole[1] == 430
    assert bar[3] - bar[1] < 40  # one row
    assert side[1] >= grid[3] - 1  # below, not beside
    too_wide = """() => [...document.querySelectorAll('.rtnb-ev-bar, .rtnb-ev-bar > :not(input, span)')]
      .filter((e) => e.scrollWidth > e.clientWidth + 1).length"""
    assert await page.evaluate(too_wide) == 0
    foot = await page.evaluate(box, ".rtnb-ev-foot")
    assert foot[3] - foot[1] < 40
    assert foot[3] <= whole[3]


# --- with its kernel --------------------------------------------------------------------------------------------------

IDS = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}


class Inspected:
    """An inspector of this process on a page: 43 events.

    A refused commit, its error, 20 pieces of audio and 20 of text in turn, and the end of the audio.
    """

    def __init__(self) -> None:
        self.page: Any = None
        self.log = EventLog()
        text = "buffer too small"
        code = "input_audio_buffer_commit_empty"
        refusal = ErrorDetail(type="invalid_request_error", code=code, message=text, event_id="mine_1")
        self.add("sent", events.InputAudioBufferCommit(event_id="mine_1"), 0.0)
        self.add("received", events.Error(error=refusal, event_id="s0"), 0.25)
        self.deltas(0, 40)
        self.add("received", events.ResponseOutputAudioDone(response_id="resp_1", item_id="item_1", event_id="s1"), 1.5)
        self.inspector = EventInspector(self.log)

    def add(self, direction: Any, event: Any, at_s: float) -> None:
        self.log.record(direction, event, monotonic_s=at_s, wall_time=1_700_000_000 + at_s)

    def deltas(self, start: int, stop: int) -> None:
        for i in range(start, stop):
            sound = events.ResponseOutputAudioDelta(**IDS, delta=bytes(4800), event_id=f"a{i}")
            words = events.ResponseOutputAudioTranscriptDelta(**IDS, delta=f"word{i} ", event_id=f"t{i}")
            self.add("received", words if i % 2 else sound, 1 + i / 100)

    def rows(self, text: str = "") -> Any:
        return self.page.locator(".rtnb-ev-space > .rtnb-ev-row:visible", has_text=text)

    @property
    def side(self) -> Any:
        return self.page.locator(".rtnb-ev-side")

    @property
    def chosen(self) -> Any:
        return self.page.locator(".rtnb-ev-row[aria-selected=true]")

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    async def filtered(self, text: str, expected: str) -> None:
        await self.page.get_by_label("Filter", exact=True).fill(text)
        await expect(status(self.page)).to_have_text(expected)


@pytest.fixture
async def live(open_tab: Any) -> AsyncIterator[Inspected]:
    one = Inspected()
    tab = await open_tab()
    one.page = tab.page
    await tab.show(one.inspector)
    await expect(status(one.page)).to_have_text("43 of 43 events")
    yield one
    one.inspector.close()


async def test_folding_selecting_and_what_belongs_together(live: Inspected) -> None:
    await expect(live.rows()).to_have_count(5)  # commit, error, audio ×20, text ×20, done
    sound = live.rows("×20 response.output_audio.delta")
    await expect(sound).to_contain_text("96,000 bytes, 2,000 ms of audio")
    await expect(live.rows("transcript.delta")).to_contain_text("word1 word3 word5")

    error = live.rows("input_audio_buffer_commit_empty: buffer too small")
    await expect(error).to_have_attribute("data-kind", "trouble")
    await error.click()
    await expect(live.side).to_contain_text("Caused by #0 input_audio_buffer.commit")
    await expect(live.side).to_contain_text("Something was refused; the session goes on unless the connection closes.")
    await live.side.get_by_role("button", name="#0").click()
    await expect(live.side).to_contain_text("Refused by #1 input_audio_buffer_commit_empty: buffer too small")
    await expect(live.side).to_contain_text("Make the buffered audio (at least 100 ms) a user item")

    await sound.locator("span").nth(4).click()  # unfolds
    await expect(live.rows("4,800 bytes, 100 ms of audio").first).to_be_visible()


async def test_the_keyboard_does_it_all(live: Inspected) -> None:
    keyboard = live.page.keyboard
    grid = live.page.get_by_label("Events", exact=True).and_(live.page.locator("rtnb-scroller"))
    await grid.focus()
    await keyboard.press("Home")
    await expect(live.chosen).to_contain_text("input_audio_buffer.commit")
    await keyboard.press("ArrowDown")
    await keyboard.press("ArrowDown")
    await expect(live.chosen).to_contain_text("×20 response.output_audio.delta")
    await keyboard.press("ArrowRight")  # unfolds
    await expect(live.chosen).to_contain_text("4,800 bytes, 100 ms of audio")
    assert await grid.get_attribute("aria-activedescendant") == await live.chosen.get_attribute("id")
    await keyboard.press("ArrowLeft")
    await expect(live.chosen).to_contain_text("×20 response.output_audio.delta")
    await keyboard.press("f")
    await live.page.get_by_role("button", name="Follow", pressed=True).wait_for()
    await keyboard.press("/")
    await keyboard.type("WORD7 ")
    await expect(status(live.page)).to_have_text("1 of 43 events")
    await keyboard.press("Escape")
    await expect(grid).to_be_focused()


async def test_the_kernel_searches_what_the_page_does_not_hold(live: Inspected) -> None:
    await live.filtered("response.*.delta, !*transcript*", "20 of 43 events")
    await live.filtered("mine_1", "2 of 43 events")  # only in the JSON
    await live.filtered("item_1", "41 of 43 events")


async def test_audio_plays_and_is_never_text(live: Inspected) -> None:
    await live.page.evaluate(
        """() => { const { start } = AudioBufferSourceNode.prototype;
            const note = function () { window.played = this.buffer.length; start.call(this); };
            AudioBufferSourceNode.prototype.start = note; }"""
    )
    await live.rows("×20 response.output_audio.delta").locator("span").nth(6).click()
    await live.button("96,000 bytes, 2,000 ms ▶").click()
    await live.page.wait_for_function("window.played === 48000")
    await live.rows("×20 response.output_audio.delta").locator("span").nth(4).click()
    await live.rows("4,800 bytes, 100 ms of audio").first.click()
    await live.side.locator("pre").wait_for()
    assert "AAAA" not in await live.side.inner_text()
    await live.side.locator("pre").get_by_role("button", name="4,800 bytes, 100 ms ▶").click()
    await live.page.wait_for_function("window.played === 2400")


async def test_export_and_copy(live: Inspected, tmp_path: Path) -> None:
    await live.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    async with live.page.expect_download() as coming:
        await live.button("Export").click()
    await (await coming.value).save_as(tmp_path / "events.jsonl")
    saved = EventLog.load(tmp_path / "events.jsonl")
    assert [row.type for row in saved][:2] == ["input_audio_buffer.commit", "error"]
    assert len(saved) == 43

    await live.rows("buffer too small").click()
    await live.side.get_by_role("button", name="Copy JSON").click()
    await expect(status(live.page)).to_contain_text("event 1 copied")
    copied = json.loads(await live.page.evaluate("navigator.clipboard.readText()"))
    assert copied["error"]["event_id"] == "mine_1"


async def test_the_chosen_event_is_shared_with_python_and_the_waveform(live: Inspected) -> None:
    inspector, waveform = live.inspector, Waveform(live.log)
    traitlets.link((waveform, "selected_index"), (inspector, "selected_index"))
    await live.rows("input_audio_buffer_commit_empty").click()
    seen = (1, 1, 250.0)
    await eventually(lambda: (inspector.selected_index, waveform.selected_index, waveform.selected_ms) == seen)
    waveform.selected_ms = 1500.0
    await expect(live.chosen).to_contain_text("response.output_audio.done")
    inspector.selected_index = 4  # a piece of a folded run: the run that holds it
    await expect(live.chosen).to_contain_text("×20 response.output_audio.delta")
    assert (inspector.selected_index, waveform.selected_index) == (4, 4)
    waveform.close()


async def test_the_newest_is_followed_and_a_later_page_shows_all(live: Inspected, open_tab: Any) -> None:
    live.deltas(40, 540)
    await expect(status(live.page)).to_have_text("543 of 543 events")
    await live.button("Fold").click()
    await expect(live.rows("word539")).to_be_visible()  # the last one
    live.deltas(540, 600)
    await expect(live.rows("word599")).to_be_visible()
    later = await open_tab()
    await later.show(live.inspector)
    await expect(status(later.page)).to_have_text("603 of 603 events")


async def test_an_event_is_checked_and_sent(live: Inspected) -> None:
    async with rtnb.connect("sim") as session:
        live.inspector.source = session
        await live.button("Send event…").click()
        await expect(live.side).to_contain_text("The service would accept this event now.")
        body = live.side.get_by_label("Event as JSON")
        await body.fill('{"type": "response.create"')
        await expect(live.side).to_contain_text("This is not JSON")
        await expect(live.side.get_by_role("button", name="Send", exact=True)).to_be_disabled()
        await body.fill('{"type": "input_audio_buffer.commit"}')
        await expect(live.side).to_contain_text("The service would refuse this event (input_audio_buffer_commit_empty)")
        await live.side.get_by_role("button", name="Send anyway").click()
        await expect(live.side).to_contain_text("Sent.")
        await expect(live.rows("input_audio_buffer_commit_empty: ")).to_have_attribute("data-kind", "trouble")
        assert [row.type for row in session.log][-2:] == ["input_audio_buffer.commit", "error"]


HOSTILE = [
    "<img src=x onerror='window.hacked=1'>",
    "<script>window.hacked=1</script>",
    "\u202egnirts\u202c",
    "</td><b>x",
    "x" * 1_000_000,
    "\ud800",
    "javascript:window.hacked=1",
]
SELECTED = """async () => {
    await new Promise(requestAnimationFrame); // the key was heard; it is painted with the next frame
    const row = document.querySelector(".rtnb-ev-row[aria-selected=true]:not([hidden])");
    return [Number(row.dataset.index), row.children[4].textContent.startsWith("×")];
}"""
"""The first event of the selected row, and whether it stands for more than this one."""


async def test_hostile_text_stays_text(live: Inspected) -> None:
    for at_s, text in enumerate(HOSTILE, 2):
        ids = {"response_id": text[:64], "item_id": text[:64]}
        done = events.ResponseOutputAudioTranscriptDone(**ids, transcript=text, event_id=text[:500])
        error = events.Error(error=ErrorDetail(type="server_error", code=text[:80], message=text))
        unknown = events.UnknownEvent(type=text[:80], payload={"type": text[:80], text[:90]: [text]})
        for event in (done, error, unknown):
            live.add("received", event, at_s)
        live.add("sent", events.SessionUpdate(session=SessionConfig.of(instructions=text)), at_s)
    total = len(live.log)
    await expect(status(live.page)).to_have_text(f"{total} of {total} events")
    seen = ""
    for fold in (False, True):
        if fold:
            await live.button("Fold").click()
        await live.page.get_by_role("grid", name="Events").focus()
        await live.page.keyboard.press("Home")
        for _ in range(total):
            at, many = await live.page.evaluate(SELECTED)
            if at >= 43:
                await expect(live.side.locator("strong") if many else live.side.get_by_text(f"#{at} ·")).to_be_visible()
                seen += await live.side.inner_text()
            await live.page.keyboard.press("ArrowDown")
    assert await live.page.evaluate("window.hacked") is None
    assert await live.page.locator(".rtnb-ev :is(img, script, b, iframe)").count() == 0
    assert "<script>window.hacked=1</script>" in seen
    assert "\u202e" not in seen
    assert "1,000,000 characters" in seen
