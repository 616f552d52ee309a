"""`ConnectionControl`: state, target, time left and usage of a session's connection; connect, disconnect, a key.

Traits (kernel to page): `state`, `target`, `dialect`, `noun`, `model`, `transport`, `session_id`, `expires_at`,
`usage`, `message`, `takes_key`, `can_connect`.
Messages (page to kernel): ``{"kind": "connect"}``, ``{"kind": "disconnect"}``, ``{"kind": "key", "key": …}``. A key
travels only so: messages are not saved in a notebook, values are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from traitlets import Bool, Float, Unicode

from rtnb._loop import shared_loop
from rtnb.analysis.cost import CostMeter
from rtnb.client import EventLog, LogRow, Session
from rtnb.errors import TransportError
from rtnb.widgets._base import format_error, styles
from rtnb.widgets._session_view import SessionView

Handler = Callable[[], object]


class ConnectionControl(SessionView):
    """The state of a session's connection.

    Parameters
    ----------
    session : Session, optional
        The session; it can be disconnected here, and connected again after `on_connect`.
    """

    _css = styles("connection.css", "playground.css")  # the latter for the Box around it, which has no style sheet

    state = Unicode("closed", help="closed, connecting, open or failed.").tag(sync=True)
    target = Unicode("", help="Address, without secrets.").tag(sync=True)
    dialect = Unicode("", help="ga or preview.").tag(sync=True)
    noun = Unicode("model", help="deployment on Azure, model elsewhere.").tag(sync=True)
    model = Unicode("", help="Name of the model.").tag(sync=True)
    transport = Unicode("WebSocket", help="Name of the transport.").tag(sync=True)
    session_id = Unicode("", help="The service's id of the session.").tag(sync=True)
    expires_at = Float(0.0, help="Unix time at which the service ends the session; 0 if unknown.").tag(sync=True)
    usage = Unicode("", help="Turns, tokens and estimated cost of the session.").tag(sync=True)
    message = Unicode("", help="The last problem and the next step.").tag(sync=True)
    takes_key = Bool(False, help="Whether a key can be typed in.").tag(sync=True)
    can_connect = Bool(False, help="Whether Connect does something.").tag(sync=True)

    def __init__(self, session: Session | None = None, **traits: Any) -> None:
        self._handlers: dict[str, Callable[..., object]] = {"disconnect": self._disconnect}
        self.cost = CostMeter()
        """Estimated cost of this session."""
        super().__init__(session, **traits)
        self.on_msg(_on_message)

    def on_connect(self, connect: Handler, disconnect: Handler, key: Callable[[str], object] | None = None) -> None:
        """Set the handlers of Connect, of Disconnect and of a key that was typed in; called on any thread."""
        self._handlers = {"connect": connect, "disconnect": disconnect, **({"key": key} if key else {})}
        self.can_connect, self.takes_key = True, key is not None

    def set_error(self, error: BaseException) -> None:
        """Show why there is no session: the message and its next step."""
        self.set_trait("state", "failed")
        self.message = format_error(error)

    # --- on the background loop ---------------------------------------------------------------------------------------

    def _on_session(self, source: Session | EventLog) -> None:
        assert isinstance(source, Session)
        self.cost = CostMeter()
        self.state, self.message, self.usage = "open", "", ""
        self._show(source)

    def _on_rows(self, rows: Sequence[LogRow]) -> None:
        self.cost.feed(rows)
        self.usage = format_usage(self.cost)
        if isinstance(self.session, Session) and any(row.type.startswith("session.") for row in rows):
            self._show(self.session)

    def _show(self, session: Session) -> None:
        self.dialect, self.session_id = session.dialect, session.id or ""
        self.model = str(session.config.model or self.model)
        self.expires_at = float(session.expires_at or 0)

    def _on_end(self) -> None:
        self.state, self.expires_at = "closed", 0.0
        self.message = self._format_end() or self.message

    def _disconnect(self) -> None:
        shared_loop().submit(self._close())

    async def _close(self) -> None:
        try:
            if isinstance(self.session, Session):
                await self.session.close()
        except TransportError as error:
            self.set_error(error)


def format_usage(cost: CostMeter) -> str:
    """Return turns, tokens and estimated cost as one text; no cost where a price is not known.

    >>> format_usage(CostMeter())
    ''
    """
    turns = sum(charge.what == "response" for charge in cost.charges)
    if not turns:
        return ""
    parts = [f"{turns} turn{'' if turns == 1 else 's'}", f"{cost.tokens:,} tokens"]
    return " · ".join(parts if cost.unknown else [*parts, f"${cost.usd:.3f}"])


def _on_message(self: ConnectionControl, content: dict[str, str], buffers: Any) -> None:
    if handler := self._handlers.get(content["kind"]):
        handler(*([content["key"].strip()] if "key" in content else []))
