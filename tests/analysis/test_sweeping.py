"""Listening once, and all settings on what was heard."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.analysis import Gain, MuLaw, Recording, Turn, frame_metrics, sweep
from rtnb.analysis.conditions import FramePhase
from rtnb.analysis.listening import Heard, cache_folder, cached_probabilities, listen
from rtnb.analysis.sweeping import METRICS, evaluate
from rtnb.audio import babble, write_wav
from rtnb.errors import AudioError
from rtnb.vad import VadConstants, speech_probabilities
from tests.analysis.plain import plain_sweep

RATE = 16_000
AUDIO = babble("Is this on? Good.", rate_hz=RATE).audio
QUIET = np.zeros(RATE // 2, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six clips of one turn each."""
    for k in range(6):
        clip = np.concatenate([QUIET, (0.5 + 0.05 * k) * AUDIO, QUIET])
        write_wav(tmp_path / f"clip{k}.wav", clip, rate_hz=RATE)
    return tmp_path


def paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.wav"))


# --- the cache --------------------------------------------------------------------------------------------------------


def test_what_was_heard_is_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = speech_probabilities(AUDIO, rate_hz=RATE)
    for _ in range(2):
        found = cached_probabilities(AUDIO, rate_hz=RATE, folder=tmp_path / "new")
        assert np.array_equal(found, expected)
    assert len(list((tmp_path / "new").iterdir())) == 1
    cached_probabilities(AUDIO, rate_hz=8_000, folder=tmp_path / "new")
    cached_probabilities(AUDIO * np.float32(0.999), rate_hz=RATE, folder=tmp_path / "new")
    assert len(list((tmp_path / "new").iterdir())) == 3
    monkeypatch.setattr("rtnb.analysis.listening.speech_probabilities", None)  # nothing is listened to again
    assert np.array_equal(cached_probabilities(AUDIO, rate_hz=RATE, folder=tmp_path / "new"), expected)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: b"", lambda data: data.replace(data[200:204], b"\x07abc")]
)
def test_a_damaged_file_is_noticed_and_replaced(tmp_path: Path, damage: Any) -> None:
    expected = cached_probabilities(AUDIO, rate_hz=RATE, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.warns(UserWarning, match="is damaged: listening anew"):
        assert np.array_equal(cached_probabilities(AUDIO, rate_hz=RATE, folder=tmp_path), expected)
    assert len(file.read_bytes()) == len(whole)
    assert np.array_equal(cached_probabilities(AUDIO, rate_hz=RATE, folder=tmp_path), expected)


def test_many_writers_leave_one_whole_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cached_probabilities(AUDIO[:RATE], rate_hz=RATE, folder=tmp_path), range(32)))
    assert all(np.array_equal(one, found[0]) for one in found)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be kept"), pytest.warns(UserWarning, match="cannot be read"):
        assert len(cached_probabilities(AUDIO, rate_hz=RATE, folder=tmp_path / "file" / "below"))


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RTNB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RTNB_CACHE")
    assert cache_folder().parts[-2:] == ("rtnb", "probabilities")


# --- executors --------------------------------------------------------------------------------------------------------


@contextmanager
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


@contextmanager
def dask() -> Iterator[Executor]:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield client.get_executor()


@contextmanager
def ipyparallel() -> Iterator[Executor]:
    from ipyparallel import Cluster

    with Cluster(n=2, log_level=40, delay=0.1) as client:
        yield client.executor()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cluster", [processes, dask, ipyparallel])
def test_a_cluster_gives_the_same_numbers_and_reports_the_same_failure(folder: Path, cluster: Any) -> None:
    (folder / "clip3.wav").write_bytes(b"RIFF, no more")
    recordings = [*paths(folder), Recording(AUDIO, rate_hz=RATE, name="in memory", turns=[(100, 500)])]
    settings: dict[str, Any] = {"thresholds": [0.5], "conditions": [Gain(0), Gain(-12)], "progress": False}
    with pytest.warns(UserWarning, match="2 of 14 could not be used"):
        here = sweep(recordings, **settings, cache=False)
    with cluster() as executor, pytest.warns(UserWarning, match="2 of 14 could not be used"):
        there = sweep(recordings, **settings, cache=folder / "cache", executor=executor)
    assert there.recordings.tolist() == here.recordings.tolist()
    assert there.conditions.tolist() == here.conditions.tolist()
    assert there.failures == here.failures
    assert here.failures[0].name.endswith("clip3.wav")
    assert "AudioError" in here.failures[0].error
    for name in ("delay_ms", "cut_off", "billed_tokens", "ending_ms"):
        assert np.array_equal(getattr(there, name), getattr(here, name), equal_nan=name != "cut_off")
    assert len(list((folder / "cache").iterdir())) == 12


