"""Latency and cost of a session, from logs made by hand and from a session with the simulator."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb.analysis.cost import PRICES, CostMeter, estimate_usd, find_price
from rtnb.analysis.latency import POINTS, LatencyMeter, SpeechEnd
from rtnb.audio import encode_pcm16
from rtnb.client.log import EventLog
from rtnb.protocol import PCM16, SemanticVad, ServerVad, SessionConfig, events
from rtnb.protocol.events import CLIENT_EVENTS
from rtnb.protocol.values import Response, TokenDetails, Transcription, Usage

Rows = list[tuple[float, events.Event]]
"""A log written by hand: at so many ms, this was sent or received."""


def logged(rows: Rows) -> EventLog:
    log = EventLog()
    for ms, event in rows:
        direction = "sent" if event.type in CLIENT_EVENTS else "received"
        log.record(direction, event, monotonic_s=100 + ms / 1000, wall_time=0.0)
    return log


# --- latency ----------------------------------------------------------------------------------------------------------


def measured(rows: Rows, ear: SpeechEnd | None = None) -> LatencyMeter:
    meter = LatencyMeter(ear)
    for row in logged(rows):
        meter.feed([row])  # one by one gives the same as all at once
    return meter


def tone(*, silence_ms: int = 0) -> bytes:
    """100 ms of sound, of which the first are silent."""
    loud = np.full(2400, 0.5, np.float32)
    loud[: 24 * silence_ms] = 0
    return encode_pcm16(loud)


def audio(*, silence_ms: int) -> events.ResponseOutputAudioDelta:
    return events.ResponseOutputAudioDelta(response_id="resp_1", item_id="item_2", delta=tone(silence_ms=silence_ms))


def session_created(**settings: Any) -> events.SessionCreated:
    return events.SessionCreated(session=SessionConfig.of(**settings))


def stopped(ms: int) -> events.InputAudioBufferSpeechStopped:
    return events.InputAudioBufferSpeechStopped(audio_end_ms=ms, item_id="item_1")


CREATE, COMMIT = events.ResponseCreate(), events.InputAudioBufferCommit()
CREATED = events.ResponseCreated(response=Response(id="resp_1", status="in_progress"))
CREATED_2 = events.ResponseCreated(response=Response(id="resp_2"))
DONE = events.ResponseDone(response=Response(id="resp_1", status="completed"))
TRANSCRIPT = events.ResponseOutputAudioTranscriptDelta(response_id="resp_1", item_id="item_2", delta="Hi")
COMMITTED = events.InputAudioBufferCommitted(item_id="item_1")
PATIENT = ServerVad(silence_duration_ms=500)

# 1 s of speech and 0.5 s of silence, sent in real time in chunks of 100 ms; heard end at 1000 ms.
SPOKEN_TURN: Rows = [
    (0, session_created(turn_detection=PATIENT, input_format=PCM16)),
    *((100 * chunk, events.InputAudioBufferAppend(audio=tone())) for chunk in range(1, 16)),
    (1_520, stopped(1_504)), (1_530, COMMITTED), (1_540, CREATED), (1_840, TRANSCRIPT),
    (1_900, audio(silence_ms=100)), (1_910, audio(silence_ms=20)), (2_500, DONE),
]  # fmt: skip


def test_a_spoken_turn_counts_from_the_last_sample_of_speech() -> None:
    meter = measured(SPOKEN_TURN)
    (turn,) = meter.turns
    assert turn.kind == "speech"
    # The speech ended at 1004 ms: the silence of 500 ms is not speech.
    steps_ms = {"commit": 526, "created": 10, "first token": 300, "first audio": 60, "first audible": 120}
    assert turn.steps_ms == pytest.approx(steps_ms, abs=0.1)
    assert sum(turn.steps_ms.values()) == pytest.approx(turn.ms("first audible"))
    assert turn.ms("done") == pytest.approx(1_496)
    summary = meter.summary()
    assert list(summary.index) == [*POINTS, "done"]
    assert summary.loc["commit", ["n", "p50"]].tolist() == pytest.approx([1, 526])


def test_push_to_talk_counts_from_the_commit_and_text_from_the_request() -> None:
    rows: Rows = [(0, COMMIT), (20, COMMITTED), (21, CREATE), (30, CREATED), (1_000, CREATE), (1_005, CREATED_2)]
    held, typed = measured(rows).turns
    assert (held.kind, held.ms("commit"), held.ms("created")) == ("push to talk", pytest.approx(20), pytest.approx(30))
    assert (typed.kind, typed.ms("commit"), typed.ms("created")) == ("text", None, pytest.approx(5))


def test_silence_is_never_audible_and_a_missing_point_is_missing() -> None:
    meter = measured([(0, CREATE), (5, CREATED), (9, audio(silence_ms=100))])
    assert meter.turns[0].ms("first audio") == pytest.approx(9)
    assert meter.turns[0].ms("first audible") is None
    assert meter.to_frame()["first audible"].isna().all()
    assert repr(meter.turns[0]) == "<TurnLatency text: created 5 ms → first token 4 ms → first audio 0 ms>"


@pytest.mark.parametrize("n_bytes", [1, 2399, 4799])
def test_half_a_sample_of_an_answer_waits_for_its_other_half(n_bytes: int) -> None:
    data, delta = tone(silence_ms=50), audio(silence_ms=0)
    pieces = [dataclasses.replace(delta, delta=part) for part in (data[:n_bytes], data[n_bytes:])]
    meter = measured([(0, CREATE), (5, CREATED), (9, pieces[0]), (10, pieces[1])])
    assert meter.turns[0].ms("first audible") == pytest.approx(59.5, abs=0.6)  # the second piece comes 1 ms later


def test_sent_audio_that_ends_within_a_sample_does_not_move_what_follows() -> None:
    sent = [
        (100 * i, events.InputAudioBufferAppend(audio=part))
        for i, part in enumerate((b"abc", tone(silence_ms=50), tone(silence_ms=50)))
    ]
    meter = measured([*sent, (210, stopped(200)), (220, CREATED)])
    assert meter.turns[0].found
    assert meter.turns[0].ms("created") == pytest.approx(20, abs=1)


async def test_turns_of_a_real_session() -> None:
    with rtnb.Simulator(latency="fast", voice="babble") as simulator:
        async with rtnb.connect(simulator, turn_detection=rtnb.ServerVad(silence_duration_ms=300)) as session:
            await session.ask("Hello!")
            question: Any = simulator.speech("What is a delta?").audio
            await (await session.say(question, rate_hz=24_000, paced=8))
    meter = LatencyMeter()
    meter.feed(session.log)
    frame = meter.to_frame()

    assert list(frame["kind"]) == ["text", "speech"]
    points = frame.loc[frame["kind"] == "speech", [*POINTS, "done"]].iloc[0]
    assert points.notna().all()
    assert points["commit"] > 0
    assert points["commit":"first audio"].is_monotonic_increasing  # type: ignore[misc]


def test_over_webrtc_the_service_tells_when_it_plays() -> None:
    """No sound passes the log: the service reports the end of speech as soon as the silence is over."""
    playing = events.OutputAudioBufferStarted(response_id="resp_1")
    begun: Rows = [(0, session_created(turn_detection=PATIENT)), (1_500, stopped(1_500)), (1_510, COMMITTED)]
    (turn,) = measured([*begun, (1_600, CREATED), (1_700, DONE), (1_750, playing)]).turns
    points = ("commit", "created", "first audio", "first audible")
    assert [turn.ms(point) for point in points] == pytest.approx([510, 600, 750, 750])


# --- the acoustic end -------------------------------------------------------------------------------------------------


def heard(ear: SpeechEnd, samples: np.ndarray, *, end_s: float) -> None:
    """Frames of 20 ms, the last of which was captured at `end_s`."""
    frames = samples.astype(np.float32).reshape(-1, 480)
    for number, frame in enumerate(frames):
        ear.take(frame, rate_hz=24_000, end_s=end_s - 0.02 * (len(frames) - 1 - number))


def test_speech_ends_with_its_last_loud_block_in_noise_and_beside_a_click() -> None:
    ear = SpeechEnd()
    assert ear.before(1e9) is None
    sound = np.random.default_rng(1).normal(0, 0.004, 72_000)  # -48 dB of noise, 3 s
    sound[24_000:48_000] += 0.2 * np.sin(np.arange(24_000) / 10)
    sound[60_000:60_100] = 0.5  # a click
    heard(ear, sound, end_s=103)
    assert ear.before(103) == pytest.approx(102, abs=0.01)
    assert ear.before(101.5) == pytest.approx(101.5)
    assert ear.before(100.9) is None


@pytest.mark.parametrize("end_ms", [1003, 1007.5, 1012])
@pytest.mark.parametrize("detection", [PATIENT, SemanticVad(), None])
def test_the_acoustic_end_is_known_to_10_ms(detection: Any, end_ms: float) -> None:
    """Speech-like sound that fades within 5 ms, 30 dB above the noise of the room, sent in chunks of 100 ms."""
    end = int(24 * end_ms)
    envelope = np.abs(np.sin(np.arange(end) / 24 / 80)) + 0.3
    envelope[-120:] *= np.linspace(1, 0, 120)
    envelope[: 24 * 300] = 0  # the room before the first word
    speech = 0.2 * envelope * np.sin(np.arange(end) / 24 * 2 * np.pi * 0.15)
    errors_ms = []
    for seed in range(10):
        sound = np.random.default_rng(seed).normal(0, 0.003, 24 * 2000)
        sound[:end] += speech
        pieces = map(encode_pcm16, np.split(sound.astype(np.float32), 20))
        rows: Rows = [(0, session_created(turn_detection=detection, input_format=PCM16))]
        rows += [(100 * n, events.InputAudioBufferAppend(audio=piece)) for n, piece in enumerate(pieces, 1)]
        rows += [(2_000, COMMIT if detection is None else stopped(1_632)), (2_010, COMMITTED), (2_020, CREATED)]
        (turn,) = measured(rows).turns
        assert turn.start == "end of speech"
        errors_ms.append(1000 * (turn.start_s - 100) - end_ms)
    assert abs(np.mean(errors_ms)) < 10
    assert np.max(np.abs(errors_ms)) < 20


def test_a_turn_counts_from_the_acoustic_end_it_was_heard_with() -> None:
    rows = [*SPOKEN_TURN, (3_000, COMMIT), (3_010, CREATED_2)]
    during, before = SpeechEnd(), SpeechEnd()
    heard(during, np.repeat([0, 0.2, 0], 12_000), end_s=101.44)  # loud until 940 ms of the log
    heard(before, np.repeat([0, 0.2, 0], 12_000), end_s=100)
    meter = measured(rows, during)
    spoken, typed_in = meter.turns
    assert spoken.start == "acoustic end"
    assert spoken.ms("commit") == pytest.approx(590)
    assert sum(spoken.steps_ms.values()) == pytest.approx(spoken.ms("first audible"))
    assert typed_in.acoustic_s is None  # what was heard belongs to the turn before
    assert list(meter.to_frame()["start"]) == ["acoustic end", "commit sent"]
    assert measured(rows, before).turns[0].acoustic_s is None  # before the session began


# --- cost -------------------------------------------------------------------------------------------------------------


def tokens(text: int = 0, audio: int = 0, cached: int = 0, out: tuple[int, int] = (0, 0), **of_cached: int) -> Usage:
    """Usage of text and audio tokens in and (text, audio) out; `of_cached` says what the cached ones are."""
    details: Any = {"cached_tokens_details": TokenDetails(**of_cached)} if of_cached else {}
    heard = TokenDetails(text_tokens=text, audio_tokens=audio, cached_tokens=cached, **details)
    said = TokenDetails(text_tokens=out[0], audio_tokens=out[1])
    return Usage(total_tokens=text + audio, input_token_details=heard, output_token_details=said)


MINI = tokens(text=120, cached=64, text_tokens=64, out=(7, 0))


@pytest.mark.parametrize(
    "model, usage, usd",
    [  # the first two worked by hand from usage objects of two live sessions (2025-12, 2026-09)
        ("gpt-realtime", tokens(text=59, audio=73, cached=64, audio_tokens=64, out=(41, 147)), 0.0106136),
        ("gpt-realtime-mini", MINI, 0.00005424),
        ("gpt-realtime", tokens(text=50, audio=100, cached=64), (50 * 0.40 + 14 * 0.40 + 86 * 32.00) / 1e6),
        ("gpt-realtime", tokens(text=127, cached=384, text_tokens=384), 384 * 0.40 / 1e6),
        ("gpt-realtime", None, 0.0),
    ],
    ids=["cached audio", "cached text", "text is taken as cached first", "more cached than there is", "no usage"],
)
def test_an_answer_costs_what_was_worked_out_by_hand(model: str, usage: Usage | None, usd: float) -> None:
    assert estimate_usd(usage, PRICES[model]) == pytest.approx(usd, abs=1e-12)


def test_a_dated_model_has_its_price_and_a_cousin_has_not() -> None:
    assert find_price("gpt-realtime-2025-08-28") is PRICES["gpt-realtime"]
    assert find_price("gpt-4o-realtime-preview-2024-10-01") is PRICES["gpt-4o-realtime-preview-2024-10-01"]
    assert find_price("gpt-realtime-whisper") is None


def fed(meter: CostMeter, *received: events.Event) -> CostMeter:
    meter.feed(logged([(0, event) for event in received]))
    return meter


def done(usage: Usage | None, *, status: str = "completed") -> events.ResponseDone:
    return events.ResponseDone(response=Response(id="resp_1", status=status, usage=usage))


def test_the_meter_follows_a_log_and_takes_the_model_the_service_names() -> None:
    meter = fed(CostMeter(), session_created(model="gpt-realtime-mini-2025-12-15"), done(MINI))
    fed(meter, done(MINI, status="cancelled"))  # billed as well
    assert (meter.usd, meter.tokens, meter.unknown) == (pytest.approx(2 * 0.00005424), 240, 0)
    assert repr(meter) == "<CostMeter: about $0.0001 for 240 tokens>"


def test_what_is_not_known_is_counted_and_not_guessed() -> None:
    meter = fed(CostMeter(), session_created(model="my-deployment"), done(tokens(text=5)), done(None))
    assert (meter.usd, meter.unknown, meter.tokens) == (0.0, 2, 5)
    assert math.isnan(meter.to_frame()["usd"][0])


def test_a_deployment_gets_the_price_its_owner_names() -> None:
    meter = fed(CostMeter(model="gpt-realtime"), session_created(model="my-deployment"), done(tokens(text=5)))
    assert meter.usd == pytest.approx(5 * 4.00 / 1e6)


TRANSCRIPTIONS = [
    ("whisper-1", Usage(type="duration", seconds=30.0), 0.003),
    ("gpt-4o-transcribe", Usage(type="tokens", input_token_details=TokenDetails(audio_tokens=100)), 0.0006),
]


@pytest.mark.parametrize("model, usage, usd", TRANSCRIPTIONS)
def test_transcriptions_are_added_at_their_own_price(model: str, usage: Usage, usd: float) -> None:
    session = session_created(model="gpt-realtime", transcription=Transcription(model=model))
    heard = events.ConversationItemInputAudioTranscriptionCompleted(item_id="item_1", transcript="hi", usage=usage)
    meter = fed(CostMeter(), session, heard)
    assert meter.usd == pytest.approx(usd)
    assert meter.charges[0].what == "transcription"
