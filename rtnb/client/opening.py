"""From a target to an open session: `open_session`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rtnb.client._link import MakeId
from rtnb.client.log import EventLog
from rtnb.client.session import Session, Sleep
from rtnb.errors import ConnectError, ConnectionClosed, RtnbError, ServiceError
from rtnb.protocol import Connection
from rtnb.protocol.values import SessionConfig
from rtnb.transport import explain
from rtnb.transport.base import Target, Transport


async def open_session(
    target: Target,
    *,
    config: SessionConfig | None = None,
    tools: Iterable[Callable[..., Any] | Mapping[str, Any]] = (),
    intent: str | None = None,
    log_path: str | os.PathLike[str] | None = None,
    timeout_s: float = 15.0,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    sleep: Sleep = asyncio.sleep,
    make_id: MakeId | None = None,
    **settings: Any,
) -> Session:
    """Open a session and set it up; returns once the service said `session.created` and took the settings.

    Parameters
    ----------
    target : Target
        Where: a service or a simulator.
    config : SessionConfig, optional
        Settings as a value.
    tools : iterable of callable or mapping, default ()
        Functions the model may call, or ready tool definitions.
    intent : str, optional
        ``"transcription"`` opens a session that only listens and writes.
    log_path : path, optional
        Append every event to this file as it happens.
    timeout_s : float, default 15
        For each of: the connection, `session.created`, the settings (chosen).
    clock, wall, sleep : callable
        Monotonic seconds, Unix seconds, waiting; for tests and simulations.
    make_id : callable, optional
        prefix -> a new id; None counts.
    **settings
        Settings by name, as `Session.update` takes them.

    Returns
    -------
    Session

    Raises
    ------
    ConnectError
        No session came to be; `AuthenticationError` where the key was refused.
    ServiceError
        The service refuses the settings; the session is closed again.
    """
    if config is not None and settings:
        raise TypeError("give a SessionConfig or settings by name, not both")
    try:
        async with asyncio.timeout(timeout_s):
            transport = await (target.open() if intent is None else target.open(intent=intent))
    except TimeoutError as error:
        raise explain.connect_failure(error, facts=target.facts, timeout_s=timeout_s) from error
    log = await _log(transport, log_path, target)
    session = Session(
        transport,
        Connection("client", dialect=target.dialect, webrtc=getattr(transport, "webrtc", False)),
        log=log,
        clock=clock,
        wall=wall,
        sleep=sleep,
        make_id=make_id,
        secrets=getattr(transport, "secrets", ()),
    )
    try:
        await _created(session, target, timeout_s)
        async with asyncio.timeout(timeout_s):
            if config is not None or settings:
                await session.update(config, **settings)
            if offered := tuple(tools):
                await session.tools.register(*offered)
    except TimeoutError as error:
        await session.close()
        raise explain.connect_failure(error, facts=target.facts, timeout_s=timeout_s) from error
    except BaseException:
        await session.close()
        raise
    return session


async def _log(transport: Transport, path: str | os.PathLike[str] | None, target: Target) -> EventLog:
    try:
        return EventLog(path=path, dialect=target.dialect)
    except OSError:
        await transport.close()
        raise


async def _created(session: Session, target: Target, timeout_s: float) -> None:
    """Wait for `session.created`; a service may refuse a key or a model only now, with an `error` and a goodbye."""
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(session._opened)
    except ConnectionClosed as closed:
        raise _refused(session, target, closed) from closed
    spoken = session._link.connection.peer_dialect
    if spoken not in (None, target.dialect):
        failure = ConnectError(
            f"could not open a session at {target.facts.url or target}: the service speaks the {spoken} dialect, "
            f"we speak {target.dialect}",
            url=target.facts.url,
        )
        failure.add_note(f"Next: connect with dialect={spoken!r}.")
        raise failure


def _refused(session: Session, target: Target, closed: ConnectionClosed) -> RtnbError:
    said = next((error for error in session.errors if isinstance(error, ServiceError)), None)
    if said is not None:
        error_type, code, message = said.type, said.code, str(said.args[0])
    else:
        error_type, code = explain.split_reason(closed.reason)
        message = closed.reason
    return explain.connect_failure_from_event(error_type, code, message, facts=target.facts, close_code=closed.code)
