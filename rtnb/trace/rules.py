"""Findings: rules that search the log of a session for mistakes and surprises, each with its next step.

A rule is a small function over the `Facts` of a log. It yields a sentence and the rows that the sentence is about. Its
name is the rule's id, with hyphens. The thresholds are chosen, unless a rule names a source.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from rtnb.analysis.latency import LatencyMeter
from rtnb.client.log import EventLog, LogRow, short
from rtnb.protocol import events, wire
from rtnb.protocol.values import UNSET, SessionConfig
from rtnb.redaction import mask_credentials, redact
from rtnb.trace.timeline import Piece, Timeline, audio_of

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["note", "warning", "error"]

SLOW_MS: Final = 2_000.0
"""An answer that begins later than this is slow: a pause of 2 s ends most turns between people (chosen)."""
RESUMED_MS: Final = 500.0
"""Speech that goes on within this time after the end of a turn belonged to it (chosen)."""
STALL_MS: Final = 50.0
"""Shortest gap in the playback that counts (chosen)."""
PATIENCE_S: Final = 5.0
"""An answer or a tool result that is not there after this time is missing (chosen)."""
MANY_TOKENS: Final = 4_000
"""Input tokens of one answer from which on their growth is a finding (chosen: some cents per answer)."""


class Finding(NamedTuple):
    """Mistake or surprise in a session."""

    rule: str
    """Id of the rule, e.g. ``update-ignored``."""
    severity: Severity
    """``error``: something failed. ``warning``: the user notices it. ``note``: good to know."""
    t_ms: float
    """Time of the first event, ms since the first event of the log."""
    text: str
    """The explanation, one sentence."""
    events: tuple[int, ...]
    """Row numbers of the events it points to."""
    next_step: str
    """Advice."""


class Findings(tuple[Finding, ...]):
    """Findings in order of time; a table in a cell."""

    __slots__ = ()

    def to_frame(self) -> pd.DataFrame:
        """Return one row per finding, with the fields of `Finding` as columns."""
        import pandas as pd

        return pd.DataFrame(list(self), columns=list(Finding._fields))

    def __repr__(self) -> str:
        lines = [f"{f.severity} at {f.t_ms / 1000:.1f} s, {f.rule}: {f.text}" for f in self]
        return "\n".join([f"<Findings: {len(self) or 'none'}>", *lines])

    def _repr_html_(self) -> str:
        return table_html(self.to_frame(), index=False) if self else "<p>No findings.</p>"


def table_html(frame: pd.DataFrame, **options: Any) -> str:
    """Return a table as HTML with its texts in full; pandas cuts them at 50 characters otherwise."""
    import pandas as pd

    with pd.option_context("display.max_colwidth", None):
        return str(frame.to_html(**options))


class Facts:
    """A log, read once for all rules."""

    def __init__(self, rows: Iterable[LogRow]) -> None:
        self.rows: list[LogRow] = []
        """Every row."""
        self.played: dict[str, list[tuple[Piece, Any]]] = defaultdict(list)
        """Item id -> each piece of its audio that is played, and its row."""
        self.appended: list[tuple[Any, float, float, float]] = []
        """Row of sent audio, its duration (ms), its peak, and its share of samples at full scale."""
        self.latency = LatencyMeter()
        self._of: dict[type, list[Any]] = defaultdict(list)
        timeline = Timeline(most_bytes=0)
        self.ms = timeline.ms
        for row in getattr(rows, "context", ()):  # it has the format of the audio
            timeline.add(row)
        for row in rows:
            self.latency.feed([row])
            if (piece := timeline.add(row)) is not None and piece.samples:
                self._add_audio(row, piece)
            self.rows.append(row)
            self._of[type(row.event)].append(row)

    def _add_audio(self, row: LogRow, piece: Piece) -> None:
        if piece.lane == "model":
            self.played[piece.item_id].append((piece, row))
        elif audio := audio_of(row.event):
            level = np.abs(piece.form.decode(audio[: len(audio) // piece.samples.step * piece.samples.step]))
            if len(level):
                ms = 1000 * len(level) / piece.form.rate_hz
                self.appended.append((row, ms, float(level.max()), float(np.mean(level > 0.98))))

    def of(self, *kinds: type) -> list[Any]:
        """Return the rows with events of these classes, in order."""
        return sorted((row for kind in kinds for row in self._of[kind]), key=lambda row: int(row.number))

    def done(self, status: str) -> list[tuple[Any, Any]]:
        """Return the rows of the ends of responses with a status, each with its details."""
        ends = [(row, row.event.response) for row in self._of[events.ResponseDone]]
        return [(row, response.status_details or None) for row, response in ends if response.status == status]

    def config(self, row: LogRow) -> SessionConfig:
        """Return the settings in force when an event passed."""
        confirmed = reversed(self.of(events.SessionCreated, events.SessionUpdated))
        return next((one.event.session for one in confirmed if one.number <= row.number), SessionConfig())

    def detection(self, row: LogRow, name: str, default: Any) -> Any:
        """Return a setting of the turn detection in force; the default where it is not set or another kind has none."""
        value = getattr(self.config(row).turn_detection, name, UNSET)
        return default if value is UNSET else value

    def next(self, row: LogRow, kind: type, within_s: float = math.inf) -> Any:
        """Return the first row of a class after a row and within a time; None where there is none."""
        later = (one for one in self._of[kind] if one.number > row.number)
        return next((one for one in later if one.monotonic_s <= row.monotonic_s + within_s), None)

    def is_over(self, row: LogRow) -> bool:
        """Return whether the log goes on long enough after a row to show what is missing."""
        return self.rows[-1].monotonic_s >= row.monotonic_s + PATIENCE_S

    def refused(self) -> Iterator[tuple[Any, Any]]:
        """Yield each `error` of the service and the client event that caused it, None where it names none."""
        sent: dict[Any, LogRow] = {row.event.event_id: row for row in self.rows if row.direction == "sent"}
        for row in self.of(events.Error):
            yield row, sent.get(row.event.error.event_id or "")


Hit = tuple[Any, ...]
"""A sentence, then the rows that it is about."""
_Rule = Callable[[Facts], Iterator[Hit]]
RULES: Final[dict[str, tuple[Severity, str, _Rule]]] = {}
"""Every rule by its id: severity, next step, function."""


def _rule(severity: Severity, next_step: str) -> Callable[[_Rule], _Rule]:
    def register(function: _Rule) -> _Rule:
        RULES[function.__name__.strip("_").replace("_", "-")] = severity, next_step, function
        return function

    return register


def findings(source: Any) -> Findings:
    """Search a session for mistakes and surprises.

    Parameters
    ----------
    source : Session, Trace or EventLog
        A session that runs is searched up to now.

    Returns
    -------
    findings : Findings
        In order of time; empty where nothing was found. The rules are in `rtnb.trace.rules.RULES`.

    Raises
    ------
    TypeError
        The source has no log.

    Examples
    --------
    >>> log = EventLog()
    >>> _ = log.record("received", events.ConversationCreated(conversation={}), monotonic_s=1.0)
    >>> findings(log)
    <Findings: 1>
    warning at 0.0 s, deprecated-dialect: The session uses the preview dialect, which services switch off.
    """
    log = getattr(source, "log", source)
    rows = source.rows() if hasattr(source, "rows") else log
    if not isinstance(rows, EventLog | Iterator):
        raise TypeError(f"findings() takes a session, a trace or an event log, got {type(source).__name__}")
    facts, found = Facts(rows), []
    first, stop = (log[0].number, log[-1].number) if log else (0, 0)  # of a part of a trace
    start_s = facts.rows[0].monotonic_s if log else 0.0
    time_of = getattr(source, "time_of", lambda row: 1000 * (row.monotonic_s - start_s))
    for id, (severity, next_step, function) in RULES.items():
        for text, *about in function(facts):
            if first <= about[0].number <= stop:
                numbers = tuple(row.number for row in about)
                found.append(Finding(id, severity, time_of(about[0]), text, numbers, next_step))
    return Findings(sorted(found, key=lambda finding: finding.t_ms))


# --- settings ---------------------------------------------------------------------------------------------------------


def plain_settings(config: SessionConfig) -> Any:
    """Return settings as a JSON object without keys; floats are rounded, since services show 0.8 as 0.800000011920929.

    >>> plain_settings(SessionConfig.of(speed=0.800000011920929))["audio"]
    {'output': {'speed': 0.8}}
    """
    text = json.dumps(mask_credentials(wire.encode_session(config)))
    return json.loads(text, parse_float=lambda number: round(float(number), 6))


_BRANCHES = {"audio", "audio.input", "audio.output", "audio.input.turn_detection", "audio.input.transcription"}
"""Objects that services merge field by field; any other object is one setting."""


def flat_json(session: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a session object of the wire as settings by path; `prefix` is the path of an object inside it.

    >>> flat_json({"audio": {"output": {"voice": "marin"}}, "metadata": {"a": "b"}})
    {'audio.output.voice': 'marin', 'metadata': {'a': 'b'}}
    """
    settings: dict[str, Any] = {}
    for name, value in session.items():
        path = f"{prefix}{name}"
        inner = path in _BRANCHES and isinstance(value, Mapping)
        settings |= flat_json(value, f"{path}.") if inner else {path: value}
    return settings


