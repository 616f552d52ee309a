"""`Simulator`: the service in a thread of this process, and the target that reaches it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from rtnb._loop import BackgroundLoop
from rtnb.errors import LocalProtocolError, ScenarioError
from rtnb.protocol import Dialect
from rtnb.simulator.behaviour import Rules
from rtnb.simulator.brains import Chat, MakeBehaviour, Play
from rtnb.simulator.chat import ChatBrain
from rtnb.simulator.faults import Fault
from rtnb.simulator.keys import KeyRing
from rtnb.simulator.live import World
from rtnb.simulator.pacing import LatencyProfile
from rtnb.simulator.scenario import Scenario
from rtnb.simulator.service import DEFAULT_MODEL, Service
from rtnb.simulator.speech import RATE_HZ, Speech
from rtnb.simulator.tls import self_signed
from rtnb.simulator.voice import open_voice
from rtnb.transport import Azure, EphemeralKey, TargetFacts, Transport

VoiceKind = Literal["auto", "espeak", "babble"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a simulator is set up; the same for `Simulator(…)` and ``rtnb simulate``."""

    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback is reachable by others, who then need the key."""
    port: int = 0
    """0 takes a free one."""
    key: str | None = field(default=None, repr=False)
    """The key clients must show; None makes a fresh one."""
    tls: bool = False
    """Serve https and wss with a self-signed certificate."""
    seed: int = 0
    """Same seed, same session."""
    latency: str | LatencyProfile = "realistic"
    """``realistic``, ``real_time``, ``fast``, or changes such as ``"first_delta_ms=800"``."""
    voice: VoiceKind = "auto"
    """``espeak`` is understandable (extra ``sim``), ``babble`` needs nothing; ``auto`` takes the best there is."""
    scenario: Scenario | str | Path | Mapping[str, Any] | None = None
    """What to say and do, instead of the rules."""
    chat_url: str | None = None
    """An OpenAI-compatible chat service that decides what is said."""
    chat_model: str = "default"
    """The model to ask there."""
    faults: tuple[Fault | str, ...] = ()
    """What goes wrong; see :mod:`rtnb.simulator.faults`."""
    origins: tuple[str, ...] = ()
    """Pages whose JavaScript may call, such as ``http://localhost:8888``."""
    session_minutes: float = 60.0
    """Longest session."""
    vad_constants: Mapping[str, Any] = field(default_factory=dict)
    """Constants of the server VAD that no document gives, for calibration exercises."""

    def world(self, voice: Any) -> World:
        """What the sessions share."""
        latency = self.latency if isinstance(self.latency, LatencyProfile) else LatencyProfile.parse(self.latency)
        scenario = _scenario(self.scenario)
        faults = tuple(Fault.parse(f) if isinstance(f, str) else f for f in self.faults)
        if scenario is not None:
            faults = (*scenario.faults, *faults)
            latency = scenario.latency or latency
        return World(
            voice=voice,
            make_behaviour=_behaviours(self, scenario),
            latency=latency,
            faults=faults,
            seed=scenario.seed if scenario is not None and not self.seed else self.seed,
            vad_constants=dict(self.vad_constants),
            session_s=self.session_minutes * 60,
        )


def _scenario(source: Scenario | str | Path | Mapping[str, Any] | None) -> Scenario | None:
    if source is None or isinstance(source, Scenario):
        return source
    if isinstance(source, Mapping):
        return Scenario.from_dict(source)
    try:
        return Scenario.load(source)
    except OSError as error:
        raise ScenarioError(f"the scenario {str(source)!r} cannot be read: {error.strerror or error}") from error


def _behaviours(options: Options, scenario: Scenario | None) -> MakeBehaviour:
    brain = ChatBrain(options.chat_url, options.chat_model) if options.chat_url else None

    def make(number: int) -> Any:
        base = Chat(brain) if brain is not None else Rules(seed=options.seed * 1_000_003 + number)
        return base if scenario is None else Play(scenario, base)

    return make


class Running:
    """A started service on the current event loop."""

    def __init__(self, options: Options, service: Service, runner: web.AppRunner, voice: Any, port: int) -> None:
        self.options, self.service, self.voice, self.port = options, service, voice, port
        self._runner = runner

    @classmethod
    async def start(cls, options: Options) -> Running:
        """Listen; the voice's worker is started too."""
        voice = await open_voice(options.voice, seed=options.seed)
        try:
            keys = KeyRing(options.key, wall=time.time)
            service = Service(options.world(voice), keys, origins=options.origins)
            runner = web.AppRunner(service.app(), access_log=None, shutdown_timeout=2.0)
            await runner.setup()
            context = self_signed(options.host).server if options.tls else None
            site = web.TCPSite(runner, options.host, options.port, ssl_context=context)
            try:
                await site.start()
            except OSError:
                await runner.cleanup()
                raise
        except BaseException:
            await voice.aclose()
            raise
        return cls(options, service, runner, voice, runner.addresses[0][1])

    async def stop(self) -> None:
        """Close every session with 1001, then everything else."""
        await self._runner.cleanup()
        await self.voice.aclose()


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
        self._running: Running | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start listening; starting twice is fine.

        Raises
        ------
        OSError
            The port is taken or the address is not ours.
        """
        if self._running is None:
            try:
                self._running = self._loop.run(Running.start(self.options), 30.0)
            except BaseException:
                self._loop.stop()
                raise
        return self

    async def astart(self) -> Self:
        """`start`, without blocking the event loop of the caller."""
        if self._running is None:
            try:
                self._running = await asyncio.wrap_future(self._loop.submit(Running.start(self.options)))
            except BaseException:
                self._loop.stop()
                raise
        return self

    async def astop(self) -> None:
        """`stop`, without blocking the event loop of the caller."""
        if self._running is not None:
            running, self._running = self._running, None
            try:
                await asyncio.wrap_future(self._loop.submit(running.stop()))
            finally:
                self._loop.stop()

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._running is not None

    def stop(self) -> None:
        """Stop: sessions close with 1001; no thread, socket or process stays behind."""
        if self._running is not None:
            running, self._running = self._running, None
            try:
                self._loop.run(running.stop(), 10.0)
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
        running = self._started()
        return f"{'https' if self.options.tls else 'http'}://{_bracketed(self.options.host)}:{running.port}"

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

    def _started(self) -> Running:
        if self._running is None:
            raise LocalProtocolError("this simulator is not running").with_hint("Call start(), or use it in a `with`.")
        return self._running

    # --- a target -----------------------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """What sessions ask for."""
        return DEFAULT_MODEL

    @property
    def target(self) -> Azure:
        """The same service as anybody else reaches it: an `Azure` target with this address and key."""
        return Azure(self.url, deployment=self.model, dialect=self.dialect, api_key=self.key)

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
        self, *, session: Mapping[str, Any] | None = None, expires_after_s: int | None = None
    ) -> EphemeralKey:
        """Make an ephemeral key through the service's own HTTP door."""
        await self.astart()
        return await self.target.ephemeral_key(session=session, expires_after_s=expires_after_s)

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


def _bracketed(host: str) -> str:
    host = "127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host
    return f"[{host}]" if ":" in host else host
