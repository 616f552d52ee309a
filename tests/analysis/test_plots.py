"""Figures show what happened and what arrived: colours, units, values, every number with its n; none without audio."""

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest

from rtnb.analysis import plot_arrivals, plot_deltas
from rtnb.analysis.plots.turn_detection import plot_pareto, plot_sweep, plot_turns
from rtnb.analysis.recommendation import recommend
from rtnb.analysis.recordings import Recording, Turn
from rtnb.client import Delta
from rtnb.errors import AudioError
from rtnb.protocol import PCM16, PCMU, ServerVad, events
from tests.analysis.grids import grid
from tests.simulator.rig import spoken

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend comes first


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def _pausing() -> Recording:
    """Two sentences of one turn, 700 ms of silence between them."""
    one = spoken("hello there", silence_ms=400, lead_ms=300)
    end_ms = len(one) / 24
    turn = Turn(300, 2 * end_ms - 400, pauses=((end_ms - 400, end_ms + 300),))
    return Recording(np.concatenate([one, one, np.zeros(24_000)]), rate_hz=24_000, turns=(turn,))


def test_turns_show_where_somebody_is_cut_off_and_by_which_setting() -> None:
    figure, ax = plt.subplots()
    recording = _pausing()
    hasty, patient = ServerVad(silence_duration_ms=200), ServerVad(threshold=0.6, silence_duration_ms=900)
    assert plot_turns(recording, turn_detection=[hasty, patient], ax=ax) is ax
    assert figure.axes == [ax]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "speech probability")
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names[-4:] == ["audio", "spoken", "0.5, 200 ms", "0.6, 900 ms"]
    (crosses,) = [line for line in ax.get_lines() if line.get_label() == "cut off"]
    pause_start, pause_end = recording.turns[0].pauses[0]
    assert pause_start < 1000 * crosses.get_xdata()[0] < pause_end
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["turn", "pause in it", "item taken", "cut off"]
    zoomed = plot_turns(recording, start_ms=500, stop_ms=900)
    assert zoomed.get_xlim() == pytest.approx((0.5, 0.9))


def test_a_sweep_is_a_map_with_default_and_choice() -> None:
    sweep = grid(120)
    ax = plot_sweep(sweep, recommendation=recommend(sweep, n_resamples=100))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("silence duration (ms)", "threshold")
    assert ax.get_title(loc="left") == "120 turns"
    assert [axis.get_ylabel() for axis in ax.figure.axes[1:]] == ["cut off rate (%)"]
    assert ax.get_legend_handles_labels()[1] == ["default", "choice"]
    assert plot_sweep(sweep, metric="delay_p90_ms").figure.axes[1].get_ylabel() == "delay p90 (ms)"
    plot_sweep(sweep, metric="billed_tokens").figure.draw_without_rendering()
    with pytest.raises(AudioError, match="missed_rate does not depend on the silence duration"):
        plot_sweep(sweep, metric="missed_rate")


def test_the_front_shows_its_intervals_and_how_many_turns_they_are_of() -> None:
    sweep = grid(120)
    ax = plot_pareto(sweep, recommendation=recommend(sweep, n_resamples=100))
    assert ax.get_title(loc="left") == "120 turns, 90 % intervals"
    assert ax.get_xlabel() == "endpointing delay, 90th percentile (ms)"
    assert ax.get_ylabel() == "turns cut off (%)"
    assert set(ax.get_legend_handles_labels()[1]) == {"front", "budget", "default", "choice"}
    assert len(ax.collections[0].get_offsets()) == sweep.cut_off[..., 0].size
    assert plot_pareto(sweep).get_legend() is None


# --- deltas -----------------------------------------------------------------------------------------------------------


def response(*arrived_ms: float, form: object = PCM16) -> SimpleNamespace:
    """A response of deltas of 100 ms that arrived at these times."""
    pcm = b"\x00\x40" * 2_400 if form is PCM16 else b"\x00" * 800
    audio = events.ResponseOutputAudioDelta(response_id="resp_1", item_id="item_1", delta=pcm)
    words = events.ResponseOutputAudioTranscriptDelta(response_id="resp_1", item_id="item_1", delta="hi")
    deltas = [Delta("audio", at, audio, form) for at in arrived_ms]  # type: ignore[arg-type]
    return SimpleNamespace(deltas=(Delta("transcript", 0.0, words, PCM16), *deltas))


def test_two_panels_with_units_and_one_colour_per_delta() -> None:
    axes = plot_deltas(response(300, 310, 320))
    assert [ax.get_ylabel() for ax in axes] == ["amplitude (full scale = 1)", "arrived after\nthe first (s)"]
    assert axes[1].get_xlabel() == "time in the response (s)"
    colours = [tuple(one.get_facecolor()[0]) for one in axes[0].collections]
    assert len(set(colours)) == 3
    bars = [bar.get_x() for bar in axes[1].patches]
    assert bars == pytest.approx([0.0, 0.1, 0.2])
    assert "300 ms after the request" in axes[1].get_title(loc="right")


def test_into_axes_of_ones_own() -> None:
    figure, ax = plt.subplots()
    assert plot_deltas(response(300, 310, form=PCMU), ax=ax) is ax
    assert figure.axes == [ax]
    assert ax.get_xlim() == pytest.approx((0, 0.31))


def test_arrivals_say_what_is_in_hand_and_when_it_ran_dry() -> None:
    ax = plot_arrivals(response(300, 310, 320))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time after the request (s)", "audio (s)")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["arrived", "played", "in hand, at most 280 ms"]
    late = plot_arrivals(response(300, 500), ax=plt.subplots()[1])
    assert late.get_legend().get_texts()[-1].get_text() == "ran dry 1 time"
    played = late.lines[1]
    assert np.asarray(played.get_xdata()) == pytest.approx([0.3, 0.4, 0.5, 0.6])
    assert np.asarray(played.get_ydata()) == pytest.approx([0.0, 0.1, 0.1, 0.2])


@pytest.mark.parametrize("plot", [plot_deltas, plot_arrivals])
def test_nothing_to_draw_is_said_in_words(plot: Any) -> None:
    with pytest.raises(AudioError, match="no audio"):
        plot(response())


def test_the_module_is_light_until_it_draws() -> None:
    code = "import sys, rtnb.analysis; sys.exit('matplotlib' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
