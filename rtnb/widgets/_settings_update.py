"""`SettingsUpdater`: collects changes of settings, sends one `session.update`, and compares the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from rtnb._loop import Lock, shared_loop
from rtnb.client import LogRow, Session
from rtnb.protocol import Dialect, SessionConfig, wire
from rtnb.tuning.updates import Settings, SettingStatus, compare, flat, lookup, nested, same

if TYPE_CHECKING:
    import pandas as pd

DEBOUNCE_S: Final = 0.3
"""Quiet time after the last change before it is sent (chosen: a slider sends some 30 values a second)."""
APPLIED_S: Final = 2.0
"""How long a knob shows that its change was applied (chosen)."""

NOT_SENT: Final = "not sent yet"
SENDING: Final = "sending"
"""Reasons of a pending setting."""


class SettingsUpdater:
    """Connection of groups of knobs to one session.

    A change starts a timer; when it ends, the background loop sends all changes in one `session.update`. Use it from
    any thread; the session may live on any event loop.
    """

    def __init__(self) -> None:
        self.initial: Settings = {}
        """The service's own settings, before any update, by path."""
        self.effective: Settings = {}
        """The settings in force, also after the end of the session."""
        self.dialect: Dialect = "ga"
        self.statuses: dict[str, SettingStatus] = {}
        """Status of each requested setting, by path."""
        self.fresh: set[str] = set()
        """Settings applied less than `APPLIED_S` ago."""
        self.chosen: set[str] = set()
        """Paths of all settings that the user chose, also where the value is the service's own."""
        self.on_reconnect: Callable[[], object] | None = None
        """Opens a new session with the panel's `chosen` settings: a button beside a refused voice. None: no button."""
        self.lock = Lock()  # guards statuses and rows of knobs, which a cell and the background loop both write
        self.groups: list[Any] = []
        """The `Control` objects."""
        self.on_change: Callable[[], object] = lambda: None
        """Called after each change of the settings in force or their statuses."""
        self._session: Session | None = None
        self._seen: SessionConfig | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def session(self) -> Session | None:
        """The open session; None before one is attached and after its end."""
        return None if self._session is None or self._session.closed else self._session

    def attach(self, session: Session) -> None:
        """Follow a session; earlier changes that no session got are sent at once."""
        self.detach()
        created = next((row.event for row in session.log.filter("session.created")), None)
        self.initial = flat(getattr(created, "session", session.config))
        with self.lock:
            self.statuses = {path: one for path, one in self.statuses.items() if one.reason == NOT_SENT}
        self._session, self._seen = session, None
        self._unsubscribe = session.log.subscribe(partial(self._on_row, session))
        shared_loop().call_soon(self._on_settings, session)
        shared_loop().call_soon(self._on_quiet)

    def detach(self) -> None:
        """Stop following the session: no subscription, timer or task is left."""
        self._unsubscribe()
        if self._session is not None:
            self._session = None
            shared_loop().call_if_running(self._stop)

    def touch(self, status: SettingStatus) -> None:
        """Note a change that is to be sent, and start the timer anew."""
        self._set([status])
        if self.session is not None:
            shared_loop().call_soon(self._start_timer, DEBOUNCE_S, self._on_quiet)

    async def apply(self) -> pd.DataFrame:
        """Send all changes at once, wait for the outcome, and return it.

        Returns
        -------
        pandas.DataFrame
            One row per requested setting: requested, effective, status, reason.
        """
        import pandas as pd

        await asyncio.wrap_future(shared_loop().submit(self._apply()))
        frame = pd.DataFrame(list(self.statuses.values()), columns=list(SettingStatus._fields), dtype=object)
        return frame.set_index("setting")

    # --- on the background loop ---------------------------------------------------------------------------------------

    def _on_row(self, session: Session, row: LogRow) -> None:
        """Take a row of the log, on the session's thread."""
        if row.type in ("session.created", "session.updated"):
            shared_loop().call_soon(self._on_settings, session)

    def _stop(self) -> None:
        handles: list[Any] = [*self._timers.values(), *self._tasks]
        for handle in handles:
            handle.cancel()
        self._timers.clear()

    def _start_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        if callback in self._timers:
            self._timers[callback].cancel()
        if self._session is not None:  # a closed control starts none
            self._timers[callback] = asyncio.get_running_loop().call_later(delay_s, callback)

    def _on_quiet(self) -> None:
        if (session := self.session) is not None:
            task = asyncio.get_running_loop().create_task(self._send(session), name="rtnb-settings-update")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _on_faded(self) -> None:
        self.fresh.clear()
        self._set([])

    def _on_settings(self, session: Session) -> None:
        """Show the settings in force, and drop statuses they contradict: applied ones that are over, late replies."""
        if session is not self._session or session.config is self._seen:
            return
        self._seen = session.config
        self.effective, self.dialect = flat(self._seen), session.dialect
        applied = []
        with self.lock:
            for path, one in list(self.statuses.items()):
                in_force = same(one.requested, lookup(self.effective, path))
                if in_force and one.reason == SENDING:
                    applied.append(one._replace(effective=one.requested, status="applied", reason=""))
                elif one.status != "pending" and (one.status == "applied") != in_force:
                    del self.statuses[path]
        self._set(applied)

    def _set(self, statuses: Iterable[SettingStatus]) -> None:
        with self.lock:
            for one in statuses:
                for other in list(self.statuses):  # an object and a field of it cannot both be current
                    if other.startswith(f"{one.setting}.") or one.setting.startswith(f"{other}."):
                        del self.statuses[other]
                self.statuses[one.setting] = one
                self.fresh.discard(one.setting)
                if one.status == "applied":
                    self.fresh.add(one.setting)
                    self._start_timer(APPLIED_S, self._on_faded)
            for group in self.groups:
                group.refresh()
            self.on_change()

    async def _apply(self) -> None:
        self._on_quiet()
        while self._tasks:  # this update, and those that a timer has sent
            await asyncio.wait(tuple(self._tasks))

    async def _send(self, session: Session) -> None:
        """Send what changed. An update that waits for its reply delays no later one."""
        requested: Settings = {}
        not_sent: list[SettingStatus] = []
        before = flat(session.config)
        for group in self.groups:
            possible, impossible = group.collect()
            requested |= possible
            not_sent += impossible
        # The type of a turn detection goes along with its threshold; only what changes, or was asked for, has a status.
        pending = {
            path: SettingStatus(path, value, None, "pending", SENDING)
            for path, value in requested.items()
            if path in self.statuses or not same(value, lookup(before, path))
        }
        self._set([*not_sent, *pending.values()])
        if not requested:
            return
        error = None
        try:
            await session.update(wire.decode_session(nested(requested)))
        except Exception as raised:  # of the service, the connection, or a loop that has stopped: each has a status
            error = raised
        self._on_settings(session)
        outcome = compare({path: one.requested for path, one in pending.items()}, before, flat(session.config), error)
        # A knob that moved again meanwhile has a newer request: its status stays.
        self._set([one for one in outcome if self.statuses.get(one.setting) is pending[one.setting]])
