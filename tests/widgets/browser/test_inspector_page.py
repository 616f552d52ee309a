"""The helpers of the inspector's page on an empty page: patterns, times, rows that come in frames, folding, filters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.widgets.bare_page import FOLDER

LOAD = """
window.load = async (source) => import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
// Rows by hand: [flags, time, type, size, bytes, format, item, response, call, content, cause]
window.frame = (start, total, ...rows) => [
  { start, count: rows.length, total },
  new Int32Array(rows.flat()),
  { summaries: rows.map((_, k) => `row ${start + k}`), types: ["error", "response.output_audio.delta", "response.done"],
    ids: ["", "item_1", "resp_1"], formats: [48] },
];
window.delta = (t) => [1 | 4, t, 1, 6500, 4800, 0, 1, 2, 0, 1, -1];
window.error = (t) => [1 | 2, t, 0, 200, 0, 0, 0, 0, 0, 0, -1];
window.done = (t) => [1, t, 2, 900, 0, 0, 0, 2, 0, 0, -1];
"""


@pytest.fixture
async def page(browser: Any) -> Any:
    page = await (await browser.new_context()).new_page()
    await page.add_script_tag(content=LOAD)
    for name in ("inspector", "event_table"):
        source = (FOLDER / f"{name}.js").read_text(encoding="utf-8")
        await page.evaluate(f"async (source) => {{ window.{name} = await load(source); }}", source)
    return page


async def test_times_and_patterns(page: Any) -> None:
    assert await page.evaluate("['62.5', '1:02.5', '0'].map(inspector.clock)") == [62.5, 62.5, 0]
    assert await page.evaluate("['', 'soon', '1:'].every((text) => Number.isNaN(inspector.clock(text)))")
    fits = "([pattern, type]) => event_table.pattern(pattern)(type)"
    for pattern, kind, expected in [
        ("*.delta", "response.output_audio.delta", True),
        ("*.delta", "response.delta.done", False),
        ("audio", "response.output_audio.delta", True),
        ("!*.delta", "response.output_audio.delta", False),
        ("error, *.done", "response.done", True),
        (".", "error", False),  # no regular expression of the user's
        ("", "error", True),
    ]:
        assert await page.evaluate(fits, [pattern, kind]) is expected, (pattern, kind)


async def test_frames_may_overlap_but_leave_no_gap(page: Any) -> None:
    known = await page.evaluate(
        """() => {
          const rows = new event_table.Rows(), add = (...f) => rows.add(...frame(...f));
          const answers = [add(0, 3, error(0), delta(10)), add(1, 3, delta(10), done(20)), add(7, 9, done(30))];
          return { answers, count: rows.count, total: rows.total, texts: rows.texts, troubles: rows.troubles };
        }"""
    )
    assert known["answers"] == [True, True, False]  # the last begins after what is known: it must be asked for again
    assert known["count"] == 3
    assert known["total"] == 9
    assert known["texts"] == ["row 0", "row 1", "row 2"]
    assert known["troubles"] == [0]


async def test_runs_fold_filters_count_and_old_rows_go(page: Any) -> None:
    seen = await page.evaluate(
        """() => {
          const rows = new event_table.Rows();
          rows.add(...frame(0, 6, error(0), delta(10), delta(20), delta(30), done(40), delta(50)));
          const view = new event_table.View(rows);
          const folded = view.lines.map((l) => l.kids ? [l.first, l.count, l.ms] : l);
          view.types = "*.delta"; view.rebuild();
          const filtered = view.shown;
          view.types = ""; view.text = "row 4"; view.rebuild();
          const found = view.lines.slice();
          rows.drop(4);
          const { base, count, troubles } = rows;
          return { folded, filtered, found, base, count, troubles, type: rows.type(4) };
        }"""
    )
    assert seen["folded"] == [0, [1, 3, 300], 4, 5]  # three deltas of 100 ms; the one after another event stands alone
    assert seen["filtered"] == 4
    assert seen["found"] == [4]
    assert (seen["base"], seen["count"], seen["troubles"], seen["type"]) == (4, 2, [], "response.done")
