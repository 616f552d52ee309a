"""The state of a connection on a page."""

import re
from typing import Any

from playwright.async_api import expect

import rtnb
from rtnb.widgets.connection import ConnectionControl
from tests.widgets.page import eventually


async def test_the_connection_counts_down_and_disconnects(open_tab: Any) -> None:
    async with rtnb.connect("sim") as session:
        tab, connection = await open_tab(), ConnectionControl(session)
        await tab.show(connection)
        await expect(tab.page.locator(".rtnb-connection-target")).to_have_text("rtnb-simulator · GA · WebSocket")
        timer = tab.page.get_by_role("timer")
        await expect(timer).to_have_text(re.compile("^59:"))
        first = await timer.inner_text()
        await expect(timer).not_to_have_text(first)
        await tab.page.get_by_role("button", name="Disconnect").click()
        await tab.page.locator(".rtnb-connection[data-state=closed]").wait_for()
        await eventually(lambda: (session.closed, connection.state) == (True, "closed"))
        connection.close()
