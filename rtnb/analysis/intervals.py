"""Confidence intervals for shares, quantiles and rates, with turns that resemble each other in groups.

A share's interval is that of Korn and Graubard: Clopper and Pearson's exact interval at the effective number of turns,
which is smaller than the number of turns where turns of a recording resemble each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil, exp, floor, fsum, lgamma, log, log1p
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.errors import AudioError

_Float = npt.NDArray[np.float64]

FEW_GROUPS: Final = 8
"""With fewer groups their spread is not known: each group then counts as one turn (chosen, checked by simulation)."""
_FEW_EVENTS: Final = 5.0
"""With fewer events a setting's own design effect is noise, and that of the other settings is used (chosen)."""
_UNKNOWN_ICC: Final = 0.1
"""Correlation of turns in a group where no setting has enough events to estimate it (chosen)."""
_TINY: Final = 1e-300


def resample_weights(n_groups: int, *, n_resamples: int = 200, seed: int = 0) -> _Float:
    """Return how often each bootstrap resample contains each group.

    Parameters
    ----------
    n_groups : int
        Recordings, or speakers; a resample takes as many, with replacement.
    n_resamples : int, default 200
        More give steadier results and take longer (chosen).
    seed : int, default 0
        Same seed, same resamples.

    Returns
    -------
    weights : ndarray, float64, shape (n_resamples, n_groups)
        Whole numbers.

    Examples
    --------
    >>> resample_weights(3, n_resamples=2, seed=1)
    array([[0., 2., 1.],
           [2., 0., 1.]])
    """
    taken = np.random.default_rng(seed).integers(n_groups, size=(n_resamples, n_groups))
    taken += n_groups * np.arange(n_resamples)[:, None]
    counts = np.bincount(taken.ravel(), minlength=n_resamples * n_groups)
    return counts.reshape(n_resamples, n_groups).astype(float)


def effective_turns(
    weights: _Float, counts: _Float, turns: _Float, *, confidence: float = 0.9
) -> tuple[_Float, _Float, _Float]:
    """Estimate shares, and how many independent turns tell as much about each.

    The design effect is the variance between groups over that of independent turns. A setting with few events takes
    the mean of the other settings, and no setting takes less than that mean.

    Parameters
    ----------
    weights : ndarray, shape (n_resamples, n_groups)
        From `resample_weights`, or ones for the sample itself.
    counts : ndarray, shape (n_groups, n_settings)
        Events of each group, e.g. turns cut off.
    turns : ndarray, shape (n_groups,)
        Turns of each group.
    confidence : float, default 0.9
        Two-sided; it decides the correction for the number of groups.

    Returns
    -------
    share, n_effective : ndarray, shape (n_resamples, n_settings)
        The effective number lies between the number of groups and the number of turns.
    design_effect : ndarray, shape (n_resamples,)
        The mean over the settings.

    References
    ----------
    E. L. Korn and B. I. Graubard, Survey Methodology 24 (1998), 193–201: the effective number and its correction by
    quantiles of Student's t.
    """
    n_groups = weights.sum(axis=1, keepdims=True)
    n = weights @ turns[:, None]
    events = weights @ counts
    share = events / n
    squares = (
        weights @ counts**2
        - 2 * share * (weights @ (counts * turns[:, None]))
        + share**2 * (weights @ turns**2)[:, None]
    )
    variance = squares * n_groups / np.maximum(n_groups - 1, 1) / n**2
    enough = (events >= _FEW_EVENTS) & (share < 0.5)
    effect = np.where(enough, variance / np.where(enough, share * (1 - share) / n, 1.0), 0.0)
    known = enough.sum(axis=1)
    unknown = 1 + _UNKNOWN_ICC * max(0.0, float(turns.mean()) - 1)
    mean = np.where(known > 0, effect.sum(axis=1) / np.maximum(known, 1), unknown)
    effect = np.maximum(effect, mean[:, None])
    if len(turns) < FEW_GROUPS:
        return share, np.full_like(share, len(turns)), mean
    few = few_groups_factor(float(turns.sum()), len(turns), confidence=confidence)
    return share, np.clip(few * n / np.maximum(effect, 1e-9), n_groups, n), mean


def few_groups_factor(n_turns: float, n_groups: int, *, confidence: float = 0.9) -> float:
    """Return by how much fewer turns count because the variance between few groups is itself an estimate."""
    level = (1 + confidence) / 2
    return (student_quantile(level, df=max(n_turns - 1, 1)) / student_quantile(level, df=max(n_groups - 1, 1))) ** 2


def weighted_quantiles(values: npt.NDArray[np.floating], weights: npt.NDArray[Any], *, share: float) -> _Float:
    """Return quantiles of weighted turns: the least value that at least this share of the turns does not exceed.

    This is the one definition of every P50 and P90 here (``inverted_cdf``): a delay that happened.

    Parameters
    ----------
    values : ndarray, shape (n_rows, n_turns)
        Infinite where a turn never ended, NaN where it is not known.
    weights : ndarray, shape (n_resamples, n_turns)
        How often each turn counts.
    share : float
        0 to 1: 0.9 is the 90th percentile.

    Returns
    -------
    quantiles : ndarray, float64, shape (n_resamples, n_rows)
        NaN where no turn is known.

    Examples
    --------
    >>> weighted_quantiles(np.array([[3.0, 1.0, np.nan, 2.0, 9.0]]), np.array([[1, 1, 1, 1, 0]]), share=0.5).item()
    2.0
    """
    quantiles = np.full((len(weights), len(values)), np.nan)
    for row, found in zip(values, quantiles.T, strict=True):
        order = np.argsort(row, kind="stable")[: np.count_nonzero(~np.isnan(row))]  # NaN last
        if not len(order):
            continue
        total = np.cumsum(weights[:, order], axis=1)
        at = (total >= share * total[:, -1:] - 1e-6).argmax(axis=1)
        found[:] = np.where(total[:, -1] > 0, row[order[at]], np.nan)
    return quantiles


