"""The cost meter against worked examples, and what it does where it cannot know."""

import math
from typing import Any

import pytest

from rtnb.analysis.cost import PRICES, CostMeter, estimate_usd, find_price
from rtnb.client.log import EventLog
from rtnb.protocol import events
from rtnb.protocol.values import Response, SessionConfig, TokenDetails, Transcription, Usage


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