class Lost(Executor):
    """Does four jobs, then is gone, as a cluster can be."""

    n_left = 4

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.n_left:
            future.set_result(fn(*args, **kwargs))
        else:
            future.set_exception(ConnectionAbortedError("the cluster is gone"))
        self.n_left = max(0, self.n_left - 1)
        return future


def test_a_run_that_was_interrupted_goes_on_where_it_was_and_shows_its_progress(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConnectionAbortedError):
        listen(paths(folder), executor=Lost(), cache=folder / "cache", progress=False)
    assert len(list((folder / "cache").iterdir())) == 4
    listened = []

    def counted(audio: Any, *, rate_hz: int) -> Any:
        listened.append(len(audio))
        return speech_probabilities(audio, rate_hz=rate_hz)

    monkeypatch.setattr("rtnb.analysis.listening.speech_probabilities", counted)
    heard, failures = listen(paths(folder), cache=folder / "cache")
    assert (len(heard), len(failures), len(listened)) == (6, 0, 2)
    assert "6/6" in capsys.readouterr().err


UNUSABLE = [
    (["missing.wav"], [Gain(0)], r"none of the 1 recordings could be used; the first: .*missing\.wav"),
    ([], [Gain(0)], "no recordings"),
    (["clip0.wav"], [Gain(1), Gain(1)], "several conditions are called gain"),
]


@pytest.mark.parametrize("names, conditions, says", UNUSABLE)
def test_nothing_usable_is_an_error(folder: Path, names: list[str], conditions: list[Gain], says: str) -> None:
    with pytest.raises(AudioError, match=says):
        listen([folder / name for name in names], conditions=conditions, cache=False, progress=False)


# --- the same numbers as a plain loop ---------------------------------------------------------------------------------


def different(heard: list[Heard], thresholds: Any, frames: Any, prefixes: Any, constants: VadConstants) -> list[str]:
    """Return the fields of a sweep that are not those of the plain loop, type and all."""
    fast = evaluate(
        heard, thresholds=thresholds, silences_ms=[32 * n for n in frames], prefixes_ms=prefixes, constants=constants
    )
    plain = plain_sweep(
        heard, fast.thresholds.tolist(), fast.silence_frames.tolist(), fast.prefixes_ms.tolist(), constants
    )
    return [
        name
        for name, expected in plain.items()
        if getattr(fast, name).dtype != expected.dtype
        or not np.array_equal(getattr(fast, name), expected, equal_nan=expected.dtype.kind == "f")
    ]


@st.composite
def spans(draw: st.DrawFn, limit_ms: float, most: int) -> list[tuple[float, float]]:
    """Disjoint stretches, in order, on and off the grid of frames."""
    n = draw(st.integers(0, most))
    time = st.one_of(
        st.integers(0, int(limit_ms) // 16).map(lambda k: 16.0 * k), st.floats(0, limit_ms, allow_subnormal=False)
    )
    edges = sorted(draw(st.lists(time, min_size=2 * n, max_size=2 * n)))
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


@st.composite
def recordings(draw: st.DrawFn) -> Heard:
    """Any probabilities (often on the thresholds) and any labels."""
    n = draw(st.integers(0, 60))
    values = st.one_of(st.sampled_from([0.0, 0.1, 0.3, 0.34999999, 0.35, 0.5, 0.9, 1.0]), st.floats(0, 1, width=32))
    runs = draw(st.lists(st.tuples(values, st.integers(1, 9)), max_size=30))
    probabilities = np.array([value for value, length in runs for _ in range(length)][:n], np.float32)
    duration_ms = 32 * len(probabilities) + draw(st.floats(0, 31, allow_subnormal=False))
    turns = []
    for start, end in draw(spans(duration_ms, 4)):
        inner = [(start + a, min(start + b, end)) for a, b in draw(spans(end - start, 3))]
        turns.append(Turn(start, end, tuple((a, b) for a, b in inner if a < b)))
    quiet, echo = draw(spans(duration_ms, 3)), draw(spans(duration_ms, 2))
    return Heard("some", "as recorded", probabilities, tuple(turns), tuple(quiet), tuple(echo), duration_ms)


constants_of = st.builds(
    VadConstants,
    hysteresis=st.sampled_from([0.0, 0.15, 0.3]),
    lowest_release=st.sampled_from([0.01, 0.2, 0.6]),
    min_speech_frames=st.integers(1, 3),
    threshold_shift=st.sampled_from([0.0, 0.0, -0.4]),
)


@given(
    st.lists(recordings(), max_size=4),
    st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.35, 0.5, 0.9, 1.0]), min_size=1, max_size=3),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.lists(st.integers(0, 600), min_size=1, max_size=3),
    constants_of,
)
def test_the_same_numbers_as_the_machine_run_for_every_setting(
    heard: list[Heard], thresholds: list[float], frames: list[int], prefixes: list[int], constants: VadConstants
) -> None:
    assert different(heard, thresholds, frames, prefixes, constants) == []


