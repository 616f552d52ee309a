"""How sure a share or a quantile over turns is: bootstrap draws as weights, exact bounds of counts. NumPy only.

A draw takes groups (recordings) with replacement, and hears each at a random frame phase. It is a row of weights, one
per phase and turn, so that all draws of all configurations are one matrix product.
"""

from __future__ import annotations

from math import exp, lgamma, log

import numpy as np
import numpy.typing as npt

from rtnb.errors import AudioError

_Array = npt.NDArray[np.float32]


def draw_weights(groups: npt.ArrayLike, *, n_phases: int = 1, n_draws: int = 1000, seed: int = 0) -> _Array:
    """How often each draw contains each turn at each phase.

    Parameters
    ----------
    groups : array_like, int, shape (n_turns,)
        The group each turn belongs to; turns of a group are drawn together. All different: turns are drawn one by one.
    n_phases : int, default 1
        Each time a group is drawn, one of so many is taken for it at random.
    n_draws : int, default 1000
        More give steadier bounds and take longer (chosen).
    seed : int, default 0
        Same seed, same draws.

    Returns
    -------
    weights : ndarray, float32, shape (n_draws, n_phases * n_turns)
        Whole numbers; columns of the first phase first.

    Examples
    --------
    >>> draw_weights([0, 0, 1], n_draws=2, seed=1)
    array([[1., 1., 1.], [0., 0., 2.]], dtype=float32)
    """
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    n_groups = int(index.max()) + 1
    n_cells = n_groups * n_phases
    taken = np.random.default_rng(seed).integers(n_cells, size=(n_draws, n_groups))
    taken += n_cells * np.arange(n_draws)[:, None]
    counts = np.bincount(taken.ravel(), minlength=n_draws * n_cells).astype(np.float32)
    return counts.reshape(n_draws, n_phases, n_groups)[:, :, index].reshape(n_draws, -1)


def weighted_counts(flags: npt.NDArray[np.bool_], weights: _Array) -> _Array:
    """How many of a draw's turns have a flag, for all draws and rows of flags.

    Parameters
    ----------
    flags : ndarray, bool, shape (n_rows, n_columns)
        Rows that repeat are counted once: neighbouring settings often cut the same turns.
    weights : ndarray, float32, shape (n_draws, n_columns)
        From `draw_weights`.

    Returns
    -------
    counts : ndarray, float32, shape (n_draws, n_rows)
    """
    packed = np.ascontiguousarray(np.packbits(flags, axis=1))
    rows = packed.view([("", packed.dtype, (packed.shape[1],))]).ravel()
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    counts: _Array = weights @ flags[first].T.astype(np.float32)
    return counts[:, inverse]


def weighted_quantiles(values: npt.NDArray[np.floating], weights: _Array, *, share: float) -> _Array:
    """For all draws and rows: the least value that at least this share of the draw's turns does not exceed.

    Parameters
    ----------
    values : ndarray, shape (n_rows, n_columns)
        Infinite where a turn never ended.
    weights : ndarray, float32, shape (n_draws, n_columns)
        From `draw_weights`, or ones.
    share : float
        0 to 1: 0.9 is the 90th percentile.

    Returns
    -------
    quantiles : ndarray, float32, shape (n_draws, n_rows)

    Examples
    --------
    >>> weighted_quantiles(np.array([[3.0, 1.0, 2.0, 9.0]]), np.array([[1, 1, 1, 0]], np.float32), share=0.5).item()
    2.0
    """
    n_columns = values.shape[1]
    above = weights.sum(axis=1) * np.float32(1 - share) + 1e-3  # so much may lie above the quantile; weights are whole
    enough = min(n_columns, int(2 * (1 - share) * n_columns) + 64)  # from the top, almost always (checked below)
    quantiles = np.empty((len(weights), len(values)), np.float32)
    columns = np.asfortranarray(weights)
    for row, found in zip(values, quantiles.T, strict=True):
        order = np.argsort(-row, kind="stable")
        passed = np.cumsum(columns[:, order[:enough]], axis=1) > above[:, None]
        if not passed[:, -1].all():
            passed = np.cumsum(columns[:, order], axis=1) > above[:, None]
        found[:] = row[order[passed.argmax(axis=1)]]
    return quantiles


