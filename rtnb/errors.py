"""All exceptions of `rtnb`.

::

    RtnbError
    ├─ ProtocolError
    │  ├─ LocalProtocolError      this side may not send that now; nothing was sent
    │  └─ RemoteProtocolError     the peer sent something unreadable (server role: `.answer` is the refusal to send)
    ├─ ServiceError               the service answered with `error`: .type .code .param .event_id
    │  ├─ ResponseFailed          a response ended with status "failed"
    │  └─ RateLimited             .retry_after_ms: how long to wait, None where the service does not state it
    ├─ RequestTimeout             no reply before the deadline: .request .awaited .timeout_s
    ├─ BudgetExceeded             the session's budget is used up: .limit .spent .allowed
    ├─ TransportError
    │  ├─ ConnectError            no session was opened: .url (without secrets) .status
    │  │  └─ AuthenticationError  the key, token or role was refused
    │  └─ ConnectionClosed        the connection ended: .code .reason
    ├─ AudioError (ValueError)    wrong dtype, shape or rate
    ├─ ScenarioError (ValueError) a simulator scenario that cannot be played
    ├─ TraceError (ValueError)    a recording of a session that cannot be read or written
    ├─ CaseError (ValueError)     a case, variant or grader of an experiment that cannot be used
    └─ WidgetError                the browser refused: permission denied, no device, insecure page

A message states what happened, the value, what is allowed, and (as a note) the next step. No message holds a key. Each
raise makes a new exception object, so that tracebacks of two callers never mix.

>>> from rtnb import errors
>>> issubclass(errors.AuthenticationError, errors.ConnectError)
True
"""

from __future__ import annotations

from typing import Any, Self


class RtnbError(Exception):
    """The root of all errors of this package: catch it to catch them all.

    Examples
    --------
    >>> import rtnb
    >>> try:
    ...     rtnb.OpenAI(base_url="not an address")
    ... except rtnb.RtnbError as error:
    ...     print(type(error).__name__)
    ConnectError
    """

    def with_hint(self, hint: str | None) -> Self:
        """Add the next step as a note, shown under the message in a traceback; None adds nothing."""
        if hint:
            self.add_note(hint)
        return self

    def again(self) -> Self:
        """Return a new exception with the same message, fields, notes and cause, and without a traceback."""
        twin = type(self).__new__(type(self), *self.args)  # not __init__: it takes other arguments in each class
        twin.__dict__.update(self.__dict__)
        if hasattr(self, "__notes__"):
            twin.__notes__ = list(self.__notes__)
        twin.__cause__ = self.__cause__
        return twin


class ProtocolError(RtnbError):
    """A message that the realtime protocol does not allow."""


class LocalProtocolError(ProtocolError):
    """A message that this side may not send now; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """A message of the peer that cannot be read.

    Parameters
    ----------
    message : str
        The reason.
    answer : Event, optional
        Server role only: the `error` event the service sends back. The session goes on.
    """

    def __init__(self, message: str, *, answer: Any = None) -> None:
        super().__init__(message)
        self.answer = answer


class ServiceError(RtnbError):
    """An `error` event of the service.

    Parameters
    ----------
    message : str
        The service's text, keys redacted.
    type, code, param : str or None
        As on the wire, e.g. ``invalid_request_error``, ``cannot_update_voice``, ``session.voice``.
    event_id : str or None
        The client event that caused it.

    Examples
    --------
    >>> print(ServiceError("the voice is fixed", code="cannot_update_voice", param="session.voice"))
    cannot_update_voice (at session.voice): the voice is fixed
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
    """A response that ended with status ``failed``; the response keeps what arrived before.

    Examples
    --------
    >>> print(ResponseFailed("the server had an error", code="server_error"))
    server_error: the server had an error
    """


class RateLimited(ServiceError):
    """A refusal because of too many requests; `retry_after_ms` is None where the service states no waiting time.

    Examples
    --------
    >>> RateLimited("too many requests", retry_after_ms=1_500).retry_after_ms
    1500
    """

    def __init__(self, message: str, *, retry_after_ms: int | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after_ms = retry_after_ms


class RequestTimeout(RtnbError):
    """A request without a reply before its deadline; the session stays usable.

    Parameters
    ----------
    request : str
        Wire name of the request, e.g. ``session.update``.
    awaited : str
        Wire name of the event that did not arrive, e.g. ``session.updated``.
    timeout_s : float
        The deadline, in seconds.

    Examples
    --------
    >>> print(RequestTimeout("session.update", awaited="session.updated", timeout_s=15))
    session.update: no session.updated within 15 s
    """

    def __init__(self, request: str, *, awaited: str, timeout_s: float) -> None:
        super().__init__(f"{request}: no {awaited} within {timeout_s:g} s")
        self.request = request
        self.awaited = awaited
        self.timeout_s = timeout_s


class BudgetExceeded(RtnbError):
    """A response refused because the session's budget is used up.

    Parameters
    ----------
    limit : str
        Which limit: ``usd``, ``minutes`` or ``output_audio_s``.
    spent, allowed : float
        In the unit of the limit.

    Examples
    --------
    >>> print(BudgetExceeded("usd", spent=0.51, allowed=0.5))
    the session's budget is used up: usd 0.51 of 0.5
    """

    def __init__(self, limit: str, *, spent: float, allowed: float) -> None:
        super().__init__(f"the session's budget is used up: {limit} {spent:g} of {allowed:g}")
        self.limit = limit
        self.spent = spent
        self.allowed = allowed


class TransportError(RtnbError):
    """A failure to move text to or from the service."""


class ConnectError(TransportError):
    """A session that could not be opened.

    Parameters
    ----------
    message : str
        The reason.
    url : str
        The address, without secrets.
    status : int or None
        The HTTP status or WebSocket close code, None where there was none (DNS, TLS, refused).

    Examples
    --------
    >>> ConnectError("the server refused", url="wss://example.com/realtime", status=404).status
    404
    """

    def __init__(self, message: str, *, url: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.url = url
        self.status = status


class AuthenticationError(ConnectError):
    """A key, token or role that was refused.

    Examples
    --------
    >>> issubclass(AuthenticationError, ConnectError)
    True
    """


class ConnectionClosed(TransportError):
    """The end of a connection.

    Parameters
    ----------
    message : str
        The reason.
    code : int
        WebSocket close code; 1006 where the connection vanished.
    reason : str
        The peer's reason text, keys redacted.

    Examples
    --------
    >>> ConnectionClosed("the connection was lost").code
    1006
    """

    def __init__(self, message: str, *, code: int = 1006, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class AudioError(RtnbError, ValueError):
    """Audio of the wrong dtype, shape, rate or format.

    Examples
    --------
    >>> import rtnb
    >>> try:
    ...     rtnb.audio.as_audio("hello")
    ... except AudioError as error:
    ...     print(type(error).__name__)
    AudioError
    """


class ScenarioError(RtnbError, ValueError):
    """A simulator scenario that cannot be played; names the step and the field."""


class TraceError(RtnbError, ValueError):
    """A recording of a session that cannot be read or written: damaged, of another version, or not safe to open."""


class CaseError(RtnbError, ValueError):
    """A case, variant or grader of an experiment that cannot be used; names the file, line and field."""


class WidgetError(RtnbError):
    """A refusal of the browser: permission denied, no device, insecure page."""
