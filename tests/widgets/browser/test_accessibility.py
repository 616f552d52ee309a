"""No violation of WCAG 2.1 AA in our widgets, checked by axe-core in a real JupyterLab, light and dark."""

from typing import Any

import pytest

from tests.browser.axe import violations

CELLS = [
    """
import rtnb
from rtnb.analysis.recordings import thinking_aloud
from rtnb.audio import babble
phrases = [babble(text, seed=k).audio for k, text in enumerate(["one two three", "four and five"])]
turns = thinking_aloud(phrases, rate_hz=24_000, n_turns=6, seed=1)
playground = rtnb.Playground(rtnb.Simulator(latency="fast", voice="babble"))
playground
""",
    """
await playground.session.ask("Hello")
rtnb.inspect(playground.session)
""",
    "rtnb.VadLab(turns, session=playground)",
    "rtnb.Microphone()",
]
WIDGETS = ("playground", "inspector", "VAD lab", "microphone")


@pytest.mark.parametrize("number", range(4), ids=WIDGETS)
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
async def test_axe_finds_no_violation(open_notebook: Any, theme: str, number: int) -> None:
    notebook = await open_notebook(f"axe-{theme.split()[1]}.ipynb", cells=CELLS, theme=theme, keep=True)
    if "[ ]:" in await notebook.page.locator(".jp-CodeCell .jp-InputPrompt").first.text_content():
        for output in await notebook.run_all():
            assert not output.error, output.error
    cell = f".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell:nth-child({number + 1} of .jp-CodeCell)"
    await notebook.page.locator(f"{cell} .jp-OutputArea-output .rtnb").first.wait_for()
    found = await violations(notebook.page, f"{cell} .jp-OutputArea-output")
    assert not found, "\n".join(found)