# --- exact bounds -----------------------------------------------------------------------------------------------------


def share_interval(count: int, n: int, *, confidence: float = 0.9) -> tuple[float, float]:
    """Between what shares the truth may lie when `count` of n were seen (Clopper and Pearson, exact).

    Parameters
    ----------
    count, n : int
        How many of how many.
    confidence : float, default 0.9
        Two-sided: each end is wrong with (1 - confidence) / 2. With 0.9, none in 59 turns gives at most 5 %.

    Returns
    -------
    low, high : float
        0 to 1; (0, 1) where n is 0.

    Examples
    --------
    >>> [round(100 * share_interval(0, n)[1], 1) for n in (20, 30, 59, 100, 200)]
    [13.9, 9.5, 5.0, 3.0, 1.5]
    >>> [round(100 * end, 1) for end in share_interval(5, 100, confidence=0.95)]
    [1.6, 11.3]

    References
    ----------
    C. J. Clopper and E. S. Pearson, Biometrika 26 (1934), 404–413.
    """
    if not 0 <= count <= n:
        raise AudioError(f"count is {count!r}: it must be between 0 and n = {n!r}")
    error = (1 - confidence) / 2
    return 1 - _highest_share(n - count, n, error), _highest_share(count, n, error)


def most_events(n: int, *, share: float, confidence: float = 0.9) -> int:
    """How many of n may be seen so that the upper end of `share_interval` is still at most `share`; -1: not even none.

    Examples
    --------
    >>> most_events(58, share=0.05), most_events(59, share=0.05)
    (-1, 0)
    """
    return int(np.sum(_binomial_cdf(n, share) <= (1 - confidence) / 2)) - 1 if share < 1 else n


def turns_needed(rate: float, *, share: float, confidence: float = 0.9, most: int = 10_000) -> int | None:
    """How many turns show that at most `share` go wrong, if `rate` of them do; None: more than `most`.

    Examples
    --------
    >>> turns_needed(0.0, share=0.05), turns_needed(0.02, share=0.05), turns_needed(0.05, share=0.05)
    (59, 181, None)
    """

    def shown(n: int) -> bool:
        return int(np.ceil(rate * n - 1e-9)) <= most_events(n, share=share, confidence=confidence)

    low, high = 0, 1
    while not shown(high):
        low, high = high, 2 * high
        if low >= most:
            return None
    while high - low > 1:  # not quite monotonic, as counts are whole: right to a few turns
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def highest_rate(count: int, hours: float, *, confidence: float = 0.9) -> float:
    """Upper end of the interval of a rate per hour when `count` events were seen (Poisson, exact).

    Examples
    --------
    >>> round(highest_rate(0, 1.0), 2), round(highest_rate(0, 10 / 3600), 0)
    (3.0, 1078.0)
    """
    error = (1 - confidence) / 2
    low, high = 0.0, count + 10.0 + 10.0 * (count + 1) ** 0.5
    for _ in range(60):
        mean = (low + high) / 2
        below = sum(exp(k * log(mean) - mean - lgamma(k + 1)) for k in range(count + 1))
        low, high = (mean, high) if below > error else (low, mean)
    return float(high / hours)


def _highest_share(count: int, n: int, error: float) -> float:
    if count >= n:
        return 1.0
    low, high = count / n, 1.0
    for _ in range(40):
        share = (low + high) / 2
        low, high = (share, high) if _binomial_cdf(n, share)[count] > error else (low, share)
    return high


def _binomial_cdf(n: int, share: float) -> npt.NDArray[np.float64]:
    """P(at most k of n), k from 0 to n, at a share between 0 and 1."""
    if share <= 0:
        return np.ones(n + 1)
    k = np.arange(1, n + 1)
    choose = np.concatenate([[0.0], np.cumsum(np.log(n - k + 1) - np.log(k))])
    each = choose + np.arange(n + 1) * np.log(share) + np.arange(n, -1, -1) * np.log1p(-share)
    cdf: npt.NDArray[np.float64] = np.minimum(np.cumsum(np.exp(each)), 1.0)
    return cdf
