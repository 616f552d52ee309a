"""Latency and cost of a session, from logs made by hand and from a session with the simulator."""

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
from rtnb.protocol.values import Response, TokenDetails, Transcription, Usage

# --- latency ----------------------------------------------------------------------------------------------------------


class Tape:
    """A log written by hand: at so many ms, this was sent or received."""

    def __init__(self) -> None:
        self.log = EventLog()

    def sent(self, ms: float, event: events.Event) -> None:
        self.log.record("sent", event, monotonic_s=100 + ms / 1000, wall_time=0.0)

    def received(self, ms: float, event: events.Event) -> None:
        self.log.record("received", event, monotonic_s=100 + ms / 1000, wall_time=0.0)

    def meter(self, ear: SpeechEnd | None = None) -> LatencyMeter:
        meter = LatencyMeter(ear)
        for row in self.log:
            meter.feed([row])  # one by one gives the same as all at once
        return meter


def tone(ms: int, *, silence_ms: int = 0) -> bytes:
    loud = np.full(24 * ms, 0.5, np.float32)
    loud[: 24 * silence_ms] = 0
    return encode_pcm16(loud)


def audio(*, silence_ms: int) -> events.ResponseOutputAudioDelta:
    pcm = tone(100, silence_ms=silence_ms)
    return events.ResponseOutputAudioDelta(response_id="resp_1", item_id="item_2", delta=pcm)


CREATED = events.ResponseCreated(response=Response(id="resp_1", status="in_progress"))
DONE = events.ResponseDone(response=Response(id="resp_1", status="completed"))
TRANSCRIPT = events.ResponseOutputAudioTranscriptDelta(response_id="resp_1", item_id="item_2", delta="Hi")
COMMITTED = events.InputAudioBufferCommitted(item_id="item_1")


def spoken_turn() -> Tape:
    """1 s of speech and 0.5 s of silence, sent in real time in chunks of 100 ms; heard end at 1000 ms."""
    tape = Tape()
    config = SessionConfig.of(turn_detection=ServerVad(silence_duration_ms=500), input_format=PCM16)
    tape.received(0, events.SessionCreated(session=config))
    for chunk in range(1, 16):
        tape.sent(100 * chunk, events.InputAudioBufferAppend(audio=tone(100)))
    tape.received(1_520, events.InputAudioBufferSpeechStopped(audio_end_ms=1_504, item_id="item_1"))
    tape.received(1_530, COMMITTED)
    tape.received(1_540, CREATED)
    tape.received(1_840, TRANSCRIPT)
    tape.received(1_900, audio(silence_ms=100))
    tape.received(1_910, audio(silence_ms=20))
    tape.received(2_500, DONE)
    return tape


def test_a_spoken_turn_counts_from_the_last_sample_of_speech() -> None:
    meter = spoken_turn().meter()
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
    tape = Tape()
    tape.sent(0, events.InputAudioBufferCommit())
    tape.received(20, COMMITTED)
    tape.sent(21, events.ResponseCreate())
    tape.received(30, CREATED)
    tape.sent(1_000, events.ResponseCreate())
    tape.received(1_005, events.ResponseCreated(response=Response(id="resp_2")))
    held, typed = tape.meter().turns

    assert (held.kind, held.ms("commit"), held.ms("created")) == ("push to talk", pytest.approx(20), pytest.approx(30))
    assert (typed.kind, typed.ms("commit"), typed.ms("created")) == ("text", None, pytest.approx(5))


