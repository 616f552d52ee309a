"""`rtnb lab` serves, JupyterLab opens in Chromium, and a notebook runs in this environment."""

import sys
from typing import Any

import pytest

import rtnb
from tests.browser.cells import run


async def test_a_notebook_runs_in_this_environment(open_notebook: Any) -> None:
    cells = ["import rtnb, sys; print(rtnb.__version__)", "print(sys.prefix)", "0"]
    notebook = await open_notebook("scratch.ipynb", cells=cells)
    assert (await notebook.run_all())[:2] == [f"{rtnb.__version__}\n", f"{sys.prefix}\n"]
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        await run(notebook, "1 / 0")
