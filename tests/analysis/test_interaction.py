"""Interaction metrics: a hand-made tick log, published tick logs, and the same conversations as audio tracks."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtnb.analysis.interaction import Event, Ticks, find_events, panel, read_ticks, tick_metrics, turn_taking_scores
from rtnb.audio import babble
from rtnb.errors import AudioError
from rtnb.trace.interaction import GAP_S, Interaction, mean_interval

BY_HAND = Path(__file__).resolve().parents[1] / "data" / "ticks.json"
RATE_HZ = 16_000
# Kind, outcome, first tick, last tick + 1, latency in ticks; worked out on paper from the ticks in BY_HAND.
EVENTS = [
    ("response", "response", 0, 5, 3),
    ("interruption", "yield", 14, 18, 6),  # the agent speaks until tick 20
    ("response", "response", 24, 26, 2),
    ("backchannel", "correct", 31, 32, None),
    ("vocal_tic", "error", 36, 37, 4),  # the agent stops at tick 40, within five ticks
    ("response", "no response", 43, 46, None),  # the user speaks again at tick 48
    ("response", "response", 48, 52, 1),
    ("agent_interruption", "error", 51, 52, None),
    ("non_directed", "correct", 56, 57, None),
]


@pytest.fixture(scope="session")
def tick_logs() -> tuple[list[Path], dict[str, Any]]:
    """Published tick logs and their metrics; skips where they are absent."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "interaction"
    folder = Path(os.environ.get("RTNB_TICK_LOGS", beside))
    paths = sorted(folder.glob("*-*.json"))
    if not paths:
        pytest.skip(f"no tick logs of tau2-bench in {folder}; RTNB_TICK_LOGS names their folder")
    return paths, json.loads((folder / "expected_metrics.json").read_text())


def rendered(ticks: Ticks, *, gap_s: float = GAP_S) -> Interaction:
    """The same conversation as two audio tracks with a little noise, and its labels."""
    speech = babble("my train is running late this morning and would you like to meet later " * 15, rate_hz=RATE_HZ)
    size = round(ticks.tick_s * RATE_HZ)
    tracks = []
    for seed, flags in enumerate((ticks.user, ticks.agent)):
        track = 1e-4 * np.random.default_rng(seed).standard_normal(len(flags) * size)
        for start, stop in runs(flags):
            track[start * size : stop * size] += np.resize(speech.audio, (stop - start) * size)
        tracks.append(track.astype(np.float32))
    labels = [(start, stop, kind) for start, stop, kind in ticks.effects]
    labels += [(start, stop, kind) for start, stop in runs(ticks.user) if (kind := ticks.kind(start, stop))]
    times = [(start * ticks.tick_s, stop * ticks.tick_s, kind) for start, stop, kind in labels]
    return Interaction.of_tracks(*tracks, rate_hz=RATE_HZ, labels=times, gap_s=gap_s)


def runs(flags: Any) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False])).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def assert_within_one_tick(found: list[Event], expected: list[Event]) -> None:
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    times = np.nan_to_num([one[2:] for one in found]), np.nan_to_num([one[2:] for one in expected])
    assert np.abs(times[0] - times[1]).max() <= 0.2 + 1e-9


# --- tick logs --------------------------------------------------------------------------------------------------------


def test_the_hand_made_log_has_the_events_worked_out_on_paper() -> None:
    found = find_events(read_ticks(BY_HAND))
    assert [(one.kind, one.outcome) for one in found] == [one[:2] for one in EVENTS]
    for event, (_, _, start, stop, late) in zip(found, EVENTS, strict=True):
        expected = 0.2 * start, 0.2 * stop, np.nan if late is None else 0.2 * late
        assert event[2:] == pytest.approx(expected, nan_ok=True)


def test_the_hand_made_log_has_the_panel_worked_out_on_paper() -> None:
    found = tick_metrics([BY_HAND])
    counts = {"n_simulations": 1, "response_total": 4, "yield_total": 1, "backchannel_total": 1}
    counts |= {"vocal_tic_total": 1, "non_directed_total": 1, "agent_interrupts_count": 1}
    assert found.pop("counts") == counts
    assert found == pytest.approx(
        {
            "response_latency_mean": 0.4,  # 3, 2 and 1 ticks
            "yield_latency_mean": 1.2,
            "response_rate": 0.75,
            "yield_rate": 1.0,
            "agent_interruption_rate": 0.25,
            "selectivity_backchannel": 1.0,
            "selectivity_vocal_tic": 0.0,
            "selectivity_non_directed": 1.0,
        }
    )


def test_published_logs_have_their_published_metrics(tick_logs: tuple[list[Path], dict[str, Any]]) -> None:
    paths, expected = tick_logs
    found = tick_metrics(paths)
    assert found.keys() == expected.keys()
    assert found.pop("counts") == expected["counts"]
    assert found == pytest.approx({k: v for k, v in expected.items() if k != "counts"}, rel=0, abs=1e-9)


def test_metrics_without_an_event_are_none() -> None:
    assert set(panel([]).values()) == {None}
    assert tick_metrics([])["counts"]["n_simulations"] == 0


def test_speech_in_the_last_tick_only_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"ticks": [{"user_chunk": null}, {"user_chunk": {"contains_speech": true}}]}')
    assert read_ticks(tmp_path / "x.json").user.tolist() == [False]


@pytest.mark.parametrize("text", ["[]", "{}", "no JSON", '{"ticks": [1]}'])
def test_a_file_that_is_no_tick_log_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(AudioError, match=r"x\.json is no tick log: it needs a list 'ticks' of chunks"):
        read_ticks(tmp_path / "x.json")


