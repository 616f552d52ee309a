import numpy as np
import pytest

from rtnb.analysis import Gain, MuLaw, Noise, Recording, Turn
from rtnb.analysis.conditions import NOMINAL_SPEECH_DBFS
from rtnb.audio import babble
from rtnb.errors import AudioError

RATE = 16_000
SPOKEN = babble("Hello, is this on? Well, then.", rate_hz=RATE).audio
QUIET = np.zeros(RATE, np.float32)
END_MS = 1000 + len(SPOKEN) / 16
TALK = Recording(
    np.concatenate([QUIET, 0.3 * SPOKEN, QUIET]), rate_hz=RATE, turns=[Turn(1000, END_MS, ((1200, 1300),))]
)
TONE = Recording(0.1 * np.sin(np.arange(3 * RATE) / 7), rate_hz=RATE, name="hum")


def power_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64))))


def speech(recording: Recording) -> np.ndarray:
    audio = recording.audio
    return np.concatenate([audio[RATE : RATE * 12 // 10], audio[RATE * 13 // 10 : RATE + len(SPOKEN)]])


ALL = [Gain(-12), Noise(10), Noise(0, noise=TONE), MuLaw()]


@pytest.mark.parametrize("condition", ALL, ids=lambda one: one.name)
def test_the_same_utterances_the_same_labels_the_same_sound_again(condition: Gain) -> None:
    changed = condition.apply(TALK)
    assert changed.turns == TALK.turns
    assert changed.name == TALK.name
    assert changed.duration_ms == pytest.approx(TALK.duration_ms, abs=0.2)
    assert np.array_equal(changed.audio, condition.apply(TALK).audio)
    assert not np.array_equal(changed.audio, TALK.audio)
    assert np.abs(changed.audio).max() <= 1


def test_gain() -> None:
    assert power_db(Gain(-12).apply(TALK).audio) == pytest.approx(power_db(TALK.audio) - 12, abs=0.01)
    assert np.abs(Gain(60).apply(TALK).audio).max() == 1
    assert Gain(-12).name == "gain -12 dB"


@pytest.mark.parametrize("noise", [None, TONE])
def test_noise_has_the_ratio_to_the_speech_without_its_pauses(noise: Recording | None) -> None:
    added = Noise(10, noise=noise).apply(TALK).audio - TALK.audio
    assert power_db(speech(TALK)) - power_db(added) == pytest.approx(10, abs=0.2)
    room = Recording.of_room_tone(QUIET, rate_hz=RATE)
    assert power_db(Noise(10, noise=noise).apply(room).audio) == pytest.approx(NOMINAL_SPEECH_DBFS - 10, abs=0.2)


def test_noise_at_another_rate_keeps_its_pitch() -> None:
    low = Recording(np.sin(2 * np.pi * 1000 * np.arange(8_000) / 8_000), rate_hz=8_000, name="whistle")
    added = Noise(0, noise=low).apply(TALK).audio - TALK.audio
    assert np.argmax(np.abs(np.fft.rfft(added[:RATE]))) == pytest.approx(1000, abs=2)


def test_a_telephone_line() -> None:
    changed = MuLaw().apply(TALK)
    assert changed.rate_hz == 8_000
    assert len(np.unique(changed.audio)) <= 256


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Gain(float("nan")), "db is nan"),
        (lambda: Noise(0, noise=Recording(QUIET, rate_hz=RATE, name="nothing")), "'nothing' is silent"),
    ],
)
def test_conditions_are_checked(make: type, says: str) -> None:
    with pytest.raises(AudioError, match=says):
        make()
