"""Confidence intervals for shares, quantiles and rates, with turns that resemble each other in groups.

A share's interval is that of Korn and Graubard: Clopper and Pearson's exact interval at the effective number of turns,
which is smaller than the number of turns where turns of a recording resemble each other. A rate per hour is a share of
seconds: events are rare, so Poisson's and the binomial distribution agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import floor, nan
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy

from rtnb.errors import AudioError

_Float = npt.NDArray[np.float64]

FEW_GROUPS: Final = 8
"""With fewer groups their spread is not known: nothing is shown (chosen, checked by simulation)."""
_FEW_EVENTS: Final = 5.0
_UNKNOWN_ICC: Final = 0.1
"""Correlation of turns in a group where no setting has enough events to estimate it (chosen)."""
_STEADY: Final = 12
"""So many sample sizes in a row must suffice: counts are whole, so one turn more may show less (chosen)."""


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
    array([[1., 2., 0.],
           [0., 3., 0.]])
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples).astype(float)


def effective_turns(
    weights: _Float,
    counts: _Float,
    turns: _Float,
    *,
    least: float = _FEW_EVENTS,
    most: float = 0.5,
    unknown: float | None = None,
    confidence: float = 0.9,
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
        Turns of each group; seconds, where events are counted in time.
    least : float, default 5
        With fewer events a setting's own design effect is not used (chosen: it is noise).
    most : float, default 0.5
        Settings with a larger share do not count for the mean.
    unknown : float, optional
        Design effect where no setting has enough events; None takes that of an intraclass correlation of 0.1.
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
    n = np.maximum(weights @ turns[:, None], 1e-9)
    events = weights @ counts
    share = events / n
    squares = (
        weights @ counts**2
        - 2 * share * (weights @ (counts * turns[:, None]))
        + share**2 * (weights @ turns**2)[:, None]
    )
    variance = squares * n_groups / np.maximum(n_groups - 1, 1) / n**2
    enough = (np.minimum(events, n - events) >= least) & (share < most)
    effect = np.where(enough, variance / np.where(enough, share * (1 - share) / n, 1.0), 0.0)
    known = enough.sum(axis=1)
    if unknown is None:
        unknown = 1 + _UNKNOWN_ICC * max(0.0, float(turns.mean()) - 1)
    mean = np.where(known > 0, effect.sum(axis=1) / np.maximum(known, 1), unknown)
    if len(turns) < FEW_GROUPS:
        return share, np.full_like(share, len(turns)), mean
    few = few_groups_factor(float(turns.sum()), len(turns), confidence=confidence)
    effect = np.maximum(effect, np.maximum(mean, 1e-9)[:, None])
    return share, np.clip(few * n / effect, n_groups, n), mean


def few_groups_factor(n_turns: float, n_groups: int, *, confidence: float = 0.9) -> float:
    """Return by how much fewer turns count because the variance between few groups is itself an estimate."""
    many, few = scipy.special.stdtrit(np.maximum([n_turns - 1, n_groups - 1], 1), (1 + confidence) / 2)
    return float((many / few) ** 2)


def clustered_share(hits: npt.ArrayLike, groups: Sequence[Any]) -> tuple[float, float, float, int, int]:
    """Return the share of hits and its 90 % interval where hits of a group resemble each other.

    Parameters
    ----------
    hits : array_like of bool, shape (n,)
    groups : sequence, shape (n,)
        Recording or speaker of each.

    Returns
    -------
    rate, low, high : float
        The interval is NaN for fewer than `FEW_GROUPS` groups: not shown.
    n, n_groups : int

    Examples
    --------
    >>> [round(one, 3) for one in clustered_share([True] * 3 + [False] * 37, list(range(10)) * 4)]
    [0.075, 0.021, 0.183, 40, 10]
    """
    flags, names = np.asarray(hits, float), np.unique(np.asarray(groups, str), return_inverse=True)[1]
    turns = np.bincount(names).astype(float)
    n, n_groups, rate = len(flags), len(turns), float(flags.mean()) if len(flags) else nan
    if n_groups < FEW_GROUPS:
        return rate, nan, nan, n, n_groups
    counts = np.bincount(names, flags)[:, None].astype(float)
    whole, alike = np.ones((1, n_groups)), n / n_groups  # where all hits agree, each group counts as one
    size = float(effective_turns(whole, counts, turns, least=1.0, most=1.0, unknown=alike)[1][0, 0])
    return rate, *clopper_pearson(rate * size, size), n, n_groups


def clustered_median(values: npt.ArrayLike, groups: Sequence[Any]) -> tuple[float, float, float]:
    """Return the median over groups of their medians, and its exact 90 % interval; NaN where not shown.

    Examples
    --------
    >>> clustered_median([1, 2, 3, 4, 5, 6, 7, 8, 9], list("abcdefghi"))
    (5.0, 2.0, 8.0)
    """
    found, index = np.asarray(values, float), np.asarray(groups, str)
    medians = sorted(float(np.median(found[index == one])) for one in np.unique(index))
    skip = floor(most_events(len(medians), share=0.5)) if len(medians) >= FEW_GROUPS else -1
    ends = (medians[skip], medians[-1 - skip]) if skip >= 0 else (nan, nan)
    return (float(np.median(medians)) if medians else nan, *ends)


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
    level = (1 + confidence) / 2
    low = 1 - scipy.special.betaincinv(n - count + 1, count, level) if count > 0 else 0.0
    high = scipy.special.betaincinv(count + 1, n - count, level) if count < n else 1.0
    return float(low), float(high)


def keeps_share(count: _Float, n: _Float, *, share: float, confidence: float = 0.9) -> npt.NDArray[np.bool_]:
    """Return where the upper end of the interval is at most `share`, for arrays of counts and of sizes.

    `most_events` is interpolated between 200 sizes, to 1 %.
    """
    sizes = np.geomspace(1, max(2.0, float(n.max())), 200)
    limits = most_events(sizes, share=share, confidence=confidence)
    return np.asarray(count <= np.interp(n, sizes, limits, left=-1.0))


def most_events(n: npt.ArrayLike, *, share: float, confidence: float = 0.9) -> Any:
    """Return how many of n turns may have an event so that the upper end of the interval is at most `share`.

    It is a fraction, below 0 where not even none of n is enough; an array for an array.

    Examples
    --------
    >>> most_events([58, 59], share=0.05) >= 0
    array([False,  True])
    """
    error, size = (1 - confidence) / 2, np.asarray(n, float)
    return np.where((1 - share) ** size <= error, scipy.special.bdtrik(error, size, share), -1.0)


@lru_cache(maxsize=1_000)
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
    n = np.arange(1, most + _STEADY)
    events = np.floor(most_events(n, share=share, confidence=confidence) + 1e-6)
    shown = (events >= 0) & (scipy.special.bdtr(np.maximum(events, 0), n, rate) >= power)
    steady = np.lib.stride_tricks.sliding_window_view(shown, _STEADY).all(axis=1)
    return int(n[steady.argmax()]) if steady.any() else None
