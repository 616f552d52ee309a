"""`rtnb lab` serves, JupyterLab opens in Chromium, and a notebook runs in this environment."""

import json
import sys
from typing import Any

import rtnb


async def test_a_notebook_runs_in_this_environment(jupyterlab: Any, open_notebook: Any) -> None:
    jupyterlab.write("scratch.ipynb", ["import rtnb, sys; print(rtnb.__version__)", "print(sys.prefix)", "1 / 0"])

    notebook = await open_notebook("scratch.ipynb")
    version, prefix, failure = await notebook.run_all()
    await notebook.picture("after-run-all")

    assert version.text.strip() == rtnb.__version__
    assert prefix.text.strip() == sys.prefix
    assert "ZeroDivisionError" in failure.error
    assert not version.error


async def test_a_saved_notebook_can_be_read_back(jupyterlab: Any, open_notebook: Any) -> None:
    jupyterlab.write("saved.ipynb", ["print('kept')"])
    notebook = await open_notebook("saved.ipynb")
    await notebook.run_all()

    assert "kept" in json.dumps(await notebook.save())


async def test_a_long_notebook_shows_every_output(jupyterlab: Any, open_notebook: Any) -> None:
    jupyterlab.write("long.ipynb", [f"print('line\\n' * 20, {n})" for n in range(40)])
    notebook = await open_notebook("long.ipynb")
    outputs = await notebook.run_all()
    await notebook.picture("long")

    assert [output.text.split()[-1] for output in outputs] == [str(n) for n in range(40)]
