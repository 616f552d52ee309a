"""`Simulator`: its options, the service on an event loop, and the service in a thread of this process as a target."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from rtnb._loop import BackgroundLoop, Lock
from rtnb.errors import ConnectError, LocalProtocolError
from rtnb.protocol import Dialect
from rtnb.simulator.admission import Grant, KeyRing
from rtnb.simulator.classroom import Classroom, Room
from rtnb.simulator.faults import Fault, LatencyProfile
from rtnb.simulator.mcp import ToolServer, open_server
from rtnb.simulator.parts import World
from rtnb.simulator.recorded import Recording
from rtnb.simulator.responder import ChatResponder, Responder, RulesResponder
from rtnb.simulator.scenario import Scenario
from rtnb.simulator.service import DEFAULT_MODEL, REQUEST_S, Service
from rtnb.simulator.speech import Speech
from rtnb.simulator.transcriber import ExactTranscriber, Transcriber, open_transcriber
from rtnb.simulator.turn_detection import BATCH_MS, EndOfTurn, SpeechBatch, open_turn_detector
from rtnb.simulator.voice import KINDS, Voice, open_voice
from rtnb.transport import Azure, EphemeralKey, TargetFacts, Transport, is_loopback

if TYPE_CHECKING:
    import trustme


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a simulator; the same for `Simulator(…)` and ``rtnb simulate``."""

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
    voice: str | Voice = "auto"
    """``auto``, ``neural``, ``espeak`` or ``babble``; see :mod:`rtnb.simulator.voice`."""
    turn_detector: str | EndOfTurn = "auto"
    """Judge of pauses for ``semantic_vad``: ``smart-turn``, ``fade``, ``auto`` or the path of an ONNX file."""
    scenario: Scenario | str | Path | Mapping[str, Any] | None = None
    """What to say and do, instead of the rules."""
    replay: Recording | None = None
    """A recorded conversation, ``rtnb.Trace(…)``: every session is answered as it was (see `RecordedSession`)."""
    responder: str | Responder = "rules"
    """``rules``, or an object that decides what is said in all sessions."""
    chat_url: str | None = None
    """An OpenAI-compatible chat service that decides what is said."""
    chat_model: str = "default"
    """The model to ask there."""
    chat_key: str | None = field(default=None, repr=False)
    """Its key."""
    transcriber: str | Transcriber = "auto"
    """Speech recognition: ``exact``, ``whisper``, ``auto`` or an address; see :mod:`rtnb.simulator.transcriber`."""
    mcp_servers: Mapping[str, str | ToolServer] = field(default_factory=dict)
    """MCP servers by label: an address, or an object with the methods of `ToolServer`. Clients of this machine may name
    addresses of this machine as well."""
    faults: tuple[Fault | str, ...] = ()
    """What goes wrong; see :mod:`rtnb.simulator.faults`."""
    session_minutes: float = 60.0
    """Longest session; a fraction is allowed, such as ``5 / 60``. At the cap the service sends `error` with the code
    `session_expired` and closes with 1001; `session.expires_at` names the time."""
    vad_constants: Mapping[str, Any] = field(default_factory=dict)
    """Constants of the server VAD that no document gives, for calibration exercises."""
    room: Room | None = None
    """Serve a class: a key per student, limits, a page for the teacher (:mod:`rtnb.simulator.classroom`)."""

    def __post_init__(self) -> None:
        own = not isinstance(self.responder, str)
        responders = "'rules', or an object with `respond`; scenario= and chat_url= name the others"
        recording = self.replay is None or hasattr(self.replay, "rows")
        for name, fits, allowed in (
            ("port", 0 <= self.port <= 65_535, "0 (a free one) to 65535"),
            ("session_minutes", 0 < self.session_minutes < float("inf"), "above 0"),
            ("responder", own or self.responder == "rules", responders),
            ("replay", recording, "a recorded conversation, such as rtnb.Trace('a.rtnb')"),
        ):
            if not fits:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {allowed}")
        if self.chat_url and own:
            raise ValueError("give chat_url= or a responder=, not both")

    def world(self, voice: Any) -> World:
        """Return the parts that the sessions share."""
        scenario = Scenario() if self.scenario is None else self.scenario
        if not isinstance(scenario, Scenario):
            scenario = Scenario.from_dict(scenario) if isinstance(scenario, Mapping) else Scenario.load(scenario)
        chosen = ChatResponder(self.chat_url, self.chat_model, self.chat_key) if self.chat_url else self.responder

        def make_responder(number: int) -> Responder:
            return RulesResponder(seed=self.seed * 1_000_003 + number) if isinstance(chosen, str) else chosen

        exact = ExactTranscriber()
        return World(
            voice=voice,
            exact=exact,
            speech=SpeechBatch(interval_ms=BATCH_MS),
            end_of_turn=open_turn_detector(self.turn_detector),
            transcriber=open_transcriber(self.transcriber, exact),
            make_responder=make_responder,
            scenario=scenario,
            latency=scenario.latency or LatencyProfile.parse(self.latency),
            faults=(*scenario.faults, *(Fault.parse(one) if isinstance(one, str) else one for one in self.faults)),
            seed=self.seed or scenario.seed,
            vad_constants=dict(self.vad_constants),
            replay=self.replay,
            open_mcp=functools.partial(open_server, known=dict(self.mcp_servers), local=is_loopback(self.host)),
            session_s=self.session_minutes * 60,
        )


