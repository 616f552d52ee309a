"""Widgets of ours that a test leaves open are closed after it."""

from collections.abc import Iterator

import pytest
from ipywidgets.widgets.widget import _instances

from rtnb.widgets.channel import Channel


@pytest.fixture(autouse=True)
def widgets_are_closed() -> Iterator[None]:
    """Close what a test leaves open, the newest first: what holds others is made after them. Channels are shared."""
    before = set(_instances)
    yield
    for name, widget in reversed(list(_instances.items())):
        ours = type(widget).__module__.startswith(("rtnb.", "tests.")) and not isinstance(widget, Channel)
        if ours and name in _instances.keys() - before:
            widget.close()
