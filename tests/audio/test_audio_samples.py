"""Samples: what is taken, G.711 against a reference coder, and bins that keep every peak."""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rtnb.audio import as_audio, codec, decode_pcm16, encode_pcm16, ms_to_samples
from rtnb.audio.decimate import BinTrack, min_max
from rtnb.errors import AudioError

SCALES = [("int16", -(2**15), 2**14), (">i2", -(2**15), 2**14), ("int32", -(2**31), 2**30), ("uint8", 0, 192)]


@pytest.mark.parametrize("dtype, lowest, half", [*SCALES, ("f8", -1, 0.5)])
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


NO_AUDIO = [
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
]


@pytest.mark.parametrize("samples, said", NO_AUDIO)
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


# --- codecs -----------------------------------------------------------------------------------------------------------


EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = np.arange(-32_768, 32_768, dtype=np.int16)
PCM, ULAW, ALAW = map(codec, ("audio/pcm", "audio/pcmu", "audio/pcma"))


# The segment end points and the encoding loop of the public-domain reference coder (Sun Microsystems, g711.c, 1989-92),
# which works sample by sample; ours takes libsndfile's tables.
ULAW_ENDS = [0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF, 0x1FFF]
ALAW_ENDS = [0x1F, 0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF]


def reference_ulaw(sample: int) -> int:
    value, mask = sample >> 2, 0xFF
    if value < 0:
        value, mask = -value, 0x7F
    value = min(value, 8159) + (0x84 >> 2)
    segment = bisect_left(ULAW_ENDS, value)
    return (0x7F if segment >= 8 else (segment << 4) | ((value >> (segment + 1)) & 0xF)) ^ mask


def reference_alaw(sample: int) -> int:
    value, mask = sample >> 3, 0xD5
    if value < 0:
        value, mask = -value - 1, 0x55
    segment = bisect_left(ALAW_ENDS, value)
    return ((segment << 4) | ((value >> (1 if segment < 2 else segment)) & 0xF)) ^ mask


def codes_of_every_sample(one: Any, reference: Callable[[int], int]) -> tuple[np.ndarray, np.ndarray]:
    """Return our codes and those of the reference."""
    ours = np.frombuffer(one.encode(EVERY_SAMPLE), np.uint8).astype(int)
    return ours, np.array([reference(sample) for sample in EVERY_SAMPLE.tolist()])


def test_alaw_agrees_with_the_reference_for_every_sample() -> None:
    ours, theirs = codes_of_every_sample(ALAW, reference_alaw)
    differ = EVERY_SAMPLE[ours != theirs]
    # The reference drops four bits before it takes the magnitude, so negative samples on an edge differ by one step.
    assert len(differ) < 128
    assert (differ < 0).all()
    assert (differ % 16 == 0).all()


def test_ulaw_agrees_with_the_reference_for_every_sample() -> None:
    ours, theirs = codes_of_every_sample(ULAW, reference_ulaw)
    # The reference drops two bits before it takes the magnitude, so negative samples on an edge fall one step further.
    positive = EVERY_SAMPLE >= 0
    assert (ours[positive] == theirs[positive]).all()
    assert np.abs(ours - theirs).max() <= 1
    whole = EVERY_SAMPLE % 4 == 0
    assert (ours[whole] == theirs[whole]).all()


def test_every_code_comes_back() -> None:
    assert ALAW.encode(ALAW.decode(EVERY_CODE)) == EVERY_CODE
    back = ULAW.encode(ULAW.decode(EVERY_CODE))
    assert back == EVERY_CODE.replace(b"\x7f", b"\xff")  # negative zero is zero


STANDARD = [  # ITU-T G.711 tables 1 and 2: 13-bit A-law values times 8, 14-bit µ-law values times 4
    (ALAW, {0x2A: -4032 * 8, 0xAA: 4032 * 8, 0xD5: 8, 0x55: -8}),
    (ULAW, {0x00: -8031 * 4, 0x80: 8031 * 4, 0x8F: 4191 * 4, 0xFE: 2 * 4, 0xFF: 0}),
]


