"""`EventInspector`: every event of a session, both ways, in one table; the page keeps short rows, the kernel the log.

To the page goes ``rows`` (see `rtnb.widgets._event_rows`), ten times a second, from where the page asks with ``from``
{start}. The page requests: ``event`` {index}, ``run`` {first, last}, ``audio`` {first, last, number}, ``text``
{index}, ``search`` {text, start}, ``export`` {start}, ``templates``, ``check`` and ``send`` {text, anyway}.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

import anywidget
from IPython.display import display, update_display
from traitlets import Bool, Int, Unicode

from rtnb._loop import shared_loop
from rtnb.client.log import EventLog
from rtnb.errors import ConnectionClosed, RtnbError
from rtnb.widgets import _event_detail as detail
from rtnb.widgets._base import Widget, bundle, styles
from rtnb.widgets._event_rows import EventRows, static_table
from rtnb.widgets._event_sources import source_of
from rtnb.widgets.channel import StreamWidget

__all__ = ["EventInspector", "EventTable", "inspect"]

INTERVAL_S: Final = 0.1
"""How often the page is told of new events (measured best: see `tests/benchmarks/inspector.py`)."""
_AT_ONCE: Final = 2_000  # rows per message: under 10 ms of work on either side
_SEARCHED: Final = 5_000  # events looked through per request
_EXPORTED_BYTES: Final = 2**20
_STILL_S: Final = 2.0  # after so much silence the copy for the saved notebook is renewed
_SEND_S: Final = 8.0


class EventTable(Widget):
    """The part of the inspector's page that is a table; nothing to see by itself."""

    _esm = bundle("event_table.js")
    _css = styles("event_table.css")


class EventPane(Widget):
    """The part of the inspector's page that tells one event in full; nothing to see by itself."""

    _esm = bundle("event_pane.js")
    _css = ""


