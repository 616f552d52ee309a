"""Event loop with a virtual clock that also serves real loopback sockets: deadlines of a minute take no time.

`time()` stands still while work is done. Only when no socket has data and only timers are left does it jump to the next
timer. Loopback data is there at once, so a short look at the sockets before each jump is enough.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

import rtnb
from tests.client.peer import Peer

T = TypeVar("T")
Test = Callable[..., Coroutine[Any, Any, None]]

LOOK_S = 0.001
"""Real time that data on its way through the kernel gets before a jump; chosen."""

STUCK_S = 5.0
"""Real time without any timer, data or thread after which a test counts as stuck; chosen."""


class Stuck(BaseException):
    """Nothing can happen any more; not an `Exception`, so that no code under test catches it."""


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]  # the class depends on the system
    """Selector that moves the clock of its loop instead of waiting."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        ready = super().select(LOOK_S)
        while not ready and self.loop.threads:  # a tool that runs in a thread takes real time
            ready = super().select(STUCK_S)
        if ready:
            return ready
        if timeout is None:
            if ready := super().select(STUCK_S):
                return ready
            raise Stuck("no timer, no data and no thread: every task waits for ever")
        self.loop.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop whose clock jumps over every wait.

    Attributes
    ----------
    now_s : float
        Virtual time in seconds.
    threads : int
        Calls that run in other threads now; the clock does not jump while there are any.
    """

    def __init__(self) -> None:
        selector = _Jumping()
        selector.loop = self
        self.now_s = 1_000.0
        self.threads = 0
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.now_s

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Run a function in a thread and count it until it ends."""
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, future: object) -> None:
        self.threads -= 1


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine under a virtual clock and return its result; a task that it leaves behind fails the test.

    Examples
    --------
    >>> async def wait_an_hour() -> float:
    ...     start_s = asyncio.get_running_loop().time()
    ...     await asyncio.sleep(3_600)
    ...     return asyncio.get_running_loop().time() - start_s
    >>> run_virtual(wait_an_hour())
    3600.0
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_alone(work))


async def _alone(work: Coroutine[Any, Any, T]) -> T:
    result = await work
    for _ in range(20):  # tasks that were cancelled just now end in the next turns of the loop
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    return result


async def outcome(call: Awaitable[Any], *, within_s: float = 100.0) -> Any:
    """Return the result of a call, or the exception it raises; fail the test where the call does not end in time."""
    try:
        async with asyncio.timeout(within_s) as limit:
            return await call
    except Exception as error:
        if not limit.expired():
            return error
    pytest.fail(f"the call did not end within {within_s:g} s")


async def said(call: Awaitable[Any], *, within_s: float = 100.0) -> Any:
    """Return the transcript of the response that a call returns; the exception where it raises one."""
    result = await outcome(call, within_s=within_s)
    return getattr(result, "transcript", result)


def now() -> float:
    """Return the virtual time in seconds."""
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Let everything happen that needs no time."""
    await asyncio.sleep(1e-6)


@asynccontextmanager
async def talk(**options: Any) -> AsyncIterator[tuple[Peer, rtnb.Session]]:
    """Join a session to a new peer; options are those of `Peer`, of `rtnb.Custom` and of `rtnb.connect`."""
    ours, target = ({name: options.pop(name) for name in names if name in options} for names in (_PEER, _TARGET))
    async with Peer(**ours) as peer:
        to = rtnb.Custom(peer.url, dialect=peer.dialect, **target)  # type: ignore[arg-type]
        async with rtnb.connect(to, clock=now, **options) as session:
            yield peer, session


_PEER = [one.name for one in dataclasses.fields(Peer)]
_TARGET = ["api_key", "model"]


def virtual(test: Test) -> Callable[..., None]:
    """Decorate a test that runs under a virtual clock."""
    return _as_test(test, lambda **arguments: run_virtual(test(**arguments)), drop=())


def talking(*, both: bool = False, **options: Any) -> Callable[[Test], Callable[..., None]]:
    """Decorate a test that gets a `peer` and a `session` with it under a virtual clock; see `talk` for the options.

    With `both`, it runs in both dialects. A parameter `options` of the test holds more options.
    """

    def decorate(test: Test) -> Callable[..., None]:
        async def run(dialect: str = "ga", **arguments: Any) -> None:
            given = copy.deepcopy({**options, **arguments.get("options", {})})
            async with talk(dialect=dialect, **given) as (peer, session):
                await test(peer=peer, session=session, **arguments)

        def run_test(**arguments: Any) -> None:
            run_virtual(run(**arguments))

        made = _as_test(test, run_test, drop=("peer", "session"), add=("dialect",) if both else ())
        return pytest.mark.parametrize("dialect", ["ga", "preview"])(made) if both else made

    return decorate


def _as_test(test: Test, run: Callable[..., None], *, drop: tuple[str, ...], add: tuple[str, ...] = ()) -> Any:
    """Give a function the name of a test and those of its arguments that are fixtures or parameters."""
    signature = inspect.signature(test)
    kept = [one for name, one in signature.parameters.items() if name not in drop]
    kept += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in add]
    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    run.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return run
