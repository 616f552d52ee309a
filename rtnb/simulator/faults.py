"""Latency and faults on demand: how slow a service is, its failures as data, and a seeded plan that applies them.

The simulator's voice is ready in a millisecond; a service's is not. Without a latency profile a workshop would learn
from a machine that does not exist.

A fault is written ``KIND=VALUE@AT:AFTERxTIMES``, all but the kind optional; or as a JSON object with the fields of
`Fault`. Some examples:

- ``"http=401"``, ``"latency=200"``, ``"latency=200@response.done"``
- ``"drop@session.updated"`` loses the first one, ``"drop@session.updated:1"`` the second; ``"drop@2:0x3"`` loses the
  first three events of the second turn
- ``"duplicate@response.done"`` sends it twice
- ``"close=1011@response.output_audio.delta:3"`` closes instead of the fourth audio delta
- ``"error=invalid_value@session.updated"`` with ``"drop@session.updated"``: only an error without `event_id` answers
- ``"error=server_error@session.created"`` with ``"drop@*:0x1000000"``: an error at connect, and silence from then on
- ``"failed=rate_limit_exceeded@2"`` fails the response of the second turn; ``"incomplete=content_filter"`` cuts the
  first one short
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rtnb.errors import ScenarioError
from rtnb.protocol import ErrorDetail
from rtnb.protocol.events import SERVER_EVENTS


def number_of(value: object) -> float:
    """Return a number, or a text of one, as int where it is whole; NaN for anything else."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    return int(number) if number.is_integer() else number