# --- what the numbers mean, by hand -----------------------------------------------------------------------------------

HIGH, LOW = 0.9, 0.1


def spoken(*lengths: int) -> np.ndarray:
    """Frames of silence and speech in turns."""
    levels = [LOW, HIGH] * len(lengths)
    return np.concatenate([np.full(n, level, np.float32) for n, level in zip(lengths, levels, strict=False)])


def test_one_turn_by_hand() -> None:
    """Silence, 10 frames of speech, a pause of 6, 10 of speech, silence; and a click in the silence."""
    turn = Turn(320, 320 + 26 * 32, ((640, 832),))
    quiet = ((0.0, 200.0), (1500.0, 3000.0))
    heard = Heard("a", "as recorded", spoken(10, 10, 6, 10, 20, 1, 30), (turn,), quiet, (), 87 * 32)
    found = evaluate([heard], thresholds=[0.5], silences_ms=[96, 256], prefixes_ms=[0, 100])
    assert found.cut_off[0, :, 0].tolist() == [True, False]
    assert found.pause_cut[0, :, 0].tolist() == [True, False]
    assert found.delay_ms[0, :, 0].tolist() == [32 * 4, 32 * 9]  # the first quiet frame, then the silence
    assert (found.onset_delay_ms[0, 0], found.missed[0, 0]) == (32, False)
    assert found.false_triggers[0, :, 0].tolist() == [1, 1]
    assert found.clipped_ms[0, :, 0].tolist() == [0, 0]
    click_ms = 32 * (1 + 1 + np.array([3, 8]))
    turns_ms = np.array([32 * (10 + 4) * 2, 32 * (26 + 9)])  # cut in two, or whole
    assert found.billed_tokens[0, :, 0, 0].tolist() == ((turns_ms + click_ms) / 100).astype(np.float32).tolist()
    assert found.grid("false_triggers_per_h").loc[0.5, 96] == 3600 / 1.7


def test_a_turn_that_is_not_heard_is_missed_and_never_ended() -> None:
    heard = Heard("a", "as recorded", spoken(100), (Turn(320, 640),), (), (), 3200)
    found = evaluate([heard], thresholds=[0.5])
    assert (found.missed.all(), (found.clipped_ms == 320).all()) == (True, True)
    for unknown in (found.delay_ms, found.onset_delay_ms, found.grid("false_triggers_per_h").to_numpy()):
        assert np.isnan(unknown).all()
    assert np.isinf(found.grid("delay_p50_ms").loc[0.5, 512])
    assert (found.grid("no_fire_rate").to_numpy() == 1).all()


# --- the result -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result() -> Any:
    clip = Recording.of_one_turn(babble("Well. I think so, yes.").audio, rate_hz=24_000, name="clip").padded()
    room = Recording.of_room_tone(clip.audio[-24_000:], rate_hz=24_000)
    return sweep([clip, room], thresholds=[0.5, 0.3], conditions=[FramePhase(0), MuLaw()], cache=False, progress=False)


def test_axes_are_sorted_and_each_value_is_there_once(result: Any) -> None:
    assert result.thresholds.tolist() == [0.3, 0.5]
    assert evaluate([], silences_ms=[500, 512, 200, 224.0]).silences_ms.tolist() == [224, 512]


