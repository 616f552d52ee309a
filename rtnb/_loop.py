"""Event loops and threads: a loop in a background thread, and calls from one loop to another.

Sockets, microphone and widgets run on the background loop, so that a cell that computes does not stop them. This is the
only module that imports `threading`.

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
import inspect
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Coroutine[Any, Any, Any]])

CHECK_S: Final = 0.5
"""Interval at which `run_on` checks that the other loop still runs, in seconds (chosen): a loop that stops notifies no
caller."""

Lock = threading.RLock
"""Lock for what a cell and the shared loop both write. It is re-entrant, because observers call back into the object
that called them."""


class LoopGone(RuntimeError):
    """The event loop of a coroutine is closed or does not run, or it stopped before the coroutine ended."""


async def run_on(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that belongs to another loop, from any running loop.

    Cancelling the caller cancels `coro` on its loop and waits until it has ended, so its cleanup is done.

    Parameters
    ----------
    loop : AbstractEventLoop
        The loop that `coro` must run on; the running one is allowed.
    coro : coroutine
        The coroutine. It is closed where it cannot start.

    Returns
    -------
    T
        The result of `coro`; its exception is raised here.

    Raises
    ------
    LoopGone
        `loop` is closed or not running, or it stops before `coro` has ended.
    """
    here = asyncio.get_running_loop()
    if loop is here:
        return await coro
    tasks: list[asyncio.Task[T]] = []
    ended = here.create_future()
    cancelled = False

    def end(task: asyncio.Task[T]) -> None:
        with suppress(RuntimeError):  # the caller's loop is closed, so no caller is left
            here.call_soon_threadsafe(ended.set_result, None)

    def start() -> None:
        tasks.append(loop.create_task(coro))
        tasks[0].add_done_callback(end)

    with suppress(RuntimeError):  # a loop that is closed, or closes meanwhile
        starting = loop.call_soon_threadsafe(start)
        while loop.is_running() and not ended.done():
            try:
                await asyncio.wait([ended], timeout=CHECK_S)
            except asyncio.CancelledError:
                cancelled = True
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
        starting.cancel()
    if not tasks:
        coro.close()
    if cancelled:
        raise asyncio.CancelledError
    if not tasks or not tasks[0].done() or (tasks[0].cancelled() and tasks[0].cancelling()):
        raise LoopGone("the event loop is closed or has stopped; open a new session on a loop that runs")
    return tasks.pop().result()  # popped: the traceback of its exception would otherwise hold the task


async def call_any(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of the user, async or not; a slow one (a tool, `az login`) must not stop the loop."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    result = await asyncio.to_thread(function, *args, **kwargs)
    return await result if inspect.isawaitable(result) else result


def on_own_loop(method: M) -> M:
    """Let a coroutine method run on the loop of its object (`self._loop`), whichever loop awaits it."""

    @functools.wraps(method)
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if asyncio.get_running_loop() is self._loop:
            return await method(self, *args, **kwargs)
        return await run_on(self._loop, method(self, *args, **kwargs))

    return cast("M", call)


class BackgroundLoop:
    """Event loop in a daemon thread named ``rtnb-loop``; it starts on first use, and again after `stop`.

    Every method may be called from any thread, except that `run` and `stop` refuse the loop's own thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a collected widget may call back while the lock is held
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    @property
    def running(self) -> bool:
        """True while the thread of this process runs."""
        return self._thread is not None and self._thread.is_alive() and self._pid == os.getpid()

    @property
    def inside(self) -> bool:
        """True on the loop's own thread."""
        return self._thread is threading.current_thread()

    def submit(self, coro: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `coro` on the loop; cancelling the future cancels it."""
        return self._schedule(functools.partial(asyncio.run_coroutine_threadsafe, coro))

    def run(self, coro: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run `coro` on the loop, wait, and return its result or raise its exception.

        Parameters
        ----------
        coro : coroutine
            The coroutine to run.
        timeout_s : float, optional
            Longest wait; None for no limit. An interrupt of the kernel ends the wait, too.

        Raises
        ------
        TimeoutError
            After `timeout_s`; `coro` is then cancelled.
        RuntimeError
            The caller is on the loop's own thread.
        """
        if self.inside:
            coro.close()
            raise RuntimeError("run() on the loop's own thread would wait for itself: await the coroutine instead")
        future = self.submit(coro)
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            if future.done():  # raised by the coroutine
                raise
            raise TimeoutError(f"not done within {timeout_s:g} s") from error
        finally:
            future.cancel()  # after a timeout or an interrupt; no effect on a coroutine that has ended

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call `callback` on the loop's thread soon; return at once."""
        self._schedule(lambda loop: loop.call_soon_threadsafe(callback, *arguments))

    def call_if_running(self, callback: Callable[..., object], *arguments: object) -> None:
        """Do as `call_soon`, but start no thread: for what ends, which may be collected while Python ends."""
        with self._lock:
            if self.running and self._loop is not None:
                self._loop.call_soon_threadsafe(callback, *arguments)

    def stop(self) -> None:
        """Cancel all tasks, close the loop and wait until the thread has ended; stopping twice is allowed."""
        if self.inside:
            raise RuntimeError("stop() on the loop's own thread would wait for itself: call it from another thread")
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None or self._pid != os.getpid():
                return
            loop.call_soon_threadsafe(loop.stop)
        if thread.ident is not None:  # else its starter has not come to that yet; it ends at once
            thread.join()

    def _schedule(self, schedule: Callable[[asyncio.AbstractEventLoop], T]) -> T:
        """Call `schedule` with the loop, whose thread is started if need be.

        The thread starts outside of the lock: a widget that is collected in it calls back before its start is over.
        """
        with self._lock:
            thread = self._open()
            assert self._loop is not None
            scheduled = schedule(self._loop)
        if thread is not None:
            thread.start()
        return scheduled

    def _open(self) -> threading.Thread | None:
        """Make the loop where there is none; return its thread, which is to be started."""
        if self._loop is None or self._pid != os.getpid():
            loop = _new_loop()
            if self._loop is None or self._pid != os.getpid():
                if self._loop is not None:
                    _after_fork.append(self._loop)
                self._loop, self._pid = loop, os.getpid()
                self._thread = threading.Thread(target=_serve, args=(loop,), name="rtnb-loop", daemon=True)
                return self._thread
            loop.close()  # a widget was collected while `loop` was made, and has started another
        return None

    def __enter__(self) -> BackgroundLoop:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"BackgroundLoop({'running' if self.running else 'not running'})"


_after_fork: list[asyncio.AbstractEventLoop] = []
"""Loops inherited by a forked child. Their threads exist only in the parent, which shares their file descriptors:
closing them would disturb the parent, so the child keeps them."""


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":  # ipykernel's policy gives a loop there that cannot start processes (the voice)
        return asyncio.ProactorEventLoop()
    return asyncio.new_event_loop()


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
    """Cancel all tasks and wait for their cleanup, and for tasks that the cleanup starts."""
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
    """Return the loop that all widgets of this process share."""
    return _shared


def _new_lock_in_child() -> None:
    _shared._lock = threading.RLock()  # the parent may have held it while it forked


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_in_child)
