"""Secrets never enter the log: what could carry one is cleaned before anybody sees it.

Only a few kinds of events can carry a secret: settings (keys of MCP servers, ephemeral keys of preview services) and
refusals (services echo parts of a refused key). All others pass untouched, so the audio path pays nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from rtnb.errors import LocalProtocolError
from rtnb.protocol import events, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event, UnknownEvent
from rtnb.protocol.values import SessionConfig
from rtnb.transport.credentials import MASK, redact

CARRIERS: Final[frozenset[type[Event]]] = frozenset(
    {
        events.SessionCreated,
        events.SessionUpdated,
        events.SessionUpdate,
        events.ResponseCreate,
        events.ResponseDone,
        events.Error,
        events.ConversationItemInputAudioTranscriptionFailed,
        UnknownEvent,
    }
)
"""The events that are looked through."""

_SECRET_NAMES = frozenset({"client_secret", "authorization", "headers", "api_key", "api-key", "access_token", "token"})
_SPOKEN_NAMES = frozenset({"message", "reason", "text_as_received"})
"""Free text of the service: everything that looks like a key is taken out. Elsewhere only known secrets are, because
ids and tool schemas look like keys too."""


def redact_event(event: Event, secrets: Sequence[str] = ()) -> Event:
    """Return the event without secrets: itself where it holds none.

    Parameters
    ----------
    event : Event
        Sent or received.
    secrets : sequence of str, default ()
        Secrets known to be in play; taken out wherever they stand.
    """
    try:
        message = json.loads(wire.encode(event))
    except LocalProtocolError as error:  # nested beyond what JSON can be written from: nobody can look through it
        return UnknownEvent(type=event.type, payload={}, problem=f"not shown: {error}")
    clean = _clean(message, secrets, "")
    if clean == message:
        return event
    if isinstance(event, UnknownEvent):
        return UnknownEvent(type=event.type, event_id=event.event_id, payload=clean, problem=event.problem)
    registry = CLIENT_EVENTS if event.type in CLIENT_EVENTS else SERVER_EVENTS
    return wire.decode(clean, registry=registry)


def redact_config(config: SessionConfig, secrets: Sequence[str] = ()) -> SessionConfig:
    """Return the settings with the keys in them masked."""
    event = redact_event(events.SessionUpdated(session=config), secrets)
    return event.session if isinstance(event, events.SessionUpdated) else SessionConfig(type=config.type)


def _clean(value: Any, secrets: Sequence[str], name: str) -> Any:
    if name in _SECRET_NAMES and value:
        return MASK
    if isinstance(value, dict):
        return {key: _clean(entry, secrets, key) for key, entry in value.items()}
    if isinstance(value, list):
        return [_clean(entry, secrets, name) for entry in value]
    if not isinstance(value, str):
        return value
    if name in _SPOKEN_NAMES:
        return redact(value, secrets)
    for secret in secrets:
        value = value.replace(secret, MASK)
    return value
