"""Entries of a conversation, made from the rows of a log; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rtnb.client.log import LogRow
from rtnb.protocol import events
from rtnb.protocol.values import Item, Response
from rtnb.trace.timeline import Timeline, put

_WORDS_PER_S: Final = 2.5  # of text without audio, for subtitles (about 150 words a minute; chosen)

_FIRST = {events.ResponseOutputAudioDelta: "first audio", events.ResponseOutputTextDelta: "first text"}
"""Events with which an answer begins."""
_ROLES = {"function_call": "tool", "function_call_output": "tool", "mcp_call": "tool"}


@dataclass
class Entry:
    """Message or tool call of the conversation, as far as it is known."""

    item_id: str
    role: str
    """``user``, ``assistant``, ``system`` or ``tool``."""
    text: str = ""
    status: str = "in progress"
    """``in progress``, ``complete``, ``not transcribed``, ``interrupted``, ``failed`` or ``deleted``."""
    detail: str = ""
    """Text about the status."""
    note: str = ""
    """A measured time: ``first audio 410 ms`` of an answer, ``120 ms`` of a tool call."""
    index: int = 0
    """Number of its first row in the log."""
    start_ms: float = 0.0
    stop_ms: float = 0.0
    has_audio: bool = False
    heard_share: float | None = None
    """Of an interrupted answer: the share of its audio that was heard, 0 to 1."""
    call_id: str = ""
    """Of a tool call: the service's id of it."""
    called_ms: float | None = None
    """Of a tool call without a result: the time at which its arguments were complete."""
    response_id: str = ""
    """Of an answer or a tool call."""

    @property
    def heard_characters(self) -> int:
        """Return about how many characters were heard: by the share of the audio, up to the end of a word."""
        if self.heard_share is None:
            return len(self.text)
        end = round(len(self.text) * self.heard_share)
        return end if end >= len(self.text) else max(0, self.text.rfind(" ", 0, end + 1))


