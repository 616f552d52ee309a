"""Who said what: the rows of a log become the entries of a transcript. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rtnb.client.log import LogRow
from rtnb.protocol import events
from rtnb.protocol.values import Item
from rtnb.widgets._timeline import Timeline

_WORDS_PER_S: Final = 2.5  # of text without audio, for subtitles (about 150 words a minute; chosen)

_ROLES = {"function_call": "tool", "function_call_output": "tool", "mcp_call": "tool"}


@dataclass
class Entry:
    """One item of the conversation, as far as it is known."""

    id: str
    role: str
    """``user``, ``assistant``, ``system`` or ``tool``."""
    text: str = ""
    status: str = "in progress"
    """``in progress``, ``complete``, ``interrupted``, ``failed`` or ``deleted``."""
    detail: str = ""
    """More about the status, in words."""
    start_ms: float = 0.0
    stop_ms: float | None = None
    heard_share: float | None = None
    """Of an interrupted answer: the share of its audio that was heard, 0 to 1."""

    @property
    def heard_characters(self) -> int:
        """About how many characters of the text were heard: by the share of the audio, up to the end of a word."""
        if self.heard_share is None:
            return len(self.text)
        end = round(len(self.text) * self.heard_share)
        return end if end >= len(self.text) else max(0, self.text.rfind(" ", 0, end + 1))


class Entries:
    """The entries of a session, in their order; feed it every row."""

    def __init__(self) -> None:
        self.all: dict[str, Entry] = {}
        self.timeline = Timeline()
        self.changed: dict[str, None] = {}
        """Ids of entries that changed; whoever shows them empties it."""

    def add(self, row: LogRow) -> None:
        """Take one row."""
        self.timeline.add(row)
        event: Any = row.event
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    # --- what happens -------------------------------------------------------------------------------------------------

    def _entry(self, item_id: str, role: str = "assistant") -> Entry:
        if item_id not in self.all:
            self.all[item_id] = Entry(item_id, role, start_ms=self.timeline.now_ms)
        self.changed[item_id] = None
        return self.all[item_id]

    def _item(self, item: Item) -> None:
        if item.type not in ("message", *_ROLES) or not item.id:
            return
        entry = self._entry(item.id, _ROLES.get(item.type) or item.role or "assistant")
        parts = item.content or ()
        text = "\n".join(str(part.text or part.transcript) for part in parts if part.text or part.transcript)
        if item.type != "message":
            text = f"→ {item.output}" if item.output else f"{item.name or ''}({item.arguments or ''})"
        if text:
            entry.text = text
        if any(part.type == "input_audio" and not part.transcript for part in parts):
            entry.detail = "waiting for the transcript"
        elif entry.role != "assistant" and item.type != "function_call":
            self._end(entry, "complete")

    def _speech_started(self, event: events.InputAudioBufferSpeechStarted) -> None:
        if event.item_id:
            self._entry(event.item_id, "user").detail = "speaking"

    def _committed(self, event: events.InputAudioBufferCommitted) -> None:
        entry = self._entry(event.item_id, "user")
        if entry.status == "in progress":
            entry.detail = "waiting for the transcript"

    def _heard(self, event: events.ConversationItemInputAudioTranscriptionDelta) -> None:
        entry = self._entry(event.item_id, "user")
        entry.text += event.delta or ""

    def _understood(self, event: events.ConversationItemInputAudioTranscriptionCompleted) -> None:
        entry = self._entry(event.item_id, "user")
        entry.text = event.transcript
        self._end(entry, "complete")

    def _not_understood(self, event: events.ConversationItemInputAudioTranscriptionFailed) -> None:
        self._end(self._entry(event.item_id, "user"), "failed", str(event.error.message or "no transcript"))

    def _said(self, event: Any) -> None:
        entry = self._entry(event.item_id)
        if entry.status == "in progress":
            entry.text += event.delta

    def _all_said(self, event: Any) -> None:
        is_text = isinstance(event, events.ResponseOutputTextDone)
        self._entry(event.item_id).text = event.text if is_text else event.transcript

    def _item_done(self, event: events.ResponseOutputItemDone) -> None:
        self._item(event.item)
        if (entry := self.all.get(event.item.id or "")) is not None and entry.status == "in progress":
            self._end(entry, "interrupted" if event.item.status == "incomplete" else "complete")

    def _response_done(self, event: events.ResponseDone) -> None:
        for item in event.response.output or ():
            entry = self.all.get(item.id or "")
            if entry is not None and entry.status == "in progress":
                self._end(entry, "complete" if event.response.status == "completed" else "interrupted")

    def _truncated(self, event: events.ConversationItemTruncate) -> None:
        entry, audio = self.all.get(event.item_id), self.timeline.items.get(event.item_id)
        if entry is None or audio is None or not audio.audio_ms:
            return
        heard_ms = audio.heard_ms or 0.0
        entry.heard_share = heard_ms / audio.audio_ms
        self._end(entry, "interrupted", f"heard {heard_ms / 1000:.1f} s of {audio.audio_ms / 1000:.1f} s")

    def _cut_by_service(self, event: events.ConversationItemTruncated) -> None:
        """Over WebRTC nobody here truncates, and no audio of the item was seen: only what was heard is known."""
        entry = self.all.get(event.item_id)
        if entry is not None and event.item_id not in self.timeline.items:
            self._end(entry, "interrupted", f"heard {event.audio_end_ms / 1000:.1f} s")

    def _deleted(self, event: events.ConversationItemDeleted) -> None:
        if event.item_id in self.all:
            self._end(self._entry(event.item_id), "deleted")

    def _cleared(self, event: events.InputAudioBufferCleared) -> None:
        for entry in self.all.values():
            if entry.detail == "speaking":
                self._end(entry, "deleted", "the audio was cleared")
                self.changed[entry.id] = None

    def _end(self, entry: Entry, status: str, detail: str = "") -> None:
        entry.status, entry.detail = status, detail
        self.changed[entry.id] = None

    # --- with times ---------------------------------------------------------------------------------------------------

    def timed(self) -> list[Entry]:
        """The entries with their times on the session's axis, in order."""
        for entry in self.all.values():
            audio = self.timeline.items.get(entry.id)
            if audio is not None:
                entry.start_ms, entry.stop_ms = audio.start_ms, audio.stop_ms
            else:
                entry.stop_ms = entry.start_ms + 1000 * max(1.0, len(entry.text.split()) / _WORDS_PER_S)
        return list(self.all.values())


