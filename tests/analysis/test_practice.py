"""Turns to practise on are what their labels say, and sound like speech to turn detection."""

import numpy as np
import pytest

from rtnb.analysis.recordings import PAUSE_MS, distant_talk, thinking_aloud
from rtnb.analysis.sweeping import sweep
from rtnb.audio import babble
from rtnb.errors import AudioError

PHRASES = [babble(text, seed=k).audio for k, text in enumerate(("well", "let me see", "a table for two", "on Friday"))]


def test_the_pauses_are_those_of_people_and_the_labels_are_exact() -> None:
    turns = thinking_aloud(PHRASES, rate_hz=24_000, n_turns=200, pauses=2)
    lengths = [end - start for one in turns for start, end in one.turns[0].pauses]
    assert np.median(lengths) == pytest.approx(PAUSE_MS[0], rel=0.15)
    assert np.quantile(lengths, 0.9) == pytest.approx(PAUSE_MS[1], rel=0.2)
    for one in turns[:10]:
        (turn,) = one.turns
        loud = np.flatnonzero(np.abs(one.audio) > max(0.004, 0.02 * np.abs(one.audio).max())) / 24
        assert loud[0] == pytest.approx(turn.start_ms, abs=20)
        assert loud[-1] == pytest.approx(turn.end_ms, abs=20)
        for start, end in turn.pauses:
            assert np.abs(one.audio[int(start * 24) + 24 : int(end * 24) - 24]).max() < 0.005


def test_same_seed_same_turns() -> None:
    one, again = (thinking_aloud(PHRASES, rate_hz=24_000, n_turns=2, seed=5)[1] for _ in range(2))
    assert (one.audio == again.audio).all()
    with pytest.raises(AudioError, match="no phrases"):
        thinking_aloud([], rate_hz=24_000)
    with pytest.raises(AudioError, match="silent"):
        thinking_aloud([np.zeros(100)], rate_hz=24_000)


def test_turn_detection_hears_the_turns_and_is_fooled_by_the_room() -> None:
    found = sweep(
        [*thinking_aloud(PHRASES, rate_hz=24_000, n_turns=6), distant_talk(PHRASES, rate_hz=24_000, length_s=30)],
        thresholds=[0.3, 0.5],
        cache=False,
        progress=False,
    )
    assert not found.missed.any()
    assert found.grid("no_fire_rate").loc[0.5, 224] == 0
    assert found.grid("cut_off_rate").loc[0.5, 224] > 0
    assert found.grid("false_triggers_per_h").loc[0.3, 224] > 0