class EventInspector(StreamWidget):
    """Watch every event: filter, fold, hear, link, export, send.

    Parameters
    ----------
    source : Session, EventLog, path, list, or a realtime connection of `openai`
        A session or connection is followed as it goes on; its messages from before a connection was given here are not
        known. A path is a saved log. A list holds events, JSON objects or rows of a log.
    height_px : int, default 420
        Height of the table.

    Attributes
    ----------
    event_log : EventLog
        What is shown, in full.
    selected_index : int or None
        The chosen event, settable both ways: link it with a `Waveform`'s.

    Examples
    --------
    >>> EventInspector([{"type": "response.create", "event_id": "e1"}]).event_log
    <EventLog: 1 event, 1 sent, 0 received, 0.0 s>
    """

    _esm = bundle("inspector.js")

    table = anywidget.WidgetTrait().tag(sync=True)
    pane = anywidget.WidgetTrait().tag(sync=True)
    static_id = Unicode().tag(sync=True)
    can_send = Bool(False).tag(sync=True)
    height_px = Int(420, min=100, help="Height of the table, px.").tag(sync=True)
    selected_index = Int(None, allow_none=True, help="The chosen event: its index in the log.").tag(sync=True)

    def __init__(self, source: Any, *, height_px: int = 420) -> None:
        found = source_of(source)
        super().__init__(height_px=height_px, can_send=found.send is not None, static_id=secrets.token_hex(8))
        self.table, self.pane = EventTable(), EventPane()
        self.event_log: EventLog = found.log
        self._source = found
        self._rows = EventRows(found.log)
        self._told = 0
        self._saved = -1
        self._shown = False
        self._teller: asyncio.Task[None] | None = None
        self.open_stream(self._on_message)

    def close(self) -> None:
        """Leave the page; the log stays. Closing twice is fine."""
        if self._opened:  # None where the constructor refused
            if shared_loop().running:
                shared_loop().call_soon(self._stop)
            self.table.close()
            self.pane.close()
        super().close()

    # --- telling the page ---------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Send what is new while a page looks; between times, renew the copy that a saved notebook keeps."""
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        while self._stream.pages:
            more = self._rows.read(most=_AT_ONCE)
            if self._told < len(self._rows):
                stop = min(self._told + _AT_ONCE, len(self._rows))
                header, buffers = self._rows.pack(self._told, stop)
                self._stream.publish("rows", {**header, "total": self._rows.total}, buffers)
                self._told, quiet_since = stop, loop.time()
            elif loop.time() - quiet_since > _STILL_S and self._saved != len(self._rows):
                self._keep_static()
            await asyncio.sleep(0 if more or self._told < len(self._rows) else INTERVAL_S)

    def _keep_static(self) -> None:
        """Renew the copy that is saved with the notebook; it is an output of its own, for a page without a kernel."""
        self._saved = len(self._rows)
        if self._shown:
            update_display(self._static(), display_id=self.static_id, raw=True)  # type: ignore[no-untyped-call]

    def _static(self) -> dict[str, str]:
        table = f'<div data-rtnb-static="{self.static_id}">{static_table(self._rows)}</div>'
        return {"text/html": table, "text/plain": repr(self.event_log)}

    def _ipython_display_(self) -> None:
        data, metadata = self._repr_mimebundle_() or ({}, {})
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
        if self._teller is None:
            self._rows.read(most=self._rows.total)
        self._shown = True
        display(self._static(), display_id=self.static_id, raw=True)  # type: ignore[no-untyped-call]

    def _from(self, start: int) -> None:
        self._told = min(self._told, max(0, start))
        if self._teller is None or self._teller.done():
            self._teller = asyncio.get_running_loop().create_task(self._tell(), name="rtnb-inspector")

    def _stop(self) -> None:
        if self._teller is not None:
            self._teller.cancel()

    # --- answering it -------------------------------------------------------------------------------------------------

    async def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any] | None:
        try:
            return await self._answer(kind, header)
        except (RtnbError, ValueError) as error:  # what a person should read; all else is a mistake and goes to the log
            return {"error": str(error)}

    async def _answer(self, kind: str, header: dict[str, Any]) -> dict[str, Any] | None:
        rows = self._rows
        match kind:
            case "from":
                self._from(int(header["start"]))
                return None
            case "event":
                return detail.detail(rows, self._index(header["index"]))
            case "run":
                return detail.run_detail(rows, self._index(header["first"]), self._index(header["last"]))
            case "audio":
                first, last = self._index(header["first"]), self._index(header["last"])
                return {"wav": detail.sound(rows, first, last, number=int(header["number"]))}
            case "text":
                return {"text": detail.whole_text(rows, self._index(header["index"]))}
            case "search":
                return self._search(str(header["text"]).lower(), max(0, int(header["start"])))
            case "export":
                return self._export(max(0, int(header["start"])))
            case "templates":
                return {"templates": detail.templates()}
            case "check" | "send":
                send = kind == "send"
                return await self._judge(str(header["text"]), send=send, anyway=bool(header["anyway"]))
        raise ValueError(f"unknown request {kind!r}")

    def _index(self, number: Any) -> int:
        if not isinstance(number, int) or not 0 <= number < len(self._rows):
            raise ValueError(f"there is no event {number!r}")
        return number

    def _search(self, text: str, start: int) -> dict[str, Any]:
        stop = min(start + _SEARCHED, len(self._rows))
        hits = [index for index in range(start, stop) if detail.contains(self._rows.row(index).event, text)]
        return {"hits": hits, "next": stop}

    def _export(self, start: int) -> dict[str, Any]:
        lines, size = [], 0
        dropped = self._rows.total - len(self.event_log)
        position = max(0, start - dropped)
        for line in self.event_log.lines(position):
            lines.append(line)
            size += len(line)
            if size >= _EXPORTED_BYTES:
                break
        stop = dropped + position + len(lines) - (position == 0)  # the header is no event
        return {"text": "".join(lines), "next": stop, "more": stop < self._rows.total}

    async def _judge(self, text: str, *, send: bool, anyway: bool) -> dict[str, Any]:
        source = self._source
        message, problem = detail.check(text, dialect=source.dialect, state=source.state)
        if message is None or source.send is None:
            return {"problem": problem, "possible": False}
        if not send or (problem and not anyway):
            return {"problem": problem, "possible": True}
        try:
            async with asyncio.timeout(_SEND_S):
                await source.send(message)
        except TimeoutError:
            return {"problem": "Not sent yet: the loop of the session is busy (a cell computes?).", "possible": False}
        except (ConnectionClosed, OSError) as error:
            return {"problem": f"Not sent: {error}", "possible": False}
        return {"sent": True}


def inspect(source: Any, *, height_px: int = 420) -> EventInspector:
    """Show every event of `source`: the same as `EventInspector`, whose docstring says what it may be.

    Give a connection of `openai` (``async with client.realtime.connect(…) as connection``) before its first event is
    read; only this object is watched, and it works on as before.
    """
    return EventInspector(source, height_px=height_px)
