"""The folder of real speech as a new user has it: each file alone, every pair, and all; no verdict is refuted."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from rtnb.analysis.listening import Heard, listen
from rtnb.analysis.recommendation import recommend
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import evaluate
from rtnb.audio import read_wav
from rtnb.errors import AudioError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS
from rtnb.tuning.bench import Bench

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


def refuted(heard: list[Heard]) -> list[str]:
    """Return what is wrong with a recommendation, judged by its own sweep."""
    sweep = evaluate(heard, **GRID)
    delays_ms, known = sweep.delay_ms, np.isfinite(sweep.delay_ms)
    longest_ms = np.broadcast_to(sweep.ending_ms + 32, delays_ms.shape)
    if not sweep.n_turns:
        return []
    answer = recommend(sweep, n_resamples=20)
    rates, choice = sweep.grid("cut_off_rate").to_numpy(), answer.choice
    least, verdict = rates.min(), answer.verdict
    broken = [BUDGETS[name] for name, limit in LIMITS.items() if (sweep.grid(name).to_numpy() > limit).all()]
    wrong = {
        "a delay is negative or longer than its ending": not (
            (delays_ms[known] >= 0).all() and (delays_ms[known] <= longest_ms[known]).all()
        ),
        "some setting keeps the cut-offs": verdict.startswith("No setting keeps at most") and least <= 0.1,
        "the least is another": "the least is" in verdict and f"the least is {100 * least:.1f} %" not in verdict,
        "a budget that no setting keeps": not set(answer.always_broken) >= set(broken) - {"false triggers"},
        "a budget that some setting keeps": not set(answer.always_broken) <= {*broken, "false triggers"},
        "nothing is shown or open": least <= 0.1
        and not answer.always_broken
        and not verdict.startswith(("Take", "Keep", "Not shown")),
        "the share of clean settings": answer.share_clean != pytest.approx(np.mean(rates == 0)),
        "never-ending turns": np.isnan(answer.default.no_fire) != (answer.default.n_seen == 0),
    }
    if choice is not None:
        own = sweep.grid("cut_off_rate").loc[choice.threshold, choice.silence_duration_ms]
        wrong["the choice"] = own != pytest.approx(choice.cut_off) or own > 0.1
    elif short := int((sweep.ending_ms < sweep.silences_ms.max() + 320).sum()):
        wrong["short endings"] = f"{short} of {sweep.n_turns} turns end too soon" not in answer.advice[0]
    return [f"{name}: {verdict}" for name, is_wrong in wrong.items() if is_wrong]


def test_every_file_alone(heard: list[Heard]) -> None:
    assert [problem for one in heard for problem in refuted([one])] == []


def test_every_pair(heard: list[Heard]) -> None:
    assert [problem for pair in combinations(heard, 2) for problem in refuted(list(pair))] == []


def test_all_files(heard: list[Heard]) -> None:
    assert refuted(heard) == []


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