def take_options(mixed: MutableMapping[str, Any]) -> dict[str, Any]:
    """Remove the options of a simulator from those of `rtnb.connect`, and return them.

    `voice` belongs to both: a kind of voice ("neural", "espeak" …) or an object is for the simulator, a voice of the
    service is a setting of the session.
    """
    names = {field.name for field in fields(Options)} & mixed.keys()
    if isinstance(voice := mixed.get("voice"), str | Mapping) and voice not in KINDS:
        names.discard("voice")
    return {name: mixed.pop(name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Place of a process among those that serve one port together; by default it is alone."""

    socket: socket.socket
    """Listening socket."""
    signed: SelfSigned | None
    index: int = 0
    count: int = 1
    grants: MutableMapping[str, Grant] = field(default_factory=dict)
    """Ephemeral keys of all."""
    all_listen: Any = None
    """Barrier that each of several workers reaches once it listens."""


class Running:
    """A started service on the current event loop."""

    def __init__(self, options: Options, worker: Worker) -> None:
        self.options = options
        self._ssl = worker.signed.server() if worker.signed else None
        self.certificate_pem = worker.signed.certificate_pem if worker.signed else None
        """What clients should trust, None without TLS."""
        world, keys = options.world(None), KeyRing(options.key, wall=time.time, grants=worker.grants)
        self.service = Service(world, keys, worker=(worker.index, worker.count))
        if options.room is not None:
            self.service = Classroom(world, keys, room=options.room)
        app = self.service.app()
        app.cleanup_ctx.append(self._parts)
        limits: Any = {"keepalive_timeout": REQUEST_S, "lingering_time": REQUEST_S}
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, **limits)
        self.port: int = worker.socket.getsockname()[1]

    @classmethod
    async def start(cls, options: Options, worker: Worker | None = None) -> Running:
        """Listen; the voice's process is started too."""
        worker = worker or Worker(socket=listen(options)[0], signed=SelfSigned.of(options))
        running: Running | None = None
        try:
            running = cls(options, worker)
            await running.runner.setup()
            await web.SockSite(running.runner, worker.socket, ssl_context=running._ssl).start()
        except BaseException:
            worker.socket.close()
            if running is not None:
                await running.stop()
            raise
        return running

    async def stop(self) -> None:
        """Close every session with 1001, then everything else."""
        await self.runner.cleanup()

    async def _parts(self, _: web.Application) -> AsyncIterator[None]:
        """Open the voice; at the end, close all parts that the sessions share."""
        world = self.service.world
        world.voice = await open_voice(self.options.voice, seed=self.options.seed)
        closing = asyncio.create_task(_close_unused(self.runner, self.service), name="rtnb unused connections")
        yield
        closing.cancel()
        for part in (world.voice, world.transcriber, world.end_of_turn):
            if part is not None:
                await part.aclose()

    @property
    def voice(self) -> Voice:
        """The simulator's voice."""
        return self.service.world.voice

    @property
    def http(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http{'s' if self.options.tls else ''}://{_bracketed(self.options.host)}:{self.port}"


async def _close_unused(runner: web.AppRunner, service: Service) -> None:
    """Close connections that were opened `REQUEST_S` ago and sent no request, or half of one; aiohttp keeps them."""
    since: dict[Any, float] = {}
    while runner.server is not None:
        await asyncio.sleep(REQUEST_S / 4)
        now, connections = time.monotonic(), runner.server.connections
        service.used.intersection_update(connections)
        since = {one: since.get(one, now) for one in connections if one not in service.used}
        for connection, opened in since.items():
            if now - opened >= REQUEST_S:
                connection.force_close()


@dataclass(frozen=True)
class SelfSigned:
    """Certificate of this start, trusted only by clients that are given it."""

    certificate_pem: str
    """For clients: ``ssl.create_default_context(cadata=…)``."""
    pair: trustme.LeafCert = field(repr=False)
    """Private key and certificates of the server."""

    @classmethod
    def of(cls, options: Options) -> SelfSigned | None:
        """Make a certificate where the options ask for one."""
        if not options.tls:
            return None
        import trustme  # loads the cryptography library: only where it is needed

        authority = trustme.CA(organization_name="rtnb simulator")
        names = {"localhost", "127.0.0.1", "::1", options.host} - {""}
        return cls(authority.cert_pem.bytes().decode(), authority.issue_cert(*sorted(names)))

    def server(self) -> ssl.SSLContext:
        """Return the context of a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.pair.configure_cert(context)
        return context


def listen(options: Options, count: int = 1) -> list[socket.socket]:
    """Return a listening socket for each worker; the same one where the system cannot spread connections.

    Raises
    ------
    OSError
        The port is taken, or the address is not of this machine.
    """
    # "localhost" has two addresses, and with port 0 each would get another port.
    host = "127.0.0.1" if options.host == "localhost" else options.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        first = socket.create_server((host, options.port), family=family)
    except OSError as error:
        error.add_note("Next: choose another port, or 0 for a free one, and a host that is this machine's.")
        raise
    if count == 1 or sys.platform != "linux":  # macOS has SO_REUSEPORT and gives all connections to one
        return [first] * count
    port = first.getsockname()[1]
    first.close()
    return [socket.create_server((host, port), family=family, reuse_port=True) for _ in range(count)]


def _bracketed(host: str) -> str:
    host = "127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host
    return f"[{host}]" if ":" in host else host


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
            if left := self._leave():
                left.end()
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
        if run := self._leave():
            await _in_thread(run.end)

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
            await _in_thread(run.end)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await self.astart()

    async def __aexit__(self, *_: object) -> None:
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
        try:
            self.loop.run(self._end(), PATIENCE_S)
        finally:
            self.loop.stop()
            self.ended.set_result(None)

    async def _end(self) -> None:
        """Stop what was started, once it is; those who waited for a failed start have its error."""
        await asyncio.wait([asyncio.wrap_future(self.starting)])
        if self.running is not None:
            await self.running.stop()


async def _in_thread(end: Callable[[], None]) -> None:
    """Call in a thread, to its end where the caller is cancelled: no thread and no socket stays behind."""
    ending = asyncio.create_task(asyncio.to_thread(end))
    try:
        await asyncio.shield(ending)
    finally:
        await asyncio.wait({ending})
