"""Time of a sweep against the plain loop and against onnxruntime, in one run: ``python -m tests.benchmarks.sweep``.

Prints a table and the bars. Bars, set before it was written: 1,000 settings on an hour of audio with all metrics
in 50 ms, at least 100 times as fast as the service's machine run for each (without any metric: that is the fairer
rival); one more silence in 0.1 ms, one more threshold in 1 ms; the choice on 200 resamples in 0.3 s; from raw audio to
the first result in twice the time of the model alone in onnxruntime; ten hours in at most 10.5 times one hour.

The hour is put together from made-up phrases with thinking pauses, in recordings of one turn each: some 370 turns and
2,250 gaps, where an hour of people talking freely had 260 and 1,300, so it is the harder one.
onnxruntime runs
Silero's whole-sequence model, which the wheel silero-vad has (install it with --no-deps: torch is not needed for the
file); the comparison is left out, and said to be, where one of the two is missing.
"""

import platform
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rtnb.analysis import Recording, sweep
from rtnb.analysis.gaps import Gaps, Track
from rtnb.analysis.intervals import resample_weights
from rtnb.analysis.listening import Heard, listen
from rtnb.analysis.recommendation import Budget, _Evidence
from rtnb.analysis.recordings import thinking_aloud
from rtnb.analysis.sweeping import evaluate
from rtnb.audio import babble
from rtnb.protocol.values import ServerVad
from rtnb.vad import FRAME_MS, VadConstants, server_vad_segments, speech_probabilities
from tests.analysis.plain import plain_sweep
from tests.benchmarks.stage import best_s, onnx_session

RATE_HZ = 16_000
THRESHOLDS = np.round(np.linspace(0.1, 0.9, 25), 4)
SILENCES = np.arange(3, 43)  # frames: 96 to 1344 ms
GRID: dict[str, Any] = {"thresholds": THRESHOLDS, "silences_ms": FRAME_MS * SILENCES, "prefixes_ms": [300]}
PHRASES = (
    "So I was thinking",
    "we could take the early train",
    "and then walk",
    "if you like, of course",
    "to the lake",
)
Array = npt.NDArray[np.float32]


def main() -> None:
    recordings = hour_of_recordings()
    heard, _ = listen(recordings, cache=False, progress=False)
    long = np.concatenate([one.audio for one in recordings])
    rows: list[tuple[str, float, str]] = []

    def measure(name: str, run: Callable[[], Any], *, times: int = 7, bar: str = "") -> float:
        rows.append((name, best_s(run, times=times), bar))
        return rows[-1][1]

    whole = measure("1,000 settings × 1 h, all metrics", lambda: evaluate(heard, **GRID), bar="50 ms")
    loop = plain_loop(heard)
    rows.append(("the same, machine run for each, no metrics", loop, f"{loop / whole:,.0f} times as long; 100"))
    track, constants = Track(heard), VadConstants()
    gaps = Gaps(track, threshold=0.5, constants=constants)
    silence = measure("one more silence", lambda: gaps.at([16], prefixes_ms=[300]), times=300, bar="0.1 ms")
    threshold = measure("one more threshold", lambda: at_threshold(track, constants), times=100, bar="1 ms")
    resamples = measure("the choice on 200 resamples × 1,000 settings", resampled(heard), times=3, bar="0.3 s")
    first, model = first_result(long, measure)
    growth = [measure(f"1,000 settings × {h:g} h", lambda h=h: evaluate(hours(heard, h), **GRID)) for h in (0.1, 1, 10)]

    n_turns = sum(len(one.turns) for one in heard)
    print(f"{sum(map(len, (one.probabilities for one in heard)))} frames, {n_turns} turns, {len(gaps._reach) - 1} gaps "
          f"at 0.5; best of several; {platform.machine()}, NumPy {np.__version__}\n")  # fmt: skip
    for name, seconds, bar in rows:
        print(f"{name:46}{1000 * seconds:12,.3f} ms   {bar}")
    met = {
        "sweep": whole <= 0.05 and loop / whole >= 100,
        "silence": silence <= 1e-4,
        "threshold": threshold <= 1e-3,
        "resamples": resamples <= 0.3,
        "first result": model is None or first <= 2 * model,
        f"linear ({growth[2] / growth[1]:.1f} times for ten hours)": growth[2] / growth[1] <= 10.5,
        "same as the plain loop": equals_plain(heard),
    }
    for name, held in met.items():
        print(f"{name:46}{'met' if held else 'NOT met'}")


