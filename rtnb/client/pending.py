"""Pending requests: which reply and which refusal belongs to which request, and when a request has waited too long.

The service answers most requests with an event that names an item or a response. Three replies name nothing
(`session.updated`, `input_audio_buffer.committed`, `…cleared`), and an `error` may have no `event_id`. The rules
for these cases are here. Example: update A times out, update B is sent, then A's reply arrives. It does not
contain what B asked for, so it is A's late reply, and B goes on waiting.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from rtnb.errors import RateLimited, RequestTimeout, RtnbError, ServiceError
from rtnb.protocol.connection import dialect_hint
from rtnb.protocol.values import Dialect, ErrorDetail
from rtnb.redaction import redact

LATE_REPLY_S: Final = 5.0
"""How long an ambiguous reply is kept before it goes to the request that waits (chosen). If it was the late reply to an
earlier request, the reply to this one follows soon."""

_log = logging.getLogger("rtnb")


def fail(waiting: asyncio.Future[Any], error: RtnbError) -> None:
    """Raise `error` in the call that waits; nothing where it stopped waiting."""
    if not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # retrieved: a caller may stop waiting before it sees the error


@dataclass(eq=False, slots=True)
class Request:
    """A request on its way to its reply.

    Parameters
    ----------
    name : str
        Wire name, e.g. ``session.update``.
    event_id : str
        Of the client event: a refusal names it.
    awaits : str
        Wire name of the reply.
    item_id : str
        The item or response that the reply names; ``""`` where it names none.
    timeout_s : float
        Seconds until the deadline.
    reply : Future
        Gets the reply or the refusal.
    fits : callable, optional
        Whether a reply without a name can be the reply to this request.
    """

    name: str
    event_id: str
    awaits: str
    item_id: str
    timeout_s: float
    reply: asyncio.Future[Any]
    fits: Callable[[Any], bool] | None = None
    abandoned: bool = False
    """Whether the caller stopped waiting: a late reply is its, and no other request's."""
    held: Any = None
    """A reply that may belong to an abandoned request."""

    def timeout(self) -> RequestTimeout:
        """Return the error for a deadline that has passed."""
        return RequestTimeout(self.name, awaited=self.awaits, timeout_s=self.timeout_s).with_hint(
            "The session is still open: try again, or pass a longer timeout_s=. The log shows what arrived."
        )


class PendingRequests:
    """The table of requests that wait for a reply, in the order they were sent."""

    def __init__(self) -> None:
        self.table: dict[str, Request] = {}
        """`event_id` -> request; entered before it is sent."""

    def discard(self, request: Request) -> None:
        """Remove a request that was not sent, or whose reply no longer matters."""
        self.table.pop(request.event_id, None)

    def abandon(self, request: Request) -> None:
        """Stop waiting for a request. An unnamed late reply would look like the next request's: it is remembered."""
        request.abandoned = True
        if request.item_id or request.name == "response.create":
            self.discard(request)

    async def wait(self, request: Request) -> Any:
        """Return the reply to a request that was sent.

        Raises
        ------
        RequestTimeout
            No reply before the deadline.
        ServiceError
            The service refuses.
        ConnectionClosed
            The connection ended first.
        """
        try:
            async with asyncio.timeout(request.timeout_s):
                return await request.reply
        except (TimeoutError, asyncio.CancelledError) as error:
            self.abandon(request)
            if isinstance(error, TimeoutError):
                raise request.timeout() from None
            raise

    def waiting(self, awaits: str) -> bool:
        """Whether a request waits for this kind of reply."""
        return any(request.awaits == awaits for request in self._live())

    def _live(self) -> Iterator[Request]:
        return (request for request in self.table.values() if not request.abandoned)

    # --- replies ------------------------------------------------------------------------------------------------------

    def answer(self, awaits: str, item_id: str, reply: Any) -> bool:
        """Give a reply to the request that waits for it; False where none does."""
        waiting = [r for r in self.table.values() if r.awaits == awaits and r.item_id == item_id]
        if not waiting:
            return False
        if not item_id and (any(r.abandoned for r in waiting) or waiting[0].fits):
            return self._answer_unnamed(waiting, reply)
        self._resolve(waiting[0], reply)
        return True

    def answer_to(self, event_id: str, reply: Any) -> None:
        """Give a reply to the request of this `event_id`; nothing where it stopped waiting."""
        if (request := self.table.get(event_id)) is not None:
            self._resolve(request, reply)

    def _answer_unnamed(self, waiting: list[Request], reply: Any) -> bool:
        """Choose between requests whose replies look alike, where some of them have timed out."""
        live = [request for request in waiting if not request.abandoned]
        fitting = [request for request in live if request.fits is not None and request.fits(reply)]
        if fitting:
            self._resolve(fitting[0], reply)
            return True
        if not waiting[0].abandoned:
            self._resolve(waiting[0], reply)  # the service may have changed a value: order decides
            return True
        if not live or live[0].fits is not None:
            _log.info("%s: the reply arrived after the deadline", waiting[0].name)
            self.discard(waiting[0])
        elif live[0].held is None:  # A's late reply, or B's where A's was lost: a second reply would tell
            live[0].held = (reply,)
            asyncio.get_running_loop().call_later(LATE_REPLY_S, self._settle_held, live[0])
        else:
            self._resolve(live[0], reply)
        return True

    def _settle_held(self, request: Request) -> None:
        if request.event_id in self.table and not request.abandoned:
            self._resolve(request, request.held[0])

    def _resolve(self, request: Request, reply: Any) -> None:
        self.discard(request)
        # The service answers in order: older requests for the same reply that timed out get none any more.
        for old in [r for r in self.table.values() if r.abandoned and r.awaits == request.awaits]:
            self.discard(old)
        if not request.reply.done():
            request.reply.set_result(reply)

    # --- refusals -----------------------------------------------------------------------------------------------------

    def refused(self, detail: ErrorDetail, error: ServiceError) -> Request | None:
        """Fail the request that an `error` belongs to, and return it; None where it belongs to none.

        An error without `event_id` belongs to the request that fits its code or param, else to the only one, else to
        the oldest.
        """
        request = self._of_error(detail)
        if request is not None:
            self.discard(request)
            fail(request.reply, error)
        return request

    def _of_error(self, detail: ErrorDetail) -> Request | None:
        if isinstance(detail.event_id, str) and detail.event_id:
            return self.table.get(detail.event_id)
        if detail.code in _ABOUT_THE_SESSION:
            return None
        live = list(self._live())
        param = detail.param if isinstance(detail.param, str) else ""
        names = _REQUEST_OF_CODE.get(detail.code or "") or _REQUEST_OF_PARAM.get(param.partition(".")[0])
        if names is not None:
            fitting = [request for request in live if request.name.startswith(names)]
            if fitting or detail.code in _REQUEST_OF_CODE:
                return fitting[0] if fitting else None
        return live[0] if live else None

    def end(self, error: RtnbError) -> None:
        """Fail every request: the connection is over."""
        for request in self.table.values():
            fail(request.reply, error.again())
        self.table.clear()