def test_a_metric_is_a_table_of_the_settings_it_depends_on(result: Any) -> None:
    clean = result.only("as recorded")
    table = clean.grid("delay_p50_ms")
    assert (table.index.name, table.columns.name, table.shape) == ("threshold", "silence_duration_ms", (2, 46))
    assert table.loc[0.5, 512] == clean.delay_ms[1, (512 - 192) // 32, 0]
    assert clean.grid("clipped_rate").columns.tolist() == [0, 100, 200, 300, 500]
    assert clean.grid("missed_rate").shape == (2, 1)
    assert clean.grid("billed_tokens").loc[0.5, (512, 300)] == clean.billed_tokens[1, (512 - 192) // 32, 3].sum()


NOT_THERE = [
    ("grid", "missed_rate", "several conditions: as recorded, µ-law 8 kHz"),
    ("grid", "speed", "unknown metric 'speed'; there are: cut_off_rate"),
    ("only", "loud", "no condition 'loud'; there are: as recorded, µ-law 8 kHz"),
]


@pytest.mark.parametrize("method, name, says", NOT_THERE)
def test_what_is_not_in_a_sweep_is_refused(result: Any, method: str, name: str, says: str) -> None:
    with pytest.raises(AudioError, match=says):
        getattr(result, method)(name)


def test_a_room_without_turns_has_no_delays_but_false_triggers() -> None:
    noise = 1e-3 * np.random.default_rng(1).standard_normal(48_000).astype(np.float32)
    found = sweep(Recording.of_room_tone(noise, rate_hz=24_000), cache=False, progress=False)
    assert np.isnan(found.grid("delay_p90_ms").values).all()
    assert np.isnan(found.to_frame()["cut_off_rate"]).all()
    assert (found.grid("false_triggers_per_h").values == 0).all()


def test_robustness_is_a_column(result: Any) -> None:
    frame = result.to_frame()
    assert len(frame) == 2 * 2 * 46 * 5
    assert set(METRICS) < set(frame.columns)
    assert frame.n_turns.unique().tolist() == [1]
    where = (frame.threshold == 0.5) & (frame.silence_duration_ms == 512) & (frame.prefix_padding_ms == 300)
    by_condition = frame[where].set_index("condition").delay_p50_ms
    for condition in ("as recorded", "µ-law 8 kHz"):
        grid = result.only(condition).grid("delay_p50_ms")
        assert by_condition[condition] == grid.loc[0.5, 512]


def test_some_of_the_recordings(result: Any) -> None:
    part = result.of_recordings(np.array([False, False, True, False]))
    assert (part.recordings.tolist(), part.n_turns, len(part.pause_turn)) == (["room tone"], 0, 0)
    assert np.isnan(part.grid("cut_off_rate").to_numpy()).all()
    assert repr(result).startswith("<Sweep: 2 thresholds × 46 silences × 5 prefixes; 4 recordings, 2 turns")


WRONG_SETTINGS = [
    ({"thresholds": [0.5, 1.5]}, "thresholds are"),
    ({"thresholds": []}, "give at least one"),
    ({"silences_ms": [-1]}, "silences_ms are"),
    ({"prefixes_ms": [0.5]}, "whole milliseconds"),
    ({"prefixes_ms": [float("nan")]}, "prefixes_ms are"),
]


@pytest.mark.parametrize("wrong, says", WRONG_SETTINGS)
def test_settings_are_checked_before_anything_is_heard(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(AudioError, match=says):
        sweep(["nowhere.wav"], **wrong)


# --- real speech ------------------------------------------------------------------------------------------------------


def test_frames_by_hand() -> None:
    found = frame_metrics([0.1, 0.6, 0.2, 0.9, 0.4], speech=[(40, 64), (96, 160)], threshold=0.5)
    assert (found.n_speech, found.n_other) == (3, 2)
    assert (found.auc, found.precision, found.false_alarm_rate) == (1, 1, 0)
    assert found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(0.8)
    assert found.detection_cost == pytest.approx(0.25)
    late = frame_metrics([0, 0, 0, 0.9, 0.9, 0.9, 0, 0], speech=[(32, 128)])
    assert (late.best_lag_ms, late.best_lag_auc) == (64, 1)
    assert late.auc < 0.6
    assert frame_metrics([0.5, 0.5], speech=[(0, 32)]).auc == 0.5
    with pytest.raises(AudioError, match="0 of 2 frames"):
        frame_metrics([0.5, 0.5], speech=[])


def test_the_anchors_hold(speech_folder: Path, shared_speech: Callable[[str], Path]) -> None:
    """Figures measured with the original net before this code was written, to the spread of three turns."""
    from tests.analysis import anchors

    for name in (*anchors.MEETINGS, *anchors.MONOLOGUES, "labels.json"):
        shared_speech(name)
    assert anchors.meetings(speech_folder)["all"].auc >= 0.95
    found = anchors.table(speech_folder)
    assert (found.n_turns, len(found.pause_turn)) == (3, 36)
    measured = np.array([[434, 819, 1011, 1299], [331, 651, 843, 1131], [299, 619, 811, 1099], [267, 587, 779, 1067]])
    error_ms = np.abs(found.grid("delay_p50_ms").to_numpy() - measured)
    assert error_ms[1:].max() <= 32  # a frame; at 0.3 the end of three turns fades too differently
    assert error_ms.max() <= 150
    cut = found.grid("pause_cut_rate").to_numpy()
    assert (np.diff(cut, axis=0) >= 0).all()  # a higher threshold cuts more pauses
    assert (np.diff(cut, axis=1) <= 0).all()  # a longer silence fewer