def _at(session: Any, path: str) -> Any:
    """Return the setting at a path: None below an object that is off, `...` where the service does not show it."""
    for name in path.split("."):
        session = session.get(name, ...) if isinstance(session, Mapping) else session
    return session


@_rule("error", "Correct the setting that the message names and send the whole update again: none of it was applied.")
def _update_refused(facts: Facts) -> Iterator[Hit]:
    for row, cause in facts.refused():
        if cause is not None and isinstance(cause.event, events.SessionUpdate):
            yield f"The service refused a session.update: {_reason(row.event.error)}.", cause, row


@_rule("warning", "Use the value that is in force, or check that the model and the dialect support this setting.")
def _update_ignored(facts: Facts) -> Iterator[Hit]:
    refused = {cause.number for _, cause in facts.refused() if cause is not None}
    waiting: list[Any] = []  # the service answers in order
    for reply in facts.of(events.SessionUpdate, events.SessionUpdated, events.SessionCreated):
        if isinstance(reply.event, events.SessionUpdate):
            waiting += [] if reply.number in refused else [reply]
        elif isinstance(reply.event, events.SessionCreated):
            waiting.clear()
        if not waiting or not isinstance(reply.event, events.SessionUpdated):
            continue
        row = waiting.pop(0)
        before, after = plain_settings(facts.config(row)), plain_settings(reply.event.session)
        for path, value in flat_json(plain_settings(row.event.session)).items():
            effective, stays = _at(after, path), _at(before, path) == _at(after, path)
            shown, asked = short(str(effective)), short(str(value))
            # Services add fields to tools, so a list of objects is never equal.
            if effective not in (..., value) and path != "tools":
                ignored = f"The service ignored {path} = {asked}: it stays {shown}."
                yield ignored if stays else f"The service set {path} to {shown}, not to {asked}.", row, reply


