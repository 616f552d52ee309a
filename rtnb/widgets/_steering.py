"""`Steering`: between knobs and a session. Collects what was turned, sends one `session.update`, compares the answer.

The service confirms a whole configuration, not an event: what became of a wish is known only by comparing, field by
field, what was asked for with what is in force afterwards.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from rtnb._loop import shared_loop
from rtnb.client import Session
from rtnb.errors import RtnbError, ServiceError
from rtnb.protocol import wire
from rtnb.protocol.values import Dialect, SessionConfig
from rtnb.widgets._session_view import _raise_in_loop

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

MISSING: Final = object()
"""The service did not say."""

DEBOUNCE_S: Final = 0.3
"""Quiet time after the last turn of a knob before it is sent (chosen: a slider sends some 30 values a second)."""

_POLL_S = 0.1
_BRANCHES = {"audio", "audio.input", "audio.output", "audio.input.turn_detection", "audio.input.transcription"}
"""Where settings are merged field by field; anything else is one setting."""

Settings = dict[str, Any]
"""Settings by their place in the GA session object, e.g. ``audio.output.voice``."""


def flat(config: SessionConfig) -> Settings:
    """Lay a configuration out by the place of each setting.

    >>> flat(SessionConfig.of(voice="marin"))
    {'type': 'realtime', 'audio.output.voice': 'marin'}
    """
    return laid_out(wire.encode_session(config))


def laid_out(session: Mapping[str, Any]) -> Settings:
    """The same for a session object as JSON."""
    found: Settings = {}

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        for name, value in table.items():
            place = f"{prefix}{name}"
            if place in _BRANCHES and isinstance(value, Mapping):
                walk(f"{place}.", value)
            else:
                found[place] = value

    walk("", session)
    return found


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object with these settings; the opposite of `flat`."""
    whole: dict[str, Any] = {}
    for place, value in settings.items():
        *branches, name = place.split(".")
        table = whole
        for branch in branches:
            table = table.setdefault(branch, {})
        table[name] = value
    return whole


def found(settings: Mapping[str, Any], place: str) -> Any:
    """The setting at a place; None where it is beneath something that is off, `MISSING` where nobody says."""
    if place in settings:
        return settings[place]
    if any(other.startswith(f"{place}.") for other in settings):
        return {name.removeprefix(f"{place}."): v for name, v in settings.items() if name.startswith(f"{place}.")}
    parent = place.rpartition(".")[0]
    return None if parent and settings.get(parent, MISSING) is None else MISSING


def same(requested: Any, effective: Any) -> bool:
    """Whether a wish came true; services say 0.8 as 0.800000011920929, and add what was left open."""
    if isinstance(requested, Mapping) and isinstance(effective, Mapping):
        return all(name in effective and same(value, effective[name]) for name, value in requested.items())
    if isinstance(requested, float | int) and isinstance(effective, float | int):
        return math.isclose(requested, effective, rel_tol=1e-6, abs_tol=1e-9)
    return bool(requested == effective)


class Verdict(NamedTuple):
    """What became of one wish."""

    field: str
    """Place in the GA session object."""
    requested: Any
    effective: Any
    """What is in force; None also where the service did not say."""
    verdict: str
    """``accepted``, ``changed`` (to something else), ``ignored`` (nothing changed), ``unconfirmed`` (the service does
    not say), ``refused``, ``waiting`` (for a session), ``sending``, or ``kept back`` (cannot be sent now)."""
    reason: str = ""


def judge(requested: Settings, before: Settings, after: Settings, refusal: Exception | None = None) -> list[Verdict]:
    """Compare, field by field, what was asked for with what is in force."""
    verdicts = []
    for field, wish in requested.items():
        effective = found(after, field)
        shown = None if effective is MISSING else effective
        if refusal is not None:
            verdicts.append(Verdict(field, wish, shown, "refused", _reason(refusal, field, requested)))
        elif effective is MISSING:
            verdicts.append(Verdict(field, wish, None, "unconfirmed", "the service does not show this setting"))
        elif same(wish, effective):
            verdicts.append(Verdict(field, wish, shown, "accepted"))
        elif same(found(before, field), effective):
            verdicts.append(Verdict(field, wish, shown, "ignored", "the service confirmed the update without it"))
        else:
            verdicts.append(Verdict(field, wish, shown, "changed", "the service chose another value"))
    return verdicts


def _reason(refusal: Exception, field: str, requested: Settings) -> str:
    """The service's words for the field it names; the others fell with it, because an update is all or nothing."""
    named = (getattr(refusal, "param", None) or "").rpartition(".")[2]
    blamed = [place for place in requested if named and place.rpartition(".")[2] == named]
    if blamed and field not in blamed:
        return f"lost together with {blamed[0]}: a refused update changes nothing"
    return str(refusal)


