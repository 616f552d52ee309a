"""Findings: each rule fires on a case made for it, and none on a clean conversation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.events import Event
from rtnb.protocol.values import ErrorDetail, Item, RateLimit, Response, ServerVad, SessionConfig, StatusDetails, Usage
from rtnb.simulator.transcriber import ExactTranscriber
from rtnb.trace import Trace
from rtnb.trace.rules import RULES, Finding, findings
from tests.client.virtual import run_virtual
from tests.simulator.rig import spoken
from tests.trace.rows import delta, log_of, pcm, written
from tests.trace.talk import near_session

Rows = list[tuple[float, Event]]

VAD = ServerVad(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200)
CREATED = (0.0, events.SessionCreated(session=SessionConfig.of(turn_detection=VAD, voice="marin", expires_at=3_600)))
PUSH_TO_TALK = (0.0, events.SessionCreated(session=SessionConfig.of(turn_detection=None)))
COMMITTED = events.InputAudioBufferCommitted(item_id="u")
LIMITS = (RateLimit(name="tokens", limit=1000, remaining=50), RateLimit(name="requests", limit=10, remaining=5))
KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz123456"
SAID = events.ResponseOutputAudioTranscriptDone(
    response_id="r", item_id="a", transcript="It is the answer that you want"
)
HEARD = events.ConversationItemInputAudioTranscriptionCompleted(item_id="u", transcript="the answer that you want")
UNHEARD = events.ConversationItemInputAudioTranscriptionFailed(item_id="u", error=ErrorDetail(message="Noise."))
FAILED = StatusDetails(error=ErrorDetail(code="server_error", message="Broken."))
CALL = Item(type="function_call", id="f", name="weather", call_id="c1", arguments="{}", status="completed")
CALLED = events.ResponseOutputItemDone(response_id="r", item=CALL)
OUTPUT = events.ConversationItemCreate(item=Item(type="function_call_output", call_id="c1", output="5"))


def started(ms: int) -> Event:
    return events.InputAudioBufferSpeechStarted(audio_start_ms=ms, item_id="u")


def stopped(ms: int) -> Event:
    return events.InputAudioBufferSpeechStopped(audio_end_ms=ms, item_id="u")


def created(id: str = "r") -> Event:
    return events.ResponseCreated(response=Response(id=id, status="in_progress"))


def done(id: str = "r", status: str = "completed", **more: Any) -> Event:
    return events.ResponseDone(response=Response(id=id, status=status, conversation_id="c", **more))


def error(message: str, cause: str | None = None) -> Event:
    return events.Error(error=ErrorDetail(code="invalid_value", message=message, event_id=cause))


def update(**settings: Any) -> Event:
    return events.SessionUpdate(session=SessionConfig.of(**settings), event_id="e1")


def updated(**settings: Any) -> Event:
    return events.SessionUpdated(session=SessionConfig.of(turn_detection=VAD, **settings))


def answers(*tokens: int) -> Rows:
    return [(n, done(f"r{n}", usage=Usage(input_tokens=count))) for n, count in enumerate(tokens, 1)]


def speech(seconds: float, value: int = 1000) -> Rows:
    return [(1 + n / 10, events.InputAudioBufferAppend(audio=pcm(100, value))) for n in range(round(10 * seconds))]


CASES: dict[str, Rows] = {
    "update-refused": [(1, update(voice="nobody")), (1.1, error("Unknown voice.", "e1"))],
    "update-ignored": [(1, update(voice="cedar")), (1.1, updated(voice="marin"))],
    "user-cut-off": [(1, started(0)), (2, stopped(1000)), (2.5, started(1100))],
    "echo": [(1, delta(900)), (1.2, SAID), (2, started(0)), (3, HEARD)],
    "slow-answer": [(1, events.ResponseCreate()), (1.2, created()), (3.5, delta(100))],
    "no-answer": [(1, COMMITTED), (9, HEARD)],
    "playback-starved": [(1, delta(100)), (1.3, delta(100)), (1.4, delta(100))],
    "barge-in-not-truncated": [(1, delta(4000)), (2, started(0))],
    "uncommitted-audio": [PUSH_TO_TALK, *speech(0.3)],
    "silent-input": speech(6, value=1),
    "clipped-input": speech(0.3, value=32_767),
    "flooded-input": [(1, events.InputAudioBufferAppend(audio=pcm(3000)))],
    "transcription-failed": [(1, UNHEARD)],
    "tool-call-cancelled": [(1, CALLED), (1.1, done(status="cancelled"))],
    "tool-call-unanswered": [(1, CALLED), (1.1, done()), (9, created("r2"))],
    "context-truncated": answers(2_000, 1_500),
    "token-growth": answers(*range(500, 5_000, 500)),
    "rate-limit-near": [(n, events.RateLimitsUpdated(rate_limits=LIMITS)) for n in (1, 2)],
    "session-expiring": [(3_570, created())],
    "response-failed": [(1, done(status="failed", status_details=FAILED))],
    "response-incomplete": [(1, done(status="incomplete", status_details=StatusDetails(reason="max_output_tokens")))],
    "service-error": [(1, events.ResponseCreate(event_id="e1")), (2, error("No.", "e1"))],
    "deprecated-dialect": [(1, events.ConversationItemCreated(item=Item(type="message", id="u")))],
    "unknown-event": [(1, events.UnknownEvent(type="response.sung", payload={}))],
}
"""Id of a rule -> rows after `CREATED` on which it fires."""

EXPECTED = """
update-refused (1, 2): The service refused a session.update: Unknown voice.
update-ignored (1, 2): The service ignored audio.output.voice = cedar: it stays marin.
user-cut-off (2, 3): A turn ended, and the user went on speaking 400 ms later: it was cut off.
echo (3, 4): The microphone picked up the assistant: 'It is the answer that you want' came back as a turn.
slow-answer (2,): The answer began 2.5 s after the request.
no-answer (1,): The user's turn got no response within 5 s.
playback-starved (2,): The playback of an answer ran dry: 200 ms of silence.
barge-in-not-truncated (2, 1): The user interrupted an answer; the model takes its last 3.0 s as heard.
uncommitted-audio (2, 4): Turn detection is off, and 0.3 s of audio were never committed.
silent-input (1, 60): All 6 s of sent audio are silent.
clipped-input (1, 2, 3): 3 chunks of sent audio are clipped: the input is too loud.
flooded-input (1,): Audio is sent 3.0 s ahead of real time, which misleads turn detection.
transcription-failed (1,): A turn could not be transcribed: Noise.
tool-call-cancelled (1, 2): The call of weather was cancelled with its response.
tool-call-unanswered (1, 2): The call of weather got no output within 5 s.
context-truncated (1, 2): The model reads 1500 tokens, 2000 before: the start of the conversation is cut.
token-growth (9, 1): Each answer reads all before it: 500 tokens at first, 4500 at last, 22500 together.
rate-limit-near (1,): 50 of 1000 tokens are left.
session-expiring (1,): The service ends the session 30 s after the last event.
response-failed (1,): A response failed: Broken.
response-incomplete (1,): An answer is incomplete: max_output_tokens.
service-error (2, 1): The service refused response.create: No.
deprecated-dialect (1,): The session uses the preview dialect, which services switch off.
unknown-event (1,): response.sung is no event that this version can read.
""".strip().splitlines()
"""Rule, rows and sentence of each finding."""


def found(*rows: tuple[float, Event]) -> dict[str, Finding]:
    """The findings of a log by the id of their rule."""
    return {finding.rule: finding for finding in findings(log_of(CREATED, *rows))}


@pytest.mark.parametrize("expected", EXPECTED, ids=CASES)
def test_a_rule_fires_on_its_case_and_names_its_events(expected: str) -> None:
    rule = expected.split()[0]
    finding = found(*CASES[rule])[rule]
    assert f"{rule} {finding.events}: {finding.text}" == expected
    assert finding.next_step.endswith((".", ")"))
    assert finding.severity in ("note", "warning", "error")


def test_every_rule_has_a_case() -> None:
    assert list(RULES) == list(CASES) == [expected.split()[0] for expected in EXPECTED]


# --- what is not a mistake --------------------------------------------------------------------------------------------

TRUNCATED = events.ConversationItemTruncate(item_id="a", content_index=0, audio_end_ms=1000)
DELETED = events.ConversationItemDelete(item_id="u")
HALF_SAMPLE = events.ResponseOutputAudioDelta(response_id="r", item_id="a", delta=b"abc")
HALVES = [(1 + n / 10, events.InputAudioBufferAppend(audio=part)) for n, part in enumerate((b"abc", b"d"))]
QUIET: dict[str, Rows] = {
    "a setting that is in force": [(1, update(voice="cedar")), (1.1, updated(voice="cedar"))],
    "a float that the service rounds": [(1, update(speed=0.8)), (1.1, updated(speed=0.800000011920929))],
    "a pause between two turns": [(1, started(0)), (2, stopped(1000)), (5, started(3000)), (6, stopped(5000))],
    "a barge-in that was truncated": [(1, delta(4000)), (2, started(0)), (2.1, TRUNCATED)],
    "audio that was committed": [PUSH_TO_TALK, *speech(0.3), (2, events.InputAudioBufferCommit())],
    "a call with its output": [(1, CALLED), (1.1, done()), (1.2, OUTPUT), (9, created("r2"))],
    "a turn without an answer because the log ends": [(1, COMMITTED)],
    "a conversation that an item was deleted from": [*answers(2_000), (1.5, DELETED), (2, answers(1_500)[0][1])],
    "an answer that repeats the user": [(1, started(0)), (2, delta(900)), (2.2, SAID), (3, HEARD)],
    "half a sample at the end of a chunk": [*HALVES, (1.2, created()), (1.3, HALF_SAMPLE)],
}


@pytest.mark.parametrize("rows", QUIET.values(), ids=QUIET.keys())
def test_no_rule_fires_where_nothing_is_wrong(rows: Rows) -> None:
    assert found(*rows) == {}
    assert findings(EventLog()) == ()


def test_audio_of_a_part_of_a_log_has_the_format_of_its_session() -> None:
    ulaw = events.SessionCreated(session=SessionConfig.of(output_format="g711_ulaw"))
    parts = [events.ResponseOutputAudioDelta(response_id="r", item_id="a", delta=b"x" * 800)] * 3
    log = log_of((0.0, ulaw), *((1 + n / 10, part) for n, part in enumerate(parts)))
    assert findings(log[1:]) == (), "100 ms each"


def test_an_update_is_ignored_where_another_value_or_turn_detection_stays() -> None:
    finding = found((1, update(voice="cedar")), (1.1, updated(voice="alloy")))["update-ignored"]
    assert finding.text == "The service set audio.output.voice to alloy, not to cedar."
    finding = found((1, update(turn_detection=None)), (1.1, updated(voice="marin")))["update-ignored"]
    assert "audio.input.turn_detection = None" in finding.text


def test_each_of_two_updates_on_their_way_is_compared_with_its_own_reply() -> None:
    both = (1, update(voice="cedar")), (1.1, update(voice="alloy"))
    assert "update-ignored" not in found(*both, (1.2, updated(voice="cedar")), (1.3, updated(voice="alloy")))
    late = found(*both, (1.2, updated(voice="cedar")), (1.3, updated(voice="cedar")))["update-ignored"]
    assert late.events == (2, 4)


SPOKEN = (
    "my train to Lund was late again", "is there anything to eat on board", "thank you that helps a lot",
    "please change my seat to the window", "when do we arrive in the morning", "I would rather pay by card",
    "my sister travels with two children", "which platform is it then", "could you repeat the number slowly",
    "good night and have a nice weekend",
)  # fmt: skip
"""Different enough for the transcriber, which knows them by their shape."""


def test_no_rule_fires_on_a_clean_conversation_of_20_turns() -> None:
    async def talk() -> EventLog:
        settings, exact = {"transcription": "whisper-1", "instructions": "Be brief."}, ExactTranscriber()
        async with near_session(settings, latency="realistic", transcriber=exact) as session:
            for turn, text in enumerate(SPOKEN):
                await session.ask(f"Question number {turn}?")
                exact.learn(text, audio := spoken(text))
                await session.say(audio, rate_hz=24_000)
            await asyncio.sleep(2)  # the last transcript
            return session.log

    clean = run_virtual(talk())
    assert len(clean.filter("response.done")) == 20
    assert len(clean.filter("input_audio_buffer.speech_stopped")) == 10
    assert findings(clean) == ()


# --- what a user gets -------------------------------------------------------------------------------------------------


def test_findings_are_a_table_in_order_of_time_and_secrets_do_not_enter() -> None:
    failed = (0.5, done(status="failed", status_details=FAILED))
    result = findings(log_of(CREATED, (1.0, error(f"Wrong key {KEY} <b>")), failed))
    assert list(result.to_frame().columns) == list(Finding._fields)
    assert [finding.rule for finding in result] == ["response-failed", "service-error"]
    html = result._repr_html_()
    assert "<b>" not in html
    assert result[0].next_step in html
    assert KEY not in html + repr(result)


def test_a_part_of_a_trace_has_its_own_findings_on_its_own_clock(tmp_path: Path) -> None:
    log = log_of(CREATED, (1, error("No item.")), (6, error("No item.")), (7, created()))
    with Trace(written(tmp_path / "talk.rtnb", log)) as trace:
        assert [finding.events for finding in trace.findings()] == [(1,), (2,)]
        (cut,) = trace.cut(4_000, trace.duration_ms).findings()
    assert (cut.rule, cut.events, cut.t_ms) == ("service-error", (2,), pytest.approx(2_000))


def test_findings_of_what_has_no_log_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="takes a session, a trace or an event log, got int"):
        findings(3)
