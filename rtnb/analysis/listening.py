"""Listen to many recordings: here or on many machines, with progress, each one once, a bad one reported and skipped."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tqdm.auto import tqdm

from rtnb.analysis.caching import cache_folder, cached_probabilities
from rtnb.analysis.conditions import AsRecorded, Condition, check_names
from rtnb.analysis.heard import Heard
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweep_result import Failure
from rtnb.errors import AudioError, RtnbError

Source = Recording | str | os.PathLike[str]
"""A recording, or the path of one that `Recording.load` reads where it is listened to."""

_IN_FLIGHT: Final = 64  # chosen: recordings handed to an executor at a time; more would only fill memory


def listen(
    recordings: Source | Iterable[Source],
    *,
    conditions: Iterable[Condition] = (AsRecorded(),),
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
    made = check_names(conditions)
    sources = [recordings] if isinstance(recordings, (Recording, str, os.PathLike)) else list(recordings)
    if not sources:
        raise AudioError("no recordings: give at least one")
    folder = None if cache is False else cache_folder() if cache is True else Path(cache)
    hear = partial(_hear, conditions=made, folder=folder, load=load)
    done: dict[int, list[Heard | Failure]] = {}
    with tqdm(total=len(sources), desc="listening", unit="recording", disable=not progress) as bar:
        for number, results in _results(hear, sources, executor):
            done[number] = results
            bar.update()
    parts = [part for number in sorted(done) for part in done[number]]
    failures = [part for part in parts if isinstance(part, Failure)]
    heard = [part for part in parts if isinstance(part, Heard)]
    if failures:
        first = f"{failures[0].name} ({failures[0].condition}): {failures[0].error}"
        if not heard:
            raise AudioError(f"none of the {len(sources)} recordings could be used; the first: {first}")
        warnings.warn(f"{len(failures)} of {len(parts)} could not be used and are skipped; {first}", stacklevel=3)
    return heard, failures


def _results(
    hear: Callable[[Source], list[Heard | Failure]], sources: list[Source], executor: Executor | None
) -> Iterator[tuple[int, list[Heard | Failure]]]:
    """(number, results) of each source, as they get done."""
    if executor is None:
        yield from enumerate(map(hear, sources))
        return
    waiting = enumerate(sources)
    running: dict[Future[list[Heard | Failure]], int] = {}
    try:
        while True:
            for number, source in islice(waiting, _IN_FLIGHT - len(running)):
                running[executor.submit(hear, source)] = number
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        for future in running:
            future.cancel()


def _hear(
    source: Source, *, conditions: tuple[Condition, ...], folder: Path | None, load: Callable[[Any], Recording]
) -> list[Heard | Failure]:
    """One recording under all conditions; runs in any process."""
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
            results.append(Heard.of(changed, probabilities=probabilities, condition=condition.name))
        except (RtnbError, OSError) as error:
            results.append(Failure(name, condition.name, _words(error)))
    return results


def _words(error: Exception) -> str:
    return " ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
