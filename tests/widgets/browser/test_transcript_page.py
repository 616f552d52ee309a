"""`Transcript` on a page: hostile text stays text; statuses in words; the newest turns."""

from typing import Any

import pytest

from rtnb.widgets.transcript import PAGE_ENTRIES
from tests.widgets.bare_page import shown

HOSTILE = [
    "<img src=x onerror='window.hacked=1'>",
    "<script>window.hacked=1</script>",
    "</p></article></section><h1>out</h1>",
    "javascript:alert(1) [a](javascript:alert(1))",
    "\u202egnirts desrever\u202c and \u2066isolates",
    "&lt;b&gt; &amp; {{ x }} ${window.hacked=1} `",
    "A" * 20_000,
    "שלום <b>עולם</b>",
    "\x00\x07\x1b[31m",
]

TRAITS = {"selected_index": None, "can_transcribe": True}


def entry(number: int, text: str, **more: Any) -> dict[str, Any]:
    base = {"item_id": f"i{number}", "role": "assistant", "text": text, "status": "complete", "detail": "", "note": ""}
    times = {"index": number, "start_ms": 0.0, "stop_ms": 0.0, "has_audio": False}
    return base | times | {"heard_share": None, "heard_characters": len(text)} | more


@pytest.fixture
async def page(browser: Any) -> Any:
    return await shown(browser, "transcript", TRAITS)


async def say(page: Any, number: int, text: str, **more: Any) -> None:
    await page.evaluate("(one) => say('entry', one)", entry(number, text, **more))


async def test_hostile_text_changes_nothing_but_text(page: Any) -> None:
    before = await page.evaluate("(e) => (say('entry', e), document.querySelectorAll('*').length)", entry(0, "kind"))
    per_entry = await page.evaluate("document.querySelectorAll('article, article *').length")
    for number, text in enumerate(HOSTILE, 1):
        await say(page, number, text, role=text[:50], status=text[:50], detail=text[:50], id=text)
    after = await page.evaluate("document.querySelectorAll('*').length")
    assert after == before + len(HOSTILE) * per_entry
    assert await page.evaluate("window.hacked") is None
    texts = await page.evaluate("[...document.querySelectorAll('article p')].map((p) => p.textContent)")
    assert texts == ["kind", *HOSTILE]
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not page.failures


async def test_right_to_left_and_what_was_heard(page: Any) -> None:
    cut = {"status": "interrupted", "detail": "at 0.5 s; 1.5 s not heard", "heard_share": 0.5, "heard_characters": 7}
    await say(page, 1, "one two three", **cut)
    await say(page, 2, "שלום, מה שלומך?", role="user")
    assert await page.locator("article").nth(0).locator("s").inner_text() == " two three"[4:]
    assert "✂ interrupted at 0.5 s; 1.5 s not heard" in await page.locator("article").nth(0).inner_text()
    directions = "[...document.querySelectorAll('article p')].map((p) => getComputedStyle(p).direction)"
    assert await page.evaluate(directions) == ["ltr", "rtl"]
    await page.evaluate("say('reset', {})")
    await page.get_by_text("Type a message, or start the microphone.").wait_for()


async def test_a_closed_view_leaves_no_listener(page: Any) -> None:
    assert await page.evaluate("listening()")
    await page.evaluate("unrender()")
    assert not await page.evaluate("listening()")
    assert await page.evaluate("model.handlers.size") == 0


TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
AT_END = "(([l]) => l.scrollHeight - l.scrollTop - l.clientHeight)(document.querySelectorAll('[role=log]'))"


async def test_it_follows_the_newest_turn_after_its_place_has_changed_size(page: Any) -> None:
    for number in range(40):
        await say(page, number, "words " * 20)
    await page.wait_for_function(f"{AT_END} < 2")
    await page.evaluate("document.querySelector('.rtnb-transcript').style.height = '200px'")  # a tab, a window, a fold
    await page.wait_for_function(f"{AT_END} < 2")  # before there is another entry
    await say(page, 40, "smaller")
    await page.wait_for_function(f"{AT_END} < 2")
    await page.evaluate("document.querySelector('.rtnb-transcript').style.display = 'none'")
    await say(page, 41, "while it was hidden")
    await page.evaluate("document.querySelector('.rtnb-transcript').style.display = ''")
    await page.wait_for_function(f"{AT_END} < 2")
    await say(page, 42, "shown again")
    await page.wait_for_function(f"{AT_END} < 2")
    await page.evaluate("document.querySelector('[role=log]').scrollTop = 100")
    await page.evaluate(TWO_FRAMES)
    await say(page, 43, "the reader stays where they are")
    await page.evaluate(TWO_FRAMES)
    assert await page.evaluate("document.querySelector('[role=log]').scrollTop") == 100


async def test_the_newest_500_turns_are_on_the_page(page: Any) -> None:
    await page.evaluate(
        "(e) => { for (let i = 0; i < 620; i++) say('entry', { ...e, item_id: `i${i}`, index: i }); }", entry(0, "x")
    )
    assert await page.locator("article").count() == PAGE_ENTRIES
    await page.get_by_text("Showing the newest 500 turns.").wait_for()
    await say(page, 5, "a late change of a turn that has left the page")
    assert await page.locator("article").count() == PAGE_ENTRIES
    await page.wait_for_function(f"{AT_END} < 2")


async def test_arrow_keys_and_clicks_move_the_selection(page: Any) -> None:
    for number in range(3):
        await say(page, 10 * number, f"turn {number}", has_audio=True, stop_ms=900.0)
    await page.locator("article").nth(1).click()
    assert await page.evaluate("model.get('selected_index')") == 10
    await page.keyboard.press("ArrowDown")
    assert await page.evaluate("model.get('selected_index')") == 20
    await page.keyboard.press("Home")
    assert await page.evaluate("model.get('selected_index')") == 0
    await page.evaluate("model.set('selected_index', 15)")  # an event in the middle of the second turn
    current = "[...document.querySelectorAll('article')].map((a) => a.getAttribute('aria-current'))"
    assert await page.evaluate(current) == ["false", "true", "false"]
    await page.evaluate("answers.play = { buffers: [new DataView(new Int16Array(24000).buffer)] }")
    await page.keyboard.press("Enter")
    assert await page.evaluate("sent.at(-1)") == ["play", {"start_ms": 0, "length_ms": 900}]
    await page.get_by_text("■").wait_for()
    await page.locator("article").nth(1).get_by_label("Play").click()  # again: stop
    await page.wait_for_function("!document.body.textContent.includes('■')")


async def test_a_turn_without_transcript_offers_to_switch_it_on(page: Any) -> None:
    await say(page, 1, "", role="user", status="not transcribed", detail="Input transcription is off")
    await page.get_by_text("Input transcription is off").wait_for()
    await page.get_by_role("button", name="Transcribe me").click()
    assert await page.evaluate("sent") == [["transcribe", {}]]
    await say(page, 2, "", role="user", status="in progress", detail="listening")
    await page.get_by_text("(listening …)").wait_for()
    assert not page.failures