# --- turns ------------------------------------------------------------------------------------------------------------


@_rule("warning", "Raise silence_duration_ms, or use semantic_vad; rtnb.recommend finds a setting for your speech.")
def _user_cut_off(facts: Facts) -> Iterator[Hit]:
    started, stopped = events.InputAudioBufferSpeechStarted, events.InputAudioBufferSpeechStopped
    for stop, start in pairwise(facts.of(events.SessionCreated, started, stopped)):
        if isinstance(stop.event, stopped) and isinstance(start.event, started):
            onset_ms = start.event.audio_start_ms + facts.detection(start, "prefix_padding_ms", 300)
            if (pause_ms := max(0, onset_ms - stop.event.audio_end_ms)) <= RESUMED_MS:
                yield f"A turn ended, and the user went on speaking {pause_ms} ms later: it was cut off.", stop, start


@_rule("warning", "Use headphones or echo cancellation, or raise the threshold of turn detection.")
def _echo(facts: Facts) -> Iterator[Hit]:
    texts = {row.event.item_id: row.event.transcript for row in facts.of(events.ResponseOutputAudioTranscriptDone)}
    starts: dict[str, Any] = {row.event.item_id: row for row in facts.of(events.InputAudioBufferSpeechStarted)}
    for row in facts.of(events.ConversationItemInputAudioTranscriptionCompleted):
        words, start = _words(row.event.transcript), starts.get(row.event.item_id)
        if start is None or words.count(" ") < 4:  # a word or two can be chance
            continue
        for item_id, pieces in facts.played.items():
            (first, _), (last, _) = pieces[0], pieces[-1]
            audible = first.start_ms < facts.ms(start) < last.stop_ms + 1_000  # the room adds to the end
            if audible and words in _words(text := texts.get(item_id, "")):
                yield f"The microphone picked up the assistant: {short(text)!r} came back as a turn.", start, row