_HANDLERS: dict[type, Any] = {
    events.ConversationItemAdded: lambda entries, event: entries._item(event.item),
    events.ConversationItemCreated: lambda entries, event: entries._item(event.item),
    events.ConversationItemDone: lambda entries, event: entries._item(event.item),
    events.ResponseOutputItemAdded: lambda entries, event: entries._item(event.item),
    events.ResponseOutputItemDone: Entries._item_done,
    events.ResponseDone: Entries._response_done,
    events.InputAudioBufferSpeechStarted: Entries._speech_started,
    events.InputAudioBufferCommitted: Entries._committed,
    events.InputAudioBufferCleared: Entries._cleared,
    events.ConversationItemInputAudioTranscriptionDelta: Entries._heard,
    events.ConversationItemInputAudioTranscriptionCompleted: Entries._understood,
    events.ConversationItemInputAudioTranscriptionFailed: Entries._not_understood,
    events.ResponseOutputAudioTranscriptDelta: Entries._said,
    events.ResponseOutputTextDelta: Entries._said,
    events.ResponseOutputAudioTranscriptDone: Entries._all_said,
    events.ResponseOutputTextDone: Entries._all_said,
    events.ConversationItemTruncate: Entries._truncated,
    events.ConversationItemTruncated: Entries._cut_by_service,
    events.ConversationItemDeleted: Entries._deleted,
}


# --- files ------------------------------------------------------------------------------------------------------------

_NAMES = {"user": "You", "assistant": "Model", "system": "System", "tool": "Tool"}


def _heard_text(entry: Entry) -> str:
    """What a listener heard: an interrupted answer ends in a dash."""
    return entry.text if entry.heard_share is None else f"{entry.text[: entry.heard_characters]} –".lstrip()


def to_text(entries: Iterable[Entry]) -> str:
    """One paragraph per entry: who, and what was said (with what was not heard of it in brackets)."""
    lines = []
    for entry in entries:
        unheard = entry.text[entry.heard_characters :].strip()
        note = f" [not heard: {unheard}]" if unheard else "" if entry.status == "complete" else f" [{entry.status}]"
        lines.append(f"{_NAMES.get(entry.role, entry.role)}: {_heard_text(entry)}{note}\n")
    return "\n".join(lines)


def _time(ms: float, mark: str) -> str:
    whole_s, rest_ms = divmod(round(ms), 1000)
    return f"{whole_s // 3600:02}:{whole_s // 60 % 60:02}:{whole_s % 60:02}{mark}{rest_ms:03}"


def _cues(entries: Sequence[Entry], mark: str) -> Iterable[tuple[str, str, str]]:
    for entry in sorted(entries, key=lambda entry: entry.start_ms):
        # A cue ends at an empty line, and an arrow would be read as its time.
        text = "\n".join(line for line in _heard_text(entry).replace("-->", "→").splitlines() if line.strip())
        if text and entry.status != "deleted" and entry.role in ("user", "assistant"):
            stop_ms = entry.stop_ms if entry.stop_ms is not None else entry.start_ms + 1000
            times = f"{_time(entry.start_ms, mark)} --> {_time(max(stop_ms, entry.start_ms + 1), mark)}"
            yield times, _NAMES[entry.role], text


def to_srt(entries: Sequence[Entry]) -> str:
    """SubRip subtitles."""
    return "".join(f"{n}\n{t}\n{who}: {text}\n\n" for n, (t, who, text) in enumerate(_cues(entries, ","), 1))


def to_vtt(entries: Sequence[Entry]) -> str:
    """WebVTT subtitles, with the speakers as voices."""
    escaped = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
    cues = "".join(f"{t}\n<v {who}>{text.translate(escaped)}\n\n" for t, who, text in _cues(entries, "."))
    return f"WEBVTT\n\n{cues}"


def to_json(entries: Iterable[Entry]) -> str:
    """A list of objects with the fields of `Entry`."""
    return json.dumps([as_json(entry) for entry in entries], ensure_ascii=False, indent=2)


def as_json(entry: Entry) -> dict[str, Any]:
    """The fields of an entry."""
    return asdict(entry) | {"heard_characters": entry.heard_characters}