# --- exact bounds -----------------------------------------------------------------------------------------------------


def clopper_pearson(count: float, n: float, *, confidence: float = 0.9) -> tuple[float, float]:
    """Return the exact interval of a share when `count` of `n` turns have an event.

    Parameters
    ----------
    count, n : float
        May be fractions, as effective numbers are.
    confidence : float, default 0.9
        Two-sided: each end is wrong with (1 - confidence) / 2. With 0.9, none in 59 turns gives at most 5 %.

    Returns
    -------
    low, high : float
        0 to 1; (0, 1) where n is 0.

    Examples
    --------
    >>> [round(100 * clopper_pearson(0, n)[1], 1) for n in (20, 30, 59, 100, 200)]
    [13.9, 9.5, 5.0, 3.0, 1.5]
    >>> [round(100 * end, 1) for end in clopper_pearson(5, 100, confidence=0.95)]
    [1.6, 11.3]

    References
    ----------
    C. J. Clopper and E. S. Pearson, Biometrika 26 (1934), 404–413.
    """
    if not 0 <= count <= n + 1e-9:
        raise AudioError(f"count is {count!r}: it must be between 0 and n = {n!r}")
    error = (1 - confidence) / 2
    return 1 - _upper(n - count, n, error), _upper(count, n, error)


@lru_cache(maxsize=10_000)
def _upper(count: float, n: float, error: float) -> float:
    return 1.0 if count >= n else _root(lambda share: binomial_cdf(count, n, share) - error, count / n, 1.0)


@lru_cache(maxsize=10_000)
def most_events(n: float, *, share: float, confidence: float = 0.9) -> float:
    """Return how many of n turns may have an event so that the upper end of the interval is at most `share`.

    It is a fraction, below 0 where not even none of n is enough.

    Examples
    --------
    >>> most_events(58, share=0.05) < 0 <= most_events(59, share=0.05)
    True
    """
    error = (1 - confidence) / 2
    return n if share >= 1 else _root(lambda k: error - binomial_cdf(k, n, share), -1.0, max(n * share, -1.0))


def turns_needed(
    rate: float, *, share: float, confidence: float = 0.9, power: float = 0.8, most: int = 10_000
) -> int | None:
    """Return how many independent turns show that at most `share` go wrong, if `rate` of them truly do.

    The number suffices in at least `power` of the cases; None: more than `most`.

    Examples
    --------
    >>> turns_needed(0.0, share=0.05), turns_needed(0.04, share=0.1), turns_needed(0.05, share=0.05)
    (59, 129, None)
    """
    if rate >= share:
        return None

    def shown(n: int) -> bool:
        events = floor(most_events(n, share=share, confidence=confidence) + 1e-6)
        return events >= 0 and binomial_cdf(events, n, rate) >= power

    low, high = 0, 1
    while not shown(high):
        low, high = high, 2 * high
        if low >= most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    while not all(map(shown, range(high, high + 12))):  # counts are whole, so one turn more may show less
        high += 1
    return high


@lru_cache(maxsize=10_000)
def poisson_upper(count: float, hours: float, *, confidence: float = 0.9) -> float:
    """Return the upper end of the exact interval of a rate per hour when `count` events were observed.

    Examples
    --------
    >>> round(poisson_upper(0, 1.0), 2), round(poisson_upper(10, 1.0), 2)
    (3.0, 16.96)
    """
    error, events = (1 - confidence) / 2, ceil(count - 1e-9)

    def excess(mean: float) -> float:
        return fsum(exp(k * log(mean) - mean - lgamma(k + 1)) for k in range(events + 1)) - error

    return _root(excess, count + 1e-9, count + 10.0 + 10.0 * (count + 1) ** 0.5) / hours


@lru_cache(maxsize=1_000)
def student_quantile(level: float, *, df: float) -> float:
    """Return a quantile of Student's t, above the median.

    Examples
    --------
    >>> round(student_quantile(0.95, df=2), 2), round(student_quantile(0.95, df=19), 3)
    (2.92, 1.729)
    """
    return _root(lambda t: level - 1 + incomplete_beta(df / 2, 0.5, df / (df + t * t)) / 2, 0.0, 1e3)


def binomial_cdf(count: float, n: float, share: float) -> float:
    """Return the probability of at most `count` events in n, for fractions too."""
    return 1.0 if count >= n else incomplete_beta(n - count, count + 1, 1 - share) if count > -1 else 0.0


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function, by its continued fraction.

    References
    ----------
    NIST Digital Library of Mathematical Functions, 8.17.22, evaluated by Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    complement = x > (a + 1) / (a + b + 2)  # the fraction converges fast for the complement only
    if complement:
        a, b, x = b, a, 1 - x
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or _TINY)
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            c, d = 1 + step / c or _TINY, 1 / (1 + step * d or _TINY)
            value *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return 1 - front * value if complement else front * value


def _root(excess: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function that is not negative at `low` becomes negative."""
    at_low, at_high = excess(low), excess(high)
    for step in range(90):
        if high - low < 1e-9:
            break
        secant = step % 3 and at_low > at_high
        middle = low + (high - low) * (at_low / (at_low - at_high) if secant else 0.5)
        value = excess(middle)
        if value >= 0:
            low, at_low = middle, value
        else:
            high, at_high = middle, value
    return low
