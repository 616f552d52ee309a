"""When deltas are sent: `rtnb.simulator.faults.LatencyProfile`, `rtnb.simulator.speech.plan`."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.audio import RATE_HZ, codec, resample
from rtnb.simulator.faults import PRESETS, LatencyProfile
from rtnb.simulator.speech import Planned, Speech, align, cut, plan, plan_text, tokens

FAST, REALISTIC, REAL_TIME = PRESETS["fast"], PRESETS["realistic"], PRESETS["real_time"]
TEXT = "Hello! How can I help you today? It is sunny, with a light breeze."


def speech_of(ms: float, text: str = TEXT) -> Speech:
    audio = (0.3 * np.sin(np.arange(round(ms * 24)) / 9)).astype(np.float32)
    return align(text, audio, marks=[])


def audio_of(deltas: tuple[Planned, ...]) -> list[Planned]:
    return [delta for delta in deltas if delta.kind == "audio"]


@pytest.mark.parametrize(
    "sizes_bytes",
    [  # recorded: Azure OpenAI realtime quickstart, output samples, API version 2024-10-01-preview
        [4800, 7200, 12000, 12000, 12000, 12000, 24000],
        [4800, 7200, 12000, 12000, 12000, 12000, 12000, 12000, 12000, 28800],
    ],
)
def test_delta_sizes_are_those_of_the_recorded_replies(sizes_bytes: list[int]) -> None:
    speech = speech_of(sum(sizes_bytes) / 48)
    pcm = codec("audio/pcm").encode(speech.audio)
    deltas = audio_of(plan(speech, latency=REALISTIC, rng=random.Random(0)))
    assert [len(cut(pcm, delta, bytes_per_ms=48)) for delta in deltas] == sizes_bytes


@given(st.floats(0, 20_000), st.text(max_size=80), st.integers(), st.sampled_from(list(PRESETS.values())))
def test_nothing_is_lost_and_time_never_runs_back(ms: float, text: str, seed: int, latency: LatencyProfile) -> None:
    speech = speech_of(ms, text)
    deltas = plan(speech, latency=latency, rng=random.Random(seed))
    assert "".join(delta.text for delta in deltas) == text
    pcm = codec("audio/pcm").encode(speech.audio)
    pieces = [cut(pcm, delta, bytes_per_ms=48) for delta in audio_of(deltas)]
    assert b"".join(pieces) == pcm
    assert all(piece and len(piece) % 2 == 0 and len(piece) <= 28_800 for piece in pieces)
    times = [delta.at_ms for delta in deltas]
    assert times == sorted(times)
    assert all(time >= latency.first_delta_ms for time in times)
    assert deltas == plan(speech, latency=latency, rng=random.Random(seed))


def test_g711_is_cut_at_the_same_times() -> None:
    speech = speech_of(1234)
    telephone = codec("audio/pcmu").encode(resample(speech.audio, from_rate_hz=RATE_HZ, to_rate_hz=8000))
    deltas = audio_of(plan(speech, latency=FAST, rng=random.Random(0)))
    pieces = [cut(telephone, delta, bytes_per_ms=8) for delta in deltas]
    assert [len(piece) for piece in pieces[:-1]] == [800, 1200, 2000, 2000]
    assert b"".join(pieces) == telephone


def test_every_word_comes_before_the_audio_it_begins_in() -> None:
    speech = speech_of(6000)
    deltas = plan(speech, latency=REALISTIC, rng=random.Random(0))
    told = ""
    for delta in deltas:
        told += delta.text
        if delta.kind == "audio":
            heard_ms = speech.duration_ms if delta.stop_ms is None else delta.stop_ms
            begun = "".join(word.text for word in speech.words if word.start_ms < heard_ms)
            assert told.startswith(begun)
    assert [delta.kind for delta in deltas[:3]] == ["transcript"] * 3


def test_realistic_is_faster_than_real_time_and_starts_late() -> None:
    deltas = plan(speech_of(6000), latency=REALISTIC, rng=random.Random(0))
    first, last = deltas[0].at_ms, deltas[-1].at_ms
    assert 476 <= first <= 476 + 30
    assert (last - first) < 6000 / 2
    slow = plan(speech_of(6000), latency=REAL_TIME, rng=random.Random(0))
    assert 5000 < slow[-1].at_ms - slow[0].at_ms < 6000


def test_fast_is_all_at_once() -> None:
    assert {delta.at_ms for delta in plan(speech_of(6000), latency=FAST, rng=random.Random(0))} == {0.0}
    assert {delta.at_ms for delta in plan_text(TEXT, latency=FAST, rng=random.Random(0))} == {0.0}


def test_no_speech_no_deltas() -> None:
    assert plan(speech_of(0, ""), latency=REALISTIC, rng=random.Random(0)) == ()
    silent = plan(speech_of(0, "..."), latency=REALISTIC, rng=random.Random(0))
    assert [delta.text for delta in silent] == [".", ".", "."]


def test_text_comes_token_by_token() -> None:
    deltas = plan_text(TEXT, latency=REALISTIC, rng=random.Random(0))
    assert tuple(delta.text for delta in deltas) == tokens(TEXT)
    assert {delta.kind for delta in deltas} == {"text"}
    times = [delta.at_ms for delta in deltas]
    assert times == sorted(times)
    assert times[0] >= 476


def test_parse_names_and_changes() -> None:
    assert LatencyProfile.parse("realistic") == LatencyProfile() == REALISTIC
    assert LatencyProfile.parse("fast").audio_rate == math.inf
    assert LatencyProfile.parse("real_time").audio_rate == 1
    assert LatencyProfile.parse(" first_delta_ms = 300, jitter_ms=20") == dataclasses.replace(
        REALISTIC, first_delta_ms=300, jitter_ms=20
    )
    assert LatencyProfile.parse("fast,audio_rate=1") == dataclasses.replace(FAST, audio_rate=1)


@pytest.mark.parametrize(
    "text, message",
    [
        ("realstic", "did you mean 'realistic'"),
        ("", "allowed: realistic, real_time, fast"),
        ("first_delta=300", "did you mean 'first_delta_ms'"),
        ("first_delta_ms=soon", "'soon'; allowed: a number"),
        ("jitter_ms=-1", "allowed: a number, 0 ms or more"),
        ("jitter_ms=inf", "allowed: a number, 0 ms or more"),
        ("jitter_ms=nan", "allowed: a number"),
        ("audio_rate=0", "above 0"),
        ("audio_rate=2,fast", "'fast' is not known"),
    ],
)
def test_parse_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyProfile.parse(text)


def test_fields_are_checked_when_made_by_hand_too() -> None:
    with pytest.raises(ValueError, match="allowed: a number"):
        LatencyProfile(jitter_ms="soon")  # type: ignore[arg-type]
