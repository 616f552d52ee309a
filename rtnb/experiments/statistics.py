"""Statistics of repeated runs: estimates over cases, paired differences, and whether they are shown.

Repeats of a case resemble each other, so the case is the unit: the repeats of a case are averaged first, and all
resampling takes whole cases. 20 repeats of 3 cases stay 3 cases.

References
----------
Intervals: percentile bootstrap over cases, with the levels widened for few cases (T. Hesterberg, The American
Statistician 69 (2015), 371–386, "expanded percentile"). Shares get two cases more, one on each side (A. Agresti and
Y. Min, Statistics in Medicine 24 (2005), 729–740), so that an outcome without exceptions keeps an interval. P values:
sign-flip permutation test of the paired differences (R. A. Fisher, The Design of Experiments, 1935), corrected for the
number of comparisons (S. Holm, Scandinavian Journal of Statistics 6 (1979), 65–70).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, nan, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy

CONFIDENCE: Final = 0.95
"""Of every interval, and 1 - the error of "shown" (chosen: the convention)."""
POWER: Final = 0.8
"""Probability that `Difference.needed` more runs show a difference of the observed size (chosen: the convention)."""
_RESAMPLES: Final = 2_000  # steadier than the second digit of an end (chosen)
_FLIPS: Final = 9_999  # where 2 ** n_cases is more, that many random ones
_NORMAL = NormalDist()

Values = dict[str, list[float]]
"""Grades of one grader and variant: case -> one number per repeat."""


@dataclass(frozen=True)
class Estimate:
    """Mean of a grade over cases; `low` and `high` are NaN where there are fewer than two cases."""

    n_cases: int
    n_runs: int
    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """Paired difference b - a over the cases that both variants have."""

    p: float
    """Two-sided, for this comparison alone."""
    deviation: float
    """Standard deviation of the differences of the cases."""


def estimate(values: Values, *, share: bool, seed: int = 0) -> Estimate:
    """Estimate the mean over cases.

    Parameters
    ----------
    values : dict
        Case -> grades of its repeats.
    share : bool
        True where every grade is 0 or 1.
    seed : int, default 0
        Same seed, same interval.

    Examples
    --------
    >>> found = estimate({"a": [1, 1], "b": [1, 0], "c": [1, 1], "d": [0, 0]}, share=True)
    >>> found.n_cases, found.n_runs, found.estimate
    (4, 8, 0.625)
    """
    means = np.array([np.mean(grades) for grades in values.values()])
    n_runs = sum(map(len, values.values()))
    return Estimate(len(means), n_runs, *_mean_and_interval(means, pseudo=(0.0, 1.0) if share else (), seed=seed))


def difference(a: Values, b: Values, *, share: bool, seed: int = 0) -> Difference:
    """Estimate b - a, paired by case.

    Examples
    --------
    >>> found = difference({"x": [0, 0], "y": [0, 1]}, {"x": [1, 1], "y": [1, 1], "z": [1]}, share=True)
    >>> found.n_cases, found.n_runs, found.estimate, round(found.p, 2)
    (2, 8, 0.75, 0.5)
    """
    cases = [case for case in a if case in b]
    pairs = np.array([np.mean(b[case]) - np.mean(a[case]) for case in cases])
    n_runs = sum(len(a[case]) + len(b[case]) for case in cases)
    step = len(cases) * 2 / max(1, n_runs)  # the smallest difference that a case can have
    found = _mean_and_interval(pairs, pseudo=(-step, step) if share else (), seed=seed)
    deviation = float(pairs.std(ddof=1)) if len(pairs) > 1 else nan
    return Difference(len(pairs), n_runs, *found, sign_flip_p(pairs, seed=seed), deviation)


def sign_flip_p(pairs: npt.NDArray[np.float64], *, seed: int = 0) -> float:
    """Return the two-sided p value of paired differences: how often random signs give a mean as large.

    Examples
    --------
    >>> sign_flip_p(np.array([0.2, 0.4, 0.1, 0.3, 0.2]))
    0.0625
    """
    if not np.any(pairs):
        return 1.0
    n, exact = len(pairs), len(pairs) <= 13
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), (_FLIPS, n))
    as_large = np.abs(signs @ pairs) >= abs(pairs.sum()) - 1e-9
    return float(as_large.mean() if exact else (1 + as_large.sum()) / (_FLIPS + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, in the order given.

    Examples
    --------
    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order, n = np.argsort(p_values), len(p_values)
    adjusted = np.maximum.accumulate((n - np.arange(n)) * np.sort(p_values))
    return [min(1.0, float(p)) for p in adjusted[np.argsort(order)]]


def more_runs(found: Difference, *, n_comparisons: int = 1) -> int | None:
    """Return about how many more runs, of more cases, would show the observed difference; None without one.

    With probability `POWER`, by the normal approximation. The observed size is uncertain itself, so this is a guide.
    """
    if not (found.estimate and found.deviation > 0):  # NaN of a single case, too
        return None
    z = _NORMAL.inv_cdf(1 - (1 - CONFIDENCE) / 2 / n_comparisons) + _NORMAL.inv_cdf(POWER)
    needed = ceil((z * found.deviation / abs(found.estimate)) ** 2 + z * z / 4)  # the second term: t instead of z
    return max(1, needed - found.n_cases) * round(found.n_runs / found.n_cases)


def _mean_and_interval(
    means: npt.NDArray[np.float64], *, pseudo: tuple[float, ...], seed: int
) -> tuple[float, float, float]:
    if len(means) < 2:
        return float(means[0]) if len(means) else nan, nan, nan
    sample = np.append(means, pseudo)
    n = len(sample)
    t = float(scipy.special.stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    outside = _NORMAL.cdf(-sqrt(n / (n - 1)) * t)
    drawn = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n))
    low, high = np.quantile(sample[drawn].mean(axis=1), (outside, 1 - outside))
    return float(means.mean()), float(low), float(high)