def _words(text: str) -> str:
    return " " + " ".join(re.findall(r"[^\W_]+", text.lower())) + " "


@_rule("warning", "Find the step that takes the time with trace.latency; try a shorter silence or prompt.")
def _slow_answer(facts: Facts) -> Iterator[Hit]:
    created = {row.event.response.id: row for row in facts.of(events.ResponseCreated)}
    for turn in facts.latency.turns:
        if (ms := turn.answer_ms or 0.0) > SLOW_MS:
            yield f"The answer began {ms / 1000:.1f} s after the {turn.start}.", created[turn.response_id]


@_rule("warning", "Send response.create, or read the errors around this event.")
def _no_answer(facts: Facts) -> Iterator[Hit]:
    for row in facts.of(events.InputAudioBufferCommitted):
        config, late = facts.config(row), facts.is_over(row) and not facts.next(row, events.ResponseCreated, PATIENCE_S)
        responds = config.turn_detection and facts.detection(row, "create_response", True)
        if responds and config.type != "transcription" and late:
            yield f"The user's turn got no response within {PATIENCE_S:.0f} s.", row


# --- audio ------------------------------------------------------------------------------------------------------------


@_rule("warning", "Start the playback with more audio in the buffer, or check the network.")
def _playback_starved(facts: Facts) -> Iterator[Hit]:
    cut = {row.event.item_id for row in facts.of(events.ConversationItemTruncate)}
    for item_id, pieces in facts.played.items():
        gaps = [(late.start_ms - early.stop_ms, row) for (early, _), (late, row) in pairwise(pieces)]
        stalls = [(ms, row) for ms, row in gaps if ms > STALL_MS and item_id not in cut]
        if stalls:
            lost_ms = sum(ms for ms, _ in stalls)
            yield f"The playback of an answer ran dry: {lost_ms:.0f} ms of silence.", *(row for _, row in stalls)


@_rule("warning", "Call session.interrupt(), or send conversation.item.truncate with the time that was played.")
def _barge_in_not_truncated(facts: Facts) -> Iterator[Hit]:
    cut = {row.event.item_id for row in facts.of(events.ConversationItemTruncate, events.ConversationItemTruncated)}
    whole = [(pieces[0], pieces[-1]) for item_id, pieces in facts.played.items() if item_id not in cut]
    for row in facts.of(events.InputAudioBufferSpeechStarted):
        for (first, _), (last, end) in whole if facts.detection(row, "interrupt_response", True) else ():
            left_s = (last.stop_ms - facts.ms(row)) / 1000
            if first.start_ms < facts.ms(row) and left_s > 0.2:
                yield f"The user interrupted an answer; the model takes its last {left_s:.1f} s as heard.", row, end