class Steerable(Protocol):
    """What `Steering` asks of a group of knobs; it calls from the background loop."""

    def take(self, dialect: Dialect) -> tuple[Settings, dict[str, tuple[Any, str]]]:
        """Hand over what was turned: what is to be sent, and what cannot be (field -> wish and reason)."""

    def show(self, settings: Settings, session: Session) -> None:
        """Show what the service confirmed."""

    def told(self, verdicts: Mapping[str, Verdict]) -> None:
        """Show what became of the wishes; all of them so far, by field."""


class Steering:
    """Joins groups of knobs to one session.

    Turning knobs only leaves a note; the background loop sends, once they rest, everything that was turned in one
    `session.update`. May be used from any thread; the session may live on any event loop.
    """

    def __init__(self) -> None:
        self.session: Session | None = None
        self.initial: SessionConfig | None = None
        """What the service had by itself, before anybody changed it."""
        self._groups: list[Steerable] = []
        self._verdicts: dict[str, Verdict] = {}
        self._due_s = math.inf
        self._seen: SessionConfig | None = None
        self._watching: Future[None] | None = None
        self._lock = asyncio.Lock()

    def add(self, group: Steerable) -> None:
        """Take in a group of knobs."""
        self._groups.append(group)

    def attach(self, session: Session) -> None:
        """Steer a session; what was turned before goes out at once."""
        self.detach()
        self.session, self._seen = session, None
        created = next((row.event for row in session.log.filter("session.created")), None)
        self.initial = created.session if created is not None else session.config  # type: ignore[attr-defined]
        self._due_s = 0.0
        self._watching = shared_loop().submit(self._watch(session))
        self._watching.add_done_callback(_raise_in_loop)

    def detach(self) -> None:
        """Leave the session as it is and look at it no more."""
        if self._watching is not None:
            self._watching.cancel()
        self.session = self._watching = None

    def touched(self, waiting: Iterable[Verdict]) -> None:
        """A knob was turned: `waiting` says what for the time until it is sent."""
        self._due_s = time.monotonic() + DEBOUNCE_S
        self._tell(waiting)

    async def apply(self) -> pd.DataFrame:
        """Send at once what was turned, and return what became of every wish: see `verdicts`."""
        session = self.session
        if session is not None:
            await asyncio.wrap_future(shared_loop().submit(self._send(session)))
        return self.verdicts

    @property
    def verdicts(self) -> pd.DataFrame:
        """What became of every wish.

        Returns
        -------
        pandas.DataFrame
            One row per field that was asked for: requested, effective, verdict, reason.
        """
        import pandas as pd

        frame = pd.DataFrame(list(self._verdicts.values()), columns=list(Verdict._fields), dtype=object)
        return frame.set_index("field")

    # --- on the background loop ---------------------------------------------------------------------------------------

    async def _watch(self, session: Session) -> None:
        while not session.closed:
            if session.config is not self._seen:
                self._show(session)
            if time.monotonic() >= self._due_s:
                await self._send(session)
            await asyncio.sleep(_POLL_S)
        if self.session is session:
            self.session = None

    def _show(self, session: Session) -> None:
        self._seen = session.config
        settings = flat(self._seen)
        for group in self._groups:
            group.show(settings, session)
        for verdict in [one for one in self._verdicts.values() if one.verdict == "accepted"]:
            effective = found(settings, verdict.field)
            if verdict.field not in settings:  # it went with its branch, as wished: another turn detection, none at all
                del self._verdicts[verdict.field]
            elif not same(verdict.requested, effective):
                later = verdict._replace(effective=effective, verdict="changed", reason="changed since")
                self._verdicts[verdict.field] = later
        self._tell(())

    def _tell(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            for other in list(self._verdicts):  # one of a whole branch and one of a twig in it cannot both be current
                if other.startswith(f"{verdict.field}.") or verdict.field.startswith(f"{other}."):
                    del self._verdicts[other]
            self._verdicts[verdict.field] = verdict
        for group in self._groups:
            group.told(self._verdicts)

    async def _send(self, session: Session) -> None:
        async with self._lock:
            self._due_s = math.inf
            requested: Settings = {}
            kept_back: list[Verdict] = []
            before = flat(session.config)
            for group in self._groups:
                possible, impossible = group.take(session.dialect)
                requested |= possible
                kept_back += [Verdict(field, wish, None, "kept back", why) for field, (wish, why) in impossible.items()]
            # What only goes along (the type of a turn detection, with its threshold) was nobody's wish.
            wishes = {
                field: wish
                for field, wish in requested.items()
                if field in self._verdicts or not same(wish, found(before, field))
            }
            self._tell(kept_back + [Verdict(field, wish, None, "sending") for field, wish in wishes.items()])
            if requested:
                refusal = await self._update(session, requested)
                self._show(session)
                self._tell(judge(wishes, before, flat(session.config), refusal))

    async def _update(self, session: Session, requested: Settings) -> Exception | None:
        config = wire.decode_session(nested(requested))
        try:
            await session.update(config)
        except (ServiceError, RtnbError) as error:
            return error
        return None
