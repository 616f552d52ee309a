"""Outcome of an update of a session's settings: which were applied, changed, ignored or refused.

The service confirms a whole configuration and names no request. The status of each requested setting is therefore found
by comparing it, field by field, with the settings in force afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rtnb.errors import ConnectionClosed, RequestTimeout, ServiceError
from rtnb.protocol import SessionConfig, wire
from rtnb.redaction import redact
from rtnb.trace.rules import flat_json

MISSING: Final = object()
"""Value of a setting that the service does not show."""

Settings = dict[str, Any]
"""Settings by their path in the GA session object, e.g. ``audio.output.voice``."""


def flat(config: SessionConfig) -> Settings:
    """Return a configuration as settings by path.

    >>> flat(SessionConfig.of(voice="marin"))
    {'type': 'realtime', 'audio.output.voice': 'marin'}
    """
    return flat_json(wire.encode_session(config))


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by path as a session object of the wire; the opposite of `flat_json`."""
    whole: dict[str, Any] = {}
    for path, value in settings.items():
        *branches, name = path.split(".")
        table = whole
        for branch in branches:
            table = table.setdefault(branch, {})
        table[name] = value
    return whole


def lookup(settings: Mapping[str, Any], path: str) -> Any:
    """Return the setting at a path: None below an object that is off, `MISSING` where the settings do not have it."""
    if path in settings:
        return settings[path]
    below = {name.removeprefix(f"{path}."): v for name, v in settings.items() if name.startswith(f"{path}.")}
    if below:
        return below
    parent = path.rpartition(".")[0]
    return None if parent and settings.get(parent, MISSING) is None else MISSING


def same(requested: Any, effective: Any) -> bool:
    """Return whether a request is in force; services show 0.8 as 0.800000011920929 and add fields that were absent."""
    if isinstance(requested, Mapping) and isinstance(effective, Mapping):
        return all(name in effective and same(value, effective[name]) for name, value in requested.items())
    if isinstance(requested, float | int) and isinstance(effective, float | int):
        return math.isclose(requested, effective, rel_tol=1e-6, abs_tol=1e-9)
    return bool(requested == effective)


class SettingStatus(NamedTuple):
    """Outcome of one requested setting."""

    setting: str
    """Path in the GA session object."""
    requested: Any
    effective: Any
    """Value in force; None also where the service does not show it."""
    status: str
    """``applied``, ``changed`` (to another value), ``ignored`` (the old value stays), ``refused``, ``pending``,
    ``not confirmed`` (no reply, or the service does not show it) or ``not sent`` (it cannot be sent now)."""
    reason: str = ""

    @property
    def for_next_session(self) -> bool:
        """True where the service refused a voice that a new session can have."""
        return self.reason.startswith("cannot_update_voice")


def compare(
    requested: Settings, before: Settings, after: Settings, error: Exception | None = None
) -> list[SettingStatus]:
    """Return the status of each requested setting, from the settings before and after the update and its error."""
    statuses = []
    for path, value in requested.items():
        effective = lookup(after, path)
        if error is not None:
            status, reason = _failure(error, path, requested)
        elif effective is MISSING:
            status, reason = "not confirmed", "the service does not show this setting"
        elif same(value, effective):
            status, reason = "applied", ""
        elif same(lookup(before, path), effective):
            status, reason = "ignored", "ignored by the service"
        else:
            status, reason = "changed", "changed by the service"
        statuses.append(SettingStatus(path, value, None if effective is MISSING else effective, status, reason))
    return statuses


def _failure(error: Exception, path: str, requested: Settings) -> tuple[str, str]:
    """Return status and reason of a setting whose update failed. A refused update changes nothing at all."""
    if isinstance(error, RequestTimeout | ConnectionClosed):
        return "not confirmed", redact(str(error))
    if not isinstance(error, ServiceError):
        return "not sent", redact(f"{type(error).__name__}: {error}")
    named = (error.param or "").rpartition(".")[2]
    blamed = [one for one in requested if named and one.rpartition(".")[2] == named]
    if blamed and path not in blamed:
        return "refused", f"lost together with {blamed[0]}: a refused update changes nothing"
    return "refused", redact(str(error))
