"""The cost meter against worked examples, and what it does where it cannot know."""

import math

import pytest

from rtnb.analysis.cost import PRICES, CostMeter, estimate_usd, find_price
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.values import Response, SessionConfig, TokenDetails, Transcription, Usage


def tokens(*, cached: TokenDetails | None = None, cached_sum: int = 0, **given: int) -> Usage:
    made = {name.removeprefix("out_"): given.pop(name) for name in tuple(given) if name.startswith("out_")}
    details = TokenDetails(**given, cached_tokens=cached_sum, **({"cached_tokens_details": cached} if cached else {}))
    return Usage(
        total_tokens=sum(given.values()), input_token_details=details, output_token_details=TokenDetails(**made)
    )


# Worked by hand from usage objects of two live sessions (2025-12, 2026-09).
def test_a_spoken_answer_with_cached_audio() -> None:
    usage = tokens(
        text_tokens=59,
        audio_tokens=73,
        cached_sum=64,
        cached=TokenDetails(audio_tokens=64),
        out_text_tokens=41,
        out_audio_tokens=147,
    )
    assert estimate_usd(usage, PRICES["gpt-realtime"]) == pytest.approx(0.0106136, abs=1e-12)


def test_a_written_answer_of_the_small_model_with_cached_text() -> None:
    usage = tokens(text_tokens=120, cached_sum=64, cached=TokenDetails(text_tokens=64), out_text_tokens=7)
    assert estimate_usd(usage, PRICES["gpt-realtime-mini"]) == pytest.approx(0.00005424, abs=1e-12)


def test_cached_tokens_without_details_are_text_first() -> None:
    usage = tokens(text_tokens=50, audio_tokens=100, cached_sum=64)
    expected = (50 * 0.40 + 14 * 0.40 + 86 * 32.00) / 1e6
    assert estimate_usd(usage, PRICES["gpt-realtime"]) == pytest.approx(expected)


def test_more_cached_than_there_is_never_makes_it_cheaper_than_nothing() -> None:
    usage = tokens(text_tokens=127, cached_sum=384, cached=TokenDetails(text_tokens=384))
    assert estimate_usd(usage, PRICES["gpt-realtime"]) == pytest.approx(384 * 0.40 / 1e6)


def test_no_usage_costs_nothing() -> None:
    assert estimate_usd(None, PRICES["gpt-realtime"]) == 0.0


def test_a_dated_model_has_its_price_and_a_cousin_has_not() -> None:
    assert find_price("gpt-realtime-2025-08-28") is PRICES["gpt-realtime"]
    assert find_price("gpt-4o-realtime-preview-2024-10-01") is PRICES["gpt-4o-realtime-preview-2024-10-01"]
    assert find_price("gpt-realtime-whisper") is None


def said(*said_events: events.Event) -> EventLog:
    log = EventLog()
    for event in said_events:
        log.record("received", event, monotonic_s=0.0, wall_time=0.0)
    return log


def done(usage: Usage | None, *, status: str = "completed") -> events.ResponseDone:
    return events.ResponseDone(response=Response(id="resp_1", status=status, usage=usage))


def test_the_meter_follows_a_log_and_takes_the_model_the_service_names() -> None:
    meter = CostMeter()
    usage = tokens(text_tokens=120, cached_sum=64, cached=TokenDetails(text_tokens=64), out_text_tokens=7)
    meter.feed(said(events.SessionCreated(session=SessionConfig(model="gpt-realtime-mini-2025-12-15")), done(usage)))
    meter.feed(said(done(usage, status="cancelled")))  # billed as well

    assert meter.usd == pytest.approx(2 * 0.00005424)
    assert meter.tokens == 240
    assert meter.unknown == 0
    assert repr(meter) == "<CostMeter: about $0.0001 for 240 tokens>"


def test_what_is_not_known_is_counted_and_not_guessed() -> None:
    meter = CostMeter()
    meter.feed(said(events.SessionCreated(session=SessionConfig(model="my-deployment")), done(tokens(text_tokens=5))))
    meter.feed(said(done(None)))

    assert (meter.usd, meter.unknown, meter.tokens) == (0.0, 2, 5)
    assert math.isnan(meter.to_frame()["usd"][0])


def test_a_deployment_gets_the_price_its_owner_names() -> None:
    meter = CostMeter(model="gpt-realtime")
    meter.feed(said(events.SessionCreated(session=SessionConfig(model="my-deployment")), done(tokens(text_tokens=5))))
    assert meter.usd == pytest.approx(5 * 4.00 / 1e6)


@pytest.mark.parametrize(
    "model, usage, usd",
    [
        ("whisper-1", Usage(type="duration", seconds=30.0), 0.003),
        (
            "gpt-4o-transcribe",
            Usage(type="tokens", input_token_details=TokenDetails(audio_tokens=100)),
            100 * 6.0 / 1e6,
        ),
    ],
)
def test_transcriptions_are_added_at_their_own_price(model: str, usage: Usage, usd: float) -> None:
    meter = CostMeter()
    config = SessionConfig.of(model="gpt-realtime", transcription=Transcription(model=model))
    heard = events.ConversationItemInputAudioTranscriptionCompleted(item_id="item_1", transcript="hi", usage=usage)
    meter.feed(said(events.SessionUpdated(session=config), heard))
    assert meter.usd == pytest.approx(usd)
    assert meter.charges[0].what == "transcription"
