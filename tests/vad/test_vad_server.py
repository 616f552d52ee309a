import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.errors import AudioError
from rtnb.vad import (
    FRAME_MS,
    Segment,
    ServerVadMachine,
    SpeechStarted,
    SpeechStopped,
    VadConstants,
    idle_timeout_span,
    server_vad_segments,
)

HIGH, MIDDLE, LOW = 0.9, 0.4, 0.1

# (audio_start_ms, audio_end_ms) of a real session, May 2025, gpt-4o-realtime-preview era, threshold 0.5, prefix 300,
# silence 200; from the public log in the GitHub repository ctvidic/banyan-landing.
LOGGED = [
    (4308, 4896), (33908, 34560), (43604, 44384), (44180, 45824), (48564, 49728), (49556, 50208),
    (50228, 50848), (52948, 53536), (54388, 57120), (56884, 59552), (60756, 61408),
]  # fmt: skip


TWO_FRAMES = {"silence_duration_ms": 64}
CLOSE = {"constants": VadConstants(hysteresis=0.25)}
FAINT: dict[str, Any] = {"threshold": 0.1, "silence_duration_ms": 0}


def spans(probabilities: list[float], **settings: Any) -> list[tuple[int, int | None]]:
    return [(one.audio_start_ms, one.audio_end_ms) for one in server_vad_segments(probabilities, **settings)]


def test_the_shortest_segment_has_nine_frames() -> None:
    (segment,) = server_vad_segments([LOW] * 20 + [HIGH] + [LOW] * 20)
    assert segment == Segment(20, 29, 20 * 32 - 300, 29 * 32, 21 * 32)
    assert segment.audio_end_ms - (segment.audio_start_ms + 300) == 288  # type: ignore[operator]


def test_events_say_what_and_when() -> None:
    events = ServerVadMachine(silence_duration_ms=0).push([LOW, HIGH, MIDDLE, LOW, HIGH])
    assert events == [
        SpeechStarted(frame=1, audio_start_ms=0, emitted_ms=64),
        SpeechStopped(frame=4, audio_end_ms=128),
        SpeechStarted(frame=4, audio_start_ms=0, emitted_ms=160),
    ]


@pytest.mark.parametrize("silence, frames", [(0, 0), (1, 1), (32, 1), (33, 2), (200, 7), (224, 7), (225, 8), (500, 16)])
def test_silence_is_rounded_up_to_frames(silence: int, frames: int) -> None:
    (segment,) = server_vad_segments([HIGH] + [LOW] * 40, silence_duration_ms=silence)
    assert segment.stop_frame == 1 + 1 + frames


SEGMENTS: dict[str, tuple[Any, dict[str, Any], list[tuple[int, int | None]]]] = {
    "the threshold is inclusive": ([0.5], {}, [(0, None)]),
    "in float32, too": (np.array([0.5], np.float32), {}, [(0, None)]),
    "below it is no speech": ([0.4999999], {}, []),
    "nothing": ([], {}, []),
    # The timer starts with frame 1 and has lasted after frame 3; frames 2 to 5 are in the middle; frame 6 fires.
    "the middle does not cancel": ([HIGH, LOW, *[MIDDLE] * 4, LOW], TWO_FRAMES, [(0, 7 * 32)]),
    "the middle does not fire": ([HIGH] + [MIDDLE] * 100, TWO_FRAMES, [(0, None)]),
    "speech cancels the timer": ([HIGH, LOW, LOW, HIGH, LOW, LOW, LOW], TWO_FRAMES, [(0, 7 * 32)]),
    "the prefix is cut at the start but not at the last end": (
        [LOW] * 9 + [HIGH, LOW, LOW, HIGH, LOW, LOW], {"silence_duration_ms": 32}, [(0, 384), (84, 480)]
    ),
    "above the release threshold": ([HIGH] + [0.26] * 20, CLOSE, [(0, None)]),
    "the release threshold is exclusive": ([HIGH] + [0.25] * 20, CLOSE, [(0, None)]),
    "below the release threshold": ([HIGH] + [0.2499] * 20, CLOSE, [(0, 9 * 32)]),
    "the release threshold has a floor": ([0.1, 0.02, 0.02], FAINT, [(0, None)]),
    "below the floor": ([0.1, 0.009], FAINT, [(0, 64)]),
    "another floor": ([0.1, 0.04], FAINT | {"constants": VadConstants(lowest_release=0.05)}, [(0, 64)]),
}  # fmt: skip


@pytest.mark.parametrize("probabilities, settings, expected", SEGMENTS.values(), ids=SEGMENTS)
def test_segments(probabilities: Any, settings: dict[str, Any], expected: list[tuple[int, int | None]]) -> None:
    assert spans(probabilities, **settings) == expected


