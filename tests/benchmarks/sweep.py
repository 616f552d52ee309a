"""Time of a sweep against the service's machine run for each setting: ``python -m tests.benchmarks.sweep``.

The hour is put together from made-up phrases with thinking pauses, in recordings of one turn each: some 370 turns and
2,250 gaps, where an hour of people talking freely had 260 and 1,300, so it is the harder one. The machine runs without
any metric: that is the fairer rival.
"""

import sys
import time
from typing import Any

import numpy as np

from rtnb.analysis import Recording
from rtnb.analysis.listening import Heard, listen
from rtnb.analysis.recordings import thinking_aloud
from rtnb.analysis.sweeping import evaluate
from rtnb.audio import babble
from rtnb.vad import FRAME_MS, VadConstants, server_vad_segments
from tests.analysis.plain import plain_sweep
from tests.benchmarks.stage import best_s, judged, options, print_table

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


def an_hour(hours: float) -> list[Recording]:
    """Make recordings of one turn each, until they are so long."""
    phrases = [babble(text, rate_hz=RATE_HZ, seed=k).audio for k, text in enumerate(PHRASES)]
    made, total_ms = [], 0.0
    for one in thinking_aloud(phrases, rate_hz=RATE_HZ, n_turns=1000, pauses=10.0):
        made.append(one)
        total_ms += one.duration_ms
        if total_ms >= 3_600_000 * hours:
            break
    return made


def machine_s(heard: list[Heard]) -> float:
    """Seconds of the service's machine for 1,000 settings, from 10 of them."""
    start = time.perf_counter()
    for threshold in THRESHOLDS[::5]:
        for frames in SILENCES[[5, 30]]:
            for one in heard:
                server_vad_segments(
                    one.probabilities, threshold=float(threshold), silence_duration_ms=FRAME_MS * int(frames)
                )
    return (time.perf_counter() - start) * 100


def n_unequal(heard: list[Heard]) -> int:
    """Number of metrics that differ from the plain loop, on a part of the grid and of the hour: that loop is slow."""
    part, grid = heard[:20], (THRESHOLDS[::6].tolist(), SILENCES[::8].tolist(), [300])
    fast = evaluate(part, thresholds=grid[0], silences_ms=[FRAME_MS * n for n in grid[1]], prefixes_ms=grid[2])
    plain = plain_sweep(part, *grid, VadConstants())
    return sum(
        not np.array_equal(getattr(fast, name), values, equal_nan=values.dtype.kind == "f")
        for name, values in plain.items()
    )


def main() -> int:
    heard, _ = listen(an_hour(options(__doc__, hours=1.0).hours), cache=False, progress=False)
    once = best_s(lambda: evaluate(heard, **GRID))
    ten = best_s(lambda: evaluate(heard * 10, **GRID))
    machine = machine_s(heard)
    n_frames, n_turns = sum(len(one.probabilities) for one in heard), sum(len(one.turns) for one in heard)
    print(f"{n_frames} frames, {n_turns} turns; best of several")
    rows = {"1,000 settings × 1 h, all metrics": once, "the same × 10 h": ten, "machine run for each × 1 h": machine}
    print_table({name: {"ms": 1000 * seconds} for name, seconds in rows.items()})
    return judged(
        {
            "1,000 settings × 1 h, ms": (1000 * once, 50),
            "share of the machine's time": (once / machine, 0.01),
            "ten hours, times one": (ten / once, 10.5),
            "metrics unequal to the plain loop": (n_unequal(heard), 0),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
