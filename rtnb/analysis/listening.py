"""Speech probabilities of recordings: each computed once, here or on many machines, and kept on disk.

One file per recording and condition, 4 bytes per 32 ms (0.45 MB per hour), in the folder `cache_folder` names. A
file's name is a digest of its samples, their rate, and the net. It is a zip file with a checksum, so that a damaged one
is noticed and replaced. Files appear whole or not at all: any number of processes may write the same folder."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path
from tqdm.auto import tqdm

import rtnb.vad
from rtnb.analysis.conditions import Condition, FramePhase
from rtnb.analysis.recordings import Recording, Span, Turn
from rtnb.audio import Audio
from rtnb.errors import AudioError, RtnbError
from rtnb.vad import speech_probabilities


@dataclass(frozen=True)
class Failure:
    """A recording that could not be used; it is in no number of the result."""

    name: str
    """Of the recording, or the path it was given by."""
    condition: str
    """Under which condition."""
    error: str
    """Message of the error."""


@dataclass(frozen=True, eq=False)
class Heard:
    """The probabilities of one recording under one condition, and its labels (times in ms of that audio)."""

    name: str
    condition: str
    probabilities: npt.NDArray[np.float32]
    """(n_frames,) from `speech_probabilities`."""
    turns: tuple[Turn, ...] = ()
    non_speech: tuple[Span, ...] = ()
    echo: tuple[Span, ...] = ()
    duration_ms: float = 0.0
    speaker: str = ""


_VERSION: Final = b"2"
"""Raise it when the resampler or the net's arithmetic changes the probabilities."""
_DIGEST_BYTES: Final = 20


def cache_folder() -> Path:
    """Return the folder of the probabilities: that in the variable RTNB_CACHE, or the user's cache folder.

    That is ``~/.cache/rtnb/probabilities`` (or below XDG_CACHE_HOME), on macOS ``~/Library/Caches/rtnb/probabilities``,
    on Windows ``%LOCALAPPDATA%/rtnb/Cache/probabilities``.
    """
    chosen = os.environ.get("RTNB_CACHE")
    return Path(chosen) if chosen else user_cache_path("rtnb", appauthor=False) / "probabilities"


def cached_probabilities(audio: Audio, *, rate_hz: int, folder: Path | None) -> npt.NDArray[np.float32]:
    """Return `speech_probabilities`, read from the folder where it holds them.

    Parameters
    ----------
    audio : ndarray, float32, shape (n_samples,)
        Exactly what is sent.
    rate_hz : int
        Samples per second.
    folder : Path or None
        Made where it is missing; None keeps nothing.

    Returns
    -------
    probabilities : ndarray, float32, shape (n_frames,)

    Warns
    -----
    UserWarning
        A damaged file was replaced, or the folder cannot be used: the answer is right, the time is lost.
    """
    if folder is None:
        return speech_probabilities(audio, rate_hz=rate_hz)
    path = folder / f"{_key(audio, rate_hz)}.npz"
    probabilities = _read(path)
    if probabilities is None:
        probabilities = speech_probabilities(audio, rate_hz=rate_hz)
        _write(path, probabilities)
    return probabilities


def _key(audio: Audio, rate_hz: int) -> str:
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for part in (_VERSION, _net(), str(int(rate_hz)).encode(), b"\n"):
        digest.update(part)
    digest.update(np.ascontiguousarray(audio, "<f4").data)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _net() -> bytes:
    """A digest of the weights."""
    return blake2b((Path(rtnb.vad.__file__).parent / "silero_v6.npz").read_bytes(), digest_size=_DIGEST_BYTES).digest()


def _read(path: Path) -> npt.NDArray[np.float32] | None:
    try:
        with open(path, "rb") as file, np.load(file) as kept:
            probabilities: npt.NDArray[np.float32] = kept["probabilities"]
            return probabilities
    except FileNotFoundError:
        return None
    except (BadZipFile, EOFError, KeyError, ValueError):
        warnings.warn(f"{path} is damaged: listening anew", stacklevel=2)
    except OSError as error:
        warnings.warn(f"kept probabilities cannot be read: {error}", stacklevel=2)
    return None