def unknown_name(given: Iterable[object], known: Sequence[str]) -> str | None:
    """Return what is wrong with the first name that is not known, for a message; None where all are.

    >>> unknown_name({"sya": "Hello!"}, ("say", "hear"))
    "'sya' is not known, did you mean 'say'?; allowed: say, hear"
    """
    wrong = next((name for name in given if name not in known), None)
    if wrong is None:
        return None
    return f"{wrong!r} is not known{did_you_mean(str(wrong), known)}; allowed: {', '.join(known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a spelling hint to append to a message: ``", did you mean 'say'?"``, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class LatencyProfile:
    """Latencies of a service, as a client sees them: a network round trip of about 300 ms is included.

    >>> LatencyProfile.parse("realistic,first_delta_ms=800").first_delta_ms
    800.0

    References
    ----------
    Frame captures of real sessions (2025-12 and 2026-09): response.created 280 ms after response.create, first delta
    476 ms, text done 518 ms, rate_limits.updated 43 ms after response.done, transcription 1.2 to 1.4 s after the
    commit. The others are chosen; `audio_rate` because deltas arrive faster than real time.
    """

    answer_ms: float = 280.0
    """From a client event to its direct answer (session.updated, conversation.item.added), ms: one round trip."""
    response_created_ms: float = 280.0
    """From response.create (or the end of a spoken turn) to response.created, ms."""
    first_delta_ms: float = 476.0
    """From response.create to the first delta, ms."""
    jitter_ms: float = 30.0
    """Each delta comes up to this much later than planned, ms; order is kept. (chosen)"""
    audio_rate: float = 3.0
    """Seconds of audio sent per second: 1 is real time, inf all at once. (chosen)"""
    text_token_ms: float = 10.0
    """From one text or transcript token to the next in a reply of text, ms. (chosen: a short reply takes 42 ms)"""
    transcription_ms: float = 1300.0
    """From the commit to the transcription of what the user said, ms."""
    rate_limits_ms: float = 43.0
    """From response.done to rate_limits.updated, ms."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number, rate = number_of(value), name == "audio_rate"
            if not (number > 0 if rate else 0 <= number < math.inf):
                allowed = "above 0 (1 is real time, inf at once)" if rate else "0 ms or more"
                raise ValueError(f"latency {name} is {value!r}; allowed: a number, {allowed}")
            object.__setattr__(self, name, float(number))

    @classmethod
    def parse(cls, source: str | Mapping[str, object] | LatencyProfile) -> LatencyProfile:
        """Read ``"realistic"``, ``"fast"``, ``"real_time"`` or ``"first_delta_ms=300,jitter_ms=20"``.

        Changes may follow a name, ``"fast,audio_rate=1"``; without a name they change "realistic", as a mapping does.

        Raises
        ------
        ValueError
            Naming the value and what is allowed.
        """
        if isinstance(source, LatencyProfile):
            return source
        profile = PRESETS["realistic"]
        if isinstance(source, Mapping):
            return profile.replace(source)
        for i, part in enumerate(part.strip() for part in source.split(",")):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                if i or name not in PRESETS:
                    allowed = f"{', '.join(PRESETS)}, or FIELD=NUMBER with commas between"
                    raise ValueError(f"latency {part!r} is not known{did_you_mean(name, PRESETS)}; allowed: {allowed}")
                profile = PRESETS[name]
                continue
            profile = profile.replace({name: value})
        return profile

    def replace(self, changes: Mapping[str, object]) -> LatencyProfile:
        """Return a profile with some fields changed; numbers may be text. Raises ValueError as `parse` does."""
        known = [field.name for field in dataclasses.fields(self)]
        if wrong := unknown_name(changes, known):
            raise ValueError(f"latency field {wrong}")
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


PRESETS = {
    "realistic": LatencyProfile(),
    "real_time": LatencyProfile(audio_rate=1.0),
    "fast": LatencyProfile(0, 0, 0, 0, math.inf, 0, 0, 0),
}
"""``realistic``: as measured; ``real_time``: the same, audio as fast as it plays; ``fast``: no waiting at all."""


EVERY = 1_000_000_000
"""As `times`: every time."""


@dataclass(frozen=True)
class Kind:
    """Description of a kind of fault and of its value."""

    does: str
    value: str
    """What the value is and what is allowed; "" for a kind without one."""
    default: float | str | None = None
    """None: must be given."""
    low: float = 0
    high: float = 0
    at: str | None = None
    """Default of the place where it applies; None: must be given."""
    times: int = 1
    words: tuple[str, ...] = ()
    """Allowed texts; empty allows any."""


KINDS = {
    "http": Kind("refuses the connection", "HTTP status, 400 to 599", None, 400, 599, at="connect", times=EVERY),
    "expired_key": Kind("answers invalid_api_key and closes with 3000", "", at="session.created", times=EVERY),
    "expire": Kind("session_expired, then close 1001", "minutes named in the message, 1 to 10000", 60, 1, 10_000),
    "latency": Kind("sends later", "ms, 0 to 1e7", None, 0, 1e7, at="*", times=EVERY),
    "jitter": Kind("sends later by chance, order kept", "ms at most, 0 to 1e7", None, 0, 1e7, at="*", times=EVERY),
    "drop": Kind("does not send it", "probability, above 0 to 1", 1.0, 1e-9, 1),
    "duplicate": Kind("sends it twice", ""),
    "close": Kind("closes instead; 1006: without a close frame", "close code, 1000 to 4999", 1006, 1000, 4999),
    "malformed": Kind("sends half of a JSON text instead", ""),
    "unknown_event": Kind("sends an event of an unknown type before it", "its type", "rtnb.unknown"),
    "error": Kind("sends an error event before it", "error code", "server_error"),
    "failed": Kind("fails a response, after `response.created`", "error code", "server_error", at="response.created"),
    "incomplete": Kind(
        "cuts a response short, after three deltas",
        "content_filter or max_output_tokens",
        "content_filter",
        at="response.created",
        words=("content_filter", "max_output_tokens"),
    ),
}
"""The catalogue. The last two apply to a response: the first one, or that of a turn.

