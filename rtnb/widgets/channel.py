"""The line between the page and the background loop.

Widget messages pass the kernel's main thread, where a cell that computes holds them up. So the page also tries a
WebSocket to the background loop: directly where kernel and browser share a machine, else through
jupyter-server-proxy where that is installed; widget messages carry the same frames until one of them works, and when
neither does.

Set RTNB_CHANNEL to ``messages`` or ``proxy`` to go without the better ways.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final, NamedTuple

import anywidget
from IPython.display import display
from traitlets import Unicode

from rtnb._loop import shared_loop
from rtnb.widgets._base import Widget, bundle
from rtnb.widgets._hub import Hub
from rtnb.widgets._socket import SocketServer
from rtnb.widgets._stream import OnMessage, Stream

SHOWN_S: Final = 6.0
"""How long a page may take to show what a cell displayed: 1 to 3 s where JupyterLab is busy (measured)."""

__all__ = ["Channel", "ChannelStatus", "Stream", "StreamWidget", "shared_channel"]


class ChannelStatus(NamedTuple):
    """How the line does."""

    kind: str
    """How the active page is reached: ``"direct"``, ``"proxy"``, ``"messages"``; ``"none"`` without a page."""
    pages: int
    """Connected pages."""
    late: int
    """Frames, both ways, dropped because they came too late to be of use."""
    lost: int
    """Frames, both ways, that were lost and could not be sent again."""
    resent: int
    """Frames, both ways, that were missing for a while and came after all."""


class Channel(Widget):
    """The line of this kernel; shown, it is a badge that says which way is in use. Use `shared_channel`."""

    _esm = bundle("channel.js")

    def __init__(self) -> None:
        super().__init__()
        self._hub = Hub(lambda frames: self.send({"rtnb": "frames"}, buffers=frames))
        SocketServer(self._hub)
        self.on_msg(_hand_over)

    def open_stream(self, name: str, on_message: OnMessage) -> Stream:
        """Open a stream.

        Parameters
        ----------
        name : str
            As the page will call it; not in use.
        on_message : callable
            ``on_message(kind: str, header: dict, buffers: list[bytes])``, called on the background loop. Where the
            page waits for a reply, what it returns (or, being async, results in) is the reply.

        Raises
        ------
        ValueError
            The name is empty or in use.
        """
        if not name or name in self._hub.channels:
            raise ValueError(f"stream name {name!r} is {'in use' if name else 'empty'}")
        stream = self._hub.channels[name] = Stream(name, on_message, send=self._hub.send, remove=self._hub.remove)
        return stream

    @property
    def status(self) -> ChannelStatus:
        """Which way is in use, and what went wrong."""
        pages = list(self._hub.pages.values())
        counts = [counts for page in pages for counts in (page.counts, page.its_counts)]
        active = self._hub.pages.get(self._hub.active)
        return ChannelStatus(
            active.via if active else "none",
            len(pages),
            *(sum(getattr(one, name) for one in counts) for name in ("late", "lost", "resent")),
        )

    def close(self) -> None:
        """Close all channels, the socket and the widget."""
        for channel in list(self._hub.channels.values()) if hasattr(self, "_hub") else ():
            channel.close()
        super().close()

    def __repr__(self) -> str:
        return f"<Channel: {self.status.kind}, {self.status.pages} pages>"


def _hand_over(channel: Channel, content: Any, buffers: list[Any]) -> None:
    """Bring what a page said to the background loop; the kernel may call this on any thread."""
    if isinstance(content, dict) and content.get("rtnb") == "frames":
        frames = [bytes(buffer) for buffer in buffers]
        shared_loop().call_soon(channel._hub.from_messages, str(content.get("page", "")), frames)


_channel: Channel | None = None


def shared_channel() -> Channel:
    """Return the line of this kernel; a new one where it was closed."""
    global _channel
    if _channel is None or _channel.comm is None:
        _channel = Channel()
    return _channel


class StreamWidget(Widget):
    """A widget whose page talks to the background loop: ``host.getWidget(model.get("line"))`` gives the line's exports.

    Call `open_stream` once, in the constructor.
    """

    _css: Any = ""  # the line brings the style of all; saved notebooks hold it once

    channel = anywidget.WidgetTrait().tag(sync=True)
    """The line. (Not `widget_serialization`: anywidget's `getWidget` reads only its own kind of reference.)"""
    stream_name = Unicode().tag(sync=True)
    """The name of its stream."""
    _stream: Stream
    _displayed = False

    def open_stream(self, on_message: OnMessage) -> Stream:
        """Open the stream of this widget on the shared channel; `close` closes it."""
        channel = shared_channel()
        self._stream = channel.open_stream(f"{type(self).__name__}-{secrets.token_hex(4)}", on_message)
        self.channel, self.stream_name = channel, self._stream.name
        return self._stream

    @property
    def _opened(self) -> bool:
        """Whether the constructor came as far as the stream."""
        return "_stream" in self.__dict__

    async def be_shown(self) -> None:
        """Display it in the cell that runs, if no page shows it; what a cell before displayed may be on its way."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (SHOWN_S if self._displayed else 0)
        while self._opened and not self._stream.pages:
            if loop.time() >= until_s:
                display(self)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(0.02)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        self._displayed = True
        return super()._repr_mimebundle_(**options)

    def close(self) -> None:
        """Close the channel and the widget; closing twice is fine."""
        if self._opened:
            self._stream.close()
        super().close()
