"""Pages that show widgets of this process, and a session for them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from rtnb.widgets.channel import shared_channel
from tests.widgets.browser.bridge import Tab, tabs_of
from tests.widgets.scene import Scene


@pytest.fixture
async def open_tab(browser: Any) -> AsyncIterator[Callable[..., Awaitable[Tab]]]:
    """Open pages for widgets of this process: ``tab = await open_tab()``, then ``await tab.show(widget)``."""
    async with tabs_of(shared_channel(), browser) as opened:
        yield opened


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A session whose service the test plays."""
    one = Scene()
    yield one
    one.close()