class Entries:
    """The entries of a session, in their order; feed it every row.

    Parameters
    ----------
    timeline : Timeline
        The session's axis; it has every row before `add` gets it.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.all: dict[str, Entry] = {}
        """The newest 3,000, by the id of their item."""
        self._timeline = timeline
        self.changed: dict[str, None] = {}
        """Ids of entries that changed; the view that shows them empties it."""
        self._transcribes = False
        self._number = 0
        self._now_ms = 0.0
        self._asked_ms: float | None = None
        """Time of the commit or request whose answer has not begun."""

    def add(self, row: LogRow) -> None:
        """Take one row."""
        self._number, self._now_ms = row.number, self._timeline.ms(row)
        event: Any = row.event
        if self._asked_ms is not None and type(event) in _FIRST:
            self._entry(event.item_id).note = f"{_FIRST[type(event)]} {self._now_ms - self._asked_ms:.0f} ms"
            self._asked_ms = None
        match event:
            case events.SessionCreated() | events.SessionUpdated():
                heard = event.session.audio and event.session.audio.input
                self._transcribes = bool(heard and heard.transcription and heard.transcription.model)
            case events.InputAudioBufferSpeechStarted() if event.item_id:
                self._entry(event.item_id, "user").detail = "listening"
            case events.InputAudioBufferCommitted():
                self._asked_ms = self._now_ms
                self._await_transcript(self._entry(event.item_id, "user"))
            case events.InputAudioBufferCleared():
                for id in [entry.item_id for entry in self.all.values() if entry.detail == "listening"]:
                    self._end(id, "deleted", "the audio was cleared")
            case events.ConversationItemInputAudioTranscriptionDelta():
                self._entry(event.item_id, "user").text += event.delta or ""
            case events.ConversationItemInputAudioTranscriptionCompleted():
                self._entry(event.item_id, "user").text = event.transcript
                self._end(event.item_id, "complete")
            case events.ConversationItemInputAudioTranscriptionFailed():
                self._end(self._entry(event.item_id, "user").item_id, "failed", event.error.message or "no transcript")
            case events.ResponseCreate():
                self._asked_ms = self._now_ms
            case events.ResponseOutputTextDelta() | events.ResponseOutputAudioTranscriptDelta():
                if (entry := self._entry(event.item_id)).status == "in progress":
                    entry.text += event.delta
            case events.ResponseOutputAudioTranscriptDone(transcript=text) | events.ResponseOutputTextDone(text=text):
                self._entry(event.item_id).text = text
            case events.ConversationItemAdded() | events.ConversationItemCreated() | events.ConversationItemDone():
                self._on_item(event.item)
            case events.ResponseOutputItemAdded() | events.ResponseOutputItemDone():
                self._on_output_item(event)
            case events.ResponseDone():
                self._on_response_done(event.response)
            case events.ConversationItemTruncate():
                self._on_truncate(event)
            case events.ConversationItemTruncated() if event.item_id not in self._timeline.items:
                # Over WebRTC the service cuts, and no audio of the item passes the kernel.
                self._end(event.item_id, "interrupted", f"at {event.audio_end_ms / 1000:.1f} s")
            case events.ConversationItemDeleted():
                self._end(event.item_id, "deleted")

    def _entry(self, item_id: str, role: str = "assistant") -> Entry:
        if item_id not in self.all:
            put(self.all, item_id, Entry(item_id, role, index=self._number, start_ms=self._now_ms))
        self.changed[item_id] = None
        return self.all[item_id]

    def _end(self, item_id: str, status: str, detail: str = "") -> None:
        if (entry := self.all.get(item_id)) is not None:
            entry.status, entry.detail = status, detail
            self.changed[entry.item_id] = None

    def _await_transcript(self, entry: Entry) -> None:
        if entry.status == "in progress" and self._transcribes:
            entry.detail = "waiting for the transcript"
        elif entry.status == "in progress":
            self._end(entry.item_id, "not transcribed", "Input transcription is off")

    # --- items --------------------------------------------------------------------------------------------------------

    def _on_item(self, item: Item) -> None:
        if item.type not in ("message", *_ROLES) or not item.id:
            return
        if item.type == "function_call_output" and self._on_result(item):
            return
        entry = self._entry(item.id, _ROLES.get(item.type) or item.role or "assistant")
        parts = item.content or ()
        text = "\n".join(str(part.text or part.transcript) for part in parts if part.text or part.transcript)
        if item.type != "message":
            entry.call_id = item.call_id or ""
            text = f"→ {item.output}" if item.type == "function_call_output" else format_call(item)
        entry.text = text or entry.text
        if any(part.type == "input_audio" and not part.transcript for part in parts):
            self._await_transcript(entry)
        elif entry.role != "assistant" and item.type != "function_call":
            self._end(entry.item_id, "complete")

    def _on_result(self, item: Item) -> bool:
        """Join the result of a tool to its call, once; return whether the call is known."""
        entry = next((one for one in reversed(self.all.values()) if one.call_id == item.call_id), None)
        if entry is None or entry.item_id == item.id:
            return False
        if entry.called_ms is not None:
            entry.text, entry.note = f"{entry.text} → {item.output}", f"{self._now_ms - entry.called_ms:.0f} ms"
            entry.called_ms = None
            self._end(entry.item_id, "complete")
        return True

    # --- answers ------------------------------------------------------------------------------------------------------

    def _on_output_item(self, event: Any) -> None:
        item: Item = event.item
        self._on_item(item)
        if (entry := self.all.get(item.id or "")) is None:
            return
        entry.response_id = event.response_id
        if isinstance(event, events.ResponseOutputItemAdded):
            return
        if item.type == "function_call" and item.status != "incomplete":
            entry.called_ms = self._now_ms
        elif entry.status == "in progress":
            self._end(entry.item_id, "interrupted" if item.status == "incomplete" else "complete")

    def _on_response_done(self, response: Response) -> None:
        for item in response.output or ():
            entry = self.all.get(item.id or "")
            if entry is not None and entry.status == "in progress" and entry.called_ms is None:
                self._end(entry.item_id, "complete" if response.status == "completed" else "interrupted")

    def _on_truncate(self, event: events.ConversationItemTruncate) -> None:
        entry, audio = self.all.get(event.item_id), self._timeline.items.get(event.item_id)
        if entry is not None and audio is not None and audio.audio_ms:
            heard_ms = audio.heard_ms or 0.0
            lost_ms = audio.audio_ms - heard_ms
            entry.heard_share = heard_ms / audio.audio_ms
            self._end(event.item_id, "interrupted", f"at {heard_ms / 1000:.1f} s; {lost_ms / 1000:.1f} s not heard")

    # --- with times ---------------------------------------------------------------------------------------------------

    def timed(self, ids: Iterable[str] | None = None) -> list[Entry]:
        """Return entries with their times on the session's axis, in order: those with these ids, or all."""
        entries = [self.all[one] for one in (self.all if ids is None else ids) if one in self.all]
        for entry in entries:
            if (audio := self._timeline.items.get(entry.item_id)) is not None:
                stop_ms = self._timeline.now_ms if audio.stop_ms is None else audio.stop_ms
                entry.has_audio, entry.start_ms, entry.stop_ms = True, audio.start_ms, stop_ms
            else:
                words_s = max(1.0, len(entry.text.split()) / _WORDS_PER_S) if entry.text else 0.0
                entry.stop_ms = entry.start_ms + 1000 * words_s
        return entries


