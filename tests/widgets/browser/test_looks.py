"""Our widgets in JupyterLab, light and dark, wide and narrow: no violation of WCAG 2.1 AA, and nothing sticks out."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.axe import violations

CELLS = [
    """
import contextlib, rtnb
from rtnb.analysis.recordings import thinking_aloud
from rtnb.audio import babble
phrases = [babble(text, seed=k).audio for k, text in enumerate(["one two three", "four and five"])]
turns = thinking_aloud(phrases, rate_hz=24_000, n_turns=6, seed=1)
playground = rtnb.Playground(rtnb.Simulator(latency="fast", voice="babble"))
playground
""",
    """
await playground.session.ask("What is a delta?")
playground.turn_detection.threshold = 0.7
await playground.apply()
with contextlib.suppress(rtnb.errors.ServiceError):
    await playground.session.input_audio_buffer.commit()
rtnb.inspect(list(playground.session.log))
""",
    "lab = rtnb.VadLab(turns, session=playground)\nlab",
    "found = await lab.compare(paced=50)\nrtnb.Microphone()",
]
WIDGETS = {
    "playground": ".rtnb-playground",
    "inspector": ".rtnb-ev",
    "VAD lab": ".rtnb-vad-lab",
    "microphone": ".rtnb-microphone",
}
OUTSIDE = """(root) => {
    const right = root.getBoundingClientRect().right + 1;
    const knobs = [...root.querySelectorAll("button, input, select, textarea, canvas, summary")];
    const wide = knobs.filter((one) => one.checkVisibility() && one.getBoundingClientRect().right > right);
    return [root, ...wide].filter((one) => one !== root || root.scrollWidth > root.clientWidth + 1)
        .map((one) => one.textContent || one.className);
}"""


@pytest.mark.parametrize("number", range(4), ids=list(WIDGETS))
@pytest.mark.parametrize("theme", ["Light", "Dark"])
async def test_it_looks_right(open_notebook: Any, pictures: Path, theme: str, number: int) -> None:
    notebook = await open_notebook("looks.ipynb", cells=CELLS, theme=f"JupyterLab {theme}", keep=True)
    page = notebook.page
    cell = f".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell:nth-child({number + 1} of .jp-CodeCell)"
    name, selector = list(WIDGETS.items())[number]
    root = page.locator(f"{cell} .jp-OutputArea-output {selector}").first
    if not (await notebook.outputs())[-1]:
        await notebook.run_all()
    await root.wait_for()
    if name == "inspector" and theme == "Light":
        await root.locator(".rtnb-ev-row", has_text="input_audio_buffer_commit_empty").click()
        await root.locator(".rtnb-ev-side pre").wait_for()
    assert await violations(page, f"{cell} .jp-OutputArea-output") == []
    await page.evaluate("jupyterapp.shell.collapseLeft()")  # it takes what little room there is
    for width, height in ((1400, 1400), (480, 2600)):
        await page.set_viewport_size({"width": width, "height": height})
        await root.scroll_into_view_if_needed()
        await root.screenshot(path=pictures / f"{name.replace(' ', '-')}-{theme.lower()}-{width}.png")
        assert await root.evaluate(OUTSIDE) == []
