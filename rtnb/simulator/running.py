"""A simulator on the current event loop: its options, and what runs."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import tempfile
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from aiohttp import web

from rtnb.errors import ScenarioError
from rtnb.simulator.admission import Grants, KeyRing
from rtnb.simulator.classroom import Classroom, Room
from rtnb.simulator.faults import Fault
from rtnb.simulator.mcp import ToolServer, open_server
from rtnb.simulator.pacing import LatencyProfile
from rtnb.simulator.recorded import Recording
from rtnb.simulator.responder import ChatResponder, MakeResponder, Responder, RulesResponder, ScenarioResponder
from rtnb.simulator.scenario import Scenario
from rtnb.simulator.service import REQUEST_S, Service
from rtnb.simulator.session import World
from rtnb.simulator.transcriber import ExactTranscriber, Transcriber, open_transcriber
from rtnb.simulator.turn_detection import BATCH_MS, EndOfTurn, SpeechBatch, open_turn_detector
from rtnb.simulator.voice import KINDS, Voice, open_voice
from rtnb.transport import is_loopback


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
    origins: tuple[str, ...] = ()
    """Pages whose JavaScript may call, such as ``http://localhost:8888``."""
    session_minutes: float = 60.0
    """Longest session; a fraction is allowed, such as ``5 / 60``. At the cap the service sends `error` with the code
    `session_expired` and closes with 1001; `session.expires_at` names the time."""
    vad_constants: Mapping[str, Any] = field(default_factory=dict)
    """Constants of the server VAD that no document gives, for calibration exercises."""
    room: Room | None = None
    """Serve a class: a key per student, limits, a page for the teacher (:mod:`rtnb.simulator.classroom`)."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port is {self.port!r}; allowed: 0 (a free one) to 65535")
        if not 0 < self.session_minutes < float("inf"):
            raise ValueError(f"session_minutes is {self.session_minutes!r}; allowed: above 0")
        if isinstance(self.responder, str) and self.responder != "rules":
            hint = "'rules', or an object with `respond`; scenario= and chat_url= name the others"
            raise ValueError(f"responder is {self.responder!r}; allowed: {hint}")
        if self.chat_url and not isinstance(self.responder, str):
            raise ValueError("give chat_url= or a responder=, not both")
        if self.replay is not None and not hasattr(self.replay, "rows"):
            raise ValueError(
                f"replay is {self.replay!r}; allowed: a recorded conversation, such as rtnb.Trace('a.rtnb')"
            )
        for origin in self.origins:
            if "://" not in origin or origin.endswith("/"):
                raise ValueError(f"origin is {origin!r}; allowed: as browsers send it, such as 'http://localhost:8888'")

    def world(self, voice: Any) -> World:
        """Return the parts that the sessions share."""
        latency = self.latency if isinstance(self.latency, LatencyProfile) else LatencyProfile.parse(self.latency)
        scenario = _scenario(self.scenario)
        faults = tuple(Fault.parse(f) if isinstance(f, str) else f for f in self.faults)
        if scenario is not None:
            faults = (*scenario.faults, *faults)
            latency = scenario.latency or latency
        exact = ExactTranscriber()
        return World(
            voice=voice,
            exact=exact,
            speech=SpeechBatch(interval_ms=BATCH_MS),
            end_of_turn=open_turn_detector(self.turn_detector),
            transcriber=open_transcriber(self.transcriber, exact),
            make_responder=_responders(self, scenario),
            latency=latency,
            faults=faults,
            seed=scenario.seed if scenario is not None and not self.seed else self.seed,
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


def _scenario(source: Scenario | str | Path | Mapping[str, Any] | None) -> Scenario | None:
    if source is None or isinstance(source, Scenario):
        return source
    if isinstance(source, Mapping):
        return Scenario.from_dict(source)
    try:
        return Scenario.load(source)
    except OSError as error:
        raise ScenarioError(f"the scenario {str(source)!r} cannot be read: {error.strerror or error}") from error


def _responders(options: Options, scenario: Scenario | None) -> MakeResponder:
    chat = ChatResponder(options.chat_url, options.chat_model, options.chat_key) if options.chat_url else None

    def make(number: int) -> Responder:
        rules = RulesResponder(seed=options.seed * 1_000_003 + number)
        base: Responder = chat or (rules if isinstance(options.responder, str) else options.responder)
        return base if scenario is None else ScenarioResponder(scenario, base)

    return make


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Place of a process among those that serve one port together."""

    index: int
    count: int
    socket: socket.socket
    """Listening socket."""
    grants: Grants
    """Ephemeral keys of all."""
    all_listen: Any
    """Barrier that each worker reaches once it listens."""
    signed: SelfSigned | None = None