def ids_of(event: Any) -> set[Any]:
    """Return the ids of the item and the response that an event is about."""
    values = [getattr(getattr(event, name, None), "id", None) for name in ("item", "response")]
    return {getattr(event, "item_id", None), getattr(event, "response_id", None), *values} - {None, ""}


def format_call(item: Item) -> str:
    """Return a tool call as Python would write it.

    >>> format_call(Item(type="function_call", name="get_weather", arguments='{"city": "Oslo"}'))
    'get_weather(city="Oslo")'
    """
    arguments: Any = item.arguments or ""
    try:
        values = json.loads(arguments)
    except ValueError:
        values = None
    if isinstance(values, dict):
        arguments = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
    output = f" → {item.output}" if item.output else ""
    return f"{item.name or ''}({arguments}){output}"


# --- files ------------------------------------------------------------------------------------------------------------

_NAMES = {"user": "You", "assistant": "Model", "system": "System", "tool": "Tool"}


def _heard_text(entry: Entry) -> str:
    """Return the text up to where it was heard: an interrupted answer ends in a dash."""
    return entry.text if entry.heard_share is None else f"{entry.text[: entry.heard_characters]} –".lstrip()


def to_text(entries: Iterable[Entry]) -> str:
    """Return one paragraph per entry: its speaker and its text, the part that was not heard in brackets."""
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
            times = f"{_time(entry.start_ms, mark)} --> {_time(max(entry.stop_ms, entry.start_ms + 1), mark)}"
            yield times, _NAMES[entry.role], text


def to_srt(entries: Sequence[Entry]) -> str:
    """Return SubRip subtitles."""
    return "".join(f"{n}\n{t}\n{who}: {text}\n\n" for n, (t, who, text) in enumerate(_cues(entries, ","), 1))


def to_vtt(entries: Sequence[Entry]) -> str:
    """Return WebVTT subtitles, with the speakers as voices."""
    escaped = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
    cues = "".join(f"{t}\n<v {who}>{text.translate(escaped)}\n\n" for t, who, text in _cues(entries, "."))
    return f"WEBVTT\n\n{cues}"


def as_json(entry: Entry) -> dict[str, Any]:
    """Return the fields of an entry."""
    return asdict(entry) | {"heard_characters": entry.heard_characters}
