"""What can go wrong with a call, in words: the same on the page and in Python."""

from __future__ import annotations

from typing import Final

from rtnb.errors import ConnectError, ConnectionClosed, RtnbError, WidgetError

_WORDS: Final[dict[str, tuple[type[RtnbError], str, str]]] = {
    "no-page": (
        WidgetError,
        "no page shows this widget, and only a page can make a WebRTC call",
        "Show it in JupyterLab (write its name as a cell's last line); without a page use rtnb.connect (WebSocket).",
    ),
    "insecure": (
        WidgetError,
        "this page may not use a microphone: it is neither https nor localhost",
        "Open the notebook by https:// or http://localhost, or pass microphone=False.",
    ),
    "no-webrtc": (WidgetError, "this browser or front end has no WebRTC", "Use another browser, or rtnb.connect."),
    "NotAllowedError": (
        WidgetError,
        "the permission for the microphone was denied",
        "Allow it at the address bar's microphone sign (in frames: allow=microphone), or pass microphone=False.",
    ),
    "NotFoundError": (WidgetError, "there is no microphone", "Plug one in, or pass microphone=False and use say()."),
    "NotReadableError": (
        WidgetError,
        "the microphone cannot be opened: another program may hold it",
        "Close what else uses it, and start again.",
    ),
    "unplugged": (WidgetError, "the microphone was unplugged, or its permission taken back", "Start again."),
    "elsewhere": (WidgetError, "another tab of this notebook took over sound and microphone", "Start again here."),
    "hidden": (WidgetError, "the last view of the widget was removed", "Show the widget again, and start."),
    "kernel": (WidgetError, "the kernel does not answer: it was restarted, or it ended", "Run the notebook again."),
    "no-path": (
        ConnectError,
        "the service answered, but no connection came to be: nothing gets through between this page and it (ICE)",
        "A firewall may block UDP, or there is only a loopback network: use rtnb.connect (WebSocket) there.",
    ),
    "ice": (
        ConnectionClosed,
        "the network path between the page and the service was lost (ICE)",
        "Check the network, then start again.",
    ),
    "channel": (ConnectionClosed, "the service ended the call", "Read the log's last events, then start again."),
    "cors": (
        ConnectError,
        "This page may not post to the service (CORS, or no way there): the offer went through the kernel.",
        "",
    ),
    "wanted": (ConnectError, "The offer went through the kernel, which learns the call's id from it.", ""),
}


def explained(why: str, detail: str = "") -> RtnbError:
    """An error for a reason the page gave; one it has no word for is told as it came."""
    kind, words, hint = _WORDS.get(why, (WidgetError, f"the browser refused: {why}", "Read what it says."))
    return kind(f"{words} ({detail})" if detail else words).with_hint(f"Next: {hint}" if hint else None)


IGNORED: Final = (
    "The service confirmed session.update, but kept its own: {names}. Azure is known to ignore changes of turn "
    "detection over WebRTC: give them to WebRTCPeer(…), they go into the key."
)
"""Seen in calls at Azure: session.updated comes, with the old turn detection in it."""
