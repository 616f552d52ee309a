"""Shared parts of the benchmarks: options, tables, bounds, browsers, and services in processes of their own."""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from playwright.async_api import Browser, async_playwright

from rtnb.audio import read_wav
from tests.browser.chromium import find_chromium, flags, prepare_driver
from tests.browser.lab import Lab, NotebookPage, open_notebook
from tests.client.peer import Peer

ROOT = Path(__file__).resolve().parents[2]
SPEECH = Path(os.environ.get("RTNB_SPEECH", ROOT.parent / "shared" / "speech"))
"""Recordings of speech and their labels.json; beside the repository where nothing else is said."""


def labelled() -> Iterator[tuple[dict[str, Any], Any, int]]:
    """Yield the recordings of speech whose words are labelled: entry of labels.json, audio, rate in Hz."""
    if not (SPEECH / "labels.json").is_file():
        raise SystemExit(f"There is no {SPEECH / 'labels.json'}. Set RTNB_SPEECH to the folder of the recordings.")
    for item in json.loads((SPEECH / "labels.json").read_text(encoding="utf-8"))["items"]:
        if item.get("words"):
            yield (item, *read_wav(SPEECH / item["file"]))


# --- the command line, tables and bounds ------------------------------------------------------------------------------


def options(doc: str | None, **defaults: Any) -> argparse.Namespace:
    """Read the command line: an option of the same type for each default, a flag for False, all other words a list."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, list):
            parser.add_argument(name, nargs="*", type=type(value[0]), default=value)
        elif value is False:
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=type(value), default=value, help=f"default: {value}")
    return parser.parse_args()


def print_table(rows: Mapping[str, Mapping[str, Any]], *, digits: int = 1) -> None:
    """Print named rows of figures, e.g. ``{"rtnb": {"median_ms": 3.2}}``."""
    print(pd.DataFrame.from_dict(rows, orient="index").round(digits).to_string(), flush=True)


def print_row(row: dict[str, Any], *, head: bool) -> None:
    """Print the figures of one run, under their names if it is the first."""
    widths = [max(10, len(name)) for name in row]
    for values in (row, row.values()) if head else (row.values(),):
        print(*(f"{value!s:>{width}}" for value, width in zip(values, widths, strict=True)), sep="  ", flush=True)


def judged(figures: Mapping[str, tuple[float, float]]) -> int:
    """Print each figure with its upper bound; return the exit code, 1 where a figure is beyond its bound."""
    for name, (value, bound) in figures.items():
        print(f"{name:<60}{value:>10.4g}   at most {bound:g}{'' if value <= bound else ': BROKEN'}")
    return 0 if all(value <= bound for value, bound in figures.values()) else 1


# --- figures ----------------------------------------------------------------------------------------------------------


def best_s(run: Callable[[], object], *, times: int = 7, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the shortest of some runs."""
    took = []
    for _ in range(times):
        start = clock()
        run()
        took.append(clock() - start)
    return min(took)


def in_turns(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median figure of each contestant; they take turns, so that a busy machine disturbs all alike."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def late_ms(values: Sequence[float], name: str) -> dict[str, float]:
    """Median, 99th percentile and maximum of a lateness, under the names of a row's columns; NaN where none came."""
    p50, p99, most = np.percentile(values or [np.nan], [50, 99, 100]).round(1).tolist()
    return {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99, f"{name}_max_ms": most}


def family(pid: int | None = None) -> list[psutil.Process]:
    """Return a process (this one where none is named) and all that it started, such as the workers of a simulator."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process and its children have used."""
    return float(sum(sum(one.cpu_times()[:2]) for one in family(pid)))


def memory_mb(pid: int) -> float:
    """Return the memory that a process and its children hold."""
    return float(sum(one.memory_info().rss for one in family(pid)) / 2**20)


# --- browsers ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def chromium(*more: str) -> AsyncIterator[Browser]:
    """Start a Chromium, with more flags, until the block ends."""
    prepare_driver()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=[*flags(), *more])
        yield browser
        await browser.close()


