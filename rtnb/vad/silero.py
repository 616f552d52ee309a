"""Silero VAD 6 at 16 kHz in plain NumPy: how likely each 32 ms frame is speech.

The net: a short-time Fourier transform written as a convolution, four convolutions, one LSTM cell, one output. A frame
is 512 samples with the 64 before it put in front. The LSTM state goes on from frame to frame and remembers more than
20 s, so one stream must be one continuous pass.

Exactly the same answer for any chunking: every product is a matrix product of one frame, and always of the same shape.
NumPy's `matmul` runs those of many frames in one loop in C, so a long recording is fast without becoming another
computation (one large product would add in another order). No matrix product is large enough for OpenBLAS to wake its
threads (that starts at 4 * 65536 multiplications), so a hundred sessions do not fight over the cores; the benchmark
prints CPU over wall time to show it.

Model and weights: Silero VAD 6.2.3, https://github.com/snakers4/silero-vad, Copyright (c) 2020-present Silero Team, MIT
(SILERO_LICENSE.txt). `tests/vad/weights.py` made `silero_v6.npz`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.float32]

RATE_HZ = 16_000
FRAME_SAMPLES = 512
_CONTEXT_SAMPLES = 64  # samples of the frame before, put in front (silero-vad, utils_vad.py, OnnxWrapper.__call__)
_WINDOW, _HOP, _BINS = 256, 128, 129  # of the Fourier transform
_STEPS = 4  # windows per frame
_UNITS = 128  # of the LSTM cell
_BLOCK_FRAMES = 64  # chosen: the arrays of a block stay in the cache


@dataclass(frozen=True)
class _Net:
    """The weights, each laid out for `frame @ weight`."""

    basis: _Array  # (2, 256, 129): cosines, sines
    encoder: tuple[tuple[_Array, _Array], ...]  # (weight (n_in, n_out), bias) of the four convolutions
    input: tuple[_Array, _Array]  # (128, 512), bias: what the frame adds to the LSTM gates
    recurrent: _Array  # (128, 512): what the last state adds
    output: tuple[_Array, float]  # (128, 1), bias


@lru_cache(maxsize=1)
def _net() -> _Net:
    with np.load(Path(__file__).with_name("silero_v6.npz")) as file:
        weights: dict[str, _Array] = dict(file)

    def convolution(layer: int, taps: slice) -> tuple[_Array, _Array]:
        weight = weights[f"encoder.{layer}.reparam_conv.weight"][:, :, taps]  # (n_out, n_in, n_taps)
        flat = np.ascontiguousarray(weight.transpose(2, 1, 0)).reshape(-1, weight.shape[0])
        return flat, weights[f"encoder.{layer}.reparam_conv.bias"]

    # Gates come as i, f, g, o. sigmoid(x) = tanh(x / 2) / 2 + 1/2: with half the weights (an exact halving) for the
    # three sigmoid gates, and these put side by side, one tanh serves all four.
    order = np.r_[0:256, 384:512, 256:384]  # i, f, o, g
    half = np.where(np.arange(512) < 384, np.float32(0.5), np.float32(1))
    rnn = {part: weights[f"decoder.rnn.{part}"][order] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    return _Net(
        basis=np.ascontiguousarray(weights["stft.forward_basis_buffer"].reshape(2, _BINS, _WINDOW).transpose(0, 2, 1)),
        # Of the third and fourth convolution only the taps that ever meet something else than padding are kept.
        encoder=tuple(convolution(layer, taps) for layer, taps in enumerate(map(slice, (0, 0, 1, 1), (3, 3, 3, 2)))),
        input=(np.ascontiguousarray(rnn["weight_ih"].T) * half, (rnn["bias_ih"] + rnn["bias_hh"]) * half),
        recurrent=np.ascontiguousarray(rnn["weight_hh"].T) * half,
        output=(weights["decoder.decoder.2.weight"].reshape(_UNITS, 1), float(weights["decoder.decoder.2.bias"][0])),
    )


class Silero:
    """The speech probability of each frame of one 16 kHz stream.

    Any chunking gives the same probabilities, bit for bit.

    Examples
    --------
    >>> import numpy as np
    >>> silero = Silero()
    >>> silero.push(np.zeros(700, np.float32)).shape, silero.push(np.zeros(400, np.float32)).shape
    ((1,), (1,))
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next sample starts a new stream."""
        self._hidden: _Array = np.zeros(_UNITS, np.float32)
        self._cell: _Array = np.zeros(_UNITS, np.float32)
        self._kept: _Array = np.zeros(_CONTEXT_SAMPLES, np.float32)  # the context, then the unfinished frame

    def push(self, audio: _Array) -> _Array:
        """Take the next samples, give the probabilities of the frames they complete.

        Parameters
        ----------
        audio : ndarray, float32, shape (n_samples,)
            16 kHz, any length.

        Returns
        -------
        probabilities : ndarray, float32, shape (n_frames_completed,)
            0 to 1.
        """
        return push_many([self], [audio])[0]

    def _take(self, audio: _Array) -> _Array:
        """Keep samples; return the frames that they complete, each with its context: shape (n, 640)."""
        kept = np.concatenate([self._kept, audio])
        n = (len(kept) - _CONTEXT_SAMPLES) // FRAME_SAMPLES
        self._kept = kept[n * FRAME_SAMPLES :].copy()
        frames = np.empty((n, FRAME_SAMPLES + 2 * _CONTEXT_SAMPLES), np.float32)
        rows = np.ndarray((n, FRAME_SAMPLES + _CONTEXT_SAMPLES), np.float32, kept, 0, (4 * FRAME_SAMPLES, 4))
        frames[:, :-_CONTEXT_SAMPLES] = rows
        frames[:, -_CONTEXT_SAMPLES:] = rows[:, -2 : -2 - _CONTEXT_SAMPLES : -1]  # reflected at the last sample
        return frames


def push_many(streams: Sequence[Silero], audio: Sequence[_Array]) -> list[_Array]:
    """Take the next samples of several streams at once; the answers are those of `Silero.push`, bit for bit.

    Many frames in one pass cost half as much each as three at a time (measured: 26 µs instead of 50).

    Parameters
    ----------
    streams, audio : sequences of the same length
        Different streams, and for each its samples (see `Silero.push`).

    Returns
    -------
    list of ndarray, float32
        Probabilities of each stream.
    """
    frames = [stream._take(samples) for stream, samples in zip(streams, audio, strict=True)]
    counts = [len(one) for one in frames]
    flat = np.concatenate(frames) if len(frames) > 1 else frames[0]
    gates = np.tile(_silence(), (len(flat), 1))
    sounding = np.flatnonzero(flat.any(axis=1))
    for first in range(0, len(sounding), _BLOCK_FRAMES):
        block = sounding[first : first + _BLOCK_FRAMES]
        gates[block] = _encode(flat[block])
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    states = _remember(streams, gates, starts, counts)
    weight, bias = _net().output
    logits = np.maximum(states[:, None], 0) @ weight
    found = np.array([1 / (1 + exp(-bias - logit)) for logit in logits.ravel().tolist()], np.float32)
    return [found[start : start + count] for start, count in zip(starts, counts, strict=True)]


@lru_cache(maxsize=1)
def _silence() -> _Array:
    """Return what a frame of digital silence adds to the gates: a muted microphone sends nothing else."""
    return _encode(np.zeros((1, FRAME_SAMPLES + 2 * _CONTEXT_SAMPLES), np.float32))


def _encode(frames: _Array) -> _Array:
    """Return what n frames add to the gates of the LSTM, shape (n, 512); frames do not depend on each other here."""
    net, n = _net(), len(frames)
    spectrum = _windows(frames, _STEPS, _WINDOW, _HOP)[:, None] @ net.basis  # (n, 2, 4, 129)
    spectrum *= spectrum
    padded = np.zeros((n, _STEPS + 2, _BINS), np.float32)
    np.sqrt(spectrum[:, 0] + spectrum[:, 1], out=padded[:, 1:-1])
    first, second, third, fourth = net.encoder
    hidden = np.zeros((n, 1 + _STEPS, _UNITS), np.float32)
    hidden[:, 1:] = _layer(_windows(padded, _STEPS, 3 * _BINS, _BINS), first)
    columns = _layer(_windows(hidden, 2, 3 * _UNITS, 2 * _UNITS), second)  # steps by two: at -1, 0, 1 and 1, 2, 3
    columns = _layer(_layer(columns.reshape(n, 1, _UNITS), third), fourth)
    weight, bias = net.input
    return (columns @ weight + bias).reshape(n, 4 * _UNITS)


def _remember(streams: Sequence[Silero], gates: _Array, starts: npt.NDArray[Any], counts: Sequence[int]) -> _Array:
    """Run the LSTM cell over the frames of each stream, in their order; return the states after each frame."""
    recurrent = _net().recurrent
    states = np.empty((len(gates), _UNITS), np.float32)
    # The longest first: those that still have frames at a step are always the first few.
    order = sorted(range(len(streams)), key=lambda index: -counts[index])
    hidden = np.stack([streams[index]._hidden for index in order])
    cell = np.stack([streams[index]._cell for index in order])
    first = starts[order]
    half = np.float32(0.5)
    n = len(order)
    all_gates = np.empty((n, 4 * _UNITS), np.float32)
    into, keep, out, new = (all_gates[:, k * _UNITS : (k + 1) * _UNITS] for k in range(4))
    for step in range(counts[order[0]] if order else 0):
        while counts[order[n - 1]] <= step:
            n -= 1
        rows: Any = first[:n] + step if n > 1 else slice(first[0] + step, first[0] + step + 1)
        gate = all_gates[:n]
        np.matmul(hidden[:n, None], recurrent, out=gate[:, None])  # one product per stream, always of the same shape
        gate += gates[rows]
        np.tanh(gate, out=gate)
        gate[:, : 3 * _UNITS] *= half
        gate[:, : 3 * _UNITS] += half
        cell[:n] *= keep[:n]
        cell[:n] += into[:n] * new[:n]
        np.multiply(np.tanh(cell[:n]), out[:n], out=hidden[:n])
        states[rows] = hidden[:n]
    for place, index in enumerate(order):
        streams[index]._hidden, streams[index]._cell = hidden[place].copy(), cell[place].copy()
    return states


def _windows(rows: _Array, count: int, length: int, step: int) -> _Array:
    """Return `count` stretches of a `length`, a `step` apart, of each of n contiguous rows: (n, count, length)."""
    row = rows.size // len(rows)
    windows: _Array = np.ndarray((len(rows), count, length), np.float32, rows, 0, (4 * row, 4 * step, 4))
    return windows.copy()


def _layer(columns: _Array, layer: tuple[_Array, _Array]) -> _Array:
    """Apply a convolution, as one product per frame, and the rectifier after it."""
    product: _Array = columns @ layer[0]
    product += layer[1]
    np.maximum(product, 0, out=product)
    return product