def test_more_frames_to_start() -> None:
    probabilities = [HIGH, LOW, HIGH, HIGH, MIDDLE, HIGH, HIGH, HIGH, LOW]
    (segment,) = server_vad_segments(probabilities, prefix_padding_ms=0, constants=VadConstants(min_speech_frames=3))
    assert (segment.start_frame, segment.audio_start_ms, segment.started_emitted_ms) == (5, 160, 256)


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


@pytest.mark.parametrize(
    "settings",
    [{"threshold": 1.1}, {"threshold": float("nan")}, {"silence_duration_ms": -1}, {"prefix_padding_ms": -1}],
)
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(AudioError, match=name):
        ServerVadMachine(**settings)
    machine = ServerVadMachine(threshold=0.95)
    with pytest.raises(AudioError, match=name):
        machine.configure(**settings, **({} if name == "threshold" else {"threshold": 0.1}))
    assert machine.push([HIGH]) == []  # nothing was changed


@pytest.mark.parametrize(
    "constant",
    [
        {"hysteresis": -0.1},
        {"lowest_release": 2},
        {"min_speech_frames": 0},
        {"min_speech_frames": 1.5},
        {"silence_rounding": "sideways"},
        {"threshold_slope": 0},
        {"threshold_shift": float("nan")},
    ],
)
def test_constants_are_checked(constant: dict[str, Any]) -> None:
    with pytest.raises(AudioError, match=next(iter(constant))):
        VadConstants(**constant)


def test_the_rounding_of_silence_is_a_constant() -> None:
    for rounding, frames in (("up", 7), ("nearest", 6), ("down", 6)):
        constants = VadConstants(silence_rounding=rounding)
        (segment,) = server_vad_segments([HIGH] + [LOW] * 20, constants=constants)
        assert segment.stop_frame == 2 + frames


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


