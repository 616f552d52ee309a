"""Old JSON in, new JSON out: messages of the preview dialect as the GA dialect says them, with what had to be decided.

`rtnb.protocol.preview` translates without loss, for two peers that talk. Here a person moves code: what GA refuses is
left out, what one event was and two are now becomes two, and every such decision is reported.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import preview
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS

if TYPE_CHECKING:
    import pandas as pd

GONE = {
    "temperature": "GA has no temperature: it is left out",
    "commit": "response.create never commits: send input_audio_buffer.commit before it",
    "cancel_previous": "send response.cancel yourself and wait for its response.done",
    "append_input_items": "create these items with conversation.item.create first",
}
"""Settings without a counterpart; the last three were in the version 2024-10-01-preview only."""

_Object = dict[str, Any]
_EVENTS = CLIENT_EVENTS.keys() | SERVER_EVENTS.keys() | preview.GA_TYPES.keys()
_ALIKE = "This is said alike in both dialects."


@dataclass(frozen=True)
class Migration:
    """Result of `migrate`: ``print(…)`` is the new JSON, a notebook shows the decisions as well."""

    messages: tuple[dict[str, Any], ...]
    """In the GA dialect, in order."""
    notes: tuple[str, ...] = ()
    """Decisions that were needed, each once."""

    def __str__(self) -> str:
        return "\n".join(json.dumps(message, indent=2, ensure_ascii=False) for message in self.messages)

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return f"<pre>{escape(str(self))}</pre><ul>{notes}</ul>"


def migrate(old: str | Mapping[str, Any]) -> Migration:
    """Say old JSON in the GA dialect.

    Parameters
    ----------
    old : str or mapping
        Events of either side, settings of a session, or what was sent to and came from the address that makes
        ephemeral keys; as text also several of them, one after the other or as a list.

    Returns
    -------
    Migration
        The messages, and what had to be decided.

    Raises
    ------
    RemoteProtocolError
        It is not JSON, or no object: says where.

    Examples
    --------
    >>> new = migrate('{"type": "response.create", "response": {"modalities": ["audio", "text"], "temperature": 0.7}}')
    >>> new.messages
    ({'type': 'response.create', 'response': {'output_modalities': ['audio']}},)
    >>> new.notes[0]
    'GA has no temperature: it is left out'
    """
    notes: dict[str, None] = {}  # a set that keeps its order
    objects = _read(old) if isinstance(old, str) else [copy.deepcopy(dict(old))]
    messages = tuple(made for one in objects for made in _message(one, notes))
    return Migration(messages, tuple(notes))


def _read(text: str) -> Iterator[_Object]:
    """All objects in a text."""
    decoder, position = json.JSONDecoder(), 0
    while rest := text[position:].lstrip(" \t\r\n,;"):
        position = len(text) - len(rest)
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError as error:
            line = text.count("\n", 0, getattr(error, "pos", 0)) + 1
            raise RemoteProtocolError(f"line {line} is not JSON: {error}").with_hint(
                'Paste JSON: names and texts in "double quotes", true, false and null, no comments.'
            ) from error
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict):
                raise RemoteProtocolError(f"expected a JSON object, got {type(one).__name__}: {str(one)[:40]}")
            yield one


def _message(old: _Object, notes: dict[str, None]) -> Iterator[_Object]:
    old_kind = old.get("type")
    if not isinstance(old_kind, str) or old_kind in ("realtime", "transcription"):
        yield _settings(old, notes)
        return
    if old_kind not in _EVENTS and not old_kind.startswith("transcription_session."):
        notes[f"{old_kind!r} is no event of either dialect: it is left as it is"] = None
        yield old
        return
    for name in ("session", "response"):
        if isinstance(old.get(name), dict):
            old[name] = _tidied(old[name], notes)
    new = preview.event_from_preview(old)
    kind = str(new["type"])
    if kind != old_kind:
        notes[f"{old_kind} is now {kind}"] = None
    if isinstance(new.get("session"), dict):
        new["session"] = _typed(new["session"], notes)
    if kind == "conversation.item.created":
        notes["one conversation.item.created is now conversation.item.added, then conversation.item.done"] = None
        yield {**new, "type": "conversation.item.added"}
        yield {**new, "type": "conversation.item.done"}
        return
    if new == old:
        notes[_ALIKE] = None
    yield new


def _settings(old: _Object, notes: dict[str, None]) -> _Object:
    """The settings of a session, alone or as the address for ephemeral keys knew them."""
    secret = old.pop("client_secret", None)
    session = _typed(preview.session_from_preview(_tidied(old, notes)), notes)
    if isinstance(secret, dict) and "value" in secret:
        notes["the key is no longer client_secret.value but value, and lives 600 s instead of 60 s"] = None
        return {"value": "…", "expires_at": secret.get("expires_at"), "session": session}  # a key is not repeated
    if secret is None and "model" not in old:
        return session
    notes["these settings go to /openai/v1/realtime/client_secrets, inside session"] = None
    asked = secret if isinstance(secret, dict) else {}
    return {name: asked[name] for name in ("expires_after",) if name in asked} | {"session": session}


def _typed(session: _Object, notes: dict[str, None]) -> _Object:
    """The session object with the type GA asks for, first."""
    if "type" not in session:
        notes['every session object says "type": "realtime"'] = None
    return {"type": "realtime", **session}


def _tidied(old: _Object, notes: dict[str, None]) -> _Object:
    """Settings of a session or a response without what GA refuses, still in their preview places."""
    for name in [name for name in GONE if name in old]:
        notes[GONE[name]] = None
        del old[name]
    if "input_items" in old:
        notes["input_items is now input"] = None
        old["input"] = old.pop("input_items")
    said = old.get("modalities")
    if isinstance(said, list) and set(said) == {"text", "audio"}:
        notes["GA speaks or writes: ask for audio, its transcript comes along"] = None
        old["modalities"] = ["text", "audio"]  # in this order the translation knows it
    if isinstance(said := old.get("turn_detection"), dict) and said.get("type") == "none":
        notes['push to talk is "turn_detection": null'] = None
        old["turn_detection"] = None
    if "realtime-preview" in str(old.get("model")):
        notes[f"{old['model']} is retired: name a deployment of a GA model"] = None
    if isinstance(said := old.get("input_audio_transcription"), dict) and said.get("model"):
        notes["on Azure, transcription.model must be the name of a transcription deployment of yours"] = None
    for name, path in preview.SESSION_PATHS.items():
        if name in old:
            notes[f"{name} is now {'.'.join(path)}"] = None
    return old


def side_by_side(old: Iterable[Any], new: Iterable[Any]) -> pd.DataFrame:
    """Lay the log of a preview session beside that of a GA session.

    Parameters
    ----------
    old, new : EventLog
        Of the same conversation, in the preview and in the GA dialect.

    Returns
    -------
    pandas.DataFrame
        One row per type of event, in the order of their first ones: ``direction``, the wire type in each dialect
        (empty where there is none), how many of them came (``n_preview``, ``n_ga``), and whether the type has another
        name now (``renamed``).
    """
    import pandas as pd

    before, after = (
        Counter((row.direction, _JOINED.get(row.type, str(row.type))) for row in log) for log in (old, new)
    )
    order, place = list(after), 0
    for event in before:  # one that only the preview session has stands behind the one before it
        if event not in after:
            order.insert(place, event)
        place = order.index(event) + 1
    rows = []
    for direction, kind in order:
        n_old, n_new = before[direction, kind], after[direction, kind]
        was = {now: name for name, now in _JOINED.items()}.get(kind, preview.PREVIEW_TYPES.get(kind, kind))
        renamed = bool(n_old and n_new and was != kind)
        rows.append((direction, was if n_old else "", kind if n_new else "", n_old, n_new, renamed))
    return pd.DataFrame(rows, columns=["direction", "preview", "GA", "n_preview", "n_ga", "renamed"])


_JOINED = {"conversation.item.created": "conversation.item.added"}
"""An old event, and the first of the two that replaced it: both are in one row."""