@_rule("warning", "Send input_audio_buffer.commit and response.create, or turn on turn detection.")
def _uncommitted_audio(facts: Facts) -> Iterator[Hit]:
    ends = facts.of(events.InputAudioBufferCommit, events.InputAudioBufferClear, events.InputAudioBufferCommitted)
    last = ends[-1].number if ends else -1
    left = [(row, ms) for row, ms, *_ in facts.appended if row.number > last and not facts.config(row).turn_detection]
    if (length_s := sum(ms for _, ms in left) / 1000) >= 0.1:
        yield f"Turn detection is off, and {length_s:.1f} s of audio were never committed.", left[0][0], left[-1][0]


@_rule("warning", "Choose another microphone, unmute it, or allow it in the browser.")
def _silent_input(facts: Facts) -> Iterator[Hit]:
    length_s = sum(ms for _, ms, *_ in facts.appended) / 1000
    if length_s >= PATIENCE_S and max(peak for _, _, peak, _ in facts.appended) < 0.001:  # -60 dB full scale
        yield f"All {length_s:.0f} s of sent audio are silent.", facts.appended[0][0], facts.appended[-1][0]


@_rule("warning", "Lower the level of the microphone.")
def _clipped_input(facts: Facts) -> Iterator[Hit]:
    loud = [row for row, _, _, share in facts.appended if share > 0.01]
    if len(loud) >= 3:
        yield f"{len(loud)} chunks of sent audio are clipped: the input is too loud.", *loud


@_rule("warning", "Send audio in real time (session.say does), or turn off turn detection for files.")
def _flooded_input(facts: Facts) -> Iterator[Hit]:
    until_s = 0.0  # its end, were it sent in real time
    for row, ms, *_ in facts.appended:
        until_s = max(until_s, row.monotonic_s) + ms / 1000
        if (ahead_s := until_s - row.monotonic_s) > 2 and facts.config(row).turn_detection:
            yield f"Audio is sent {ahead_s:.1f} s ahead of real time, which misleads turn detection.", row
            return


@_rule("warning", "Check the name of the transcription model (on Azure: of its deployment).")
def _transcription_failed(facts: Facts) -> Iterator[Hit]:
    for row in facts.of(events.ConversationItemInputAudioTranscriptionFailed):
        yield f"A turn could not be transcribed: {_reason(row.event.error)}.", row


# --- tools ------------------------------------------------------------------------------------------------------------


def _calls(facts: Facts, status: str) -> Iterator[tuple[Any, Any]]:
    """Yield each function call in a response that ended with a status, and the row of that end."""
    ends = {row.event.response.id: row for row, _ in facts.done(status)}
    for row in facts.of(events.ResponseOutputItemDone):
        if row.event.item.type == "function_call" and row.event.response_id in ends:
            yield row, ends[row.event.response_id]


@_rule("note", "Run functions only after response.done with status completed (session.tools does).")
def _tool_call_cancelled(facts: Facts) -> Iterator[Hit]:
    for row, done in _calls(facts, "cancelled"):
        yield f"The call of {row.event.item.name} was cancelled with its response.", row, done


@_rule("warning", "Send a function_call_output with its call_id, or register the function with session.tools.")
def _tool_call_unanswered(facts: Facts) -> Iterator[Hit]:
    answered = {row.event.item.call_id for row in facts.of(events.ConversationItemCreate)}
    for row, done in _calls(facts, "completed"):
        if row.event.item.call_id not in answered and facts.is_over(done):
            yield f"The call of {row.event.item.name} got no output within {PATIENCE_S:.0f} s.", row, done


# --- tokens and limits ------------------------------------------------------------------------------------------------


def _inputs(facts: Facts) -> list[tuple[Any, int]]:
    """Return the input tokens of each response of the conversation, with the row of its end."""
    ends = [(row, row.event.response) for row in facts.of(events.ResponseDone)]
    used = [(row, one.usage) for row, one in ends if one.usage and one.conversation_id is not None]
    return [(row, int(usage.input_tokens)) for row, usage in used if usage.input_tokens]


