"""The inspector in a real JupyterLab: what a person clicks, types and sees, and what Python says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

MANY = """
import asyncio, time, rtnb
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.values import ErrorDetail
from rtnb.widgets.inspector import EventInspector, inspect
log = EventLog()
def add(direction, event, at_s):
    log.record(direction, event, monotonic_s=at_s, wall_time=1_700_000_000 + at_s)
def deltas(start, stop):
    for i in range(start, stop):
        add("received", events.ResponseOutputAudioDelta(response_id="resp_1", item_id="item_1", output_index=0,
            content_index=0, delta=bytes(4800), event_id=f"s{i}"), 1 + i / 100)
add("sent", events.InputAudioBufferCommit(event_id="mine_1"), 0.0)
add("received", events.Error(error=ErrorDetail(type="invalid_request_error", code="input_audio_buffer_commit_empty",
    message="buffer too small", event_id="mine_1"), event_id="s0"), 0.25)
deltas(0, 40)
"""
TALK = """
import rtnb
from rtnb.widgets.inspector import EventInspector, inspect
session = await rtnb.connect("sim")
response = await session.ask("What is a delta?")
"""


@pytest.fixture
def page_of(jupyterlab: Any, open_notebook: Any) -> Any:
    """Run the cells of a new notebook; the notebook, once the inspector shows rows."""

    async def opened(name: str, *cells: str, theme: str = "JupyterLab Light") -> Any:
        jupyterlab.write(name, list(cells))
        settings = jupyterlab.home / "settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps({"theme": theme}), encoding="utf-8")
        notebook = await open_notebook(name)
        outputs = await notebook.run_all()
        assert not [output.error for output in outputs if output.error]
        await notebook.page.locator(".rtnb-ev-space > .rtnb-ev-row").first.wait_for()
        return notebook

    return opened


@pytest.mark.parametrize("width", [480, 1400])
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
async def test_it_looks_right(page_of: Any, theme: str, width: int) -> None:
    notebook = await page_of(f"looks-{width}-{theme[11:].lower()}.ipynb", MANY, TALK, "inspect(session)", theme=theme)
    page = notebook.page
    await page.set_viewport_size({"width": width, "height": 1000})
    await page.locator(".rtnb-ev-row[data-kind=received]", has_text="response.done").click()
    await page.locator(".rtnb-ev-side pre").wait_for()
    await notebook.picture("inspector")
