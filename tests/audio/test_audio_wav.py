import io
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rtnb.audio import read_wav, write_wav
from rtnb.errors import AudioError


def made(samples: Any, *, subtype: str = "PCM_16", form: str = "WAV") -> bytes:
    """Return a file that libsndfile writes."""
    file = io.BytesIO()
    soundfile.write(file, np.asarray(samples), 24_000, subtype=subtype, format=form)
    return file.getvalue()


def pcm16(values: list[int]) -> bytes:
    """Return a file that the standard library writes."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 24_000, 0, "NONE", ""))
        writer.writeframes(np.array(values, "<i2").tobytes())
    return file.getvalue()


LEVELS = [0, 0.5, -0.5, -1]
GOOD = pcm16([0, 16_384, -16_384, -32_768])
HEADER_BYTES = len(GOOD) - 8
RIFF_SIZE, TAG, CHANNELS, RATE, DATA_SIZE = 4, 20, 22, 24, 40  # where these numbers stand in the header


def changed(**numbers: tuple[int, str, int]) -> bytes:
    """Return the good file with other numbers in its header, each (place, format, number)."""
    data = bytearray(GOOD)
    for place, form, number in numbers.values():
        struct.pack_into(form, data, place, number)
    return bytes(data)


FORMATS = {
    "16-bit PCM": (GOOD, LEVELS, 0),
    **{kind: (made(LEVELS, subtype=kind), LEVELS, 0) for kind in ("PCM_U8", "PCM_24", "PCM_32")},
    **{kind: (made([*LEVELS, 2], subtype=kind), [*LEVELS, 2], 0) for kind in ("FLOAT", "DOUBLE")},
    **{kind: (made(LEVELS, subtype=kind), LEVELS, 0.02) for kind in ("ALAW", "ULAW")},
    **{form: (made([[0.5, 0.0], [-0.5, -0.5]], form=form), [0.25, -0.5], 0) for form in ("WAV", "FLAC", "WAVEX")},
    "300 channels": (made(np.zeros((1, 300))), [0], 0),
    "no sample": (made([]), [], 0),
    "cut off": (GOOD[:-3], [0, 0.5], 0),
}


@pytest.mark.parametrize("data, expected, within", FORMATS.values(), ids=FORMATS)
def test_formats(data: bytes, expected: list[float], within: float) -> None:
    audio, rate_hz = read_wav(data)
    assert audio.dtype == np.float32
    assert audio.tolist() == pytest.approx(expected, abs=within, rel=0)
    assert rate_hz == 24_000


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_writer_that_did_not_know_the_size(size: int) -> None:
    data = changed(riff=(RIFF_SIZE, "<I", size), data=(DATA_SIZE, "<I", size))
    assert read_wav(data)[0].tolist() == LEVELS


NO_SOUND_FILES = {
    "empty": (b"", "no sound file"),
    "text": (b"an essay", "no sound file"),
    "no data": (GOOD[:36], "No 'data' chunk"),
    "no channel": (changed(channels=(CHANNELS, "<H", 0)), "Channel count is zero"),
    "no rate": (changed(rate=(RATE, "<I", 0)), "no sound file"),
    "unknown coding": (changed(tag=(TAG, "<H", 0x1234)), "no sound file"),
    "not a number": (made([float("nan")], subtype="FLOAT"), "sample 0 is nan"),
    "too large": (made([1e300], subtype="DOUBLE"), "sample 0 is inf"),
}


@pytest.mark.parametrize("data, reason", NO_SOUND_FILES.values(), ids=NO_SOUND_FILES)
def test_refusals_name_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(AudioError) as refused:
        read_wav(data)
    assert reason in str(refused.value)


places = st.integers(0, HEADER_BYTES - 1) | st.integers(0, len(GOOD) - 1)


@given(st.integers(0, len(GOOD)), st.lists(st.tuples(places, st.integers(0, 255)), max_size=6))
def test_damaged_bytes_raise_nothing_else(length: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    try:
        audio, rate_hz = read_wav(data[:length])
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
    for wrong in (3, io.StringIO("RIFF")):
        with pytest.raises(AudioError, match=f"got {type(wrong).__name__}"):
            read_wav(wrong)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="whole number"):
        write_wav(tmp_path / "a.wav", [0.0], rate_hz=0)
