import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rtnb.audio import codec, decode_alaw, decode_pcm16, decode_ulaw, encode_alaw, encode_pcm16, encode_ulaw
from rtnb.errors import AudioError

EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = np.arange(-32_768, 32_768, dtype=np.int16)


def reference_codes(subtype: str) -> np.ndarray:
    """Return the codes of every sample by libsndfile, which looks them up in the tables of the standard."""
    file = io.BytesIO()
    soundfile.write(file, EVERY_SAMPLE, 8_000, format="RAW", subtype=subtype)
    return np.frombuffer(file.getvalue(), np.uint8).astype(int)


def test_alaw_agrees_with_the_reference_for_every_sample() -> None:
    differ = EVERY_SAMPLE[np.frombuffer(encode_alaw(EVERY_SAMPLE), np.uint8) != reference_codes("ALAW")]
    # The reference drops four bits of the magnitude, so negative samples on an edge may differ by one step.
    assert len(differ) < 128
    assert (differ < 0).all()
    assert (differ % 16 == 0).all()


def test_ulaw_agrees_with_the_reference_for_every_sample() -> None:
    ours, theirs = np.frombuffer(encode_ulaw(EVERY_SAMPLE), np.uint8).astype(int), reference_codes("ULAW")
    # The reference drops two bits before it takes the magnitude, so negative samples on an edge fall one step further.
    positive = EVERY_SAMPLE >= 0
    assert (ours[positive] == theirs[positive]).all()
    assert np.abs(ours - theirs).max() <= 1
    whole = EVERY_SAMPLE % 4 == 0
    assert (ours[whole] == theirs[whole]).all()


def test_every_code_comes_back() -> None:
    assert encode_alaw(decode_alaw(EVERY_CODE)) == EVERY_CODE
    back = encode_ulaw(decode_ulaw(EVERY_CODE))
    assert back == EVERY_CODE.replace(b"\x7f", b"\xff")  # negative zero is zero


@pytest.mark.parametrize("decode, subtype", [(decode_ulaw, "ULAW"), (decode_alaw, "ALAW")])
def test_every_code_has_the_value_of_the_reference(decode, subtype: str) -> None:  # type: ignore[no-untyped-def]
    file = io.BytesIO(EVERY_CODE)
    expected, _ = soundfile.read(file, format="RAW", subtype=subtype, samplerate=8_000, channels=1, dtype="float32")
    assert decode(EVERY_CODE).tolist() == expected.tolist()


@pytest.mark.parametrize("decode, encode", [(decode_ulaw, encode_ulaw), (decode_alaw, encode_alaw)])
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
