"""Golden wire texts: one JSON object per line, after a first line that names their source."""

import json
from pathlib import Path
from typing import Any

from rtnb.protocol import Dialect
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS, Event

DATA = Path(__file__).resolve().parent.parent / "data"
DIALECTS: tuple[Dialect, ...] = ("ga", "preview")
_CLIENT_TYPES = CLIENT_EVENTS.keys() | {"transcription_session.update"}


def read(dialect: Dialect) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return the head line and the events of one dialect."""
    head, *events = map(json.loads, (DATA / f"{dialect}.jsonl").read_text(encoding="utf-8").splitlines())
    return head, events


def is_client(message: dict[str, Any]) -> bool:
    """Return whether a client sends this message."""
    return message["type"] in _CLIENT_TYPES


def registry_of(message: dict[str, Any]) -> dict[str, type[Event]]:
    """Return the registry that `wire.decode` needs for this message."""
    return CLIENT_EVENTS if is_client(message) else SERVER_EVENTS


def name(message: Any) -> str:
    """Return a readable id for pytest."""
    return f"{message['type']}-{message.get('event_id', '')}" if isinstance(message, dict) else str(message)


ALL: list[tuple[Dialect, dict[str, Any]]] = [(d, message) for d in DIALECTS for message in read(d)[1]]
CLIENT = [(d, m) for d, m in ALL if is_client(m)]
SERVER = [(d, m) for d, m in ALL if not is_client(m)]
