"""`Transcript`: the conversation as it grows, to read and hear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

from traitlets import Bool, Int

from rtnb.client import EventLog, LogRow, Session
from rtnb.trace.conversation import Entries, Entry, as_json
from rtnb.trace.timeline import Timeline
from rtnb.widgets._session_view import SessionView
from rtnb.widgets.channel import Answer

PAGE_ENTRIES: Final = 500
"""The newest entries stand on the page, the same number as in transcript.js (chosen)."""


class Transcript(SessionView):
    """The conversation, item by item, each with its status and, where an answer was interrupted, what was heard.

    Parameters
    ----------
    session : Session or EventLog, optional
        The session to show; a log that was loaded from a file reads like a living session.
    """

    selected_index = Int(None, allow_none=True, help="The selected event: its index in the log.").tag(sync=True)
    can_transcribe = Bool(False, help="Whether input transcription can be switched on here.").tag(sync=True)

    _transcribe: Callable[[], object] | None = None

    def __init__(self, session: Session | EventLog | None = None, **traits: Any) -> None:
        self._entries = Entries(Timeline())
        super().__init__(session, **traits)

    def on_transcribe(self, callback: Callable[[], object]) -> None:
        """Offer a button where a spoken turn has no transcript; the callback switches input transcription on."""
        self._transcribe, self.can_transcribe = callback, True

    @property
    def entries(self) -> list[Entry]:
        """The newest 3,000 entries with their times in ms; `rtnb.trace.to_srt` makes subtitles of them."""
        return self._entries.timed()

    def _on_session(self, source: Session | EventLog) -> None:
        self._entries = Entries(self.feed.timeline)
        self._stream.publish("reset", {})

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        for row in rows:
            self._entries.add(row)
        changed, self._entries.changed = self._entries.changed, {}
        self._show(list(changed))

    def _show(self, ids: list[str]) -> None:
        for entry in self._entries.timed(ids[-PAGE_ENTRIES:]):
            self._stream.publish("entry", as_json(entry))

    def _on_page(self, page_id: str, change: str) -> None:
        if change == "joined":
            self._stream.publish("reset", {})
            self._show(list(islice(reversed(self._entries.all), PAGE_ENTRIES))[::-1])

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Answer:
        """Handle transcribe, and play as any view does."""
        if kind == "play":
            return super()._on_message(kind, header, buffers)
        if self._transcribe is not None:
            self._transcribe()
        return None