@pytest.mark.parametrize("one, values", STANDARD)
def test_values_of_the_standard(one: Any, values: dict[int, int]) -> None:
    assert one.decode(bytes(values)).tolist() == [value / 32_768 for value in values.values()]


@pytest.mark.parametrize("one", [ULAW, ALAW])
def test_the_nearest_code_is_taken(one: Any) -> None:
    samples = EVERY_SAMPLE / np.float32(32_768)
    error = np.abs(one.decode(one.encode(samples)) - samples)
    # Half a step: 1/2**5 of the magnitude and a smallest step, and what lies beyond the last value clips.
    assert (error <= np.abs(samples) / 32 + 9 / 32_768 + (np.abs(samples) > 0.98) * 0.02).all()


def test_pcm_is_exact_and_clips() -> None:
    pcm = EVERY_SAMPLE.astype("<i2").tobytes()
    assert encode_pcm16(decode_pcm16(pcm)) == pcm
    assert decode_pcm16(encode_pcm16([1.0, 3.0, -1.0, -3.0])).tolist() == [32767 / 32768, 32767 / 32768, -1.0, -1.0]


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(AudioError, match="3 bytes"):
        decode_pcm16(b"\0\0\0")


@given(st.lists(st.floats(-4, 4, width=32), max_size=50))
def test_pcm_is_within_half_a_step(values: list[float]) -> None:
    audio = np.array(values, np.float32)
    back = decode_pcm16(encode_pcm16(audio))
    assert np.abs(back - audio.clip(-1, 32_767 / 32_768)).max(initial=0) <= 0.5 / 32_768


@pytest.mark.parametrize("one, rate, size, per_ms", [(PCM, 24_000, 2, 48), (ULAW, 8_000, 1, 8), (ALAW, 8_000, 1, 8)])
def test_codec_by_media_type(one: Any, rate: int, size: int, per_ms: int) -> None:
    assert (one.rate_hz, one.bytes_per_sample, one.bytes_per_ms) == (rate, size, per_ms)
    pcm = one.encode(np.zeros(rate // 100, np.float32))
    assert (len(pcm), len(one.decode(pcm))) == (10 * per_ms, rate // 100)
    assert codec(one.media_type) == one


def test_an_unknown_media_type_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(AudioError, match="g711_ulaw") as refused:
        codec("g711_ulaw")
    assert "audio/pcmu" in refused.value.__notes__[0]


# --- bins -------------------------------------------------------------------------------------------------------------


int16s = arrays(np.int16, st.integers(0, 300))
pieces = st.tuples(st.integers(0, 400), arrays(np.int16, st.tuples(st.integers(1, 60), st.just(2))))


@given(int16s, st.integers(1, 50))
def test_every_sample_lies_within_its_bin_and_every_edge_is_a_sample(samples: np.ndarray, size: int) -> None:
    bins = min_max(samples, samples_per_bin=size)
    assert bins.dtype == np.int16
    assert len(bins) == -(-len(samples) // size)
    for number, (low, high) in enumerate(bins):
        inside = samples[number * size : (number + 1) * size]
        assert (low, high) == (inside.min(), inside.max())


@given(st.lists(pieces, max_size=8))
def test_a_track_is_what_was_written_and_silence_between(writes: list[tuple[int, np.ndarray]]) -> None:
    track, model = BinTrack(), np.zeros((2000, 2), np.int16)
    for index, bins in writes:
        track.write(index, bins)
        model[index : index + len(bins)] = bins
    assert np.array_equal(track.read(), model[: len(track)])
    assert not model[len(track) :].any()


def test_a_track_grows_by_doubling() -> None:
    track = BinTrack()
    sizes = set()
    for index in range(0, 100_000, 50):
        track.write(index, np.ones((50, 2), np.int16))
        sizes.add(len(track._bins))
    assert len(sizes) < 10


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(AudioError, match="samples_per_bin is 0"):
        min_max(np.zeros(3, np.int16), samples_per_bin=0)
