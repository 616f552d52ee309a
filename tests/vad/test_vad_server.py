import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS, Segment, ServerVadMachine, SpeechStarted, SpeechStopped, VadConstants
from rtnb.vad.server_vad import idle_timeout_span, server_vad_segments

HIGH, MIDDLE, LOW = 0.9, 0.4, 0.1

# (audio_start_ms, audio_end_ms) of a real session, May 2025, gpt-4o-realtime-preview era, threshold 0.5, prefix 300,
# silence 200; from the public log in the GitHub repository ctvidic/banyan-landing.
LOGGED = [
    (4308, 4896), (33908, 34560), (43604, 44384), (44180, 45824), (48564, 49728), (49556, 50208),
    (50228, 50848), (52948, 53536), (54388, 57120), (56884, 59552), (60756, 61408),
]  # fmt: skip


def spans(probabilities: list[float], **settings: Any) -> list[tuple[int, int | None]]:
    return [(one.audio_start_ms, one.audio_end_ms) for one in server_vad_segments(probabilities, **settings)]


# --- the rule ---------------------------------------------------------------------------------------------------------


def spelled_out(
    p: list[float], threshold: float, release: float, silence_frames: int, prefix_ms: int, least: int
) -> list[Segment]:
    """Another way to the same answer: from each start look for the first low frame late enough after its timer."""
    found, at = [], 0
    while True:
        runs = (i for i in range(at, len(p) - least + 1) if min(p[i : i + least]) >= threshold)
        if (start := next(runs, None)) is None:
            return found
        at, armed, stop = start + least, None, None
        while at < len(p) and stop is None:
            if p[at] >= threshold:
                armed = None  # the zone between the two thresholds neither cancels nor fires
            elif p[at] < release:
                armed = at if armed is None else armed
                stop = at + 1 if at - armed >= silence_frames else None
            at += 1
        end_ms = None if stop is None else FRAME_MS * stop
        found.append(Segment(start, stop, max(0, FRAME_MS * start - prefix_ms), end_ms, FRAME_MS * (start + least)))


ROUNDED = {
    "up": lambda ms: -(-ms // FRAME_MS),
    "nearest": lambda ms: (ms + FRAME_MS // 2) // FRAME_MS,
    "down": lambda ms: ms // FRAME_MS,
}


any_constants = st.builds(
    VadConstants,
    hysteresis=st.sampled_from([0.0, 0.15, 0.25]),
    lowest_release=st.sampled_from([0.01, 0.05]),
    min_speech_frames=st.integers(1, 3),
    silence_rounding=st.sampled_from(list(ROUNDED)),
)
any_runs = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12)), max_size=30)


@settings(max_examples=400)
@given(
    runs=any_runs,
    threshold=st.sampled_from([0.1, 0.5]),
    silence_ms=st.integers(0, 300),
    prefix_ms=st.integers(0, 400),
    constants=any_constants,
    dtype=st.sampled_from([np.float32, np.float64]),
    lengths=st.lists(st.integers(0, 20), max_size=20),
)
def test_any_chunks_give_the_segments_of_the_rule_spelled_out(
    runs: Any, threshold: float, silence_ms: int, prefix_ms: int, constants: VadConstants, dtype: Any, lengths: Any
) -> None:
    release = max(threshold - constants.hysteresis, constants.lowest_release)
    levels = (HIGH, threshold, threshold - 1e-7, (threshold + release) / 2, release, release - 1e-7, 0.0)
    values = np.array([levels[level] for level, n in runs for _ in range(n)], dtype)
    asked: Any = {"silence_duration_ms": silence_ms, "prefix_padding_ms": prefix_ms, "constants": constants}
    n_quiet = ROUNDED[constants.silence_rounding](silence_ms)
    expected = spelled_out(values.tolist(), threshold, release, n_quiet, prefix_ms, constants.min_speech_frames)
    assert list(server_vad_segments(values, threshold=threshold, **asked)) == expected
    machine = ServerVadMachine(threshold=threshold, **asked)
    pieces = [event for chunk in np.split(values, np.cumsum(lengths, dtype=int)) for event in machine.push(chunk)]
    assert pieces == ServerVadMachine(threshold=threshold, **asked).push(values)


def test_defaults() -> None:
    assert [VadConstants().release(threshold) for threshold in (0.5, 0.1)] == [0.35, 0.01]
    assert (spans([0.5]), spans([0.4999999])) == ([(0, None)], [])
    (segment,) = server_vad_segments([LOW] * 20 + [HIGH] + [LOW] * 20)
    assert segment == Segment(20, 29, 20 * 32 - 300, 29 * 32, 21 * 32)  # nine frames, the shortest of the logs


