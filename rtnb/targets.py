"""`connect`: the one place where a client and a simulator meet."""

from __future__ import annotations

from collections.abc import Generator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, Unpack, runtime_checkable

from rtnb.errors import ConnectError
from rtnb.transport import Custom, Dialect, EphemeralKey, Target, TargetFacts, Transport

if TYPE_CHECKING:
    from rtnb.client import Session
    from rtnb.client.settings import ConnectOptions

    class SimulatorOptions(ConnectOptions, total=False):
        """Options of `connect`, and with "sim" those of `rtnb.Simulator`."""

        transcriber: Any
        turn_detector: Any
        responder: Any
        scenario: Any
        chat_url: str
        chat_model: str
        chat_key: str
        latency: Any
        faults: tuple[Any, ...]
        seed: int


_ALLOWED = '"sim", a "ws://…" address, rtnb.Azure(…), rtnb.OpenAI(…), rtnb.Custom(…), rtnb.Simulator(…), or a Transport'


class _Given:
    """An open transport as a target for one session."""

    def __init__(self, transport: Transport, *, dialect: Dialect) -> None:
        self.dialect: Dialect = dialect
        self.model: str | None = None
        self.facts = TargetFacts(dialect=dialect, url="a given transport")
        self._transport = transport

    async def open(self, **options: Any) -> Transport:
        return self._transport

    async def ephemeral_key(self, **options: Any) -> EphemeralKey:
        raise ConnectError("a given transport cannot make ephemeral keys").with_hint("Connect to a service instead.")

    def __str__(self) -> str:
        return "a given transport"


@runtime_checkable
class Shared(Protocol):
    """A target that runs while a session uses it: a simulator."""

    async def acquire(self) -> None:
        """Start it, unless it runs."""

    async def release(self) -> None:
        """Stop it, where `acquire` started it and no session uses it any more."""


class Connecting:
    """A session that is not open yet: ``await`` it, or use it in ``async with``, which also closes it."""

    def __init__(self, target: Any, options: Mapping[str, Any]) -> None:
        self._target = target
        self._options = options
        self._sessions: list[Session] = []

    def __await__(self) -> Generator[Any, None, Session]:
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        self._sessions.append(await self._open())
        return self._sessions[-1]

    async def __aexit__(self, *raised: object) -> None:
        await self._sessions.pop().close()

    def __repr__(self) -> str:
        return f"<a session with {self._target} that is not open yet: write `await rtnb.connect(…)`>"

    async def _open(self) -> Session:
        from rtnb.client import open_session
        from rtnb.trace import keep

        options = dict(self._options)
        recording = options.pop("trace", None), options.pop("trace_max_bytes", None)
        target = resolve(self._target, dialect=options.pop("dialect", None), options=options)
        if not isinstance(target, Shared):
            return await keep(await open_session(target, **options), *recording)
        await target.acquire()
        try:
            session = await open_session(target, **options)
        except BaseException:
            await target.release()
            raise
        session.on_close(target.release)
        return await keep(session, *recording)


def connect(target: Any, *, dialect: Dialect | None = None, **options: Unpack[SimulatorOptions]) -> Connecting:
    """Open a session with a service or a simulator.

    Parameters
    ----------
    target : str, Azure, OpenAI, Custom, Simulator, or Transport
        ``"sim"`` starts a simulator for this session and stops it with it; ``"ws://localhost:8765"`` is any server that
        speaks the protocol; the others are targets made beforehand.
    dialect : {"ga", "preview"}, optional
        Only where `target` is a text or a transport; other targets have their own. Default ``"ga"``.
    **options
        Session settings such as `instructions`, `voice`, `turn_detection`, and what :func:`rtnb.client.open_session`
        takes: `tools`, `reconnect`, `budget`, `log_path`, `timeout_s` … `trace` records the session into a file; in its
        name ``{time}`` stands for the time. With ``"sim"`` also those of `rtnb.Simulator`: `transcriber`,
        `turn_detector`, `responder`, `chat_url` …, and a kind of `voice` (neural, espeak, babble).

    Returns
    -------
    Connecting
        ``session = await connect(…)``, or ``async with connect(…) as session:``.

    Raises
    ------
    TypeError
        When awaited: an unknown setting; names the nearest one.
    ConnectError
        When awaited: why no session was opened, and what to change.

    Examples
    --------
    >>> import asyncio
    >>> async def talk():
    ...     async with connect("sim") as session:
    ...         return (await session.ask("Count to five!")).transcript
    >>> asyncio.run(talk()).split(".")[0]
    'One, two, three, four, five'
    """
    return Connecting(target, {"dialect": dialect, **options})


def resolve(target: Any, *, dialect: Dialect | None = None, options: MutableMapping[str, Any] | None = None) -> Target:
    """Return the target that a user named; with "sim", options of the simulator are taken out of `options`.

    Raises
    ------
    ConnectError
        Not a target; the message lists what is allowed.
    """
    if isinstance(target, str):
        name = target.strip()
        if name == "sim":
            from rtnb.simulator import Simulator, take_options

            return Simulator(dialect=dialect or "ga", **take_options({} if options is None else options))
        if "://" in name:
            return Custom(name, dialect=dialect or "ga")
        raise ConnectError(f"cannot connect to {name!r}; allowed: {_ALLOWED}")
    if isinstance(target, Target):
        if dialect is not None and dialect != target.dialect:
            error = ConnectError(f"{target} speaks {target.dialect!r}, not {dialect!r}")
            raise error.with_hint("Give dialect= to the target itself.")
        return target
    if isinstance(target, Transport):
        return _Given(target, dialect=dialect or "ga")
    raise ConnectError(f"cannot connect to {type(target).__name__}; allowed: {_ALLOWED}")
