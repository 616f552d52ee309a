"""Services and sessions for widgets; widgets of ours that a test leaves open are closed after it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances

import rtnb
from rtnb.widgets.channel import Channel, shared_channel
from tests.widgets.page import Page
from tests.widgets.scene import Scene, on_loop


@pytest.fixture(autouse=True)
def widgets_are_closed() -> Iterator[None]:
    """Close what a test leaves open, the newest first: what holds others is made after them. Channels are shared."""
    before = set(_instances)
    yield
    for name, widget in reversed(list(_instances.items())):
        ours = type(widget).__module__.startswith(("rtnb.", "tests.")) and not isinstance(widget, Channel)
        if ours and name in _instances.keys() - before:
            widget.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A session on the background loop whose service the test plays."""
    one = Scene()
    yield one
    one.close()


@pytest.fixture
def simulator(request: Any) -> Iterator[rtnb.Simulator]:
    """A fast service; a test may choose its dialect by a parameter."""
    with rtnb.Simulator(dialect=getattr(request, "param", "ga"), latency="fast", voice="babble") as started:
        yield started


@pytest.fixture
async def session(simulator: rtnb.Simulator) -> AsyncIterator[rtnb.Session]:
    """A session with the simulator on this test's loop; widgets work on the background loop."""
    async with rtnb.connect(simulator) as opened:
        yield opened


@pytest.fixture
async def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """A page of the shared channel on widget messages: no socket is opened for it."""
    monkeypatch.setenv("RTNB_CHANNEL", "messages")
    return Page(shared_channel())


@pytest.fixture
def reported() -> Iterator[list[dict[str, Any]]]:
    """What the background loop reports of failed handlers."""
    reported: list[dict[str, Any]] = []

    def listen(handler: Any) -> None:
        asyncio.get_running_loop().set_exception_handler(handler)

    on_loop(listen, lambda _, context: reported.append(context))
    yield reported
    on_loop(listen, None)
