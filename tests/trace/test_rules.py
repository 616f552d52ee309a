"""Findings: each rule fires on a case made for it, and none on a clean conversation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rtnb.client.log import EventLog
from rtnb.errors import ServiceError
from rtnb.protocol import events
from rtnb.protocol.events import CLIENT_EVENTS, Event
from rtnb.protocol.values import (
    ErrorDetail,
    Item,
    RateLimit,
    Response,
    ServerVad,
    SessionConfig,
    StatusDetails,
    Usage,
)
from rtnb.simulator.transcriber import ExactTranscriber
from rtnb.trace import Trace, save_trace
from rtnb.trace.rules import RULES, Finding, findings, flat_json
from tests.client.virtual import run_virtual
from tests.simulator.rig import spoken
from tests.trace.rows import delta, pcm
from tests.trace.talk import near_session

VAD = ServerVad(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200)
CREATED = (0.0, events.SessionCreated(session=SessionConfig.of(turn_detection=VAD, voice="marin", expires_at=3_600)))
PUSH_TO_TALK = (0.0, events.SessionCreated(session=SessionConfig.of(turn_detection=None)))


def log_of(*rows: tuple[float, Event]) -> EventLog:
    log = EventLog()
    for at_s, event in rows:
        sent = event.type in CLIENT_EVENTS
        log.record("sent" if sent else "received", event, monotonic_s=100 + at_s, wall_time=at_s)
    return log


def found(*rows: tuple[float, Event]) -> dict[str, Finding]:
    """The findings of a log by the id of their rule."""
    return {finding.rule: finding for finding in findings(log_of(*rows))}


def started(ms: int) -> Event:
    return events.InputAudioBufferSpeechStarted(audio_start_ms=ms, item_id="u")


def stopped(ms: int) -> Event:
    return events.InputAudioBufferSpeechStopped(audio_end_ms=ms, item_id="u")


def created(id: str = "r") -> Event:
    return events.ResponseCreated(response=Response(id=id, status="in_progress"))


def done(id: str = "r", status: str = "completed", **more: Any) -> Event:
    return events.ResponseDone(response=Response(id=id, status=status, conversation_id="c", **more))


def error(code: str, cause: str | None = None, message: str = "No.") -> Event:
    return events.Error(error=ErrorDetail(code=code, message=message, event_id=cause))


def update(**settings: Any) -> Event:
    return events.SessionUpdate(session=SessionConfig.of(**settings), event_id="e1")


def updated(**settings: Any) -> Event:
    return events.SessionUpdated(session=SessionConfig.of(turn_detection=VAD, **settings))


def call(arguments: str = "{}") -> Event:
    item = Item(type="function_call", id="f", name="weather", call_id="c1", arguments=arguments, status="completed")
    return events.ResponseOutputItemDone(response_id="r", item=item)


def transcript(text: str) -> Event:
    return events.ConversationItemInputAudioTranscriptionCompleted(item_id="u", transcript=text)


def answers(*tokens: int) -> list[tuple[float, Event]]:
    return [(n, done(f"r{n}", usage=Usage(input_tokens=count))) for n, count in enumerate(tokens, 1)]


def append(ms: int = 100, value: int = 1000) -> Event:
    return events.InputAudioBufferAppend(audio=pcm(ms, value))


def speech(seconds: float, value: int = 1000) -> list[tuple[float, Event]]:
    return [(1 + n / 10, append(100, value)) for n in range(round(10 * seconds))]


LIMITS = (RateLimit(name="tokens", limit=1000, remaining=50), RateLimit(name="requests", limit=10, remaining=5))
KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz123456"
TRUTH = "This is the answer to the question that you asked."
SAID = events.ResponseOutputAudioTranscriptDone(response_id="r", item_id="a", transcript=TRUTH)
FAILED = StatusDetails(error=ErrorDetail(code="server_error", message="Broken."))

CASES: dict[str, tuple[list[tuple[float, Event]], str, tuple[int, ...]]] = {
    "update-refused": (
        [CREATED, (1, update(voice="nobody")), (1.1, error("invalid_value", "e1", "Unknown voice."))],
        "The service refused a session.update: Unknown voice.",
        (1, 2),
    ),
    "update-ignored": (
        [CREATED, (1, update(voice="cedar")), (1.1, updated(voice="marin"))],
        "The service ignored audio.output.voice = cedar: it stays marin.",
        (1, 2),
    ),
    "user-cut-off": (
        [CREATED, (1, started(0)), (2, stopped(1000)), (2.5, started(1100))],
        "A turn ended, and the user went on speaking 400 ms later: it was cut off.",
        (2, 3),
    ),
    "echo": (
        [CREATED, (1, delta(900)), (1.2, SAID), (2, started(0)), (3, transcript("the answer to the question"))],
        f"The microphone picked up the assistant: {TRUTH!r} came back as a turn.",
        (3, 4),
    ),
    "slow-answer": (
        [CREATED, (1, events.ResponseCreate()), (1.2, created()), (3.5, delta(100))],
        "The answer began 2.5 s after the request.",
        (2,),
    ),
    "no-answer": (
        [CREATED, (1, events.InputAudioBufferCommitted(item_id="u")), (9, transcript("Hello"))],
        "The user's turn got no response within 5 s.",
        (1,),
    ),
    "playback-starved": (
        [CREATED, (1, delta(100)), (1.3, delta(100)), (1.4, delta(100))],
        "The playback of an answer ran dry: 200 ms of silence.",
        (2,),
    ),
    "barge-in-not-truncated": (
        [CREATED, (1, delta(4000)), (2, started(0))],
        "The user interrupted an answer; the model takes its last 3.0 s as heard.",
        (2, 1),
    ),
    "uncommitted-audio": (
        [PUSH_TO_TALK, *speech(0.3)],
        "Turn detection is off, and 0.3 s of audio were never committed.",
        (1, 3),
    ),
    "silent-input": ([CREATED, *speech(6, value=1)], "All 6 s of sent audio are silent.", (1, 60)),
    "clipped-input": (
        [CREATED, *speech(0.3, value=32_767)],
        "3 chunks of sent audio are clipped: the input is too loud.",
        (1, 2, 3),
    ),
    "flooded-input": (
        [CREATED, (1, append(3000))],
        "Audio is sent 3.0 s ahead of real time, which misleads turn detection.",
        (1,),
    ),
    "transcription-failed": (
        [
            CREATED,
            (1, events.ConversationItemInputAudioTranscriptionFailed(item_id="u", error=ErrorDetail(message="Noise."))),
        ],
        "A turn could not be transcribed: Noise.",
        (1,),
    ),
    "tool-call-cancelled": (
        [CREATED, (1, call()), (1.1, done(status="cancelled"))],
        "The call of weather was cancelled with its response.",
        (1, 2),
    ),
    "tool-call-unanswered": (
        [CREATED, (1, call()), (1.1, done()), (9, created("r2"))],
        "The call of weather got no output within 5 s.",
        (1, 2),
    ),
    "context-truncated": (
        [CREATED, *answers(2_000, 1_500)],
        "The model reads 1500 tokens, 2000 before: the start of the conversation is cut.",
        (1, 2),
    ),
    "token-growth": (
        [CREATED, *answers(*range(500, 5_000, 500))],
        "Each answer reads all before it: 500 tokens at first, 4500 at last, 22500 together.",
        (9, 1),
    ),
    "rate-limit-near": (
        [CREATED, (1, events.RateLimitsUpdated(rate_limits=LIMITS)), (2, events.RateLimitsUpdated(rate_limits=LIMITS))],
        "50 of 1000 tokens are left.",
        (1,),
    ),
    "session-expiring": (
        [CREATED, (3_570, created())],
        "The service ends the session 30 s after the last event.",
        (1,),
    ),
    "response-failed": (
        [CREATED, (1, done(status="failed", status_details=FAILED))],
        "A response failed: Broken.",
        (1,),
    ),
    "response-incomplete": (
        [CREATED, (1, done(status="incomplete", status_details=StatusDetails(reason="max_output_tokens")))],
        "An answer is incomplete: max_output_tokens.",
        (1,),
    ),
    "service-error": (
        [CREATED, (1, events.ResponseCreate(event_id="e1")), (2, error("x", "e1"))],
        "The service refused response.create: No.",
        (2, 1),
    ),
    "deprecated-dialect": (
        [CREATED, (1, events.ConversationItemCreated(item=Item(type="message", id="u")))],
        "The session uses the preview dialect, which services switch off.",
        (1,),
    ),
    "unknown-event": (
        [CREATED, (1, events.UnknownEvent(type="response.sung", payload={}))],
        "response.sung is no event that this version can read.",
        (1,),
    ),
}


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_fires_on_its_case_and_names_its_events(rule: str) -> None:
    rows, text, numbers = CASES[rule]
    finding = found(*rows)[rule]
    assert (finding.text, finding.events) == (text, numbers)
    assert finding.next_step.endswith((".", ")"))
    assert finding.severity in ("note", "warning", "error")


def test_every_rule_has_a_case() -> None:
    assert RULES.keys() == CASES.keys()


# --- what is not a mistake --------------------------------------------------------------------------------------------

QUIET: dict[str, list[tuple[float, Event]]] = {
    "a setting that is in force": [CREATED, (1, update(voice="cedar")), (1.1, updated(voice="cedar"))],
    "a float that the service rounds": [CREATED, (1, update(speed=0.8)), (1.1, updated(speed=0.800000011920929))],
    "a pause between two turns": [CREATED, (1, started(0)), (2, stopped(1000)), (5, started(3000)), (6, stopped(5000))],
    "a barge-in that was truncated": [
        CREATED,
        (1, delta(4000)),
        (2, started(0)),
        (2.1, events.ConversationItemTruncate(item_id="a", content_index=0, audio_end_ms=1000)),
    ],
    "audio that was committed": [PUSH_TO_TALK, *speech(0.3), (2, events.InputAudioBufferCommit())],
    "a call with its output": [
        CREATED,
        (1, call()),
        (1.1, done()),
        (1.2, events.ConversationItemCreate(item=Item(type="function_call_output", call_id="c1", output="5"))),
        (9, created("r2")),
    ],
    "a turn without an answer because the log ends": [CREATED, (1, events.InputAudioBufferCommitted(item_id="u"))],
    "a conversation that an item was deleted from": [
        CREATED,
        *answers(2_000),
        (1.5, events.ConversationItemDelete(item_id="u")),
        (2, done("r2", usage=Usage(input_tokens=1_500))),
    ],
    "an answer that repeats the user, whose transcript is late": [
        CREATED,
        (1, started(0)),
        (2, delta(900)),
        (2.2, SAID),
        (3, transcript("the answer to the question")),
    ],
    "half a sample at the end of a chunk": [
        CREATED,
        (1, events.InputAudioBufferAppend(audio=b"abc")),
        (1.1, events.InputAudioBufferAppend(audio=b"d")),
        (1.2, created()),
        (1.3, events.ResponseOutputAudioDelta(response_id="r", item_id="a", delta=b"abc")),
    ],
    "nothing at all": [],
}


@pytest.mark.parametrize("rows", QUIET.values(), ids=QUIET.keys())
def test_no_rule_fires_where_nothing_is_wrong(rows: list[tuple[float, Event]]) -> None:
    assert found(*rows) == {}


def test_an_update_is_ignored_where_another_value_or_turn_detection_stays() -> None:
    finding = found(CREATED, (1, update(voice="cedar")), (1.1, updated(voice="alloy")))["update-ignored"]
    assert finding.text == "The service set audio.output.voice to alloy, not to cedar."
    finding = found(CREATED, (1, update(turn_detection=None)), (1.1, updated(voice="marin")))["update-ignored"]
    assert "audio.input.turn_detection = None" in finding.text


def test_each_of_two_updates_on_their_way_is_compared_with_its_own_reply() -> None:
    both = (1, update(voice="cedar")), (1.1, update(voice="alloy"))
    assert "update-ignored" not in found(CREATED, *both, (1.2, updated(voice="cedar")), (1.3, updated(voice="alloy")))
    late = found(CREATED, *both, (1.2, updated(voice="cedar")), (1.3, updated(voice="cedar")))["update-ignored"]
    assert late.events == (2, 4)


SPOKEN = (
    "my train to Lund was late again", "is there anything to eat on board", "thank you that helps a lot",
    "please change my seat to the window", "when do we arrive in the morning", "I would rather pay by card",
    "my sister travels with two children", "which platform is it then", "could you repeat the number slowly",
    "good night and have a nice weekend",
)  # fmt: skip
"""Different enough for the transcriber, which knows them by their shape."""


@pytest.fixture(scope="module")
def clean() -> EventLog:
    """A conversation of 20 turns, half of them spoken, with the simulator."""

    async def talk() -> EventLog:
        settings, exact = {"transcription": "whisper-1", "instructions": "Be brief."}, ExactTranscriber()
        async with near_session(settings, latency="realistic", transcriber=exact) as session:
            for turn, text in enumerate(SPOKEN):
                await session.ask(f"Question number {turn}?")
                exact.learn(text, audio := spoken(text))
                await session.say(audio, rate_hz=24_000)
            await asyncio.sleep(2)  # the last transcript
            return session.log

    return run_virtual(talk())


def test_no_rule_fires_on_a_clean_conversation_of_20_turns(clean: EventLog) -> None:
    assert sum(row.type == "response.done" for row in clean) == 20
    assert sum(row.type == "input_audio_buffer.speech_stopped" for row in clean) == 10
    assert findings(clean) == ()


# --- what a user gets -------------------------------------------------------------------------------------------------


def test_findings_are_a_table_in_order_of_time_and_secrets_do_not_enter() -> None:
    refused = (1.0, error("x", None, f"Wrong key {KEY} <b>"))
    failed = (0.5, done(status="failed", status_details=FAILED))
    result = findings(log_of(CREATED, refused, failed))
    assert list(result.to_frame().columns) == list(Finding._fields)
    assert [finding.rule for finding in result] == ["response-failed", "service-error"]
    html = result._repr_html_()
    assert "<b>" not in html
    assert result[0].next_step in html
    assert KEY not in html + repr(result)


def test_a_part_of_a_trace_has_its_own_findings_on_its_own_clock(tmp_path: Path) -> None:
    async def talk() -> None:
        async with near_session(latency="fast") as session:
            for _ in range(2):
                with pytest.raises(ServiceError):
                    await session.conversation.item.delete("item_nobody_knows")
                await asyncio.sleep(5)
            save_trace(session, tmp_path / "talk.rtnb")

    run_virtual(talk())
    with Trace(tmp_path / "talk.rtnb") as trace:
        first, second = trace.findings()
        (cut,) = trace.cut(4_000, trace.duration_ms).findings()
    assert (cut.rule, cut.events) == ("service-error", second.events)
    assert cut.t_ms == pytest.approx(second.t_ms - 4_000)
    assert first.t_ms < 1_000


def test_findings_of_what_has_no_log_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="takes a session, a trace or an event log, got int"):
        findings(3)


def test_flat_keeps_an_empty_object() -> None:
    assert flat_json({"metadata": {}, "audio": {"input": None}}) == {"metadata": {}, "audio.input": None}
