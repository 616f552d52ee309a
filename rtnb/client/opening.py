"""From a target to an open session: `open_session`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal, Unpack

from rtnb.analysis.cost import Budget
from rtnb.client.dispatcher import Dispatcher
from rtnb.client.log import LIMIT_BYTES, EventLog
from rtnb.client.session import Session
from rtnb.client.settings import DispatcherOptions, SessionOptions, check_settings, wanted_settings
from rtnb.client.tools import ToolBox
from rtnb.errors import ConnectError, ConnectionClosed, RtnbError, ServiceError
from rtnb.protocol import Connection
from rtnb.protocol.values import SessionConfig
from rtnb.transport import explain
from rtnb.transport.base import Target, Transport

CLOSE_AFTER_ERROR_S = 0.2
"""Time for the close frame that follows a refusal while connecting: its code is part of the explanation (chosen; the
service sends both in the same millisecond)."""


async def open_session(
    target: Target,
    *,
    config: SessionConfig | None = None,
    tools: Iterable[Callable[..., Any] | Mapping[str, Any]] = (),
    intent: Literal["transcription"] | None = None,
    log_path: str | os.PathLike[str] | None = None,
    log_limit_bytes: int = LIMIT_BYTES,
    timeout_s: float = 15.0,
    reconnect: bool = False,
    budget: Budget | None = None,
    **options: Unpack[SessionOptions],
) -> Session:
    """Open a session and set it up; returns when the service has confirmed the settings.

    Parameters
    ----------
    target : Target
        A service or a simulator.
    config : SessionConfig, optional
        Settings as a value.
    tools : iterable of callable or mapping, default ()
        Functions the model may call, or ready tool definitions.
    intent : {"transcription"}, optional
        Open a session that only transcribes: `turn_detection`, `transcription`, `noise_reduction`, `input_format` and
        `include` are its settings; send speech with ``session.say(…, respond=False)``.
    log_path : path, optional
        Append every event to this file as it happens.
    log_limit_bytes : int, default 64 MiB
        Most memory of the log.
    timeout_s : float, default 15
        Deadline of each of: the connection, `session.created`, the settings (chosen).
    reconnect : bool, default False
        When the connection ends, open a new session with the same settings, and restore the conversation as text.
    budget : Budget, optional
        Most money, time or speech.
    **options
        Settings by name, as for `Session.update`; deadlines `request_timeout_s` (of acknowledgements, default 15) and
        `response_timeout_s` (longest time without an event of a response, default 60); and, for tests and simulations,
        `clock` and `wall` (monotonic and Unix seconds), `sleep`, and `make_id` (prefix -> a new id).

    Returns
    -------
    Session

    Raises
    ------
    TypeError
        An unknown setting; names the nearest one. Nothing was opened.
    LocalProtocolError
        A value that the service would refuse. Nothing was opened.
    ConnectError
        No session was opened; `AuthenticationError` where the key was refused.
    ServiceError
        The service refuses the settings; the session is closed again.
    """
    how = {name: options.pop(name) for name in DispatcherOptions.__optional_keys__ if name in options}  # type: ignore[misc]
    wanted = wanted_settings(config, {"type": intent or "realtime", **options} if config is None else options)
    check_settings(wanted, dialect=target.dialect)
    offered = tuple(tools)
    ToolBox(tool for tool in offered if not isinstance(tool, Mapping))  # refuses what cannot be a tool
    if budget is not None and target.model:
        budget.price_of(target.model)
    connect = partial(_connect, target, intent, timeout_s)
    transport = await connect()
    try:
        log = EventLog(path=log_path, dialect=target.dialect, limit_bytes=log_limit_bytes)
    except OSError:
        await transport.close()
        raise
    connection = Connection("client", dialect=target.dialect, webrtc=getattr(transport, "webrtc", False))
    dispatcher = Dispatcher(transport, connection, log=log, **how)
    session = Session(dispatcher)
    try:
        await _created(dispatcher, target, timeout_s)
        if budget is not None:
            dispatcher.set_budget(budget, target.model or dispatcher.config.model or None)
        await dispatcher.update(wanted, timeout_s=timeout_s)
        if offered:
            await session.tools.register(*offered)
    except BaseException:
        await session.close()
        raise
    if reconnect:
        dispatcher.reopen = connect
    return session


async def _connect(target: Target, intent: str | None, timeout_s: float) -> Transport:
    try:
        async with asyncio.timeout(timeout_s):
            return await (target.open() if intent is None else target.open(intent=intent))
    except TimeoutError as error:
        raise explain.connect_failure(error, facts=target.facts, timeout_s=timeout_s) from error


async def _created(dispatcher: Dispatcher, target: Target, timeout_s: float) -> None:
    """Wait for `session.created`; a service may refuse a key or a model only now, with `error`, then close."""
    refusal: RtnbError
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(dispatcher.opened)
        spoken = dispatcher.connection.peer_dialect
        if spoken in (None, target.dialect):
            return
        heard = f"the service speaks the {spoken} dialect, rtnb speaks {target.dialect}"
        where = f"could not open a session at {target.facts.url or target}"
        failure = ConnectError(f"{where}: {heard}", url=target.facts.url)
        raise failure.with_hint(f"Next: connect with dialect={spoken!r}.")
    except TimeoutError as error:
        raise explain.connect_failure(error, facts=target.facts, timeout_s=timeout_s) from error
    except ServiceError as error:
        refusal = error
        with suppress(TimeoutError, ConnectionClosed):  # a service that stays silent after its error is reported too
            async with asyncio.timeout(CLOSE_AFTER_ERROR_S):
                while True:
                    await dispatcher.next_event()
        reason = error.type, error.code, str(error.args[0])
    except ConnectionClosed as closed:
        refusal = closed
        reason = *explain.split_reason(closed.reason), closed.reason
    code = dispatcher.ended.code if dispatcher.ended is not None else None
    raise explain.connect_failure_from_event(*reason, facts=target.facts, close_code=code) from refusal
