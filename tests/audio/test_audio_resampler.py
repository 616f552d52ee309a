import time
import timeit
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.audio import Resampler, resample
from rtnb.errors import AudioError

RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
PAIRS = [pair for pair in product(RATES, RATES) if pair[0] != pair[1]]
PASS, STOP_DB = 0.90, -96.0  # as stated in the module's docstring


def tone(hz: float, rate: int, seconds: float = 0.5, phase: float = 0.3) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate + phase)


def middle(audio: np.ndarray) -> np.ndarray:
    """Without the ends, where the filter sees the edges of the recording."""
    return audio[len(audio) // 5 : -len(audio) // 5]


def level_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) * 2 + 1e-30))


@pytest.mark.parametrize("source, target", PAIRS)
def test_pass_band_is_flat_and_nothing_is_shifted(source: int, target: int) -> None:
    nyquist = min(source, target) / 2
    for part in (0.0, 0.01, 0.3, 0.6, PASS):  # 0 is a constant
        there = resample(tone(part * nyquist, source), from_rate_hz=source, to_rate_hz=target)
        expected = tone(part * nyquist, target)
        assert len(there) == len(expected)
        assert np.abs(middle(there - expected)).max() < 10 ** (0.01 / 20) - 1  # 0.01 dB, level and phase together


@pytest.mark.parametrize("source, target", PAIRS)
def test_stop_band(source: int, target: int) -> None:
    """Downwards a tone above the new nyquist is gone; upwards its image is."""
    if target < source:
        for part in (1.001, 1.1, 1.5, 1.97):
            hz = part * target / 2
            if hz < source / 2:
                assert level_db(middle(resample(tone(hz, source), from_rate_hz=source, to_rate_hz=target))) < STOP_DB
    else:
        for part in (0.3, PASS):
            hz = part * source / 2
            there = middle(resample(tone(hz, source), from_rate_hz=source, to_rate_hz=target).astype(np.float64))
            spectrum = np.abs(np.fft.rfft(there * np.kaiser(len(there), 20))) ** 2
            images = np.fft.rfftfreq(len(there), 1 / target) > source / 2
            assert 10 * np.log10(spectrum[images].max() / spectrum.max()) < STOP_DB


rates = st.sampled_from((*RATES, 11_025, 32_000, 12_345))


@given(rates, rates, st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 2**32 - 1))
def test_chunking_changes_no_bit(source: int, target: int, lengths: list[int], seed: int) -> None:
    audio = np.random.default_rng(seed).standard_normal(sum(lengths), np.float32)
    whole = resample(audio, from_rate_hz=source, to_rate_hz=target)
    assert len(whole) == -(-len(audio) * target // source)
    resampler = Resampler(from_rate_hz=source, to_rate_hz=target)
    for _ in range(2):  # flush starts anew
        cuts = np.cumsum(lengths)[:-1] if lengths else []
        pieces = [resampler.process(chunk) for chunk in np.split(audio, cuts)]
        assert np.array_equal(np.concatenate([*pieces, resampler.flush()]), whole)


def test_a_sample_waits_no_longer_than_the_lag() -> None:
    for source, target in PAIRS:
        resampler = Resampler(from_rate_hz=source, to_rate_hz=target)
        emitted = 0
        for received in range(1, source // 10, 7):
            emitted += len(resampler.process(np.zeros(7, np.float32)))
            assert emitted >= ((received + 6) / source - 0.013) * target - 1


def test_rates_that_cannot_be() -> None:
    for wrong in (0, 3_999, 192_001, 16_000.0):
        with pytest.raises(AudioError, match="rate_hz is"):
            Resampler(from_rate_hz=wrong, to_rate_hz=16_000)  # type: ignore[arg-type]


def test_a_second_takes_well_under_five_milliseconds() -> None:
    audio = np.zeros(22_050, np.float32)
    taken_s = timeit.repeat(
        lambda: resample(audio, from_rate_hz=22_050, to_rate_hz=24_000), timer=time.process_time, number=1, repeat=11
    )
    assert min(taken_s) < 0.005  # the first one makes the tables
