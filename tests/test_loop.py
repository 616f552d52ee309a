from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import subprocess
import sys
import threading
import warnings

import pytest

from rtnb._loop import BackgroundLoop, shared_loop


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rtnb-loop")]


async def _name() -> str:
    return threading.current_thread().name


async def _for_ever(started: threading.Event, log: list[str]) -> None:
    try:
        started.set()
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        log.append("cleaned up")


def test_it_starts_on_first_use_and_stops_without_a_trace() -> None:
    before = len(_threads())
    loop = BackgroundLoop()
    assert (loop.running, len(_threads())) == (False, before)
    assert repr(loop) == "BackgroundLoop(not running)"
    assert loop.run(_name()) == "rtnb-loop"
    assert (loop.running, len(_threads())) == (True, before + 1)
    loop.stop()
    loop.stop()
    assert (loop.running, len(_threads())) == (False, before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


def test_it_starts_again_after_stop() -> None:
    with BackgroundLoop() as loop:
        assert loop.run(_name()) == "rtnb-loop"
        loop.stop()
        assert loop.run(_name()) == "rtnb-loop"
    assert not loop.running


def test_stop_cancels_and_waits_for_the_cleanup() -> None:
    started, log = threading.Event(), list[str]()
    with BackgroundLoop() as loop:
        future = loop.submit(_for_ever(started, log))
        assert started.wait(5)
    assert log == ["cleaned up"]
    assert future.cancelled()


def test_stop_also_ends_workers_and_async_generators() -> None:
    log = list[str]()

    async def numbers():  # type: ignore[no-untyped-def]
        try:
            yield 1
            yield 2
        finally:
            log.append("generator closed")

    kept = []

    async def use() -> None:
        generator = numbers()
        kept.append(generator)
        await anext(generator)
        assert (await asyncio.to_thread(_threads)).count("rtnb-loop-worker_0") == 1

    with BackgroundLoop() as loop:
        loop.run(use())
    assert log == ["generator closed"]
    assert _threads().count("rtnb-loop-worker_0") == 0


def test_run_gives_the_exception() -> None:
    async def fail() -> None:
        raise LookupError("gone")

    async def late() -> None:
        raise TimeoutError("its own")

    with BackgroundLoop() as loop:
        with pytest.raises(LookupError, match="gone"):
            loop.run(fail())
        with pytest.raises(TimeoutError, match="its own"):
            loop.run(late(), timeout_s=5)


class _CollectedHere(BackgroundLoop):
    """The garbage collector runs at the worst moment: while the loop is started, or asked for."""

    def _started(self) -> asyncio.AbstractEventLoop:
        gc.collect()
        return super()._started()


class _Closing:
    """What uses the loop when it is collected, as a widget does; a cycle, so that only the collector ends it."""

    def __init__(self, loop: BackgroundLoop, done: threading.Event) -> None:
        self.me, self.loop, self.done = self, loop, done

    def __del__(self) -> None:
        self.loop.call_soon(self.done.set)


def test_what_is_collected_within_may_use_it() -> None:
    loop, done, names = _CollectedHere(), threading.Event(), list[str]()
    _Closing(loop, done)
    caller = threading.Thread(target=lambda: names.append(loop.run(_name(), 5)), daemon=True)
    caller.start()
    caller.join(5)
    assert names == ["rtnb-loop"], "it waits for itself"
    assert done.wait(5)
    loop.stop()
    assert not loop.running


def test_a_cell_that_computes_lets_the_shared_loop_run_more_often() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    try:
        with BackgroundLoop() as other:  # a simulator's, which ends first
            other.run(_name())
            assert sys.getswitchinterval() == pytest.approx(0.005)
            shared_loop().run(_name())
        assert sys.getswitchinterval() == pytest.approx(0.001)
    finally:
        sys.setswitchinterval(before)


def test_run_out_of_time_cancels() -> None:
    started, log, done = threading.Event(), list[str](), threading.Event()

    async def watched() -> None:
        try:
            await _for_ever(started, log)
        finally:
            done.set()

    with BackgroundLoop() as loop:
        with pytest.raises(TimeoutError, match=r"not done within 0\.01 s"):
            loop.run(watched(), timeout_s=0.01)
        assert done.wait(5)
    assert log == ["cleaned up"]


def test_cancelling_the_future_cancels_the_coroutine() -> None:
    started, log, done = threading.Event(), list[str](), threading.Event()

    async def watched() -> None:
        try:
            await _for_ever(started, log)
        finally:
            done.set()

    with BackgroundLoop() as loop:
        future = loop.submit(watched())
        assert started.wait(5)
        assert future.cancel()
        assert done.wait(5)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()


def test_call_soon() -> None:
    called, seen = threading.Event(), list[object]()

    def note(value: object) -> None:
        seen.append((value, threading.current_thread().name))
        called.set()

    with BackgroundLoop() as loop:
        loop.call_soon(note, 7)
        assert called.wait(5)
    assert seen == [(7, "rtnb-loop")]


def test_waiting_for_itself_is_refused() -> None:
    with BackgroundLoop() as loop:

        async def nested() -> str:
            assert loop.inside
            return loop.run(_name())

        async def stop() -> None:
            loop.stop()

        with pytest.raises(RuntimeError, match="await the coroutine"):
            loop.run(nested())
        with pytest.raises(RuntimeError, match="would wait for itself"):
            loop.run(stop())


def test_many_threads_may_start_it_at_once() -> None:
    before = len(_threads())
    with BackgroundLoop() as loop:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            names = list(pool.map(lambda _: loop.run(_name()), range(64)))
        assert names == ["rtnb-loop"] * 64
        assert len(_threads()) == before + 1


def test_there_is_one_shared_loop() -> None:
    assert shared_loop() is shared_loop()
    try:
        assert shared_loop().run(_name()) == "rtnb-loop"
    finally:
        shared_loop().stop()


def test_the_interpreter_ends_cleanly_while_it_works() -> None:
    script = """
import asyncio
from rtnb._loop import shared_loop

working = asyncio.Event()

async def work():
    await asyncio.to_thread(print, "working", flush=True)
    try:
        working.set()
        await asyncio.Event().wait()
    finally:
        print("cleaned up", flush=True)

shared_loop().submit(work())
shared_loop().run(working.wait())
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout.split("\n"), ended.stderr) == (0, ["working", "cleaned up", ""], "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is for POSIX")
def test_a_forked_child_starts_its_own() -> None:
    script = """
import os, sys
from rtnb._loop import shared_loop

async def pid():
    return os.getpid()

assert shared_loop().run(pid()) == os.getpid()
child = os.fork()
if child == 0:
    assert not shared_loop().running
    assert shared_loop().run(pid(), timeout_s=20) == os.getpid()
    shared_loop().stop()
    os._exit(0)
status = os.waitpid(child, 0)[1]
assert shared_loop().run(pid()) == os.getpid()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
