"""Draws are draws, quantiles are quantiles, bounds are exact: each against a plain way to the same number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.analysis.bootstrap import (
    draw_weights,
    highest_rate,
    most_events,
    share_interval,
    turns_needed,
    weighted_counts,
    weighted_quantiles,
)
from rtnb.errors import AudioError


def test_a_draw_takes_whole_groups_as_many_as_there_are() -> None:
    groups = np.array([7, 7, 3, 9, 9, 9])
    weights = draw_weights(groups, n_phases=4, n_draws=500, seed=5).reshape(500, 4, 6)
    assert (weights[:, :, 0] == weights[:, :, 1]).all()
    firsts = weights[:, :, [0, 2, 3]]
    assert (firsts.sum(axis=(1, 2)) == 3).all()
    assert firsts.mean(axis=(0, 2)) == pytest.approx([0.25] * 4, abs=0.05)  # every phase as often as any other
    assert (weights == draw_weights(groups, n_phases=4, n_draws=500, seed=5).reshape(500, 4, 6)).all()


@given(st.data())
def test_counts_and_quantiles_are_those_of_the_repeated_turns(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 90))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.integers(0, 12, (3, n)).astype(float)
    values[rng.random((3, n)) < 0.1] = np.inf
    flags = values > 6
    flags[1] = flags[0]
    weights = draw_weights(np.arange(n), n_draws=4, seed=1)
    share = data.draw(st.sampled_from([0.05, 0.5, 0.9, 1.0]))
    counts, quantiles = weighted_counts(flags, weights), weighted_quantiles(values, weights, share=share)
    for draw, often in enumerate(weights.astype(int)):
        for row in range(3):
            assert counts[draw, row] == np.repeat(flags[row], often).sum()
            turns = np.sort(np.repeat(values[row], often))
            assert quantiles[draw, row] == turns[max(0, int(np.ceil(share * len(turns) - 1e-6)) - 1)]


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    n, truth = 40, 0.07
    counts = np.random.default_rng(0).binomial(n, truth, 3000)
    ends = np.array([share_interval(k, n) for k in range(n + 1)])
    held = (ends[counts, 0] <= truth) & (truth <= ends[counts, 1])
    assert held.mean() >= 0.9
    assert share_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(AudioError, match="between 0 and n = 3"):
        share_interval(4, 3)


@given(n=st.integers(1, 400), share=st.floats(0.01, 0.6))
def test_the_most_events_are_the_last_whose_bound_keeps_the_share(n: int, share: float) -> None:
    most = most_events(n, share=share)
    if most >= 0:
        assert share_interval(most, n)[1] <= share + 1e-6
    assert share_interval(most + 1, n)[1] > share - 1e-6


def test_how_many_turns_are_enough() -> None:
    assert [turns_needed(0.0, share=share) for share in (0.2, 0.1, 0.05, 0.01)] == [14, 29, 59, 299]
    assert turns_needed(0.1, share=0.1) is None
    needed = turns_needed(0.05, share=0.1)
    assert needed is not None
    assert share_interval(int(np.ceil(0.05 * needed)), needed)[1] <= 0.1


def test_a_rate_seen_never_has_an_upper_end_all_the_same() -> None:
    assert highest_rate(0, 2.0) == pytest.approx(-np.log(0.05) / 2)
    assert highest_rate(10, 1.0) == pytest.approx(16.96, abs=0.01)  # Garwood's table, 90 % two-sided
