"""A waveform in few numbers: the lowest and highest sample of every bin, added to piece by piece.

What one piece costs depends on its own length, never on the length before it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rtnb.errors import AudioError

Bins = npt.NDArray[np.int16]
"""Shape (n_bins, 2): lowest and highest sample of each bin."""


def min_max(samples: npt.NDArray[np.int16], *, samples_per_bin: int) -> Bins:
    """Reduce samples to bins; the last bin may hold fewer samples.

    Parameters
    ----------
    samples : ndarray, int16, shape (n_samples,)
    samples_per_bin : int
        How many samples one bin stands for; more are coarser.

    Returns
    -------
    bins : ndarray, int16, shape (ceil(n_samples / samples_per_bin), 2)

    Examples
    --------
    >>> min_max(np.array([1, -5, 3, 4, 9], np.int16), samples_per_bin=2).tolist()
    [[-5, 1], [3, 4], [9, 9]]
    """
    if samples_per_bin < 1:
        raise AudioError(f"samples_per_bin is {samples_per_bin}; allowed are 1 and more")
    whole = len(samples) // samples_per_bin * samples_per_bin
    grid = samples[:whole].reshape(-1, samples_per_bin)
    bins = np.stack([grid.min(axis=1), grid.max(axis=1)], axis=1) if whole else np.zeros((0, 2), np.int16)
    rest = samples[whole:]
    return np.concatenate([bins, [[rest.min(), rest.max()]]]).astype(np.int16) if len(rest) else bins


class BinTrack:
    """Bins on one time axis, growing: write at any bin, read any stretch.

    Examples
    --------
    >>> track = BinTrack()
    >>> track.write(2, np.array([[-3, 4], [-1, 1]], np.int16))
    >>> track.read(1).tolist()
    [[0, 0], [-3, 4], [-1, 1]]
    """

    def __init__(self) -> None:
        self._bins: Bins = np.zeros((1024, 2), np.int16)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def write(self, index: int, bins: Bins) -> None:
        """Put bins at `index`, over what is there; a gap before them is silence."""
        stop = index + len(bins)
        if stop > len(self._bins):
            grown = np.zeros((max(stop, 2 * len(self._bins)), 2), np.int16)  # doubling: a constant cost per bin
            grown[: self._length] = self._bins[: self._length]
            self._bins = grown
        self._bins[index:stop] = bins
        self._length = max(self._length, stop)

    def read(self, start: int = 0, stop: int | None = None) -> Bins:
        """Return the bins of a stretch as they are: int16, shape (stop - start, 2) or shorter at the end."""
        return self._bins[start : self._length if stop is None else min(stop, self._length)]
