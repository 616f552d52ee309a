"""Chromium, JupyterLab and services in processes of their own, as the benchmarks need them."""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np
from playwright.async_api import Browser, async_playwright

from tests.browser.chromium import find_chromium, flags, prepare_driver
from tests.browser.lab import Lab, NotebookPage, open_notebook

SPEECH = Path(os.environ.get("RTNB_SPEECH", Path(__file__).resolve().parents[3] / "shared" / "speech"))
"""Recordings of speech and their labels.json; beside the repository where nothing else is said."""


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


def verdict(bars: dict[str, bool]) -> int:
    """Print which bars are broken; return the exit code."""
    print("broken:", ", ".join(name for name, held in bars.items() if not held) or "nothing")
    return 0 if all(bars.values()) else 1


def best_s(run: Callable[[], object], *, times: int = 7, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the shortest of some runs."""
    took = []
    for _ in range(times):
        start = clock()
        run()
        took.append(clock() - start)
    return min(took)


def onnx_session(package: str, model: str) -> Any:
    """Run a model of an installed package on one thread of onnxruntime; None where one of them is missing, and say so.

    A wheel with its model is enough: install it with --no-deps.
    """
    spec = find_spec(package)
    if find_spec("onnxruntime") is None or spec is None or not spec.submodule_search_locations:
        print(f"onnxruntime or {package} is missing: no comparison\n")
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(spec.submodule_search_locations[0]) / "data" / model
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


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
def served(serve: Callable[..., None], *arguments: Any) -> Iterator[Pipe]:
    """Run ``serve(pipe, …)`` in a process of its own until the block ends, which sends it False; its pipe."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there, *arguments), daemon=True)
    process.start()
    try:
        yield here
    finally:
        here.send(False)
        process.join(10)


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


def late_ms(values: Sequence[float], name: str) -> dict[str, float]:
    """Median, 99th percentile and maximum of a lateness, under the names of a row's columns; NaN where none came."""
    p50, p99, most = np.percentile(values or [np.nan], [50, 99, 100]).round(1).tolist()
    return {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99, f"{name}_max_ms": most}


def children(pid: int) -> list[int]:
    """Return the processes that a process started, such as the workers of a simulator (Linux)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process and its children have used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(map(cpu_s, children(pid)))


def memory_mb(pid: int) -> float:
    """Return the memory that a process and its children hold (Linux)."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return (int(found[1]) / 1024 if found else float("nan")) + sum(map(memory_mb, children(pid)))


def print_row(row: dict[str, Any], *, head: bool) -> None:
    """Print the figures of one run, under their names if it is the first."""
    widths = [max(10, len(name)) for name in row]
    for values in (row, row.values()) if head else (row.values(),):
        print(*(f"{value!s:>{width}}" for value, width in zip(values, widths, strict=True)), sep="  ", flush=True)
