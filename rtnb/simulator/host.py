"""`Simulator`: the service in a thread of this process, and the target that reaches it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from rtnb._loop import BackgroundLoop, Lock
from rtnb.errors import ConnectError, LocalProtocolError
from rtnb.protocol import Dialect
from rtnb.simulator.running import Options, Running
from rtnb.simulator.service import DEFAULT_MODEL
from rtnb.simulator.speech import Speech
from rtnb.transport import Azure, EphemeralKey, TargetFacts, Transport

PATIENCE_S = 30.0
"""Longest start or stop; both usually take a tenth of a second. (chosen)"""


class Simulator:
    """Realtime service on this machine: real sockets, real turn detection, real speech, and no account.

    It listens on loopback in a background thread, so a cell that computes does not stop it. It is a target like
    `Azure` or `OpenAI`: ``rtnb.connect(simulator)``. Sessions that share one hold references (`acquire`, `release`).

    Parameters
    ----------
    dialect : {"ga", "preview"}, default "ga"
        Dialect of the sessions that are opened through this object; the service speaks both.
    **options
        See `Options`: `latency`, `voice`, `seed`, `scenario`, `faults`, `chat_url`, `key`, `port`, …

    Raises
    ------
    TypeError
        For an unknown option.
    ScenarioError, ValueError
        For a scenario, fault or latency that cannot be read.

    Examples
    --------
    >>> with Simulator(latency="fast", voice="babble") as simulator:
    ...     simulator.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(self, *, dialect: Dialect = "ga", **options: Any) -> None:
        if dialect not in ("ga", "preview"):
            raise LocalProtocolError(f"dialect is {dialect!r}; allowed: 'ga', 'preview'")
        self.options = Options(**options)
        self.options.world(None)  # complain about what cannot be read now, not in the thread
        self.dialect: Dialect = dialect
        self._lock = Lock()
        self._run: _Run | None = None
        self._last: Future[None] | None = None
        """End of the run before, which may still hold the port."""
        self._references = 0
        """Calls of `acquire` without their `release`, and starts under way."""
        self._kept = False
        """True where the owner started the run: then only `stop` ends it."""

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start listening; starting twice is fine. Only `stop` ends it then.

        Raises
        ------
        OSError
            The port is taken or the address is not ours.
        """
        self._start(kept=True)
        return self

    def _start(self, *, kept: bool) -> _Run:
        run = self._join()
        try:
            run.starting.result(PATIENCE_S)
        except BaseException:
            if ending := self._leave():
                ending.end()
            raise
        self._settle(kept=kept)
        return run

    async def astart(self) -> Self:
        """`start`, without blocking the caller's event loop."""
        await self._astart(kept=True)
        return self

    async def _astart(self, *, kept: bool) -> None:
        await self.acquire()
        self._settle(kept=kept)

    async def acquire(self) -> None:
        """Take a reference; start the simulator where it does not run.

        May be called from several event loops and threads. A call that fails or is cancelled holds no reference.

        Raises
        ------
        OSError
            As of `start`.
        ConnectError
            The simulator was stopped while it started.
        """
        run = self._join()
        try:
            await asyncio.shield(asyncio.wrap_future(run.starting))
            if self._run is not run:
                raise ConnectError("the simulator was stopped while it started").with_hint("Connect again.")
        except BaseException:
            await self.release()
            raise

    async def release(self) -> None:
        """Give a reference back; the last one stops the simulator, unless its owner started it.

        Raises
        ------
        LocalProtocolError
            No reference is left to give back.
        """
        if ending := self._leave():
            await ending.aend()

    def _join(self) -> _Run:
        """Take a reference to the run there is, or to a new one."""
        with self._lock:
            self._references += 1
            if self._run is None:
                self._run, self._kept = _Run(self.options, after=self._last), False
            return self._run

    def _settle(self, *, kept: bool) -> None:
        """Give the reference of a start back without stopping; the owner ends the run where no reference is left."""
        with self._lock:
            self._references -= 1
            self._kept = self._kept or kept or not self._references

    def _leave(self) -> _Run | None:
        """Give a reference back; return the run that the caller must end then."""
        with self._lock:
            if not self._references:
                raise LocalProtocolError("release() was called more often than acquire()")
            self._references -= 1
            failed = self._run is not None and self._run.failed
            return self._take() if failed or not (self._references or self._kept) else None

    def _take(self) -> _Run | None:
        """Part from the run there is, if any; the caller must end it."""
        with self._lock:
            run, self._run = self._run, None
            if run is not None:
                self._last = run.ended
            return run

    @property
    def running(self) -> bool:
        """True while it listens."""
        return self._run is not None and self._run.running is not None

    def stop(self) -> None:
        """Stop: sessions close with 1001; no thread, socket or process stays behind. A start under way ends first."""
        if run := self._take():
            run.end()

    async def astop(self) -> None:
        """`stop`, without blocking the caller's event loop."""
        if run := self._take():
            await run.aend()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await self.astart()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.astop()

    def __repr__(self) -> str:
        where = self.url if self.running else "not started"
        return f"Simulator({where}, dialect={self.dialect!r}, latency={self.options.latency!r})"

    # --- where it is --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return self._started().http

    @property
    def key(self) -> str:
        """The key clients must show. Do not print it."""
        return self._started().service.keys.key

    @property
    def voice(self) -> str:
        """Name of the voice, and why it is not a better one."""
        return str(self._started().voice.name)

    @property
    def n_sessions(self) -> int:
        """Sessions open now."""
        return len(self._started().service.sessions)

    @property
    def certificate_pem(self) -> str | None:
        """With `tls`, what clients should trust: ``ssl.create_default_context(cadata=…)``; else None."""
        return self._started().certificate_pem

    def _started(self) -> Running:
        running = self._run.running if self._run is not None else None
        if running is None:
            raise LocalProtocolError("this simulator is not running").with_hint("Call start(), or use it in a `with`.")
        return running

    # --- a target -----------------------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """Model name that sessions ask for."""
        return DEFAULT_MODEL

    @property
    def target(self) -> Azure:
        """Return the same service as an `Azure` target with this address, key and certificate."""
        trust = ssl.create_default_context(cadata=self.certificate_pem) if self.certificate_pem else None
        return Azure(self.url, deployment=self.model, dialect=self.dialect, api_key=self.key, ssl=trust)

    @property
    def facts(self) -> TargetFacts:
        """The secret-free description used to explain failures."""
        return TargetFacts(
            service="simulator",
            dialect=self.dialect,
            url=self.url if self.running else "",
            model=self.model,
            auth="api-key",
        )

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> Transport:
        """Open a session's socket, as any client would."""
        await self._astart(kept=False)
        return await self.target.open(intent=intent, call_id=call_id)

    async def ephemeral_key(
        self, *, session: Mapping[str, Any] | None = None, expires_after_s: int | None = None, intent: str | None = None
    ) -> EphemeralKey:
        """Get an ephemeral key from the service's own HTTP address."""
        await self._astart(kept=False)
        return await self.target.ephemeral_key(session=session, expires_after_s=expires_after_s, intent=intent)

    def speech(self, text: str, *, voice: str = "alloy", speed: float = 1.0) -> Speech:
        """Record a user for exercises: the simulator's voice speaks, and the simulator understands exactly this.

        Parameters
        ----------
        text : str
            What the user says.
        voice : str, default "alloy"
            One of the service's voice names.
        speed : float, default 1.0
            0.25 … 1.5.

        Returns
        -------
        Speech
            ``.audio`` float32, shape (n_samples,), 24 kHz; ``.words`` with their times.
        """
        run = self._start(kept=False)
        running = run.starting.result()
        speech: Speech = run.loop.run(running.voice.speak(text, voice=voice, speed=speed), 60.0)
        running.service.world.exact.learn(text, speech.audio)
        return speech


