"""`rtnb lab` serves, JupyterLab opens in Chromium, and a notebook runs in this environment."""

import sys
from typing import Any

import rtnb


async def test_a_notebook_runs_in_this_environment(open_notebook: Any) -> None:
    cells = ["import rtnb, sys; print(rtnb.__version__)", "print(sys.prefix)", "1 / 0"]
    version, prefix, failure = await (await open_notebook("scratch.ipynb", cells=cells)).run_all()
    assert version.text.strip() == rtnb.__version__
    assert prefix.text.strip() == sys.prefix
    assert "ZeroDivisionError" in failure.error
    assert not version.error