def test_silence_is_never_audible_and_a_missing_point_is_missing() -> None:
    tape = Tape()
    tape.sent(0, events.ResponseCreate())
    tape.received(5, CREATED)
    tape.received(9, audio(silence_ms=100))
    meter = tape.meter()

    assert meter.turns[0].ms("first audio") == pytest.approx(9)
    assert meter.turns[0].ms("first audible") is None
    assert meter.to_frame()["first audible"].isna().all()
    assert repr(meter.turns[0]) == "<TurnLatency text: created 5 ms → first token 4 ms → first audio 0 ms>"


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
    """No sound passes the log: the end of speech is told as soon as the silence is over."""
    tape = Tape()
    tape.received(0, events.SessionCreated(session=SessionConfig.of(turn_detection=ServerVad(silence_duration_ms=500))))
    tape.received(1_500, events.InputAudioBufferSpeechStopped(audio_end_ms=1_500, item_id="item_1"))
    tape.received(1_510, COMMITTED)
    tape.received(1_600, CREATED)
    tape.received(1_700, DONE)
    tape.received(1_750, events.OutputAudioBufferStarted(response_id="resp_1"))
    (turn,) = tape.meter().turns
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
@pytest.mark.parametrize("detection", [ServerVad(silence_duration_ms=500), SemanticVad(), None])
def test_the_acoustic_end_is_known_to_10_ms(detection: Any, end_ms: float) -> None:
    """Speech-like sound that fades within 5 ms, 30 dB above the noise of the room, sent in chunks of 100 ms."""
    end = int(24 * end_ms)
    envelope = np.abs(np.sin(np.arange(end) / 24 / 80)) + 0.3
    envelope[-120:] *= np.linspace(1, 0, 120)
    envelope[: 24 * 300] = 0  # the room before the first word
    speech = 0.2 * envelope * np.sin(np.arange(end) / 24 * 2 * np.pi * 0.15)
    stopped = events.InputAudioBufferSpeechStopped(audio_end_ms=1_632, item_id="item_1")
    errors_ms = []
    for seed in range(10):
        sound, tape = np.random.default_rng(seed).normal(0, 0.003, 24 * 2000), Tape()
        sound[:end] += speech
        config = SessionConfig.of(turn_detection=detection, input_format=PCM16)
        tape.received(0, events.SessionCreated(session=config))
        for chunk, piece in enumerate(np.split(sound.astype(np.float32), 20)):
            tape.sent(100 * (chunk + 1), events.InputAudioBufferAppend(audio=encode_pcm16(piece)))
        if detection is None:
            tape.sent(2_000, events.InputAudioBufferCommit())
        else:
            tape.received(2_000, stopped)
        tape.received(2_010, COMMITTED)
        tape.received(2_020, CREATED)
        (turn,) = tape.meter().turns
        assert turn.start == "end of speech"
        errors_ms.append(1000 * (turn.start_s - 100) - end_ms)
    assert abs(np.mean(errors_ms)) < 10
    assert np.max(np.abs(errors_ms)) < 20


def test_a_turn_counts_from_the_acoustic_end_it_was_heard_with() -> None:
    ears = SpeechEnd(), SpeechEnd()
    for ear, end_s in zip(ears, (101.44, 100), strict=True):  # loud until 940 ms of the tape, or before it
        heard(ear, np.repeat([0, 0.2, 0], 12_000), end_s=end_s)
    tape = spoken_turn()
    tape.sent(3_000, events.InputAudioBufferCommit())
    tape.received(3_010, events.ResponseCreated(response=Response(id="resp_2")))
    meter = tape.meter(ears[0])
    spoken, typed_in = meter.turns
    assert spoken.start == "acoustic end"
    assert spoken.ms("commit") == pytest.approx(590)
    assert sum(spoken.steps_ms.values()) == pytest.approx(spoken.ms("first audible"))
    assert typed_in.acoustic_s is None  # what was heard belongs to the turn before
    assert list(meter.to_frame()["start"]) == ["acoustic end", "commit sent"]
    assert tape.meter(ears[1]).turns[0].acoustic_s is None  # heard before the session began


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
    log = EventLog()
    for event in received:
        log.record("received", event, monotonic_s=0.0, wall_time=0.0)
    meter.feed(log)
    return meter


def session(model: str) -> events.SessionCreated:
    return events.SessionCreated(session=SessionConfig(model=model))


def done(usage: Usage | None, *, status: str = "completed") -> events.ResponseDone:
    return events.ResponseDone(response=Response(id="resp_1", status=status, usage=usage))


def test_the_meter_follows_a_log_and_takes_the_model_the_service_names() -> None:
    meter = fed(CostMeter(), session("gpt-realtime-mini-2025-12-15"), done(MINI))
    fed(meter, done(MINI, status="cancelled"))  # billed as well
    assert (meter.usd, meter.tokens, meter.unknown) == (pytest.approx(2 * 0.00005424), 240, 0)
    assert repr(meter) == "<CostMeter: about $0.0001 for 240 tokens>"


def test_what_is_not_known_is_counted_and_not_guessed() -> None:
    meter = fed(CostMeter(), session("my-deployment"), done(tokens(text=5)), done(None))
    assert (meter.usd, meter.unknown, meter.tokens) == (0.0, 2, 5)
    assert math.isnan(meter.to_frame()["usd"][0])


def test_a_deployment_gets_the_price_its_owner_names() -> None:
    meter = fed(CostMeter(model="gpt-realtime"), session("my-deployment"), done(tokens(text=5)))
    assert meter.usd == pytest.approx(5 * 4.00 / 1e6)


@pytest.mark.parametrize(
    "model, usage, usd",
    [
        ("whisper-1", Usage(type="duration", seconds=30.0), 0.003),
        ("gpt-4o-transcribe", Usage(type="tokens", input_token_details=TokenDetails(audio_tokens=100)), 0.0006),
    ],
)
def test_transcriptions_are_added_at_their_own_price(model: str, usage: Usage, usd: float) -> None:
    config = SessionConfig.of(model="gpt-realtime", transcription=Transcription(model=model))
    heard = events.ConversationItemInputAudioTranscriptionCompleted(item_id="item_1", transcript="hi", usage=usage)
    meter = fed(CostMeter(), events.SessionUpdated(session=config), heard)
    assert meter.usd == pytest.approx(usd)
    assert meter.charges[0].what == "transcription"
