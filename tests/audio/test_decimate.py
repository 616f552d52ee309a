"""Min/max bins keep every peak, whatever pieces the audio comes in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rtnb.audio.decimate import BinTrack, min_max
from rtnb.errors import AudioError

int16s = arrays(np.int16, st.integers(0, 300))
pieces = st.tuples(st.integers(0, 400), arrays(np.int16, st.tuples(st.integers(1, 60), st.just(2))))


@given(int16s, st.integers(1, 50))
def test_every_sample_lies_within_its_bin_and_every_edge_is_a_sample(samples: np.ndarray, size: int) -> None:
    bins = min_max(samples, samples_per_bin=size)
    assert bins.dtype == np.int16
    assert len(bins) == -(-len(samples) // size)
    for number, (low, high) in enumerate(bins):
        inside = samples[number * size : (number + 1) * size]
        assert (low, high) == (inside.min(), inside.max())


@given(st.lists(pieces, max_size=8))
def test_a_track_is_what_was_written_and_silence_between(writes: list[tuple[int, np.ndarray]]) -> None:
    track, model = BinTrack(), np.zeros((2000, 2), np.int16)
    for index, bins in writes:
        track.write(index, bins)
        model[index : index + len(bins)] = bins
    assert np.array_equal(track.read(), model[: len(track)])
    assert not model[len(track) :].any()


def test_a_track_grows_by_doubling() -> None:
    track = BinTrack()
    sizes = set()
    for index in range(0, 100_000, 50):
        track.write(index, np.ones((50, 2), np.int16))
        sizes.add(len(track._bins))
    assert len(sizes) < 10


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(AudioError, match="samples_per_bin is 0"):
        min_max(np.zeros(3, np.int16), samples_per_bin=0)