def _write(path: Path, probabilities: npt.NDArray[np.float32]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
            np.savez(file, probabilities=probabilities)
        os.replace(file.name, path)
    except OSError as error:
        warnings.warn(f"probabilities cannot be kept: {error}", stacklevel=2)


Source = Recording | str | os.PathLike[str]
"""A recording, or the path of one that `Recording.load` reads where it is listened to."""


def listen(
    recordings: Source | Iterable[Source],
    *,
    conditions: Iterable[Condition] = (FramePhase(0),),
    executor: Executor | None = None,
    cache: bool | str | os.PathLike[str] = True,
    progress: bool = True,
    load: Callable[[Any], Recording] = Recording.load,
) -> tuple[list[Heard], list[Failure]]:
    """Hear every recording under every condition: the slow part of a sweep, seconds per hour of audio.

    What was heard is kept on disk at once, so a run that was interrupted goes on where it was when it is run again.

    Parameters
    ----------
    recordings : Recording, path, or iterable of them
        Paths are read where the work is done, so thousands need no memory here.
    conditions : iterable of Condition, default as recorded
        See `rtnb.analysis.conditions`.
    executor : concurrent.futures.Executor, optional
        Who does the work: a ``ProcessPoolExecutor``, Dask's ``client.get_executor()``, ipyparallel's
        ``client.executor()``. Default: this process. Yours to shut down.
    cache : bool or path, default True
        Where to keep probabilities: in `cache_folder`, in another folder, or (False) nowhere. With an executor on other
        machines the folder is theirs.
    progress : bool, default True
        Whether to show a progress bar.
    load : callable, default Recording.load
        Reads a path; must be picklable for an executor of other processes, e.g. ``partial(Recording.load, tier=…)``.

    Returns
    -------
    heard : list of Heard
        In the order given, conditions of one recording side by side.
    failures : list of Failure
        What could not be read or used.

    Raises
    ------
    AudioError
        No recordings, none that could be used, or two conditions of one name.

    Warns
    -----
    UserWarning
        Something could not be used; names the first.
    """
    made = tuple(conditions)
    names = [one.name for one in made]
    if twice := {name for name in names if names.count(name) > 1}:
        raise AudioError(f"several conditions are called {', '.join(sorted(twice))}: results need one name each")
    sources = [recordings] if isinstance(recordings, (Recording, str, os.PathLike)) else list(recordings)
    if not sources:
        raise AudioError("no recordings: give at least one")
    folder = None if cache is False else cache_folder() if cache is True else Path(cache)
    hear = partial(_hear, conditions=made, folder=folder, load=load)
    results = map(hear, sources) if executor is None else executor.map(hear, sources)
    bar = tqdm(results, total=len(sources), desc="listening", unit="recording", disable=not progress)
    parts = [part for found in bar for part in found]
    failures = [part for part in parts if isinstance(part, Failure)]
    heard = [part for part in parts if isinstance(part, Heard)]
    if failures:
        first = f"{failures[0].name} ({failures[0].condition}): {failures[0].error}"
        if not heard:
            raise AudioError(f"none of the {len(sources)} recordings could be used; the first: {first}")
        warnings.warn(f"{len(failures)} of {len(parts)} could not be used and are skipped; {first}", stacklevel=3)
    return heard, failures


def _hear(
    source: Source, *, conditions: tuple[Condition, ...], folder: Path | None, load: Callable[[Any], Recording]
) -> list[Heard | Failure]:
    """Compute one recording under all conditions; runs in any process."""
    name = source.name if isinstance(source, Recording) else os.fspath(source)
    try:
        recording = source if isinstance(source, Recording) else load(source)
    except (RtnbError, OSError) as error:
        return [Failure(name, condition.name, _words(error)) for condition in conditions]
    results: list[Heard | Failure] = []
    for condition in conditions:
        try:
            changed = condition.apply(recording)
            probabilities = cached_probabilities(changed.audio, rate_hz=changed.rate_hz, folder=folder)
            labels = (changed.turns, changed.non_speech or (), changed.echo, changed.duration_ms, changed.speaker)
            results.append(Heard(changed.name, condition.name, probabilities, *labels))
        except (RtnbError, OSError) as error:
            results.append(Failure(name, condition.name, _words(error)))
    return results


def _words(error: Exception) -> str:
    return " ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
