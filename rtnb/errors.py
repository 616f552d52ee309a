"""Every exception `rtnb` raises.

::

    RtnbError
    ├─ ProtocolError
    │  ├─ LocalProtocolError      we may not say this now
    │  └─ RemoteProtocolError     the peer said what cannot be read (server role: `.answer` is the refusal to send)
    ├─ ServiceError               the service answered `error`: .type .code .param .event_id
    │  ├─ ResponseFailed          a response ended with status "failed"
    │  └─ RateLimited             .retry_after_ms says how long to wait, None where the service does not
    ├─ TransportError
    │  ├─ ConnectError            .url (without secrets) .status
    │  │  └─ AuthenticationError  the key, token or role was refused
    │  └─ ConnectionClosed        .code .reason
    ├─ AudioError (ValueError)    wrong dtype, shape, rate: says what came and what is allowed
    ├─ ScenarioError (ValueError) a simulator scenario that cannot be played
    └─ WidgetError                the browser refused: denied, no device, insecure page

A message says what happened, the value, what is allowed, and (as a note) the next step. No message holds a key.
"""

from __future__ import annotations

from typing import Any


class RtnbError(Exception):
    """The root of all errors of this package: catch it to catch them all."""

    def with_hint(self, hint: str | None) -> RtnbError:
        """Add the next step as a note, shown under the message in a traceback; None adds nothing."""
        if hint:
            self.add_note(hint)
        return self


class ProtocolError(RtnbError):
    """Something was said that the realtime protocol does not allow."""


class LocalProtocolError(ProtocolError):
    """This side may not say that now; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer said what cannot be read.

    Parameters
    ----------
    message : str
        What was wrong, in words.
    answer : Event, optional
        Server role only: the `error` event the service sends back. The session goes on.
    """

    def __init__(self, message: str, *, answer: Any = None) -> None:
        super().__init__(message)
        self.answer = answer


class ServiceError(RtnbError):
    """The service answered with an `error` event.

    Parameters
    ----------
    message : str
        The service's own words, keys redacted.
    type, code, param : str or None
        As on the wire, e.g. ``invalid_request_error``, ``cannot_update_voice``, ``session.voice``.
    event_id : str or None
        The client event that caused it.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "error",
        code: str | None = None,
        param: str | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.code = code
        self.param = param
        self.event_id = event_id

    def __str__(self) -> str:
        head = self.code or self.type
        where = f" (at {self.param})" if self.param else ""
        return f"{head}{where}: {self.args[0]}"


class ResponseFailed(ServiceError):
    """A response ended with status ``failed``; what had arrived is kept on the response."""


class RateLimited(ServiceError):
    """The service asks to slow down; `retry_after_ms` is None where it does not say for how long."""

    def __init__(self, message: str, *, retry_after_ms: int | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after_ms = retry_after_ms


class TransportError(RtnbError):
    """Moving text to or from the service failed."""


class ConnectError(TransportError):
    """No session came to be.

    Parameters
    ----------
    message : str
        What happened, in words.
    url : str
        Where to, without secrets.
    status : int or None
        The HTTP status or WebSocket close code, None where there was none (DNS, TLS, refused).
    """

    def __init__(self, message: str, *, url: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.url = url
        self.status = status


class AuthenticationError(ConnectError):
    """The key, token or role was refused."""


class ConnectionClosed(TransportError):
    """The connection ended.

    Parameters
    ----------
    message : str
        What happened, in words.
    code : int
        WebSocket close code; 1006 where the connection just vanished.
    reason : str
        The peer's reason text, keys redacted.
    """

    def __init__(self, message: str, *, code: int = 1006, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class AudioError(RtnbError, ValueError):
    """Audio of the wrong dtype, shape, rate or format."""


class ScenarioError(RtnbError, ValueError):
    """A simulator scenario that cannot be played; names the step and the field."""


class WidgetError(RtnbError):
    """The browser refused: permission denied, no device, insecure page."""
