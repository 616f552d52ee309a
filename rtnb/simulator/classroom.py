"""A classroom: one simulator for a room, a key per student, limits, and a page for the teacher.

The page has a secret address, ``/class/TOKEN/``. It counts for each student: sessions, minutes, answers, errors, and
the load (audio and events per second); a button ends the sessions of one student. Text and audio of a session never
reach it.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import WSCloseCode, web

from rtnb.protocol import SessionConfig, events
from rtnb.simulator.admission import OWNER, KeyRing, RefusedError, message_for
from rtnb.simulator.faults import Close
from rtnb.simulator.parts import World
from rtnb.simulator.service import Service

TEACHER: Final = "teacher"
"""Name of the seat for the simulator's own key."""
_LONGEST_PARAM: Final = 60  # characters of an error's `param` on the page; chosen
_PAGE: Final = {
    name: (Path(__file__).with_name(f"classroom.{name}"), kind)
    for name, kind in (("html", "text/html"), ("js", "text/javascript"), ("css", "text/css"))
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",  # the address is the secret
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, kw_only=True)
class Room:
    """Size of a class and the limits of each student."""

    students: int = 30
    """Number of keys for students."""
    sessions_each: int = 3
    """Sessions one student may have open at once. (chosen: a playground, a cell, and one that is just closing)"""
    sessions_total: int = 100
    """Sessions of all together. (measured: 100 conversations at once take half of one core)"""

    def __post_init__(self) -> None:
        for name, most in (("students", 999), ("sessions_each", 100), ("sessions_total", 10_000)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"{name} is {value!r}; allowed: a whole number from 1 to {most}")

    @property
    def names(self) -> tuple[str, ...]:
        """``student 01``, ``student 02``, …"""
        width = max(2, len(str(self.students)))
        return tuple(f"student {number:0{width}}" for number in range(1, self.students + 1))


@dataclass
class Seat:
    """Counters of one student."""

    name: str
    open: int = 0
    """Sessions open now."""
    sessions: int = 0
    """Sessions opened so far."""
    answers: int = 0
    """Responses that ended, whole or interrupted."""
    errors: int = 0
    """`error` events and failed responses."""
    last_error: str = ""
    """Code of the last one, and the field it is about."""
    refused: int = 0
    """Sessions that were not opened because of a limit."""
    _since: float = field(default=0.0, repr=False)
    _spent_s: float = field(default=0.0, repr=False)

    def enter(self, now: float) -> None:
        """Count an opened session."""
        if not self.open:
            self._since = now
        self.open += 1
        self.sessions += 1

    def leave(self, now: float) -> None:
        """Count a closed session."""
        self.open -= 1
        if not self.open:
            self._spent_s += now - self._since

    def follow(self, event: events.Event) -> None:
        """Count an event sent to this student."""
        if isinstance(event, events.Error):
            self._failed(event.error.code or event.error.type, event.error.param)
        elif isinstance(event, events.ResponseDone):
            self.answers += event.response.status != "failed"
            if event.response.status == "failed":
                failure = getattr(event.response.status_details, "error", None)
                self._failed(getattr(failure, "code", None), None)

    def _failed(self, code: Any, param: Any) -> None:
        self.errors += 1
        about = f" ({str(param)[:_LONGEST_PARAM]})" if param else ""
        self.last_error = f"{code or 'failed'}{about}"

    def row(self, now: float) -> dict[str, Any]:
        """Return the row of the page."""
        spent_s = self._spent_s + (now - self._since if self.open else 0.0)
        shown = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return shown | {"minutes": round(spent_s / 60, 1)}


