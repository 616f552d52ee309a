import numpy as np
import pytest

from rtnb.audio import as_audio, ms_to_samples
from rtnb.errors import AudioError


@pytest.mark.parametrize(
    "dtype, lowest, half",
    [
        ("int16", -(2**15), 2**14),
        (">i2", -(2**15), 2**14),
        ("int32", -(2**31), 2**30),
        ("uint8", 0, 192),
        ("f8", -1, 0.5),
    ],
)
def test_full_scale_is_one(dtype: str, lowest: float, half: float) -> None:
    audio = as_audio(np.array([lowest, half], dtype=dtype))
    assert audio.dtype == np.float32
    assert audio.tolist() == [-1.0, 0.5]


def test_float32_is_not_copied() -> None:
    samples = np.array([0.1, 2.0], np.float32)
    assert as_audio(samples) is samples


def test_channels_come_last_and_are_averaged() -> None:
    assert as_audio(np.array([[0.5], [0.25]])).tolist() == [0.5, 0.25]
    assert as_audio(np.array([[1000, 3000]], np.int16)).tolist() == [2000 / 32768]


@pytest.mark.parametrize(
    "samples, said",
    [
        (np.zeros((2, 3)), "(2, 3)"),
        (np.zeros((1, 1, 1)), "(1, 1, 1)"),
        (np.float32(1), "()"),
        (np.zeros(3, np.int64), "int64"),
        (np.zeros(3, np.float16), "float16"),
        (np.zeros(3, bool), "bool"),
        (np.array(["a"]), "<U1"),
        ([[1.0], [1.0, 2.0]], "ragged"),
        (b"\0\0", "bytes"),
        ([0.0, float("nan")], "sample 1 is nan"),
        ([float("-inf")], "sample 0 is -inf"),
        ([1e300], "sample 0 is inf"),
    ],
)
def test_refusals_say_what_came(samples: object, said: str) -> None:
    with pytest.raises(AudioError) as refused:
        as_audio(samples)  # type: ignore[arg-type]
    assert said in str(refused.value)


def test_time_and_samples() -> None:
    assert ms_to_samples(32, rate_hz=16_000) == 512
    assert ms_to_samples(1, rate_hz=22_050) == 22
    for rate in (0, -8000, 8000.0, True):
        with pytest.raises(AudioError, match="whole number"):
            ms_to_samples(1, rate_hz=rate)  # type: ignore[arg-type]
