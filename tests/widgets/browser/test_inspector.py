"""The inspector in a real JupyterLab: keys, and what stays in a saved notebook."""

import json
import re
from typing import Any

import pytest
from playwright.async_api import expect

from tests.benchmarks import inspector as benchmark
from tests.widgets.page import eventually

SECRET = "sk-" + "Z9" * 24
CELLS = [
    f"""
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.values import SessionConfig
from rtnb.widgets.inspector import inspect
log = EventLog()
def add(direction, event, at_s):
    log.record(direction, event, monotonic_s=at_s, wall_time=1_700_000_000 + at_s)
tool = {{"type": "mcp", "server_label": "x", "authorization": "{SECRET}"}}
add("sent", events.SessionUpdate(session=SessionConfig(tools=(tool,))), 3)
ids = dict(response_id="resp_1", item_id="item_1", output_index=0, content_index=0)
for i in range(200):
    add("received", events.ResponseOutputAudioDelta(**ids, delta=bytes(4800), event_id=f"a{{i}}"), 1 + i / 100)
    word = events.ResponseOutputAudioTranscriptDelta(**ids, delta=f"word{{i}} ", event_id=f"t{{i}}")
    add("received", word, 1 + i / 99)
inspect(list(log))""",
    "1",
]


async def test_a_saved_notebook_is_small_and_readable_without_a_kernel(open_notebook: Any, jupyterlab: Any) -> None:
    notebook = await open_notebook("saved.ipynb", cells=CELLS, fresh=True)
    page = notebook.page
    for _ in range(2):  # running it again starts clean
        await notebook.run_all()
        await expect(page.locator(".rtnb-ev-status")).to_have_text("401 of 401 events")
        assert await page.locator(".rtnb-ev").count() == 1
    await page.wait_for_function("document.querySelector('[data-rtnb-static]')?.textContent.includes('401 events')")
    assert not await page.locator("[data-rtnb-static]").is_visible()
    await page.get_by_role("grid", name="Events").focus()
    for key in ("Home", "f", "a", "d", "d", "/", "Escape"):
        await page.keyboard.press(key)
    assert await page.locator(".jp-Cell").count() == 2, "no key goes to the notebook"
    assert not [message for message in notebook.messages if "rtnb" in message]

    book = await notebook.save()
    outputs = json.dumps([cell.outputs for cell in book.cells])
    assert SECRET not in outputs + json.dumps(book.metadata)  # it is in the cell that wrote it, and nowhere else
    assert not re.search(r"A{40}", outputs)  # the audio is zeros: As in base64
    assert len(outputs) + len(json.dumps(book.metadata.get("widgets", {}))) < 200_000
    assert "word199" in outputs
    await notebook.execute("kernelmenu:shutdown")
    await eventually(lambda: all(one["path"] != "saved.ipynb" for one in jupyterlab.get("api/sessions")))
    await page.reload()
    still = page.locator("[data-rtnb-static] summary")
    await still.wait_for(timeout=60_000)
    await expect(page.locator("[data-rtnb-static] table")).to_contain_text("word199")
    await notebook.picture("without-kernel")


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


async def test_the_benchmark_waits_for_a_widget_that_comes_late(
    jupyterlab: Any, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "BURST", 2_000)
    figures = await benchmark.burst(jupyterlab, browser, script=LATE)
    assert figures["burst_s"] > 0
    assert figures["scroll_frames_per_s"] > 0
