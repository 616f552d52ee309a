"""An asyncio event loop in a background thread: sockets, microphone and widgets live there, so that a cell that
computes stops none of them. The only importer of `threading`.

>>> async def double(number: int) -> int:
...     return 2 * number
>>> with BackgroundLoop() as loop:
...     loop.run(double(21))
42
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

SWITCH_S: Final = 0.001
"""How long a cell that computes in Python may keep the interpreter to itself each time the shared loop wants it, which
is several times per frame of a microphone: with Python's own 5 ms a frame took 8.5 ms to the service, with this 4
(medians, measured by tests/benchmarks/microphone.py). It is the whole process's, from the loop's first start on."""

Lock = threading.RLock
"""For what a cell and the shared loop both write; re-entrant, because observers come back to where they were called."""


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":  # ipykernel chooses a loop there that cannot start processes (the simulator's voice)
        return asyncio.ProactorEventLoop()
    return asyncio.new_event_loop()


_after_fork: list[asyncio.AbstractEventLoop] = []
"""Loops inherited by a forked child. Their thread stayed in the parent and their file descriptors are shared with it:
closing them would disturb the parent, so the child only keeps them."""


class BackgroundLoop:
    """An event loop in a daemon thread named ``rtnb-loop``; starts on first use, and again after `stop`.

    All methods may be called from any thread; `run` and `stop` not from the loop itself, they would wait for
    themselves.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may close a widget in here, which comes back
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread is not None and self._thread.is_alive() and self._pid == os.getpid()

    @property
    def inside(self) -> bool:
        """Whether the caller runs on this loop's thread."""
        return self._thread is threading.current_thread()

    def submit(self, coro: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `coro` on the loop; cancelling the future cancels it."""
        with self._lock:
            return asyncio.run_coroutine_threadsafe(coro, self._started())

    def run(self, coro: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run `coro` on the loop, wait, and return its result or raise its exception.

        Parameters
        ----------
        coro : coroutine
            What to run.
        timeout_s : float, optional
            Longest wait; None waits for ever. An interrupt of the kernel ends the wait, too.

        Raises
        ------
        TimeoutError
            After `timeout_s`; `coro` is cancelled then.
        RuntimeError
            Called on the loop's own thread.
        """
        if self.inside:
            coro.close()
            raise RuntimeError("run() on the loop's own thread would wait for itself: await the coroutine instead")
        future = self.submit(coro)
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            if future.done():  # the coroutine's own
                raise
            raise TimeoutError(f"not done within {timeout_s:g} s") from error
        finally:
            future.cancel()  # nothing to do where it has ended; after a timeout or an interrupt nobody wants it

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call `callback` on the loop's thread soon; returns at once."""
        with self._lock:
            self._started().call_soon_threadsafe(callback, *arguments)

    def stop(self) -> None:
        """Cancel what runs, close the loop and wait until the thread has ended; stopping twice is fine."""
        if self.inside:
            raise RuntimeError("stop() on the loop's own thread would wait for itself")
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None or self._pid != os.getpid():
                return
            loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None and self._pid != os.getpid():
            _after_fork.append(self._loop)
            self._loop = None
        if self._loop is None:
            self._start(_new_loop())
        assert self._loop is not None
        return self._loop

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:  # started meanwhile, by a widget that the garbage collector closed
            loop.close()
            return
        self._loop = loop
        self._pid = os.getpid()
        self._thread = threading.Thread(target=_serve, args=(loop,), name="rtnb-loop", daemon=True)
        self._thread.start()
        if self is _shared:
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))

    def __enter__(self) -> BackgroundLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"BackgroundLoop({'running' if self.running else 'not running'})"


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    # Our own executor: closing asyncio's starts a thread, which Python refuses while the interpreter exits.
    executor = ThreadPoolExecutor(thread_name_prefix="rtnb-loop-worker")
    loop.set_default_executor(executor)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_wind_up())
        executor.shutdown(cancel_futures=True)
        loop.close()


async def _wind_up() -> None:
    """Cancel all tasks and wait for their cleanup, also of tasks started by that."""
    loop = asyncio.get_running_loop()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        for outcome in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(outcome, Exception):
                loop.call_exception_handler({"message": "a task failed while the loop stopped", "exception": outcome})
    await loop.shutdown_asyncgens()
    await asyncio.sleep(0)  # transports that were closed just now close their sockets in the next round


_shared = BackgroundLoop()
atexit.register(_shared.stop)


def shared_loop() -> BackgroundLoop:
    """Return the one loop all widgets of this process share."""
    return _shared


def _new_locks_in_child() -> None:
    _shared._lock = threading.RLock()  # the parent may have held it while it forked


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_locks_in_child)


# --- calls from another loop ------------------------------------------------------------------------------------------


async def run_on(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on its own loop and return its result here."""
    if asyncio.get_running_loop() is loop:
        return await coro
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coro, loop))


def on_own_loop(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Let a coroutine method run on the loop of its object (`self._loop`), whichever loop awaits it."""

    @functools.wraps(method)
    async def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_on(self._loop, method(self, *args, **kwargs))

    return call