def test_a_logged_session_comes_out_as_logged() -> None:
    probabilities = np.full(61_408 // FRAME_MS, LOW)
    for start_ms, end_ms in LOGGED:
        first, end = (start_ms + 300) // FRAME_MS, end_ms // FRAME_MS
        probabilities[first : end - 8] = HIGH
    assert spans(probabilities.tolist()) == LOGGED


def logged(speech_folder: Path, name: str) -> list[tuple[int, int]]:
    """(audio_start_ms, audio_end_ms) of all segments in a read-out of a service's log."""
    log = speech_folder.parent / "server-logs" / name
    if not log.is_file():
        pytest.skip(f"no {log.name}")
    starts, ends = (re.findall(rf"{word} +(\d+)", log.read_text()) for word in ("start", "stop"))
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def fits(segments: list[tuple[int, int]], *, prefix_ms: int, least_frames: int) -> None:
    """The arithmetic of the logs: whole frames, none shorter, none heard before the last is over."""
    for start, end in segments:
        assert start == 0 or (start + prefix_ms) % FRAME_MS == 0
        assert end % FRAME_MS == 0
        assert start == 0 or end - (start + prefix_ms) >= least_frames * FRAME_MS
    for (_, before), (start, _) in pairwise(segments):
        assert start + prefix_ms >= before


def test_arithmetic_of_the_logged_sessions(speech_folder: Path) -> None:
    recent = logged(speech_folder, "openai_2025-05_server_vad_200ms.txt")
    assert len(recent) == 12
    for session in (recent[:11], recent[11:]):
        fits(session, prefix_ms=300, least_frames=9)
    assert min(end - start - 300 for start, end in recent) == 9 * FRAME_MS  # and no longer than need be
    assert any(start < before for (_, before), (start, _) in pairwise(recent[:11]))  # the prefix overlaps
    older = logged(speech_folder, "openai_2025-01_server_vad_200ms.txt")  # the prefix was not in audio_start_ms then
    assert len(older) == 54
    assert min(end - start for start, end in older) == 8 * FRAME_MS
    assert all(start % FRAME_MS == end % FRAME_MS == 0 for start, end in older)


@given(st.lists(st.tuples(st.sampled_from([HIGH, MIDDLE, LOW]), st.integers(1, 12)), max_size=40))
def test_every_boundary_at_the_logged_settings_fits_the_logs(runs: list[tuple[float, int]]) -> None:
    probabilities = [probability for probability, n in runs for _ in range(n)]
    found = server_vad_segments(probabilities, threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200)
    fits([(one.audio_start_ms, one.audio_end_ms) for one in found if one.audio_end_ms is not None],
         prefix_ms=300, least_frames=9)  # fmt: skip
    for one in found:
        assert one.started_emitted_ms == FRAME_MS * (one.start_frame + 1)  # told with the frame, 332 ms after the start
        assert one.audio_start_ms == max(0, one.started_emitted_ms - FRAME_MS - 300)


def test_the_older_log_fits_where_silence_is_rounded_down(speech_folder: Path) -> None:
    """Its shortest segment has 8 frames: 200 ms counted as 6. Inference, from two segments."""
    older = logged(speech_folder, "openai_2025-01_server_vad_200ms.txt")
    cuts = [0, *(k for k in range(1, len(older)) if older[k][0] < older[k - 1][1]), len(older)]
    for first, end in pairwise(cuts):  # sessions
        session = older[first:end]
        probabilities = np.full(session[-1][1] // FRAME_MS, LOW)
        for start_ms, end_ms in session:
            probabilities[start_ms // FRAME_MS : end_ms // FRAME_MS - 7] = HIGH
        constants = VadConstants(silence_rounding="down")
        assert spans(probabilities.tolist(), prefix_padding_ms=0, constants=constants) == session


def test_billed_tokens_of_the_logged_session(speech_folder: Path) -> None:
    log = speech_folder.parent / "server-logs" / "openai_2025-01_audio_tokens.txt"
    if not log.is_file():
        pytest.skip(f"no {log.name}")
    rows = re.findall(r"minus prev_out (\d+) user durs/100ms since \[(.+?)\]", log.read_text())
    errors = [int(tokens) - sum(map(float, lengths.split(", "))) for tokens, lengths in rows]
    assert len(errors) >= 20
    assert np.mean(np.abs(errors) <= 3) >= 0.9  # ten tokens a second, silence and padding included
    assert np.abs(errors).max() < 6


def test_the_idle_timeout_has_whole_frames() -> None:
    assert idle_timeout_span(13_216, idle_timeout_ms=6_000) == (13_216, 19_232)  # the documented sample
    assert idle_timeout_span(0.5, idle_timeout_ms=32) == (32, 64)


frames = st.lists(st.sampled_from([HIGH, 0.5, MIDDLE, 0.35, LOW]), max_size=120)


@given(frames, st.lists(st.integers(0, 20), max_size=20), st.integers(0, 400), st.integers(0, 400), st.integers(1, 3))
def test_chunking_changes_nothing(
    probabilities: list[float], lengths: list[int], silence: int, prefix: int, least: int
) -> None:
    settings: dict[str, Any] = {"silence_duration_ms": silence, "prefix_padding_ms": prefix}
    settings["constants"] = VadConstants(min_speech_frames=least)
    machine = ServerVadMachine(**settings)
    chunks = np.split(np.array(probabilities), np.cumsum(lengths, dtype=int))
    pieces = [event for chunk in chunks for event in machine.push(chunk)]
    assert pieces == ServerVadMachine(**settings).push(probabilities)


@given(frames, st.integers(0, 400), st.integers(0, 400))
def test_arithmetic_of_every_segment(probabilities: list[float], silence: int, prefix: int) -> None:
    segments = server_vad_segments(probabilities, silence_duration_ms=silence, prefix_padding_ms=prefix)
    for before, one in zip((None, *segments), segments, strict=False):
        assert one.audio_start_ms == max(0, FRAME_MS * one.start_frame - prefix)
        assert one.started_emitted_ms == FRAME_MS * (one.start_frame + 1)
        assert probabilities[one.start_frame] >= 0.5
        assert before is None or (before.stop_frame is not None and before.stop_frame <= one.start_frame)
        if one.stop_frame is not None:
            assert one.audio_end_ms == FRAME_MS * one.stop_frame
            assert one.stop_frame - one.start_frame >= 2 + -(-silence // FRAME_MS)
            assert probabilities[one.stop_frame - 1] < 0.35


@given(frames, st.integers(0, 400))
def test_same_as_the_rule_spelled_out(probabilities: list[float], silence: int) -> None:
    """Another way to the same answer: from each start look for the first low frame late enough after its timer."""
    expected, at = [], 0
    while (first := next((i for i in range(at, len(probabilities)) if probabilities[i] >= 0.5), None)) is not None:
        at = first + 1
        armed = None
        while at < len(probabilities):
            if probabilities[at] >= 0.5:
                armed = None
            elif probabilities[at] < 0.35:
                armed = at if armed is None else armed
                if (at - armed) * FRAME_MS >= silence:
                    break
            at += 1
        at += 1
        expected.append((first, at if at <= len(probabilities) else None))
    found = server_vad_segments(probabilities, silence_duration_ms=silence)
    assert [(one.start_frame, one.stop_frame) for one in found] == expected
