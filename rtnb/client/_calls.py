"""Who waits for which answer: calls are matched to answers by what they name, and to refusals by their `event_id`."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Any

from rtnb.errors import RateLimited, ServiceError
from rtnb.protocol.connection import dialect_hint
from rtnb.protocol.values import Dialect, ErrorDetail

Key = tuple[str, ...]
"""What an answer is recognised by: its type and, where it names one, the id of the item or response."""


class Calls:
    """Calls that wait. Answers without a name (`session.updated`) resolve in the order the calls were made."""

    def __init__(self) -> None:
        self._by_key: dict[Key, deque[tuple[str, asyncio.Future[Any]]]] = {}
        self._by_event: dict[str, tuple[Key, asyncio.Future[Any]]] = {}
        self._hushed: set[str] = set()

    def expect(self, event_id: str, key: Key) -> asyncio.Future[Any]:
        """Register a call; the future gets the answer or the refusal."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        self._by_key.setdefault(key, deque()).append((event_id, future))
        self._by_event[event_id] = (key, future)
        return future

    def answered(self, key: Key, value: Any) -> str | None:
        """Resolve the oldest call that waits for `key` and return its `event_id`; None where none does."""
        waiting = self._by_key.get(key)
        if not waiting:
            return None
        event_id, future = waiting.popleft()
        if not waiting:
            del self._by_key[key]
        self._by_event.pop(event_id, None)
        if not future.done():  # its caller may have given up
            future.set_result(value)
        return event_id

    def refused(self, event_id: str, error: ServiceError) -> bool:
        """Fail the call that was made by the client event `event_id`; False where none was."""
        if event_id in self._hushed:
            self._hushed.remove(event_id)
            return True
        entry = self._by_event.get(event_id)
        if entry is None:
            return False
        self.forget(event_id)
        if not entry[1].done():
            entry[1].set_exception(error)
        return True

    def waiting(self, key: Key) -> bool:
        """Whether a call waits for `key`."""
        return key in self._by_key

    def oldest(self, kind: str) -> str | None:
        """The `event_id` of the oldest call whose key begins with `kind`."""
        return next((event_id for event_id, (key, _) in self._by_event.items() if key[0] == kind), None)

    def hush(self, event_id: str) -> None:
        """Expect a refusal that tells nobody anything."""
        self._hushed.add(event_id)

    def forget(self, event_id: str) -> None:
        """Remove a call that was never sent, or is settled."""
        if event_id not in self._by_event:  # the session ended meanwhile
            return
        key, future = self._by_event.pop(event_id)
        rest = deque(entry for entry in self._by_key.get(key, ()) if entry[1] is not future)
        if rest:
            self._by_key[key] = rest
        else:
            self._by_key.pop(key, None)

    def end(self, error: Exception) -> None:
        """The session is over: fail every call."""
        for _, future in self._by_event.values():
            if not future.done():
                future.set_exception(error)
        self._by_event.clear()
        self._by_key.clear()


def _seen(future: asyncio.Future[Any]) -> None:
    """Mark the exception of a call whose caller gave up as seen: it is in the log."""
    if not future.cancelled():
        future.exception()


_HINTS = {
    "input_audio_buffer_commit_empty": "Append at least 100 ms of audio first; with turn detection the service commits "
    "by itself.",
    "cannot_update_voice": "The voice is frozen once the assistant spoke: open a new session for another one.",
    "conversation_already_has_active_response": "Wait for the running response, or session.response.cancel().",
    "session_expired": "Open a new session and send it what it needs to know.",
    "insufficient_quota": "Look at the limits and the credit of the account.",
}
_WAIT = re.compile(r"(?:try again|retry) (?:in|after) ([\d.]+) ?(ms|milliseconds?|s|seconds?)\b")


def service_error(detail: ErrorDetail, *, dialect: Dialect, kind: type[ServiceError] = ServiceError) -> ServiceError:
    """Make the exception of an error the service described; the text must be redacted already."""
    message = detail.message or "no message"
    facts: dict[str, Any] = {
        "type": detail.type or "error",
        "code": detail.code or None,
        "param": detail.param or None,
        "event_id": detail.event_id or None,
    }
    error: ServiceError
    if detail.code == "rate_limit_exceeded":
        error = RateLimited(message, retry_after_ms=_retry_after_ms(message), **facts)
    else:
        error = kind(message, **facts)
    error.with_hint(dialect_hint(detail, dialect=dialect) or _HINTS.get(detail.code or ""))
    return error


def _retry_after_ms(message: str) -> int | None:
    found = _WAIT.search(message)
    if found is None:
        return None
    try:
        value = float(found[1])
    except ValueError:
        return None
    return round(value * (1 if found[2].startswith("m") else 1000))
