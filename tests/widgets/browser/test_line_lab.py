"""The line in real JupyterLab."""

from __future__ import annotations

from typing import Any

from tests.widgets.browser.echo import ECHO


async def test_a_request_comes_back(jupyterlab: Any, open_notebook: Any) -> None:
    jupyterlab.write("line.ipynb", [ECHO])
    notebook = await open_notebook("line.ipynb")
    (output,) = await notebook.run_all()
    assert not output.error
    await notebook.page.wait_for_function("window.echo?.line.status().kind === 'direct'")
    await notebook.page.get_by_text("state 1").wait_for()
    print(await notebook.page.evaluate("window.echo.trips(50)"), await notebook.page.evaluate("window.echo.line.status()"))
    await notebook.picture("line")
    assert not notebook.messages
