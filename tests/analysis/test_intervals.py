"""Resamples take whole groups, quantiles are quantiles, bounds are exact: each against a plain way to get it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.analysis.intervals import (
    clopper_pearson,
    effective_turns,
    incomplete_beta,
    most_events,
    poisson_upper,
    resample_weights,
    turns_needed,
    weighted_quantiles,
)
from rtnb.errors import AudioError


def test_a_resample_takes_as_many_groups_as_there_are() -> None:
    weights = resample_weights(6, n_resamples=500, seed=5)
    assert weights.shape == (500, 6)
    assert (weights.sum(axis=1) == 6).all()
    assert weights.mean(axis=0) == pytest.approx([1.0] * 6, abs=0.15)
    assert (weights == resample_weights(6, n_resamples=500, seed=5)).all()


@given(st.data())
def test_quantiles_are_those_of_the_repeated_turns(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 90))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.integers(0, 12, (3, n)).astype(float)
    values[rng.random((3, n)) < 0.1] = np.inf
    values[rng.random((3, n)) < 0.1] = np.nan
    weights = resample_weights(n, n_resamples=4, seed=1)
    share = data.draw(st.sampled_from([0.05, 0.5, 0.9, 1.0]))
    quantiles = weighted_quantiles(values, weights, share=share)
    for number, often in enumerate(weights.astype(int)):
        for row in range(3):
            turns = np.sort(np.repeat(values[row], often))
            turns = turns[~np.isnan(turns)]
            found = quantiles[number, row]
            assert (
                np.isnan(found)
                if not len(turns)
                else found == turns[max(0, int(np.ceil(share * len(turns) - 1e-6)) - 1)]
            )


def test_turns_that_resemble_each_other_count_as_fewer() -> None:
    turns, rng = np.full(20, 10.0), np.random.default_rng(0)
    independent = rng.binomial(10, 0.2, (20, 200)).astype(float)
    alike = 10.0 * (rng.random((20, 200)) < 0.2)
    one = np.ones((1, 20))
    assert effective_turns(one, independent, turns)[1].mean() == pytest.approx(160, abs=30)
    assert effective_turns(one, alike, turns)[1].mean() == pytest.approx(20, abs=2)
    share, n, _ = effective_turns(np.ones((1, 3)), independent[:3], turns[:3])
    assert (n == 3).all()  # too few groups to know how they differ
    assert share[0] == pytest.approx(independent[:3].sum(axis=0) / 30)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    n, truth = 40, 0.07
    counts = np.random.default_rng(0).binomial(n, truth, 3000)
    ends = np.array([clopper_pearson(k, n) for k in range(n + 1)])
    held = (ends[counts, 0] <= truth) & (truth <= ends[counts, 1])
    assert held.mean() >= 0.9
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(AudioError, match="between 0 and n = 3"):
        clopper_pearson(4, 3)


@given(n=st.integers(1, 400), share=st.floats(0.01, 0.6))
def test_the_most_events_are_the_last_whose_bound_keeps_the_share(n: int, share: float) -> None:
    most = int(np.floor(most_events(n, share=share) + 1e-6))
    if most >= 0:
        assert clopper_pearson(most, n)[1] <= share + 1e-5
    assert clopper_pearson(most + 1, n)[1] > share - 1e-5


@pytest.mark.parametrize(
    "a, b, x",
    [
        (76.5771979489866, 68.53589892957912, 0.5273303301678339),
        (294.1466882319096, 304.8703437965211, 0.49107874237072846),
    ],
)
def test_the_beta_function_ends_where_both_sides_prefer_their_complement(a: float, b: float, x: float) -> None:
    """Rounding puts x and 1 - x both above the points from which on the complement is taken."""
    assert x > (a + 1) / (a + b + 2)
    assert 1 - x > (b + 1) / (a + b + 2)
    assert incomplete_beta(a, b, x) + incomplete_beta(b, a, 1 - x) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.04])
def test_the_turns_needed_suffice_four_times_in_five(rate: float) -> None:
    n = turns_needed(rate, share=0.1)
    assert n is not None
    counts = np.random.default_rng(1).binomial(n, rate, 4000)
    assert np.mean(counts <= most_events(n, share=0.1)) >= 0.79
    assert turns_needed(0.1, share=0.1) is None


def test_a_rate_that_was_never_observed_has_an_upper_end_all_the_same() -> None:
    assert poisson_upper(0, 2.0) == pytest.approx(-np.log(0.05) / 2)
    assert poisson_upper(10, 1.0) == pytest.approx(16.96, abs=0.01)  # Garwood's table, 90 % two-sided