Status, codes and texts are those observed at the services; so is the limit of 60 minutes."""

OF_RESPONSE = ("failed", "incomplete")
"""Kinds that the generation of a response asks for; all others but "http" apply to outgoing events."""

_OF_EVENTS = tuple(name for name in KINDS if name not in ("http", *OF_RESPONSE))

_MESSAGES = {
    "server_error": "The server had an error while processing your request. Sorry about that!",
    "invalid_api_key": "Incorrect API key provided.",
    "rate_limit_exceeded": "Rate limit reached for requests.",
}
_COMPACT = re.compile(
    r"(?P<kind>\w+)(?:=(?P<value>[^@:]*))?(?:@(?P<at>[^:]+))?(?::(?P<after>\d+)(?:x(?P<times>\d+))?)?"
)


@dataclass(frozen=True)
class Fault:
    """Fault on demand.

    Raises
    ------
    ScenarioError
        Naming the field, its value and what is allowed.
    """

    kind: str
    """One of `KINDS`."""
    at: str | int | None = None
    """Where: a server event type in its GA spelling, ``*`` for any part of it; or the number of a turn, from 1."""
    after: int = 0
    """How many matching events pass unharmed first."""
    times: int | None = None
    """How often it applies then. Default by kind: once, or every time (also for a drop by chance)."""
    value: float | str | None = None
    """Value described in `KINDS`; default by kind."""

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise _wrong("fault kind", self.kind, ", ".join(KINDS), did_you_mean(str(self.kind), KINDS))
        kind = KINDS[self.kind]
        value = self._checked_value(kind)
        at = self._checked_at(kind)
        default = EVERY if self.kind == "drop" and value != 1 else kind.times
        times = default if self.times is None else self.times
        for name, number, lowest in (("after", self.after, 0), ("times", times, 1)):
            if isinstance(number, bool) or not isinstance(number, int) or number < lowest:
                raise _wrong(f"fault {self.kind!r}: {name}", number, f"a whole number from {lowest}")
        for name, checked in (("at", at), ("times", times), ("value", value)):
            object.__setattr__(self, name, checked)

    def _checked_at(self, kind: Kind) -> str | int:
        at = kind.at if self.at is None else self.at
        if isinstance(at, str) and at.isdecimal():
            at = int(at)
        if isinstance(at, int) and not isinstance(at, bool) and at >= 1 and self.kind != "http":
            return at
        places = [str(kind.at)] if self.kind in ("http", *OF_RESPONSE) else list(SERVER_EVENTS)
        if at in places or (isinstance(at, str) and len(places) > 1 and any(fnmatchcase(one, at) for one in places)):
            return at
        allowed = f'"{places[0]}"' if len(places) == 1 else "a server event type (* for any part of it)"
        allowed += "" if self.kind == "http" else " or the number of a turn, from 1"
        hint = did_you_mean(at, places) if isinstance(at, str) else ""
        raise _wrong(f"fault {self.kind!r}: at", at, allowed, hint)

    def _checked_value(self, kind: Kind) -> float | str | None:
        given = kind.default if self.value is None else self.value
        value = number_of(given) if kind.high else given
        if isinstance(value, int | float):
            fits = kind.low <= value <= kind.high and (isinstance(value, int) or self.kind not in ("http", "close"))
        elif isinstance(value, str):
            fits = bool(kind.value) and value in (kind.words or (value,)) and value != ""
        else:
            fits = not kind.value
        if not fits:
            raise _wrong(f"fault {self.kind!r}: value", given, kind.value or "no value")
        return value

    @classmethod
    def parse(cls, source: object) -> Fault:
        """Read the short form or a JSON object. Raises ScenarioError, with a spelling hint for an unknown field."""
        if isinstance(source, str):
            match = _COMPACT.fullmatch(source.strip())
            if match is None:
                raise _wrong("fault", source, "KIND=VALUE@AT:AFTERxTIMES").with_hint(
                    'For example "http=401", "latency=200" or "close@response.output_audio.delta:3".'
                )
            given: dict[str, Any] = {name: text for name, text in match.groupdict().items() if text is not None}
            given |= {name: int(given[name]) for name in ("after", "times") if name in given}
            return cls(**given)
        if not isinstance(source, Mapping):
            raise _wrong("fault", source, "a text or an object")
        if wrong := unknown_name(source, [field.name for field in dataclasses.fields(cls)]):
            raise ScenarioError(f"fault field {wrong}")
        if "kind" not in source:
            raise ScenarioError(f"fault has no kind; allowed: {', '.join(KINDS)}")
        return cls(**source)


@dataclass(frozen=True)
class Close:
    """Close the connection: with 1006, without a closing handshake."""

    code: int
    reason: str = ""


@dataclass(frozen=True)
class Send:
    """Send a text, `delay_ms` later than due; never before an earlier text."""

    text: str
    delay_ms: float = 0.0


@dataclass
class _Counted:
    """Fault of a plan, with its occasions so far."""

    fault: Fault
    count: int = 0


class FaultPlan:
    """Plan of what happens to each outgoing event: no clock, no socket.

    One plan per service answers `on_connect`; one per session takes its events, with its own seed.

    Parameters
    ----------
    faults : iterable of Fault
        Several may strike one event: delays add up; of drop, duplicate, close and malformed the first wins.
    seed : int, default 0
        Same seed, same chances.
    """

    def __init__(self, faults: Iterable[Fault], *, seed: int = 0) -> None:
        self.turn = 1
        """Number of the current turn: one ends with response.done."""
        self._counted = [_Counted(fault) for fault in faults]
        self._of_step: list[_Counted] = []
        self._rng = random.Random(seed)

    def enter_step(self, faults: Iterable[Fault]) -> None:
        """Put the faults of a scenario's step in force, in place of the last step's; all else goes on as it was."""
        self._of_step = [_Counted(fault) for fault in faults]

    def on_connect(self) -> int | None:
        """HTTP status to refuse this connection with, or None to accept it."""
        found = self._matching("connect", "http")
        return int(found[0].value or 0) if found else None

    def on_response(self) -> Fault | None:
        """Fault of kind "failed" or "incomplete" for the response that begins, or None."""
        return next(iter(self._matching("response.created", *OF_RESPONSE)), None)

    def outgoing(self, event_type: str, text: str) -> tuple[Send | Close, ...]:
        """Return what to send, in order, when an event is due; it is counted.

        Parameters
        ----------
        event_type : str
            GA spelling, also when `text` is in the preview dialect.
        text : str
            The event as it would be sent.
        """
        delay_ms, before = 0.0, list[str]()
        instead: tuple[str | Close, ...] | None = None
        for fault in self._matching(event_type, *_OF_EVENTS):
            value: Any = fault.value
            if fault.kind in ("latency", "jitter"):
                delay_ms += value if fault.kind == "latency" else self._rng.uniform(0, value)
            elif fault.kind == "unknown_event":
                before.append(self._event(value, note="a fault on demand"))
            elif fault.kind == "error":
                before.append(self._error(value))
            elif instead is None:
                instead = self._instead(fault.kind, value, event_type, text)
        if event_type == "response.done":
            self.turn += 1
        sent = (*before, *((text,) if instead is None else instead))
        return tuple(one if isinstance(one, Close) else Send(one, delay_ms) for one in sent)

    def _instead(self, kind: str, value: Any, event_type: str, text: str) -> tuple[str | Close, ...] | None:
        """Return what replaces an event; None where chance lets it pass."""
        if kind == "drop":
            return () if self._rng.random() < value else None
        if kind == "duplicate":
            return text, text
        if kind == "malformed":
            return (self._event(event_type, delta="UklG").removesuffix('"}'),)
        if kind == "close":
            return (Close(value),)
        if kind == "expired_key":
            return self._error("invalid_api_key"), Close(3000, "invalid_request_error.invalid_api_key")
        message = f"Your session hit the maximum duration of {value} minutes."
        return self._error("session_expired", message), Close(1001, message)

    def _matching(self, event_type: str, *kinds: str) -> list[Fault]:
        """Count an occasion for the faults of some kinds; return those that apply."""
        found = []
        for counted in (*self._counted, *self._of_step):
            at = counted.fault.at
            here = at == self.turn if isinstance(at, int) else fnmatchcase(event_type, str(at))
            if here and counted.fault.kind in kinds:
                counted.count += 1
                if 0 < counted.count - counted.fault.after <= (counted.fault.times or 0):
                    found.append(counted.fault)
        return found

    def _error(self, code: str, message: str | None = None) -> str:
        return self._event("error", error=vars(failure(code, message)) | {"param": None, "event_id": None})

    def _event(self, event_type: str, **fields: Any) -> str:
        return json.dumps({"type": event_type, "event_id": f"event_fault{self._rng.getrandbits(48):012x}", **fields})


def failure(code: str, message: str | None = None) -> ErrorDetail:
    """Return an error as the service words it, by its code."""
    own = code == "server_error"
    return ErrorDetail(
        type="server_error" if own else "invalid_request_error",
        code=None if own else code,
        message=message or _MESSAGES.get(code, "A fault on demand."),
    )


def _wrong(what: str, came: object, allowed: str, hint: str = "") -> ScenarioError:
    return ScenarioError(f"{what} is {came!r}{hint}; allowed: {allowed}")
