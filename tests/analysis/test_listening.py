import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtnb.analysis import Gain, Recording, sweep
from rtnb.analysis.listening import cache_folder, cached_probabilities, listen
from rtnb.audio import babble, write_wav
from rtnb.errors import AudioError
from rtnb.vad import speech_probabilities

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client.get_executor()


@contextmanager
def ipyparallel() -> Iterator[Executor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ipyparallel import Cluster

        with Cluster(n=2, log_level=40, delay=0.1) as client:
            yield client.executor()


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


def test_a_run_that_was_interrupted_goes_on_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionAbortedError):
        listen(paths(folder), executor=Lost(), cache=folder / "cache", progress=False)
    assert len(list((folder / "cache").iterdir())) == 4
    listened = []

    def counted(audio: Any, *, rate_hz: int) -> Any:
        listened.append(len(audio))
        return speech_probabilities(audio, rate_hz=rate_hz)

    monkeypatch.setattr("rtnb.analysis.listening.speech_probabilities", counted)
    heard, failures = listen(paths(folder), cache=folder / "cache", progress=False)
    assert (len(heard), len(failures), len(listened)) == (6, 0, 2)


def test_nothing_usable_is_an_error_and_so_is_nothing(folder: Path) -> None:
    with pytest.raises(AudioError, match=r"none of the 1 recordings could be used; the first: .*missing\.wav"):
        listen([folder / "missing.wav"], cache=False, progress=False)
    with pytest.raises(AudioError, match="no recordings"):
        listen([], cache=False)
    with pytest.raises(AudioError, match="several conditions are called gain"):
        listen(paths(folder), conditions=[Gain(1), Gain(1)], cache=False)


def test_progress_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listen(paths(folder)[:2], cache=False)
    assert "2/2" in capsys.readouterr().err
