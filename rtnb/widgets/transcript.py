"""`Transcript`: both sides of a conversation as it grows, to read, copy and export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from rtnb.client import Session
from rtnb.client.log import EventLog, LogRow
from rtnb.widgets import _entries
from rtnb.widgets._base import bundle
from rtnb.widgets._entries import Entries, Entry
from rtnb.widgets._session_view import SessionView

_FORMATS: Final[dict[str, Callable[[list[Entry]], str]]] = {
    "txt": _entries.to_text,
    "srt": _entries.to_srt,
    "vtt": _entries.to_vtt,
    "json": _entries.to_json,
}


class Transcript(SessionView):
    """Who said what, item by item, with what became of it: in progress, complete, interrupted where it was heard to.

    Parameters
    ----------
    session : Session or EventLog, optional
        Whose conversation; a log that was loaded from a file reads like a living session.
    """

    _esm = bundle("transcript.js")

    def __init__(self, session: Session | EventLog | None = None, **traits: Any) -> None:
        self._entries = Entries()
        super().__init__(session, **traits)

    @property
    def entries(self) -> list[Entry]:
        """All entries, with their times in ms since the first event."""
        return self._entries.timed()

    def to_text(self) -> str:
        """Return plain text: one paragraph per entry."""
        return _entries.to_text(self.entries)

    def to_srt(self) -> str:
        """Return SubRip subtitles; the times fit `Waveform` and a recording of the whole session."""
        return _entries.to_srt(self.entries)

    def to_vtt(self) -> str:
        """Return WebVTT subtitles."""
        return _entries.to_vtt(self.entries)

    def to_json(self) -> str:
        """Return a JSON list with everything that is known of each entry."""
        return _entries.to_json(self.entries)

    def _on_session(self, source: Session | EventLog) -> None:
        self._entries = Entries()
        self._stream.publish("reset", {})

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        for row in rows:
            self._entries.add(row)
        changed, self._entries.changed = self._entries.changed, {}
        self._show([self._entries.all[key] for key in changed])

    def _show(self, entries: list[Entry]) -> None:
        self._stream.publish_batch("entry", [(_entries.as_json(entry), ()) for entry in entries])

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self._stream.publish("reset", {})
            self._show(self._entries.timed())

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any] | None:
        """The page wants a file: export {format} → {text}."""
        return {"text": _FORMATS[header["format"]](self.entries)} if kind == "export" else None
