from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.audio import codec, decode_pcm16, encode_pcm16
from rtnb.errors import AudioError

ULAW, ALAW = codec("audio/pcmu"), codec("audio/pcma")
EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = np.arange(-32_768, 32_768, dtype=np.int16)

# The segment end points and the encoding loop of the public-domain reference coder (Sun Microsystems, g711.c, 1989-92),
# which works sample by sample; ours is vectorised and has no such table.
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


def test_alaw_agrees_with_the_reference_for_every_sample() -> None:
    ours = np.frombuffer(ALAW.encode(EVERY_SAMPLE), np.uint8)
    theirs = np.frombuffer(bytes(map(reference_alaw, EVERY_SAMPLE.tolist())), np.uint8)
    differ = EVERY_SAMPLE[ours != theirs]
    # The reference drops four bits before it takes the magnitude, so negative samples on an edge differ by one step.
    assert len(differ) < 128
    assert (differ < 0).all()
    assert (differ % 16 == 0).all()


def test_ulaw_agrees_with_the_reference_for_every_sample() -> None:
    ours = np.frombuffer(ULAW.encode(EVERY_SAMPLE), np.uint8).astype(int)
    theirs = np.array(list(map(reference_ulaw, EVERY_SAMPLE.tolist())))
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


@pytest.mark.parametrize(
    "decode, code, value",
    [  # ITU-T G.711 tables 1 and 2: 13-bit A-law values times 8, 14-bit µ-law values times 4
        (ALAW.decode, 0x2A, -4032 * 8),
        (ALAW.decode, 0xAA, 4032 * 8),
        (ALAW.decode, 0xD5, 8),
        (ALAW.decode, 0x55, -8),
        (ULAW.decode, 0x00, -8031 * 4),
        (ULAW.decode, 0x80, 8031 * 4),
        (ULAW.decode, 0x8F, 4191 * 4),
        (ULAW.decode, 0xFE, 2 * 4),
        (ULAW.decode, 0xFF, 0),
    ],
)
def test_values_of_the_standard(decode, code: int, value: int) -> None:  # type: ignore[no-untyped-def]
    assert decode(bytes([code])).tolist() == [value / 32_768]


@pytest.mark.parametrize("decode, encode", [(ULAW.decode, ULAW.encode), (ALAW.decode, ALAW.encode)])
def test_the_nearest_code_is_taken(decode, encode) -> None:  # type: ignore[no-untyped-def]
    samples = EVERY_SAMPLE / np.float32(32_768)
    error = np.abs(decode(encode(samples)) - samples)
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


@pytest.mark.parametrize(
    "name, rate, size, per_ms", [("audio/pcm", 24_000, 2, 48), ("audio/pcmu", 8_000, 1, 8), ("audio/pcma", 8_000, 1, 8)]
)
def test_codec_by_media_type(name: str, rate: int, size: int, per_ms: int) -> None:
    one = codec(name)
    assert (one.media_type, one.rate_hz, one.bytes_per_sample, one.bytes_per_ms) == (name, rate, size, per_ms)
    pcm = one.encode(np.zeros(rate // 100, np.float32))
    assert (len(pcm), len(one.decode(pcm))) == (10 * per_ms, rate // 100)


def test_an_unknown_media_type_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(AudioError, match="g711_ulaw") as refused:
        codec("g711_ulaw")
    assert "audio/pcmu" in refused.value.__notes__[0]
