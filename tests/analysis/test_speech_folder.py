"""The folder of real speech as a new user has it: each file alone, every pair, and all; no verdict is refuted."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from rtnb.analysis.listening import Heard, listen
from rtnb.analysis.recommendation import recommend
from rtnb.analysis.recordings import Recording, read_audio
from rtnb.analysis.sweeping import evaluate
from rtnb.errors import AudioError
from rtnb.widgets.vad_bench import Bench

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
            audio, rate_hz = read_audio(path)
            found.append(Recording.of_room_tone(audio, rate_hz=rate_hz, name=path.stem))
    assert len(found) > 10
    return found


@pytest.fixture(scope="module")
def heard(recordings: list[Recording]) -> list[Heard]:
    return listen(recordings, progress=False)[0]


def judge(heard: list[Heard]) -> None:
    sweep = evaluate(heard, **GRID)
    delays_ms = sweep.delay_ms[np.isfinite(sweep.delay_ms)]
    assert (delays_ms >= 0).all()
    assert (delays_ms <= np.broadcast_to(sweep.ending_ms + 32, sweep.delay_ms.shape)[np.isfinite(sweep.delay_ms)]).all()
    if not sweep.n_turns:
        return
    answer = recommend(sweep, n_resamples=20)
    rates = sweep.grid("cut_off_rate").to_numpy()
    if answer.verdict.startswith("No setting keeps at most"):
        assert rates.min() > 0.1
        assert f"the least is {100 * rates.min():.1f} %" in answer.verdict
    if rates.min() <= 0.1 and not answer.always_broken:
        assert answer.verdict.startswith(("Take", "Keep", "Not shown"))
    if answer.choice is not None:
        own = sweep.grid("cut_off_rate").loc[answer.choice.threshold, answer.choice.silence_duration_ms]
        assert own == pytest.approx(answer.choice.cut_off)
        assert own <= 0.1
    assert answer.share_clean == pytest.approx(np.mean(rates == 0))
    assert np.isnan(answer.default.no_fire) == (answer.default.n_seen == 0)
    if (short := int((sweep.ending_ms < sweep.silences_ms.max() + 320).sum())) and answer.choice is None:
        assert f"{short} of {sweep.n_turns} turns end too soon" in answer.advice[0]


def test_every_file_alone(heard: list[Heard]) -> None:
    for one in heard:
        judge([one])


def test_every_pair(heard: list[Heard]) -> None:
    for pair in combinations(heard, 2):
        judge(list(pair))


def test_all_files(heard: list[Heard]) -> None:
    judge(heard)


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
    assert bench.figures(0.5, 200, 300)[1][0] == "turns cut off"
