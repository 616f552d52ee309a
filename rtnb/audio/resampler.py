"""Change the sample rate, in one go or in pieces: both give the same samples, bit for bit.

The filter is a windowed sinc (Kaiser), one row of taps per phase. With *nyquist* half of the lower of the two rates:

- pass-band: flat within 0.01 dB up to 0.90 nyquist
- stop-band: 96 dB down from 1.00 nyquist on (images and aliases alike); the tests measure it with tones
- delay: compensated. Output sample k lies at time k / to_rate_hz of the input; a tone keeps its phase. The streaming
  class therefore waits for at most 13 ms of input that follow a sample before it emits it.

Outputs are computed in blocks: a block is one row of input times a small matrix, always of the same shape, so that no
chunking changes the order of the additions (law 5 of the house: chunk size never changes an answer).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd

import numpy as np
import numpy.typing as npt

from rtnb.audio.samples import Audio, as_audio, check_rate
from rtnb.errors import AudioError

# Chosen: taps reach 64 samples of the lower rate to each side, which with the Kaiser window below gives the stated
# transition band (Kaiser's formula: (100 - 7.95) / (2.285 * 0.1 pi) = 128 taps for 100 dB).
_REACH = 64
_KAISER_BETA = 0.1102 * (100 - 8.7)  # Kaiser (1974) for 100 dB
_CUTOFF = 0.95  # in the middle of the transition band, in units of nyquist
_BLOCK = 32  # chosen: the largest number of outputs in a block; more would only add to the lag
_RATES_HZ = (4_000, 192_000)  # chosen: telephony to studio; the tables grow beyond reason outside


@dataclass(frozen=True)
class _Plan:
    """Everything about a pair of rates that no sample changes."""

    up: int
    down: int
    before: int  # zeros put before the first sample, so that block 0 can start
    block: int  # outputs per block
    width: int  # inputs under a block
    matrices: npt.NDArray[np.float32]  # (n_matrices, width, block); block j uses j modulo n_matrices


@lru_cache(maxsize=16)
def _plan(from_rate_hz: int, to_rate_hz: int) -> _Plan:
    common = gcd(from_rate_hz, to_rate_hz)
    up, down = to_rate_hz // common, from_rate_hz // common
    stretch = max(1.0, down / up)  # taps are spaced in inputs, the sinc in samples of the lower rate
    half = ceil(_REACH * stretch)
    phase = np.arange(up)[:, None] * down % up / up
    distance = (np.arange(-half + 1, half + 1) - phase) / stretch  # (up, 2 * half), in samples of the lower rate
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (distance / _REACH) ** 2, 0, 1)))
    taps = np.sinc(_CUTOFF * distance) * window
    taps /= taps.sum(axis=1, keepdims=True)  # a constant stays a constant, exactly the same in every phase
    block = max(size for size in range(1, _BLOCK + 1) if up % size == 0 or size % up == 0)
    n_matrices = max(1, up // block)
    width = max((block - 1) * down // up + 1, 1) + 2 * half
    matrices = np.zeros((n_matrices, width, block), np.float32)
    for output in range(n_matrices * block):
        matrix, column = divmod(output, block)
        first = output * down // up - matrix * block * down // up
        matrices[matrix, first : first + 2 * half, column] = taps[output % up]
    return _Plan(up, down, half - 1, block, width, matrices)


class Resampler:
    """Change the sample rate of a stream, chunk by chunk.

    Any chunking gives the same samples as `resample` of the whole, bit for bit.

    Parameters
    ----------
    from_rate_hz, to_rate_hz : int
        4,000 to 192,000 Hz. Best are the usual ones (8, 16, 22.05, 24, 44.1, 48 kHz); two rates without a large common
        divisor work, with larger tables and more time.

    Raises
    ------
    AudioError
        A rate outside that range.

    Examples
    --------
    >>> resampler = Resampler(from_rate_hz=24_000, to_rate_hz=16_000)
    >>> chunks = [resampler.process([0.1] * 480) for _ in range(10)] + [resampler.flush()]
    >>> sum(len(chunk) for chunk in chunks)
    3200
    """

    def __init__(self, *, from_rate_hz: int, to_rate_hz: int) -> None:
        for name, rate in (("from_rate_hz", from_rate_hz), ("to_rate_hz", to_rate_hz)):
            if not _RATES_HZ[0] <= check_rate(rate) <= _RATES_HZ[1]:
                raise AudioError(f"{name} is {rate}: allowed are {_RATES_HZ[0]} to {_RATES_HZ[1]} Hz")
        self.from_rate_hz = int(from_rate_hz)
        self.to_rate_hz = int(to_rate_hz)
        self._plan = None if from_rate_hz == to_rate_hz else _plan(self.from_rate_hz, self.to_rate_hz)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next chunk starts a new stream."""
        self._received = 0  # inputs since the start
        self._emitted = 0  # outputs since the start, a whole number of blocks until the flush
        self._dropped = 0  # inputs (with the zeros before the first) no longer kept
        self._kept: Audio = np.zeros(self._plan.before if self._plan else 0, np.float32)

    def process(self, chunk: npt.ArrayLike) -> Audio:
        """Take a chunk, give the samples that it completes (often a few less or more than its own length).

        Parameters
        ----------
        chunk : array_like, shape (n_samples,)
            Anything `as_audio` takes.

        Returns
        -------
        audio : ndarray, float32, shape (n_completed,)
        """
        audio = as_audio(chunk)
        self._received += len(audio)
        return audio.copy() if self._plan is None else self._advance(self._plan, audio)

    def flush(self) -> Audio:
        """End the stream: give what was still waiting, as if silence followed, and start anew.

        The lengths of all outputs of a stream add up to ceil(n_samples * to_rate_hz / from_rate_hz).
        """
        rest: Audio = np.zeros(0, np.float32)
        if self._plan is not None:
            missing = -(-self._received * self._plan.up // self._plan.down) - self._emitted
            silence = np.zeros(2 * self._plan.width, np.float32)
            rest = self._advance(self._plan, silence)[:missing]
        self.reset()
        return rest

    def _advance(self, plan: _Plan, audio: Audio) -> Audio:
        kept = np.concatenate([self._kept, audio])
        first = self._emitted // plan.block
        stop = max(first, self._complete_blocks(plan, self._dropped + len(kept)))
        output = np.zeros((stop - first, 1, plan.block), np.float32)
        n_matrices = len(plan.matrices)
        step = n_matrices * plan.block * plan.down // plan.up  # inputs from one use of a matrix to the next: exact
        for offset in range(min(n_matrices, stop - first) if kept.any() else 0):  # of silence, silence
            start = self._start(plan, first + offset)
            rows = np.ndarray((-(-(stop - first - offset) // n_matrices), 1, plan.width), np.float32, kept, 4 * start,
                              (4 * step, 4, 4))  # fmt: skip
            np.matmul(rows, plan.matrices[(first + offset) % n_matrices], out=output[offset::n_matrices])
        self._emitted = stop * plan.block
        keep_from = self._start(plan, stop)
        self._kept = kept[keep_from:]
        self._dropped += keep_from
        return output.reshape(-1)

    def _start(self, plan: _Plan, block: int) -> int:
        """Return where the inputs of a block start among the kept ones."""
        return block * plan.block * plan.down // plan.up - self._dropped

    @staticmethod
    def _complete_blocks(plan: _Plan, available: int) -> int:
        """Return the number of leading blocks with all their inputs: the last start is at most available - width."""
        last_start = available - plan.width
        if last_start < 0:
            return 0
        return ((last_start + 1) * plan.up - 1) // (plan.block * plan.down) + 1


def resample(audio: npt.ArrayLike, *, from_rate_hz: int, to_rate_hz: int) -> Audio:
    """Change the sample rate of a recording; nothing is delayed or cut off.

    Parameters
    ----------
    audio : array_like, shape (n_samples,)
        Anything `as_audio` takes.
    from_rate_hz, to_rate_hz : int
        4,000 to 192,000 Hz.

    Returns
    -------
    audio : ndarray, float32, shape (ceil(n_samples * to_rate_hz / from_rate_hz),)

    Raises
    ------
    AudioError
        A rate outside that range, or what `as_audio` refuses.

    Examples
    --------
    >>> resample([0.0] * 22_050, from_rate_hz=22_050, to_rate_hz=24_000).shape
    (24000,)
    """
    resampler = Resampler(from_rate_hz=from_rate_hz, to_rate_hz=to_rate_hz)
    return np.concatenate([resampler.process(audio), resampler.flush()])