@_rule("warning", "Repeat what must not be forgotten in the instructions, or set truncation with a retention ratio.")
def _context_truncated(facts: Facts) -> Iterator[Hit]:
    kinds = events.ConversationItemDelete, events.ConversationItemTruncate, events.SessionUpdate, events.SessionCreated
    for (early, before), (late, now) in pairwise(_inputs(facts)):
        asked = any(early.number < row.number < late.number for row in facts.of(*kinds))
        if before > 1_000 and now < 0.9 * before and not asked:
            yield f"The model reads {now} tokens, {before} before: the start of the conversation is cut.", early, late


@_rule("note", "Delete old items, or set truncation; cached tokens cost less.")
def _token_growth(facts: Facts) -> Iterator[Hit]:
    inputs = _inputs(facts)
    if len(inputs) >= 8 and inputs[-1][1] > max(MANY_TOKENS, 4 * inputs[0][1]):
        (first, least), (last, most), total = inputs[0], inputs[-1], sum(tokens for _, tokens in inputs)
        text = f"Each answer reads all before it: {least} tokens at first, {most} at last, {total} together."
        yield text, last, first


@_rule("warning", "Wait until the limit is reset, or ask for a higher quota.")
def _rate_limit_near(facts: Facts) -> Iterator[Hit]:
    low: dict[Any, Hit] = {}
    for row in facts.of(events.RateLimitsUpdated):
        for one in row.event.rate_limits:
            if one.limit and isinstance(one.remaining, int) and one.remaining < one.limit / 10:
                low.setdefault(one.name, (f"{one.remaining} of {one.limit} {one.name} are left.", row))
    yield from low.values()


@_rule("warning", "Open the next session in time, or connect with reconnect=True.")
def _session_expiring(facts: Facts) -> Iterator[Hit]:
    for last in facts.rows[-1:]:
        if (left_s := (facts.config(last).expires_at or math.inf) - last.wall_time) < 60:
            yield f"The service ends the session {left_s:.0f} s after the last event.", last


# --- errors -----------------------------------------------------------------------------------------------------------


def _reason(error: Any) -> str:
    text = (error and (error.message or error.code or error.type)) or "no reason"
    return short(redact(str(text))).rstrip(".")


@_rule("error", "Read the reason; a rate limit or a server error passes, ask again later.")
def _response_failed(facts: Facts) -> Iterator[Hit]:
    for row, details in facts.done("failed"):
        yield f"A response failed: {_reason(details and details.error)}.", row


@_rule("warning", "Raise max_output_tokens, or ask for shorter answers; a content filter needs another wording.")
def _response_incomplete(facts: Facts) -> Iterator[Hit]:
    for row, details in facts.done("incomplete"):
        yield f"An answer is incomplete: {(details and details.reason) or 'no reason'}.", row


@_rule("error", "Read the message. After an active response, wait for response.done (session.ask does).")
def _service_error(facts: Facts) -> Iterator[Hit]:
    for row, cause in facts.refused():
        if cause is None:
            yield f"The service reports an error: {_reason(row.event.error)}.", row
        elif not isinstance(cause.event, events.SessionUpdate):
            yield f"The service refused {cause.type}: {_reason(row.event.error)}.", row, cause


@_rule("warning", "Use the GA dialect; rtnb.migrate translates settings and events, notebook 10 shows how.")
def _deprecated_dialect(facts: Facts) -> Iterator[Hit]:
    for row in facts.of(events.ConversationCreated, events.ConversationItemCreated)[:1]:
        yield "The session uses the preview dialect, which services switch off.", row


@_rule("note", "Look at the event; a newer version of rtnb may know it.")
def _unknown_event(facts: Facts) -> Iterator[Hit]:
    for row in facts.of(events.UnknownEvent):
        yield f"{short(row.type)} is no event that this version can read.", row
