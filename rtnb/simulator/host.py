"""`Simulator`: the service in a thread of this process, and the target that reaches it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from rtnb._loop import BackgroundLoop
from rtnb.errors import LocalProtocolError
from rtnb.protocol import Dialect
from rtnb.simulator.running import Options, Running
from rtnb.simulator.service import DEFAULT_MODEL
from rtnb.simulator.speech import RATE_HZ, Speech
from rtnb.transport import Azure, EphemeralKey, TargetFacts, Transport

PATIENCE_S = 30.0
"""Longest start or stop; both usually take a tenth of a second. (chosen)"""


class Simulator:
    """A realtime service on this machine: real sockets, real turn detection, real speech, no key of anybody's.

    It listens on loopback in a background thread, so a cell that computes does not stop it. It is a target like
    `Azure` or `OpenAI`: ``rtnb.connect(simulator)``.

    Parameters
    ----------
    dialect : {"ga", "preview"}, default "ga"
        What sessions opened through this object speak; the service itself speaks both.
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
        self._loop = BackgroundLoop()
        self._starting: Future[Running] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start listening; starting twice is fine.

        Raises
        ------
        OSError
            The port is taken or the address is not ours.
        """
        future = self._begin()
        try:
            future.result(PATIENCE_S)
        except BaseException:
            self.stop()
            raise
        return self

    async def astart(self) -> Self:
        """`start`, without blocking the event loop of the caller; who waits at the same time waits for the same."""
        future = self._begin()
        try:
            await asyncio.shield(asyncio.wrap_future(future))
        except BaseException:
            if future.done() and _outcome(future) is None:  # where only this caller was cancelled, others may wait
                await self.astop()
            raise
        return self

    def _begin(self) -> Future[Running]:
        if self._starting is None:
            self._starting = self._loop.submit(Running.start(self.options))
        return self._starting

    @property
    def _running(self) -> Running | None:
        return _outcome(self._starting) if self._starting is not None and self._starting.done() else None

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._running is not None

    def stop(self) -> None:
        """Stop: sessions close with 1001; no thread, socket or process stays behind. A start under way ends first."""
        future, self._starting = self._starting, None
        if future is not None:
            try:
                self._loop.run(_end(future), PATIENCE_S)
            finally:
                self._loop.stop()

    async def astop(self) -> None:
        """`stop`, without blocking the event loop of the caller."""
        future, self._starting = self._starting, None
        if future is not None:
            try:
                await asyncio.wrap_future(self._loop.submit(_end(future)))
            finally:
                self._loop.stop()

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
        where = self.url if self._running else "not started"
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
        """Which voice speaks, and why it is not a better one."""
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
        running = self._running
        if running is None:
            raise LocalProtocolError("this simulator is not running").with_hint("Call start(), or use it in a `with`.")
        return running

    # --- a target -----------------------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """What sessions ask for."""
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
            url=self.url if self._running else "",
            model=self.model,
            auth="api-key",
        )

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> Transport:
        """Open a session's socket, as any client would."""
        await self.astart()
        return await self.target.open(intent=intent, call_id=call_id)

    async def ephemeral_key(
        self, *, session: Mapping[str, Any] | None = None, expires_after_s: int | None = None, intent: str | None = None
    ) -> EphemeralKey:
        """Get an ephemeral key from the service's own HTTP address."""
        await self.astart()
        return await self.target.ephemeral_key(session=session, expires_after_s=expires_after_s, intent=intent)

    def speech(self, text: str, *, voice: str = "alloy", speed: float = 1.0) -> Speech:
        """A recorded user for exercises: the simulator's voice speaks, and will understand exactly this.

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
        running = self.start()._started()
        speech = self._loop.run(running.voice.speak(text, voice=voice, speed=speed), 60.0)
        running.service.world.known.learn(text, speech.audio, rate_hz=RATE_HZ)
        return speech  # type: ignore[no-any-return]


async def _end(future: Future[Running]) -> None:
    """Stop what was started, once it is; where it failed there is nothing to stop, and who waited was told why."""
    await asyncio.wait([asyncio.wrap_future(future)])
    running = _outcome(future)
    if running is not None:
        await running.stop()


def _outcome(future: Future[Running]) -> Running | None:
    """What a start that is over led to; None where it failed."""
    return None if future.cancelled() or future.exception() is not None else future.result()