@contextmanager
def jupyterlab() -> Iterator[Lab]:
    """Start JupyterLab in an empty folder until the block ends."""
    with tempfile.TemporaryDirectory(prefix="rtnb-benchmark-", ignore_cleanup_errors=True) as home:
        lab = Lab(Path(home)).start()
        try:
            yield lab
        finally:
            lab.stop()


async def open_cells(lab: Lab, browser: Any, name: str, cells: Iterable[str], *, script: str = "") -> NotebookPage:
    """Write a notebook with these code cells and open it in a page of its own."""
    lab.write(name, cells)
    return await open_notebook(lab, browser, name, pictures=lab.home, script=script)


# --- services ---------------------------------------------------------------------------------------------------------


@contextmanager
def simulate(*options: str, checkout: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """Run ``rtnb simulate`` in a process of its own (of another checkout) until the block ends; its id and its line."""
    command = [sys.executable, "-m", "rtnb", "simulate", "--json", "--port", "0", *options]
    where = {"cwd": checkout, "env": os.environ | {"PYTHONPATH": checkout}} if checkout else {}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **where)  # type: ignore[call-overload]
    try:
        assert process.stdout is not None
        yield process.pid, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def serve(make: Callable[..., Peer], *arguments: Any) -> Iterator[str]:
    """Run the peer that ``make(…)`` returns in a process of its own until the block ends; its address."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, make, *arguments), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send(False)
        process.join(10)


def _serve(pipe: Pipe, make: Callable[..., Peer], *arguments: Any) -> None:
    async def run() -> None:
        async with make(*arguments) as peer:
            pipe.send(peer.url)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


def crowded(
    crowd: Callable[..., Coroutine[Any, Any, dict[str, Any]]],
    n: int,
    *,
    seconds: float,
    warm_up_s: float,
    simulator: Sequence[str],
    given: Sequence[Any] = (),
    checkout: str = "",
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Measure ``rtnb simulate`` while two processes run ``crowd(line, part of n, seconds, *given)``.

    What the crowds return, and the CPU and memory of the simulator and the clients.
    """
    n_crowds = min(2, n)
    parts = [n // n_crowds + (i < n % n_crowds) for i in range(n_crowds)]
    with (
        simulate(*simulator, checkout=checkout) as (pid, line),
        multiprocessing.get_context("spawn").Pool(n_crowds) as pool,
    ):
        jobs = [(crowd, i, line, part, seconds, *given) for i, part in enumerate(parts)]
        running = pool.starmap_async(_crowd, jobs)
        time.sleep(warm_up_s + 2)
        cpu, at = cpu_s(pid), time.monotonic()
        time.sleep(seconds - 3)
        share, memory = (cpu_s(pid) - cpu) / (time.monotonic() - at), memory_mb(pid)
        outcomes = running.get(seconds + 60)
    clients = sum(one["cpu_s"] for one in outcomes) / (seconds + warm_up_s)
    return outcomes, {
        "cpu_percent": round(100 * share, 1),
        "memory_mb": round(memory),
        "clients_cpu_percent": round(100 * clients, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def beside(checkout: str, *arguments: Any, **settings: Any) -> float:
    """Return the CPU of this simulator as a multiple of that of another checkout: `crowded` for both at once."""
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(crowded, *arguments, **settings, checkout=where) for where in ("", checkout)]
        mine, theirs = (run.result()[1]["cpu_percent"] for run in runs)
    return round(mine / theirs, 3)


def _crowd(crowd: Callable[..., Coroutine[Any, Any, dict[str, Any]]], seed: int, *arguments: Any) -> dict[str, Any]:
    random.seed(seed)
    before = time.process_time()
    outcome = asyncio.run(crowd(*arguments))
    return outcome | {"cpu_s": time.process_time() - before}