class Classroom(Service):
    """The service of a class.

    Parameters
    ----------
    world : World
        What the sessions share: also the scenario.
    keys : KeyRing
        Its own key is the teacher's; this class adds a key for each student.
    room : Room
        Size and limits.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, world: World, keys: KeyRing, *, room: Room, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(world, keys)
        self.room = room
        self.handed_out = keys.hand_out(room.names)
        self.token = hmac.digest(keys.key.encode(), b"the teacher's page", "sha256").hex()[:32]
        self.seats = {name: Seat(name) for name in (*room.names, TEACHER)}
        self.wrong_keys = 0
        """Requests with an unknown key."""
        self._clock = clock
        self._started = clock()

    def app(self) -> web.Application:
        """Return the service's application with the teacher's page."""
        app = super().app()
        app.router.add_get("/class/{token}/{file:|state|page\\.js|page\\.css}", self._page)
        app.router.add_post("/class/{token}/end", self._end)
        return app

    # --- who is here --------------------------------------------------------------------------------------------------

    def watcher(self, owner: str) -> Callable[[events.Event], None]:
        """Count the events sent to this student."""
        return self.seats[owner or TEACHER].follow

    def admit(self, request: web.Request, *, azure: bool) -> SessionConfig | None:
        """Count wrong keys."""
        try:
            return super().admit(request, azure=azure)
        except RefusedError:
            self.wrong_keys += 1
            raise

    def enter(self, request: web.Request) -> Callable[[], None]:
        """Give a seat, as long as there are any."""
        seat = self.seats[request[OWNER] or TEACHER]
        full = self._full(seat)
        if full:
            seat.refused += 1
            raise RefusedError(429, "rate_limit_exceeded", full)
        seat.enter(self._clock())
        return lambda: seat.leave(self._clock())

    def _full(self, seat: Seat) -> str:
        if seat.open >= self.room.sessions_each:
            return (
                f"{seat.name} has {seat.open} sessions open, the most one may have in this class: "
                "close one, or restart the kernel that holds it."
            )
        if sum(one.open for one in self.seats.values()) >= self.room.sessions_total:
            return f"The class has {self.room.sessions_total} sessions open, the most it may have: wait for one to end."
        return ""

    # --- the teacher's page -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the content of the page: counts and names, no content of the conversations."""
        now = self._clock()
        rows = [seat.row(now) for seat in self.seats.values() if seat.name != TEACHER or seat.sessions]
        for row in rows:
            theirs = [session for session, owner in self.sessions.items() if (owner or TEACHER) == row["name"]]
            row["audio_s"] = round(sum(session.heard_ms for session in theirs) / 1000, 2)
            row["events"] = sum(session.n_events for session in theirs)
        return {
            "students": rows,
            "sessions_each": self.room.sessions_each,
            "sessions_total": self.room.sessions_total,
            "wrong_keys": self.wrong_keys,
            "minutes": round((now - self._started) / 60, 1),
        }

    def allows(self, request: web.Request) -> bool:
        """Return whether the requesting page is allowed: also the teacher's own."""
        own = request.path.startswith("/class/") and request.headers["Origin"] == f"{request.scheme}://{request.host}"
        return own or super().allows(request)

    def _check_token(self, request: web.Request) -> None:
        if not hmac.compare_digest(request.match_info["token"].encode(), self.token.encode()):
            raise RefusedError(404, "404", message_for(404))

    async def _end(self, request: web.Request) -> web.Response:
        """End the sessions of a student; only the page itself can ask, not a form of another site."""
        self._check_token(request)
        name = (await request.text())[:100]
        if "Origin" not in request.headers or name not in self.seats:
            raise RefusedError(403, "origin_not_allowed", "Only the teacher's page can end the sessions of a student.")
        owner = "" if name == TEACHER else name
        theirs = [task for session, name in self.sessions.items() if name == owner for task in self.tasks(session)]
        await self.end(theirs, Close(WSCloseCode.OK, "The teacher ended this session."))
        return web.Response(status=204, headers=_HEADERS)

    async def _page(self, request: web.Request) -> web.Response:
        self._check_token(request)
        name = request.match_info["file"]
        if name == "state":
            return web.json_response(self.state(), headers=_HEADERS)
        path, kind = _PAGE[name.removeprefix("page.") or "html"]
        return web.Response(text=path.read_text(encoding="utf-8"), content_type=kind, headers=_HEADERS)