def test_settings_change_between_frames() -> None:
    machine = ServerVadMachine()
    machine.push([HIGH, LOW, LOW])
    machine.configure(silence_duration_ms=96)  # the timer under way counts
    assert machine.push([LOW, LOW]) == [SpeechStopped(frame=5, audio_end_ms=160)]
    machine.configure(threshold=0.05, prefix_padding_ms=32)
    assert machine.push([LOW]) == [SpeechStarted(frame=5, audio_start_ms=128, emitted_ms=192)]


def test_reset_forgets_speech_and_may_keep_the_time() -> None:
    machine = ServerVadMachine(prefix_padding_ms=0)
    machine.push([LOW, HIGH])
    assert machine.speaking
    machine.reset(frame=machine.frame)
    assert (machine.frame, machine.speaking) == (2, False)
    assert machine.push([HIGH]) == [SpeechStarted(frame=2, audio_start_ms=64, emitted_ms=96)]
    machine.reset()
    assert machine.push([HIGH]) == [SpeechStarted(frame=0, audio_start_ms=0, emitted_ms=32)]


WRONG_SETTINGS = [
    ("threshold", 1.1),
    ("threshold", float("nan")),
    ("silence_duration_ms", -1),
    ("prefix_padding_ms", -1),
]


@pytest.mark.parametrize("name, wrong", WRONG_SETTINGS)
def test_settings_are_checked(name: str, wrong: float) -> None:
    with pytest.raises(AudioError, match=name):
        ServerVadMachine(**{name: wrong})
    machine = ServerVadMachine(threshold=0.95)
    with pytest.raises(AudioError, match=name):
        machine.configure(**{"threshold": 0.1, name: wrong})
    assert machine.push([HIGH]) == []  # nothing was changed


WRONG_CONSTANTS = [
    ("hysteresis", [-0.1]),
    ("lowest_release", [2]),
    ("min_speech_frames", [0, 1.5]),
    ("silence_rounding", ["sideways"]),
    ("threshold_slope", [0]),
    ("threshold_shift", [float("nan")]),
]


@pytest.mark.parametrize("name, wrongs", WRONG_CONSTANTS)
def test_constants_are_checked(name: str, wrongs: list[Any]) -> None:
    for wrong in wrongs:
        with pytest.raises(AudioError, match=name):
            VadConstants(**{name: wrong})


def test_the_threshold_map_moves_both_thresholds() -> None:
    constants = VadConstants(threshold_slope=2, threshold_shift=0.5)
    assert constants.local(0.5) == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert constants.release(0.5) == constants.local(0.35)
    assert [constants.local(edge) for edge in (0, 1)] == [0, 1]
    mapped = server_vad_segments([0.6] * 5 + [0.63] * 5, constants=constants)
    assert [one.start_frame for one in mapped] == [5]


def test_probabilities_are_a_row() -> None:
    with pytest.raises(AudioError, match=r"\(2, 1\)"):
        server_vad_segments(np.zeros((2, 1)))


# --- the logs ---------------------------------------------------------------------------------------------------------


def test_a_logged_session_comes_out_as_logged() -> None:
    probabilities = np.full(61_408 // FRAME_MS, LOW)
    for start_ms, end_ms in LOGGED:
        first, end = (start_ms + 300) // FRAME_MS, end_ms // FRAME_MS
        probabilities[first : end - 8] = HIGH
    assert spans(probabilities.tolist()) == LOGGED


def test_the_older_log_fits_where_silence_is_rounded_down(speech_folder: Path) -> None:
    """Its shortest segment has 8 frames: 200 ms counted as 6. Inference, from two segments."""
    log = speech_folder.parent / "server-logs" / "openai_2025-01_server_vad_200ms.txt"
    if not log.is_file():
        pytest.skip(f"no {log.name}")
    starts, ends = (map(int, re.findall(rf"{word} +(\d+)", log.read_text())) for word in ("start", "stop"))
    older = list(zip(starts, ends, strict=True))
    cuts = [0, *(k for k in range(1, len(older)) if older[k][0] < older[k - 1][1]), len(older)]
    for first, end in pairwise(cuts):  # sessions
        session = older[first:end]
        probabilities = np.full(session[-1][1] // FRAME_MS, LOW)
        for start_ms, end_ms in session:
            probabilities[start_ms // FRAME_MS : end_ms // FRAME_MS - 7] = HIGH
        constants = VadConstants(silence_rounding="down")
        assert spans(probabilities.tolist(), prefix_padding_ms=0, constants=constants) == session


def test_the_idle_timeout_has_whole_frames() -> None:
    assert idle_timeout_span(13_216, idle_timeout_ms=6_000) == (13_216, 19_232)  # the documented sample
    assert idle_timeout_span(0.5, idle_timeout_ms=32) == (32, 64)
