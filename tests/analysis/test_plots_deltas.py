"""Figures show what arrived: colours, units, values; no figure without audio."""

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from rtnb.analysis import plot_arrivals, plot_deltas
from rtnb.client import Delta
from rtnb.errors import AudioError
from rtnb.protocol import PCM16, PCMU, events

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend comes first


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def spoken(*arrived_ms: float, form: object = PCM16) -> SimpleNamespace:
    """A response of deltas of 100 ms that arrived at these times."""
    pcm = b"\x00\x40" * 2_400 if form is PCM16 else b"\x00" * 800
    audio = events.ResponseOutputAudioDelta(response_id="resp_1", item_id="item_1", delta=pcm)
    words = events.ResponseOutputAudioTranscriptDelta(response_id="resp_1", item_id="item_1", delta="hi")
    deltas = [Delta("audio", at, audio, form) for at in arrived_ms]  # type: ignore[arg-type]
    return SimpleNamespace(deltas=(Delta("transcript", 0.0, words, PCM16), *deltas))


def test_two_panels_with_units_and_one_colour_per_delta() -> None:
    axes = plot_deltas(spoken(300, 310, 320))
    assert [ax.get_ylabel() for ax in axes] == ["amplitude (full scale = 1)", "arrived after\nthe first (s)"]
    assert axes[1].get_xlabel() == "time in the response (s)"
    colours = [tuple(one.get_facecolor()[0]) for one in axes[0].collections]
    assert len(set(colours)) == 3
    bars = [bar.get_x() for bar in axes[1].patches]
    assert bars == pytest.approx([0.0, 0.1, 0.2])
    assert "300 ms after the request" in axes[1].get_title(loc="right")


def test_into_axes_of_ones_own() -> None:
    figure, ax = plt.subplots()
    assert plot_deltas(spoken(300, 310, form=PCMU), ax=ax) is ax
    assert figure.axes == [ax]
    assert ax.get_xlim() == pytest.approx((0, 0.31))


def test_arrivals_say_what_is_in_hand_and_when_it_ran_dry() -> None:
    ax = plot_arrivals(spoken(300, 310, 320))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time after the request (s)", "audio (s)")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["arrived", "played", "in hand, at most 280 ms"]
    late = plot_arrivals(spoken(300, 500), ax=plt.subplots()[1])
    assert late.get_legend().get_texts()[-1].get_text() == "ran dry 1 time"
    played = late.lines[1]
    assert np.asarray(played.get_xdata()) == pytest.approx([0.3, 0.4, 0.5, 0.6])
    assert np.asarray(played.get_ydata()) == pytest.approx([0.0, 0.1, 0.1, 0.2])


def test_nothing_to_draw_is_said_in_words() -> None:
    with pytest.raises(AudioError, match="no audio"):
        plot_deltas(spoken())
    with pytest.raises(AudioError, match="no audio"):
        plot_arrivals(spoken())


def test_the_module_is_light_until_it_draws() -> None:
    code = "import sys, rtnb.analysis; sys.exit('matplotlib' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
