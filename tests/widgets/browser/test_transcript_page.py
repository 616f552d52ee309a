"""`Transcript` on a page: hostile text stays text; statuses in words; export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtnb.widgets.transcript import Transcript
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


def entry(number: int, text: str, **more: Any) -> dict[str, Any]:
    base = {"id": f"i{number}", "role": "assistant", "text": text, "status": "complete", "detail": "", "start_ms": 0.0}
    return base | {"stop_ms": None, "heard_share": None, "heard_characters": len(text)} | more


async def test_hostile_text_changes_nothing_but_text(browser: Any) -> None:
    page = await shown(browser, "transcript", {})
    before = await page.evaluate("(e) => (say('entry', e), document.querySelectorAll('*').length)", entry(0, "kind"))
    per_entry = await page.evaluate("document.querySelectorAll('article, article *').length")
    for number, text in enumerate(HOSTILE, 1):
        hostile = entry(number, text, role=text[:50], status=text[:50], detail=text[:50], id=text)
        await page.evaluate("(e) => say('entry', e)", hostile)
    after = await page.evaluate("document.querySelectorAll('*').length")
    assert after == before + len(HOSTILE) * per_entry
    assert await page.evaluate("window.hacked") is None
    texts = await page.evaluate("[...document.querySelectorAll('article p')].map((p) => p.textContent)")
    assert texts == ["kind", *HOSTILE]
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not page.failures


async def test_right_to_left_and_what_was_heard(browser: Any) -> None:
    page = await shown(browser, "transcript", {})
    cut = entry(1, "one two three", status="interrupted", detail="heard 0.5 s of 2.0 s", heard_share=0.5)
    await page.evaluate("(e) => say('entry', e)", cut | {"heard_characters": 7})
    await page.evaluate("(e) => say('entry', e)", entry(2, "שלום, מה שלומך?", role="user"))
    assert await page.locator("article").nth(0).locator("s").inner_text() == " two three"[4:]
    assert "interrupted, heard 0.5 s of 2.0 s" in await page.locator("article").nth(0).inner_text()
    directions = "[...document.querySelectorAll('article p')].map((p) => getComputedStyle(p).direction)"
    assert await page.evaluate(directions) == ["ltr", "rtl"]
    await page.evaluate("say('reset', {})")
    await page.get_by_text("Nothing was said yet.").wait_for()


async def test_export_saves_what_the_kernel_gives(browser: Any) -> None:
    page = await shown(browser, "transcript", {})
    await page.evaluate("answers.export = { text: 'WEBVTT' }")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="VTT").click()
    file = await download.value
    assert file.suggested_filename == "transcript.vtt"
    assert Path(await file.path()).read_text(encoding="utf-8") == "WEBVTT"
    await page.get_by_text("Saved transcript.vtt").wait_for()
    assert await page.evaluate("sent") == [["export", {"format": "vtt"}]]
    await page.evaluate("unrender()")
    assert not await page.evaluate("listening()")
    assert await page.evaluate("model.handlers.size") == 0


async def test_every_name_the_page_asks_for_is_a_synced_trait(browser: Any) -> None:
    page = await shown(browser, "transcript", {})
    widget = Transcript()
    assert set(await page.evaluate("[...model.asked]")) <= set(widget.keys)
    widget.close()
