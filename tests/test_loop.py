"""The background loop, calls between loops, and the globals of the interpreter."""

import asyncio
import concurrent.futures
import contextvars
import gc
import inspect
import os
import subprocess
import sys
import threading
import warnings
from typing import Any

import pytest

from rtnb._loop import BackgroundLoop, LoopGone, run_on, shared_loop


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rtnb-loop")]


def _python(*arguments: str) -> str:
    """Run a script in a Python of its own, which must end well and report nothing; return what it prints."""
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


async def _name() -> str:
    return threading.current_thread().name


class Endless:
    """Coroutine function that never ends by itself, and notes its start and its cleanup."""

    def __init__(self) -> None:
        self.started, self.ended = threading.Event(), threading.Event()

    async def __call__(self) -> None:
        try:
            self.started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.ended.set()


def test_it_starts_on_first_use_and_after_a_stop_which_leaves_no_thread() -> None:
    before = len(_threads())
    loop = BackgroundLoop()
    assert (loop.running, len(_threads())) == (False, before)
    assert repr(loop) == "BackgroundLoop(not running)"
    for _ in range(2):
        assert loop.run(_name()) == "rtnb-loop"
        assert (loop.running, len(_threads())) == (True, before + 1)
        loop.stop()
        loop.stop()
        assert (loop.running, len(_threads())) == (False, before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


def test_stop_cancels_and_waits_for_the_cleanup() -> None:
    endless = Endless()
    with BackgroundLoop() as loop:
        future = loop.submit(endless())
        assert endless.started.wait(5)
    assert endless.ended.is_set()
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


def test_run_raises_the_exception_of_the_coroutine() -> None:
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
    """Loop with a garbage collection at the worst moment: while it starts."""

    def _open(self) -> threading.Thread | None:
        gc.collect()
        return super()._open()


class _Closing:
    """Object that uses the loop when it is collected, as a widget does; a cycle, so only the collector frees it."""

    def __init__(self, loop: BackgroundLoop, done: threading.Event) -> None:
        self.me, self.loop, self.done = self, loop, done

    def __del__(self) -> None:
        self.loop.call_soon(self.done.set)


def test_an_object_collected_while_the_loop_starts_may_use_the_loop() -> None:
    loop, done, names = _CollectedHere(), threading.Event(), list[str]()
    _Closing(loop, done)
    caller = threading.Thread(target=lambda: names.append(loop.run(_name(), 5)), daemon=True)
    caller.start()
    caller.join(5)
    assert names == ["rtnb-loop"], "it waits for itself"
    assert done.wait(5)
    loop.stop()
    assert not loop.running


def test_run_cancels_at_its_timeout() -> None:
    endless = Endless()
    with BackgroundLoop() as loop:
        with pytest.raises(TimeoutError, match=r"not done within 0\.01 s"):
            loop.run(endless(), timeout_s=0.01)
        assert endless.ended.wait(5)


def test_cancelling_the_future_cancels_the_coroutine() -> None:
    endless = Endless()
    with BackgroundLoop() as loop:
        future = loop.submit(endless())
        assert endless.started.wait(5)
        assert future.cancel()
        assert endless.ended.wait(5)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()


def test_call_soon_calls_on_the_loops_thread() -> None:
    called, seen = threading.Event(), list[object]()

    def note(value: object) -> None:
        seen.append((value, threading.current_thread().name))
        called.set()

    with BackgroundLoop() as loop:
        loop.call_soon(note, 7)
        assert called.wait(5)
    assert seen == [(7, "rtnb-loop")]


def test_run_and_stop_refuse_the_loops_own_thread() -> None:
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


def test_the_interpreter_exits_cleanly_while_a_task_runs() -> None:
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
    assert _python("-W", "error", "-c", script).split("\n") == ["working", "cleaned up", ""]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is for POSIX")
def test_a_forked_child_starts_its_own_loop() -> None:
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
    _python("-c", script)


# --- run_on ---------------------------------------------------------------------------------------------------------


async def _loop_of(background: BackgroundLoop) -> asyncio.AbstractEventLoop:
    async def here() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    return await asyncio.wrap_future(background.submit(here()))


async def test_run_on_the_running_loop_awaits_in_the_same_task() -> None:
    async def task() -> asyncio.Task[object] | None:
        return asyncio.current_task()

    assert await run_on(asyncio.get_running_loop(), task()) is asyncio.current_task()


async def test_run_on_another_loop_returns_the_result_and_keeps_context_variables() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(7)

    async def both() -> tuple[str, int]:
        return await _name(), variable.get()

    with BackgroundLoop() as background:
        assert await run_on(await _loop_of(background), both()) == ("rtnb-loop", 7)


@pytest.mark.parametrize("kind", [LookupError, TimeoutError, asyncio.CancelledError])
async def test_run_on_raises_the_exception_of_the_coroutine(kind: type[BaseException]) -> None:
    async def fail() -> None:
        raise kind("gone")

    raised = []
    with BackgroundLoop() as background:
        for _ in range(2):
            with pytest.raises(kind) as info:
                await run_on(await _loop_of(background), fail())
            raised.append(info.value)
    assert (type(raised[0]), raised[0] is raised[1]) == (kind, False)


async def test_a_cancelled_run_on_waits_for_the_cleanup_on_the_other_loop() -> None:
    endless = Endless()
    with BackgroundLoop() as background:
        loop = await _loop_of(background)
        call = asyncio.create_task(run_on(loop, endless()))
        await asyncio.to_thread(endless.started.wait, 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert endless.ended.is_set()
        assert await run_on(loop, _name()) == "rtnb-loop"


async def test_a_run_on_that_is_cancelled_before_its_coroutine_starts_leaves_nothing() -> None:
    endless, hold = Endless(), threading.Event()
    with BackgroundLoop() as background:
        loop = await _loop_of(background)
        background.call_soon(hold.wait, 5)
        call = asyncio.create_task(run_on(loop, endless()))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.sleep(0)
        hold.set()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert (endless.started.is_set(), endless.ended.is_set()) == (False, False)


async def test_run_on_a_closed_or_idle_loop_raises_and_closes_the_coroutine() -> None:
    with BackgroundLoop() as background:
        closed = await _loop_of(background)
    idle = asyncio.new_event_loop()
    try:
        for loop in (closed, idle):
            coro = _name()
            with pytest.raises(LoopGone, match="closed or has stopped; open a new session"):
                await run_on(loop, coro)
            assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    finally:
        idle.close()


async def test_run_on_raises_when_the_other_loop_stops_meanwhile() -> None:
    endless = Endless()
    with BackgroundLoop() as background:
        call = asyncio.create_task(run_on(await _loop_of(background), endless()))
        await asyncio.to_thread(endless.started.wait, 5)
        await asyncio.to_thread(background.stop)
        with pytest.raises(LoopGone):
            await call
    assert endless.ended.is_set()


async def test_run_on_raises_when_the_other_loop_stops_without_cancelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtnb._loop.CHECK_S", 0.01)
    endless, raised = Endless(), threading.Event()
    loop = asyncio.new_event_loop()

    def serve() -> None:
        loop.run_forever()
        raised.wait(5)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks))
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    call = asyncio.create_task(run_on(loop, endless()))
    await asyncio.to_thread(endless.started.wait, 5)
    loop.call_soon_threadsafe(loop.stop)
    with pytest.raises(LoopGone):
        await call
    raised.set()
    await asyncio.to_thread(thread.join)
    assert endless.ended.is_set()