def flags(n: int, *spans: tuple[int, int]) -> Any:
    """Return ticks of which those in the spans are true."""
    found = np.zeros(n, bool)
    for start, stop in spans:
        found[start:stop] = True
    return found


def test_agents_that_stop_late_in_an_effect_give_no_event() -> None:
    user, agent = flags(40), flags(40, (0, 10))
    kinds = [find_events(Ticks(user, agent, effects=((at, at + 1, "vocal_tic"),))) for at in (4, 5, 12)]
    assert [[one.outcome for one in events] for events in kinds] == [[], ["error"], ["correct"]]


# --- turn-taking score ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "silence, score",
    [(0, 0.5), (1, 0.7), (2, 0.9), (3, 1.0), (10, 1.0), (15, 2 / 3), (20, 1 / 3), (25, 0.0), (40, 0.0)],
)
def test_a_turn_scores_its_latency_by_the_published_curve(silence: int, score: float) -> None:
    assert turn_taking_scores(Ticks(flags(60, (0, 10)), flags(60, (10 + silence, 60)))) == pytest.approx([score])


def test_the_hand_made_log_has_the_scores_worked_out_on_paper() -> None:
    # 0.6 s latency; yields after 1.2 s; 0.4 s latency; no answer, no score; 0.2 s overlap, then 0.2 s latency (0.7).
    assert turn_taking_scores(read_ticks(BY_HAND)) == pytest.approx([1.0, 0.4, 0.9, 0.45])


def test_a_turn_with_both_interruptions_has_the_lower_score() -> None:
    agent = flags(30, (0, 8), (10, 11), (17, 20))  # yields after 0.6 s (0.7), then interrupts for 0.2 s (0.45)
    assert turn_taking_scores(Ticks(flags(30, (5, 15)), agent)) == pytest.approx([0.45])


# --- audio tracks -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_hand() -> Interaction:
    """The hand-made log as audio tracks."""
    return rendered(read_ticks(BY_HAND), gap_s=0.25)


def test_tracks_of_the_hand_made_log_give_its_events_within_one_tick(by_hand: Interaction) -> None:
    assert_within_one_tick(by_hand.events[:5], find_events(read_ticks(BY_HAND))[:5])
    assert repr(by_hand).startswith("<Interaction: 12.0 s, ")


def test_tracks_of_published_logs_give_their_metrics_within_one_tick(tick_logs: tuple[list[Path], Any]) -> None:
    logs = [read_ticks(path) for path in tick_logs[0]]
    found, expected = [], []
    for ticks in logs:
        found += rendered(ticks).events
        expected += find_events(ticks)
    assert_within_one_tick(found, expected)
    metrics = panel(found)
    for name, value in panel(expected).items():
        assert metrics[name] == pytest.approx(value, abs=0.2 if "latency" in name else 1e-12), name


def test_known_playback_of_the_agent_is_taken_instead_of_its_track() -> None:
    quiet = np.zeros(4 * RATE_HZ, np.float32)
    found = Interaction.of_tracks(quiet, quiet, rate_hz=RATE_HZ, agent_spans=[(1.0, 2.0), (2.0, 3.1)])
    assert runs(found.ticks.agent) == [(5, 16)]
    assert not found.ticks.user.any()


def test_a_label_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(AudioError, match="the label 'cough' is unknown; allowed: backchannel, vocal_tic, non_directed"):
        Interaction.of_tracks([0.0], [0.0], rate_hz=RATE_HZ, labels=[(0, 1, "cough")])


def test_metrics_carry_n_and_an_interval_or_none(by_hand: Interaction) -> None:
    table = by_hand.metrics()
    assert table.loc["response_rate", "n"] >= 3
    assert table.loc["yield_rate", "low"] < 1.0 == table.loc["yield_rate", "value"]
    assert np.isnan(table.loc["response_latency_mean", "low"])  # fewer than eight
    shares = table.loc[["user_share", "agent_share", "silence_share"], "value"].sum()
    assert shares - table.loc["talk_over_share", "value"] == pytest.approx(1.0)


def test_a_mean_of_many_latencies_has_an_interval() -> None:
    user = flags(400, *((40 * k, 40 * k + 5) for k in range(10)))
    agent = flags(400, *((40 * k + 7 + k, 40 * k + 20) for k in range(10)))
    table = Interaction(np.zeros(1, np.float32), np.zeros(1, np.float32), RATE_HZ, Ticks(user, agent)).metrics()
    row = table.loc["response_latency_mean"]
    assert (row["n"], row["value"], table.loc["gap_mean_s", "n"]) == (10, pytest.approx(1.3), 19)
    assert row["low"] < 1.2 < 1.4 < row["high"]


@pytest.mark.parametrize("n", [8, 12, 20])
def test_the_interval_of_a_mean_covers_it_for_skewed_latencies(n: int) -> None:
    random = np.random.default_rng(n)
    ends = [mean_interval(random.lognormal(0, 0.5, n).tolist())[2:] for _ in range(1_000)]
    covered = sum(low <= np.exp(0.125) <= high for low, high in ends)
    assert covered >= 880


def test_the_plot_has_a_lane_for_each_kind_of_event(by_hand: Interaction) -> None:
    ax = by_hand.plot()
    first, *kinds, last = [label.get_text() for label in ax.get_yticklabels()]
    assert (first, last) == ("user", "agent")
    assert set(kinds) == {one.kind.replace("_", " ") for one in by_hand.events}
    starts = {line.get_xdata()[0] for line in ax.lines if line.get_marker() in ("o", "X")}
    assert starts == {one.stop_s if one.kind == "response" else one.start_s for one in by_hand.events}
    assert ax.get_xlabel() == "time (s)"