def resampled(heard: list[Heard]) -> Callable[[], Any]:
    budget = Budget(0.1, 30.0, 0.05, 0.05, 0.9)
    evidence = _Evidence([evaluate(heard, **GRID)], budget, ServerVad(threshold=0.5, silence_duration_ms=512))
    weights = resample_weights(evidence.n_all)
    return lambda: evidence.choose(weights)


def hour_of_recordings() -> list[Recording]:
    phrases = [babble(text, rate_hz=RATE_HZ, seed=k).audio for k, text in enumerate(PHRASES)]
    made, total_ms = [], 0.0
    for one in thinking_aloud(phrases, rate_hz=RATE_HZ, n_turns=1000, pauses=10.0):
        made.append(one)
        total_ms += one.duration_ms
        if total_ms >= 3_600_000:
            break
    return made


def plain_loop(heard: list[Heard]) -> float:
    """Seconds for 1,000 settings, from 10 of them."""
    start = time.perf_counter()
    for threshold in THRESHOLDS[::5]:
        for frames in SILENCES[[5, 30]]:
            for one in heard:
                server_vad_segments(
                    one.probabilities, threshold=float(threshold), silence_duration_ms=FRAME_MS * int(frames)
                )
    return (time.perf_counter() - start) * 100


def equals_plain(heard: list[Heard]) -> bool:
    """All metrics, on a part of the grid and of the hour: the plain loop with metrics is slow."""
    part, grid = heard[:20], (THRESHOLDS[::6].tolist(), SILENCES[::8].tolist(), [300])
    fast = evaluate(part, thresholds=grid[0], silences_ms=[FRAME_MS * n for n in grid[1]], prefixes_ms=grid[2])
    plain = plain_sweep(part, *grid, VadConstants())
    return all(
        np.array_equal(getattr(fast, name), plain[name], equal_nan=plain[name].dtype.kind == "f") for name in plain
    )


def at_threshold(track: Track, constants: VadConstants) -> None:
    gaps = Gaps(track, threshold=0.55, constants=constants)
    gaps.onsets([300])
    gaps.at([16], prefixes_ms=[300])


def hours(heard: list[Heard], h: float) -> list[Heard]:
    return heard[: max(1, round(h * len(heard)))] if h <= 1 else heard * round(h)


def first_result(audio: Array, measure: Callable[..., float]) -> tuple[float, float | None]:
    """An hour in one recording, digested, heard, kept and swept; and the same hour through the model alone."""
    recording = Recording(audio, rate_hz=RATE_HZ, name="hour", turns=[(1000, 5000)])

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            sweep(recording, **GRID, cache=folder, progress=False)

    model = onnxruntime_run()
    first = measure("first result from 1 h of raw audio", ours, times=2, bar="2 times the next line")
    measure("of that, our own model pass", lambda: speech_probabilities(audio, rate_hz=RATE_HZ), times=2)
    if model is None:
        return first, None
    return first, measure("onnxruntime, whole sequence, one thread", lambda: model(audio), times=2)


def onnxruntime_run() -> Callable[[Array], Array] | None:
    session = onnx_session("silero_vad", "silero_vad_16k_sequence.onnx")
    if session is None:
        return None
    zeros = np.zeros((1, 1, 128), np.float32)

    def run(audio: Array) -> Array:
        padded = np.concatenate([np.zeros(64, np.float32), audio[: len(audio) // 512 * 512]])
        frames = np.lib.stride_tricks.sliding_window_view(padded, 576)[::512]
        found: Array = session.run(["speech_probs"], {"input": np.ascontiguousarray(frames), "h": zeros, "c": zeros})[0]
        return found

    return run


if __name__ == "__main__":
    main()