class _Run:
    """Run of a simulator from start to end: a thread with an event loop, and the service on it.

    Parameters
    ----------
    options : Options
        Of the simulator.
    after : Future, optional
        End of the run before; this one starts then, because both may want the same port.
    """

    def __init__(self, options: Options, *, after: Future[None] | None) -> None:
        self.loop = BackgroundLoop()
        self.ended: Future[None] = Future()
        self.starting: Future[Running] = self.loop.submit(self._start(options, after))

    @staticmethod
    async def _start(options: Options, after: Future[None] | None) -> Running:
        if after is not None:
            await asyncio.shield(asyncio.wrap_future(after))
        return await Running.start(options)

    @property
    def running(self) -> Running | None:
        """The service, None before its start is over and where it failed."""
        return self.starting.result() if self.starting.done() and not self.failed else None

    @property
    def failed(self) -> bool:
        """True where the start failed."""
        return self.starting.done() and (self.starting.cancelled() or self.starting.exception() is not None)

    def end(self) -> None:
        """End it, and wait until its thread has ended; for the one caller that took it."""
        self._finish(self.loop.submit(self._end()))

    async def aend(self) -> None:
        """`end`, without blocking the caller's event loop."""
        ending = self.loop.submit(self._end())
        try:
            await asyncio.shield(asyncio.wrap_future(ending))
        finally:
            self._finish(ending)  # blocks only where the caller is cancelled: no thread and no socket stays behind

    def _finish(self, ending: Future[None]) -> None:
        try:
            ending.result(PATIENCE_S)
        finally:
            self.loop.stop()
            self.ended.set_result(None)

    async def _end(self) -> None:
        """Stop what was started, once it is; those who waited for a failed start have its error."""
        await asyncio.wait([asyncio.wrap_future(self.starting)])
        if self.running is not None:
            await self.running.stop()