# --- globals of the interpreter -------------------------------------------------------------------------------------

_GLOBALS = """
import asyncio, decimal, faulthandler, gc, locale, logging, os, random, signal, socket, sys, threading, warnings

def snapshot():
    signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
    state = {
        "switch interval": sys.getswitchinterval(), "recursion limit": sys.getrecursionlimit(),
        "event loop policy": asyncio.get_event_loop_policy(), "warnings filters": list(warnings.filters),
        "signals": signals, "wakeup fd": signal.set_wakeup_fd(-1), "locale": locale.setlocale(locale.LC_ALL),
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        "trace": (sys.gettrace(), sys.getprofile()), "random": random.getstate(), "decimal": str(decimal.getcontext()),
        "socket timeout": socket.getdefaulttimeout(), "gc": (gc.isenabled(), gc.get_threshold()),
        "logging": (logging.root.level, list(logging.root.handlers), logging.lastResort, logging.getLoggerClass()),
        "folder": os.getcwd(), "environment": dict(os.environ), "path": list(sys.path),
        "faulthandler": faulthandler.is_enabled(), "stack size": threading.stack_size(),
    }
    if numpy := sys.modules.get("numpy"):
        state["numpy"] = (str(numpy.random.get_state()), numpy.geterr(), numpy.get_printoptions())
    return state

def unchanged(step):
    after = snapshot()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"{step} changes: {', '.join(changed)}"

before = snapshot()
import rtnb
unchanged("import rtnb")

import aiohttp.web, anywidget, ipywidgets, matplotlib.pyplot, numpy, pandas, scipy.special  # add filters
import websockets.asyncio.client
before = snapshot()
import rtnb.analysis.plots.deltas, rtnb.cli, rtnb.widgets
unchanged("importing the rooms")

from rtnb._loop import shared_loop

async def name():
    return asyncio.get_running_loop()

async def opened(simulator):
    return await rtnb.connect(simulator)

shared_loop().run(name())
unchanged("starting the shared loop")
with rtnb.Simulator(latency="fast", voice="babble", seed=1) as simulator:
    unchanged("starting a simulator")
    session = shared_loop().run(opened(simulator))
    unchanged("opening a session")
    shared_loop().run(session.ask("Hello!"))
    shared_loop().run(session.close())
    unchanged("closing a session")
unchanged("stopping a simulator")
shared_loop().stop()
unchanged("stopping the shared loop")
"""


def test_no_global_of_the_interpreter_changes() -> None:
    _python("-c", _GLOBALS)


def test_a_widget_collected_in_the_new_thread_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, called = BackgroundLoop(), threading.Event()
    caller = threading.Thread(target=loop.call_soon, args=(lambda: None,), daemon=True)

    class Reported(threading.Event):
        def set(self) -> None:
            loop.call_soon(called.set)  # as the close of a widget does, which the collector may call anywhere
            super().set()

    class Collecting(threading.Thread):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._started = Reported()  # what `start` waits for

    monkeypatch.setattr(threading, "Thread", Collecting)
    caller.start()
    caller.join(10)
    assert not caller.is_alive(), "the caller waits for the thread, and the thread for the caller's lock"
    assert called.wait(10)
    loop.stop()
