"""Chromium, JupyterLab and services in processes of their own, as the benchmarks need them."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright

from tests.browser.chromium import find_chromium, flags, prepare_driver
from tests.browser.lab import Lab, NotebookPage, open_notebook


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
def simulate(*options: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run ``rtnb simulate`` in a process of its own until the block ends; its id and its line."""
    command = [sys.executable, "-m", "rtnb", "simulate", "--json", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
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
