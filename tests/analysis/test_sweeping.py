from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtnb.analysis.heard import Heard
from rtnb.analysis.recordings import Turn
from rtnb.analysis.sweeping import evaluate
from rtnb.vad import VadConstants
from tests.analysis.plain import plain_sweep


def same(heard: list[Heard], thresholds: Any, frames: Any, prefixes: Any, constants: VadConstants) -> None:
    fast = evaluate(
        heard,
        thresholds=thresholds,
        silences_ms=[32 * n for n in frames],
        prefixes_ms=prefixes,
        constants=constants,
    )
    plain = plain_sweep(
        heard, fast.thresholds.tolist(), fast.silence_frames.tolist(), fast.prefixes_ms.tolist(), constants
    )
    for name, expected in plain.items():
        np.testing.assert_array_equal(getattr(fast, name), expected, err_msg=name, strict=True)


@st.composite
def spans(draw: st.DrawFn, limit_ms: float, most: int) -> list[tuple[float, float]]:
    """Disjoint stretches, in order, on and off the grid of frames."""
    n = draw(st.integers(0, most))
    time = st.one_of(
        st.integers(0, int(limit_ms) // 16).map(lambda k: 16.0 * k), st.floats(0, limit_ms, allow_subnormal=False)
    )
    edges = sorted(draw(st.lists(time, min_size=2 * n, max_size=2 * n)))
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


@st.composite
def recordings(draw: st.DrawFn) -> Heard:
    """Any probabilities (often on the thresholds) and any labels."""
    n = draw(st.integers(0, 60))
    values = st.one_of(st.sampled_from([0.0, 0.1, 0.3, 0.34999999, 0.35, 0.5, 0.9, 1.0]), st.floats(0, 1, width=32))
    runs = draw(st.lists(st.tuples(values, st.integers(1, 9)), max_size=30))
    probabilities = np.array([value for value, length in runs for _ in range(length)][:n], np.float32)
    duration_ms = 32 * len(probabilities) + draw(st.floats(0, 31, allow_subnormal=False))
    turns = []
    for start, end in draw(spans(duration_ms, 4)):
        inner = draw(spans(end - start, 3))
        turns.append(
            Turn(
                start, end, tuple((start + a, min(start + b, end)) for a, b in inner if start + a < min(start + b, end))
            )
        )
    quiet, echo = draw(spans(duration_ms, 3)), draw(spans(duration_ms, 2))
    return Heard("some", "as recorded", probabilities, tuple(turns), tuple(quiet), tuple(echo), duration_ms)


constants_of = st.builds(
    VadConstants,
    hysteresis=st.sampled_from([0.0, 0.15, 0.3]),
    lowest_release=st.sampled_from([0.01, 0.2, 0.6]),
    min_speech_frames=st.integers(1, 3),
    threshold_shift=st.sampled_from([0.0, 0.0, -0.4]),
)


@given(
    st.lists(recordings(), max_size=4),
    st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.35, 0.5, 0.9, 1.0]), min_size=1, max_size=3),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.lists(st.integers(0, 600), min_size=1, max_size=3),
    constants_of,
)
def test_the_same_numbers_as_the_machine_run_for_every_setting(
    heard: list[Heard], thresholds: list[float], frames: list[int], prefixes: list[int], constants: VadConstants
) -> None:
    same(heard, thresholds, frames, prefixes, constants)
