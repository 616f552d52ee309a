"""Channel between the page and the background loop: one per kernel, shared by all widgets.

Widget messages need the kernel's main thread, which a computing cell blocks. A page therefore first tries a WebSocket
to the background loop: directly where kernel and browser share a machine, else through jupyter-server-proxy where that
is installed. Without either it uses widget messages. Everything then goes that one way until the connection ends.

Set RTNB_CHANNEL to ``messages`` to forbid sockets, or to ``proxy`` to forbid direct ones.
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
from rtnb.widgets._pages import OnMessage, Pages, Stream
from rtnb.widgets._socket import SocketServer, WritePage

SHOWN_S: Final = 6.0
"""Longest wait for a page to show what a cell displayed: 1 to 3 s where JupyterLab is busy (measured)."""

__all__ = ["Channel", "ChannelStatus", "Stream", "StreamWidget", "shared_channel"]


class ChannelStatus(NamedTuple):
    """Status of the channel."""

    kind: str
    """Connection of the active page: ``"direct"``, ``"proxy"``, ``"messages"``; ``"none"`` without a page."""
    pages: int
    """Number of known pages."""


class Channel(Widget):
    """Channel of this kernel; displayed, it is a badge with its status. Use `shared_channel`."""

    _esm = bundle("channel.js")

    def __init__(self) -> None:
        super().__init__()
        self._pages = Pages(lambda content, frames: self.send({"rtnb": "frames", **content}, buffers=frames))
        self._server = SocketServer(self._pages)
        self.on_msg(_on_widget_message)

    def open_stream(self, name: str, on_message: OnMessage) -> Stream:
        """Open a stream.

        Parameters
        ----------
        name : str
            Its name, the same on the page; not in use.
        on_message : callable
            ``on_message(kind: str, header: dict, buffers: list[bytes])``, called on the background loop. Its result, or
            the result of its awaitable, is the reply to a request; an error becomes the request's error.

        Raises
        ------
        ValueError
            The name is empty or in use.
        """
        if not name or name in self._pages.streams:
            raise ValueError(f"stream name {name!r} is {'in use' if name else 'empty'}")
        stream = self._pages.streams[name] = Stream(name, on_message, self._pages)
        return stream

    @property
    def status(self) -> ChannelStatus:
        """Connection of the active page, and number of pages."""
        active = self._pages.pages.get(self.active_page)
        return ChannelStatus(active.via if active else "none", len(self._pages.pages))

    @property
    def active_page(self) -> str:
        """Id of the page that may use the microphone and the loudspeaker; empty without a page."""
        return self._pages.active

    @property
    def last_message_s(self) -> float:
        """Time of the last widget message (`time.monotonic`); 0 before the first."""
        return self._pages.last_message_s

    async def invite(self, write: WritePage) -> str:
        """Return the address of a page outside of the notebook that opens once; see `SocketServer.invite`."""
        return self._server.invite(write)

    def close(self) -> None:
        """Close all streams, the socket and the widget."""
        for stream in list(self._pages.streams.values()) if hasattr(self, "_pages") else ():
            stream.close()
        super().close()

    def __repr__(self) -> str:
        return f"<Channel: {self.status.kind}, {self.status.pages} pages>"


def _on_widget_message(channel: Channel, content: Any, buffers: list[Any]) -> None:
    """Hand a page's message over to the background loop; the kernel may call this on any thread."""
    if isinstance(content, dict) and content.get("rtnb") == "frames" and buffers:
        page_id, connection, at = str(content["page"]), int(content["connection"]), int(content["at"])
        frames = [bytes(buffer) for buffer in buffers]
        shared_loop().call_soon(channel._pages.receive_message, page_id, connection, at, frames)


_channel: Channel | None = None


def shared_channel() -> Channel:
    """Return the channel of this kernel; a new one where it was closed."""
    global _channel
    if _channel is None or _channel.comm is None:
        _channel = Channel()
    return _channel


class StreamWidget(Widget):
    """Widget with a stream; on the page, ``host.getWidget(model.get("channel"))`` gives the channel's exports.

    Call `open_stream` once, in the constructor.
    """

    _css: Any = ""  # the channel brings the shared style; saved notebooks hold it once

    channel = anywidget.WidgetTrait().tag(sync=True)
    """The channel. (Not `widget_serialization`: anywidget's `getWidget` reads only its own kind of reference.)"""
    stream_name = Unicode().tag(sync=True)
    """Name of its stream."""
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
        """True once the constructor has opened the stream."""
        return "_stream" in self.__dict__

    async def be_shown(self) -> None:
        """Display it in the running cell if no page shows it; a page may still be about to show an earlier display."""
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
        """Close the stream and the widget; closing twice is allowed."""
        if self._opened:
            self._stream.close()
        super().close()
