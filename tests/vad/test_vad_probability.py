import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.audio import babble
from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS, SpeechProbabilities, server_vad_segments, speech_probabilities

RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
SPOKEN = {rate: babble("Hello, is this on?", rate_hz=rate).audio for rate in RATES}
WHOLE = {rate: speech_probabilities(SPOKEN[rate], rate_hz=rate) for rate in RATES}


@given(st.sampled_from(RATES), st.lists(st.integers(0, 5000), max_size=30))
def test_chunking_changes_no_bit(rate: int, lengths: list[int]) -> None:
    stream = SpeechProbabilities(rate_hz=rate)
    pieces = [stream.push(chunk) for chunk in np.split(SPOKEN[rate], np.cumsum(lengths, dtype=int))]
    together = np.concatenate([*pieces, stream.flush()])
    assert np.array_equal(together, WHOLE[rate])
    assert server_vad_segments(together) == server_vad_segments(WHOLE[rate])


@pytest.mark.parametrize("rate", RATES)
def test_one_number_per_complete_frame(rate: int) -> None:
    for ms in (0, 31, 32, 33, 95, 96, 1000):
        audio = np.zeros(-(-rate * ms // 1000), np.float32)
        assert len(speech_probabilities(audio, rate_hz=rate)) == ms // FRAME_MS


@pytest.mark.parametrize("rate", RATES)
def test_a_frame_waits_no_longer_than_the_lag(rate: int) -> None:
    stream = SpeechProbabilities(rate_hz=rate)
    step = rate // 1000
    n_frames = 0
    for received in range(step, rate // 2, step):
        n_frames += len(stream.push(np.zeros(step, np.float32)))
        assert n_frames >= (received / rate * 1000 - 13) // FRAME_MS


@pytest.mark.parametrize("rate", RATES)
def test_the_rate_shifts_nothing(rate: int) -> None:
    """A click in the middle of a frame is heard in that frame, whatever the rate."""
    silence = np.zeros(rate * 2, np.float32)
    clicked = silence.copy()
    clicked[round(rate * (20.5 * FRAME_MS) / 1000)] = 1
    differs = speech_probabilities(silence, rate_hz=rate) != speech_probabilities(clicked, rate_hz=rate)
    assert int(np.argmax(differs)) == 20


def test_integers_and_stereo_are_taken() -> None:
    pcm = (SPOKEN[16_000] * 32_767).astype(np.int16)
    expected = speech_probabilities(pcm / 32_768, rate_hz=16_000)
    assert np.array_equal(speech_probabilities(pcm, rate_hz=16_000), expected)
    assert np.allclose(speech_probabilities(np.stack([pcm, pcm], axis=1), rate_hz=16_000), expected, atol=1e-6)


def test_a_refused_chunk_changes_nothing() -> None:
    stream = SpeechProbabilities(rate_hz=24_000)
    first = stream.push(SPOKEN[24_000][:10_000])
    with pytest.raises(AudioError):
        stream.push([float("nan")])
    rest = stream.push(SPOKEN[24_000][10_000:])
    assert np.array_equal(np.concatenate([first, rest, stream.flush()]), WHOLE[24_000])


def test_rates_are_checked() -> None:
    with pytest.raises(AudioError, match="from_rate_hz is 100"):
        SpeechProbabilities(rate_hz=100)
