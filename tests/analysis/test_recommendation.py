"""Recommendations keep their budgets on unseen turns, and the intervals behind them cover the truth."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rtnb.analysis import intervals
from rtnb.analysis.conditions import FRAME_PHASES
from rtnb.analysis.listening import Heard, listen
from rtnb.analysis.recommendation import recommend
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import evaluate
from rtnb.audio import read_wav
from rtnb.errors import AudioError, RtnbError
from rtnb.protocol import ServerVad
from rtnb.protocol.values import SERVER_VAD_DEFAULTS
from rtnb.tuning.bench import Bench
from tests.analysis.grids import THRESHOLDS, grid, phases
from tests.benchmarks.coverage import POWER, SCENARIOS, table

# --- intervals --------------------------------------------------------------------------------------------------------


def test_a_resample_takes_as_many_groups_as_there_are() -> None:
    weights = intervals.resample_weights(6, n_resamples=500, seed=5)
    assert weights.shape == (500, 6)
    assert (weights.sum(axis=1) == 6).all()
    assert weights.mean(axis=0) == pytest.approx([1.0] * 6, abs=0.15)
    assert (weights == intervals.resample_weights(6, n_resamples=500, seed=5)).all()


@given(n=st.integers(1, 90), seed=st.integers(0, 99), share=st.sampled_from([0.05, 0.5, 0.9, 1.0]))
def test_quantiles_are_those_of_the_repeated_turns(n: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 12, (3, n)).astype(float)
    values[rng.random((3, n)) < 0.1] = np.inf
    values[rng.random((3, n)) < 0.1] = np.nan
    weights = intervals.resample_weights(n, n_resamples=4, seed=1)
    found = intervals.weighted_quantiles(values, weights, share=share)
    for number, row in np.ndindex(4, 3):
        turns = np.repeat(values[row], weights[number].astype(int))
        turns = turns[~np.isnan(turns)]
        expected = np.quantile(turns, share, method="inverted_cdf") if len(turns) else np.nan
        assert np.array_equal(found[number, row], expected, equal_nan=True)


def test_turns_that_resemble_each_other_count_as_fewer() -> None:
    turns, rng = np.full(20, 10.0), np.random.default_rng(0)
    independent = rng.binomial(10, 0.2, (20, 200)).astype(float)
    alike = 10.0 * (rng.random((20, 200)) < 0.2)
    one = np.ones((1, 20))
    assert intervals.effective_turns(one, independent, turns)[1].mean() == pytest.approx(160, abs=30)
    assert intervals.effective_turns(one, alike, turns)[1].mean() == pytest.approx(20, abs=2)
    share, n, _ = intervals.effective_turns(np.ones((1, 3)), independent[:3], turns[:3])
    assert (n == 3).all()  # too few groups to know how they differ
    assert share[0] == pytest.approx(independent[:3].sum(axis=0) / 30)


@given(n=st.integers(1, 8000), share=st.floats(0, 1))
def test_an_interval_is_the_exact_one(n: int, share: float) -> None:
    k = round(share * n)
    expected = binomtest(k, n).proportion_ci(0.9, method="exact")
    assert intervals.clopper_pearson(k, n) == pytest.approx(tuple(expected), rel=1e-6)


def test_nothing_seen_may_be_anything_and_more_than_all_is_refused() -> None:
    assert intervals.clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(AudioError, match="between 0 and n = 3"):
        intervals.clopper_pearson(4, 3)


@given(n=st.integers(1, 400), share=st.floats(0.01, 0.6))
def test_the_most_events_are_the_last_whose_bound_keeps_the_share(n: int, share: float) -> None:
    most = int(np.floor(intervals.most_events(n, share=share) + 1e-6))
    if most >= 0:
        assert intervals.clopper_pearson(most, n)[1] <= share + 1e-5
    assert intervals.clopper_pearson(most + 1, n)[1] > share - 1e-5


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.04])
def test_the_turns_needed_suffice_four_times_in_five(rate: float) -> None:
    n = intervals.turns_needed(rate, share=0.1)
    assert n is not None
    counts = np.random.default_rng(1).binomial(n, rate, 4000)
    assert np.mean(counts <= intervals.most_events(n, share=0.1)) >= 0.79
    assert intervals.turns_needed(0.1, share=0.1) is None


@pytest.mark.parametrize("uneven, per_h", [(1.0, 30.0), (0.5, 60.0), (0.0, 30.0)])
def test_the_upper_end_of_a_rate_respects_recordings_that_differ(uneven: float, per_h: float) -> None:
    rng, one = np.random.default_rng(4), np.ones((1, 12))
    seconds = np.geomspace(60, 600, 12)
    covered = []
    for _ in range(400):
        rates = per_h * (rng.gamma(1 / uneven, uneven, 12) if uneven else np.ones(12))
        counts = rng.poisson(rates * seconds / 3600).astype(float)[:, None]
        unknown = 1 + 0.5 * per_h / 3600 * float(seconds.mean())
        share, n, _ = intervals.effective_turns(one, counts, seconds, most=per_h / 1800, unknown=unknown)
        covered.append(3600 * intervals.clopper_pearson(share[0, 0] * n[0, 0], n[0, 0])[1] >= per_h)
    assert np.mean(covered) >= 0.88


@given(n=st.integers(1, 400), count=st.floats(0, 1), share=st.floats(0.01, 1.0))
def test_arrays_keep_a_share_where_the_interval_does(n: int, count: float, share: float) -> None:
    high = intervals.clopper_pearson(n * count, n)[1]
    for size in (n, 3 * n):  # the size is, and is not, one of those between which is interpolated
        kept = intervals.keeps_share(np.array([n * count, 0]), np.array([n, size]), share=share)[0]
        assert not kept or high <= share + 1e-3
        assert kept or high > 0.97 * share - 1 / n


# --- recommendations --------------------------------------------------------------------------------------------------


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
    sweep = grid(100, per_recording=20)
    answer = recommend(sweep)
    assert answer.choice is None
    assert answer.verdict.startswith("Not shown: 5 recordings, at least 8 are needed.")
    assert answer.default.cut_off == pytest.approx(sweep.grid("cut_off_rate").loc[0.5, 224])
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
    assert (detection.silence_duration_ms % 32, detection.prefix_padding_ms) == (0, 300)
    text = repr(answer)
    parts = ["150 turns in 150 recordings", "default:", "threshold 0.5, silence 224 ms", "out of bag", "4 frame phases"]
    assert [part for part in parts if part not in text] == []
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


# --- the folder of real speech ----------------------------------------------------------------------------------------


GRID = {"thresholds": [0.3, 0.5, 0.7, 0.9], "silences_ms": range(224, 1633, 160), "prefixes_ms": [300]}


@pytest.fixture(scope="module")
def recordings(speech_folder: Path) -> list[Recording]:
    """Every file that can be read as speech; the room without speech is room tone."""
    found = []
    for path in sorted(speech_folder.iterdir()):
        if path.suffix not in (".wav", ".flac", ".mp3"):
            continue
        try:
            found.append(Recording.load(path))
        except AudioError:  # nothing stands out, or the package soundfile is missing
            audio, rate_hz = read_wav(path)
            found.append(Recording.of_room_tone(audio, rate_hz=rate_hz, name=path.stem))
    assert len(found) > 10
    return found


@pytest.fixture(scope="module")
def heard(recordings: list[Recording]) -> list[Heard]:
    return listen(recordings, progress=False)[0]


LIMITS = {"cut_off_rate": 0.1, "missed_rate": 0.05, "no_fire_rate": 0.05, "false_triggers_per_h": 30.0}
BUDGETS = dict(zip(LIMITS, ("cut-offs", "missed turns", "never-ending turns", "false triggers"), strict=True))


def refuted(*heard: Heard) -> list[str]:
    """Return what is wrong with a recommendation, judged by its own sweep."""
    sweep = evaluate(heard, **GRID)
    if not sweep.n_turns:
        return []
    known_ms = sweep.delay_ms[np.isfinite(sweep.delay_ms)]
    longest_ms = np.broadcast_to(sweep.ending_ms + 32, sweep.delay_ms.shape)[np.isfinite(sweep.delay_ms)]
    answer = recommend(sweep, n_resamples=20)
    rates, choice, verdict = sweep.grid("cut_off_rate").to_numpy(), answer.choice, answer.verdict
    least = rates.min()
    broken = {BUDGETS[name] for name, limit in LIMITS.items() if (sweep.grid(name).to_numpy() > limit).all()}
    clear = ("Take", "Keep", "Not shown")
    wrong = {
        "a delay is negative or longer than its ending": (known_ms < 0).any() or (known_ms > longest_ms).any(),
        "some setting keeps the cut-offs": verdict.startswith("No setting keeps at most") and least <= 0.1,
        "the least is another": "the least is" in verdict and f"the least is {100 * least:.1f} %" not in verdict,
        "a budget that no setting keeps": bool(broken - {"false triggers"} - set(answer.always_broken)),
        "a budget that some setting keeps": not set(answer.always_broken) <= {*broken, "false triggers"},
        "nothing is shown or open": least <= 0.1 and not answer.always_broken and not verdict.startswith(clear),
        "the share of clean settings": answer.share_clean != pytest.approx(np.mean(rates == 0)),
        "never-ending turns": np.isnan(answer.default.no_fire) != (answer.default.n_seen == 0),
    }
    if choice is not None:
        own = sweep.grid("cut_off_rate").loc[choice.threshold, choice.silence_duration_ms]
        wrong["the choice"] = own != pytest.approx(choice.cut_off) or own > 0.1
    elif short := int((sweep.ending_ms < sweep.silences_ms.max() + 320).sum()):
        wrong["short endings"] = f"{short} of {sweep.n_turns} turns end too soon" not in answer.advice[0]
    return [f"{name}: {verdict}" for name, is_wrong in wrong.items() if is_wrong]


@pytest.mark.parametrize("size", [1, 2])
def test_every_file_alone_and_every_pair(heard: list[Heard], size: int) -> None:
    assert [problem for some in combinations(heard, size) for problem in refuted(*some)] == []


def test_all_files(heard: list[Heard]) -> None:
    assert refuted(*heard) == []


def test_the_lab_says_what_recommend_says(recordings: list[Recording]) -> None:
    for number in (0, len(recordings) // 2, len(recordings) - 1):
        pair = [recordings[number], recordings[number - 1]]
        bench = Bench(pair)
        assert bench.sweep is not None
        if bench.recommendation is not None:
            assert bench.recommendation.verdict == recommend(evaluate(listen(pair, progress=False)[0])).verdict


def test_a_clip_that_ends_with_its_last_word(speech_folder: Path) -> None:
    pytest.importorskip("soundfile")
    clip = Recording.load(speech_folder / "jfk.flac")
    bench = Bench([clip])
    assert bench.recommendation is not None
    assert "end too soon to see silences over" in bench.recommendation.advice[0]
    assert bench.metrics(SERVER_VAD_DEFAULTS)["cut_off_rate"] in (0, 1)