_REQUEST_OF_CODE: Final[dict[str, tuple[str, ...]]] = {
    "response_cancel_not_active": ("response.cancel",),
    "conversation_already_has_active_response": ("response.create",),
    "input_audio_buffer_commit_empty": ("input_audio_buffer.commit",),
    "invalid_tool_call_id": ("conversation.item.create",),
}
"""Error code -> requests that the service refuses with it (protocol errors as documented and reported)."""
_REQUEST_OF_PARAM: Final[dict[str, tuple[str, ...]]] = {
    "session": ("session.update",),
    "response": ("response.create",),
    "item": ("conversation.item.create",),
    "previous_item_id": ("conversation.item.create",),
    "item_id": ("conversation.item.delete", "conversation.item.retrieve", "conversation.item.truncate"),
    "audio_end_ms": ("conversation.item.truncate",),
    "content_index": ("conversation.item.truncate",),
    "audio": ("input_audio_buffer.append",),
    "response_id": ("response.cancel",),
}
"""First part of an error's `param` -> requests that have such a field."""
_ABOUT_THE_SESSION: Final = frozenset({"session_expired", "beta_api_shape_disabled", "invalid_api_key"})
"""Error codes that no request causes: the connection closes next."""


# --- errors of the service as exceptions ------------------------------------------------------------------------------

_HINTS = {
    "input_audio_buffer_commit_empty": "Append at least 100 ms first. With turn detection the service commits.",
    "cannot_update_voice": "The voice is fixed once the assistant has spoken: open a new session for another voice.",
    "conversation_already_has_active_response": "Wait for the active response, or call session.response.cancel().",
    "session_expired": "Open a new session, or connect with reconnect=True.",
    "insufficient_quota": "Check the limits and the credit of the account.",
}
_WAIT = re.compile(r"(?:try again|retry) (?:in|after) (\d+(?:\.\d+)?) ?(ms|milliseconds?|s|seconds?)\b")


def service_error(detail: ErrorDetail, *, dialect: Dialect, kind: type[ServiceError] = ServiceError) -> ServiceError:
    """Return the exception for an error that the service described; its text is redacted."""
    message = redact(str(detail.message or "no message"))
    facts: dict[str, Any] = {name: getattr(detail, name) or None for name in ("code", "param", "event_id")}
    facts["type"] = detail.type or "error"
    error: ServiceError
    if detail.code == "rate_limit_exceeded":
        wait = _WAIT.search(message)
        retry_after_ms = round(float(wait[1]) * (1 if wait[2].startswith("m") else 1000)) if wait else None
        error = RateLimited(message, retry_after_ms=retry_after_ms, **facts)
    else:
        error = kind(message, **facts)
    return error.with_hint(dialect_hint(detail, dialect=dialect) or _HINTS.get(detail.code or ""))
