import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rtnb.audio import codec, read_wav, write_wav
from rtnb.errors import AudioError

PCM, FLOAT, ALAW, ULAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE


def wav(
    body: bytes, *, tag: int = PCM, channels: int = 1, rate_hz: int = 24_000, bits: int = 16, **sizes: int
) -> bytes:
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * block % 2**32, block % 2**16, bits)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", sizes.get("data_size", len(body))) + body
    return b"RIFF" + struct.pack("<I", sizes.get("riff_size", 4 + len(chunks))) + b"WAVE" + chunks


GOOD = wav(struct.pack("<4h", 0, 16384, -16384, -32768))


@pytest.mark.parametrize(
    "data, expected",
    [
        (GOOD, [0, 0.5, -0.5, -1]),
        (wav(bytes([128, 192, 64, 0]), bits=8), [0, 0.5, -0.5, -1]),
        (wav(bytes.fromhex("000000 000040 0000c0 000080"), bits=24), [0, 0.5, -0.5, -1]),
        (wav(struct.pack("<2i", 2**30, -(2**31)), bits=32), [0.5, -1]),
        (wav(struct.pack("<3f", 0.5, -1, 2), tag=FLOAT, bits=32), [0.5, -1, 2]),
        (wav(struct.pack("<2d", 0.5, -1), tag=FLOAT, bits=64), [0.5, -1]),
        (wav(b"\xaa\x2a", tag=ALAW, bits=8), codec("audio/pcma").decode(b"\xaa\x2a").tolist()),
        (wav(b"\x80\x00", tag=ULAW, bits=8), codec("audio/pcmu").decode(b"\x80\x00").tolist()),
        (wav(struct.pack("<4h", 0, 16384, -16384, -16384), channels=2), [0.25, -0.5]),
        (wav(b"\0" * 600, channels=300), [0]),
        (wav(b""), []),
    ],
)
def test_formats(data: bytes, expected: list[float]) -> None:
    audio, rate_hz = read_wav(data)
    assert audio.dtype == np.float32
    assert audio.tolist() == expected
    assert rate_hz == 24_000


def test_extensible_and_unknown_chunks() -> None:
    form = struct.pack("<HHIIHHHHIH", EXTENSIBLE, 1, 16_000, 32_000, 2, 16, 22, 16, 4, PCM)
    form += bytes.fromhex("000000001000800000aa00389b71")
    chunks = b"LIST" + struct.pack("<I", 3) + b"abc\0"  # odd: a byte of padding follows
    chunks += b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 2) + b"\0\x40" + b"tail"
    audio, rate_hz = read_wav(b"RIFF\0\0\0\0WAVE" + chunks)
    assert (audio.tolist(), rate_hz) == ([0.5], 16_000)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_writer_that_did_not_know_the_size(size: int) -> None:
    assert len(read_wav(wav(b"\0" * 9, data_size=size, riff_size=size))[0]) == 4


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "no sound file"),
        (b"an essay", "no sound file"),
        (GOOD[:36], "No 'data' chunk"),
        (wav(b"\0\0", channels=0), "Channel count is zero"),
        (wav(b"\0\0", rate_hz=0), "no sound file"),
        (wav(b"\0\0", tag=0x1234), "no sound file"),
        (wav(struct.pack("<f", float("nan")), tag=FLOAT, bits=32), "sample 0 is nan"),
        (wav(struct.pack("<d", 1e300), tag=FLOAT, bits=64), "sample 0 is inf"),
    ],
)
def test_refusals_name_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(AudioError) as refused:
        read_wav(data)
    assert reason in str(refused.value)


def test_what_a_cut_off_file_still_has_is_read() -> None:
    assert read_wav(GOOD[:-3])[0].tolist() == [0, 0.5]


def test_a_flac_file_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.array([[0.5, 0.0], [-0.5, -0.5]]), 16_000)
    audio, rate_hz = read_wav(tmp_path / "a.flac")
    assert (audio.tolist(), rate_hz) == ([0.25, -0.5], 16_000)


@given(st.integers(0, len(GOOD)), st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6))
def test_damaged_bytes_raise_nothing_else(length: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    _read_or_refuse(bytes(data[:length]))


@given(
    st.binary(max_size=200), st.sampled_from([PCM, FLOAT, ALAW, ULAW, EXTENSIBLE, 2]), st.integers(0, 65_535), st.data()
)
def test_strange_headers_raise_nothing_else(body: bytes, tag: int, channels: int, data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([0, 1, 8, 16, 24, 32, 64, 65_535]))
    size = data.draw(st.one_of(st.just(len(body)), st.integers(0, 2**32 - 1)))
    _read_or_refuse(wav(body, tag=tag, channels=channels, bits=bits, data_size=size))


def _read_or_refuse(data: bytes) -> None:
    try:
        audio, rate_hz = read_wav(data)
    except AudioError:
        return
    assert audio.ndim == 1
    assert np.isfinite(audio).all()
    assert rate_hz > 0


@given(st.lists(st.integers(-32_768, 32_767), max_size=100), st.sampled_from([8_000, 22_050, 48_000]))
def test_what_is_written_is_read(values: list[int], rate_hz: int) -> None:
    file = io.BytesIO()
    write_wav(file, np.array(values, np.int16), rate_hz=rate_hz)
    file.seek(0)
    audio, rate = read_wav(file)
    assert (audio * 32_768).tolist() == values
    assert rate == rate_hz


def test_paths_and_what_is_none(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", [0.25], rate_hz=8_000)
    assert read_wav(str(tmp_path / "a.wav"))[0].tolist() == [0.25]
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "b.wav")
    with pytest.raises(AudioError, match="got int"):
        read_wav(3)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="got StringIO"):
        read_wav(io.StringIO("RIFF"))  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="whole number"):
        write_wav(tmp_path / "a.wav", [0.0], rate_hz=0)
