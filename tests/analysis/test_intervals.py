"""Resamples take whole groups, quantiles are quantiles, bounds are exact: each against a plain way to get it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.analysis.intervals import (
    clopper_pearson,
    effective_turns,
    keeps_share,
    most_events,
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


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.04])
def test_the_turns_needed_suffice_four_times_in_five(rate: float) -> None:
    n = turns_needed(rate, share=0.1)
    assert n is not None
    counts = np.random.default_rng(1).binomial(n, rate, 4000)
    assert np.mean(counts <= most_events(n, share=0.1)) >= 0.79
    assert turns_needed(0.1, share=0.1) is None


@pytest.mark.parametrize("count, per_h", [(0, -np.log(0.05) / 2), (10, 16.96 / 2)])
def test_a_rate_is_a_share_of_seconds(count: int, per_h: float) -> None:
    """Garwood's exact interval of a Poisson rate, 90 % two-sided, in two hours."""
    assert 3600 * clopper_pearson(count, 7200)[1] == pytest.approx(per_h, rel=1e-3)


@pytest.mark.parametrize("uneven, per_h", [(1.0, 30.0), (0.5, 60.0), (0.0, 30.0)])
def test_the_upper_end_of_a_rate_respects_recordings_that_differ(uneven: float, per_h: float) -> None:
    rng, one = np.random.default_rng(4), np.ones((1, 12))
    seconds = np.geomspace(60, 600, 12)
    covered = []
    for _ in range(400):
        rates = per_h * (rng.gamma(1 / uneven, uneven, 12) if uneven else np.ones(12))
        counts = rng.poisson(rates * seconds / 3600).astype(float)[:, None]
        unknown = 1 + 0.5 * per_h / 3600 * float(seconds.mean())
        share, n, _ = effective_turns(one, counts, seconds, most=per_h / 1800, unknown=unknown)
        covered.append(3600 * clopper_pearson(share[0, 0] * n[0, 0], n[0, 0])[1] >= per_h)
    assert np.mean(covered) >= 0.88


@given(n=st.integers(1, 400), count=st.floats(0, 1), share=st.floats(0.01, 1.0))
def test_arrays_keep_a_share_where_the_interval_does(n: int, count: float, share: float) -> None:
    high = clopper_pearson(n * count, n)[1]
    for size in (n, 3 * n):  # the size is, and is not, one of those between which is interpolated
        kept = keeps_share(np.array([n * count, 0]), np.array([n, size]), share=share)[0]
        assert not kept or high <= share + 1e-3
        assert kept or high > 0.97 * share - 1 / n
