import time
import timeit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.audio import Utterance, babble
from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS, speech_probabilities

VOICES = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse", "somebody else")
SENTENCES = (
    "Hello there! I am a simulated assistant, and I can speak as long as you like. What would you like to know?",
    "The weather in Paris is sunny, with a high of twenty one degrees.",
    "Numbers work too: 1234, 5678. So do names such as NASA.",
    "שלום עולם, מה שלומך היום? אני עוזר קולי ואפשר לדבר איתי.",
    "今日は天気がいいですね。散歩に行きましょう。",
)


def voiced_probability(utterance: Utterance) -> float:
    probabilities = speech_probabilities(utterance.audio, rate_hz=utterance.rate_hz)
    middle_ms = (np.arange(len(probabilities)) + 0.5) * FRAME_MS
    voiced = np.zeros(len(probabilities), bool)
    for word in utterance.words:
        voiced |= (word.start_ms <= middle_ms) & (middle_ms < word.stop_ms)
    return float(probabilities[voiced].mean())


@pytest.mark.parametrize("voice", VOICES)
def test_silero_hears_speech(voice: str) -> None:
    for seed, text in enumerate(SENTENCES):
        for speed in (1.0, 1.5):
            assert voiced_probability(babble(text, voice=voice, speed=speed, seed=seed)) > 0.8, (text, speed)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 48_000])
def test_silero_hears_speech_at_every_rate(rate_hz: int) -> None:
    assert voiced_probability(babble(SENTENCES[0], rate_hz=rate_hz)) > 0.8


def test_same_seed_same_sound() -> None:
    first, again, other = babble("Hello.", seed=3), babble("Hello.", seed=3), babble("Hello.", seed=4)
    assert np.array_equal(first.audio, again.audio)
    assert first.words == again.words
    assert not np.array_equal(first.audio[:1000], other.audio[:1000])


def test_voices_differ_in_pitch() -> None:
    low, high = (babble("Mama.", voice=voice).audio for voice in ("cedar", "shimmer"))
    assert fundamental_hz(high) > 1.5 * fundamental_hz(low)
    assert 170 < fundamental_hz(babble("Mama.", voice="shimmer").audio) < 260


def fundamental_hz(audio: np.ndarray) -> float:
    piece = audio[2400:7200].astype(float)
    correlation = np.correlate(piece, piece, "full")[len(piece) :]
    lags = slice(24_000 // 400, 24_000 // 70)
    return 24_000 / (lags.start + 1 + int(np.argmax(correlation[lags])))


def test_length_follows_syllables_pauses_and_speed() -> None:
    def ms(text: str, **options: float) -> float:
        return len(babble(text, **options).audio) / 24  # type: ignore[arg-type]

    assert ms("banana") > 2 * ms("ban")
    assert ms("one, two") - ms("one two") > 100
    assert ms("one. two") > ms("one, two")
    assert ms(SENTENCES[0], speed=2) == pytest.approx(ms(SENTENCES[0]) / 2, rel=0.01)
    assert 3 < 27 / ms(SENTENCES[0]) * 1000 < 6  # syllables a second


@given(st.text(max_size=60), st.floats(0.25, 4), st.integers(0, 2**31))
def test_any_text(text: str, speed: float, seed: int) -> None:
    utterance = babble(text, rate_hz=8_000, speed=speed, seed=seed)
    assert np.isfinite(utterance.audio).all()
    assert np.abs(utterance.audio).max(initial=0) <= 0.5001
    assert "".join(word.text for word in utterance.words) == "".join(text.split())
    times = [0, *(time for word in utterance.words for time in (word.start_ms, word.stop_ms))]
    assert times == sorted(times)
    assert times[-1] <= len(utterance.audio) / 8 + 1


def test_wrong_numbers() -> None:
    for options in ({"speed": 0}, {"speed": 9}, {"rate_hz": 4000}):
        with pytest.raises(AudioError, match=next(iter(options))):
            babble("x", **options)  # type: ignore[arg-type]


def test_much_faster_than_real_time() -> None:
    text = SENTENCES[0] * 4
    taken_s = timeit.repeat(lambda: babble(text), timer=time.process_time, number=1, repeat=6)
    assert min(taken_s) < len(babble(text).audio) / 24_000 / 50
