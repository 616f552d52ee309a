"""Recommendations keep their budgets on turns nobody has seen, and say so where the turns cannot tell."""

from dataclasses import replace

import numpy as np
import pytest

from rtnb.analysis.conditions import FRAME_PHASES
from rtnb.analysis.recommendation import recommend
from rtnb.errors import AudioError, RtnbError
from rtnb.protocol import ServerVad
from tests.analysis.grids import THRESHOLDS, grid, phases
from tests.benchmarks.coverage import POWER, SCENARIOS, table


@pytest.mark.parametrize("number", [0, 3, 5, 6, 8, 9])
def test_promises_hold_in_simulation(number: int) -> None:
    """The quick version of tests/benchmarks/coverage.py, with loose bounds."""
    row = table(SCENARIOS[number], 24, None)
    assert row["over"] <= 0.2
    assert min(row["coverage"].values()) >= 0.7
    assert row["shown"] >= (0.0 if SCENARIOS[number].groups < 8 else 0.3)


def test_a_setting_that_is_good_enough_is_shown() -> None:
    assert table(POWER[0], 20, None)["shown"] >= 0.6


def test_too_few_recordings_are_said_to_be_too_few() -> None:
    answer = recommend(grid(100, per_recording=20))
    assert answer.choice is None
    assert answer.verdict.startswith("Not shown: 5 recordings, at least 8 are needed.")
    assert answer.default.cut_off == pytest.approx(
        float(grid(100, per_recording=20).grid("cut_off_rate").loc[0.5, 224])
    )
    with pytest.raises(RtnbError, match="at least 8 are needed"):
        _ = answer.turn_detection
    few = recommend(phases(15))
    assert few.choice is None
    assert few.verdict.startswith("Not shown: 15 turns in 15 recordings leave open: cut-offs")
    assert "at least 29 turns in 8 or more recordings" in few.advice[0]


def test_recordings_of_one_speaker_are_one_group() -> None:
    sweep = grid(150)
    speakers = np.array([f"speaker {k % 3}" for k in range(len(sweep.recordings))])
    answer = recommend(replace(sweep, speakers=speakers))
    assert answer.verdict.startswith("Not shown: 3 speakers, at least 8 are needed.")


def test_an_upper_end_is_raised_by_what_the_search_hides() -> None:
    answer = recommend(grid(60, seed=3))
    assert answer.optimism > 0
    assert answer.out_of_bag > 0
    plain = recommend(grid(60, seed=3), n_resamples=1)
    assert answer.front[0].cut_off_high >= plain.front[0].cut_off_high - plain.optimism


@pytest.mark.parametrize("ending_ms", [0.0, 700.0, 1500.0])
def test_short_endings_are_named_and_are_no_turns_that_never_end(ending_ms: float) -> None:
    sweep = grid(150)
    sweep = replace(sweep, ending_ms=np.full(150, ending_ms))
    answer = recommend(sweep)
    assert "150 of 150 turns end too soon to see silences over" in sweep.short_endings
    assert all(one.n_seen == 0 for one in answer.front if one.silence_duration_ms > ending_ms)
    assert answer.choice is None or answer.choice.silence_duration_ms + 320 <= ending_ms
    if answer.choice is None:
        assert sweep.short_endings in answer.advice
    least = float(sweep.grid("cut_off_rate").to_numpy().min())
    assert min(one.cut_off for one in answer.front) == pytest.approx(least)


def test_the_answer_is_ready_for_the_session_and_for_reading() -> None:
    answer = recommend(phases(150))
    detection = answer.turn_detection
    assert isinstance(detection, ServerVad)
    assert detection.threshold in THRESHOLDS
    assert detection.silence_duration_ms % 32 == 0
    assert detection.prefix_padding_ms == 300
    text = repr(answer)
    for said in (
        "150 turns in 150 recordings",
        "default:",
        "threshold 0.5, silence 224 ms",
        "out of bag",
        "4 frame phases",
    ):
        assert said in text
    assert repr(recommend(phases(150))) == text  # same seed, same answer


def test_constraints_hold_and_are_named_where_nothing_meets_them() -> None:
    quiet = recommend(grid(150, triggers_per_h=(60.0, 40.0, 0.0)))
    assert quiet.choice is not None
    assert quiet.choice.threshold == 0.7
    assert quiet.choice.false_triggers == "0/h (at most 5.99/h; 0 in 30 min)"
    stuck = recommend(grid(150, triggers_per_h=(2.0, 40.0, 0.0)))  # at 0.3 the noise is speech that never stops
    assert stuck.choice is not None
    assert stuck.choice.threshold == 0.7
    noisy = recommend(grid(150, triggers_per_h=(60.0, 50.0, 40.0)))
    assert "false triggers" in noisy.verdict
    assert any("semantic_vad" in line for line in noisy.advice)
    unmeasured = recommend(grid(150, room_h=0.0))
    assert unmeasured.default.false_triggers == "not measured"
    pausing = recommend(grid(150, pause_ms=900))
    assert pausing.choice is None
    assert pausing.verdict.startswith("No setting keeps at most 10 %")
    never = grid(150)
    never.delay_ms[:, 10:, ::4] = np.nan  # long silences never end a quarter of the turns: few cut-offs are no merit
    bought = recommend(never)
    assert bought.choice is None or bought.choice.no_fire <= 0.05


def test_frame_phases_of_a_turn_are_one_turn() -> None:
    names = [phase.name for phase in FRAME_PHASES]
    assert names == ["as recorded", "frame phase +8 ms", "frame phase +16 ms", "frame phase +24 ms"]
    answer, alone = recommend(phases(60), n_resamples=50), recommend(grid(60), n_resamples=50)
    assert (answer.n_turns, answer.n_recordings, answer.n_phases) == (60, 60, 4)
    assert answer.default.cut_off == pytest.approx(alone.default.cut_off, abs=0.05)
    assert answer.default.cut_off_high == pytest.approx(alone.default.cut_off_high, abs=0.08)


def test_the_default_is_kept_where_nothing_is_better() -> None:
    default = ServerVad(threshold=0.7, silence_duration_ms=250)
    answer = recommend(grid(600, pause_ms=60), max_cut_off=0.05, default=default)
    assert answer.choice == answer.default
    assert answer.verdict.startswith("Keep the default")


def test_the_default_must_be_there_to_be_compared_with() -> None:
    small = grid(30)
    other = recommend(small, default=ServerVad(threshold=0.5, silence_duration_ms=500), n_resamples=50)
    assert other.default.silence_duration_ms == 512
    with pytest.raises(AudioError, match=r"does not hold the default, threshold 0\.45 and 224 ms"):
        recommend(small, default=ServerVad(threshold=0.45, silence_duration_ms=200))
    with pytest.raises(AudioError, match="no turns"):
        recommend(grid(0))
    twice = replace(small, conditions=np.resize(["a", "b"], len(small.conditions)))
    with pytest.raises(AudioError, match=r"2 conditions, of which these change the audio: \['a', 'b'\]"):
        recommend(twice)