class Running:
    """A started service on the current event loop."""

    def __init__(
        self, options: Options, service: Service, runner: web.AppRunner, voice: Any, signed: SelfSigned | None
    ) -> None:
        self.options, self.service, self.voice = options, service, voice
        self.port: int = runner.addresses[0][1]
        self.certificate_pem = signed.certificate_pem if signed else None
        """What clients should trust, None without TLS."""
        self._runner = runner
        self._closing = asyncio.create_task(_close_unused(runner, service), name="rtnb unused connections")

    @classmethod
    async def start(cls, options: Options, worker: Worker | None = None) -> Running:
        """Listen; the voice's worker is started too."""
        voice = await open_voice(options.voice, seed=options.seed)
        try:
            service = _service(options, voice, worker)
            limits: Any = {"keepalive_timeout": REQUEST_S, "lingering_time": REQUEST_S}
            runner = web.AppRunner(service.app(), access_log=None, shutdown_timeout=2.0, **limits)
            await runner.setup()
            signed = worker.signed if worker else SelfSigned.of(options)
            trust = signed.server() if signed else None
            try:
                if worker is not None:
                    await web.SockSite(runner, worker.socket, ssl_context=trust).start()
                else:
                    await web.TCPSite(runner, listening_host(options), options.port, ssl_context=trust).start()
            except OSError as error:
                await runner.cleanup()
                error.add_note("Next: choose another port, or 0 for a free one, and a host that is this machine's.")
                raise
        except BaseException:
            await voice.aclose()
            raise
        return cls(options, service, runner, voice, signed)

    async def stop(self) -> None:
        """Close every session with 1001, then everything else."""
        self._closing.cancel()
        try:
            await self._runner.cleanup()
        finally:
            world = self.service.world
            for part in (self.voice, world.transcriber, world.end_of_turn):
                if part is not None:
                    await part.aclose()

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


def _service(options: Options, voice: Any, worker: Worker | None) -> Service:
    world = options.world(voice)
    keys = KeyRing(options.key, wall=time.time, grants=worker.grants if worker else None)
    if options.room is None:
        place = (worker.index, worker.count) if worker else (0, 1)
        return Service(world, keys, origins=options.origins, worker=place)
    return Classroom(world, keys, room=options.room, origins=options.origins)


@dataclass(frozen=True)
class SelfSigned:
    """Certificate of this start, trusted only by clients that are given it."""

    certificate_pem: str
    """For clients: ``ssl.create_default_context(cadata=…)``."""
    pair_pem: bytes = field(repr=False)
    """Private key and certificates of the server."""

    @classmethod
    def of(cls, options: Options) -> SelfSigned | None:
        """Make a certificate where the options ask for one."""
        if not options.tls:
            return None
        import trustme  # loads the cryptography library: only where it is needed

        authority = trustme.CA(organization_name="rtnb simulator")
        names = {"localhost", "127.0.0.1", "::1", options.host} - {""}
        pair = authority.issue_cert(*sorted(names)).private_key_and_cert_chain_pem.bytes()
        return cls(authority.cert_pem.bytes().decode(), pair)

    def server(self) -> ssl.SSLContext:
        """Return the context of a server; the ssl module reads keys from files only."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:  # which only this user can read
            path = Path(folder, "pair.pem")
            path.write_bytes(self.pair_pem)
            context.load_cert_chain(path)
        return context


def listening_host(options: Options) -> str:
    """Return the address to listen on: "localhost" has two, and with port 0 each would get another port."""
    return "127.0.0.1" if options.host == "localhost" else options.host


def _bracketed(host: str) -> str:
    host = "127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host
    return f"[{host}]" if ":" in host else host
