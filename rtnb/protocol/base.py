"""What every protocol value is made of: `UNSET`, `Value` and `merge`.

Three kinds of "nothing" are kept apart: `UNSET` (the field is not on the wire), ``None`` (``null`` on the wire, which
clears or switches off) and a value. Fields this version does not know are kept in `extra` and written back unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, ClassVar, Final, Literal

JsonObject = Mapping[str, Any]
"""A JSON object kept as it is on the wire (tool schemas, error details, …)."""

Dialect = Literal["ga", "preview"]
"""``"ga"``: today's nested shape. ``"preview"``: the flat shape of 2024-10 … 2025-04, which services switch off."""


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""Not on the wire. False in a condition, and different from ``None``, which is ``null`` on the wire."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """What all nouns share: unknown wire fields are kept in `extra`."""

    replaces_whole: ClassVar[bool] = False
    """True where a partial value makes no sense (an audio format), so that `merge` replaces instead."""

    extra: JsonObject = field(default_factory=dict, repr=False)
    """Fields this version does not know, exactly as they came."""

    def __repr__(self) -> str:
        shown = ((f.name, getattr(self, f.name)) for f in fields(self))
        inside = (
            f"{name}=<{len(value)} bytes>" if isinstance(value, bytes) else f"{name}={value!r}"
            for name, value in shown
            if value is not UNSET and (name, value) != ("extra", {})
        )
        return f"{type(self).__name__}({', '.join(inside)})"


def merge(old: Any, new: Any) -> Any:
    """Lay a partial value over a whole one, as `session.update` does: what is `UNSET` in `new` stays.

    Nested values of the same class are merged field by field; anything else (``None``, lists, an audio format,
    another turn detection class) replaces.

    Examples
    --------
    >>> from rtnb.protocol.values import ServerVad
    >>> merge(ServerVad(threshold=0.5, silence_duration_ms=200), ServerVad(silence_duration_ms=300))
    ServerVad(type='server_vad', threshold=0.5, silence_duration_ms=300)
    """
    if new is UNSET:
        return old
    if not isinstance(new, Value) or type(old) is not type(new) or new.replaces_whole:
        return new
    changes = {f.name: merge(getattr(old, f.name), getattr(new, f.name)) for f in fields(new) if f.name != "extra"}
    return replace(old, **changes, extra={**old.extra, **new.extra})
