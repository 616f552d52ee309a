"""`ConnectionControl`: where a session goes, whether it is open, how long it lasts; connect, disconnect, a key.

Traits (kernel to page): `state`, `target`, `dialect`, `noun`, `model`, `session_id`, `expires_at`, `message`,
`takes_key`, `can_connect`.
Messages (page to kernel): ``{"kind": "connect"}``, ``{"kind": "disconnect"}``, ``{"kind": "key", "key": …}``. A key
travels only so: messages are not saved in a notebook, values are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from traitlets import Bool, Float, Unicode

from rtnb._loop import shared_loop
from rtnb.client import Session
from rtnb.client.log import EventLog, LogRow
from rtnb.errors import TransportError
from rtnb.transport import TargetFacts
from rtnb.widgets._base import bundle, format_error, styles
from rtnb.widgets._session_view import SessionView

Handler = Callable[[], object]


class ConnectionControl(SessionView):
    """The state of a session's connection.

    Parameters
    ----------
    session : Session, optional
        Which one; it can be disconnected here, but only who opened it knows how to connect again (see `on_connect`).
    """

    _esm = bundle("connection.js")
    _css = styles("connection.css")

    state = Unicode("closed", help="closed, connecting, open or failed.").tag(sync=True)
    target = Unicode("", help="Where to, without secrets.").tag(sync=True)
    dialect = Unicode("", help="ga or preview.").tag(sync=True)
    noun = Unicode("model", help="deployment on Azure, model elsewhere.").tag(sync=True)
    model = Unicode("", help="Which model answers.").tag(sync=True)
    session_id = Unicode("", help="The service's id of the session.").tag(sync=True)
    expires_at = Float(0.0, help="Unix time at which the service ends the session; 0 where it did not say.").tag(
        sync=True
    )
    message = Unicode("", help="What went wrong, in words, and what to do.").tag(sync=True)
    takes_key = Bool(False, help="Whether a key can be typed in.").tag(sync=True)
    can_connect = Bool(False, help="Whether somebody is there to connect.").tag(sync=True)

    def __init__(self, session: Session | None = None, **traits: Any) -> None:
        self._connect: Handler | None = None
        self._disconnect: Handler | None = None
        self._key: Callable[[str], object] | None = None
        super().__init__(session, **traits)
        self.on_msg(_on_message)

    def on_connect(self, connect: Handler, disconnect: Handler, key: Callable[[str], object] | None = None) -> None:
        """Name who connects, who disconnects, and who takes a key that was typed in; called on any thread."""
        self._connect, self._disconnect, self._key = connect, disconnect, key
        self.can_connect, self.takes_key = True, key is not None

    def describe(self, facts: TargetFacts) -> None:
        """Say where to, before there is a session."""
        self.target, self.noun, self.dialect, self.model = facts.url, facts.noun, facts.dialect, facts.model or ""

    def failed(self, error: BaseException) -> None:
        """Say why there is no session: the message and its next step."""
        self.set_trait("state", "failed")
        self.message = format_error(error)

    # --- on the background loop ---------------------------------------------------------------------------------------

    def _on_session(self, source: Session | EventLog) -> None:
        assert isinstance(source, Session)
        self.state, self.message = "open", ""
        self._show(source)

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        if isinstance(self.session, Session) and any(row.type.startswith("session.") for row in rows):
            self._show(self.session)

    def _show(self, session: Session) -> None:
        self.dialect, self.session_id = session.dialect, session.id or ""
        self.model = str(session.config.model or self.model)
        self.expires_at = float(session.expires_at or 0)

    def _on_end(self) -> None:
        ended = self.session.ended if isinstance(self.session, Session) else None
        self.state, self.expires_at = "closed", 0.0
        if ended is not None and ended.code not in (1000, 1005):
            self.message = format_error(ended)

    async def _close(self, session: Session) -> None:
        try:
            await session.close()
        except TransportError as error:
            self.failed(error)


def _on_message(self: ConnectionControl, content: Any, buffers: Any) -> None:
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind == "connect" and self._connect is not None:
        self._connect()
    elif kind == "key" and self._key is not None and isinstance(content.get("key"), str):
        self._key(content["key"].strip())
    elif kind == "disconnect":
        if self._disconnect is not None:
            self._disconnect()
        elif isinstance(self.session, Session):
            shared_loop().submit(self._close(self.session))
