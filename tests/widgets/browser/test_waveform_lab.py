"""`Speaker`, `Waveform` and `Transcript` together in a real JupyterLab: both themes, wide and narrow, reloaded."""

from typing import Any

import pytest

from tests.browser.cells import eventually, run
from tests.widgets.listening import SETUP, opened

ALL = f"""
{SETUP.rsplit("speaker", 1)[0]}
import rtnb.trace
from IPython.display import display
from rtnb.widgets.transcript import Transcript
from rtnb.widgets.waveform import Waveform
waveform, transcript = Waveform(scene.session), Transcript(scene.session)
display(speaker, waveform, transcript)
"""


async def test_what_happens_is_seen_and_survives_a_reload(open_notebook: Any) -> None:
    notebook = await opened(open_notebook, "three.ipynb", [ALL, "0"], fresh=True)  # it is reloaded
    page = notebook.page
    await run(notebook, "_ = scene.answer_now(marked(1500), text='One two three.', speed=None)")
    await page.locator(".rtnb-transcript p", has_text="One two three.").wait_for()
    await page.locator("article[data-status=complete]").wait_for()

    canvas = page.locator(".rtnb-waveform canvas")
    # The transcript comes first: a click before the axis has grown would select its only moment, 0 ms.
    await page.wait_for_function("+document.querySelector('.rtnb-waveform canvas').ariaValueMax > 1000")
    box = await canvas.bounding_box()
    await page.mouse.click(box["x"] + 100, box["y"] + 100)
    await eventually(notebook, "(waveform.selected_ms or 0) > 0 and waveform.selected_index is not None", "True")
    assert await run(notebook, "print(scene.session.log[waveform.selected_index].type)")
    await run(notebook, "waveform.selected_index = 0; waveform.selected_ms")
    await page.wait_for_function("document.querySelector('.rtnb-waveform canvas').ariaValueNow === '0'")
    assert "One two three." in await run(notebook, "print(rtnb.trace.to_vtt(transcript.entries))")

    await notebook.save()
    await page.reload()
    await page.locator(".rtnb-transcript p", has_text="One two three.").wait_for()
    await page.wait_for_function("+document.querySelector('.rtnb-waveform canvas')?.ariaValueMax > 1000")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
async def test_it_looks_right(open_notebook: Any, theme: str) -> None:
    name = f"look-{theme.split()[1].lower()}.ipynb"
    notebook = await opened(open_notebook, name, [ALL, "0"], theme=theme, keep=True)
    await run(notebook, "item = scene.answer_now(marked(20_000), text='Sunny, with a light wind.', speed=None)")
    await notebook.page.locator(".rtnb-speaker[data-state=playing]").wait_for()
    await run(notebook, "scene.barge_in()")
    await notebook.page.get_by_text("interrupted").wait_for()
    await notebook.page.locator(".rtnb-speaker").scroll_into_view_if_needed()
    for width in (1400, 480):
        await notebook.page.set_viewport_size({"width": width, "height": 900})
        await notebook.picture(f"{width}")
        root = notebook.page.locator(".rtnb-waveform")
        assert await root.evaluate("(e) => e.scrollWidth <= e.clientWidth"), "nothing sticks out"
