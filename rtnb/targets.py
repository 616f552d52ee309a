"""`connect`: the one place where a client and a simulator meet."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from rtnb.errors import ConnectError
from rtnb.transport import Custom, Dialect, EphemeralKey, Target, TargetFacts, Transport

if TYPE_CHECKING:
    from rtnb.client import Session

_ALLOWED = '"sim", a "ws://…" address, rtnb.Azure(…), rtnb.OpenAI(…), rtnb.Custom(…), rtnb.Simulator(…), or a Transport'


class _Given:
    """A transport somebody opened already, as a target for one session."""

    def __init__(self, transport: Transport, *, dialect: Dialect) -> None:
        self.dialect: Dialect = dialect
        self.model: str | None = None
        self.facts = TargetFacts(dialect=dialect, url="a given transport")
        self._transport = transport

    async def open(self, *, intent: str | None = None, call_id: str | None = None) -> Transport:
        return self._transport

    async def ephemeral_key(
        self, *, session: Mapping[str, Any] | None = None, expires_after_s: int | None = None
    ) -> EphemeralKey:
        raise ConnectError("a given transport cannot make ephemeral keys").with_hint("Connect to a service instead.")

    def __str__(self) -> str:
        return "a given transport"


@runtime_checkable
class _Startable(Protocol):
    """A target that starts when it is opened: a simulator."""

    @property
    def running(self) -> bool: ...

    async def astop(self) -> None: ...


class Connecting:
    """A session to be: ``await`` it, or use it in ``async with`` (which closes it)."""

    def __init__(self, target: Any, options: dict[str, Any]) -> None:
        self._target = target
        self._options = options
        self._session: Session | None = None

    def __await__(self) -> Generator[Any, None, Session]:
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._open()
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._session is not None  # __aenter__ came before
        await self._session.close()

    async def _open(self) -> Session:
        from rtnb.client import open_session

        target = resolve(self._target, dialect=self._options.pop("dialect", None))
        if not isinstance(target, _Startable) or target.running:
            return await open_session(target, **self._options)
        try:
            session = await open_session(target, **self._options)
        except BaseException:
            await target.astop()
            raise
        session.on_close(target.astop)  # who starts it stops it
        return session


def connect(target: Any, **options: Any) -> Connecting:
    """Open a session with a service or a simulator.

    Parameters
    ----------
    target : str, Azure, OpenAI, Custom, Simulator, or Transport
        Where: ``"sim"`` starts a simulator for this session and stops it with it; ``"ws://localhost:8765"`` is any
        server that speaks the protocol; the rest are targets made beforehand.
    dialect : {"ga", "preview"}, optional
        Only where `target` is a text or a transport; targets have their own. Default ``"ga"``.
    **options
        Session settings such as `instructions`, `voice`, `turn_detection`, and what
        :func:`rtnb.client.open_session` takes (`tools`, `log_path`, `timeout_s`, …).

    Returns
    -------
    Connecting
        ``session = await connect(…)``, or ``async with connect(…) as session:``.

    Raises
    ------
    ConnectError
        When awaited: why no session came to be, and what to change.

    Examples
    --------
    >>> import asyncio
    >>> async def talk():
    ...     async with connect("sim") as session:
    ...         return (await session.ask("Count to five!")).transcript
    >>> asyncio.run(talk()).split(".")[0]
    'One, two, three, four, five'
    """
    return Connecting(target, dict(options))


def resolve(target: Any, *, dialect: Dialect | None = None) -> Target:
    """Turn what a user names into a target.

    Raises
    ------
    ConnectError
        It is nothing of the kind; the message lists what is allowed.
    """
    if isinstance(target, str):
        return _named(target.strip(), dialect or "ga")
    if isinstance(target, Target):
        if dialect is not None and dialect != target.dialect:
            raise ConnectError(f"{target} speaks {target.dialect!r}, not {dialect!r}").with_hint(
                "Give dialect= to the target itself."
            )
        return target
    if isinstance(target, Transport):
        return cast("Target", _Given(target, dialect=dialect or "ga"))
    raise ConnectError(f"cannot connect to {type(target).__name__}; allowed: {_ALLOWED}")


def _named(name: str, dialect: Dialect) -> Target:
    if name == "sim":
        from rtnb.simulator import Simulator

        return Simulator(dialect=dialect)
    if "://" in name:
        return Custom(name, dialect=dialect)
    raise ConnectError(f"cannot connect to {name!r}; allowed: {_ALLOWED}")
