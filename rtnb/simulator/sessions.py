"""The open sessions of a simulator: who may begin one, what carries it, and what ends it.

The WebSocket paths (:mod:`rtnb.simulator.service`) and the calls (:mod:`rtnb.simulator.calls`) both stand on it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from aiohttp import web

from rtnb.protocol import SessionConfig, events
from rtnb.simulator.admission import OWNER, Endpoint, RefusedError, admit, message_for, requested_model
from rtnb.simulator.delivery import Carrier, InputScheduler, Listener, serve_session
from rtnb.simulator.faults import Close, FaultPlan
from rtnb.simulator.keys import KeyRing
from rtnb.simulator.recorded import RecordedSession
from rtnb.simulator.session import ServiceSession, World

GOODBYE_S: Final = 1.0
"""How long a client may take to answer our close frame. Chosen: a stop must not wait for a client that hangs."""
DEFAULT_MODEL: Final = "rtnb-simulator"
"""Model of the clients that name none."""


class Sessions:
    """The open sessions of one simulator.

    Parameters
    ----------
    world : World
        What the sessions share.
    keys : KeyRing
        Who may come in.
    worker : (int, int), default (0, 1)
        Number of this process among those that share the port, and how many there are.
    """

    def __init__(self, world: World, keys: KeyRing, *, worker: tuple[int, int] = (0, 1)) -> None:
        self.world = world
        self.keys = keys
        self.sessions: dict[ServiceSession, str] = {}
        """Those that are open, with their owners."""
        self._stops: dict[asyncio.Task[Any], tuple[asyncio.Future[Close], ServiceSession]] = {}
        """Tasks that serve sessions, what makes them end, and their session."""
        self._faults = FaultPlan(world.faults, seed=world.seed)
        self._scheduler = InputScheduler()
        self.worker = worker
        self._count = worker[0] + 1 - worker[1]

    def next_number(self) -> int:
        """Return the number of a new session, counted from 1; no two workers use the same."""
        self._count += self.worker[1]
        return self._count

    # --- admission ----------------------------------------------------------------------------------------------------

    def refuse_on_fault(self) -> None:
        """Refuse this connection where a fault on demand requires it."""
        status = self._faults.on_connect()
        if status is not None:
            raise RefusedError(status, str(status), message_for(status))

    def admit(self, request: web.Request, *, azure: bool) -> SessionConfig | None:
        """Check the key of a request: see `admission.admit`; a classroom counts the wrong ones."""
        return admit(request, self.keys, azure=azure)

    def enter(self, request: web.Request) -> Callable[[], None]:
        """Let an admitted request open a session, where there is room; call the returned function at its end."""
        return lambda: None

    def watcher(self, owner: str) -> Callable[[events.Event], None] | None:
        """Return a callback for every event sent to a session of this owner; a classroom counts them."""
        return None

    # --- from beginning to end ---------------------------------------------------------------------------------------

    def begin(
        self, request: web.Request, endpoint: Endpoint, preset: SessionConfig | None, *, webrtc: bool = False
    ) -> ServiceSession:
        """Return a new session; `forget` ends it."""
        if (recording := self.world.replay) is not None and not webrtc:
            plan = FaultPlan(self.world.faults, seed=self.world.seed)
            played: Any = RecordedSession(recording, dialect=endpoint.dialect, plan=plan)
            self.sessions[played] = request[OWNER]
            return played  # type: ignore[no-any-return]
        session = ServiceSession(
            self.world,
            number=self.next_number(),
            dialect=endpoint.dialect,
            model=requested_model(request, endpoint, preset) or DEFAULT_MODEL,
            preset=preset,
            transcription="transcription" in (request.query.get("intent"), preset and preset.type),
            started_at=int(time.time()),
            watch=self.watcher(request[OWNER]),
            webrtc=webrtc,
            azure=endpoint.azure,
        )
        self.sessions[session] = request[OWNER]
        return session

    async def serve_session(self, carrier: Carrier, session: ServiceSession, listener: Listener | None = None) -> None:
        """Serve a session in the calling task, until one side ends or `end` does."""
        task: Any = asyncio.current_task()
        stop: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        self._stops[task] = stop, session
        try:
            await serve_session(carrier, session, scheduler=self._scheduler, stop=stop, listener=listener)
        finally:
            del self._stops[task]

    async def forget(self, session: ServiceSession) -> None:
        """Remove and close a session."""
        del self.sessions[session]
        await session.aclose()

    async def end(self, tasks: Collection[asyncio.Task[Any]], close: Close) -> None:
        """Make tasks in `serve_session` hang up, and wait for them."""
        for task in tasks:
            if task in self._stops and not self._stops[task][0].done():
                self._stops[task][0].set_result(close)
        if tasks:
            await asyncio.wait(tasks, timeout=2 * GOODBYE_S)

    async def end_owner(self, owner: str, close: Close) -> None:
        """Make the sessions of one owner hang up, and wait for them."""
        theirs = [task for task, (_, session) in self._stops.items() if self.sessions.get(session) == owner]
        await self.end(theirs, close)

    async def end_all(self, close: Close) -> None:
        """Make every session hang up, and wait for them."""
        await self.end(tuple(self._stops), close)
